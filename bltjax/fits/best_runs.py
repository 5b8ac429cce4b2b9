"""Families compared by their best runs at each budget that both were run at, as measured and with no law: how
far apart they are, and between which budgets they cross. The noise is that of seeds, of configurations that
were run with several; what test documents and the choice among configurations add is not in it."""

import dataclasses

import numpy as np
from scipy import stats

from bltjax.fits.source import Source
from bltjax.science import crossing, isoflop, noise
from bltjax.science.bootstrap import LEVEL
from bltjax.science.fit_runs import Runs


@dataclasses.dataclass(frozen=True)
class Best:
    """The best configuration of a family at one budget. loss: mean of its `seeds` runs; of: configurations
    that it was chosen among; row: of one of its runs."""

    loss: float
    seeds: int
    of: int
    row: int


def best(source: Source, runs: Runs) -> dict:
    """{budget: Best} of a group's runs, chosen on validation text where the source has it. Runs have the same
    budget whose budgets are less than a tenth apart."""
    if source.budgets is None:
        return {}
    budget_N = _budgets(source, runs)
    score_N = runs.loss_N if source.chosen_by is None else source.of(source.chosen_by, runs)
    found = {}
    for budget in np.unique(budget_N[np.isfinite(budget_N)]):
        cells = {}
        for n in np.flatnonzero(budget_N == budget):
            cells.setdefault(int(runs.cells_N[n]), []).append(n)
        chosen = min(cells.values(), key=lambda members: (float(score_N[members].mean()), members))
        row = int(runs.rows_N[chosen[0]])
        found[float(budget)] = Best(float(runs.loss_N[chosen].mean()), len(chosen), len(cells), row)
    return found


def at_edges(source: Source, runs: Runs) -> list:
    """Sentences about budgets whose best run has the smallest or largest size, or patch size, of those that
    were run there: beyond may be a better one."""
    where = {}
    for flops, one in best(source, runs).items():
        there = np.abs(np.log(_budgets(source, runs) / flops)) < 1e-9
        mine = runs.rows_N == one.row
        for variable, text in (("N", "size"), ("T", "patch size")):
            values = runs.values.get(variable)
            if values is None:
                continue
            groups = isoflop.budgets(values[there])  # realized patch sizes differ a little
            place = groups[np.flatnonzero(mine[there])[0]]
            if len(np.unique(groups)) > 2 and place in (groups.min(), groups.max()):
                end = "smallest" if place == groups.min() else "largest"
                where.setdefault(f"{end} {text}", []).append(f"{flops:.3g}")
    return [
        f"at {', '.join(budgets)} FLOPs the best run has the {end} that was run there: a still"
        f" {'smaller' if end.startswith('smallest') else 'larger'} one may be better"
        for end, budgets in where.items()
    ]


def _budgets(source: Source, runs: Runs):
    """[N]: each run's budget, the same number for all that are less than a tenth apart."""
    every = isoflop.budgets(source.of(source.budgets))
    return every[np.searchsorted(source.runs.rows_N, runs.rows_N)]


def seed_noise(groups: list) -> tuple[float, int]:
    """(variance of one run's log loss between seeds, degrees of freedom) of the cells of several Runs."""
    scores = []
    for runs in groups:
        for cell in np.unique(runs.cells_N):
            members = runs.loss_N[runs.cells_N == cell]
            if len(members) > 1:
                scores.append(members)
    return noise.between_seeds(scores)


def compared(source: Source, runs: Runs, other: Runs, draws: int, seed: int) -> dict | None:
    """{"budgets": [{"flops", "loss", "other", "difference", "low", "high", "run", "other_run"}], "flops",
    "low", "high", "share", "says"} of the best runs of two groups; None where they have no budget in common.

    difference: of log loss, below 0 where the first is better, with the ends of its interval. flops: where
    the two curves, straight between budgets, meet. draws: of the interval of that."""
    mine, theirs = best(source, runs), best(source, other)
    common = sorted(set(mine) & set(theirs))
    if not common:
        return None
    variance, freedom = seed_noise([runs, other])
    name = lambda row: None if source.names is None else str(source.names[row])
    budgets = []
    for flops in common:
        a, b = mine[flops], theirs[flops]
        one = dict(flops=flops, loss=a.loss, other=b.loss, difference=float(np.log(a.loss / b.loss)))
        one.update(low=None, high=None, run=name(a.row), other_run=name(b.row), of=a.of, other_of=b.of)
        if freedom:
            half = stats.t.ppf((1 + LEVEL) / 2, freedom) * np.sqrt(variance * (1 / a.seeds + 1 / b.seeds))
            one.update(low=one["difference"] - float(half), high=one["difference"] + float(half))
        budgets.append(one)
    out = dict(budgets=budgets, flops=[], low=None, high=None, share=None)
    if len(common) > 1:
        curve = lambda of: np.array([of[flops].loss for flops in common])
        drawn = (None, None)
        if freedom:
            rng = np.random.default_rng([seed, len(common)])
            wide_Rx1 = np.sqrt(variance * freedom / rng.chisquare(freedom, (draws, 1)))
            seeds = lambda of: np.sqrt([of[flops].seeds for flops in common])
            drawn = tuple(
                curve(of) * np.exp(wide_Rx1 * rng.normal(size=(draws, len(common))) / seeds(of))
                for of in (mine, theirs)
            )
        out.update(crossing.measured(common, curve(mine), common, curve(theirs), *drawn))
    return dict(out, says=_says(out))


def _says(found: dict) -> str:
    """Of the differences and of the crossing, in a sentence."""
    parts = []
    for one in found["budgets"]:
        ends = ""
        if one["low"] is not None:
            ends = f" (95%: {_percent(one['low'])} to {_percent(one['high'])})"
        parts.append(
            f"{_percent(one['difference'])}{ends} at {one['flops']:.3g} FLOPs, the best of {one['of']}"
            f" configurations against the best of {one['other_of']}"
        )
    if found["budgets"][0]["low"] is None:
        parts.append("no configuration was run with several seeds, so that there is no interval")
    if len(found["budgets"]) < 2:
        return f"{'; '.join(parts)}; with one budget in common no crossing can be told"
    ends = [found["budgets"][at]["flops"] for at in (0, -1)]
    within = f"between {ends[0]:.3g} and {ends[1]:.3g} FLOPs"
    if found["flops"]:
        met = " and ".join(f"{flops:.3g}" for flops in found["flops"])
        said = f"they cross at {met} FLOPs"
        if found["share"]:
            said += f" (95%: {found['low']:.3g} to {found['high']:.3g}, of the draws that cross)"
    else:
        said = f"they do not cross {within}"
    if found["share"] is None:
        return f"{'; '.join(parts)}; {said}"
    return f"{'; '.join(parts)}; {said}; with other seeds they would in {100 * found['share']:.0f}% of draws"


def _percent(log_ratio: float) -> str:
    return f"{100 * np.expm1(log_ratio):+.2g}%"
