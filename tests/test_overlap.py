"""Which items of tasks and documents of files stand in training text: what was planted there is found, and
what anybody has, what is short and what only looks alike is not."""

import json
import pathlib

import numpy as np
import pytest
import tiny_experiment
from prepared_texts import data

from bltjax import config as cfg
from bltjax.cli import main
from bltjax.data import corpus, near_copies, prepare
from bltjax.errors import UserError
from bltjax.evaluation import overlap
from bltjax.evaluation.overlap import Item
from bltjax.run import inputs
from bltjax.sweep import graph

LETTERS = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz ", np.uint8)


def words(seed, size):
    return LETTERS[np.random.default_rng(seed).integers(0, len(LETTERS), size)].tobytes().decode()


LICENCE = words(1, 200)
QUESTIONS = [words(100 + i, 120) for i in range(6)]
ANSWERS = [[words(200 + 2 * i + j, 60) for j in range(2)] for i in range(6)]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """60 documents: a licence in each third one; in others the first question with its right answer, the half
    of the second, and the wrong answer of the third alone."""
    folder = tmp_path_factory.mktemp("data")
    documents = [words(1000 + i, 900) for i in range(60)]
    documents[3] += f"Question: {QUESTIONS[0]}\nAnswer: {ANSWERS[0][1]}"
    documents[40] = QUESTIONS[1][:90] + documents[40]
    documents[41] += ANSWERS[2][0]
    for i in range(0, 60, 3):
        documents[i] = LICENCE + documents[i]
    lines = [json.dumps({"text": text, "lang": "x"}) for text in documents]
    (folder / "a.jsonl").write_text("\n".join(lines))
    prepare.prepare(data(folder, test=0.0, validation=0.0), folder / "out")
    return folder / "out"


@pytest.fixture(scope="module")
def task_data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    rows = [
        {"goal": QUESTIONS[i], "sol1": ANSWERS[i][0], "sol2": ANSWERS[i][1], "label": 1} for i in range(6)
    ]
    (folder / "piqa.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "cute").mkdir()
    (folder / "cute" / "spell.tsv").write_text("input1\tlabel\nword\tw o r d\n")
    return folder


def found_by_hand(texts, documents) -> tuple[int, int]:
    """(shingles of an item, those in training text) without any hash."""
    own = [text[i : i + 50] for text in texts for i in range(len(text) - 49)]
    counts = {shingle: sum(shingle in document for document in documents) for shingle in set(own)}
    kept = [s for s in counts if counts[s] <= near_copies.many(len(documents))]
    return len(kept), sum(counts[s] > 0 for s in kept)


def test_shares_are_those_of_a_search_for_every_shingle(prepared):
    documents = inputs.training_text(prepared)
    every = [documents[i] for i in range(len(documents))]
    items = [
        Item("t", "whole", [every[5][100:300]]),
        Item("t", "part", [every[7][:80] + words(2, 100).encode()]),
        Item("t", "licence", [LICENCE.encode()]),
        Item("t", "beside a licence", [LICENCE.encode() + words(3, 100).encode()]),
        Item("t", "none", [words(4, 300).encode()]),
        Item("t", "short", [every[5][:49]]),
        # the two halves of a passage: what reaches from one text to the next is no shingle
        Item("t", "halves", [every[9][:40], every[9][40:80]]),
        Item("t", "two", [every[9][:70], words(5, 60).encode()]),
    ]
    found = overlap.measure(items, documents)
    assert found["sampling"] == 1 and found["bytes"] == sum(map(len, every))
    for item, line in zip(items, found["items"], strict=True):
        wanted = found_by_hand(item.texts, every)
        assert (line["shingles"], line["in_training"]) == wanted, item.id
    told = {line["id"]: line for line in found["items"]}
    assert {name for name, line in told.items() if line["overlaps"]} == {"whole", "part", "two"}
    assert told["part"]["share"] == 31 / 131
    assert {name for name, line in told.items() if line["share"] is None} == {"licence", "short", "halves"}
    assert found["tasks"] == [{"task": "t", "items": 8, "overlapping": 3, "any": 3, "short": 3}]
    more = overlap.measure(items, documents, share=0.5)
    assert [line["id"] for line in more["items"] if line["overlaps"]] == ["whole", "two"]


def test_neither_chunks_nor_order_have_a_say_and_much_text_is_sampled(prepared, monkeypatch):
    documents = inputs.training_text(prepared)
    items = [Item("t", str(i), [documents[i][300:700] + words(i, 400).encode()]) for i in range(20)]
    whole = overlap.measure(items, documents)
    seen = []
    monkeypatch.setattr(overlap, "CHUNK", 2000)
    assert overlap.measure(items, documents, progress=seen.append) == whole
    assert len(seen) > 10 and sum(seen) == whole["bytes"]
    monkeypatch.setattr(near_copies, "MOST", 4000)
    some = overlap.measure(items, documents)
    assert some["sampling"] == 4 and all(line["overlaps"] for line in some["items"])
    total = sum(line["shingles"] for line in whole["items"])
    assert sum(line["shingles"] for line in some["items"]) == pytest.approx(total / 4, rel=0.1)
    shares = [[line["share"] for line in found["items"]] for found in (some, whole)]
    assert np.mean(shares[0]) == pytest.approx(np.mean(shares[1]), abs=0.03)


def test_what_many_items_have_in_common_says_nothing(prepared):
    documents = inputs.training_text(prepared)
    shots = documents[1][:200]  # which training text has
    items = [Item("t", str(i), [shots + words(3000 + i, 150).encode()]) for i in range(20)]
    items.append(Item("t", "there", [shots + documents[6][500:650]]))
    found = overlap.measure(items, documents)["items"]
    assert [line["id"] for line in found if line["overlaps"]] == ["there"]
    assert {line["shingles"] for line in found} == {150}  # with the 49 that begin in the shots
    few = overlap.measure(items[:3], documents)["items"]
    assert all(line["overlaps"] for line in few)  # of so few items nothing can be told to be every item's


def test_the_texts_of_items():
    choices = {"id": "3", "context": "Q: a\nA:", "choices": [" b", " c"], "answer": 1}
    assert overlap.texts(choices) == ["Q: a\nA: c"]
    assert overlap.texts({"id": "3", "inputs": ["a", "b"], "label": "c"}) == ["a", "b", "c"]
    assert overlap.texts({"id": "3", "prompt": "p", "more": {"n": 1, "tests": ["t", "u"]}}) == ["p", "t", "u"]


def call(capsys, *arguments):
    status = main.main(["data", "overlap", *map(str, arguments)])
    out, err = capsys.readouterr()
    return status, out, err


def test_items_of_tasks_and_what_is_left_of_results(prepared, task_data, tmp_path, capsys):
    kept = tmp_path / "items.jsonl"
    asked = ("--tasks", "piqa,cute_spell", "--task-data", task_data, "--out", kept)
    status, out, err = call(capsys, prepared, *asked, "--json")
    assert status == 0 and err == ""
    piqa, spell = json.loads(out)["tasks"]
    # the first whole, the second's beginning; the third has nothing but a wrong answer there
    assert piqa == {"task": "piqa", "items": 6, "overlapping": 2, "any": 2, "short": 0}
    assert spell == {"task": "cute_spell", "items": 1, "overlapping": 0, "any": 0, "short": 1}
    ids = overlap.read(kept)
    assert ids == {"piqa": {"0", "1"}, "cute_spell": set()}
    lines = [{"id": str(i), "acc": i % 2} for i in range(6)]
    assert overlap.clean(lines, ids["piqa"]) == lines[2:] and overlap.clean(lines, set()) == lines
    status, out, _ = call(capsys, prepared, *asked)
    assert status == 0 and "33.3%" in out and "boilerplate left out" in out


def test_documents_of_files(prepared, tmp_path, capsys):
    documents = inputs.training_text(prepared)
    texts = [documents[2].decode(), words(7, 400), documents[4][:300].decode() + words(8, 300)]
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    (tmp_path / "other.txt").write_text(words(9, 500))
    status, out, _ = call(capsys, prepared, tmp_path / "*.*", "--json")
    found = json.loads(out)
    assert status == 0 and [(one["items"], one["overlapping"]) for one in found["tasks"]] == [(3, 2), (1, 0)]
    assert [line["overlaps"] for line in found["items"]] == [True, False, True, False]
    scored = [{"file": str(path), "index": i} for i in range(3)]  # as documents.jsonl of an evaluation
    overlapping = {line["id"] for line in found["items"] if line["overlaps"] and line["task"] == str(path)}
    assert overlap.clean(scored, overlapping) == scored[1:2]


def test_of_a_run_it_is_the_text_that_the_run_may_read(prepared, tmp_path):
    source = prepared.parent
    prepare.prepare(data(source, test=0.1, validation=0.1), tmp_path / "split")
    (run,) = (run for run in tiny_experiment.get_config().runs if run.name == "space")
    changes = {"data.source": "prepared", "data.folder": str(tmp_path / "split"), "data.globs": ()}
    config = cfg.replace(run, **changes, **{"data.max_train_bytes": 5000})
    graph.of_run(tmp_path / "runs" / "e" / "space", config, "e")
    own = inputs.training_text(tmp_path / "runs" / "e" / "space")
    every = inputs.training_text(tmp_path / "split")
    assert 0 < own.lengths.sum() <= 5000 < every.lengths.sum() and isinstance(every, corpus.Documents)
    items = [Item("t", str(i), [every[i]]) for i in range(len(own) + 2)]
    found = overlap.measure(items, own)["items"]
    assert [line["overlaps"] for line in found] == [True] * len(own) + [False] * 2


@pytest.mark.parametrize(
    "arguments, said",
    [
        ((), "either FILE... or --tasks"),
        (("a.txt", "--tasks", "piqa"), "either FILE... or --tasks"),
        (("--tasks", "piqa"), "--task-data DIR"),
        (("--tasks", "pika", "--task-data", "."), "unknown task 'pika'"),
        (("a.txt", "--share", "1"), "--share 1: it must be 0 or more and below 1"),
        (("a.txt", "--task-data", "."), "--task-data"),
        (("nothing-here*.txt",), "nothing-here*.txt"),
        (("--tasks", "piqa", "--task-data", ".", "--out", "nowhere/x.jsonl"), "no such folder"),
    ],
)
def test_what_is_wrong_is_one_line(prepared, tmp_path, capsys, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    status, out, err = call(capsys, prepared, *arguments)
    assert status == 2 and said in err and err.count("\n") == 1 and out == ""


def test_a_task_without_data_is_said_and_the_others_are_looked_for(prepared, task_data, tmp_path, capsys):
    status, out, err = call(capsys, prepared, "--tasks", "hellaswag,piqa", "--task-data", task_data, "--json")
    assert status == 2 and err.count("\n") == 1 and "hellaswag" in err
    found = json.loads(out)
    assert [one["task"] for one in found["tasks"]] == ["piqa"] and found["failed"][0]["task"] == "hellaswag"
    status, _, err = call(capsys, tmp_path, "--tasks", "piqa", "--task-data", task_data)
    assert status == 2 and "no prepared data" in err
    (tmp_path / "other.jsonl").write_text('{"id": 1}\n')
    for path in (tmp_path / "other.jsonl", pathlib.Path("nowhere.jsonl")):
        with pytest.raises(UserError, match="holds no items"):
            overlap.read(path)
