"""What of tasks and files stands in training text: by the 50-byte shingles with which prepared data looks for
near-copies (data/near_copies.py), boilerplate of the training text and of the items left out.

Training text is streamed; in memory are the shingles of what is looked for, of much text a sample of them."""

import json
import pathlib
from typing import NamedTuple

import numpy as np

from bltjax.data import files, near_copies, shingles
from bltjax.errors import UserError
from bltjax.evaluation import tasks
from bltjax.evaluation.task import Settings
from bltjax.storage import atomic, json_lines

CHUNK = 1 << 22  # bytes of training text that are in memory together, or one document
LONGEST = 1 << 24  # bytes of a document of files


class Item(NamedTuple):
    """What is looked for: of which task or file, its id there, and its texts."""

    task: str
    id: str
    texts: list[bytes]


def texts(item: dict) -> list[str]:
    """The texts of a task's item, each of which training text might hold as it is: of multiple choice the
    context with the right choice behind it, of others every text in it but its id. A shingle never reaches
    from one to the next."""
    if "choices" in item and isinstance(item.get("answer"), int):
        return [item["context"] + item["choices"][item["answer"]]]
    return list(_strings({key: value for key, value in item.items() if key != "id"}))


def _strings(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from _strings(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _strings(one)


def of_tasks(names: list[str], data: pathlib.Path, say=print) -> tuple[list[Item], list[dict]]:
    """(the items of tasks or groups, [{"task", "why"}] of those whose data is not there, which are said)."""
    found, failed = [], []
    for name in tasks.expand(names):
        try:
            items = tasks.TASKS[name].items(data, Settings())
        except UserError as error:
            failed.append({"task": name, "why": " ".join(str(error).split())})
            say(failed[-1]["why"])
            continue
        found += [
            Item(name, item["id"], [text.encode("utf-8", "surrogateescape") for text in texts(item)])
            for item in items
        ]
    return found, failed


def of_files(patterns, separator: str = "") -> list[Item]:
    """The documents of files, as `bltjax eval MODEL FILES` numbers them."""
    return [
        Item(file.path, str(number), [document])
        for file in files.found(patterns)
        for number, (document, _) in enumerate(files.documents(file, "text", LONGEST, separator=separator))
    ]


def measure(items: list[Item], documents, share: float = near_copies.NEAR, progress=None) -> dict:
    """{"documents", "bytes": of training text, "sampling": one shingle in so many was looked at, "share",
    "tasks": [{"task", "items", "overlapping", "any", "short"}], "items": [{"task", "id", "shingles",
    "in_training", "share", "overlaps"}]}.

    shingles: of an item, boilerplate left out; in_training: how many of them training text has, in any
    document; share: of these in those, None where it has none (a text below 50 bytes has no shingle). An item
    overlaps where more than `share` of its shingles are in training text. any: items with one there; short:
    items of which nothing can be told. progress: called with bytes of training text."""
    passages = [text for item in items for text in item.texts]
    owner = np.repeat(np.arange(len(items)), [len(item.texts) for item in items])
    sampling = near_copies.sampling_for(sum(map(len, passages)), least=1)
    held = near_copies.HeldOut(shingles.sampled(passages, sampling), len(passages))
    size = 0
    for some in _chunks(documents):
        held.count(held.match(shingles.among(some, held.maybe)))
        size += sum(map(len, some))
        if progress:
            progress(sum(map(len, some)))
    held.settle(len(documents), near_copies.many(len(items)))  # the shots of prompts, say, are every item's
    each = lambda values: np.bincount(owner, values, len(items)).astype(int).tolist()
    lines = [
        _line(item, *counts, share) for item, *counts in zip(items, each(held.sizes), each(held.trained()))
    ]
    by_task = {}
    for line in lines:
        by_task.setdefault(line["task"], []).append(line)
    summed = [
        {
            "task": name,
            "items": len(own),
            "overlapping": sum(line["overlaps"] for line in own),
            "any": sum(line["in_training"] > 0 for line in own),
            "short": sum(line["share"] is None for line in own),
        }
        for name, own in by_task.items()
    ]
    told = {"documents": len(documents), "bytes": size, "sampling": sampling, "share": share}
    return {**told, "tasks": summed, "items": lines}


def _line(item: Item, shingles_: int, trained: int, share: float) -> dict:
    own = trained / shingles_ if shingles_ else None
    overlaps = own is not None and own > share
    counts = {"shingles": shingles_, "in_training": trained, "share": own, "overlaps": overlaps}
    return {"task": item.task, "id": item.id, **counts}


def _chunks(documents):
    """Lists of documents, CHUNK bytes each or one document."""
    block, size = [], 0
    for number in range(len(documents)):
        block.append(documents[number])
        size += len(block[-1])
        if size >= CHUNK:
            yield block
            block, size = [], 0
    if block:
        yield block


def write(found: dict, path: pathlib.Path) -> None:
    """A line an item."""
    atomic.write_text(path, "".join(json.dumps(line) + "\n" for line in found["items"]))


def read(path: pathlib.Path) -> dict[str, set]:
    """{task or file: ids of its items that overlap} of what `write` wrote. UserError where it is no such
    file."""
    lines, found = json_lines.read(path), {}
    if not lines or not all({"task", "id", "overlaps"} <= set(line) for line in lines):
        raise UserError(f"{path} holds no items of bltjax data overlap")
    for line in lines:
        found.setdefault(line["task"], set()).update([line["id"]] * line["overlaps"])
    return found


def clean(lines: list[dict], overlapping: set) -> list[dict]:
    """The lines of a task's items (TASK.items.jsonl), or of a file's documents (documents.jsonl), that do not
    overlap."""
    return [line for line in lines if str(line.get("id", line.get("index"))) not in overlapping]
