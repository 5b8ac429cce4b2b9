"""Documents to patch lengths by a run's patching config: the same call for training, evaluation, and a text
typed by hand."""

import math

import numpy as np

from bltjax import patching
from bltjax.errors import UserError
from bltjax.patching import vocab


def rule(patching_config) -> dict:
    """The arguments of patching.starts that this config stands for."""
    p = patching_config
    given = lambda x: None if math.isnan(x) else x
    by_scheme = {
        "strided": dict(stride=int(p.size)),
        "space": {},
        "random": dict(mean=p.size, seed=p.seed),
        "entropy": dict(threshold=given(p.threshold)),
        "monotonic": dict(delta=given(p.delta)),
        "both": dict(threshold=given(p.threshold), delta=given(p.delta)),
    }
    if p.scheme not in by_scheme:
        raise UserError(f"patching.scheme {p.scheme!r} is no rule on bytes; those are {', '.join(by_scheme)}")
    if p.scheme == "strided" and p.size != int(p.size):
        raise UserError(f"strided patches have a whole number of bytes, not patching.size={p.size}")
    return {**by_scheme[p.scheme], "max_length": p.max_length, "resolution": p.resolution}


def document_lengths(
    patching_config, documents: list[bytes], entropies=None, tokenizer=None
) -> list[np.ndarray]:
    """Patch lengths of every whole document [BOS, bytes, EOS], int32 arrays that sum to len(document) + 2;
    the first is BOS alone.

    entropies: float32 [len + 2] nats for each document, for the schemes that need them; tokenizer: for scheme
    `bpe`. Scheme `none` (an entropy model): every position its own patch."""
    scheme = patching_config.scheme
    if scheme == "none":
        return [np.ones(len(d) + 2, np.int32) for d in documents]
    if scheme == "bpe":
        byte_counts = tokenizer.byte_counts
        return [
            _lengths(patching.bpe_starts(byte_counts[tokenizer.encode(d)], len(d) + 2)) for d in documents
        ]
    arguments = rule(patching_config)
    entropies = entropies if entropies is not None else [None] * len(documents)
    return [
        _lengths(patching.starts(vocab.encode_document(d), scheme, entropies=e, xp=np, **arguments))
        for d, e in zip(documents, entropies, strict=True)
    ]


def _lengths(starts: np.ndarray) -> np.ndarray:
    return np.diff(np.append(np.flatnonzero(starts), len(starts))).astype(np.int32)
