"""Fits of scaling laws find laws that were planted, say what runs cannot tell, and their intervals are those
of textbooks where textbooks have one. Published tables: test_published_runs; coverage: test_fit_coverage."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from scipy import optimize, stats

from bltjax.science import (
    allocation,
    crossing,
    effective_compute,
    envelope,
    fit_bootstrap,
    fit_runs,
    influence,
    isoflop,
    joint,
    lack_of_fit,
    logsumexp,
    parametric,
    profile_interval,
    variable_projection,
)
from bltjax.science.formula import CHINCHILLA, COMPUTE, Formula, Power, sum_of_powers
from bltjax.science.identifiability import NotIdentified
from bltjax.science.objectives import NAMES, Objective

CHINCHILLA_LAW = np.array([1.69, 406.4, 410.7, 0.34, 0.28])  # E, A, B, alpha, beta: Hoffmann et al. 2022
LOGS = Objective("log_least_squares")


def grid(**axes) -> dict:
    """{variable: [N]}: all combinations."""
    return {name: axis.ravel() for name, axis in zip(axes, np.meshgrid(*axes.values(), indexing="ij"))}


SIZES_AND_DATA = grid(N=np.geomspace(1e7, 1e9, 5), D=np.geomspace(2e8, 2e10, 5))
UNITS = dict(N="parameters", D="tokens", C="FLOPs", T="bytes per patch", loss="nats per token")


def planted(formula, law, values, noise=0.0, seed=0) -> fit_runs.Runs:
    rng = np.random.default_rng(seed)
    loss = parametric.predict(formula, np.asarray(law, np.float64), values)
    loss = loss * np.exp(rng.normal(0, noise, loss.shape) if noise else 0.0)
    return fit_runs.of(values, loss, {name: UNITS.get(name, "ones") for name in (*values, "loss")})


FOUR = sum_of_powers("NDWV")
LAWS = {
    "compute": (COMPUTE, [1.7, 1.7e3, 0.17], dict(C=np.geomspace(1e17, 1e22, 8))),
    "chinchilla": (CHINCHILLA, CHINCHILLA_LAW, SIZES_AND_DATA),
    "four variables": (
        FOUR,
        [1.0, 400.0, 400.0, 3.0, 20.0, 0.34, 0.28, 0.5, 0.7],
        grid(
            N=np.geomspace(1e7, 1e9, 4),
            D=np.geomspace(2e8, 2e10, 4),
            W=np.geomspace(2, 60, 4),
            V=np.geomspace(500, 1e5, 4),
        ),
    ),
    "joint": (
        joint.POWERS,
        [1.0, 406.4, 410.7, 0.05, 0.34, 0.28, 0.8],
        grid(N=np.geomspace(1e7, 1e9, 4), D=np.geomspace(2e8, 2e10, 4), T=np.array([2, 3, 4.5, 6, 8.0])),
    ),
    "joint, log square": (
        joint.LOG_SQUARE,
        [1.0, 406.4, 410.7, 0.05, 0.34, 0.28, np.log(3.0)],
        grid(N=np.geomspace(1e7, 1e9, 4), D=np.geomspace(2e8, 2e10, 4), T=np.array([2, 3, 4.5, 6, 8.0])),
    ),
    "law two": (
        joint.LAW_TWO,
        [0.6, 4e3, 0.05, 0.206, np.log(18.2), 0.035],
        grid(C=np.geomspace(5e18, 2e21, 6), T=np.array([1, 2, 3, 4.5, 6, 8, 12.0])),
    ),
}


@pytest.mark.parametrize("objective", NAMES)
@pytest.mark.parametrize("name", LAWS)
def test_a_planted_law_is_found(name, objective):
    formula, law, values = LAWS[name]
    fit = parametric.fit(formula, planted(formula, law, values), Objective(objective))
    assert not fit.not_identified
    assert fit.parameters_Q == pytest.approx(np.array(law), rel=2e-3)
    assert fit.predict(**values) == pytest.approx(fit.runs.loss_N, rel=1e-5)


@pytest.mark.parametrize("name", LAWS)
def test_slopes_are_derivatives_and_units_move_nothing(name):
    formula, law, values = LAWS[name]
    found = planted(formula, law, values)
    fit = parametric.fit(formula, found, LOGS)
    logs, at = found.logs(found.centres), fit.at_centre_Q
    _, slopes_QxN = formula.jacobian(logs, at)
    for q, slope_N in enumerate(slopes_QxN):
        step = np.zeros(len(at))
        step[q] = 1e-6
        change = (formula.values(logs, at + step) - formula.values(logs, at - step)) / 2e-6
        assert slope_N == pytest.approx(change, abs=1e-7 * (1 + np.abs(change).max()))
    assert formula.values(logs, at) == pytest.approx(fit.predict(**values), rel=1e-10)


def test_the_unit_of_a_variable_moves_its_coefficient_alone():
    noisy = planted(CHINCHILLA, CHINCHILLA_LAW, SIZES_AND_DATA, noise=0.005)
    fit = parametric.fit(CHINCHILLA, noisy)
    thousands = dict(noisy.values, D=noisy.values["D"] / 1e3)
    other = parametric.fit(CHINCHILLA, fit_runs.of(thousands, noisy.loss_N, UNITS | {"D": "thousand tokens"}))
    for name in ("E", "A", "alpha", "beta"):
        assert other.parameters[name] == pytest.approx(fit.parameters[name], rel=1e-6)
    assert other.parameters["B"] * 1e3 ** fit.parameters["beta"] == pytest.approx(
        fit.parameters["B"], rel=1e-5
    )
    assert "D in thousand tokens" in str(other) and "Huber" in str(other) and "delta 0.001" in str(other)


def test_a_fit_of_noise_is_where_its_objective_is_lowest():
    noisy = planted(CHINCHILLA, CHINCHILLA_LAW, SIZES_AND_DATA, noise=0.005)
    ones = np.ones(len(noisy))
    for objective in map(Objective, NAMES):
        fit = parametric.fit(CHINCHILLA, noisy, objective)
        value = lambda p: objective.value(
            objective.residuals(parametric.predict(CHINCHILLA, p, noisy.values), noisy.loss_N), ones
        )
        assert value(fit.parameters_Q) == pytest.approx(fit.value, rel=1e-6)
        rng = np.random.default_rng(0)
        for scale in (1e-4, 1e-3, 1e-2):
            for _ in range(50):
                near = fit.at_centre_Q * np.exp(rng.normal(0, scale, 5))
                assert value(CHINCHILLA.in_units(near, fit.centres)) >= fit.value - 1e-9 * abs(fit.value)


def test_coefficients_that_may_not_be_negative():
    rng = np.random.default_rng(0)
    zeros = 0
    for _ in range(60):
        columns, data = rng.uniform(size=(12, 4)), rng.normal(size=12)
        found, taken = variable_projection.non_negative(columns.T @ columns, columns.T @ data)
        right, left = optimize.nnls(columns, data)
        assert found == pytest.approx(right, abs=1e-7)
        assert data @ data - taken == pytest.approx(left**2, abs=1e-7)
        zeros += (found == 0).any()
    assert zeros > 20


def test_the_second_opinion_agrees_and_says_where_it_does_not():
    noisy = planted(CHINCHILLA, CHINCHILLA_LAW, SIZES_AND_DATA, noise=0.005)
    for objective in (Objective(), LOGS, Objective("least_squares")):
        fit = parametric.fit(CHINCHILLA, noisy, objective)
        opinion = logsumexp.fit(CHINCHILLA, noisy, objective, starts=4)
        assert opinion.value == pytest.approx(fit.value, rel=1e-5)
        assert not logsumexp.disagreement(fit, opinion)
    moved = fit.at_centre_Q * np.array([1, 1, 1, 1.2, 1])
    off = dataclasses.replace(fit, at_centre_Q=moved, value=2 * fit.value)
    said = logsumexp.disagreement(off, opinion)
    assert "alpha" in said and "log-sum-exp has the lower objective" in said


# What runs cannot tell


def test_runs_on_one_line_are_refused_and_off_it_are_not():
    size = np.geomspace(1e7, 1e9, 12)
    line = dict(N=size, D=20 * size)
    with pytest.raises(NotIdentified, match=r"one line.*cannot tell"):
        parametric.fit(CHINCHILLA, planted(CHINCHILLA, CHINCHILLA_LAW, line, noise=0.005))
    bent = dict(N=size, D=20 * size * np.tile([1, 1, 4], 4))
    parametric.fit(CHINCHILLA, planted(CHINCHILLA, CHINCHILLA_LAW, bent, noise=0.005))


def test_too_few_runs_or_values_are_refused():
    few = {name: values[:5] for name, values in LAWS["chinchilla"][2].items()}
    with pytest.raises(NotIdentified, match="5 different runs cannot tell the 5 parameters"):
        parametric.fit(CHINCHILLA, planted(CHINCHILLA, CHINCHILLA_LAW, few))
    two = grid(N=np.array([1e8, 1e9]), D=np.geomspace(1e9, 1e11, 6))
    with pytest.raises(NotIdentified, match="N has 2 values"):
        parametric.fit(CHINCHILLA, planted(CHINCHILLA, CHINCHILLA_LAW, two))
    seeds = {name: np.repeat(values, 4) for name, values in few.items()}
    with pytest.raises(NotIdentified, match="5 different runs"):
        parametric.fit(CHINCHILLA, planted(CHINCHILLA, CHINCHILLA_LAW, seeds, noise=0.005))


def test_an_e_that_is_driven_to_zero_is_said_and_not_printed():
    law = CHINCHILLA_LAW * [0, 1, 1, 1, 1]
    shifted = planted(CHINCHILLA, law, SIZES_AND_DATA)
    below = fit_runs.of(SIZES_AND_DATA, shifted.loss_N - 0.02, UNITS)  # as if E were -0.02
    fit = parametric.fit(CHINCHILLA, below)
    assert fit.parameters["E"] is None
    assert fit.not_identified["E"].startswith("E is not identified by these runs")
    assert "E not identified" in str(fit)
    assert parametric.fit(CHINCHILLA, planted(CHINCHILLA, CHINCHILLA_LAW, SIZES_AND_DATA)).parameters["E"]


def test_runs_say_what_was_dropped_and_units_must_be_named():
    loss = np.array([3.0, np.nan, 2.0, 9.0, -1.0])
    found = fit_runs.of(dict(C=np.array([1.0, 2, 3, 4, 5])), loss, UNITS)
    assert list(found.rows_N) == [0, 2, 3] and [row for row, _ in found.dropped] == [1, 4]
    less = found.without_highest(1)
    assert list(less.rows_N) == [0, 2] and less.dropped[-1] == (3, "among the 1 highest losses")
    with pytest.raises(ValueError, match="no unit given for C"):
        fit_runs.of(dict(C=loss), loss, dict(loss="nats"))


def test_influential_runs_are_named():
    clean = planted(CHINCHILLA, CHINCHILLA_LAW, SIZES_AND_DATA, noise=0.003)
    assert not [
        w
        for w in influence.leave_one_out(parametric.fit(CHINCHILLA, clean, LOGS)).warnings()
        if "run 12 " in w
    ]
    loss = clean.loss_N.copy()
    loss[20] *= 1.05  # the largest size, the least data
    fit = parametric.fit(CHINCHILLA, fit_runs.of(clean.values, loss, UNITS), LOGS)
    assert influence.leave_one_out(fit).warnings()[0].startswith("run 20 is influential: without it")


def test_extrapolation_is_said():
    fit = parametric.fit(CHINCHILLA, planted(CHINCHILLA, CHINCHILLA_LAW, SIZES_AND_DATA))
    assert fit.extrapolates(N=5e9, D=1e10) == "N is 5 times outside the runs"
    assert not fit.extrapolates(N=1e8, D=1e10)


# Approaches 1 and 2

SURFACES = {
    "symmetric": np.array([1.69, 400, 400, 0.31, 0.31]),
    "Chinchilla": np.array([1.69, 406.4, 410.7, 0.34, 0.28]),
    "asymmetric": np.array([1.69, 400, 400, 0.465, 0.155]),
}
BIAS = """
symmetric  | optimum | 0 0 0 0
symmetric  | 3x      | +3.9742 +3.4718 +2.6452 +1.5098
symmetric  | drift   | +6.0710 +5.1712 +3.6979 +1.6891
Chinchilla | optimum | -0.3269 -1.3011 -2.9029 -5.1002
Chinchilla | 3x      | +7.1101 +5.6909 +3.3761 +0.2379
Chinchilla | drift   | +11.6143 +9.8316 +6.9391 +3.0476
asymmetric | optimum | -1.6747 -6.4978 -13.9104 -23.1163
asymmetric | drift   | +34.5746 +30.0384 +22.9687 +13.9970
"""
CENTRES = {"optimum": np.ones(5), "3x": np.full(5, 3.0), "drift": np.geomspace(1, 3, 5)}


def isoflops(surface, too_small, within):
    """(FLOPs, N, D, loss) of 5 budgets of 15 sizes, about N* over a factor."""
    budgets = np.geomspace(1e17, 1e21, 5)
    centre, _ = allocation.best(CHINCHILLA, SURFACES[surface], budgets)
    n = np.concatenate([isoflop.grid(c, within, 15) for c in centre / CENTRES[too_small]])
    flops = np.repeat(budgets, 15)
    d = flops / 6 / n
    return flops, n, d, parametric.predict(CHINCHILLA, SURFACES[surface], dict(N=n, D=d))


@pytest.mark.parametrize("line", BIAS.strip().splitlines())
def test_the_bias_of_approach_2(line):
    surface, too_small, printed = (part.strip() for part in line.split("|"))
    _, true = allocation.best(CHINCHILLA, SURFACES[surface], 1e24)
    for within, percent in zip((2, 4, 8, 16), printed.split()):
        flops, _, d, loss = isoflops(surface, too_small, within)
        found = isoflop.fit(flops, d, loss, "D", "tokens", outside=np.inf)
        assert 100 * (found.at(1e24) / true - 1) == pytest.approx(float(percent), abs=5.1e-5)
        if too_small != "drift":  # exponents are exact then
            _, b = allocation.exponents(CHINCHILLA, SURFACES[surface])
            assert found.exponent == pytest.approx(b, abs=1e-6)


def test_true_optima():
    for surface, printed in (("symmetric", 4.0825e11), ("Chinchilla", 4.0358e12)):
        assert allocation.best(CHINCHILLA, SURFACES[surface], 1e24)[1] == pytest.approx(printed, rel=2e-5)


def test_a_lowest_point_at_the_edge_is_refused():
    flops, n, _, loss = isoflops("Chinchilla", "3x", 2)
    with pytest.raises(NotIdentified, match="at the edge of what was run"):
        isoflop.fit(flops, n, loss, "N", "parameters")
    flops, n, _, loss = isoflops("Chinchilla", "drift", 2)  # the later budgets are off by more than 2
    found = isoflop.fit(flops, n, loss, "N", "parameters")
    assert 0 < len(found.refused) < 5 and all(np.isnan(minimum.x) for minimum in found.refused)
    assert any(said.startswith("left out") for said in found.warnings)


def test_grids_off_centre_and_drifting_are_said():
    said = {}
    for too_small in CENTRES:
        flops, n, _, loss = isoflops("Chinchilla", too_small, 8)
        said[too_small] = " ".join(isoflop.fit(flops, n, loss, "N", "parameters").warnings)
    assert not said["optimum"]
    assert "off-centre" in said["3x"] and "drifting" not in said["3x"]
    assert "drifting" in said["drift"]


def test_spent_flops_are_sorted_into_budgets():
    spent = np.array([1.0e18, 9.8e17, 1.03e18, 3.1e18, 2.95e18, 1e19])
    assert list(isoflop.budgets(spent) == isoflop.budgets(spent)[0]) == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]
    assert len(set(isoflop.budgets(spent))) == 3


def test_the_envelope_has_the_exponents():
    values = grid(N=np.geomspace(1e7, 1e11, 60), D=np.geomspace(1e8, 1e13, 120))
    n, d = values["N"], values["D"]
    loss = parametric.predict(CHINCHILLA, CHINCHILLA_LAW, values)
    found = envelope.fit(n, d, 6 * n * d, loss)
    a, b = allocation.exponents(CHINCHILLA, CHINCHILLA_LAW)
    assert found.size[1] == pytest.approx(a, abs=0.01) and found.data[1] == pytest.approx(b, abs=0.01)
    right = allocation.best(CHINCHILLA, CHINCHILLA_LAW, 1e20)[0]
    assert found.size[0] * 1e20 ** found.size[1] == pytest.approx(right, rel=0.05)
    few = n <= np.unique(n)[3]
    with pytest.raises(NotIdentified):
        envelope.fit(n[few], d[few], 6 * n[few] * d[few], loss[few])


# Intervals and what is read off fits


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
    assert none.flops is None and none.share == 0 and none.says.startswith("none in range")


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


# The joint law


def test_laws_one_and_two_follow_from_the_joint_law():
    formula, law, _ = LAWS["joint"]
    law = np.array(law)
    pairs = grid(C=np.geomspace(5e18, 2e21, 6), T=np.array([1, 2, 4, 6, 8, 12.0]))
    n, d = joint.best(formula, law, pairs["C"], pairs["T"])
    assert 6 * n * d / pairs["T"] == pytest.approx(pairs["C"])
    one = joint.law_one(pairs["C"], pairs["T"], d)
    b = 0.34 / (0.34 + 0.28)
    assert (one.c, one.t) == pytest.approx((b, b)) and one.at(1e20, 4.0) == pytest.approx(
        joint.best(formula, law, 1e20, 4.0)[1]
    )
    best = [joint.best_patch(formula, law, flops) for flops in (1e18, 1e20, 1e22)]
    assert best[0] > best[1] > best[2] > 1
    lowest = joint.lowest(formula, law, 1e20, best[1])
    for patch in (best[1] * 0.9, best[1] * 1.1):
        n, d = joint.best(formula, law, 1e20, patch)
        assert parametric.predict(formula, law, dict(N=n, D=d, T=patch)) > lowest
    with pytest.raises(NotIdentified):
        joint.law_one(pairs["C"], pairs["C"] ** 0.1, d)


def test_held_out_budgets_choose_between_the_joint_and_the_separate_laws():
    formula, law, _ = LAWS["joint"]
    cells = grid(
        C=np.geomspace(1e18, 1e21, 4), ratio=np.geomspace(5, 500, 5), T=np.array([2, 3, 4.5, 6, 8.0])
    )
    n = np.sqrt(cells["C"] * cells["T"] / 6 / cells["ratio"])
    values = dict(N=n, D=n * cells["ratio"], T=cells["T"])
    found = joint.held_out(planted(formula, law, values, noise=0.005), cells["C"], LOGS)
    assert found.runs == 25 and set(found.errors) == {"joint, powers", "joint, log square", "separate"}
    assert found.errors["joint, powers"] < found.errors["separate"] and found.trusts.startswith("joint")
    assert found.errors["joint, powers"] == pytest.approx(0.005, rel=0.5)


def test_fits_need_no_jax():
    code = "import sys; from bltjax.science import effective_compute, joint; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
