"""CUTE by likelihood: the other answer of each item, and what a model's log-likelihoods make of the two."""

import json
import os
import pathlib

import numpy as np
import pytest
from hf_blt import HF, run

from bltjax import api
from bltjax.evaluation import cute, cute_likelihood, cute_wording, encoding, likelihood, tasks
from bltjax.evaluation.task import Settings, ratio

ITEMS = {
    "spell": (["tea"], "t e a"),
    "spell_inverse": (["t e a"], "tea"),
    "contains_char": (["t", "tea"], "Yes"),
    "contains_word": (["tea", "I like it."], "No"),
    "orth": (["tea", "sea", "coffee"], "sea"),
    "sem": (["tea", "sea", "coffee"], "coffee"),
    "ins_char": (["x", "e", "tea"], "texa"),
    "ins_word": (["hot", "like", "I like tea."], "I like hot tea."),
    "del_char": (["e", "tea"], "ta"),
    "del_word": (["like", "I like tea."], "I tea."),
    "sub_char": (["e", "x", "tea"], "txa"),
    "sub_word": (["I", "We", "I like tea."], "We like tea."),
    "swap_char": (["t", "e", "tea"], "eta"),
    "swap_word": (["I", "like", "I like tea."], "like I tea."),
}


@pytest.fixture
def data(tmp_path):
    (tmp_path / "cute").mkdir()
    for name, (inputs, label) in ITEMS.items():
        head = [*(f"input{i + 1}" for i in range(len(inputs))), "label"]
        more = {"spell": ["sea\ts e a", "coffee\tc o f f e e"], "spell_inverse": ["s e a\tsea"]}.get(name, [])
        rows = ["\t".join(head), "\t".join([*inputs, label]), *more]
        (tmp_path / "cute" / f"{name}.tsv").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_the_other_answer():
    """It is made as the right one is, and of several the one that is most like it is taken."""
    wanted = {
        "spell": {"s e a"},
        "spell_inverse": {"sea"},
        "contains_char": {"No"},
        "contains_word": {"Yes"},
        "orth": {"coffee"},
        "sem": {"sea"},
        "ins_char": {"txea", "teax"},
        "ins_word": {"I hot like tea.", "I like tea hot."},
        "del_char": {"te", "ea"},
        "del_word": {"I like."},
        "sub_char": {"tex", "xea"},
        "sub_word": {"I like We."},
        "swap_char": {"aet", "tae"},
        "swap_word": {"tea like I.", "I tea like."},
    }
    for name, (inputs, label) in ITEMS.items():
        labels = {"spell": ["t e a", "s e a", "c a t", "a"], "spell_inverse": ["tea", "sea", "cat"]}
        item = {"id": "0", "inputs": inputs, "label": label}
        found = {cute_likelihood.other(name, item, labels.get(name, []), seed) for seed in range(40)}
        assert found <= wanted[name] and len(found) > 0, (name, found)
        if name.partition("_")[0] in ("ins", "del", "sub", "swap"):
            assert cute_likelihood.changed(name, inputs) == label
            assert found <= set(cute_likelihood.elsewhere(name, inputs))
        again = [cute_likelihood.other(name, item, labels.get(name, []), 3) for _ in range(2)]
        assert again[0] == again[1]
    item = {"id": "0", "inputs": ["a", "x", "aa"], "label": "xx"}  # nowhere else to write it
    assert cute_likelihood.other("sub_char", item, []) == "aa"
    assert cute_likelihood.other("spell", {"id": "0", "inputs": ["ab"], "label": "a b"}, ["a b"]) != "a b"


def test_operations_give_the_labels_of_the_data():
    if not (folder := os.environ.get("BLTJAX_EVAL_DATA")):
        pytest.skip("BLTJAX_EVAL_DATA names no folder of evaluation data")
    for name in cute.NAMES:
        items = cute.items(pathlib.Path(folder) / "cute" / f"{name}.tsv", name)
        if name.partition("_")[0] in ("ins", "del", "sub", "swap"):
            right = sum(cute_likelihood.changed(name, item["inputs"]) == item["label"] for item in items)
            # sentences whose quotation marks were damaged have other spaces
            assert right >= (1000 if name.endswith("_char") else 985), (name, right)
        labels = [item["label"] for item in items]
        others = [cute_likelihood.other(name, item, labels) for item in items[:100]]
        assert not any(cute.equal(name, a, b) for a, b in zip(others, labels))


def test_our_wording_asks_for_what_the_data_has():
    """What is written stands first in the data, and where it is written second."""
    for name in ("ins_char", "ins_word"):
        new, old, text = ITEMS[name][0]
        asked = cute_wording.prompt(name, [new, old, text]).rpartition("Question: ")[2]
        assert f'Write "{new}" behind every "{old}"' in asked
        for *inputs, answer in cute_wording.QUESTIONS[name][1]:
            assert cute_likelihood.changed(name, inputs) == answer


def test_scores_are_those_of_the_texts(data):
    """Nats of the label and of what ends a shot, by bytes of the label, as from bare log-likelihoods."""
    model, task = api.load(HF), cute_likelihood.TASKS["cute_spell_likelihood"]
    items = task.items(data, Settings(limit=2))
    assert len(items) == 2 and items[0]["other"] == "s e a"
    result, lines = task.score(model, items, Settings(), None)
    ids = encoding.Encoding(model)
    for item, line in zip(items, lines):
        assert item["choices"][item["answer"]] == item["label"] + '"\n\n'
        pairs = [ids.pair(item["context"], item[key] + '"\n\n') for key in ("label", "other")]
        nats = [-one.value for one in likelihood.loglikelihoods(model, pairs)]
        assert np.allclose(nats, [line["nats"], line["nats_of_other"]], rtol=1e-5)
        assert line["acc"] == int(nats[0] < nats[1])
        assert line["nats_per_byte"] == pytest.approx(nats[0] / len(item["label"]), rel=1e-5)
    total = sum(line["nats"] for line in lines) / sum(len(item["label"]) for item in items)
    assert result["metrics"]["nats_per_byte"]["value"] == pytest.approx(total)
    assert result["main"] == "acc" and result["chance"] == 0.5 and result["flops_per_byte"] > 0


def test_a_ratio_and_its_error():
    assert ratio([1, 1], [2, 2]) == {"value": 0.5, "stderr": 0.0}
    assert ratio([3], [2]) == {"value": 1.5, "stderr": None}
    draw = np.random.default_rng(0)
    wholes = draw.integers(1, 20, (400, 300))
    parts = wholes * 2.0 + draw.normal(size=wholes.shape) * 3
    told = [ratio(p.tolist(), w.tolist()) for p, w in zip(parts, wholes)]
    spread = np.std([one["value"] for one in told])
    assert np.mean([one["stderr"] for one in told]) == pytest.approx(spread, rel=0.15)


def test_as_tasks(data, tmp_path, capfd):
    out = tmp_path / "out"
    names = "cute_orth_likelihood,cute_sem_likelihood"
    arguments = ("eval", HF, "--tasks", names, "--task-data", data, "--out", out)
    code, said, error = run(capfd, *arguments, "--json")
    found = json.loads(said)
    assert code == 0 and [result["main"] for result in found["tasks"]] == ["acc", "acc"], error
    assert len(tasks.expand(["cute_likelihood"])) == 14
    lines = [json.loads(l) for l in (out / "cute_orth_likelihood.items.jsonl").read_text().splitlines()]
    assert {lines[0]["label"], lines[0]["other"]} == {"sea", "coffee"}
    assert run(capfd, *arguments, "--seed", 1)[0] == 2  # another evaluation
    template = tmp_path / "template.json"
    questions = {name: {"question": "Q {0}", "shots": [["a", "b"]] * 4} for name in cute.NAMES}
    template.write_text(json.dumps({"tasks": questions, "layout": "{question}={answer};\n"}))
    item = cute_likelihood.TASKS["cute_sem_likelihood"].items(data, Settings(cute_template=template))[0]
    assert item["context"] == "Q a=b;\n" * 4 + "Q tea=" and item["choices"][item["answer"]] == "coffee;\n"
    code, _, error = run(capfd, *arguments[:-2], "--tasks", "piqa", "--cute-template", template)
    assert code == 2 and "--cute-template is of cute" in error
