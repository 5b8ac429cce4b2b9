"""The tables and sentences of `bltjax fit`, for a terminal and as Markdown and CSV."""

from bltjax.counts import counted
from bltjax.results import tables
from bltjax.science.formula import FLATTEST, STEEPEST

METHODS = dict(parametric="3, parametric", isoflop="2, IsoFLOP", envelope="1, envelope")
EXPONENTS = ("alpha", "beta", "gamma", "delta")
SHOWN = ("E", "A", "B", "F", "G", "alpha", "beta", "gamma", "delta", "a", "b")


def number(value, digits: int = 5) -> str:
    """A number as text; what is not known is a dash."""
    return "–" if value is None else f"{value:.{digits}g}"


def interval(ends, digits: int = 4) -> str:
    """Of an end that the draws do not bound, the other says how far it goes."""
    if not ends or ends == [None, None]:
        return "–"
    low, high = (None if end is None else f"{end:.{digits}g}" for end in ends)
    if low is None or high is None:
        return f"{high} or less" if low is None else f"{low} or more"
    return f"{low} to {high}"


def values_of(entry: dict) -> dict:
    """{name: value, or None where it is not identified} of all that a method tells, in the order shown."""
    found = {name: entry[name] for name in ("E", "A", "B", "alpha", "beta", "a", "b")}
    if entry["method"] != "parametric":
        return {name: found[name] for name in ("a", "b")}
    for variable, exponent in entry.get("exponents", {}).items():
        found[f"exponent of {variable}"] = exponent
        found[f"log coefficient of {variable}"] = entry["log_coefficients"][variable]
    known = entry["identified"]
    if len(entry.get("exponents", {})) < 3:
        return {name: found[name] for name in SHOWN if name in known and name in found}
    return {"E": found["E"], **{n: v for n, v in found.items() if " of " in n}, **_split(found, known)}


def _split(found, known) -> dict:
    return {name: found[name] for name in ("a", "b") if name in known}


def fit_table(result: dict) -> dict:
    """A row a method, group and parameter: value and interval."""
    rows = []
    for entry in result["fits"]:
        lead = [entry["group"]] if "group" in entry else []
        method = METHODS[entry["method"]]
        if entry.get("refused"):
            rows.append([*lead, method, "–", "refused", "–"])
            continue
        names = _letters(entry)
        for name, value in values_of(entry).items():
            shown = number(value, 6) if value is not None else "not identified"
            ends = entry["intervals"].get(names.get(name, name))
            if ends and (name.startswith("exponent") or name in EXPONENTS):
                ends = _at_bounds(ends)
            ends = interval(ends)
            rows.append([*lead, method, name, shown, ends])
    lead = ["group"] if any("group" in entry for entry in result["fits"]) else []
    return dict(columns=[*lead, "approach", "parameter", "value", "95% interval"], rows=rows)


def _at_bounds(ends) -> list:
    """An exponent's interval that reaches the end of what is looked at is open there."""
    low, high = ends
    low = None if low is not None and low <= FLATTEST * 1.001 else low
    return [low, None if high is not None and high >= STEEPEST / 1.001 else high]


def _letters(entry: dict) -> dict:
    """{"exponent of W": "alpha", ...}: the names that intervals go by."""
    return {f"exponent of {v}": name for v, name in zip(entry.get("exponents", {}), EXPONENTS)}


def method_table(result: dict) -> dict:
    """A row a method and group: what was made small, how small it got, of how many runs."""
    rows = []
    for entry in result["fits"]:
        lead = [entry["group"]] if "group" in entry else []
        law = entry.get("formula", "–")
        rows.append(
            [
                *lead,
                METHODS[entry["method"]],
                law,
                entry["objective"],
                number(entry["value"], 9),
                str(entry["n"]),
            ]
        )
    lead = ["group"] if any("group" in entry for entry in result["fits"]) else []
    return dict(columns=[*lead, "approach", "law", "objective", "its value", "runs"], rows=rows)


def optimum_table(result: dict) -> dict:
    rows = [
        [
            *([o["group"]] if "group" in o else []),
            METHODS[o["method"]],
            tables.flops(o["flops"]),
            number(o["N"], 4),
            interval(o.get("N_interval")),
            number(o["D"], 4),
            interval(o.get("D_interval")),
            number(o["data_per_parameter"], 4),
            number(o["loss"], 5),
            o["outside"] or "within the runs",
        ]
        for o in result["optimum"]
    ]
    lead = ["group"] if any("group" in o for o in result["optimum"]) else []
    units = result["units"]
    return dict(
        columns=[
            *lead,
            "approach",
            "budget, FLOPs",
            f"best N ({units.get('N', 'N')})",
            "95%",
            f"best D ({units.get('D', 'D')})",
            "95%",
            "D/N",
            f"loss ({units['loss']})",
            "where",
        ],
        rows=rows,
    )


def comparison_table(result: dict) -> dict:
    rows = []
    for one in result["comparisons"]:
        for at in one["gain"]:
            value = "out of reach" if at["gain"] is None else f"{at['gain']:.3g}"
            ends = interval([at["low"], at["high"]])
            rows.append([one["group"], one["against"], tables.flops(at["flops"]), value, ends])
    columns = ["group", "against", "FLOPs", "effective-compute gain, times", "95% interval"]
    return dict(columns=columns, rows=rows)


def separate_table(result: dict) -> dict:
    rows = []
    for one in result["joint"]:
        for law in one["separate"]:
            values = [number(law[name], 4) for name in ("E", "A", "alpha", "B", "beta")]
            lead = [one["group"]] if one["group"] else []
            values = ["refused", *values[1:]] if law["refused"] else values
            rows.append([*lead, f"{law['T']:.3g}", str(law["n"]), *values])
    lead = ["group"] if any(one["group"] for one in result["joint"]) else []
    columns = [*lead, "T", "runs", "E", "A", "alpha", "B", "beta"]
    return dict(columns=columns, rows=rows)


def reasons(result: dict) -> dict:
    """{name of a table: sentences that stand below it}: why it says "refused"."""
    named = lambda one: f"{one['group']}, " if one.get("group") else ""
    fits = [
        f"{named(entry)}approach {METHODS[entry['method']]}, is refused: {entry['refused']}"
        for entry in result["fits"]
        if entry.get("refused")
    ]
    separate = [
        f"{named(one)}T = {law['T']:.3g} is refused: {law['refused']}"
        for one in result["joint"]
        for law in one["separate"]
        if law["refused"]
    ]
    return dict(fits=fits, separate=separate)


def all_tables(result: dict) -> dict:
    """{file name: (title, table)} of those that hold rows."""
    made = dict(
        methods=("How it was fitted", method_table(result)),
        fits=("Fits", fit_table(result)),
        optimum=("Best size and data at a budget", optimum_table(result)),
        comparisons=("Effective compute", comparison_table(result)),
        separate=("A law of each patch size", separate_table(result)),
    )
    return {name: (title, table) for name, (title, table) in made.items() if table["rows"]}


def csv_of(columns: list, rows: list) -> str:
    return tables.csv_text(columns, [["" if cell == "–" else cell for cell in row] for row in rows])


def headline(result: dict) -> str:
    units = ", ".join(f"{name} in {unit}" for name, unit in result["units"].items())
    return f"{result['name']}: {counted(result['n'], 'run')}; {units}; {result['objective']}"


def terminal(result: dict) -> str:
    parts = [headline(result)]
    below = reasons(result)
    for name, (title, table) in all_tables(result).items():
        parts.append("\n".join([title, tables.plain(**table), *below.get(name, ())]))
    lines = [*result["findings"]]
    lines += [f"note: {line}" for line in result["notes"]]
    lines += [f"warning: {line}" for line in result["warnings"]]
    if lines:
        parts.append("\n".join(lines))
    if result.get("files"):
        parts.append("\n".join(["written:", *result["files"]]))
    return "\n\n".join(parts)


def markdown(result: dict, figures: dict) -> str:
    """figures: {name: Picture}."""
    lines = [f"# Scaling laws of {result['name']}", "", headline(result), ""]
    for title, said in (("Findings", "findings"), ("Warnings", "warnings"), ("Notes", "notes")):
        if result[said]:
            lines += [f"**{title}**", "", *[f"- {line}" for line in result[said]], ""]
    below = reasons(result)
    for name, (title, table) in all_tables(result).items():
        lines += [f"## {title}", "", tables.to_markdown(**table), ""]
        lines += [line for said in below.get(name, ()) for line in (said, "")]
    for figure in figures.values():
        lines += [f"![{figure.alt}]({figure.name}.png)", "", figure.caption, ""]
    return "\n".join(lines)
