"""L-BFGS of many starts at once: it comes to what SciPy's comes to, within bounds and on kinks."""

import numpy as np
import pytest
from scipy import optimize

from bltjax.science import lbfgs

FREE = np.full(4, -np.inf), np.full(4, np.inf)


def rosenbrock(x_RxQ):
    return (np.array([optimize.rosen(x) for x in x_RxQ]), np.array([optimize.rosen_der(x) for x in x_RxQ]))


def test_every_start_comes_down_a_bent_valley_alone_and_together():
    starts = np.random.default_rng(0).normal(1, 0.5, (6, 4))
    found, value = lbfgs.minimize(rosenbrock, starts, *FREE)
    assert found == pytest.approx(np.ones((6, 4)), abs=1e-6) and (value < 1e-12).all()
    for start, together in zip(starts, found):
        alone, _ = lbfgs.minimize(rosenbrock, start[None], *FREE)
        assert alone[0] == pytest.approx(together, abs=1e-6)


def test_bounds_hold_as_in_scipy():
    rng = np.random.default_rng(1)
    for _ in range(20):
        root = rng.normal(size=(4, 4))
        curve, centre = root @ root.T + 0.1 * np.eye(4), rng.normal(0, 2, 4)
        value = lambda x: (np.einsum("rq,qp,rp->r", x - centre, curve, x - centre) / 2, (x - centre) @ curve)
        low, high = np.full(4, -1.0), np.full(4, 1.0)
        found, reached = lbfgs.minimize(value, rng.uniform(-3, 3, (3, 4)), low, high)
        exact = optimize.lsq_linear(
            np.linalg.cholesky(curve).T, np.linalg.cholesky(curve).T @ centre, (low, high), tol=1e-14
        )
        assert ((found >= low) & (found <= high)).all()
        assert found == pytest.approx(np.tile(exact.x, (3, 1)), abs=1e-5)
        assert reached == pytest.approx(np.full(3, exact.cost), rel=1e-9)


def test_a_line_of_least_absolute_deviations():
    rng = np.random.default_rng(2)
    x, noise = rng.normal(size=30), rng.standard_t(2, 30)
    y = 3 * x - 1 + noise
    knee = 1e-6

    def value(theta_Rx2):
        left = theta_Rx2[:, :1] * x + theta_Rx2[:, 1:] - y
        size = np.abs(left)
        huber = np.where(size <= knee, left**2 / 2, knee * (size - knee / 2)).sum(-1)
        pull = np.clip(left, -knee, knee)
        return huber, np.stack([(pull * x).sum(-1), pull.sum(-1)], -1)

    found, _ = lbfgs.minimize(value, rng.normal(size=(4, 2)), np.full(2, -9.0), np.full(2, 9.0))
    exact = optimize.linprog(  # slope and level, and what is left above and below
        np.concatenate([np.zeros(2), np.ones(60)]),
        A_eq=np.concatenate([x[:, None], np.ones((30, 1)), np.eye(30), -np.eye(30)], 1),
        b_eq=y,
        bounds=[(None, None)] * 2 + [(0, None)] * 60,
    )
    assert np.abs(found - exact.x[:2]).max() < 1e-3


def test_a_start_that_cannot_be_left_stays():
    flat = lambda x: (np.ones(len(x)), np.zeros_like(x))
    start = np.array([[1.0, 2, 3, 4]])
    found, value = lbfgs.minimize(flat, start, *FREE)
    assert (found == start).all() and value[0] == 1.0
