"""How bytes become patches: rules (their public names are here), hashes of n-grams, ids, and whole documents
cut."""

from bltjax.patching.incremental import Progress, advance, begin
from bltjax.patching.rules import (
    NEEDS_ENTROPIES,
    RESOLUTION,
    SCHEMES,
    THRESHOLDS,
    bpe_starts,
    lengths,
    limited,
    opens,
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
    "limited",
    "opens",
    "rounded",
    "scores",
    "starts",
    "starts_from_lengths",
]
