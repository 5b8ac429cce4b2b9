"""Files to documents, one at a time: plain, gzip, bzip2, xz or zstd; local or at any URL that fsspec opens
(gs://, s3://, https://).

By the name without the ending of its compression: `.jsonl` and `.ndjson` hold a document a line, `.parquet` a
document a row of a column, `.arrayrecord` a document a record; every other file is plain: one document, or
several where a separator cuts it (data/separators.py). Bytes stay as they are: nothing is decoded or
normalised.
"""

import bz2
import codecs
import contextlib
import dataclasses
import glob
import gzip
import io
import json
import lzma
import os
import pathlib
import zlib

from bltjax.data import separators
from bltjax.errors import UserError

JSON_LINES = (".jsonl", ".ndjson")
BATCH = 256  # rows of a Parquet file decoded at once
COMPRESSED = {
    ".gz": lambda raw: gzip.GzipFile(fileobj=raw),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".zst": lambda raw: _zstd(raw),
}
# of pyarrow too, whose errors are kinds of these
DAMAGE = (EOFError, zlib.error, lzma.LZMAError, OSError, ValueError)


@dataclasses.dataclass(frozen=True)
class File:
    """A file of a source. stamp changes when its content does (size and time of change, as far as its system
    tells them)."""

    path: str
    size: int
    stamp: str


def found(patterns) -> list[File]:
    """The files that match, each once, in order of their paths. UserError for a pattern without a match, and
    for none at all."""
    if not patterns:
        raise UserError('data.globs is empty; it is a list of patterns such as ["texts/**/*.txt"]')
    matched = {}
    for pattern in patterns:
        with readable(pattern):
            some = _remote(pattern) if "://" in pattern else _local(pattern)
        if not some:
            raise UserError(f"data.globs: no file matches {pattern!r}")
        matched.update({file.path: file for file in some})
    return [matched[path] for path in sorted(matched)]


def _local(pattern: str) -> list[File]:
    paths = [path for path in glob.glob(os.path.expanduser(pattern), recursive=True) if os.path.isfile(path)]
    facts = [(path, os.stat(path)) for path in paths]
    return [File(path, stat.st_size, f"{stat.st_size}-{stat.st_mtime_ns}") for path, stat in facts]


def _remote(pattern: str) -> list[File]:
    import fsspec

    system, path = fsspec.core.url_to_fs(pattern)
    infos = [info for info in system.glob(path, detail=True).values() if info["type"] == "file"]
    stamp = lambda info: str(
        info.get("etag") or info.get("ETag") or info.get("mtime") or info.get("LastModified") or ""
    )
    return [
        File(system.unstrip_protocol(info["name"]), info["size"] or 0, f"{info['size']}-{stamp(info)}")
        for info in infos
    ]


def documents(file: File, field: str, longest: int, group_field: str = "", separator: str = ""):
    """Yields (bytes, group) of every document of a file. group: what `group_field` of its line or row says,
    else the name's ending. separator: what stands between the documents of a plain file; "": it is one.

    UserError, naming file and line or row, for a file that is missing, truncated or damaged, a line that is
    no JSON object, a field that is missing or no text, and a document of more than `longest` bytes, of which
    no more is ever read."""
    name, _ = _endings(file.path)
    kind = pathlib.PurePosixPath(name).suffix.lower()
    with readable(file.path):
        if kind == ".arrayrecord":
            if name != file.path or "://" in file.path and not file.path.startswith("file://"):
                raise UserError(
                    f"{file.path}: ArrayRecord files are read as they are, and from this machine (they are"
                    " compressed inside)"
                )
            yield from (
                (document, "arrayrecord") for document in records(file.path.removeprefix("file://"), longest)
            )
            return
        with opened(file.path) as stream:
            if kind in JSON_LINES:
                yield from _lines(file.path, stream, field, longest, group_field)
            elif kind == ".parquet":
                yield from _rows(file.path, stream, field, longest, group_field)
            elif separator:
                pieces = separators.at_separator(stream, separator.encode(), longest, file.path)
                yield from ((piece, kind.lstrip(".")) for piece in pieces)
            else:
                document = stream.read(longest + 1)
                if len(document) > longest:
                    raise too_long(file.path, longest)
                yield document, kind.lstrip(".")


def part(file: File, shares, number: int, separator: str, longest: int):
    """Yields (bytes, group) of the documents of part `number` of a plain file whose bytes are cut by shares
    (fractions.Fraction, 1 together), wherever that falls. The part is cut at `separator`, or else into pieces
    at line ends. UserError as `documents`."""
    name, ending = _endings(file.path)
    group = pathlib.PurePosixPath(name).suffix.lower().lstrip(".")
    with readable(file.path):
        size = 0 if ending else file.size
        if not size:
            with opened(file.path) as stream:
                size = separators.length(stream)
        first, last = (int(size * sum(shares[:k])) for k in (number, number + 1))
        with opened(file.path) as stream:
            separators.skip(stream, first)  # read, since not every stream can be sought in
            limited = separators.Limited(stream, last - first)
            if separator:
                pieces = separators.at_separator(limited, separator.encode(), longest, file.path)
            else:
                pieces = separators.at_line_ends(limited)
            yield from ((piece, group) for piece in pieces)


def is_plain(path: str) -> bool:
    """Whether a file is text as it is, and not lines, rows or records that hold texts."""
    kind = pathlib.PurePosixPath(_endings(path)[0]).suffix.lower()
    return kind not in (*JSON_LINES, ".parquet", ".arrayrecord")


def is_compressed(path: str) -> bool:
    return bool(_endings(path)[1])


def too_long(path: str, longest: int) -> UserError:
    return UserError(
        f"{path}: a document of more than {longest:,} bytes; set data.separator to what stands between its"
        ' documents (such as "\\n\\n"), data.split to cut it by position (such as 90/5/5), or data.longest to'
        " allow more"
    )


@contextlib.contextmanager
def opened(path: str):
    """The bytes of a file, decompressed where its name's ending says so."""
    _, ending = _endings(path)
    with _raw(path) as raw:
        if not ending:
            yield raw
            return
        with COMPRESSED[ending](raw) as stream:
            yield stream


@contextlib.contextmanager
def readable(path: str):
    """Turns what can go wrong with a file, wherever it is, into one line that names it."""
    try:
        yield
    except UserError:
        raise
    except ImportError as error:  # fsspec's gcsfs, s3fs, ...
        raise UserError(
            f"cannot read {path}: {' '.join(str(error).split())} (pip install it beside bltjax)"
        ) from None
    except DAMAGE as error:
        why = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"cannot read {path}: {why}") from None


def within(document: bytes, longest: int, where: str) -> bytes:
    if len(document) > longest:
        raise UserError(
            f"{where}: a document of more than {longest:,} bytes (data.longest); cut it into several, or"
            " allow more"
        )
    return document


def _raw(path: str):
    if "://" not in path:
        return open(path, "rb")
    import fsspec

    return fsspec.open(path, "rb").open()


def _zstd(raw):
    import pyarrow  # here and below where it is needed: it takes longer to import than most verbs take

    return io.BufferedReader(
        pyarrow.CompressedInputStream(pyarrow.PythonFile(raw, mode="r"), "zstd"), 1 << 20
    )


def _endings(path: str) -> tuple[str, str]:
    """(name without the ending of its compression, that ending or "")."""
    stem, ending = os.path.splitext(path)
    return (stem, ending.lower()) if ending.lower() in COMPRESSED else (path, "")


def _lines(path, stream, field, longest, group_field):
    room = 6 * longest + (1 << 16)  # a byte may take six as \u00e9, and there may be other fields
    number = 0
    while line := stream.readline(room + 1):
        number += 1
        where = f"{path} line {number}"
        if len(line) > room:
            raise UserError(
                f"{where}: more than {room:,} bytes without a line's end (data.longest is {longest:,})"
            )
        if not line.strip():
            continue
        try:
            record = json.loads(line.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape"))
        except (ValueError, RecursionError):
            raise UserError(f"{where}: not a JSON object (one object a line is expected)") from None
        if not isinstance(record, dict):
            raise UserError(f"{where}: a JSON {type(record).__name__}, not an object")
        text = _field(record, "text_field", field, where)
        if not isinstance(text, str):
            raise UserError(f"{where}: field {field!r} is a {type(text).__name__}, not a string")
        try:
            # bytes that were no UTF-8 come out as they went in
            data = text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise UserError(f"{where}: field {field!r} holds a lone surrogate, which is no text") from None
        yield (
            within(data, longest, where),
            _group(_field(record, "group_field", group_field, where)) if group_field else "jsonl",
        )


def _field(record, key, field, where):
    if field not in record:
        raise UserError(
            f"{where}: no field {field!r} (data.{key}); it has {', '.join(sorted(record)) or 'none'}"
        )
    return record[field]


def _group(value) -> str:
    return "" if value is None else str(value)


def _rows(path, stream, field, longest, group_field):
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.parquet.ParquetFile(stream if stream.seekable() else io.BytesIO(stream.read()))
    names = table.schema_arrow.names
    for key, wanted in (("text_field", field), ("group_field", group_field)):
        if wanted and names.count(wanted) != 1:
            raise UserError(
                f"{path}: {'more than one' if wanted in names else 'no'} column {wanted!r} (data.{key}); it"
                f" has {', '.join(names)}"
            )
    types = pyarrow.types
    kind = table.schema_arrow.field(field).type
    if not any(
        test(kind)
        for test in (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
    ):
        raise UserError(f"{path}: column {field!r} is of {kind}, not text or bytes")
    number = 0
    for batch in table.iter_batches(BATCH, columns=[field, *filter(None, [group_field])]):
        column = batch.column(batch.schema.get_field_index(field)).cast(pyarrow.large_binary())
        groups = (
            batch.column(batch.schema.get_field_index(group_field)).to_pylist()
            if group_field
            else ["parquet"] * len(column)
        )
        for value, group in zip(column, groups, strict=True):
            number += 1
            yield within(value.as_py() or b"", longest, f"{path} row {number}"), _group(group)


def records(path, longest: int):
    """Yields the records of an ArrayRecord file. UserError for one that is damaged, and for a record of more
    than `longest` bytes."""
    from array_record.python import array_record_module

    try:
        reader = array_record_module.ArrayRecordReader(str(path), options="")
        for number in range(reader.num_records()):
            yield within(bytes(reader.read()), longest, f"{path} record {number}")
        reader.close()
    except RuntimeError as error:  # the library's only error
        raise UserError(f"cannot read {path}: {' '.join(str(error).split())}") from None
