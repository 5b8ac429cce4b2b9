"""Runs that follow a law that is known, with as much noise as is asked for."""

import numpy as np

from bltjax.science import fit_runs, joint, parametric
from bltjax.science.formula import CHINCHILLA, COMPUTE, sum_of_powers
from bltjax.science.objectives import Objective

CHINCHILLA_LAW = np.array([1.69, 406.4, 410.7, 0.34, 0.28])  # E, A, B, alpha, beta: Hoffmann et al. 2022


LOGS = Objective("log_least_squares")


def grid(**axes) -> dict:
    """{variable: [N]}: all combinations."""
    return {name: axis.ravel() for name, axis in zip(axes, np.meshgrid(*axes.values(), indexing="ij"))}


SIZES_AND_DATA = grid(N=np.geomspace(1e7, 1e9, 5), D=np.geomspace(2e8, 2e10, 5))


UNITS = dict(N="parameters", D="tokens", C="FLOPs", T="bytes per patch", loss="nats per token")


def planted(formula, law, values, noise=0.0, seed=0) -> fit_runs.Runs:
    rng = np.random.default_rng(seed)
    loss = parametric.predict(formula, np.asarray(law, np.float64), values)
    loss = loss * np.exp(rng.normal(0, noise, loss.shape) if noise else 0.0)
    return fit_runs.of(values, loss, {name: UNITS.get(name, "ones") for name in (*values, "loss")})


FOUR = sum_of_powers("NDWV")


LAWS = {
    "compute": (COMPUTE, [1.7, 1.7e3, 0.17], dict(C=np.geomspace(1e17, 1e22, 8))),
    "chinchilla": (CHINCHILLA, CHINCHILLA_LAW, SIZES_AND_DATA),
    "four variables": (
        FOUR,
        [1.0, 400.0, 400.0, 3.0, 20.0, 0.34, 0.28, 0.5, 0.7],
        grid(
            N=np.geomspace(1e7, 1e9, 4),
            D=np.geomspace(2e8, 2e10, 4),
            W=np.geomspace(2, 60, 4),
            V=np.geomspace(500, 1e5, 4),
        ),
    ),
    "joint": (
        joint.POWERS,
        [1.0, 406.4, 410.7, 0.05, 0.34, 0.28, 0.8],
        grid(N=np.geomspace(1e7, 1e9, 4), D=np.geomspace(2e8, 2e10, 4), T=np.array([2, 3, 4.5, 6, 8.0])),
    ),
    "joint, log square": (
        joint.LOG_SQUARE,
        [1.0, 406.4, 410.7, 0.05, 0.34, 0.28, np.log(3.0)],
        grid(N=np.geomspace(1e7, 1e9, 4), D=np.geomspace(2e8, 2e10, 4), T=np.array([2, 3, 4.5, 6, 8.0])),
    ),
    "law two": (
        joint.LAW_TWO,
        [0.6, 4e3, 0.05, 0.206, np.log(18.2), 0.035],
        grid(C=np.geomspace(5e18, 2e21, 6), T=np.array([1, 2, 3, 4.5, 6, 8, 12.0])),
    ),
}
