"""Global batches: a batch is a pure function of (seed, step), so that resuming needs nothing but the number
of the step.

Documents are drawn once in a seeded order, cut to `max_train_bytes`, and shuffled again for each epoch; rows
of one epoch follow those of the epoch before. The order knows nothing of patches or tokens: every family
reads the same documents in the same order. """

import dataclasses
import functools
import itertools
import os
import threading
from collections.abc import Callable

import grain
import numpy as np

from bltjax.data import packing
from bltjax.data.unit_cache import Choice
from bltjax.errors import UserError

THREADS = max(
    1, min(4, (os.cpu_count() or 1) // 2)
)  # that fill batches ahead; the batches are the same, however many there are


def training_documents(documents, data_config):
    """The documents that a run trains on: all, or the first of the seeded order up to `max_train_bytes` bytes
    (never less than one).

    documents: a list, and one comes back; or documents at rest (store.Documents), and a shelf.Choice of them
    does. """
    ranges = getattr(documents, "ranges", [(0, len(documents), 1.0)])
    orders = []
    for first, last, weight in ranges:
        order = first + order_of(data_config.seed, "cut", last - first)
        if data_config.max_train_bytes:
            total = np.cumsum(lengths(documents)[order])
            order = order[
                : max(1, int(np.searchsorted(total, weight * data_config.max_train_bytes, side="right")))
            ]
        orders.append(order)
    order = np.concatenate(orders)
    if isinstance(documents, list):
        return [documents[i] for i in order]
    ends = np.cumsum([0, *map(len, orders)]).tolist()
    return Choice(
        documents,
        order,
        [(a, b, weight) for a, b, (_, _, weight) in zip(ends, ends[1:], ranges)] if len(ranges) > 1 else (),
    )


def lengths(documents) -> np.ndarray:
    """Bytes of each document, int64 [D]; of documents at rest without reading them."""
    return (
        np.array([len(d) for d in documents], np.int64) if isinstance(documents, list) else documents.lengths
    )


def byte_rows(
    documents: list[bytes],
    lengths=None,
    *,
    context: int,
    rows: int,
    patches: int | None = None,
    seed: int = 0,
    together: int = 0,
) -> "Rows":
    """Batches of `rows` rows of `context` byte slots and `patches` patches (None: kind `byte`, no patches).

    lengths: per document its patch lengths over [BOS, bytes, EOS] (data/segmentation.py). together: as in
    packing.plan_byte_rows. P for a mean patch size: `patch_capacity`. """
    return Rows(
        in_memory(packing.byte_documents(documents, lengths), context, patches, seed, together),
        context,
        patches,
        rows,
    )


def token_rows(
    documents: list[bytes],
    tokenizer,
    *,
    context: int,
    rows: int,
    seed: int = 0,
    length: int | None = None,
    token_ids=None,
) -> "Rows":
    """Batches of `rows` rows of N tokens that hold as many raw bytes as byte rows of `context` slots do, as
    nearly as a whole N can.

    length: N, where it is known already; token_ids: the documents' tokens, where they are.
    """
    token_ids = [tokenizer.encode(document) for document in documents] if token_ids is None else token_ids
    packed = packing.token_documents(token_ids, tokenizer.byte_counts, tokenizer.bos, tokenizer.eos)
    length = length or token_row_length(packed, documents, context)
    return Rows(in_memory(packed, length, None, seed), length, None, rows)


def patch_capacity(context: int, patch_size: float, slack: float, multiple: int = 8) -> int:
    """P of a row: slack · context / patch size, rounded up to a multiple, and no more than one a slot."""
    return min(context, multiple * -(-int(np.ceil(slack * context / patch_size)) // multiple))


def row_shape(run) -> tuple[int, int]:
    """(slots or tokens, patches) of one row of a run, as its config has them; patches are 0 where there are
    none."""
    if run.model.kind == "token":
        return round(run.data.context / run.tokenizer.bytes_per_token), 0
    if run.model.kind == "byte":
        return run.data.context, 0
    return run.data.context, patch_capacity(run.data.context, run.patching.size, run.data.patch_slack)


def token_row_length(packed: packing.Documents, documents: list[bytes], context: int) -> int:
    """N for which the mean raw bytes of a token row are nearest to those of a byte row of `context` slots,
    over these documents.

    Not just context / bytes per token: BOS and EOS, and the padding at the end of the last row, weigh more
    among fewer slots. Rows of both kinds hold the same bytes in all, so that the counts of rows are what is
    compared. """
    target = len(packing.plan_byte_rows(packing.byte_documents(documents), context))
    n = max(4, round(context * len(packed.ids) / max(1, packed.raw_bytes.sum())))
    tried = {}
    while n not in tried:
        tried[n] = len(packing.plan_token_rows(packed, n))
        n = max(4, round(n * tried[n] / target))
    return min(tried, key=lambda n: (abs(tried[n] - target), n))


def order_of(seed: int, epoch, count: int) -> np.ndarray:
    """Permutation of documents, int64 [count]; epoch: 0.. or "cut", the order drawn before the first."""
    if seed < 0:
        raise UserError(f"data.seed={seed}: a seed is 0 or more")
    key = 0 if epoch == "cut" else epoch + 1
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, key]))).permutation(count)


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Rows that were planned together. counts: packing.counts. plan: () -> packing.Plan. fill: numbers of
    rows of the plan -> their batch."""

    counts: dict
    plan: Callable
    fill: Callable

    def __len__(self):
        return len(self.counts["slots"])


def in_memory(
    documents: packing.Documents, row_length: int, row_patches: int | None, seed: int, together: int = 0
):
    """Yields a Chunk for every epoch, without end."""
    for epoch in itertools.count():
        plan = packing.plan_byte_rows(
            documents, row_length, row_patches, order_of(seed, epoch, len(documents)), together, (seed, epoch)
        )
        yield Chunk(
            packing.counts(documents, plan),
            lambda plan=plan: plan,
            functools.partial(packing.fill, documents, plan),
        )


class Rows:
    """Batches of B rows of T slots (and P patches), step 0 on, without end: epochs follow one another, each
    in its own order.

    Attributes: capacity {"slots": B·T, "patches": B·P, or 0 without patches}, row_length T, row_patches P or
    None, rows B, chunks (those that were planned so far). """

    def __init__(
        self, chunks, row_length: int, row_patches: int | None, rows: int, ahead: Callable | None = None
    ):
        """chunks: yields Chunks. ahead: is called with how many of them are about to be wanted, where others
        may help to plan them."""
        if rows < 1:
            raise UserError(f"data.rows={rows}: a batch has at least one row")
        self.row_length, self.row_patches, self.rows = row_length, row_patches, rows
        self.capacity = {"slots": rows * row_length, "patches": rows * (row_patches or 0)}
        self.chunks, self._coming, self._ahead, self._ends = (
            [],
            iter(chunks),
            ahead,
            [0],
        )  # ends: number of rows up to and with each chunk
        self._lock = threading.Lock()  # grain fills batches in a thread of its own
        self._upto(0)

    def _upto(self, row: int) -> None:
        """Plans chunks until the given row is in one of them."""
        with self._lock:
            while self._ends[-1] <= row:
                chunk = next(self._coming)
                if not len(chunk) and not self._ends[-1]:
                    raise UserError("the training documents are all empty; nothing to train on")
                self.chunks.append(chunk)
                self._ends.append(self._ends[-1] + len(chunk))

    def batch(self, step: int, these=None) -> dict:
        """Batch of one step (0-based): int32 arrays [B, T] and [B, P] (packing.fill), the same whenever it is
        asked for.

        these: numbers of the rows to fill, of 0 to B - 1 and ascending, so that the arrays have only as many;
        None: all of them. """
        first = step * self.rows
        self._upto(first + self.rows - 1)
        numbers = first + (np.arange(self.rows) if these is None else np.asarray(these))
        chunks = np.searchsorted(self._ends, numbers, side="right") - 1
        parts = [
            self.chunks[chunk].fill(numbers[chunks == chunk] - self._ends[chunk])
            for chunk in np.unique(chunks)
        ]
        return (
            parts[0]
            if len(parts) == 1
            else {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        )

    def counts(self, steps: int) -> dict:
        """Useful units of each of the first `steps` steps, int64 [steps]: "bytes" raw bytes predicted,
        "slots" bytes (specials included) or tokens that are not padding, "patches" that are not padding (0
        without patches)."""
        if self._ahead and steps * self.rows > self._ends[-1]:
            self._ahead(-(-steps * self.rows // self.epoch_rows()))
        self._upto(steps * self.rows - 1)
        joined = {
            name: np.concatenate([chunk.counts[name] for chunk in self.chunks])[: steps * self.rows]
            for name in self.chunks[0].counts
        }
        return {name: rows.reshape(steps, self.rows).sum(axis=1) for name, rows in joined.items()}

    def epoch_rows(self) -> int:
        """Rows in the first chunk: of text in memory, an epoch."""
        return self._ends[1]

    def iterator(self, start: int, stop: int, these=None, threads: int = THREADS):
        """Batches of steps start to stop - 1 in order, filled ahead of time by grain in so many threads.
        these: as in `batch`."""
        steps = grain.MapDataset.range(start, stop).map(lambda step: self.batch(step, these))
        return iter(
            steps.to_iter_dataset(
                grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(4, threads))
            )
        )
