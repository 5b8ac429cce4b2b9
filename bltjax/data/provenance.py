"""Which units prepared data was made of, and whether they are still what they were.

Of each unit that was read its stamp and, where it lies on this machine, a digest of its content are kept. A
unit whose stamp is another is read again, and is the same where its digest is."""

import contextlib
import hashlib
import json
import pathlib

from bltjax.errors import UserError
from bltjax.storage import atomic

WORK = "sources.jsonl"  # in the work folder: a line for each unit that was begun with


def path_of(directory: pathlib.Path, part: int, parts: int) -> pathlib.Path:
    return directory / f"sources-{part:05}-of-{parts:05}.jsonl"


def layout(units) -> str:
    """What is the same for all jobs of a data set, whatever each reads, and on every machine: names and sizes
    of all units (the stamp of those that have no digest)."""
    facts = [(unit.name, unit.size if unit.digest else unit.stamp) for unit in units]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def line(unit) -> str:
    """What is kept of a unit that is about to be read."""
    return json.dumps([unit.name, unit.stamp, unit.digest() if unit.digest else ""]) + "\n"


def changed(path: pathlib.Path, units, renew: bool = False) -> str:
    """The first unit of those kept in a file that is not there as it was, by name; "" where all are. renew:
    keep the stamps of now, so that what was read again here is not the next time."""
    now, kept, read = {unit.name: unit for unit in units}, [], False
    try:
        lines = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
        for name, stamp, digest in lines:
            unit = now.get(name)
            if unit is None:
                return name
            if unit.stamp != stamp:
                read = True
                if not digest or not unit.digest or unit.digest() != digest:
                    return name
            kept.append(json.dumps([name, unit.stamp, digest]) + "\n")
    except (OSError, ValueError, TypeError, UserError):
        return path.name  # it cannot be said
    if read and renew:
        with contextlib.suppress(OSError):  # another's folder, perhaps
            atomic.write_text(path, "".join(kept))
    return ""
