"""Files of every kind, cut, renamed, joined, with foreign bytes and flipped bits, and what an honest reader
makes of them. A case is a function of its number."""

import bz2
import dataclasses
import gzip
import json
import lzma
import pathlib
import pickle
import re
import struct
import tempfile
import zipfile

import numpy as np
import pyarrow
import pyarrow.parquet
from array_record.python import array_record_module
from files_of_kinds import database, example, lz4, saved, tarred, tf_record, zstd
from tensorflow_datasets.proto import tf_example_generated_pb2 as proto

SEED, CASES, SECONDS = 13, 180, 60


SHORT = 32  # data.min_bytes: what is shorter is left out


class Hang(BaseException):
    """A case that ran for longer than SECONDS."""


class Damaged(Exception):
    """What an honest reader says of a file that is not what was written."""


@dataclasses.dataclass(frozen=True)
class Written:
    kind: str
    data: bytes
    documents: list


def words(rng) -> bytes:
    """A document of 100 to 400 bytes that shares no shingle with another."""
    letters = np.array(list('abcdefghijklmnopqrstuvwxyz     \n"\\é中'))
    return "".join(rng.choice(letters, rng.integers(100, 300))).encode() + b"."


# What an honest reader makes of bytes. pieces: what was written, before it was damaged.


def as_it_is(data, pieces):
    return [data]


def of_lines(data, pieces):
    found = []
    for line in filter(bytes.strip, data.split(b"\n")):
        record = json.loads(line.decode("utf-8", "surrogateescape"))
        if not isinstance(record, dict) or not isinstance(record.get("text"), str):
            raise Damaged
        found.append(record["text"].encode("utf-8", "surrogateescape"))
    return found


def of_one_line(data, pieces):
    """As it is, where it does not look like JSON any more."""
    return of_lines(data, pieces) if data.startswith(b"{") and b'"text": "' in data else [data]


def of_tf_records(inner):
    def read(data, pieces):
        found = []
        while data:
            end = 16 + struct.unpack_from("<Q", data)[0]
            if tf_record(data[12 : end - 4]) != data[:end]:
                raise Damaged
            found.append(inner(data[12 : end - 4]))
            data = data[end:]
        if inner is bytes and any(piece.kind != pieces[0].kind for piece in pieces):
            raise Damaged  # Examples behind text
        return found

    return read


def text_of_example(record):
    return proto.Example.FromString(record).features.feature["text"].bytes_list.value[0]


def whole(data, pieces):
    """Of what has its account at its end, and checksums: all of it, or nothing."""
    if len(pieces) != 1:
        raise Damaged
    return pieces[0].documents


def of_arrow(opened):
    """Of Arrow, which has no checksums: a flipped bit of a text is a text."""

    def read(data, pieces):
        if len(data) != len(pieces[0].data):
            return whole(data, pieces)
        return texts_of(opened(data).read_all())

    return read


def texts_of(table):
    """Bytes that are no UTF-8 are text like any other, but every text lies within the file."""
    table.validate()
    column = table["text"].cast(pyarrow.large_binary())
    column.validate(full=True)
    return column.to_pylist()


def of_stream(data, pieces):
    """May end behind any batch; bytes behind its end are damage."""
    source = pyarrow.BufferReader(data)
    found = texts_of(pyarrow.ipc.open_stream(source).read_all())
    if source.read(1):
        raise Damaged
    return found


def decompressed(decompress, inner):
    def read(data, pieces):
        plain = [Written(p.kind, decompress(p.data), p.documents) for p in pieces[:1]]
        return inner(decompress(data), plain)

    return read


def in_streams(new):
    def decompress(data):
        found = b""
        while data := data.lstrip(b"\0"):
            stream = new()
            found += stream.decompress(data)
            if not stream.eof:
                raise Damaged
            data = stream.unused_data
        return found

    return decompress


def in_frames(codec, inner):
    """Of frames, whose ends only a reader of theirs knows."""

    def read(data, pieces):
        if len(data) != sum(len(piece.data) for piece in pieces):
            raise Damaged
        return inner(pyarrow.CompressedInputStream(pyarrow.BufferReader(data), codec).read(), pieces)

    return read


def never(data, pieces):
    """Of what is refused: as long as its first bytes are its own."""
    if data[:64] == pieces[0].data[:64]:
        raise Damaged
    return [data]


# What is written.


def lines(documents):
    return b"".join(
        json.dumps({"n": n, "text": d.decode()}).encode() + b"\n" for n, d in enumerate(documents)
    )


def array_records(options, record=bytes):
    def write(documents):
        with tempfile.TemporaryDirectory() as folder:
            writer = array_record_module.ArrayRecordWriter(f"{folder}/a", options)
            for document in documents:
                writer.write(record(document))
            writer.close()
            return pathlib.Path(folder, "a").read_bytes()

    return write


def table_of(documents, kind=pyarrow.string()):
    return pyarrow.table({"n": range(len(documents)), "text": pyarrow.array(documents, kind)})


def parquet(kind=pyarrow.string(), **options):
    return lambda documents: saved(
        lambda file: pyarrow.parquet.write_table(
            table_of(documents, kind), file, write_page_checksum=True, **options
        )
    )


def arrow(new, codec=None, rows=4):
    def write(documents):
        table = table_of([d.decode() for d in documents])
        sink, options = pyarrow.BufferOutputStream(), pyarrow.ipc.IpcWriteOptions(compression=codec)
        with new(sink, table.schema, options=options) as writer:
            writer.write_table(table, rows)
        return sink.getvalue().to_pybytes()

    return write


def zipped(documents):
    return saved(lambda file: zipfile.ZipFile(file, "w").writestr("a.txt", documents[0]) or None)


def to_example(document):
    return example(n=7, text=document)


FILE, STREAM = pyarrow.ipc.new_file, pyarrow.ipc.new_stream


KINDS = {  # name: (how documents are written, how bytes are read, how many documents)
    "plain": (b"\n".join, as_it_is, 1),
    "lines": (lines, of_lines, 9),
    "one line": (lines, of_one_line, 1),
    "lines.gz": (lambda d: gzip.compress(lines(d)), decompressed(gzip.decompress, of_lines), 9),
    "plain.gz": (lambda d: gzip.compress(d[0]), decompressed(gzip.decompress, as_it_is), 1),
    "lines.bz2": (
        lambda d: bz2.compress(lines(d)),
        decompressed(in_streams(bz2.BZ2Decompressor), of_lines),
        9,
    ),
    "lines.xz": (
        lambda d: lzma.compress(lines(d)),
        decompressed(in_streams(lzma.LZMADecompressor), of_lines),
        9,
    ),
    "plain.lzma": (
        lambda d: lzma.compress(d[0], lzma.FORMAT_ALONE),
        decompressed(in_streams(lzma.LZMADecompressor), as_it_is),
        1,
    ),
    "lines.zst": (lambda d: zstd(lines(d)), in_frames("zstd", of_lines), 9),
    "plain.zst": (lambda d: zstd(d[0]), in_frames("zstd", as_it_is), 1),
    "lines.lz4": (lambda d: lz4(lines(d)), in_frames("lz4", of_lines), 9),
    "lines.gz.xz": (
        lambda d: lzma.compress(gzip.compress(lines(d))),
        decompressed(in_streams(lzma.LZMADecompressor), decompressed(gzip.decompress, of_lines)),
        9,
    ),
    "parquet": (parquet(compression="none", use_dictionary=False), whole, 9),
    "parquet snappy": (parquet(compression="snappy"), whole, 9),
    "parquet zstd": (parquet(pyarrow.large_binary(), compression="zstd", row_group_size=4), whole, 9),
    "parquet brotli": (parquet(pyarrow.string_view(), compression="brotli", data_page_size=64), whole, 9),
    "parquet.gz": (
        lambda d: gzip.compress(parquet(compression="gzip")(d)),
        decompressed(gzip.decompress, whole),
        9,
    ),
    "arrow": (arrow(FILE), of_arrow(pyarrow.ipc.open_file), 9),
    "arrow zstd": (arrow(FILE, "zstd"), of_arrow(pyarrow.ipc.open_file), 9),
    "arrow stream": (arrow(STREAM), of_stream, 9),
    "arrow stream lz4": (arrow(STREAM, "lz4", 2), of_stream, 9),
    "array record": (array_records("group_size:1"), whole, 9),
    "array record brotli": (array_records("group_size:4,brotli"), whole, 9),
    "array record raw": (array_records("group_size:9,uncompressed", to_example), whole, 9),
    "tf record": (lambda d: tf_record(*d), of_tf_records(bytes), 9),
    "tf record.gz": (
        lambda d: gzip.compress(tf_record(*d)),
        decompressed(gzip.decompress, of_tf_records(bytes)),
        9,
    ),
    "tf examples": (lambda d: tf_record(*map(to_example, d)), of_tf_records(text_of_example), 9),
    "zip": (zipped, never, 1),
    "tar": (lambda d: tarred(), never, 0),
    "npy": (lambda d: saved(lambda file: np.save(file, np.arange(99.0))), never, 0),
    "pdf": (lambda d: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n" + d[0], never, 1),
    "png": (lambda d: b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(40), never, 0),
    "sqlite": (lambda d: database(), never, 0),
    "pickle": (lambda d: pickle.dumps([x.decode() for x in d]), never, 2),
    "utf-16": (lambda d: "".join(map(chr, d[0])).encode("utf-16"), never, 1),
}


STEMS = ("a", "part-00000", "xab", "b [1]", "c[1]", "c1", "é", "C4.train", "-x", "d::e", "#f")


ENDINGS = (
    *("", "", ".txt", ".TXT", ".md", ".json", ".jsonl", ".jl", ".jsonl.1", ".json.gz", ".gz", ".bz2", ".xz"),
    *(".parquet", ".arrow", ".feather", ".arrayrecord", ".array_record-00000-of-00002", ".tfrecord-1-of-2"),
    *(".zst", ".zip", ".npy", ".pdf", ".bin", ".1", ".00000-of-01024"),
)


PROMISE = re.compile(r"\.(jsonl|jl|parquet|arrow|feather|array_?record|tfrecord)", re.I)


# What happens to it: (data, pieces) of a file before and after.


def written(rng, kind=None):
    kind = kind or str(rng.choice(list(KINDS)))
    write, _, count = KINDS[kind]
    documents = [words(rng) for _ in range(count)]
    return Written(kind, write(documents), documents)


def cut(rng, data, pieces):
    near_an_end = [0, len(data) - 1, *rng.integers(0, 40, 2), len(data) - int(rng.integers(0, 20))]
    at = rng.choice(near_an_end) if rng.random() < 0.4 else rng.integers(0, len(data) + 1)
    return of_what_is_left(data[: max(0, at)], pieces)


def behead(rng, data, pieces):
    return of_what_is_left(data[rng.integers(1, max(2, len(data))) :], pieces)


def of_what_is_left(data, pieces):
    """A few bytes, a few lines or the text between numbers are no sign of what they were."""
    few = (
        data.count(b"\n") < 3
        if pieces and "line" in pieces[0].kind
        else len(re.findall(rb"[\0-\x08]", data)) < 4
    )
    if (few or len(data) < SHORT) and not data.startswith(b"{"):
        return data, [Written("plain", b"", [])] * bool(data)
    return data, pieces


def flip(rng, data, pieces):
    flipped = bytearray(data)
    for at in rng.integers(0, max(1, len(data)), rng.integers(1, 6)):
        if len(data):
            flipped[at] ^= 1 << int(rng.integers(8))
    return bytes(flipped), pieces


def insert(rng, data, pieces):
    size, at = int(rng.integers(1, 200)), int(rng.integers(1, max(2, len(data))))
    foreign = (rng.bytes(size), bytes(size), b"foreign text " * 9, b"\n", b"\r\n\r\n")[rng.integers(5)]
    return data[:at] + foreign + data[at:], pieces


def join(rng, data, pieces):
    other = written(rng, pieces[0].kind if pieces and rng.random() < 0.6 else None)
    return data + other.data, [*pieces, other]


def nothing(rng, data, pieces):
    return data, pieces


HAPPENS = (*[nothing] * 5, cut, behead, flip, insert, join)


def honest(name, data, pieces):
    """What an honest reader reads; Damaged where it is nothing that was written."""
    if len(data) < SHORT or not pieces:
        return [data]
    try:
        found = KINDS[pieces[0].kind][1](data, pieces)
    except Exception as error:  # of whatever library
        raise Damaged from error
    if pieces[0].kind.startswith("plain") and PROMISE.search(name):
        raise Damaged
    return found


def case(number):
    """[(name, data, documents or None, whether they must be read, what happened)] of files."""
    rng, files = np.random.default_rng([SEED, number]), {}
    for _ in range(rng.integers(1, 3)):
        first = written(rng)
        data, pieces, said = first.data, [first], [first.kind]
        for what in rng.choice(HAPPENS, rng.integers(1, 3)):
            data, pieces = what(rng, data, pieces)
            said.append(what.__name__)
        name = str(rng.choice(STEMS)) + str(rng.choice(ENDINGS))
        try:
            found = honest(name, data, pieces)
        except Damaged:
            found = None
        must = set(said[1:]) <= {"nothing"} and len(data) >= SHORT
        files[name] = (data, found, must, said)
    files["sound.jsonl"] = (lines(some := [words(rng) for _ in range(4)]), some, True, ["sound"])
    return files
