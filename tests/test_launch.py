"""Launching: what is done or on its way is left alone, what failed waits for `retry`, a lost id is found
again, and nothing is made by a dry run. The scheduler here is a dictionary."""

import dataclasses
import json
import os
import pathlib
import threading
import time

import pytest

from bltjax import exit_codes
from bltjax.errors import Interrupted, RunFailed, UserError
from bltjax.launch import job as launched
from bltjax.launch import submit, targets
from bltjax.launch.job import Job, Step
from bltjax.storage import attempts, locks, rundir


class Scheduler:
    """A target (launch/job.py) that keeps what it was given in a list."""

    @dataclasses.dataclass(frozen=True)
    class Settings:
        queue: str = ""
        hours: int = 1
        spot: bool = False

    def __init__(self, chains=True, dies_after=None):
        self.CHAINS, self.dies_after = chains, dies_after
        self.given, self.living, self.stopped = [], {}, []

    def steps(self, folder, jobs, settings, limit):
        here = {job.name for job in jobs}
        after = lambda job: tuple(f"s-{need}" for need in job.needs if need in here)
        return [Step(f"s-{job.name}", (job.name,), ("submit", job.name), after(job)) for job in jobs]

    def submit(self, step, ids, settings):
        if self.dies_after == len(self.given):
            raise UserError("the scheduler is away")
        name = f"{len(self.given)}"
        self.given.append((step, {after: ids[after] for after in step.after}))
        self.living[name] = step.name
        return name

    def found(self, name, settings):
        return next((one for one, step in self.living.items() if step == name), "")

    def alive(self, ids, settings):
        return {one for one in ids if one in self.living}

    def cancel(self, ids, settings):
        self.stopped += ids
        for one in ids:
            self.living.pop(one, None)


@pytest.fixture
def jobs(tmp_path):
    """prepare <- tokenizer <- run a; prepare <- run b."""
    made = [
        Job("data", "prepare", str(tmp_path / "_shared" / "data")),
        Job("tokens", "tokenizer", str(tmp_path / "_shared" / "tokens"), ("data",)),
        Job("a", "run", str(tmp_path / "e" / "a"), ("data", "tokens"), own=True),
        Job("b", "run", str(tmp_path / "e" / "b"), ("data",), own=True),
    ]
    for one in made:
        pathlib.Path(one.directory).mkdir(parents=True)
    return made


@pytest.fixture
def states(monkeypatch):
    """{name: state} in place of the states that job directories have."""
    said = {}
    monkeypatch.setattr(submit, "state", lambda job: said.get(job.name, "waiting"))
    return said


def forward(tmp_path, jobs, scheduler, limit=0, dry=False):
    folder, settings = tmp_path / "e" / "launch", scheduler.Settings()
    return submit.forward(folder, jobs, "slurm", scheduler, settings, limit, dry)


def test_asked_again_nothing_is_added(tmp_path, jobs, states):
    scheduler = Scheduler()
    first = forward(tmp_path, jobs, scheduler)
    assert [step.name for step in first.steps] == ["s-data", "s-tokens", "s-a", "s-b"]
    after = {step.name: set(ids.values()) for step, ids in scheduler.given}
    assert after == {"s-data": set(), "s-tokens": {"0"}, "s-a": {"0", "1"}, "s-b": {"0"}}
    again = forward(tmp_path, jobs, scheduler)
    assert not again.steps and sorted(again.alive) == ["a", "b", "data", "tokens"]
    assert len(scheduler.given) == 4


def test_two_at_once_double_nothing(tmp_path, jobs, states):
    scheduler = Scheduler()
    submitting = scheduler.submit
    scheduler.submit = lambda *given: time.sleep(0.02) or submitting(*given)
    both = [threading.Thread(target=forward, args=(tmp_path, jobs, scheduler)) for _ in range(4)]
    [one.start() for one in both]
    [one.join() for one in both]
    assert sorted(step.name for step, _ in scheduler.given) == ["s-a", "s-b", "s-data", "s-tokens"]


def test_a_job_that_was_lost_is_given_again_and_no_other(tmp_path, jobs, states):
    scheduler = Scheduler()
    forward(tmp_path, jobs, scheduler)
    states.update(data="done", tokens="done", b="done")
    del scheduler.living["2"]
    standing = forward(tmp_path, jobs, scheduler)
    assert [step.name for step in standing.steps] == ["s-a"] and standing.done == ["data", "tokens", "b"]


def test_an_id_that_was_not_noted_is_found_by_name(tmp_path, jobs, states, monkeypatch):
    scheduler, note = Scheduler(), submit._note

    def dies(folder, **line):
        if line.get("id") == "1":
            raise KeyboardInterrupt
        note(folder, **line)

    monkeypatch.setattr(submit, "_note", dies)
    with pytest.raises(KeyboardInterrupt):
        forward(tmp_path, jobs, scheduler)
    monkeypatch.setattr(submit, "_note", note)
    forward(tmp_path, jobs, scheduler)
    assert [step.name for step, _ in scheduler.given] == ["s-data", "s-tokens", "s-a", "s-b"]
    assert scheduler.given[2][1]["s-tokens"] == "1"


def test_what_was_refused_is_given_later(tmp_path, jobs, states):
    scheduler = Scheduler(dies_after=2)
    with pytest.raises(UserError, match="away"):
        forward(tmp_path, jobs, scheduler)
    scheduler.dies_after = None
    forward(tmp_path, jobs, scheduler)
    assert [step.name for step, _ in scheduler.given] == ["s-data", "s-tokens", "s-a", "s-b"]


def test_a_run_behind_one_that_was_given_earlier(tmp_path, jobs, states):
    scheduler = Scheduler()
    forward(tmp_path, jobs[:1], scheduler)
    forward(tmp_path, jobs, scheduler)
    assert next(ids for step, ids in scheduler.given if step.name == "s-b") == {"s-data": "0"}


def test_what_failed_waits_for_retry_and_so_do_those_behind_it(tmp_path, jobs, states):
    scheduler = Scheduler()
    states.update(data="done", tokens="failed")
    standing = forward(tmp_path, jobs, scheduler)
    assert standing.failed == ["tokens"] and standing.unreachable == ["a"]
    assert [step.name for step in standing.steps] == ["s-b"]


def test_without_chains_only_what_is_ready_and_within_the_limit(tmp_path, jobs, states):
    scheduler = Scheduler(chains=False)
    assert [step.name for step in forward(tmp_path, jobs, scheduler).steps] == ["s-data"]
    states["data"] = "done"
    scheduler.living.clear()
    standing = forward(tmp_path, jobs, scheduler, limit=1)
    assert [step.name for step in standing.steps] == ["s-tokens"] and standing.held == ["a", "b"]
    assert not forward(tmp_path, jobs, scheduler, limit=1).steps


def test_a_dry_run_leaves_nothing(tmp_path, jobs, states):
    scheduler = Scheduler()
    before = sorted(tmp_path.rglob("*"))
    standing = forward(tmp_path, jobs, scheduler, dry=True)
    assert len(standing.steps) == 4 and not scheduler.given and sorted(tmp_path.rglob("*")) == before


def test_another_target_is_refused_while_the_first_has_jobs(tmp_path, jobs, states):
    scheduler = Scheduler()
    forward(tmp_path, jobs, scheduler)
    with pytest.raises(UserError, match="was launched on slurm"):
        submit.forward(tmp_path / "e" / "launch", jobs, "gke", scheduler, scheduler.Settings())


def test_stop_cancels_what_lives(tmp_path, jobs, states):
    scheduler = Scheduler()
    forward(tmp_path, jobs, scheduler)
    del scheduler.living["0"]
    names = submit.stop(tmp_path / "e" / "launch", scheduler, scheduler.Settings())
    assert names == ["a", "b", "tokens"] and sorted(scheduler.stopped) == ["1", "2", "3"]


def test_jobs_come_back_as_they_were_written(tmp_path, jobs):
    folder = tmp_path / "e" / "launch"
    launched.write(folder, "e", jobs[:2], chip_hours=3.0)
    launched.write(folder, "e", jobs[2:], chip_hours=4.0)
    found, facts = launched.read(folder)
    assert list(found.values()) == jobs and facts["chip_hours"] == 4.0
    with pytest.raises(UserError, match="bltjax launch"):
        launched.read(tmp_path)


def test_what_a_job_needs_of_a_machine():
    of = lambda topology: Job("a", "run", "/a", topology=topology)
    assert (of("").hosts, of("").chips) == (1, 0)
    assert (of("h100:16").hosts, of("h100:16").chips) == (2, 16)
    assert (of("v5p:4x4x4").hosts, of("v5p:4x4x4").chips) == (16, 64)
    assert (of("2*v5p:4x4x4").hosts, of("v6e:2x4").hosts) == (32, 1)


def test_settings_by_their_types(monkeypatch):
    monkeypatch.setattr(targets, "target", lambda name: Scheduler())
    made = targets.settings("slurm", ["queue=gpu", "hours=3", "spot=yes"])
    assert (made.queue, made.hours, made.spot) == ("gpu", 3, True)
    for given, why in (
        ("hours=x", "is a number"),
        ("spot=maybe", "true or false"),
        ("qeue=a", "did you mean queue"),
        ("queue", "KEY=VALUE"),
        ("queue=a\nb", "line breaks"),
    ):
        with pytest.raises(UserError, match=why):
            targets.settings("slurm", [given])


def test_attempts_say_how_they_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(attempts, "EVERY_SECONDS", 0.01)
    with attempts.recorded(tmp_path, chips=4, on="slurm 1", step=7):
        time.sleep(0.1)
    ended = ((Interrupted("x"), 42), (RunFailed("x"), 1), (UserError("x"), 2), (KeyboardInterrupt(), 42))
    for error, code in ended:
        with pytest.raises(type(error)), attempts.recorded(tmp_path):
            raise error
        assert attempts.read(tmp_path)[-1]["code"] == code
    first = attempts.read(tmp_path)[0]
    assert (first["code"], first["chips"], first["on"], first["step"]) == (0, 4, "slurm 1", 7)
    assert first["ended"] - first["began"] == pytest.approx(attempts.hours(tmp_path) * 3600 / 4, rel=0.5)


def test_an_attempt_that_is_killed_says_until_when_it_lived(tmp_path):
    if not (child := os.fork()):
        attempts.EVERY_SECONDS = 0.01
        with attempts.recorded(tmp_path):
            time.sleep(0.2)
            os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    (only,) = attempts.read(tmp_path)
    assert only["ended"] is None and only["seen"] - only["began"] > 0.1


def test_a_job_that_comes_no_further_is_given_up(tmp_path):
    def attempt(step, code):
        with attempts.recorded(tmp_path, step=step):
            pass
        path = sorted((tmp_path / attempts.FOLDER).glob("*.json"))[-1]
        path.write_text(json.dumps({**json.loads(path.read_text()), "code": code}))

    for step in (1, 2, 3, 4, 5):
        attempt(step, None)
    assert not attempts.stuck(tmp_path)  # each came further
    for _ in range(attempts.MOST - 1):
        attempt(5, None)
    assert attempts.stuck(tmp_path)
    attempts.forgive(tmp_path)
    assert not attempts.stuck(tmp_path)
    for _ in range(attempts.MOST):
        attempt(5, exit_codes.STOPPED)
    assert not attempts.stuck(tmp_path)  # saved and to be started again, as often as it takes


def test_a_lock_is_waited_for_so_long_and_no_longer(tmp_path):
    holder = threading.Thread(target=hold, args=(tmp_path / ".lock", 0.8))
    holder.start()
    time.sleep(0.2)
    with pytest.raises(locks.Busy), locks.held(tmp_path / ".lock", wait=0.1):
        pass
    with locks.held(tmp_path / ".lock", wait=10.0):
        pass
    holder.join()


def hold(path, seconds):
    with locks.held(path):
        time.sleep(seconds)


def test_cpus_that_a_cgroup_allows(tmp_path):
    """Version 2, in a container and below a limited parent; version 1; none."""
    from bltjax.parallel import host

    own, mount = tmp_path / "cgroup", tmp_path / "fs"
    (mount / "a" / "b").mkdir(parents=True)
    own.write_text("0::/a/b\n")
    assert host.cgroup_cpus(own, mount) is None
    (mount / "a" / "b" / "cpu.max").write_text("max 100000\n")
    (mount / "a" / "cpu.max").write_text("150000 100000\n")
    assert host.cgroup_cpus(own, mount) == 1.5
    own.write_text("0::/seen/from/the/host\n")
    (mount / "cpu.max").write_text("400000 100000\n")
    assert host.cgroup_cpus(own, mount) == 4.0
    own.write_text("5:cpu,cpuacct:/box\n1:name=systemd:/\n")
    (mount / "cpu" / "box").mkdir(parents=True)
    (mount / "cpu" / "box" / "cpu.cfs_quota_us").write_text("200000\n")
    (mount / "cpu" / "box" / "cpu.cfs_period_us").write_text("100000\n")
    assert host.cgroup_cpus(own, mount) == 2.0
    (mount / "cpu" / "box" / "cpu.cfs_quota_us").write_text("-1\n")
    assert host.cgroup_cpus(own, mount) is None
    assert host.cgroup_cpus(tmp_path / "none", mount) is None


def test_one_process_a_gpu(monkeypatch):
    from bltjax.launch import local

    monkeypatch.setattr(local, "devices", lambda: ("gpu", 4))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [slot.gpu for slot in local.slots()] == ["0", "1", "2", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b,5,7")
    assert [slot.gpu for slot in local.slots(2)] == ["GPU-a", "GPU-b"]
    monkeypatch.setattr(local, "devices", lambda: ("tpu", 4))
    assert local.slots() == [local.Slot()]
    monkeypatch.setattr(local, "devices", lambda: ("cpu", 1))
    assert all(slot.core is not None and slot.gpu is None for slot in local.slots(3))


def test_machines_of_ended_jobs_are_given_back(tmp_path, jobs, states):
    scheduler, released = Scheduler(chains=False), []
    scheduler.release = lambda ids, settings: released.extend(ids)
    forward(tmp_path, jobs, scheduler)
    assert not released
    states["data"] = "done"
    forward(tmp_path, jobs, scheduler)
    assert released == ["0"]


def start(folder, name):
    from bltjax.launch import start

    return start.main([str(folder), name])


def test_what_a_machine_does_not_begin(tmp_path, jobs, monkeypatch, capsys):
    """A job whose needs are not done, whose budget is spent, or which is killed again and again."""
    from bltjax.run import worker

    began = []
    monkeypatch.setattr(worker, "main", lambda words: began.append(words) or 0)
    folder = tmp_path / "e" / "launch"
    for one in jobs:
        rundir.write_json(pathlib.Path(one.directory) / "config.json", {"kind": one.kind, "config": {}})
    launched.write(folder, "e", jobs, chip_hours=None)
    assert start(folder, "a") == 1 and "a needs data, which is not done" in capsys.readouterr().err
    assert start(folder, "nobody") == 2 and start(tmp_path, "a") == 2
    assert start(folder, "data") == 0 and began[-1][0] == jobs[0].directory
    with attempts.recorded(pathlib.Path(jobs[0].directory)):
        time.sleep(0.05)
    launched.write(folder, "e", jobs, chip_hours=1e-6)
    assert start(folder, "data") == 1 and "chip-hours are spent" in capsys.readouterr().err
    launched.write(folder, "e", jobs, chip_hours=1.0)
    for path in (pathlib.Path(jobs[0].directory) / attempts.FOLDER).glob("*"):
        path.unlink()
    for _ in range(attempts.MOST):
        with pytest.raises(RunFailed), attempts.recorded(pathlib.Path(jobs[0].directory)):
            raise RunFailed("killed")
    assert start(folder, "data") == 1 and "bltjax retry" in capsys.readouterr().err
    assert len(began) == 1


def test_a_damaged_record_is_refused(tmp_path, jobs, states):
    """It alone says what the scheduler has: with a part of it, jobs would be given twice."""
    scheduler = Scheduler()
    forward(tmp_path, jobs, scheduler)
    path = tmp_path / "e" / "launch" / submit.RECORD
    whole = path.read_text()
    for damaged in (whole[:-20], "[]\n" + whole, whole.replace('"step"', '"stp"', 1), "\0" + whole):
        path.write_text(damaged)
        with pytest.raises(UserError, match="is damaged"):
            forward(tmp_path, jobs, scheduler)
    path.write_text(whole)
    forward(tmp_path, jobs, scheduler)
    assert len(scheduler.given) == 4


@pytest.mark.parametrize(
    "words, why",
    [
        (["--topology", ""], "--topology is empty"),
        (["--mesh", " "], "--mesh is empty"),
        (["--with", "partition="], "not empty"),
        (["--limit", "-1"], "--limit is -1"),
        (["--chip-hours", "nan"], "--chip-hours is nan"),
        (["--watch", "--dry-run"], "launches nothing"),
        (["--workers", "2"], "--workers is of --on local"),
        (["--every", "5"], "--every is of --watch"),
        (["--json"], "--dry-run prints"),
    ],
)
def test_options_that_cannot_be(words, why, capsys, tmp_path):
    from bltjax.cli import main

    assert main.main(["launch", "quickstart", "--root", str(tmp_path), "--on", "slurm", *words]) == 2
    said = capsys.readouterr().err
    assert why in said and said.count("\n") == 1 and not list(tmp_path.iterdir())
