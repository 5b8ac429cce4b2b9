"""Directories of a root that lies at a URL, kept on this machine while something works on them.

All code works on local directories; those of a root at a URL stand in a scratch folder here. A job's is
pulled before it is worked on, and published while it runs and when it ends: first the files, each under a
name that no other publication has (JOB/files/ENTRY.TRY/...), then the entry of the job's journal that names
them with their checksums. So a reader has all of a state of a job or none of it, and what one who was thought
dead still writes is named by nobody. What no entry names any more is removed after that.

What `status` and `report` read is small: they pull that alone."""

import contextlib
import hashlib
import json
import os
import pathlib
import secrets

from bltjax.errors import UserError
from bltjax.storage import json_object, locks, rundir
from bltjax.storage import store as stores
from bltjax.storage.atomic import replacing, write_json, write_text
from bltjax.storage.journal import TTL, Entry, Journal, Lease

PULLED = ".pulled.json"  # {"entry": number, "whole": bool}: which state of a directory is here
UNPUBLISHED = (".lock", locks.HELD, PULLED, "log.txt", "tensorboard", "profile")
BESIDE = "entropies-"  # folders in a job's directory that others publish
SMALL, SMALL_BYTES = (".json", ".jsonl", ".txt"), 1 << 26  # suffixes and size of what says how a job stands
CHECKPOINTS, SEALED = "checkpoints", ".manifest.json"  # training/checkpoint.py
AGAIN = 5  # times that a directory is pulled anew where it changed meanwhile
ADDRESS = ".url"  # in the folder that stands for a root: what for
SCRATCH = "BLTJAX_SCRATCH"


def address(folder) -> str:
    """A folder as others find it: its URL where it is one, or stands for one."""
    if stores.is_url(str(folder)):
        return str(folder)
    folder = pathlib.Path(folder)
    for parent in folder.parents:
        if (parent / ADDRESS).exists():
            url = (parent / ADDRESS).read_text(encoding="utf-8")
            return f"{url}/{folder.relative_to(parent).as_posix()}"
    return str(folder)


def scratch() -> pathlib.Path:
    """Where directories of roots at URLs are kept: $BLTJAX_SCRATCH, else bltjax/mirror in the user's
    cache."""
    if said := os.environ.get(SCRATCH):
        return pathlib.Path(said).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base).absolute() / "bltjax" / "mirror"


class Root:
    """A root at a URL, and the folder here that stands for it."""

    def __init__(self, store: stores.Store, local: pathlib.Path):
        self.store, self.local = store, pathlib.Path(os.path.realpath(local))

    @classmethod
    def at(cls, url: str) -> "Root":
        """UserError for a URL that cannot be."""
        url = url.rstrip("/")
        found = cls(stores.opened(url), scratch() / hashlib.sha256(url.encode()).hexdigest()[:12])
        if not (found.local / ADDRESS).exists():
            write_text(found.local / ADDRESS, url)
        return found

    def directory(self, path) -> "Directory":
        """A job's, by its path here or relative to the root."""
        path = pathlib.Path(path)
        return Directory(self, (path.relative_to(self.local) if path.is_absolute() else path).as_posix())

    def jobs(self, folder: str) -> list["Directory"]:
        """Every directory in a folder of the root that has a journal."""
        names = {name.partition("/log/")[0] for name in self.store.list(f"{folder}/") if "/log/" in name}
        return [self.directory(name) for name in sorted(names) if name.count("/") == folder.count("/") + 1]

    @property
    def machine(self) -> str:
        """A word for this scratch folder, in which a directory is worked on by one process at a time."""
        path = self.local / ".machine"
        if not path.exists():
            write_text(path, secrets.token_hex(8))
        return path.read_text(encoding="utf-8")


class Directory:
    """A job's directory here, and its journal and files in the store."""

    def __init__(self, root: Root, name: str):
        self.root, self.name, self.local = root, name, root.local / name
        self.store, self.journal = root.store, Journal(root.store, name)
        self._known = {}  # {path: ((size, time stamp), its (bytes, sha256))} of files that were read already
        self._tries = 0

    @property
    def here(self) -> tuple[int, bool]:
        """(the number of the entry whose state is here, or 0; whether it is all here)."""
        said, _ = json_object.read(self.local / PULLED)
        return (said["entry"], said["whole"]) if said else (0, False)

    def mark(self, entry: Entry, whole: bool = True) -> None:
        write_json(self.local / PULLED, {"entry": entry.number, "whole": whole})

    def pull(self, entry: Entry | None = None) -> Entry:
        """The directory as its newest entry says. entry: that one, where this process holds the job.
        UserError for what is damaged in the store, unless it is a checkpoint's, which is left out."""
        newest = entry or self.journal.newest(after=self.here[0])
        if self.here != (newest.number, True):
            newest = self._pull(newest, entry is None)
        return newest

    def pull_small(self) -> Entry:
        """Of the newest entry what says how the job stands, and whether it is held; nothing where a process
        here works on it."""
        newest = self.journal.newest(after=self.here[0])
        with contextlib.suppress(locks.Busy), locks.held(self.local / ".lock", wait=False):
            if self.here[0] != newest.number:
                newest = self._pull(newest, True, small=True)
            self._note_life(newest)
        return newest

    def _pull(self, entry: Entry, follow: bool, small: bool = False) -> Entry:
        (self.local / PULLED).unlink(missing_ok=True)
        for _ in range(AGAIN):
            lacking = self._get_all(entry, small)
            if not lacking:
                self.mark(entry, not small)
                return entry
            later = self.journal.newest(after=entry.number) if follow else entry
            if later.number == entry.number:
                raise UserError(f"{self.store.url}/{self.name}: {lacking} is missing there, or damaged")
            entry = later
        raise UserError(f"{self.store.url}/{self.name} changes faster than it can be read; try again")

    def _get_all(self, entry: Entry, small: bool) -> str:
        """Makes the directory that of an entry; the path of a file that cannot be had, or ""."""
        wanted = {path: one for path, one in entry.files.items() if not small or is_small(path, one["bytes"])}
        damaged = set()
        for path, one in wanted.items():
            if not self._get(path, one):
                if not (step := checkpoint_of(path)):
                    return path
                damaged.add(step)
        for path in self._there():
            of_step = checkpoint_of(path)
            if path not in wanted and (not small or is_small(path)) or of_step in damaged and of_step:
                (self.local / path).unlink()
        for step in sorted(damaged):
            rundir.note(self.local, f"checkpoint {step} is damaged in {self.store.url}, and left out")
        return ""

    def _get(self, path: str, one: dict) -> bool:
        """A file as an entry has it; whether it could be had."""
        target = self._within(path)
        if target.exists() and self._digest(path) == (one["bytes"], one["sha256"]):
            return True
        with contextlib.suppress(FileNotFoundError), replacing(target) as part:
            self.store.get_file(f"{self.name}/{one['at']}", part)
            if digest(part) != (one["bytes"], one["sha256"]):
                raise FileNotFoundError
            self._known[path] = (stamp(part), (one["bytes"], one["sha256"]))
            return True
        return False

    def _note_life(self, entry: Entry) -> None:
        """HELD, and the newest line of metrics, as whoever holds the job says."""
        said = self.journal.seen(entry) if entry.holder and not entry.done else {}
        held = self.local / locks.HELD
        # for people alone: clocks of two machines
        if abs(self.store.clock.wall() - said.get("time", float("-inf"))) > TTL:
            held.unlink(missing_ok=True)
            return
        write_json(held, {"by": entry.holder})
        before, line = rundir.last_metrics(self.local) or {}, said.get("metrics") or {}
        if line and line.get("step", 0) > before.get("step", 0):
            with (self.local / "metrics.jsonl").open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(line) + "\n")

    def publish(self, lease: Lease, release: bool = False, beside=()) -> None:
        """The directory as it is, as the next entry. release: and the job is held no longer. beside: more
        folders that belong to it. Raises Lost, and Unreachable."""
        before = lease.entry.files
        paths = [path for path in self._there() if self._published(path)]
        for folder in beside:
            more = sorted(path for path in pathlib.Path(folder).rglob("*") if path.is_file())
            paths += [os.path.relpath(path, self.local) for path in more if not path.name.startswith(".")]
        files = self._put(paths, before, lease.entry.number + 1)
        entry = lease.publish(files, release)
        self.mark(entry)
        kept = {one["at"] for one in files.values()}
        for one in before.values():
            if one["at"] not in kept:
                self.store.delete(f"{self.name}/{one['at']}")

    def offer(self) -> None:
        """Small files as they are here, where nobody holds the job: the configs of jobs that were added, say.
        The directory was pulled; UserError where it has changed since."""
        entry = self.journal.newest(after=self.here[0])
        small = [path for path in self._there() if self._published(path) and is_small(path)]
        files = {path: one for path, one in entry.files.items() if not is_small(path, one["bytes"])}
        if entry.number == self.here[0] and not entry.holder:
            files |= self._put(small, entry.files, entry.number + 1)
            if files == entry.files:
                return
            if added := self.journal.add(entry, files):
                self.mark(added, self.here[1])
                return
        of = {path: (one["bytes"], one["sha256"]) for path, one in entry.files.items()}
        if any(path in of and self._digest(path) != of[path] for path in small):
            raise UserError(f"{self.store.url}/{self.name} was changed by others meanwhile; try again")

    def _put(self, paths, before: dict, number: int) -> dict:
        """{path: its record} of files here; those that differ from `before` are put into the store."""
        self._tries += 1
        part, files = f"files/{number:06}.{self._tries}", {}
        for path in paths:
            known = before.get(path)
            if known and self._digest(path) == (known["bytes"], known["sha256"]):
                files[path] = known
                continue
            at = f"{part}/{path.replace('../', '')}"
            name, source = f"{self.name}/{at}", self.local / path
            if is_small(path):  # it may grow meanwhile
                data = source.read_bytes()
                data = data[: data.rfind(b"\n") + 1] if path.endswith(".jsonl") else data
                found = len(data), hashlib.sha256(data).hexdigest()
                self.store.put(name, data)
            else:
                found = self._digest(path)
                self.store.put_file(name, source)
            files[path] = {"bytes": found[0], "sha256": found[1], "at": at}
        return files

    def sweep(self, entry: Entry) -> None:
        """Removes what publications that never ended have left; the entry is this process's newest."""
        kept = {f"{self.name}/{one['at']}" for one in entry.files.values()}
        for name in self.store.list(f"{self.name}/files/"):
            number = name.removeprefix(f"{self.name}/files/").partition(".")[0]
            if name not in kept and number.isdecimal() and int(number) <= entry.number:
                self.store.delete(name)

    def _there(self) -> list[str]:
        """Paths of the files here that an entry may name."""
        found = []
        for folder, folders, names in os.walk(self.local):
            at = os.path.relpath(folder, self.local)
            if at == ".":
                folders[:] = [one for one in folders if one not in UNPUBLISHED and not one.startswith(BESIDE)]
                names = [name for name in names if name not in UNPUBLISHED]
            found += [name if at == "." else f"{at}/{name}" for name in names if not name.endswith(".part")]
        return sorted(found)

    def _published(self, path: str) -> bool:
        """Not what is of a checkpoint that is not finished."""
        step = checkpoint_of(path)
        return step is None or (self.local / CHECKPOINTS / f"{step}{SEALED}").exists()

    def _within(self, path: str) -> pathlib.Path:
        """Where a file of an entry lies here. UserError for one that would lie outside of the root."""
        target = pathlib.Path(os.path.normpath(self.local / path))
        if self.root.local not in target.parents:
            raise UserError(f"{self.store.url}/{self.name}: {path} lies outside of the root")
        return target

    def _digest(self, path: str) -> tuple[int, str]:
        """(bytes, sha256) of a file here, read once."""
        now = stamp(self.local / path)
        if path not in self._known or self._known[path][0] != now:
            self._known[path] = (now, digest(self.local / path))
        return self._known[path][1]


def partial(directory: pathlib.Path) -> bool:
    """Whether a directory is a mirror's of which only what is small is here."""
    said, _ = json_object.read(directory / PULLED)
    return bool(said) and not said["whole"]


def is_small(path: str, size: int = 0) -> bool:
    """Whether a file says how a job stands."""
    its_own = not checkpoint_of(path) and not path.startswith("..")
    return its_own and path.endswith(SMALL) and size <= SMALL_BYTES


def checkpoint_of(path: str) -> str | None:
    """The step of the checkpoint that a file is of; None: of none."""
    first, _, rest = path.partition("/")
    return rest.partition("/")[0].removesuffix(SEALED) if first == CHECKPOINTS and rest else None


def stamp(path: pathlib.Path) -> tuple:
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino


def digest(path: pathlib.Path) -> tuple[int, str]:
    with path.open("rb") as file:
        return os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest()
