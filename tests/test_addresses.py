"""Addresses of files: chained links, names with brackets, endings."""

import io
import tarfile

import pytest
from files_of_kinds import LINES, TEXTS, read, tarred, zipped

from bltjax import config as cfg
from bltjax.data import file_kinds, sources
from bltjax.errors import UserError


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
