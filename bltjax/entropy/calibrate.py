"""The threshold that gives a wanted mean patch size.

The mean is positions over patches, BOS and EOS and the patch that BOS alone makes counted in. How it depends
on the threshold is counted once, from the scores of whole documents (entropy/histogram.py). Where something
else cuts patches too (rows that end, a longest length), `approach` measures what a threshold really gives,
and asks the scores for as much more or less."""

import math
from collections.abc import Callable

from bltjax.errors import UserError

TOLERANCE = 0.02  # of the target
CLOSE = 0.0025  # of it: near enough to look no further
MOST_TRIES = 10


def approach(
    target: float, threshold_for: Callable, realized: Callable, of_few: Callable | None = None
) -> tuple[float, float]:
    """(threshold, what it gives) nearest to the target.

    threshold_for(size) -> nats, UserError where no threshold has that size; realized(threshold) -> mean patch
    size; of_few: the same of a part that is quickly measured, to begin from what is right there. UserError
    where even the nearest is off by more than 2%."""
    asked = target = wanted(target)
    if of_few:
        asked = _search(target, target, threshold_for, of_few)[1]
    seen, _ = _search(target, asked, threshold_for, realized)
    best = min(seen, key=lambda threshold: abs(seen[threshold] - target))
    check(seen[best], target, min(seen.values()), max(seen.values()))
    return best, seen[best]


def _search(target: float, asked: float, threshold_for: Callable, realized: Callable):
    """({threshold: what it gives} of those that were tried, the size whose threshold gave most nearly the
    target)."""
    seen, sizes, refused, below, above = {}, {}, None, None, None
    for _ in range(MOST_TRIES):
        try:
            threshold = threshold_for(asked)
        except UserError as error:
            refused = error
            break
        if threshold in seen:
            break
        gives = seen[threshold] = float(realized(threshold))
        sizes[asked] = abs(gives - target)
        if abs(gives / target - 1) < CLOSE:
            break
        if gives < target:
            below = asked, gives
        else:
            above = asked, gives
        asked = _between(target, below, above) if below and above else max(1.0, asked * target / gives)
    if not seen:
        raise refused
    return seen, min(sizes, key=sizes.get)


def _between(target: float, below, above) -> float:
    """What to ask for, between what gave less than the target and what gave more: on the straight line
    between the two, in logarithms, but not too near to either."""
    (low, less), (high, more) = below, above
    share = math.log(target / less) / math.log(more / less)
    return low * (high / low) ** min(max(share, 0.1), 0.9)


def wanted(target) -> float:
    target = float(target)
    if not 1 <= target < math.inf:
        raise UserError(f"a mean patch size must be at least 1 and finite, not {target:g}")
    return target


def check(size: float, target: float, least: float, most: float) -> None:
    """UserError where a size is more than 2% off the target, with those that can be had."""
    if not abs(size / target - 1) <= TOLERANCE:
        raise UserError(
            f"no threshold gives a mean patch size of {target:g}: the closest is {size:.4g}, and they reach"
            f" from {least:.4g} to {most:.4g}"
        )
