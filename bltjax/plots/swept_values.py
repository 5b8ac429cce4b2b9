"""Validation bits per byte over a value that was swept."""

import numpy as np
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from bltjax.plots.drawing import PAPER, Drawing, bits_axis, canvas, direct_labels, marks, place, style


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
