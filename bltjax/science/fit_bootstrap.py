"""Bootstrap of a fit: intervals of anything that it says, by fitting it again to runs that might have been.

Two ways. `runs`: runs are drawn with replacement (where cells repeat, cells, and then seeds within them), as
Besiroglu et al. 2024 do; it takes for granted that there are many runs. `noise`: the design stays, and each
loss is what the fit says plus noise of the size that the fit left, whose own uncertainty (chi-squared) the
draws have too; it is right with few runs, and takes for granted that noise is in percent and of one size.
Fits start from the fit of all runs and go together, so that a thousand take seconds."""

import dataclasses

import numpy as np

from bltjax.science import levenberg_marquardt
from bltjax.science.bootstrap import LEVEL
from bltjax.science.parametric import Fit, predict

DRAWS = 1000
CHUNK = 2_000_000  # numbers in one array at a time
WAYS = ("runs", "noise")
MANY = 20  # cells a parameter, from which resampled runs are the better of the two


@dataclasses.dataclass(frozen=True)
class Interval:
    """low, high: None for an end that the draws do not bound. share: of draws that have the quantity at
    all."""

    low: float | None
    high: float | None
    level: float
    share: float = 1.0

    def holds(self, value: float) -> bool:
        return (self.low is None or self.low <= value) and (self.high is None or value <= self.high)


@dataclasses.dataclass(frozen=True)
class Draws:
    """parameters_RxQ: of variables in units, in the order of formula.names."""

    fit: Fit
    parameters_RxQ: np.ndarray
    way: str

    def __getitem__(self, name: str):
        """[R] of one parameter."""
        return self.parameters_RxQ[:, self.fit.formula.names.index(name)]

    def of(self, name: str, level: float = LEVEL) -> Interval:
        return interval(self[name], level)

    def predictions(self, **values):
        """[R, ...] at values of the variables."""
        return predict(self.fit.formula, self.parameters_RxQ, values)


def interval(values_R, level: float = LEVEL) -> Interval:
    """Percentiles of draws. Nans have no such quantity, and count in `share` alone; an end at an infinite
    value is open."""
    values_R = np.asarray(values_R, np.float64)
    there = values_R[~np.isnan(values_R)]
    share = len(there) / max(1, len(values_R))
    if not len(there):
        return Interval(None, None, level, 0.0)
    ends = np.quantile(there, [(1 - level) / 2, (1 + level) / 2], method="nearest")
    low, high = (float(end) if np.isfinite(end) else None for end in ends)
    return Interval(low, high, level, share)


def weights(cells_N, count: int, rng) -> np.ndarray:
    """[count, N]: how often each run is drawn: cells with replacement, and runs within a drawn cell."""
    _, cell_N, size_K = np.unique(cells_N, return_inverse=True, return_counts=True)
    cells = len(size_K)
    drawn_RxK = rng.multinomial(cells, np.full(cells, 1 / cells), size=count)
    if cells == len(cells_N):
        return drawn_RxK[:, cell_N].astype(np.float64)
    found = np.zeros((count, len(cells_N)))
    for k in range(cells):
        members = np.flatnonzero(cell_N == k)
        found[:, members] = rng.multinomial(
            drawn_RxK[:, k] * len(members), np.full(len(members), 1 / len(members))
        )
    return found


def usual(fit: Fit) -> str:
    """The way that suits the number of runs: `runs` from 20 cells a parameter on."""
    return "runs" if len(np.unique(fit.runs.cells_N)) >= MANY * len(fit.at_centre_Q) else "noise"


def draws(fit: Fit, count: int = DRAWS, way: str = "", seed: int = 0, documents_RxN=None) -> Draws:
    """Fits of `count` sets of runs that might have been; equal seeds give equal ones.

    way: `usual` if not given. documents_RxN: losses of the fit's runs under resampled test documents, where
    scores have them: they make the draws' losses differ from the runs' own."""
    way = way or usual(fit)
    if way not in WAYS:
        raise ValueError(f"no way {way!r} to resample; there are {', '.join(WAYS)}")
    rng = np.random.default_rng(seed)
    logs, runs = fit.runs.logs(fit.centres), fit.runs
    loss_RxN = np.broadcast_to(runs.loss_N, (count, len(runs)))
    weights_RxN = np.ones((count, len(runs)))
    if way == "runs":
        weights_RxN = weights(runs.cells_N, count, rng)
    else:
        loss_RxN = noisy(fit, count, rng)
    if documents_RxN is not None:
        loss_RxN = loss_RxN * (np.asarray(documents_RxN, np.float64)[:count] / runs.loss_N)
    chunk = max(1, CHUNK // (len(runs) * len(fit.at_centre_Q)))
    found = [
        levenberg_marquardt.descend(
            fit.formula,
            logs,
            loss_RxN[at : at + chunk],
            weights_RxN[at : at + chunk],
            np.tile(fit.at_centre_Q, (len(weights_RxN[at : at + chunk]), 1)),
            fit.objective,
            tight=levenberg_marquardt.LOOSE,
        )[0]
        for at in range(0, count, chunk)
    ]
    return Draws(fit, fit.formula.in_units(np.concatenate(found), fit.centres), way)


def noisy(fit: Fit, count: int, rng):
    """[count, N] losses: the fit's, times noise of the size that its residuals show, with so many degrees of
    freedom as runs are more than parameters."""
    freedom = len(fit.runs) - len(fit.at_centre_Q)
    spread = np.sqrt(np.square(fit.residuals_N).sum() / freedom)
    wide_R = np.sqrt(freedom / rng.chisquare(freedom, count))
    noise_RxN = rng.normal(size=(count, len(fit.runs))) * (spread * wide_R)[:, None]
    return fit.predict(**fit.runs.values) * np.exp(noise_RxN)
