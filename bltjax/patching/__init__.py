"""How bytes become patches: rules (their public names are here), hashes of n-grams, ids, and whole documents
cut."""

from bltjax.patching.rules import (
    NEEDS_ENTROPIES,
    RESOLUTION,
    SCHEMES,
    THRESHOLDS,
    Progress,
    advance,
    begin,
    bpe_starts,
    lengths,
    rounded,
    scores,
    starts,
    starts_from_lengths,
)

__all__ = [
    "NEEDS_ENTROPIES",
    "RESOLUTION",
    "SCHEMES",
    "THRESHOLDS",
    "Progress",
    "advance",
    "begin",
    "bpe_starts",
    "lengths",
    "rounded",
    "scores",
    "starts",
    "starts_from_lengths",
]
