"""Profile interval of one parameter: the values at which the rest of the law, fitted anew, leaves
not much more than the best one does. With few runs it holds the truth as often as it says, where resampled
runs do not; it may be lopsided, and open where the runs bound nothing. (Bates and Watts 1988, chapter 6.)

Runs have noise of their own, of one variance: it shows in what is left about the fit and, where scores are
means over seeds, between those; the two are pooled, and Student's t has their degrees of freedom, few as they
are. Test documents move all runs together: of that noise what shows about the fit, too, is taken out, or it
would be counted twice."""

import numpy as np
from scipy import optimize, stats

from bltjax.science import levenberg_marquardt, variable_projection
from bltjax.science import noise as noises
from bltjax.science.bootstrap import LEVEL
from bltjax.science.fit_bootstrap import Interval
from bltjax.science.noise import Noise
from bltjax.science.objectives import Objective
from bltjax.science.parametric import Fit

POINTS = 25
ROUNDS = 3  # each finds the end 24 times as exactly, and the last between two points
LOGS = Objective("log_least_squares")


def interval(fit: Fit, name: str, level: float = LEVEL, noise: Noise | None = None) -> Interval | None:
    """Of an exponent or of E (no other parameter means the same at the runs' centre as in units). None where
    nothing tells noise from the law. noise: what is known beside the scatter about the fit, of the fit's
    runs; documents count for laws of one exponent alone. Residuals are taken for noise in percent: the sum of
    squares of log loss is what is compared, and a fit with another objective is held inside the interval."""
    formula, runs = fit.formula, fit.runs
    index = formula.names.index(name)
    if name.startswith("log ") or (name in formula.coefficients and name != "E"):
        raise ValueError(f"a profile is of E or of an exponent, not of {name}")
    noise = noise or noises.of_scatter(len(runs))
    alone = formula.exponents == (name,)
    law = (_OneExponent if alone else _Law)(fit, index, np.asarray(noise.seeds_N, np.float64))
    best, least = law.best()
    freedom = noise.freedom + len(runs) - len(formula.names)
    if freedom < 1:
        return None
    own = (noise.freedom * noise.variance / 2 + least) / freedom  # halves, as sums of squares are
    t = lambda f: float(stats.t.ppf((1 + level) / 2, f))
    most = lambda shared: least + t(freedom) ** 2 * own + t(max(1.0, noise.documents - 1)) ** 2 * shared
    held, free = 0.0, 0.0
    if alone:
        held, free = law.documents(best, noise.documents_NxN)
    low, high = formula.bounds[index]
    high = min(high, float(runs.loss_N.min())) if name == "E" else high
    ends = [_end(law.left, best, far, least, most(free)) for far in (low, high)]
    if held > free and (ends[0] is None or law.floor(ends[0]) <= 0):
        # E is held at 0 there, and other noise moves the exponent
        ends = [_end(law.left, best, far, least, most(held)) for far in (low, high)]
    value = fit.at_centre_Q[index]
    return Interval(
        None if ends[0] is None else min(ends[0], float(value)),
        None if ends[1] is None else max(ends[1], float(value)),
        level,
    )


def _end(left, best: float, far: float, least: float, most: float):
    """The value between the best and `far` at which the rest leaves `most`; None where none does."""
    near, within, beyond = best, 0.0, None
    if most <= least:
        return best
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


class _Law:
    """Least squares of logs as a function of one parameter, the others at their best."""

    def __init__(self, fit: Fit, index: int, weight_N):
        self.fit, self.index, self.weight_N = fit, index, weight_N
        self.logs = fit.runs.logs(fit.centres)

    def best(self):
        """(the parameter, the sum of squares) of the best law."""
        [self.at], [least] = levenberg_marquardt.descend(
            self.fit.formula, self.logs, self.fit.runs.loss_N, self.weight_N, self.fit.at_centre_Q[None], LOGS
        )
        return float(self.at[self.index]), float(least)

    def left(self, values_R):
        formula = self.fit.formula
        start_RxQ = np.tile(self.at, (len(values_R), 1))
        bounds = np.tile(formula.bounds, (len(values_R), 1, 1))
        bounds[:, self.index] = values_R[:, None]
        start_RxQ[:, self.index] = values_R
        loss_N, ends = self.fit.runs.loss_N, bounds.transpose(2, 0, 1)
        return levenberg_marquardt.descend(
            formula, self.logs, loss_N, self.weight_N, start_RxQ, LOGS, ends, tight=levenberg_marquardt.LOOSE
        )[1]


class _OneExponent(_Law):
    """The same of a law of one exponent, whose coefficients are then a linear problem (of relative residuals;
    without E of logs, as a line is fitted). Halves of sums of squares, as elsewhere."""

    def _columns(self, values_R):
        return self.fit.formula.columns(self.logs, np.asarray(values_R, np.float64)[:, None])

    def _linear(self, values_R):
        """(coefficients [R, K], halves of sums of squares [R])."""
        columns_RxKxN, loss_N, weight_N = self._columns(values_R), self.fit.runs.loss_N, self.weight_N
        if not self.fit.formula.constant:
            log_RxN = np.log(loss_N) - np.log(columns_RxKxN[:, 0])
            level_R = np.average(log_RxN, axis=-1, weights=weight_N)
            left_R = (weight_N * np.square(log_RxN - level_R[:, None])).sum(-1) / 2
            return np.exp(level_R)[:, None], left_R
        relative = columns_RxKxN / loss_N
        gram = (relative * weight_N) @ relative.transpose(0, 2, 1)
        found, taken = variable_projection.non_negative(gram, (relative * weight_N).sum(-1))
        left = weight_N * np.square((found[..., None] * relative).sum(-2) - 1)
        return found, left.sum(-1) / 2

    def left(self, values_R):
        return self._linear(values_R)[1]

    def floor(self, value: float) -> float:
        """E with the exponent at a value; above 0 without one."""
        return float(self._linear([value])[0][0, 0]) if self.fit.formula.constant else 1.0

    def best(self):
        [(low, high)] = self.fit.formula.bounds[-1:]
        grid = np.geomspace(low, high, 400)
        at = int(self.left(grid).argmin())
        ends = grid[max(0, at - 1)], grid[min(len(grid) - 1, at + 1)]
        found = optimize.minimize_scalar(
            lambda value: self.left([value])[0], bounds=ends, method="bounded", options={"xatol": 1e-12}
        )
        return float(found.x), float(found.fun)

    def documents(self, best: float, documents_NxN):
        """(with E held at 0, with all free) the documents' shared variance, a half as the sums of squares."""
        formula = self.fit.formula
        linear = self._linear([best])[0][0]
        predicted_N, slopes_QxN = formula.jacobian(self.logs, np.array([*linear, best]))
        root_N = np.sqrt(self.weight_N)
        jacobian_NxQ = (slopes_QxN / predicted_N * root_N).T
        weighted = root_N[:, None] * documents_NxN * root_N / 2
        free = noises.shared(jacobian_NxQ, weighted)
        return (noises.shared(jacobian_NxQ[:, 1:], weighted) if formula.constant else 0.0), free
