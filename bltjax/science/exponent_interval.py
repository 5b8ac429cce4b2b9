"""The interval of a power law's exponent, which holds the truth as often as it says, with few points too.

Log scores are taken for the law, plus noise of each run's own (its seed, and what is peculiar to it on the
documents), of one variance, plus noise of the test documents, which runs share. The first shows between
seeds, and in what is left of the points about the fit: the two are pooled, and Student's t has their degrees
of freedom, few as they are. The second is known from resampled documents; what of it shows about the fit,
too, is taken out, or it would be counted twice. The interval is that of the profile: the exponents at which
the rest of the law, fitted anew, leaves not much more than the best one. Of a line in log-log that is the
usual t interval. With a floor it is lopsided, and may have no upper end: a steep law close to its floor looks
much like one that is steeper."""

import dataclasses

import numpy as np
from scipy import optimize, stats

LEVEL = 0.95
LOWEST, HIGHEST = -2.0, 5.0  # exponents looked at
GRID = np.concatenate([-np.geomspace(-LOWEST, 1e-3, 80), np.geomspace(1e-3, HIGHEST, 400)])
NO_FREEDOM = "as many points as parameters and one seed each: nothing tells noise from the law"


@dataclasses.dataclass(frozen=True)
class Noise:
    """What is known of the noise of N points' log scores. seeds_N: runs that each is the mean of.
    variance, freedom: of one run between seeds, as estimated with so many degrees of freedom (0: one seed
    each). documents_NxN: covariance under resampled documents; documents: how many those are worth."""

    seeds_N: np.ndarray
    variance: float
    freedom: int
    documents_NxN: np.ndarray
    documents: float


def between_seeds(scores: list) -> tuple[float, int]:
    """(variance of the log score of one run, degrees of freedom) of scores of the seeds of some points, one
    list a point."""
    squares = sum(float(np.square(np.asarray(s) / np.mean(s) - 1).sum()) for s in scores)
    freedom = sum(len(s) - 1 for s in scores)
    return (squares / freedom if freedom else 0.0), freedom


def of(flops, bpb, floor: bool, noise: Noise, level: float = LEVEL) -> dict:
    """{"low", "high", "freedom" (of the runs' noise), "why" (there is none)} of the alpha of bpb = E +
    A·C^-alpha. floor: whether E is free (0 or more), or 0. An end that the points do not bound is None."""
    x = np.log(np.asarray(flops, np.float64))
    weight = np.asarray(noise.seeds_N, np.float64)
    law = _Law(x - np.average(x, weights=weight), np.asarray(bpb, np.float64), weight, floor)
    points, parameters = len(x), 3 if floor else 2
    freedom = noise.freedom + points - parameters
    if freedom < 1:
        return dict(low=None, high=None, freedom=0, why=NO_FREEDOM)
    best = law.best()
    left = float(law.left(best))
    own = (noise.freedom * noise.variance + left) / freedom
    documents_NxN = np.sqrt(weight)[:, None] * noise.documents_NxN * np.sqrt(weight)
    *held, free = (_shared(jacobian, documents_NxN) for jacobian in law.jacobians(best))
    t = lambda f: float(stats.t.ppf((1 + level) / 2, f))
    more = lambda shared: t(freedom) ** 2 * own + t(max(1.0, noise.documents - 1)) ** 2 * shared
    low, high = law.within(best, left + more(free))
    if held and (low is None or law.rest(low)[0] <= 0):  # E is held at 0 there, and other noise moves alpha
        low, high = law.within(best, left + more(max(free, *held)))
    return dict(low=low, high=high, freedom=freedom, why="")


def _shared(jacobian, documents_NxN) -> float:
    """Variance of the documents' noise in the direction that alpha (the last column) is read from, less what
    of it is left about the fit."""
    inverse = np.linalg.pinv(jacobian)
    reads = inverse[-1] / np.linalg.norm(inverse[-1])
    points, parameters = jacobian.shape
    aside = np.trace(documents_NxN - jacobian @ (inverse @ documents_NxN)) / max(1, points - parameters)
    return max(0.0, float(reads @ documents_NxN @ reads - aside))


class _Law:
    """The law's fit by weighted least squares of relative residuals, as a function of its exponent. x_N: log
    FLOPs, centred."""

    def __init__(self, x_N, bpb_N, weight_N, floor: bool):
        self.x_N, self.bpb_N, self.weight_N, self.floor = x_N, bpb_N, weight_N, floor

    def rest(self, alpha_):
        """(E, A) that go best with exponents of any shape, both at least 0."""
        alpha_x1 = np.asarray(alpha_, np.float64)[..., None]
        if not self.floor:  # by logarithms, as the line is fitted
            log_a = np.average(np.log(self.bpb_N) + alpha_x1 * self.x_N, axis=-1, weights=self.weight_N)
            return np.zeros_like(log_a), np.exp(log_a)
        one_N, power_xN = 1 / self.bpb_N, np.exp(-alpha_x1 * self.x_N) / self.bpb_N
        total = lambda values: (self.weight_N * values).sum(-1)
        ee, ea, aa = total(one_N * one_N), total(one_N * power_xN), total(power_xN * power_xN)
        e1, a1 = total(one_N), total(power_xN)
        determinant = ee * aa - ea * ea
        e, a = (e1 * aa - a1 * ea) / determinant, (a1 * ee - e1 * ea) / determinant
        e, a = np.where(a < 0, e1 / ee, e), np.maximum(a, 0.0)
        return np.maximum(e, 0.0), np.where(e < 0, a1 / aa, a)

    def left(self, alpha_):
        """Sum of squared residuals at exponents of any shape."""
        e, a = self.rest(alpha_)
        power_xN = np.exp(-np.asarray(alpha_, np.float64)[..., None] * self.x_N)
        share_xN = (e[..., None] + a[..., None] * power_xN) / self.bpb_N
        return (self.weight_N * np.square(share_xN - 1 if self.floor else np.log(share_xN))).sum(-1)

    def best(self) -> float:
        if not self.floor:
            moments = self.weight_N * self.x_N
            return float(-moments @ np.log(self.bpb_N) / (moments @ self.x_N))
        at = int(np.argmin(self.left(GRID)))
        ends = GRID[max(0, at - 1)], GRID[min(len(GRID) - 1, at + 1)]
        found = optimize.minimize_scalar(self.left, bounds=ends, method="bounded", options={"xatol": 1e-12})
        return float(found.x)

    def jacobians(self, alpha: float) -> list:
        """Of log scores over (A, alpha), and with a floor over (E, A, alpha): weighted, [N, 2] and [N, 3]."""
        e, a = self.rest(alpha)
        power_N = np.exp(-alpha * self.x_N)
        columns = np.stack([np.ones_like(power_N), power_N, -a * power_N * self.x_N], 1)
        columns *= np.sqrt(self.weight_N)[:, None] / (e + a * power_N)[:, None]
        return [columns[:, 1:], columns] if self.floor else [columns[:, 1:]]

    def within(self, best: float, most: float):
        """(low, high): the exponents farthest from the best that leave no more than `most`; None for an end
        at which what is looked at ends first."""
        if not self.floor:
            half = float(np.sqrt(max(0.0, most - self.left(best)) / (self.weight_N @ np.square(self.x_N))))
            return best - half, best + half
        return tuple(self._end(best, side, most) for side in (GRID[GRID < best][::-1], GRID[GRID > best]))

    def _end(self, best: float, side, most: float):
        """One end, among the exponents of `side`, which lead away from the best."""
        inside = np.flatnonzero(self.left(side) <= most)
        if len(inside) and inside[-1] == len(side) - 1:
            return None
        nearer, farther = [best, *side][inside[-1] + 1 if len(inside) else 0], side[
            inside[-1] + 1 if len(inside) else 0
        ]
        more = lambda alpha: float(self.left(alpha)) - most
        return float(optimize.brentq(more, nearer, farther)) if more(nearer) < 0 else float(nearer)
