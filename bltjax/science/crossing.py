"""Where two curves of bits per byte over training FLOPs meet: as measured, and as fitted. Never outside the
range that both were measured in."""

import dataclasses

import numpy as np

from bltjax.science.bootstrap import LEVEL, interval

POINTS = 801  # of a range, between which curves are taken for straight


def roots(x, difference_xM):
    """Where piecewise-linear differences change sign: [.., M] over increasing x [M] -> [.., M-1], nan where
    an interval has no root."""
    left, right = difference_xM[..., :-1], difference_xM[..., 1:]
    crosses = (left < 0) & (right > 0) | (left > 0) & (right < 0) | (left != 0) & (right == 0)
    step = np.where(crosses, left - right, 1.0)
    return np.where(crosses, x[:-1] + (x[1:] - x[:-1]) * left / step, np.nan)


def overlap(flops_a, flops_b):
    """The range of FLOPs that both curves were measured in, or None."""
    low, high = max(np.min(flops_a), np.min(flops_b)), min(np.max(flops_a), np.max(flops_b))
    return (float(low), float(high)) if low < high else None


def onto(flops, knots):
    """Matrix [M, N] of linear interpolation in log FLOPs from measured points [N] (increasing) to knots [M]
    among them."""
    return np.stack([np.interp(np.log(knots), np.log(flops), unit) for unit in np.eye(len(flops))], axis=1)


def measured(flops_a, bpb_a, flops_b, bpb_b, samples_a=None, samples_b=None) -> dict:
    """Where two measured curves, straight between neighbouring points in log-log, meet; never outside what
    both were measured in.

    Returns {"flops": [crossings], "low", "high", "share"}: share of resamples (documents, and seeds where
    there are several) whose curves meet, and the interval of the first crossing among those."""
    none = dict(flops=[], low=None, high=None, share=None)
    order_a, order_b = np.argsort(flops_a), np.argsort(flops_b)
    flops_a, bpb_a = np.asarray(flops_a, np.float64)[order_a], np.asarray(bpb_a, np.float64)[order_a]
    flops_b, bpb_b = np.asarray(flops_b, np.float64)[order_b], np.asarray(bpb_b, np.float64)[order_b]
    span = overlap(flops_a, flops_b)
    if not span:
        return none
    knots = np.unique(np.clip(np.concatenate([flops_a, flops_b]), *span))
    a_MxN, b_MxN = onto(flops_a, knots), onto(flops_b, knots)
    at = roots(np.log(knots), a_MxN @ np.log(bpb_a) - b_MxN @ np.log(bpb_b))
    found = dict(none, flops=[float(value) for value in np.exp(at[np.isfinite(at)])])
    if samples_a is not None and samples_b is not None:
        drawn = roots(
            np.log(knots), np.log(samples_a[:, order_a]) @ a_MxN.T - np.log(samples_b[:, order_b]) @ b_MxN.T
        )
        first = np.nanmin(np.where(np.isfinite(drawn), drawn, np.inf), axis=1)
        met = first[np.isfinite(first)]
        low, high = interval(np.exp(met))
        found.update(share=float(len(met) / len(first)), low=low, high=high)
    return found


def of_curves(curve_3, other_3, span) -> list:
    """FLOPs at which two curves (E, A, alpha) of E + A/C^alpha meet within a range, of None in none."""
    if not span:
        return []
    x = np.linspace(*np.log(span), 4001)
    at = roots(x, np.log(_curve(np.asarray(curve_3), x)) - np.log(_curve(np.asarray(other_3), x)))
    return [float(value) for value in np.exp(at[np.isfinite(at)])]


@dataclasses.dataclass(frozen=True)
class Meeting:
    """Where the fitted curves of two families meet within a range of FLOPs. flops: None for none in range.
    low, high: of draws; None for an end that lies outside the range. share: of draws that meet in it. says:
    the sentence for a report."""

    flops: float | None
    low: float | None
    high: float | None
    share: float
    span: tuple
    level: float
    says: str

    def holds(self, flops: float) -> bool:
        """Whether the interval holds a crossing there."""
        return (self.low is None or self.low <= flops) and (self.high is None or flops <= self.high)


def of_draws(curve_3, other_3, draws_Rx3, other_draws_Rx3, span, level: float = LEVEL) -> Meeting:
    """Of two curves (E, A, alpha) of E + A/C^alpha and of draws of both, drawn apart. span: (low, high) FLOPs
    that both were measured in. A draw whose curves do not meet in it counts as meeting beyond the end at
    which they are the wrong way round, so that the interval is open there."""
    x = np.linspace(*np.log(span), POINTS)
    apart = lambda a, b: _curve(a, x) - _curve(b, x)
    at = roots(x, apart(np.asarray(curve_3, np.float64), np.asarray(other_3, np.float64)))
    estimate = float(np.exp(np.nanmin(at))) if np.isfinite(at).any() else None
    apart_RxM = apart(np.asarray(draws_Rx3, np.float64), np.asarray(other_draws_Rx3, np.float64))
    drawn = roots(x, apart_RxM)
    first = np.where(np.isfinite(drawn), drawn, np.inf).min(1)
    share = float(np.isfinite(first).mean())
    starts_R, ends_R = np.sign(apart_RxM[:, 0]), np.sign(apart_RxM[:, -1])
    met = np.isfinite(first)
    if not met.any():
        says = f"none between {span[0]:.3g} and {span[1]:.3g} FLOPs, in no draw"
        return Meeting(None, None, None, 0.0, tuple(span), level, says)
    turn = np.sign((starts_R - ends_R)[met].sum()) or 1.0  # above first and below later, or the reverse
    first = np.where(met, first, np.where(starts_R == turn, np.inf, -np.inf))
    low, high = np.quantile(first, [(1 - level) / 2, (1 + level) / 2], method="nearest")
    low, high = (float(np.exp(end)) if np.isfinite(end) else None for end in (low, high))
    within = f"between {span[0]:.3g} and {span[1]:.3g} FLOPs"
    found = f"none {within}" if estimate is None else f"{estimate:.3g} FLOPs"
    if low is None and high is None:
        ends = f"no bound {within}"
    elif low is None or high is None:
        ends = f"{high:.3g} or less" if low is None else f"{low:.3g} or more"
    else:
        ends = f"{low:.3g} to {high:.3g}"
    says = f"{found} ({100 * level:.0f}%: {ends}; the curves meet {within} in {100 * share:.0f}% of draws)"
    return Meeting(estimate, low, high, share, tuple(span), level, says)


def _curve(curve_x3, x_M):
    e, a, alpha = (np.asarray(curve_x3)[..., k, None] for k in range(3))
    with np.errstate(over="ignore", invalid="ignore"):
        return e + np.exp(np.log(np.maximum(a, 1e-300)) - alpha * x_M)
