"""Chinchilla's approaches 1 and 2: the published bias, lowest points at an edge, envelopes."""

import numpy as np
import pytest
from planted_laws import CHINCHILLA_LAW, grid

from bltjax.science import allocation, envelope, fit_bootstrap, isoflop, parametric
from bltjax.science.formula import CHINCHILLA
from bltjax.science.identifiability import NotIdentified

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


def test_the_envelope_s_interval_holds_the_planted_exponent():
    n, d = np.repeat(np.geomspace(1e7, 1e10, 12), 10), np.tile(np.geomspace(3e8, 3e12, 10), 12)
    spent = 6 * n * d
    kept = (spent > 1e18) & (spent < 3e22)
    n, d, spent = n[kept], d[kept], spent[kept]
    clean = parametric.predict(CHINCHILLA, CHINCHILLA_LAW, dict(N=n, D=d))
    planted = allocation.exponents(CHINCHILLA, CHINCHILLA_LAW)
    held = 0
    for seed in range(20):
        noisy = clean * np.exp(np.random.default_rng(seed).normal(0, 0.005, len(n)))
        drawn_Rx2 = envelope.draws(n, d, spent, noisy, 60, seed)
        for drawn_R, truth in zip(drawn_Rx2.T, planted):
            found = fit_bootstrap.interval(drawn_R)
            held += found.low <= truth <= found.high
            assert 0.03 < found.high - found.low < 0.3
    assert held >= 36  # of 40
    three = np.isin(d, np.unique(d)[:3])  # of each size: a cubic leaves nothing to tell noise by
    assert np.isnan(envelope.draws(n[three], d[three], spent[three], clean[three], 5)).all()
