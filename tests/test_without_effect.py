"""Options that would do nothing, and paths that are empty, are refused in one line."""

import pytest
from fabricated_runs import add_run
from hf_blt import HF
from test_cli import TINY, call

from bltjax.cli.main import main

TABLE = ("--columns", "N=N,D=D,L=L")
WITHOUT_EFFECT = {
    "a step of prepared data": (("data", "inspect", "prepared", "--step", "3"), "--step and --rows"),
    "rows of prepared data": (("data", "inspect", "prepared", "--rows", "2"), "--step and --rows"),
    "a jump that the scheme does not read": (
        ("data", "calibrate", "--data", "prepared", "--size", "4", "--delta", "0.1"),
        "--delta",
    ),
    "a Huber loss that is not taken": (("fit", "t.csv", "--objective", "squares", "--delta", "1"), "--delta"),
    "the root of a table": (("fit", "t.csv", *TABLE, "--root", "runs"), "--root"),
    "an experiment's small version of a table": (("fit", "t.csv", *TABLE, "--runlocal"), "--runlocal"),
    "units of an experiment": (("fit", "quickstart", "--units", "N=parameters"), "--units"),
    "budgets of an experiment": (("fit", "quickstart", "--budget", "C"), "--budget"),
    "a choice of runs to compare": (("report", "--compare", "a", "b", "--only", "bpe"), "--only"),
    "seeds to compare": (("report", "--compare", "a", "b", "--seeds", "2"), "--seeds"),
    "keys to compare": (("report", "--compare", "a", "b", "--set", "seed=1"), "--set"),
    "one process's heartbeat": (
        ("train", "--config", TINY, "--run", "space", "--processes", "1", "--heartbeat", "9"),
        "--heartbeat",
    ),
    "the small version of one run": (
        ("train", "--config", "run/config.json", "--runlocal"),
        "--runlocal",
    ),
    "a seed of nothing drawn": (("generate", HF, "a", "--seed", "3"), "--temperature"),
    "the likeliest few of nothing drawn": (("generate", HF, "a", "--top-k", "3"), "--temperature"),
    "colours in JSON": (("patch", "text", "--color", "always", "--json"), "--color"),
    "entropies for spaces": (
        ("patch", "text", "--entropy-model", HF, "--scheme", "space"),
        "--entropy-model",
    ),
    "noise of files": (("eval", "run", "0.txt", "--seed", "3"), "--seed"),
    "a folder of tasks for files": (("eval", "run", "0.txt", "--task-data", "."), "--task-data"),
    "groups of tasks": (("eval", "run", "--tasks", "piqa", "--task-data", ".", "--group", "file"), "--group"),
    "nowhere to write a fit": (("fit", "t.csv", *TABLE, "--out", ""), "--out"),
    "nowhere to write a report": (("report", "quickstart", "--out", ""), "--out"),
    "nowhere to prepare": (("data", "prepare", "stdlib", "--out", ""), "--out"),
    "no root": (("status", TINY, "--root", ""), "--root"),
    "no run directory": (("train", "--config", TINY, "--run", "space", "--run-dir", ""), "--run-dir"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A prepared data set, a table and a run."""
    folder = tmp_path_factory.mktemp("without_effect")
    for i in range(9):
        (folder / f"{i}.txt").write_text(f"text number {i} " * (i + 3))
    arguments = ("data", "prepare", "files", str(folder / "*.txt"), "--out", str(folder / "prepared"))
    assert main(arguments) == 0
    (folder / "t.csv").write_text("N,D,L\n1e6,1e8,3.0\n2e6,1e8,2.9\n")
    add_run(folder, "bpe", 1e11, name="run")
    return folder


@pytest.mark.parametrize("given", WITHOUT_EFFECT)
def test_what_would_do_nothing_is_refused(capsys, folder, monkeypatch, given):
    monkeypatch.chdir(folder)
    arguments, names = WITHOUT_EFFECT[given]
    before = sorted(folder.rglob("*"))
    status, out, err = call(capsys, *arguments)
    assert status == 2 and out == "" and err.count("\n") == 1 and err.startswith("bltjax") and names in err
    assert sorted(folder.rglob("*")) == before
