"""Curves of a report: which runs make a series, means over seeds, and what is said of unequal care."""

import json
import math

import numpy as np
import pytest
from fabricated_runs import BUDGETS, add_run, analysed, experiment, law, write

from bltjax.plots import drawing
from bltjax.report import compare_series, figures, sweeps
from bltjax.report import report as reporting
from bltjax.results import run_directories, tables


def seeds_of(root, family, budget, bits, validations=None, **more):
    """One configuration under several seeds, with given test (and validation) bits per byte."""
    for seed, bpb in enumerate(bits):
        validation = validations[seed] if validations else None
        name = f"{more.get('stem', family)}-{budget:.0e}-seed{seed}".replace("+", "")
        known = {key: value for key, value in more.items() if key != "stem"}
        add_run(root, family, budget, bpb=bpb, validation=validation, seed=seed, name=name, **known)


def test_a_point_is_the_mean_over_seeds_and_never_the_best(tmp_path):
    seeds_of(tmp_path, "bpe", 1e11, (2.0, 2.1, 2.3), (2.05, 2.2, 2.3))
    result = analysed(tmp_path)
    (row,) = result["runs"]
    assert row["bpb"] == pytest.approx(np.mean([2.0, 2.1, 2.3])) and row["seeds"] == 3
    assert row["bpb_seed_sd"] == pytest.approx(np.std([2.0, 2.1, 2.3], ddof=1))
    assert (
        row["name"] == "bpe-1e11" and row["run_dir"].endswith("bpe-1e11-seed0") and len(row["run_dirs"]) == 3
    )
    assert len(result["all_runs"]) == 3 and all(r["chosen"] for r in result["all_runs"])
    json.dumps(result, allow_nan=False)


def test_the_choice_averages_validation_over_seeds(tmp_path):
    seeds_of(tmp_path, "bpe", 1e11, (1.0, 1.0), (1.5, 3.0), lr=1e-3, stem="low")  # has the best seed
    seeds_of(tmp_path, "bpe", 1e11, (2.0, 2.2), (2.0, 2.1), lr=2e-3, stem="high")  # has the best mean
    result = analysed(tmp_path)
    (row,) = result["runs"]
    assert row["name"] == "high-1e11" and row["bpb"] == pytest.approx(2.1) and row["tried"] == 2
    (sweep,) = result["sweeps"]
    assert sweep["chosen"] == 2e-3 and [v["seeds"] for v in sweep["values"]] == [2, 2]


def test_a_seed_run_twice_counts_once(tmp_path):
    seeds_of(tmp_path, "bpe", 1e11, (2.0, 2.1))
    add_run(tmp_path, "bpe", 1e11, bpb=2.0, seed=0, name="again")
    (row,) = analysed(tmp_path)["runs"]
    assert row["seeds"] == 2 and row["bpb"] == pytest.approx(2.05)


def test_figure_6_has_a_curve_per_patch_size(tmp_path):
    experiment(tmp_path, ("bpe",))
    for size in (4.5, 6.0, 8.0):
        for budget in BUDGETS:
            changes = {"patching.size": size, "model.local.layers": 3 if size == 8 else 1}
            name = f"entropy-{size}-{budget:.0e}".replace("+", "")
            bpb = law("blt-entropy", budget) * (1 + size / 100)
            add_run(tmp_path, "blt-entropy", budget, bpb=bpb, name=name, changes=changes)
    result = analysed(tmp_path)
    names = ["blt-entropy (4.5 bytes)", "blt-entropy (6 bytes)", "blt-entropy (8 bytes)"]
    assert list(dict.fromkeys(r["series"] for r in result["runs"])) == ["bpe", *names]
    assert set(result["fits"]) == {"bpe", *names} and len(result["runs"]) == 12
    assert {(p["series"], p["against"]) for p in result["pairs"]} == {(name, "bpe") for name in names}
    assert {c["series"] for c in result["crossovers"]} == set(names)
    drawn = figures.lines_of(result["runs"], "realized_flops")
    looks = [(drawing.style(s["family"]), s["variant"]) for s in drawn]
    assert [s["series"] for s in drawn] == ["bpe", *names] and len(set(looks)) == 4


def test_what_is_swept_makes_no_series_and_what_else_differs_does(tmp_path):
    for lr in (1e-3, 2e-3):
        for pool in ("states", "embeddings"):
            changes = {"model.cross.pool": pool}
            add_run(tmp_path, "blt-space", 1e11, lr=lr, name=f"{pool}-{lr}", changes=changes)
    found = {r["series"]: r["tried"] for r in analysed(tmp_path)["runs"]}
    assert found == {"blt-space (cross.pool states)": 2, "blt-space (cross.pool embeddings)": 2}


def test_an_experiment_says_what_is_swept_and_what_a_series_is(tmp_path):
    for size in (4.5, 6.0):
        changes = {"patching.size": size, "swept": ["patching.size"]}
        add_run(tmp_path, "blt-entropy", 1e11, name=f"swept-{size}", validation=size, changes=changes)
        changes = {"patching.size": size, "series": f"mine {size}"}
        add_run(tmp_path, "blt-space", 1e11, name=f"declared-{size}", changes=changes)
    found = {r["series"]: r["name"] for r in analysed(tmp_path)["runs"]}
    assert found == {
        "blt-entropy": "swept-4.5",
        "blt-space (mine 4.5)": "declared-4.5",
        "blt-space (mine 6.0)": "declared-6.0",
    }


def test_a_larger_vocabulary_with_its_own_rate_stays_in_its_series(tmp_path):
    for vocab, lr in ((512, 1e-3), (1024, 2e-3), (2048, 2e-3)):
        changes = {"tokenizer.bytes_per_token": vocab / 400}
        add_run(tmp_path, "bpe", 1e11, vocab=vocab, lr=lr, name=f"v{vocab}", changes=changes)
    (row,) = analysed(tmp_path)["runs"]
    assert row["series"] == "bpe" and row["tried"] == 3


def test_intervals_cover_seeds_where_there_are_several(tmp_path):
    for family, bits in (("bpe", (2.00, 2.04, 2.02)), ("blt-space", (2.05, 2.01, 2.06))):
        seeds_of(tmp_path, family, 1e11, bits, noise_seed=3)
    several = analysed(tmp_path)["pairs"][0]
    assert (
        several["covers_seeds"] and several["covers"] == compare_series.BOTH and not several["excludes_zero"]
    )
    one = tmp_path / "one"
    add_run(one, "bpe", 1e11, bpb=2.02, noise_seed=3)
    add_run(one, "blt-space", 1e11, bpb=2.04, noise_seed=3)
    alone = analysed(one)["pairs"][0]
    assert not alone["covers_seeds"] and alone["high"] - alone["low"] < 0.2 * (
        several["high"] - several["low"]
    )


def test_unequal_care_and_epochs_are_said(tmp_path):
    for lr in (1e-3, 2e-3, 4e-3):
        add_run(tmp_path, "bpe", 1e11, lr=lr, name=f"bpe-{lr}", planned={"epochs": 5.5})
    add_run(tmp_path, "blt-space", 1e11, planned={"epochs": 3.0})
    said = " ".join(analysed(tmp_path)["findings"])
    assert "bpe is the best of 3 learning rates, blt-space of one" in said
    assert "More than 4 epochs over the training text: bpe-0.001 (5.5)" in said
    assert "differ by more than a fifth: 3.00 (blt-space-1e11) to 5.50" in said


def test_unequal_conditions_are_said(tmp_path):
    beyond = add_run(
        tmp_path,
        "bpe",
        1e11,
        planned={
            "positions": {"slots": 137, "patches": 0},
            "bytes_per_batch": 4025,
            "params": {"total": 900, "hash": 0, "embeddings": 300, "head": 310},
            "executed_flops": 1.3e11,
        },
    )
    path = add_run(
        tmp_path,
        "blt-space",
        1e11,
        planned={"data": {"test_overlap": {"all": 0.3, "without_boilerplate": 0.05}}},
    )
    scored = json.loads((path / "eval.json").read_text())
    scored["test"]["mean_context_bytes"] = 300.0
    write(path / "eval.json", scored)
    scored = json.loads((beyond / "eval.json").read_text())
    scored["test"]["largest_position"] = {"slots": 340, "patches": None}
    write(beyond / "eval.json", scored)
    (path / "metrics.jsonl").unlink()
    result = analysed(tmp_path)
    said = " ".join(result["warnings"])
    assert "never trained: bpe-1e11 (trained on 137, scored at up to 341)" in said
    assert "Bytes per batch at 10¹¹ FLOPs differ by more than 0.5%" in said
    assert "5.0% of the test text's shingles" in said
    rows = {r["family"]: r for r in result["runs"]}
    assert (rows["bpe"]["params_lexicon"], rows["bpe"]["params_without_lexicon"]) == (610, 290)
    assert rows["blt-space"]["params_lexicon"] == 300_000 and rows["blt-space"]["mean_context_bytes"] == 300
    assert rows["bpe"]["mean_context_bytes"] is None and rows["bpe"]["overlap"] is None


def test_lexicons_of_both_kinds_stand_on_one_axis(tmp_path):
    for entries in (512, 1024, 2048):
        params = {"total": 10**6, "hash": 0, "embeddings": 64 * entries, "head": 64 * entries}
        add_run(tmp_path, "bpe", 1e11, vocab=entries, name=f"v{entries}", planned={"params": params})
        changes = {"model.ngrams.rows": 8 * entries}
        planned = {"params": {"total": 10**6, "hash": 6 * 32 * 8 * entries}}
        name = f"rows{entries}"
        add_run(
            tmp_path,
            "blt-space",
            1e11,
            validation=3 - entries / 1e4,
            name=name,
            changes=changes,
            planned=planned,
        )
    result = analysed(tmp_path)
    found = {s["series"]: s for s in sweeps.lexicons(result["sweeps"])}
    assert [v["value"] for v in found["bpe"]["values"]] == [128 * n for n in (512, 1024, 2048)]
    assert found["blt-space"]["chosen"] == 6 * 32 * 8 * 2048 and found["blt-space"]["edge"]
    drawn = figures.draw(result, run_directories.read_experiment(tmp_path))
    assert {"lexicon_sweep", "vocabulary_sweep", "hash_rows_sweep"} <= set(drawn)


def test_a_matplotlibrc_that_needs_tex_ends_no_report(tmp_path, monkeypatch):
    import matplotlib

    add_run(tmp_path, "bpe", 1e11)
    with matplotlib.rc_context({"text.usetex": True, "svg.fonttype": "none", "font.family": "no such font"}):
        drawn = figures.draw(analysed(tmp_path), run_directories.read_experiment(tmp_path))
        assert matplotlib.rcParams["text.usetex"]  # what the user set is there again
    assert drawn["bpb_vs_flops"].png[:4] == b"\x89PNG"


def test_a_report_prints_where_the_terminal_has_no_such_signs(tmp_path):
    experiment(tmp_path, ("bpe", "blt-space"))
    plain = tables.in_ascii(reporting.text(analysed(tmp_path)))
    plain.encode("ascii")
    assert "3e11 FLOPs" in plain and "1e12" in plain and "?" not in plain
    assert tables.in_ascii("1.03×10¹²") == "1.03e12" and tables.in_ascii("10⁻³") == "1e-3"


def test_seeds_that_spread_widen_a_fit_of_points_that_do_not(tmp_path):
    spread = (-0.03, 0.0, 0.03)
    for budget in BUDGETS:
        seeds_of(tmp_path, "bpe", budget, [law("bpe", budget) + s for s in spread], noise_seed=1)
        add_run(tmp_path / "one", "bpe", budget, noise_seed=1)
    several, one = (analysed(path)["fits"]["bpe"] for path in (tmp_path, tmp_path / "one"))
    assert "seeds and scatter" in several["covers"] and several["freedom"] == 7
    assert one["covers"].endswith("by their scatter about the fit (1 degrees of freedom)")
    assert several["alpha"] == pytest.approx(one["alpha"], rel=1e-3)
    assert several["alpha_high"] - several["alpha_low"] > 3 * (one["alpha_high"] - one["alpha_low"])
    assert math.isfinite(several["alpha_low"])


def test_a_long_value_is_cut_in_a_name_and_told_from_others():
    from bltjax.results.series import worded

    assert worded("data.separator", "\n") == "data.separator \n"
    names = {worded("data.separator", "x" * 100_000 + end) for end in "ab"}
    assert len(names) == 2 and all(len(name) < 100 for name in names)
