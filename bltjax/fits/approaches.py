"""The three approaches of Hoffmann et al. 2022 on one set of runs, each as an entry of `bltjax fit --json`:
what it found, its intervals, what it does not identify and why, and what its reader should be warned of."""

import dataclasses

import numpy as np

from bltjax.counts import counted
from bltjax.science import (
    allocation,
    envelope,
    fit_bootstrap,
    influence,
    isoflop,
    lack_of_fit,
    logsumexp,
    parametric,
)
from bltjax.science.fit_runs import Runs
from bltjax.science.formula import COMPUTE, Formula, Power
from bltjax.science.identifiability import NotIdentified
from bltjax.science.objectives import DELTA, Objective

OBJECTIVES = ("huber", "lad", "squares")
LETTERS = ("A", "alpha"), ("B", "beta"), ("F", "gamma"), ("G", "delta")
NEAR_EDGE = 1.3  # a parabola's lowest point this far outside of what was run counts, and is said
WIDE_BUDGET = 1.3  # runs of one budget differ by less
STARTS = (2, 24)  # of the second opinion: at first, and where it disagrees (one takes up to seconds)
APART = 5.0  # neighbouring sizes of an envelope, as a factor, from which its form matters
MOST_INFLUENTIAL = 3  # runs named for one parameter


@dataclasses.dataclass(frozen=True)
class Settings:
    """objective: one of OBJECTIVES. draws: of every interval. seed: of all draws."""

    objective: str = "huber"
    delta: float = DELTA
    draws: int = 1000
    seed: int = 0

    @property
    def science(self) -> Objective:
        """lad is the likelihood of Besiroglu et al. 2024: a knee of about 1e-8, least absolute deviations."""
        names = dict(huber="huber", lad="scaled_huber", squares="least_squares")
        return Objective(names[self.objective], self.delta if self.objective == "huber" else DELTA)

    @property
    def says(self) -> str:
        if self.objective == "lad":
            return "sum of absolute residuals of log loss"
        return str(self.science)


@dataclasses.dataclass
class Found:
    """One method's entry and what it was made of. law: the Fit (parametric), the pair of Allocations
    (isoflop) or the Envelope; None where the runs do not tell it. draws: of the law (isoflop: {variable:
    (coefficients, exponents)}), None where there are none."""

    entry: dict
    law: object = None
    draws: object = None
    warnings: list = dataclasses.field(default_factory=list)

    @property
    def refused(self) -> str:
        return self.entry.get("refused", "")


def blank(method: str, settings: Settings, runs: Runs, names) -> dict:
    """An entry in which nothing is identified."""
    values = dict.fromkeys(("value", "E", "A", "B", "alpha", "beta", "a", "b"))
    return dict(
        method=method,
        objective=settings.objective,
        value=values.pop("value"),
        n=len(runs),
        **values,
        identified=dict.fromkeys((*names, "a", "b"), False),
        intervals={},
        units=dict(runs.units),
    )


def refusal(method: str, settings: Settings, runs: Runs, why: str) -> Found:
    names = ("E", "A", "B", "alpha", "beta") if method == "parametric" else ()
    entry = blank(method, settings, runs, names)
    return Found(dict(entry, refused=why), warnings=[f"{method}: {why}"])


def formula_of(variables, growing=("T",)) -> Formula:
    """E plus a power of each variable, in their order; loss grows with those of `growing`."""
    if tuple(variables) == ("C",):
        return COMPUTE
    return Formula(
        tuple(
            Power(letter, ((name, exponent),), grows=name in growing)
            for name, (letter, exponent) in zip(variables, LETTERS)
        )
    )


def law(runs: Runs, objective: Objective, variables=()) -> parametric.Fit:
    """The law of the runs' variables. Loss falls with size and data; with another variable it may fall or
    grow, and the direction is taken that leaves less."""
    variables = tuple(variables) or tuple(runs.values)
    growing = {name for name in variables if name == "T"}
    best = parametric.fit(formula_of(variables, growing), runs, objective)
    for name in variables:
        if name in ("N", "D", "C"):
            continue
        tried = parametric.fit(formula_of(variables, growing ^ {name}), runs, objective)
        if tried.value < best.value - 1e-9 * abs(best.value):
            best, growing = tried, growing ^ {name}
    return best


def by_parametric(runs: Runs, settings: Settings, variables=(), second_opinion: bool = True) -> Found:
    """Approach 3, with intervals, second opinion, influential runs and the test of lack of fit."""
    try:
        fit = law(runs, settings.science, variables)
    except NotIdentified as error:
        return refusal("parametric", settings, runs, str(error))
    formula, names = fit.formula, fit.formula.names
    entry = blank("parametric", settings, runs, names)
    entry["value"] = fit.value
    if settings.objective == "lad":
        entry["value"] = float(np.abs(fit.residuals_N).sum())
    split = {"N", "D"} <= set(formula.variables)
    if split or len(formula.variables) < 3:
        entry.update({name: fit.parameters[name] for name in names if name in entry})
    entry["identified"].update({name: name not in fit.not_identified for name in names})
    entry["intervals"], drawn = {}, None
    try:
        drawn = fit_bootstrap.draws(fit, settings.draws, seed=settings.seed)
    except (ZeroDivisionError, np.linalg.LinAlgError):
        pass
    if drawn is not None:
        held = {name: drawn[name] for name in names if name not in fit.not_identified}
        if split:
            held["a"], held["b"] = allocation.exponents(formula, drawn.parameters_RxQ)
        entry["intervals"] = {
            name: [None if end is None else float(end) for end in (found.low, found.high)]
            for name, found in ((name, fit_bootstrap.interval(values)) for name, values in held.items())
        }
        entry["interval_by"] = {"runs": "resampled runs", "noise": "noise of the residuals' size"}[drawn.way]
    if split:
        whole = all(name not in fit.not_identified for name in ("alpha", "beta"))
        a, b = allocation.exponents(formula, fit.parameters_Q)
        entry["identified"].update(a=whole, b=whole)
        if whole:
            entry.update(a=float(a), b=float(b))
        else:
            for name in ("a", "b"):
                entry["intervals"].pop(name, None)
    else:
        for name in ("a", "b"):
            entry["identified"].pop(name)
    entry["formula"] = str(formula)
    terms = [(term.variables[0], term.coefficient, term.parameters[0]) for term in formula.terms]
    entry["exponents"] = {v: fit.parameters[exponent] for v, _, exponent in terms}
    coefficients = {v: fit.parameters[letter] for v, letter, _ in terms}
    entry["log_coefficients"] = {v: None if c is None else float(np.log(c)) for v, c in coefficients.items()}
    entry["grows"] = [term.variables[0] for term in formula.terms if term.grows]
    warnings = [f"parametric: {why}" for why in fit.not_identified.values()]
    if second_opinion:
        for starts in STARTS:
            opinion = logsumexp.fit(formula, runs, settings.science, starts, settings.seed)
            said = logsumexp.disagreement(fit, opinion)
            if not said or settings.objective == "lad":
                break
        warnings += [f"second opinion: {said}"] if said else []
    warnings += influential(fit)
    entry["lack_of_fit"], said = lacks(fit)
    warnings += said
    return Found(entry, fit, drawn, warnings)


def influential(fit: parametric.Fit) -> list:
    """The strongest of the runs that make the law what it is, and how many more there are."""
    said = influence.leave_one_out(fit).warnings()
    single = [line for line in said if line.startswith("run ")]
    rest = [line for line in said if not line.startswith("run ")]
    if len(single) > MOST_INFLUENTIAL:
        more = len(single) - MOST_INFLUENTIAL
        single = single[:MOST_INFLUENTIAL] + [f"{counted(more, 'more such move')} by single runs"]
    return single + rest


def lacks(fit: parametric.Fit) -> tuple[dict, list]:
    """(the test of lack of fit, sentences)."""
    test = lack_of_fit.test(fit)
    entry = dict(ratio=test.ratio, p=test.p, noise=test.noise, freedom=list(test.freedom), why=test.why)
    if not test.lacks:
        return entry, []
    return entry, [
        f"lack of fit: the law leaves {test.ratio:.3g} times the variance that runs of one cell have among"
        f" themselves; under a law of the right form that happens in {100 * test.p:.2g}% of cases"
    ]


def grouped(values_N) -> tuple[np.ndarray | None, str]:
    """(each run's budget, why there are none): runs whose FLOPs are less than a tenth apart are of one."""
    known = np.isfinite(values_N) & (values_N > 0)
    if not known.all():
        return None, f"without a budget: {counted((~known).sum(), 'run')}"
    if len(np.unique(values_N)) < 2:
        return None, f"all runs are of one budget, {values_N[0]:.3g} FLOPs: a power law takes several"
    groups = isoflop.budgets(values_N)
    for budget in np.unique(groups):
        those = values_N[groups == budget]
        if those.max() / those.min() > WIDE_BUDGET:
            return None, (
                f"the budgets are no budgets: runs from {those.min():.3g} to {those.max():.3g} FLOPs follow"
                " one another in steps of less than a tenth"
            )
        if those.max() / those.min() < 1.0001:
            groups[groups == budget] = those[0]
    return groups, ""


def by_isoflop(runs: Runs, budgets_N, settings: Settings) -> Found:
    """Approach 2 in size and in data."""
    budget_N, why = grouped(budgets_N)
    if why:
        return refusal("isoflop", settings, runs, why)
    entry = blank("isoflop", dataclasses.replace(settings, objective="squares"), runs, ())
    found, drawn, warnings = {}, {}, []
    for variable, name in (("N", "a"), ("D", "b")):
        x_N, unit = runs.values[variable], runs.units[variable]
        make = lambda outside: isoflop.fit(budget_N, x_N, runs.loss_N, variable, unit, outside)
        try:
            one = make(NEAR_EDGE)
        except NotIdentified as error:
            warnings.append(f"isoflop: {error}")
            continue
        found[variable] = one
        # of one seed, so that size and data at a budget are drawn together
        coefficients, exponents, lowest_RxB = isoflop.draws(
            one, budget_N, x_N, runs.loss_N, settings.draws, settings.seed
        )
        interval = fit_bootstrap.interval(exponents)
        entry[name], entry["identified"][name] = one.exponent, True
        if interval.share:
            entry["intervals"][name] = [interval.low, interval.high]
            drawn[variable] = coefficients, exponents
        entry[f"{variable}_star"] = dict(coefficient=one.coefficient, exponent=one.exponent)
        warnings += [f"isoflop in {variable}: {said}" for said in left_out(one)]
        outside = [m for m in one.minima if not m.why and not _within(m, x_N[budget_N == m.flops])]
        if outside:
            try:
                them = "it" if len(outside) == 1 else "them"
                without = f"without {them} the exponent is {make(1.0).exponent:.4f}"
            except NotIdentified:
                without = "without it there is no power law"
            at = ", ".join(f"{m.flops:.3g}" for m in outside)
            warnings.append(
                f"isoflop in {variable}: at {at} FLOPs the lowest point is at the edge of what was run,"
                f" outside it by less than {NEAR_EDGE}; {without}"
            )
        ends = iter(_ends(lowest_RxB))
        entry[f"{variable}_minima"] = [
            dict(
                flops=m.flops,
                best=None if m.why else m.x,
                interval=None if m.why else next(ends),
                loss=None if m.why else m.loss,
                refused=m.why,
            )
            for m in one.minima
        ]
    if not found:
        entry["refused"] = warnings[0].removeprefix("isoflop: ")
        return Found(entry, warnings=warnings)
    return Found(entry, found, drawn or None, warnings)


def _ends(values_RxB):
    """[low, high] of each column of draws; None where they do not bound it. A drawn parabola that opens
    downwards has no lowest point: where more than one in forty does, neither end is known."""
    for values_R in values_RxB.T:
        found = fit_bootstrap.interval(values_R)
        yield [found.low, found.high] if found.share > 1 - (1 - found.level) / 2 else None


def left_out(allocation: isoflop.Allocation) -> list:
    """The warnings of approach 2, budgets with too few runs in one sentence."""
    few = [m for m in allocation.refused if "different runs" in m.why]
    said = [w for w in allocation.warnings if not any(m.why in w for m in few)]
    if few:
        at = ", ".join(f"{m.flops:.3g}" for m in few)
        said.insert(0, f"left out, with fewer than {isoflop.FEWEST} different runs: {at} FLOPs")
    return said


def _within(minimum: isoflop.Minimum, x_N) -> bool:
    return x_N.min() < minimum.x < x_N.max()


def by_envelope(runs: Runs, flops_N, settings: Settings) -> Found:
    """Approach 1."""
    of = runs.values["N"], runs.values["D"], flops_N, runs.loss_N
    try:
        found = envelope.fit(*of)
    except NotIdentified as error:
        return refusal("envelope", settings, runs, str(error))
    entry = blank("envelope", settings, runs, ())
    entry.update(objective="squares", a=found.size[1], b=found.data[1])
    entry["identified"].update(a=True, b=True)
    drawn_Rx2x2 = envelope.draws(*of, settings.draws, settings.seed)
    for name, drawn_R in zip("ab", drawn_Rx2x2[:, :, 1].T):
        if ends := envelope.interval(entry[name], drawn_R):
            entry["intervals"][name] = [ends.low, ends.high]
    drawn = {v: drawn_Rx2x2[:, k].T for k, v in enumerate("ND")} if entry["intervals"] else None
    for variable, (coefficient, exponent) in (("N", found.size), ("D", found.data)):
        entry[f"{variable}_star"] = dict(coefficient=coefficient, exponent=exponent)
    span = f"between {found.flops_M.min():.3g} and {found.flops_M.max():.3g} FLOPs"
    entry["left_out"] = (
        f"{100 * (1 - found.kept):.0f}% of the budgets, at which the lowest loss is at the smallest or the"
        f" largest size in reach there, or fewer than 3 sizes are in reach; the others are {span}"
    )
    warnings = []
    if found.kept < 0.5:
        warnings.append(f"envelope: left out: {entry['left_out']}, and its exponents are of those alone")
    if found.apart > APART:
        warnings.append(
            f"envelope: neighbouring sizes are {found.apart:.2g} times apart; where between them the best one"
            " lies, hangs on the form that is taken for the loss there"
        )
    if not entry["intervals"]:
        why = "no size has five runs, of which four make its curve and one tells noise"
        if np.isfinite(drawn_Rx2x2).any():
            why = "with this noise more than one in forty draws have too few sizes inside their reach"
        warnings.append(f"envelope: its exponents have no interval: {why}")
    return Found(entry, found, drawn, warnings)
