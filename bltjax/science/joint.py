"""Laws with the mean patch size T, from Compute Optimal Tokenization (Limisiewicz et al. 2026): its Law I
(the best bytes at a budget and T) and Law II (the lowest loss at a budget and T), and a joint law L(N, D, T)
of all runs at once, which it does not have.

N counts latent parameters, D bytes, and a latent sees T of them: C = 6·N·D/T. The joint law is a sum of
powers like any other, E + A/N^alpha + B/D^beta + F·T^gamma: what patches cost grows with their size. From it
follow Law I with a = b = alpha/(alpha + beta), and a best T that falls as a power of compute. `LOG_SQUARE`
has a parabola in log T instead, as Law II has."""

import dataclasses

import numpy as np

from bltjax.science import allocation, parametric
from bltjax.science.fit_runs import Runs
from bltjax.science.formula import Formula, LogSquare, Power
from bltjax.science.identifiability import NotIdentified
from bltjax.science.objectives import Objective

_SIZE, _DATA = Power("A", (("N", "alpha"),)), Power("B", (("D", "beta"),))
POWERS = Formula((_SIZE, _DATA, Power("F", (("T", "gamma"),), grows=True)))
LOG_SQUARE = Formula((_SIZE, _DATA, LogSquare("F", "T", "T0")))
LAW_TWO = Formula((Power("A", (("C", "g"),)), LogSquare("F", "T", "T0", ("C", "d"))))
LATENT_FLOPS = 6.0  # per parameter and latent
SIZES = np.geomspace(1.0, 64.0, 2001)  # patch sizes that are looked at for the best


@dataclasses.dataclass(frozen=True)
class Product:
    """value = coefficient · C^c · T^t, fitted to optima by least squares of logs (Law I)."""

    coefficient: float
    c: float
    t: float

    def at(self, flops, patch):
        return (
            self.coefficient
            * np.asarray(flops, np.float64) ** self.c
            * np.asarray(patch, np.float64) ** self.t
        )


def law_one(flops_M, patch_M, best_M) -> Product:
    """Law I of the best bytes (or size) at M pairs of budget and patch size."""
    logs = np.log(np.stack([flops_M, patch_M], 1))
    centre = logs.mean(0)
    design = np.concatenate([np.ones((len(logs), 1)), logs - centre], 1)
    if np.linalg.matrix_rank(design, tol=1e-6 * np.sqrt(len(logs))) < 3:
        raise NotIdentified("these optima are on one line of budget and patch size: they do not tell Law I")
    level, c, t = np.linalg.lstsq(design, np.log(best_M), rcond=None)[0]
    return Product(float(np.exp(level - centre @ [c, t])), float(c), float(t))


def law_two(runs: Runs, objective: Objective = Objective("log_least_squares")) -> parametric.Fit:
    """Law II of the lowest losses at pairs of budget C and patch size T: L0·C^-g + F·log²(C^d T/T0) + E."""
    return parametric.fit(LAW_TWO, runs, objective)


def best(formula: Formula, parameters, flops, patch, per_latent: float = LATENT_FLOPS):
    """(N*, D*) at FLOPs and a patch size, of parameters [..., Q] in units; D in bytes. per_latent: FLOPs of a
    run per parameter and latent."""
    per_pair = per_latent / np.asarray(patch, np.float64)
    return allocation.best(formula, parameters, flops, per_pair=per_pair)


def lowest(formula: Formula, parameters, flops, patch, per_latent: float = LATENT_FLOPS):
    """The loss there; nan where the best size or data is 0 or infinite, as of a law without a trade-off."""
    n, d = best(formula, parameters, flops, patch, per_latent)
    possible = (n > 0) & (d > 0) & np.isfinite(n) & np.isfinite(d)
    n, d = np.where(possible, n, np.nan), np.where(possible, d, np.nan)
    parameters = np.asarray(parameters, np.float64)
    shape = np.broadcast_shapes(n.shape, np.shape(patch))
    logs = {"N": np.log(n), "D": np.log(d), "T": np.log(np.asarray(patch, np.float64))}
    logs = {name: np.broadcast_to(value, shape)[..., None] for name, value in logs.items()}
    total = parameters[..., 0] if formula.constant else 0.0
    kinds = len(formula.coefficients)
    for k, (term, theta) in enumerate(
        zip(formula.terms, formula.split(parameters[..., kinds:])), int(formula.constant)
    ):
        z_xP = np.concatenate([logs[v] for v in term.variables], -1)
        if isinstance(term, Power):
            total = total + parameters[..., k] * np.exp((1 if term.grows else -1) * (z_xP * theta).sum(-1))
        else:
            total = total + parameters[..., k] * np.square(z_xP[..., 0] - theta[..., 0])
    return total


def frontier(formula: Formula, parameters, patch: float, per_latent: float = LATENT_FLOPS):
    """(E, A, alpha) [..., 3] of the lowest loss at each budget at one patch size, E + A/C^alpha."""
    found = allocation.frontier(formula, parameters, per_pair=per_latent / patch)
    names, log_T = formula.names, np.log(patch)
    parameters = np.asarray(parameters, np.float64)
    at = lambda name: parameters[..., names.index(name)]
    for term in formula.terms:
        if term.variables == ("T",):
            theta = at(term.parameters[0])
            column = np.square(log_T - theta)
            if isinstance(term, Power):
                column = np.exp((1 if term.grows else -1) * theta * log_T)
            found[..., 0] += at(term.coefficient) * column
    return found


def best_patch(formula: Formula, parameters, flops: float, per_latent: float = LATENT_FLOPS):
    """T* at a budget, [...]; nan where it is at an end of what is looked at (1 to 64 bytes)."""
    parameters = np.asarray(parameters, np.float64)
    losses = lowest(formula, parameters[..., None, :], flops, SIZES, per_latent)
    at = np.where(np.isnan(losses), np.inf, losses).argmin(-1)
    return np.where((at > 0) & (at < len(SIZES) - 1), SIZES[at], np.nan)


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """How well runs of the largest budget are predicted from the others. errors: root mean square of log loss
    of each law, all over the same runs; runs: how many; why: what separate laws could not be fitted, and so
    is in no error (all runs are, where none could)."""

    errors: dict
    runs: int
    budget: float
    why: str = ""

    @property
    def trusts(self) -> str:
        return min(self.errors, key=self.errors.get)


def held_out(
    runs: Runs,
    flops_N,
    objective: Objective = Objective(),
    separate: Formula = Formula((_SIZE, _DATA)),
    patches_N=None,
) -> HeldOut:
    """The joint laws and the separate ones (one L(N, D) for each patch size) on the largest budget.

    flops_N: each run's budget; runs of one budget have the same number. patches_N: the same of patch sizes,
    where realized ones differ a little (default: T as it is). Raises NotIdentified where the smaller budgets
    do not tell a joint law."""
    flops_N = np.asarray(flops_N, np.float64)
    last = flops_N == flops_N.max()
    seen, unseen = runs.only(~last, "held out"), runs.only(last, "seen")
    patches_N = runs.values["T"] if patches_N is None else np.asarray(patches_N, np.float64)
    of_seen, of_unseen = patches_N[~last], patches_N[last]
    predicted = {}
    for name, formula in {"joint, powers": POWERS, "joint, log square": LOG_SQUARE}.items():
        predicted[name] = parametric.fit(formula, seen, objective).predict(**unseen.values)
    alone, reasons = np.full(len(unseen), np.nan), []
    for patch in np.unique(of_unseen):
        try:
            fitted = parametric.fit(separate, seen.only(of_seen == patch, "another patch size"), objective)
        except NotIdentified as error:
            reasons.append(f"T {patch:.3g}: {error}")
            continue
        those = of_unseen == patch
        alone[those] = fitted.predict(**{n: unseen.values[n][those] for n in separate.variables})
    told = np.isfinite(alone)
    if told.any():
        predicted["separate"] = alone
    else:
        told[:] = True
    errors = {name: _error(values[told], unseen.loss_N[told]) for name, values in predicted.items()}
    return HeldOut(errors, int(told.sum()), float(flops_N.max()), "; ".join(reasons))


def _error(predicted, loss) -> float:
    return float(np.sqrt(np.square(np.log(predicted / loss)).mean()))
