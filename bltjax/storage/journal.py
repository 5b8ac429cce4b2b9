"""A job's journal in a store: what its directory holds, and who may say so.

    JOB/log/000042      an entry: which files the directory has now, and who holds the job (or nobody)
    JOB/alive/000040    written again and again by whoever took the job with entry 40

The newest entry counts. An entry is created only where none is, so that the right to write is no more than that
the next number is still free: whoever takes a job over makes the next entry, and one who was thought dead finds
its number taken, is told so (Lost), and nothing that it wrote is in an entry. Entries are never removed. No
clocks are compared: a holder counts as gone when its sign of life did not change for TTL seconds of the taker's
own clock, and gives up by itself when it could not give one for half of that."""

import dataclasses
import json
import threading

from bltjax.errors import Interrupted
from bltjax.storage.locks import Busy
from bltjax.storage.store import Store, Unreachable

SCHEMA = 1
TTL = 180.0  # seconds without a sign of life after which a job is taken over
EVERY_SECONDS = 20.0  # between two signs of life
LOOK_SECONDS = 5.0  # between two looks of who waits


class Lost(Interrupted):
    """Another process took the job over."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """number: 0: there is none yet. holder: who holds the job; "": nobody. taken: the entry with which that
    one took it. files: {path relative to the job's directory: {"bytes", "sha256", "at": its object, relative
    to the job's folder in the store}}."""

    number: int = 0
    holder: str = ""
    taken: int = 0
    files: dict = dataclasses.field(default_factory=dict)

    @property
    def done(self) -> bool:
        return "done.json" in self.files


class Journal:
    """The journal of the job in a folder of a store."""

    def __init__(self, store: Store, folder: str):
        self.store, self.folder = store, folder

    def newest(self, after: int = 0) -> Entry:
        """The newest entry. after: the number of one that is known; 0: the store is asked what there is.

        A listing is no more than where to begin to look: it may be old, and entries have no gaps."""
        number = after
        if not after:
            names = self.store.list(f"{self.folder}/log/")
            number = max((int(name.rpartition("/")[2]) for name in names), default=0)
        found = self._read(number) if number else Entry()
        while (later := self._read(found.number + 1)) is not None:
            found = later
        return found

    def _name(self, number: int) -> str:
        return f"{self.folder}/log/{number:06}"

    def _read(self, number: int) -> Entry | None:
        data = self.store.find(self._name(number))
        if data is None:
            return None
        said = json.loads(data)
        return Entry(number, said["holder"], said["taken"], said["files"])

    def append(self, last: Entry, by: str, holder: str, files: dict, taken: int = 0) -> Entry:
        """The entry behind the last one. by: who writes it, a word that nobody else has. taken: 0: with this
        one. Raises Lost where another stands there."""
        number = last.number + 1
        entry = Entry(number, holder, (taken or number) if holder else 0, files)
        said = {"schema": SCHEMA, "by": by, "time": self.store.clock.wall(), **dataclasses.asdict(entry)}
        if not self.store.create(self._name(number), (json.dumps(said) + "\n").encode()):
            raise Lost(f"another process took {self.folder} over; what it holds stands there")
        return entry

    def alive(self, entry: Entry) -> bytes | None:
        """The last sign of life of whoever holds the job by an entry; None: there was none yet."""
        return self.store.find(f"{self.folder}/alive/{entry.taken:06}")

    def seen(self, entry: Entry) -> dict:
        """The same as what it says: "time", and whatever its holder wants others to see; {} for none."""
        try:
            said = json.loads(self.alive(entry) or b"{}")
        except ValueError:  # half of it is there
            return {}
        return said if isinstance(said, dict) else {}


class Lease:
    """A job that this process holds: it alone may write entries. Used by two threads, one of which gives the
    signs of life."""

    def __init__(self, journal: Journal, me: str, entry: Entry):
        self.journal, self.me, self.entry = journal, me, entry
        self._clock, self._one, self._beats = journal.store.clock, threading.Lock(), 0
        self._since = self._clock.monotonic()
        self.lost = False

    def publish(self, files: dict, release: bool = False) -> Entry:
        """The next entry. release: and nobody holds the job any more. Raises Lost."""
        with self._one:
            if self.lost:
                raise Lost(f"another process took {self.journal.folder} over")
            try:
                holder = "" if release else self.me
                self.entry = self.journal.append(self.entry, self.me, holder, files, self.entry.taken)
            except Lost:
                self.lost = True
                raise
            return self.entry

    def beat(self, **facts) -> bool:
        """A sign of life, with facts for others to see; whether the job is still held. Not, too, where the
        store did not answer for so long that another may believe this process dead."""
        began = self._clock.monotonic()
        self._beats += 1
        said = {"beat": self._beats, "time": self._clock.wall(), **facts}
        journal = self.journal
        try:
            journal.store.put(f"{journal.folder}/alive/{self.entry.taken:06}", json.dumps(said).encode())
            last = self.entry
            later = journal._read(last.number + 1)
            if later and later.holder and later.taken != last.taken:
                self.lost = True
            else:
                self._since = began
        except Unreachable:
            pass
        self.lost = self.lost or self._clock.monotonic() - self._since > TTL / 2
        return not self.lost


def take(journal: Journal, me: str, wait: float = 0.0, gone: str = "") -> Lease | None:
    """Holds a job; None where it is done. me: a word that no other process has. wait: seconds for whoever
    holds it to end, or to be gone for TTL; Busy once they are over. gone: with what the words of processes
    begin that are known to have ended; "": none is known."""
    clock = journal.store.clock
    began = since = clock.monotonic()
    entry, seen = journal.newest(), None
    while True:
        if entry.done:
            return None
        ended = not entry.holder or bool(gone) and entry.holder.startswith(gone)
        if not ended and (now := (entry.number, journal.alive(entry))) != seen:
            seen, since = now, clock.monotonic()
        if ended or clock.monotonic() - since > TTL:
            try:
                return Lease(journal, me, journal.append(entry, me, me, entry.files))
            except Lost:
                since = clock.monotonic()
        elif clock.monotonic() - began >= wait:
            raise Busy(f"{journal.folder} is being worked on by {entry.holder}")
        else:
            clock.sleep(LOOK_SECONDS)
        entry = journal.newest(after=entry.number)
