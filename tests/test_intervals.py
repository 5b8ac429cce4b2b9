"""Intervals over documents and seeds, on synthetic experiments whose truth is known."""

import numpy as np
import pytest

from bltjax.science import bootstrap

DOCUMENTS, RESAMPLES = 60, 150


def called_different(
    seeds: int, seed_sd: float, own_sd: float, budgets: int = 1, trials: int = 1000
) -> float:
    """How often two samples of seeds of one family are called different at their first budget.

    Relative effects: documents (shared by all), seeds (seed_sd), and of a seed on a document (own_sd)."""
    rng, different = np.random.default_rng(0), 0
    for trial in range(trials):
        sizes = rng.lognormal(8, 0.8, DOCUMENTS)
        effects = (
            rng.normal(0, 0.25, DOCUMENTS)
            + rng.normal(0, seed_sd, (2, budgets, seeds, 1))
            + rng.normal(0, own_sd, (2, budgets, seeds, DOCUMENTS))
        )
        nats = sizes * 1.4 * np.exp(effects)
        samples = bootstrap.resample(nats.reshape(-1, DOCUMENTS), sizes, RESAMPLES, seed=trial)
        samples = samples.T.reshape(2, budgets, seeds, RESAMPLES)
        a, b = (
            bootstrap.pool(
                [bootstrap.score(bootstrap.bpb(n, sizes), s, DOCUMENTS) for n, s in zip(nats[i], samples[i])]
            )[0]
            for i in range(2)
        )
        low, high = bootstrap.difference_interval(a, b)
        different += low > 0 or high < 0
    return different / trials


@pytest.mark.parametrize("seeds, budgets", [(2, 3), (3, 1), (5, 1)])
def test_two_samples_of_one_family_differ_in_five_percent_of_cases(seeds, budgets):
    assert 0.03 <= called_different(seeds, 0.01, 0.02, budgets) <= 0.08


def test_two_seeds_alone_err_on_the_careful_side():
    """Four numbers say little of their variance: Welch's interval is a little too wide there, never too
    narrow."""
    assert called_different(2, 0.01, 0.005, trials=600) <= 0.08


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_no_seed_noise_is_not_counted_twice(seeds):
    """What is peculiar to a seed on a document must not widen the interval a second time."""
    assert 0.015 <= called_different(seeds, 0.0, 0.05, trials=600) <= 0.08


def test_documents_alone_call_two_seeds_different_far_too_often():
    """Why seeds are needed: with one each, the interval is of these documents only."""
    assert called_different(1, 0.01, 0.02, trials=300) > 0.4


def test_a_real_difference_is_found():
    rng = np.random.default_rng(1)
    sizes = rng.lognormal(8, 0.8, DOCUMENTS)
    level = rng.normal(0, 0.25, DOCUMENTS)
    nats = sizes * np.exp(level + np.array([[0.0], [0.004], [-0.004], [0.1], [0.104], [0.096]]))
    samples = bootstrap.resample(nats, sizes, RESAMPLES).T
    a, b = (
        bootstrap.score(bootstrap.bpb(nats[i : i + 3], sizes), samples[i : i + 3], DOCUMENTS) for i in (0, 3)
    )
    low, high = bootstrap.difference_interval(a, b)
    assert low < high < 0 and low < a.mean - b.mean < high


def test_equal_scores_have_an_interval_of_nothing():
    one = bootstrap.Score(2.0, np.full(10, 2.0), 5)
    assert bootstrap.difference_interval(one, one) == (0.0, 0.0)


def test_pooling_is_relative_and_never_below_zero():
    flat = np.ones(10)
    scores = [bootstrap.Score(m, m * flat, 9, 2, v, 1) for m, v in ((1.0, 0.01), (2.0, 0.12))]
    first, second = bootstrap.pool(scores)
    assert first.seed_variance == pytest.approx(0.02) and second.seed_variance == pytest.approx(0.08)
    assert first.freedom == second.freedom == 2
    (below,) = bootstrap.pool([bootstrap.Score(1.0, flat, 9, 3, -1e-5, 2)])
    assert below.seed_variance == 0 and below.covers_seeds


def test_draws_of_a_fit_spread_with_the_seeds():
    rng = np.random.default_rng(0)
    steady = bootstrap.Score(2.0, 2 + rng.normal(0, 1e-3, 4000), 50, 3, 0.03**2, 12)
    drawn = bootstrap.draws([steady, steady], 0)
    assert drawn.shape == (4000, 2) and np.std(drawn[:, 0]) == pytest.approx(0.03 / 3**0.5, rel=0.2)
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 0.1  # seeds of different budgets are different runs
    one = bootstrap.Score(2.0, steady.samples_R, 50)
    assert np.array_equal(bootstrap.draws([one], 0)[:, 0], one.samples_R)
