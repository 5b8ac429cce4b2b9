"""Influence of single runs on a fit, which its reader should be warned of: a few that make it what it is.

Each run is left out in turn, and the runs of the highest losses together (the five that Besiroglu et al. 2024
drop from the Chinchilla points move beta by .086). A run counts as influential where it alone moves a
parameter by more than the standard deviation that all other runs together give it (jackknife)."""

import dataclasses

import numpy as np

from bltjax.science import identifiability, levenberg_marquardt, parametric
from bltjax.science.parametric import Fit

LEAST = 1e-3  # relative move of a parameter: a smaller one is nobody's concern
INFLUENTIAL = 1.0  # standard deviations, as all other runs give them
TOGETHER = 0.02  # share of the runs, those of the highest losses, that are left out together
CHUNK = 500_000  # numbers in one array at a time
SHIFT = 1.0  # standard deviations, by which those move it


@dataclasses.dataclass(frozen=True)
class Influence:
    """rows_N; parameters_NxQ: of the fit without each run, in units; spread_Q: the parameters' standard
    deviation by the jackknife."""

    fit: Fit
    parameters_NxQ: np.ndarray
    spread_Q: np.ndarray

    def warnings(self) -> list:
        """One sentence an influential run and parameter (exponents and E), the strongest first, and one for
        the runs of the highest losses together."""
        names, rows = self.fit.formula.names, self.fit.runs.rows_N
        whole = self.fit.parameters_Q
        found = []
        for q, name in enumerate(names):
            if name in self.fit.not_identified or (name in self.fit.formula.coefficients and name != "E"):
                continue
            moved = self.parameters_NxQ[:, q] - whole[q]
            least = LEAST * abs(whole[q])
            others = np.sqrt(np.maximum(np.square(moved).sum() - np.square(moved), 1e-300))
            for n in np.flatnonzero(np.abs(moved) > np.maximum(INFLUENTIAL * others, least)):
                found.append((abs(moved[n]) / others[n], rows[n], name, moved[n], whole[q]))
        said = [
            f"run {row} is influential: without it {name} goes from {value:.4g} to {value + moved:.4g}"
            for _, row, name, moved, value in sorted(found, key=lambda entry: -entry[0])
        ]
        return said + highest_losses(self.fit)


def leave_one_out(fit: Fit) -> Influence:
    """The fits without each of the runs, all from the fit of all."""
    count = len(fit.runs)
    logs, loss_N = fit.runs.logs(fit.centres), fit.runs.loss_N
    found, chunk = [], max(1, CHUNK // (count * len(fit.at_centre_Q)))
    for first in range(0, count, chunk):
        out = np.arange(first, min(first + chunk, count))
        weights = np.ones((len(out), count))
        weights[np.arange(len(out)), out] = 0
        start = np.tile(fit.at_centre_Q, (len(out), 1))
        found.append(
            levenberg_marquardt.descend(
                fit.formula, logs, loss_N, weights, start, fit.objective, tight=levenberg_marquardt.LOOSE
            )[0]
        )
    parameters = fit.formula.in_units(np.concatenate(found), fit.centres)
    spread = np.sqrt((count - 1) / count * np.square(parameters - parameters.mean(0)).sum(0))
    return Influence(fit, parameters, np.maximum(spread, 1e-300))


def highest_losses(fit: Fit) -> list:
    """A sentence for each exponent (and E) that the runs of the highest losses, left out together, move by
    more than its standard deviation without them; [] where they move none."""
    count = max(1, round(TOGETHER * len(fit.runs)))
    try:
        less = parametric.fit(fit.formula, fit.runs.without_highest(count), fit.objective)
    except identifiability.NotIdentified:
        which = "run of the highest loss" if count == 1 else f"{count} runs of the highest losses"
        return [f"without the {which} the rest are too few to tell a law"]
    spread = leave_one_out(less).spread_Q
    said = []
    for q, name in enumerate(fit.formula.names):
        if name in fit.not_identified or (name in fit.formula.coefficients and name != "E"):
            continue
        before, after = fit.parameters_Q[q], less.parameters_Q[q]
        if abs(after - before) > max(SHIFT * spread[q], LEAST * abs(before)):
            which, them = (
                ("run of the highest loss is", "it")
                if count == 1
                else (f"{count} runs of the highest losses are", "them")
            )
            said.append(
                f"the {which} influential: without {them} {name} goes from"
                f" {before:.4g} to {after:.4g}, by {abs(after - before):.2g}"
            )
    return said
