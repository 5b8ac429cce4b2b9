"""Where metrics go beside metrics.jsonl. Weights & Biases stands in as a module of the test's."""

import json
import sys
import types

import pytest
from tiny_run import FailingAt, run

from bltjax.errors import UserError
from bltjax.training import metrics, trackers


@pytest.fixture
def wandb(monkeypatch):
    """A module that keeps what it is told: {"inits": [options], "logs": [(step, values)], "finished"}."""
    told = {"inits": [], "logs": [], "finished": 0}

    class Run:
        def log(self, values, step):
            json.dumps(values, allow_nan=False)
            told["logs"].append((step, values))

        def finish(self):
            told["finished"] += 1

    module = types.ModuleType("wandb")
    module.Settings = lambda **options: options
    module.init = lambda **options: told["inits"].append(options) or Run()
    monkeypatch.setitem(sys.modules, "wandb", module)
    return told


def test_a_run_that_goes_on_is_the_same_run_there(tmp_path, wandb, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "hush")

    def fail():
        raise OSError("stopped")

    with pytest.raises(OSError):
        run(tmp_path, rows=FailingAt(15, fail), wandb="scaling")
    run(tmp_path, wandb="scaling")
    first, second = wandb["inits"]
    assert first == second and wandb["finished"] == 2
    assert first["project"] == "scaling" and first["resume"] == "allow" and first["name"] == "tiny"
    assert first["id"] == json.loads((tmp_path / "tracker.json").read_text(encoding="utf-8"))["id"]
    assert first["config"]["train"]["lr"] == 1e-2 and "hush" not in json.dumps(wandb)
    (off,) = {first["settings"]["console"]}
    assert off == "off" and first["settings"]["disable_git"] and first["settings"]["disable_code"]
    kept = metrics.read(tmp_path / "metrics.jsonl")
    there = dict(wandb["logs"])
    assert sorted(there) == [line["step"] for line in kept]
    assert all(there[line["step"]]["loss"] == line["loss"] for line in kept)


def test_another_run_is_another_one_there(tmp_path, wandb):
    assert trackers.identity(tmp_path / "a") != trackers.identity(tmp_path / "b")
    assert trackers.identity(tmp_path / "a") == trackers.identity(tmp_path / "a")


def test_a_package_that_is_not_there_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"wandb is not installed.*pip install 'bltjax\[wandb\]'"):
        run(tmp_path, steps=3, wandb="scaling")


def test_what_it_refuses_is_one_line(tmp_path, wandb, monkeypatch):
    def refuse(**options):
        raise RuntimeError("no API key configured\nmore words")

    monkeypatch.setattr(sys.modules["wandb"], "init", refuse)
    with pytest.raises(UserError, match="--wandb scaling: no API key configured .WANDB_MODE=offline"):
        run(tmp_path, steps=3, wandb="scaling")
