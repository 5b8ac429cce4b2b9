"""Numbers and tables as text, CSV and Markdown. A table is (columns, rows of strings); CSV keeps every
digit."""

import csv
import io
import re

from bltjax.results.columns import COLUMNS

SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def flops(value, digits: int = 3) -> str:
    """1.03×10¹²; a bare power of ten where that is all the number says."""
    if value is None:
        return "–"
    if not value:
        return "0"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{mantissa}×10" + str(int(exponent)).translate(SUPERSCRIPT)


def short_flops(value) -> str:
    """3×10¹¹ for a round number, more digits where it is not."""
    digits = (
        next((d for d in (1, 2, 3) if abs(float(f"{value:.{d - 1}e}") / value - 1) < 1e-3), 3) if value else 1
    )
    return flops(value, digits).removeprefix("1×")


def signed(value: float, digits: int = 3) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")


def span(low: float, high: float, digits: int = 3) -> str:
    return f"{signed(low, digits)} to {signed(high, digits)}"


def listed(words) -> str:
    words = list(words)
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def cell(value, form: str) -> str:
    """One value as text; nothing known is a dash."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return (
        flops(value)
        if form == "flops"
        else form.format(value).replace("-", "−") if form[0:2] == "{:" else form.format(value)
    )


def table(rows: list, keys=None) -> dict:
    """The table of runs as text: {"columns", "rows"}, columns that hold nothing left out; keys: only these
    columns."""
    kept = [
        c
        for c in COLUMNS
        if (keys is None or c.key in keys) and any(r.get(c.key) not in (None, "") for r in rows)
    ]
    return dict(
        columns=[column.heading for column in kept],
        rows=[[cell(r.get(column.key), column.form) for column in kept] for r in rows],
    )


def to_csv(rows: list) -> str:
    """Every column of COLUMNS that a row has."""
    keys = [column.key for column in COLUMNS if any(column.key in r for r in rows)]
    return csv_text(keys, [[r.get(key) for key in keys] for r in rows])


def csv_text(columns: list, rows: list) -> str:
    """CSV with every digit; empty where nothing is known."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(
        ["" if v is None else repr(float(v)) if isinstance(v, float) else v for v in row] for row in rows
    )
    return out.getvalue()


def to_markdown(columns: list, rows: list) -> str:
    """A GitHub table; numbers to the right."""

    def line(cells):
        return "| " + " | ".join(str(c).replace("|", "\\|") for c in cells) + " |"

    numeric = [all(numeric_text(r[i]) for r in rows) for i in range(len(columns))]
    rule = "| " + " | ".join("---:" if right else "---" for right in numeric) + " |"
    return "\n".join([line(columns), rule, *map(line, rows)])


def numeric_text(text: str) -> bool:
    """Whether a cell should stand at the right: starts like a number, is empty, or says it is missing."""
    return str(text) == "missing" or str(text)[:1] in "0123456789+−–±≤" if str(text) else True


def listed_flops(values) -> str:
    return ", ".join(flops(value, 2) for value in values)


def in_ascii(text: str) -> str:
    """The same for a terminal that has no such signs: 3e11 for 3×10¹¹."""
    digits = {chr(v): chr(k) for k, v in SUPERSCRIPT.items()}

    def power(found):
        return f"{found[1] or '1'}e{''.join(digits[sign] for sign in found[2])}"

    text = re.sub(rf"(?:([\d.]+)×)?\b10([{''.join(digits)}]+)", power, text)
    for sign, plain_ in (
        ("≤", "<="),
        ("–", "-"),
        ("−", "-"),
        ("→", "->"),
        ("←", "<-"),
        ("×", "x"),
        ("·", "*"),
    ):
        text = text.replace(sign, plain_)
    return text.encode("ascii", "replace").decode("ascii")


def plain(columns: list, rows: list) -> str:
    """Columns of equal width, for a terminal."""
    widths = [max(len(str(r[i])) for r in [columns, *rows]) for i in range(len(columns))]
    return "\n".join(
        "  ".join(f"{str(c):{'<' if i == 0 else '>'}{w}}" for i, (c, w) in enumerate(zip(r, widths))).rstrip()
        for r in [columns, *rows]
    )
