"""What `bltjax eval` kept of two models, side by side: differences on the same items and documents, with
intervals over them. Nothing is scored."""

import itertools
import pathlib
from typing import NamedTuple

import numpy as np

from bltjax.errors import UserError
from bltjax.evaluation import files, setup, tasks
from bltjax.science import paired
from bltjax.storage import json_lines, rundir

FILES = "files.json"
ITEMS = ".items.jsonl"


class Kept(NamedTuple):
    """Of one task or set of files: settings that decide its numbers besides the model; known: what the items
    or documents are known by, in their order; result; lines: one each."""

    settings: dict
    known: list
    result: dict
    lines: list


def compare(a, b) -> dict:
    """{"a", "b", "tasks": [{"task", "items", "metrics": {name: one}, "flops": [a's, b's per byte]}],
    "groups": [{"group", "tasks", "metric", ...one, "drop": one or None}], "files": [{"noise", "group",
    "documents", "bytes", "flops", ...one, "added": one of bits per clean byte that the noise adds, or None}],
    "refused": [{"what", "why"}]}; one: {"a", "b", "difference" (a less b), "low", "high"}, and "only_a",
    "only_b", "p" of what is right or wrong.

    a, b: run directories, imports, or the folders of --out. UserError where one has no results, or they share
    nothing that can be compared."""
    sides = [_kept(pathlib.Path(folder)) for folder in (a, b)]
    shared = [name for name in sides[0] if name in sides[1]]
    matched, refused = {}, []
    for name in shared:
        pairs = list(itertools.product(sides[0][name], sides[1][name]))
        fit = [pair for pair in pairs if not _why_not(*pair)]
        if fit:
            matched[name] = max(fit, key=lambda pair: len(pair[0].lines))
        else:
            refused.append({"what": name, "why": f"{name}: {_why_not(*pairs[0])}"})
    of_files = [line for pair in (matched.pop(FILES, None),) if pair for line in _files(*pair)]
    made = [_task(name, *pair) for name, pair in matched.items()]
    if not shared:
        raise UserError(f"{a} and {b} were scored on no task that is the same, nor on files")
    if not made and not of_files:
        raise UserError(f"nothing can be compared: {refused[0]['why']}")
    return {
        "a": str(a),
        "b": str(b),
        "tasks": made,
        "groups": _groups(matched),
        "files": of_files,
        "refused": refused,
    }


def _kept(folder: pathlib.Path) -> dict[str, list[Kept]]:
    """{task or FILES: what is kept of it}."""
    folders = [folder] if (folder / setup.FILE).exists() else sorted(folder.glob("eval/*/"))
    found = {}
    for one in folders:
        if not (said := rundir.read_json(one / setup.FILE)):
            continue
        for path in sorted(one.glob("*.json")):
            result = rundir.read_json(path) or {}
            version = result.get("schema_version")
            if path.name == FILES and version == files.SCHEMA_VERSION:
                documents = result["documents"]
                settings = {key: said[key] for key in ("context", "separator")}
                known = [document["digest"] for document in documents]
                found.setdefault(FILES, []).append(Kept(settings, known, result, documents))
            elif result.get("task") == path.stem and version == tasks.SCHEMA_VERSION:
                lines = json_lines.read(path.with_name(path.stem + ITEMS))
                # what is not set may not have been known to the version that scored
                settings = {key: value for key, value in said["what"].items() if value and key != "data"}
                known = [line.get("digest") for line in lines]
                found.setdefault(path.stem, []).append(Kept(settings, known, result, lines))
    if not found:
        wanted = f"neither {setup.FILE} nor eval/*/{setup.FILE}"
        raise UserError(f"{folder} has no results of bltjax eval that this version reads: {wanted}")
    return found


def _why_not(a: Kept, b: Kept) -> str:
    """Why two cannot be compared; "" where they can."""
    if len(a.known) != len(b.known):
        return f"{len(a.known):,} and {len(b.known):,} items are not the same"
    if differ := sum(x != y for x, y in zip(a.known, b.known)):
        return f"{differ:,} of {len(a.known):,} items differ"
    if a.settings != b.settings:
        keys = sorted({*a.settings, *b.settings})
        other = [key for key in keys if a.settings.get(key) != b.settings.get(key)]
        return f"it was scored with another {', '.join(other)}"
    return "" if a.known and all(a.known) else "its items are not known"


def _task(name: str, a: Kept, b: Kept) -> dict:
    metrics = {
        metric: {**_ends(*values), **paired.of_items(*values)}
        for metric in a.result["metrics"]
        if (values := _values(metric, a, b))
    }
    return {"task": name, "items": len(a.lines), "metrics": metrics, "flops": _flops(a.result, b.result)}


def _values(metric: str, a: Kept, b: Kept):
    """The metric of each item under both models; None where it is no mean over items."""
    pair = [[line.get(metric) for line in one.lines] for one in (a, b)]
    if any(value is None for values in pair for value in values):
        return None
    said = [one.result["metrics"][metric]["value"] for one in (a, b)]
    means = [float(np.mean(values)) for values in pair]
    return pair if np.allclose(means, said, rtol=1e-6, atol=1e-9) else None


def _ends(a, b) -> dict:
    return {"a": float(np.mean(a)), "b": float(np.mean(b))}


def _flops(a: dict, b: dict) -> list[float]:
    return [one["flops_per_byte"] + one["entropy_flops_per_byte"] for one in (a, b)]


def _groups(matched: dict) -> list[dict]:
    """Of every group whose tasks are all there: the difference of the means of their main metric, and of how
    far they lie below the clean task. Versions of a clean task's items are averaged by item."""
    found = []
    for name, group in tasks.GROUPS.items():
        wanted = [*group.tasks, *[group.clean] * bool(group.clean)]
        if not all(task in matched for task in wanted):
            continue
        metric = matched[wanted[0]][0].result["main"]
        values = [_values(metric, *matched[task]) for task in wanted]
        if not all(values):
            continue
        values, drop = [np.array(pair, np.float64) for pair in values], None
        clean = values.pop() if group.clean else None
        if clean is not None:
            if len({pair.shape for pair in (clean, *values)}) > 1:  # of other limits
                continue
            strata = [(1.0, np.mean(values, axis=0))]
            drop = _of_strata([(1.0, clean - strata[0][1])])
        else:
            sizes = [pair.shape[1] if group.by_items else 1 for pair in values]
            strata = [(size / sum(sizes), pair) for size, pair in zip(sizes, values)]
        told = {"group": name, "tasks": len(values), "metric": metric}
        found.append({**told, **_of_strata(strata), "drop": drop})
    return found


def _of_strata(strata) -> dict:
    """strata: [(weight, values [2, N] under both models)]."""
    a, b = (sum(weight * pair[i].mean() for weight, pair in strata) for i in range(2))
    ends = {"a": float(a), "b": float(b)}
    return {**ends, **paired.difference([(weight, pair[0] - pair[1]) for weight, pair in strata])}


def _files(a: Kept, b: Kept) -> list[dict]:
    """A line a noise that both have, and a line each of its groups where there are several."""
    found, others = [], {one["noise"]: one for one in b.result["noises"]}
    noises = [(one["noise"], one, others.get(one["noise"])) for one in a.result["noises"]]
    for noise, mine, other in [("", a.result, b.result), *noises]:
        known = other and [[line["digest"] for line in one["documents"]] for one in (mine, other)]
        if not known or known[0] != known[1]:  # of another seed
            continue
        groups = [line["group"] for line in a.lines]
        for name in ["", *dict.fromkeys(groups)]:
            chosen = [i for i, group in enumerate(groups) if name in ("", group)]
            own = [one if not name else _group(one, name) for one in (mine, other)]
            if name and len(chosen) == len(groups):  # one group is all
                continue
            column = lambda one, key: np.array([one["documents"][i][key] for i in chosen])
            sizes, clean = column(mine, "bytes"), column(a.result, "bytes")
            nats = [column(one, "nats") for one in (mine, other)]
            told = {"noise": noise, "group": name, "documents": len(chosen), "bytes": int(sizes.sum())}
            told |= {"flops": _flops(*own), **paired.of_documents(*nats, sizes), "added": None}
            if noise:
                more = [x - column(one, "nats") for x, one in zip(nats, (a.result, b.result))]
                told["added"] = paired.of_documents(*more, clean)
            found.append(told)
    return found


def _group(result: dict, name: str) -> dict:
    return next(group for group in result["groups"] if group["group"] == name)
