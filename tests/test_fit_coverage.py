"""Intervals of 95% hold the truth in about as many draws: planted laws, 0.5% noise between runs, 400 draws of
each. Of 400, an interval that holds in 95% is between 90 and 99% with near certainty."""

import functools

import numpy as np
import pytest

from bltjax.science import (
    allocation,
    crossing,
    fit_bootstrap,
    fit_runs,
    isoflop,
    joint,
    parametric,
    profile_interval,
)
from bltjax.science.formula import CHINCHILLA, COMPUTE
from bltjax.science.objectives import Objective

pytestmark = pytest.mark.slow
DRAWS, RESAMPLES, NOISE = 400, 99, 0.005
LOGS = Objective("log_least_squares")
UNITS = dict(N="parameters", D="tokens", C="FLOPs", T="bytes per patch", loss="nats per token")


def grid(**axes) -> dict:
    return {name: axis.ravel() for name, axis in zip(axes, np.meshgrid(*axes.values(), indexing="ij"))}


def fitted(formula, law, values, rng, objective=LOGS):
    loss = parametric.predict(formula, law, values)
    noisy = loss * np.exp(rng.normal(0, NOISE, loss.shape))
    return parametric.fit(formula, fit_runs.of(values, noisy, UNITS), objective)


def held(formula, law, values, quantities: dict, profiles=(), objective=LOGS) -> dict:
    """{quantity: share of draws whose interval holds the truth}. quantities: {name: function of
    parameters}."""
    rng = np.random.default_rng(0)
    count = dict.fromkeys([*quantities, *(f"profile of {name}" for name in profiles)], 0)
    for draw in range(DRAWS):
        fit = fitted(formula, law, values, rng, objective)
        drawn = fit_bootstrap.draws(fit, RESAMPLES, seed=draw)
        assert drawn.way == "noise"
        for name, quantity in quantities.items():
            count[name] += fit_bootstrap.interval(quantity(drawn.parameters_RxQ)).holds(quantity(law))
        for name in profiles:
            truth = law[formula.names.index(name)]
            count[f"profile of {name}"] += profile_interval.interval(fit, name).holds(truth)
    return {name: number / DRAWS for name, number in count.items()}


def parameter(formula, name):
    return lambda parameters: parameters[..., formula.names.index(name)]


def right(shares: dict):
    print(shares)
    assert all(0.90 <= share <= 0.99 for share in shares.values()), shares


LAW = np.array([1.69, 406.4, 410.7, 0.34, 0.28])


def isoflops(budgets, factors, seeds: int) -> dict:
    """Sizes about 20 tokens a parameter at each budget, every run `seeds` times."""
    budget, factor, _ = np.meshgrid(budgets, factors, range(seeds), indexing="ij")
    n = np.sqrt(budget / 120) * factor
    return dict(N=n.ravel(), D=(budget / 6 / n).ravel())


@pytest.mark.parametrize("design", ["grid", "IsoFLOPs of three seeds"])
def test_approach_3(design):
    quantities = {name: parameter(CHINCHILLA, name) for name in CHINCHILLA.names}
    quantities |= {
        "a": lambda p: allocation.exponents(CHINCHILLA, p)[0],
        "tokens per parameter": lambda p: allocation.ratio(CHINCHILLA, p, 1e21),
        "prediction": lambda p: parametric.predict(CHINCHILLA, p, dict(N=3e9, D=6e10)),
    }
    if design == "grid":
        values = grid(N=np.geomspace(1e7, 1e9, 5), D=np.geomspace(2e8, 2e10, 5))
    else:
        values = isoflops(np.geomspace(1e17, 1e20, 4), 2.0 ** np.arange(-2, 3), 3)
    right(held(CHINCHILLA, LAW, values, quantities, objective=Objective()))


def test_approach_2():
    """The truth is what approach 2 finds without noise: its bias is of another kind, and known."""
    budgets = np.geomspace(1e17, 1e20, 4)
    values = isoflops(budgets, 2.0 ** np.arange(-2, 3), 3)
    flops, loss = np.repeat(budgets, 15), parametric.predict(CHINCHILLA, LAW, values)
    fit = functools.partial(isoflop.fit, flops, values["N"], variable="N", unit="parameters", outside=np.inf)
    truth, rng = fit(loss), np.random.default_rng(0)
    count = dict.fromkeys(["exponent", "best size at 1e22", *(f"best size at {c:g}" for c in budgets)], 0)
    for draw in range(DRAWS):
        noisy = loss * np.exp(rng.normal(0, NOISE, loss.shape))
        found = fit(noisy)
        coefficient_R, exponent_R, lowest_RxB = isoflop.draws(
            found, flops, values["N"], noisy, RESAMPLES, seed=draw
        )
        count["exponent"] += fit_bootstrap.interval(exponent_R).holds(truth.exponent)
        far_R = coefficient_R * 1e22**exponent_R
        count["best size at 1e22"] += fit_bootstrap.interval(far_R).holds(truth.at(1e22))
        for minimum, lowest_R in zip(truth.minima, lowest_RxB.T):
            count[f"best size at {minimum.flops:g}"] += fit_bootstrap.interval(lowest_R).holds(minimum.x)
    right({name: number / DRAWS for name, number in count.items()})


def test_the_joint_law():
    law = np.array([1.0, 406.4, 410.7, 0.05, 0.34, 0.28, 0.8])
    values = grid(N=np.geomspace(1e7, 1e9, 4), D=np.geomspace(2e8, 2e10, 4), T=np.array([2, 3, 4.5, 6, 8.0]))
    quantities = {name: parameter(joint.POWERS, name) for name in joint.POWERS.names}
    quantities["best patch"] = lambda p: joint.best_patch(joint.POWERS, p, 1e20)
    right(held(joint.POWERS, law, values, quantities))


def test_a_law_of_compute_from_six_points():
    law = np.array([1.7, 1.7e3, 0.17])
    quantities = {name: parameter(COMPUTE, name) for name in COMPUTE.names}
    quantities["prediction"] = lambda p: parametric.predict(COMPUTE, p, dict(C=1e23))
    right(held(COMPUTE, law, dict(C=np.geomspace(1e17, 1e22, 6)), quantities, profiles=("alpha",)))


def test_the_crossing_point():
    family, baseline = np.array([1.5, 2.4e3, 0.17]), np.array([1.6, 1.1e3, 0.155])
    span, rng = (1e17, 1e22), np.random.default_rng(0)
    apart = functools.partial(crossing.of_draws, span=span)
    none = np.zeros((1, 3))
    truth = apart(family, baseline, none + family, none + baseline).flops
    assert truth is not None
    values, count = dict(C=np.geomspace(*span, 8)), 0
    for draw in range(DRAWS):
        fits = [fitted(COMPUTE, law, values, rng) for law in (family, baseline)]
        drawn = [
            fit_bootstrap.draws(fit, RESAMPLES, seed=2 * draw + k).parameters_RxQ
            for k, fit in enumerate(fits)
        ]
        count += apart(*(fit.parameters_Q for fit in fits), *drawn).holds(truth)
    right({"crossing": count / DRAWS})
