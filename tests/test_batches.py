"""Batches of prepared data are the same whoever fills them, and from wherever they are taken up again."""

import collections
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import hash_batches
import jax
import numpy as np
import pytest
from test_distributed import free_port

from bltjax import config as cfg
from bltjax import models
from bltjax.data import prepare
from bltjax.entropy import store

HERE = pathlib.Path(__file__).parent
STEPS = 500


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Text with entropies, of which 500 batches are two epochs and some."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    letters = np.frombuffer(b"etaoin shrdlu\n", np.uint8)
    lines = (
        json.dumps({"text": rng.choice(letters, n).tobytes().decode() + f" {i}"})
        for i, n in enumerate(rng.integers(40, 4000, 220))
    )
    (folder / "a.jsonl").write_text("\n".join(lines))
    settings = cfg.replace(
        cfg.data(), source="files", globs=(str(folder / "a.jsonl"),), test=0.05, validation=0.05
    )
    prepare.prepare(settings, folder / "out", shard_count=3)
    lm = cfg.transformer("byte", vocab=260, width=16, layers=1, heads=2, window=64)
    store.make(folder / "out", lm, jax.tree.map(lambda x: 8 * x, models.init(lm, jax.random.key(0))))
    return folder / "out"


def leg(data, folder, start, until, processes, threads):
    """Runs from a step on; killed when `until` steps are there, or to the end. The next step that all
    processes have not yet written."""
    where = f"127.0.0.1:{free_port()}" if processes > 1 else ""
    logs = [folder / f"{start}-{processes}-{i}.log" for i in range(processes)]
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE}"}
    running = [
        subprocess.Popen(
            [
                sys.executable,
                HERE / "hash_batches.py",
                data,
                folder / "plans",
                log,
                *map(str, (start, STEPS, threads, processes, i)),
                where,
            ],
            env=env,
        )
        for i, log in enumerate(logs)
    ]
    done = lambda: min(log.read_text().count("\n") if log.exists() else 0 for log in logs)
    while until and start + done() < until and any(process.poll() is None for process in running):
        time.sleep(0.01)
    if until:
        for process in running:
            process.send_signal(signal.SIGKILL)
    codes = [process.wait(timeout=300) for process in running]
    assert until or codes == [0] * processes
    return start + done()


def written(folder):
    """{(step, row): the hashes that were written of it}."""
    found = collections.defaultdict(set)
    for log in folder.glob("*.log"):
        for line in log.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                step, rows = json.loads(line)
                for row, digest in rows.items():
                    found[step, int(row)].add(digest)
    return found


def test_threads_fill_the_same_batches(data):
    rows = hash_batches.rows(data, None)
    for one, three in zip(rows.iterator(3, 40, None, 1), rows.iterator(3, 40, None, 3), strict=True):
        assert all(np.array_equal(one[name], three[name]) for name in one)


@pytest.mark.slow
def test_killed_at_random_steps_and_on_other_numbers_of_processes(data, tmp_path, capsys):
    rng = random.Random(time.time_ns())
    # on one process, two and four, in any order; then undisturbed on four for a third of the steps and more
    kills = sorted(rng.sample(range(1, 2 * STEPS // 3), 3))
    killed = [(kill, n, rng.choice([1, 2, 3])) for kill, n in zip(kills, rng.sample([1, 2, 4], 3))]
    for name, legs in (("whole", [(STEPS, 1, 1)]), ("killed", [*killed, (0, 4, rng.choice([1, 2]))])):
        folder, at = tmp_path / name, 0
        folder.mkdir()
        for until, processes, threads in legs:
            if at < STEPS:
                at = leg(data, folder, at, until if until < STEPS else 0, processes, threads)
        with capsys.disabled():
            print(f"{name}: {legs}", end="; ")
    whole = written(tmp_path / "whole")
    assert sorted(whole) == [(step, row) for step in range(STEPS) for row in range(8)] and all(
        len(one) == 1 for one in whole.values()
    )
    # in another epoch a long document may be cut where it was cut before
    assert len(set.union(*whole.values())) > 0.4 * len(whole)
    assert written(tmp_path / "killed") == whole
