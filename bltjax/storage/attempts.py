"""The attempts at a job: when each began, was last heard of and ended, with which exit status, on how many
chips. `attempts/0001.json` and so on in the job's directory, each written by the process that holds the job's
lock, and again while it lives, so that one that was killed says until when it lived."""

import contextlib
import os
import pathlib
import socket
import threading
import time

from bltjax import exit_codes
from bltjax.storage import json_object, rundir
from bltjax.storage.atomic import write_json

FOLDER = "attempts"
EVERY_SECONDS = 30.0  # between two signs of life
LIVES_SECONDS = 3 * EVERY_SECONDS  # after a sign of life
MOST = 5  # attempts in a row that were killed, or failed, and came no further: another will not either

ENDINGS = {
    exit_codes.DONE: "done",
    exit_codes.FAILED: "failed",
    exit_codes.WRONG: "wrong input",
    exit_codes.STOPPED: "stopped, saved",
}


@contextlib.contextmanager
def recorded(directory: pathlib.Path, chips: int = 0, on: str = "", step: int = 0):
    """Notes the block as an attempt at the job in a directory. chips: that it holds; 0: a CPU alone. on: the
    scheduler's word for it, such as "slurm 12_3". step: up to which a run had come when it began.

    A directory that cannot be written is no reason to fail: the attempt goes unrecorded, and what the job
    itself cannot write says why."""
    path = _next(directory)
    facts = {
        "began": time.time(),
        "seen": time.time(),
        "ended": None,
        "code": None,
        "chips": chips,
        "on": on,
        "step": step,
        "host": socket.gethostname(),
        "process": os.getpid(),
    }
    over, said = threading.Event(), threading.Lock()

    def say(**more):
        with said, contextlib.suppress(OSError):
            facts.update(more)
            write_json(path, facts)

    def live():
        while not over.wait(EVERY_SECONDS):
            say(seen=time.time())

    say()
    heart = threading.Thread(target=live, daemon=True)
    heart.start()
    code = 0
    try:
        yield
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt | SystemExit)
        code = exit_codes.STOPPED if stopped else getattr(error, "exit_code", exit_codes.FAILED)
        raise
    finally:
        over.set()
        now = time.time()
        say(seen=now, ended=now, code=code)


def _next(directory: pathlib.Path) -> pathlib.Path:
    """The file of the next attempt; whoever asks holds the job's lock, so that no other asks at once."""
    numbers = [int(path.stem) for path in (directory / FOLDER).glob("*.json") if path.stem.isdecimal()]
    return directory / FOLDER / f"{max(numbers, default=0) + 1:04}.json"


def read(directory: pathlib.Path) -> list[dict]:
    """Every attempt, in order; damaged files are left out. `ended` and `code` of one that was killed, or that
    still runs, are None."""
    found = [json_object.read(path)[0] for path in sorted((directory / FOLDER).glob("*.json"))]
    return [value for value in found if value and _whole(value)]


def _whole(value: dict) -> bool:
    said = [key for key in ("ended", "code", "step") if value.get(key) is not None]
    numbers = [rundir.number(value, key) for key in ("began", "seen", "chips", *said)]
    return all(number is not None and abs(number) < 1e12 for number in numbers)


def lives(one: dict) -> bool:
    """Whether an attempt has lately given a sign of life; one that was killed seems to, so long."""
    return one.get("ended") is None and abs(time.time() - one["seen"]) < LIVES_SECONDS


def ending(one: dict) -> str:
    """How an attempt ended, in words; killed: without a word of its own, unless it still runs."""
    if (code := one.get("code")) is None:
        return "killed"
    return ENDINGS.get(code, f"exit status {code}")


def hours(directory: pathlib.Path) -> float:
    """Chip-hours of all attempts at a job; a CPU alone counts as one chip."""
    return hours_of(read(directory))


def hours_of(tried: list[dict]) -> float:
    """Chip-hours of some attempts."""
    return sum((max(0.0, one["seen"] - one["began"]) / 3600 * max(1, one["chips"]) for one in tried), 0.0)


def stuck(directory: pathlib.Path) -> bool:
    """Whether the last MOST attempts were killed or failed and came no further. `forgive` forgives them."""
    last = read(directory)[-MOST:]
    return (
        len(last) == MOST
        and all(one.get("code") not in (exit_codes.DONE, exit_codes.STOPPED) for one in last)
        and not any(one.get("forgiven") for one in last)
        and len({one.get("step") for one in last}) == 1
    )


def forgive(directory: pathlib.Path) -> None:
    """The attempts so far no longer count as a row without progress."""
    for path in sorted((directory / FOLDER).glob("*.json")):
        value, _ = json_object.read(path)
        if value:
            write_json(path, {**value, "forgiven": True})
