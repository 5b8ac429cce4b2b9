"""Global batches: a batch is a pure function of (seed, step), so that resuming needs nothing but the number
of the step.

A run reads the first `max_train_bytes` of training text (data/splits.py), shuffled for each epoch; rows of
one epoch follow those of the epoch before. The order knows nothing of patches or tokens: every family reads
the same documents in the same order."""

import os
import threading
from collections.abc import Callable

import numpy as np

from bltjax.data import packing
from bltjax.errors import UserError

# That fill batches ahead; the batches are the same, however many there are.
THREADS = max(1, min(4, (os.cpu_count() or 1) // 2))


def tokens_of(documents: list[bytes], tokenizer) -> packing.Documents:
    """The documents' tokens, to pack."""
    token_ids = [tokenizer.encode(document) for document in documents]
    return packing.token_documents(token_ids, tokenizer.byte_counts, tokenizer.bos, tokenizer.eos)


def patch_capacity(context: int, patch_size: float, slack: float) -> int:
    """P of a row: slack · context / patch size, rounded up to a whole number of `patch_step`, and no more
    than one a slot."""
    wanted = int(np.ceil(slack * context / patch_size))
    return min(context, patch_step(wanted) * -(-wanted // patch_step(wanted)))


def patch_step(patches: int) -> int:
    """P is a multiple of this: 8, as accelerators like it, or 4 where 8 would be more than a twentieth of
    it."""
    return 8 if patches > 160 else 4


def row_shape(run) -> tuple[int, int]:
    """(slots or tokens, patches) of one row of a run, as its config has them; patches are 0 where there are
    none."""
    if run.model.kind == "token":
        return round(run.data.context / run.tokenizer.bytes_per_token), 0
    if run.model.kind == "byte":
        return run.data.context, 0
    return run.data.context, patch_capacity(run.data.context, run.patching.size, run.data.patch_slack)


class Rows:
    """Batches of B rows of T slots (and P patches), step 0 on, without end: epochs follow one another, each
    in its own order.

    Attributes: capacity {"slots": B·T, "patches": B·P, or 0 without patches}, row_length T, row_patches P or
    None, rows B, chunks (those that were planned so far: row_plans.Chunk)."""

    def __init__(
        self, chunks, row_length: int, row_patches: int | None, rows: int, ahead: Callable | None = None
    ):
        """chunks: yields Chunks. ahead: is called with how many times the first one's rows are about to be
        wanted, where others may help to plan them."""
        if rows < 1:
            raise UserError(f"data.rows={rows}: a batch has at least one row")
        self.row_length, self.row_patches, self.rows = row_length, row_patches, rows
        self.capacity = {"slots": rows * row_length, "patches": rows * (row_patches or 0)}
        # ends: number of rows up to and with each chunk
        self.chunks, self._coming, self._ahead, self._ends = [], iter(chunks), ahead, [0]
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
        """Batch of one step (0-based): int32 arrays [B, T] and [B, P] (filling.fill), the same whenever it is
        asked for.

        these: numbers of the rows to fill, of 0 to B - 1 and ascending, so that the arrays have only as many;
        None: all of them."""
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
        """What each of the first `steps` steps holds, [steps]: "bytes" raw bytes predicted, and the units
        whose FLOPs count (packing.counts): "slots" and "patches" that are not padding (int64; 0 without
        patches), "pairs" and "patch_pairs" of self-attention that no mask hides (float64)."""
        joined = self._of_rows(steps, lambda chunk: chunk.counts)
        return {name: rows.reshape(steps, self.rows).sum(axis=1) for name, rows in joined.items()}

    def longest(self, steps: int) -> dict:
        """{"slots", "patches"} of the longest segment of the first `steps` steps: what a model has trained
        on."""
        joined = self._of_rows(steps, lambda chunk: chunk.longest)
        return {name: int(rows.max()) for name, rows in joined.items()}

    def _of_rows(self, steps: int, values) -> dict:
        """{name: [steps * B]} of values(chunk), {name: one a row}."""
        if self._ahead and steps * self.rows > self._ends[-1]:
            self._ahead(steps * self.rows / self.epoch_rows())
        self._upto(steps * self.rows - 1)
        found = [values(chunk) for chunk in self.chunks]
        return {name: np.concatenate([one[name] for one in found])[: steps * self.rows] for name in found[0]}

    def epoch_rows(self) -> int:
        """Rows in the first chunk: of little text, an epoch."""
        return self._ends[1]

    def iterator(self, start: int, stop: int, these=None, threads: int = THREADS):
        """Batches of steps start to stop - 1 in order, filled ahead of time by grain in so many threads.
        these: as in `batch`."""
        import grain  # here: it takes as long to import as a plan takes

        steps = grain.MapDataset.range(start, stop).map(lambda step: self.batch(step, these))
        return iter(
            steps.to_iter_dataset(
                grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(4, threads))
            )
        )
