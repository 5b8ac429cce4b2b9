"""The table of an experiment's runs for anybody to use: one row a run, the unit of each column in its name.

CSV, JSON lines or Parquet, by the file's name; the same columns and values in each (docs/run_directory.md).
"""

import json
import pathlib

from bltjax.errors import UserError
from bltjax.results import run_table, tables
from bltjax.results.columns import COLUMNS, EXPORTED
from bltjax.results.run_directories import Run, lookup

KINDS = (".csv", ".jsonl", ".parquet")
ONE_RUN = ("seeds", "bpb_seed_sd")  # columns that say something of several runs alone
KEYS = tuple(c for c in (COLUMNS[0], *EXPORTED[:2], *COLUMNS[1:], *EXPORTED[2:]) if c.key not in ONE_RUN)


def check(path: pathlib.Path, made: pathlib.Path) -> None:
    """UserError where nothing can be written to a path, before any work is done for it. made: a folder that
    is made, if it is not there, before the file is written."""
    folder, made = path.absolute().parent, made.absolute()
    if path.suffix not in KINDS:
        raise UserError(f"--export {path}: the name must end in {', '.join(KINDS[:-1])} or {KINDS[-1]}")
    if path.is_dir() or not (folder.is_dir() or folder == made or folder in made.parents):
        raise UserError(
            f"--export {path}: {'is a directory' if path.is_dir() else 'there is no such folder'}"
        )


def rows(runs: list, finished: list) -> list:
    """[{key: value}] of KEYS, a dict a run in the runs' order. finished: the report's rows of runs that are
    done; of the others there is what was planned and reached."""
    done = {row["run_dir"]: row for row in finished}
    return [
        {
            column.key: {**made(run), **(done.get(str(run.path)) or run_table.row(run))}.get(column.key)
            for column in KEYS
        }
        for run in runs
    ]


def made(run: Run) -> dict:
    """How a run was made, and what became of it: the columns of EXPORTED."""
    token = run.setting("model.kind") != "blt"
    latent = run.setting("model", {}) if token else run.setting("model.latent", {})
    entropy = run.planned.get("entropy_model") or {}
    text = {
        key: run.setting(dotted)
        for key, dotted in (
            ("kind", "model.kind"),
            ("preset", "model.preset"),
            ("scheme", "patching.scheme"),
            ("context", "data.context"),
            ("rows", "data.rows"),
            ("local_width", "model.local.width"),
            ("encoder_layers", "model.local.encoder_layers"),
            ("decoder_layers", "model.local.decoder_layers"),
            ("dtype", "model.dtype"),
            *((key, f"train.{key}") for key in ("warmup", "schedule", "beta1", "beta2", "weight_decay")),
        )
    }
    return dict(
        text,
        state=run.state,
        reason=run.reason,
        experiment=run.record.get("experiment"),
        latent_width=lookup(latent, "width"),
        latent_layers=lookup(latent, "layers"),
        epochs_before=run_table.number(run.planned.get("epochs_before")),
        entropy_model=entropy.get("fingerprint"),
        entropy_model_flops=run_table.number(entropy.get("train_flops")),
        bltjax=lookup(run.record, "versions.bltjax"),
        jax=lookup(run.record, "versions.jax"),
        **{key: run.record.get(key) for key in ("platform", "device", "devices", "cores", "created")},
    )


def content(path: pathlib.Path, found: list) -> bytes:
    """A file's bytes, of the kind that its name says. found: as `rows` gives them."""
    titles = [column.title for column in KEYS]
    values = [[None if row[c.key] == "" else row[c.key] for c in KEYS] for row in found]
    if path.suffix == ".csv":
        return tables.csv_text(titles, values).encode("utf-8", "backslashreplace")
    if path.suffix == ".jsonl":
        lines = [json.dumps(dict(zip(titles, line)), allow_nan=False) for line in values]
        return "".join(f"{line}\n" for line in lines).encode()
    return parquet(titles, [list(line) for line in zip(*values)])


def parquet(titles: list, values: list) -> bytes:
    """values: a list a column of KEYS."""
    import pyarrow
    from pyarrow import parquet as files

    def typed(column, own):
        kinds = {type(value) for value in own if value is not None}
        if kinds == {bool}:
            return pyarrow.array(own, pyarrow.bool_())
        if kinds == {int}:
            return pyarrow.array(own, pyarrow.int64())
        if kinds and kinds <= {int, float} or not kinds and column.form != "{}":
            return pyarrow.array(own, pyarrow.float64())
        return pyarrow.array([None if value is None else str(value) for value in own], pyarrow.string())

    out = pyarrow.BufferOutputStream()
    files.write_table(pyarrow.table([typed(*pair) for pair in zip(KEYS, values)], names=titles), out)
    return out.getvalue().to_pybytes()
