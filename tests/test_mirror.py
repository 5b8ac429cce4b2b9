"""A root at a URL: what a store promises, a job's journal, and a real sweep of two runs whose store drops
calls."""

import json
import os
import pathlib
import random
import subprocess
import sys

import pytest

from bltjax import config as cfg
from bltjax.errors import UserError
from bltjax.launch import job as launched
from bltjax.run import worker
from bltjax.storage import journal, locks, mirror, store, work
from bltjax.training import metrics

HERE = pathlib.Path(__file__).parent


@pytest.fixture(params=["file", "memory"])
def opened(request, tmp_path):
    return store.opened(f"{request.param}://{tmp_path}/store")


def test_whole_objects(opened, tmp_path):
    opened.put("a/b", b"1")
    opened.put("a/b", b"2")
    assert opened.get("a/b") == b"2" and opened.find("a/c") is None and opened.list("a/") == ["a/b"]
    assert opened.create("a/log/1", b"x") and not opened.create("a/log/1", b"y")
    assert opened.create("a/log/1", b"x")  # as it stands there
    (tmp_path / "file").write_bytes(b"3")
    opened.put_file("a/d", tmp_path / "file")
    opened.get_file("a/d", tmp_path / "other")
    assert (tmp_path / "other").read_bytes() == b"3" and opened.list("a/") == ["a/b", "a/d", "a/log/1"]
    opened.delete("a/b")
    opened.delete("a/b")
    assert opened.list("a/") == ["a/d", "a/log/1"] and opened.list("b/") == []


class Clock(store.Clock):
    """Nobody waits in a test."""

    sleep = staticmethod(lambda seconds: None)


def test_a_call_is_made_again_and_then_given_up_in_a_line(tmp_path):
    asked = []

    class Away(store.Local):
        def get(self, name):
            asked.append(name)
            raise TimeoutError("no\nanswer")

        def put(self, name, data):
            raise PermissionError("not yours")

    away = store.Store("file:///x", Away(tmp_path), Clock)
    with pytest.raises(store.Unreachable, match="^file:///x does not answer .a.: no answer$") as error:
        away.get("a")
    assert len(asked) == store.TRIES and error.value.exit_code == 42
    with pytest.raises(UserError, match="not yours") as error:
        away.put("a", b"")
    assert error.value.exit_code == 2


def test_urls_that_cannot_be(monkeypatch):
    with pytest.raises(UserError, match="gs://, .*s3://"):
        store.opened("http://a/b")
    with pytest.raises(UserError, match="absolute"):
        store.opened("file://a/b")
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UserError, match=r"pip install 'bltjax\[gcs\]'"):
        store.opened("gs://a/b")


def roots(tmp_path, url="file://{}/store"):
    """The same root on two machines."""
    at = url.format(tmp_path)
    return [mirror.Root(store.opened(at), tmp_path / name) for name in ("one", "two")]


def test_what_one_machine_publishes_another_reads_when_it_is_whole(tmp_path):
    one, two = roots(tmp_path)
    here, there = one.directory("e/run"), two.directory("e/run")
    with work.Work(one, "e/run") as held:
        (here.local / "checkpoints" / "2").mkdir(parents=True)
        (here.local / "checkpoints" / "2" / "x").write_text("weights")
        (here.local / "metrics.jsonl").write_text('{"step": 1}\n{"step"')
        held.publish()
        there.pull()
        assert not (there.local / "checkpoints").exists()  # not sealed
        assert (there.local / "metrics.jsonl").read_text() == '{"step": 1}\n'
        (here.local / "checkpoints" / "2.manifest.json").write_text("{}")
        with pytest.raises(locks.Busy):
            work.Work(two, "e/run").__enter__()
    with work.Work(two, "e/run") as held:
        assert (there.local / "checkpoints" / "2" / "x").read_text() == "weights"
        (there.local / "done.json").write_text("{}")
    assert not work.Work(one, "e/run").__enter__().lease and (here.local / "done.json").exists()
    named = {one["at"] for one in here.journal.newest().files.values()}
    assert {name for name in one.store.list("e/run/files/")} == {f"e/run/{at}" for at in named}


def test_a_checkpoint_that_is_damaged_in_the_store_is_left_out_and_other_damage_is_a_line(tmp_path):
    one, two = roots(tmp_path)
    with work.Work(one, "e/run"):
        for name in ("checkpoints/2/x", "checkpoints/2.manifest.json", "config.json"):
            path = one.local / "e/run" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}")
    (stored,) = (tmp_path / "store/e/run/files").glob("*/checkpoints/2/x")
    stored.write_text("{]")
    two.directory("e/run").pull()
    assert not (two.local / "e/run/checkpoints/2.manifest.json").exists()
    assert "checkpoint 2 is damaged" in (two.local / "e/run/notes.txt").read_text()
    (stored,) = (tmp_path / "store/e/run/files").glob("*/config.json")
    stored.unlink()
    with pytest.raises(UserError, match="config.json is missing there, or damaged"):
        mirror.Root(one.store, tmp_path / "three").directory("e/run").pull()


def test_a_file_outside_of_the_root_is_refused(tmp_path):
    one, two = roots(tmp_path)
    with work.Work(one, "e/run") as held:
        held.lease.publish({"../../../x": {"bytes": 0, "sha256": "", "at": "x"}}, release=True)
        held.lease = None
    with pytest.raises(UserError, match="outside of the root"):
        two.directory("e/run").pull()


def test_a_holder_that_was_killed_is_waited_for_elsewhere_and_not_here(tmp_path):
    one, two = roots(tmp_path)
    journal.take(one.directory("e/run").journal, f"{one.machine}/killed")
    with pytest.raises(locks.Busy):
        journal.take(two.directory("e/run").journal, "other")
    with work.Work(one, "e/run") as again:
        assert again.lease


@pytest.mark.parametrize("verb", ["run", "plan", "compile"])
def test_verbs_that_take_no_url_say_so_in_a_line(verb, tmp_path, monkeypatch, capsys):
    from bltjax.cli import main

    monkeypatch.setenv("BLTJAX_SCRATCH", str(tmp_path / "scratch"))
    more = ["--topology", "cpu:1"] if verb == "compile" else []
    assert main.main([verb, "quickstart", "--root", f"file://{tmp_path}/store", *more]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "of a URL there are status, report, launch" in said


def test_a_launch_from_two_machines_gives_each_job_once(tmp_path, monkeypatch, capsys):
    """And either sees it. The scheduler is test_launch.py's."""
    from bltjax.cli import main
    from bltjax.launch import targets
    from test_launch import Scheduler

    (tmp_path / "a.txt").write_text("some words and more of them\n" * 2000)
    scheduler = Scheduler()
    monkeypatch.setattr(targets, "target", lambda name: scheduler)
    words = [str(HERE / "tiny_experiment.py"), "--root", f"file://{tmp_path}/store"]
    words += ["--set", f'data.globs=["{tmp_path}/a.txt"]', "--only", "space"]
    for machine in ("one", "two"):
        monkeypatch.setenv("BLTJAX_SCRATCH", str(tmp_path / machine))
        assert main.main(["launch", *words, "--on", "slurm"]) == 0
    assert len({step.jobs for step, _ in scheduler.given}) == len(scheduler.given) == 2
    monkeypatch.setenv("BLTJAX_SCRATCH", str(tmp_path / "three"))
    assert main.main(["status", *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["runs"][0]["name"] == "space"
    assert main.main(["stop", *words]) == 0 and len(scheduler.stopped) == 2


# Slow: processes that compile.


class Drops(store.Local):
    """A folder that drops 5% of calls, half of them when they had their effect, and delays others."""

    def __init__(self, folder, draw):
        super().__init__(folder)
        for name in ("get", "put", "create", "delete", "list", "get_file", "put_file"):
            setattr(self, name, self.dropping(getattr(super(), name), draw))

    def dropping(self, call, draw):
        def made(*given):
            chance = draw.random()
            if chance < 0.025:
                raise ConnectionError("dropped")
            found = call(*given)
            if chance < 0.05:
                raise ConnectionError("dropped")
            if chance < 0.1:
                store.time.sleep(0.2)
            return found

        return made


WORKER = """
import random, sys
sys.path.insert(0, {here!r})
import test_mirror
from bltjax.storage import store
store.FIRST_PAUSE = 0.05
opened = store.opened
store.opened = lambda url: store.Store(
    url, test_mirror.Drops(opened(url).backend.folder, random.Random({seed}))
)
from bltjax.launch import start
sys.exit(start.main([{folder!r}, {name!r}]))
"""


@pytest.mark.slow
def test_a_sweep_in_a_store_that_drops_calls_ends_with_the_numbers_of_a_local_one(tmp_path):
    """Each job is made by another machine; one is killed on its way, and goes on elsewhere."""
    import tiny_experiment
    from bltjax.sweep import graph

    text = tmp_path / "text"
    text.mkdir()
    words = (HERE / "test_runner.py").read_text().split()
    for i in range(40):
        (text / f"{i}.txt").write_text(" ".join(random.Random(i).choices(words, k=60)))
    changes = {"data.globs": (f"{text}/*.txt",), "train.steps": 12, "train.checkpoint_every": 4}
    changes["budget_flops"] = 0.0
    runs = [cfg.replace(one, **changes) for one in tiny_experiment.get_config().runs[::2]]
    local = tmp_path / "local"
    for one in graph.of_runs(local, "e", runs):
        assert worker.main([str(one.directory)]) == 0
    url = f"file://{tmp_path}/store"
    root = mirror.Root(store.opened(url), tmp_path / "launcher")
    made = launched.of_experiment(root.local, "e", runs)
    for one in made:
        root.directory(one.directory).offer()
    with work.Work(root, "e/launch") as held:
        launched.write(held.directory.local, "e", made)
    for seed, one in enumerate(made):
        start = WORKER.format(here=str(HERE), seed=seed, folder=f"{url}/e/launch", name=one.name)
        for attempt in range(5):
            scratch = str(tmp_path / f"scratch-{one.name}")
            env = {**os.environ, "BLTJAX_SCRATCH": scratch, "PYTHONPATH": str(HERE.parent)}
            command = [sys.executable, "-c", start]
            process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
            if one.own and not attempt:
                try:
                    process.communicate(timeout=12)
                except subprocess.TimeoutExpired:
                    process.kill()
            said = process.communicate()[1]
            if process.returncode == 0:
                break
        assert process.returncode == 0, said
    for run in runs:
        directory = root.directory(f"e/{run.name}")
        assert directory.pull_small().done
        assert lines(directory.local) == lines(local / "e" / run.name) != []
        of = lambda folder: json.loads((folder / "eval.json").read_text())["test"]["bpb"]
        assert of(directory.local) == of(local / "e" / run.name)


def lines(run_dir):
    return [
        {k: v for k, v in line.items() if k not in metrics.WALL_CLOCK}
        for line in metrics.read(run_dir / "metrics.jsonl")
    ]
