"""The 95% interval of a fitted exponent holds the truth in 95% of draws, on laws that are known: with few
budgets and one seed each too."""

import dataclasses

import numpy as np
import pytest

from bltjax.report import compare_series, sections
from bltjax.science import bootstrap, fit_runs, parametric, power_law, profile_interval
from bltjax.science.formula import COMPUTE
from bltjax.science.noise import Noise, between_seeds
from bltjax.science.objectives import Objective

DOCUMENTS, RESAMPLES = 40, 100
LINE, FLOORED = (0.0, 60.0, 0.132), (0.8, 300.0, 0.2)  # E, A, alpha


def fitted(rng, law, budgets, seeds, run_sd, slope_sd=0.0, own_sd=0.0, documents_alone=False):
    """The interval of one synthetic series, as a report makes it, and its documents' alone.
    Relative effects: of runs (run_sd), of a document on all runs that grows with log FLOPs (slope_sd), of a
    run on a document (own_sd)."""
    e, a, alpha = law
    flops = np.geomspace(1e11, 1e13, budgets)
    sizes = rng.lognormal(8, 0.5, DOCUMENTS)
    x = np.log(flops) - np.log(flops).mean()
    effects = (
        rng.normal(0, 0.25, DOCUMENTS)
        + rng.normal(0, slope_sd, DOCUMENTS) * x[:, None, None]
        + rng.normal(0, run_sd, (budgets, seeds, 1))
        + rng.normal(0, own_sd, (budgets, seeds, DOCUMENTS))
    )
    nats = sizes * (e + a * flops[:, None, None] ** -alpha) * np.exp(effects)
    drawn = bootstrap.resample(nats.reshape(-1, DOCUMENTS), sizes, RESAMPLES, seed=int(rng.integers(1 << 30)))
    drawn = drawn.T.reshape(budgets, seeds, RESAMPLES)
    bpb = bootstrap.bpb(nats, sizes)
    rows = [dict(seed_bpb=list(scores)) for scores in bpb]
    scores = [bootstrap.score(b, s, DOCUMENTS) for b, s in zip(bpb, drawn)]
    formula = COMPUTE if budgets >= power_law.FLOOR_FROM else power_law.LINE
    of = lambda score: parametric.fit(
        formula, fit_runs.of(dict(C=flops), score, power_law.UNITS), Objective("log_least_squares")
    )
    if documents_alone:
        samples = drawn.mean(1).T[:20]
        return bootstrap.interval([of(score).parameters["alpha"] for score in samples])
    found = profile_interval.interval(of(bpb.mean(1)), "alpha", noise=compare_series.noise(rows, scores))
    return found.low, found.high


def share(law, budgets, seeds, trials=120, **noise) -> float:
    """In how many draws the interval of alpha holds the truth."""
    rng, held = np.random.default_rng(budgets + 10 * seeds), 0
    for _ in range(trials):
        low, high = fitted(rng, law, budgets, seeds, **noise)
        held += (low is None or low <= law[2]) and (high is None or law[2] <= high)
    return held / trials


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("budgets", [3, 4])
@pytest.mark.parametrize("run_sd", [1e-3, 2e-2])
def test_few_budgets_hold_the_truth(budgets, seeds, run_sd):
    assert 0.92 <= share(LINE, budgets, seeds, run_sd=run_sd) <= 0.99


@pytest.mark.parametrize("law", [LINE, FLOORED])
def test_five_budgets_hold_the_truth_with_a_floor_and_without(law):
    assert 0.90 <= share(law, 5, 1, trials=200, run_sd=5e-3) <= 1.0


def test_documents_count_though_they_leave_nothing_about_the_fit():
    """Documents that get easier faster than others move every point along one line: no residual shows it."""
    assert 0.92 <= share(LINE, 4, 3, run_sd=1e-4, slope_sd=5e-2) <= 0.99


def test_what_is_peculiar_to_a_run_on_a_document_is_not_counted_twice():
    assert 0.92 <= share(LINE, 5 - 1, 3, run_sd=0.0, own_sd=5e-2) <= 0.985


def test_documents_alone_hold_it_far_too_seldom():
    """The interval that reports had: of runs that differ by 2%, resampled documents say next to nothing."""
    assert share(LINE, 4, 1, trials=25, run_sd=2e-2, documents_alone=True) < 0.5


def test_a_line_has_the_usual_t_interval():
    """By hand: slope and standard error of four points."""
    flops, bpb = np.geomspace(1e11, 1e12, 4), np.array([2.0, 1.85, 1.74, 1.6])
    x, y = np.log(flops) - np.log(flops).mean(), np.log(bpb)
    slope = x @ y / (x @ x)
    error = np.sqrt(np.square(y - y.mean() - slope * x).sum() / 2 / (x @ x))
    none = Noise(np.ones(4), 0.0, 0, np.zeros((4, 4)), 60)
    found = power_law.fit(flops, bpb, none)
    assert found["freedom"] == 2 and found["alpha_if"] == "E is 0"
    assert (found["alpha_low"], found["alpha_high"]) == pytest.approx(
        (-slope - 4.30265 * error, -slope + 4.30265 * error), rel=1e-4
    )


def test_no_freedom_no_interval():
    flops, bpb, none = [1e11, 1e12, 1e13], [2.0, 1.7, 1.5], np.zeros((3, 3))
    line = parametric.fit(power_law.LINE, fit_runs.of(dict(C=flops), bpb, power_law.UNITS))
    two = dataclasses.replace(line, runs=line.runs.only([1, 1, 0], "few"))
    assert profile_interval.interval(two, "alpha", noise=Noise(np.ones(2), 0.0, 0, none[:2, :2], 60)) is None
    seeded = Noise(np.full(3, 3.0), 1e-4, 6, none, 60)
    assert power_law.fit(flops, bpb, seeded)["freedom"] == 7


def test_an_end_that_the_points_do_not_bound_is_none_and_said():
    """Noisy points that fall at once and stay: any steep law will do."""
    flops = np.geomspace(1e11, 1e12, 5)
    noise = Noise(np.ones(5), 0.0, 0, np.zeros((5, 5)), 60)
    found = power_law.fit(flops, [2.2, 2.0, 2.01, 1.99, 2.0], noise)
    assert found["alpha_high"] is None and found["alpha_low"] > 0
    assert sections.alpha_interval(found).endswith("no upper end")


def test_an_outlier_widens_the_interval_which_still_reaches_to_the_fit():
    flops = np.geomspace(1e10, 1e16, 12)
    bpb = 0.7 + 300 * flops**-0.21
    noise = Noise(np.ones(12), 0.0, 0, np.zeros((12, 12)), 60)
    bpb[5] *= 1.2
    found = power_law.fit(flops, bpb, noise)
    assert found["alpha_low"] <= found["alpha"] <= found["alpha_high"]


def test_between_seeds_is_relative_and_pooled():
    variance, freedom = between_seeds([[1.0, 1.2], [2.0], [3.0, 3.0, 3.0]])
    assert freedom == 3 and variance == pytest.approx(2 * (0.1 / 1.1) ** 2 / 3)
