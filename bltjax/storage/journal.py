"""A job's journal in a store: what its directory holds, and who may say so.

    JOB/log/000042      an entry: which files the directory has now, and who holds the job (or nobody)
    JOB/alive/000040    written again and again by whoever took the job with entry 40

The newest entry counts. An entry is created only where none is, so that the right to write is no more than
that the next number is still free: whoever takes a job over makes the next entry, and one who was thought
dead finds its number taken, is told so (Lost), and nothing that it wrote is in an entry. Entries are never
removed. No clocks are compared: a holder counts as gone when its sign of life did not change for TTL seconds
of the taker's own clock, and gives up by itself when it could not give one for half of that."""

import dataclasses
import json
import secrets

from bltjax.errors import Interrupted
from bltjax.storage.locks import Busy
from bltjax.storage.store import Store, Unreachable

SCHEMA = 1
TTL = 300.0  # seconds without a sign of life after which a job is taken over
EVERY_SECONDS = 20.0  # between two signs of life
LOOK_SECONDS = 10.0  # between two looks of who waits


class Lost(Interrupted):
    """Another process took the job over."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """number: 0: there is none yet. by: who wrote it. holder: who holds the job from then on; "": nobody.
    taken: the entry with which that one took it. files: {path relative to the job's directory: {"bytes",
    "sha256", "at": its object, relative to the job's folder in the store}}."""

    number: int = 0
    by: str = ""
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
        found = self._read(after) if after else None
        if found is None:
            names = self.store.list(f"{self.folder}/log/")
            number = max((int(name.rpartition("/")[2]) for name in names), default=0)
            found = number and self._read(number) or Entry()
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
        return Entry(number, said["by"], said["holder"], said["taken"], said["files"])

    def add(self, last: Entry, files: dict) -> Entry | None:
        """The same of who does not hold the job, where nobody does: other files; None: another was first."""
        try:
            return self.append(last, secrets.token_hex(8), "", files)
        except Lost:
            return None

    def append(self, last: Entry, by: str, holder: str, files: dict, taken: int = 0) -> Entry:
        """The entry behind the last one. by: who writes it, a word that nobody else has. taken: 0: with this
        one. Raises Lost where another stands there."""
        number = last.number + 1
        entry = Entry(number, by, holder, (taken or number) if holder else 0, files)
        said = {"schema": SCHEMA, "time": self.store.clock.wall(), **vars(entry)}
        if not self.store.create(self._name(number), (json.dumps(said) + "\n").encode()):
            raise Lost(f"another process wrote entry {number} of {self.folder}")
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
    """A job that this process holds: it alone may write entries. found: the entry behind which it took the
    job. A thread of its own gives signs of life; whoever publishes does so one after the other."""

    def __init__(self, journal: Journal, me: str, found: Entry, entry: Entry, since: float):
        self.journal, self.me, self.found, self.entry, self.taken = journal, me, found, entry, entry.number
        self._clock, self._beats, self._since = journal.store.clock, 0, since
        self.lost = False

    def publish(self, files: dict, release: bool = False) -> Entry:
        """The next entry. release: and nobody holds the job any more. Raises Lost."""
        holder = "" if release else self.me
        while not self.lost:
            try:
                self.entry = self.journal.append(self.entry, self.me, holder, files, self.taken)
                return self.entry
            except Lost:
                later = self.journal.newest(after=self.entry.number)
                if later.by == self.me:  # written by a call that was given up
                    self.entry = later
                else:
                    self.lost = True
        raise Lost(f"another process took {self.journal.folder} over; what it holds stands there")

    def beat(self, **facts) -> bool:
        """A sign of life, with facts for others to see; whether nobody took the job over, as far as known."""
        began = self._clock.monotonic()
        self._beats += 1
        said = {"beat": self._beats, "time": self._clock.wall(), **facts}
        journal = self.journal
        try:
            journal.store.put(f"{journal.folder}/alive/{self.taken:06}", json.dumps(said).encode())
            later = journal._read(self.entry.number + 1)
            if later and later.by != self.me:
                self.lost = True
            else:
                self._since = began
        except Unreachable:
            pass
        return not self.lost

    @property
    def silent(self) -> bool:
        """Whether the store took no sign of life for so long that another may soon believe this process
        dead."""
        return self._clock.monotonic() - self._since > TTL / 2


def take(journal: Journal, me: str, wait: float = 0.0, gone: str = "") -> Lease | None:
    """Holds a job; None where it is done. me: a word that no other process has. wait: seconds for whoever
    holds it to end, or to be gone for TTL; Busy once they are over. gone: with what the words of processes
    begin that are known to have ended; "": none is known."""
    clock = journal.store.clock
    began = since = clock.monotonic()
    entry, seen = journal.newest(), None
    while not entry.done:
        ended = not entry.holder or bool(gone) and entry.holder.startswith(gone)
        looked = clock.monotonic()  # before the look: this process may be stopped behind it, for long
        if not ended and (now := (entry.number, journal.alive(entry))) != seen:
            seen, since = now, clock.monotonic()
        if ended or looked - since > TTL:
            try:
                return Lease(journal, me, entry, journal.append(entry, me, me, entry.files), looked)
            except Lost:
                pass  # to another that waited, or the holder lives
        elif clock.monotonic() - began >= wait:
            raise Busy(f"{journal.folder} is being worked on by {entry.holder}")
        else:
            clock.sleep(LOOK_SECONDS)
        entry = journal.newest(after=entry.number)
    return None
