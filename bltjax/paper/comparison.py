"""Our runs beside the paper's printed numbers: which run stands for which row, what is missing, and what may
be compared.

A run says by its labels `paper.figure` and `paper.row` what it stands for. Where ours are of another scale
than the paper's, only the differences between rows compare, and that is said."""

from bltjax.config import families
from bltjax.paper import printed_tables
from bltjax.results.run_directories import Run, lookup
from bltjax.results.run_table import budget_key, family_order, number, why_apart
from bltjax.science import bootstrap, crossing

NEAR = 1.5  # a scale within this factor is the paper's


def of(runs: list, chosen: list, scored: dict) -> list:
    """An entry for each table or figure of the paper that the runs' labels name, in the paper's order:

    {"name", "also", "words", "scale", "mark", "says" [{"text", "mark"}], "notes", "across", "columns"
    [{"key", "heading", "unit", "ours"}], "at"}. at: one a budget, the largest first: {"budget_flops",
    "same_scale", "reference", "rows"}; of a figure without points none. rows: {"row", "words", "run",
    "run_dir", "missing", "bpb", "cells"}, cells by column: {"ours", "paper", "mark", "minus_paper",
    "ours_minus_reference", "low", "high", "paper_minus_reference", "missing"}.

    chosen: the report's points; scored: their Scores."""
    labels = {run.setting("paper.figure", "") for run in runs} - {""}
    tables = {table.name: table for label in labels for table in printed_tables.named(str(label))}
    return [
        entry(table, runs, [r for r in chosen if table in printed_tables.named(r["paper_figure"])], scored)
        for table in printed_tables.TABLES
        if table.name in tables
    ]


def entry(table: printed_tables.Table, runs: list, mine: list, scored: dict) -> dict:
    labelled = [r for r in mine if r["paper_row"] in table.rows]
    if table.name == "Table 2":  # a row is a curve over budgets
        groups = [largest(with_crossovers(table, labelled))] if labelled else []
    else:
        budgets = sorted({budget_key(r) for r in labelled}, reverse=True)
        groups = [[r for r in labelled if budget_key(r) == budget] for budget in budgets]
    waiting = {
        str(run.setting("paper.row", "")): f"{run.state}: {run.reason}"
        for run in runs
        if run.state != "done" and table in printed_tables.named(str(run.setting("paper.figure", "")))
    }
    if table.rows and not groups:
        groups = [[]]
    return dict(
        name=table.name,
        also=table.also,
        words=table.words,
        scale=table.scale,
        mark=table.mark,
        says=[dict(text=text, mark=mark) for text, mark in table.says],
        notes=list(table.notes),
        across=table.across,
        columns=[dict(key=c.key, heading=c.heading, unit=c.unit, ours=c.ours) for c in table.columns],
        at=[beside(table, group, scored, waiting) for group in groups],
    )


def beside(table: printed_tables.Table, group: list, scored: dict, waiting: dict) -> dict:
    """The table's rows with ours of one budget. waiting: {row: why its run is not done}."""
    found = {}
    for row in group:
        found.setdefault(row["paper_row"], row)
    reference = (
        table.reference if table.reference in found else next((k for k in table.rows if k in found), "")
    )
    same = bool(found) and all(same_scale(table, row) for row in found.values())
    rows = []
    for key, (words, _) in table.rows.items():
        own = found.get(key)
        cells = {
            column.key: cell(table, column, key, own, found.get(reference), reference, same, scored)
            for column in table.columns
        }
        rows.append(
            dict(
                row=key,
                words=words,
                family=own["family"] if own else None,
                run=own["name"] if own else None,
                run_dir=own["run_dir"] if own else None,
                missing="" if own else waiting.get(key, "no run"),
                bpb=own["bpb"] if own else None,
                upper_bound=bool(own and own["upper_bound"]),
                seeds=own["seeds"] if own else None,
                cells=cells,
            )
        )
    return dict(
        budget_flops=budget_key(group[0]) if group else None,
        parameters=[r["params_without_lexicon"] for r in found.values()],
        train_bytes=[r["train_bytes"] for r in found.values()],
        same_scale=same,
        reference=reference,
        rows=rows,
    )


def cell(table, column, key: str, own, base, reference: str, same: bool, scored: dict) -> dict:
    """One number of ours and the paper's. own, base: our row and that of the reference, or None."""
    printed, theirs = table.value(key, column.key), table.value(reference, column.key)
    ours = number(own.get(column.ours)) if own and column.ours else None
    against = number(base.get(column.ours)) if base and column.ours else None
    low, high = None, None
    if column.ours == "bpb" and own and base and own is not base and not why_apart([own, base]):
        a, b = (scored.get((r["series"], budget_key(r))) for r in (own, base))
        if a is not None and b is not None and a.documents == b.documents:
            low, high = bootstrap.difference_interval(a, b)
    both = None not in (ours, printed)
    return dict(
        ours=ours,
        paper=printed,
        mark=table.mark_of(key, column.key),
        minus_paper=ours - printed if both and same else None,
        ours_minus_reference=None if None in (ours, against) or own is base else ours - against,
        low=low,
        high=high,
        paper_minus_reference=None if None in (printed, theirs) or key == reference else printed - theirs,
        missing="" if ours is not None or not own else "not in range" if column.ours else "not evaluated",
    )


def same_scale(table: printed_tables.Table, row: dict) -> bool:
    """Whether a row of ours has the paper's scale, as far as the table has one."""

    def near(ours, theirs):
        return not theirs or (ours is not None and 1 / NEAR <= ours / theirs <= NEAR)

    parameters = table.parameters or table.rows[row["paper_row"]][1][0]
    return near(row["params_without_lexicon"], parameters) and near(row["train_bytes"], table.bytes)


def largest(rows: list) -> list:
    """Of each row of the paper the one of the largest budget."""
    return list({r["paper_row"]: r for r in sorted(rows, key=budget_key)}.values())


def with_crossovers(table: printed_tables.Table, rows: list) -> list:
    """The rows with "crossover_bytes": where the measured curve over training bytes meets that of the class's
    BPE (Llama 3's where there is one), None where it does not in the range of both."""
    curves = {}
    for row in sorted((r for r in rows if r["train_bytes"]), key=lambda r: r["train_bytes"]):
        curves.setdefault(row["paper_row"], []).append(row)
    meet = {}
    for key, mine in curves.items():
        if table.value(key, "crossover") is None:
            continue
        same_class = [
            other
            for other in curves
            if table.value(other, "crossover") is None
            and table.value(other, "FLOPs/byte") == table.value(key, "FLOPs/byte")
        ]
        if same_class:
            base = curves[max(same_class, key=lambda other: (other.startswith("llama3"), other))]
            x, y = ([[r[k] for r in line] for line in (mine, base)] for k in ("train_bytes", "bpb"))
            if not why_apart(mine + base) and crossing.overlap(*x):
                met = crossing.measured(x[0], y[0], x[1], y[1], None, None)["flops"]
                meet[key] = met[-1] if met else None
    return [{**row, "crossover_bytes": meet.get(row["paper_row"])} for row in rows]


def classes(rows: list) -> dict:
    """Figure 1's panels: {"small" | "large": the rows of that class of inference FLOPs}, no empty ones."""
    (table,) = printed_tables.named("Table 2")
    found = {}
    for row in rows:
        if row["paper_row"] in table.rows:
            small = table.value(row["paper_row"], "FLOPs/byte") == printed_tables.SMALL[0]
            found.setdefault("small" if small else "large", []).append(row)
    return dict(sorted(found.items(), reverse=True))


def entropy_models(runs: list, chosen: list) -> list:
    """Figure 8 of ours: [{"family", "whose", "row", "parameters", "context"}], a point a run that reads an
    entropy model, or is one. runs: the Run of each run directory."""
    by_dir: dict[str, Run] = {str(run.path): run for run in runs}
    points = []
    for row in chosen:
        run = by_dir[row["run_dir"]]
        itself = row["family"] == families.ENTROPY_MODEL
        model = run.config if itself else run.setting("entropy_model", {})
        size = number(lookup(run.planned, "params.total" if itself else "entropy_model.params"))
        context = number(lookup(model, "model.window"))
        if size and context is not None:
            whose = "entropy model" if itself else " ".join(filter(None, [row["family"], str(row["size"])]))
            points.append(
                dict(family=row["family"], whose=whose, row=row, parameters=size, context=int(context))
            )
    if any(
        point["family"] != families.ENTROPY_MODEL for point in points
    ):  # the figure is of those that read one
        points = [point for point in points if point["family"] != families.ENTROPY_MODEL]
    points.sort(key=lambda p: (family_order(p["family"]), p["whose"], p["context"], p["parameters"]))
    return points
