"""The second opinion on a fit: log-sum-exp of log terms, L-BFGS from many starts, as Hoffmann et al. 2022
(and after them most of the field) fit L(N, D). Nothing of it is shared with variable projection but the
formula and the objective, so that a disagreement says that one of them has not found the lowest point."""

import dataclasses
import itertools

import numpy as np

from bltjax.science import lbfgs
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
    residuals best at each step. All starts step together."""
    if not all(isinstance(term, Power) for term in formula.terms) or not formula.constant:
        raise ValueError(f"log-sum-exp takes E and powers, not {formula}")
    centres, kinds = runs.centres, len(formula.coefficients)
    logs, loss_N = runs.logs(centres), runs.loss_N
    low, high = formula.bounds.T.copy()
    low[:kinds], high[:kinds] = LOWEST, np.log(loss_N.max()) + 3
    log_loss_N, ones = np.log(loss_N), np.ones(len(runs))

    def value(theta_RxQ):
        linear = np.concatenate([np.exp(theta_RxQ[:, :kinds]), theta_RxQ[:, kinds:]], -1)
        _, jacobian = formula.jacobian(logs, linear)
        columns = np.log(np.maximum(jacobian[:, :kinds], 1e-300))
        terms_RxKxN = theta_RxQ[:, :kinds, None] + columns
        top_RxN = terms_RxKxN.max(1)
        log_RxN = top_RxN + np.log(np.exp(terms_RxKxN - top_RxN[:, None]).sum(1))
        predicted = np.exp(log_RxN)
        residuals = log_RxN - log_loss_N if objective.of_logs else predicted - loss_N
        knee = objective.knee(residuals, ones)[:, None]
        pull = residuals if not objective.robust else np.clip(residuals, -knee, knee)
        if objective.name == "scaled_huber":
            pull = pull / (knee / objective.delta) ** 2
        by_log = pull * (1 if objective.of_logs else predicted)
        jacobian[:, :kinds] *= linear[:, :kinds, None]
        gradient = (jacobian * (by_log / predicted)[:, None]).sum(-1)
        return objective.value(residuals, ones), gradient

    begun = np.array(list(_starts(formula, logs, loss_N, starts, seed)))
    with np.errstate(over="ignore", invalid="ignore"):  # a step that is far too long is taken back
        found, reached = lbfgs.minimize(value, begun, low, high)
    first = int(np.nanargmin(reached))
    best, theta_Q = reached[first], found[first]
    agreeing = np.sum(reached <= best + 1e-4 * abs(best))
    at_centre = np.concatenate([np.exp(theta_Q[:kinds]), theta_Q[kinds:]])
    at_centre[:kinds][theta_Q[:kinds] <= LOWEST + 1e-6] = 0.0
    parameters = formula.in_units(at_centre, centres)
    named = {name: float(number) for name, number in zip(formula.names, parameters)}
    return Opinion(named, parameters, float(best), len(begun), int(agreeing))


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
