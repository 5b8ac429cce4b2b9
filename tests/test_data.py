"""Sources: deterministic, and clear about bad input."""

import bz2
import gzip
import json
import lzma
import sys
import types

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from array_record.python import array_record_module

from bltjax import config
from bltjax.data import files as file_formats
from bltjax.data import sources
from bltjax.errors import UserError


def data(**changes):
    node = config.data()
    with node.unlocked():
        for key, value in changes.items():
            assert key in node
            node[key] = value
    return node


def files(tmp_path, **named):
    for name, content in named.items():
        path = tmp_path / name.replace("__", ".")
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return tmp_path


def documents(data_config) -> list[bytes]:
    """The text that `data_config` names, all of it in memory: raw bytes of every document of at least
    `min_bytes` bytes.

    Raises UserError as `units` and `files.documents` do, and for an empty corpus.
    """
    lengths, kept = 0, []
    for unit in sources.units(data_config):
        for document, _ in unit.read():
            lengths += 1
            if len(document) >= max(1, data_config.min_bytes):
                kept.append(document)
    if not kept:
        raise UserError(
            f"data.source {data_config.source!r} is empty: {lengths} documents, none of"
            f" {data_config.min_bytes} bytes or more"
        )
    return kept


def words(seed, count):
    """Text that repeats nothing longer than a word or so."""
    rng = np.random.default_rng(seed)
    return b" ".join(b"%x" % n for n in rng.integers(0, 2**32, count))


# Sources


def test_stdlib_is_source_text_without_tests_or_tables():
    found = documents(data())
    assert found == documents(data())
    assert sum(map(len, found)) > 3_000_000 and len(found) > 200
    assert min(map(len, found)) >= 32
    with open(json.__file__, "rb") as file:
        assert file.read() in found
    with open(pytest.__file__, "rb") as file:
        assert file.read() not in found  # site-packages
    assert not any(b"decoding_table = (" in document for document in found)


def test_files_are_sorted_documents(tmp_path):
    files(
        tmp_path,
        b__txt="second",
        a__txt="first",
        c__jsonl='{"text": "third"}\n\n{"text": "fourth", "n": 1}\n',
        d__md="other",
    )
    (tmp_path / "deep").mkdir()
    files(tmp_path / "deep", e__txt="fifth é")

    def get(*globs, **changes):
        changes = {"min_bytes": 1, **changes}
        return documents(data(source="files", globs=tuple(str(tmp_path / g) for g in globs), **changes))

    assert get("*.txt") == [b"first", b"second"]
    assert get("**/*.txt", "*.txt") == [b"first", b"second", "fifth é".encode()]
    assert get("*.jsonl") == [b"third", b"fourth"]
    assert get("*.txt", min_bytes=6) == [b"second"]
    files(tmp_path, f__ndjson='{"body": "x\\ny"}')
    assert get("*.ndjson", text_field="body") == [b"x\ny"]


def test_bytes_stay_as_they_are(tmp_path):
    files(
        tmp_path,
        a__txt=b"text\0more",
        b__txt=b"caf\xe9",
        c__txt=b"\xff",
        d__jsonl=b'{"text": "\xff\\u0000\xc3\xa9\\u00e9"}',
    )
    found = documents(data(source="files", globs=(str(tmp_path / "*"),), min_bytes=1))
    assert found == [b"text\0more", b"caf\xe9", b"\xff", b"\xff\0\xc3\xa9\xc3\xa9"]


def arrow(path, codec="zstd", **columns):
    pyarrow.parquet.write_table(pyarrow.table(columns), path, compression=codec)


def records(path, *documents, options="group_size:1"):
    writer = array_record_module.ArrayRecordWriter(str(path), options)
    for document in documents:
        writer.write(document)
    writer.close()


def test_every_format_gives_the_same_documents(tmp_path, monkeypatch):
    texts = [b"one\r\ntwo", "zwei é".encode(), b"3" * 70_000]
    lines = b"".join(
        json.dumps({"text": t.decode(), "lang": f"l{i}"}).encode() + b"\n" for i, t in enumerate(texts)
    )
    made = {
        "a.jsonl": lines,
        "a.jsonl.gz": gzip.compress(lines[:40], mtime=0) + gzip.compress(lines[40:], mtime=0),
        "a.ndjson.xz": lzma.compress(lines),
        "a.jsonl.bz2": bz2.compress(lines),
        "a.jsonl.zst": (
            pyarrow.compress(lines[:9], codec="zstd", asbytes=True)
            + pyarrow.compress(lines[9:], codec="zstd", asbytes=True)
        ),
    }
    for name, content in made.items():
        (tmp_path / name).write_bytes(content)
    arrow(tmp_path / "a.parquet", text=[t.decode() for t in texts], lang=["l0", "l1", "l2"])
    arrow(tmp_path / "b.parquet", text=pyarrow.array(texts, pyarrow.large_binary()), lang=["l0", "l1", "l2"])
    records(tmp_path / "a.arrayrecord", *texts)
    monkeypatch.setattr(file_formats.tables, "BATCH", 2)
    for name in (*made, "a.parquet", "b.parquet", "a.arrayrecord"):
        for address in (str(tmp_path / name), f"file://{tmp_path / name}"):
            if name.endswith(".arrayrecord") and "://" in address:
                continue
            settings = data(
                source="arrayrecord" if name.endswith("record") else "files", globs=(address,), min_bytes=1
            )
            assert documents(settings) == texts, (name, address)
            if "record" not in name:
                assert [
                    group
                    for unit in sources.units(data(source="files", globs=(address,), group_field="lang"))
                    for _, group in unit.read()
                ] == ["l0", "l1", "l2"]
    (tmp_path / "c.py.gz").write_bytes(gzip.compress(b"whole", mtime=0))
    (unit,) = sources.units(data(source="files", globs=(str(tmp_path / "c.py.gz"),)))
    assert list(unit.read()) == [(b"whole", "py")]


def test_a_data_set_of_tensorflow_datasets_without_tensorflow(tmp_path):
    import tensorflow_datasets as tfds

    class TinyTexts(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(
                    {"body": tfds.features.Text(), "language": tfds.features.Text()}
                ),
            )

        def _split_generators(self, manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i in range(25):
                yield i, {"body": f"text {i} é", "language": "en"}

    TinyTexts(data_dir=str(tmp_path), file_format="array_record").download_and_prepare()
    settings = data(
        source="tfds:tiny_texts", folder=str(tmp_path), text_field="body", group_field="language", min_bytes=1
    )
    assert sorted(documents(settings)) == sorted(f"text {i} é".encode() for i in range(25))
    assert {group for unit in sources.units(settings) for _, group in unit.read()} == {"en"}
    for changes, said in (
        (dict(subset="dev"), "subset=dev"),
        (dict(text_field="text"), "no field 'text'"),
        (dict(source="tfds:none_such"), "none_such"),
    ):
        with pytest.raises(UserError, match=said):
            documents(
                data(**{**dict(source="tfds:tiny_texts", folder=str(tmp_path), text_field="body"), **changes})
            )


def test_a_data_set_of_the_hub(monkeypatch):
    class Streamed(list):
        info, num_shards = types.SimpleNamespace(version="1.2", download_checksums=None), 2

        def shard(self, num_shards, index):
            return self[index::num_shards]

    rows = Streamed({"text": f"row {i}", "lang": "de"} for i in range(5))
    called = []
    fake = types.SimpleNamespace(load_dataset=lambda *args, **named: called.append((args, named)) or rows)
    monkeypatch.setitem(sys.modules, "datasets", fake)
    settings = data(source="hf:some/text@en", subset="validation", min_bytes=1, group_field="lang")
    assert documents(settings) == [b"row 0", b"row 2", b"row 4", b"row 1", b"row 3"]
    assert called == [(("some/text", "en"), dict(split="validation", streaming=True))]
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match="extra `hf`"):
        documents(settings)


LINE = b'{"text": "x"}\n'


@pytest.mark.parametrize(
    "name,content,said",
    [
        ("a__jsonl", b'{"text": "fine"}\n{"text": ', "line 2: not a JSON object"),
        ("a__jsonl", b"[" * 70_000, "line 1: not a JSON object"),
        ("a__jsonl", b'"text"', "line 1: a JSON str, not an object"),
        ("a__jsonl", b'\n{"txt": "x"}', "line 2: no field 'text'"),
        ("a__jsonl", b'{"text": 7}', "line 1: field 'text' is a int"),
        ("a__jsonl", b'{"text": "\\ud800"}', "lone surrogate"),
        ("a__jsonl", b'{"text": "' + b"x" * 2000 + b'"}', "line 1: a document of more than 1,000 bytes"),
        ("a__jsonl", b"x" * 200_000, "line 1: more than 71,536 bytes without"),
        ("a__txt", b"x" * 1001, "a document of more than 1,000 bytes"),
        ("a__txt", b"", "is empty"),
        ("a__jsonl", b"\n\n", "is empty"),
        ("a__jsonl__gz", gzip.compress(LINE * 99, mtime=0)[:-20], "end-of-stream"),
        ("a__jsonl__gz", b"", "empty"),
        ("a__jsonl__gz", gzip.compress(LINE * 99, mtime=0)[:-6] + b"111111", "CRC"),
        ("a__jsonl__zst", pyarrow.compress(LINE * 99, codec="zstd", asbytes=True)[:-20], "Truncated"),
        ("a__jsonl__zst", b"\0\1\2" + LINE, "binary"),
        ("a__jsonl__xz", lzma.compress(LINE * 99)[:-20], "end-of-stream"),
        ("a__parquet", b"404 not found", "Parquet"),
        ("a__parquet", b"PAR1\x15" + LINE, "Parquet"),
        ("a__parquet", b"", "Parquet"),
        ("a__arrayrecord", b"404 not found", "a.arrayrecord"),
        ("a__arrayrecord", b"\x83\xaf\x70\xd1\x0d\x88\x4a\x3f" + LINE, "a.arrayrecord"),
        ("a__arrayrecord", b"", "a.arrayrecord"),
    ],
)
def test_files_that_are_damaged(tmp_path, name, content, said):
    files(tmp_path, **{name: content})
    with pytest.raises(UserError) as error:
        documents(data(source="files", globs=(str(tmp_path / "*"),), min_bytes=1, longest=1000))
    assert said in str(error.value) and "\n" not in str(error.value)


def test_columns_that_are_not_there(tmp_path):
    import pyarrow.parquet

    twice = pyarrow.table([pyarrow.array(["x"]), pyarrow.array(["y"])], names=["text", "text"])
    pyarrow.parquet.write_table(twice, tmp_path / "twice.parquet")
    with pytest.raises(UserError, match="more than one column 'text'"):
        documents(data(source="files", globs=(str(tmp_path / "twice.parquet"),)))
    (tmp_path / "twice.parquet").unlink()
    arrow(tmp_path / "a.parquet", body=["x"], number=[7])
    for field, said in (("text", "no column 'text'.*body, number"), ("number", "is of int64, not text")):
        with pytest.raises(UserError, match=said):
            documents(data(source="files", globs=(str(tmp_path / "*"),), text_field=field))
    (tmp_path / "a.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-8])
    with pytest.raises(UserError, match="a.parquet"):
        documents(data(source="files", globs=(str(tmp_path / "*"),), text_field="body"))


def test_wrong_sources(tmp_path):
    for changes, said in (
        (dict(source="web"), "stdlib, files"),
        (dict(source="files"), "data.globs"),
        (dict(source="files", globs=(str(tmp_path / "*.txt"),)), "no file matches"),
        (dict(source="files", globs=(str(tmp_path),)), "no file matches"),
        (dict(min_bytes=10**7), "is empty"),
    ):
        with pytest.raises(UserError, match=said.replace("*", r"\*")):
            documents(data(**changes))


def test_a_file_that_cannot_be_read(tmp_path, monkeypatch):
    files(tmp_path, a__txt="text")

    def refuse(path, mode):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(file_formats, "open", refuse, raising=False)
    with pytest.raises(UserError, match="Permission denied"):
        documents(data(source="files", globs=(str(tmp_path / "a.txt"),)))
