"""Tasks by name: their items scored, and a file of results for each, so that what was stopped goes on with
the first task that is not done.

    OUT/TASK.json           metrics with standard errors, what a byte cost, how many items were cut
    OUT/TASK.items.jsonl    a line an item, for paired comparisons of models"""

import contextlib
import hashlib
import json
import pathlib

from bltjax.errors import UserError
from bltjax.evaluation import (
    code_tasks,
    cute,
    cute_likelihood,
    mmlu,
    multiple_choice,
    prompts,
    pronunciation,
    setup,
    translation,
)
from bltjax.evaluation.task import Group, Settings, Task
from bltjax.storage import atomic, rundir

SCHEMA_VERSION = 4
# modules that have TASKS and GROUPS
KINDS = (multiple_choice, mmlu, prompts, code_tasks, cute, cute_likelihood, translation, pronunciation)
TASKS: dict[str, Task] = {name: task for kind in KINDS for name, task in kind.TASKS.items()}
GROUPS: dict[str, Group] = {name: group for kind in KINDS for name, group in kind.GROUPS.items()}
# the paper's Table 1
GROUPS["table1"] = Group(("arc_easy", "arc_challenge", "hellaswag", "piqa", "mmlu", "mbpp", "humaneval"))


def expand(names: list[str]) -> list[str]:
    """The tasks of names and groups, each once. UserError for an unknown one."""
    found = {}
    for name in names:
        if name not in TASKS and name not in GROUPS:
            alone = set(TASKS) - {task for group in GROUPS.values() for task in group.tasks}
            allowed = ", ".join([*(task for task in TASKS if task in alone), *GROUPS])
            raise UserError(f"unknown task {name!r}; allowed: {allowed}, and the tasks of these groups")
        found |= dict.fromkeys(_members(name))
    return list(found)


def _members(name: str) -> list[str]:
    """The tasks of a group and of the groups in it; a task itself."""
    if name not in GROUPS:
        return [name]
    group = GROUPS[name]
    return [group.clean] * bool(group.clean) + [task for one in group.tasks for task in _members(one)]


def evaluate(
    model,
    names: list[str],
    data: pathlib.Path,
    out: pathlib.Path | None = None,
    settings: Settings = Settings(),
    *,
    bar=None,
    say=print,
) -> dict:
    """{"model", "tasks": [a result each], "groups": [means of groups], "failed": [{"task", "why"}]}.

    names: of tasks or groups. data: a folder (docs/evaluation.md). out: where results are kept; None:
    nowhere. bar: (task, items) -> a context with `update`. say: told of a task that could not be scored, in
    a line; the others are."""
    results, failed = [], []
    with setup.held(out):
        for name in expand(names):
            done = rundir.read_json(out / f"{name}.json") if out is not None else None
            done = done if done and done.get("schema_version") == SCHEMA_VERSION else None
            try:
                asked = TASKS[name].items(data, settings)
            except UserError as error:
                if done:  # its data need not be there any more
                    results.append(done)
                    continue
                failed.append({"task": name, "why": " ".join(str(error).split())})
                say(failed[-1]["why"])
                continue
            digests = [digest(item) for item in asked]
            if done and done.get("data") == fingerprint(digests):
                results.append(done)
                continue
            if done:
                say(f"{name}: its items are others than those that were scored; it is scored anew")
            with bar(name, len(asked)) if bar else contextlib.nullcontext() as shown:
                update = shown.update if shown is not None else None
                result, lines = TASKS[name].score(model, asked, settings, update)
            about = {"schema_version": SCHEMA_VERSION, "task": name, "items": len(asked)}
            result = {**about, "data": fingerprint(digests), **result}
            if out is not None:
                known = [{**line, "digest": one} for one, line in zip(digests, lines, strict=True)]
                text = "".join(json.dumps(line) + "\n" for line in known)
                atomic.write_text(out / f"{name}.items.jsonl", text)
                atomic.write_json(out / f"{name}.json", result)
            results.append(result)
    return {"model": str(model.folder), "tasks": results, "groups": means(results), "failed": failed}


def digest(item: dict) -> str:
    """What tells an item from others, in 16 hex digits."""
    told = json.dumps(item, sort_keys=True, default=str)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def fingerprint(digests: list[str]) -> str:
    """Of all items of a task, in 16 hex digits."""
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:16]


def means(results: list[dict]) -> list[dict]:
    """{"group", "tasks", "metric", "mean", "drop"} of every group whose tasks are all there: the mean of
    their main metric, and how far it is below that of the clean task, where there is one."""
    found, there = [], {result["task"]: result for result in results}
    for name, group in GROUPS.items():
        if not all(task in there for task in _members(name)):
            continue
        mean = _mean(name, there)
        drop = _mean(group.clean, there) - mean if group.clean else None
        metrics = {there[task]["main"] for task in _members(name)}
        metric = metrics.pop() if len(metrics) == 1 else ""
        found.append({"group": name, "tasks": len(group.tasks), "metric": metric, "mean": mean, "drop": drop})
    return found


def _mean(name: str, there: dict) -> float:
    """The main metric of a task, or the mean of a group's; a group in another counts as one task."""
    if name not in GROUPS:
        return there[name]["metrics"][there[name]["main"]]["value"]
    group = GROUPS[name]
    weights = [there[task]["items"] if group.by_items else 1 for task in group.tasks]
    return sum(w * _mean(task, there) for w, task in zip(weights, group.tasks)) / sum(weights)
