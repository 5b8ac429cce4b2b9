"""Files to documents, one at a time: local or at any URL that fsspec opens (gs://, s3://, https://, and
chains such as zip://*.txt::a.zip), compressed or not.

What a file is, its content says (data/file_kinds.py); what holds documents in lines, rows or records is read
by data/records.py and data/tables.py. Every other file that is read is plain: one document, or several where
a separator cuts it (data/separators.py). Bytes stay as they are: nothing is decoded or normalised.
"""

import contextlib
import dataclasses
import functools
import glob
import hashlib
import io
import lzma
import os
import tarfile
import zipfile
import zlib

from bltjax.data import decompression, file_kinds, file_signs, records, separators, tables
from bltjax.errors import UserError

FORMATS = ("auto", "bytes")  # data.format: content says what a file is, or it is bytes, whatever it says
LAYERS = 4  # of compression around one another
# of pyarrow too, whose errors are kinds of these
DAMAGE = (
    EOFError,
    MemoryError,  # of lengths that cannot be
    OSError,
    RuntimeError,
    ValueError,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)
# by which a system of files says that a content is another; the first that it knows, checksums before times
SAYS_CHANGE = (
    "Content-MD5",
    "md5Hash",
    "crc32c",
    "CRC",
    "sha",
    "blob_id",
    "ETag",
    "etag",
    "Last-Modified",
    "LastModified",
    "last_modified",
    "updated",
    "mtime",
    "created",
)


@dataclasses.dataclass(frozen=True)
class File:
    """A file of a source. stamp changes when its content does, and may change when it does not; here: whether
    it lies on this machine, so that its digest costs little. system, name: where fsspec opens it."""

    path: str
    size: int
    stamp: str
    here: bool = True
    system: object = dataclasses.field(default=None, compare=False, repr=False)
    name: str = ""


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


def local(path: str) -> File:
    """A file of this machine. Its change time (ctime) is in the stamp, since a content can be changed under
    an old time stamp (mtime) and size."""
    stat = os.stat(path)
    return File(path, stat.st_size, f"{stat.st_size}-{stat.st_mtime_ns}-{stat.st_ctime_ns}")


def _local(pattern: str) -> list[File]:
    pattern = os.path.expanduser(pattern)
    # a shell may have put names for a pattern, and names may hold brackets
    matched = [pattern] if os.path.isfile(pattern) else glob.glob(pattern, recursive=True)
    return [local(path) for path in matched if os.path.isfile(path)]


def _remote(pattern: str) -> list[File]:
    """Files by fsspec. In a chain, such as zip://*.txt::a.zip, the first link with an address is the one
    whose pattern is matched, and the links behind it stay with each file."""
    import fsspec

    system, path = fsspec.core.url_to_fs(pattern)
    links = pattern.split("::")
    at = next((i for i, link in enumerate(links) if "://" in link), len(links) - 1)
    protocol = links[at].partition("://")[0]
    last = links[-1].removeprefix("file://").removeprefix("local://")
    here = "://" not in last
    around = ""  # the stamp of what the files are in
    if at < len(links) - 1:
        around = local(os.path.expanduser(last)).stamp if here else _stamp(*fsspec.core.url_to_fs(links[-1]))
    files = []
    for name, info in system.glob(path, detail=True).items():
        if info["type"] != "file" or _special(system, name):
            continue
        address = system.unstrip_protocol(name)
        if len(links) > 1:
            address = "::".join(
                [*links[:at], name if "://" in name else f"{protocol}://{name}", *links[at + 1 :]]
            )
        if protocol in ("file", "local") and len(links) == 1:
            files.append(dataclasses.replace(local(name), path=address, system=system, name=name))
            continue
        size = info.get("size") or 0
        file = File(address, size, "", here, system, name)
        said = _said(info)
        stamp = f"{size}-{said}-{around}" if said or around else f"{size}-{digest(file)}"
        files.append(dataclasses.replace(file, stamp=stamp))
    return files


def _stamp(system, path: str) -> str:
    info = system.info(path)
    return f"{info.get('size')}-{_said(info)}"


def _special(system, name: str) -> bool:
    """Whether it is a member of a tar archive that holds no bytes: a pipe or a device."""
    if not hasattr(system, "tar"):
        return False
    member = system.tar.getmember(system.index[name][2])
    return not (member.isreg() or member.islnk() or member.issym())


def _said(info: dict) -> str:
    return next((str(info[key]) for key in SAYS_CHANGE if info.get(key) not in (None, "")), "")


def digest(file: File) -> str:
    """16 hex digits over a file's bytes as they lie there. UserError where it cannot be read."""
    with readable(file.path), _raw(file) as raw:
        return hashlib.file_digest(raw, "sha256").hexdigest()[:16]


def documents(
    file: File, field: str, longest: int, group_field: str = "", separator: str = "", as_bytes: bool = False
):
    """Yields (bytes, group) of every document of a file. group: what `group_field` of its line, row or record
    says, else the name's ending. separator: what stands between the documents of a plain file; "": it is one.
    as_bytes: data.format=bytes.

    UserError, naming file and line, row or record, for a file that is missing, truncated, damaged, or of a
    kind that is not read, a field that is missing or no text, and a document of more than `longest` bytes, of
    which no more is ever read."""
    kind = told(file, field, longest, as_bytes)
    group = file_kinds.ending(file.path)
    with readable(file.path):
        if kind == file_signs.ARRAY_RECORD:
            of_file = records.array_records(_on_this_machine(file), longest)
            yield from records.texts(file.path, of_file, kind, field, group_field)
            return
        with opened(file) as stream:
            if kind == file_signs.LINES_OF_JSON:
                yield from records.lines(file.path, stream, field, longest, group_field)
            elif kind == file_signs.TF_RECORD:
                of_file = records.tf_records(file.path, stream, longest)
                yield from records.texts(file.path, of_file, kind, field, group_field)
            elif kind != file_signs.PLAIN:
                yield from tables.rows(file.path, stream, kind, field, longest, group_field)
            else:
                text = stream if as_bytes else Text(stream, file.path)
                if separator:
                    pieces = separators.at_separator(text, separator.encode(), longest, file.path)
                    yield from ((piece, group) for piece in pieces)
                    return
                document = _read(text, longest + 1)
                if len(document) > longest:
                    raise too_long(file.path, longest)
                yield document, group


def part(file: File, shares, number: int, separator: str, longest: int, as_bytes: bool = False):
    """Yields (bytes, group) of the documents of part `number` of a plain file whose bytes are cut by shares
    (fractions.Fraction, 1 together), wherever that falls. The part is cut at `separator`, or else into pieces
    at line ends. UserError as `documents`."""
    group = file_kinds.ending(file.path)
    with readable(file.path):
        size = 0 if is_compressed(file) else file.size
        if not size:
            with opened(file) as stream:
                size = separators.length(stream)
        first, last = (int(size * sum(shares[:k])) for k in (number, number + 1))
        with opened(file) as stream:
            separators.skip(stream, first)  # read, since not every stream can be sought in
            limited = separators.Limited(stream if as_bytes else Text(stream, file.path), last - first)
            if separator:
                pieces = separators.at_separator(limited, separator.encode(), longest, file.path)
            else:
                pieces = separators.at_line_ends(limited)
            yield from ((piece, group) for piece in pieces)


def told(file: File, field: str, longest: int, as_bytes: bool = False) -> str:
    """What a file is (file_kinds). UserError where it is not read, or cannot be."""
    if as_bytes:
        return file_signs.PLAIN
    with readable(file.path):
        kind = file_kinds.told(file.path, file.size, functools.partial(_sample, file), field, longest)
    if kind == file_signs.ARRAY_RECORD:
        _on_this_machine(file)
    return kind


def is_compressed(file: File) -> bool:
    with _raw(file) as raw:
        return bool(file_kinds.compression(_read(raw, file_signs.HEAD)))


def too_long(path: str, longest: int) -> UserError:
    return UserError(
        f"{path}: a document of more than {longest:,} bytes; set data.separator to what stands between its"
        ' documents (such as "\\n\\n"), data.split to cut it by position (such as 90/5/5), or data.longest to'
        " allow more"
    )


@contextlib.contextmanager
def opened(file: File):
    """The bytes of a file, decompressed where it is compressed (compressed twice, it is decompressed
    twice)."""
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(_raw(file))
        for layer in range(LAYERS + 1):
            head = _read(stream, file_signs.HEAD)
            if not layer and stream.seekable():
                stream.seek(0)
            else:
                stream = io.BufferedReader(_Joined(head, stream), 1 << 20)
            compression = file_kinds.compression(head)
            if not compression:
                yield stream
                return
            stream = stack.enter_context(decompression.OPENED[compression](stream))
        raise UserError(f"{file.path} is compressed more than {LAYERS} times over; decompress it")


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
    except Exception as error:
        if not isinstance(error, DAMAGE) and "://" not in path:  # every system has errors of its own
            raise
        why = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"cannot read {path}: {why}") from None


class Text:
    """A stream of text: reading binary content raises UserError."""

    def __init__(self, stream, path: str):
        self._stream, self._path = stream, path

    def read(self, count: int) -> bytes:
        return file_kinds.refuse_binary(_read(self._stream, count), self._path)


class _Joined(io.RawIOBase):
    """A stream whose first bytes were read already."""

    def __init__(self, head: bytes, stream):
        self._head, self._stream = head, stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        found = self._head[: len(buffer)] or self._stream.read(len(buffer))
        self._head = self._head[len(found) :]
        buffer[: len(found)] = found
        return len(found)


def _read(stream, count: int) -> bytes:
    """`count` bytes, or all that there are: some streams give fewer at a time."""
    pieces = []
    while count and (piece := stream.read(count)):
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


def _sample(file: File, count: int) -> bytes:
    with opened(file) as stream:
        return _read(stream, count)


def _raw(file: File):
    return file.system.open(file.name, "rb") if file.system else open(file.path, "rb")


def _on_this_machine(file: File) -> str:
    """The path of an ArrayRecord file, which its library opens itself. UserError where it cannot."""
    path = file.path.removeprefix("file://")
    if "://" in path or is_compressed(file):
        raise UserError(
            f"{file.path}: ArrayRecord files are read as they are, and from this machine (they are compressed"
            " inside)"
        )
    return path
