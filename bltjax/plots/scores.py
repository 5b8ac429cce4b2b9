"""Scores at one budget, a line a series, where a curve over budgets would be a heap of points."""

import numpy as np
from matplotlib.ticker import MaxNLocator

from bltjax.plots.drawing import FAINT, INK, WIDTH, Drawing, canvas, marks, style, text_width, variant

ROW = 0.3  # inches


def scores(series: list, label: str) -> Drawing:
    """Test bits per byte with their intervals, series down in the order given. series: as `curves.curves` has
    them, a point each."""
    names = [s["series"] for s in series]
    figure = canvas(WIDTH + 0.4, ROW * len(series) + 0.85)
    width, height = figure.get_size_inches()
    left = min(max(text_width(figure, name, 10.0) for name in names) / 72 + 0.25, 0.55 * width)
    axes = figure.add_axes((left / width, 0.62 / height, 1 - (left + 0.2) / width, 1 - 0.77 / height))
    axes.set_ylim(len(series) - 0.5, -0.5)
    axes.grid(False)
    for index in range(len(series) - 1):
        axes.axhline(index + 0.5, color=FAINT, linewidth=0.4)
    found = []
    for index, s in enumerate(series):
        at = np.full(len(s["y"]), float(index))
        for low, high in zip(s["low"], s["high"]):
            if low is not None:
                axes.plot([low, high], [index, index], color=style(s["family"])[0], linewidth=1.4, alpha=0.5)
        axes.plot(s["y"], at, markersize=6, markeredgewidth=0.7, **variant({**s, "variant": 0}))
        found.append(dict(x=s["y"], y=at, notes=s["notes"]))
    axes.set_yticks(range(len(series)), names, fontsize=10.0)
    for text, s in zip(axes.get_yticklabels(), series):
        text.set_color(style(s["family"])[0] if len({t["family"] for t in series}) > 1 else INK)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.set_xlabel(label)
    return Drawing(figure, tuple(mark for line in found for mark in marks(figure, axes.transData, line)))
