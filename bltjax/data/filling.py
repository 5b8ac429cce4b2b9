"""Batches filled from a plan of rows (data/packing.py): whole arrays at a time, on demand."""

import numpy as np

from bltjax.data.packing import Documents, Plan


def fill(documents: Documents, plan: Plan, rows) -> dict:
    """The batch of the given rows of the plan: the arrays of the contract (docs/contracts.md), int32
    [len(rows), T] and [len(rows), P].

    Keys: doc_ids, targets, loss_mask; for bytes `bytes`, and with patches patch_ids, latent_ids,
    patch_doc_ids; for tokens `tokens` and target_bytes. Padding is 0 everywhere but in patch_ids, where it is
    P."""
    slots = _Slots(plan, np.asarray(rows, np.int64))
    ids_U = documents.ids[slots.source_U].astype(np.int32)
    ids_U[slots.opens] = documents.bos
    learnt_U = np.ones(len(ids_U), np.int32)
    learnt_U[slots.closes] = 0
    batch = {
        "bytes" if documents.raw_bytes is None else "tokens": slots.shaped(ids_U),
        "doc_ids": slots.shaped(slots.number_U),
        "targets": slots.successors(ids_U),
        "loss_mask": slots.shaped(learnt_U),
    }
    if documents.raw_bytes is not None:
        bytes_U = documents.raw_bytes[slots.source_U]
        bytes_U[slots.opens] = 0
        batch["target_bytes"] = slots.successors(bytes_U)
    if plan.patch_capacity is not None:
        batch |= _patch_arrays(documents, slots, plan.patch_capacity)
    return batch


class _Slots:
    """The slots of some rows, in line: U = R * T of them. Every row is closed by a piece of padding, so that
    what follows are whole arrays, without a gap to scatter around.

    source_U: index in Documents.ids of what a slot holds (of padding: 0, to be overwritten); number_U int32:
    of its segment in its row, from 1, and 0 for padding; opens, closes: the first and the last slot of every
    segment; pads: slices of padding."""

    def __init__(self, plan: Plan, rows: np.ndarray):
        self.rows, self.capacity = len(rows), plan.capacity
        segments_R = plan.first[rows + 1] - plan.first[rows]
        last_S = np.cumsum(segments_R + 1) - 1  # S: segments and pieces of padding; these are a row's last
        first_S = last_S - segments_R
        number_S = np.arange(last_S[-1] + 1 if len(rows) else 0) - np.repeat(first_S, segments_R + 1)
        real_S = np.ones(len(number_S), bool)
        real_S[last_S] = False
        segment_S = np.where(real_S, np.repeat(plan.first[rows], segments_R + 1) + number_S, 0)
        length_S = np.where(real_S, plan.length[segment_S], 0)
        length_S[last_S] = plan.capacity - np.add.reduceat(length_S, first_S)
        begin_S = np.cumsum(length_S) - length_S
        self.opens, self.closes = begin_S[real_S], (begin_S + length_S - 1)[real_S]
        self.pads = [slice(a, a + size) for a, size in zip(begin_S[last_S], length_S[last_S]) if size]
        self.number_U = np.repeat(np.where(real_S, number_S + 1, 0).astype(np.int32), length_S)
        from_begin_S = np.where(real_S, plan.source[segment_S], 0) - begin_S
        self.source_U = np.repeat(from_begin_S, length_S) + np.arange(len(self.number_U))
        for pad in self.pads:
            self.source_U[pad] = 0

    def shaped(self, values_U, padding=0):
        """[R, T], with padding in its place."""
        for pad in self.pads:
            values_U[pad] = padding
        return values_U.reshape(self.rows, self.capacity)

    def successors(self, values_U):
        """Each slot's successor in its segment, [R, T]; 0 at a segment's last."""
        moved_U = np.empty(len(values_U), np.int32)
        moved_U[:-1] = values_U[1:]
        moved_U[self.closes] = 0
        return self.shaped(moved_U)


def _patch_arrays(documents: Documents, slots: _Slots, patch_capacity: int) -> dict:
    """patch_ids, latent_ids [R, T] and patch_doc_ids [R, P]."""
    R, T = slots.rows, slots.capacity
    starts_U = documents.starts[slots.source_U]
    starts_U[slots.opens] = starts_U[slots.opens + 1] = True  # BOS is a patch; one that was cut begins anew
    for pad in slots.pads:
        starts_U[pad] = False
    patch_U = (np.cumsum(starts_U.reshape(R, T), axis=1, dtype=np.int32) - 1).reshape(-1)
    latent_U = patch_U - 1
    latent_U[:-1] += starts_U[1:]
    latent_U[slots.closes] = patch_U[slots.closes]
    at = np.flatnonzero(starts_U)
    patch_doc_ids = np.zeros((R, patch_capacity), np.int32)
    patch_doc_ids[at // T, patch_U[at]] = slots.number_U[at]
    return {
        "latent_ids": slots.shaped(latent_U),
        "patch_doc_ids": patch_doc_ids,
        "patch_ids": slots.shaped(patch_U, patch_capacity),
    }
