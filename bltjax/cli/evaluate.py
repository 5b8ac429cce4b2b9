"""The verb of scores: `bltjax eval`. Parses, calls, prints."""

import hashlib
import json
import os
import pathlib
import sys

from bltjax.errors import UserError

SHOWN = 40  # documents of a table; all are in documents.jsonl


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
    sub.add_argument("--limit", type=int, default=0, metavar="N", help="the first N documents (items) alone")
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
        "--tasks",
        default="",
        metavar="NAME,...",
        help="tasks instead of files: arc_easy, arc_challenge, piqa, hellaswag, hellaswag_noised, cute, ...",
    )
    sub.add_argument("--task-data", type=pathlib.Path, metavar="DIR", help="the folder of the tasks' data")
    sub.add_argument("--seed", type=int, default=0, help="of noise")
    sub.add_argument(
        "--batch-size", type=int, default=0, metavar="N", help="rows of a call; no score hangs on it"
    )
    sub.add_argument("--cute-template", type=pathlib.Path, metavar="FILE", help="another wording of CUTE")
    sub.add_argument("--json", action="store_true")


def evaluate(args) -> int:
    from bltjax.parallel import host

    if bool(args.files) == bool(args.tasks):
        raise UserError("give files or --tasks, not both" if args.files else "nothing to score: give files")
    if args.tasks and not args.task_data:
        raise UserError("--tasks reads its data from a folder: --task-data DIR (docs/evaluation.md)")
    if args.batch_size < 0:
        raise UserError(f"--batch-size is {args.batch_size}; it is a number of rows, 0: by their length")
    if args.limit < 0:
        raise UserError(f"--limit is {args.limit}; it is a number of documents")
    host.keep_compiled_programs()
    return _tasks(args) if args.tasks else _files(args, _model(args))


def _model(args):
    """The model of the arguments, with the threshold that they say."""
    from bltjax import api
    from bltjax import config as cfg

    model = api.load(args.model, entropy_model=args.entropy_model)
    if args.threshold is not None:
        scheme = model.config.patching.scheme
        if scheme not in ("entropy", "both"):
            raise UserError(f"--threshold: the patches of {args.model} ({scheme}) have no threshold")
        model.config = cfg.replace(model.config, **{"patching.threshold": args.threshold})
    return model


def _files(args, model) -> int:
    from bltjax.evaluation import files

    out = _folder(args, model, "files", [os.path.abspath(f) if "://" not in f else f for f in args.files])
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
            progress=bar.update,
            say=say,
        )
    print(json.dumps(found) if args.json else _table(found))
    if out is not None:
        print(f"kept in {out}", file=sys.stderr)
    return 2 if found["skipped"] else 0


def _tasks(args) -> int:
    from bltjax.evaluation import cute, tasks

    names = [name for name in args.tasks.split(",") if name]
    tasks.expand(names)  # a wrong name is said before a model is read
    digest = ""
    if args.cute_template:
        cute.template(args.cute_template)  # a wrong one is said before a model is read, too
        digest = hashlib.sha256(args.cute_template.read_bytes()).hexdigest()[:16]
    model = _model(args)
    out = _folder(args, model, "tasks", [str(args.task_data.resolve()), args.seed, digest])
    found = tasks.evaluate(
        model,
        names,
        args.task_data,
        out,
        limit=args.limit,
        seed=args.seed,
        batch_size=args.batch_size,
        template=args.cute_template,
        bar=lambda task, items: _bar(args, "item", items, task),
        say=lambda line: print(f"bltjax: {line}", file=sys.stderr),
    )
    print(json.dumps(found) if args.json else _task_table(found))
    if out is not None:
        print(f"kept in {out}", file=sys.stderr)
    return 2 if found["failed"] else 0


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


def _table(found: dict) -> str:
    """Groups and documents, a line each, bits per byte with what they cost."""
    head = ("", "documents", "bytes", "nats", "bits/byte", f"bytes/{found['unit']}", "FLOPs/byte")

    def row(name, documents, x):
        return (
            name,
            f"{documents:,}",
            f"{x['bytes']:,}",
            f"{x['nats']:,.1f}",
            f"{x['bpb']:.4f}",
            f"{x['patch_size']:.2f}",
            f"{x['flops_per_byte']:,.0f}"
            + (f" + {x['entropy_flops_per_byte']:,.0f}" if x["entropy_flops_per_byte"] else ""),
        )

    documents, groups = found["documents"], found["groups"]
    several = {d["file"] for d in documents if d["index"]}
    name = lambda d: f"{d['file']}:{d['index']}" if d["file"] in several else d["file"]
    rows = [head, *(row(name(d), 1, d) for d in documents[:SHOWN])]
    if len(documents) > SHOWN:
        rows.append((f"... {len(documents) - SHOWN:,} more", *[""] * 6))
    if len(groups) > 1 and len(groups) < len(documents):
        rows += [row(f"group {g['group']}", g["documents"], g) for g in groups]
    rows.append(row("all", len(documents), found))
    lines = _aligned(rows)
    if len(groups) > 1:
        lines.append(f"mean of {len(groups)} groups: {found['bpb_of_groups']:.4f} bits per byte")
    if found["entropy_flops_per_byte"]:
        lines.append("FLOPs per byte are forward, exact: the model's + its entropy model's")
    if found["unit"] == "token":
        lines.append("of tokens an upper bound: one tokenization")
    return "\n".join(lines)


def _task_table(found: dict) -> str:
    """A line a task: accuracies with standard errors, chance, and what a byte cost."""
    head = ("", "items", "acc", "acc_norm", "chance", "bytes/patch", "FLOPs/byte", "cut")

    def shown(metric):
        if metric is None:
            return ""
        error = "" if metric["stderr"] is None else f" ± {metric['stderr']:.4f}"
        return f"{metric['value']:.4f}{error}"

    rows = [head]
    for r in found["tasks"]:
        chance = f"{r['chance']:.3f}" if r.get("chance") else ""
        beside = f" + {r['entropy_flops_per_byte']:,.0f}" if r["entropy_flops_per_byte"] else ""
        scores = (shown(r["metrics"]["acc"]), shown(r["metrics"].get("acc_norm")), chance)
        cost = (f"{r['patch_size']:.2f}", f"{r['flops_per_byte']:,.0f}{beside}")
        rows.append((r["task"], f"{r['items']:,}", *scores, *cost, str(r["cut"])))
    lines = _aligned(rows) if len(rows) > 1 else []
    for group in found["groups"]:
        drop = "" if group["drop"] is None else f", {group['drop']:.4f} below the clean task"
        lines.append(f"{group['group']}: mean of {group['tasks']} tasks {group['acc']:.4f}{drop}")
    return "\n".join(lines)


def _aligned(rows) -> list[str]:
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    return [
        "  ".join([r[0].ljust(widths[0]), *(x.rjust(w) for x, w in zip(r[1:], widths[1:]))]).rstrip()
        for r in rows
    ]
