"""The paper's figures and tables redrawn from our runs. The paper's own numbers are open grey diamonds, ours
are filled in their family's colour: neither is ever joined to the other."""

from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from bltjax.plots import points
from bltjax.plots.curves import curves
from bltjax.plots.drawing import FAINT, INK, MUTED, PAPER, Drawing, canvas, marks, style, text_width

ROW = 0.36  # inches
APART = 0.15  # of a row: ours above, the paper's below


def dots(entry: dict, at: dict, column: str) -> Drawing:
    """Differences to the reference row, a line a row of the table: ours with 95% intervals, the paper's."""
    rows = at["rows"]
    figure = canvas(5.6, ROW * len(rows) + 1.15)
    width, height = figure.get_size_inches()
    label = max(text_width(figure, row["words"], 10.0) for row in rows) / 72
    left = min(label + 0.25, 0.55 * width)
    axes = figure.add_axes((left / width, 0.6 / height, 1 - (left + 0.2) / width, 1 - 1.1 / height))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(False)
    axes.axvline(0, color=INK, linewidth=1)
    mine = dict(x=[], y=[], notes=[])
    printed = dict(x=[], y=[], notes=[])
    for index, row in enumerate(rows):
        cell, reference = row["cells"][column], row["row"] == at["reference"]
        axes.axhline(index + 0.5, color=FAINT, linewidth=0.4)
        ours = 0.0 if reference and row["run"] else cell["ours_minus_reference"]
        theirs = 0.0 if reference and cell["paper"] is not None else cell["paper_minus_reference"]
        if ours is not None:
            colour, marker = style(row["family"])
            y = index - APART
            if cell["low"] is not None:
                axes.plot([cell["low"], cell["high"]], [y, y], color=colour, linewidth=1.6, alpha=0.6)
            axes.plot([ours], [y], marker=marker, markersize=6, color=colour, markeredgecolor=PAPER, zorder=4)
            mine["x"].append(ours)
            mine["y"].append(y)
            mine["notes"].append(ours_note(row, cell, ours))
        if theirs is not None:
            y = index + APART
            axes.plot([theirs], [y], marker="D", markersize=5, color=MUTED, markerfacecolor=PAPER, zorder=3)
            printed["x"].append(theirs)
            printed["y"].append(y)
            printed["notes"].append(paper_note(entry, row, cell, theirs))
    axes.set_yticks(range(len(rows)), [row["words"] for row in rows], fontsize=10.0)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.set_xlabel(f"bits per byte minus those of “{words(at)}”")
    legend(figure, axes, rows, height)
    found = marks(figure, axes.transData, mine) + marks(figure, axes.transData, printed)
    return Drawing(figure, tuple(found))


def words(at: dict) -> str:
    return next(row["words"] for row in at["rows"] if row["row"] == at["reference"])


def legend(figure, axes, rows: list, height: float) -> None:
    """The two signs, named above the axes."""
    family = next(row["family"] for row in rows if row["family"])
    colour, marker = style(family)
    y = 1 - 0.25 / height
    at = axes.get_position().x0 + 0.01
    for marker_, edge, fill, text in (
        (marker, colour, colour, "ours, 95%"),
        ("D", MUTED, PAPER, "the paper's"),
    ):
        figure.add_artist(
            Line2D(
                [at], [y], marker=marker_, color=edge, markerfacecolor=fill, markersize=5.5, linestyle="none"
            )
        )
        figure.text(at + 0.022, y, text, va="center", fontsize=10.0, color=edge if fill != PAPER else INK)
        at += 0.022 + (text_width(figure, text, 10.0) + 16) / 72 / figure.get_size_inches()[0]


def ours_note(row: dict, cell: dict, difference: float) -> str:
    interval = None
    if cell["low"] is not None:
        interval = f"{cell['low']:+.4f} to {cell['high']:+.4f}".replace("-", "−")
    facts = [
        ("row", row["words"]),
        ("test bits/byte, ours", f"{cell['ours']:.4f}"),
        ("minus the reference row", f"{difference:+.4f}".replace("-", "−")),
        ("95% interval", interval),
        ("seeds", row["seeds"]),
        ("directory", row["run_dir"]),
    ]
    return points.lines(row["run"], facts)


def paper_note(entry: dict, row: dict, cell: dict, difference: float) -> str:
    facts = [
        ("row", row["words"]),
        ("bits/byte, the paper's", f"{cell['paper']:.3f} [{cell['mark']}]"),
        ("minus the reference row", f"{difference:+.3f}".replace("-", "−")),
        ("scale", entry["scale"]),
    ]
    return points.lines(f"the paper's {entry['name']}", facts)


def over_data(lines: list) -> Drawing:
    """Figure 1: bits per byte against training bytes, at equal inference FLOPs. lines: as `curves.curves` has
    them."""
    return curves(lines, {}, "training bytes")


def over_entropy_models(models: list) -> Drawing:
    """Figure 8: bits per byte against the size of the entropy model, a line a context. models: as
    `paper.entropy_models` has them."""
    lines, numbers = {}, {}
    for model in models:
        name = (
            f"{model['whose']}, {model['context']:,} bytes" if model["context"] else f"{model['whose']}, all"
        )
        row = model["row"]
        if name not in lines:
            number = numbers[model["family"]] = numbers.get(model["family"], -1) + 1
            blank = dict(family=model["family"], series=name, variant=number, x=[], y=[], low=[], high=[])
            lines[name] = dict(blank, notes=[])
        size = f"{model['parameters']:,.0f} parameters, {model['context']:,} bytes of context"
        note = f"{points.note(row)}\nentropy model: {size}"
        for key, value in (
            ("x", model["parameters"]),
            ("y", row["bpb"]),
            ("low", row["bpb_low"]),
            ("high", row["bpb_high"]),
            ("notes", note),
        ):
            lines[name][key].append(value)
    return curves(list(lines.values()), {}, "parameters of the entropy model")
