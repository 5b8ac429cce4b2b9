"""Tasks by name: their data from a user's folder, their items scored, and a file of results for each, so that
what was stopped goes on with the first task that is not done.

    OUT/TASK.json           metrics with standard errors, what a byte cost, how many items were cut
    OUT/TASK.items.jsonl    a line an item, for paired comparisons of models"""

import contextlib
import json
import pathlib

from bltjax import models
from bltjax.errors import UserError
from bltjax.evaluation import answers, costs, cute, multiple_choice, noise, setup, task_data
from bltjax.storage import atomic, rundir

SCHEMA_VERSION = 1
CUTE = "cute"
NOISED = "_noised"  # hellaswag_noised: 15 tasks, hellaswag_drop_prompt and so on


def groups() -> dict[str, list[str]]:
    """{name of a group: its tasks}."""
    found = {CUTE: [f"{CUTE}_{name}" for name in cute.NAMES]}
    for name in multiple_choice.TASKS:
        found[name + NOISED] = [name, *(f"{name}_{n}_{place}" for n, place in noise.variants())]
    return found


def expand(names: list[str]) -> list[str]:
    """The tasks of names and groups, each once. UserError for an unknown one."""
    every, found = groups(), {}
    known = {*multiple_choice.TASKS, *(task for tasks in every.values() for task in tasks)}
    for name in names:
        if name not in known and name not in every:
            allowed = ", ".join([*multiple_choice.TASKS, *every])
            raise UserError(f"unknown task {name!r}; allowed: {allowed}, and the tasks of these groups")
        found |= dict.fromkeys(every.get(name, [name]))
    return list(found)


def noise_of(task: str) -> tuple[str, str, str]:
    """(multiple-choice task, noise, place) of a task's name; ("...", "", "") of a clean one."""
    for name in multiple_choice.TASKS:
        for made, place in noise.variants():
            if task == f"{name}_{made}_{place}":
                return name, made, place
    return task, "", ""


def evaluate(
    model,
    names: list[str],
    data: pathlib.Path,
    out: pathlib.Path | None = None,
    *,
    limit: int = 0,
    seed: int = 0,
    batch_size: int = 0,
    template: pathlib.Path | None = None,
    bar=None,
    say=print,
) -> dict:
    """{"model", "tasks": [a result each], "groups": [means of groups], "failed": [{"task", "why"}]}.

    names: of tasks or groups. data: a folder (docs/evaluation.md). out: where results are kept; None:
    nowhere. limit: items of a task at most, 0: all. seed: of noise. bar: (task, items) -> a context with
    `update`. say: told of a task that could not be scored, in a line; the others are."""
    wanted, results, failed = expand(names), [], []
    wording = cute.template(template) if template else cute.OURS
    with setup.held(out):
        for task in wanted:
            done = rundir.read_json(out / f"{task}.json") if out is not None else None
            if done and done.get("schema_version") == SCHEMA_VERSION:
                results.append(done)
                continue
            try:
                asked = _items(task, data, limit, seed)
            except UserError as error:
                failed.append({"task": task, "why": " ".join(str(error).split())})
                say(failed[-1]["why"])
                continue
            with bar(task, len(asked)) if bar else contextlib.nullcontext() as shown:
                update = shown.update if shown is not None else None
                if task.startswith(f"{CUTE}_"):
                    result, lines = _cute(model, task.removeprefix(f"{CUTE}_"), asked, wording, update)
                else:
                    result, lines = _multiple_choice(model, asked, batch_size, update)
            result = {"schema_version": SCHEMA_VERSION, "task": task, "items": len(asked), **result}
            if out is not None:
                text = "".join(json.dumps(line) + "\n" for line in lines)
                atomic.write_text(out / f"{task}.items.jsonl", text)
                atomic.write_json(out / f"{task}.json", result)
            results.append(result)
    return {"model": str(model.folder), "tasks": results, "groups": means(results), "failed": failed}


def _items(task: str, data: pathlib.Path, limit: int, seed: int) -> list[dict]:
    if task.startswith(f"{CUTE}_"):
        name = task.removeprefix(f"{CUTE}_")
        for path in (data / CUTE / f"{name}.tsv", data / f"{name}.tsv"):
            if path.exists():
                return cute.items(path, name)[: limit or None]
        raise UserError(f"{data} has no {CUTE}/{name}.tsv; CUTE's data is on the hub and in its repository")
    clean, made, place = noise_of(task)
    paths = task_data.find(data, multiple_choice.TASKS[clean].folders)
    asked = multiple_choice.items(clean, task_data.rows(paths)[: limit or None])
    return [noise.noised_item(item, made, place, seed) for item in asked] if made else asked


def _multiple_choice(model, asked, batch_size, update):
    lines = multiple_choice.score(model, asked, batch_size, progress=update)
    metrics = {
        name: multiple_choice.mean([line[name] for line in lines]) for name in multiple_choice.METRICS
    }
    sizes = [size for line in lines for size in line["sizes"]]
    patches = sum(line["patches"] for line in lines)
    tokens = models.kind(model.config.model).UNIT == "token"
    positions = sum(sizes) if tokens else sum(line["positions"] for line in lines)
    result = {
        "metrics": metrics,
        "chance": sum(1 / len(item["choices"]) for item in asked) / len(asked),
        "cut": sum(line["cut"] for line in lines),
        **costs.of(model, model.config, positions / patches, sizes),
    }
    return result, lines


def _cute(model, name, asked, wording, update):
    prompts = [cute.prompt(name, item["inputs"], wording) for item in asked]
    counts = {}
    texts = answers.generate(
        model, prompts, cute.NEW_BYTES, cute.UNTIL, progress=update, counts=counts, max_length=cute.LONGEST
    )
    lines = []
    for item, asked_for, text in zip(asked, prompts, texts, strict=True):
        answer = cute.extract(asked_for.rpartition("\n")[2] + text)  # the prompt may have opened the quote
        right = int(cute.equal(name, answer, item["label"]))
        lines.append({"id": item["id"], "text": text, "answer": answer, "label": item["label"], "acc": right})
    size = counts["bytes"] / max(1, counts["patches"])
    result = {
        "metrics": {"acc": multiple_choice.mean([line["acc"] for line in lines])},
        "cut": 0,
        **costs.of(model, model.config, size, [len(p.encode()) for p in prompts]),
    }
    return result, lines


def means(results: list[dict]) -> list[dict]:
    """{"group", "acc", "drop"} of every group whose tasks are all there: the mean of accuracies, and of noise
    (the clean task left out) how far it is below the clean one, of acc_norm where there is one."""
    value = lambda r: r["metrics"].get("acc_norm", r["metrics"]["acc"])["value"]
    found, there = [], {result["task"]: result for result in results}
    for name, tasks in groups().items():
        if all(task in there for task in tasks):
            noised = tasks[1:] if name.endswith(NOISED) else tasks
            mean = sum(value(there[task]) for task in noised) / len(noised)
            drop = value(there[tasks[0]]) - mean if name.endswith(NOISED) else None
            found.append({"group": name, "tasks": len(noised), "acc": mean, "drop": drop})
    return found
