"""MMLU: 57 subjects of questions with four choices, five shots each, as lm-eval 0.4.13 words them. What is
scored is the letter of a choice."""

import contextlib
import functools
import pathlib

from bltjax.errors import UserError
from bltjax.evaluation import multiple_choice, shots, task_data
from bltjax.evaluation.task import Group, Settings, Task

SUBJECTS = """
abstract_algebra anatomy astronomy business_ethics clinical_knowledge college_biology college_chemistry
college_computer_science college_mathematics college_medicine college_physics computer_security
conceptual_physics econometrics electrical_engineering elementary_mathematics formal_logic global_facts
high_school_biology high_school_chemistry high_school_computer_science high_school_european_history
high_school_geography high_school_government_and_politics high_school_macroeconomics high_school_mathematics
high_school_microeconomics high_school_physics high_school_psychology high_school_statistics
high_school_us_history high_school_world_history human_aging human_sexuality international_law jurisprudence
logical_fallacies machine_learning management marketing medical_genetics miscellaneous moral_disputes
moral_scenarios nutrition philosophy prehistory professional_accounting professional_law
professional_medicine professional_psychology public_relations security_studies sociology us_foreign_policy
virology world_religions
""".split()
LETTERS = "ABCD"
SHOTS = 5  # the first of the split dev


def _question(row: dict) -> str:
    choices = "".join(f"{letter}. {text}\n" for letter, text in zip(LETTERS, row["choices"], strict=True))
    return f"{multiple_choice.text_of(row, 'question').strip()}\n{choices}Answer:"


def items(subject: str, rows: list[dict], dev: list[dict]) -> list[dict]:
    """As multiple_choice.items has them, of rows {"question", "choices": [four], "answer": 0 to 3}. dev: rows
    of the same, of which the first five stand before each question. UserError, naming the row, where fields
    are missing or do not fit, and where there are fewer than five of dev."""
    if len(dev) < SHOTS:
        raise UserError(f"{subject}: {len(dev)} rows of dev; {SHOTS} are shown before each question")
    before = (
        f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n"
    )
    shown, prompts, ready = [], [], []
    for number, row in enumerate(dev[:SHOTS]):
        question, answer = _asked(f"mmlu_{subject}, dev", number, row)
        shown.append(f"{question} {LETTERS[answer]}\n\n")
    for number, row in enumerate(rows):
        question, answer = _asked(f"mmlu_{subject}", number, row)
        choices = [f" {letter}" for letter in LETTERS]
        prompts.append(shots.joined(before, shown, question))
        ready.append({**prompts[-1], "choices": choices, "answer": answer})
    found = multiple_choice.items(f"mmlu_{subject}", ready)
    return [{**item, **prompt} for item, prompt in zip(found, prompts, strict=True)]


def _asked(name: str, number: int, row: dict) -> tuple[str, int]:
    try:
        question, answer = _question(row), multiple_choice.index_of(row["answer"])
        if not 0 <= answer < len(LETTERS):
            raise ValueError(f"the answer is {answer}")
    except KeyError as error:
        raise UserError(f"{name}: item {number} lacks {error}") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{name}: item {number} is not as it should be: {error}") from None
    return question, answer


def _names(subject: str) -> tuple[str, str]:
    return f"mmlu_{subject}", subject


@functools.lru_cache(maxsize=1)
def _there(data: pathlib.Path) -> bool:
    """Whether a folder has any subject: 57 lines of 57 that are missing would say no more than one."""
    for subject in SUBJECTS:
        with contextlib.suppress(UserError):
            return bool(task_data.find(data, _names(subject), ("test",)))
    return False


def _read(subject: str, data: pathlib.Path, settings: Settings) -> list[dict]:
    names = _names(subject)
    if not _there(data):
        wanted = "mmlu_SUBJECT.jsonl, or folders of subjects"
        raise UserError(f"{data} has no data of mmlu: {wanted}; {task_data.HINT}")
    rows = task_data.rows(task_data.find(data, names, ("test",)))
    dev = task_data.rows(task_data.find(data, names, ("dev",), shots=True))
    return items(subject, rows[: settings.limit or None], dev)


def _result(model, asked: list[dict], settings: Settings, progress) -> tuple[dict, list[dict]]:
    """As task.Task has it; choices of one letter are alike in every length."""
    result, lines = multiple_choice.scored(model, asked, settings, progress)
    return {**result, "metrics": {"acc": result["metrics"]["acc"]}, "main": "acc"}, lines


TASKS = {f"mmlu_{subject}": Task(functools.partial(_read, subject), _result) for subject in SUBJECTS}
GROUPS = {"mmlu": Group(tuple(TASKS), by_items=True)}
