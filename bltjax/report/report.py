"""The report of an experiment: one dict, report.csv, report.md, figures as PNG and SVG, and one
self-contained report.html.

Reads the experiment's run directories and nothing else; the same directories give the same files.
"""

import pathlib

import numpy as np

from bltjax.report import findings, page, pictures, sections, tables
from bltjax.report import rows as rowing
from bltjax.report import runs as reading
from bltjax.report.rows import REFERENCE, budget_key
from bltjax.science import bootstrap, power_law

SCHEMA_VERSION = 1


def report(experiment_dir, out_dir=None) -> dict:
    """Writes the report of runs/<experiment> to out_dir (default: its subfolder `report`) and returns it as
    one JSON-ready dict:

    {"experiment", "schema_version", "headline", "findings", "caveats", "runs": one row per family and budget
    (the best by validation text), "all_runs": every finished run, "unfinished", "fits",
    "fits_with_entropy_model", "pairs" (differences to bpe at each budget), "crossovers", "sweeps", "files"}.
    Rows: `rows.row`. Nothing finished: UserError; a run with a damaged file is listed as unfinished. """
    directory = pathlib.Path(experiment_dir)
    runs = sorted(
        reading.read_experiment(directory),
        key=lambda run: (
            rowing.family_order(str(run.setting("family", ""))),
            run.setting("budget_flops", 0),
            run.name,
        ),
    )
    result = analyse(directory, runs)
    out = pathlib.Path(out_dir) if out_dir else directory / "report"
    out.mkdir(parents=True, exist_ok=True)
    figures = pictures.draw(result, runs)
    parts = sections.of(result, runs, figures)
    files = {
        "report.csv": tables.to_csv(result["all_runs"]),
        "report.md": sections.markdown(result, parts, figures),
        "report.html": page.html(result, parts, figures, runs),
    }
    for figure in figures.values():
        files.update({f"{figure.name}.svg": figure.svg, f"{figure.name}.png": figure.png})
    for name, content in files.items():
        (out / name).write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return {**result, "files": [str(out / name) for name in sorted(files)]}


def analyse(directory: pathlib.Path, runs: list) -> dict:
    """All numbers of the report, before anything is drawn."""
    done = [run for run in runs if run.state == "done"]
    samples = bootstrap.resample_runs({str(run.path): rowing.documents(run) for run in done})
    rows = [rowing.row(run, samples.get(str(run.path))) for run in done]
    rows.sort(key=lambda r: (rowing.family_order(r["family"]), budget_key(r), r["name"]))
    chosen = rowing.choose(rows)
    for row in rows:
        row["chosen"] = any(row is other for other in chosen)
    test = {str(run.path): bootstrap.documents_key(rowing.documents(run)) for run in done}
    pairs = paired(chosen, samples, test)
    crossovers = crossing(chosen, samples, test)
    fits = fitted(chosen, samples, "realized_flops")
    beside = fitted(chosen, samples, "flops_with_entropy_model")
    for crossover in crossovers:
        both = fits.get(crossover["family"]), fits.get(REFERENCE)
        crossover["fits"] = power_law.crossover_fits(*both) if all(both) else []
    found = [
        *findings.at_each_budget(chosen, pairs),
        *filter(None, [findings.with_budget(chosen)]),
        *findings.crossings(crossovers),
    ]
    warnings = [*findings.unequal(done, rows), *filter(None, map(rowing.disagreement, done))]
    unfinished = [
        dict(name=run.name, state=run.state, reason=run.reason, run_dir=str(run.path))
        for run in runs
        if run.state != "done"
    ]
    experiment = next(
        (run.record["experiment"] for run in runs if run.record.get("experiment")), directory.resolve().name
    )
    return dict(
        experiment=experiment,
        schema_version=SCHEMA_VERSION,
        headline=findings.headline(chosen, pairs),
        findings=found,
        caveats=findings.caveats(chosen, rows, pairs),
        warnings=warnings,
        runs=chosen,
        all_runs=rows,
        unfinished=unfinished,
        fits=fits,
        fits_with_entropy_model=beside,
        pairs=pairs,
        crossovers=crossovers,
        sweeps=rowing.sweeps(done, rows),
    )


def families(chosen: list) -> dict:
    """{family: its chosen rows, budgets ascending}."""
    out = {}
    for row in chosen:
        out.setdefault(row["family"], []).append(row)
    return out


def stacked(rows: list, samples: dict):
    """Resampled bits per byte of several runs, [S, N], or None where one has none or they were drawn from
    different documents."""
    drawn = [samples.get(r["run_dir"]) for r in rows]
    return None if any(d is None for d in drawn) else np.stack(drawn, axis=1)


def fitted(chosen: list, samples: dict, x: str) -> dict:
    """{family: fit} of test bits per byte over the chosen runs; families with fewer than three budgets left
    out."""
    out = {}
    for family, rows in families(chosen).items():
        rows = [r for r in rows if r[x]]
        found = (
            power_law.power_law([r[x] for r in rows], [r["bpb"] for r in rows], stacked(rows, samples))
            if len(rows) > 2
            else None
        )
        if found:
            out[family] = found
    return out


def paired(chosen: list, samples: dict, test: dict) -> list:
    """Differences of every family to bpe at the same budget, under the same resampled documents."""
    reference = {budget_key(r): r for r in chosen if r["family"] == REFERENCE}
    out = []
    for row in sorted(chosen, key=budget_key):
        base = reference.get(budget_key(row))
        if base is None or row is base:
            continue
        a, b = samples.get(row["run_dir"]), samples.get(base["run_dir"])
        same = test[row["run_dir"]] == test[base["run_dir"]]
        low, high = bootstrap.interval(a - b) if same and a is not None and b is not None else (None, None)
        note = (
            ""
            if low is not None
            else "test documents differ" if not same else "fewer than two test documents"
        )
        out.append(
            dict(
                budget_flops=budget_key(row),
                family=row["family"],
                against=REFERENCE,
                difference=row["bpb"] - base["bpb"],
                low=low,
                high=high,
                excludes_zero=low is not None and (low > 0 or high < 0),
                run=row["name"],
                against_run=base["name"],
                documents=len(test[row["run_dir"]]),
                note=note,
            )
        )
    return out


def crossing(chosen: list, samples: dict, test: dict) -> list:
    """Where each family's measured curve meets bpe's, inside the range that both were measured in."""
    of = {
        family: sorted((r for r in rows if r["realized_flops"]), key=lambda r: r["realized_flops"])
        for family, rows in families(chosen).items()
    }
    base, out = of.get(REFERENCE, []), []
    for family, rows in of.items():
        span = (
            power_law.overlap([r["realized_flops"] for r in rows], [r["realized_flops"] for r in base])
            if rows and base
            else None
        )
        if family == REFERENCE or not span:
            continue
        same = len({test[r["run_dir"]] for r in rows + base}) == 1
        drawn = (stacked(rows, samples), stacked(base, samples)) if same else (None, None)
        met = power_law.crossover_measured(
            [r["realized_flops"] for r in rows],
            [r["bpb"] for r in rows],
            [r["realized_flops"] for r in base],
            [r["bpb"] for r in base],
            *drawn,
        )
        out.append(
            dict(
                family=family,
                against=REFERENCE,
                range=list(span),
                measured=met["flops"],
                low=met["low"],
                high=met["high"],
                share=met["share"],
                text=tables.listed_flops(met["flops"]) or "none in range",
            )
        )
    return out


def text(result: dict) -> str:
    """What the command line prints."""
    lines = [
        f"{result['experiment']}: {result['headline']}",
        *[f"  {line}" for line in result["findings"]],
        "",
    ]
    lines += [
        tables.plain(**sections.score_table(result)),
        "",
        *[f"note: {line}" for line in result["caveats"]],
    ]
    lines += [f"warning: {line}" for line in result["warnings"]]
    lines += [f"{run['state']}: {run['name']} ({run['reason']})" for run in result["unfinished"]]
    html = next((path for path in result.get("files", []) if path.endswith(".html")), None)
    return "\n".join(lines + (["", f"report: {html}"] if html else []))
