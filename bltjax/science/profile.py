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

POINTS = 25
ROUNDS = 3  # each finds the end 24 times as exactly, and the last between two points


def interval(fit: Fit, name: str, level: float = LEVEL) -> Interval:
    """Of an exponent or of E (no other parameter means the same at the runs' centre as in units). Residuals
    are taken for noise in percent: the sum of squares of log loss is what is compared, and a fit with another
    objective is held inside the interval."""
    formula, runs = fit.formula, fit.runs
    index = formula.names.index(name)
    if name.startswith("log ") or (name in formula.coefficients and name != "E"):
        raise ValueError(f"a profile is of E or of an exponent, not of {name}")
    logs, squares = runs.logs(fit.centres), Objective("log_least_squares")
    ones = np.ones(len(runs))
    [best], [least] = polish.descend(formula, logs, runs.loss_N, ones, fit.at_centre_Q[None], squares)
    freedom = len(runs) - len(best)
    most = least * (1 + stats.t.ppf((1 + level) / 2, freedom) ** 2 / freedom)
    low, high = formula.bounds[index]
    high = min(high, float(runs.loss_N.min())) if name == "E" else high

    def left(values_R):
        start_RxQ = np.tile(best, (len(values_R), 1))
        bounds = np.tile(formula.bounds, (len(values_R), 1, 1))
        bounds[:, index] = values_R[:, None]
        start_RxQ[:, index] = values_R
        return polish.descend(
            formula,
            logs,
            runs.loss_N,
            ones,
            start_RxQ,
            squares,
            bounds.transpose(2, 0, 1),
            tight=polish.LOOSE,
        )[1]

    def end(far):
        near, within, beyond = best[index], 0.0, None
        for _ in range(ROUNDS):
            values = np.linspace(near, far, POINTS)[1:]
            more = np.sqrt(np.maximum(left(values) - least, 0.0))  # a line, where the law is nearly one
            outside = more > np.sqrt(most - least)
            if not outside.any():
                if beyond is None:
                    return None
                outside[-1], more[-1] = True, beyond
            first = int(outside.argmax())
            beyond = more[first]
            if first:
                near, within = values[first - 1], more[first - 1]
            far = values[first]
        share = (np.sqrt(most - least) - within) / (beyond - within)
        return float(near + np.clip(share, 0.0, 1.0) * (far - near))

    ends = end(low), end(high)
    value = fit.at_centre_Q[index]
    return Interval(
        None if ends[0] is None else min(ends[0], float(value)),
        None if ends[1] is None else max(ends[1], float(value)),
        level,
    )
