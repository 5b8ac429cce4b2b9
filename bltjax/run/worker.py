"""One process for one job: pins itself, holds the job's lock, does it, and leaves a line that says why when
it cannot.

python -m bltjax.run.worker DIRECTORY [--child] [--core N] [--profile]

Started by a scheduler (launch/start.py), it may be one of several processes of a run, which find one another
as those of `bltjax train` do."""

import argparse
import os
import pathlib
import signal
import sys
import threading
import time
import traceback

from bltjax import exit_codes
from bltjax.errors import Interrupted, UserError
from bltjax.parallel import distributed, host, stopping


def watch_parent() -> None:
    """Stops this process (checkpoint first) when the other end of its standard input goes away."""

    def wait():
        while os.read(0, 1024):
            pass
        if not stopping.first():  # a signal that the parent got too, and passes on so
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def one_line(error: BaseException) -> str:
    """An error as one line."""
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"


def main(argv=None) -> int:
    host.keep_memory()  # before any thread: each would have a heap of its own, which gives memory back
    with stopping.listening():
        return work(argv)


def work(argv=None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("--core", type=int)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--child", action="store_true", help="stop when standard input ends")
    parser.add_argument("--wait", type=float, default=0.0, help="seconds for another's process to end")
    parser.add_argument("--chips", type=int, help="that this attempt holds")
    parser.add_argument("--on", default="", help="the scheduler's name for this attempt")
    parser.add_argument("--mesh", default="")
    parser.add_argument("--coordinator", default="")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--process", type=int, default=-1)
    parser.add_argument("--store", default="", help="URL of the root that DIRECTORY is a mirror of")
    parser.add_argument("--needs", action="append", default=[], help="with --store: of a job that it reads")
    args = parser.parse_args(argv)
    if args.core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {args.core})  # before JAX starts: its thread pool takes its size from here
    if args.child:
        watch_parent()
    from bltjax.run import jobs
    from bltjax.storage import locks

    host.write_any_text()
    host.ready()
    say = lambda text: print(text, file=sys.stderr, flush=True)
    code, wait, first = exit_codes.FAILED, True, True
    try:
        mesh, options, stored = None, {}, mirrored(args) if args.store else None
        if jobs.kind_of(args.directory) == "run":
            mesh = None if args.child else joined(args)
            options = dict(progress=False, profile=args.profile)
            if stored:
                options["on_checkpoint"] = stored.checkpoint
        first = distributed.first(mesh)
        do = dict(wait=args.wait, say=say, chips=args.chips, on=args.on, mesh=mesh, within=stored)
        jobs.do(args.directory, **do, **options)
        code = exit_codes.DONE
    except locks.Busy:
        code = exit_codes.BUSY
    except KeyboardInterrupt as stopped:
        say(f"stopped by {stopped.args[0] if stopped.args else 'SIGINT'}")
        code = exit_codes.STOPPED
    except Interrupted as stopped:
        say(one_line(stopped))
        code = exit_codes.STOPPED
    except Exception as error:
        if distributed.joined() and not isinstance(error, UserError):
            say(f"bltjax: {distributed.lost(error)}")
            code, wait = exit_codes.STOPPED, False  # the last checkpoint stands
        else:
            if not isinstance(error, UserError):
                traceback.print_exc()
            say(one_line(error))
            if first:
                failed(args.directory, one_line(error))
            code = error.exit_code if isinstance(error, UserError) else exit_codes.FAILED
    distributed.leave(code, wait)
    return code


def mirrored(args):
    """The job in its store (storage/work.py); of it what is small is here from now on. A failure is published
    with what it left."""
    from bltjax.run import jobs
    from bltjax.storage import mirror, work

    root = mirror.Root.at(args.store)

    class Reported(work.Work):
        def __exit__(self, kind, error, trace):
            if isinstance(error, Exception) and not isinstance(error, Interrupted) and self.lease:
                failed(args.directory, one_line(error))
            super().__exit__(kind, error, trace)

    root.directory(args.directory).pull_small()
    stop = lambda: os.kill(os.getpid(), signal.SIGTERM)
    beside = lambda: jobs.beside(args.directory)
    return Reported(root, args.directory, args.needs, max(args.wait, 0.0), stop, beside)


def joined(args):
    """The mesh of this process and the others of its run; None: one device."""
    from bltjax import models
    from bltjax.parallel import sharding
    from bltjax.storage import rundir

    shape = sharding.parse_mesh(args.mesh) if args.mesh else None
    distributed.start(args.coordinator, args.processes, args.process)
    mesh = distributed.mesh(shape)
    if mesh is not None:
        models.check_mesh(rundir.load_config(args.directory), tuple(mesh.shape.values()))
    return mesh


def failed(directory: pathlib.Path, line: str) -> None:
    """Leaves the line where `status` and the runner look for it."""
    from bltjax.storage import rundir

    try:
        rundir.write_json(directory / "failed.json", {"error": line, "time": time.time()})
    except OSError as full:
        print(f"failed.json could not be written: {full}", file=sys.stderr)


if __name__ == "__main__":
    stopping.leave(main())
