"""The second opinion on a fit: log-sum-exp of log terms, L-BFGS from many starts, as Hoffmann et al. 2022
(and after them most of the field) fit L(N, D). Nothing of it is shared with variable projection but the
formula and the objective, so that a disagreement says that one of them has not found the lowest point."""

import dataclasses
import itertools

import numpy as np
from scipy.optimize import minimize

from bltjax.science.fit_runs import Runs
from bltjax.science.formula import Formula, Power
from bltjax.science.objectives import Objective
from bltjax.science.parametric import Fit, predict

DISAGREE = 0.01
STARTS = 60
LOWEST = -20.0  # log of a term's part of the loss at the centre: below, it is nothing
EXPONENTS = (0.1, 0.3, 0.6, 1.2)
SHARES = (0.1, 0.5, 0.9)  # of E in the smallest loss


@dataclasses.dataclass(frozen=True)
class Opinion:
    """parameters: {name: value} in units; value: of the objective; agreeing: how many of `starts` came to
    it."""

    parameters: dict
    parameters_Q: np.ndarray
    value: float
    starts: int
    agreeing: int


def fit(
    formula: Formula, runs: Runs, objective: Objective = Objective(), starts: int = STARTS, seed: int = 0
):
    """The Opinion. Laws of powers alone, with an E; of the scaled likelihood the scale is the one that fits
    residuals best at each step; it takes a second a start, the others a twentieth of that."""
    if not all(isinstance(term, Power) for term in formula.terms) or not formula.constant:
        raise ValueError(f"log-sum-exp takes E and powers, not {formula}")
    centres, kinds = runs.centres, len(formula.coefficients)
    logs, loss_N = runs.logs(centres), runs.loss_N
    low, high = formula.bounds.T.copy()
    low[:kinds], high[:kinds] = LOWEST, np.log(loss_N.max()) + 3
    ones = np.ones(len(runs))

    def value(theta_Q):
        linear = np.concatenate([np.exp(theta_Q[:kinds]), theta_Q[kinds:]])
        columns = np.log(np.maximum(formula.columns(logs, linear[kinds:]), 1e-300))
        terms_KxN = theta_Q[:kinds, None] + columns
        top_N = terms_KxN.max(0)
        log_N = top_N + np.log(np.exp(terms_KxN - top_N).sum(0))
        predicted = np.exp(log_N)
        residuals = log_N - np.log(loss_N) if objective.of_logs else predicted - loss_N
        knee = objective.knee(residuals, ones)
        total = objective.value(residuals, ones)
        pull = residuals if not objective.robust else np.clip(residuals, -knee, knee)
        if objective.name == "scaled_huber":
            pull = pull / (knee / objective.delta) ** 2
        by_log = pull * (1 if objective.of_logs else predicted)
        _, jacobian = formula.jacobian(logs, linear)
        jacobian[:kinds] *= linear[:kinds, None]
        return total * unit, (jacobian / predicted) @ by_log * unit

    unit = 1.0
    found = []
    for start in _starts(formula, logs, loss_N, starts, seed):
        unit = 1.0
        unit = 1 / max(1e-300, abs(value(start)[0])) if objective.name != "scaled_huber" else 1.0
        for _ in range(3):  # a sum near 1, however small it gets: tolerances are absolute
            result = minimize(
                value,
                start,
                jac=True,
                method="L-BFGS-B",
                bounds=list(zip(low, high)),
                options=dict(maxiter=2000, maxfun=4000, ftol=1e-15, gtol=1e-10, maxcor=30),
            )
            start = result.x
            if objective.name == "scaled_huber":
                break
            unit /= max(1e-300, result.fun)
        reached = value(start)[0] / unit
        found.append((reached, start))
    found.sort(key=lambda pair: pair[0])
    best, theta_Q = found[0]
    agreeing = sum(other <= best + 1e-4 * abs(best) for other, _ in found)
    at_centre = np.concatenate([np.exp(theta_Q[:kinds]), theta_Q[kinds:]])
    at_centre[:kinds][theta_Q[:kinds] <= LOWEST + 1e-6] = 0.0
    parameters = formula.in_units(at_centre, centres)
    named = {name: float(number) for name, number in zip(formula.names, parameters)}
    return Opinion(named, parameters, float(best), len(found), int(agreeing))


def _starts(formula, logs, loss_N, starts, seed):
    """Of a grid over the share of E and every exponent, as many as are asked for, by chance."""
    each = [SHARES] + [EXPONENTS] * len(formula.exponents)
    every = list(itertools.product(*each))
    rng = np.random.default_rng(seed)
    for index in rng.permutation(len(every))[:starts]:
        share, *exponents = every[index]
        rest = np.log((loss_N.mean() - share * loss_N.min()) / len(formula.terms))
        yield np.array([np.log(share * loss_N.min()), *[rest] * len(formula.terms), *exponents])


def disagreement(fit: Fit, opinion: Opinion) -> str:
    """What the two say differently by more than 1%, in one sentence; "" where they agree. Parameters that the
    runs do not identify are not compared, what they predict for the runs is."""
    said = []
    for name, value in fit.parameters.items():
        other = opinion.parameters[name]
        if value is not None and abs(other - value) > DISAGREE * abs(value):
            said.append(f"{name} is {value:.5g} by variable projection and {other:.5g} by log-sum-exp")
    apart = np.abs(
        predict(fit.formula, opinion.parameters_Q, fit.runs.values) / fit.predict(**fit.runs.values) - 1
    )
    if apart.max() > DISAGREE:
        said.append(f"their predictions of the runs differ by up to {100 * apart.max():.2g}%")
    if not said:
        return ""
    better = "variable projection" if fit.value <= opinion.value else "log-sum-exp"
    return "; ".join(said) + f"; {better} has the lower objective ({fit.value:.6g} and {opinion.value:.6g})"
