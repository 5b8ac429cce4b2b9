"""An experiment's run directories as what a fit is made of: every finished run, seeds as repeated cells.

N is named in its unit (latent, without lexicon or total parameters), D training bytes, T the realized patch
size, C realized FLOPs in the `exact` convention, L test bits per byte. Of configurations that differ in what
an experiment sweeps (its learning rate, say) the best on validation text counts, as in its report."""

import collections
import dataclasses
import math

import numpy as np

from bltjax.counts import counted
from bltjax.errors import UserError
from bltjax.fits.source import Source, of_table
from bltjax.fits.table import Table
from bltjax.results import run_directories, run_table, series

PARAMS = {
    "latent": "latent parameters (12·l·h²)",
    "without_lexicon": "parameters without hash tables, or embeddings and head of BPE",
    "total": "parameters, hash tables included",
}
COLUMNS = dict(D="train_bytes", T="patch_size", C="realized_flops", L="bpb")
UNITS = dict(
    D="training bytes",
    T="realized bytes per patch",
    C="realized FLOPs (exact, useful)",
    L="test bits per byte",
)
ATTEMPTS = (("N", "D", "T"), ("N", "D"), ("C",))  # laws of a group, until its runs tell one
ONCE = 1.05  # epochs, above which a text was read again
MEANS = ("train_bytes", "patch_size", "realized_flops")  # of a configuration's seeds, which plan the same


def of_directory(
    directory, params: str = "latent", group: str = "", where=(), drop_highest: int = 0
) -> Source:
    """Of the runs below a directory. UserError where none has finished."""
    runs = run_directories.read_experiment(directory)
    done = [run for run in runs if run.state == "done"]
    rows = [run_table.row(run) for run in done]
    series.name_series(done, rows)
    unfinished = len(runs) - len(done)
    notes = [f"left out, since not finished: {counted(unfinished, 'run')}"] if unfinished else []
    return of_rows(directory.resolve().name, done, rows, params, group, where, drop_highest, notes)


def of_rows(name: str, done: list, rows: list, params="latent", group="", where=(), drop_highest=0, notes=()):
    """Of finished Runs and their rows, which have a "series"."""
    if params not in PARAMS:
        raise UserError(f"--params is {params!r}; allowed: {', '.join(PARAMS)}")
    notes = list(notes)
    rows = [dict(row, params_latent=_latent(run)) for run, row in zip(done, rows)]
    kept = _of_one_text(rows, notes)
    kept = _best(dict(zip(map(id, rows), done)), kept, notes)
    keys = list(dict.fromkeys(key for row in kept for key in row))
    table = Table(name, {key: [row.get(key) for row in kept] for key in keys})
    columns = dict(N=f"params_{params}", **COLUMNS)
    units = dict(N=PARAMS[params], **UNITS)
    budget = "budget_flops" if all(row["budget_flops"] for row in kept) else "realized_flops"
    found = of_table(table, columns, units, budget, group or "series", where, drop_highest, keep_flops=True)
    validation = table.numbers("validation_bpb")[0]
    return dataclasses.replace(
        found,
        chosen_by=validation if np.isfinite(validation[found.runs.rows_N]).all() else None,
        flops_from="realized, exact",
        names=np.array(table.column("name")),
        families=np.array(table.column("family")) if not group else None,
        notes=(*notes, *found.notes),
        warnings=(*found.warnings, *_repeats(found, table)),
    )


def _repeats(found: Source, table: Table) -> list[str]:
    """What there is to say of runs that read their text again: a law of data counts bytes as fresh ones. In
    docs/results/study_gpu hash tables learned a text by heart in their second epoch."""
    epochs = found.of(table.numbers("epochs")[0])
    again = epochs[epochs > ONCE]
    if not again.size:
        return []
    return [
        f"{again.size} of {epochs.size} runs read text more than once, up to {again.max():.3g} times, and"
        f" what is read again counts here as fresh data: --where 'epochs<={ONCE:g}' leaves them out"
    ]


def _latent(run) -> float | None:
    return run_table.number(run_directories.lookup(run.planned, "params.latent_12lh2"))


def _of_one_text(rows: list, notes: list) -> list:
    """The rows that were scored on the test text of the most."""
    texts = collections.Counter(row["test_text"] for row in rows)
    main = max(texts, key=lambda text: (texts[text], text is not None, str(text)))
    kept = [row for row in rows if row["test_text"] == main]
    if len(kept) < len(rows):
        notes.append(f"left out, since scored on other test text: {counted(len(rows) - len(kept), 'run')}")
    return kept


def _best(run_of: dict, rows: list, notes: list) -> list:
    """The rows of the configurations that are best on validation text among those that differ in swept keys
    alone, with the means of what their seeds plan alike."""
    cells = {}
    for row in rows:
        run = run_of[id(row)]
        swept = series.swept_keys(run)
        flat = {k: v for k, v in run_directories.flat(run.config).items() if k not in series.NO_PART}
        budget = run_table.budget_key(row)
        cell = repr((budget, sorted((k, str(v)) for k, v in flat.items() if k not in swept)))
        config = repr([flat.get(key) for key in swept])
        cells.setdefault(cell, {}).setdefault(config, []).append(row)
    kept, tried = [], 0
    for configs in cells.values():
        score = lambda group: (_mean(row["validation_bpb"] for row in group), group[0]["name"])
        best = min(configs.values(), key=score)
        tried += sum(len(group) for group in configs.values()) - len(best)
        means = {key: _mean(row[key] for row in best) for key in MEANS}
        means = {key: value for key, value in means.items() if math.isfinite(value)}
        kept += [{**row, **means} for row in best]
    if tried:
        notes.append(f"left out, since not the best on validation text: {counted(tried, 'run')}")
    return sorted(kept, key=series.order)


def _mean(values) -> float:
    values = [math.inf if value is None else value for value in values]
    return math.fsum(values) / len(values) if math.inf not in values else math.inf
