"""Noise of scores, as far as it is known beside what a fit leaves of them: how seeds differ, and how test
documents move all runs together."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Noise:
    """Of N points' log scores. seeds_N: runs that each is the mean of. variance, freedom: of one run between
    seeds, as estimated with so many degrees of freedom (0: one seed each). documents_NxN: covariance under
    resampled documents; documents: how many those are worth."""

    seeds_N: np.ndarray
    variance: float
    freedom: int
    documents_NxN: np.ndarray
    documents: float


def of_scatter(points: int) -> Noise:
    """Nothing is known beside the scatter about the fit."""
    return Noise(np.ones(points), 0.0, 0, np.zeros((points, points)), 2.0)


def between_seeds(scores: list) -> tuple[float, int]:
    """(variance of the log score of one run, degrees of freedom) of scores of the seeds of some points, one
    list a point."""
    squares = sum(float(np.square(np.asarray(s) / np.mean(s) - 1).sum()) for s in scores)
    freedom = sum(len(s) - 1 for s in scores)
    return (squares / freedom if freedom else 0.0), freedom


def shared(jacobian_NxQ, documents_NxN) -> float:
    """Variance of the documents' noise in the direction that the last parameter is read from, less what of it
    is left about the fit, which is counted there."""
    inverse = np.linalg.pinv(jacobian_NxQ)
    reads = inverse[-1] / np.linalg.norm(inverse[-1])
    points, parameters = jacobian_NxQ.shape
    left = documents_NxN - jacobian_NxQ @ (inverse @ documents_NxN)
    return max(0.0, float(reads @ documents_NxN @ reads - np.trace(left) / max(1, points - parameters)))
