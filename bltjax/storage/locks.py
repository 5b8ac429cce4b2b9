"""Locks between processes: flock, which the kernel lets go of however a process dies."""

import contextlib
import fcntl
import os
import pathlib


class Busy(Exception):
    """Another process holds the lock."""


@contextlib.contextmanager
def held(path: pathlib.Path, wait: bool = True):
    """Holds an exclusive lock on a file (made if missing). wait=False: raises Busy instead of waiting."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise Busy(str(path)) from None
        yield
    finally:
        os.close(handle)


def is_held(path: pathlib.Path) -> bool:
    """Whether some process holds the lock now."""
    if not path.exists():
        return False
    try:
        with held(path, wait=False):
            return False
    except Busy:
        return True
