"""The threshold that gives a wanted mean patch size.

The mean is positions / patches over all the documents given, BOS and EOS and the patch that BOS alone makes
counted in. It never falls as the threshold rises (a cut fewer joins two patches, and limits on length keep
that order), so bisection is exact. """

import math

import numpy as np

from bltjax import patching
from bltjax.errors import UserError

SCHEMES = ("entropy", "monotonic", "both")
TOLERANCE = 0.02  # of the target


def calibrate(
    scheme,
    documents_ids,
    documents_entropies,
    target,
    *,
    max_length=0,
    threshold=None,
    delta=None,
    count=None,
) -> float:
    """The threshold in nats (monotonic: the delta) whose mean patch size on these documents is closest to
    target.

    documents_ids: int [N] arrays; documents_entropies: float [N] arrays beside them. max_length: as in
    patching.starts. both: the threshold at the given delta (0 where none is given); with only a threshold
    given, the delta at that threshold. count: only the first so many documents (None: all). Raises UserError,
    with the sizes that can be reached, where the closest is off by more than 2%. """
    values, opened, positions = _scores(scheme, documents_ids, documents_entropies, threshold, delta, count)
    target = wanted(target)
    candidates = _candidates(values)
    sizes = {}

    def size(i):
        if i not in sizes:
            sizes[i] = _mean_size(values, opened, positions, max_length, candidates[i])
        return sizes[i]

    low, high = 0, len(candidates) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size(middle) < target else (low, middle)
    best = min(low, high, key=lambda i: abs(size(i) - target))
    check(size(best), target, size(0), size(len(candidates) - 1))
    return float(candidates[best])


def curve(
    scheme, documents_ids, documents_entropies, grid, *, max_length=0, threshold=None, delta=None, count=None
) -> np.ndarray:
    """Mean patch size at every threshold of a grid (monotonic: delta), float64 [len(grid)]; arguments as in
    calibrate."""
    values, opened, positions = _scores(scheme, documents_ids, documents_entropies, threshold, delta, count)
    return np.array([_mean_size(values, opened, positions, max_length, t) for t in grid])


def solve(mean_size, low, high, target, *, tolerance=TOLERANCE, close=1e-3, most=25) -> float:
    """The threshold in [low, high] at which mean_size(threshold), counted any way at all (on packed rows,
    say), is closest to target.

    mean_size rises with the threshold, but for small disorder. Bisection ends at a relative error of `close`
    or after `most` calls; the best threshold seen is returned. Raises UserError where even that is off by
    more than `tolerance` of the target. """
    target = wanted(target)
    seen = {}

    def error(threshold):
        seen[threshold] = float(mean_size(threshold))
        return abs(seen[threshold] / target - 1)

    low, high = float(low), float(high)
    if min(error(low), error(high)) > close and seen[low] < target < seen[high]:
        while len(seen) < most and low < (middle := (low + high) / 2) < high:
            if error(middle) <= close:
                break
            low, high = (middle, high) if seen[middle] < target else (low, middle)
    best = min(seen, key=lambda t: abs(seen[t] - target))
    check(seen[best], target, min(seen.values()), max(seen.values()), tolerance)
    return best


def wanted(target):
    target = float(target)
    if not 1 <= target < math.inf:
        raise UserError(f"a mean patch size must be at least 1 and finite, not {target:g}")
    return target


def check(size, target, least, most, tolerance=TOLERANCE):
    if not abs(size / target - 1) <= tolerance:
        raise UserError(
            f"no threshold gives a mean patch size of {target:g}: the closest is {size:.4g}, "
            f"and they reach from {least:.4g} to {most:.4g}"
        )


def _scores(scheme, documents_ids, documents_entropies, threshold, delta, count):
    """What the searched threshold is compared with, float32 [positions], and where a patch starts at any
    threshold, bool [positions]."""
    if scheme not in SCHEMES:
        raise UserError(f"{scheme!r} patches have no threshold to find; allowed: {', '.join(SCHEMES)}")
    fixed = {}
    if scheme == "both":
        if threshold is not None and delta is not None:
            raise UserError("both threshold and delta are given: nothing is left to calibrate")
        fixed = (
            dict(threshold=threshold)
            if threshold is not None
            else dict(delta=0.0 if delta is None else delta)
        )
    documents = list(zip(documents_ids, documents_entropies, strict=True))[:count]
    if not documents:
        raise UserError("there are no documents to calibrate on")
    values, opened = [], []
    for ids, entropies in documents:
        # A threshold of infinity leaves the starts that no threshold can prevent (and has patching check the
        # entropies).
        arguments = (
            dict(delta=math.inf) if scheme == "monotonic" else dict(threshold=math.inf, delta=math.inf)
        )
        opened.append(patching.starts(np.asarray(ids), scheme, entropies=entropies, xp=np, **arguments))
        values.append(patching.scores(scheme, entropies, xp=np, **fixed)[:-1])
    values, opened = np.concatenate(values), np.concatenate(opened)
    return values, opened, values.size


def _candidates(values):
    """Thresholds, ascending float32: one below all finite scores, one above each, halfway to the next:
    rounding then moves no boundary."""
    finite = np.unique(values[np.isfinite(values)])
    if not finite.size:
        return np.zeros(1, np.float32)
    middle = finite[:-1] + (finite[1:] - finite[:-1]) / np.float32(2)
    between = np.where(middle < finite[1:], middle, finite[:-1])
    return np.concatenate([np.nextafter(finite[:1], np.float32(-np.inf)), between, finite[-1:]])


def _mean_size(values, opened, positions, max_length, threshold):
    first = np.flatnonzero(opened | (values > np.float32(threshold)))
    if not max_length:
        return positions / first.size
    length = np.diff(np.append(first, positions))
    return positions / int((-(-length // max_length)).sum())
