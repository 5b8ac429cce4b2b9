"""Folders of prepared data: parts of several jobs, another source, files that are lost or contradict one
another."""

import json
import shutil

import pytest
from prepared_texts import content, data, eight_files

from bltjax import config as cfg
from bltjax.data import corpus, prepare, write_shards
from bltjax.errors import UserError
from bltjax.storage import locks


@pytest.fixture
def texts(tmp_path):
    return eight_files(tmp_path / "texts")


def test_parts_of_several_jobs_make_one_data_set(texts, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    prepare.prepare(data(texts), whole)
    for part in (2, 0):
        prepare.prepare(data(texts), parts, part=part, parts=3)
    with pytest.raises(UserError, match=r"1 of 3 parts are not there yet \(1\)"):
        corpus.shards(parts)
    prepare.prepare(data(texts), parts, part=1, parts=3)
    assert {split: set(d) for split, d in content(parts).items()} == {
        split: set(d) for split, d in content(whole).items()
    }
    with pytest.raises(UserError, match="no more jobs"):
        prepare.prepare(data(texts), tmp_path / "many", part=8, parts=9)
    shutil.copy(whole / "part-00000-of-00001.json", parts)
    with pytest.raises(UserError, match="different settings or counts"):
        corpus.shards(parts)


def test_a_part_that_is_being_made(texts, tmp_path):
    with locks.held(tmp_path / "out" / ".part-00000-of-00001.lock"):
        with pytest.raises(UserError, match="another process is preparing part 0 of 1"):
            prepare.prepare(data(texts), tmp_path / "out")


def test_another_source_in_the_same_folder(texts, tmp_path, monkeypatch):
    prepare.prepare(data(texts), tmp_path / "out")
    assert prepare.prepare(data(texts), tmp_path / "out")["splits"]  # there already
    with pytest.raises(UserError, match="other settings"):
        prepare.prepare(data(texts, min_bytes=50), tmp_path / "out")
    monkeypatch.setattr(write_shards, "gather", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare(data(texts), tmp_path / "begun")
    (texts / "0.jsonl").write_text(
        '{"text": "changed in between, and long enough to be kept", "lang": "l0"}\n'
    )
    with pytest.raises(UserError, match="begun with another source"):
        prepare.prepare(data(texts), tmp_path / "begun")


def test_files_that_do_not_match_their_manifest(texts, tmp_path):
    out = tmp_path / "out"
    prepare.prepare(data(texts), out)
    shard = out / "train-00000-00000.arrayrecord"
    index = out / "train-00000-00000.index.npy"
    whole, entries = shard.read_bytes(), index.read_bytes()
    shard.write_bytes(whole[:-10])
    with pytest.raises(UserError, match="train-00000-00000.arrayrecord has .* bytes, not the"):
        corpus.shards(out)
    shard.write_bytes(whole[:2000] + bytes([whole[2000] ^ 1]) + whole[2001:])
    with pytest.raises(UserError, match="checksum"):
        list(map(corpus.verify, corpus.shards(out)))
    shard.unlink()
    with pytest.raises(UserError, match="is missing"):
        corpus.shards(out)
    shard.write_bytes(whole)
    for damaged in (entries[:-6], b"", entries[:-6] + b"\1\0\0\0\0\0", entries[:-2] + b"\xff\xff"):
        index.write_bytes(damaged)
        with pytest.raises(UserError, match="train-00000-00000"):
            _ = corpus.Documents(corpus.shards(out)).lengths
    index.write_bytes(entries[:-12] + entries[-6:] + entries[-12:-6])
    with pytest.raises(UserError, match="index.npy is damaged: its checksum"):
        list(map(corpus.verify, corpus.shards(out)))
    index.write_bytes(b"")
    prepare.prepare(data(texts), out)
    assert index.read_bytes() == entries
    manifest = out / "part-00000-of-00001.json"
    manifest.write_text(manifest.read_text()[:100])
    with pytest.raises(UserError, match="is damaged"):
        corpus.shards(out)


def test_a_part_may_be_empty_and_all_may_not(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n")
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": "to be or not to be, that is the question"}))
    one, both = (
        cfg.replace(cfg.data(), source="files", test=0.0, validation=0.0, globs=(str(tmp_path / name),))
        for name in ("a.jsonl", "*.jsonl")
    )
    with pytest.raises(UserError, match="no document"):
        prepare.prepare(one, tmp_path / "one")
    manifest = prepare.prepare(both, tmp_path / "out", part=0, parts=2)
    assert [shard["documents"] for shard in manifest["shards"]] == [0]
    prepare.prepare(both, tmp_path / "out", part=1, parts=2)
    assert len(content(tmp_path / "out")["train"]) == 1


def test_what_others_prepared_stays_and_what_is_lost_is_made_again(texts, tmp_path):
    settings = cfg.replace(cfg.data(), source="files", globs=(f"{texts}/*.jsonl",), test=0.2)
    first = prepare.prepare(settings, tmp_path / "out", shard_count=2)
    for changed, part, parts in (
        (settings, 0, 2),
        (cfg.replace(settings, test=0.3), 0, 1),
        (cfg.replace(settings, test=0.3), 1, 3),
    ):
        with pytest.raises(UserError, match="other settings"):
            prepare.prepare(changed, tmp_path / "out", part=part, parts=parts)
    paths = [tmp_path / "out" / shard["name"] for shard in first["shards"]]
    written = {path: path.read_bytes() for path in paths}
    paths[0].unlink()
    paths[-1].write_bytes(b"x")
    corpus.index_path(paths[1]).unlink()
    assert (
        prepare.prepare(settings, tmp_path / "out", shard_count=2) == first
        and {path: path.read_bytes() for path in paths} == written
    )
    assert len(corpus.Documents(corpus.shards(tmp_path / "out"))) == sum(
        shard["documents"] for shard in first["shards"]
    )


def test_manifests_that_contradict_themselves(texts, tmp_path):
    prepare.prepare(
        cfg.replace(cfg.data(), source="files", globs=(f"{texts}/*.jsonl",), test=0.2),
        tmp_path / "out",
        shard_count=2,
    )
    path = tmp_path / "out" / "part-00000-of-00001.json"
    good = json.loads(path.read_text())
    shard = good["shards"][0]
    for wrong in (
        {"shards": [{k: v for k, v in shard.items() if k != "sha256"}]},
        {"settings": None},
        {"shards": [{**shard, "split": "dev"}]},
        {"shards": {}},
        {"counts": 3},
        {"groups": []},
        {"splits": {}},
        {"shards": [{**shard, "documents": shard["documents"] + 1}, *good["shards"][1:]]},
    ):
        path.write_text(json.dumps({**good, **wrong}))
        with pytest.raises(UserError, match="is damaged"):
            corpus.shards(tmp_path / "out")


def test_shards_under_each_others_names(texts, tmp_path):
    prepare.prepare(
        cfg.replace(cfg.data(), source="files", globs=(f"{texts}/*.jsonl",), test=0.2),
        tmp_path / "out",
        shard_count=2,
    )
    one, other = [shard for shard in corpus.shards(tmp_path / "out") if shard.split == "train"]
    text = one.path.read_bytes()
    one.path.write_bytes(other.path.read_bytes())
    other.path.write_bytes(text)
    documents = corpus.Documents([one, other])
    with pytest.raises(UserError, match="index"):
        _ = [documents[i] for i in range(len(documents))]
