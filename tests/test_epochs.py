"""How often text is read is in plan and report, and said where it is often or not alike, whatever it follows
from."""

import gzip
import json

import pytest
from fabricated_runs import add_run, analysed

from bltjax import config as cfg
from bltjax.run import planned
from bltjax.sweep import epochs


def data(**changes):
    return cfg.replace(cfg.data(), **changes)


def prepared(folder, train_bytes: int):
    """A manifest of prepared data, without its shards."""
    folder.mkdir()
    splits = {split: {"documents": 0, "bytes": 0} for split in ("validation", "test")}
    splits["train"] = {"documents": 1, "bytes": train_bytes}
    shard = dict(name="s", sha256="", content="", split="train", **splits["train"])
    manifest = dict(schema_version=1, shards=[shard], splits=splits, settings={}, counts={}, part=0, parts=1)
    (folder / "part-00000-of-00001.json").write_text(json.dumps({**manifest, "groups": [""]}))
    return str(folder)


def test_epochs_of_every_kind_of_text(tmp_path):
    some = prepared(tmp_path / "some", 1000)
    assert epochs.of(data(source="prepared", folder=some), 12_000) == 12
    assert epochs.of(data(source="prepared", folder=some, max_train_bytes=500), 12_000) == 24
    # there is less text than max_train_bytes
    assert epochs.of(data(source="prepared", folder=some, max_train_bytes=10**6), 12_000) == 12
    other = prepared(tmp_path / "other", 100_000)
    assert epochs.of(data(source="prepared", mix=(f"{some}=0.5", f"{other}=1.5")), 12_000) == 3
    (tmp_path / "a.txt").write_bytes(b"x" * 2000)
    plain = dict(source="files", globs=(str(tmp_path / "*.txt"),), validation=0.25, test=0.25)
    assert epochs.of(data(**plain), 12_000) == 12
    assert epochs.of(data(**plain, max_train_bytes=10**6), 12_000) == 12
    assert epochs.of(data(**plain, split="50/25/25"), 12_000) == pytest.approx(12, rel=1e-2)
    assert epochs.of(data(source="stdlib", max_train_bytes=1000), 12_000) == 12
    assert epochs.of(data(source="stdlib"), 12_000) < 1
    assert epochs.of(data(source="files", globs=(str(tmp_path / "*.nowhere"),)), 12_000) is None
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"?"))  # what is in it is not known
    assert epochs.of(data(source="files", globs=(str(tmp_path / "*"),)), 12_000) is None
    assert epochs.of(data(source="tfds:nothing", max_train_bytes=1000), 12_000) == 12


def test_what_a_plan_says_of_epochs():
    run = lambda name, epochs_, budget=1e11, lm=None: dict(
        name=name, epochs=epochs_, budget_flops=budget, entropy_model={"epochs": lm}
    )
    lines = " ".join(epochs.said([run("bpe", 12.0), run("blt", 32.0, lm=9.0), run("large", None, 1e12)]))
    assert "More than 4 epochs over the training text: bpe (12.0), blt (32.0)" in lines
    assert "differ by more than a fifth: 12.00 (bpe) to 32.00 (blt)" in lines
    assert "entropy models read it more than 4 times: blt (9.0)" in lines and "epochs -" in lines
    assert epochs.said([run("bpe", 0.3), run("blt", 0.8)]) == []  # no text is read twice
    assert epochs.said([run("bpe", 2.0), run("blt", 2.1)]) == []


def test_a_report_counts_what_the_start_has_read(tmp_path):
    add_run(tmp_path, "bpe", 1e11, planned={"epochs": 2.0, "epochs_before": 3.0})
    add_run(tmp_path, "blt-space", 1e11, planned={"epochs": 2.0})
    add_run(tmp_path, "blt-space", 3e11)
    said = " ".join(analysed(tmp_path)["findings"])
    assert "More than 4 epochs over the training text: bpe-1e11 (5.0)" in said
    assert "2.00 (blt-space-1e11) to 5.00 (bpe-1e11)" in said
    assert "not recorded of blt-space-3e11" in said


def test_epochs_before_follow_the_chain_of_starts(tmp_path, monkeypatch):
    starts = {"b": str(tmp_path / "a"), "a": str(tmp_path / "elsewhere")}
    for name, epochs_, text in (("a", 3.0, "one"), ("b", 2.0, "one")):
        (tmp_path / name).mkdir()
        said = {"epochs": epochs_, "data": {"fingerprint": text}}
        (tmp_path / name / "planned.json").write_text(json.dumps(said))
    config = lambda folder: cfg.replace(
        cfg.run("x", "bpe", cfg.transformer("token", vocab=300, width=16, layers=1, heads=1)),
        **{"train.init_from": starts[folder.name]},
    )
    monkeypatch.setattr(planned.rundir, "load_config", config)
    assert planned.epochs_before(str(tmp_path / "b"), "one") == pytest.approx(5.0)
    assert planned.epochs_before(str(tmp_path / "b"), "another") == 0
    assert planned.epochs_before("", "one") == planned.epochs_before(str(tmp_path / "elsewhere"), "one") == 0
