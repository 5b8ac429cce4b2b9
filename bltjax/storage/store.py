"""Objects at a URL: gs://, s3://, az://, file://, and memory:// in tests.

Few things are asked of a store: whole objects are put, read, listed and deleted, and one is created only
where none is. That last is what locks rest on (storage/journal.py), so that no other store is taken than
those of which it is known: gcsfs sends if-generation-match, s3fs If-None-Match, adlfs overwrite=False.

A call that fails for a reason that may pass is made again, with growing pauses, and then given up in a
line."""

import errno
import functools
import os
import pathlib
import random
import secrets
import shutil
import time
from typing import Protocol

from bltjax.errors import Interrupted, UserError
from bltjax.storage.atomic import replacing

EXTRAS = {"gs": "gcs", "gcs": "gcs", "s3": "s3", "s3a": "s3", "az": "azure", "abfs": "azure"}
KINDS = (*EXTRAS, "file", "memory")
TRIES, FIRST_PAUSE, LONGEST_PAUSE = 8, 0.5, 20.0  # seconds; about a minute in all
THERE_OR_NOT = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError)
PERMANENT = (*THERE_OR_NOT, PermissionError, ImportError)


class Unreachable(Interrupted):
    """A store did not answer, however often it was asked: the same command, later, goes on."""


class Clock:
    """What tells the time; tests have their own. monotonic measures waits, wall is for people alone."""

    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)
    sleep = staticmethod(time.sleep)

    @staticmethod
    def wait(event, seconds: float) -> bool:
        """Whether a threading.Event was set within so many seconds."""
        return event.wait(seconds)


class Backend(Protocol):
    """Whole objects by name. Each call may fail with an error of its own kind."""

    def get(self, name: str) -> bytes:
        """FileNotFoundError where there is none."""

    def put(self, name: str, data: bytes) -> None:
        """Instead of what was there."""

    def create(self, name: str, data: bytes) -> None:
        """FileExistsError where one is; of two that create at once, one does."""

    def delete(self, name: str) -> None:
        """FileNotFoundError where there is none."""

    def list(self, prefix: str) -> list[str]:
        """Names that begin with it."""

    def get_file(self, name: str, path: pathlib.Path) -> None: ...

    def put_file(self, name: str, path: pathlib.Path) -> None: ...


def is_url(text) -> bool:
    return "://" in str(text)


def opened(url: str) -> "Store":
    """The store at a URL. UserError for a kind that is none, and for one whose package is not installed."""
    kind, _, rest = url.partition("://")
    if kind not in KINDS:
        raise UserError(f"{url}: --root is a folder, or a URL of {', '.join(f'{k}://' for k in KINDS)}")
    if kind == "file":
        if not rest.startswith("/"):
            raise UserError(f"{url}: file:// is followed by an absolute path")
        return Store(url, Local(pathlib.Path(rest)))
    try:
        return Store(url, Remote(url))
    except ImportError as error:
        why = " ".join(str(error).split())
        raise UserError(f"{url}: {why} (pip install 'bltjax[{EXTRAS.get(kind, kind)}]')") from None


class Store:
    """A store whose calls are made again where they fail. url: for messages; clock, draw: of the pauses."""

    def __init__(self, url: str, backend: Backend, clock=Clock, draw=random.random):
        self.url, self.backend, self.clock, self._draw = url.rstrip("/"), backend, clock, draw

    def get(self, name: str) -> bytes:
        """An object. FileNotFoundError where there is none."""
        return self._again(name, self.backend.get, name)

    def find(self, name: str) -> bytes | None:
        """An object; None where there is none."""
        try:
            return self.get(name)
        except FileNotFoundError:
            return None

    def put(self, name: str, data: bytes) -> None:
        self._write(name, self.backend.put, name, data)

    def get_file(self, name: str, path: pathlib.Path) -> None:
        self._again(name, self.backend.get_file, name, path)

    def put_file(self, name: str, path: pathlib.Path) -> None:
        self._write(name, self.backend.put_file, name, path)

    def list(self, prefix: str) -> list[str]:
        """Names that begin with it, in order. One that was made or deleted a moment ago may be missing or
        there."""
        return sorted(self._again(prefix, self.backend.list, prefix))

    def delete(self, name: str) -> None:
        """Whether or not it is there."""
        try:
            self._again(name, self.backend.delete, name)
        except FileNotFoundError:
            pass

    def create(self, name: str, data: bytes) -> bool:
        """Whether it now stands there with this content, which is like no other's: a call that failed may
        have made it, and is then told that there is one."""

        def made():
            try:
                self.backend.create(name, data)
                return True
            except Exception as error:
                try:
                    return self.backend.get(name) == data
                except FileNotFoundError:
                    raise error from None

        return self._write(name, made)

    def _write(self, name: str, call, *arguments):
        try:
            return self._again(name, call, *arguments)
        except FileNotFoundError as error:
            raise UserError(f"{self.url}/{name} cannot be written: {_words(error)}") from error

    def _again(self, name: str, call, *arguments):
        pause = FIRST_PAUSE
        for left in reversed(range(TRIES)):
            try:
                return call(*arguments)
            except Exception as error:
                if permanent(error):
                    if isinstance(error, FileNotFoundError):
                        raise
                    raise UserError(f"{self.url}/{name}: {_words(error)}") from error
                if not left:
                    raise Unreachable(f"{self.url} does not answer ({name}): {_words(error)}") from error
            self.clock.sleep(pause * (0.5 + self._draw()))
            pause = min(2 * pause, LONGEST_PAUSE)


def permanent(error: Exception) -> bool:
    """Whether the same call would fail again: what is not there, not allowed, or no room. Every package has
    errors of its own, and what is not known passes."""
    if isinstance(error, PERMANENT) or "Credential" in type(error).__name__:
        return True
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return True
    return str(error).startswith("Forbidden")  # gcsfs has no class for it


def _words(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


class Local:
    """A folder as a store: an object appears whole, by a rename or a link."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder

    def get(self, name):
        return (self.folder / name).read_bytes()

    def put(self, name, data):
        with replacing(self.folder / name) as part:
            part.write_bytes(data)

    def create(self, name, data):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
        try:
            part.write_bytes(data)
            os.link(part, path)
        finally:
            part.unlink(missing_ok=True)

    def delete(self, name):
        (self.folder / name).unlink()

    def list(self, prefix):
        start = self.folder / prefix
        top = start if start.is_dir() else start.parent
        found = (path.relative_to(self.folder).as_posix() for path in top.rglob("*") if path.is_file())
        return [name for name in found if name.startswith(prefix) and not name.endswith(".part")]

    def get_file(self, name, path):
        shutil.copyfile(self.folder / name, path)

    def put_file(self, name, path):
        with replacing(self.folder / name) as part:
            shutil.copyfile(path, part)


class Remote:
    """A store by fsspec, which keeps no listing of it: others write there too."""

    def __init__(self, url: str):
        import fsspec

        self.system, self.folder = fsspec.core.url_to_fs(url, use_listings_cache=False)

    @functools.cached_property
    def _before(self) -> str:
        return self.folder.rstrip("/") + "/"

    def get(self, name):
        return self.system.cat_file(self._before + name)

    def put(self, name, data):
        self.system.pipe_file(self._before + name, data)

    def create(self, name, data):
        self.system.pipe_file(self._before + name, data, mode="create")

    def delete(self, name):
        self.system.rm_file(self._before + name)

    def list(self, prefix):
        folder = (self._before + prefix).rpartition("/")[0]
        try:
            found = self.system.find(folder)
        except FileNotFoundError:
            return []
        names = (self.system._strip_protocol(one).removeprefix(self._before) for one in found)
        return [name for name in names if name.startswith(prefix)]

    def get_file(self, name, path):
        self.system.get_file(self._before + name, str(path))

    def put_file(self, name, path):
        self.system.put_file(str(path), self._before + name)
