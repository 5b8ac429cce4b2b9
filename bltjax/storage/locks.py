"""Locks between processes. The kernel lets go of one however its process dies, and whether one is held can be
read without taking it."""

import contextlib
import errno
import fcntl
import os
import pathlib
import struct
import time

from bltjax.errors import RunFailed

# Linux has locks that belong to an open file, as flock's do, and that can be asked for; elsewhere it is
# flock.
OF_OPEN_FILES = hasattr(fcntl, "F_OFD_SETLK")
TAKEN = (errno.EAGAIN, errno.EACCES)


POLL_SECONDS = 0.5
HELD = ".held"  # beside the lock of a mirrored directory: a process elsewhere held it when it was last pulled


class Busy(RunFailed):
    """Another process holds the lock."""


@contextlib.contextmanager
def held(path: pathlib.Path, wait: bool | float = True):
    """Holds an exclusive lock on a file (made if missing). wait: False, or seconds: raises Busy instead of
    waiting, or once they are over."""
    if not isinstance(wait, bool):
        give_up = time.monotonic() + wait
        while _is_held(path) and time.monotonic() < give_up:
            time.sleep(POLL_SECONDS)
        wait = False
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            if OF_OPEN_FILES:
                fcntl.fcntl(handle, fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK, _whole_file())
            else:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            if error.errno not in TAKEN:
                raise
            raise Busy(f"{path.parent} is being worked on by another process") from None
        yield
    finally:
        os.close(handle)


def is_held(path: pathlib.Path) -> bool:
    """Whether some process holds the lock now, here or (HELD) elsewhere. Needs no more than to read the file,
    and disturbs nobody; for who may not even do that, nobody does."""
    if path.with_name(HELD).exists():
        return True
    return _is_held(path)


def _is_held(path: pathlib.Path) -> bool:
    try:
        handle = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, PermissionError):
        return False
    try:
        if OF_OPEN_FILES:
            answer = fcntl.fcntl(handle, fcntl.F_OFD_GETLK, _whole_file())
            return struct.unpack(FLOCK, answer)[0] != fcntl.F_UNLCK
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except OSError as error:
        if error.errno not in TAKEN:
            raise
        return True
    finally:
        os.close(handle)


FLOCK = "hhqqi0q"  # struct flock of 64-bit Linux: type, whence, start, length, process


def _whole_file() -> bytes:
    return struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
