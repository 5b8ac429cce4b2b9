"""Compute-optimal allocation: the best split of a budget between size and data, of a law
L = E + A/N^alpha + B/D^beta + whatever else.

Training of N parameters on D units of data costs per_pair · N · D FLOPs (6 for dense tokens; 6/T where D
counts bytes and a latent sees T of them). Then N* and D* are power laws in FLOPs (Hoffmann et al. 2022,
Eq. 4) and so is what is above E: the frontier, a law of compute alone. All functions take parameters of any
shape [..., Q] in units, in the order of formula.names, so that they serve draws."""

import numpy as np

from bltjax.science.formula import Formula

PER_PAIR = 6.0


def _terms(formula: Formula, parameters, size: str, data: str):
    """(A, alpha, B, beta) of the two terms that are of one variable each."""
    names = {term.variables: term for term in formula.terms if not getattr(term, "grows", False)}
    if (size,) not in names or (data,) not in names:
        raise ValueError(f"{formula} has no separate terms of {size} and {data}")
    parameters = np.asarray(parameters, np.float64)
    at = lambda name: parameters[..., formula.names.index(name)]
    return [at(name) for v in (size, data) for name in (names[(v,)].coefficient, names[(v,)].parameters[0])]


def exponents(formula: Formula, parameters, size: str = "N", data: str = "D"):
    """(a, b) of N* ~ C^a and D* ~ C^b: a = beta / (alpha + beta)."""
    _, alpha, _, beta = _terms(formula, parameters, size, data)
    return beta / (alpha + beta), alpha / (alpha + beta)


def best(formula: Formula, parameters, flops, size: str = "N", data: str = "D", per_pair=PER_PAIR):
    """(N*, D*) at FLOPs that broadcast with the parameters' leading shape."""
    a_, alpha, b_, beta = _terms(formula, parameters, size, data)
    pairs = np.asarray(flops, np.float64) / per_pair
    with np.errstate(divide="ignore", invalid="ignore"):
        log_g = (np.log(alpha * a_) - np.log(beta * b_)) / (alpha + beta)
        log_n = log_g + beta / (alpha + beta) * np.log(pairs)
        return np.exp(log_n), np.exp(np.log(pairs) - log_n)


def ratio(formula: Formula, parameters, flops, size: str = "N", data: str = "D", per_pair=PER_PAIR):
    """Data per parameter, D*/N*."""
    n, d = best(formula, parameters, flops, size, data, per_pair)
    return d / n


def frontier(formula: Formula, parameters, size: str = "N", data: str = "D", per_pair=PER_PAIR):
    """(E, A, alpha) [..., 3] of the lowest loss at each budget, E + A/C^alpha: a fit in compute alone."""
    a_, alpha, b_, beta = _terms(formula, parameters, size, data)
    n, d = best(formula, parameters, 1.0, size, data, per_pair)
    power = alpha * beta / (alpha + beta)
    floor = (
        np.asarray(parameters, np.float64)[..., formula.names.index("E")] if formula.constant else 0.0 * power
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.stack([floor, a_ * n**-alpha + b_ * d**-beta, power], -1)
