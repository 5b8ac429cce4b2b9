"""Metrics of a run: one JSON object per line in metrics.jsonl, mirrored to a progress bar and, if asked, to
trackers.

A parent process that wants live progress reads the same file.
"""

import contextlib
import json
import math
import os
import pathlib
import sys

from bltjax.errors import RunFailed, UserError
from bltjax.storage import atomic
from bltjax.training.signals import disk_full

WALL_CLOCK = ("wall_s", "bytes_per_s", "time")  # fields that differ between two equal runs


def read(path) -> list[dict]:
    """Every line of a metrics file; [] if there is none. A torn last line (the writer was killed) is left
    out; others: UserError."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().split("\n")
    except FileNotFoundError:
        return []
    out = []
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            out.append(json.loads(line))
        except ValueError:
            if number != len(lines) - 1:
                raise UserError(f"{path}: line {number + 1} is not JSON") from None
    return out


def cut(path, step: int) -> dict | None:
    """Drops the lines past `step`, which a resumed run will write again, and returns the last one kept."""
    if not os.path.exists(path):
        return None
    kept = [line for line in read(path) if line["step"] <= step]
    atomic.write_text(pathlib.Path(path), "".join(json.dumps(line) + "\n" for line in kept), durable=True)
    return kept[-1] if kept else None


class Writer:
    """Appends to a metrics file, flushing each line, so that a killed run loses at most the line it was
    writing.

    trackers: where each line goes too (training/trackers.py)."""

    def __init__(self, path, trackers=()):
        self._path, self._trackers = path, trackers
        self._file = open(path, "a", encoding="utf-8")

    def write(self, line: dict) -> None:
        """One line. Numbers must be finite: JSON has no others."""
        with self._full_disk_in_one_line():
            self._file.write(json.dumps(line, allow_nan=False) + "\n")
            self._file.flush()
        for tracker in self._trackers:
            tracker.write(line)

    def sync(self) -> None:
        """On the disk, not only with the system: a checkpoint must never be ahead of its metrics."""
        with self._full_disk_in_one_line():
            os.fsync(self._file.fileno())

    def close(self) -> None:
        try:
            with self._full_disk_in_one_line():
                self._file.close()
        finally:
            for tracker in self._trackers:
                tracker.close()

    @contextlib.contextmanager
    def _full_disk_in_one_line(self):
        try:
            yield
        except OSError as error:
            if disk_full(error):
                raise RunFailed(
                    f"disk full while writing {self._path}; free some space and run again to resume"
                ) from None
            raise


def bits_per_byte(nats: float, count: float) -> float:
    """Nats over raw bytes as bits a byte; 0 for a step without raw bytes."""
    return nats / count / math.log(2) if count else 0.0


def bar(name: str, done: int, steps: int, shown: bool):
    """Progress bar over steps with an ETA, on standard error."""
    from tqdm import tqdm

    each = 0.5 if sys.stderr.isatty() else 30  # seconds: a log keeps every line
    return tqdm(
        total=steps,
        initial=done,
        desc=name,
        unit="step",
        disable=not shown,
        dynamic_ncols=True,
        mininterval=each,
        maxinterval=each,
    )
