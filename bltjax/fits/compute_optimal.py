"""The compute-optimal size and data at a budget, by what fits say: the loss there, how far outside the runs
that is, and whether two methods say the same of it."""

import numpy as np

from bltjax.counts import counted
from bltjax.fits.approaches import Found
from bltjax.fits.source import DENSE, Source
from bltjax.science import allocation, fit_bootstrap
from bltjax.science.fit_runs import Runs

APART = dict(isoflop=0.10, envelope=0.5)  # methods that differ by less about an optimum agree
UNEVEN = 1.15  # FLOPs per parameter and token vary by more (5th to 95th percentile, over the middle)
STRANGE = (1.0, 100.0)  # FLOPs per parameter and token outside of these: a unit has slipped
SLIPPED = 100.0  # one run's differ from the others' by more


def per_pair(source: Source, runs: Runs, patches: bool = False) -> tuple[float, str, list]:
    """(FLOPs per parameter and unit of data, where that is from, warnings): what a budget buys. 6 where no
    column has FLOPs. patches: per parameter and patch instead, of which there are D/T."""
    unit = "patch (D/T)" if patches else "unit of data"
    if not {"N", "D"} <= set(runs.values):
        return DENSE, "", []
    flops_N = np.full(len(runs), np.nan) if source.flops is None else source.of(source.flops, runs)
    known = np.isfinite(flops_N) & (flops_N > 0)
    if not known.any():
        return DENSE, f"6 FLOPs per parameter and {unit}, since no column has FLOPs (C=COLUMN)", []
    ratio = flops_N[known] / runs.values["N"][known] / runs.values["D"][known]
    if patches:
        ratio = ratio * runs.values["T"][known]
    middle = float(np.median(ratio))
    if (np.abs(ratio / middle - 1) < 1e-6).all():
        middle = float(f"{middle:.6g}")
    warnings = []
    slipped = np.flatnonzero(np.abs(np.log(ratio / middle)) > np.log(SLIPPED))
    if not STRANGE[0] <= middle <= STRANGE[1] and "T" not in runs.values:
        warnings.append(
            f"units: a run has {middle:.3g} FLOPs per parameter and {unit} in the middle, where about 6 are"
            " usual; has N, D or C slipped by a thousand?"
        )
    if len(slipped):
        rows = ", ".join(str(row) for row in runs.rows_N[known][slipped][:5])
        some = counted(len(slipped), "run")
        warnings.append(
            f"units: FLOPs per parameter and {unit} of {some} (row {rows}) are over {SLIPPED:.0f} times off"
            " the others': is one of the numbers in another unit?"
        )
    low, high = np.quantile(ratio, [0.05, 0.95])
    text = f"{middle:.4g} FLOPs per parameter and {unit}, the median of the runs ({source.flops_from})"
    if max(high / middle, middle / low) > UNEVEN and not len(slipped):
        warnings.append(
            f"FLOPs per parameter and {unit} are from {low:.3g} to {high:.3g} (5% to 95% of the runs), so"
            " that a best size at a budget, which takes the median, is rough"
        )
    return middle, text, warnings


def optima(found: Found, budgets, pair: float, runs: Runs) -> list:
    """[{"method", "flops", "N", "D", "N_interval", "D_interval", "loss", "data_per_parameter", "outside"}] of
    a law in N and D (with nothing else) or of approach 2."""
    if found.law is None:
        return []
    method = found.entry["method"]
    if method == "parametric":
        fit = found.law
        if set(fit.formula.variables) != {"N", "D"} or not found.entry["identified"]["a"]:
            return []
        if not all(fit.parameters[name] for name in ("A", "B")):
            return []
        return [_surface(found, flops, pair) for flops in budgets]
    out = []
    for flops in budgets:
        one = dict(method=method, flops=flops, N_interval=None, D_interval=None, loss=None)
        drawn = {}
        for variable in ("N", "D"):
            star = found.entry.get(f"{variable}_star")
            one[variable] = star and star["coefficient"] * flops ** star["exponent"]
            if star and variable in (found.draws or {}):
                coefficients, exponents = found.draws[variable]
                with np.errstate(invalid="ignore", over="ignore"):  # draws that run off have no interval
                    drawn[variable] = coefficients * flops**exponents
        known = one["N"] and one["D"]
        one["data_per_parameter"] = one["D"] / one["N"] if known else None
        if set(drawn) == {"N", "D"}:
            drawn["data_per_parameter"] = drawn["D"] / drawn["N"]
        for name, values in drawn.items():
            interval = fit_bootstrap.interval(values)
            one[f"{name}_interval"] = [interval.low, interval.high]
        one["outside"] = "; ".join(
            filter(None, [_outside(runs, v, one[v]) for v in ("N", "D") if one[v] is not None])
        )
        out.append(one)
    return out


def _outside(runs: Runs, variable: str, value: float) -> str:
    low, high = runs.ranges[variable]
    factor = max(value / high, low / value)
    return f"{variable} is {factor:.3g} times outside the runs" if factor > 1.005 else ""


def _surface(found: Found, flops: float, pair: float) -> dict:
    fit = found.law
    n, d = (float(v) for v in allocation.best(fit.formula, fit.parameters_Q, flops, per_pair=pair))
    loss = float(fit.predict(N=n, D=d))
    out = dict(method="parametric", flops=flops, N=n, D=d, loss=loss, data_per_parameter=d / n)
    if found.draws is not None:
        drawn = found.draws.parameters_RxQ
        n_R, d_R = allocation.best(fit.formula, drawn, flops, per_pair=pair)
        at_R = found.draws.predictions(N=n, D=d)
        kept = {"N": n_R, "D": d_R, "data_per_parameter": d_R / n_R, "loss": at_R}
        for name, values in kept.items():
            interval = fit_bootstrap.interval(values)
            out[f"{name}_interval"] = [interval.low, interval.high]
    out["outside"] = fit.extrapolates(N=n, D=d)
    return out


def disagreements(optima_: list, entries: list) -> list:
    """A sentence for the largest budget at which approach 2 (or 1) and the surface differ about the
    optimum."""
    surface = {o["flops"]: o for o in optima_ if o["method"] == "parametric"}
    whole = next((e for e in entries if e["method"] == "parametric"), None)
    said = []
    for method, apart in APART.items():
        others = [o for o in optima_ if o["method"] == method and o["flops"] in surface]
        for other in sorted(others, key=lambda o: -o["flops"])[:1]:
            mine = surface[other["flops"]]
            pairs = [(v, mine[v], other[v]) for v in ("N", "D") if other[v]]
            far = [(v, a, b) for v, a, b in pairs if max(a / b, b / a) - 1 > apart]
            if far:
                texts = ", ".join(
                    f"{v} {a:.4g} by the surface and {b:.4g} by {method},"
                    f" {100 * (max(a / b, b / a) - 1):.0f}% apart"
                    for v, a, b in far
                )
                said.append(
                    f"two methods on the same runs disagree about the optimum at {other['flops']:.3g} FLOPs:"
                    f" {texts}; {trust(whole, mine, method)}"
                )
    return said


def trust(entry: dict, mine: dict, method: str) -> str:
    """Which of the two is to be trusted, and why."""
    lacks = (entry.get("lack_of_fit") or {}).get("p")
    if lacks is not None and lacks < 0.05:
        return "neither is trusted: the surface lacks fit, and a parabola is no better form"
    if not all(entry["identified"].values()):
        lost = ", ".join(name for name, there in entry["identified"].items() if not there)
        return f"neither is trusted: the surface does not identify {lost}, and {method} has more variance"
    bias = {
        "isoflop": (
            "parabolas are biased where grids are off centre or wide, and have about 8 times the variance"
        ),
        "envelope": (
            "an envelope leaves out what is at its edges, and curves of single sizes have more variance"
        ),
    }[method]
    far = f"; this is an extrapolation ({mine['outside']})" if mine["outside"] else ""
    return (
        "the surface is trusted, which uses all runs and has the right form if its residuals are noise:"
        f" {bias}{far}"
    )
