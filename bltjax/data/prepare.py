"""Any source, shuffled and cut into shards of ArrayRecord, in memory that does not grow with it
(data/store.py says what comes out).

Two stages. *Scatter* reads units of the source and throws each document into a bucket that a hash of its
bytes picks. *Gather* sorts each bucket by that hash, which is the shuffle, and writes it as a shard; equal
documents meet there, and are kept once. A hash of its bytes says, too, which split a document is in; what in
training text nearly repeats a document of another split, gather finds and leaves out.

Killed at any moment, the same command goes on: after the last units that were scattered, then after the last
shard that was written. """

import dataclasses
import hashlib
import json
import math
import os
import pathlib
import shutil

import numpy as np

from bltjax.data import buckets, corpus, near_copies, sources
from bltjax.errors import UserError
from bltjax.storage import locks, rundir

SHARD_BYTES = 64 << 20  # of text in a shard, about, where the source's size is known
BUFFER = 32 << 20  # bytes of documents that wait to be written into buckets
SAVE = 64 << 20  # bytes of text between two points from which scattering can go on
COMPRESSION = "group_size:1,zstd:3"
MOST_GROUPS = 1 << 15
GATHERED = ("test", "validation", "train")  # training text last: it is compared with the others
OTHERS = "(other groups)"  # all that come later
LONGEST_GROUP = 100  # characters of a group's name
MOST_SHARDS = 65_536
LARGEST = 2**32 - 1  # bytes of a document: what an index can say
KEYS = (
    "source",
    "globs",
    "folder",
    "subset",
    "text_field",
    "group_field",
    "longest",
    "min_bytes",
    "validation",
    "test",
    "seed",
)


@dataclasses.dataclass
class Progress:
    """What has been done so far; at rest in the work folder, so that a restart begins there."""

    stamps: str  # of the units: another source is another job
    scattered: int = 0  # units
    buckets: dict = dataclasses.field(default_factory=dict)  # name: bytes of it that are whole
    counts: dict = dataclasses.field(
        default_factory=lambda: {"read": 0, "read_bytes": 0, "short": 0, "duplicates": 0, "near_copies": 0}
    )
    groups: list = dataclasses.field(default_factory=list)
    shards: list = dataclasses.field(default_factory=list)


def prepare(
    data_config, directory, *, shard_count: int = 0, part: int = 0, parts: int = 1, say=lambda text: None
) -> dict:
    """Writes part `part` of `parts` of a prepared data set into a directory, and returns its manifest; done
    already: only returns it.

    data_config: config.data, of which KEYS decide. shard_count: shards of training text that this part
    writes; 0: by the source's size. UserError for bad settings, a part that another process is making, and
    whatever sources.units and their reading raise: what was done until then stays done. """
    directory = pathlib.Path(directory)
    if not 0 <= part < parts:
        raise UserError(f"--shard {part}/{parts}: shards count from 0 to {parts - 1}")
    if not (
        data_config.validation >= 0
        and data_config.test >= 0
        and data_config.validation + data_config.test < 1
    ):
        raise UserError(
            f"data.validation={data_config.validation:g} and data.test={data_config.test:g} must be 0 or more"
            " and together below 1"
        )
    if (
        not 0 < data_config.longest <= LARGEST
        or not 0 <= data_config.seed < 2**63
        or data_config.min_bytes < 0
    ):
        raise UserError(
            f"data.longest={data_config.longest} must be from 1 to 2**32 - 1, data.seed={data_config.seed}"
            f" from 0 to 2**63 - 1, data.min_bytes={data_config.min_bytes} 0 or more"
        )
    if shard_count > MOST_SHARDS:
        raise UserError(
            f"--shards {shard_count:,}: {MOST_SHARDS:,} at most for one job; more jobs make more (--shard"
            " I/N)"
        )
    try:
        units, gone = sources.units(data_config), None
    except UserError as error:  # what is done already stays good without its source
        units, gone = [], error
    source = hashlib.sha256(json.dumps([(unit.name, unit.stamp) for unit in units]).encode()).hexdigest()
    settings = {key: list(v) if isinstance(v := data_config[key], tuple) else v for key in KEYS}
    name = corpus.part_name(part, parts)
    work = directory / f".{name.removesuffix('.json')}"
    try:
        with locks.held(directory / f"{work.name}.lock", wait=False):
            others = {path.name: rundir.read_json(path) or {} for path in directory.glob("part-*-of-*.json")}
            if any(
                one and (one.get("settings") != settings or one.get("parts") != parts)
                for one in others.values()
            ):
                raise UserError(
                    f"{directory} holds data prepared with other settings, or by another number of jobs;"
                    " choose another --out, or remove it"
                )
            if not gone and any(one and one.get("source", source) != source for one in others.values()):
                raise UserError(
                    f"{directory} was made of other source files than are there now (some changed, came or"
                    " went); put those back, choose another --out, or remove it"
                )
            done = others.get(name)
            if done and _there(directory, done):
                if shard_count and done["shard_count"] != shard_count:
                    raise UserError(
                        f"{directory} holds data prepared in another number of shards; choose another --out,"
                        " or remove it"
                    )
                _tidy(directory, work, done)
                say(
                    f"{directory / name} was there already"
                    + (f", and its source is not ({gone})" if gone else "")
                )
                return done
            if gone:
                raise gone
            manifest = {
                **_prepare(units, data_config, settings, directory, work, shard_count, part, parts, say),
                "source": source,
            }
            rundir.write_json(directory / name, manifest)
            _tidy(directory, work, manifest)
            return manifest
    except locks.Busy:
        raise UserError(f"another process is preparing part {part} of {parts} of {directory}") from None
    except OSError as error:
        raise UserError(f"cannot write prepared data to {directory}: {error.strerror or error}") from None


def _there(directory, manifest: dict) -> bool:
    """Whether all files of a part are there, of the size that they had."""
    try:
        return corpus.consistent(manifest) and all(_written(directory, shard) for shard in manifest["shards"])
    except (KeyError, TypeError):
        return False


def _written(directory, shard: dict) -> bool:
    """Whether a shard and its index are there, of the size that they had."""
    path = directory / shard["name"]
    try:
        return path.stat().st_size == shard["file_bytes"] and corpus.index_path(
            path
        ).stat().st_size == shard.get("index_bytes", corpus.index_path(path).stat().st_size)
    except OSError:
        return False


def _tidy(directory, work, manifest: dict) -> None:
    """Removes what earlier tries at this part left: its work, what was being written, and shards that the
    manifest does not name."""
    shutil.rmtree(work, ignore_errors=True)
    names = {shard["name"] for shard in manifest["shards"]}
    for leftover in directory.glob(f"{corpus.part_name(manifest['part'], manifest['parts'])}.*.part"):
        leftover.unlink(missing_ok=True)
    for split in corpus.SPLITS:
        of_part = f"{split}-{manifest['part']:05}-[0-9][0-9][0-9][0-9][0-9]"
        for path in [
            *directory.glob(f".{of_part}.*.partial"),
            *(
                path
                for path in directory.glob(f"{of_part}.*")
                if path.name.split(".")[0] + ".arrayrecord" not in names
            ),
        ]:
            path.unlink(missing_ok=True)


def _prepare(units, data_config, settings, directory, work, shard_count, part, parts, say) -> dict:
    if parts > len(units):
        raise UserError(
            f"--shard {part}/{parts}: {data_config.source} is read in {len(units)} unit(s), so that there can"
            " be no more jobs"
        )
    units = units[part::parts]
    shard_count = shard_count or min(1024, max(1, math.ceil(sum(map(_text_size, units)) / SHARD_BYTES)))
    stamps = hashlib.sha256(
        json.dumps(
            [buckets.FORMAT, settings, shard_count, [(unit.name, unit.stamp) for unit in units]]
        ).encode()
    ).hexdigest()
    progress = _resumed(work, stamps)
    if progress.scattered < len(units):
        _scatter(units, data_config, shard_count, work, progress, say)
    if parts == 1 and progress.counts["read"] == progress.counts["short"]:
        shutil.rmtree(work)
        raise UserError(
            f"no document of {data_config.source} has data.min_bytes={data_config.min_bytes} bytes or more"
            f" ({progress.counts['read']:,} were read)"
        )
    _gather(directory, work, part, progress, shard_count, data_config, say)
    kept = {split: [shard for shard in progress.shards if shard["split"] == split] for split in corpus.SPLITS}
    totals = {
        split: {key: sum(shard[key] for shard in found) for key in ("documents", "bytes")}
        for split, found in kept.items()
    }
    return {
        "schema_version": corpus.SCHEMA_VERSION,
        "part": part,
        "parts": parts,
        "settings": settings,
        "shard_count": shard_count,
        "fingerprint": fingerprint(progress.shards),
        "counts": progress.counts,
        "splits": totals,
        "groups": progress.groups,
        "shards": progress.shards,
    }


def text(manifest: dict) -> str:
    """What a part holds, in a few lines."""
    counts, lines = (
        manifest["counts"],
        [f"part {manifest['part']} of {manifest['parts']}, fingerprint {manifest['fingerprint']}"],
    )
    for split, total in manifest["splits"].items():
        lines.append(f"{split:<9} {total['documents']:>12,} documents  {total['bytes']:>16,} bytes")
    if not manifest["splits"]["train"]["documents"]:
        lines.append(
            "no training text: all that was read is test or validation text, left out, or another job's"
        )
    lines.append(
        f"left out: {counts['short']:,} too short, {counts['duplicates']:,} copies, {counts['near_copies']:,}"
        " nearly test text"
    )
    return "\n".join(lines)


def fingerprint(shards: list[dict]) -> str:
    """12 hex digits over the documents of all shards, their splits and order."""
    return hashlib.sha256(
        json.dumps([(shard["name"], shard["content"]) for shard in shards]).encode()
    ).hexdigest()[:12]


def _text_size(unit) -> int:
    compressed = os.path.splitext(unit.name)[1].lower() in (".gz", ".bz2", ".xz", ".zst", ".parquet")
    return unit.size * (3 if compressed else 1)


def _resumed(work: pathlib.Path, stamps: str) -> Progress:
    saved = rundir.read_json(work / "progress.json")
    if saved is not None and saved.get("stamps") != stamps:
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
    for name, size in progress.buckets.items():
        os.truncate(work / name, size)  # what was written after the last save is written again
    return progress


def _scatter(units, data_config, shard_count, work, progress, say) -> None:
    counts, group_number = progress.counts, {name: i for i, name in enumerate(progress.groups)}
    bucket_counts = {split: _bucket_count(split, shard_count, data_config) for split in corpus.SPLITS}
    seed = data_config.seed.to_bytes(8, "little")
    waiting, held, since = {}, 0, 0

    def flush():
        nonlocal held
        for name, pieces in waiting.items():
            with (work / name).open("ab") as file:
                file.writelines(pieces)
        waiting.clear()
        held = 0

    def save(scattered):
        flush()
        progress.scattered = scattered
        progress.buckets = {path.name: path.stat().st_size for path in sorted(work.glob("*.bucket"))}
        rundir.write_json(work / "progress.json", dataclasses.asdict(progress))
        say(
            f"read {scattered:,} of {len(units):,} units, {counts['read']:,} documents,"
            f" {counts['read_bytes'] / 1e6:,.0f} MB"
        )

    for number, unit in enumerate(units[progress.scattered :], progress.scattered):
        for document, group in unit.read():
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
            key = hashlib.sha256(seed + digest).digest()[:16]
            split = split_of(digest, data_config)
            bucket = int.from_bytes(key[:8], "big") * bucket_counts[split] >> 64
            record = buckets.record(key, group_number[group], document)
            waiting.setdefault(f"{split}-{bucket:05}.bucket", []).append(record)
            held += len(record)
            if held > BUFFER:
                flush()
        if since > SAVE or number == len(units) - 1:
            save(number + 1)
            since = 0


def _bucket_count(split: str, shard_count: int, data_config) -> int:
    share = {"validation": data_config.validation, "test": data_config.test}.get(split, 1)
    return max(1, math.ceil(shard_count * share))


def printable(group: str) -> str:
    """A group's name as it can be printed."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in group[:LONGEST_GROUP]
    )[:LONGEST_GROUP]


def split_of(digest: bytes, data_config) -> str:
    """train, validation or test, by a document's SHA-256: a random sample, whatever else is in the source.
    (By a hash of shingles, near-copies would go together, but so would all that shares a licence, and test
    text would be of another kind than what is trained on.) """
    place = int.from_bytes(digest[-8:], "big") / 2**64
    return (
        "test"
        if place < data_config.test
        else "validation" if place < data_config.test + data_config.validation else "train"
    )


def _gather(directory, work, part, progress, shard_count, data_config, say) -> None:
    progress.shards = [
        shard for shard in progress.shards if _written(directory, shard)
    ]  # its bucket is there still
    written = {shard["name"] for shard in progress.shards}
    compared = None
    for split in GATHERED:
        for number in range(_bucket_count(split, shard_count, data_config)):
            name = f"{split}-{part:05}-{number:05}.arrayrecord"
            bucket = work / f"{split}-{number:05}.bucket"
            if name in written:
                continue
            if split == "train" and compared is None:
                others = [shard for shard in progress.shards if shard["split"] != "train"]
                compared = near_copies.NearCopies(
                    [directory / shard["name"] for shard in others], sum(shard["bytes"] for shard in others)
                )
            if bucket.exists() or split == "train" and number == 0:
                progress.shards.append(_write_shard(bucket, directory / name, split, compared))
                rundir.write_json(work / "progress.json", dataclasses.asdict(progress))
                say(
                    f"wrote {name}: {progress.shards[-1]['documents']:,} documents,"
                    f" {progress.shards[-1]['bytes'] / 1e6:,.1f} MB"
                )
    progress.shards.sort(key=lambda shard: (GATHERED.index(shard["split"]), shard["name"]))
    for key in ("duplicates", "near_copies"):
        progress.counts[key] = sum(shard.get(key, 0) for shard in progress.shards)


def _write_shard(bucket: pathlib.Path, path: pathlib.Path, split: str, compared) -> dict:
    from array_record.python import array_record_module

    counts = {"duplicates": 0, "near_copies": 0}
    partial = path.with_name(f".{path.name}.partial")
    index, content, last = [], hashlib.sha256(), None
    with bucket.open("rb") if bucket.exists() else open(os.devnull, "rb") as file:
        writer = array_record_module.ArrayRecordWriter(str(partial), COMPRESSION)
        for entry in buckets.by_key(file, bucket):
            key = buckets.key_of(entry)
            if key == last:
                counts["duplicates"] += 1
                continue
            last = key
            document = buckets.read(file, entry, bucket)
            if compared and compared.near(document):
                counts["near_copies"] += 1
                continue
            writer.write(document)
            content.update(key)
            index.append((entry["length"], entry["group"]))
        writer.close()
    index = np.array(index, corpus.INDEX)
    index_path = corpus.index_path(path)
    index_partial = index_path.with_name(f".{index_path.name}.partial")
    with index_partial.open("wb") as file:
        np.save(file, index, allow_pickle=False)
    record = {
        "name": path.name,
        "split": split,
        "documents": len(index),
        "bytes": int(index["length"].sum(dtype=np.int64)),
        "file_bytes": partial.stat().st_size,
        "sha256": corpus.file_digest(partial),
        "content": content.hexdigest(),
        "index_bytes": index_partial.stat().st_size,
        "index_sha256": corpus.file_digest(index_partial),
        **counts,
    }
    os.replace(index_partial, index_path)
    os.replace(partial, path)
    return record
