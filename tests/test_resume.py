"""A run that is killed, again and again, ends as one that was not: the same lines, the same parameters, bit
for bit."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from tiny_run import STEPS

from bltjax.training import checkpoint, metrics

HERE = pathlib.Path(__file__).parent


def start(run_dir, *options):
    env = {**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "PYTHONPATH": str(HERE.parent)}
    return subprocess.Popen(
        [sys.executable, str(HERE / "tiny_run.py"), str(run_dir), *options],
        env=env,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(run_dir):
    process = start(run_dir)
    err = process.communicate(timeout=300)[1]
    assert process.returncode == 0, err
    return err


def lines(run_dir):
    return [
        {k: v for k, v in line.items() if k not in metrics.WALL_CLOCK}
        for line in metrics.read(run_dir / "metrics.jsonl")
    ]


def kill_at_line(run_dir, number, delay):
    """SIGKILL once so many lines are there, and a moment later at that."""
    process = start(run_dir)
    while len(lines(run_dir)) < number and process.poll() is None:
        time.sleep(0.002)
    time.sleep(delay)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "the run ended before it was killed"


def kill_itself(run_dir, option):
    process = start(run_dir, option)
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL


def same(a, b):
    assert [line["step"] for line in lines(a)] == list(range(1, STEPS + 1)) and lines(a) == lines(b)
    assert jax.tree.all(jax.tree.map(np.array_equal, checkpoint.load_params(a), checkpoint.load_params(b)))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("whole")
    finish(run_dir)
    return run_dir


def test_killed_while_a_checkpoint_is_written(tmp_path, uninterrupted):
    kill_itself(tmp_path, "--die-in-save=12")
    assert checkpoint.steps(tmp_path) == [6] and lines(tmp_path)[-1]["step"] == 12
    kill_itself(tmp_path, "--die-before-manifest=18")
    assert checkpoint.steps(tmp_path) in ([6, 12], [12]) and checkpoint.unfinished(tmp_path) == [18]
    assert "checkpoint 18" in finish(tmp_path)
    same(tmp_path, uninterrupted)


@pytest.mark.slow
def test_killed_at_three_random_moments(tmp_path, uninterrupted):
    for low, high in ((1, 8), (8, 16), (16, 23)):
        kill_at_line(tmp_path, random.randint(low, high), random.uniform(0, 0.05))
    finish(tmp_path)
    same(tmp_path, uninterrupted)


def test_terminated_saves_and_says_so_in_one_line(tmp_path, uninterrupted):
    process = start(tmp_path)
    while not lines(tmp_path):
        time.sleep(0.002)
    process.terminate()
    err = process.communicate(timeout=120)[1]
    assert (
        process.returncode == 1
        and err.startswith("Interrupted: stopped by SIGTERM after step ")
        and err.count("\n") == 1
    )
    assert checkpoint.newest_whole(tmp_path) == lines(tmp_path)[-1]["step"]
    finish(tmp_path)
    same(tmp_path, uninterrupted)
