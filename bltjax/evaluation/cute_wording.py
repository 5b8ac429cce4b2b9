"""How CUTE's questions are worded: our own words with four shots, or a file's (the released wording, say)."""

import json
import pathlib
import re
from typing import NamedTuple

from bltjax.errors import UserError

# What each asks of its inputs; four examples of ours, none of which is in the data's first words.
QUESTIONS = {
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
        'Write "{0}" behind every "{1}" in the word "{2}".',
        [
            ("x", "v", "river", "rivxer"),
            ("b", "o", "stone", "stobne"),
            ("t", "a", "maple", "matple"),
            ("l", "s", "dust", "duslt"),
        ],
    ),
    "ins_word": (
        'Write "{0}" behind every "{1}" in the sentence "{2}".',
        [
            ("old", "river", "A river runs there.", "A river old runs there."),
            ("lamp", "all", "We walked all night.", "We walked all lamp night."),
            ("big", "the", "Red is the maple in fall.", "Red is the big maple in fall."),
            ("soon", "Rain", "Rain has come.", "Rain soon has come."),
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
LAYOUT = 'Question: {question}\nAnswer: "{answer}"\n\n'


class Template(NamedTuple):
    """questions: {task: question with {0}, {1}, ... for its inputs}. shots: {task: [[inputs..., answer]]}.
    layout: of a shot, with {question} and {answer}; what stands before {answer} ends the prompt."""

    questions: dict
    shots: dict
    layout: str


OURS = Template(
    {name: question for name, (question, _) in QUESTIONS.items()},
    {name: shots for name, (_, shots) in QUESTIONS.items()},
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
    if missing := [name for name in QUESTIONS if name not in questions]:
        raise UserError(f"{path} is no template of CUTE: it lacks {', '.join(missing)}")
    if "{answer}" not in layout or "{question}" not in layout:
        raise UserError(f"{path}: a layout has {{question}} and {{answer}}")
    return Template(questions, shots, layout)


def prompt(task: str, inputs, wording: Template = OURS) -> str:
    """The prompt of an item, its shots before it; it ends where the answer begins."""
    done, asked = parts(task, inputs, wording)
    return "".join(done) + asked


def parts(task: str, inputs, wording: Template = OURS) -> tuple[list[str], str]:
    """(the shots of a prompt, what stands behind them); a template that has whole prompts has no shots that
    could be told apart."""
    fill = lambda text, values: re.sub(r"\{(\d)\}", lambda m: values[int(m[1])], text)
    shots = wording.shots[task]
    if shots is None:
        return [], fill(wording.questions[task], inputs)
    ask = lambda values: wording.layout.replace("{question}", fill(wording.questions[task], values))
    done = [ask(shot[:-1]).replace("{answer}", shot[-1]) for shot in shots]
    return done, ask(inputs).partition("{answer}")[0]
