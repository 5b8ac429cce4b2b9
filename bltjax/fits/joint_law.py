"""The joint law of size, data and mean patch size beside separate laws of each patch size: which predicts the
largest budget from the smaller ones, and what follows from it (Compute Optimal Tokenization's Laws I and II).
"""

import numpy as np

from bltjax.counts import counted
from bltjax.fits.approaches import Found, Settings, by_parametric, grouped
from bltjax.fits.source import Source
from bltjax.science import fit_bootstrap, fit_runs, isoflop, joint, parametric
from bltjax.science.fit_runs import Runs
from bltjax.science.identifiability import VALUES, NotIdentified

FEWEST_HELD_OUT = 4  # runs: the errors of fewer are chance
LAWS = {
    "joint, powers": "joint law, a power of T",
    "joint, log square": "joint law, a parabola in log T",
    "separate": "a law of each patch size",
}
SAME_PATCH = 1.1  # realized patch sizes less than a tenth apart are of one patch size


def patches(runs: Runs) -> np.ndarray:
    """Each run's patch size among its like: the geometric mean of those that are close to one another."""
    return isoflop.budgets(runs.values["T"], SAME_PATCH)


def several(runs: Runs) -> bool:
    """Whether runs have patch sizes from which a law could be told."""
    return "T" in runs.values and len(np.unique(patches(runs))) >= VALUES


def at_budgets(found: Found, budgets, per_latent: float) -> list:
    """[{"flops", "T", "T_interval", "share", "N", "D", "loss"}]: the best patch size at each budget, None
    where it is at an end of 1 to 64 bytes; share: of draws that have one."""
    formula, parameters = found.law.formula, found.law.parameters_Q
    if set(formula.variables) != {"N", "D", "T"} or not found.entry["identified"]["a"]:
        return []
    out = []
    for flops in budgets:
        patch = float(joint.best_patch(formula, parameters, flops, per_latent))
        drawn = fit_bootstrap.interval(
            joint.best_patch(formula, found.draws.parameters_RxQ, flops, per_latent)
        )
        one = dict(flops=flops, T=None, T_interval=[drawn.low, drawn.high], share=drawn.share)
        out.append(dict(one, N=None, D=None, loss=None))
        if np.isfinite(patch):
            n, d = joint.best(formula, parameters, flops, patch, per_latent)
            loss = float(joint.lowest(formula, parameters, flops, patch, per_latent))
            out[-1].update(T=patch, N=float(n), D=float(d), loss=loss)
    return out


def compared(source: Source, runs: Runs, settings: Settings) -> tuple[dict, list, list]:
    """({"separate", "held_out", "forms", "law_one", "law_two"}, findings, warnings) of runs with N, D and
    T."""
    patch_N, findings, warnings = patches(runs), [], []
    separate = []
    for patch in np.unique(patch_N):
        some = runs.only(patch_N == patch, "another patch size")
        found = by_parametric(_without_patch(some), settings, second_opinion=False)
        keys = ("n", "E", "A", "B", "alpha", "beta", "a", "b", "intervals")
        separate.append(dict(T=float(patch), refused=found.refused, **{k: found.entry[k] for k in keys}))
    forms = {}
    for name, formula in (("powers", joint.POWERS), ("log square", joint.LOG_SQUARE)):
        try:
            forms[name] = parametric.fit(formula, runs, settings.science).value
        except NotIdentified as error:
            warnings.append(f"joint law, {name}: {error}")
    out = dict(separate=separate, forms=forms, held_out=None, law_one=None, law_two=None)
    budgets = source.budgets if source.budgets is not None else source.flops
    if budgets is None:
        warnings.append("joint law: no column has budgets, so that no largest one can be held out")
        return out, findings, warnings
    budget_N, why = grouped(source.of(budgets, runs))
    if why:
        warnings.append(f"joint law: no budget is held out: {why}")
        return out, findings, warnings
    try:
        held = joint.held_out(runs, budget_N, settings.science, patches_N=patch_N)
        out["held_out"] = dict(
            budget=held.budget, runs=held.runs, errors=held.errors, trusts=held.trusts, why=held.why
        )
        if held.why:
            warnings.append(f"separate laws that the smaller budgets do not tell: {held.why}")
        texts = ", ".join(f"{LAWS[name]} {100 * error:.3g}%" for name, error in held.errors.items())
        count = counted(held.runs, "run")
        few = f", though {count} cannot rank laws" if held.runs < FEWEST_HELD_OUT else ""
        findings.append(
            f"the largest budget ({held.budget:.3g} FLOPs, {count}) predicted from the smaller ones, root"
            f" mean square error of log loss: {texts}; lowest: {LAWS[held.trusts]}{few}"
        )
    except NotIdentified as error:
        warnings.append(f"joint law: the largest budget is not predicted from the others: {error}")
    said = laws(runs, budget_N, patch_N, out)
    return out, findings, warnings + said


def _without_patch(runs: Runs) -> Runs:
    values = {name: runs.values[name] for name in ("N", "D")}
    units = {name: runs.units[name] for name in ("N", "D", "loss")}
    return fit_runs.of(values, runs.loss_N, units)


def laws(runs: Runs, budget_N, patch_N, out: dict) -> list:
    """Laws I and II into `out`, from the lowest points of each budget and patch size; why there are none."""
    found = []
    for budget in np.unique(budget_N):
        for patch in np.unique(patch_N):
            those = (budget_N == budget) & (patch_N == patch)
            if those.sum() >= isoflop.FEWEST:
                lowest = isoflop.minimum(float(budget), runs.values["D"][those], runs.loss_N[those])
                if not lowest.why:
                    found.append((budget, patch, lowest.x, lowest.loss))
    if len(found) < 4:
        return [
            f"Laws I and II of Compute Optimal Tokenization: {len(found)} pairs of budget and patch size"
            " have a lowest point inside what was run; they take 4 and more"
        ]
    flops, patch, data, loss = (np.array(values) for values in zip(*found))
    said = []
    try:
        one = joint.law_one(flops, patch, data)
        out["law_one"] = dict(coefficient=one.coefficient, c=one.c, t=one.t, optima=len(found))
    except NotIdentified as error:
        said.append(f"Law I: {error}")
    try:
        units = dict(C="FLOPs", T=runs.units["T"], loss=runs.units["loss"])
        two = joint.law_two(fit_runs.of(dict(C=flops, T=patch), loss, units))
        out["law_two"] = dict(two.parameters, optima=len(found))
    except NotIdentified as error:
        said.append(f"Law II: {error}")
    return said
