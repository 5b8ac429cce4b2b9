"""`bltjax fit`: everything that a table of runs, or an experiment's run directories, say of scaling laws, as
one JSON-ready dict; drawing and writing it are `figures` and `text`."""

import collections
import dataclasses
import re

import numpy as np

from bltjax.config.families import REFERENCE
from bltjax.errors import UserError
from bltjax.fits import approaches, best_runs, between_families, compute_optimal, joint_law, text
from bltjax.fits.approaches import Settings
from bltjax.fits.source import Source
from bltjax.science.fit_runs import Runs

UNTOLD = 0.5  # width of the interval of a, which is between 0 and 1
FEWEST = 4  # different runs: of fewer no law leaves a residual


def analyse(source: Source, settings: Settings, at=(), reference: str = "", attempts=()) -> dict:
    """{"name", "n", "units", "objective", "fits": an entry a method (and group), "warnings", "notes",
    "findings", "dropped": {reason: rows}, "optimum", "comparisons", "joint"}, and under "found" the fits
    themselves by group, which are no part of the JSON.

    at: FLOPs of budgets that are asked about. reference: the group that others are compared with (default:
    bpe, or the first). attempts: which variables a law is tried in, in turn, until the runs tell one
    (default: all that the source has)."""
    attempts = tuple(attempts) or (tuple(source.runs.values),)
    by_group, small = parts(source)
    warnings, notes, findings = list(source.warnings), [*source.notes, *small], []
    fits, optimum, joint = [], [], []
    found_by, curves, spans, patches = {}, {}, {}, {}
    for number, (group, runs) in enumerate(by_group.items()):
        # draws of two groups of one design would be the same noise, and cancel where they are compared
        own = dataclasses.replace(settings, seed=settings.seed + number)
        said = lambda lines: [f"{group}: {line}" if group else line for line in lines]
        several = joint_law.several(runs)
        pair, pair_text, strange = compute_optimal.per_pair(source, runs, several)
        found, more, quiet = methods(source, runs, own, attempts)
        notes += said(quiet)
        mine = said([*strange, *more])
        budgets = _budgets(source, runs, at)
        these = [o for one in found for o in compute_optimal.optima(one, budgets, pair, runs)]
        mine += said(compute_optimal.disagreements(these, [one.entry for one in found]))
        mine += said(_outside(these, at))
        if several and found[0].law and "T" in found[0].entry["exponents"]:
            compared, lines, why = joint_law.compared(source, runs, own)
            compared["best"] = joint_law.at_budgets(found[0], budgets, pair)
            joint.append(dict(compared, group=group))
            findings += said(lines)
            mine += said(why)
        warnings += mine
        found_by[group] = found
        patches[group] = between_families.best_patch(found[0], pair, runs)
        curves[group] = between_families.curve(found[0], pair, patches[group])
        spans[group] = between_families.span(source, runs)
        extra = dict(group=group) if group else {}
        fits += [dict(one.entry, **extra) for one in found]
        optimum += [dict(o, **extra, flops_per_pair=pair) for o in these]
        notes += said([f"a budget buys {pair_text}"] if pair_text else [])
    comparisons = []
    if source.groups is not None and len(curves) > 1:
        against = reference or next(iter(curves))  # bpe comes first where there is one
        if against not in curves:
            raise UserError(f"--reference {reference!r} is no group; there are {', '.join(curves)}")
        measured = {
            group: best_runs.compared(source, runs, by_group[against], settings.draws, settings.seed)
            for group, runs in by_group.items()
            if group != against
        }
        comparisons = between_families.compared(curves, spans, measured, patches, against)
        for group, runs in by_group.items():
            warnings += [f"{group}: {line}" for line in best_runs.at_edges(source, runs)]
    findings = [*_findings(fits, optimum), *findings, *between_families.sentences(comparisons)]
    reasons = collections.Counter(why for _, why in source.runs.dropped)
    result = dict(
        name=source.name,
        n=len(source.runs),
        units=dict(source.runs.units),
        objective=settings.says,
        fits=fits,
        warnings=[_named(source, line) for line in dict.fromkeys(warnings)],
        notes=list(dict.fromkeys(notes)),
        findings=findings,
        dropped=dict(reasons),
        optimum=optimum,
        comparisons=comparisons,
        joint=joint,
    )
    return dict(finite(result), found=found_by)


def _named(source: Source, line: str) -> str:
    """A sentence about "run 3" with that run's name, where runs have names."""
    if source.names is None:
        return line
    return re.sub(r"\brun (\d+) is", lambda found: f"run {source.names[int(found[1])]} is", line)


def finite(value):
    """The same of what JSON has no word for: None for what is infinite or no number, plain numbers for
    numpy's."""
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


def identified(result: dict) -> bool:
    """Whether anything was fitted at all."""
    return any(not entry.get("refused") for entry in result["fits"])


def parts(source: Source) -> tuple[dict, list]:
    """({group: its runs}, notes), the whole under "" where there are no groups. Where groups are series of
    families, those of too few runs for any law are left out; then come families that have several patch sizes
    and are more than one group, and those of which no series is left."""
    if source.groups is None:
        return {"": source.runs}, []
    order = lambda names: sorted(set(names), key=lambda name: (not _is_reference(name), name))
    some = lambda names, name: source.runs.only(names == name, "another group")
    mine = source.of(source.groups)
    found = {name: some(mine, name) for name in order(mine)}
    if source.families is None:
        return found, []
    whole, notes = source.of(source.families), []
    for family in order(whole):
        own = set(mine[whole == family]) & set(found)
        small = sorted(name for name in own if len(np.unique(found[name].cells_N)) < FEWEST)
        runs = some(whole, family)
        if family not in own and joint_law.several(runs):
            found[f"{family}, all patch sizes"] = runs
        elif family not in own and len(small) == len(own) > 1:
            found[family] = runs
        else:
            continue
        for name in small:
            del found[name]
        if small:
            notes.append(
                f"{family}: {len(small)} series of fewer than {FEWEST} different runs have no law of their"
                " own"
            )
    return found, notes


def _is_reference(group: str) -> bool:
    """Whether a group is the family that others are compared with, or a series of it: "bpe (512 entries)"."""
    return group == REFERENCE or group.startswith(f"{REFERENCE} (")


def _budgets(source: Source, runs: Runs, at) -> list:
    """Budgets that are asked about, and the largest that was run."""
    last = between_families.span(source, runs)
    return sorted({*at, *([last[1]] if last else [])})


def methods(source: Source, runs: Runs, settings: Settings, attempts) -> tuple[list, list, list]:
    """([Found], warnings, notes): approach 3 first, where patch sizes vary with them in it; 2 where budgets
    are named or FLOPs lie in some, 1 where there are FLOPs. What nobody asked for and cannot be had is a
    note."""
    reasons, found = [], None
    several = joint_law.several(runs)
    for variables in attempts:
        if set(variables) <= set(runs.values) and (several or len(attempts) == 1 or "T" not in variables):
            found = approaches.by_parametric(_of(runs, variables), settings)
            if not found.refused:
                break
            reasons += [f"no law L({', '.join(variables)}): {found.refused}"]
    found = found or approaches.refusal("parametric", settings, runs, "no run has the variables of a law")
    found.warnings = [*reasons, *(found.warnings if not found.refused else [])]
    out, notes = [found], []
    if {"N", "D"} <= set(runs.values) and not several:
        flops_N = None if source.flops is None else source.of(source.flops, runs)
        budgets_N = flops_N if source.budgets is None else source.of(source.budgets, runs)
        if budgets_N is not None:
            tried = approaches.by_isoflop(runs, budgets_N, settings)
            if tried.refused and (source.budgets is None or source.families is not None):
                notes.append(f"no approach 2 (isoflop): {tried.refused}")
            else:
                out.append(tried)
        if flops_N is None:
            notes.append("no approach 1 or 2: no column has FLOPs (C=COLUMN) or budgets (--budget COLUMN)")
        elif (np.isfinite(flops_N) & (flops_N > 0)).all():
            tried = approaches.by_envelope(runs, flops_N, settings)
            if tried.refused:
                notes.append(f"no approach 1 (envelope): {tried.refused}")
            else:
                out.append(tried)
                if not any("left out" in line for line in tried.warnings):
                    notes.append(f"envelope: left out: {tried.entry['left_out']}")
    return out, [line for one in out for line in one.warnings], notes


def _of(runs: Runs, variables) -> Runs:
    """The same runs with these variables alone."""
    if tuple(variables) == tuple(runs.values):
        return runs
    values = {name: runs.values[name] for name in variables}
    units = {name: runs.units[name] for name in (*variables, "loss")}
    return dataclasses.replace(runs, values=values, units=units)


def _outside(optima: list, at) -> list:
    """Extrapolation of what was asked about."""
    return [
        f"extrapolation by {o['method']} at {o['flops']:.3g} FLOPs: {o['outside']}"
        for o in optima
        if o["outside"] and o["flops"] in at
    ]


def _findings(fits: list, optimum: list) -> list:
    said = []
    for entry in fits:
        where = f"{entry['group']}: " if entry.get("group") else ""
        if entry.get("refused"):
            continue
        if entry["a"] is not None:
            ends = entry["intervals"].get("a")
            told = f" (95%: {_ends(ends)})" if ends else ""
            if ends and (None in ends or ends[1] - ends[0] > UNTOLD):
                told = f" (95%: {_ends(ends)}, so wide that these runs do not tell it)"
            said.append(
                f"{where}{entry['method']}: the best size grows as C^{entry['a']:.4f}{told}"
                + (f", data as C^{entry['b']:.4f}" if entry["b"] is not None else "")
            )
    for o in optimum:
        if o["N"] and o["D"]:
            where = f"{o['group']}: " if o.get("group") else ""
            ends = o.get("D_interval")
            said.append(
                f"{where}{o['method']}: at {o['flops']:.4g} FLOPs the best size is {o['N']:.4g} and the best"
                f" data {o['D']:.4g}"
                + (f" (95%: {_ends(ends)})" if ends else "")
                + (f", {o['outside']}" if o["outside"] else "")
            )
    return said


def _ends(interval) -> str:
    return "not bounded" if interval == [None, None] else text.interval(interval)
