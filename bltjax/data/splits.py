"""Training, validation and test text of prepared data, or of several data sets that are mixed. Nothing but
indexes is read before a document is asked for."""

import dataclasses
import hashlib
import json
import pathlib

import numpy as np

from bltjax.data import corpus
from bltjax.data.corpus import Selection
from bltjax.errors import UserError

HEAVIEST = 1e9  # weight of a source


@dataclasses.dataclass(frozen=True)
class Splits:
    """Documents of each split in the data set's own, random, order. fingerprint: 12 hex digits over all
    three."""

    train: corpus.Documents
    validation: corpus.Documents
    test: corpus.Documents
    fingerprint: str


def opened(folders: dict[str, float]) -> Splits:
    """The splits of {directory: weight}. UserError where one is no prepared data, or has an empty split."""
    shards = {folder: corpus.shards(pathlib.Path(folder)) for folder in folders}
    found = {}
    for split in corpus.SPLITS:
        own = [
            ([shard for shard in shards[folder] if shard.split == split], weight)
            for folder, weight in folders.items()
        ]
        for folder, (some, _) in zip(folders, own):
            if not sum(shard.documents for shard in some):
                raise UserError(
                    f"{folder} has no {split} documents; prepare it with other fractions data.validation and"
                    " data.test, or more documents"
                )
        documents = corpus.Mixture(own) if len(own) > 1 else corpus.Documents(own[0][0])
        if len(own) > 1 and split != "train":  # the first so many bytes are to be of all sources
            documents = Selection(documents, np.random.default_rng(0).permutation(len(documents)))
        found[split] = documents
    whole = json.dumps({split: documents.fingerprint for split, documents in found.items()})
    return Splits(**found, fingerprint=hashlib.sha256(whole.encode()).hexdigest()[:12])


def weights(data_config) -> dict[str, float]:
    """{directory: weight} of data.source=prepared. UserError where neither data.folder nor data.mix says
    which, and for a data.mix that is not of the form "DIR=WEIGHT"."""
    if bool(data_config.folder) == bool(data_config.mix):
        raise UserError(
            "data.source=prepared needs either data.folder, a directory that bltjax data prepare made, or"
            " data.mix, several with weights"
        )
    if data_config.folder:
        return {data_config.folder: 1.0}
    found = {}
    for item in data_config.mix:
        folder, _, text = str(item).rpartition("=")
        try:
            found[folder] = float(text)
        except ValueError:
            folder = ""
        if not folder or not 0 < found[folder] <= HEAVIEST:
            raise UserError(
                f"data.mix: {item!r} must be DIR=WEIGHT with a weight above 0 and at most {HEAVIEST:g}, such"
                " as prepared/web=0.7"
            )
    if len(found) != len(data_config.mix):
        raise UserError("data.mix names a directory twice")
    return found


def training(documents, max_bytes: int = 0) -> Selection:
    """The training documents that a run reads: all, or the first of each source in its own random order, up
    to `max_bytes` bytes in all by the sources' weights (never less than one of each). Seeds of runs have no
    say in it, so that every run of a sweep reads the same text."""
    ranges = getattr(documents, "ranges", [(0, len(documents), 1.0)])
    numbers, parts, begin = [], [], 0
    for first, last, weight in ranges:
        count = last - first
        if max_bytes:
            total = np.cumsum(documents.lengths[first:last])
            count = max(1, int(np.searchsorted(total, weight * max_bytes, side="right")))
        numbers.append(np.arange(first, first + count))
        parts.append((begin, begin + count, weight))
        begin += count
    return Selection(documents, np.concatenate(numbers), parts if len(ranges) > 1 else ())


def first(documents, max_bytes: int = 0) -> Selection:
    """Whole documents in the split's own (hash, so random) order, up to and with the one that brings them to
    `max_bytes`; 0 is all of them. None of them is read here.

    So a sample is unbiased in bytes: where to stop depends on the documents so far alone, the last among
    them, so that (Wald's identity) nats and bytes are in expectation the same multiple of the whole's. To
    leave out what does not fit would prefer short documents, in which every byte has little context."""
    many = _reaching(documents.lengths, max_bytes) if max_bytes else len(documents)
    return Selection(documents, np.arange(many))


def _reaching(lengths, limit: int, block: int = 1 << 20) -> int:
    """How many of the first documents have `limit` bytes, or all; a block of lengths at a time."""
    total = 0
    for begin in range(0, len(lengths), block):
        sums = total + np.cumsum(np.asarray(lengths[begin : begin + block], np.int64))
        if sums[-1] >= limit:
            return begin + int(np.searchsorted(sums, limit)) + 1
        total = int(sums[-1])
    return len(lengths)


def common(some, others) -> bytes | None:
    """A document that two sequences of documents both hold; None where there is none. Of the larger one only
    documents as long as one of the smaller are read."""
    if len(some) > len(others):
        some, others = others, some
    digests = {hashlib.sha256(some[number]).digest() for number in range(len(some))}
    for number in np.flatnonzero(np.isin(others.lengths, some.lengths)):
        document = others[int(number)]
        if hashlib.sha256(document).digest() in digests:
            return document
    return None
