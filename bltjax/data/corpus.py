"""Prepared text on disk: shards of ArrayRecord, an index beside each, and a manifest for each job that wrote
some of them.

    DIR/part-00000-of-00002.json         what job 0 of 2 wrote; the data set is whole when all parts are there
    DIR/train-00000-00003.arrayrecord    shard 3 of job 0: a record is a document's bytes
    DIR/train-00000-00003.index.npy      of each record: length in bytes (uint32) and group (uint16, a name in
                                         the manifest)

`prepare` writes it, in an order that is random; here it is read, any document at any time.
"""

import bisect
import dataclasses
import functools
import hashlib
import json
import pathlib
import threading

import numpy as np

from bltjax.errors import UserError

SCHEMA_VERSION = 1
INDEX = np.dtype([("length", "<u4"), ("group", "<u2")])
SPLITS = ("train", "validation", "test")
OPEN = 64  # shards that a process keeps open


@dataclasses.dataclass(frozen=True)
class Shard:
    """A file of documents, as its manifest has it. sha256 is of the file."""

    path: pathlib.Path
    split: str
    documents: int
    bytes: int
    file_bytes: int
    sha256: str
    groups: tuple[str, ...]
    index_sha256: str = ""  # "": not known

    @property
    def index_path(self) -> pathlib.Path:
        return index_path(self.path)


def index_path(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(path.name.removesuffix(".arrayrecord") + ".index.npy")


def part_name(part: int, parts: int) -> str:
    return f"part-{part:05}-of-{parts:05}.json"


def shards(directory) -> list[Shard]:
    """All shards of a prepared data set, by split (SPLITS), part and number.

    UserError where it is none, where a part is missing, and where a file is missing or not of the size that
    the manifest has."""
    directory = pathlib.Path(directory)
    found = []
    for manifest in manifests(directory):
        for record in manifest["shards"]:
            shard = Shard(
                directory / record["name"],
                record["split"],
                record["documents"],
                record["bytes"],
                record["file_bytes"],
                record["sha256"],
                tuple(manifest["groups"]),
                record.get("index_sha256", ""),
            )
            size = shard.path.stat().st_size if shard.path.is_file() else None
            if size != shard.file_bytes:
                what = (
                    "is missing"
                    if size is None
                    else f"has {size:,} bytes, not the {shard.file_bytes:,} of its manifest"
                )
                raise UserError(f"{shard.path} {what}; prepare this part of the data again")
            found.append(shard)
    return sorted(found, key=lambda shard: (SPLITS.index(shard.split), shard.path.name))


def consistent(manifest: dict) -> bool:
    """Whether a manifest says all that one says, in itself without contradiction."""
    shards, totals = (
        manifest["shards"],
        {split: {key: 0 for key in ("documents", "bytes")} for split in SPLITS},
    )
    for shard in shards:
        for key, total in totals[shard["split"]].items():
            totals[shard["split"]][key] = total + shard[key]
    texts = all(isinstance(shard[key], str) for shard in shards for key in ("name", "sha256", "content"))
    return (
        texts
        and manifest["splits"] == totals
        and all(isinstance(manifest[key], dict) for key in ("settings", "counts"))
        and all(isinstance(manifest[key], int) for key in ("part", "parts"))
        and (
            isinstance(manifest["groups"], list)
            and (bool(manifest["groups"]) or not any(shard["documents"] for shard in shards))
        )
    )


def manifests(directory: pathlib.Path) -> list[dict]:
    """The manifests of all parts, in order. UserError where there are none, some are missing or damaged, or
    they do not belong together."""
    paths = sorted(directory.glob("part-*-of-*.json"))
    if not paths:
        raise UserError(
            f"{directory.absolute()} holds no prepared data (no manifest); bltjax data prepare SOURCE --out"
            f" {directory} makes it"
        )
    found = []
    for path in paths:
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            found.append(manifest if manifest["schema_version"] == SCHEMA_VERSION else None)
            if found[-1] and not consistent(manifest):
                raise ValueError
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise UserError(
                f"{path} is damaged ({type(error).__name__}); prepare this part of the data again"
            ) from None
        if found[-1] is None:
            raise UserError(
                f"{path} is of format {manifest['schema_version']}; this version reads {SCHEMA_VERSION}"
            )
    count = found[0]["parts"]
    if any(manifest["parts"] != count or manifest["settings"] != found[0]["settings"] for manifest in found):
        raise UserError(
            f"{directory}: its parts were made with different settings or counts; prepare them all alike"
        )
    if len({manifest["source"] for manifest in found if "source" in manifest}) > 1:
        raise UserError(
            f"{directory}: its parts were made of different source files, since some changed, came or went"
            " between the jobs; prepare them all again"
        )
    there = {manifest["part"] for manifest in found}
    if missing := sorted(set(range(count)) - there):
        raise UserError(
            f"{directory}: {len(missing)} of {count} parts are not there yet"
            f" ({', '.join(map(str, missing[:8]))}); --shard I/{count} makes them"
        )
    return sorted(found, key=lambda manifest: manifest["part"])


def test_overlap(directories) -> dict:
    """How much of the test text of some prepared data sets is trained on: {"all", "without_boilerplate"}, the
    shares (0 to 1) of the 50-byte shingles of its test documents (sampled by hash, each once a document) that
    occur in training text; None where there are no such shingles. Boilerplate are the shingles that more than
    `near_copies.many` documents of the source have, such as those of licences. Of several parts and data
    sets: each part's test text against its own training text, weighted by shingles."""
    totals = {"all": [0, 0], "without_boilerplate": [0, 0]}
    for directory in directories:
        for manifest in manifests(pathlib.Path(directory)):
            for kind, (trained, every) in manifest.get("test_shingles", {}).items():
                totals[kind] = [totals[kind][0] + trained, totals[kind][1] + every]
    return shares_of(totals)


def shares_of(counts: dict) -> dict:
    return {kind: trained / every if every else None for kind, (trained, every) in counts.items()}


def verify(shard: Shard) -> None:
    """UserError where a shard's bytes, or its index's, are not those that were written."""
    for path, digest in ((shard.path, shard.sha256), (shard.index_path, shard.index_sha256)):
        if digest and file_digest(path) != digest:
            raise UserError(
                f"{path} is damaged: its checksum is not the manifest's; remove it and prepare this part of"
                " the data again"
            )


def file_digest(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Documents:
    """The documents of some shards, numbered through. len, [i] -> bytes, and beside them lengths int64 [D],
    groups int32 [D] (numbers in group_names). Reads what is asked for and no more; any thread may ask."""

    def __init__(self, shards: list[Shard], indexed: bool = True):
        """indexed: whether records are as long as the index beside them says; then one that is not is an
        error."""
        self.shards, self._indexed = shards, indexed
        self.fingerprint = hashlib.sha256("".join(shard.sha256 for shard in shards).encode()).hexdigest()[:12]
        self.starts = [0, *np.cumsum([shard.documents for shard in shards]).tolist()]
        self.group_names = tuple(sorted({name for shard in shards for name in shard.groups}))
        self._open = functools.lru_cache(OPEN)(_reader)
        self._lock = threading.Lock()

    def __len__(self):
        return self.starts[-1]

    def __getitem__(self, number: int) -> bytes:
        if not 0 <= number < len(self):
            raise IndexError(number)
        at = bisect.bisect_right(self.starts, number) - 1
        shard = self.shards[at]
        try:
            with self._lock:
                found = bytes(self._open(shard.path).read([int(number - self.starts[at])])[0])
        except (RuntimeError, IndexError) as error:
            raise UserError(
                f"cannot read document {number - self.starts[at]} of {shard.path}:"
                f" {' '.join(str(error).split())} (bltjax data inspect --verify says what to remove and make"
                " again)"
            ) from None
        if self._indexed and len(found) != self.lengths[number]:
            raise UserError(
                f"document {number - self.starts[at]} of {shard.path} has {len(found):,} bytes, in its index"
                f" {self.lengths[number]:,}: another file has this one's name, or it is damaged (bltjax data"
                " inspect --verify)"
            )
        return found

    def shards_of(self, numbers) -> list[Shard]:
        """The shards that hold the documents of these numbers."""
        which = np.unique(np.searchsorted(self.starts, np.asarray(numbers), side="right") - 1)
        return [self.shards[i] for i in which]

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        return self._index["length"].astype(np.int64)

    @functools.cached_property
    def groups(self) -> np.ndarray:
        number = {name: i for i, name in enumerate(self.group_names)}
        maps = [np.array([number[name] for name in shard.groups], np.int32) for shard in self.shards]
        parts = np.split(self._index["group"], self.starts[1:-1])
        return (
            np.concatenate([m[part] for m, part in zip(maps, parts, strict=True)])
            if maps
            else np.zeros(0, np.int32)
        )

    @functools.cached_property
    def _index(self) -> np.ndarray:
        return (
            np.concatenate([read_index(shard) for shard in self.shards])
            if self.shards
            else np.zeros(0, INDEX)
        )


class Mixture(Documents):
    """Documents of several data sets, one after the other. ranges: [(first, last + 1, weight)], weights
    summing to 1: the share of bytes that a run reads of each."""

    def __init__(self, parts: list[tuple[list[Shard], float]]):
        super().__init__([shard for shards, _ in parts for shard in shards])
        ends = np.cumsum([0, *(sum(shard.documents for shard in shards) for shards, _ in parts)]).tolist()
        total = sum(weight for _, weight in parts)
        self.ranges = [
            (first, last, weight / total) for first, last, (_, weight) in zip(ends, ends[1:], parts)
        ]
        self.fingerprint = hashlib.sha256(f"{self.fingerprint} {self.ranges}".encode()).hexdigest()[:12]


class Selection:
    """Some documents of a sequence, by their numbers there: len, [i] -> bytes, lengths, groups, iteration;
    nothing is read before it is asked for."""

    def __init__(self, documents, numbers, parts=()):
        """parts: [(first, last + 1, weight)] of positions here that are of one source each, where several are
        mixed (Mixture)."""
        self.documents, self.numbers, self.parts = documents, np.asarray(numbers, np.int64), list(parts)
        if isinstance(documents, Selection):
            self.documents, self.numbers = documents.documents, documents.numbers[self.numbers]
        self.fingerprint = hashlib.sha256(
            self.documents.fingerprint.encode() + self.numbers.tobytes()
        ).hexdigest()[:12]

    def __len__(self):
        return len(self.numbers)

    def __getitem__(self, i: int) -> bytes:
        return self.documents[int(self.numbers[i])]

    @property
    def lengths(self) -> np.ndarray:
        return self.documents.lengths[self.numbers]

    @property
    def groups(self) -> np.ndarray:
        return self.documents.groups[self.numbers]

    @property
    def group_names(self) -> tuple:
        return self.documents.group_names

    def shards_of(self, numbers) -> list:
        """The shards that hold the documents of these numbers."""
        return self.documents.shards_of(self.numbers[np.asarray(numbers, np.int64)])

    @property
    def shards(self) -> list:
        return self.documents.shards


def read_index(shard: Shard) -> np.ndarray:
    """Lengths and groups of a shard's documents, INDEX [documents]. UserError where they are not what the
    manifest says."""
    try:
        index = np.load(shard.index_path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(
            f"cannot read {shard.index_path}: {' '.join(str(error).split())}; remove it and prepare this part"
            " of the data again"
        ) from None
    if (
        index.dtype != INDEX
        or index.shape != (shard.documents,)
        or int(index["length"].sum(dtype=np.int64)) != shard.bytes
        or len(index)
        and index["group"].max() >= len(shard.groups)
    ):
        raise UserError(
            f"{shard.index_path} is not the index of {shard.path.name}; remove it and prepare this part of"
            " the data again"
        )
    return index


def _reader(path: pathlib.Path):
    from array_record.python import array_record_module

    return array_record_module.ArrayRecordReader(str(path), "")
