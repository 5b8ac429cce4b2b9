"""Fits of scaling laws find laws that were planted, say what runs cannot tell, and their intervals are those
of textbooks where textbooks have one. Published tables: test_published_runs; coverage: test_fit_coverage."""

import dataclasses
import subprocess
import sys
import time

import numpy as np
import pytest
from planted_laws import CHINCHILLA_LAW, LAWS, LOGS, SIZES_AND_DATA, UNITS, grid, planted
from scipy import optimize

from bltjax.science import fit_runs, influence, joint, logsumexp, parametric, variable_projection
from bltjax.science.formula import CHINCHILLA
from bltjax.science.identifiability import NotIdentified
from bltjax.science.objectives import NAMES, Objective


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


def test_a_second_opinion_of_many_runs_takes_less_than_the_first_did():
    """SciPy's L-BFGS took minutes for 24 starts, since it solved small systems on all threads."""
    values = grid(N=np.geomspace(1e4, 1e5, 3), D=np.geomspace(1e6, 1e8, 4), T=np.array([2, 4, 8.0]))
    noisy = planted(joint.POWERS, LAWS["joint"][1], values, noise=0.01)
    fit = parametric.fit(joint.POWERS, noisy)
    begun = time.process_time()
    opinion = logsumexp.fit(joint.POWERS, noisy, starts=24)
    assert time.process_time() - begun < 20
    assert opinion.starts == 24 and opinion.agreeing > 1 and opinion.value <= fit.value * (1 + 1e-6)
    assert fit.value <= opinion.value * (1 + 1e-6)


# What runs cannot tell


def test_a_steep_term_is_no_zero_where_it_is_small_at_the_centre_alone():
    """A/N^2.5 is a thousandth of the loss at the centre and a tenth at the smallest size."""
    law = [1.0, 1e-3 * 1e6**2.5, 400.0, 2.5, 0.3]
    values = grid(N=np.geomspace(1e5, 1e7, 7), D=np.geomspace(1e9, 1e11, 5))
    fit = parametric.fit(CHINCHILLA, planted(CHINCHILLA, law, values))
    assert not fit.not_identified and fit.parameters["alpha"] == pytest.approx(2.5, rel=1e-3)


def test_a_coefficient_is_not_identified_where_its_exponent_is_not():
    law = [1.0, 1e-3 * 1e6**4, 400.0, 4.0, 0.3]  # steeper than what is looked at
    values = grid(N=np.geomspace(3e5, 3e6, 7), D=np.geomspace(1e9, 1e11, 5))
    fit = parametric.fit(CHINCHILLA, planted(CHINCHILLA, law, values))
    assert set(fit.not_identified) == {"A", "alpha"} and "highest" in fit.not_identified["alpha"]
    assert fit.parameters["A"] is None and fit.parameters["B"] is not None


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


def test_fits_need_no_jax():
    code = "import sys; from bltjax.science import effective_compute, joint; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
