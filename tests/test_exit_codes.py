"""How commands end that are asked to stop: every signal saves, and all end with the status that has them
started again (bltjax/exit_codes.py)."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

from bltjax import exit_codes
from bltjax.parallel import stopping
from bltjax.sweep import graph, runner
from bltjax.training import checkpoint, metrics

HERE = pathlib.Path(__file__).parent
TINY = HERE / "tiny_experiment.py"
STEPS = 1500  # more than a test waits for


# a test may run under nohup, or in the background of a script
DEAF_TO_NOTHING = """
import os, signal, sys
for name in ("SIGHUP", "SIGINT"):
    signal.signal(getattr(signal, name), signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def start(*command, **options):
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(HERE.parent)}
    words = [sys.executable, "-c", DEAF_TO_NOTHING, *map(str, command)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8"}
    return subprocess.Popen(words, env=env, **{**streams, **options})


def end(process, seconds=120):
    """(exit status, what it said on standard error)."""
    try:
        said = process.communicate(timeout=seconds)[1]
    finally:
        process.kill()
    return process.returncode, said


def until(condition, process, seconds=200):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    words = (HERE / "test_exit_codes.py").read_text(encoding="utf-8").split()
    for i in range(40):
        text = " ".join(random.Random(i).choices(words, k=60))
        (folder / f"{i}.txt").write_text(text, encoding="utf-8")
    return folder


def train(run_dir, texts, steps=STEPS):
    return start(
        *("-m", "bltjax.cli.main", "train", "--config", TINY, "--run", "bpe", "--run-dir", run_dir),
        *("--set", f'data.globs=["{texts}/*.txt"]', "--set", f"train.steps={steps}"),
    )


def lines(run_dir):
    return len(metrics.read(run_dir / "metrics.jsonl"))


def test_every_signal_saves_and_the_run_goes_on(tmp_path, texts):
    """One run, stopped by each of them in turn: no step is lost."""
    run_dir, done = tmp_path / "e" / "bpe", 0
    for which in stopping.SIGNALS:
        process = train(run_dir, texts)
        until(lambda: lines(run_dir) > done, process)
        process.send_signal(which)
        code, said = end(process)
        assert code == exit_codes.STOPPED == 42
        assert f"stopped by {which.name} after step" in said and "Traceback" not in said
        done = checkpoint.newest_whole(run_dir)
        assert lines(run_dir) == done and not (run_dir / "failed.json").exists()


def test_the_runner_stops_its_workers_and_a_worker_that_stopped_goes_on(tmp_path, texts, capfd):
    """The runner and a worker get the signal, as from a terminal or a scheduler, and the runner passes it
    on: one signal, not two."""
    process = start(
        *("-m", "bltjax.cli.main", "run", TINY, "--only", "bpe", "--root", tmp_path, "--workers", "1"),
        *("--set", f'data.globs=["{texts}/*.txt"]', "--set", f"train.steps={STEPS}"),
        start_new_session=True,
    )
    run_dir = tmp_path / "tiny_experiment" / "bpe"
    until(lambda: run_dir.exists() and lines(run_dir) > 3, process)
    os.killpg(process.pid, signal.SIGUSR1)
    code, said = end(process)
    assert code == 42 and said.endswith("stopped; the same command goes on from the last checkpoints\n")
    assert "after step" in (run_dir / "log.txt").read_text(encoding="utf-8")
    assert lines(run_dir) == checkpoint.newest_whole(run_dir) > 3

    worker = start("-m", "bltjax.run.worker", run_dir, stdin=subprocess.PIPE)
    before = lines(run_dir)
    until(lambda: lines(run_dir) > before, worker)
    worker.send_signal(signal.SIGHUP)
    code, said = end(worker)
    assert code == 42 and "after step" in said  # or by SIGTERM: its standard input ends as well


STUCK = """
import sys, time
from bltjax.cli import main
from bltjax.parallel import stopping
stopping.GRACE = 0.5
def stuck(args):
    print("here", flush=True)
    {}
main.data.prepare = stuck
main.process()
"""
SLEEPS = "time.sleep(600)"
# no handler runs in it, as in a compilation
LOCKED = "import ctypes as c; m = bytes(64); [c.CDLL(None).pthread_mutex_lock(m) for _ in '12']"
SWALLOWS = "\n    while True:\n        try:\n            time.sleep(600)\n        except BaseException: pass"
THREADS = "import threading; threading.Thread(target=time.sleep, args=[600]).start(); time.sleep(600)"
# one who has something to save, and takes long
SAVING = "stopping.claim(stopping.Request()); print(1, flush=True)\n    while True: time.sleep(1)"


def stuck(how):
    process = start("-c", STUCK.format(how), "data", "prepare", "stdlib", "--out", "nowhere")
    process.stdout.readline()
    return process


def saving():
    process = stuck(SAVING)
    process.stdout.readline()
    return process


@pytest.mark.parametrize("how", [SLEEPS, LOCKED, SWALLOWS, THREADS])
@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGUSR2])
def test_where_there_is_nothing_to_save_it_ends_soon(how, which):
    process = stuck(how)
    process.send_signal(which)
    code, said = end(process, 60)
    assert code == 42 and said.startswith(f"bltjax: stopped by {which.name}") and said.count("\n") == 1


def test_the_second_signal_ends_it_at_once():
    process = saving()
    process.send_signal(signal.SIGTERM)
    time.sleep(stopping.TOGETHER + 0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    code, said = end(process, 60)
    assert code == 42 and "second signal" in said


def test_a_warning_is_no_first_signal_and_two_at_once_are_one():
    process = saving()
    process.send_signal(signal.SIGUSR1)
    time.sleep(stopping.TOGETHER + 0.5)
    for which in (signal.SIGTERM, signal.SIGHUP):  # Slurm's stop after its warning
        process.send_signal(which)
    time.sleep(stopping.TOGETHER + 0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert end(process, 60)[0] == 42


def test_nohup_is_respected():
    program = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)" + STUCK.format(SLEEPS)
    process = start("-c", program, "data", "prepare", "stdlib", "--out", "nowhere")
    process.stdout.readline()
    process.send_signal(signal.SIGHUP)
    time.sleep(1.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert end(process, 60)[0] == 42


THREAD = """
import threading
import tiny_run
from bltjax import errors
from bltjax.parallel import stopping
def train():
    try:
        tiny_run.run({!r}, steps=5000, rows=tiny_run.TinyRows(pause=0.02), config=tiny_run.tiny_config())
    except errors.Interrupted as stopped:
        said.append(stopped)
said = []
with stopping.listening():
    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
print(said[0])
stopping.leave(said[0].exit_code)
"""


def test_a_run_in_another_thread_is_asked_too(tmp_path):
    process = start("-c", THREAD.format(str(tmp_path)), cwd=HERE)
    until(lambda: lines(tmp_path) > 2, process)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 42 and "stopped by SIGTERM after step" in said
    assert checkpoint.newest_whole(tmp_path) == lines(tmp_path)


def test_a_job_that_stops_again_and_again_has_failed(tmp_path):
    job = graph.Job("a", "run", tmp_path, ())
    task = runner.Task(job, "running", process=subprocess.Popen(["sh", "-c", "exit 42"]))
    task.process.wait()
    said = []
    display = type("Display", (), {"line": lambda self, text: said.append(text)})()
    for step, states in ((0, "waiting"), (0, "waiting"), (7, "waiting"), (7, "waiting"), (7, "failed")):
        line = {"step": step, "useful_flops": 1.0}
        (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n" if step else "", encoding="utf-8")
        runner.finish(task, display)
        assert task.state == states, said
    assert "ended with status 42" in said[-1]
