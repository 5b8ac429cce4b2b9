"""A run that hangs says where, ends, and goes on when it is started again; one that is only slow is left
alone."""

import os
import pathlib
import subprocess
import sys
import time

from tiny_run import STEPS, run

from bltjax.storage import rundir
from bltjax.training import checkpoint, metrics, watchdog

HERE = pathlib.Path(__file__).parent
HANGS = """
import sys, threading
import tiny_run
from bltjax.training import watchdog
watchdog.SHORTEST, watchdog.TICK = 0.5, 0.05
forever = threading.Event().wait
tiny_run.run(sys.argv[1], rows=tiny_run.FailingAt(int(sys.argv[2]), forever))
"""


def test_a_step_that_hangs_ends_the_run_and_it_goes_on(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-c", HANGS, str(tmp_path / "a"), "20"],
        env={**os.environ, "PYTHONPATH": f"{HERE}:{HERE.parent}"},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    assert ended.returncode == 42 and "Traceback" not in ended.stderr, ended.stderr
    (note,) = rundir.notes(tmp_path / "a")
    assert "hangs after step 18" in note and "the median is" in note and note in ended.stderr
    log = (tmp_path / "a" / "log.txt").read_text(encoding="utf-8")
    assert "most recent call first" in log and "tiny_run.py" in log and "in iterator" in log
    assert checkpoint.newest_whole(tmp_path / "a") == 18
    run(tmp_path / "a")
    run(tmp_path / "b")
    same = lambda line: {k: v for k, v in line.items() if k not in metrics.WALL_CLOCK}
    first, second = (map(same, metrics.read(tmp_path / name / "metrics.jsonl")) for name in "ab")
    assert list(first) == list(second) and checkpoint.newest_whole(tmp_path / "a") == STEPS


def test_what_is_no_step_has_an_hour_and_is_in_no_median(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(watchdog.time, "monotonic", lambda: now[0])
    dog = watchdog.Watchdog(tmp_path, 0, None)  # no thread
    dog._factor = 10.0
    assert dog.limit() == watchdog.LONGEST  # it compiles
    for step in range(1, 4 + watchdog.LEAST):
        now[0] += 500.0 if step == 1 else 20.0
        dog.beat(step)
        if step == 3:
            with dog.slow():
                assert dog.limit() == watchdog.LONGEST
                now[0] += 3000.0
    assert dog.limit() == 200.0  # ten times 20 s
    dog._seconds.extend([0.1] * watchdog.REMEMBERED)
    assert dog.limit() == watchdog.SHORTEST
    monkeypatch.undo()
    assert time.monotonic() > 0


def test_a_process_that_was_stopped_did_not_hang(tmp_path, monkeypatch):
    """Its clock went on, its thread did not: a tick that comes late counts as one."""
    clock, waits = [0.0], iter([False] * 5 + [True])
    monkeypatch.setattr(watchdog.time, "monotonic", lambda: clock[0])
    dog = watchdog.Watchdog(tmp_path, 0, None)
    dog._end = lambda: (_ for _ in ()).throw(AssertionError("it ended the process"))

    def wait(seconds):
        clock[0] += 10_000.0
        return next(waits)

    dog._ended.wait = wait
    dog._watch()
    assert dog._spent == 5 * 2 * watchdog.TICK
