"""Files of records, ArrayRecord and TFRecord: under any name, damaged, or holding something else."""

import gzip
import pickle

import msgpack
import numpy as np
import pytest
from files_of_kinds import LINES, TEXTS, array_record, example, read, sequence, tf_record

from bltjax import config as cfg
from bltjax.data import crc32c, sources
from bltjax.errors import UserError


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
