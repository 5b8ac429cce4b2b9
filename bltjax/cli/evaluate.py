"""The verb of scores: `bltjax eval`. Parses, calls, prints."""

import functools
import hashlib
import json
import math
import os
import pathlib
import sys

from bltjax.cli import without_effect
from bltjax.errors import UserError


def add(verbs) -> None:
    """The verb and its options, to argparse's subparsers."""
    does = "Nats and bits per byte of files, or scores of tasks, of any model."
    sub = verbs.add_parser("eval", help="score files or tasks with a model", description=does)
    sub.set_defaults(call=evaluate)
    sub.add_argument(
        "model",
        type=pathlib.Path,
        help="a run directory, an imported checkpoint, or a Hugging Face directory",
    )
    sub.add_argument("files", nargs="*", help="files to score: names, patterns ('texts/**/*.txt') or URLs")
    sub.add_argument(
        "--out",
        type=pathlib.Path,
        metavar="DIR",
        help="where results are kept (default: MODEL/eval/NAME where MODEL is a run or an import)",
    )
    sub.add_argument("--entropy-model", type=pathlib.Path, metavar="DIR", help="another model for entropies")
    sub.add_argument("--threshold", type=float, help="another threshold for patches by entropy, nats")
    sub.add_argument(
        "--limit", type=int, default=0, metavar="N", help="the first N documents (items) alone (0: all)"
    )
    sub.add_argument("--separator", default="", help="what stands between documents of a plain file")
    sub.add_argument(
        "--group",
        default="",
        metavar="file|folder|FIELD",
        help="what scores are summed by: FIELD is one of JSON lines or rows (default: folders, if several)",
    )
    sub.add_argument(
        "--context", type=int, default=0, metavar="N", help="bytes of a window (default: as it was trained)"
    )
    sub.add_argument(
        "--noise",
        default="",
        metavar="NAME,...",
        help="score the files with noises, too: antspeak, drop, random_case, repeat, upper_case, or all",
    )
    sub.add_argument(
        "--tasks",
        default="",
        metavar="NAME,...",
        help="tasks instead of files: table1, arc_easy, piqa, hellaswag_noised, mmlu, cute, ...",
    )
    sub.add_argument("--task-data", type=pathlib.Path, metavar="DIR", help="the folder of the tasks' data")
    sub.add_argument("--seed", type=int, default=0, help="of noise, and of what else a task draws")
    sub.add_argument(
        "--batch-size", type=int, default=0, metavar="N", help="rows of a call; no score hangs on it"
    )
    sub.add_argument(
        "--allow-code",
        action="store_true",
        help="mbpp, humaneval: run the programs that the model writes, in a sandbox",
    )
    sub.add_argument("--cute-template", type=pathlib.Path, metavar="FILE", help="another wording of CUTE")
    sub.add_argument("--spm", type=pathlib.Path, metavar="FILE", help="FLORES's SentencePiece model: spBLEU")
    sub.add_argument(
        "--against",
        type=pathlib.Path,
        metavar="OTHER",
        help="score nothing: what eval kept of MODEL less what it kept of another, with 95%% intervals",
    )
    sub.add_argument("--json", action="store_true")


def evaluate(args) -> int:
    from bltjax.evaluation import noise
    from bltjax.parallel import host

    if args.against:
        return _against(args)
    if bool(args.files) == bool(args.tasks):
        raise UserError("give files or --tasks, not both" if args.files else "nothing to score: give files")
    if args.tasks and not args.task_data:
        raise UserError("--tasks reads its data from a folder: --task-data DIR (docs/evaluation.md)")
    if args.tasks:
        without_effect.refuse(args, "is of files, not of tasks", separator="", group="", context=0, noise="")
    else:
        unset = dict(task_data=None, batch_size=0, cute_template=None, spm=None, allow_code=False)
        if not args.noise:
            without_effect.refuse(args, "is of noise, and files are scored as they are", seed=0)
        without_effect.refuse(args, "is of tasks, and files are scored", **unset)
    if args.batch_size < 0:
        raise UserError(f"--batch-size is {args.batch_size}; it is a number of rows, 0: by their length")
    if args.limit < 0:
        raise UserError(f"--limit is {args.limit}; it is a number of documents")
    host.keep_compiled_programs()
    if args.tasks:
        return _tasks(args)
    noises = noise.named(args.noise)  # a wrong name is said before a model is read
    return _files(args, _model(args), noises)


def _against(args) -> int:
    from bltjax.cli import score_tables
    from bltjax.inspection import against

    unset = dict(tasks="", out=None, entropy_model=None, threshold=None, limit=0, separator="", group="")
    more = dict(context=0, noise="", task_data=None, seed=0, batch_size=0, cute_template=None, spm=None)
    without_effect.refuse(args, "has no effect on --against, which scores nothing", **unset, **more)
    if args.files:
        raise UserError("--against compares what was kept: give no files")
    found = against.compare(args.model, args.against)
    print(json.dumps(found) if args.json else score_tables.of_pair(found))
    for one in found["refused"]:
        print(f"bltjax: {one['why']}; left out", file=sys.stderr)
    return 2 if found["refused"] else 0


def _model(args):
    """The model of the arguments, with the threshold that they say."""
    from bltjax import api
    from bltjax import config as cfg

    model = api.load(args.model, entropy_model=args.entropy_model)
    without_effect.refuse_entropy_model(model, args.entropy_model)
    if args.threshold is not None:
        scheme = model.config.patching.scheme
        if scheme not in ("entropy", "both"):
            raise UserError(f"--threshold: the patches of {args.model} ({scheme}) have no threshold")
        if not 0 <= args.threshold < math.inf:
            raise UserError(f"--threshold is {args.threshold:g}; it is a number of nats, 0 or more")
        model.config = cfg.replace(model.config, **{"patching.threshold": args.threshold})
    return model


def _files(args, model, noises: list[str]) -> int:
    from bltjax.cli import score_tables
    from bltjax.evaluation import files

    names = [os.path.abspath(f) if "://" not in f else f for f in args.files]
    out = _folder(args, model, "files", {"files": names, "noises": noises, "seed": args.seed})
    say = lambda line: print(f"bltjax: {line}; left out", file=sys.stderr)
    with _bar(args, "B") as bar:
        found = files.evaluate(
            model,
            args.files,
            out,
            separator=args.separator,
            group=args.group,
            limit=args.limit,
            context=args.context,
            noises=noises,
            seed=args.seed,
            progress=bar.update,
            say=say,
        )
    return _shown(args, found, score_tables.of_files, out, found["skipped"])


def _tasks(args) -> int:
    from bltjax.cli import score_tables
    from bltjax.evaluation import code_tasks, cute_wording, tasks, translation
    from bltjax.evaluation.task import Settings

    names = [name for name in args.tasks.split(",") if name]
    asked = tasks.expand(names)  # a wrong name is said before a model is read
    if not asked:
        raise UserError(f"--tasks {args.tasks!r} names no task")
    if not args.task_data.is_dir():
        raise UserError(f"--task-data {args.task_data} is no folder")
    for option, kind in (("cute_template", "cute_"), ("spm", "flores_")):
        if not any(name.startswith(kind) for name in asked):
            without_effect.refuse(args, f"is of {kind[:-1]}, which is not among the tasks", **{option: None})
    if not set(code_tasks.TASKS).intersection(asked):
        why = "is of mbpp and humaneval, which are not among the tasks"
        without_effect.refuse(args, why, allow_code=False)
    if args.cute_template:
        cute_wording.template(args.cute_template)  # a wrong one is said before a model is read, too
    if args.spm:
        translation.measures(args.spm)
    model = _model(args)
    what = {"data": str(args.task_data.resolve()), "seed": args.seed}
    what |= {"cute_template": _digest(args.cute_template), "spm": _digest(args.spm)}
    out = _folder(args, model, "tasks", what)
    found = tasks.evaluate(
        model,
        names,
        args.task_data,
        out,
        Settings(args.limit, args.seed, args.batch_size, args.cute_template, args.spm, args.allow_code),
        bar=lambda task, items: _bar(args, "item", items, task),
        say=functools.cache(lambda line: print(f"bltjax: {line}", file=sys.stderr)),  # each line once
    )
    return _shown(args, found, score_tables.of_tasks, out, found["failed"])


def _digest(path: pathlib.Path | None) -> str:
    """Of a file that decides scores; no file: nothing."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path else ""


def _shown(args, found: dict, table, out, left_out: list) -> int:
    """Exit status: 0, or 2 where something was left out."""
    print(json.dumps(found) if args.json else table(found))
    from bltjax.evaluation import setup

    if out is not None and not setup.emptied(out):
        print(f"kept in {out}", file=sys.stderr)
    return 2 if left_out else 0


def _bar(args, unit: str, total: int | None = None, name: str = ""):
    """A progress bar on standard error, where somebody sees it."""
    from tqdm import tqdm

    return tqdm(
        total=total,
        desc=name or args.model.name,
        unit=unit,
        unit_scale=unit == "B",
        disable=not sys.stderr.isatty(),
        dynamic_ncols=True,
    )


def _folder(args, model, name: str, what) -> pathlib.Path | None:
    """Where results are kept: what differs in anything that decides them has a folder of its own."""
    from bltjax.evaluation import setup

    said = {**setup.of(model, args.entropy_model), "what": what, "context": args.context}
    said |= {"separator": args.separator, "group": args.group, "limit": args.limit}
    if args.out:
        setup.claim(args.out, said)
        return args.out
    if not setup.is_ours(model):
        return None
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:8]
    out = model.folder / "eval" / f"{name}-{digest}"
    setup.claim(out, said)
    return out
