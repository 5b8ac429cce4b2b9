"""What a report says of numbers that are known, and what it does not say."""

import json
import math

from fabricated_runs import BUDGETS, add_run, analysed, experiment, law, write

from bltjax.report import report as reporting
from bltjax.report import sections


def test_choice_is_by_validation_text_and_never_by_test(tmp_path):
    add_run(tmp_path, "bpe", 1e11, lr=1e-3, bpb=2.0, validation=2.2, name="a")
    add_run(tmp_path, "bpe", 1e11, lr=2e-3, bpb=2.1, validation=2.1, name="b")
    add_run(tmp_path, "bpe", 1e11, lr=4e-3, bpb=1.9, validation=2.3, name="c")
    result = analysed(tmp_path)
    assert [r["name"] for r in result["runs"]] == ["b"] and len(result["all_runs"]) == 3
    assert {r["name"]: r["chosen"] for r in result["all_runs"]} == {"a": False, "b": True, "c": False}


def test_sweep_table_and_edge_of_the_grid(tmp_path):
    for lr, validation in ((1e-3, 2.3), (2e-3, 2.1), (4e-3, 2.0), (8e-3, 2.2)):
        add_run(tmp_path, "bpe", 1e11, lr=lr, validation=validation, name=f"bpe-{lr}")
        add_run(tmp_path, "blt-space", 1e11, lr=lr, validation=3 - lr, name=f"space-{lr}")
    found = {s["family"]: s for s in reporting.report(tmp_path)["sweeps"]}
    assert set(found) == {"bpe", "blt-space"} and found["bpe"]["key"] == "train.lr"
    assert (found["bpe"]["chosen"], found["bpe"]["edge"]) == (4e-3, False)
    assert (found["blt-space"]["chosen"], found["blt-space"]["edge"]) == (8e-3, True)
    assert [v["validation_bpb"] for v in found["bpe"]["values"]] == [2.3, 2.1, 2.0, 2.2]
    page = (tmp_path / "report" / "report.html").read_text()
    assert "at the edge of the grid" in page and (tmp_path / "report" / "learning_rate_sweep.png").exists()


def test_a_vocabulary_sweep_at_two_learning_rates_is_not_mixed(tmp_path):
    for vocab in (512, 1024, 2048):
        for lr in (1e-3, 2e-3):
            add_run(
                tmp_path,
                "bpe",
                1e11,
                lr=lr,
                vocab=vocab,
                validation=2 + abs(math.log2(vocab) - 10) / 10 + lr,
                name=f"v{vocab}-{lr}",
            )
    found = [s for s in analysed(tmp_path)["sweeps"] if s["key"] == "tokenizer.vocab"]
    assert len(found) == 2 and all(s["chosen"] == 1024 and not s["edge"] for s in found)
    assert sorted(s["fixed"]["train.lr"] for s in found) == [1e-3, 2e-3]


def test_headline_follows_the_numbers(tmp_path):
    def runs(factor, share):
        for budget in BUDGETS:
            for seed in range(3):
                moved = (seed - 1) * 1e-3
                for family, bpb, own in (("bpe", 1.0, 1), ("blt-space", factor, 2)):
                    add_run(
                        tmp_path,
                        family,
                        budget,
                        bpb=law("bpe", budget) * (bpb + moved),
                        name=f"{family}-{budget:.0e}-seed{seed}".replace("+", ""),
                        noise_seed=own,
                        share=share,
                        seed=seed,
                    )
        return analysed(tmp_path)

    result = runs(1.05, 0.8)
    assert result["headline"].startswith("bpe has the lowest mean test bits per byte at all 3 budgets")
    assert "documents and seeds, excludes 0 at each" in result["headline"]
    assert any("take most of the FLOPs" in line and "80%" in line for line in result["caveats"])
    assert any("means over 3 seeds" in line for line in result["caveats"])
    result = runs(1.00005, 0.3)  # the same means, too close to tell
    assert "includes 0" in result["headline"] and "excludes 0" not in result["headline"]
    assert not any("take most of the FLOPs" in line for line in result["caveats"])


def test_headline_without_anything_to_compare_claims_nothing(tmp_path):
    add_run(tmp_path, "blt-space", 1e11)
    assert "Nothing to compare yet" in analysed(tmp_path)["headline"]
    add_run(tmp_path, "blt-strided", 1e11)
    result = analysed(tmp_path)
    assert "No bpe run has finished" in result["headline"] and result["pairs"] == [] and result["fits"] == {}


def test_bits_that_rise_with_budget_and_unequal_conditions_are_said(tmp_path):
    experiment(tmp_path, ("bpe",))
    path = add_run(tmp_path, "bpe", 1e12, bpb=9.0)
    record = json.loads((path / "config.json").read_text())
    write(path / "config.json", {**record, "data_fingerprint": "other"})
    write(path / "done.json", dict(realized_flops=1.05e12))
    (path / "metrics.jsonl").unlink()
    result = analysed(tmp_path)
    assert any("do not fall everywhere: bpe from 3×10¹¹ to 10¹²" in line for line in result["findings"])
    assert any("data_fingerprint" in line for line in result["warnings"]) and any(
        "+5.00%" in line for line in result["warnings"]
    )


def test_missing_optional_fields_leave_gaps_not_errors(tmp_path):
    path = add_run(tmp_path, "blt-space", 1e11)
    write(path / "planned.json", {"steps": 200, "budget_flops": 1e11})
    write(path / "eval.json", {"test": {"bpb": 2.0}})
    write(path / "done.json", {"finished": "now"})
    (path / "metrics.jsonl").unlink()
    (row,) = analysed(tmp_path)["all_runs"]
    assert row["bpb"] == 2.0 and row["bpb_low"] is None and row["realized_flops"] is None


def test_a_crossing_that_hardly_any_resample_has_gets_no_interval():

    crossover = dict(
        series="blt", against="bpe", text="none in range", low=2e11, high=6e11, covers="", fits=[]
    )
    rows = lambda share: sections.crossing_table(dict(crossovers=[dict(crossover, share=share)]))["rows"][0]
    assert rows(0.004)[2:4] == ["<1%", "–"]
    assert rows(0.5)[2] == "50%" and " to " in rows(0.5)[3]
