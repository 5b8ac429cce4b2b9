"""Identifiability: what runs cannot tell, and why, said before anybody reads a number that means nothing.

A law with more parameters than runs, a variable with too few values, and runs that all lie on one line of log
variables (the same tokens per parameter, as on a compute-optimal line: arXiv 2605.08541) are refused. A
coefficient that the best fit drives to 0, and an exponent at the end of what is looked at, are not
identified: their name comes with the reason instead of a value."""

import numpy as np

from bltjax.science.fit_runs import Runs
from bltjax.science.formula import Formula

TINY, HUGE = 1e-100, 1e100  # losses beyond leave the range of float64 when they are squared
OFF_LINE = 0.05  # runs this close (standard deviation of logs) to a line are on it
VALUES = 3  # that a variable must have: one for its coefficient, one for its exponent, one for E
ZERO = 1e-3  # of the smallest loss: a term that is less in every run is nothing


class NotIdentified(ValueError):
    """These runs do not tell the parameters of this law; the message says why."""


def refuse(formula: Formula, runs: Runs):
    """Raises NotIdentified for runs that cannot tell the law's parameters whatever their losses are."""
    missing = [name for name in formula.variables if name not in runs.values]
    if missing:
        raise ValueError(f"{formula} needs {', '.join(missing)}; the runs have {', '.join(runs.values)}")
    parameters = len(formula.names)
    cells = len(np.unique(np.stack([runs.values[name] for name in formula.variables], 1), axis=0))
    if cells <= parameters:
        raise NotIdentified(
            f"{cells} different {'runs' if cells > 1 else 'run'} cannot tell the {parameters} parameters of"
            f" {formula} and leave a residual: it takes {parameters + 1}"
        )
    for name in formula.variables:
        different = len(np.unique(runs.values[name]))
        if different < VALUES:
            many = "values" if different > 1 else "value"
            raise NotIdentified(f"{name} has {different} {many} in these runs; an exponent takes {VALUES}")
    low, high = runs.loss_N.min(), runs.loss_N.max()
    if low < TINY or high > HUGE:
        raise NotIdentified(
            f"losses are from {low:.3g} to {high:.3g}, which cannot be worked with; scale them"
        )
    line = on_a_line(formula, runs)
    if line:
        raise NotIdentified(line)


def on_a_line(formula: Formula, runs: Runs) -> str:
    """Why the runs, all (nearly) on one line or plane of the logs of the variables, tell no law in them; ""
    where they are off it."""
    names = formula.variables
    if len(names) < 2:
        return ""
    log_NxV = np.log(np.stack([runs.values[name] for name in names], 1))
    _, spread, axes = np.linalg.svd(log_NxV - log_NxV.mean(0), full_matrices=False)
    off = spread[-1] / np.sqrt(len(runs))
    if off >= OFF_LINE:
        return ""
    relation = " · ".join(f"{name}^{power:.2f}" for name, power in zip(names, axes[-1] / axes[-1][-1]))
    return (
        f"all runs lie on one line, {relation} = constant within {100 * off:.1f}%: they cannot tell the terms"
        f" of {', '.join(names)} apart; add runs off that line"
    )


def lost(formula: Formula, at_centre_Q, logs: dict, smallest_loss: float) -> dict:
    """{parameter: why these runs do not identify it}, of a fit with parameters for centred logs of the runs.

    A term is zero where it is no part of any run's loss: a steep one may be small at the centre alone."""
    why, kinds = {}, len(formula.coefficients)
    at_centre_Q = np.asarray(at_centre_Q, np.float64)
    most_K = at_centre_Q[:kinds] * formula.columns(logs, at_centre_Q[kinds:]).max(-1)
    for name, most in zip(formula.coefficients, most_K):
        if most <= ZERO * smallest_loss:
            why[name] = f"{name} is not identified by these runs: the best fit drives it to zero"
    at, bounds = kinds, formula.bounds
    for term in formula.terms:
        for name in term.parameters:
            value, (low, high) = at_centre_Q[at], bounds[at]
            if why.get(term.coefficient, "").endswith("to zero"):
                why[name] = f"{name} is not identified by these runs: its term is zero"
            elif min(value - low, high - value) <= 1e-6 * (high - low):
                end = "lowest" if value - low < high - value else "highest"
                why[name] = (
                    f"{name} is not identified by these runs: the best fit drives it to {value:.2g}, the"
                    f" {end} that is looked at"
                )
                why.setdefault(
                    term.coefficient,
                    f"{term.coefficient} is not identified by these runs: it stands and falls with {name}",
                )
            at += 1
    return why
