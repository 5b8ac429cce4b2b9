"""What a task is: where its items come from, and how a model is scored on them. tasks.py knows them all."""

import math
import pathlib
from typing import Callable, NamedTuple


class Settings(NamedTuple):
    """What a user may say of tasks; all but batch_size and allow_code decide scores.

    limit: items of a task at most, 0: all. seed: of noise, and of what else is drawn. batch_size: rows of a
    call, 0: by their length. cute_template: another wording of CUTE. spm: FLORES's SentencePiece model.
    allow_code: whether programs that a model wrote may be run, in a sandbox."""

    limit: int = 0
    seed: int = 0
    batch_size: int = 0
    cute_template: pathlib.Path | None = None
    spm: pathlib.Path | None = None
    allow_code: bool = False


class Task(NamedTuple):
    """items: (folder of data, Settings) -> the items, dicts with an "id". UserError where the data is missing
    or not whole. score: (model, items, Settings, progress) -> (result, lines).

    A result has "metrics" ({name: {"value", "stderr"}}), "main" (the metric that stands for the task where
    there is room for one), "cut" (texts that lost their left), "shots_dropped" where prompts have shots (over
    all items, those that were left out since they did not fit), costs.of, and "chance" where guessing has a
    score; a line an item has its "id" and its share in each metric, for paired comparisons. progress: called
    with the number of items done, or None."""

    items: Callable
    score: Callable


class Group(NamedTuple):
    """Tasks, or groups of them, that are asked for by one name, and whose mean is said. clean: a task that is
    scored beside them, to say how far their mean lies below it. by_items: whether every item counts alike,
    not every task."""

    tasks: tuple[str, ...]
    clean: str = ""
    by_items: bool = False


def mean(values) -> dict:
    """{"value", "stderr"}: the mean and its standard error over items (None of one item)."""
    n = len(values)
    value = sum(values) / n
    spread = sum((v - value) ** 2 for v in values) / (n - 1) if n > 1 else None
    return {"value": value, "stderr": None if spread is None else math.sqrt(spread / n)}


def ratio(parts, wholes) -> dict:
    """{"value", "stderr"}: a sum over a sum, as of nats over bytes, and its standard error over items (None
    of one item), to first order."""
    n, whole = len(parts), sum(wholes)
    value = sum(parts) / whole
    off = sum((part - value * w) ** 2 for part, w in zip(parts, wholes, strict=True))
    return {"value": value, "stderr": math.sqrt(off / (n - 1) * n) / whole if n > 1 else None}
