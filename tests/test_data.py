"""Sources and splits: deterministic, clear about bad input, and no text of one split repeated in another."""

import bz2
import gzip
import json
import lzma
import sys
import time
import types

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from array_record.python import array_record_module

from bltjax import config
from bltjax.data import files as file_formats
from bltjax.data import sources, splits
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


def words(seed, count):
    """Text that repeats nothing longer than a word or so."""
    rng = np.random.default_rng(seed)
    return b" ".join(b"%x" % n for n in rng.integers(0, 2**32, count))


# Sources


def test_stdlib_is_source_text_without_tests_or_tables():
    found = sources.documents(data())
    assert found == sources.documents(data()) and sources.fingerprint(found) == sources.fingerprint(
        sources.documents(data())
    )
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
        return sources.documents(
            data(source="files", globs=tuple(str(tmp_path / g) for g in globs), **changes)
        )

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
    found = sources.documents(data(source="files", globs=(str(tmp_path / "*"),), min_bytes=1))
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
    monkeypatch.setattr(file_formats, "BATCH", 2)
    for name in (*made, "a.parquet", "b.parquet", "a.arrayrecord"):
        for address in (str(tmp_path / name), f"file://{tmp_path / name}"):
            if name.endswith(".arrayrecord") and "://" in address:
                continue
            settings = data(
                source="arrayrecord" if name.endswith("record") else "files", globs=(address,), min_bytes=1
            )
            assert sources.documents(settings) == texts, (name, address)
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
    assert sorted(sources.documents(settings)) == sorted(f"text {i} é".encode() for i in range(25))
    assert {group for unit in sources.units(settings) for _, group in unit.read()} == {"en"}
    for changes, said in (
        (dict(subset="dev"), "subset=dev"),
        (dict(text_field="text"), "no field 'text'"),
        (dict(source="tfds:none_such"), "none_such"),
    ):
        with pytest.raises(UserError, match=said):
            sources.documents(
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
    assert sources.documents(settings) == [b"row 0", b"row 2", b"row 4", b"row 1", b"row 3"]
    assert called == [(("some/text", "en"), dict(split="validation", streaming=True))]
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match="extra `hf`"):
        sources.documents(settings)


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
        ("a__jsonl__gz", LINE, "gz"),
        ("a__jsonl__gz", gzip.compress(LINE * 99, mtime=0)[:-6] + b"111111", "CRC"),
        ("a__jsonl__zst", pyarrow.compress(LINE * 99, codec="zstd", asbytes=True)[:-20], "Truncated"),
        ("a__jsonl__zst", LINE, "ZSTD"),
        ("a__jsonl__xz", lzma.compress(LINE * 99)[:-20], "end-of-stream"),
        ("a__jsonl__xz", LINE, "format"),
        ("a__parquet", LINE, "Parquet"),
        ("a__parquet", b"", "Parquet"),
        ("a__arrayrecord", LINE, "a.arrayrecord"),
        ("a__arrayrecord", b"", "a.arrayrecord"),
    ],
)
def test_files_that_are_damaged(tmp_path, name, content, said):
    files(tmp_path, **{name: content})
    with pytest.raises(UserError) as error:
        sources.documents(data(source="files", globs=(str(tmp_path / "*"),), min_bytes=1, longest=1000))
    assert said in str(error.value) and "\n" not in str(error.value)


def test_columns_that_are_not_there(tmp_path):
    import pyarrow.parquet

    twice = pyarrow.table([pyarrow.array(["x"]), pyarrow.array(["y"])], names=["text", "text"])
    pyarrow.parquet.write_table(twice, tmp_path / "twice.parquet")
    with pytest.raises(UserError, match="more than one column 'text'"):
        sources.documents(data(source="files", globs=(str(tmp_path / "twice.parquet"),)))
    (tmp_path / "twice.parquet").unlink()
    arrow(tmp_path / "a.parquet", body=["x"], number=[7])
    for field, said in (("text", "no column 'text'.*body, number"), ("number", "is of int64, not text")):
        with pytest.raises(UserError, match=said):
            sources.documents(data(source="files", globs=(str(tmp_path / "*"),), text_field=field))
    (tmp_path / "a.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-8])
    with pytest.raises(UserError, match="a.parquet"):
        sources.documents(data(source="files", globs=(str(tmp_path / "*"),), text_field="body"))


def test_wrong_sources(tmp_path):
    for changes, said in (
        (dict(source="web"), "stdlib, files"),
        (dict(source="files"), "data.globs"),
        (dict(source="files", globs=(str(tmp_path / "*.txt"),)), "no file matches"),
        (dict(source="files", globs=(str(tmp_path),)), "no file matches"),
        (dict(min_bytes=10**9), "is empty"),
    ):
        with pytest.raises(UserError, match=said.replace("*", r"\*")):
            sources.documents(data(**changes))


def test_a_file_that_cannot_be_read(tmp_path, monkeypatch):
    files(tmp_path, a__txt="text")

    def refuse(path, mode):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(file_formats, "open", refuse, raising=False)
    with pytest.raises(UserError, match="Permission denied"):
        sources.documents(data(source="files", globs=(str(tmp_path / "a.txt"),)))


def test_fingerprint_knows_order_and_borders():
    prints = {sources.fingerprint(d) for d in ([b"ab", b"c"], [b"a", b"bc"], [b"c", b"ab"], [b"ab"], [])}
    assert len(prints) == 5 and all(len(p) == 12 for p in prints)


# Splits


def test_hashes_are_of_the_shingles_own_bytes():
    text = np.frombuffer(words(1, 100), np.uint8)
    hashes = splits.shingle_hashes(text)
    assert len(hashes) == len(text) - 49 and len(np.unique(hashes)) == len(hashes)
    assert np.array_equal(splits.shingle_hashes(text[17:117]), hashes[17:68])
    assert len(splits.shingle_hashes(text[:49])) == 0
    changed = text.copy()
    changed[200] ^= 1
    assert np.flatnonzero(splits.shingle_hashes(changed) != hashes).tolist() == list(range(151, 201))


def test_sketches_are_the_same_whatever_the_blocks(monkeypatch):
    documents = [words(i, 40 + 10 * i) for i in range(12)] + [b"short", b""]
    whole = splits.sketches(documents)
    monkeypatch.setattr(splits, "BLOCK", 500)
    assert all(np.array_equal(a, b) for a, b in zip(whole, splits.sketches(documents)))
    for i in (0, 5, 12):
        own = splits.sketches([documents[i]])[0]
        assert np.array_equal(own, whole[0][whole[1] == i])


def test_near_duplicates_are_one_group():
    a, b, c = words(1, 400), words(2, 400), words(3, 400)
    edited = a.replace(b"a", b"A", 40)
    half = b[: len(b) // 2] + words(4, 400)
    inside = c[1000:1600]
    licence = words(5, 8)
    documents = [
        a,
        b,
        c,
        edited,
        half,
        inside,
        licence + b" " + words(6, 400),
        licence + b" " + words(7, 400),
    ]
    assert splits.groups(documents).tolist() == [0, 1, 2, 0, 1, 2, 6, 7]


def test_chains_and_crowds_are_one_group():
    pieces = [words(i, 100) for i in range(60)]
    chain = [x + b" " + y for x, y in zip(pieces, pieces[1:])]
    order = np.random.default_rng(0).permutation(len(chain))
    assert not splits.groups([chain[i] for i in order]).any()
    crowd = [
        pieces[0] + b" %d" % i for i in range(splits.PAIRS + 20)
    ]  # more documents than pairs are counted for
    assert not splits.groups(crowd).any()
    assert splits.groups([]).size == 0 and splits.groups([b"x", b"y"]).tolist() == [0, 1]


CORPUS = [words(i, 60) for i in range(300)]


def names(found):
    return {document: name for name in splits.NAMES for document in getattr(found, name)}


def test_splits_follow_the_fractions_and_nothing_else():
    settings = data(validation=0.1, test=0.2)
    found = splits.split(CORPUS, settings)
    assert names(found).keys() == set(CORPUS) and sum(len(getattr(found, n)) for n in splits.NAMES) == len(
        CORPUS
    )
    assert 15 < len(found.validation) < 50 and 40 < len(found.test) < 85
    shuffled = [CORPUS[i] for i in np.random.default_rng(1).permutation(len(CORPUS))]
    assert splits.split(shuffled, settings) == found
    more = names(splits.split(CORPUS + [words(1000 + i, 60) for i in range(50)], settings))
    assert all(more[document] == name for document, name in names(found).items())  # a new file moves no other
    assert splits.split(CORPUS[:-1], settings).fingerprint != found.fingerprint


def test_duplicates_are_kept_once_and_near_duplicates_together():
    near = [document + b" and its end" for document in CORPUS]
    found = names(splits.split(CORPUS * 3 + near, data(validation=0.2, test=0.2)))
    assert len(found) == 600
    assert all(found[a] == found[b] for a, b in zip(CORPUS, near))
    assert len(splits.split(CORPUS * 3, data()).train) == len(splits.split(CORPUS, data()).train)


@pytest.mark.parametrize("count", [3, 4, 7])
@pytest.mark.parametrize("fraction", [1e-9, 0.03, 0.4999999])
def test_no_split_is_empty_where_three_groups_are(count, fraction):
    documents = CORPUS[:count]
    found = splits.split(documents, data(validation=fraction, test=fraction))
    assert all(len(getattr(found, name)) for name in splits.NAMES)
    assert splits.split(documents[::-1], data(validation=fraction, test=fraction)) == found


def test_bad_splits():
    for documents in ([CORPUS[0]], CORPUS[:2], CORPUS[:2] * 9, [CORPUS[0] + b"%d" % i for i in range(9)], []):
        with pytest.raises(UserError, match="at least 3"):
            splits.split(documents, data())
    for changes in (dict(validation=0.0), dict(test=0.0), dict(validation=0.5, test=0.5), dict(test=-0.1)):
        with pytest.raises(UserError, match="data.validation"):
            splits.split(CORPUS, data(**changes))


def test_test_text_of_standard_library_is_not_training_text():
    documents = sources.documents(data())
    began = time.process_time()
    found = splits.split(documents, data())
    assert time.process_time() - began < 20  # 1.5 s on a quiet core
    trained = np.sort(splits.shingle_hashes(np.frombuffer(b"\0".join(found.train), np.uint8)))
    for name in ("validation", "test"):
        shares, sizes = [], []
        for document in getattr(found, name):
            hashes = splits.shingle_hashes(np.frombuffer(document, np.uint8))
            if len(hashes):
                at = np.minimum(np.searchsorted(trained, hashes), len(trained) - 1)
                shares.append((trained[at] == hashes).mean())
                sizes.append(len(hashes))
        share = np.average(shares, weights=sizes)
        print(
            f"{name}: {len(sizes)} documents, {100 * share:.1f}% of 50-byte shingles in training text, at"
            f" most {100 * max(shares):.0f}%"
        )
        assert share < 0.05 and max(shares) < 0.5
