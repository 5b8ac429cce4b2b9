"""Whole documents in evaluation windows: every byte, and one EOS a document, is scored once, with the same
left context in every family.

Windows are byte ranges of a document. With C = context - 2 (BOS and EOS need a slot each) the first scores
bytes [0, C), and window k after it [C + (k - 1)·C/2, C + k·C/2), with the C/2 bytes before as context; the
last one scores EOS too. Context begins at the first patch (or token) that starts in that stretch; a patch
that began before it and goes on past it is cut there, as a row would. A token belongs to the window in which
its first byte lies. A window is a row's one segment: it opens with BOS, document start or not. """

import numpy as np

from bltjax.data import packing
from bltjax.errors import UserError

MULTIPLE = 32  # P and N are rounded up to it, so that nearby documents share a compiled program


def byte_windows(documents: list[bytes], lengths, context: int, rows: int):
    """Yields (batch, score, doc_index) over windows of at most `context` slots, in document order.

    lengths: per document its patch lengths over [BOS, bytes, EOS]; None for kind `byte`. batch:
    packing.fill's int32 arrays [rows, context] and [rows, P]; score: bool [rows, context], where a target is
    scored (an EOS among them: targets == EOS); doc_index: int32 [rows, context], index in `documents`, -1
    where not scored. The last batch is padded with empty rows. """
    packed = packing.byte_documents(documents, lengths)
    begins = [np.arange(len(document)) for document in documents]
    yield from _batches(packed, begins, [len(document) for document in documents], context, rows, context)


def token_windows(
    documents: list[bytes], token_ids, byte_counts, context: int, rows: int, bos: int, eos: int
):
    """The same byte windows for tokens: token_ids, one int32 array a document (no BOS, no EOS); byte_counts
    int32 [V].

    Yields (batch, score, doc_index) with arrays [rows, N]; EOS are the scored targets whose target_bytes is
    0. """
    packed = packing.token_documents(token_ids, byte_counts, bos, eos)
    begins = []
    for document, ids in zip(documents, token_ids, strict=True):
        stops = np.cumsum(np.asarray(byte_counts)[ids], dtype=np.int64)
        if (stops[-1] if len(stops) else 0) != len(document):
            raise ValueError(
                f"tokens of a document stand for {stops[-1] if len(stops) else 0} bytes; it has"
                f" {len(document)}"
            )
        begins.append(stops - np.asarray(byte_counts)[ids])
    yield from _batches(packed, begins, [len(document) for document in documents], context, rows, None)


def _batches(packed, begins, sizes, context: int, rows: int, slots: int | None):
    if context < 6:
        raise UserError(f"evaluation windows need a context of at least 6 bytes, not {context}")
    windows = [
        window + (i,)
        for i, (begin, size) in enumerate(zip(begins, sizes))
        for window in _document_windows(packed, i, begin, size, context - 2)
    ]
    if not windows:
        return
    source, length, scored_from, document = np.array(windows, np.int64).T
    if packed.starts is not None:
        before = np.concatenate([[0], np.cumsum(packed.starts)])
        # BOS, the patch of the first unit, and those that start after it.
        patches = 2 + before[source + length] - before[source + 2]
        patch_capacity = _round_up(int(patches.max()))
    else:
        patches, patch_capacity = np.zeros(len(length), np.int64), None
    padded = rows * -(-len(length) // rows)
    first = np.minimum(np.arange(padded + 1), len(length))
    plan = packing.Plan(
        first,
        source,
        length,
        np.zeros_like(length),
        patches,
        slots or _round_up(int(length.max())),
        patch_capacity,
    )
    slot_T = np.arange(plan.capacity)[None, :]
    for start in range(0, padded, rows):
        these = np.minimum(np.arange(start, start + rows), len(length) - 1)[:, None]
        score = (
            (slot_T >= scored_from[these])
            & (slot_T < length[these] - 1)
            & (np.arange(start, start + rows)[:, None] < len(length))
        )
        doc_index = np.where(score, document[these], -1).astype(np.int32)
        yield packing.fill(packed, plan, np.arange(start, start + rows)), score, doc_index


def _document_windows(packed, i: int, begins: np.ndarray, size: int, whole: int):
    """Windows of one document: (source, length) of its segment, as in packing.Plan, and the first slot whose
    target is scored."""
    if size == 0:
        return
    half = whole // 2
    unit = int(packed.ends[i]) + 1  # index of the first unit in packed.ids
    scored = np.concatenate(
        [[0], np.arange(whole, size, half), [size + 1]]
    )  # EOS counts as the byte after the last
    begins = np.append(begins, size)
    units = np.searchsorted(begins, scored)
    contexts = np.searchsorted(begins, np.maximum(scored[:-1] - half, 0))
    for first, stop, context in zip(units[:-1].tolist(), units[1:].tolist(), contexts.tolist()):
        if first == stop:  # one token spans the whole range
            continue
        if packed.starts is not None:
            later = np.flatnonzero(packed.starts[unit + context : unit + first + 1])
            context += int(later[0]) if len(later) else 0
        yield unit + context - 1, stop - context + 1, first - context


def _round_up(count: int) -> int:
    return MULTIPLE * -(-count // MULTIPLE)
