"""Sums of power laws, L = E + A / x^alpha + B / z^beta + ..., in any number of variables.

Chinchilla's L(N, D) (Hoffmann et al. 2022, Eq. 10), L(C) = E + A / C^alpha, a law of width, depth and tokens
(Gemstones, McLeish et al. 2025) and a joint law of size, data and mean patch size are each a tuple of terms.
A law is linear in its coefficients, which are never negative, and not in its exponents: what fits it needs
only the terms' values and slopes. Variables are handed over as logs less the log of a centre, so that every
number is near 1; `in_units` goes back."""

import dataclasses
import itertools

import numpy as np

STEEPEST = 3.0  # exponents that are looked at
FLATTEST = 0.01
CELLS = 6_000  # of a grid over all exponents of a law, at most
DENSE = 80  # exponents of one parameter: neighbours differ by 7%, and a descent follows


@dataclasses.dataclass(frozen=True)
class Power:
    """coefficient / (variable^exponent · ...), or times it where the loss grows with the variable.

    powers: (variable, name of its exponent) pairs. Exponents are positive either way."""

    coefficient: str
    powers: tuple
    grows: bool = False
    steepest: float = STEEPEST

    @property
    def parameters(self) -> tuple:
        return tuple(name for _, name in self.powers)

    @property
    def variables(self) -> tuple:
        return tuple(variable for variable, _ in self.powers)

    @property
    def bounds(self):
        return [(FLATTEST, self.steepest)] * len(self.powers)

    def grid(self, points: int):
        """Parameters to try: [G, parameters], at most `points` of them."""
        each = max(3, round(points ** (1 / len(self.powers))))
        one = np.geomspace(FLATTEST, self.steepest, each)
        return np.array(list(itertools.product(one, repeat=len(self.powers))))

    def _sign(self) -> float:
        return 1.0 if self.grows else -1.0

    def column(self, logs: dict, theta_xP):
        """The term with coefficient 1: [..., N]. logs: {variable: [N] log less the log of its centre}."""
        z_PxN = np.stack([logs[variable] for variable in self.variables])
        return np.exp(self._sign() * (theta_xP @ z_PxN))

    def slopes(self, logs: dict, theta_xP, column_xN):
        """Derivatives of the column by its parameters: [..., P, N]."""
        z_PxN = np.stack([logs[variable] for variable in self.variables])
        return self._sign() * z_PxN * column_xN[..., None, :]

    def in_units(self, coefficient, theta_xP, centres: dict):
        """(coefficient, parameters) for variables in their own units, of those for centred logs."""
        shift = theta_xP @ np.log([centres[variable] for variable in self.variables])
        return coefficient * np.exp(-self._sign() * shift), theta_xP

    def __str__(self):
        product = "·".join(f"{variable}^{name}" for variable, name in self.powers)
        if self.grows:
            return f"{self.coefficient}·{product}"
        return f"{self.coefficient}/{product if len(self.powers) == 1 else '(' + product + ')'}"


@dataclasses.dataclass(frozen=True)
class LogSquare:
    """coefficient · log²(x · drifts^exponent / centre): a parabola in log x whose lowest point may drift with
    a second variable (Law II of Compute Optimal Tokenization, Limisiewicz et al. 2026).

    Parameters: the log of the centre, and the exponent of the drift where there is one."""

    coefficient: str
    variable: str
    centre: str
    drifts: tuple = ()  # (variable, name of its exponent), or nothing
    widest: float = 4.0  # how far from the runs' centre the lowest point may be, in natural logs
    fastest: float = 0.5

    @property
    def parameters(self) -> tuple:
        return (f"log {self.centre}", *self.drifts[1:])

    @property
    def variables(self) -> tuple:
        return (self.variable, *self.drifts[:1])

    @property
    def bounds(self):
        return [(-self.widest, self.widest), (-self.fastest, self.fastest)][: len(self.parameters)]

    def grid(self, points: int):
        each = max(5, round(points ** (1 / len(self.parameters))))
        return np.array(list(itertools.product(*(np.linspace(*bound, each) for bound in self.bounds))))

    def _distance(self, logs, theta_xP):
        distance = logs[self.variable] - theta_xP[..., :1]
        return distance + theta_xP[..., 1:2] * logs[self.drifts[0]] if self.drifts else distance

    def column(self, logs: dict, theta_xP):
        return np.square(self._distance(logs, theta_xP))

    def slopes(self, logs: dict, theta_xP, column_xN):
        distance = self._distance(logs, theta_xP)
        found = [-2 * distance]
        if self.drifts:
            found.append(2 * distance * logs[self.drifts[0]])
        return np.stack(found, -2)

    def in_units(self, coefficient, theta_xP, centres: dict):
        theta_xP = np.array(theta_xP, np.float64)
        theta_xP[..., 0] += np.log(centres[self.variable])
        if self.drifts:
            theta_xP[..., 0] += theta_xP[..., 1] * np.log(centres[self.drifts[0]])
        return coefficient, theta_xP

    def __str__(self):
        drift = f"·{self.drifts[0]}^{self.drifts[1]}" if self.drifts else ""
        return f"{self.coefficient}·log²({self.variable}{drift}/{self.centre})"


@dataclasses.dataclass(frozen=True)
class Formula:
    """E plus terms; no two terms share a parameter. constant: whether there is an E (named so)."""

    terms: tuple
    constant: bool = True

    @property
    def coefficients(self) -> tuple:
        return (("E",) if self.constant else ()) + tuple(term.coefficient for term in self.terms)

    @property
    def exponents(self) -> tuple:
        return tuple(name for term in self.terms for name in term.parameters)

    @property
    def names(self) -> tuple:
        """Of all parameters, in the order of every array of parameters: coefficients, then exponents."""
        return self.coefficients + self.exponents

    @property
    def variables(self) -> tuple:
        return tuple(dict.fromkeys(name for term in self.terms for name in term.variables))

    @property
    def bounds(self):
        """[parameters, 2]: coefficients from 0 on, exponents as their terms say."""
        rest = [bound for term in self.terms for bound in term.bounds]
        return np.array([(0.0, np.inf)] * len(self.coefficients) + rest, np.float64)

    def split(self, theta_xP):
        """The exponents of each term, from those of all: a list of [..., parameters of the term]."""
        found, at = [], 0
        for term in self.terms:
            found.append(theta_xP[..., at : at + len(term.parameters)])
            at += len(term.parameters)
        return found

    def columns(self, logs: dict, theta_xP):
        """What the coefficients multiply: [..., coefficients, N]."""
        found = [term.column(logs, theta) for term, theta in zip(self.terms, self.split(theta_xP))]
        if self.constant:
            found.insert(0, np.ones_like(found[0]))
        return np.stack(found, -2)

    def jacobian(self, logs: dict, parameters_xQ):
        """(values [..., N], derivatives by all parameters [..., Q, N])."""
        kinds = len(self.coefficients)
        linear_xK, theta_xP = parameters_xQ[..., :kinds], parameters_xQ[..., kinds:]
        columns = self.columns(logs, theta_xP)
        slopes = [
            linear_xK[..., k, None, None] * term.slopes(logs, theta, columns[..., k, :])
            for k, (term, theta) in enumerate(zip(self.terms, self.split(theta_xP)), int(self.constant))
        ]
        return (linear_xK[..., None] * columns).sum(-2), np.concatenate([columns, *slopes], -2)

    def values(self, logs: dict, parameters_xQ):
        kinds = len(self.coefficients)
        columns = self.columns(logs, parameters_xQ[..., kinds:])
        return (parameters_xQ[..., :kinds, None] * columns).sum(-2)

    def in_units(self, parameters_xQ, centres: dict):
        """Parameters of variables in their own units, of those of centred logs: [..., Q]."""
        found = np.array(parameters_xQ, np.float64)
        at = len(self.coefficients)
        for k, term in enumerate(self.terms, int(self.constant)):
            those = slice(at, at + len(term.parameters))
            found[..., k], found[..., those] = term.in_units(found[..., k], found[..., those], centres)
            at += len(term.parameters)
        return found

    def grids(self) -> list:
        """A grid of parameters for each term, so that all combinations are at most CELLS."""
        dimensions = len(self.exponents)
        each = min(DENSE, CELLS ** (1 / dimensions))
        return [term.grid(round(each ** len(term.parameters))) for term in self.terms]

    def __str__(self):
        return " + ".join((["E"] if self.constant else []) + [str(term) for term in self.terms])


COMPUTE = Formula((Power("A", (("C", "alpha"),)),))
CHINCHILLA = Formula((Power("A", (("N", "alpha"),)), Power("B", (("D", "beta"),))))


def sum_of_powers(variables) -> Formula:
    """E + A/x^alpha + B/z^beta + ... for up to four named variables."""
    names = list(zip("ABFG", ("alpha", "beta", "gamma", "delta")))
    if not 0 < len(variables) <= len(names):
        raise ValueError(f"a law takes 1 to {len(names)} variables, not {len(variables)}")
    return Formula(tuple(Power(c, ((v, e),)) for v, (c, e) in zip(variables, names)))


def named(formula: Formula, parameters_Q) -> dict:
    """{name of a parameter: value} of an array of all."""
    return {name: float(value) for name, value in zip(formula.names, parameters_Q)}
