"""MBPP and HumanEval: programs that a model writes, run against tests in the sandbox: pass@1, greedy.

Prompts and ends are lm-eval 0.4.13's: three shots and `[DONE]`, or none and the next top-level line. What
lm-eval leaves out is MBPP's `test_setup_code`, which one item of the 500 has and needs."""

import concurrent.futures
import functools
import os
import pathlib
from typing import Callable, NamedTuple

from bltjax import models
from bltjax.errors import UserError
from bltjax.evaluation import answers, costs, sandbox, task_data
from bltjax.evaluation.task import Settings, Task, mean

BYTES = 4  # that a model of bytes may write for a token of the others: as much text
LONGEST = 1 << 16  # ids of a prompt with its answer: no prompt is cut
MBPP_TEST = range(11, 511)  # the `task_id`s of its test split, where a file holds all of it

# MBPP's (CC BY 4.0) second to fourth problem, which stand before every prompt.
SHOTS = (
    {
        "text": "Write a function to find the similar elements from the given two tuple lists.",
        "code": "def similar_elements(test_tup1, test_tup2):\r\n"
        "  res = tuple(set(test_tup1) & set(test_tup2))\r\n  return (res) ",
        "test_list": [
            "assert similar_elements((3, 4, 5, 6),(5, 7, 4, 10)) == (4, 5)",
            "assert similar_elements((1, 2, 3, 4),(5, 4, 3, 7)) == (3, 4)",
            "assert similar_elements((11, 12, 14, 13),(17, 15, 14, 13)) == (13, 14)",
        ],
    },
    {
        "text": "Write a python function to identify non-prime numbers.",
        "code": "import math\r\ndef is_not_prime(n):\r\n    result = False\r\n"
        "    for i in range(2,int(math.sqrt(n)) + 1):\r\n        if n % i == 0:\r\n"
        "            result = True\r\n    return result",
        "test_list": [
            "assert is_not_prime(2) == False",
            "assert is_not_prime(10) == True",
            "assert is_not_prime(35) == True",
        ],
    },
    {
        "text": "Write a function to find the largest integers from a given list of numbers using heap queue"
        " algorithm.",
        "code": "import heapq as hq\r\ndef heap_queue_largest(nums,n):\r\n"
        "  largest_nums = hq.nlargest(n, nums)\r\n  return largest_nums",
        "test_list": [
            "assert heap_queue_largest( [25, 35, 22, 85, 14, 65, 75, 22, 58],3)==[85, 75, 65] ",
            "assert heap_queue_largest( [25, 35, 22, 85, 14, 65, 75, 22, 58],2)==[85, 75] ",
            "assert heap_queue_largest( [25, 35, 22, 85, 14, 65, 75, 22, 58],5)==[85, 75, 65, 58, 35]",
        ],
    },
)


class Form(NamedTuple):
    """folders: how its data's folder (or file) may be called. item: a row -> (prompt, what stands before the
    answer in the program, tests). tokens: of an answer at most. until: what ends it."""

    folders: tuple[str, ...]
    item: Callable
    tokens: int
    until: tuple[str, ...]


def _asked(row: dict) -> str:
    tests = "\n".join(row["test_list"][:3])
    text = row["text"] if "text" in row else row["prompt"]
    before = "You are an expert Python programmer, and here is your task: "
    return f"{before}{text} Your code should pass these tests:\n\n{tests}\n[BEGIN]\n"


def _mbpp(row: dict) -> tuple[str, str, str]:
    shots = "".join(f"{_asked(shot)}{shot['code']}\n[DONE]\n\n" for shot in SHOTS)
    setup = [row.get("test_setup_code") or "", *row.get("test_imports", [])]
    return shots + _asked(row), "", "\n".join([*setup, *row["test_list"]])


def _humaneval(row: dict) -> tuple[str, str, str]:
    return row["prompt"], row["prompt"], f"{row['test']}\ncheck({row['entry_point']})"


FORMS = {
    "mbpp": Form(("mbpp", "codex_mbpp"), _mbpp, 256, ("[DONE]",)),
    "humaneval": Form(
        ("humaneval", "openai_humaneval", "codex_humaneval"),
        _humaneval,
        1024,
        ("\nclass", "\ndef", "\n#", "\nif", "\nprint"),
    ),
}


def items(name: str, rows: list[dict]) -> list[dict]:
    """{"id", "prompt", "before", "tests"} of rows in the datasets' own fields, or under "doc". Of a whole
    MBPP those of its test split. UserError, naming the row, where fields are missing or no text."""
    found = []
    for number, row in enumerate(rows):
        row = row["doc"] if isinstance(row.get("doc"), dict) else row
        if name == "mbpp" and row.get("task_id", MBPP_TEST[0]) not in MBPP_TEST:
            continue
        try:
            texts = FORMS[name].item(row)
        except KeyError as error:
            raise UserError(f"{name}: item {number} lacks {error}") from None
        except (TypeError, AttributeError) as error:
            raise UserError(f"{name}: item {number} is not as it should be: {error}") from None
        if not all(isinstance(text, str) for text in texts):
            raise UserError(f"{name}: item {number} is not as it should be: its prompt is no text")
        identity = str(row.get("task_id", number))
        found.append({"id": identity, **dict(zip(("prompt", "before", "tests"), texts, strict=True))})
    if not found:
        raise UserError(f"{name}: no row of its test split, whose task_id is 11 to 510")
    return found


def judged(programs: list[str], tests: list[str]) -> list[sandbox.Verdict]:
    """What the sandbox says of each program, as many at a time as there are cores."""
    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(sandbox.run, programs, tests))


def _read(name: str, data: pathlib.Path, settings: Settings) -> list[dict]:
    if not settings.allow_code:
        raise UserError(f"{name} runs programs that the model writes, in a sandbox; --allow-code allows it")
    if why := sandbox.refusal():
        raise UserError(f"{name}: {why}")
    rows = task_data.rows(task_data.find(data, FORMS[name].folders, ("test",)))
    return items(name, rows)[: settings.limit or None]


def _result(name: str, model, asked: list[dict], settings: Settings, progress) -> tuple[dict, list[dict]]:
    """As task.Task has it."""
    form, counts = FORMS[name], {}
    prompts = [item["prompt"] for item in asked]
    new = form.tokens * (1 if models.kind(model.config.model).UNIT == "token" else BYTES)
    texts = answers.generate(
        model,
        prompts,
        new,
        form.until,
        batch_size=settings.batch_size,
        progress=progress,
        counts=counts,
        max_length=LONGEST,
    )
    programs = [item["before"] + text for item, text in zip(asked, texts, strict=True)]
    verdicts = judged(programs, [item["tests"] for item in asked])
    lines = [
        {"id": item["id"], "text": text, "pass@1": int(told.status == "passed"), **told._asdict()}
        for item, text, told in zip(asked, texts, verdicts, strict=True)
    ]
    result = {
        "metrics": {"pass@1": mean([line["pass@1"] for line in lines])},
        "main": "pass@1",
        "cut": 0,
        **costs.of_answers(model, counts, prompts),
    }
    return result, lines


TASKS = {name: Task(functools.partial(_read, name), functools.partial(_result, name)) for name in FORMS}
GROUPS = {}
