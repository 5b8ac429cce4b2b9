"""Documents in memory, and rows of them, where a test has no prepared data: by the code that prepared data
goes."""

import numpy as np

from bltjax.data import batches, packing, row_plans
from bltjax.data.unit_cache import UnitCache


class Documents(list):
    """Documents in memory, as a UnitCache wants them."""

    parts, fingerprint = (), ""  # whose rows are planned anew each time

    @property
    def numbers(self) -> np.ndarray:
        return np.arange(len(self))

    @property
    def lengths(self) -> np.ndarray:
        return np.array([len(document) for document in self], np.int64)


def byte_rows(
    documents: list[bytes],
    lengths=None,
    *,
    context: int,
    rows: int,
    patches: int | None = None,
    seed: int = 0,
    buffer: int = 0,
    window: int = 0,
) -> batches.Rows:
    """Batches of `rows` rows of `context` byte slots and `patches` patches (None: kind `byte`, no patches),
    of documents in memory.

    lengths: per document its patch lengths over [BOS, bytes, EOS] (patching/segmentation.py). buffer, window:
    as in row_plans.Shape. P for a mean patch size: `patch_capacity`."""
    if lengths is not None and len(lengths) != len(documents):
        raise ValueError(f"patch lengths of {len(lengths)} documents, where there are {len(documents)}")

    def units(numbers, found):
        return packing.byte_documents(found, None if lengths is None else [lengths[i] for i in numbers])

    shape = row_plans.Shape(context, patches, buffer, window)
    return batches.Rows(
        row_plans.Blocks(UnitCache(Documents(documents), units, ""), shape, seed), context, patches, rows
    )


def token_rows(
    documents: list[bytes],
    tokenizer,
    *,
    length: int,
    rows: int,
    seed: int = 0,
    buffer: int = 0,
    window: int = 0,
) -> batches.Rows:
    """Batches of `rows` rows of `length` tokens, of documents in memory; the rest is as in `byte_rows`."""
    units = UnitCache(Documents(documents), lambda _, found: batches.tokens_of(found, tokenizer), "")
    return batches.Rows(
        row_plans.Blocks(units, row_plans.Shape(length, None, buffer, window), seed), length, None, rows
    )
