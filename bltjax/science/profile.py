"""The interval of one parameter by its profile: the values at which the rest of the law, fitted anew, leaves
not much more than the best one does. With few runs it holds the truth as often as it says, where resampled
runs do not; it may be lopsided, and open where the runs bound nothing. (Bates and Watts 1988, chapter 6.)"""

import numpy as np
from scipy import stats

from bltjax.science import polish
from bltjax.science.bootstrap import LEVEL
from bltjax.science.objectives import Objective
from bltjax.science.parametric import Fit
from bltjax.science.resample import Interval

POINTS = 41
ROUNDS = 3  # each finds the end ten times as exactly


def interval(fit: Fit, name: str, level: float = LEVEL) -> Interval:
    """Of an exponent or of E (no other parameter means the same at the runs' centre as in units). Residuals
    are taken for noise in percent: the sum of squares of log loss is what is compared, and a fit with another
    objective is held inside the interval."""
    formula, runs = fit.formula, fit.runs
    index = formula.names.index(name)
    if name in formula.coefficients and name != "E":
        raise ValueError(f"a profile is of E or of an exponent, not of {name}")
    logs, squares = runs.logs(fit.centres), Objective("log_least_squares")
    ones = np.ones(len(runs))
    [best], [least] = polish.descend(formula, logs, runs.loss_N, ones, fit.at_centre_Q[None], squares)
    freedom = len(runs) - len(best)
    most = least * (1 + stats.t.ppf((1 + level) / 2, freedom) ** 2 / freedom)
    low, high = formula.bounds[index]
    high = min(high, float(runs.loss_N.min())) if name == "E" else high

    def left(values_R, start_Q):
        start_RxQ = np.tile(start_Q, (len(values_R), 1))
        bounds = np.tile(formula.bounds, (len(values_R), 1, 1))
        bounds[:, index] = values_R[:, None]
        start_RxQ[:, index] = values_R
        found, value = polish.descend(
            formula, logs, runs.loss_N, ones, start_RxQ, squares, bounds.transpose(2, 0, 1)
        )
        return value

    def end(far):
        near = best[index]
        for _ in range(ROUNDS):
            values = np.linspace(near, far, POINTS)[1:]
            outside = left(values, best) > most
            if not outside.any():
                return None if far in (low, high) else float(far)
            first = int(outside.argmax())
            near, far = (values[first - 1] if first else near), values[first]
        return float(far)

    ends = end(low), end(high)
    value = fit.at_centre_Q[index]
    return Interval(
        None if ends[0] is None else min(ends[0], float(value)),
        None if ends[1] is None else max(ends[1], float(value)),
        level,
    )
