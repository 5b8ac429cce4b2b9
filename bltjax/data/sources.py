"""Where text comes from: a source gives the same list of documents, in the same order, every time it is asked on one machine."""

import glob
import hashlib
import json
import os
import sysconfig
from pathlib import Path

from bltjax.errors import UserError

# Of the 31.5 MB under the library's folder 20.7 are tests; tables of encodings, `pydoc_data` and build settings are generated.
STDLIB_LEFT_OUT = frozenset({
    "site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test", "testdata", "test_data", "encodings", "pydoc_data",
})
JSON_LINES = (".jsonl", ".ndjson")


def documents(data_config) -> list[bytes]:
    """The corpus that `data_config` (config.data) names: raw bytes of every document of at least `min_bytes` bytes.

    Raises UserError for an unknown source, a pattern without a match, a file that is not text or not JSON lines, an empty corpus.
    """
    source = data_config.source
    if source not in SOURCES:
        raise UserError(f"unknown data.source {source!r}; allowed: {', '.join(SOURCES)}")
    found = SOURCES[source](data_config)
    kept = [document for document in found if len(document) >= max(1, data_config.min_bytes)]
    if not kept:
        raise UserError(f"data.source {source!r} is empty: {len(found)} documents, none of {data_config.min_bytes} bytes or more")
    return kept


def fingerprint(documents) -> str:
    """12 hex digits that change when a document, or the order of documents, does."""
    digest = hashlib.sha256()
    for document in documents:
        digest.update(hashlib.sha256(document).digest())
    return digest.hexdigest()[:12]


def _stdlib(data_config) -> list[bytes]:
    root = Path(sysconfig.get_paths()["stdlib"])
    paths = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in STDLIB_LEFT_OUT]
        paths += [Path(folder, name) for name in names if name.endswith(".py") and not name.startswith("_sysconfigdata")]
    if not paths:
        raise UserError(f"no source files of Python's standard library under {root}; use data.source=files")
    return [_read(path) for path in sorted(paths, key=lambda path: path.relative_to(root).as_posix())]


def _files(data_config) -> list[bytes]:
    if not data_config.globs:
        raise UserError("data.source=files needs data.globs, a list of patterns such as [\"texts/**/*.txt\"]")
    paths = set()
    for pattern in data_config.globs:
        matched = [path for path in glob.glob(os.path.expanduser(pattern), recursive=True) if os.path.isfile(path)]
        if not matched:
            raise UserError(f"data.globs: no file matches {pattern!r}")
        paths.update(matched)
    found = []
    for path in map(Path, sorted(paths)):
        found += _json_lines(path, data_config.text_field) if path.suffix.lower() in JSON_LINES else [_text(path)]
    return found


def _text(path: Path) -> bytes:
    data = _read(path)
    _check_text(data, path)
    return data


def _check_text(data: bytes, path: Path) -> None:
    if (at := data.find(b"\0")) >= 0:
        raise UserError(f"{path} is not text: a NUL byte at offset {at}")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text: invalid UTF-8 at offset {error.start}") from None


def _json_lines(path: Path, field: str) -> list[bytes]:
    data = _read(path)
    _check_text(data, path)
    found = []
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            raise UserError(f"{path} line {number}: not a JSON object (one object a line is expected)") from None
        if not isinstance(record, dict):
            raise UserError(f"{path} line {number}: a JSON {type(record).__name__}, not an object")
        if field not in record:
            raise UserError(f"{path} line {number}: no field {field!r} (data.text_field); it has {', '.join(sorted(record)) or 'none'}")
        if not isinstance(record[field], str):
            raise UserError(f"{path} line {number}: field {field!r} is a {type(record[field]).__name__}, not a string")
        try:
            found.append(record[field].encode("utf-8"))
        except UnicodeEncodeError:
            raise UserError(f"{path} line {number}: field {field!r} holds a lone surrogate, which is no text") from None
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None


SOURCES = {"stdlib": _stdlib, "files": _files}
