"""Files of many kinds for tests, written in memory; and how a source reads or refuses them."""

import io
import json
import sqlite3
import struct
import sys
import tarfile
import wave
import zipfile

import pyarrow
import pyarrow.compute
import pyarrow.feather
import pyarrow.parquet
import pytest
from array_record.python import array_record_module
from tensorflow_datasets.proto import tf_example_generated_pb2 as proto

from bltjax import config as cfg
from bltjax.data import crc32c, sources
from bltjax.errors import UserError

TEXTS = [b"one\r\ntwo", "zwei é".encode(), b"3" * 70_000]


LINES = b"".join(
    json.dumps({"id": i, "text": text.decode()}).encode() + b"\n" for i, text in enumerate(TEXTS)
)


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
