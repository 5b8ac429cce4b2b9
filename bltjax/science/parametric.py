"""Chinchilla's approach 3, for any sum of power laws: all parameters at once, from all runs.

The grid of variable projection gives the starts, the objective that was asked for is minimized from the best
of them, and the result says what it was made of. Second opinion: `logsumexp`."""

import dataclasses

import numpy as np

from bltjax.science import identifiability, levenberg_marquardt, variable_projection
from bltjax.science.fit_runs import Runs
from bltjax.science.formula import Formula, named
from bltjax.science.objectives import Objective

STARTS = 64  # at most: so many lowest points of the grid; most laws have one or two


@dataclasses.dataclass(frozen=True)
class Fit:
    """at_centre_Q: parameters in the order of formula.names, of variables divided by `centres`. value: of the
    objective. not_identified: {parameter: why}. The runs bring units and what was dropped."""

    formula: Formula
    objective: Objective
    at_centre_Q: np.ndarray
    centres: dict
    value: float
    runs: Runs
    not_identified: dict

    @property
    def parameters(self) -> dict:
        """{name: value} with variables in their own units; None where it is not identified."""
        found = named(self.formula, self.formula.in_units(self.at_centre_Q, self.centres))
        return {name: None if name in self.not_identified else value for name, value in found.items()}

    @property
    def parameters_Q(self):
        """The same as an array, with what is not identified as the fit has it."""
        return self.formula.in_units(self.at_centre_Q, self.centres)

    @property
    def units(self) -> dict:
        return self.runs.units

    @property
    def dropped(self) -> tuple:
        return self.runs.dropped

    def predict(self, **values):
        """Loss at values of the variables, in the fit's units; of arrays too."""
        return predict(self.formula, self.parameters_Q, values)

    @property
    def residuals_N(self):
        """Of log loss, whatever the objective: log of the loss over what is predicted."""
        return np.log(self.runs.loss_N / self.predict(**self.runs.values))

    def extrapolates(self, **values) -> str:
        """What of the values lies outside the runs, and by what factor; "" within them."""
        said = []
        for name, value in values.items():
            low, high = self.runs.ranges[name]
            factor = max(np.max(value) / high, low / np.min(value))
            if factor > 1.0001:
                said.append(f"{name} is {factor:.3g} times outside the runs")
        return "; ".join(said)

    def __str__(self):
        said = ", ".join(
            f"{name} {value:.6g}" if value is not None else f"{name} not identified"
            for name, value in self.parameters.items()
        )
        units = ", ".join(f"{name} in {unit}" for name, unit in self.units.items())
        return (
            f"{self.formula}: {said}; {self.objective}: {self.value:.9g}; {units}; {len(self.runs)} runs,"
            f" {len(self.dropped)} dropped"
        )


def predict(formula: Formula, parameters_xQ, values: dict):
    """Loss of parameters in units [..., Q] at values of the variables (numbers, or arrays [M]): [...] or
    [..., M]. Worked out about the values' centre, where every number is near 1."""
    arrays = np.broadcast_arrays(*(np.asarray(values[name], np.float64) for name in formula.variables))
    shape = arrays[0].shape
    logs = {name: np.log(array.reshape(-1)) for name, array in zip(formula.variables, arrays)}
    found = formula.values(logs, np.asarray(parameters_xQ, np.float64))
    return found.reshape((*found.shape[:-1], *shape))[()]


def fit(formula: Formula, runs: Runs, objective: Objective = Objective(), weights_N=None) -> Fit:
    """The law of these runs. Raises NotIdentified where they cannot tell it.

    weights_N: how often each run counts (1)."""
    identifiability.refuse(formula, runs)
    weights_N = np.ones(len(runs)) if weights_N is None else np.asarray(weights_N, np.float64)
    centres = runs.centres
    logs = runs.logs(centres)
    begun = variable_projection.starts(formula, logs, runs.loss_N, weights_N, objective.of_logs, STARTS)
    found, value = levenberg_marquardt.descend(formula, logs, runs.loss_N, weights_N, begun, objective)
    best = int(np.nanargmin(value))
    return Fit(
        formula,
        objective,
        found[best],
        {name: centres[name] for name in formula.variables},
        float(value[best]),
        runs,
        identifiability.lost(formula, found[best], logs, float(runs.loss_N.min())),
    )
