"""Runs on prepared data: their rows are read as they are wanted, and repeat exactly."""

import itertools
import json
import pathlib
import shutil

import in_memory
import numpy as np
import pytest

from bltjax import api, patching
from bltjax import config as cfg
from bltjax.cli import main
from bltjax.data import batches, corpus, packing, prepare, row_plans, splits, unit_cache
from bltjax.errors import UserError
from bltjax.patching import segmentation
from bltjax.storage import rundir

HERE = pathlib.Path(__file__).parent


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    words = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "x", "yz"]
    lines = (
        json.dumps({"text": " ".join(rng.choice(words, n)) + f" {i}."})
        for i, n in enumerate(rng.integers(5, 300, 160))
    )
    (folder / "a.jsonl").write_text("\n".join(lines))
    settings = cfg.replace(
        cfg.data(), source="files", globs=(str(folder / "a.jsonl"),), test=0.1, validation=0.1
    )
    prepare.prepare(settings, folder / "out", shard_count=3)
    return folder / "out"


def train_documents(prepared):
    return corpus.Documents([shard for shard in corpus.shards(prepared) if shard.split == "train"])


def blocks_of(documents, context=128, buffer=0, plans=None, patches=40):
    choice = splits.training(documents)
    units = lambda numbers, found: packing.byte_documents(
        found, segmentation.document_lengths(cfg.patching("space"), found)
    )
    shape = row_plans.Shape(context, patches, buffer, window=32)
    return row_plans.Blocks(unit_cache.UnitCache(choice, units, "k"), shape, 0, plans)


def rows_of(documents, context=128, buffer=0, plans=None, patches=40, place=(0, 1)):
    chunks = blocks_of(documents, context, buffer, plans, patches)
    return batches.Rows(chunks, context, patches, 4, lambda count: chunks.ahead(count, *place))


@pytest.mark.parametrize("buffer", [0, 8])
def test_the_rows_are_those_in_memory(prepared, buffer, monkeypatch):
    documents = train_documents(prepared)
    chosen = list(documents)
    lengths = segmentation.document_lengths(cfg.patching("space"), chosen)
    here = in_memory.byte_rows(chosen, lengths, context=128, rows=4, patches=40, buffer=buffer)
    there = rows_of(documents, buffer=buffer)
    monkeypatch.setattr(unit_cache, "KEPT", 5000)  # little is kept, so that documents are read anew
    for step in (0, 3, 1, 40, 39):
        for name, value in here.batch(step).items():
            np.testing.assert_array_equal(value, there.batch(step)[name])
    assert np.array_equal(here.counts(50)["bytes"], there.counts(50)["bytes"])


def test_blocks_hold_every_byte_once_an_epoch(prepared, monkeypatch):
    monkeypatch.setattr(row_plans, "BLOCK", 3000)
    documents = train_documents(prepared)
    rows = rows_of(documents, buffer=8)
    total = 0
    while total < documents.lengths.sum():
        rows._upto(rows._ends[-1])
        total = sum(chunk.counts["bytes"].sum() for chunk in rows.chunks)
    assert total == documents.lengths.sum() and len(rows.chunks) > 3


def test_plans_are_found_again_and_mended(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(row_plans, "BLOCK", 5000)
    first = rows_of(train_documents(prepared), plans=tmp_path / "plans")
    expected = [first.batch(step) for step in range(30)]
    files = sorted((tmp_path / "plans").iterdir())
    assert len(files) > 2
    files[1].write_bytes(files[1].read_bytes()[:100])
    files[2].unlink()
    files[2].mkdir()
    read = []
    monkeypatch.setattr(
        unit_cache.UnitCache,
        "read",
        lambda self, numbers, read_=unit_cache.UnitCache.read: read.append(len(numbers))
        or read_(self, numbers),
    )
    again = rows_of(train_documents(prepared), plans=tmp_path / "plans")
    for step in (29, 0, 17, *range(30)):
        for name, value in expected[step].items():
            np.testing.assert_array_equal(value, again.batch(step)[name])
    assert len(read) == 2  # only what was damaged was planned again
    assert (
        again.counts(30)["pairs"].tolist() == first.counts(30)["pairs"].tolist()
        and first.longest(30)["slots"] == 128
    )
    monkeypatch.setattr(packing, "VERSION", packing.VERSION + 1)  # plans of another version are not read
    rows_of(train_documents(prepared), plans=tmp_path / "plans").counts(30)
    assert len(read) == 2 + len(files)
    assert not list((tmp_path / "plans").glob(".*"))


def test_processes_plan_together_what_each_would_alone(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(row_plans, "BLOCK", 4000)
    monkeypatch.setattr(row_plans, "PLANS", 3)
    alone = rows_of(train_documents(prepared))
    expected = alone.counts(80)
    choice = splits.training(train_documents(prepared))
    names = [
        f"{epoch}-{first}.npz" for (epoch, first), _ in itertools.islice(row_plans.one_by_one(choice, 0), 9)
    ]
    made = []
    monkeypatch.setattr(
        row_plans,
        "_keep",
        lambda path, found, keep=row_plans._keep: made.append(path.name) or keep(path, found),
    )
    blocks_of(train_documents(prepared), plans=tmp_path / "plans").ahead(9, 2, 3)
    assert made == names[6:] + names[:6]  # from its own third on, and round: others may be late
    (tmp_path / "plans" / names[4]).unlink()
    blocks_of(train_documents(prepared), plans=tmp_path / "plans").ahead(9, 0, 3)
    assert made[9:] == [names[4]]
    made.remove(names[4])
    rows = rows_of(train_documents(prepared), plans=tmp_path / "plans", place=(1, 3))
    assert all(np.array_equal(rows.counts(80)[name], expected[name]) for name in expected)
    assert len(rows.chunks) > 9 and len(made) == len(set(made)) >= len(rows.chunks)
    for step in (0, 79, 31, 2):
        for name, value in alone.batch(step).items():
            np.testing.assert_array_equal(value, rows.batch(step)[name])


def test_some_rows_read_some_documents(prepared):
    documents = train_documents(prepared)
    rows = rows_of(documents)
    whole = rows.batch(7)
    for these in ([0], [1, 3], [2]):
        for name, value in rows.batch(7, these).items():
            np.testing.assert_array_equal(value, whole[name][these])


def run(prepared, tmp_path, name, *more, code=0):
    out = tmp_path / "runs" / "tiny" / name
    assert (
        main.main(
            [
                "train",
                "--config",
                str(HERE / "tiny_experiment.py"),
                "--run",
                name,
                "--run-dir",
                str(out),
                "--set",
                "data.source=prepared",
                "--set",
                f"data.folder={prepared}",
                "--set",
                "budget_flops=0",
                "--set",
                "train.steps=8",
                *more,
            ]
        )
        == code
    )
    return out


def losses(run_dir):
    return [json.loads(line)["loss"] for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", ["entropy", "space", "bpe"])
def test_a_run_of_every_family(prepared, tmp_path, name, capfd):
    out = run(prepared, tmp_path, name, "--set", "data.packing_buffer=16")
    planned = rundir.read_json(out / "planned.json")
    assert rundir.read_json(out / "eval.json")["test"]["bpb"] > 0 and planned["epochs"] > 0
    if name != "space":  # which differs from the first in where its patches start
        again = run(prepared, tmp_path / "again", name, "--set", "data.packing_buffer=16")
        assert losses(again) == losses(out)
    if name == "entropy":
        assert planned["resolution"] == patching.RESOLUTION and abs(planned["patch_size"] / 3.0 - 1) < 0.02
        model = api.load(out)
        assert (
            model.config.patching.resolution == patching.RESOLUTION
            and b"".join(model.patch("alpha beta gamma")) == b"alpha beta gamma"
        )
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "link").symlink_to(out)  # what it reads lies where the run really is
        assert api.load(tmp_path / "elsewhere" / "link").patch("alpha beta") == model.patch("alpha beta")
        assert len(list(prepared.glob("entropies-*"))) == 1
        assert (
            main.main(
                [
                    "data",
                    "calibrate",
                    "--data",
                    str(prepared),
                    "--entropy-model",
                    str(out),
                    "--size",
                    "3",
                    "--json",
                ]
            )
            == 0
        )
        assert (
            abs(json.loads(capfd.readouterr().out.splitlines()[-1])["threshold"] - planned["threshold"]) < 0.1
        )


def test_a_run_goes_on_with_its_own_text_alone(prepared, tmp_path, capsys):
    out = run(prepared, tmp_path, "space")
    for name in ("done.json", "eval.json"):
        (out / name).unlink()
    elsewhere = tmp_path / "else"
    source = dict(source="files", globs=(str(prepared.parent / "a.jsonl"),), test=0.1, validation=0.1)
    prepare.prepare(cfg.replace(cfg.data(), **source, seed=5), elsewhere)
    shutil.move(prepared, tmp_path / "kept")
    shutil.copytree(elsewhere, prepared)
    try:
        run(prepared, tmp_path, "space", code=2)
        assert "other text" in capsys.readouterr().err
    finally:
        shutil.rmtree(prepared)
        shutil.move(tmp_path / "kept", prepared)
    assert (run(prepared, tmp_path, "space") / "done.json").exists()


def other(tmp_path):
    """A second data set, of other words."""
    rng = np.random.default_rng(1)
    lines = (
        json.dumps({"text": f"{i} " + " ".join(rng.choice(["uno", "dos", "tres", "cuatro"], 120))})
        for i in range(80)
    )
    (tmp_path / "b.jsonl").write_text("\n".join(lines))
    settings = cfg.replace(
        cfg.data(), source="files", globs=(str(tmp_path / "b.jsonl"),), test=0.1, validation=0.1
    )
    prepare.prepare(settings, tmp_path / "other")
    return tmp_path / "other"


def test_a_mix_reads_its_shares(prepared, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(row_plans, "BLOCK", 6000)
    second = other(tmp_path)
    mixed = (
        "--set",
        "data.folder=",
        "--set",
        f'data.mix=["{prepared}=1", "{second}=3"]',
        "--set",
        "train.steps=200",
    )
    out = run(prepared, tmp_path, "space", *mixed)
    planned = rundir.read_json(out / "planned.json")
    from bltjax.run import execute

    rows = execute.ready(out).rows
    text = b"".join(
        (ids[ids >= 4] - 4).astype(np.uint8).tobytes()
        for ids in (rows.batch(step)["bytes"] for step in range(200))
    )
    spanish = sum(text.count(word) * (len(word) + 1) for word in (b"uno", b"dos", b"tres", b"cuatro")) / len(
        text
    )
    assert 0.65 < spanish < 0.85
    assert set(planned["mix"]) == {str(prepared), str(second)} and planned["epochs"] == max(
        planned["mix"].values()
    )
    lengths = np.arange(1, 40)
    choice = type(
        "C", (), dict(lengths=lengths, parts=[(0, 10, 0.25), (10, 39, 0.75)], __len__=lambda self: 39)
    )()
    taken = np.concatenate([numbers for _, numbers in itertools.islice(row_plans.mixed(choice, 3), 12)])
    first = lengths[taken[taken < 10]].sum()
    assert abs(first / lengths[taken].sum() - 0.25) < 0.01
    counts = np.bincount(taken, minlength=39)
    # whole epochs of each
    assert counts[:10].max() - counts[:10].min() <= 1 and counts[10:].max() - counts[10:].min() <= 1
    capfd.readouterr()
    for wrong, says in (
        (f'["{prepared}"]', "DIR=WEIGHT"),
        (f'["{prepared}=0"]', "DIR=WEIGHT"),
        (f'["{prepared}=1e308"]', "at most 1e+09"),
        (f'["{prepared}=1", "{prepared}=2"]', "twice"),
    ):
        run(prepared, tmp_path / "x", "space", "--set", "data.folder=", "--set", f"data.mix={wrong}", code=2)
        assert says in capfd.readouterr().err
    run(prepared, tmp_path / "x", "space", "--set", f'data.mix=["{second}=1"]', code=2)
    assert "either data.folder" in capfd.readouterr().err


def test_a_mix_has_entropies_of_all(prepared, tmp_path):
    out = run(
        prepared,
        tmp_path,
        "entropy",
        "--set",
        "data.folder=",
        "--set",
        f'data.mix=["{prepared}=1", "{other(tmp_path)}=1"]',
    )
    planned = rundir.read_json(out / "planned.json")
    assert abs(planned["patch_size"] / 3 - 1) < 0.02


def test_inspect(prepared, tmp_path, capfd):
    def said(*arguments, code=0):
        assert main.main(["data", "inspect", *map(str, arguments)]) == code
        return capfd.readouterr()

    found = json.loads(said(prepared, "--json", "--verify").out)
    documents = train_documents(prepared)
    assert (
        found["splits"]["train"]["bytes"] == documents.lengths.sum()
        and found["verified"]
        and sum(found["splits"]["train"]["groups"].values()) == documents.lengths.sum()
    )
    assert "checksums" in said(prepared, "--verify").out and "train" in said(prepared).out
    for name in ("space", "bpe"):
        out = run(prepared, tmp_path, name)
        capfd.readouterr()
        shown = json.loads(said(out, "--step", "3", "--rows", "2", "--json").out.splitlines()[-1])
        assert len(shown["rows"]) == 2 and all(
            "".join(map("".join, one["segments"])) for one in shown["rows"]
        )
        text = "".join(shown["rows"][0]["segments"][0])
        assert any(text.encode() in document for document in documents)
        assert "step 3 row 1" in said(out, "--step", "3").out
        assert "steps 0 to 7" in said(out, "--step", "99", code=2).err
    shard = corpus.shards(prepared)[0].path
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in prepared.iterdir():
        if path.is_file():
            (copy / path.name).write_bytes(path.read_bytes())
    (copy / shard.name).write_bytes(shard.read_bytes()[:-1] + b"!")
    assert "checksum" in said(copy, "--verify", code=2).err
    for wrong, says in ((tmp_path / "none", "no directory"), (tmp_path, "no prepared data")):
        assert says in said(wrong, code=2).err


def test_what_cannot_be_read(prepared, tmp_path, capfd):
    for more, says in (
        (("--set", "data.folder="), "either data.folder"),
        (("--set", f"data.folder={tmp_path}"), "no prepared data"),
        (("--set", "data.source=prepared:x"), "allowed: stdlib, files"),
    ):
        run(prepared, tmp_path, "space", *more, code=2)
        assert says in capfd.readouterr().err


def test_a_choice_is_lazy():
    class Never:
        fingerprint, lengths = "f", np.arange(5)

        def __len__(self):
            return 5

        def __getitem__(self, i):
            raise AssertionError

    choice = corpus.Selection(Never(), [3, 1])
    assert (
        len(choice) == 2
        and choice.lengths.tolist() == [3, 1]
        and choice.fingerprint != corpus.Selection(Never(), [1, 3]).fingerprint
    )
    with pytest.raises(UserError):
        batches.Rows(iter(()), 10, None, 0)
