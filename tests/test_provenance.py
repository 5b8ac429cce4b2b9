"""Prepared data keeps to its source: content says whether a file is the same, and time stamps do not."""

import json
import os
import zipfile

import pytest

from bltjax import config as cfg
from bltjax.data import prepare, shuffle, sources, write_shards
from bltjax.errors import UserError
from bltjax.sweep import graph


def documents(number, count=30):
    return "".join(
        json.dumps({"text": f"document {i:02} of file {number}, long enough to stay"}) + "\n"
        for i in range(count)
    )


@pytest.fixture
def texts(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.jsonl").write_text(documents(number))
    return folder


def data(texts):
    return cfg.replace(cfg.data(), source="files", globs=(f"{texts}/*.jsonl",), test=0.1, validation=0.1)


def touch(folder, time=1_000_000_000):
    for path in folder.iterdir():
        os.utime(path, (time, time))


def change(path, keep_time=False):
    """Another content of the same size."""
    stat = path.stat()
    path.write_text(path.read_text().replace("document 17", "document 71"))
    if keep_time:
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_touched_files_are_the_same_source(texts, tmp_path):
    first = prepare.prepare(data(texts), tmp_path / "out")
    touch(texts)
    said = []
    assert prepare.prepare(data(texts), tmp_path / "out", say=said.append) == first
    assert "was there already" in said[-1]
    (tmp_path / "out" / "train-00000-00000.arrayrecord").unlink()
    assert prepare.prepare(data(texts), tmp_path / "out") == first  # made again
    copied = tmp_path / "copied"
    os.rename(texts, copied)
    texts.mkdir()
    for path in copied.iterdir():  # put back from a backup
        (texts / path.name).write_bytes(path.read_bytes())
    assert prepare.prepare(data(texts), tmp_path / "out") == first


@pytest.mark.parametrize("keep_time", [False, True])
def test_another_content_is_another_source(texts, tmp_path, keep_time):
    prepare.prepare(data(texts), tmp_path / "out")
    change(texts / "2.jsonl", keep_time)
    with pytest.raises(UserError, match="other source files"):
        prepare.prepare(data(texts), tmp_path / "out")


def test_once_read_again_they_are_not_read_each_time(texts, tmp_path, monkeypatch):
    prepare.prepare(data(texts), tmp_path / "out")
    touch(texts)
    prepare.prepare(data(texts), tmp_path / "out")
    monkeypatch.setattr(sources.files, "digest", lambda file: pytest.fail("read again"))
    prepare.prepare(data(texts), tmp_path / "out")


def test_several_jobs(texts, tmp_path):
    prepare.prepare(data(texts), tmp_path / "out", part=0, parts=2)
    touch(texts)
    prepare.prepare(data(texts), tmp_path / "out", part=1, parts=2)
    for keep_time in (False, True):
        change(texts / "2.jsonl", keep_time)  # of part 0
        with pytest.raises(UserError, match="other source files"):
            prepare.prepare(data(texts), tmp_path / "out", part=1, parts=2)
        (texts / "2.jsonl").write_text(documents(2))


def test_touched_or_changed_while_it_is_made(texts, tmp_path, monkeypatch):
    whole = prepare.prepare(data(texts), tmp_path / "whole")
    monkeypatch.setattr(write_shards, "gather", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare(data(texts), tmp_path / "out")
    monkeypatch.undo()
    kept = (texts / "1.jsonl").read_text()
    change(texts / "1.jsonl", keep_time=True)
    with pytest.raises(UserError, match="begun with another source"):
        prepare.prepare(data(texts), tmp_path / "out")
    (texts / "1.jsonl").write_text(kept)
    monkeypatch.setattr(shuffle, "scatter", lambda *arguments: pytest.fail("read again"))
    assert prepare.prepare(data(texts), tmp_path / "out") == whole


def test_members_of_an_archive(texts, tmp_path):
    def pack(change=""):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            for path in sorted(texts.iterdir()):
                archive.writestr(
                    path.name, path.read_text().replace("document 17", f"document {change or 17}")
                )

    settings = cfg.replace(data(texts), globs=(f"zip://*.jsonl::{tmp_path}/a.zip",))
    pack()
    first = prepare.prepare(settings, tmp_path / "out")
    pack()
    assert prepare.prepare(settings, tmp_path / "out") == first
    pack("71")
    with pytest.raises(UserError, match="other source files"):
        prepare.prepare(settings, tmp_path / "out")


def test_runs_find_what_was_prepared_of_touched_files(texts, tmp_path):
    found = graph._Graph(tmp_path)
    first, _, _ = found.data(data(texts))
    (directory,) = first
    assert found.data(data(texts))[0] == first
    touch(texts)
    assert found.data(data(texts))[0] == first  # not made yet
    prepare.prepare(data(texts), directory)
    (directory / "done.json").write_text("{}")
    touch(texts, 1_100_000_000)
    assert found.data(data(texts))[0] == first
    change(texts / "0.jsonl")
    assert found.data(data(texts))[0] != first
