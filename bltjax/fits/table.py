"""Anyone's table of runs as columns of text and numbers: CSV, JSON lines, a JSON list, or Parquet. What a
file is, its content says."""

import csv
import difflib
import io
import json
import math
import pathlib
import re

import numpy as np

from bltjax.errors import UserError
from bltjax.results.run_directories import flat

MISSING = {"", "na", "n/a", "nan", "null", "none", "-"}
DELIMITERS = ",;\t|"
THOUSANDS = re.compile(r"\s*-?\d{1,3}(,\d{3})+(\.\d*)?\s*")  # 12,345,678.9
UNIT = re.compile(r"\s*\[[^\[\]]*\]$")  # at the end of a heading, as the tables that reports export have it


class Table:
    """name; columns: {heading: a list of one value a row, as the file has it (None: nothing there)}."""

    def __init__(self, name: str, columns: dict):
        self.name, self.columns = name, columns
        self.rows = len(next(iter(columns.values()), []))

    def heading(self, name: str) -> str:
        """The heading that a name means: the same, or the only one that is the name and its unit, "bpb" for
        "bpb [bit/byte]"; the name itself where there is none."""
        if name in self.columns:
            return name
        found = [heading for heading in self.columns if UNIT.sub("", heading) == name]
        return found[0] if len(found) == 1 else name

    def column(self, name: str) -> list:
        """UserError for a name that the table does not have (`heading`), with those that it has."""
        name = self.heading(name)
        if name in self.columns:
            return self.columns[name]
        near = difflib.get_close_matches(name, self.columns, 1)
        meant = f" (did you mean {near[0]!r}?)" if near else ""
        raise UserError(f"{self.name} has no column {name!r}{meant}; it has {', '.join(self.columns)}")

    def numbers(self, name: str) -> tuple[np.ndarray, dict]:
        """(float64 [rows], nan where there is no number; {row: text} of what is neither a number nor
        missing). UserError where a column holds no number at all."""
        values = self.column(name)
        found, text = np.full(len(values), np.nan), {}
        for row, value in enumerate(values):
            try:
                found[row] = number(value)
            except ValueError:
                text[row] = str(value)
        if text and all(THOUSANDS.fullmatch(said) for said in text.values()):
            if any(said.count(",") > 1 or "." in said for said in text.values()):  # 3,794 may be 3.794
                found[list(text)] = [float(said.replace(",", "")) for said in text.values()]
                text = {}
        if len(text) and np.isnan(found).all():
            raise UserError(
                f"{self.name}: column {name!r} holds text ({next(iter(text.values()))[:40]!r}), not numbers"
            )
        return found, text


def number(value) -> float:
    """nan where a value is missing. ValueError for text, and for yes and no."""
    if value is None:
        return math.nan
    if isinstance(value, bool):
        raise ValueError
    if isinstance(value, str):
        value = value.strip()
        return math.nan if value.lower() in MISSING else float(value)
    try:
        return float(value)
    except TypeError:  # a list, an object, a date
        raise ValueError from None


def read(path) -> Table:
    """The table in a file. UserError where there is none."""
    path = pathlib.Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    if content[:4] == b"PAR1":
        columns = _parquet(path, content)
    elif path.suffix == ".parquet":
        raise UserError(f"{path} is not Parquet, as its name says it is")
    else:
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise UserError(f"{path} is neither Parquet nor text in UTF-8") from None
        first = text.lstrip()[:1]
        columns = _json(path, text) if first in ("{", "[") else _csv(path, text)
    table = Table(path.name, columns)
    if not table.rows:
        raise UserError(f"{path} holds no rows")
    return table


def _parquet(path, content: bytes) -> dict:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError(
            f"{path} is Parquet, which takes pyarrow (pip install pyarrow); CSV does not"
        ) from None
    try:
        return pyarrow.parquet.read_table(io.BytesIO(content)).to_pydict()
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: damaged Parquet ({str(error).splitlines()[0]})") from None


def _json(path, text: str) -> dict:
    """Of objects, one a line or in a list; what is nested has dotted names."""
    try:
        if text.lstrip().startswith("["):
            rows = list(enumerate(json.loads(text), 1))
        else:
            rows = []
            for n, line in enumerate(text.split("\n"), 1):
                if line.strip():
                    rows.append((n, _object(path, n, line)))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON lines ({error})") from None
    columns = {}
    for n, row in rows:
        if not isinstance(row, dict):
            raise UserError(f"{path}: row {n} is no JSON object")
    if len(rows) == 1 and (lists := rows[0][1]) and all(isinstance(one, list) for one in lists.values()):
        if len({len(one) for one in lists.values()}) == 1:  # an object of columns
            return lists
    rows = [flat(row) for _, row in rows]
    for row in rows:
        columns.update(dict.fromkeys(row))
    return {name: [row.get(name) for row in rows] for name in columns}


def _object(path, n: int, line: str):
    """A line of JSON lines."""
    try:
        return json.loads(line)
    except ValueError as error:
        raise UserError(
            f"{path}: line {n} is not a JSON object of its own ({getattr(error, 'msg', error)}); what is"
            " taken is JSON lines, an object a row, or one list of objects"
        ) from None


def _csv(path, text: str) -> dict:
    while text.startswith("#") and not any(sign in text.split("\n", 1)[0] for sign in DELIMITERS):
        text = text.partition("\n")[2]  # a remark above the header
    first = text.split("\n", 1)[0]
    delimiter = max(DELIMITERS, key=first.count)
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise UserError(f"{path}: not CSV ({error})") from None
    lines = [(n, line) for n, line in enumerate(lines, 1) if any(cell.strip() for cell in line)]
    if not lines:
        raise UserError(f"{path} is empty")
    names = [name.strip() for name in lines[0][1]]
    twice = {name for name in names if names.count(name) > 1 and name}
    if twice:
        raise UserError(f"{path}: more than one column is called {sorted(twice)[0]!r}")
    for n, line in lines[1:]:
        if len(line) > len(names):
            raise UserError(f"{path}: line {n} has {len(line)} fields, its header {len(names)}")
    rows = [line + [None] * (len(names) - len(line)) for _, line in lines[1:]]
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}
