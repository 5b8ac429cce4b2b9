"""Ids and patch lengths, as the released models take them, as a batch of ours."""

import numpy as np

from bltjax.errors import UserError
from bltjax.patching import vocab


def batch_from_lengths(ids, patch_lengths, eos_id: int = vocab.EOS) -> dict:
    """Model inputs by the released rules: int32 arrays of a BLT batch, without targets.

    ids [B,N]; patch_lengths [B,P], rows sum to N + 1 (the next byte's patch is decided too), the first patch
    is one byte, zeros at the end. Byte t reads the latent of the patch before its next byte's. EOS ends its
    document and belongs to it; a patch's document is its first byte's. Raises UserError where lengths break
    the rules."""
    ids, lengths = np.asarray(ids, np.int32), np.asarray(patch_lengths, np.int64)
    if ids.ndim != 2 or lengths.ndim != 2 or len(ids) != len(lengths):
        raise UserError(
            f"ids {list(ids.shape)} and patch lengths {list(lengths.shape)} must be [B,N] and [B,P] of the"
            " same B"
        )
    (B, N), P = ids.shape, lengths.shape[1]
    if (lengths < 0).any() or (lengths.sum(1) != N + 1).any():
        raise UserError(
            f"patch lengths must sum to {N + 1} (bytes plus the next one) in every row, not"
            f" {lengths.sum(1).tolist()[:4]}"
        )
    if (lengths[:, 0] != 1).any():
        raise UserError(
            "the first patch must be one byte long: a longer one would show a byte to its own prediction"
        )
    if (lengths[:, :-1] == 0)[lengths[:, 1:] > 0].any():
        raise UserError("patch lengths of 0 may only stand at the end of a row")
    of_byte = np.repeat(np.tile(np.arange(P, dtype=np.int32), B), lengths.reshape(-1)).reshape(B, N + 1)
    doc_ids = documents_at(ids, eos_id)
    first = np.cumsum(lengths, axis=1) - lengths
    patch_docs = np.where(
        (lengths > 0) & (first < N), np.take_along_axis(doc_ids, np.minimum(first, N - 1), axis=1), 0
    )
    return dict(
        bytes=ids,
        patch_ids=of_byte[:, :-1],
        latent_ids=of_byte[:, 1:] - 1,
        doc_ids=doc_ids,
        patch_doc_ids=patch_docs.astype(np.int32),
    )


def documents_at(ids, eos_id: int) -> np.ndarray:
    """Number of each id's document in its row, from 1, int32 [B,N]: EOS ends a document and belongs to it."""
    return 1 + np.cumsum(np.pad(ids == eos_id, ((0, 0), (1, 0)))[:, :-1], axis=1, dtype=np.int32)
