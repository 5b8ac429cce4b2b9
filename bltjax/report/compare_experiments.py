"""Two experiments compared, or one under two roots, cell by cell: `bltjax report --compare A B`.

A cell is a series at a budget. Cells of equal names stand side by side; where names differ, a family with
one cell left on each side at a budget is taken for the same. Differences are B minus A, on the same test
documents, which both must have been scored on."""

import json
import pathlib

from bltjax.counts import counted
from bltjax.errors import UserError
from bltjax.report import compare_series, figures, page
from bltjax.report import report as reporting
from bltjax.results import run_directories, tables
from bltjax.results.run_directories import flat
from bltjax.results.run_table import DIFFER, budget_key, documents, family_order, scored_text, why_apart
from bltjax.results.series import LABELS
from bltjax.science import bootstrap

BESIDE = ("versions", "data_fingerprint", "cores", "platform", "device", "mesh", "devices", "processes")
UNEQUAL = "the test texts differ"


def compared(a, b) -> dict:
    """Two directories of runs side by side, JSON-ready:

    {"a", "b" {"experiment", "directory", "runs" (done), "unfinished"}, "cells", "only_a", "only_b",
    "differs"}. cells: {"family", "series", "series_b", "budget_flops", "a", "b" (rows as in a report),
    "difference" (B minus A, bits per byte), "low", "high", "covers", "note"}. differs: {"key", "a", "b",
    "cells"}: what the configs of matched cells, and what they ran on, do not share; values of several seeds
    as a list.

    UserError where the points of the two were scored on different test texts."""
    sides = [side(pathlib.Path(directory)) for directory in (a, b)]
    texts = [compare_series.main_text(s["chosen"]) for s in sides]
    if None not in texts and texts[0] != texts[1]:
        raise UserError(
            f"{UNEQUAL} ({texts[0]} of {a}, {texts[1]} of {b}; documents_digest in eval.json), so their"
            " scores cannot stand side by side"
        )
    pairs, only = matched(*(s["chosen"] for s in sides))
    return dict(
        a=sides[0]["says"],
        b=sides[1]["says"],
        cells=[cell(mine, other, *(s["scored"] for s in sides)) for mine, other in pairs],
        only_a=[told(row) for row in only[0]],
        only_b=[told(row) for row in only[1]],
        differs=differing(pairs, *(s["runs"] for s in sides)),
    )


def side(directory: pathlib.Path) -> dict:
    """{"chosen": the points of a report, "scored", "runs" {run_dir: Run}, "says"}."""
    runs = run_directories.read_experiment(directory)
    result = reporting.analyse(directory, runs)
    done = [run for run in runs if run.state == "done"]
    found = {str(run.path): documents(run) for run in done}
    samples = bootstrap.resample_runs(found, {str(run.path): scored_text(run, "test") for run in done})
    says = dict(
        experiment=result["experiment"],
        directory=str(directory),
        runs=len(done),
        unfinished=[run["name"] for run in result["unfinished"]],
    )
    chosen = [row for row in result["runs"] if row["compared"]]
    scored = compare_series.scores(result["runs"], samples, found)
    return dict(chosen=chosen, scored=scored, runs={str(run.path): run for run in runs}, says=says)


def matched(a: list, b: list) -> tuple:
    """([(row of A, row of B)], (rows of A alone, rows of B alone)), families in their order, budgets
    ascending."""
    key = lambda row: (row["series"], budget_key(row))
    other = {key(row): row for row in b}
    pairs = [(row, other[key(row)]) for row in a if key(row) in other]
    taken = {key(row) for row, _ in pairs}
    left = [[row for row in rows if key(row) not in taken] for rows in (a, b)]
    for row in list(left[0]):
        alike = [
            [r for r in rows if (r["family"], budget_key(r)) == (row["family"], budget_key(row))]
            for rows in left
        ]
        if len(alike[0]) == len(alike[1]) == 1:
            pairs.append((row, alike[1][0]))
            left[0].remove(row)
            left[1].remove(alike[1][0])
    order = lambda row: (*family_order(row["family"]), row["series"], budget_key(row))
    return sorted(pairs, key=lambda pair: order(pair[0])), tuple(sorted(rows, key=order) for rows in left)


def cell(mine: dict, other: dict, scored: dict, others: dict) -> dict:
    a, b = (s.get((r["series"], budget_key(r))) for s, r in ((scored, mine), (others, other)))
    note = why_apart([mine, other]) or (
        compare_series.why_few([mine, other])
        if a is None or b is None
        else DIFFER if a.documents != b.documents else ""
    )
    low, high = (None, None) if note else bootstrap.difference_interval(b, a)
    return dict(
        family=mine["family"],
        series=mine["series"],
        series_b=other["series"],
        budget_flops=budget_key(mine),
        a=told(mine),
        b=told(other),
        difference=None if note == DIFFER else other["bpb"] - mine["bpb"],
        low=low,
        high=high,
        covers="" if note else compare_series.covers([a, b]),
        note=note,
    )


def told(row: dict) -> dict:
    keys = ("name", "family", "series", "budget_flops", "bpb", "bpb_low", "bpb_high", "upper_bound", "seeds")
    more = ("validation_bpb", "realized_flops", "patch_size", "train_bytes", "params_total", "lr", "run_dirs")
    return {key: row[key] for key in (*keys, *more)}


def facts(dirs: list, runs: dict) -> dict:
    """{key: value} of a cell's config and of what it ran on; a list where its seeds differ."""
    of_seeds = []
    for run_dir in dirs:
        run = runs[run_dir]
        config = {key: value for key, value in flat(run.config).items() if key not in LABELS}
        record = {key: run.record.get(key) for key in BESIDE if key in run.record}
        of_seeds.append({**config, **flat(record)})
    out = {}
    for key in dict.fromkeys(key for one in of_seeds for key in one):
        values = {json.dumps(one.get(key)): one.get(key) for one in of_seeds}
        out[key] = next(iter(values.values())) if len(values) == 1 else list(values.values())
    return out


def differing(pairs: list, a: dict, b: dict) -> list:
    """[{"key", "a", "b", "cells" [names]}], one a key and pair of values; null for a key that one side's
    configs do not have (of another version)."""
    found = {}
    for mine, other in pairs:
        left, right = facts(mine["run_dirs"], a), facts(other["run_dirs"], b)
        for key in dict.fromkeys((*left, *right)):
            if left.get(key) != right.get(key):
                values = json.dumps([left.get(key), right.get(key)])
                name = f"{mine['series']} at {tables.short_flops(budget_key(mine))}"
                found.setdefault((key, values), []).append(name)
    return [
        dict(zip(("a", "b"), json.loads(values)), key=key, cells=names)
        for (key, values), names in found.items()
    ]


def cell_table(result: dict) -> dict:
    """Cells down: both scores, their difference and its interval."""
    rows = []
    for one in result["cells"]:
        name = one["series"] if one["series"] == one["series_b"] else f"{one['series']} | {one['series_b']}"
        difference = "–" if one["difference"] is None else tables.signed(one["difference"], 4)
        interval = tables.span(one["low"], one["high"], 4) if one["low"] is not None else one["note"]
        seeds = " and ".join(str(one[s]["seeds"]) for s in ("a", "b"))
        scores = [("≤ " if one[s]["upper_bound"] else "") + f"{one[s]['bpb']:.4f}" for s in ("a", "b")]
        budget = tables.short_flops(one["budget_flops"])
        rows.append([name, budget, *scores, difference, interval, one["covers"] or "–", seeds])
    columns = [
        "series",
        "budget",
        "A, bits/byte",
        "B, bits/byte",
        "B minus A",
        "95% interval",
        "it covers",
        "seeds",
    ]
    return dict(columns=columns, rows=rows)


def differ_table(result: dict) -> dict:
    cells = len(result["cells"])
    rows = [
        [
            one["key"],
            shown(one["a"]),
            shown(one["b"]),
            f"all {cells}" if len(one["cells"]) == cells else ", ".join(one["cells"]),
        ]
        for one in result["differs"]
    ]
    return dict(columns=["what differs", "A", "B", "cells"], rows=rows)


def shown(value) -> str:
    return "–" if value is None else value if isinstance(value, str) and value else json.dumps(value)


def lines(result: dict) -> list:
    """What is said before the tables."""
    said = []
    for name in ("a", "b"):
        s = result[name]
        rest = f", not done: {tables.listed(s['unfinished'])}" if s["unfinished"] else ""
        done = f"{counted(s['runs'], 'run')} done{rest}"
        said.append(f"{name.upper()}: {s['experiment']} in {s['directory']}, {done}")
    for key, name in (("only_a", "A"), ("only_b", "B")):
        if result[key]:
            cells = (f"{r['series']} at {tables.short_flops(budget_key(r))}" for r in result[key])
            said.append(f"in {name} alone: {tables.listed(cells)} FLOPs")
    if not result["cells"]:
        said.append("no cell is in both: no series of one name, and no family alone, at a budget of both")
    if not result["differs"] and result["cells"]:
        said.append("configs, versions and machines of the cells in both are the same")
    return said


def text(result: dict) -> str:
    """What the command line prints."""
    made = [table for table in (cell_table(result), differ_table(result)) if table["rows"]]
    return "\n".join(lines(result) + [part for t in made for part in ("", tables.plain(**t))])


def write(result: dict, out) -> list:
    """compare.csv, compare.md, compare.html and the figure of the differences, into a folder; their paths."""
    out = pathlib.Path(out)
    if closed := reporting.closed(out):
        raise UserError(f"--out {out}: {closed}")
    made = [table for table in (cell_table(result), differ_table(result)) if table["rows"]]
    drawn = figures.of_two(result)
    title = f"{result['a']['directory']} and {result['b']['directory']}, cell by cell"
    heading = f"# {title}"
    pictures = [part for f in drawn for part in (f"![{f.alt}]({f.name}.png)", f.caption)]
    markdown = [heading, *(f"- {line}" for line in lines(result)), *pictures]
    files = {
        "compare.csv": cells_csv(result),
        "compare.md": "\n\n".join([*markdown, *(tables.to_markdown(**t) for t in made)]) + "\n",
        "compare.html": page.two(title, lines(result), drawn, made),
    }
    for figure in drawn:
        files.update({f"{figure.name}.{kind}": getattr(figure, kind) for kind in ("svg", "png")})
        files.update({f"{figure.name}.csv": figure.data} if figure.data else {})
    for name, content in files.items():
        data = content if isinstance(content, bytes) else content.encode("utf-8", "backslashreplace")
        (out / name).write_bytes(data)
    return [str(out / name) for name in sorted(files)]


def cells_csv(result: dict) -> str:
    keys = ("difference", "low", "high")
    titles = ["series", "series_b", "family", "budget_flops [FLOP]", "bpb_a [bit/byte]", "bpb_b [bit/byte]"]
    return tables.csv_text(
        [*titles, *(f"{key} [bit/byte]" for key in keys), "note", "run_dirs_a", "run_dirs_b"],
        [
            [
                one["series"],
                one["series_b"],
                one["family"],
                one["budget_flops"],
                one["a"]["bpb"],
                one["b"]["bpb"],
            ]
            + [*(one[key] for key in keys), one["note"]]
            + [" ".join(one[s]["run_dirs"]) for s in ("a", "b")]
            for one in result["cells"]
        ],
    )
