"""One process's work on a job whose root lies at a URL: the job is held, what it reads is here, and what it
makes is published."""

import contextlib
import secrets
import threading

from bltjax.errors import UserError
from bltjax.storage import journal, locks, rundir
from bltjax.storage.mirror import Root
from bltjax.storage.store import Unreachable


def thread(live) -> None:
    threading.Thread(target=live, daemon=True).start()


class Work:
    """A context in which a job's directory is this process's, which holds its local lock already; what the
    block leaves there is published when it ends, however it does. Of a job that is done it holds nothing.

    needs: directories of the jobs whose outputs it reads. wait: seconds for another process to end (Busy).
    lost: called, in a thread, once another has taken the job over, or may do so soon. beside(): folders
    elsewhere that the job has written to. start(live): begins a thread. Entering raises UserError for a need
    that is not done; both ends raise what journal.py says."""

    def __init__(
        self, root: Root, directory, needs=(), wait=0.0, lost=lambda: None, beside=lambda: (), start=thread
    ):
        self.root, self.directory, self.needs, self.wait = root, root.directory(directory), needs, wait
        self.lost, self._beside, self._start = lost, beside, start
        self.lease, self._over, self._wait = None, threading.Event(), root.store.clock.wait

    def __enter__(self) -> "Work":
        here, mine = self.directory, f"{self.root.machine}/"
        # whoever of this machine held the job has ended: the local lock is ours
        self.lease = journal.take(here.journal, mine + secrets.token_hex(8), self.wait, gone=mine)
        if self.lease is None:
            here.pull()
            return self
        self._start(self._live)
        self._start(self._watch)
        try:
            found = self.lease.found
            if found.holder.startswith(mine) and here.here == (found.number, True):
                here.mark(self.lease.entry)  # it ended without a word, and what it had is still here
            else:
                here.pull(self.lease.entry)
            (here.local / locks.HELD).unlink(missing_ok=True)
            for need in self.needs:
                self._read(need)
            here.sweep(self.lease.entry)
        except BaseException:
            self._over.set()
            with contextlib.suppress(Unreachable, journal.Lost):
                self.lease.publish(self.lease.entry.files, release=True)
            raise
        return self

    def _read(self, need) -> None:
        needed = self.root.directory(need)
        with locks.held(needed.local / ".lock"):
            if not needed.pull().done:
                raise UserError(f"{self.directory.name} needs {needed.name}, which is not done")

    def _live(self) -> None:
        while not self._wait(self._over, journal.EVERY_SECONDS):
            if not self.lease.beat(metrics=rundir.last_metrics(self.directory.local)):
                return self._end()

    def _watch(self) -> None:
        """Apart from the signs of life: a call that hangs says nothing."""
        while not self._wait(self._over, journal.TTL / 10):
            if self.lease.silent:
                return self._end()

    def _end(self) -> None:
        if not self._over.is_set():
            self._over.set()
            self.lost()

    def publish(self) -> None:
        """What is there now. Raises Lost and Unreachable."""
        if self.lease:
            self.directory.publish(self.lease)

    def checkpoint(self, step: int) -> None:
        """The same once a checkpoint is whole. A store that is away is no reason to stop, as long as the job
        is held."""
        try:
            self.publish()
        except Unreachable as error:
            rundir.note(self.directory.local, str(error))

    def __exit__(self, kind, error, trace) -> None:
        self._over.set()
        if self.lease and not isinstance(error, journal.Lost):
            self.directory.publish(self.lease, release=True, beside=self._beside())
            self.directory.sweep(self.lease.entry)
