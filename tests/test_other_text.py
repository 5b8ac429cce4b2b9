"""Runs that were scored on other text, or chosen on it, stand in no comparison, and the report says so."""

import json

import numpy as np
import pytest
from fabricated_runs import BUDGETS, add_run, analysed, experiment, fabricated_scores, law

from bltjax.report import figures, report, sections
from bltjax.results import run_directories
from bltjax.science import bootstrap


def other_text(tmp_path, seeds=1):
    """bpe and blt-space; at the largest budget blt-space was scored on another text of the same sizes."""
    for budget in BUDGETS:
        for seed in range(seeds):
            for family in ("bpe", "blt-space"):
                off = family == "blt-space" and budget == BUDGETS[-1]
                add_run(
                    tmp_path,
                    family,
                    budget,
                    bpb=0.5 + seed / 1e3 if off else law(family, budget) + seed / 1e3,
                    digest="other" if off else "d" * 12,
                    seed=seed,
                    name=f"{family}-{budget:.0e}-seed{seed}".replace("+", ""),
                )
    return analysed(tmp_path)


@pytest.mark.parametrize("seeds", [1, 3])
def test_scores_of_other_text_are_in_no_comparison(tmp_path, seeds):
    result = other_text(tmp_path, seeds)
    (pair,) = [p for p in result["pairs"] if p["budget_flops"] == 1e12]
    assert pair["difference"] is None and pair["low"] is None and pair["note"] == "test documents differ"
    said = " ".join([result["headline"], *result["findings"]])
    assert "0.500" not in said and "0.501" not in said and "only series" in said
    assert set(result["fits"]) == {"bpe"}
    assert all(high <= 3.1e11 for c in result["crossovers"] for high in c["range"][1:])
    assert any("other test text" in w and "blt-space at 10¹² FLOPs" in w for w in result["warnings"])
    assert len(result["runs"]) == 6 and sum(r["compared"] for r in result["runs"]) == 5
    table = sections.score_table(result)
    assert not any("0.50" in cell for row in table["rows"] for cell in row)
    sections.of(
        result,
        run_directories.read_experiment(tmp_path),
        figures.draw(result, run_directories.read_experiment(tmp_path)),
    )
    json.dumps(result, allow_nan=False)


def test_all_runs_on_another_text_but_the_reference(tmp_path):
    """Every family on its own corpus: nothing is said of which is lower."""
    for budget in BUDGETS:
        add_run(tmp_path, "bpe", budget)
        add_run(tmp_path, "blt-space", budget, digest="other")
    result = report.report(tmp_path)
    assert "Nothing to compare" in result["headline"] and set(result["fits"]) == {"bpe"}
    assert not result["crossovers"] and all(p["note"] for p in result["pairs"])


def test_seeds_on_other_text_are_not_averaged(tmp_path):
    add_run(tmp_path, "bpe", 1e11, bpb=2.0, seed=0, name="a")
    add_run(tmp_path, "bpe", 1e11, bpb=2.1, seed=1, name="b")
    add_run(tmp_path, "bpe", 1e11, bpb=1.0, seed=2, name="c", digest="other", validation=0.5)
    result = analysed(tmp_path)
    (row,) = result["runs"]
    assert row["bpb"] == pytest.approx(2.05) and row["seeds"] == 2
    assert any("different text" in w and w.endswith("among: c.") for w in result["warnings"])


def test_the_choice_is_among_runs_of_one_validation_text(tmp_path):
    """A run whose validation text was easy is not the best of a sweep."""
    for lr, validation in ((1e-3, 2.2), (2e-3, 2.1), (4e-3, 1.0)):
        path = add_run(tmp_path, "bpe", 1e11, lr=lr, validation=validation, name=f"lr-{lr}")
        scored = json.loads((path / "eval.json").read_text())
        scored["validation"]["documents_digest"] = "easy" if validation == 1.0 else "usual"
        (path / "eval.json").write_text(json.dumps(scored))
    result = analysed(tmp_path)
    assert [r["name"] for r in result["runs"]] == ["lr-0.002"]
    assert any("different text" in w and "lr-0.004" in w for w in result["warnings"])
    assert not any(v["value"] == 4e-3 for s in result["sweeps"] for v in s["values"])


def test_a_fit_through_runs_of_several_data_sets_says_so(tmp_path):
    experiment(tmp_path, ("bpe",))
    record = tmp_path / "bpe-1e12" / "config.json"
    record.write_text(record.read_text().replace('"abc"', '"another"'))
    assert "2 different data sets" in analysed(tmp_path)["fits"]["bpe"]["note"]


def test_one_document_with_most_of_the_bytes_is_one_document(tmp_path):
    """Sixty documents, one of them nearly all of the text: no resampling shows what another would do."""
    documents = fabricated_scores(2.0)["documents"]
    documents[0] = {"bytes": 10**9, "nats": 1.4e9, "eos_nats": 2.5}
    for family in ("bpe", "blt-space"):
        add_run(tmp_path, family, 1e11, documents=documents)
    result = analysed(tmp_path)
    assert all(r["bpb_low"] is None for r in result["runs"] + result["all_runs"])
    assert result["pairs"][0]["low"] is None and "most of the bytes" in result["pairs"][0]["note"]
    assert any("worth 1.0 equal ones" in line for line in result["caveats"])


@pytest.mark.parametrize("documents, spread", [(4, 0.0), (12, 1.0)])
def test_few_and_unequal_documents_hold_the_truth(documents, spread):
    rng, held = np.random.default_rng(0), 0
    for trial in range(400):
        sizes = rng.lognormal(8, spread, documents)
        nats = sizes * 1.4 * np.exp(rng.normal(-0.02, 0.2, documents))  # mean of exp(N(-0.02, 0.2)) is 1
        if bootstrap.worth(sizes) >= bootstrap.FEWEST:
            samples = bootstrap.resample(nats, sizes, 200, seed=trial).T
            one = bootstrap.score([bootstrap.bpb(nats, sizes)], samples, documents, bootstrap.worth(sizes))
            low, high = bootstrap.score_interval(one)
            held += low <= 1.4 / np.log(2) <= high
        else:
            held += 1
    assert 0.92 <= held / 400 <= 0.985
