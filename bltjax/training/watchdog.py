"""Ends a run that hangs: a device that no longer answers, a collective that waits for a process that is gone,
a file system that does not come back. Nothing in the main thread can; the last checkpoint stands, and the
exit status has the run started again (bltjax/exit_codes.py)."""

import collections
import contextlib
import faulthandler
import os
import statistics
import threading
import time

from bltjax import exit_codes
from bltjax.parallel import distributed
from bltjax.storage import rundir

SHORTEST = 60.0  # seconds that any step may take
LONGEST = 3600.0  # seconds for all else: a step that compiles, a checkpoint, scores
LEAST, REMEMBERED = 5, 101  # steps before a median is one; steps that it is of
LAST_TRY = 60.0  # seconds for a checkpoint that is being written
TICK = 1.0


class Watchdog:
    """Looks at the steps of a loop from a thread of its own. factor: a step of so many times the median of
    the last ones, and of SHORTEST seconds at least, ends the process; 0: none does.

    last_try(): what is waited for, LAST_TRY seconds long, before that."""

    def __init__(self, run_dir, factor: float, last_try):
        self._run_dir, self._factor, self._last_try = run_dir, factor, last_try
        self._seconds = collections.deque(maxlen=REMEMBERED)
        self._spent, self._step, self._plain, self._began = 0.0, 0, False, time.monotonic()
        self._ended = threading.Event()
        if factor:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def beat(self, step: int) -> None:
        """A step has ended, and the next one begins."""
        now = time.monotonic()
        if self._plain:
            self._seconds.append(now - self._began)
        self._step, self._began, self._spent, self._plain = step, now, 0.0, True

    @contextlib.contextmanager
    def slow(self):
        """While the loop does what is no step; the time goes into no median."""
        self._spent, self._plain = 0.0, False
        yield
        self._spent = 0.0

    def limit(self) -> float:
        """Seconds that what is being done now may take."""
        if not self._plain or len(self._seconds) < LEAST:
            return LONGEST
        return max(SHORTEST, self._factor * statistics.median(self._seconds))

    def close(self) -> None:
        self._ended.set()

    def _watch(self) -> None:
        before = time.monotonic()
        while not self._ended.wait(TICK):
            now = time.monotonic()
            # a process that was stopped (Ctrl-Z, a suspended job) was not hanging
            self._spent += min(now - before, 2 * TICK)
            before = now
            if self._spent > self.limit():
                self._end()

    def _end(self) -> None:
        usual = f", the median is {statistics.median(self._seconds):.3g} s" if self._seconds else ""
        line = (
            f"hangs after step {self._step}: {self._spent:.0f} s without an end{usual}; stopped, run again to"
            " resume (where its threads are: log.txt)"
        )
        path = os.path.join(self._run_dir, "log.txt")
        with contextlib.suppress(OSError), open(path, "a", encoding="utf-8") as log:
            log.write(f"{line}\n")
            log.flush()
            faulthandler.dump_traceback(log, all_threads=True)
        with contextlib.suppress(OSError):
            rundir.note(self._run_dir, line)
        trying = threading.Thread(target=self._last_try, daemon=True)
        trying.start()
        trying.join(LAST_TRY)
        distributed.leave(exit_codes.STOPPED)
        os._exit(exit_codes.STOPPED)
