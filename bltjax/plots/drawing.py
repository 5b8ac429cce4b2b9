"""What every figure is drawn with: colours, axes, labels, marks to hover over, and its PNG and SVG bytes.
No pyplot: nothing global, no window.

Every colour that depends on the page (ink, grid) is one of the constants here, and a family's stands in
config/families.py, so that page.py can swap them for dark mode."""

import contextlib
import dataclasses
import io
import re

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from bltjax.config import families

INK, MUTED, FAINT, GRID, PAPER = "#1f1f1e", "#6b6b68", "#c3c2bd", "#e3e2de", "#fefefe"
style = families.style  # of a family: (colour, marker)
RC = {
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "ytick.major.size": 0,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "axes.axisbelow": True,
    "svg.fonttype": "path",
    "mathtext.default": "regular",
}
WIDTH, HEIGHT = 5.1, 4.0  # inches: text keeps its size when a phone shrinks the figure to its width
LINE = 13.0  # points between two labels


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A figure and what hovering over it shows.

    marks: (x, y, text, stop): where in its SVG, in points from the top left corner; stop: whether the
    keyboard goes there (not to every place on a long curve)."""

    figure: Figure
    marks: tuple = ()


def marks(figure, transform, line: dict, stop: bool = True) -> list:
    """Of a line's points, as they lie when the axes' limits are final. line: "x", "y" and "notes"; without
    notes there are none."""
    if not line.get("notes"):
        return []
    to_points = 72 / figure.dpi
    at = transform.transform(np.column_stack([line["x"], line["y"]])) * to_points
    height = figure.get_size_inches()[1] * 72
    return [
        (round(float(x), 1), round(float(height - y), 1), note, stop)
        for (x, y), note in zip(at, line["notes"])
    ]


@contextlib.contextmanager
def look():
    """Context in which figures are drawn and saved: matplotlib's own defaults and RC, whatever the user's
    matplotlibrc says (text.usetex, say, would need a TeX)."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(RC)
        yield


FILLS = ("full", "none", "left", "bottom")


def variant(line: dict) -> dict:
    """Marker of a series: its family's, filled in one of four ways, since series of a family share a
    colour."""
    colour, marker = style(line["family"])
    number = line.get("variant", 0) % len(FILLS)
    look_ = dict(
        linestyle="none", marker=marker, color=colour, markeredgecolor=PAPER, clip_on=False, zorder=4
    )
    if number:
        look_.update(markeredgecolor=colour, fillstyle=FILLS[number], markerfacecoloralt=PAPER)
    return look_


def canvas(width: float = WIDTH, height: float = HEIGHT) -> Figure:
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def text_width(figure, text: str, size: float) -> float:
    """Width in points."""
    artist = figure.text(0, 0, text, fontsize=size)
    width = artist.get_window_extent(figure.canvas.get_renderer()).width * 72 / figure.dpi
    artist.remove()
    return width


def place(figure, labels=(), size: float = 10.0, bottom: float = 0.62, top: float = 0.42, left: float = 0.62):
    """Axes with room to their right for direct labels, 55% of the figure at most. Margins in inches."""
    width, height = figure.get_size_inches()
    right = (max((text_width(figure, label, size) for label in labels), default=0) + 20) / 72
    right = min(right, 0.55 * width)
    return figure.add_axes(
        (left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height)
    )


def kept_apart(wanted, low: float, high: float, gap: float = LINE):
    """Positions nearest to the wanted ones, at least gap apart and between low and high where there is room:
    neighbours that are too close share their mean, and so on until none are."""
    order = np.argsort(wanted, kind="stable")
    blocks = []
    for index in order:
        blocks.append([wanted[index], 1, [index]])  # centre, count, members
        while len(blocks) > 1 and blocks[-1][0] - blocks[-2][0] < gap * (blocks[-1][1] + blocks[-2][1]) / 2:
            centre, count, members = blocks.pop()
            other = blocks[-1]
            other[0] = (other[0] * other[1] + centre * count) / (other[1] + count)
            other[1] += count
            other[2] += members
            other[0] = min(max(other[0], low + gap * (other[1] - 1) / 2), high - gap * (other[1] - 1) / 2)
    out = np.empty(len(wanted))
    for centre, count, members in blocks:
        centre = min(max(centre, low + gap * (count - 1) / 2), high - gap * (count - 1) / 2)
        out[members] = centre + gap * (np.arange(count) - (count - 1) / 2)
    return out


def direct_labels(figure, axes, ends, size: float = 10.0) -> None:
    """Names at the right edge, each beside its curve's end; a thin line where it had to move. ends: [(x, y,
    text, colour)]."""
    if not ends:
        return
    to_points = 72 / figure.dpi
    box = axes.get_window_extent(figure.canvas.get_renderer())
    at = [axes.transData.transform((x, y)) * to_points for x, y, _, _ in ends]
    heights = kept_apart([y for _, y in at], box.y0 * to_points + 4, box.y1 * to_points - 2)
    edge = box.x1 * to_points
    for (x, y, text, colour), (px, py), height in zip(ends, at, heights):
        moved = abs(height - py) > 2 or edge - px > 16
        arrow = (
            dict(arrowstyle="-", color=colour, linewidth=0.6, alpha=0.6, shrinkA=1, shrinkB=5)
            if moved
            else None
        )
        axes.annotate(
            text,
            (x, y),
            xytext=(edge + 10 - px, height - py),
            textcoords="offset points",
            color=colour,
            fontsize=size,
            va="center",
            ha="left",
            arrowprops=arrow and dict(arrow, relpos=(0, 0.5)),
            annotation_clip=False,
        )


def scientific(value: float, _=None) -> str:
    mantissa, exponent = f"{value:.2e}".split("e")
    mantissa = f"{float(mantissa):g}"
    return (
        f"$10^{{{int(exponent)}}}$" if mantissa == "1" else f"${mantissa}{{\\times}}10^{{{int(exponent)}}}$"
    )


def flops_axis(axes, low: float, high: float, label: str, ticks=()) -> None:
    """Logarithmic axis of FLOPs over [low, high] with a little air; ticks at the budgets where they are few
    and far enough apart."""
    air = (high / low) ** 0.05 if high > 1.1 * low else 2.0
    axes.set_xscale("log")
    axes.set_xlim(low / air, high * air)
    ticks = sorted(t for t in set(ticks) if low / air <= t <= high * air)
    span = np.log10(high * air**2 / low)
    if not 1 <= len(ticks) <= 6 or np.diff(np.log10(ticks)).min(initial=span) < 0.17 * span:
        if span >= 1.5:
            axes.xaxis.set_major_locator(LogLocator(numticks=6))
        else:
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=10))
    else:
        axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(scientific))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(label)


def bits_axis(axes, values, label: str, share: float = 0.07) -> None:
    """Linear axis with air around the values; its name stands above it, level, to be read without turning the
    head."""
    low, high = min(values), max(values)
    air = share * (high - low) or 0.05 * abs(high) or 0.01
    axes.set_ylim(low - air, high + air)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    title(axes, label)


def title(axes, text: str, colour: str = INK) -> None:
    axes.annotate(
        text,
        (0, 1),
        xycoords=("figure fraction", "axes fraction"),
        xytext=(8, 8),
        textcoords="offset points",
        color=colour,
    )


def png(figure: Figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=200, metadata={"Software": None})
    return out.getvalue()


def svg(figure: Figure, name: str) -> str:
    """Stand-alone SVG, the same bytes for the same figure; ids carry the name, so that several can stand in
    one page."""
    out = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
        figure.savefig(
            out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", out.getvalue(), flags=re.S)
    text = re.sub(r"<!DOCTYPE[^>]*>\s*", "", text)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    return re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)


@dataclasses.dataclass(frozen=True)
class Picture:
    """name: of its files; alt: one line for those who cannot see it; caption: how to read it; data: CSV of
    what is drawn; marks: what hovering shows (Drawing)."""

    name: str
    alt: str
    caption: str
    svg: str
    png: bytes
    data: str = ""
    marks: tuple = ()


def picture(name: str, alt: str, caption: str, drawing: Drawing, data: str = "") -> Picture:
    """A drawing as it is written to files, within `look`."""
    return Picture(name, alt, caption, svg(drawing.figure, name), png(drawing.figure), data, drawing.marks)
