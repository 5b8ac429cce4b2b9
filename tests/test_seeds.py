"""Seeds as an axis of an experiment: what copies of a run share, and what one refused run does to a plan."""

import contextlib
import json
import pathlib

import pytest
from test_cli import TINY, call

from bltjax import config as cfg
from bltjax.errors import UserError
from bltjax.experiments import registry
from bltjax.storage import rundir
from bltjax.sweep import speed


def test_copies_differ_in_seed_and_name_alone_and_share_the_entropy_model():
    plain = registry.load("quickstart").runs
    runs = registry.load("quickstart", seeds=3).runs
    assert len(runs) == 3 * len(plain)
    name = plain[0].name
    assert [r.name for r in runs[:3]] == [name, f"{name}-seed1", f"{name}-seed2"]
    for i, run in enumerate(runs):
        back = cfg.replace(run, name=plain[i // 3].name, seed=plain[i // 3].seed)
        assert cfg.fingerprint(back) == cfg.fingerprint(plain[i // 3]) and run.seed == i % 3
    models = {cfg.fingerprint(r.entropy_model) for r in runs if len(r.entropy_model)}
    assert len(models) == 1


def test_one_seed_leaves_names_as_they_are():
    one, plain = registry.load(TINY, seeds=1).runs, registry.load(TINY).runs
    assert [cfg.fingerprint(r) for r in one] == [cfg.fingerprint(r) for r in plain]


def test_an_experiment_says_its_seeds_and_what_is_swept(tmp_path):
    text = pathlib.Path(TINY).read_text().replace("runs=runs)", "runs=runs, seeds=2, swept=('train.beta2',))")
    (tmp_path / "own.py").write_text(text)
    runs = registry.load(str(tmp_path / "own.py")).runs
    assert [r.name for r in runs[:2]] == ["bpe", "bpe-seed1"] and runs[0].swept == ("train.beta2",)
    assert len(registry.load(str(tmp_path / "own.py"), seeds=1).runs) == 3
    (tmp_path / "typo.py").write_text(text.replace("train.beta2", "train.learning_rate"))
    with pytest.raises(UserError, match="swept.*train.learning_rate"):
        registry.load(str(tmp_path / "typo.py"))


def test_status_and_plan_count_seeds(capsys, tmp_path):
    status, out, _ = call(capsys, "status", TINY, "--seeds", 2, "--root", tmp_path, "--json")
    assert status == 0 and len(json.loads(out)["runs"]) == 6
    status, _, err = call(capsys, "status", TINY, "--seeds", 0, "--root", tmp_path)
    assert status == 2 and "--seeds" in err


def test_other_labels_are_no_other_run(tmp_path):
    (run,) = registry.load(TINY, only="space").runs
    rundir.create(tmp_path, run, "x")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')  # begun: another config would be refused
    rundir.create(tmp_path, cfg.replace(run, series="mine"), "x")
    assert rundir.load_config(tmp_path).series == "mine"
    with pytest.raises(UserError, match="another config"):
        rundir.create(tmp_path, cfg.replace(run, seed=1), "x")


def test_one_refused_run_does_not_hide_the_others(capsys, tmp_path, monkeypatch):
    # measuring takes seconds
    monkeypatch.setattr(speed, "measuring", lambda: contextlib.nullcontext(lambda: 1e9))
    text = (
        pathlib.Path(TINY)
        .read_text()
        .replace("runs = (", "poor = 1e6\n    runs = (", 1)
        .replace("budget_flops=budget", "budget_flops=poor", 1)
    )
    (tmp_path / "own.py").write_text(text)
    status, out, err = call(capsys, "plan", tmp_path / "own.py", "--json")
    found = json.loads(out)
    assert status == 2 and [p["name"] for p in found["runs"]] == ["entropy", "space"]
    assert [r["name"] for r in found["refused"]] == ["bpe"] and "pays for" in found["refused"][0]["why"]
    assert "refused bpe:" in err
    status, out, err = call(capsys, "plan", TINY, "--set", "budget_flops=1e6")
    assert status == 2 and not out and "2 other runs" in err and err.count("\n") == 1
    status, out, _ = call(
        capsys, "plan", TINY, "--only", "space", "--set", "data.max_train_bytes=20000", "--json"
    )
    (planned,) = json.loads(out)["runs"]
    assert status == 0 and planned["epochs"] == pytest.approx(planned["train_bytes"] / 20000)
