"""Entropies of prepared text (data/corpus.py), computed ahead of training and kept beside it: two bytes a
byte, before compression.

    DIR/entropies-<fingerprint>/entropy_model.json                  which entropy model they are of
    DIR/entropies-<fingerprint>/train-00000-00003.arrayrecord a record for each document of that shard: uint16
    [len + 1], one for BOS and
                                                              each byte, in units of patching.RESOLUTION nats
    DIR/entropies-<fingerprint>/train-00000-00003.json        written last: without it the shard is not there

The fingerprint is of the entropy model's shape and weights, wherever it lies. Patching from these rounds live
entropies the same way (patching.resolution)."""

import bisect
import dataclasses
import hashlib
import os
import pathlib
import shutil

import jax
import numpy as np

from bltjax import config as cfg
from bltjax import patching
from bltjax.counts import counted
from bltjax.data import corpus
from bltjax.entropy import annotate
from bltjax.errors import UserError
from bltjax.storage import atomic, locks, rundir

SCHEMA_VERSION = 1
# Bytes of text between two points from which a shard can be gone on with: some seconds' work.
CHUNK, CHUNK_ACCELERATOR = 1 << 20, 1 << 24
COMPRESSION = "group_size:1,zstd:1"


def fingerprint(model_config, params) -> str:
    """12 hex digits of an entropy model's shape and weights."""
    digest = hashlib.sha256(cfg.fingerprint(model_config).encode())
    for path, leaf in sorted(
        (jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    ):
        digest.update(path.encode() + np.ascontiguousarray(np.asarray(leaf, np.float32)).tobytes())
    return digest.hexdigest()[:12]


def rounded(nats) -> np.ndarray:
    """uint16: entropies in units of patching.RESOLUTION, the nearest."""
    return np.clip(
        np.round(np.asarray(nats, np.float32) / np.float32(patching.RESOLUTION)), 0, 2**16 - 1
    ).astype(np.uint16)


def nats(stored: np.ndarray) -> np.ndarray:
    """float32: exact multiples of patching.RESOLUTION."""
    return stored.astype(np.float32) * np.float32(patching.RESOLUTION)


def make(
    directory,
    model_config,
    params,
    *,
    shards: list[corpus.Shard] | None = None,
    part: int = 0,
    parts: int = 1,
    source: str = "",
    wait: bool = False,
    say=lambda text: None,
) -> dict:
    """Entropies of every parts-th shard of a prepared data set, from `part` on, by an entropy model; what is
    there already stays. shards: only these; None: all.

    Returns {"fingerprint", "folder", "shards", "made", "there", "elsewhere" (being made by other processes),
    "bytes"}. Killed, it goes on after the last CHUNK of the shard that it was in. wait: for shards that
    others are making, instead of leaving them out. UserError as corpus.shards, and for a part that cannot be.
    """
    if not 0 <= part < parts:
        raise UserError(f"--shard {part}/{parts}: shards count from 0 to {parts - 1}")
    shards = corpus.shards(directory) if shards is None else shards
    mark = fingerprint(model_config, params)
    folder = pathlib.Path(directory) / f"entropies-{mark}"
    folder.mkdir(exist_ok=True)
    rundir.write_json(
        folder / "entropy_model.json",
        {
            "schema_version": SCHEMA_VERSION,
            "fingerprint": mark,
            "model": cfg.to_dict(model_config),
            "source": source,
            "resolution": patching.RESOLUTION,
        },
    )
    found = {
        "fingerprint": mark,
        "folder": str(folder),
        "shards": len(shards),
        "made": 0,
        "there": 0,
        "elsewhere": 0,
        "bytes": 0,
    }
    for shard in shards[part::parts]:
        if whole(folder, shard):
            found["there"] += 1
            continue
        try:
            with locks.held(folder / f".{shard.path.name}.lock", wait=wait):
                if not whole(folder, shard):
                    _make(folder, shard, model_config, params)
                    say(
                        f"annotated {shard.path.name}: {counted(shard.documents, 'document')},"
                        f" {shard.bytes / 1e6:,.1f} MB"
                    )
            found["made"] += 1
            found["bytes"] += shard.bytes
        except locks.Busy:
            found["elsewhere"] += 1
    return found


def _make(folder: pathlib.Path, shard: corpus.Shard, model_config, params) -> None:
    from array_record.python import array_record_module

    documents = corpus.Documents([shard])
    ends = np.cumsum(documents.lengths)
    chunk = CHUNK if jax.default_backend() == "cpu" else CHUNK_ACCELERATOR
    # of this text: another under its name begins anew
    work = folder / f".{shard.path.name}.{shard.sha256[:12]}.chunks"
    work.mkdir(exist_ok=True)
    first, chunks = 0, []
    while first < len(documents):
        last = max(first + 1, bisect.bisect_right(ends, (ends[first - 1] if first else 0) + chunk))
        chunks.append((first, last, work / f"{first}-{last}.npy"))
        first = last
    for first, last, path in chunks:
        size = int(documents.lengths[first:last].sum()) + last - first
        if _chunk(path, size) is None:
            values = annotate.annotate(
                model_config, params, [documents[i] for i in range(first, last)], kept=rounded
            )
            with atomic.replacing(path) as part, part.open("wb") as file:
                np.save(file, np.concatenate([v[:-1] for v in values]), allow_pickle=False)
    partial = folder / f".{shard.path.name}.partial"
    writer = array_record_module.ArrayRecordWriter(str(partial), COMPRESSION)
    for first, last, path in chunks:
        values = np.load(path, allow_pickle=False)
        for piece in np.split(values, np.cumsum(documents.lengths[first:last] + 1)[:-1]):
            writer.write(piece.astype("<u2").tobytes())
    writer.close()
    record = {
        "schema_version": SCHEMA_VERSION,
        "text_sha256": shard.sha256,
        "documents": shard.documents,
        "file_bytes": partial.stat().st_size,
        "sha256": corpus.file_digest(partial),
    }
    os.replace(partial, folder / shard.path.name)
    rundir.write_json(seal(folder, shard), record)
    for old in folder.glob(f".{shard.path.name}.*.chunks"):
        shutil.rmtree(old)


def folder_of(shard: corpus.Shard, mark: str) -> pathlib.Path:
    """Where the entropies of a shard lie."""
    return shard.path.parent / f"entropies-{mark}"


def _chunk(path: pathlib.Path, size: int) -> np.ndarray | None:
    """What an earlier try computed; None where it did not come so far."""
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return values if values.dtype == np.uint16 and values.shape == (size,) else None


def seal(folder: pathlib.Path, shard: corpus.Shard) -> pathlib.Path:
    return folder / shard.path.name.replace(".arrayrecord", ".json")


def whole(folder: pathlib.Path, shard: corpus.Shard) -> bool:
    """Whether the entropies of a shard are there, and of this very text. UserError where they are of another,
    or damaged."""
    record = rundir.read_json(seal(folder, shard))
    if record is None:
        return False
    path = folder / shard.path.name
    if record.get("text_sha256") != shard.sha256:
        raise UserError(
            f"{path} has the entropies of other text than {shard.path}; remove {folder} and annotate again"
        )
    if not path.is_file() or path.stat().st_size != record.get("file_bytes"):
        raise UserError(
            f"{path} is not what its seal says; remove {seal(folder, shard).name} there and annotate again"
        )
    return True


def verify(shard: corpus.Shard, mark: str) -> None:
    """UserError where a shard's entropies, if there are any, are not those that were written."""
    folder = folder_of(shard, mark)
    if (
        whole(folder, shard)
        and corpus.file_digest(folder / shard.path.name) != rundir.read_json(seal(folder, shard))["sha256"]
    ):
        raise UserError(
            f"{folder / shard.path.name} is damaged: its checksum is not its seal's; remove"
            f" {seal(folder, shard).name} there and annotate again"
        )


class Entropies:
    """The entropies of documents (corpus.Documents, or a Selection of them), by the same numbers: [i] ->
    float32 nats [len + 2] over [BOS, bytes, EOS] (EOS: 0)."""

    def __init__(self, documents, mark: str):
        """UserError where a shard that holds one of the documents has none yet."""
        self.documents, self.mark = documents, mark
        every = getattr(documents, "documents", documents)
        self._numbers = getattr(documents, "numbers", np.arange(len(documents)))
        wanted = every.shards_of(self._numbers)
        lacking = [shard.path for shard in wanted if not whole(folder_of(shard, mark), shard)]
        if lacking:
            raise UserError(
                f"{lacking[0].parent}: {len(lacking)} of {counted(len(wanted), 'shard')} have no entropies of"
                f" {mark} yet ({lacking[0].name}, ...); bltjax data annotate makes them"
            )
        beside = [
            dataclasses.replace(shard, path=folder_of(shard, mark) / shard.path.name)
            for shard in every.shards
        ]
        self._values, self._lengths = corpus.Documents(beside, indexed=False), every.lengths

    def __len__(self):
        return len(self.documents)

    def __getitem__(self, number: int) -> np.ndarray:
        number = int(self._numbers[number])
        stored = np.frombuffer(self._values[number], "<u2")
        if len(stored) != self._lengths[number] + 1:
            raise UserError(
                f"{self._values.shards[0].path.parent}: document {number} has {len(stored)}"
                f" entropies, not {self._lengths[number] + 1}: they, or the text's index, are"
                " damaged (bltjax data inspect --verify says which, and what to remove)"
            )
        return np.append(nats(stored), np.float32(0))
