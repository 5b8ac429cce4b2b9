"""Bits per byte of documents: sums, resampling, and pairs of runs on the same documents."""

import math

import numpy as np
import pytest
from fabricated_runs import add_run, analysed, experiment, fabricated_scores

from bltjax.science import bootstrap


def test_bits_per_byte_of_sums_not_mean_of_ratios():
    assert bootstrap.bpb([math.log(2) * 100, math.log(2) * 10], [50, 100]) == pytest.approx(110 / 150)


def test_resampling_is_deterministic_and_chunks_do_not_change_it(monkeypatch):
    rows_ = fabricated_scores(2.0)["documents"]
    nats, sizes = [[r["nats"] for r in rows_]], [r["bytes"] for r in rows_]
    whole = bootstrap.resample(nats, sizes, 300)
    monkeypatch.setattr(bootstrap, "CELLS", 60 * 7)
    np.testing.assert_allclose(bootstrap.resample(nats, sizes, 300), whole, rtol=1e-12)
    assert not np.allclose(bootstrap.resample(nats, sizes, 300, seed=1), whole)


def test_interval_covers_about_as_often_as_it_says():
    rng, hits = np.random.default_rng(0), 0
    for trial in range(200):
        sizes = rng.integers(200, 2000, 80)
        nats = sizes * 1.4 * np.exp(rng.normal(-0.02, 0.2, 80))  # mean of exp(N(-0.02, 0.2)) is 1
        low, high = bootstrap.interval(bootstrap.resample(nats, sizes, 400, seed=trial)[:, 0])
        hits += low <= 1.4 / math.log(2) <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_pairing_reduces_the_variance_of_a_difference():
    a, b = fabricated_scores(2.0, 1)["documents"], fabricated_scores(1.98, 2)["documents"]
    samples = bootstrap.resample_runs({"a": a, "b": b}, {"a": "same", "b": "same"})
    alone = bootstrap.resample_runs({"b": b}, {"b": "same"}, seed=1)["b"]
    assert np.std(samples["a"] - samples["b"]) < 0.1 * np.std(samples["a"] - alone)
    low, high = bootstrap.interval(samples["a"] - samples["b"])
    assert low < 0.02 < high


def test_documents_that_differ_or_are_too_few_are_not_paired(tmp_path):
    experiment(tmp_path, ("bpe", "blt-space"))
    other = fabricated_scores(2.0)["documents"][:-1]
    add_run(tmp_path, "blt-space", 3e11, documents=other, digest="other")
    for family in ("bpe", "blt-space"):
        add_run(tmp_path, family, 1e12, documents=other[:1])
    pairs = {p["budget_flops"]: p for p in analysed(tmp_path)["pairs"]}
    assert pairs[1e11]["low"] is not None and pairs[3e11]["note"] == "test documents differ"
    assert pairs[1e12]["note"] == "fewer than two test documents" and not pairs[1e12]["excludes_zero"]


def test_equal_byte_counts_are_not_equal_documents(tmp_path):
    experiment(tmp_path, ("bpe", "blt-space"))
    add_run(tmp_path, "blt-space", 3e11, digest="another text of the same sizes")
    add_run(tmp_path, "blt-space", 1e12, digest=None)
    result = analysed(tmp_path)
    pairs = {p["budget_flops"]: p for p in result["pairs"]}
    assert pairs[3e11]["low"] is None and pairs[3e11]["note"] == "test documents differ"
    assert pairs[1e12]["low"] is None and "documents_digest" in pairs[1e12]["note"]
    assert result["fits"]["bpe"]["alpha_low"] is not None and "blt-space" not in result["fits"]
    assert result["crossovers"] == []
