"""CUTE: prompts, answers and scores; the published scores from the published outputs, where
BLTJAX_EVAL_DATA names the folder that has them."""

import json
import os
import pathlib

import pytest

from bltjax.errors import UserError
from bltjax.evaluation import cute, cute_wording

PUBLISHED = dict(
    spell=0.994,
    spell_inverse=0.982,
    contains_char=0.657,
    contains_word=0.795,
    orth=0.775,
    sem=0.817,
    ins_char=0.072,
    ins_word=0.655,
    del_char=0.572,
    del_word=0.798,
    sub_char=0.328,
    sub_word=0.895,
    swap_char=0.046,
    swap_word=0.619,
)


@pytest.fixture
def data():
    if not (folder := os.environ.get("BLTJAX_EVAL_DATA")):
        pytest.skip("BLTJAX_EVAL_DATA names no folder of evaluation data")
    return pathlib.Path(folder)


def test_published_scores(data, capsys):
    found = {one["task"]: one for one in cute.published(data / "cute_outputs")}
    assert {name: round(one["score"], 4) for name, one in found.items()} == PUBLISHED
    assert cute.main([str(data / "cute_outputs")]) == 0 and "0.9940" in capsys.readouterr().out


def test_its_data_is_read_and_asked(data):
    for task in cute.NAMES:
        items = cute.items(data / "cute" / f"{task}.tsv", task)
        assert len(items) == 1000
        asked = cute_wording.prompt(task, items[0]["inputs"])
        assert asked.endswith('Answer: "') and asked.count("Question:") == 5
        assert all(f'"{value}"' in asked for value in items[0]["inputs"])


def test_our_shots_are_right():
    """Every shot's answer is what its question asks for."""
    word = {
        "spell": lambda w: " ".join(w),
        "spell_inverse": lambda w: w.replace(" ", ""),
        "contains_char": lambda c, w: "Yes" if c in w else "No",
        "contains_word": lambda c, s: "Yes" if c in s.rstrip(".").split() else "No",
        "ins_char": lambda a, b, w: w.replace(b, b + a),
        "ins_word": lambda a, b, s: s.replace(b, f"{b} {a}"),
        "del_char": lambda a, w: w.replace(a, ""),
        "del_word": lambda a, s: s.replace(f"{a} ", ""),
        "sub_char": lambda a, b, w: w.replace(a, b),
        "sub_word": lambda a, b, s: s.replace(a, b),
        "swap_char": lambda a, b, w: w.translate(str.maketrans(a + b, b + a)),
        "swap_word": lambda a, b, s: s.replace(a, "\0").replace(b, a).replace("\0", b),
    }
    for task, (_, shots) in cute_wording.QUESTIONS.items():
        assert len(shots) == 4
        for *inputs, answer in shots:
            assert task not in word or word[task](*inputs) == answer, (task, inputs)


def test_answers():
    for text, answer in (
        ('t h e"\n\nQuestion: x\nAnswer: "a b"', "a b"),
        ('I think.\nAnswer: "t h e" or "x"', "t h e"),
        ('t h e"', "t h e"),
        ("the\nmore", "the"),
        ('Answer: ""', ""),
        ("", ""),
    ):
        assert cute.extract(text) == answer, text
    assert cute.score("spell", ["A", "b"], ["a", "b"]) == 0.5
    assert cute.score("del_word", ["A", "b\n"], ["a", "b"]) == 1.0
    for bad in (("spelling", ["a"], ["a"]), ("spell", ["a"], []), ("spell", [], [])):
        with pytest.raises(UserError):
            cute.score(*bad)


def test_lines_and_score_that_disagree_are_said(tmp_path, capsys):
    for name, text in (("outputs", "a\nb\n"), ("labels", "a\nc\n"), ("score", "0.7500")):
        (tmp_path / f"{name}.m.sem.txt").write_text(text)
    assert cute.main([str(tmp_path)]) == 1
    assert "0.5000" in (said := capsys.readouterr().out) and "DISAGREES" in said
    assert cute.main([str(tmp_path / "none")]) == 2
    assert "no outputs" in capsys.readouterr().err


def test_another_wording(tmp_path):
    file = tmp_path / "template.json"
    tasks = {name: {"prompt": f'{name}: {{0}} ->"'} for name in cute.NAMES}
    file.write_text(json.dumps({"tasks": tasks}))
    assert cute_wording.prompt("spell", ["ab{0}"], cute_wording.template(file)) == 'spell: ab{0} ->"'
    tasks = {name: {"question": "Q {0}", "shots": [["a", "b"]] * 4} for name in cute.NAMES}
    file.write_text(json.dumps({"tasks": tasks, "layout": "{question}={answer};"}))
    assert cute_wording.prompt("spell", ["x"], cute_wording.template(file)) == "Q a=b;" * 4 + "Q x="
    for bad in ("{", "[]", '{"tasks": {"spell": {"prompt": "x"}}}', '{"tasks": {"spell": {}}}'):
        file.write_text(bad)
        with pytest.raises(UserError, match="no template"):
            cute_wording.template(file)
    (tmp_path / "t.tsv").write_text("a\tb\n")
    with pytest.raises(UserError, match="header"):
        cute.items(tmp_path / "t.tsv", "spell")
    (tmp_path / "t.tsv").write_text("input1\tlabel\nx\n")
    with pytest.raises(UserError, match="line 2"):
        cute.items(tmp_path / "t.tsv", "spell")
