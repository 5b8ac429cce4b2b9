"""Intervals of fits, and what is read off them: the best split, crossings, gains, lack of fit."""

import numpy as np
import pytest
from planted_laws import CHINCHILLA_LAW, LOGS, SIZES_AND_DATA, UNITS, planted
from scipy import optimize, stats

from bltjax.science import (
    allocation,
    crossing,
    effective_compute,
    fit_bootstrap,
    fit_runs,
    lack_of_fit,
    parametric,
    profile_interval,
)
from bltjax.science.formula import CHINCHILLA, COMPUTE, Formula, Power


def test_the_best_split_is_the_lowest_point():
    for flops in (1e18, 1e22):
        lowest = optimize.minimize_scalar(
            lambda x: parametric.predict(
                CHINCHILLA, CHINCHILLA_LAW, dict(N=np.exp(x), D=flops / 6 / np.exp(x))
            ),
            bounds=(np.log(1e5), np.log(1e13)),
            method="bounded",
            options=dict(xatol=1e-10),
        )
        n, d = allocation.best(CHINCHILLA, CHINCHILLA_LAW, flops)
        assert n == pytest.approx(np.exp(lowest.x), rel=1e-4) and 6 * n * d == pytest.approx(flops)
        curve = allocation.frontier(CHINCHILLA, CHINCHILLA_LAW)
        assert parametric.predict(COMPUTE, curve, dict(C=flops)) == pytest.approx(lowest.fun, rel=1e-10)


def test_a_profile_of_a_line_is_the_t_interval():
    line = Formula((Power("A", (("C", "alpha"),)),), constant=False)
    noisy = planted(line, [1e3, 0.15], dict(C=np.geomspace(1e17, 1e21, 7)), noise=0.005)
    fit = parametric.fit(line, noisy, LOGS)
    right = stats.linregress(np.log(noisy.values["C"]), np.log(noisy.loss_N))
    half = stats.t.ppf(0.975, 5) * right.stderr
    found = profile_interval.interval(fit, "alpha")
    assert fit.parameters["alpha"] == pytest.approx(-right.slope, rel=1e-6)
    assert (found.low, found.high) == pytest.approx(
        (-right.slope - half, -right.slope + half), abs=0.02 * half
    )
    drawn = fit_bootstrap.draws(fit, 4000, "noise").of("alpha")
    assert (drawn.low, drawn.high) == pytest.approx((found.low, found.high), abs=0.1 * half)


def test_draws_are_equal_for_equal_seeds_and_hold_what_was_asked():
    fit = parametric.fit(CHINCHILLA, planted(CHINCHILLA, CHINCHILLA_LAW, SIZES_AND_DATA, noise=0.005))
    for way in fit_bootstrap.WAYS:
        one, two, other = (fit_bootstrap.draws(fit, 50, way, seed) for seed in (3, 3, 4))
        assert (one.parameters_RxQ == two.parameters_RxQ).all()
        assert (one.parameters_RxQ != other.parameters_RxQ).any()
        assert one["alpha"].std() > 0 and one.predictions(N=np.array([1e8, 1e9]), D=1e10).shape == (50, 2)
    assert fit_bootstrap.usual(fit) == "noise"
    documents = fit.runs.loss_N * np.exp(np.random.default_rng(0).normal(0, 0.05, (50, 1)))
    wider = fit_bootstrap.draws(fit, 50, "noise", 3, documents_RxN=documents)
    alone = fit_bootstrap.draws(fit, 50, "noise", 3)
    at = dict(N=1e8, D=1e9)
    assert wider.predictions(**at).std() > 3 * alone.predictions(**at).std()


def test_cells_are_drawn_and_seeds_within_them():
    cells = np.array([0, 0, 0, 1, 2, 2])
    drawn = fit_bootstrap.weights(cells, 4000, np.random.default_rng(0))
    of_cells = np.stack([drawn[:, cells == k].sum(1) / (cells == k).sum() for k in range(3)], 1)
    assert (of_cells == of_cells.round()).all() and (of_cells.sum(1) == 3).all()
    assert drawn.mean(0) == pytest.approx(np.ones(6), abs=0.06)
    assert (drawn[:, 0] != drawn[:, 1]).any()


def test_ends_that_draws_do_not_bound_are_open():
    found = fit_bootstrap.interval(
        np.concatenate([np.arange(90.0), np.full(10, np.inf), np.full(100, np.nan)])
    )
    assert found.low == 2.0 and found.high is None and found.share == 0.5
    assert found.holds(1e9) and not found.holds(1.0)
    assert fit_bootstrap.interval(np.full(3, np.nan)).share == 0


FAMILY, BASELINE = np.array([1.5, 2.4e3, 0.17]), np.array([1.6, 1.1e3, 0.155])


def scattered(curve_3, noise, seed):
    return curve_3 * np.exp(np.random.default_rng(seed).normal(0, noise, (300, 3)) * [0, 1, 0])


def test_where_two_laws_meet():
    meet = lambda x: np.diff(parametric.predict(COMPUTE, np.stack([FAMILY, BASELINE]), dict(C=np.exp(x))))[0]
    right = np.exp(optimize.brentq(meet, np.log(1e17), np.log(1e23)))
    span = (right / 50, right * 50)
    found = crossing.of_draws(
        FAMILY, BASELINE, scattered(FAMILY, 0.005, 0), scattered(BASELINE, 0.005, 1), span
    )
    assert found.flops == pytest.approx(right, rel=1e-4)
    assert found.low < right < found.high and found.holds(right) and found.share == 1
    # a range that ends at the crossing: half of the draws meet later, and the interval is open there
    short = crossing.of_draws(
        FAMILY, BASELINE, scattered(FAMILY, 0.005, 0), scattered(BASELINE, 0.005, 1), (right / 50, right)
    )
    assert short.high is None and short.low == pytest.approx(found.low, rel=1e-2) and 0.3 < short.share < 0.7
    none = crossing.of_draws(
        FAMILY,
        BASELINE,
        scattered(FAMILY, 0.005, 0),
        scattered(BASELINE, 0.005, 1),
        (right / 1e5, right / 1e4),
    )
    assert none.flops is None and none.share == 0 and none.says.startswith("none between")


def test_gain_is_how_many_times_the_flops_the_baseline_needs():
    a, alpha = BASELINE[1:]
    threefold = np.array([BASELINE[0], a * 3**-alpha, alpha])
    for flops in (1e18, 1e21):
        assert effective_compute.of(threefold, BASELINE, flops) == pytest.approx(3.0)
        assert effective_compute.of(BASELINE, threefold, flops) == pytest.approx(1 / 3)
    assert effective_compute.of(FAMILY - [0.5, 0, 0], BASELINE, 1e24) == np.inf
    found = effective_compute.with_interval(scattered(threefold, 0.01, 0), scattered(BASELINE, 0.01, 1), 1e19)
    assert 1.5 < found.low < 3 < found.high < 6


def test_lack_of_fit_shows_where_cells_repeat():
    values = {name: np.repeat(column, 3) for name, column in SIZES_AND_DATA.items()}
    right = planted(CHINCHILLA, CHINCHILLA_LAW, values, noise=0.005)
    found = lack_of_fit.test(parametric.fit(CHINCHILLA, right, LOGS))
    assert not found.lacks and found.noise == pytest.approx(0.005, rel=0.3) and found.freedom == (20, 50)
    chance = [
        lack_of_fit.test(
            parametric.fit(CHINCHILLA, planted(CHINCHILLA, CHINCHILLA_LAW, values, 0.005, s), LOGS)
        ).p
        for s in range(20)
    ]
    assert stats.kstest(chance, "uniform").pvalue > 0.01
    wave = 1 + 0.01 * np.sin(2 * np.log(values["N"]) + np.log(values["D"]))
    wrong = parametric.fit(CHINCHILLA, fit_runs.of(values, right.loss_N * wave, UNITS), LOGS)
    assert lack_of_fit.test(wrong).lacks
    single = parametric.fit(CHINCHILLA, planted(CHINCHILLA, CHINCHILLA_LAW, SIZES_AND_DATA, 0.005), LOGS)
    assert lack_of_fit.test(single).p is None and "several seeds" in lack_of_fit.test(single).why
