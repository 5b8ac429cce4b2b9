"""Curves over training FLOPs, a line a series: bits per byte, and differences to a reference."""

import numpy as np
from matplotlib.transforms import offset_copy

from bltjax.plots.drawing import (
    HEIGHT,
    INK,
    LINE,
    WIDTH,
    Drawing,
    bits_axis,
    canvas,
    direct_labels,
    flops_axis,
    marks,
    place,
    style,
    variant,
)
from bltjax.science.power_law import predict

MANY = 6  # series; the intervals of more are left to hovering and the tables
LINES = ("solid", (0, (6, 2)), (0, (6, 1.5, 1, 1.5)), (0, (3, 1.5)))


def apart(figure, axes, index: int, count: int, points: float):
    """Data coordinates moved sideways by some points of paper: intervals at one budget would hide each
    other."""
    gap = min(points, 26 / count)
    return offset_copy(axes.transData, figure, x=gap * (index - (count - 1) / 2), units="points")


def bars(axes, line: dict, transform, **line_style) -> None:
    """Vertical intervals, where known."""
    for at, low, high in zip(line["x"], line["low"], line["high"]):
        if low is not None:
            axes.plot(
                [at, at],
                [low, high],
                color=style(line["family"])[0],
                transform=transform,
                solid_capstyle="butt",
                clip_on=False,
                **line_style,
            )


def tall(series: list, least: float) -> float:
    """Height in inches of a figure with a label a series."""
    return max(least, (LINE * (len(series) + 1)) / 72 + 1.04)


def ends_of_bars(series: list) -> tuple:
    """The keys of intervals that curves have; none where so many series would hide one another."""
    return () if len(series) > MANY else ("low", "high")


def curves(series: list, fits: dict, label: str, ticks=()) -> Drawing:
    """Test bits per byte against training FLOPs. series: [{"series", "family", "variant", "x", "y", "low",
    "high", "notes"}], low and high with None if unknown; fits: by series."""
    figure, found = canvas(WIDTH, tall(series, HEIGHT)), []
    axes = place(figure, [s["series"] for s in series])
    xs = [x for s in series for x in s["x"]]
    flops_axis(axes, min(xs), max(xs), label, ticks)
    bits_axis(
        axes,
        [v for s in series for key in ("y", *ends_of_bars(series)) for v in s[key] if v is not None],
        "test bits per byte",
    )
    ends = []
    for index, s in enumerate(series):
        colour = style(s["family"])[0]
        x, y = np.array(s["x"]), np.array(s["y"])
        fit = fits.get(s["series"])
        if fit:
            dense = np.geomspace(x.min(), x.max(), 100)
            dashes = LINES[s["variant"] % len(LINES)]
            axes.plot(dense, predict(fit, dense), color=colour, linewidth=1.6, linestyle=dashes)
        else:
            axes.plot(x, y, color=colour, linewidth=1, linestyle=(0, (2, 2)))
        if ends_of_bars(series):
            bars(axes, s, apart(figure, axes, index, len(series), 4), linewidth=1.2, alpha=0.4)
        axes.plot(x, y, markersize=6, markeredgewidth=0.7, **variant(s))
        found += marks(figure, axes.transData, s)
        ends.append((x[-1], float(predict(fit, x[-1])) if fit else y[-1], s["series"], colour))
    direct_labels(figure, axes, ends)
    return Drawing(figure, tuple(found))


def differences(series: list, label: str, ticks=(), reference: str = "bpe") -> Drawing:
    """Differences to the reference with their intervals. series: [{"series", "family", "variant", "x", "y",
    "low", "high", "notes"}] of differences."""
    figure, found = canvas(WIDTH, tall(series, 3.5)), []
    axes = place(figure, [s["series"] for s in series] + [reference])
    xs = [x for s in series for x in s["x"]]
    flops_axis(axes, min(xs), max(xs), label, ticks)
    bits_axis(
        axes,
        [0.0] + [v for s in series for key in ("y", "low", "high") for v in s[key] if v is not None],
        f"test bits per byte minus {reference}'s",
        0.1,
    )
    axes.axhline(0, color=INK, linewidth=1)
    ends = [(axes.get_xlim()[1], 0.0, reference, INK)]
    for index, s in enumerate(series):
        colour = style(s["family"])[0]
        shift = apart(figure, axes, index, len(series), 6)
        axes.plot(s["x"], s["y"], color=colour, linewidth=1.0, alpha=0.5, transform=shift)
        bars(axes, s, shift, linewidth=2)
        axes.plot(s["x"], s["y"], markersize=4.5, markeredgewidth=0.4, transform=shift, **variant(s))
        found += marks(figure, shift, s)
        ends.append((s["x"][-1], s["y"][-1], s["series"], colour))
    direct_labels(figure, axes, ends)
    return Drawing(figure, tuple(found))
