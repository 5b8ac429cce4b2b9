"""What a report says of runs that were not made under equal conditions, of copies of runs, and of run
directories whose files contradict one another: nothing of it passes for a difference between families."""

import json

import pytest
from fabricated_runs import add_run, analysed

from bltjax.cli import main
from bltjax.errors import UserError
from bltjax.report import report, sections


def edit(path, name, **changes):
    """Sets values of a JSON file of a run directory by their dotted keys (a dot written as two underscores;
    None takes a key away)."""
    said = json.loads((path / name).read_text())
    for key, value in changes.items():
        *folders, last = key.split("__")
        node = said
        for folder in folders:
            node = node.setdefault(folder, {})
        node[last] = value
        if value is None:
            del node[last]
    (path / name).write_text(json.dumps(said))


def two_families(root, seeds=3, budget=1e11):
    """{family: paths of its seeds}: bpe is clearly lower."""
    return {
        family: [
            add_run(root, family, budget, bpb=bpb + s / 500, seed=s, name=f"{family}-seed{s}", noise_seed=n)
            for s in range(seeds)
        ]
        for n, (family, bpb) in enumerate((("bpe", 2.0), ("blt-space", 2.1)))
    }


def test_equal_conditions_are_no_news(tmp_path):
    two_families(tmp_path)
    result = analysed(tmp_path)
    assert "excludes 0" in result["headline"] and "equal conditions" not in result["headline"]
    assert [p["unlike"] for p in result["pairs"]] == [[]] and not result["warnings"]


UNEQUAL = {  # what differs: (file, changes to blt-space's runs, what is said)
    "training text": ("config.json", dict(data_fingerprint="other"), "trained on different text"),
    "FLOPs": ("done.json", dict(realized_flops=1.3e11), "blt-space spent 29.7% more FLOPs"),
    "order": ("config.json", dict(config__data__seed=1), "data.seed is 1 for blt-space and none for bpe"),
    "start": (
        "config.json",
        dict(config__train__init_from="models/llama"),
        "train.init_from is models/llama for blt-space and none for bpe",
    ),
    "epochs": ("planned.json", dict(epochs=32.0), "epochs: 32 for blt-space and 12 for bpe"),
    "context": (
        "eval.json",
        dict(test__mean_context_bytes=3000.0),
        "mean left context in bytes: 3,000 for blt-space and 360 for bpe",
    ),
}


@pytest.mark.parametrize("what", UNEQUAL)
def test_unequal_conditions_are_in_the_headline(tmp_path, what):
    file, changes, said = UNEQUAL[what]
    runs = two_families(tmp_path)
    for path in runs["bpe"]:
        edit(path, "planned.json", epochs=12.0)
        edit(path, "eval.json", test__mean_context_bytes=360.0)
    for path in runs["blt-space"]:
        edit(path, "planned.json", epochs=12.0)
        edit(path, "eval.json", test__mean_context_bytes=360.0)
        if what == "FLOPs":
            (path / "metrics.jsonl").unlink()  # which would contradict it
        edit(path, file, **changes)
    result = analysed(tmp_path)
    assert "Not all of them were made under equal conditions" in result["headline"]
    (sentence,) = [line for line in result["findings"] if "differ in more than that" in line]
    assert said in sentence
    assert "unequal conditions" in sections.verdict(result["pairs"][0])


def test_what_a_series_is_named_after_is_no_other_condition(tmp_path):
    two_families(tmp_path)
    for seed in range(3):
        changes = {"train.init_from": "models/llama"}
        name = f"warm-seed{seed}"
        add_run(tmp_path, "blt-space", 1e11, bpb=1.9 + seed / 500, seed=seed, name=name, changes=changes)
    result = analysed(tmp_path)
    assert {p["series"]: p["unlike"] for p in result["pairs"]} == {
        "blt-space (train.init_from None)": [],
        "blt-space (train.init_from models/llama)": [],
    }


CONTRADICTIONS = {
    "a score": (
        "eval.json",
        dict(test__bpb=1.0),
        "states 1.0000 test bits per byte, its documents sum to 2.",
    ),
    "no score": ("eval.json", dict(test__bpb=0.0), "states 0.0000 test bits per byte, which cannot be"),
    "below nothing": ("eval.json", dict(test__bpb=-2.0), "-2.0000 test bits"),
    "the choice": ("eval.json", dict(validation__bpb=-5.0), "-5.0000 validation bits"),
    "documents": (
        "eval.json",
        dict(test__documents=[{"bytes": 9, "nats": -1.0}] * 3),
        "documents of negative nats",
    ),
    "steps": ("planned.json", dict(steps=400), "metrics.jsonl ends at step 200 of 400"),
    "the budget": ("planned.json", dict(budget_flops=3e11), "planned.json one of 3e+11"),
    "FLOPs": ("done.json", dict(realized_flops=1e10), "states 1e+10 realized FLOPs"),
    "a later format": ("config.json", dict(schema_version=99), "config.json is of format 99"),
}


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_a_run_whose_files_contradict_one_another_is_in_no_comparison(tmp_path, what):
    file, changes, said = CONTRADICTIONS[what]
    add_run(tmp_path, "bpe", 1e11)
    edit(add_run(tmp_path, "blt-space", 1e11), file, **changes)
    result = analysed(tmp_path)
    assert [r["name"] for r in result["all_runs"]] == ["bpe-1e11"]
    (unfinished,) = result["unfinished"]
    assert said in unfinished["reason"] and "Nothing to compare" in result["headline"]


def test_other_documents_under_one_digest_are_other_text(tmp_path):
    runs = two_families(tmp_path)
    for path in runs["blt-space"]:
        documents = json.loads((path / "eval.json").read_text())["test"]["documents"]
        edit(path, "eval.json", test__documents=documents[::-1])
    result = analysed(tmp_path)
    assert result["pairs"][0]["note"] == "test documents differ" and "Nothing to" in result["headline"]


def test_copies_of_a_run_are_no_seeds(tmp_path):
    for family, bpb in (("bpe", 2.0), ("blt-space", 2.1)):
        for seed in range(3):
            add_run(tmp_path, family, 1e11, bpb=bpb, seed=seed, name=f"{family}-seed{seed}")
    result = analysed(tmp_path)
    assert [r["seeds"] for r in result["runs"]] == [1, 1] and "Seeds are missing" in result["headline"]
    assert sum("to the last digit" in line for line in result["warnings"]) == 2


def test_equal_means_name_no_lowest(tmp_path):
    for noise, family in enumerate(("bpe", "blt-space")):
        for seed in range(3):
            name = f"{family}-seed{seed}"
            add_run(tmp_path, family, 1e11, bpb=2 + seed / 500, seed=seed, name=name, noise_seed=noise)
    headline = analysed(tmp_path)["headline"]
    assert "have the same mean test bits per byte at 10¹¹ FLOPs" in headline and "lowest" not in headline


def test_the_best_of_several_training_texts_is_not_taken(tmp_path):
    """As of prepared data that was made again."""
    for number, text in enumerate(("old", "old", "new")):
        path = add_run(tmp_path, "bpe", 1e11, bpb=2 - number / 10, seed=number, name=f"{text}-{number}")
        edit(path, "config.json", data_fingerprint=text)
    result = analysed(tmp_path)
    (row,) = result["runs"]
    assert row["seeds"] == 2 and row["bpb"] == pytest.approx(1.95)
    assert any(
        "Trained or scored on different text" in line and "new-2" in line for line in result["warnings"]
    )


def test_what_was_chosen_without_validation_text_is_said(tmp_path):
    for lr in (1e-3, 2e-3, 4e-3):
        path = add_run(tmp_path, "bpe", 1e11, lr=lr, name=f"bpe-{lr}", noise_seed=int(lr * 1e3))
        edit(path, "eval.json", validation=None)
    for lr in (1e-3, 2e-3, 4e-3):
        path = add_run(tmp_path, "blt-space", 1e11, lr=lr, name=f"space-{lr}", noise_seed=int(lr * 1e3))
        if lr == 4e-3:
            edit(path, "eval.json", validation=None)
        else:
            edit(path, "eval.json", validation__documents_digest="d" * 12)  # the test text's
    result = analysed(tmp_path)
    said = " ".join([*result["warnings"], *result["findings"]])
    assert "No validation score chooses among the 3 configurations of bpe at 10¹¹ FLOPs" in said
    assert "bpe is the best" not in said and "blt-space is the best of 2 learning rates, bpe of one" in said
    assert "Chosen on the very text that they are scored on: space-0.001 and space-0.002" in said


def test_tokenizers_that_differ_within_a_point_and_entropy_models_beside_the_budget_are_said(tmp_path):
    for seed in range(2):
        name = f"bpe-seed{seed}"
        path = add_run(tmp_path, "bpe", 1e11, bpb=2 + seed / 99, seed=seed, name=name)
        edit(path, "planned.json", tokenizer_fingerprint=f"t{seed}")
    add_run(tmp_path, "blt-entropy", 1e11)
    result = analysed(tmp_path)
    assert any("different tokenizers: t0, t1" in line for line in result["warnings"])
    (line,) = [line for line in result["caveats"] if "leave out the entropy model" in line]
    assert "blt-entropy" in line and "2.5×10¹⁰ FLOPs" in line


def test_a_curve_of_several_recipes_says_so(tmp_path):
    """At each budget there is one run, so that nothing tells series apart."""
    for budget, start, size in ((1e11, "", 4.5), (3e11, "", 4.5), (1e12, "models/llama", 8.0)):
        changes = {"train.init_from": start, "patching.size": size}
        add_run(tmp_path, "blt-space", budget, changes=changes)
    said = analysed(tmp_path)["warnings"]
    assert any("train.init_from is none at 10¹¹ and 3×10¹¹, models/llama at 10¹² FLOPs" in w for w in said)
    assert any("patching.size is 4.5 at 10¹¹ and 3×10¹¹, 8.0 at 10¹² FLOPs" in w for w in said)


def test_a_report_of_some_runs_is_of_them_only(tmp_path, capsys):
    folder = tmp_path / "quickstart"
    for name, family in (("bpe-S", "bpe"), ("blt-space-S", "blt-space"), ("blt-strided-S", "blt-strided")):
        add_run(folder, family, 1e11, name=name)
    options = ["--only", "bpe", "--only", "space", "--root", str(tmp_path), "--json"]
    assert main.main(["report", "quickstart", *options]) == 0
    result = json.loads(capsys.readouterr().out)
    assert {r["name"] for r in result["all_runs"]} == {"bpe-S", "blt-space-S"}
    assert "This report is of 2 of 3 runs" in result["warnings"][0]
    with pytest.raises(UserError, match="none of the runs that --only keeps"):
        report.report(folder, tmp_path / "out", only=["mamba"])
