"""The sections of a report that set our runs beside the paper's numbers, in the paper's layout. A number is
marked as ours or the paper's in its column, never by its place alone."""

from bltjax.paper.printed_tables import ARXIV, MARKS
from bltjax.results.tables import listed, short_flops, signed, span

CLASSES = {"small": "_small", "large": "_large"}  # of Figure 1: ends of its drawings' names
DIGITS = {"%": 1, "bit/byte": 3, "byte": 2, "BLEU": 1}


def sections(result: dict) -> list:
    """One section a table or figure, as `sections.section` makes them; kept without a table, too."""
    return [section(entry) for entry in result["paper"]]


def section(entry: dict) -> dict:
    name = " and ".join(filter(None, [entry["also"], entry["name"]]))
    lines = [f"{ARXIV}, {name}: {entry['words']} ({entry['scale']})."]
    lines += [f"The paper says: {said['text']} [{said['mark']}]" for said in entry["says"]]
    lines += entry["notes"]
    tables = []
    for at in entry["at"]:
        lines += at_lines(entry, at, len(entry["at"]) > 1)
        tables += [across(entry, at) if entry["across"] else down(entry, at)]
        if entry_bits(entry) and at["reference"]:
            tables.append(differences(entry, at))
    if not entry["columns"]:
        lines.append(f"It prints no points, so there is nothing to set beside ours: {drawn_as(entry)}.")
    marks = {said["mark"] for said in entry["says"]}
    marks |= {c["mark"] for at in entry["at"] for r in at["rows"] for c in r["cells"].values()}
    lines.append(
        "The paper's numbers are marked by where they come from: "
        + "; ".join(f"[{mark}] {words}" for mark, words in MARKS.items() if mark in marks)
        + "."
    )
    figures = [figure_name(entry) + end for end in ("", *CLASSES.values())]
    return dict(title=f"The paper's {name}", lines=lines, figures=figures, tables=tables, kept=True)


def entry_bits(entry: dict) -> list:
    """The columns of bits per byte that ours have, too."""
    return [column for column in entry["columns"] if column["ours"] == "bpb"]


def figure_name(entry: dict) -> str:
    """The file name of the drawing, "paper_table_7"."""
    return f"paper_{(entry['also'] or entry['name']).lower().replace(' ', '_')}"


def drawn_as(entry: dict) -> str:
    return {"Figure 6": "our curves are those of bits per byte against training FLOPs"}.get(
        entry["name"], "our points are drawn below, if there are any"
    )


def at_lines(entry: dict, at: dict, several: bool) -> list:
    """What is to be said of one budget's rows."""
    where = f"At {short_flops(at['budget_flops'])} FLOPs: " if several and at["budget_flops"] else ""
    finished = [r for r in at["rows"] if r["run"]]
    if not finished:
        return [
            f"{where}no run that stands for a row of it has finished; the paper's numbers alone are shown."
        ]
    lines = []
    if not at["same_scale"]:
        lines.append(
            f"{where}Ours are of another scale ({sizes(at)}): the paper's numbers stand beside them, and only"
            " the differences between rows compare."
        )
    missing = [r for r in at["rows"] if not r["run"]]
    if missing:
        lines.append(f"{where}Missing: " + "; ".join(f"{r['words']} ({r['missing']})" for r in missing) + ".")
    unknown = [c["heading"] for c in entry["columns"] if c["ours"] == ""]
    if unknown:
        lines.append(f"Not evaluated in these runs, and so missing: {listed(unknown)}.")
    if any(c["missing"] == "not in range" for r in finished for c in r["cells"].values()):
        lines.append("A crossing that is missing lies outside the range that both were measured in.")
    return lines


def sizes(at: dict) -> str:
    parts = []
    for values, unit in ((at["parameters"], "parameters"), (at["train_bytes"], "training bytes")):
        known = sorted(v for v in values if v)
        if known:
            ends = dict.fromkeys(amount(v) for v in (known[0], known[-1]))
            parts.append(f"{' to '.join(ends)} {unit}")
    return ", ".join(parts) or "which their run directories do not say"


def amount(value) -> str:
    """470M, 3.6B, 1.2k."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def printed(value, unit: str) -> str:
    if value is None:
        return "–"
    return f"{value:.{DIGITS[unit]}f}" if unit in DIGITS and value < 1e4 else amount(value)


def theirs(cell: dict, unit: str, tagged: bool) -> str:
    """The paper's number; tagged: with its own mark, where a column has several."""
    tag = f" [{cell['mark']}]" if tagged and cell["paper"] is not None else ""
    return printed(cell["paper"], unit) + tag


def ours(cell: dict, unit: str) -> str:
    return "missing" if cell["ours"] is None and cell["paper"] is not None else printed(cell["ours"], unit)


def marks_of(cells: list) -> set:
    return {cell["mark"] for cell in cells if cell["paper"] is not None}


def down(entry: dict, at: dict) -> dict:
    """Rows down and columns across, as the paper has them: ours and the paper's side by side."""
    columns, cells = [entry["name"]], [[row["words"]] for row in at["rows"]]
    for column in entry["columns"]:
        key, unit = column["key"], column["unit"]
        here = [row["cells"][key] for row in at["rows"]]
        marks = marks_of(here)
        tag = f" [{next(iter(marks))}]" if len(marks) == 1 else ""
        both = column["ours"] is not None
        columns += [f"{column['heading']}, ours"] if both else []
        columns.append(f"{column['heading']}, the paper's{tag}")
        for line, cell in zip(cells, here):
            line += [ours(cell, unit)] if both else []
            line.append(theirs(cell, unit, len(marks) > 1))
        if at["same_scale"] and any(c["minus_paper"] is not None for c in here):
            columns.append("ours minus the paper's")
            for line, cell in zip(cells, here):
                line.append(difference(cell["minus_paper"], unit))
    columns.append("our run")
    for line, row in zip(cells, at["rows"]):
        line.append(behind(row))
    return dict(columns=columns, rows=cells)


def across(entry: dict, at: dict) -> dict:
    """Models across and tasks down, as the paper has them."""
    columns, lines = [entry["name"]], [[c["heading"]] for c in entry["columns"]]
    lines += [["test bits per byte (not in the paper)"], ["our run"]]
    for row in at["rows"]:
        cells = [row["cells"][c["key"]] for c in entry["columns"]]
        columns += [f"{row['words']}, ours", f"{row['words']}, the paper's [{entry['mark']}]"]
        for line, column, cell in zip(lines, entry["columns"], cells):
            line += [ours(cell, column["unit"]), theirs(cell, column["unit"], False)]
        lines[-2] += ["missing" if row["bpb"] is None else bits(row), "–"]
        lines[-1] += [behind(row), "–"]
        if at["same_scale"]:
            columns.append("difference")
            for line, column, cell in zip(lines, entry["columns"], cells):
                line.append(difference(cell["minus_paper"], column["unit"]))
            lines[-2].append("–")
            lines[-1].append("–")
    return dict(columns=columns, rows=lines)


def differences(entry: dict, at: dict) -> dict:
    """What compares at any scale: each row minus the reference row, ours and the paper's."""
    reference = next(row["words"] for row in at["rows"] if row["row"] == at["reference"])
    columns = [f"bits/byte minus those of “{reference}”"]
    lines = [[row["words"]] for row in at["rows"] if row["row"] != at["reference"]]
    rows = [row for row in at["rows"] if row["row"] != at["reference"]]
    for column in entry_bits(entry):
        columns += [f"{column['heading']}, ours", "95% interval", f"{column['heading']}, the paper's"]
        for line, row in zip(lines, rows):
            cell = row["cells"][column["key"]]
            line += [
                difference(cell["ours_minus_reference"], "bit/byte"),
                span(cell["low"], cell["high"]) if cell["low"] is not None else "–",
                difference(cell["paper_minus_reference"], "bit/byte"),
            ]
    columns += ["our seeds", "our run"]
    for line, row in zip(lines, rows):
        line += ["–" if row["seeds"] is None else str(row["seeds"]), behind(row)]
    return dict(columns=columns, rows=lines)


def bits(row: dict) -> str:
    return ("≤ " if row["upper_bound"] else "") + f"{row['bpb']:.4f}"


def difference(value, unit: str) -> str:
    return "–" if value is None else signed(value, DIGITS.get(unit, 2))


def behind(row: dict) -> str:
    return row["run"] or f"missing: {row['missing']}"
