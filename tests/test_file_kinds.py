"""What a file is, its content says: read as what it is, or refused in a line that says what to do."""

import gzip
import io
import json
import lzma
import pathlib
import pickle
import re
import struct
import tarfile
import zlib

import numpy as np
import pytest
from files_of_kinds import LINES, TEXTS, database, lz4, program, read, refused, saved, sound, tarred, zipped

from bltjax import config as cfg
from bltjax.data import file_signs, sources
from bltjax.errors import UserError

DOCS = pathlib.Path(__file__).parent.parent / "docs" / "data.md"


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
