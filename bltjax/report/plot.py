"""The figures, as matplotlib Figures of fixed size, and their PNG and SVG bytes. No pyplot: nothing global,
no window.

Every colour that depends on the page (ink, grid) is one of the constants here, and a family's stands in
config/families.py, so that page.py can swap them for dark mode."""

import io
import re

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator
from matplotlib.transforms import offset_copy

from bltjax.config import families
from bltjax.science.power_law import predict

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


def look():
    """Context in which figures are drawn and saved."""
    return matplotlib.rc_context(RC)


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
    """Axes with room to their right for direct labels. Margins in inches."""
    width, height = figure.get_size_inches()
    right = (max((text_width(figure, label, size) for label in labels), default=0) + 20) / 72
    return figure.add_axes(
        (left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height)
    )


def spread(wanted, low: float, high: float, gap: float = LINE):
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
    heights = spread([y for _, y in at], box.y0 * to_points + 4, box.y1 * to_points - 2)
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


def curves(series: list, fits: dict, label: str, ticks=()) -> Figure:
    """Test bits per byte against training FLOPs. series: [{"family", "x", "y", "low", "high"}], low and high
    with None if unknown."""
    figure = canvas()
    axes = place(figure, [s["family"] for s in series])
    xs = [x for s in series for x in s["x"]]
    flops_axis(axes, min(xs), max(xs), label, ticks)
    bits_axis(
        axes,
        [v for s in series for key in ("y", "low", "high") for v in s[key] if v is not None],
        "test bits per byte",
    )
    ends = []
    for index, s in enumerate(series):
        colour, marker = style(s["family"])
        x, y = np.array(s["x"]), np.array(s["y"])
        fit = fits.get(s["family"])
        if fit:
            dense = np.geomspace(x.min(), x.max(), 100)
            axes.plot(dense, predict(fit, dense), color=colour, linewidth=1.6)
        else:
            axes.plot(x, y, color=colour, linewidth=1, linestyle=(0, (2, 2)))
        bars(axes, s, apart(figure, axes, index, len(series), 4), linewidth=1.2, alpha=0.4)
        axes.plot(
            x,
            y,
            linestyle="none",
            marker=marker,
            markersize=6,
            color=colour,
            markeredgecolor=PAPER,
            markeredgewidth=0.7,
            clip_on=False,
            zorder=4,
        )
        ends.append((x[-1], float(predict(fit, x[-1])) if fit else y[-1], s["family"], colour))
    direct_labels(figure, axes, ends)
    return figure


def differences(series: list, label: str, ticks=(), reference: str = "bpe") -> Figure:
    """Paired differences to the reference with their intervals. series: [{"family", "x", "y", "low", "high"}]
    of differences."""
    figure = canvas(WIDTH, 3.5)
    axes = place(figure, [s["family"] for s in series] + [reference])
    xs = [x for s in series for x in s["x"]]
    flops_axis(axes, min(xs), max(xs), label, ticks)
    bits_axis(
        axes,
        [0.0] + [v for s in series for key in ("y", "low", "high") for v in s[key] if v is not None],
        f"test bits per byte minus {reference}'s (below 0: better)",
        0.1,
    )
    axes.axhline(0, color=INK, linewidth=1)
    ends = [(axes.get_xlim()[1], 0.0, reference, INK)]
    for index, s in enumerate(series):
        colour, marker = style(s["family"])
        shift = apart(figure, axes, index, len(series), 6)
        axes.plot(s["x"], s["y"], color=colour, linewidth=1.0, alpha=0.5, transform=shift)
        bars(axes, s, shift, linewidth=2)
        axes.plot(
            s["x"],
            s["y"],
            linestyle="none",
            marker=marker,
            markersize=4.5,
            color=colour,
            markeredgecolor=PAPER,
            markeredgewidth=0.4,
            transform=shift,
            clip_on=False,
            zorder=4,
        )
        ends.append((s["x"][-1], s["y"][-1], s["family"], colour))
    direct_labels(figure, axes, ends)
    return figure


def training(runs: list, label: str) -> Figure:
    """A panel per family: its own training curves in colour over everybody's. runs: [{"family", "x", "y"}]
    with x ascending."""
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
    shared = None
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
    figure.text(
        8 / 72 / figure.get_size_inches()[0],
        1 - 0.2 / height,
        "training bits per byte, smoothed",
        va="center",
    )
    return figure


def swept(sweep_list: list, label: str, name_of) -> Figure:
    """Validation bits per byte against a swept value, the chosen one filled. name_of: sweep -> direct
    label."""
    figure = canvas()
    names = [name_of(s) for s in sweep_list]
    axes = place(figure, names, 9.5)
    values = sorted({v["value"] for s in sweep_list for v in s["values"]})
    axes.set_xscale("log")
    air = (values[-1] / values[0]) ** 0.06
    axes.set_xlim(values[0] / air, values[-1] * air)
    kept = values[:1]
    for value in values[
        1:
    ]:  # neighbours whose numbers would run into each other: the first one keeps its tick
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
        ends.append((x[-1], y[-1], name, colour))
    direct_labels(figure, axes, ends, 9.5)
    return figure


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
