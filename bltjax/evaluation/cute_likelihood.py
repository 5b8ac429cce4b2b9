"""CUTE for models that write no right answer yet: how likely the answer is behind the same four shots, and
whether it is likelier than another.

Where the question names two answers (yes or no, two words), those are the choice. Else the other answer is
made as the right one is: the same change of the same text at another place, or the spelling of another
word. It has as many bytes wherever there is such a one, and is as strange a word: neither a model of bytes
nor one of tokens can tell the two by anything but the question."""

import functools
import itertools
import pathlib
import random
import re

from bltjax.evaluation import cute, cute_wording, multiple_choice, shots
from bltjax.evaluation.task import Group, Settings, Task, mean, ratio

YES_NO = ("Yes", "No")


def changed(name: str, inputs) -> str:
    """The answer of an item of ins, del, sub or swap, for letters or words; the text stands last."""
    *said, text = inputs
    kind, gap, part = name.partition("_")[0], " " * name.endswith("_word"), _part(name)
    if kind == "ins":
        new, old = said
        return re.sub(part(old), lambda found: found[0] + gap + new, text)
    if kind == "del":
        (old,) = said
        return re.sub(rf"{gap}{part(old)}|^{part(old)}{gap}", "", text)
    other = dict(zip(said, reversed(said))) if kind == "swap" else {said[0]: said[1]}
    return re.sub("|".join(map(part, other)), lambda found: other[found[0]], text)


def _part(name: str):
    """What finds a letter, or a whole word."""
    return (lambda w: rf"(?<!\w){re.escape(w)}(?!\w)") if name.endswith("_word") else re.escape


def elsewhere(name: str, inputs) -> list[str]:
    """The same change of the same text, with others of its letters or words than those that are named."""
    *said, text = inputs
    places = sorted(set(re.findall(r"\w+" if name.endswith("_word") else r"\S", text)))
    if name.startswith("swap"):
        asked = [[*pair, text] for pair in itertools.combinations(places, 2)]
    else:
        at = 1 if name.startswith("ins") else 0
        asked = [[*said[:at], place, *said[at + 1 :], text] for place in places if place not in said]
    return [made for made in (changed(name, one) for one in asked) if made != text]


def other(name: str, item: dict, labels: list[str], seed: int = 0) -> str:
    """The answer that an item's label is compared with. labels: of all items: spellings of other words."""
    inputs, label = item["inputs"], item["label"]
    if name.startswith("contains"):
        return YES_NO[label == YES_NO[0]]
    if name in ("orth", "sem"):
        return inputs[2] if label == inputs[1] else inputs[1]
    some = labels if name.startswith("spell") else elsewhere(name, inputs) or [inputs[-1]]
    # of those that are not right, the one that is most like the label; which of several, hangs on the seed
    far = lambda text: (
        abs(len(text.encode()) - len(label.encode())),
        sum(a != b for a, b in zip(text, label)),
    )
    wrong = sorted({text for text in some if not cute.equal(name, text, label)})
    if not wrong:
        return label + label[-1:]
    least = min(map(far, wrong))
    draw = random.Random(f"{seed}/{name}/{item['id']}")
    return draw.choice([text for text in wrong if far(text) == least])


def _read(name: str, data: pathlib.Path, settings: Settings) -> list[dict]:
    """Items of multiple choice, with "label" and "other"."""
    every = cute.read(name, data, settings._replace(limit=0))
    path = settings.cute_template
    wording = cute_wording.template(path) if path else cute_wording.OURS
    end = wording.layout.partition("{answer}")[2]  # as in a shot: else tokens are not cut as they are there
    labels, found = [item["label"] for item in every], []
    for item in every[: settings.limit or None]:
        texts = item["label"], other(name, item, labels, settings.seed)
        answer = random.Random(f"{settings.seed}/{item['id']}").randrange(2)  # equals are right half the time
        found.append(
            {
                "id": item["id"],
                **shots.joined("", *cute_wording.parts(name, item["inputs"], wording)),
                "choices": [text + end for text in (texts[::-1] if answer else texts)],
                "answer": answer,
                "label": texts[0],
                "other": texts[1],
            }
        )
    return found


def _result(model, asked: list[dict], settings: Settings, progress) -> tuple[dict, list[dict]]:
    """As task.Task has it."""
    lines = multiple_choice.score(model, asked, settings.batch_size, progress=progress)
    sizes = [max(1, len(item["label"].encode("utf-8", "surrogateescape"))) for item in asked]
    kept = []
    for item, line, size in zip(asked, lines, sizes, strict=True):
        nats = -line["nats"][line["answer"]]
        kept.append(
            {
                **{key: item[key] for key in ("id", "label", "other")},
                "nats": nats,
                "nats_of_other": -line["nats"][1 - line["answer"]],
                "nats_per_byte": nats / size,
                "acc": line["acc"],
                **{key: line[key] for key in multiple_choice.COUNTED},
            }
        )
    result = {
        "metrics": {
            "acc": mean([line["acc"] for line in kept]),
            "nats_per_byte": ratio([line["nats"] for line in kept], sizes),
        },
        "main": "acc",
        "chance": 0.5,
        **multiple_choice.cost(model, lines),
    }
    return result, kept


TASKS = {f"cute_{name}_likelihood": Task(functools.partial(_read, name), _result) for name in cute.NAMES}
GROUPS = {"cute_likelihood": Group(tuple(TASKS))}
