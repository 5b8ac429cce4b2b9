"""What Slurm is given: arrays, their order and limits, scripts that no user's value can break. Slurm is not
needed: srun and scontrol are stand-ins here. test_slurm_cluster.py has the real ones."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from bltjax.errors import UserError
from bltjax.launch import job, slurm

ODD = "a 'run' $(touch broken) `touch broken` \"; touch broken; %n \\"  # a name that asks for trouble


def a_job(name, *needs, topology="", kind="train"):
    return job.Job(name, kind, f"/runs/{name}", needs, topology)


SWEEP = [
    a_job("text", kind="prepare"),
    a_job("entropy", "text", topology="h100:1"),
    *[a_job(f"entropy-{i}", "text", "entropy", topology="h100:8") for i in range(5)],
    *[a_job(f"space-{i}", "text", topology="h100:8") for i in range(3)],
    a_job("large", "text", topology="h100:16"),
]


def steps(tmp_path, jobs=SWEEP, limit=0, **settings):
    return slurm.steps(tmp_path / "launch", jobs, slurm.Settings(**settings), limit)


def test_jobs_with_equal_needs_and_machines_are_an_array(tmp_path):
    made = {step.jobs[0]: step for step in steps(tmp_path)}
    assert {len(step.jobs) for step in made.values()} == {1, 5, 3}
    assert "--array=0-4" in made["entropy-0"].command and "--array=0-0" in made["large"].command
    assert made["entropy-0"].after == (made["text"].name, made["entropy"].name)
    assert made["space-0"].after == made["large"].after == (made["text"].name,)
    assert "--gpus-per-node=1" in made["entropy"].command and "--nodes=1" in made["entropy"].command
    assert "--gpus-per-node=8" in made["large"].command and "--nodes=2" in made["large"].command
    assert not any(word.startswith("--gpus") for word in made["text"].command)


def test_steps_come_after_what_they_need_in_whatever_order_jobs_are(tmp_path):
    for jobs in (SWEEP, SWEEP[::-1]):
        seen = set()
        for step in steps(tmp_path, jobs):
            assert set(step.after) <= seen
            seen.add(step.name)
        assert len(seen) == 5


def test_a_need_that_is_done_already_is_nothing_to_wait_for(tmp_path):
    (step,) = steps(tmp_path, SWEEP[2:7])
    assert step.after == () and len(step.jobs) == 5


def test_names_are_the_same_at_the_next_launch_and_others_elsewhere(tmp_path):
    names = [step.name for step in steps(tmp_path)]
    assert names == [step.name for step in steps(tmp_path, limit=2)] and len(set(names)) == len(names)
    assert not set(names) & {step.name for step in steps(tmp_path / "other")}


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 7, 20])
def test_arrays_that_may_run_at_once_are_never_above_the_limit(tmp_path, limit):
    made = steps(tmp_path, limit=limit)
    before = {}
    for step in made:
        before[step.name] = set(step.after).union(*(before[name] for name in step.after))
    most = {step.name: min(len(step.jobs), limit) for step in made}
    for step in made:
        array = next(word for word in step.command if word.startswith("--array="))
        assert array.endswith(f"%{limit}") == (len(step.jobs) > limit)
        beside = [s.name for s in made if s.name not in before[step.name] and step.name not in before[s.name]]
        assert sum(most[name] for name in beside) <= limit  # itself and all that may run beside it


def test_an_array_is_not_larger_than_slurm_takes(tmp_path):
    jobs = [a_job(f"run{i}") for i in range(2500)]
    made = steps(tmp_path, jobs)
    assert [len(step.jobs) for step in made] == [1000, 1000, 500]
    assert sum((step.jobs for step in made), ()) == tuple(one.name for one in jobs)


def test_settings_become_options(tmp_path):
    settings = dict(partition="gpu", account="me", time="1-12:30:00", cpus=8, mem="64G", qos="low")
    settings |= dict(gres="gpu:h100:8", options="--exclude=n1,n2 --exclusive")
    command = steps(tmp_path, **settings)[-1].command
    assert {"--partition=gpu", "--account=me", "--time=1-12:30:00", "--cpus-per-task=8"} <= {*command}
    assert {"--qos=low", "--mem=64G", "--gres=gpu:h100:8", "--exclude=n1,n2", "--exclusive"} <= {*command}
    assert not any(word.startswith("--gpus") for word in command)
    assert {"--requeue", "--open-mode=append", "--signal=B:USR1@120", "--ntasks-per-node=1"} <= {*command}
    assert command[0] == "sbatch" and command[-1].endswith(".sh")


@pytest.mark.parametrize(
    "settings",
    [
        dict(partition="a\n#SBATCH --wrap=b"),
        dict(time="soon"),
        dict(time="1:2:3:4"),
        dict(time="0:30"),  # the warning would come before it began
        dict(warning=-1),
        dict(cpus=-1),
        dict(setup="/there/is/none"),
        dict(options="--array=1-3"),
        dict(options="--exclude n1"),
        dict(options="-n 4"),
        dict(options="'--exclude"),
    ],
)
def test_settings_that_cannot_be_are_one_line(tmp_path, settings):
    with pytest.raises(UserError) as error:
        steps(tmp_path, **settings)
    assert len(str(error.value).splitlines()) == 1


def test_tpus_are_launched_elsewhere(tmp_path):
    with pytest.raises(UserError, match="TPU"):
        steps(tmp_path, [a_job("run", topology="v5p:2x2x2")])


def test_without_slurm_there_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    for call in (
        lambda: slurm.submit(steps(tmp_path)[0], {}, slurm.Settings()),
        lambda: slurm.found("name", slurm.Settings()),
        lambda: slurm.alive(["1"], slurm.Settings()),
    ):
        with pytest.raises(UserError, match="there is no s.* here"):
            call()


# Stand-ins: an srun that runs one process where it is, and a scontrol that notes what it was asked.
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
set -m  # a group of its own, so that a signal reaches the shell and the process, as Slurm's do
trap 'kill -USR1 -- -$child' USR1
"$@" & child=$!
while wait $child; code=$?; kill -0 $child 2>/dev/null; do :; done
exit $code
"""
SCONTROL = """#!/bin/bash
echo "$@" >> "$SAID"
echo "JobState=$STATE Reason=$REASON Dependency=(null) Requeue=$REQUEUE Restarts=0"
"""
PROCESS = """#!{python}
import json, os, signal, sys, time
def end(*_):
    sys.exit(42)
signal.signal(signal.SIGUSR1, end)
with open(os.environ["SEEN"], "w") as file:
    json.dump(sys.argv[1:], file)
time.sleep(float(os.environ.get("SECONDS_OF_JOB", 0)))
sys.exit(int(os.environ["CODE"]))
"""


@pytest.fixture
def start(tmp_path, monkeypatch):
    """start(jobs, index, **environment) starts the script of an array's element; a Popen."""
    bin = tmp_path / "bin"
    bin.mkdir()
    python = PROCESS.format(python=sys.executable)
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("python", python)):
        (bin / name).write_text(text)
        (bin / name).chmod(0o755)
    monkeypatch.chdir(tmp_path)

    def begin(jobs, index, **environment):
        setup = tmp_path / "set up.sh"
        setup.write_text("export SET_UP=yes\n")
        (step,) = steps(tmp_path, jobs, python=str(bin / "python"), setup=str(setup))
        step.path.parent.mkdir(parents=True, exist_ok=True)
        step.path.write_text(step.manifest)
        given = dict(SLURM_JOB_ID="7", SLURM_ARRAY_JOB_ID="5", SLURM_ARRAY_TASK_ID=str(index))
        given |= dict(STATE="RUNNING", REASON="None", REQUEUE="1", CODE="0", SLURM_JOB_NODELIST="n1")
        given |= dict(PATH=f"{bin}:{os.environ['PATH']}")
        given |= {name: str(tmp_path / name.lower()) for name in ("SAID", "SEEN")}
        return subprocess.Popen(["bash", str(step.path)], env={**os.environ, **given, **environment})

    return begin


def said(tmp_path):
    return [line for line in (tmp_path / "said").read_text().splitlines() if line.startswith("requeue")]


def test_a_name_reaches_the_process_as_it_is(start, tmp_path):
    assert start([a_job("other"), a_job(ODD)], 1).wait(20) == 0
    folder = str(tmp_path / "launch")
    assert json.loads((tmp_path / "seen").read_text()) == ["-m", "bltjax.launch.start", folder, ODD]
    assert not list(tmp_path.glob("**/broken"))


@pytest.mark.parametrize("code", [0, 1, 2, 137])
def test_other_codes_are_passed_on_and_nothing_is_queued(start, tmp_path, code):
    assert start([a_job("run")], 0, CODE=str(code)).wait(20) == code
    assert said(tmp_path) == []


def test_42_is_queued_again(start, tmp_path):
    assert start([a_job("run")], 0, CODE="42").wait(20) == 42
    assert said(tmp_path) == ["requeue 5_0"]
    assert not list(tmp_path.glob("launch/slurm/*.7.0"))  # the mark is gone


@pytest.mark.parametrize("state", [dict(STATE="COMPLETING"), dict(REQUEUE="0")])
def test_what_was_cancelled_or_is_queued_already_is_left_alone(start, tmp_path, state):
    assert start([a_job("run")], 0, CODE="42", **state).wait(20) == 42
    assert said(tmp_path) == []


def test_what_the_time_limit_ended_is_queued_again(start, tmp_path):
    assert start([a_job("run")], 0, CODE="42", STATE="COMPLETING", REASON="TimeLimit").wait(20) == 42
    assert said(tmp_path) == ["requeue 5_0"]


def test_a_warning_reaches_the_process(start, tmp_path):
    began = start([a_job("run")], 0, SECONDS_OF_JOB="30")
    while not (tmp_path / "seen").exists():
        time.sleep(0.05)
    began.send_signal(signal.SIGUSR1)
    assert began.wait(20) == 42
    assert said(tmp_path) == ["requeue 5_0"]


@pytest.mark.parametrize("code", [137, 138, 143])
def test_killed_while_it_is_asked_to_stop_is_queued_again(start, tmp_path, code):
    """Slurm sends TERM to the processes by itself, which may be too early or too late for them."""
    began = start([a_job("run")], 0, SECONDS_OF_JOB="1", CODE=str(code))
    while not (tmp_path / "seen").exists():
        time.sleep(0.05)
    began.send_signal(signal.SIGTERM)
    assert began.wait(20) == 42
    assert said(tmp_path) == ["requeue 5_0"]


def test_a_process_of_one_is_alone():
    assert slurm.place({}) == ("", 0, -1)  # no step of Slurm: JAX looks around
    assert slurm.place({"SLURM_STEP_NUM_TASKS": "1", "SLURM_JOB_ID": "5"}) == ("", 1, -1)


def test_an_attempt_has_a_port_of_its_own():
    step = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3", "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.1"}
    places = [
        slurm.place({**step, "SLURM_JOB_ID": str(number), "SLURM_RESTART_COUNT": str(attempt)})
        for number in range(100_000, 100_100)
        for attempt in range(5)
    ]
    ports = [int(coordinator.removeprefix("10.0.0.1:")) for coordinator, _, _ in places]
    assert len(set(ports)) == len(ports) and min(ports) >= 20480 and max(ports) < 28672
    assert {place[1:] for place in places} == {(4, 3)}
    first = slurm.place({**step, "SLURM_JOB_ID": "100000", "SLURM_LAUNCH_NODE_IPADDR": "fe80::1"})[0]
    assert first == f"[fe80::1]:{ports[0]}"  # no restart yet: no such variable
