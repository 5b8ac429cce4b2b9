"""Families that have joint laws L(N, D, T) are compared at their best patch sizes, and cross where the
planted laws do."""

import dataclasses

import numpy as np
import pytest
from planted_laws import grid

from bltjax.fits import analysis, between_families
from bltjax.fits.approaches import Settings
from bltjax.fits.source import Source
from bltjax.science import crossing, fit_runs, joint, parametric

LAW = np.array([1.0, 406.4, 410.7, 0.05, 0.34, 0.28, 0.8])  # E, A, B, F, alpha, beta, gamma
OTHER = LAW + np.array([0, 0, 370.0, 0, 0, 0.03, 0])  # worse with little data, better with much
PAIR = 30.0  # FLOPs per parameter and patch


def source(noise: float, seed: int = 0) -> Source:
    rng = np.random.default_rng(seed)
    cells = grid(N=np.geomspace(1e6, 1e9, 5), D=np.geomspace(1e8, 1e11, 5), T=np.array([1.5, 2, 3, 4.5]))
    losses = [parametric.predict(joint.POWERS, law, cells) for law in (LAW, OTHER)]
    values = {name: np.tile(column, 2) for name, column in cells.items()}
    loss = np.concatenate(losses) * np.exp(rng.normal(0, noise, 200))
    units = dict(N="parameters", D="bytes", T="bytes per patch", loss="bits per byte")
    groups = np.array(["bpe"] * 100 + ["blt"] * 100)
    flops = PAIR * values["N"] * values["D"] / values["T"]
    return Source("planted", fit_runs.of(values, loss, units), flops, "planted", groups=groups)


@pytest.mark.parametrize("law", [LAW, OTHER])
def test_the_best_patch_size_is_one_that_was_run(law):
    of_all = source(1e-6)
    mine = of_all.groups == ("bpe" if law is LAW else "blt")
    runs = of_all.runs.only(mine, "")
    found = analysis.methods(of_all, runs, Settings("squares", draws=20), [("N", "D", "T")])[0][0]
    patch = between_families.best_patch(found, PAIR, runs)
    flops = PAIR * np.exp(np.log(runs.values["N"] * runs.values["D"] / runs.values["T"]).mean())
    tried = np.array([1.5, 2, 3, 4.5])
    assert patch == pytest.approx(tried[joint.lowest(joint.POWERS, law, flops, tried, PAIR).argmin()])
    curve, drawn = between_families.curve(found, PAIR, patch)
    assert curve == pytest.approx(joint.frontier(joint.POWERS, law, patch, PAIR), rel=1e-2)
    assert drawn.shape == (20, 3)


def test_they_cross_where_the_planted_laws_do():
    held = 0
    for seed in range(3):
        result = analysis.analyse(source(0.002, seed), Settings("squares", draws=100))
        [one] = result["comparisons"]
        assert set(one["patches"]) == {"bpe", "blt"} and not one["why"]
        laws = (OTHER, one["patches"]["blt"]), (LAW, one["patches"]["bpe"])
        curves = [joint.frontier(joint.POWERS, law, patch, PAIR) for law, patch in laws]
        [true] = crossing.of_curves(*curves, one["range"])
        met = one["crossing"]
        assert met["low"] < met["flops"] < met["high"] < 3 * met["low"]
        held += met["low"] <= true <= met["high"]
    assert held >= 2
    assert any("at the patch sizes that are best" in said for said in result["findings"])


def test_families_of_one_design_are_drawn_apart():
    """Equal noise in equal designs would cancel: two families that have the same runs are equal only as well
    as the runs tell."""
    of_all = source(0.002)
    half = of_all.groups == "bpe"
    loss = np.tile(of_all.runs.loss_N[half], 2)
    same = dataclasses.replace(of_all, runs=dataclasses.replace(of_all.runs, loss_N=loss))
    [one] = analysis.analyse(same, Settings("squares", draws=100))["comparisons"]
    for at in one["gain"]:
        assert at["gain"] == pytest.approx(1.0) and at["low"] < 0.999 and at["high"] > 1.001
