"""Prompts as users end them, with a space or within a word. A model of bytes reads the bytes that it would
have read anyway; a tokenizer, which is given the prompt alone, ends it with tokens that the whole text has
not.

trailing_space: multiple choice, of which each prompt ends with the space that stands before the choices.
cut_prompts: texts that are cut within a word, and what comes next scored behind the part before."""

import functools
import math
import pathlib

from bltjax.data import files as sources
from bltjax.errors import UserError
from bltjax.evaluation import costs, encoding, likelihood, multiple_choice, noise, task_data
from bltjax.evaluation.task import Group, Settings, Task, mean

SPACE = "_trailing_space"
CUT = "cut_prompts"
PIECE = 400  # characters of a text that make one item: all families' rows hold them
SHORTEST = 32  # characters of a prompt
NEXT = 32  # characters that are scored, and those up to the end of a word
LONGEST_DOCUMENT = 1 << 24  # bytes


def spaced(name: str, items: list[dict]) -> list[dict]:
    """Items with the space before their choices at the end of their contexts. UserError, naming the item,
    where a choice begins with none."""
    for item in items:
        if not all(choice[:1] == " " and choice != " " for choice in item["choices"]):
            raise UserError(f"{name}: item {item['id']} has a choice that does not begin with a space")
    return [
        {**item, "context": f"{item['context']} ", "choices": [choice[1:] for choice in item["choices"]]}
        for item in items
    ]


def _read_spaced(name: str, data: pathlib.Path, settings: Settings) -> list[dict]:
    return spaced(name + SPACE, multiple_choice.read(name, data, settings))


def _spaced_result(model, asked: list[dict], settings: Settings, progress) -> tuple[dict, list[dict]]:
    """As task.Task has it: accuracies behind prompts that end with a space, and how much of the clean task's
    is lost, item by item.

    What is lost is said of `acc` alone. The space is predicted no more: of bytes, all choices lose the same
    nats, which changes no sum's rank, but what is divided by characters."""
    lines = []
    for at in range(0, len(asked), multiple_choice.CHUNK):
        some = asked[at : at + multiple_choice.CHUNK]
        clean = [
            {**item, "context": item["context"][:-1], "choices": [f" {choice}" for choice in item["choices"]]}
            for item in some
        ]
        scored = multiple_choice.score(model, some, settings.batch_size, apart=True)
        for line, other in zip(scored, multiple_choice.score(model, clean, settings.batch_size), strict=True):
            lost = other["acc"] - line["acc"]
            lines.append({**line, "clean_nats": other["nats"], "acc_lost": lost})
        if progress:
            progress(len(some))
    metrics = (*multiple_choice.METRICS, "acc_lost")
    return multiple_choice.result(model, asked, lines, metrics, "acc_lost"), lines


def cut(text: str, seed: int = 0) -> tuple[str, str] | None:
    """(prompt, what comes next) of a text that is cut between two letters or digits, at a place that the seed
    and the text alone decide; None where there is no such place. What comes next has NEXT characters and
    those up to the end of a word, at most twice as many."""
    within = lambda at: text[at - 1].isalnum() and text[at].isalnum()
    if not (places := [at for at in range(SHORTEST, len(text) - NEXT) if within(at)]):
        return None
    at = noise.draws(seed, CUT, text).choice(places)
    most = min(len(text), at + 2 * NEXT)
    end = next((end for end in range(at + NEXT, most) if not within(end)), most)
    return text[:at], text[at:end]


def pieces(text: str) -> list[str]:
    """A text in pieces of PIECE characters at most, ends of words among them."""
    found, at = [], 0
    while at < len(text):
        end = at + PIECE
        if end < len(text):
            spaces = (i for i in range(end, at + PIECE // 2, -1) if text[i].isspace())
            end = next(spaces, end)
        found.append(text[at:end].strip())
        at = end
    return found


def _read_texts(data: pathlib.Path, settings: Settings) -> list[dict]:
    """{"id", "prompt", "next"} of every piece of the texts in DIR/cut_prompts/ or of DIR/cut_prompts.*, files
    as docs/data.md has them."""
    found, paths = [], [*data.glob(f"{CUT}.*"), *task_data.files_below(data / CUT)]
    if not (paths := [str(path) for path in sorted(paths) if path.is_file()]):
        raise UserError(f"{data} has no texts to cut: neither files in {CUT}/ nor {CUT}.jsonl")
    for file in sources.found(paths):
        for document, _ in sources.documents(file, "text", LONGEST_DOCUMENT):
            for piece in pieces(document.decode("utf-8", "surrogateescape")):
                if made := cut(piece, settings.seed):
                    found.append({"id": str(len(found)), "prompt": made[0], "next": made[1]})
                if settings.limit and len(found) == settings.limit:
                    return found
    if not found:
        raise UserError(f"the texts of {CUT} have no word to cut with {SHORTEST} characters before it")
    return found


def _cut_result(model, asked: list[dict], settings: Settings, progress) -> tuple[dict, list[dict]]:
    """As task.Task has it. bits: of what comes next, behind the prompt alone, per character of it;
    bits_added: how much more these are than behind a prompt that ends with one of the text's own tokens, the
    last that ends by the cut.

    That other prompt is shorter by the characters of a token's beginning, which are then predicted, too, and
    counted: what is added is not overstated."""
    coded, lines = encoding.Encoding(model), []
    score = functools.partial(likelihood.loglikelihoods, model, batch_size=settings.batch_size)
    for at in range(0, len(asked), multiple_choice.CHUNK):
        some = asked[at : at + multiple_choice.CHUNK]
        pairs = [coded.apart(item["prompt"], item["next"]) for item in some]
        others = [coded.aligned(item["prompt"], item["next"]) for item in some]
        told, differ = score(pairs), [i for i, pair in enumerate(pairs) if pair != others[i]]
        aligned = dict(zip(differ, score([others[i] for i in differ]))) if differ else {}
        for i, (item, one) in enumerate(zip(some, told, strict=True)):
            per = math.log(2) * len(item["next"])
            bits, other = -one.value / per, -aligned.get(i, one).value / per
            size = len((item["prompt"] + item["next"]).encode("utf-8", "surrogateescape"))
            units = {"positions": one.positions, "patches": one.patches, "cut": int(one.cut > 0)}
            lines.append({"id": item["id"], "bits": bits, "bits_added": bits - other, "size": size, **units})
        if progress:
            progress(len(some))
    total = {name: sum(line[name] for line in lines) for name in ("positions", "patches", "cut")}
    result = {
        "metrics": {name: mean([line[name] for line in lines]) for name in ("bits", "bits_added")},
        "main": "bits_added",
        "cut": total.pop("cut"),
        **costs.of_rows(model, **total, sizes=[line["size"] for line in lines]),
    }
    return result, lines


TASKS = {
    name + SPACE: Task(functools.partial(_read_spaced, name), _spaced_result)
    for name in multiple_choice.FORMS
} | {CUT: Task(_read_texts, _cut_result)}
GROUPS = {SPACE[1:]: Group(tuple(name + SPACE for name in multiple_choice.FORMS))}
