"""The figures of `bltjax fit`, each as PNG, SVG and the data that are drawn in it, and all its files."""

import pathlib
import re
import tempfile

import numpy as np
from matplotlib.ticker import NullFormatter

from bltjax.config import families
from bltjax.errors import UserError
from bltjax.fits import analysis, between_families, compute_optimal, text
from bltjax.fits.approaches import Found
from bltjax.fits.source import Source
from bltjax.plots import drawing
from bltjax.plots.drawing import Drawing, picture
from bltjax.results.tables import csv_text
from bltjax.science import isoflop, parametric
from bltjax.science.fit_runs import Runs

COLOURS = ("#2a6fb0", "#c1622d", "#3f8f5f", "#8a5aa8", "#b0913a", "#4a9aa5", "#b34f6e", "#6b6b68")
MOST_LINES = 12  # budgets drawn apart in one figure
POINTS = 80  # of a curve


def draw(result: dict, source: Source) -> list:
    """The Pictures of what the fits have numbers for."""
    drawn, (runs_of, _) = [], analysis.parts(source)
    with drawing.look():
        for group, found in result["found"].items():
            ending, runs = f"_{_file_name(group)}" if group else "", runs_of[group]
            for name, alt, caption, figure, data in _figures(found, source, runs):
                name += ending
                alt = f"{alt}, {group}" if group else alt
                drawn.append(picture(name, alt, caption, Drawing(figure), data))
        if curves := [one for one in result["comparisons"] if not one["why"]]:
            name, alt, caption, figure, data = _gains(curves)
            drawn.append(picture(name, alt, caption, Drawing(figure), data))
    return drawn


def folder(out) -> pathlib.Path:
    """The folder that files will go to, made and tried. UserError where it cannot be written to."""
    out = pathlib.Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            return out
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written to ({error.strerror})") from None


def write(result: dict, source: Source, out) -> list:
    """The paths of all files in a folder (which is made): tables as CSV, figures, and fit.md with everything
    that is said. UserError where it cannot be written to."""
    out, drawn = folder(out), draw(result, source)
    files = {"fit.md": text.markdown(result, {one.name: one for one in drawn})}
    for name, (_, table) in text.all_tables(result).items():
        files[f"{name}.csv"] = text.csv_of(**table)
    for one in drawn:
        files.update({f"{one.name}.{end}": getattr(one, end) for end in ("png", "svg")})
        files[f"{one.name}.csv"] = one.data
    try:
        for name, content in files.items():
            (out / name).write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written to ({error.strerror})") from None
    return [str(out / name) for name in sorted(files)]


def _file_name(group: str) -> str:
    return re.sub(r"[^\w.]+", "-", group).strip("-")


def _figures(found: list, source: Source, runs: Runs):
    """(name, alt, caption, Figure, data) of one group's fits."""
    law = next((one for one in found if one.entry["method"] == "parametric" and one.law), None)
    if law:
        yield _residuals(law.law)
    planes = next((one for one in found if one.entry["method"] == "isoflop" and one.law), None)
    if planes and "N" in planes.law:
        budgets = source.budgets if source.budgets is not None else source.flops
        yield _isoflops(planes, law, runs, source.of(budgets, runs))
    stars = [one for one in found if one.law and _line(one)]
    if stars:
        yield _sizes(stars, law, source, runs)


def _loglog(axes, x, label: str) -> None:
    drawing.flops_axis(axes, float(np.min(x)), float(np.max(x)), label)


def _log_scale(axes, values, label: str) -> None:
    """A vertical axis of powers of ten with air; labels at curves' ends are placed on a scale that is set."""
    low, high = float(np.min(values)), float(np.max(values))
    air = (high / low) ** 0.08 if high > 1.01 * low else 2.0
    axes.set_yscale("log")
    axes.set_ylim(low / air, high * air)
    axes.yaxis.set_minor_formatter(NullFormatter())
    drawing.title(axes, label)


def _residuals(fit: parametric.Fit):
    """What the law leaves of each run, in percent, over what it predicts."""
    predicted, left = fit.predict(**fit.runs.values), 100 * fit.residuals_N
    figure = drawing.canvas()
    axes = drawing.place(figure)
    axes.axhline(0, color=drawing.INK, linewidth=1)
    axes.plot(predicted, left, linestyle="none", marker="o", markersize=3.5, color=COLOURS[0], alpha=0.7)
    axes.set_xlabel(f"predicted loss ({fit.units['loss']})")
    drawing.bits_axis(axes, left, "run minus law, percent of loss")
    names = list(fit.runs.values)
    rows = zip(fit.runs.rows_N, *fit.runs.values.values(), fit.runs.loss_N, predicted, left)
    units = [f"{name} ({fit.units[name]})" for name in names]
    columns = ["row", *units, f"loss ({fit.units['loss']})", "predicted", "residual, percent"]
    caption = "Every run of the fit. A law of the right form leaves no trend, only noise."
    return "residuals", f"Residuals of {fit.formula}", caption, figure, csv_text(columns, rows)


def _isoflops(planes: Found, law, runs: Runs, budgets_N):
    """Loss over size at each budget, with its parabola and its lowest point."""
    allocation = planes.law["N"]
    budget_N = isoflop.budgets(budgets_N)
    minima = [m for m in allocation.minima][:: max(1, len(allocation.minima) // MOST_LINES)]
    figure = drawing.canvas()
    labels = [f"{m.flops:.2g}" for m in minima]
    axes = drawing.place(figure, labels)
    _loglog(axes, runs.values["N"], f"N ({runs.units['N']})")
    drawing.bits_axis(axes, runs.loss_N, f"loss ({runs.units['loss']})")
    rows, ends = [], []
    for index, m in enumerate(minima):
        those = np.abs(np.log(budget_N / m.flops)) < 1e-3
        x, y, colour = runs.values["N"][those], runs.loss_N[those], COLOURS[index % len(COLOURS)]
        if not len(x):
            continue
        axes.plot(x, y, linestyle="none", marker="o", markersize=3.5, color=colour)
        rows += [("run", m.flops, a, b) for a, b in zip(x, y)]
        dense = np.geomspace(x.min(), x.max(), POINTS)
        if not m.why:
            curve = m.loss + m.curvature * np.square(np.log10(dense / m.x))
            axes.plot(dense, curve, color=colour, linewidth=1.2)
            axes.plot([m.x], [m.loss], marker="D", markersize=5, color=colour, markeredgecolor=drawing.PAPER)
            rows += [("parabola", m.flops, a, b) for a, b in zip(dense, curve)]
            rows.append(("lowest point", m.flops, m.x, m.loss))
        top = int(np.argmax(x))
        ends.append((float(x[top]), float(y[top]), f"{m.flops:.2g}", colour))
    drawing.direct_labels(figure, axes, ends)
    caption = (
        "Runs of each budget (FLOPs at the right) over size, the parabola through them, and its lowest point"
        " (diamonds). A lowest point at the edge of the runs is none."
    )
    data = csv_text(["what", "budget, FLOPs", f"N ({runs.units['N']})", f"loss ({runs.units['loss']})"], rows)
    return "isoflop", "Loss over size at each budget", caption, figure, data


def _line(found: Found):
    """(coefficient, exponent) of N* = coefficient · C^exponent, None where the method has none."""
    star = found.entry.get("N_star")
    return star and (star["coefficient"], star["exponent"])


def _sizes(stars: list, law, source: Source, runs: Runs):
    """The best size over budgets by every method that tells it."""
    low, high = between_families.span(source, runs) or (1e17, 1e21)
    at = np.geomspace(low, high, POINTS)
    lines = [(one.entry["method"], _line(one)[0] * at ** _line(one)[1]) for one in stars]
    pair, _, _ = compute_optimal.per_pair(source, runs)
    if law and compute_optimal.optima(law, [low], pair, runs):
        lines.insert(0, ("parametric", [compute_optimal.optima(law, [x], pair, runs)[0]["N"] for x in at]))
    figure = drawing.canvas()
    axes = drawing.place(figure, [name for name, _ in lines])
    _loglog(axes, at, "training FLOPs")
    _log_scale(axes, np.concatenate([best for _, best in lines]), f"best N ({runs.units['N']})")
    ends, rows = [], []
    for index, (name, best) in enumerate(lines):
        axes.plot(at, best, color=COLOURS[index], linewidth=1.6)
        ends.append((at[-1], float(best[-1]), name, COLOURS[index]))
        rows += [(name, x, float(y)) for x, y in zip(at, best)]
    for one in stars:
        for m in one.entry.get("N_minima", ()):
            if m["best"]:
                axes.plot(
                    [m["flops"]], [m["best"]], marker="D", markersize=4.5, color=drawing.MUTED, zorder=4
                )
                rows.append(("lowest point", m["flops"], m["best"]))
    drawing.direct_labels(figure, axes, ends)
    caption = (
        "The best size at a budget by each method, over the budgets that were run; diamonds: IsoFLOP minima."
    )
    data = csv_text(["what", "FLOPs", f"N ({runs.units['N']})"], rows)
    return "best_size", "Best size over training FLOPs by each method", caption, figure, data


def _gains(comparisons: list):
    figure = drawing.canvas()
    axes = drawing.place(figure, [one["group"] for one in comparisons])
    flops = [at["flops"] for one in comparisons for at in one["gain"]]
    _loglog(axes, flops, "training FLOPs")
    ends, rows, values = [], [], [1.0]
    for index, one in enumerate(comparisons):
        known = one["group"] in families.FAMILIES
        colour = drawing.style(one["group"])[0] if known else COLOURS[index % len(COLOURS)]
        x = [at["flops"] for at in one["gain"] if at["gain"]]
        y = [at["gain"] for at in one["gain"] if at["gain"]]
        for at in one["gain"]:
            rows.append((one["group"], at["flops"], at["gain"] or "", at["low"] or "", at["high"] or ""))
            if at["gain"] and at["low"] and at["high"]:
                axes.plot([at["flops"]] * 2, [at["low"], at["high"]], color=colour, linewidth=2, alpha=0.5)
                values += [at["low"], at["high"]]
        if x:
            axes.plot(x, y, color=colour, marker="o", markersize=4, linewidth=1.4)
            ends.append((x[-1], y[-1], one["group"], colour))
            values += y
    axes.axhline(1, color=drawing.INK, linewidth=1)
    label = f"effective compute, times that of {comparisons[0]['against']}"
    if max(values) / min(values) > 10:
        _log_scale(axes, values, label)
    else:
        drawing.bits_axis(axes, values, label)
    drawing.direct_labels(figure, axes, ends)
    caption = "How many times the FLOPs the other needs for the same loss; bars: 95% intervals of draws."
    data = csv_text(["group", "FLOPs", "gain", "low", "high"], rows)
    return "gain", "Effective-compute gain over training FLOPs", caption, figure, data
