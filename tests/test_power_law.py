"""Power laws and where they cross, from points whose exponents are known."""

import numpy as np
import pytest
from fabricated_runs import BUDGETS, law

from bltjax.science import crossing, power_law
from bltjax.science.noise import Noise


def test_two_parameter_fit_recovers_the_exponent_and_says_what_it_is():
    found = power_law.fit(BUDGETS, [law("bpe", c) for c in BUDGETS])
    assert found["alpha"] == pytest.approx(0.132, rel=1e-9) and found["A"] == pytest.approx(60, rel=1e-6)
    assert found["E"] == 0 and "E fixed at 0" in found["note"] and found["largest_residual"] < 1e-12


@pytest.mark.parametrize("truth", [(0.7, 300.0, 0.21), (1.2, 4e4, 0.4), (0.3, 30.0, 0.1)])
def test_three_parameter_fit_recovers_floor_and_exponent(truth):
    e, a, alpha = truth
    flops = np.geomspace(1e10, 1e16, 9)
    found = power_law.fit(flops, e + a * flops**-alpha)
    assert (found["E"], found["A"], found["alpha"]) == pytest.approx(truth, rel=2e-3)
    assert not found["note"]


def test_three_parameter_fit_shrugs_off_one_outlier():
    flops = np.geomspace(1e10, 1e16, 12)
    bpb = 0.7 + 300 * flops**-0.21
    bpb[5] *= 1.2
    # least squares would be off by far more
    assert power_law.fit(flops, bpb)["alpha"] == pytest.approx(0.21, rel=0.01)


def test_no_fit_below_three_budgets():
    assert power_law.fit([1e11, 1e12], [2.0, 1.8]) is None
    assert power_law.fit([1e11, 1e11, 1e12], [2.0, 2.1, 1.8]) is None


@pytest.mark.parametrize("points", [3, 6])
def test_interval_of_the_exponent_holds_the_truth_and_narrows_with_noise(points):
    flops = np.geomspace(1e11, 1e13, points)
    truth = 50 * flops**-0.13
    none = np.zeros((points, points))
    wide, narrow = (
        power_law.fit(flops, truth, Noise(np.full(points, 3.0), s**2, 6, none, 60)) for s in (1e-2, 1e-3)
    )
    for found in (wide, narrow):
        assert found["alpha_low"] < 0.13 + 1e-6 and found["alpha_high"] > 0.13 - 1e-6
    assert narrow["alpha_high"] - narrow["alpha_low"] < 0.5 * (wide["alpha_high"] - wide["alpha_low"])


def test_crossover_is_where_the_laws_meet_and_only_in_range():
    meet = (85 / 60) ** (1 / (0.145 - 0.132))  # about 4.4e11
    a, b = ([law(f, c) for c in BUDGETS] for f in ("blt-entropy", "bpe"))
    found = crossing.measured(BUDGETS, a, BUDGETS, b)
    assert found["flops"] == pytest.approx([meet], rel=1e-6)
    curves = [power_law.curve(power_law.fit(BUDGETS, bpb)) for bpb in (a, b)]
    assert crossing.of_curves(*curves, (BUDGETS[0], BUDGETS[-1])) == pytest.approx([meet], rel=1e-3)
    assert crossing.of_curves(*curves, None) == []
    below = [1e10, 2e10, 4e10]
    assert (
        crossing.measured(
            below, [law("blt-entropy", c) for c in below], below, [law("bpe", c) for c in below]
        )["flops"]
        == []
    )
    assert crossing.measured([1e10, 1e11], [3, 2], [2e11, 1e12], [2, 3])["flops"] == []  # no range in common


def test_crossover_share_and_interval():
    rng = np.random.default_rng(0)
    a, b = (np.array([law(f, c) for c in BUDGETS]) for f in ("blt-entropy", "bpe"))
    noise = lambda scale: np.exp(rng.normal(0, scale, (500, 3)))
    found = crossing.measured(BUDGETS, a, BUDGETS, b, a * noise(1e-3), b * noise(1e-3))
    assert found["share"] == 1 and found["low"] < found["flops"][0] < found["high"]
    assert crossing.measured(BUDGETS, a, BUDGETS, b, a * noise(0.05), b * noise(0.05))["share"] < 0.9
