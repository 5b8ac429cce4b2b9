"""Tables, Parquet and Arrow: columns of every layout, streams behind one another, damage, and fields."""

import bz2
import gzip
import lzma
import struct

import pyarrow
import pyarrow.compute
import pyarrow.feather
import pyarrow.parquet
import pytest
from files_of_kinds import LINES, TEXTS, lz4, read, saved, tarred, zstd

from bltjax import config as cfg
from bltjax.data import sources
from bltjax.errors import UserError


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
