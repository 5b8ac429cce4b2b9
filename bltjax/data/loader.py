"""Global batches: a batch is a pure function of (seed, step), so that resuming needs nothing but the number of the step.

Documents are drawn once in a seeded order, cut to `max_train_bytes`, and shuffled again for each epoch; rows of one epoch follow those
of the epoch before. The order knows nothing of patches or tokens: every family reads the same documents in the same order.
"""

import threading

import grain
import numpy as np

from bltjax.data import packing
from bltjax.errors import UserError


def training_documents(documents: list[bytes], data_config) -> list[bytes]:
    """The documents that a run trains on: all, or the first of the seeded order up to `max_train_bytes` bytes (never less than one)."""
    order = _order(data_config.seed, "cut", len(documents))
    if data_config.max_train_bytes:
        total = np.cumsum([len(documents[i]) for i in order])
        order = order[:max(1, int(np.searchsorted(total, data_config.max_train_bytes, side="right")))]
    return [documents[i] for i in order]


def byte_rows(documents: list[bytes], lengths=None, *, context: int, rows: int, patches: int | None = None, seed: int = 0, together: int = 0) -> "Rows":
    """Batches of `rows` rows of `context` byte slots and `patches` patches (None: kind `byte`, no patches).

    lengths: per document its patch lengths over [BOS, bytes, EOS] (data/segmentation.py). together: as in packing.plan_byte_rows. P for a mean patch size: `patch_capacity`.
    """
    return Rows(packing.byte_documents(documents, lengths), context, patches, rows, seed, together)


def token_rows(documents: list[bytes], tokenizer, *, context: int, rows: int, seed: int = 0, length: int | None = None,
               token_ids=None) -> "Rows":
    """Batches of `rows` rows of N tokens that hold as many raw bytes as byte rows of `context` slots do, as nearly as a whole N can.

    length: N, where it is known already; token_ids: the documents' tokens, where they are.
    """
    token_ids = [tokenizer.encode(document) for document in documents] if token_ids is None else token_ids
    packed = packing.token_documents(token_ids, tokenizer.byte_counts, tokenizer.bos, tokenizer.eos)
    return Rows(packed, length or token_row_length(packed, documents, context), None, rows, seed)


def patch_capacity(context: int, patch_size: float, slack: float, multiple: int = 8) -> int:
    """P of a row: slack · context / patch size, rounded up to a multiple, and no more than one a slot."""
    return min(context, multiple * -(-int(np.ceil(slack * context / patch_size)) // multiple))


def row_shape(run) -> tuple[int, int]:
    """(slots or tokens, patches) of one row of a run, as its config has them; patches are 0 where there are none."""
    if run.model.kind == "token":
        return round(run.data.context / run.tokenizer.bytes_per_token), 0
    if run.model.kind == "byte":
        return run.data.context, 0
    return run.data.context, patch_capacity(run.data.context, run.patching.size, run.data.patch_slack)


def token_row_length(packed: packing.Documents, documents: list[bytes], context: int) -> int:
    """N for which the mean raw bytes of a token row are nearest to those of a byte row of `context` slots, over these documents.

    Not just context / bytes per token: BOS and EOS, and the padding at the end of the last row, weigh more among fewer slots. Rows of
    both kinds hold the same bytes in all, so that the counts of rows are what is compared.
    """
    target = len(packing.plan_byte_rows(packing.byte_documents(documents), context))
    n = max(4, round(context * len(packed.ids) / max(1, packed.raw_bytes.sum())))
    tried = {}
    while n not in tried:
        tried[n] = len(packing.plan_token_rows(packed, n))
        n = max(4, round(n * tried[n] / target))
    return min(tried, key=lambda n: (abs(tried[n] - target), n))


def _order(seed: int, epoch, count: int) -> np.ndarray:
    """Permutation of documents, int64 [count]; epoch: 0.. or "cut", the order drawn before the first."""
    if seed < 0:
        raise UserError(f"data.seed={seed}: a seed is 0 or more")
    key = 0 if epoch == "cut" else epoch + 1
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, key]))).permutation(count)


class Rows:
    """Batches of B rows of T slots (and P patches), step 0 on, without end: epochs follow one another, each in its own order.

    Attributes: documents (packing.Documents), capacity {"slots": B·T, "patches": B·P, or 0 without patches}, row_length T,
    row_patches P or None, rows B.
    """

    def __init__(self, documents: packing.Documents, row_length: int, row_patches: int | None, rows: int, seed: int, together: int = 0):
        if rows < 1:
            raise UserError(f"data.rows={rows}: a batch has at least one row")
        self.documents, self.row_length, self.row_patches, self.rows, self.seed, self.together = documents, row_length, row_patches, rows, seed, together
        self.capacity = {"slots": rows * row_length, "patches": rows * (row_patches or 0)}
        self._plans, self._counts, self._ends = [], [], [0]  # per epoch; ends: number of rows up to and with it
        self._lock = threading.Lock()  # grain fills batches in a thread of its own
        self._upto(0)

    def _upto(self, row: int) -> None:
        """Plans epochs until the given row is in one of them."""
        with self._lock:
            while self._ends[-1] <= row:
                order = _order(self.seed, len(self._plans), len(self.documents))
                plan = packing.plan_byte_rows(self.documents, self.row_length, self.row_patches, order, self.together, (self.seed, len(self._plans)))
                if not len(plan):
                    raise UserError("the training documents are all empty; nothing to train on")
                self._counts.append(packing.counts(self.documents, plan))
                self._plans.append(plan)
                self._ends.append(self._ends[-1] + len(plan))

    def batch(self, step: int, these=None) -> dict:
        """Batch of one step (0-based): int32 arrays [B, T] and [B, P] (packing.fill), the same whenever it is asked for.

        these: numbers of the rows to fill, of 0 to B - 1 and ascending, so that the arrays have only as many; None: all of them.
        """
        first = step * self.rows
        self._upto(first + self.rows - 1)
        numbers = first + (np.arange(self.rows) if these is None else np.asarray(these))
        epochs = np.searchsorted(self._ends, numbers, side="right") - 1
        parts = [packing.fill(self.documents, self._plans[epoch], numbers[epochs == epoch] - self._ends[epoch])
                 for epoch in np.unique(epochs)]
        return parts[0] if len(parts) == 1 else {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def counts(self, steps: int) -> dict:
        """Useful units of each of the first `steps` steps, int64 [steps]: "bytes" raw bytes predicted, "slots" bytes (specials included)
        or tokens that are not padding, "patches" that are not padding (0 without patches)."""
        self._upto(steps * self.rows - 1)
        joined = {name: np.concatenate([epoch[name] for epoch in self._counts])[:steps * self.rows] for name in self._counts[0]}
        return {name: rows.reshape(steps, self.rows).sum(axis=1) for name, rows in joined.items()}

    def epoch_rows(self) -> int:
        """Rows in the first epoch."""
        return self._ends[1]

    def iterator(self, start: int, stop: int, these=None):
        """Batches of steps start to stop - 1 in order, filled ahead of time in one thread by grain. these: as in `batch`."""
        steps = grain.MapDataset.range(start, stop).map(lambda step: self.batch(step, these))
        return iter(steps.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)))
