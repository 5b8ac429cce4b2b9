"""Chinchilla's approach 2: at each budget a parabola of loss in the log of size (and of data), its lowest
point, and a power law of those points over the budgets (Hoffmann et al. 2022, section 3.2).

A parabola is not the shape of an IsoFLOP: the lowest point is off, by more the wider the grid and the farther
its centre is from the optimum, and extrapolation multiplies it where the grid drifts. So a lowest point at
the edge of what was run is refused, and grids that are off centre or drift are said."""

import dataclasses

import numpy as np

from bltjax.science.identifiability import NotIdentified

FEWEST = 4  # runs of a budget: three make any parabola
OFF_CENTRE = 1.5  # factor between the middle of a grid and the lowest point
DRIFT = 1.5  # factor by which that changes from the smallest budget to the largest


@dataclasses.dataclass(frozen=True)
class Minimum:
    """The lowest point of one budget's parabola. x: its place, in the variable's unit; loss there; curvature
    by log10 x; off: middle of the grid (of logs) over x. why: it is refused; x is nan then."""

    flops: float
    x: float
    loss: float
    curvature: float
    off: float
    runs: int
    why: str = ""


@dataclasses.dataclass(frozen=True)
class Allocation:
    """x* = coefficient · C^exponent: the best size (or data, or whatever was varied) at a budget."""

    variable: str
    unit: str
    coefficient: float
    exponent: float
    minima: tuple
    warnings: tuple

    @property
    def refused(self) -> tuple:
        return tuple(minimum for minimum in self.minima if minimum.why)

    def at(self, flops):
        return self.coefficient * np.asarray(flops, np.float64) ** self.exponent


def minimum(flops: float, x_N, loss_N, outside: float = 1.0) -> Minimum:
    """Of one budget's runs. outside: a lowest point that is outside what was run by no more than this factor
    counts all the same; 1: none does."""
    x_N, loss_N = np.asarray(x_N, np.float64), np.asarray(loss_N, np.float64)
    refused = lambda why: Minimum(
        flops, np.nan, np.nan, np.nan, np.nan, len(x_N), f"{flops:.3g} FLOPs: {why}"
    )
    if len(np.unique(x_N)) < FEWEST:
        return refused(f"{len(np.unique(x_N))} different runs; a parabola and a residual take {FEWEST}")
    log_N = np.log10(x_N)
    centre = log_N.mean()
    square, slope, level = np.polyfit(log_N - centre, loss_N, 2)
    if square <= 0:
        return refused("loss has no lowest point there: the parabola opens downwards")
    at = -slope / (2 * square)
    best = float(10 ** (centre + at))
    air = np.log10(outside)
    if not log_N.min() - air < centre + at < log_N.max() + air:
        return refused(f"the lowest point, {best:.3g}, is at the edge of what was run or outside it")
    off = float(10 ** ((log_N.min() + log_N.max()) / 2 - centre - at))
    return Minimum(flops, best, float(level + square * at**2 + slope * at), float(square), off, len(x_N))


def budgets(flops_N, within: float = 1.1):
    """Each run's budget, where FLOPs are those that were spent: runs whose FLOPs, in order, are less than a
    factor apart are of one budget, their geometric mean."""
    log_N = np.log(np.asarray(flops_N, np.float64))
    order = np.argsort(log_N, kind="stable")
    group = np.empty(len(log_N), int)
    group[order] = np.concatenate([[0], np.cumsum(np.diff(log_N[order]) > np.log(within))])
    return np.exp(np.bincount(group, log_N) / np.bincount(group))[group]


def fit(flops_N, x_N, loss_N, variable: str, unit: str, outside: float = 1.0) -> Allocation:
    """The best x at each budget and its power law. flops: each run's budget; runs of one budget have the same
    number (`budgets` makes it so). outside: lowest points outside what was run by no more than this factor
    are not refused (np.inf: none, as in published fits). Raises NotIdentified where fewer than two budgets
    have a lowest point."""
    flops_N, x_N, loss_N = (np.asarray(values, np.float64) for values in (flops_N, x_N, loss_N))
    minima = tuple(
        minimum(float(budget), x_N[flops_N == budget], loss_N[flops_N == budget], outside)
        for budget in np.unique(flops_N)
    )
    kept = [found for found in minima if not found.why]
    if len(kept) < 2:
        few = [found for found in minima if found.runs < FEWEST]
        reasons = [found.why for found in minima if found.why and found not in few]
        if few:
            reasons.insert(0, f"{len(few)} have fewer than {FEWEST} runs")
        raise NotIdentified(
            f"{len(kept)} of {len(minima)} budgets have a lowest point of loss in {variable}:"
            f" {'; '.join(reasons)}"
        )
    log_flops = np.log10([found.flops for found in kept])
    centre = log_flops.mean()
    exponent, level = np.polyfit(log_flops - centre, np.log10([found.x for found in kept]), 1)
    coefficient = float(10 ** (level - exponent * centre))
    return Allocation(variable, unit, coefficient, float(exponent), minima, tuple(warnings(minima, variable)))


def draws(allocation: Allocation, flops_N, x_N, loss_N, count: int, seed: int = 0):
    """(coefficients [R], exponents [R], lowest points [R, B] of the budgets that have one, in the variable's
    unit) of losses that might have been: each budget's parabola plus noise, in percent of the loss, of the
    size that is left about all of them, whose own uncertainty (chi-squared) the draws have too. nan where a
    drawn parabola opens downwards; all are where no run is left over to tell noise."""
    flops_N, x_N, loss_N = (np.asarray(values, np.float64) for values in (flops_N, x_N, loss_N))
    kept = [found for found in allocation.minima if not found.why]
    logs = [np.log10(x_N[flops_N == found.flops]) for found in kept]
    losses = [loss_N[flops_N == found.flops] for found in kept]
    fits = [np.polyfit(x - x.mean(), y, 2) for x, y in zip(logs, losses)]
    curves = [np.polyval(poly, x - x.mean()) for poly, x in zip(fits, logs)]
    freedom = sum(len(x) - 3 for x in logs)
    if freedom < 1:
        return (*np.full((2, count), np.nan), np.full((count, len(kept)), np.nan))
    left = sum(float(np.square(y / curve - 1).sum()) for y, curve in zip(losses, curves))
    rng = np.random.default_rng(seed)
    wide_R = np.sqrt(left / rng.chisquare(freedom, count))
    at_RxB = np.empty((count, len(kept)))
    for b, (x, curve) in enumerate(zip(logs, curves)):
        noisy = curve[:, None] * (1 + rng.normal(size=(len(x), count)) * wide_R)
        square, slope, _ = np.polyfit(x - x.mean(), noisy, 2)
        with np.errstate(divide="ignore", invalid="ignore"):
            at_RxB[:, b] = np.where(square > 0, x.mean() - slope / (2 * square), np.nan)
    log_flops = np.log10([found.flops for found in kept])
    off = log_flops - log_flops.mean()
    exponent_R = at_RxB @ off / (off @ off)
    with np.errstate(over="ignore"):
        return 10 ** (at_RxB.mean(1) - exponent_R * log_flops.mean()), exponent_R, 10**at_RxB


def warnings(minima, variable: str):
    """Sentences about the grids."""
    for found in minima:
        if found.why:
            yield f"left out, {found.why}"
    minima = [found for found in minima if not found.why]
    off = np.array([found.off for found in minima])
    if np.exp(np.abs(np.log(off)).max()) > OFF_CENTRE:
        worst = minima[int(np.abs(np.log(off)).argmax())]
        yield (
            f"off-centre grids: at {worst.flops:.3g} FLOPs the middle of the grid is {worst.off:.2g} times"
            f" the best {variable}; the parabola's lowest point is biased there"
        )
    slope, _ = np.polyfit(np.log([found.flops for found in minima]), np.log(off), 1)
    span = np.log(minima[-1].flops / minima[0].flops)
    if np.exp(abs(slope * span)) > DRIFT:
        yield (
            f"drifting grids: their middle moves {np.exp(slope * span):.2g} times against the best {variable}"
            " from the smallest budget to the largest; the exponent is biased"
        )


def grid(centre, within: float, points: int):
    """Log-spaced values within a factor of a centre."""
    return np.geomspace(centre / within, centre * within, points)
