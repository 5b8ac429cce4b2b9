"""What a file is, its content says: read as what it is, or refused in a line that says what to do."""

import bz2
import gzip
import io
import json
import lzma
import pathlib
import pickle
import re
import sqlite3
import struct
import sys
import tarfile
import wave
import zipfile
import zlib

import msgpack
import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.feather
import pyarrow.parquet
import pytest
from array_record.python import array_record_module
from tensorflow_datasets.proto import tf_example_generated_pb2 as proto

from bltjax import config as cfg
from bltjax.data import crc32c, file_kinds, file_signs, sources
from bltjax.errors import UserError

TEXTS = [b"one\r\ntwo", "zwei é".encode(), b"3" * 70_000]
LINES = b"".join(
    json.dumps({"id": i, "text": text.decode()}).encode() + b"\n" for i, text in enumerate(TEXTS)
)
DOCS = pathlib.Path(__file__).parent.parent / "docs" / "data.md"


def read(path, **changes):
    changes = {"source": "files", "min_bytes": 1, **changes}
    settings = cfg.replace(cfg.data(), globs=(str(path),), **changes)
    return [document for unit in sources.units(settings) for document, _ in unit.read()]


def refused(path, **changes) -> str:
    """The line with which a file is refused, whether it is read or looked at ahead."""
    settings = cfg.replace(cfg.data(), source="files", globs=(str(path),), **changes)
    said = []
    for call in (lambda unit: list(unit.read()), lambda unit: unit.check()):
        with pytest.raises(UserError) as error:
            list(map(call, sources.units(settings)))
        said.append(str(error.value))
    assert said[0] == said[1] and "\n" not in said[0] and str(path) in said[0]
    return said[0]


def lz4(data):
    return pyarrow.compress(data, codec="lz4", asbytes=True)


def zstd(data):
    return pyarrow.compress(data, codec="zstd", asbytes=True)


@pytest.mark.parametrize(
    "name,content",
    [
        ("c4-train.00000-of-01024.json.gz", gzip.compress(LINES)),
        ("a.jl", LINES),
        ("a.jsonl.1", LINES),
        ("a.ndjson.00007.xz", lzma.compress(LINES)),
        ("part-00000", LINES),
        ("a.txt", b"\xef\xbb\xbf" + LINES),
        ("a.json-seq", b"".join(b"\x1e" + line for line in LINES.splitlines(True))),  # RFC 7464
        ("b.jsonl", b"".join(b"\x1e" + line for line in LINES.splitlines(True))),
        ("a.json", b"\n\n" + LINES.replace(b"\n", b"\r\n")),
        ("a.jsonl.gz.gz", gzip.compress(gzip.compress(LINES))),
        ("unpacked-on-the-way.jsonl.gz", LINES),
        ("gzip.zst", gzip.compress(LINES)),
        ("a.lz4", lz4(LINES[:50]) + lz4(LINES[50:])),
        ("a", lzma.compress(LINES, format=lzma.FORMAT_ALONE)),
        ("says.parquet", LINES),
    ],
)
def test_json_lines_under_any_name(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert read(tmp_path / name) == TEXTS


def test_a_line_longer_than_what_is_looked_at_first(tmp_path):
    texts = [b"x" * 300_000, b"y" * 200_000]
    lines = b"".join(json.dumps({"text": text.decode()}).encode() + b"\n" for text in texts)
    (tmp_path / "a.json").write_bytes(lines)
    assert read(tmp_path / "a.json") == texts
    (tmp_path / "b.json").write_bytes(lines[:-1])  # the last line is none
    assert read(tmp_path / "b.json") == texts


@pytest.mark.parametrize(
    "name,content,said",
    [
        # a piece of a file that was cut by bytes: no text, though its first line is damaged
        ("xab", b'he end of it"}\n' + LINES, "xab line 1: not a JSON object"),
        ("c4.json", LINES.replace(b'"text"', b'"body"'), "line 1: no field 'text'.*data.format=bytes"),
        ("a.jsonl", b'{"text": "a"\n"text": "b"}\n', "line 1: not a JSON object"),
        ("list.json", json.dumps([{"text": "a"}, {"text": "b"}]).encode(), "one JSON list of objects.*jq"),
        ("list2.json", json.dumps([{"q": "a" * 99_000}] * 9, indent=1).encode(), "one JSON list of objects"),
        (
            "pretty.json",
            json.dumps({"n": 1}, indent=1).encode() * 3,
            "JSON objects that are not one a line.*jq",
        ),
        ("one.json", json.dumps({"id": 1, "text": "a"}, indent=1).encode(), "over several lines.*jq"),
        (
            "half-a-line",
            b'{"id": 1, "text": "' + b"long text " * 30,
            "begins like a JSON object with the field 'text' and",
        ),
        ("two-in-one", b'{"id": 1, "text": "o\nne"}\n', "begins like a JSON object with the field 'text'"),
        ("mac.json", b'{"text": "a"}\r{"text": "b"}\r', "JSON objects that are not one a line"),
    ],
)
def test_json_that_is_no_json_lines(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    settings = cfg.replace(cfg.data(), source="files", globs=(str(tmp_path / name),))
    with pytest.raises(UserError) as error:
        [list(unit.read()) for unit in sources.units(settings)]
    assert re.search(said, str(error.value)) and "\n" not in str(error.value)
    assert read(tmp_path / name, format="bytes") == [content]


@pytest.mark.parametrize(
    "content",
    [
        b"{ pkgs, ... }:\n{ environment = [ pkgs.git ]; }\n",
        b"{\n    int x = 1;\n}\n",
        b"{% extends 'base.html' %}\n{% block a %}{% endblock %}\n",
        b"[section]\nkey = 1\n",
        b"[1] Smith, J. On lists.\n[2] Jones.\n",
        json.dumps({"name": "package", "files": ["a", "b"], "more": {"x": 1}}, indent=2).encode(),
        b'The log says\n{"level": "info"}\nand then nothing more,\nfor a day\n',
        b"PAR1 is what a Parquet file begins with",
        b"ORCHESTRA: a group of musicians",
        b"GIF89a is a format of images",
        b"RIFF RAFF: opens the door",
        b"BM stands for bitmap",
        b"ID3 is an algorithm",
        b"070701,5\n070702,6\n",
        "Съешь же ещё этих мягких французских булок".encode("cp1251"),
        "x轴和y轴".encode("gbk"),
        "日本語のテキスト".encode("shift_jis"),
        b"\xef\xbb\xbftext with a mark, which stays",
        b"caf\xe9 and \xff, a few bytes that are no UTF-8",
        b"\x1b[31mred\x1b[0m and man\b\bpage, as a terminal has them",
        b"a,b\n1,2\n",
        b'{"compilerOptions": {} // the text of a comment\n}',
        b"",
    ],
)
def test_text_is_one_document_as_it_is(tmp_path, content):
    (tmp_path / "a.txt").write_bytes(content)
    assert read(tmp_path / "a.txt") == [content]
    (tmp_path / "b").write_bytes(gzip.compress(content))
    assert read(tmp_path / "b") == [content]


def zipped(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/"), content)
    return file.getvalue()


def tarred(mode="w"):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        info = tarfile.TarInfo("a.txt")
        info.size = 5
        archive.addfile(info, io.BytesIO(b"hello"))
    return file.getvalue()


def saved(write):
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def database():
    with sqlite3.connect(":memory:") as connection:
        connection.execute("create table t(text)")
        return connection.serialize()


def sound():
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, 8000, 0, "NONE", ""))
        out.writeframes(bytes(800))
    return file.getvalue()


def program():
    with open(sys.executable, "rb") as file:
        return file.read(100_000)


NUMBERS = np.arange(1000.0)
PIXELS = np.random.default_rng(0).integers(60, 200, 64 * 64 * 3).astype(np.uint8).tobytes()
OTHERS = {
    "a tar archive.*tar://": tarred(),
    "a ZIP archive.*zip://": zipped(a="text"),
    "a Word, Excel": zipped(**{"[Content_Types].xml": "<x/>", "word__document.xml": "<x/>"}),
    "an OpenDocument or EPUB": zipped(mimetype="application/epub+zip"),
    r"a NumPy archive": saved(lambda file: np.savez(file, NUMBERS)),
    "a NumPy array": saved(lambda file: np.save(file, NUMBERS)),
    "a PyTorch checkpoint": zipped(**{"archive__data.pkl": "x"}),
    "an archive": b"7z\xbc\xaf\x27\x1c\0\4" + bytes(100),
    "compressed in a way": zlib.compress(b"some text " * 100),
    "an HDF5 file": b"\x89HDF\r\n\x1a\n" + bytes(100),
    "an SQLite database": database(),
    "a MATLAB file": b"MATLAB 5.0 MAT-file, by hand" + bytes(100),
    "a Feather file of version 1": b"FEA1\0\0\0\0" + bytes(100),
    "an Avro file": b"Obj\1\4\x14avro.codec",
    "an ORC file": b"ORC\n\x03\0\0\0\x12\4\x08" + bytes(50),
    "a Parquet file with an encrypted": b"PARE" + bytes(50),
    "a Python pickle": pickle.dumps(["text"] * 10),
    "Python pickle": pickle.dumps(["some text"] * 10, protocol=0),
    "a Python pickle;": pickle.dumps({"text": "some text " * 40, "n": [1.5, None]}, protocol=0),
    "Python pickle;": pickle.dumps(np.array(["some text"] * 9), protocol=0),
    "is a Python pickle": pickle.dumps(["some text " * 40] * 10_000, protocol=1),
    "a PDF": b"%PDF-1.7\n1 0 obj\n<</Type /Catalog>>\nendobj\n",
    "an old Word": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500),
    "an RTF file": b"{\\rtf1\\ansi some text}",
    "a DjVu file": b"AT&TFORM" + bytes(9),
    "an image": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(20),
    "is an image": b"P6\n# by hand\n64 64\n255\n" + PIXELS,
    "an image;": b"SIMPLE  =                    T".ljust(2880) + PIXELS,
    "sound or video": sound(),
    "weights .safetensors": struct.pack("<Q", 60)
    + b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}      ',
    "weights .GGUF": b"GGUF\3\0\0\0" + bytes(20),
    "a program or library": program(),
    "Git LFS.*git lfs pull": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n",
    "Git LFS": b"version https://hawser.github.com/spec/v1\noid sha256:00\nsize 7\n",
    "git-annex.*git annex get": b"/annex/objects/MD5E-s7--0123456789abcdef.txt\n",
    "UTF-16.*iconv": "some text, of which every other byte is a NUL".encode("utf-16"),
    "UTF-16": "some text, of which every other byte is a NUL".encode("utf-16-be"),
    "binary": np.random.default_rng(0).bytes(5000),
    "is binary": np.random.default_rng(0).integers(0, 50_000, 9000).astype(np.uint16).tobytes(),
    r"is binary \(control": b"text of a record " * 40 + struct.pack("<Q", 170) + b"text of a record " * 40,
    ".* binary": b"some text\n" * 9000 + np.random.default_rng(0).bytes(100_000) + b"some text\n" * 9000,
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_files_are_refused_by_name(tmp_path, kind):
    for name in ("a", "a.txt", "b.gz"):
        (tmp_path / name).write_bytes(gzip.compress(OTHERS[kind]) if name == "b.gz" else OTHERS[kind])
        settings = cfg.replace(cfg.data(), source="files", globs=(str(tmp_path / name),))
        with pytest.raises(UserError) as error:
            [list(unit.read()) for unit in sources.units(settings)]
        assert re.search(kind, str(error.value)) and "\n" not in str(error.value)
        assert read(tmp_path / name, format="bytes") == [OTHERS[kind]]


@pytest.mark.parametrize(
    "text",
    [
        b"Value of a thing\np0\nand more of it\n",
        b"(lp the beginning of a list\np0\n",
        b"]q is no word\n",
        b"P5\nis what stands here\n",
        b"N.\nThe end.\n",
        b"S'\\u and \\p are no escapes'\n",
    ],
)
@pytest.mark.filterwarnings("error")
def test_text_that_begins_like_a_pickle_or_pixels_is_text(tmp_path, text):
    (tmp_path / "a").write_bytes(text)
    assert read(tmp_path / "a") == [text]


def test_pipes_in_a_tar_archive_are_no_files(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, kind in (
            ("a.txt", tarfile.REGTYPE),
            ("p.txt", tarfile.FIFOTYPE),
            ("l.txt", tarfile.LNKTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "a.txt" if kind == tarfile.LNKTYPE else ""
            member.size = 4 if kind == tarfile.REGTYPE else 0
            archive.addfile(member, io.BytesIO(b"text"))
    assert read(f"tar://*.txt::{tmp_path}/a.tar") == [b"text", b"text"]


def test_a_kind_is_refused_before_anything_is_read(tmp_path):
    (tmp_path / "a.txt").write_bytes(tarred("w:gz"))
    assert "a tar archive" in refused(tmp_path / "a.txt")
    (tmp_path / "a.jsonl.gz").write_bytes(b"")
    assert "is empty" in refused(tmp_path / "a.jsonl.gz")


def test_a_table_in_the_docs_has_every_kind():
    text = DOCS.read_text().replace("`", "")
    for kind in (*file_signs.READ, *file_signs.REFUSED, *file_signs.COMPRESSIONS):
        assert kind.name.removeprefix("a ").removeprefix("an ") in text, kind.name


# Records


def array_record(path, *records):
    writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()


def tf_record(*records):
    pieces = []
    for record in records:
        size = struct.pack("<Q", len(record))
        crc = lambda data: crc32c.masked(crc32c.of(data))
        pieces += [size, struct.pack("<I", crc(size)), record, struct.pack("<I", crc(record))]
    return b"".join(pieces)


def example(**features):
    found = proto.Example()
    for name, value in features.items():
        if isinstance(value, int):
            found.features.feature[name].int64_list.value.append(value)
        else:
            found.features.feature[name].bytes_list.value.extend(
                value if isinstance(value, list) else [value]
            )
    return found.SerializeToString()


def sequence(text):
    found = proto.SequenceExample()
    found.context.feature["id"].int64_list.value.append(1)
    found.feature_lists.feature_list["text"].feature.add().bytes_list.value.append(text)
    return found.SerializeToString()


def test_checksums_of_tf_records_are_those_of_tensorflow():
    # CRC-32C of RFC 3720, B.4, masked as TensorFlow does: 32 bytes of 0
    assert crc32c.masked(crc32c.of(bytes(32))) == ((0x8A9136AA >> 15 | 0x8A9136AA << 17) + 0xA282EAD8) % 2**32


@pytest.mark.parametrize("name", ["x.array_record-00000-of-00010", "a.arrayrecord", "a", "b.txt"])
def test_array_records_under_any_name(tmp_path, name):
    array_record(tmp_path / name, *TEXTS)
    assert read(tmp_path / name) == TEXTS == read(tmp_path / name, source="arrayrecord")
    array_record(tmp_path / name, *(example(text=text, n=7) for text in TEXTS))
    assert read(tmp_path / name) == TEXTS
    array_record(tmp_path / name, *LINES.splitlines())
    assert read(tmp_path / name) == TEXTS


@pytest.mark.parametrize("name", ["a.tfrecord-00000-of-00001", "a.tfrecord.gz", "a"])
def test_tf_records_under_any_name(tmp_path, name):
    pack = gzip.compress if name.endswith("gz") else bytes
    (tmp_path / name).write_bytes(pack(tf_record(*TEXTS)))
    assert read(tmp_path / name) == TEXTS
    (tmp_path / name).write_bytes(pack(tf_record(*(example(body=text, lang=b"de") for text in TEXTS))))
    assert read(tmp_path / name, text_field="body") == TEXTS
    settings = cfg.replace(
        cfg.data(), source="files", globs=(str(tmp_path / name),), text_field="body", group_field="lang"
    )
    assert {group for unit in sources.units(settings) for _, group in unit.read()} == {"de"}


@pytest.mark.parametrize(
    "records,said",
    [
        ([example(body=b"x")], "record 0: no field 'text' .*; it has body"),
        ([example(text=7)], "record 0: field 'text' holds numbers"),
        ([example(text=[b"a", b"b"])], "record 0: field 'text' holds 2 texts"),
        ([example(text=b"x"), b"text"], "record 1 is no tf.train.Example"),
        ([np.random.default_rng(0).bytes(500)], "record 0 is binary"),
        ([sequence(b"long text " * 99)], "record 0 is a tf.train.SequenceExample"),
        ([msgpack.packb({"text": "long text " * 99})], "record 0 is a map of MessagePack"),
        ([pickle.dumps({"text": "long text " * 99})], "record 0 is a Python pickle"),
        ([b'{"body": "x"}'], "record 0: no field 'text'.*body"),
        ([b'{"text": "x"}', b"text"], "record 1: not a JSON object"),
        (
            [b"text " * 40, example(text=b"long text " * 40)],
            "record 1 is a tf.train.Example, as those before",
        ),
    ],
)
def test_records_that_hold_something_else(tmp_path, records, said):
    array_record(tmp_path / "a", *records)
    (tmp_path / "b").write_bytes(tf_record(*records))
    for name in ("a", "b"):
        with pytest.raises(UserError, match=said):
            read(tmp_path / name)
    assert read(tmp_path / "b", format="bytes") == [tf_record(*records)]


def test_checksums_of_many_records_are_those_of_each():
    rng = np.random.default_rng(0)
    for sizes in ([0], [1], [59, 60, 61], [5000], [0, 3, 4, 63, 64, 65, 2000, *rng.integers(0, 300, 20)]):
        records = [rng.bytes(int(size)) for size in sizes]
        assert crc32c.of_each(records).tolist() == list(map(crc32c.of, records))


def test_tf_records_that_are_damaged(tmp_path):
    whole = tf_record(*TEXTS)
    flipped = whole.replace(b"zwei", b"zwej")  # a text like any other, but not the one that was written
    for damaged in (whole[:-3], whole[:30], whole[:24] + b"\1" + whole[25:], flipped, whole[:-1] + b"\0"):
        (tmp_path / "a.tfrecord").write_bytes(damaged)
        with pytest.raises(UserError, match=r"cannot read .*a.tfrecord record"):
            read(tmp_path / "a.tfrecord")


def test_text_records_that_begin_with_a_newline(tmp_path):
    texts = [b"\n\x05hello", b"\n\n", b"\n" + bytes([3]) + b"abc"]
    array_record(tmp_path / "a", *texts)
    assert read(tmp_path / "a") == texts


# Columns and fields


def arrow_file(table, file, new=pyarrow.ipc.new_file, compression=None):
    options = pyarrow.ipc.IpcWriteOptions(compression=compression)
    with new(file, table.schema, options=options) as out:
        out.write_table(table)


def columns():
    text = pyarrow.array([t.decode() for t in TEXTS])
    yield text.cast(pyarrow.string_view())  # as polars writes it
    yield text.cast(pyarrow.large_string())
    yield text.dictionary_encode()
    yield text.cast(pyarrow.binary_view())
    yield pyarrow.DictionaryArray.from_arrays(pyarrow.array([0, 1, 2], pyarrow.uint8()), text)


@pytest.mark.parametrize("name", ["a.parquet", "a", "part-00000-of-00001"])
def test_columns_of_every_layout(tmp_path, name):
    for column in columns():
        table = pyarrow.table({"text": column, "n": [1, 2, 3]})
        pyarrow.parquet.write_table(table, tmp_path / name)
        assert read(tmp_path / name) == TEXTS, column.type


@pytest.mark.parametrize("name", ["data-00000-of-00001.arrow", "a.feather", "a", "a.zst"])
def test_arrow_files_and_streams(tmp_path, name):
    for column in [*columns(), pyarrow.compute.run_end_encode(pyarrow.array([t.decode() for t in TEXTS]))]:
        table = pyarrow.table({"text": column, "n": [1, 2, 3]})
        for new in (pyarrow.ipc.new_file, pyarrow.ipc.new_stream):
            with new(tmp_path / name, table.schema) as out:
                out.write_table(table)
            if name.endswith("zst"):
                whole = (tmp_path / name).read_bytes()
                (tmp_path / name).write_bytes(pyarrow.compress(whole, codec="zstd", asbytes=True))
            assert read(tmp_path / name) == TEXTS, (column.type, new)
            whole = (tmp_path / name).read_bytes()
            (tmp_path / name).write_bytes(whole[: len(whole) // 2])
            with pytest.raises(UserError):
                read(tmp_path / name)
    pyarrow.feather.write_feather(pyarrow.table({"body": [1]}), str(tmp_path / name))
    with pytest.raises(UserError, match="no column 'text'.*body"):
        read(tmp_path / name)
    with pytest.raises(UserError, match="is of int64"):
        read(tmp_path / name, text_field="body")


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, lz4, zstd])
def test_what_stands_behind_a_compressed_stream_is_not_lost(tmp_path, pack):
    (tmp_path / "a").write_bytes(pack(LINES[:40]) + pack(LINES[40:]))
    assert read(tmp_path / "a") == TEXTS
    (tmp_path / "a").write_bytes(pack(LINES) + LINES)
    with pytest.raises(UserError, match="cannot read"):
        read(tmp_path / "a")
    if pack is lzma.compress:
        (tmp_path / "a").write_bytes(pack(LINES[:40]) + bytes(8) + pack(LINES[40:]) + bytes(4))
        assert read(tmp_path / "a") == TEXTS


def test_arrow_streams_behind_one_another(tmp_path):
    table = pyarrow.table({"text": ["a"]})
    with pyarrow.ipc.new_stream(tmp_path / "a", table.schema) as out:
        out.write_table(table)
    (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes() * 2)
    with pytest.raises(UserError, match="goes on behind the end"):
        read(tmp_path / "a")


def table(write, texts, **options):
    return saved(
        lambda file: write(
            pyarrow.table({"n": range(len(texts)), "text": pyarrow.array(texts, pyarrow.string())}),
            file,
            **options,
        )
    )


@pytest.mark.parametrize("name,write", [("Parquet", pyarrow.parquet.write_table), ("Arrow", arrow_file)])
def test_tables_behind_one_another(tmp_path, name, write):
    one, other, none = (
        table(write, [f"{which} {i}" for i in range(n)]) for which, n in [("a", 9), ("b", 9), ("", 0)]
    )
    longer = table(write, ["long text " * 200] * 9)
    for joined in (one + other, one + longer, longer + one, none + one, one + none, one + other + one):
        (tmp_path / "a").write_bytes(joined)
        with pytest.raises(UserError, match=f"a (holds more than one {name} file|: )"):
            read(tmp_path / "a")
        (tmp_path / "a").write_bytes(gzip.compress(joined[:99]) + gzip.compress(joined[99:]))
        with pytest.raises(UserError, match=f"a (holds more than one {name} file|: )"):
            read(tmp_path / "a")
    (tmp_path / "a").write_bytes(none)
    assert read(tmp_path / "a") == []


def test_parquet_has_indexes_between_its_columns_and_its_footer(tmp_path):
    texts = [f"text {i}" for i in range(2000)]
    options = dict(write_page_index=True, data_page_size=64, write_batch_size=4, row_group_size=500)
    (tmp_path / "a").write_bytes(table(pyarrow.parquet.write_table, texts, **options))
    assert read(tmp_path / "a") == [text.encode() for text in texts]


def test_checksums_of_parquet_are_compared(tmp_path):
    plain = dict(compression="none", use_dictionary=False, write_statistics=False)
    whole = table(pyarrow.parquet.write_table, ["one", "two", "three"], write_page_checksum=True, **plain)
    assert whole.count(b"three") == 1
    (tmp_path / "a").write_bytes(whole.replace(b"three", b"threw"))
    with pytest.raises(UserError, match="cannot read .*a: .*CRC"):
        read(tmp_path / "a")


@pytest.mark.parametrize("new", [pyarrow.ipc.new_file, pyarrow.ipc.new_stream])
def test_arrow_that_says_what_cannot_be(tmp_path, new):
    whole = table(arrow_file, ["one", "two", "three"], new=new)
    offsets = struct.pack("<4i", 0, 3, 6, 11)
    assert whole.count(offsets) == 1 and whole.count(b"onetwothree") == 1
    for wrong in ((0, 3, 2, 11), (0, 3, 6, 1 << 30), (0, -3, 6, 11)):
        (tmp_path / "a").write_bytes(whole.replace(offsets, struct.pack("<4i", *wrong)))
        with pytest.raises(UserError, match="cannot read"):
            read(tmp_path / "a")
    (tmp_path / "a").write_bytes(whole.replace(b"onetwothree", b"one\xfe\xffothree"))
    assert read(tmp_path / "a") == [b"one", b"\xfe\xffo", b"three"]  # as it is
    if new is pyarrow.ipc.new_file:
        (tmp_path / "a").write_bytes(whole.replace(b"onetwothree", b"one or two or three more"))
        with pytest.raises(UserError, match="bytes that are not of one"):
            read(tmp_path / "a")


def test_arrow_of_a_size_that_no_memory_has(tmp_path):
    """Compressed buffers begin with their size."""
    whole = table(arrow_file, ["long text " * 50] * 9, compression="zstd")
    size = struct.pack("<q", 4500)
    assert size in whole
    (tmp_path / "a").write_bytes(whole.replace(size, struct.pack("<q", 1 << 60)))
    with pytest.raises(UserError, match="cannot read .*a: malloc"):
        read(tmp_path / "a")


def test_addresses_in_memory(tmp_path):
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe({"/corpus/a.jsonl.gz": gzip.compress(LINES), "/corpus/b": b"text"})
    try:
        assert read("memory://corpus/*") == [*TEXTS, b"text"]
        memory.pipe({"/corpus/b": tarred()})
        with pytest.raises(UserError, match="memory://.*b is a tar archive"):
            read("memory://corpus/*")
    finally:
        memory.rm("/corpus", recursive=True)


def test_long_integers_in_other_fields(tmp_path):
    number = "9" * 5000
    (tmp_path / "a.json").write_text(
        f'{{"text": "one", "id": {number}}}\n{{"id": -123456789012345678901234567890, "text": "two"}}\n'
    )
    assert read(tmp_path / "a.json") == [b"one", b"two"]
    settings = cfg.replace(
        cfg.data(), source="files", globs=(str(tmp_path / "a.json"),), group_field="id", min_bytes=1
    )
    assert [group for unit in sources.units(settings) for _, group in unit.read()] == [
        number,
        "-123456789012345678901234567890",
    ]
    with pytest.raises(UserError, match="field 'id' is a"):
        read(tmp_path / "a.json", text_field="id")


# Addresses


def test_chained_addresses_keep_their_links(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    texts = {f"txt/{i}.txt": b"text %d" % i for i in range(3)}
    (tmp_path / "a.zip").write_bytes(zipped(**{k.replace("/", "__"): v for k, v in texts.items()}))
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        for name, text in texts.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text))
    for address in (
        "zip://txt/*.txt::a.zip",
        f"zip://**/*.txt::file://{tmp_path}/a.zip",
        "tar://txt/*.txt::a.tar.gz",
        f"simplecache::zip://txt/*.txt::{tmp_path}/a.zip",
    ):
        settings = cfg.replace(cfg.data(), source="files", globs=(address,), min_bytes=1)
        units = sources.units(settings)
        assert [unit.name for unit in units] == [
            address.replace("txt/*.txt", f"txt/{i}.txt").replace("**/*.txt", f"txt/{i}.txt") for i in range(3)
        ]
        assert read(address) == list(texts.values())
        assert read(units[1].name) == [b"text 1"]  # its name is an address, too
    (tmp_path / "b.zip").write_bytes(zipped(a__jsonl=LINES, b=tarred()))
    assert read("zip://a/jsonl::b.zip") == TEXTS
    with pytest.raises(UserError, match="zip://b::b.zip is a tar archive"):
        read("zip://b::b.zip")
    for address in ("zip://*::none.zip", "zip://*::a.tar.gz", "gzip://x::a.zip", "tar://*::a.zip"):
        with pytest.raises(UserError, match="cannot read") as error:
            read(address)
        assert address in str(error.value)


def test_a_name_with_brackets(tmp_path):
    (tmp_path / "a[1].txt").write_bytes(b"text")
    assert read(tmp_path / "a[1].txt") == [b"text"]
    (tmp_path / "a1.txt").write_bytes(b"which the name matches as a pattern")
    assert read(tmp_path / "a[1].txt") == [b"text"]
    (tmp_path / "a[1].txt").unlink()
    assert read(tmp_path / "a[1].txt") == [b"which the name matches as a pattern"]


def test_endings():
    for name, said in (
        ("c4-train.00000-of-01024.json.gz", "json"),
        ("a.jsonl.1", "jsonl"),
        ("x.array_record-00000-of-00010", "array_record"),
        ("dir.d/part-00000", ""),
        ("a.tar.gz", "tar"),
        ("zip://a.txt::b.zip", "txt"),
    ):
        assert file_kinds.ending(name) == said, name
