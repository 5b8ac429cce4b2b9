"""One file of many documents: cut at a separator as it is read, or by position."""

import bz2
import gzip
import io
import json

import numpy as np
import pytest

from bltjax import config as cfg
from bltjax.cli.main import main
from bltjax.data import corpus, prepare, separators, shuffle, sources
from bltjax.errors import UserError


def data(path, **changes):
    return cfg.replace(cfg.data(), source="files", globs=(str(path),), **{"min_bytes": 1, **changes})


def read(settings):
    return [document for unit in sources.units(settings) for document, _ in unit.read()]


def text(seed, size):
    return np.random.default_rng(seed).integers(97, 123, size, np.uint8).tobytes()


@pytest.mark.parametrize("separator", ["<|endoftext|>", "\n\n", "aab", "\n"])
@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1 << 20])
def test_separators_wherever_a_read_ends(monkeypatch, separator, chunk):
    monkeypatch.setattr(separators, "CHUNK", chunk)
    mark = separator.encode()
    rng = np.random.default_rng(0)
    for trial in range(30):
        letters = b"ab\n<|endoftext|>"
        pieces = [bytes(rng.choice(list(letters), rng.integers(0, 12))) for _ in range(9)]
        whole = mark.join(pieces) + mark * int(rng.integers(0, 3))
        expected = [piece for piece in whole.split(mark) if piece]
        assert list(separators.at_separator(io.BytesIO(whole), mark, 1000, "here")) == expected


def test_a_separator_in_every_kind_of_file(tmp_path):
    stories = [text(i, 50 + i) for i in range(100)]
    whole = b"<|endoftext|>".join(stories) + b"<|endoftext|>"
    (tmp_path / "a.txt").write_bytes(whole)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(whole))
    (tmp_path / "a.txt.bz2").write_bytes(bz2.compress(whole))
    for name in ("a.txt", "a.txt.gz", "a.txt.bz2"):
        for address in (tmp_path / name, f"file://{tmp_path / name}"):
            assert read(data(address, separator="<|endoftext|>")) == stories
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "x<|endoftext|>y"}))
    assert read(data(tmp_path / "a.*", separator="<|endoftext|>")) == [b"x<|endoftext|>y", *stories * 3]


def test_by_the_command_line(tmp_path, capsys):
    paragraphs = [text(i, 200) for i in range(50)]
    (tmp_path / "book.txt").write_bytes(b"\n\n".join(paragraphs) + b"\n\n\n\n")
    arguments = ["data", "prepare", "files", str(tmp_path / "book.txt"), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--set", 'data.separator="\\n\\n"', "--json"]) == 0
    splits = json.loads(capsys.readouterr().out)["splits"]
    assert sum(one["documents"] for one in splits.values()) == 50 and all(
        one["documents"] for one in splits.values()
    )


def test_killed_within_a_file_it_goes_on_there(tmp_path, monkeypatch):
    stories = [text(i, 100) for i in range(200)]
    (tmp_path / "a.txt").write_bytes(b"|".join(stories))
    settings = data(tmp_path / "a.txt", separator="|", test=0.1, validation=0.1)
    whole = prepare.prepare(settings, tmp_path / "whole")
    monkeypatch.setattr(shuffle, "SAVE", 1000)
    save, saved = shuffle.Progress.save, []

    def dies(progress, work):
        save(progress, work)
        saved.append(progress.documents)
        if len(saved) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(shuffle.Progress, "save", dies)
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare(settings, tmp_path / "cut")
    assert saved[-1] > 40
    (next((tmp_path / "cut").glob(".part*/")) / "train-00099.bucket").write_bytes(b"half a docu")
    assert prepare.prepare(settings, tmp_path / "cut") == whole


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_split_by_position(tmp_path, ending):
    lines = [text(i, 40 + i % 50) for i in range(10_000)]
    whole = b"\n".join(lines)
    (tmp_path / f"enwik{ending}").write_bytes(gzip.compress(whole) if ending else whole)
    settings = data(tmp_path / f"enwik{ending}", split="90/5/5")
    units = {unit.split: [document for document, _ in unit.read()] for unit in sources.units(settings)}
    first, second = len(whole) * 90 // 100, len(whole) * 95 // 100
    assert b"".join(units["train"]) == whole[:first]
    assert b"".join(units["validation"]) == whole[first:second]
    assert b"".join(units["test"]) == whole[second:]
    assert all(len(piece) <= separators.PIECE for some in units.values() for piece in some)
    assert all(piece.endswith(b"\n") for some in units.values() for piece in some[:-1])
    manifest = prepare.prepare(settings, tmp_path / "out")
    found = corpus.shards(tmp_path / "out")
    for split, some in units.items():
        assert sorted(corpus.Documents([one for one in found if one.split == split])) == sorted(some)
    assert manifest["test_overlap"]["all"] == 0


def test_by_position_nothing_leaves_and_the_overlap_is_measured(tmp_path):
    piece = text(0, 900) + b"\n"
    (tmp_path / "text8").write_bytes(piece * 1000)
    manifest = prepare.prepare(data(tmp_path / "text8", split="90/5/5", separator="\n"), tmp_path / "out")
    assert [one["documents"] for one in manifest["splits"].values()] == [900, 50, 50]
    assert manifest["test_overlap"]["all"] == 1 and manifest["counts"]["duplicates"] == 0


def test_pieces_where_no_line_ends():
    whole = text(0, 1000)
    assert list(separators.at_line_ends(io.BytesIO(whole), 300)) == [
        whole[at : at + 300] for at in (0, 300, 600, 900)
    ]


def test_a_long_file_says_what_to_do(tmp_path):
    (tmp_path / "a.txt").write_bytes(text(0, 5000))
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(text(0, 5000)))
    for name in ("a.txt", "a.txt.gz"):
        with pytest.raises(UserError, match="data.separator.*data.split.*data.longest"):
            read(data(tmp_path / name, longest=1000))
        message = "more than 1,000 bytes without the separator .*set data.separator"
        with pytest.raises(UserError, match=message):
            read(data(tmp_path / name, longest=1000, separator="\n\n"))
        assert len(read(data(tmp_path / name, longest=5000))) == 1


def test_values_that_cannot_be(tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_bytes(text(0, 5000))
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "some text"}))
    one = tmp_path / "a.txt"
    for split in ("90/5", "90/5/4", "100/0/0", "90/5/5/0", "a/b/c", "110/-5/-5", "nan/5/5", "90"):
        with pytest.raises(UserError, match="data.split is"):
            read(data(one, split=split))
        run = cfg.replace(data(one), split=split)
        with pytest.raises(UserError, match="data.split is"):
            sources.check(run)
    for settings, said in (
        (data(tmp_path / "*.txt", split="90/5/5"), "match 2"),
        (data(tmp_path / "a.jsonl", split="90/5/5"), "holds documents already"),
        (data(tmp_path / "a.jsonl", separator="x"), "holds documents already"),
        (data(one, separator="\\n\\n"), "written as a JSON string"),
        (cfg.replace(cfg.data(), separator="x"), "goes with data.source=files"),
        (cfg.replace(cfg.data(), split="90/5/5"), "goes with data.source=files"),
    ):
        with pytest.raises(UserError, match=said):
            read(settings)
    with pytest.raises(UserError, match="one job prepares"):
        prepare.prepare(data(one, split="90/5/5"), tmp_path / "out", part=0, parts=2)
    assert [1000 * share for share in sources.positions("98.5/1/0.5")] == [985, 10, 5]
