"""The figures of single runs: training curves, and what was swept. `plot` has the axes and the styles."""

import numpy as np
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from bltjax.report import points
from bltjax.report.plot import (
    FAINT,
    PAPER,
    WIDTH,
    Drawing,
    bits_axis,
    canvas,
    direct_labels,
    flops_axis,
    marks,
    place,
    style,
)

PLACES = 12  # of a training curve where hovering shows its run


def training(runs: list, label: str) -> Drawing:
    """A panel per family: its own training curves in colour over everybody's. runs: [{"family", "row", "x",
    "y"}] with x ascending; row: of its run."""
    families = list(dict.fromkeys(r["family"] for r in runs))
    columns = 1 if len(families) == 1 else 2
    lines = -(-len(families) // columns)
    figure = canvas(WIDTH + 0.4, 2.35 * lines + 0.75)
    xs, ys = np.concatenate([r["x"] for r in runs]), np.concatenate([r["y"] for r in runs])
    # the first steps' fall from 8 bits would flatten all the rest
    top = np.quantile(ys, 0.97) if len(ys) > 50 else ys.max()
    low_x = min(r["x"][min(len(r["x"]) - 1, int(np.argmax(r["y"] <= top)))] for r in runs)
    height = figure.get_size_inches()[1]
    grid = figure.add_gridspec(
        lines,
        columns,
        left=0.085,
        right=0.97,
        bottom=0.62 / height,
        top=1 - 0.62 / height,
        wspace=0.12,
        hspace=0.3,
    )
    shared, panels = None, []
    for index, family in enumerate(families):
        axes = figure.add_subplot(grid[index // columns, index % columns], sharex=shared, sharey=shared)
        shared = shared or axes
        colour = style(family)[0]
        for r in sorted(runs, key=lambda r: r["family"] == family):
            mine = r["family"] == family
            axes.plot(
                r["x"],
                r["y"],
                color=colour if mine else FAINT,
                linewidth=1.3 if mine else 0.8,
                zorder=3 if mine else 2,
            )
            if mine:
                axes.plot(
                    r["x"][-1:],
                    r["y"][-1:],
                    marker=style(family)[1],
                    markersize=5,
                    color=colour,
                    zorder=4,
                    clip_on=False,
                )
        axes.set_title(family, loc="left", color=colour, fontsize=10.5, pad=4)
        flops_axis(axes, low_x, xs.max(), label if index + columns >= len(families) else "")
        air = 0.05 * (top - ys.min())
        axes.set_ylim(ys.min() - air, top + air)
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axes.tick_params(labelleft=index % columns == 0, labelbottom=index + columns >= len(families))
        panels.append(axes)
    figure.text(
        8 / 72 / figure.get_size_inches()[0],
        1 - 0.2 / height,
        "training bits per byte, smoothed",
        va="center",
    )
    found = []
    for run in runs:
        axes = panels[families.index(run["family"])]
        inside = np.flatnonzero((run["x"] >= low_x) & (run["y"] <= axes.get_ylim()[1]))
        if len(inside):
            kept = inside[np.unique(np.linspace(0, len(inside) - 1, PLACES).round().astype(int))]
            x, y = run["x"][kept], run["y"][kept]
            notes = [points.training_note(run["row"], *place_) for place_ in zip(x, y)]
            found += [
                (*mark[:3], index == len(kept) - 1)
                for index, mark in enumerate(marks(figure, axes.transData, dict(x=x, y=y, notes=notes)))
            ]
    return Drawing(figure, tuple(found))


def swept(sweep_list: list, label: str, name_of, note_of) -> Drawing:
    """Validation bits per byte against a swept value, the chosen one filled. name_of: sweep -> direct label;
    note_of: (sweep, tried value) -> what hovering shows."""
    figure, found = canvas(), []
    names = [name_of(s) for s in sweep_list]
    axes = place(figure, names, 9.5)
    values = sorted({v["value"] for s in sweep_list for v in s["values"]})
    axes.set_xscale("log")
    air = (values[-1] / values[0]) ** 0.06
    axes.set_xlim(values[0] / air, values[-1] * air)
    kept = values[:1]
    # neighbours whose numbers would run into each other: the first one keeps its tick
    for value in values[1:]:
        if np.log(value / kept[-1]) >= 0.085 * np.log(values[-1] / values[0]):
            kept.append(value)
    axes.xaxis.set_major_locator(FixedLocator(kept))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 100 else f"{value:.3g}")
    )
    axes.xaxis.set_minor_locator(NullLocator())
    if len(kept) > 6:
        axes.tick_params(axis="x", labelsize=8.5, labelrotation=30)
    axes.set_xlabel(label)
    bits_axis(
        axes,
        [v["validation_bpb"] for s in sweep_list for v in s["values"]],
        "validation bits per byte (filled: chosen)",
    )
    ends = []
    for sweep, name in zip(sweep_list, names):
        colour, marker = style(sweep["family"])
        x, y = [v["value"] for v in sweep["values"]], [v["validation_bpb"] for v in sweep["values"]]
        axes.plot(x, y, color=colour, linewidth=1.3)
        for at, bits in zip(x, y):
            axes.plot(
                [at],
                [bits],
                marker=marker,
                markersize=6.5,
                color=colour if at == sweep["chosen"] else PAPER,
                markeredgecolor=colour,
                markeredgewidth=1.2,
                zorder=4,
                clip_on=False,
            )
        notes = [note_of(sweep, tried) for tried in sweep["values"]]
        found += marks(figure, axes.transData, dict(x=x, y=y, notes=notes))
        ends.append((x[-1], y[-1], name, colour))
    direct_labels(figure, axes, ends, 9.5)
    return Drawing(figure, tuple(found))


def smooth(x, y, points: int = 300):
    """Running mean over 2% of the steps, then at most so many points, the last one among them."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    width = max(1, len(y) // 50)
    if width > 1:
        total = np.concatenate([[0.0], np.cumsum(y)])
        y = (total[width:] - total[:-width]) / width
        x = x[width - 1 :]
    kept = np.unique(np.geomspace(1, len(x), min(points, len(x))).round().astype(int)) - 1 if len(x) else []
    return x[kept], y[kept]
