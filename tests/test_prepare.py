"""Prepared data: the same whatever happens on the way, nothing lost, no test text in training, and no
half-written shard taken for whole."""

import json
import os
import shutil

import numpy as np
import pytest
from prepared_texts import content, data, eight_files, files_of, read, text

from bltjax import config as cfg
from bltjax.cli.main import main
from bltjax.data import corpus, prepare, shuffle, write_shards
from bltjax.errors import UserError


@pytest.fixture
def texts(tmp_path):
    return eight_files(tmp_path / "texts")


def test_everything_is_there_once_and_shuffled(texts, tmp_path):
    manifest = prepare.prepare(data(texts), tmp_path / "out", shard_count=3)
    found = content(tmp_path / "out")
    every = [d for documents in found.values() for d in documents]
    assert sorted(every) == sorted(set(read(data(texts))))
    assert manifest["counts"] == {
        "read": 176,
        "read_bytes": manifest["counts"]["read_bytes"],
        "short": 8,
        "duplicates": 8,
        "near_copies": 0,
    }
    assert all(found.values()) and len(found["train"]) > 100
    order = [read(data(texts)).index(d) for d in found["train"]]
    assert abs(np.corrcoef(order, np.arange(len(order)))[0, 1]) < 0.3
    assert (
        prepare.prepare(data(texts, seed=1), tmp_path / "other", shard_count=3)["fingerprint"]
        != manifest["fingerprint"]
    )
    assert {split: sorted(d) for split, d in content(tmp_path / "other").items()} == {
        split: sorted(d) for split, d in found.items()
    }


def test_lengths_and_groups_are_those_of_the_documents(texts, tmp_path):
    prepare.prepare(data(texts), tmp_path / "out", shard_count=3)
    language = {
        json.loads(line)["text"].encode(): json.loads(line)["lang"]
        for path in texts.iterdir()
        for line in path.read_text().splitlines()
    }
    documents = corpus.Documents(corpus.shards(tmp_path / "out"))
    assert documents.lengths.tolist() == [len(d) for d in documents]
    assert [documents.group_names[g] for g in documents.groups] == [language[d] for d in documents]
    with pytest.raises(IndexError):
        documents[len(documents)]


@pytest.mark.parametrize("calls", [1, 2, 5, 8, *range(170, 205, 3)])
def test_killed_and_begun_again_it_is_the_same(texts, tmp_path, monkeypatch, calls):
    monkeypatch.setattr(shuffle, "SAVE", 1)
    monkeypatch.setattr(shuffle, "BUFFER", 1 << 10)
    prepare.prepare(data(texts), tmp_path / "whole", shard_count=3)
    count, replace = [0], os.replace

    def dies(*arguments):
        count[0] += 1
        if count[0] == calls:
            raise KeyboardInterrupt
        replace(*arguments)

    monkeypatch.setattr(os, "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare(data(texts), tmp_path / "cut", shard_count=3)
    with pytest.raises(UserError, match="no prepared data"):
        corpus.shards(tmp_path / "cut")
    for bucket in (tmp_path / "cut").glob(".part*/*.bucket"):
        bucket.open("ab").write(b"half a docu")  # what a kill in the middle of a write leaves
    monkeypatch.setattr(os, "replace", replace)
    prepare.prepare(data(texts), tmp_path / "cut", shard_count=3)
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "whole")
    assert (
        not list((tmp_path / "cut").glob(".part*/"))
        or not (tmp_path / "cut" / ".part-00000-of-00001").exists()
    )


@pytest.mark.parametrize(
    "lost",
    ["validation-00000-00000.arrayrecord", "test-00000-00000.index.npy", "train-00000-00000.arrayrecord"],
)
def test_a_file_lost_while_others_are_still_to_come_is_made_again(texts, tmp_path, monkeypatch, lost):
    prepare.prepare(data(texts), tmp_path / "whole", shard_count=3)
    count, write = [0], write_shards._write_shard

    def dies(*arguments):
        count[0] += 1
        if count[0] == 4:  # two of them are training text
            raise KeyboardInterrupt
        return write(*arguments)

    monkeypatch.setattr(write_shards, "_write_shard", dies)
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare(data(texts), tmp_path / "cut", shard_count=3)
    monkeypatch.setattr(write_shards, "_write_shard", write)
    (tmp_path / "cut" / lost).unlink()
    for left in (
        "part-00000-of-00001.json.0123abcd.part",
        "train-00000-00007.arrayrecord",
        "train-00000-00007.index.npy",
        ".train-00000-00002.arrayrecord.partial",
    ):
        (tmp_path / "cut" / left).write_bytes(b"left by a kill, or by other settings")
    prepare.prepare(data(texts), tmp_path / "cut", shard_count=3)
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "whole") and not list(
        (tmp_path / "cut").glob(".train*")
    )


def test_a_damaged_bucket_is_found(texts, tmp_path, monkeypatch):
    monkeypatch.setattr(write_shards, "gather", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare(data(texts), tmp_path / "out", shard_count=1)
    monkeypatch.undo()
    bucket = next((tmp_path / "out").glob(".part*/train-*.bucket"))
    whole = bucket.read_bytes()
    length = (len(whole) - 30).to_bytes(4, "little")  # up to where there is no whole header left
    for damaged in (
        # a key, a length, a group, text
        *(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :] for at in (3, 18, 20, 100)),
        whole[:16] + length + whole[20:],
        bytes(len(whole)),
        whole[:-3000] + bytes(3000),
    ):
        bucket.write_bytes(damaged)
        with pytest.raises(UserError, match="bucket is damaged"):
            prepare.prepare(data(texts), tmp_path / "out", shard_count=1)


def test_a_source_that_changed_is_another_one(texts, tmp_path, capsys):
    first = prepare.prepare(data(texts), tmp_path / "out")
    prepare.prepare(data(texts), tmp_path / "jobs", part=0, parts=2)
    (texts / "new.jsonl").write_text(
        json.dumps({"text": "a document that came later than the others", "lang": "l0"})
    )
    # done, done, and beside one that is done
    for folder, job in (("out", (0, 1)), ("jobs", (0, 2)), ("jobs", (1, 2))):
        with pytest.raises(UserError, match="other source files"):
            prepare.prepare(data(texts), tmp_path / folder, part=job[0], parts=job[1])
    (texts / "new.jsonl").unlink()
    prepare.prepare(data(texts), tmp_path / "jobs", part=1, parts=2)
    path = tmp_path / "jobs" / "part-00001-of-00002.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "source": "another"}))
    with pytest.raises(UserError, match="different source files"):
        corpus.shards(tmp_path / "jobs")
    shutil.rmtree(texts)
    said = []
    assert (
        prepare.prepare(data(texts), tmp_path / "out", say=said.append) == first
        and "was there already, and its source is not" in said[0]
    )
    (tmp_path / "out" / "train-00000-00000.arrayrecord").unlink()
    with pytest.raises(UserError, match="no file matches"):
        prepare.prepare(data(texts), tmp_path / "out")


def test_more_groups_than_an_index_can_name(tmp_path, monkeypatch):
    monkeypatch.setattr(shuffle, "MOST_GROUPS", 4)
    names = ["a", "b", "\\ud800" + "x" * 200, "c", "d", "a", "\\ud800" + "x" * 150]
    (tmp_path / "a.jsonl").write_text(
        "".join(f'{{"text": "{text(i).decode()}", "lang": "{name}"}}\n' for i, name in enumerate(names))
    )
    settings = cfg.replace(
        cfg.data(),
        source="files",
        globs=(str(tmp_path / "a.jsonl"),),
        group_field="lang",
        test=0.0,
        validation=0.0,
    )
    prepare.prepare(settings, tmp_path / "out")
    documents = corpus.Documents(corpus.shards(tmp_path / "out"))
    found = {documents[i]: documents.group_names[documents.groups[i]] for i in range(len(documents))}
    assert [found[text(i)] for i in range(7)] == [
        "a",
        "b",
        "\\ud800" + "x" * 94,
        "(other groups)",
        "(other groups)",
        "a",
        "\\ud800" + "x" * 94,
    ]
    assert shuffle.printable("a\nb\x1b[31m\u202eé") == "a\\nb\\x1b[31m\\u202eé"


def test_near_copies_of_test_text_are_not_trained_on(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    originals = [text(i, 200) for i in range(150)]
    licence = text(999, 30)
    for i, original in enumerate(originals):
        (folder / f"{i}.txt").write_bytes(licence + original)
        (folder / f"{i}-again.txt").write_bytes(
            licence + original[:1500] + b" and another end of it " + text(1000 + i, 20)
        )
    settings = cfg.replace(cfg.data(), source="files", globs=(f"{folder}/*.txt",), test=0.1, validation=0.1)
    manifest = prepare.prepare(settings, tmp_path / "out")
    found = content(tmp_path / "out")
    origin = lambda document: document[len(licence) :][:1000]
    kept_out = {origin(d) for d in found["test"] + found["validation"]}
    assert len(kept_out) > 10 and not kept_out & {origin(d) for d in found["train"]}
    # a licence alone makes no copy
    assert manifest["counts"]["near_copies"] > 0 and len(found["train"]) > 150


def test_by_the_command_line(texts, tmp_path, capsys):
    arguments = [
        "data",
        "prepare",
        "files",
        f"{texts}/*.jsonl",
        "--out",
        str(tmp_path / "out"),
        "--set",
        "test=0.2",
    ]
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["splits"]["test"]["documents"] > 10
    for wrong, said in (
        (["--shard", "1"], "I/N"),
        (["--shard", "2/2"], "from 0 to 1"),
        (["--set", "test=1"], "test"),
        (["--shards", "-1"], "--shards"),
        (["--set", "validation=0.9"], "below 1"),
        (["--set", "seed=-1"], "seed"),
        (["--set", "seed=99999999999999999999"], "seed"),
        (["--set", "source=web"], "SOURCE"),
        (["--set", "min_bytes=null"], "min_bytes"),
        (["--shard", "0/0"], "1 or more"),
        (["--shards", "100000000"], "65,536"),
    ):
        assert main([*arguments[:-2], "--out", str(tmp_path / "bad"), *arguments[-2:], *wrong]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and said in err
    assert main(["data", "prepare", "web", "--out", str(tmp_path / "bad")]) == 2
    assert "stdlib, files" in capsys.readouterr().err
