"""Where a task's data lies in a user's folder, and its rows: JSON lines, Arrow or Parquet, as packages have
them. Nothing is downloaded."""

import gzip
import json
import os
import pathlib

from bltjax.errors import UserError

ENDINGS = (".jsonl", ".jsonl.gz", ".arrow", ".parquet")
SPLITS = ("validation", "test")  # the first that there is
HINT = "bltjax data tasks says which package has it"


def find(
    folder: pathlib.Path, names: tuple[str, ...], splits=SPLITS, *, shots: bool = False, hint: str = HINT
) -> list[pathlib.Path]:
    """The files of a task: NAME.jsonl (.arrow, .parquet), or all of one split below a folder NAME. names: how
    the task's folder may be called, compared in lower case. splits: those that will do, the best one first.
    shots: whether it is examples that are wanted; alone they are NAME_SPLIT.jsonl. hint: where the data is to
    be had. UserError where there is none."""
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise UserError(f"--task-data {folder} is no folder")
    files = [p for p in files_below(folder) if p.name.endswith(ENDINGS)]
    for name in [f"{name}_{split}" for name in names for split in splits] if shots else names:
        if alone := [p for p in files if p.name.split(".")[0].lower() == name]:
            return alone[:1]
    for name in names:
        below = [p for p in files if name in [part.lower() for part in p.relative_to(folder).parts[:-1]]]
        for split in splits:
            some = [p for p in below if split in "/".join(p.relative_to(folder).parts).lower()]
            if some:
                return some
        if asked := [p for p in below if p.name.startswith("requests.jsonl")]:  # of no split; all the same
            return asked[:1]
    alone = f"{names[0]}_{splits[0]}" if shots else names[0]
    raise UserError(f"{folder} has no data of {alone}: {alone}.jsonl, or a folder of it; {hint}")


def files_below(folder: pathlib.Path) -> list[pathlib.Path]:
    """All files below a folder, those of linked folders too, sorted; a link to a folder above is not followed
    twice."""
    found, seen = [], set()
    for at, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(at)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        found += [path for name in names if (path := pathlib.Path(at, name)).is_file()]
    return sorted(found)


def rows(paths: list[pathlib.Path]) -> list[dict]:
    """The rows of files, in their order. UserError that names file and line where they cannot be read."""
    found = []
    for path in paths:
        found += _lines(path) if ".jsonl" in path.name else _table(path)
    if not found:
        raise UserError(f"{paths[0]} has no rows")
    return found


def _lines(path: pathlib.Path) -> list[dict]:
    found, number = [], 0
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    value = json.loads(line)
                    if not isinstance(value, dict):
                        raise UserError(f"{path}: line {number} is no JSON object")
                    if r"\ud" in line.lower():  # half a character, in an escape
                        json.dumps(value, ensure_ascii=False).encode()
                    found.append(value)
    except UnicodeDecodeError as error:
        raise UserError(f"cannot read {path}, which is no UTF-8: {error.reason}") from None
    except UnicodeEncodeError:
        raise UserError(f"cannot read {path}, line {number}: half a character (a surrogate alone)") from None
    except RecursionError:
        raise UserError(f"cannot read {path}, line {number + 1}: it is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise UserError(f"cannot read {path}, line {number}: no JSON ({error.msg})") from None
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"cannot read {path}, line {number or 1}: {error}") from None
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
