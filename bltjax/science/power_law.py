"""A power law of compute, test bits per byte over the training FLOPs of one series, with the interval of its
exponent. From five budgets on it has a floor E; below, E cannot be told from a small alpha."""

import numpy as np

from bltjax.science import fit_runs, parametric, profile_interval
from bltjax.science.formula import COMPUTE, Formula
from bltjax.science.noise import Noise
from bltjax.science.objectives import Objective

FLOOR_FROM = 5  # points
LINE = Formula(COMPUTE.terms, constant=False)
NO_FREEDOM = "as many points as parameters and one seed each: nothing tells noise from the law"
UNITS = dict(C="training FLOPs", loss="test bits per byte")


def fit(flops, bpb, noise: Noise | None = None) -> dict | None:
    """Fit of bpb = E + A·C^-alpha to one point per budget; None below 3 points.

    flops, bpb: [N]. noise: of the points, for the interval of alpha. 3 or 4 points: E = 0, and least squares
    of logs; from 5 on all three parameters, by the sum of Huber losses (delta 1e-3), alpha looked for on a
    grid over all of its range. Returns {"form", "E", "A", "alpha", "alpha_low", "alpha_high" (an end that the
    points do not bound is None), "alpha_if" (what the interval takes for granted), "freedom" (degrees of
    freedom of the runs' noise; None without an interval), "no_interval" (why there is none), "points",
    "low_flops", "high_flops", "largest_residual" (relative), "note"}."""
    flops, bpb = np.asarray(flops, np.float64), np.asarray(bpb, np.float64)
    if len(np.unique(flops)) < 3:
        return None
    floor = len(np.unique(flops)) >= FLOOR_FROM
    runs, objective = fit_runs.of(dict(C=flops), bpb, UNITS), Objective()
    weights_N = None
    if not floor:
        objective, weights_N = Objective("log_least_squares"), noise.seeds_N if noise else None
    found = parametric.fit(COMPUTE if floor else LINE, runs, objective, weights_N)
    *e, a, alpha = (float(value) for value in found.parameters_Q)
    notes = list(found.not_identified.values())
    if floor:
        if "E" in found.not_identified:
            notes = ["the best E is 0: these budgets do not show a floor", *notes[1:]]
    else:
        notes.append(
            f"{len(flops)} points, too few to fit E (it takes {FLOOR_FROM}): E fixed at 0; not to be"
            " extrapolated"
        )
    out = dict(
        points=len(flops),
        low_flops=float(flops.min()),
        high_flops=float(flops.max()),
        form="E + A·C^-alpha" if floor else "A·C^-alpha",
        E=e[0] if floor and "E" not in found.not_identified else 0.0,
        A=a,
        alpha=alpha,
        alpha_if="" if floor else "E is 0",
        note="; ".join(notes),
        alpha_low=None,
        alpha_high=None,
        freedom=None,
        no_interval="",
    )
    if noise is not None:
        interval = profile_interval.interval(found, "alpha", noise=noise)
        if interval is None:
            out["no_interval"] = NO_FREEDOM
        else:
            freedom = noise.freedom + len(flops) - len(found.formula.names)
            out.update(alpha_low=interval.low, alpha_high=interval.high, freedom=freedom)
    out["largest_residual"] = float(np.abs(predict(out, flops) / bpb - 1).max())
    return out


def curve(fitted: dict) -> np.ndarray:
    """(E, A, alpha)."""
    return np.array([fitted["E"], fitted["A"], fitted["alpha"]])


def predict(fitted: dict, flops):
    """bpb of the fit at given FLOPs."""
    return parametric.predict(COMPUTE, curve(fitted), dict(C=flops))
