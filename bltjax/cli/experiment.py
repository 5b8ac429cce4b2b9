"""The verbs of an experiment: plan, compile, run, status, report. Parses, calls, prints."""

import json
import os
import pathlib
import sys

from bltjax.counts import counted
from bltjax.cli import stored, watch, without_effect
from bltjax.errors import UserError


def add(verbs) -> None:
    """The verbs and their options, to argparse's subparsers."""

    def verb(name, does, call, help):
        sub = verbs.add_parser(name, help=help, description=does)
        arguments(sub, optional=name == "report", seeds=name != "compile")
        sub.set_defaults(call=call)
        return sub

    sub = verb(
        "plan",
        "Every run of an experiment, before anything is spent: nothing is run. A run that cannot be had gets"
        " a line and hides no other; the exit status is then 2.",
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
    about = "Where every run stands, and every job that runs share. Reads files and writes none."
    sub = verb("status", about, status, "done, running, failed, where and why")
    sub.add_argument(
        "--watch",
        action="store_true",
        help="look again and again until all is over: status 0 where all is done, 1 where something failed",
    )
    sub.add_argument("--json", action="store_true", help="as JSON; with --watch a line each time it changed")
    sub = verb(
        "report",
        "CSV, tables, plots and one HTML page from the run directories.",
        report,
        "tables, plots and one HTML page",
    )
    sub.add_argument("--json", action="store_true")
    sub.add_argument("--out", type=pathlib.Path, help="where to write (default: ROOT/EXPERIMENT/report)")
    sub.add_argument(
        "--export",
        type=pathlib.Path,
        metavar="FILE",
        help="the table of the runs too, a row a run: FILE.csv, .jsonl or .parquet (docs/run_directory.md)",
    )
    sub.add_argument(
        "--compare",
        nargs=2,
        metavar=("A", "B"),
        help="two experiments cell by cell, by name or directory of runs; with EXPERIMENT, that one under two"
        " roots; files only with --out",
    )


def arguments(sub, optional: bool = False, seeds: bool = True) -> None:
    """What every verb of an experiment takes. optional: the experiment may be left out (report --compare);
    seeds: whether --seeds is among them."""
    sub.add_argument(
        "experiment",
        nargs="?" if optional else None,
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
    sub.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="TEXT",
        help="only runs whose name contains TEXT (given twice: one of them)",
    )
    if seeds:  # weights of another seed compile to the same program
        sub.add_argument(
            "--seeds",
            type=int,
            metavar="N",
            help="every run N times, its weights drawn by N seeds (default: as the experiment says)",
        )
    sub.add_argument(
        "--root",
        action=stored.Root,
        default=pathlib.Path("runs"),
        help="where run directories live: a folder (default: runs), or gs://..., s3://... (docs/storage.md)",
    )
    sub.set_defaults(store=None)


def chosen(args, refused: list | None = None):
    """(experiment, the runs that --only keeps). refused: as in `registry.load`."""
    from bltjax.experiments import registry

    stored.check(args)
    there = next((folder for folder in (args.root, *args.root.parents) if os.path.exists(folder)), None)
    if there and not os.path.isdir(there):
        raise UserError(f"--root {args.root}: {there} is no directory")
    experiment = registry.load(
        args.experiment,
        args.set,
        runlocal=args.runlocal,
        only=args.only,
        seeds=getattr(args, "seeds", None),
        refused=refused,
    )
    stored.pull(args, experiment.name)
    return experiment, experiment.runs


def plan(args) -> int:
    """Runs that cannot be planned get a line each and do not hide the others; the exit status is then 2."""
    from bltjax.sweep import speed

    with speed.measuring() as machine_flops:  # before anything that takes long to import
        return _plan(args, machine_flops)


def _plan(args, machine_flops) -> int:
    from bltjax.compile import chips
    from bltjax.sweep import plan as planning

    topology = chips.topology(args.topology) if args.topology else None
    refused, said, asked = [], [], {item.partition("=")[0].strip() for item in args.set}
    experiment, runs = chosen(args, refused)
    plans, runs = planning.plan_each(runs, refused, said, asked)
    if not plans:
        rest = f" (nor can {counted(len(refused) - 1, 'other run')} be planned)" if len(refused) > 1 else ""
        raise UserError(refused[0]["why"] + rest)
    rate = machine_flops()
    for p in plans:
        p["seconds_here"] = planning.seconds(p, rate)
    if topology:
        from bltjax.sweep import compile_table

        for p, config in zip(plans, runs):
            p["on"] = compile_table.estimated(config, topology, p["steps"])
    if args.json:
        found = {"experiment": experiment.name, "machine_flops": rate, "runs": plans, "refused": refused}
        print(json.dumps(found))
    else:
        print(planning.text_table(plans))
        if args.topology:
            print("\n" + compile_table.estimates_table(plans))
    for line in said:
        print(f"bltjax: {line}: `bltjax run` wants it", file=sys.stderr)
    for one in refused:
        print(f"bltjax: refused {one['name']}: {' '.join(one['why'].split())}", file=sys.stderr)
    return 2 if refused else 0


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


def run(args, chip_hours: float | None = None) -> int:
    """chip_hours: once so many are spent, nothing more is begun."""
    from bltjax.launch import local
    from bltjax.sweep import runner

    if args.workers < 0:
        raise UserError(f"--workers is {args.workers}; it must be 0 (one per core) or more")
    experiment, runs = chosen(args)
    return runner.run(args.root, experiment.name, runs, local, args.workers, chip_hours)


def status(args) -> int:
    from bltjax.launch import overview

    experiment, runs = chosen(args)
    before = {}

    def look():
        stored.pull(args, experiment.name)
        return overview.of_experiment(args.root, experiment.name, runs, before)

    if args.watch:
        return watch.watch(look, args.json)
    watch.show(look(), args.json)
    return 0


def report(args) -> int:
    from bltjax.parallel import host

    host.import_matplotlib()  # before the report does, with its own defaults
    from bltjax.report import report as reporting

    if args.compare:
        stored.check(args)
        why = "is of one experiment, and cannot stand beside --compare"
        without_effect.refuse(args, why, export=None, set=[], only=[], seeds=None)
        return compare(args)
    if args.experiment is None:
        raise UserError("report wants an EXPERIMENT, or --compare A B")
    experiment, _ = chosen(args)
    directory = args.root / experiment.name
    result = reporting.report(directory, args.out, args.only, args.export)
    say(json.dumps(result, allow_nan=False) if args.json else reporting.text(result))
    if "unwritten" in result:
        print(f"bltjax: no files were written: {result['unwritten']}", file=sys.stderr)
    return 0


def compare(args) -> int:
    from bltjax.report import compare_experiments

    result = compare_experiments.compared(
        *in_roots([compared_directory(args, text) for text in args.compare])
    )
    if args.out:
        result["files"] = compare_experiments.write(result, args.out)
    say(json.dumps(result, allow_nan=False) if args.json else compare_experiments.text(result))
    return 0


def compared_directory(args, text: str) -> pathlib.Path:
    """The directory of runs that one side of --compare means."""
    from bltjax.experiments import registry

    folder = pathlib.Path(text)
    if args.experiment is not None:
        experiment = registry.load(args.experiment, runlocal=args.runlocal)
        if not folder.is_dir():
            raise UserError(f"--compare {text}: there is no such root; with an EXPERIMENT, A and B are roots")
        return folder / experiment.name
    if text.split(":")[0] in registry.names() or folder.suffix == ".py":
        named = args.root / registry.load(text, runlocal=args.runlocal).name
        if named.is_dir() or not folder.is_dir():
            return named
    if not folder.is_dir():
        raise UserError(
            f"--compare {text}: neither an experiment ({', '.join(registry.names())}) nor a directory of runs"
        )
    return folder


def in_roots(folders: list) -> list:
    """Directories of runs as they are; of two roots the experiment that both have."""
    held = [
        {path.parent.parent.name for path in folder.glob("*/*/config.json") if path.parts[-3][0] not in "._"}
        for folder in folders
    ]
    if not all(held) or any(next(folder.glob("*/config.json"), None) for folder in folders):
        return folders
    both = sorted(held[0] & held[1])
    if len(both) != 1:
        which = f"they share {', '.join(both)}; give the one meant first" if both else "they share none"
        raise UserError(f"--compare of two roots wants one experiment that is in both: {which}")
    return [folder / both[0] for folder in folders]


def say(text: str) -> None:
    """Prints text also where the terminal's encoding has not all of its signs."""
    from bltjax.results import tables

    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        text = tables.in_ascii(text)
    print(text)
