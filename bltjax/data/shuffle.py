"""The first stage of `prepare`: reads a source's documents and throws each into a bucket of its split that a
hash of its bytes picks. Where a split would get no document, the nearest ones go there."""

import dataclasses
import hashlib
import itertools
import math
import os
import pathlib
import shutil

from bltjax.counts import counted
from bltjax.data import provenance, shuffle_buckets, sources
from bltjax.errors import UserError
from bltjax.storage import rundir

BUFFER = 32 << 20  # bytes of documents that wait to be written into buckets
SAVE = 64 << 20  # bytes of text between two points from which scattering can go on
MOST_GROUPS = 1 << 15
OTHERS = "(other groups)"  # all that come later
LONGEST_GROUP = 100  # characters of a group's name


@dataclasses.dataclass
class Progress:
    """What has been done so far; kept in the work folder, so that a restart begins there."""

    stamps: str  # of settings and units: another source is another job
    scattered: int = 0  # units
    documents: int = 0  # of the next unit
    buckets: dict = dataclasses.field(default_factory=dict)  # file: bytes of it that are whole
    counts: dict = dataclasses.field(
        default_factory=lambda: {"read": 0, "read_bytes": 0, "short": 0, "duplicates": 0, "near_copies": 0}
    )
    groups: list = dataclasses.field(default_factory=list)
    nearest: dict = dataclasses.field(default_factory=dict)  # of each split: Nearest
    moved: dict = dataclasses.field(default_factory=dict)  # key as hex: its split, where that was empty
    shards: list = dataclasses.field(default_factory=list)

    def save(self, work: pathlib.Path) -> None:
        rundir.write_json(work / "progress.json", dataclasses.asdict(self))


def resumed(work: pathlib.Path, stamps: str, units) -> Progress:
    """The progress in a work folder, or a new one. UserError where it is of another source or settings."""
    saved = rundir.read_json(work / "progress.json")
    other = saved is not None and saved.get("stamps") != stamps
    if other or saved and saved.get("buckets") and provenance.changed(work / provenance.WORK, units):
        raise UserError(f"{work} was begun with another source or other settings; remove it to begin anew")
    progress = Progress(**saved) if saved else Progress(stamps)
    whole = all(
        (work / name).is_file() and (work / name).stat().st_size >= size
        for name, size in progress.buckets.items()
    )
    if not saved or not whole:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        return Progress(stamps)
    for path in _growing(work):  # what was written after the last save is written again
        if path.name in progress.buckets:
            os.truncate(path, progress.buckets[path.name])
        else:
            path.unlink()
    return progress


def _growing(work: pathlib.Path) -> list[pathlib.Path]:
    """What scattering appends to: buckets, and what the units were that it has begun with."""
    return [*sorted(work.glob("*.bucket")), *work.glob(provenance.WORK)]


def shares(data_config) -> dict[str, float]:
    """The share of each split that is asked for, by name."""
    if data_config.split:
        return dict(zip(("train", "validation", "test"), sources.positions(data_config.split)))
    test, validation = data_config.test, data_config.validation
    return {"train": 1 - test - validation, "validation": validation, "test": test}


def asked_for(data_config) -> list[str]:
    """The splits that are to have documents."""
    return [split for split in ("test", "validation", "train") if shares(data_config)[split] > 0]


def too_few(data_config, documents: int) -> UserError:
    """Of a source with fewer different documents than splits."""
    asked = asked_for(data_config)
    return UserError(
        f"{data_config.source} has {counted(documents, 'different document')} of data.min_bytes="
        f"{data_config.min_bytes} bytes or more, and {', '.join(asked)} text need {len(asked)}: cut a"
        " long text into several (data.separator, data.split), or add some"
    )


def split_of(digest: bytes, data_config) -> str:
    """train, validation or test, by a document's SHA-256: a random sample, whatever else is in the source.
    (By a hash of shingles, near-copies would go together, but so would all that shares a licence, and test
    text would be of another kind than what is trained on.)"""
    place = place_of(digest)
    return (
        "test"
        if place < data_config.test
        else "validation" if place < data_config.test + data_config.validation else "train"
    )


def place_of(digest: bytes) -> float:
    """A number from 0 to 1, in which test text comes first, then validation, then training text."""
    return int.from_bytes(digest[-8:], "big") / 2**64


def bucket_count(split: str, shard_count: int, data_config) -> int:
    share = shares(data_config)[split] if split != "train" else 1
    return max(1, math.ceil(shard_count * share))


def bucket_of(key: bytes, split: str, shard_count: int, data_config) -> str:
    """The name of the bucket for a key."""
    number = int.from_bytes(key[:8], "big") * bucket_count(split, shard_count, data_config) >> 64
    return f"{split}-{number:05}.bucket"


def printable(group: str) -> str:
    """A group's name as it can be printed."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in group[:LONGEST_GROUP]
    )[:LONGEST_GROUP]


def scatter(units, data_config, shard_count, work, progress, fill: bool, say) -> None:
    """Reads what of the units `progress` has not. fill: whether splits that would be empty get the nearest
    documents. UserError as the reading of units, and where there are fewer documents than splits."""
    counts, group_number = progress.counts, {name: i for i, name in enumerate(progress.groups)}
    seed = data_config.seed.to_bytes(8, "little")
    waiting, held, since = {}, 0, 0

    def flush():
        nonlocal held
        for name, pieces in waiting.items():
            with (work / name).open("ab") as file:
                file.writelines(pieces)
        waiting.clear()
        held = 0

    def save(scattered, documents):
        nonlocal since
        flush()
        progress.scattered, progress.documents, since = scattered, documents, 0
        if fill and scattered == len(units):
            _fill(data_config, shard_count, work, progress, say)
        progress.buckets = {path.name: path.stat().st_size for path in _growing(work)}
        progress.save(work)
        say(
            f"read {scattered:,} of {counted(len(units), 'unit')}, {counted(counts['read'], 'document')},"
            f" {counts['read_bytes'] / 1e6:,.0f} MB"
        )

    for number, unit in enumerate(units[progress.scattered :], progress.scattered):
        done = progress.documents if number == progress.scattered else 0
        if not done:
            waiting.setdefault(provenance.WORK, []).append(provenance.line(unit).encode())
        for at, (document, group) in enumerate(itertools.islice(unit.read(), done, None), done):
            counts["read"] += 1
            counts["read_bytes"] += len(document)
            since += len(document)
            if len(document) < max(1, data_config.min_bytes):
                counts["short"] += 1
                continue
            group = printable(group)
            if group not in group_number and len(group_number) >= MOST_GROUPS - 1:
                group = OTHERS
            if group not in group_number:
                group_number[group] = len(group_number)
                progress.groups.append(group)
            digest = hashlib.sha256(document).digest()
            split = unit.split or split_of(digest, data_config)
            # what is split by position stays as it is, copies included: there a key is of a place
            which = f"{unit.name} {at}".encode() if unit.split else digest
            key = hashlib.sha256(seed + which).digest()[:16]
            if not unit.split:
                _note(progress.nearest.setdefault(split, []), place_of(digest), key)
            name = bucket_of(key, split, shard_count, data_config)
            record = shuffle_buckets.record(key, group_number[group], document)
            waiting.setdefault(name, []).append(record)
            held += len(record)
            if held > BUFFER:
                flush()
            if since > SAVE:
                save(number, at + 1)
        if since > SAVE or number == len(units) - 1:
            save(number + 1, 0)


def _note(nearest: list, place: float, key: bytes) -> None:
    """Keeps a split's two lowest and two highest places, with their keys, each once: as much as two empty
    splits can ask of it."""
    if len(nearest) == 4 and nearest[1][0] <= place <= nearest[2][0]:
        return
    entry = [place, key.hex()]
    if entry not in nearest:
        nearest.append(entry)
        nearest.sort()
        if len(nearest) > 4:
            del nearest[2]


def _fill(data_config, shard_count, work, progress, say) -> None:
    """Gives every split that was asked for, and got no document, the one whose place is nearest to it.
    UserError where there are fewer documents than splits."""
    asked = asked_for(data_config)
    ends = {
        "test": (0, data_config.test),
        "validation": (data_config.test, data_config.test + data_config.validation),
        "train": (data_config.test + data_config.validation, 1),
    }
    there = {split: list(progress.nearest.get(split, [])) for split in asked}
    documents = sum(map(len, there.values()))
    if 0 < documents < len(asked):
        shutil.rmtree(work)
        raise too_few(data_config, documents)
    for split in asked:
        if there[split] or not documents:
            continue
        first, last = ends[split]
        distance = lambda place: max(first - place, place - last)
        able = [
            (distance(place), key, other)
            for other in asked
            for place, key in there[other]
            if len(there[other]) > 1
        ]
        _, key, other = min(able)
        moved = next(entry for entry in there[other] if entry[1] == key)
        there[other].remove(moved)
        there[split].append(moved)
        _move(bytes.fromhex(key), other, split, data_config, shard_count, work)
        progress.moved[key] = split
        say(
            f"no document fell into {split} text, of which {shares(data_config)[split]:.3g} was asked for: it"
            f" gets the nearest one, from {other} text"
        )


def _move(key: bytes, source: str, target: str, data_config, shard_count, work) -> None:
    """Copies a document from its bucket into one of another split; `Progress.moved` says where it is read."""
    path = work / bucket_of(key, source, shard_count, data_config)
    with path.open("rb") as file:
        entry = next(
            entry for entry in shuffle_buckets.by_key(file, path) if shuffle_buckets.key_of(entry) == key
        )
        document = shuffle_buckets.read(file, entry, path)
    with (work / bucket_of(key, target, shard_count, data_config)).open("ab") as file:
        file.write(shuffle_buckets.record(key, int(entry["group"]), document))
