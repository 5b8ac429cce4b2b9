"""Effective-compute gain of one family over another: how many times the FLOPs the baseline needs for the loss
that the family has at a budget. Curves are (E, A, alpha) of E + A/C^alpha, from a fit in compute or from the
frontier of a fit in size and data; of draws too."""

import numpy as np

from bltjax.science.bootstrap import LEVEL
from bltjax.science.fit_bootstrap import Interval, interval


def of(curve_x3, baseline_x3, flops):
    """Gain at FLOPs, [...]: above 1 the family is better. inf where the baseline never gets there."""
    e, a, alpha = np.moveaxis(np.asarray(curve_x3, np.float64), -1, 0)
    base_e, base_a, base_alpha = np.moveaxis(np.asarray(baseline_x3, np.float64), -1, 0)
    above = e + a * np.asarray(flops, np.float64) ** -alpha - base_e
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        needed = (base_a / above) ** (1 / base_alpha)
        return np.where(above > 0, needed / flops, np.inf)


def with_interval(curve_Rx3, baseline_Rx3, flops: float, level: float = LEVEL) -> Interval:
    """The interval of draws of both, drawn apart; open upwards where the baseline may never get there."""
    return interval(of(curve_Rx3, baseline_Rx3, flops), level)
