"""CUTE (arXiv 2409.15452): what a model knows of the characters in its text. Fourteen tasks, four shots each,
exact match of what it writes.

    python -m bltjax.evaluation.cute DIR      scores of published outputs: outputs.*.TASK.txt beside labels.*
"""

import csv
import functools
import pathlib
import re
import sys

from bltjax.errors import UserError
from bltjax.evaluation import answers, costs, cute_wording
from bltjax.evaluation.task import Group, Settings, Task, mean

NEW_BYTES = 100  # tokens in the release; of a model of bytes, bytes
UNTIL = ("\n",)  # a base model would go on with a question of its own
NAMES = tuple(cute_wording.QUESTIONS)
WORDS = tuple(name for name in NAMES if name.endswith("_word"))  # compared in lower case
QUOTED = re.compile(r'"([^"]*)"')


def extract(generation: str) -> str:
    """The answer in what a model wrote: the first quoted text after the last `Answer:`; where no quotation
    mark is closed, what stands up to one, or the first line."""
    text = generation.rpartition("Answer:")[2]
    if found := QUOTED.search(text):
        return found[1]
    return text.strip().removeprefix('"').partition('"')[0].partition("\n")[0].strip()


def equal(task: str, output: str, label: str) -> bool:
    """Exact match, of word tasks in lower case."""
    output, label = output.strip("\r\n"), label.strip("\r\n")
    return output.lower() == label.lower() if task in WORDS else output == label


def score(task: str, outputs: list[str], labels: list[str]) -> float:
    """The share of lines that are equal, as published: outputs are answers (see `extract`). UserError for
    unknown tasks, and for numbers of lines that differ."""
    if task not in NAMES:
        raise UserError(f"unknown CUTE task {task!r}; allowed: {', '.join(NAMES)}")
    outputs, labels = list(outputs), list(labels)
    if len(outputs) != len(labels) or not labels:
        raise UserError(f"CUTE {task}: {len(outputs)} outputs and {len(labels)} labels; they must be as many")
    return sum(equal(task, o, l) for o, l in zip(outputs, labels)) / len(labels)


def items(path: pathlib.Path, task: str) -> list[dict]:
    """{"id", "inputs", "label"} of a TSV (header input1.., label). UserError where it is none."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            head, *rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {getattr(error, 'strerror', None) or 'it has no header'}") from None
    wanted = len(cute_wording.QUESTIONS[task][1][0]) - 1
    if head != [*(f"input{i + 1}" for i in range(wanted)), "label"]:
        raise UserError(f"{path}: its header must be input1 to input{wanted} and label, not {' '.join(head)}")
    if bad := [i + 2 for i, row in enumerate(rows) if len(row) != wanted + 1]:
        raise UserError(f"{path}: line {bad[0]} has not {wanted + 1} fields")
    return [{"id": str(i), "inputs": row[:-1], "label": row[-1]} for i, row in enumerate(rows)]


def read(name: str, data: pathlib.Path, settings: Settings) -> list[dict]:
    """The items of a task, in a user's folder. UserError where there are none."""
    for path in (data / "cute" / f"{name}.tsv", data / f"{name}.tsv"):
        if path.exists():
            return items(path, name)[: settings.limit or None]
    raise UserError(f"{data} has no cute/{name}.tsv; CUTE's data is on the hub and in its repository")


def _result(name: str, model, asked: list[dict], settings: Settings, progress) -> tuple[dict, list[dict]]:
    """As task.Task has it: greedy answers, exact match."""
    path = settings.cute_template
    wording = cute_wording.template(path) if path else cute_wording.OURS
    prompts = [cute_wording.prompt(name, item["inputs"], wording) for item in asked]
    counts = {}
    texts = answers.generate(
        model, prompts, NEW_BYTES, UNTIL, progress=progress, counts=counts, max_length=answers.UNCUT
    )
    lines = []
    for item, asked_for, text in zip(asked, prompts, texts, strict=True):
        answer = extract(asked_for.rpartition("\n")[2] + text)  # the prompt may have opened the quote
        right = int(equal(name, answer, item["label"]))
        lines.append({"id": item["id"], "text": text, "answer": answer, "label": item["label"], "acc": right})
    result = {
        "metrics": {"acc": mean([line["acc"] for line in lines])},
        "main": "acc",
        "cut": 0,
        **costs.of_answers(model, counts, prompts),
    }
    return result, lines


TASKS = {
    f"cute_{name}": Task(functools.partial(read, name), functools.partial(_result, name)) for name in NAMES
}
GROUPS = {"cute": Group(tuple(TASKS))}


def published(folder: pathlib.Path) -> list[dict]:
    """{"model", "task", "score", "published", "agrees"} of every outputs.MODEL.TASK.txt of a folder.
    UserError where there is none, or one has no labels."""
    found = []
    for path in sorted(pathlib.Path(folder).glob("outputs.*.txt")):
        model, _, task = path.name.removeprefix("outputs.").removesuffix(".txt").rpartition(".")
        labels = path.with_name(path.name.replace("outputs.", "labels.", 1))
        said = path.with_name(path.name.replace("outputs.", "score.", 1))
        if not labels.exists():
            raise UserError(f"{path} has no labels beside it ({labels.name})")
        value = score(task, _lines(path), _lines(labels))
        stated = _score(said) if said.exists() else None
        agrees = stated is None or abs(stated - value) < 5e-5
        found.append({"model": model, "task": task, "score": value, "published": stated, "agrees": agrees})
    if not found:
        raise UserError(f"{folder} has no outputs.MODEL.TASK.txt")
    return found


def _score(path: pathlib.Path) -> float:
    try:
        return float(path.read_text(encoding="utf-8"))
    except ValueError:
        raise UserError(f"{path} holds no number") from None


def _lines(path: pathlib.Path) -> list[str]:
    return path.read_bytes().decode("utf-8", "replace").removesuffix("\n").split("\n")


def main(arguments) -> int:
    """Prints the scores of published outputs; 1 where lines and score disagree."""
    try:
        if len(arguments) != 1:
            raise UserError("give the folder of outputs.MODEL.TASK.txt, labels.* and score.*")
        found = published(pathlib.Path(arguments[0]))
    except UserError as error:
        print(f"bltjax: {error}", file=sys.stderr)
        return 2
    for one in found:
        note = "" if one["published"] is None else f"  published {one['published']:.4f}"
        note += "" if one["agrees"] else "  DISAGREES: the lines are of another run than the score"
        print(f"{one['model']:16} {one['task']:14} {one['score']:.4f}{note}")
    return 0 if all(one["agrees"] for one in found) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
