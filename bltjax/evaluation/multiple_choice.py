"""Multiple choice by log-likelihood: the items of ARC, PIQA and HellaSwag as lm-eval words them, clean and
with noise, and what is right by the sum of nats, by nats a character and by nats a byte."""

import functools
import re
from typing import Callable, NamedTuple

from bltjax.errors import UserError
from bltjax.evaluation import costs, encoding, likelihood, noise, shots, task_data
from bltjax.evaluation.task import Group, Settings, Task, mean

METRICS = ("acc", "acc_norm", "acc_bytes")
NOISED = "_noised"  # hellaswag_noised: 15 tasks, hellaswag_drop_prompt and so on
COUNTED = ("cut", "shots_dropped", "positions", "patches")  # of a line, whose sums cost.of has
CHUNK = 1024  # items whose log-likelihoods are asked for together


class Form(NamedTuple):
    """folders: how its data's folder may be called. item: a row -> (context, choices, right one's index)."""

    folders: tuple[str, ...]
    item: Callable


def _hellaswag(row):
    label, before, after = (text_of(row, key) for key in ("activity_label", "ctx_a", "ctx_b"))
    context = _cleaned(f"{label}: {before} {after.capitalize()}")
    return context, [_cleaned(ending) for ending in row["endings"]], index_of(row["label"])


def _cleaned(text: str) -> str:
    """Without WikiHow's marks."""
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


def _arc(row):
    labels = [str(label) for label in row["choices"]["label"]]
    answer = labels.index(str(row["answerKey"]))
    return f"Question: {text_of(row, 'question')}\nAnswer:", list(row["choices"]["text"]), answer


def _piqa(row):
    goal = text_of(row, "goal")
    return f"Question: {goal}\nAnswer:", [row["sol1"], row["sol2"]], index_of(row["label"])


def text_of(row: dict, key: str) -> str:
    """A field that is a text. TypeError where it is none."""
    if not isinstance(row[key], str):
        raise TypeError(f"{key} is no text")
    return row[key]


def index_of(value) -> int:
    """A whole number, or one that is spelled out. ValueError for what is neither."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"{value!r} is no whole number")
    return int(value)


FORMS = {
    "arc_easy": Form(("arc_easy", "arc-easy"), _arc),
    "arc_challenge": Form(("arc_challenge", "arc-challenge"), _arc),
    "piqa": Form(("piqa",), _piqa),
    "hellaswag": Form(("hellaswag",), _hellaswag),
}


def items(name: str, rows: list[dict]) -> list[dict]:
    """{"id", "context", "choices", "answer"} of a task's rows; each choice begins with the space that stands
    before it. A row that has "context", "choices" (a list of texts, their spaces too) and "answer" is taken
    as it is, for any task. UserError, naming the row, where fields are missing or do not fit."""
    found = []
    for number, row in enumerate(rows):
        try:
            ready = "context" in row and isinstance(row.get("choices"), list)
            if "context" in row and "choices" in row and not ready:
                raise ValueError("its choices are no list")
            context, choices, answer = (
                (row["context"], row["choices"], index_of(row["answer"])) if ready else FORMS[name].item(row)
            )
            if not all(isinstance(text, str) and text for text in choices) or not isinstance(context, str):
                raise ValueError("a choice is empty or no text, or the context is no text")
            if not 0 <= answer < len(choices) or len(choices) < 2:
                raise ValueError(f"the answer is {answer} of {len(choices)} choices")
        except KeyError as error:
            raise UserError(f"{name}: item {number} lacks {error}") from None
        except (TypeError, ValueError, AttributeError, IndexError) as error:
            raise UserError(f"{name}: item {number} is not as it should be: {error}") from None
        choices = choices if ready else [f" {text}" for text in choices]
        found.append({"id": str(number), "context": context, "choices": choices, "answer": answer})
    return found


def score(
    model, asked: list[dict], batch_size: int = 0, max_length: int = 0, progress=None, apart: bool = False
) -> list[dict]:
    """One line an item: {"id", "answer", "nats": log-likelihood of each choice, METRICS: 0 or 1, "bytes",
    "positions", "patches": of all its rows, "sizes": bytes of each row, "cut": rows that lost their left,
    "shots_dropped": shots that did not fit, and were left out}.

    An item may have "shots" (shots.joined). progress: called with the number of items done. apart: contexts
    are encoded as they are, alone, and not as the beginnings of whole texts."""
    ids, found = encoding.Encoding(model), []
    encode, length = ids.apart if apart else ids.pair, max_length or encoding.longest(model)
    pairs_of = lambda item: [encode(item["context"], choice) for choice in item["choices"]]
    for at in range(0, len(asked), CHUNK):
        some = [shots.fitted(item, pairs_of, length) for item in asked[at : at + CHUNK]]
        pairs = [pair for _, own, _ in some for pair in own]
        told = iter(likelihood.loglikelihoods(model, pairs, max_length, batch_size))
        found += [_line(item, [next(told) for _ in own], dropped) for item, own, dropped in some]
        if progress:
            progress(len(some))
    return found


def _line(item: dict, told, dropped: int) -> dict:
    nats = [one.value for one in told]
    texts = [choice.removeprefix(" ") for choice in item["choices"]]
    divided = {
        "acc": [1] * len(texts),
        "acc_norm": [len(text) for text in texts],
        "acc_bytes": [len(_bytes(text)) for text in texts],
    }
    right = {
        name: int(max(range(len(nats)), key=lambda i: nats[i] / by[i]) == item["answer"])
        for name, by in divided.items()
    }
    sizes = [len(_bytes(item["context"] + choice)) for choice in item["choices"]]
    return {
        "id": item["id"],
        "answer": item["answer"],
        "nats": nats,
        **right,
        "sizes": sizes,
        "positions": sum(one.positions for one in told),
        "patches": sum(one.patches for one in told),
        "cut": sum(one.cut > 0 for one in told),
        "shots_dropped": dropped,
    }


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def read(name: str, data, settings: Settings) -> list[dict]:
    """`items` of a folder of data. UserError where it has none."""
    rows = task_data.rows(task_data.find(data, FORMS[name].folders))
    return items(name, rows[: settings.limit or None])


def result(model, asked: list[dict], lines: list[dict], metrics, main: str) -> dict:
    """A task's result, as task.Task has it, of what `score` said."""
    return {
        "metrics": {name: mean([line[name] for line in lines]) for name in metrics},
        "main": main,
        "chance": sum(1 / len(item["choices"]) for item in asked) / len(asked),
        **cost(model, lines),
    }


def cost(model, lines: list[dict]) -> dict:
    """{"cut": texts that lost their left, "shots_dropped", and costs.of} of the lines of `score`."""
    sizes = [size for line in lines for size in line["sizes"]]
    total = {name: sum(line[name] for line in lines) for name in COUNTED}
    units = total.pop("positions"), total.pop("patches")
    return {**total, **costs.of_rows(model, *units, sizes)}


def _read(name: str, made: str, place: str, data, settings: Settings) -> list[dict]:
    asked = read(name, data, settings)
    return [noise.noised_item(item, made, place, settings.seed) for item in asked] if made else asked


def scored(model, asked: list[dict], settings: Settings, progress) -> tuple[dict, list[dict]]:
    """As task.Task has it."""
    lines = score(model, asked, settings.batch_size, progress=progress)
    return result(model, asked, lines, METRICS, "acc_norm"), lines


def _task(name: str, made: str = "", place: str = "") -> Task:
    return Task(functools.partial(_read, name, made, place), scored)


def _noised(name: str) -> dict[str, Task]:
    """{its name: a task} of the 15 variants."""
    return {f"{name}_{made}_{place}": _task(name, made, place) for made, place in noise.variants()}


TASKS = {name: _task(name) for name in FORMS} | {k: v for name in FORMS for k, v in _noised(name).items()}
GROUPS = {name + NOISED: Group(tuple(_noised(name)), clean=name) for name in FORMS}
