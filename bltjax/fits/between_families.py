"""Families compared, by the laws of their best runs at a budget: effective-compute gain, and where
their curves cross, each with its interval and never outside of what both were measured in."""

import numpy as np

from bltjax.fits import joint_law, text
from bltjax.fits.approaches import Found
from bltjax.fits.source import Source
from bltjax.science import allocation, crossing, effective_compute, joint
from bltjax.science.fit_runs import Runs


def curve(found: Found, pair: float, patch: float | None = None):
    """((E, A, alpha) of the lowest loss at a budget, the same of draws [R, 3]); None where the law tells
    none: of a law in FLOPs the law itself, of one in size and data its frontier, of one in size, data and
    patch size the frontier at one patch size (`best_patch`). pair: FLOPs per parameter and unit of data, or
    per parameter and patch."""
    fit = found.law
    if fit is None or found.draws is None or found.entry["method"] != "parametric":
        return None
    names, drawn = fit.formula.names, found.draws.parameters_RxQ
    if fit.formula.variables == ("C",):
        order = [names.index(name) for name in ("E", "A", "alpha")]
        return fit.parameters_Q[order], drawn[:, order]
    if set(fit.formula.variables) == {"N", "D"} and found.entry["identified"]["a"]:
        make = lambda parameters: allocation.frontier(fit.formula, parameters, per_pair=pair)
        return make(fit.parameters_Q), make(drawn)
    if patch is not None:
        make = lambda parameters: joint.frontier(fit.formula, parameters, patch, pair)
        return make(fit.parameters_Q), make(drawn)
    return None


def best_patch(found: Found, pair: float, runs: Runs) -> float | None:
    """Which of the patch sizes that were run is the best by a law in size, data and patch size, at the
    geometric mean of the runs' FLOPs; None of another law, or where sizes or data are not identified."""
    fit = found.law
    if fit is None or found.entry["method"] != "parametric" or set(fit.formula.variables) != {"N", "D", "T"}:
        return None
    if not found.entry["identified"]["a"]:
        return None
    tried = np.unique(joint_law.patches(runs))
    pairs_N = runs.values["N"] * runs.values["D"] / runs.values["T"]
    losses = joint.lowest(fit.formula, fit.parameters_Q, pair * np.exp(np.log(pairs_N).mean()), tried, pair)
    return float(tried[np.nanargmin(losses)]) if np.isfinite(losses).any() else None


def span(source: Source, runs: Runs):
    """(lowest, highest) FLOPs of runs; None where they have none."""
    values = runs.values.get("C")
    if values is None and source.flops is not None:
        values = source.of(source.flops, runs)
        values = values[np.isfinite(values) & (values > 0)]
    return None if values is None or not len(values) else (float(values.min()), float(values.max()))


def compared(curves: dict, spans: dict, measured: dict, patches: dict, reference: str) -> list:
    """[{"group", "against", "range", "gain": [{"flops", "gain", "low", "high"}], "crossing": {"flops", "low",
    "high", "share", "says"}, "measured", "patches", "why"}] of every group but the reference. curves, spans,
    measured (`best_runs.compared` with the reference), patches (`best_patch`): by group."""
    out = []
    for name in curves:
        if name == reference:
            continue
        one = dict(group=name, against=reference, range=None, gain=[], crossing=None, why="")
        one["measured"] = measured.get(name)
        one["patches"] = {group: patches[group] for group in (name, reference) if patches.get(group)}
        out.append(one)
        mine, theirs = curves[name], curves.get(reference)
        if mine is None or theirs is None:
            without = " and ".join(group for group in (name, reference) if curves.get(group) is None)
            one["why"] = f"no law of the lowest loss at a budget follows from the runs of {without}"
            continue
        if spans[name] is None or spans[reference] is None:
            one["why"] = "no column has FLOPs"
            continue
        both = crossing.overlap(spans[name], spans[reference])
        if not both:
            one["why"] = "they were measured in no common range of FLOPs"
            continue
        one["range"] = list(both)
        for flops in np.geomspace(*both, 3):
            value = float(effective_compute.of(mine[0], theirs[0], flops))
            found = effective_compute.with_interval(mine[1], theirs[1], flops)
            value = value if np.isfinite(value) else None
            one["gain"].append(dict(flops=float(flops), gain=value, low=found.low, high=found.high))
        met = crossing.of_draws(mine[0], theirs[0], mine[1], theirs[1], both)
        one["crossing"] = dict(flops=met.flops, low=met.low, high=met.high, share=met.share, says=met.says)
    return out


def sentences(comparisons: list) -> list:
    """Findings, up to three a comparison."""
    said = []
    for one in comparisons:
        pair = f"{one['group']} against {one['against']}"
        if one["measured"]:
            said.append(f"{pair}: loss of the best runs, as measured: {one['measured']['says']}")
        if one["why"]:
            said.append(f"{pair}: no crossing and no effective compute by fitted laws: {one['why']}")
            continue
        if one["patches"]:
            sizes = " and ".join(f"{patch:.3g} ({group})" for group, patch in one["patches"].items())
            said.append(
                f"{pair}: by the joint laws at the patch sizes that are best in the middle of the budgets,"
                f" {sizes}:"
            )
        last = one["gain"][-1]
        value = "out of the other's reach" if last["gain"] is None else f"{last['gain']:.3g} times"
        ends = text.interval([last["low"], last["high"]], 3)
        said.append(f"{pair}: at {last['flops']:.3g} FLOPs its effective compute is {value} (95%: {ends})")
        said.append(f"{pair}: crossing of their curves: {one['crossing']['says']}")
    return said
