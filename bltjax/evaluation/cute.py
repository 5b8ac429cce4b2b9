"""CUTE (arXiv 2409.15452): what a model knows of the characters in its text. Fourteen tasks, four shots each,
exact match.

    python -m bltjax.evaluation.cute DIR      scores of published outputs: outputs.*.TASK.txt beside labels.*

The wording of the prompts is our own; another one, the released one say, is read from a JSON file
(`template`).
"""

import csv
import json
import pathlib
import re
import sys
from typing import NamedTuple

from bltjax.errors import UserError

NEW_BYTES = 100  # tokens in the release; of a model of bytes, bytes
UNTIL = ("\n",)  # a base model would go on with a question of its own
LONGEST = 1 << 16  # ids of a prompt: four shots are never cut

# What each asks of its inputs; four examples of ours, none of which is in the data's first words.
TASKS = {
    "spell": (
        'Write the word with a space between its letters. Word: "{0}"',
        [("river", "r i v e r"), ("stone", "s t o n e"), ("maple", "m a p l e"), ("dust", "d u s t")],
    ),
    "spell_inverse": (
        'Join the letters to a word. Letters: "{0}"',
        [("r i v e r", "river"), ("s t o n e", "stone"), ("m a p l e", "maple"), ("d u s t", "dust")],
    ),
    "contains_char": (
        'Is the letter "{0}" in the word "{1}"? Answer "Yes" or "No".',
        [
            ("v", "river", "Yes"),
            ("k", "stone", "No"),
            ("p", "maple", "Yes"),
            ("o", "dust", "No"),
        ],
    ),
    "contains_word": (
        'Is the word "{0}" in the sentence "{1}"? Answer "Yes" or "No".',
        [
            ("river", "A river runs there.", "Yes"),
            ("stone", "We walked all night.", "No"),
            ("maple", "Red is the maple in fall.", "Yes"),
            ("dust", "Rain has come.", "No"),
        ],
    ),
    "orth": (
        'Which of two words is spelled more like "{0}": "{1}" or "{2}"?',
        [
            ("river", "rover", "stream", "rover"),
            ("stone", "rock", "stove", "stove"),
            ("maple", "staple", "tree", "staple"),
            ("dust", "dirt", "bust", "bust"),
        ],
    ),
    "sem": (
        'Which of two words is closer in meaning to "{0}": "{1}" or "{2}"?',
        [
            ("river", "rover", "stream", "stream"),
            ("stone", "rock", "stove", "rock"),
            ("maple", "staple", "tree", "tree"),
            ("dust", "dirt", "bust", "dirt"),
        ],
    ),
    "ins_char": (
        'Write "{1}" behind every "{0}" in the word "{2}".',
        [
            ("v", "x", "river", "rivxer"),
            ("o", "b", "stone", "stobne"),
            ("a", "t", "maple", "matple"),
            ("s", "l", "dust", "duslt"),
        ],
    ),
    "ins_word": (
        'Write "{1}" behind every "{0}" in the sentence "{2}".',
        [
            ("river", "old", "A river runs there.", "A river old runs there."),
            ("all", "lamp", "We walked all night.", "We walked all lamp night."),
            ("the", "big", "Red is the maple in fall.", "Red is the big maple in fall."),
            ("Rain", "soon", "Rain has come.", "Rain soon has come."),
        ],
    ),
    "del_char": (
        'Leave every "{0}" out of the word "{1}".',
        [("v", "river", "rier"), ("o", "stone", "stne"), ("a", "maple", "mple"), ("s", "dust", "dut")],
    ),
    "del_word": (
        'Leave every "{0}" out of the sentence "{1}".',
        [
            ("river", "A river runs there.", "A runs there."),
            ("all", "We walked all night.", "We walked night."),
            ("the", "Red is the maple in fall.", "Red is maple in fall."),
            ("has", "Rain has come.", "Rain come."),
        ],
    ),
    "sub_char": (
        'Write "{1}" in place of every "{0}" in the word "{2}".',
        [
            ("v", "x", "river", "rixer"),
            ("o", "b", "stone", "stbne"),
            ("a", "t", "maple", "mtple"),
            ("s", "l", "dust", "dult"),
        ],
    ),
    "sub_word": (
        'Write "{1}" in place of every "{0}" in the sentence "{2}".',
        [
            ("river", "lamp", "A river runs there.", "A lamp runs there."),
            ("all", "one", "We walked all night.", "We walked one night."),
            ("the", "big", "Red is the maple in fall.", "Red is big maple in fall."),
            ("Rain", "Snow", "Rain has come.", "Snow has come."),
        ],
    ),
    "swap_char": (
        'Exchange the letters "{0}" and "{1}" in the word "{2}".',
        [
            ("v", "i", "river", "rvier"),
            ("o", "t", "stone", "sotne"),
            ("a", "l", "maple", "mlpae"),
            ("s", "d", "dust", "sudt"),
        ],
    ),
    "swap_word": (
        'Exchange the words "{0}" and "{1}" in the sentence "{2}".',
        [
            ("river", "runs", "A river runs there.", "A runs river there."),
            ("all", "walked", "We walked all night.", "We all walked night."),
            ("the", "maple", "Red is the maple in fall.", "Red is maple the in fall."),
            ("has", "come", "Rain has come.", "Rain come has."),
        ],
    ),
}
NAMES = tuple(TASKS)
WORDS = tuple(name for name in TASKS if name.endswith("_word"))  # compared in lower case
LAYOUT = 'Question: {question}\nAnswer: "{answer}"\n\n'
QUOTED = re.compile(r'"([^"]*)"')


class Template(NamedTuple):
    """questions: {task: question with {0}, {1}, ... for its inputs}. shots: {task: [[inputs..., answer]]}.
    layout: of a shot, with {question} and {answer}; what stands before {answer} ends the prompt."""

    questions: dict
    shots: dict
    layout: str


OURS = Template(
    {name: question for name, (question, _) in TASKS.items()},
    {name: shots for name, (_, shots) in TASKS.items()},
    LAYOUT,
)


def template(path: pathlib.Path) -> Template:
    """Of a JSON file {"layout": TEXT, "tasks": {TASK: {"question": TEXT, "shots": [[input..., answer],
    ...]}}} or {"tasks": {TASK: {"prompt": TEXT}}}: a whole prompt with its shots, to which only the inputs
    {0}, {1}, ... are to be added. UserError where it is not whole."""
    try:
        told = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        layout = told.get("layout", LAYOUT)
        questions, shots = {}, {}
        for name, task in told["tasks"].items():
            whole = "prompt" in task
            questions[name] = task["prompt"] if whole else task["question"]
            shots[name] = None if whole else [tuple(map(str, shot)) for shot in task["shots"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no template of CUTE: {error!r}") from None
    if missing := [name for name in NAMES if name not in questions]:
        raise UserError(f"{path} is no template of CUTE: it lacks {', '.join(missing)}")
    if "{answer}" not in layout or "{question}" not in layout:
        raise UserError(f"{path}: a layout has {{question}} and {{answer}}")
    return Template(questions, shots, layout)


def prompt(task: str, inputs, wording: Template = OURS) -> str:
    """The prompt of an item, its shots before it; it ends where the answer begins."""
    fill = lambda text, values: re.sub(r"\{(\d)\}", lambda m: values[int(m[1])], text)
    shots = wording.shots[task]
    if shots is None:
        return fill(wording.questions[task], inputs)
    ask = lambda values: wording.layout.replace("{question}", fill(wording.questions[task], values))
    done = [ask(shot[:-1]).replace("{answer}", shot[-1]) for shot in shots]
    return "".join(done) + ask(inputs).partition("{answer}")[0]


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
    if task not in TASKS:
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
    wanted = len(TASKS[task][1][0]) - 1
    if head != [*(f"input{i + 1}" for i in range(wanted)), "label"]:
        raise UserError(f"{path}: its header must be input1 to input{wanted} and label, not {' '.join(head)}")
    if bad := [i + 2 for i, row in enumerate(rows) if len(row) != wanted + 1]:
        raise UserError(f"{path}: line {bad[0]} has not {wanted + 1} fields")
    return [{"id": str(i), "inputs": row[:-1], "label": row[-1]} for i, row in enumerate(rows)]


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
        stated = float(said.read_text(encoding="utf-8")) if said.exists() else None
        agrees = stated is None or abs(stated - value) < 5e-5
        found.append({"model": model, "task": task, "score": value, "published": stated, "agrees": agrees})
    if not found:
        raise UserError(f"{folder} has no outputs.MODEL.TASK.txt")
    return found


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
