"""Chinchilla's approach 1: which size has the lowest loss at each of many budgets, along the runs' own
curves, and power laws through those (Hoffmann et al. 2022, section 3.1).

Where the smallest or the largest size that was trained is the best one, a better one may lie outside; those
budgets are left out. Intervals: every size's curve, a cubic of log loss over log FLOPs, with noise of
the size that is left about all of them."""

import dataclasses

import numpy as np

from bltjax.science.identifiability import NotIdentified

POINTS = 1500
DRAWN_POINTS = 300  # of a drawn envelope
FEWEST = 3  # sizes on the envelope, without the smallest and the largest


@dataclasses.dataclass(frozen=True)
class Envelope:
    """flops_M, size_M, data_M, loss_M: the best at each budget. size, data: (coefficient, exponent) of their
    power laws in FLOPs. sizes: how many different ones are on the envelope. left_out: why, and how many."""

    flops_M: np.ndarray
    size_M: np.ndarray
    data_M: np.ndarray
    loss_M: np.ndarray
    size: tuple
    data: tuple
    sizes: int
    left_out: str


def fit(size_N, data_N, flops_N, loss_N, points: int = POINTS) -> Envelope:
    """Of points on training curves: those of one size are one curve, interpolated in logs and never beyond
    its ends. Runs whose learning rate had not ended lie above the curve of those that had: hand over ends."""
    size_N, data_N, flops_N, loss_N = (np.asarray(v, np.float64) for v in (size_N, data_N, flops_N, loss_N))
    at_M = np.linspace(np.log(flops_N.min()), np.log(flops_N.max()), points)
    sizes = np.unique(size_N)
    loss_SxM, data_SxM = np.full((2, len(sizes), points), np.inf)
    for row, size in enumerate(sizes):
        those = np.flatnonzero(size_N == size)
        those = those[np.argsort(flops_N[those], kind="stable")]
        x = np.log(flops_N[those])
        inside = (at_M >= x[0]) & (at_M <= x[-1])
        if len(np.unique(x)) > 1:
            loss_SxM[row, inside] = np.exp(np.interp(at_M[inside], x, np.log(loss_N[those])))
            data_SxM[row, inside] = np.exp(np.interp(at_M[inside], x, np.log(data_N[those])))
    curves = np.isfinite(loss_SxM)
    best_M = loss_SxM.argmin(0)
    there = np.flatnonzero(curves.any(1))
    if len(there) < FEWEST + 2:
        raise NotIdentified(f"{len(there)} sizes have curves; an envelope takes {FEWEST + 2}")
    first_M, last_M = curves.argmax(0), len(sizes) - 1 - curves[::-1].argmax(0)
    edge_M = (best_M == first_M) | (best_M == last_M) | (curves.sum(0) < 3)
    kept = np.flatnonzero(~edge_M)
    used = np.unique(best_M[kept])
    if len(used) < FEWEST:
        raise NotIdentified(
            f"{len(used)} sizes between the smallest and the largest are best anywhere; a power law takes"
            f" {FEWEST}"
        )
    at = at_M[kept]
    size_M, data_M = sizes[best_M[kept]], data_SxM[best_M[kept], kept]
    return Envelope(
        np.exp(at),
        size_M,
        data_M,
        loss_SxM[best_M[kept], kept],
        _law(at, size_M),
        _law(at, data_M),
        len(used),
        f"{edge_M.sum()} of {points} budgets, at which the smallest or the largest size run there is best"
        " or fewer than 3 sizes were run",
    )


def draws(size_N, data_N, flops_N, loss_N, count: int, seed: int = 0) -> np.ndarray:
    """[R, 2] exponents of size and data of losses that might have been, as isoflop.draws has them: curve plus
    noise, whose own uncertainty (chi-squared) the draws have too. nan where a draw has no envelope; all are
    where no run is left over to tell noise."""
    size_N, data_N, flops_N, loss_N = (np.asarray(v, np.float64) for v in (size_N, data_N, flops_N, loss_N))
    curve_N, freedom = np.log(loss_N), 0
    for size in np.unique(size_N):
        those = size_N == size
        x = np.log(flops_N[those])
        if (spare := len(np.unique(x)) - 4) > 0:
            curve_N[those] = np.polyval(np.polyfit(x - x.mean(), curve_N[those], 3), x - x.mean())
            freedom += spare
    found_Rx2 = np.full((count, 2), np.nan)
    if freedom < 1:
        return found_Rx2
    rng = np.random.default_rng(seed)
    left = np.square(np.log(loss_N) - curve_N).sum()
    for row, wide in enumerate(np.sqrt(left / rng.chisquare(freedom, count))):
        noisy_N = np.exp(curve_N + wide * rng.normal(size=len(loss_N)))
        try:
            drawn = fit(size_N, data_N, flops_N, noisy_N, DRAWN_POINTS)
        except NotIdentified:
            continue
        found_Rx2[row] = drawn.size[1], drawn.data[1]
    return found_Rx2


def _law(log_flops, values):
    centre = log_flops.mean()
    exponent, level = np.polyfit(log_flops - centre, np.log(values), 1)
    return float(np.exp(level - exponent * centre)), float(exponent)
