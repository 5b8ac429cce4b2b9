"""The study on one GPU: its order, its clock and what it keeps; the whole of it in small, on a CPU."""

import json
import os
import pathlib
import subprocess
import sys
import tarfile
import types

import pytest
from ml_collections import ConfigDict

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.gpu import study
from bltjax.data import prepare
from bltjax.experiments import registry
from bltjax.launch import local


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu.study", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Some of the standard library as JSON lines."""
    folder = tmp_path_factory.mktemp("text")
    names = sorted(pathlib.Path(os.__file__).parent.glob("[ab]*.py"))  # little: all of it is annotated
    lines = [json.dumps({"text": name.read_text(), "language": "python"}) + "\n" for name in names]
    (folder / "one.jsonl").write_text("".join(lines[:8]))
    (folder / "two.jsonl").write_text("".join(lines[8:]))
    return folder


@pytest.mark.slow
def test_the_small_study_is_done_kept_and_not_done_twice(text, tmp_path):
    out, work = tmp_path / "out", tmp_path / "work"
    packed = command("pack", text, tmp_path / "text.jsonl.xz")
    assert packed.returncode == 0, packed.stderr
    run = ("run", "--small", "--text", tmp_path / "text.jsonl.xz", "--work", work, "--workers", 2)
    done = command(*run, "--out", out)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((out / "study.json").read_text())
    assert [one["state"] for one in found["runs"]] == ["done"] * 2
    assert all(1 < one["test_bpb"] < 9 and one["seconds"] > 0 for one in found["runs"])
    with tarfile.open(out / "results.tar.gz") as archive:
        names = archive.getnames()
        archive.extractall(tmp_path / "back", filter="data")
    assert {path.name for path in out.iterdir()} == {"study.json", "results.tar.gz"}
    assert not [name for name in names if "checkpoint" in name or "arrayrecord" in name]
    # what came back is enough for a report, where there is no text
    command_line = [sys.executable, "-m", "bltjax.cli.main", "report", "quickstart:short", "--json"]
    reported = subprocess.run(
        [*command_line, "--root", str(tmp_path / "back" / "runs")], cwd=ROOT, capture_output=True, text=True
    )
    assert reported.returncode == 0, reported.stderr
    assert len(json.loads(reported.stdout)["runs"]) == 2
    again = command(*run, "--out", tmp_path / "again")
    assert again.returncode == 0 and "[" not in again.stdout  # no job ended: none was begun
    assert (tmp_path / "again" / "results.tar.gz").exists()


def test_what_is_wrong_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(study, "surround", lambda *_: None)  # this process keeps its environment
    monkeypatch.setattr(local, "devices", lambda: ("cpu", 1))
    none, out = str(tmp_path / "none"), str(tmp_path / "out")
    for arguments, said in (
        (["pack", str(tmp_path), none], "no .jsonl files"),
        (["run", "--text", none, "--out", out], "no GPU"),
        (["run", "--small", "--text", none, "--out", out], "none"),
        (["run", "--small", "--workers", "0", "--text", none, "--out", out], "--workers"),
    ):
        assert study.main(arguments) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and said in lines[0]


def test_the_text_is_prepared_once_for_runs_and_their_entropy_model(tmp_path):
    runs = registry.load(study.EXPERIMENT, study.read_from(tmp_path / "text.jsonl.xz")).runs
    assert len(runs) >= 24
    assert all(3e14 <= run.budget_flops <= 1e16 for run in runs)
    with_models = [run for run in runs if len(run.entropy_model)]
    assert with_models and all(
        run.data[key] == run.entropy_model.data[key] for run in with_models for key in prepare.KEYS
    )
    assert {tuple(run.data.globs) for run in runs} == {(str(tmp_path / "text.jsonl.xz"),)}


def task(name, flops, directory, state="waiting", experiment=True):
    job = types.SimpleNamespace(flops=flops, experiment=experiment, needs=(), kind="run", name=name)
    return types.SimpleNamespace(
        job=job, name=name, state=state, directory=directory, process=None, slot=None
    )


def test_small_budgets_first_and_within_one_the_middle_of_every_family(tmp_path):
    configs, tasks = {}, [task("entropy-model", 5.0, tmp_path, experiment=False)]
    for budget in (1e15, 3e14):
        for family, size in [(family, size) for family in ("bpe", "blt") for size in "SML"]:
            name = f"{family}-{size}-{budget:g}"
            configs[name] = ConfigDict(
                dict(family=family, patching=dict(size=4.5), tokenizer={}, budget_flops=budget, seed=0)
            )
            tasks.append(task(name, budget, tmp_path))
    names = [one.name for one in study.in_order(tasks[::-1], configs)]
    assert names[:3] == ["entropy-model", "bpe-M-3e+14", "blt-M-3e+14"]
    assert set(names[3:7]) == {f"{f}-{s}-3e+14" for f in ("bpe", "blt") for s in "SL"}
    assert names[7:9] == ["bpe-M-1e+15", "blt-M-1e+15"]


def test_a_run_that_would_not_end_in_time_is_not_begun(tmp_path):
    assert study.expected(2e15, []) == 150.0
    assert study.expected(10.0, [(1.0, 20.0)]) == 200.0  # nothing says how much of it every run has
    assert study.expected(10.0, [(1.0, 20.0), (3.0, 30.0)]) == pytest.approx(65.0)
    assert study.expected(10.0, [(1.0, 30.0), (3.0, 20.0)]) == pytest.approx(25.0)
    tasks = [
        task("done", 1e14, tmp_path, "done"),
        task("small", 1e14, tmp_path),
        task("large", 1e15, tmp_path),
    ]
    clock = study.Study(tmp_path, tmp_path, "x", tasks, 0.0, 100.0, 2)
    clock.spent, clock.walls = lambda: 40.0, {"done": 20.0}
    clock.leave_out()
    assert [one.state for one in tasks] == ["done", "waiting", "left"]
    clock.spent = lambda: 60.0  # 15 s before the stop
    clock.leave_out()
    assert [one.state for one in tasks] == ["done", "left", "left"]


def test_when_time_is_over_running_runs_are_stopped_and_what_is_done_is_kept(tmp_path, monkeypatch):
    from bltjax.sweep import runner

    stopped = []
    monkeypatch.setattr(runner, "stop", lambda tasks, seconds: stopped.append(seconds))
    monkeypatch.setattr(runner, "advance", lambda *_: pytest.fail("begun after the end"))
    (tmp_path / "runs" / "x" / "one").mkdir(parents=True)
    (tmp_path / "runs" / "x" / "one" / "metrics.jsonl").write_text("{}\n")
    one = task("one", 1e14, tmp_path / "runs" / "x" / "one", "running")
    clock = study.Study(tmp_path / "out", tmp_path, "x", [one], 0.0, 100.0, 2)
    clock.spent = lambda: 99.0
    assert clock.do(machine=None, free=[None, None]) == 1
    assert stopped and stopped[0] < study.STOP_SECONDS
    with tarfile.open(tmp_path / "out" / "results.tar.gz") as archive:
        assert archive.getnames() == ["runs/x/one/metrics.jsonl"]
