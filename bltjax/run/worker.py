"""One process for one job: pins itself, holds the job's lock, does it, and leaves a line that says why when
it cannot.

python -m bltjax.run.worker DIRECTORY [--core N] [--profile]
"""

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
from bltjax.parallel import host, stopping


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


def main() -> int:
    host.keep_memory()  # before any thread: each would have a heap of its own, which gives memory back
    with stopping.listening():
        return work()


def work() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("--core", type=int)
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    if args.core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {args.core})  # before JAX starts: its thread pool takes its size from here
    watch_parent()
    from bltjax.run import jobs
    from bltjax.storage import locks, rundir

    host.write_any_text()
    host.ready()
    try:
        options = dict(progress=False, profile=args.profile) if jobs.kind_of(args.directory) == "run" else {}
        jobs.do(
            args.directory, wait=False, say=lambda text: print(text, file=sys.stderr, flush=True), **options
        )
        return exit_codes.DONE
    except locks.Busy:
        return exit_codes.BUSY
    except KeyboardInterrupt as stopped:
        print(f"stopped by {stopped.args[0] if stopped.args else 'SIGINT'}", file=sys.stderr)
        return exit_codes.STOPPED
    except Interrupted as stopped:
        print(one_line(stopped), file=sys.stderr)
        return exit_codes.STOPPED
    except Exception as error:
        if not isinstance(error, UserError):
            traceback.print_exc()
        line = one_line(error)
        print(line, file=sys.stderr)
        try:
            rundir.write_json(args.directory / "failed.json", {"error": line, "time": time.time()})
        except OSError as full:
            print(f"failed.json could not be written: {full}", file=sys.stderr)
        return error.exit_code if isinstance(error, UserError) else exit_codes.FAILED


if __name__ == "__main__":
    stopping.leave(main())
