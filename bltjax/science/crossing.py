"""Where two curves of bits per byte over training FLOPs meet: as measured, and as fitted. Never outside the
range that both were measured in."""

import numpy as np

from bltjax.science.bootstrap import interval
from bltjax.science.power_law import predict


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


def of_fits(fit_a: dict, fit_b: dict) -> list:
    """FLOPs at which two fits meet, inside the range both were measured in."""
    span = overlap([fit_a["low_flops"], fit_a["high_flops"]], [fit_b["low_flops"], fit_b["high_flops"]])
    if not span:
        return []
    x = np.linspace(*np.log(span), 4001)
    at = roots(x, np.log(predict(fit_a, np.exp(x))) - np.log(predict(fit_b, np.exp(x))))
    return [float(value) for value in np.exp(at[np.isfinite(at)])]
