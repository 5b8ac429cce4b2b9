"""The report of an experiment: one dict, report.csv (runs), points.csv (series at budgets), report.md,
figures as PNG, SVG and CSV, and one self-contained report.html.

Reads the experiment's run directories and nothing else; the same directories give the same files.
"""

import pathlib
import tempfile

from bltjax.counts import counted
from bltjax.errors import UserError
from bltjax.fits import scaling_law_section
from bltjax.paper import comparison
from bltjax.report import compare_series, conditions, figures, findings, page, sections
from bltjax.report import sweeps as sweeping
from bltjax.results import export as exporting
from bltjax.results import run_directories, run_table, series, tables
from bltjax.results.run_table import budget_key
from bltjax.science import bootstrap

SCHEMA_VERSION = 2  # 1: a row per family and budget, one run each


def report(experiment_dir, out_dir=None, only=(), export=None) -> dict:
    """Writes the report of runs/<experiment> to out_dir (default: its subfolder `report`), to the file export
    the table of its runs (`export.rows`), and returns one JSON-ready dict:

    {"experiment", "schema_version", "headline", "findings", "caveats", "runs": one row per series and budget
    (the mean over seeds of the configuration that is best on validation text), "all_runs": every finished
    run, "unfinished", "fits" and "fits_with_entropy_model" (by series), "pairs" (differences to bpe at each
    budget; "unlike": what else the two differ in), "crossovers", "sweeps", "scaling_law" (of
    `fits.analysis.analyse`; None where the runs tell no law in size and data, and a caveat says why),
    "scaling_figures", "paper" (ours beside the paper's numbers: `paper.comparison.of`), "files"}. Rows:
    `run_table.row` and `conditions.of`; those of "runs" have beside it "series", "seeds", "bpb_seed_sd" (None
    with one seed), "interval_covers", "compared" (whether it was scored on the text that the most were:
    others are in no comparison, curve or fit), "tried" (how many configurations it is the best of),
    "run_dirs"; their run_dir is the first seed's. Nothing finished: UserError; a run with a damaged file,
    with files that contradict one another, or one that may not be read, is listed as unfinished.

    Of somebody else's runs the subfolder cannot be made: without an out_dir nothing is written then, "files"
    is empty, and "unwritten" says why. An out_dir that cannot be written to: UserError, before any work.

    only: texts of which a run's name has to hold one, if there are any; the warnings say that there are other
    runs."""
    directory, table = pathlib.Path(experiment_dir), export and pathlib.Path(export)
    out = pathlib.Path(out_dir) if out_dir else directory / "report"
    if table:
        exporting.check(table, out)
        if shut := closed(table.absolute().parent):
            raise UserError(f"--export {table}: its folder {shut}")
    every = run_directories.read_experiment(directory)
    runs = sorted(
        (run for run in every if not only or any(text in run.name for text in only)),
        key=lambda run: (
            run_table.family_order(str(run.setting("family", ""))),
            run.setting("budget_flops", 0),
            run.name,
        ),
    )
    shut = closed(out)
    if shut and out_dir:
        raise UserError(f"--out {out}: {shut}")
    if not any(run.state == "done" for run in runs):
        raise UserError(f"{directory}: none of the runs that --only keeps has finished")
    result = analyse(directory, runs)
    if len(runs) < len(every):
        shown = f"{len(runs)} of {counted(len(every), 'run')}, those whose names hold {' or '.join(only)}"
        result["warnings"].insert(0, f"This report is of {shown}; nothing is said of the others.")
    if table:
        table.write_bytes(exporting.content(table, exporting.rows(runs, result["all_runs"])))
    scaling = scaling_law_section.of(result["experiment"], runs, result["all_runs"])
    result["scaling_law"] = scaling.result
    result["caveats"] += [f"{scaling.why[0].upper()}{scaling.why[1:]}."] if scaling.why else []
    if shut:
        return {**result, "files": [], "unwritten": f"{out}: {shut}; --out DIR says where else"}
    drawn = figures.draw(result, runs)
    laws = scaling.drawn()
    result["scaling_figures"] = [picture.name for picture in laws]
    drawn.update({picture.name: picture for picture in laws})
    parts = sections.of(result, runs, drawn)
    files = {
        "report.csv": tables.to_csv(result["all_runs"]),
        "points.csv": tables.to_csv(result["runs"]),
        "report.md": sections.markdown(result, parts, drawn),
        "report.html": page.html(result, parts, drawn, runs),
    }
    for figure in drawn.values():
        files.update({f"{figure.name}.{kind}": getattr(figure, kind) for kind in ("svg", "png")})
        files.update({f"{figure.name}.csv": figure.data} if figure.data else {})
    for name, content in files.items():
        (out / name).write_bytes(
            content if isinstance(content, bytes) else content.encode("utf-8", "backslashreplace")
        )
    return {**result, "files": [str(out / name) for name in sorted(files)]}


def closed(folder: pathlib.Path) -> str:
    """Why no file can be written into a folder (which is made); "" where some can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        return f"cannot be written to ({error.strerror})"
    return ""


def analyse(directory: pathlib.Path, runs: list) -> dict:
    """All numbers of the report, before anything is drawn."""
    done = [run for run in runs if run.state == "done"]
    documents = {str(run.path): run_table.documents(run) for run in done}
    texts = run_table.texts(done)
    samples = bootstrap.resample_runs(documents, texts)
    rows = [
        {**run_table.row(run, samples.get(str(run.path)), texts[str(run.path)]), **conditions.of(run)}
        for run in done
    ]
    series.name_series(done, rows)
    every = [series.averaged(group) for group in series.configurations(done, rows)]
    candidates = series.of_one_text(every)
    chosen = series.choose(candidates)
    scored = compare_series.scores(chosen, samples, documents)
    text = compare_series.main_text(chosen)
    for row in chosen:
        row["compared"] = row["test_text"] == text
        score = scored.get((row["series"], budget_key(row)))
        row["bpb_low"], row["bpb_high"] = bootstrap.score_interval(score) if score else (None, None)
        row["interval_covers"] = compare_series.covers([score]) if score else ""
    picked = {run_dir for row in chosen for run_dir in row["run_dirs"]}
    rows.sort(key=series.order)
    for row in rows:
        row["chosen"] = row["run_dir"] in picked
    compared = [row for row in chosen if row["compared"]]
    pairs = conditions.with_unlike(compare_series.pairs(chosen, scored), chosen)
    fits = compare_series.fits(compared, scored, "realized_flops")
    crossovers = compare_series.crossings(compared, scored, fits)
    configs, swept = {str(run.path): run.config for run in done}, sweeping.all_swept(done)
    found = [
        *findings.at_each_budget(compared, pairs),
        *filter(None, [findings.with_budget(compared)]),
        *findings.crossings(crossovers),
        *findings.epochs(chosen),
        *sweeping.tuned(configs, candidates, swept),
    ]
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
        headline=findings.headline(compared, pairs),
        findings=found,
        caveats=findings.caveats(compared, pairs),
        warnings=[
            *conditions.scored_apart(chosen, [row for row in every if row not in candidates]),
            *conditions.unequal(done, rows),
            *sweeping.unseen(candidates),
            *conditions.copies(rows),
            *conditions.within(chosen, rows),
            *conditions.along(chosen),
        ],
        runs=chosen,
        all_runs=rows,
        unfinished=unfinished,
        fits=fits,
        fits_with_entropy_model=compare_series.fits(compared, scored, "flops_with_entropy_model"),
        pairs=pairs,
        crossovers=crossovers,
        sweeps=sweeping.sweeps(configs, candidates, swept),
        paper=comparison.of(runs, compared, scored),
    )


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
