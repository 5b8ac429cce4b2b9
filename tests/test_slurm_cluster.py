"""On a real Slurm (slurm_cluster.py), with a stand-in for the job (slurm_job.py): what is stopped goes on
where it was, what is cancelled or fails does not, and never does one run twice at once."""

import concurrent.futures
import json
import os
import pathlib
import signal
import sys
import time

import pytest
import slurm_cluster

from bltjax.errors import UserError
from bltjax.launch import job, slurm

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(slurm_cluster.missing()), reason=slurm_cluster.missing() or "-"),
]
STAND_IN = pathlib.Path(__file__).with_name("slurm_job.py")


@pytest.fixture(scope="module")
def nodes():
    with slurm_cluster.running(nodes=2, cpus=4) as names:
        yield names


class Launched:
    """Jobs of a folder: given to Slurm, and what they noted."""

    def __init__(self, folder: pathlib.Path):
        self.folder, self.ids = folder, {}
        folder.mkdir()
        python = folder / "python"
        python.write_text(f"#!{sys.executable} -IS\n" + STAND_IN.read_text())
        python.chmod(0o755)
        self.python = str(python)

    def submit(self, jobs, limit=0, plan=None, **settings) -> list[str]:
        """plan: of slurm_job.py, {job: {...}}."""
        (self.folder / "plan.json").write_text(json.dumps(plan or {}))
        chosen = slurm.Settings(python=self.python, **settings)
        for step in slurm.steps(self.folder, jobs, chosen, limit):
            self.ids[step.name] = slurm.submit(step, self.ids, chosen)
        return list(self.ids.values())

    def events(self, name="", *kinds) -> list[dict]:
        path = self.folder / "events.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        found = [json.loads(line) for line in lines]
        return [e for e in found if name in ("", e["name"]) and (not kinds or e["event"] in kinds)]

    def until(self, name, kind, count=1, seconds=60) -> dict:
        """The count-th event of that kind."""
        until(lambda: len(self.events(name, kind)) >= count, seconds, lambda: self.log())
        return self.events(name, kind)[count - 1]

    def until_ended(self, seconds=90):
        until(lambda: not slurm.alive(list(self.ids.values()), None), seconds, lambda: self.log())

    def log(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("log/*")))


def until(condition, seconds=60, otherwise=lambda: ""):
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, f"not within {seconds} s\n{otherwise()}"
        time.sleep(0.2)


@pytest.fixture
def launched(nodes, tmp_path):
    made = Launched(tmp_path / "launch")
    yield made
    for number in made.ids.values():  # what a failed test left
        slurm_cluster.command("scancel", number, check=False)
        slurm_cluster.command("scancel", "--signal=KILL", "--full", number, check=False)


def a_job(name, *needs, topology=""):
    return job.Job(name, "train", f"/runs/{name}", needs, topology)


def goes_on(launched, name, attempts=2):
    """The job is done, and every attempt began where the one before had saved."""
    launched.until(name, "done", seconds=90)
    begun, saved = launched.events(name, "begin"), launched.events(name, "saved")
    assert len(begun) == attempts and [e["step"] for e in begun] == [0, *(e["step"] for e in saved)]
    launched.until_ended()


def test_a_sweep_runs_in_order(launched):
    jobs = [a_job("text"), a_job("entropy", "text"), *[a_job(f"run{i}", "entropy") for i in range(4)]]
    launched.submit(jobs, plan={one.name: {"steps": 5} for one in jobs})
    launched.until_ended()
    done = {e["name"]: e["time"] for e in launched.events("", "done")}
    begun = {e["name"]: e["time"] for e in launched.events("", "begin")}
    assert len(done) == len(launched.events("", "begin")) == 6
    assert done["text"] < begun["entropy"] and done["entropy"] < min(begun[f"run{i}"] for i in range(4))


def test_a_job_that_comes_after_one_that_failed_starts_and_sees_for_itself(launched):
    plan = {"text": {"codes": {"0.0": 3}}, "run": {"steps": 3}}
    launched.submit([a_job("text"), a_job("run", "text")], plan=plan)
    launched.until("run", "done")
    launched.until_ended()
    assert not launched.events("text", "done") and len(launched.events("text", "begin")) == 1


def test_a_limit_holds_over_arrays(launched):
    jobs = [a_job("text"), *[a_job(f"a{i}") for i in range(5)], *[a_job(f"b{i}", "text") for i in range(3)]]
    launched.submit(jobs, limit=2, plan={one.name: {"steps": 8} for one in jobs})
    launched.until_ended()
    changes = [(e["time"], 1 if e["event"] == "begin" else -1) for e in launched.events("", "begin", "done")]
    running = [sum(more for _, more in sorted(changes)[: i + 1]) for i in range(len(changes))]
    assert len(changes) == 18 and max(running) == 2


def test_requeued_by_slurm(launched):
    (number,) = launched.submit([a_job("run")], plan={"run": {"steps": 30}})
    launched.until("run", "begin")
    time.sleep(0.5)
    slurm_cluster.command("scontrol", "requeue", slurm.element(number, 0))
    launched.until("run", "saved")
    there = {number, slurm.element(number, 0)}
    assert slurm.alive([*there, "99999"], None) == there
    goes_on(launched, "run")


@pytest.mark.parametrize("how", [("--signal=TERM",), ("--signal=USR1", "--batch")])
def test_asked_to_stop(launched, how):
    (number,) = launched.submit([a_job("other"), a_job("run")], plan={"run": {"steps": 30}})
    launched.until("run", "begin")
    slurm_cluster.command("scancel", *how, slurm.element(number, 1))
    goes_on(launched, "run")
    assert len(launched.events("other", "begin")) == 1


def test_preempted(launched):
    launched.submit([a_job("run")], plan={"run": {"steps": 40}}, options="--exclusive")
    launched.until("run", "begin")
    urgent = ("--partition=urgent", "--exclusive", "--nodes=2", "--output=/dev/null", "--wrap=sleep 1")
    slurm_cluster.command("sbatch", *urgent)
    goes_on(launched, "run")


def test_asked_together_with_srun(launched):
    """srun takes TERM for the end and has the processes killed: they go on from what they had."""
    (number,) = launched.submit([a_job("run")], plan={"run": {"steps": 30}})
    launched.until("run", "begin")
    time.sleep(1)
    slurm_cluster.command("scancel", "--signal=TERM", "--full", number)
    assert launched.until("run", "begin", 2)["step"] >= 5
    launched.until("run", "done")


def test_asked_many_times(launched):
    """More often than Slurm restarts a job by itself (max_batch_requeue, 5)."""
    (number,) = launched.submit([a_job("run")], plan={"run": {"steps": 80}})
    for attempt in range(1, 7):
        launched.until("run", "begin", attempt)
        slurm_cluster.command("scancel", "--signal=TERM", slurm.element(number, 0))
    goes_on(launched, "run", attempts=7)


def test_stops_by_itself_and_fails_by_itself(launched):
    plan = {"again": {"codes": {"0.0": 42, "1.0": 42}, "steps": 30}, "fails": {"codes": {"0.0": 3}}}
    (number,) = launched.submit([a_job("again"), a_job("fails")], plan=plan)
    goes_on(launched, "again", attempts=3)
    assert len(launched.events("fails", "begin")) == 1 and not launched.events("fails", "done")


def test_killed_it_stays_dead_until_the_next_launch_and_then_goes_on(launched):
    launched.submit([a_job("run")], plan={"run": {"steps": 30}})
    launched.until("run", "begin")
    time.sleep(1)
    os.kill(launched.events("run", "begin")[0]["pid"], signal.SIGKILL)
    launched.until_ended()
    assert len(launched.events("run", "begin")) == 1
    launched.submit([a_job("run")])
    assert launched.until("run", "begin", 2)["step"] >= 5
    launched.until("run", "done")


def test_cancelled_by_the_user_it_does_not_come_back(launched):
    (number,) = launched.submit([a_job("run")], plan={"run": {"steps": 100}})
    launched.until("run", "begin")
    slurm_cluster.command("scancel", number)
    launched.until("run", "saved")
    launched.until_ended()


def test_cancel_lets_them_save_and_starts_no_other(launched):
    jobs = [a_job(f"run{i}") for i in range(4)] + [a_job("after", "run0")]
    # longer than Slurm's KillWait
    plan = {one.name: {"steps": 300, "saving": {"0": 13}} for one in jobs}
    numbers = launched.submit(jobs, limit=2, plan=plan)
    launched.until("run0", "begin")
    launched.until("run1", "begin")
    slurm.cancel(numbers, None)
    launched.until_ended()
    assert {e["name"] for e in launched.events("", "saved")} == {"run0", "run1"}
    assert {e["name"] for e in launched.events("", "begin")} == {"run0", "run1"}
    slurm.cancel(numbers, None)  # there is nothing: no error


def test_cancel_of_what_was_queued_again(launched):
    (number,) = launched.submit([a_job("run")], plan={"run": {"steps": 300}})
    launched.until("run", "begin")
    slurm_cluster.command("scancel", "--signal=TERM", slurm.element(number, 0))
    launched.until("run", "saved")
    slurm.cancel([number], None)
    launched.until_ended()
    assert len(launched.events("run", "begin")) == 1


def test_cancel_of_one_of_an_array(launched):
    plan = {"a": {"steps": 40}, "b": {"steps": 300}}
    (number,) = launched.submit([a_job("a"), a_job("b")], plan=plan)
    launched.until("b", "begin")
    slurm.cancel([slurm.element(number, 1)], None)
    launched.until("b", "saved")
    left = {number, slurm.element(number, 0)}
    until(lambda: slurm.alive([*left, slurm.element(number, 1)], None) == left)
    goes_on(launched, "a", attempts=1)


def test_warned_before_the_time_limit(launched):
    launched.submit([a_job("run")], plan={"run": {"steps": 700}}, time="1", warning=30)
    begun = launched.until("run", "begin")["time"]
    assert launched.until("run", "saved", seconds=90)["time"] < begun + 60
    launched.until("run", "begin", 2)
    assert launched.events("run", "saved")[0]["step"] == launched.events("run", "begin")[1]["step"] > 0


def test_a_node_goes_down_and_comes_back(launched, nodes):
    launched.submit([a_job("run")], plan={"run": {"steps": 60}})
    node = launched.until("run", "begin")["node"]
    try:
        time.sleep(1)
        slurm_cluster.command("scontrol", "update", f"NodeName={node}", "State=down", "Reason=test")
        launched.until("run", "begin", 2)
    finally:
        # refused where it came back by itself
        slurm_cluster.command("scontrol", "update", f"NodeName={node}", "State=resume", check=False)
    launched.until("run", "done")
    begun, ended = launched.events("run", "begin"), launched.events("run", "saved", "done")
    assert [b["time"] > e["time"] for b, e in zip(begun[1:], ended)] == [True]  # never two at once


def test_several_processes_find_their_place_and_save_together(launched):
    plan = {"run": {"steps": 40, "saving": {"1": 2}}}  # one of them takes longer
    (number,) = launched.submit([a_job("run", topology="h100:16")], plan=plan, gres="none")
    launched.until("run", "begin", 2)
    slurm_cluster.command("scancel", "--signal=TERM", slurm.element(number, 0))
    launched.until("run", "done", 2)
    launched.until_ended()
    assert sorted(e["process"] for e in launched.events("run", "saved")) == [0, 1]
    begun = launched.events("run", "begin")
    places = [slurm.place(e["environ"]) for e in sorted(begun, key=lambda e: (e["attempt"], e["process"]))]
    assert [place[1:] for place in places] == [(2, 0), (2, 1)] * 2
    assert {e["node"] for e in begun if e["attempt"] == 0} == {"node0", "node1"}
    coordinators = [place[0] for place in places]
    assert coordinators[0] == coordinators[1] != coordinators[2] == coordinators[3]


def test_one_of_several_processes_fails_and_the_others_end(launched):
    plan = {"run": {"steps": 600, "codes": {"0.1": 3}}}
    launched.submit([a_job("run", topology="h100:16")], plan=plan, gres="none")
    launched.until("run", "begin", 2)
    launched.until_ended(seconds=40)
    assert not launched.events("run", "done") and len(launched.events("run", "begin")) == 2


def test_a_submission_whose_number_was_lost_is_found(launched):
    jobs = [a_job("run")]
    chosen = slurm.Settings(python=launched.python)
    (step,) = slurm.steps(launched.folder, jobs, chosen, 0)
    assert slurm.found(step.name, chosen) == ""
    (number,) = launched.submit(jobs, plan={"run": {"steps": 10}})
    assert slurm.found(step.name, chosen) == number
    launched.until_ended()
    assert slurm.found(step.name, chosen) == ""


def test_two_submit_at_once(launched):
    (launched.folder / "plan.json").write_text(json.dumps({f"run{i}": {"steps": 3} for i in range(8)}))
    chosen = slurm.Settings(python=launched.python)
    made = [slurm.steps(launched.folder, [a_job(f"run{i}")], chosen, 0)[0] for i in range(8)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        numbers = list(pool.map(lambda step: slurm.submit(step, {}, chosen), made))
    launched.ids = {step.name: number for step, number in zip(made, numbers)}
    assert len(set(numbers)) == 8
    launched.until_ended()
    assert sorted(e["name"] for e in launched.events("", "done")) == [f"run{i}" for i in range(8)]


def test_what_slurm_refuses_is_one_line(launched):
    with pytest.raises(UserError, match="Invalid partition name specified") as error:
        launched.submit([a_job("run")], partition="nowhere")
    assert len(str(error.value).splitlines()) == 1


def test_a_controller_that_does_not_answer_is_not_an_empty_queue(launched, monkeypatch, tmp_path):
    text = pathlib.Path(os.environ["SLURM_CONF"]).read_text()
    conf = tmp_path / "slurm.conf"
    conf.write_text("".join(line for line in text.splitlines(True) if "SlurmctldPort" not in line))
    with conf.open("a") as file:
        file.write("SlurmctldPort=1\nMessageTimeout=2\n")
    monkeypatch.setenv("SLURM_CONF", str(conf))
    for call in (lambda: slurm.alive(["1"], None), lambda: slurm.found("name", None)):
        with pytest.raises(UserError, match="does not say"):
            call()
