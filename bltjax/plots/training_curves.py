"""Training curves of single runs, a panel a family."""

import numpy as np
from matplotlib.ticker import MaxNLocator

from bltjax.plots import points
from bltjax.plots.drawing import FAINT, WIDTH, Drawing, canvas, flops_axis, marks, style

PLACES = 12  # of a training curve where hovering shows its run


def training(runs: list, label: str, text: str) -> Drawing:
    """A panel per family: its own training curves in colour over everybody's. runs: [{"family", "row", "x",
    "y"}] with x ascending; row: of its run. label: of x; text: whose bits per byte y are, "training" or
    "validation"."""
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
        8 / 72 / figure.get_size_inches()[0], 1 - 0.2 / height, f"{text} bits per byte, smoothed", va="center"
    )
    found = []
    for run in runs:
        axes = panels[families.index(run["family"])]
        inside = np.flatnonzero((run["x"] >= low_x) & (run["y"] <= axes.get_ylim()[1]))
        if len(inside):
            kept = inside[np.unique(np.linspace(0, len(inside) - 1, PLACES).round().astype(int))]
            x, y = run["x"][kept], run["y"][kept]
            notes = [points.training_note(run["row"], text, *place_) for place_ in zip(x, y)]
            found += [
                (*mark[:3], index == len(kept) - 1)
                for index, mark in enumerate(marks(figure, axes.transData, dict(x=x, y=y, notes=notes)))
            ]
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
