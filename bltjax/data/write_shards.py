"""The second stage of `prepare`: every bucket becomes a shard, sorted by its documents' keys, without what
nearly repeats test or validation text."""

import hashlib
import os
import pathlib

import numpy as np

from bltjax.counts import counted
from bltjax.data import corpus, near_copies, shingles, shuffle, shuffle_buckets
from bltjax.data.near_copies import STAYS, TEST, VALIDATION
from bltjax.storage import atomic

COMPRESSION = "group_size:1,zstd:3"
GATHERED = ("test", "validation", "train")  # what was decided for one counts for the next
PASSAGES = 3  # why a training document leaves, beside near_copies.TEST and VALIDATION
# Why documents leave, as the manifest names it and as it is said.
REASONS = {
    "test_repeats_test": "in test text that repeat other test text",
    "validation_repeats_test": "in validation text that repeat test text",
    "train_repeats_test": "in training text that repeat test text",
    "train_repeats_validation": "in training text that repeat validation text",
    "train_holds_test_passages": "in training text that hold long passages of test text",
}


def written(directory, shard: dict) -> bool:
    """Whether a shard and its index are there, of the size that they had."""
    path = directory / shard["name"]
    try:
        return path.stat().st_size == shard["file_bytes"] and corpus.index_path(
            path
        ).stat().st_size == shard.get("index_bytes", corpus.index_path(path).stat().st_size)
    except OSError:
        return False


def gather(directory, work, part, progress, shard_count, data_config, say) -> dict:
    """Writes the shards of a part that are not there yet into `progress`, and returns what its manifest says
    of its splits: {"drawn", "near_copies", "test_overlap", "test_shingles"} (docs/data.md)."""
    progress.shards = [shard for shard in progress.shards if written(directory, shard)]
    there = {shard["name"] for shard in progress.shards}
    found = {
        split: [
            (f"{split}-{part:05}-{number:05}.arrayrecord", Bucket(work, split, number, progress.moved))
            for number in range(shuffle.bucket_count(split, shard_count, data_config))
            if (work / f"{split}-{number:05}.bucket").exists() or (split, number) == ("train", 0)
        ]
        for split in GATHERED
    }
    every = {split: [bucket for _, bucket in named] for split, named in found.items()}
    facts = _decide(every, bool(data_config.split), say)
    for split in GATHERED:
        for name, bucket in found[split]:
            if name in there:
                continue
            progress.shards.append(_write_shard(bucket, directory / name, split))
            progress.save(work)
            say(
                f"wrote {name}: {counted(progress.shards[-1]['documents'], 'document')},"
                f" {progress.shards[-1]['bytes'] / 1e6:,.1f} MB"
            )
    progress.shards.sort(key=lambda shard: (GATHERED.index(shard["split"]), shard["name"]))
    for key in ("duplicates", "near_copies"):
        progress.counts[key] = sum(shard[key] for shard in progress.shards)
    return facts


class Bucket:
    """The documents of a bucket by ascending key, each once, without those that went to another split."""

    def __init__(self, work: pathlib.Path, split: str, number: int, moved: dict):
        self.path = work / f"{split}-{number:05}.bucket"
        self._gone = {bytes.fromhex(key) for key, to in moved.items() if to != split}

    def entries(self) -> tuple[np.ndarray, int]:
        """(shuffle_buckets.ENTRY [D] of the documents, how many copies were left out)."""
        if not self.path.exists():
            return np.empty(0, shuffle_buckets.ENTRY), 0
        with self.path.open("rb") as file:
            every = shuffle_buckets.by_key(file, self.path)
        new = np.ones(len(every), bool)
        new[1:] = (every["key"][1:] != every["key"][:-1]).any(axis=1)
        stays = new.copy()
        if self._gone:
            stays &= [shuffle_buckets.key_of(entry) not in self._gone for entry in every]
        return every[stays], int((~new).sum())

    def documents(self, entries):
        if len(entries):
            with self.path.open("rb") as file:
                for entry in entries:
                    yield shuffle_buckets.read(file, entry, self.path)

    def load(self, name: str) -> dict | None:
        """What `store` kept beside the bucket, or None."""
        path = self.path.with_suffix(f".{name}.npz")
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)

    def store(self, name: str, **arrays) -> None:
        path = self.path.with_suffix(f".{name}.npz")
        with atomic.replacing(path) as part, part.open("wb") as file:
            np.savez(file, **arrays)


def _decide(every: dict[str, list[Bucket]], stay: bool, say) -> dict:
    """Keeps beside each bucket why each of its documents leaves ("why" uint8 [D], STAYS and others); returns
    what `gather` does. stay: none leaves, only the overlap is measured."""
    drawn = {split: {"documents": 0, "bytes": 0} for split in corpus.SPLITS}
    for split, some in every.items():
        for bucket in some:
            entries, _ = bucket.entries()
            drawn[split]["documents"] += len(entries)
            drawn[split]["bytes"] += int(entries["length"].sum(dtype=np.int64))
    documents = sum(total["documents"] for total in drawn.values())
    reasons = dict.fromkeys(REASONS, 0)
    facts = {
        "drawn": drawn,
        "near_copies": reasons,
        "test_overlap": {"all": None, "without_boilerplate": None},
        "test_shingles": {"all": [0, 0], "without_boilerplate": [0, 0]},
    }
    if not drawn["test"]["documents"] + drawn["validation"]["documents"]:
        for bucket in every["train"]:
            bucket.store("why", why=np.full(len(bucket.entries()[0]), STAYS, np.uint8))
        return facts
    say("looking for near-copies of test and validation text")
    sampling = near_copies.sampling_for(drawn["test"]["bytes"] + drawn["validation"]["bytes"])
    sampled = lambda some: shingles.sampled(
        (document for bucket in some for document in bucket.documents(bucket.entries()[0])), sampling
    )
    held = near_copies.HeldOut(sampled([*every["test"], *every["validation"]]), drawn["test"]["documents"])
    for some in every.values():
        for bucket in some:
            if not bucket.load("hits"):
                hits = held.match(sampled([bucket]))
                bucket.store(
                    "hits", sampled=hits.sampled, counts=hits.counts, rows=hits.rows.astype(np.int32)
                )
            held.count(_hits(bucket))
    held.settle(documents)

    first, holds = 0, np.zeros(near_copies.TOP, np.int64)
    for split, some in every.items():
        for bucket in some:
            hits = _hits(bucket)
            why = held.decide(hits, split, first, stay)
            first += len(why)
            holding = np.zeros(len(why), np.int64)
            if split == "train":
                holding = held.hold(hits, why == STAYS)
                holds += np.bincount(holding[why == STAYS], minlength=near_copies.TOP)
            bucket.store("why", why=why, holding=holding)
            reasons[f"{split}_repeats_test"] += int((why == TEST).sum())
            if split == "train":
                reasons["train_repeats_validation"] += int((why == VALIDATION).sum())
    limit = near_copies.NEVER if stay else held.limit(holds)
    for bucket in every["train"]:
        kept = bucket.load("why")
        why = np.where((kept["why"] == STAYS) & (kept["holding"] >= limit), PASSAGES, kept["why"]).astype(
            np.uint8
        )
        reasons["train_holds_test_passages"] += int((why == PASSAGES).sum())
        bucket.store("why", why=why)
    facts["test_shingles"] = held.overlap(limit)
    facts["test_overlap"] = corpus.shares_of(facts["test_shingles"])
    return facts


def _hits(bucket: Bucket) -> near_copies.Hits:
    return near_copies.Hits(**bucket.load("hits"))


def _write_shard(bucket: Bucket, path: pathlib.Path, split: str) -> dict:
    from array_record.python import array_record_module

    partial = path.with_name(f".{path.name}.partial")
    entries, copies = bucket.entries()
    stays = bucket.load("why")["why"] == STAYS
    content = hashlib.sha256()
    writer = array_record_module.ArrayRecordWriter(str(partial), COMPRESSION)
    for entry, document in zip(entries[stays], bucket.documents(entries[stays]), strict=True):
        writer.write(document)
        content.update(shuffle_buckets.key_of(entry))
    writer.close()
    index = np.empty(int(stays.sum()), corpus.INDEX)
    index["length"], index["group"] = entries["length"][stays], entries["group"][stays]
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
        "duplicates": copies,
        "near_copies": int((~stays).sum()),
    }
    os.replace(index_partial, index_path)
    os.replace(partial, path)
    return record
