"""Chinchilla's approach 1: which size has the lowest loss at each of many budgets, along the runs' own
curves, and power laws through those (Hoffmann et al. 2022, section 3.1).

Two things keep few sizes from biasing the exponents. Runs taken as they are make an envelope of steps, and
the steps at its ends turn the line: so between runs a size's loss is a sum of a few fixed powers of FLOPs,
fitted to that size's runs alone, and between sizes, at each budget, the lowest point is that of a curve
through the sizes next to the best. And budgets whose lowest point is at the smallest or the largest size in
reach are left out, since a better one may lie outside.

Intervals: the sizes' curves, with noise of the size that is left about all of them, and with other forms of
what lies between sizes."""

import dataclasses

import numpy as np

from bltjax.science import fit_bootstrap
from bltjax.science.bootstrap import LEVEL
from bltjax.science.fit_bootstrap import Interval
from bltjax.science.identifiability import NotIdentified

POINTS = 1500
DRAWN_POINTS = 120  # of a drawn envelope
FEWEST = 3  # sizes on the envelope, without the smallest and the largest
PLAIN = 4  # of POWERS are taken of fewer than ten runs
RUNS = 3  # of a size that make a curve: one a parameter
POWERS = np.array([0.0, 0.3, 0.6, 0.15, 0.45])  # of a size's curve in FLOPs
SHAPE, OTHERS = 0.3, (0.15, 0.3, 0.45)  # about the exponents of size and data; those of draws
WITHIN = 16.0  # factor from the best size, within which sizes tell where the lowest point is
INSIDE = 2.0  # factor of the lowest point from the smallest and the largest size in reach
NUMBERS = 4_000_000  # in one array at a time
MOST = 20_000_000  # losses on all drawn curves: of very many sizes there are fewer draws
FEWEST_DRAWS = 100


@dataclasses.dataclass(frozen=True)
class Envelope:
    """flops_M, size_M, data_M, loss_M: the best at each budget that is kept. size, data: (coefficient,
    exponent) of their power laws in FLOPs. sizes: how many different ones are the best of those that were
    run. kept: share of the budgets. apart: the factor between neighbouring sizes, at most."""

    flops_M: np.ndarray
    size_M: np.ndarray
    data_M: np.ndarray
    loss_M: np.ndarray
    size: tuple
    data: tuple
    sizes: int
    kept: float
    apart: float


@dataclasses.dataclass(frozen=True)
class _Curve:
    """One size's runs, and which budgets are in its reach. at_runs_NxN, at_budgets_MxN: the curve through
    losses [N] of the runs, there and at those budgets."""

    runs: np.ndarray
    inside: np.ndarray
    at_runs_NxN: np.ndarray
    at_budgets_MxN: np.ndarray
    spare: int


def _curve(runs, log_flops_N, loss_N, at_M) -> _Curve:
    """spare: degrees of freedom that tell noise. Runs count by what they leave in percent of the loss."""
    x, first = log_flops_N[runs], log_flops_N[runs].min()
    inside = np.flatnonzero((at_M >= first - 1e-9) & (at_M <= x.max() + 1e-9))
    powers = POWERS[: max(min(PLAIN, different := len(np.unique(x))), different // 2)]
    columns = lambda x: np.exp(-powers * (x - first)[:, None])
    back_PxN = np.linalg.pinv(columns(x) / loss_N[runs][:, None], rcond=1e-12) / loss_N[runs]
    spare = len(runs) - len(powers)
    return _Curve(runs, inside, columns(x) @ back_PxN, columns(at_M[inside]) @ back_PxN, spare)


@dataclasses.dataclass(frozen=True)
class _Design:
    """at_M: log FLOPs of the budgets. sizes_S: logs. curves: one a size. log_data_SxM: along the curves, nan
    outside of them. reaches: (sizes in reach, budgets that have just those) pairs."""

    at_M: np.ndarray
    sizes_S: np.ndarray
    curves: list
    log_data_SxM: np.ndarray
    reaches: list


def _design(size_N, data_N, flops_N, loss_N, points: int) -> _Design:
    log_flops_N, log_data_N = np.log(flops_N), np.log(data_N)
    sizes, size_of_N, count = np.unique(size_N, return_inverse=True, return_counts=True)
    members = np.split(np.argsort(size_of_N, kind="stable"), np.cumsum(count)[:-1])
    members = [runs for runs in members if len(np.unique(log_flops_N[runs])) >= RUNS]
    if len(members) < FEWEST + 2:
        raise NotIdentified(
            f"{len(members)} sizes have curves of {RUNS} and more runs; an envelope takes {FEWEST + 2}"
        )
    there = np.concatenate(members)
    at_M = np.linspace(log_flops_N[there].min(), log_flops_N[there].max(), points)
    curves = [_curve(runs, log_flops_N, loss_N, at_M) for runs in members]
    log_data_SxM = np.full((len(members), points), np.nan)
    for row, curve in zip(log_data_SxM, curves):
        order = np.argsort(log_flops_N[curve.runs], kind="stable")
        x, y = log_flops_N[curve.runs][order], log_data_N[curve.runs][order]
        row[curve.inside] = np.interp(at_M[curve.inside], x, y)
    reaches = {}
    for budget, reach_S in enumerate(np.isfinite(log_data_SxM).T):
        reaches.setdefault(tuple(np.flatnonzero(reach_S)), []).append(budget)
    reaches = [(np.array(sizes), np.array(budgets)) for sizes, budgets in reaches.items() if len(sizes) > 2]
    return _Design(at_M, np.log([size_N[runs[0]] for runs in members]), curves, log_data_SxM, reaches)


def _lowest(design: _Design, loss_RxN, shape: float = SHAPE):
    """(log size, log data, loss) [3, R, M] of each budget's lowest point, nan where it is left out, and which
    size is the best of those in reach [R, M]."""
    loss_RxSxM = np.full((len(loss_RxN), *design.log_data_SxM.shape), np.inf)
    for row, curve in enumerate(design.curves):
        loss_RxSxM[:, row, curve.inside] = loss_RxN[:, curve.runs] @ curve.at_budgets_MxN.T
    best_RxM = loss_RxSxM.argmin(1)
    found_3xRxM = np.full((3, len(loss_RxN), len(design.at_M)), np.nan)
    for sizes, budgets in design.reaches:
        places_RxM = np.searchsorted(sizes, best_RxM[:, budgets])
        for place in np.setdiff1d(places_RxM, (0, len(sizes) - 1)):
            draw, column = np.nonzero(places_RxM == place)
            column = budgets[column]
            near = _near(design.sizes_S[sizes], place)
            x = design.sizes_S[sizes[near]] - design.sizes_S[sizes[place]]
            loss_NxK = loss_RxSxM[draw, :, column][:, sizes[near]]
            at, lowest = _lowest_point(x, loss_NxK, shape)
            ends = design.sizes_S[sizes[[0, -1]]] - design.sizes_S[sizes[place]]
            at = np.where((at > ends[0] + np.log(INSIDE)) & (at < ends[1] - np.log(INSIDE)), at, np.nan)
            size = at + design.sizes_S[sizes[place]]
            found_3xRxM[:, draw, column] = size, _between(design, sizes, column, size), lowest
    return found_3xRxM, best_RxM


def _near(log_sizes, place: int):
    """Of sizes in reach those that tell where the lowest point is: two on each side of the best, where there
    are, and all within a factor."""
    far = np.abs(log_sizes - log_sizes[place])
    steps = np.abs(np.arange(len(log_sizes)) - place)
    return np.flatnonzero((far <= np.log(WITHIN)) | (steps <= 2))


def _lowest_point(x_K, loss_NxK, shape: float):
    """(place [N], loss [N]) of the lowest point of u·e^px + v·e^-px + level + slope·x by least squares (no
    slope where there are three points), p being `shape`; nan where it has none. In size and data's power laws
    an IsoFLOP is two exponentials of log size, and a polynomial is not."""
    columns_KxP = np.stack([np.exp(shape * x_K), np.exp(-shape * x_K), np.ones(len(x_K)), x_K], 1)
    found_NxP = loss_NxK @ np.linalg.pinv(columns_KxP[:, : len(x_K)]).T
    up, down, level, slope = np.pad(found_NxP, ((0, 0), (0, 4 - found_NxP.shape[1]))).T
    root = np.square(slope) + 4 * shape**2 * up * down
    with np.errstate(divide="ignore", invalid="ignore"):
        # of the two roots of slope = p·(v/w - u·w), w = e^px, the one at which it curves upwards
        w = (np.sqrt(root) - slope) / (2 * shape * up)
        at = np.log(w) / shape
        at = np.where((root > 0) & (up * w + down / w > 0), at, np.nan)
        return at, up * w + down / w + level + slope * at


def _between(design: _Design, sizes, column, log_size_N):
    """Log data at sizes between those that were run, at each one's budget: a line in logs."""
    grid, data_NxS = design.sizes_S[sizes], design.log_data_SxM[sizes[:, None], column].T
    right = np.clip(np.searchsorted(grid, np.nan_to_num(log_size_N, nan=grid[0])), 1, len(grid) - 1)
    rows = np.arange(len(column))
    low, high = data_NxS[rows, right - 1], data_NxS[rows, right]
    return low + (high - low) * (log_size_N - grid[right - 1]) / (grid[right] - grid[right - 1])


def _laws(at_M, values_RxM):
    """(log coefficients [R], exponents [R]) of lines through what is not nan."""
    there = np.isfinite(values_RxM)
    count = np.maximum(there.sum(1, keepdims=True), 1)
    x = np.where(there, at_M, 0.0)
    y = np.where(there, values_RxM, 0.0)
    centre, level = x.sum(1, keepdims=True) / count, y.sum(1, keepdims=True) / count
    off = np.where(there, at_M - centre, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        exponent = (off * y).sum(1) / np.square(off).sum(1)
    return level[:, 0] - exponent * centre[:, 0], exponent


def _sizes(found_3xRxM, best_RxM):
    """[R]: how many sizes are the best at budgets that are kept."""
    kept_RxM = np.isfinite(found_3xRxM[0])
    return np.array([len(np.unique(best[kept])) for best, kept in zip(best_RxM, kept_RxM)])


def fit(size_N, data_N, flops_N, loss_N, points: int = POINTS) -> Envelope:
    """Of points on training curves: those of one size are one curve, which is never extended beyond its ends.
    Runs whose learning rate had not ended lie above the curve of those that had: hand over ends."""
    size_N, data_N, flops_N, loss_N = (np.asarray(v, np.float64) for v in (size_N, data_N, flops_N, loss_N))
    design = _design(size_N, data_N, flops_N, loss_N, points)
    found_3x1xM, best_1xM = _lowest(design, loss_N[None])
    [sizes] = _sizes(found_3x1xM, best_1xM)
    if sizes < FEWEST:
        raise NotIdentified(
            f"{sizes} sizes between the smallest and the largest in reach are best at any budget; a power law"
            f" takes {FEWEST}"
        )
    kept = np.isfinite(found_3x1xM[0, 0])
    size_M, data_M, loss_M = found_3x1xM[:, 0, kept]
    laws = [_laws(design.at_M, found_1xM) for found_1xM in found_3x1xM[:2]]
    size, data = ((float(np.exp(level[0])), float(exponent[0])) for level, exponent in laws)
    flops_M, apart = np.exp(design.at_M[kept]), float(np.exp(np.diff(design.sizes_S).max()))
    found_M = np.exp(size_M), np.exp(data_M), loss_M
    return Envelope(flops_M, *found_M, size, data, int(sizes), float(kept.mean()), apart)


def draws(size_N, data_N, flops_N, loss_N, count: int, seed: int = 0) -> np.ndarray:
    """[R, 2, 2]: (coefficient, exponent) of size and of data, of losses that might have been: curve plus
    noise, in percent, whose own uncertainty (chi-squared) the draws have too. nan where a draw has no
    envelope; all are where no run is left over to tell noise."""
    size_N, data_N, flops_N, loss_N = (np.asarray(v, np.float64) for v in (size_N, data_N, flops_N, loss_N))
    design = _design(size_N, data_N, flops_N, loss_N, DRAWN_POINTS)
    losses = design.log_data_SxM.size
    count = min(count, max(FEWEST_DRAWS, MOST // losses))
    found_Rx2x2 = np.full((count, 2, 2), np.nan)
    freedom = sum(curve.spare for curve in design.curves)
    if freedom < 1:
        return found_Rx2x2
    left, curve_N = 0.0, loss_N.copy()
    for curve in design.curves:
        curve_N[curve.runs] = curve.at_runs_NxN @ loss_N[curve.runs]
        left += np.square(loss_N[curve.runs] / curve_N[curve.runs] - 1).sum()
    rng = np.random.default_rng(seed)
    wide_R = np.sqrt(left / rng.chisquare(freedom, count))
    parts = len(OTHERS) * -(-count * losses // (len(OTHERS) * NUMBERS))
    for part, rows in enumerate(np.array_split(np.arange(count), parts)):
        noise_CxN = rng.normal(size=(len(rows), len(loss_N))) * wide_R[rows, None]
        drawn_3xCxM, best_CxM = _lowest(design, curve_N * np.exp(noise_CxN), OTHERS[part % len(OTHERS)])
        told_C = _sizes(drawn_3xCxM, best_CxM) >= FEWEST
        for k, drawn_CxM in enumerate(drawn_3xCxM[:2]):
            level_C, exponent_C = _laws(design.at_M, drawn_CxM)
            law_Cx2 = np.stack([np.exp(level_C), exponent_C], 1)
            found_Rx2x2[rows, k] = np.where(told_C[:, None], law_Cx2, np.nan)
    return found_Rx2x2


def interval(value: float, drawn_R, level: float = LEVEL) -> Interval | None:
    """Of an exponent, of its draws. Noise moves which budgets are kept, and so an exponent, to one side, by
    as much in the draws again: the interval holds what the draws do, and their mirror image about the value.
    None where so many draws have no envelope that their ends are unknown."""
    found = fit_bootstrap.interval(drawn_R, level)
    if found.share <= (1 + level) / 2:
        return None
    low, high = min(found.low, 2 * value - found.high), max(found.high, 2 * value - found.low)
    return Interval(low, high, level, found.share)
