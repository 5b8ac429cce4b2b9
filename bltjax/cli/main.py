"""The command line: parses, calls, prints. Exit status 0 is done, 2 a mistake of the user's, anything else a
reported failure."""

import argparse
import contextlib
import errno
import json
import os
import pathlib
import sys
import traceback

from bltjax.cli import data
from bltjax.errors import UserError
from bltjax.training.signals import Interrupted, RunFailed


class Parser(argparse.ArgumentParser):
    def error(self, message):
        if "--byte-lm" in message:
            message = "--byte-lm is now called --entropy-model"
        self.exit(2, f"{self.prog}: {' '.join(message.split())} (see {self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    top = Parser(
        prog="bltjax", description="FLOP-controlled scaling experiments: patches of bytes against BPE tokens."
    )
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=Parser)

    def verb(name, does, call, help, experiment=True):
        sub = verbs.add_parser(name, help=help, description=does)
        if experiment:
            sub.add_argument(
                "experiment",
                help="a registered name (optionally NAME:arg), or the path of your own experiment file",
            )
            sub.add_argument(
                "--set",
                action="append",
                default=[],
                metavar="KEY=VALUE",
                help="override a key of every run's config",
            )
            sub.add_argument(
                "--runlocal", action="store_true", help="the experiment's small version, for a laptop"
            )
            sub.add_argument("--only", default="", metavar="TEXT", help="only runs whose name contains TEXT")
            sub.add_argument(
                "--root",
                type=pathlib.Path,
                default=pathlib.Path("runs"),
                help="where run directories live (default: runs)",
            )
        sub.set_defaults(call=call)
        return sub

    sub = verb(
        "plan",
        "Every run of an experiment, before anything is spent: nothing is run.",
        plan,
        "what an experiment will run and cost",
    )
    sub.add_argument(
        "--topology",
        default="",
        help="estimate step time, memory and chip-hours on these chips: v5p:4x4x4, h100:16, ...",
    )
    sub.add_argument("--json", action="store_true")
    sub = verb(
        "compile",
        "Compile every run's training step for chips that are not here: memory, traffic, the pod's own"
        " out-of-memory error.",
        compile_,
        "what an experiment needs on a pod, compiled for it",
    )
    sub.add_argument(
        "--topology", required=True, help="v5p:4x4x4, v6e:8x8, 2*v5p:4x4x4 (two slices), cpu:8, ..."
    )
    sub.add_argument(
        "--mesh",
        default="",
        help="DATA, DATAxMODEL or REPLICAxDATAxMODEL (default: FSDP over a slice, or half a large one)",
    )
    sub.add_argument(
        "--fit",
        action="store_true",
        help="choose mesh, remat and microbatches: the fastest that fits, by a roofline estimate",
    )
    sub.add_argument("--json", action="store_true")
    sub.add_argument(
        "--out",
        type=pathlib.Path,
        help=(
            "the table's file, which later commands go on from (default:"
            " ROOT/EXPERIMENT/compiled/TOPOLOGY.json)"
        ),
    )
    sub = verb(
        "run",
        "Run or resume all runs of an experiment on this machine.",
        run,
        "run or resume an experiment here",
    )
    sub.add_argument(
        "--workers",
        type=int,
        default=0,
        help="processes at once (default: one per core on CPUs, one on accelerators)",
    )
    sub = verb("status", "Where every run stands.", status, "done, running, failed, where and why")
    sub.add_argument("--json", action="store_true")
    sub = verb(
        "report",
        "CSV, tables, plots and one HTML page from the run directories.",
        report,
        "tables, plots and one HTML page",
    )
    sub.add_argument("--json", action="store_true")
    sub.add_argument("--out", type=pathlib.Path, help="where to write (default: ROOT/EXPERIMENT/report)")

    sub = verb("train", "A single run in this process.", train, "a single run", experiment=False)
    sub.add_argument("--config", required=True, help="an experiment file or name, or a run's config.json")
    sub.add_argument(
        "--from",
        type=pathlib.Path,
        dest="source",
        metavar="DIR",
        help=(
            "start from this model's parameters: a run, an imported checkpoint, "
            "a Hugging Face Blt, or a Llama (the global model of a BLT)"
        ),
    )
    sub.add_argument("--run", default="", help="which run of an experiment that has several")
    sub.add_argument(
        "--run-dir",
        type=pathlib.Path,
        help=(
            "where to put it, as ROOT/EXPERIMENT/RUN, with what runs share in ROOT/_shared (default:"
            " runs/EXPERIMENT/RUN)"
        ),
    )
    sub.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    sub.add_argument("--runlocal", action="store_true")
    sub.add_argument("--profile", action="store_true", help="trace a few steps into RUN_DIR/profile")
    sub.add_argument("--tensorboard", action="store_true", help="mirror the metrics (extra `tensorboard`)")
    sub.add_argument(
        "--mesh",
        default="",
        metavar="SHAPE",
        help=(
            "devices as DATA, DATAxMODEL or REPLICAxDATAxMODEL, such as 8, 4x2 or "
            "2x2x2 (default: all on DATA); the numbers do not depend on it"
        ),
    )
    sub.add_argument(
        "--devices", type=int, default=0, metavar="N", help="CPUs: make this process have N devices"
    )
    sub.add_argument(
        "--coordinator",
        default="",
        metavar="HOST:PORT",
        help=(
            "of process 0, where processes meet (default: what Slurm, GKE "
            "or a TPU VM says, or no other processes)"
        ),
    )
    sub.add_argument(
        "--processes",
        type=int,
        default=0,
        metavar="N",
        help="how many processes the run has; 1 alone: never ask the cluster",
    )
    sub.add_argument("--process", type=int, default=-1, metavar="I", help="which one this is, from 0")
    sub.add_argument(
        "--heartbeat",
        type=int,
        default=30,
        metavar="SECONDS",
        help="a process silent for so long is gone, and all end",
    )
    sub.add_argument(
        "--start-timeout",
        type=int,
        default=300,
        metavar="SECONDS",
        help="how long processes may take to meet",
    )

    sub = verb(
        "generate", "Goes on with a text, byte by byte.", generate, "go on with a text", experiment=False
    )
    sub.add_argument(
        "model",
        type=pathlib.Path,
        help="a run directory, an imported checkpoint, or a Hugging Face directory",
    )
    sub.add_argument("prompt", nargs="*", help="texts to go on with, all in one batch")
    sub.add_argument("--file", type=pathlib.Path, help="a file whose bytes are the prompt")
    sub.add_argument("--unconditional", action="store_true", help="no prompt: begin at BOS")
    sub.add_argument("--max-new-bytes", type=int, default=256, metavar="N")
    sub.add_argument(
        "--temperature", type=float, default=0.0, help="0 (the default): always the likeliest byte"
    )
    sub.add_argument("--top-k", type=int, default=0, metavar="K")
    sub.add_argument("--top-p", type=float, default=1.0, metavar="P")
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="end before this text (may be repeated)"
    )
    sub.add_argument(
        "--draft",
        type=int,
        default=0,
        metavar="K",
        help="BLT-S: draft K bytes with the local modules, check them in one pass; the same bytes",
    )
    sub.add_argument("--entropy-model", type=pathlib.Path, metavar="DIR", help="another model for entropies")
    sub.add_argument("--raw", action="store_true", help="write the bytes as they are, broken characters too")
    sub.add_argument("--json", action="store_true")

    sub = verb(
        "import",
        "Another project's checkpoint as a directory of this one's.",
        import_,
        "a released checkpoint, in",
        experiment=False,
    )
    sub.add_argument(
        "source",
        type=pathlib.Path,
        help="a Hugging Face Blt or Llama directory, or a released one (params.json)",
    )
    sub.add_argument("--out", type=pathlib.Path, required=True, metavar="DIR")
    sub.add_argument(
        "--entropy-model",
        type=pathlib.Path,
        metavar="DIR",
        help="the released entropy model, where it is not in or beside the directory",
    )
    sub.add_argument("--json", action="store_true")
    sub = verb(
        "export",
        "A model as a Hugging Face Blt directory.",
        export,
        "a model, out to Hugging Face",
        experiment=False,
    )
    sub.add_argument("source", type=pathlib.Path, help="a run directory, or an imported checkpoint")
    sub.add_argument("--out", type=pathlib.Path, required=True, metavar="DIR")
    sub.add_argument("--entropy-model", type=pathlib.Path, metavar="DIR", help="another model for entropies")
    sub.add_argument(
        "--loosely", action="store_true", help="write what that format computes otherwise, too: other logits"
    )

    sub = verb("patch", "The patches of a text.", patch, "the patches of a text", experiment=False)
    sub.add_argument("text", help="a text, or the path of a file")
    sub.add_argument(
        "--run", type=pathlib.Path, metavar="DIR", help="a model: its scheme, entropy model and threshold"
    )
    sub.add_argument("--entropy-model", type=pathlib.Path, metavar="DIR", help="another model for entropies")
    sub.add_argument(
        "--page", type=pathlib.Path, metavar="FILE", help="write an HTML page with bars of entropy, too"
    )
    sub.add_argument("--color", choices=["auto", "always", "never"], default="auto")
    sub.add_argument(
        "--scheme",
        default="",
        help="strided, space, entropy, monotonic, both or random (default: the run's, else space)",
    )
    for name, kind in dict(
        threshold=float, delta=float, stride=int, mean=float, seed=int, max_length=int
    ).items():
        sub.add_argument("--" + name.replace("_", "-"), type=kind)
    sub.add_argument("--json", action="store_true")

    data.add(
        verbs.add_parser(
            "data",
            help="prepare, annotate, calibrate, inspect",
            description="Work on data ahead of training.",
        )
    )
    return top


def chosen(args):
    """(experiment, the runs that --only keeps)."""
    from bltjax.experiments import registry

    experiment = registry.load(args.experiment, args.set, runlocal=args.runlocal, only=args.only)
    return experiment, experiment.runs


def plan(args) -> int:
    from bltjax.compile import chips
    from bltjax.sweep import plan as planning

    topology = chips.topology(args.topology) if args.topology else None
    experiment, runs = chosen(args)
    plans = planning.plan(runs)
    rate = planning.machine_flops()
    for p in plans:
        p["seconds_here"] = planning.seconds(p, rate)
    if topology:
        from bltjax.sweep import compile_table

        for p, config in zip(plans, runs):
            p["on"] = compile_table.estimated(config, topology, p["steps"])
    if args.json:
        print(json.dumps({"experiment": experiment.name, "machine_flops": rate, "runs": plans}))
    else:
        print(planning.text_table(plans))
        if args.topology:
            print("\n" + compile_table.estimates_table(plans))
    return 0


def compile_(args) -> int:
    from bltjax.compile import chips
    from bltjax.sweep import compile_table

    topology = chips.topology(args.topology)
    experiment, runs = chosen(args)
    out = (
        args.out
        or args.root
        / experiment.name
        / "compiled"
        / f"{topology.name.replace(':', '-').replace('*', '-')}.json"
    )
    say = lambda text: print(text, file=sys.stderr, flush=True)
    records = compile_table.compile_all(runs, topology, out, args.mesh, args.fit, say)
    print(
        json.dumps({"experiment": experiment.name, "topology": topology.name, "runs": records})
        if args.json
        else compile_table.text_table(records)
    )
    return 0 if all(record["fits"] for record in records) else 1


def run(args) -> int:
    from bltjax.sweep import runner

    if args.workers < 0:
        raise UserError(f"--workers is {args.workers}; it must be 0 (one per core) or more")
    experiment, runs = chosen(args)
    return runner.run(args.root, experiment.name, runs, args.workers)


def status(args) -> int:
    from bltjax.sweep import status as standing

    experiment, runs = chosen(args)
    rows = standing.of_experiment(args.root, experiment.name, [c.name for c in runs])
    print(
        json.dumps({"experiment": experiment.name, "runs": rows}) if args.json else standing.text_table(rows)
    )
    return 0


def report(args) -> int:
    from bltjax.report import report as reporting

    experiment, _ = chosen(args)
    directory = args.root / experiment.name
    result = reporting.report(directory, args.out or directory / "report")
    print(json.dumps(result, allow_nan=False) if args.json else reporting.text(result))
    return 0


def train(args) -> int:
    from bltjax import config as cfg
    from bltjax.experiments import registry
    from bltjax.parallel import distributed, host, sharding
    from bltjax.run import execute, validate
    from bltjax.storage import locks, rundir

    distributed.check(args.coordinator, args.processes, args.process, args.heartbeat, args.start_timeout)
    shape = sharding.parse_mesh(args.mesh) if args.mesh else None
    path = pathlib.Path(args.config)
    if path.suffix == ".json":
        if not path.exists():
            raise UserError(f"no file {path}")
        configs, name = [validate.check(cfg.parse_set(rundir.load_config(path.parent), args.set))], "train"
        default = path.parent if not args.set else None
    else:
        experiment = registry.load(args.config, args.set, runlocal=args.runlocal, only=args.run)
        configs, name, default = (
            [c for c in experiment.runs if args.run in ("", c.name)],
            experiment.name,
            None,
        )
        if len(configs) != 1:
            raise UserError(f"--run NAME must choose one of {', '.join(c.name for c in experiment.runs)}")
    if args.source:
        from bltjax.run import warm_start

        configs, default = [validate.check(warm_start.adopted(configs[0], args.source))], None
    run_dir = args.run_dir or default or pathlib.Path("runs") / name / configs[0].name
    distributed.use_cpu_devices(args.devices)
    joined = distributed.start(
        args.coordinator, args.processes, args.process, heartbeat=args.heartbeat, timeout=args.start_timeout
    )
    host.ready()
    mesh = distributed.mesh(shape, args.devices)
    distributed.agree(
        mesh,
        {
            "--mesh": str(mesh and dict(mesh.shape)),
            "--processes": args.processes,
            "--run-dir": str(run_dir.absolute()),
            "jax": rundir.versions()["jax"],
            **cfg.flat(configs[0]),
        },
    )
    if mesh is not None:
        sharding.check(configs[0], tuple(mesh.shape.values()))
    if joined:
        print(
            f"{joined}: {'x'.join(map(str, mesh.shape.values()))} devices (replica x data x model)",
            file=sys.stderr,
        )
    with contextlib.ExitStack() as held:

        def claim():
            rundir.create(run_dir, configs[0], name)
            try:
                held.enter_context(locks.held(run_dir / ".lock", wait=False))
            except locks.Busy:
                raise UserError(f"{run_dir} is being run by another process") from None

        distributed.once(mesh, claim)
        execute.execute(run_dir, progress=True, profile=args.profile, tensorboard=args.tensorboard, mesh=mesh)
    if distributed.first(mesh):
        scored = rundir.read_json(run_dir / "eval.json")
        print(f"{run_dir}: {scored['test']['bpb']:.4f} bits per byte on test text")
    return 0


def generate(args) -> int:
    from bltjax import api
    from bltjax.generation import Options, characters

    if args.file and not args.file.is_file():
        raise UserError(f"no file {args.file}")
    prompts = [p.encode("utf-8", "surrogateescape") for p in args.prompt] + (
        [args.file.read_bytes()] if args.file else []
    )
    if args.unconditional and prompts:
        raise UserError("--unconditional begins at BOS: it goes with no prompt")
    if args.raw and (args.json or len(prompts) > 1):
        raise UserError("--raw goes with one prompt and without --json")
    if args.unconditional and not prompts:
        prompts = [b""]
    if not prompts or not all(prompts) and not args.unconditional:
        raise UserError("the prompt is empty; give a text, --file FILE, or --unconditional to begin at BOS")
    options = Options(
        args.max_new_bytes,
        args.temperature,
        args.top_k,
        args.top_p,
        args.seed,
        tuple(s.encode("utf-8", "surrogateescape") for s in args.stop),
        args.draft,
    )
    options.check()
    generator = api.load(args.model, entropy_model=args.entropy_model).generator
    if args.json or len(prompts) > 1:
        result = generator.generate(prompts, options)
        shown = [new.decode("utf-8", "backslashreplace") for new in result.new]
        if args.json:
            print(
                json.dumps(
                    {
                        "new": shown,
                        "new_hex": [new.hex() for new in result.new],
                        "finished": result.finished,
                        **result.facts(),
                    }
                )
            )
        else:
            print("\n".join(f"[{i}] {text}" for i, text in enumerate(shown)))
    else:
        pieces = generator.stream(prompts[0], options)
        for piece in pieces if args.raw else (text.encode() for text in characters(pieces)):
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
        result = generator.last
        if not args.raw:
            print()
    if not args.json:
        print(result.text(), file=sys.stderr)
    return 0


def import_(args) -> int:
    from bltjax import convert

    found = convert.bring_in(args.source, args.out, args.entropy_model)
    print(json.dumps(found) if args.json else convert.text(found))
    return 0


def export(args) -> int:
    from bltjax import convert

    note = convert.send_out(args.source, args.out, args.entropy_model, args.loosely)
    if note:
        print(f"bltjax: {note}", file=sys.stderr)
    print(f"{args.out}: a Hugging Face Blt directory")
    return 0


def patch(args) -> int:
    from bltjax.inspection import page as patch_page
    from bltjax.inspection import patches as inspect_patches

    result = inspect_patches.of_text(
        args.text,
        args.run,
        args.scheme,
        entropy_model=args.entropy_model,
        threshold=args.threshold,
        delta=args.delta,
        stride=args.stride,
        mean=args.mean,
        seed=args.seed,
        max_length=args.max_length,
    )
    if args.page:
        patch_page.write(args.page, result)
    color = (
        args.color == "always"
        or args.color == "auto"
        and sys.stdout.isatty()
        and "NO_COLOR" not in os.environ
    )
    print(json.dumps(result) if args.json else inspect_patches.text(result, color))
    return 0


def main(argv=None) -> int:
    from bltjax.parallel import distributed

    code, wait = 1, True
    try:
        args = parser().parse_args(argv)
        code = args.call(args)
    except UserError as error:
        print(f"bltjax: {' '.join(str(error).split())}", file=sys.stderr)
        code = 130 if isinstance(error, Interrupted) else 1 if isinstance(error, RunFailed) else 2
    except KeyboardInterrupt:
        print("bltjax: stopped", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        where = error.filename or "no file named"
        full = f"the disk is full ({where}); free some space and run the same command again"
        print(
            f"bltjax: {full if error.errno == errno.ENOSPC else f'{where}: {error.strerror or error}'}",
            file=sys.stderr,
        )
    except Exception as error:
        if not distributed.joined():
            raise
        if type(error).__name__ != "JaxRuntimeError":
            traceback.print_exc()
        print(f"bltjax: {distributed.lost(error)}", file=sys.stderr)
        wait = False
    distributed.leave(code, wait)
    return code


if __name__ == "__main__":
    sys.exit(main())
