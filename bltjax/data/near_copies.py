"""Which training text nearly repeats text that is not trained on, by shingles that both have, in memory that
does not grow with either."""

import math
import pathlib
import sys

import numpy as np

from bltjax.data import files, shingles

BLOCK = 1 << 18  # bytes hashed at once: what the processor's cache holds
MOST = 1 << 20  # hashes of text that is not trained on
OWNER = np.uint64(2**24 - 1)  # the bits of a hash that say whose it is
NEAR = 0.5
SAMPLING = 16  # of shingles one in so many, or fewer, is compared
BOILERPLATE = 8  # a shingle in more of those documents than this says nothing: licences, menus


def hashes_by_block(document: bytes):
    """The hashes of all shingles of a document, uint64, in blocks."""
    text = np.frombuffer(document, np.uint8)
    for at in range(0, len(text) - shingles.SHINGLE + 1, BLOCK):
        yield shingles.hashes(text[at : at + BLOCK + shingles.SHINGLE - 1])


class NearCopies:
    """Sampled shingles of documents that are not trained on, about MOST of them at most, to tell what nearly
    repeats one."""

    def __init__(self, paths: list[pathlib.Path], size: int):
        """size: bytes in all."""
        self.sampling = SAMPLING * (1 << max(0, math.ceil(math.log2(max(1, size / SAMPLING) / MOST))))
        entries, used, sizes = (
            np.empty(2 * size // self.sampling + 1, np.uint64),
            0,
            [],
        )  # what it is, and in the last bits whose
        for path in paths:
            for document in files.records(path, sys.maxsize):
                hashes = self._sample(document)
                if len(hashes):
                    if used + len(hashes) > len(entries):
                        entries = np.append(entries, np.empty(len(entries) + len(hashes), np.uint64))
                    entries[used : used + len(hashes)] = hashes & ~OWNER | np.uint64(len(sizes) & int(OWNER))
                    used += len(hashes)
                    sizes.append(len(hashes))
        self.sizes = np.array(sizes, np.int64)
        entries = entries[:used]
        entries.sort()
        again = np.zeros(used + BOILERPLATE, bool)  # whether the hash comes so many entries later, too
        for at in range(0, used - BOILERPLATE, BLOCK):
            block = entries[at : at + BLOCK + BOILERPLATE]
            again[at + BOILERPLATE : at + len(block)] = (block[BOILERPLATE:] ^ block[:-BOILERPLATE]) <= OWNER
        common = again[BOILERPLATE:].copy()
        for before in range(BOILERPLATE):
            common |= again[before : before + used]
        self.entries = entries[~common]

    def _sample(self, document: bytes) -> np.ndarray:
        blocks = [hashes[hashes % np.uint64(self.sampling) == 0] for hashes in hashes_by_block(document)]
        return np.unique(np.concatenate([*blocks, np.zeros(0, np.uint64)]))

    def near(self, document: bytes) -> bool:
        """Whether it shares more than NEAR of the smaller's shingles with one of the documents, boilerplate
        left out."""
        mine = self._sample(document)
        first, last = (
            np.searchsorted(self.entries, mine & ~OWNER, "left"),
            np.searchsorted(self.entries, mine | OWNER, "right"),
        )
        owners = [self.entries[a:b] & OWNER for a, b in zip(first[last > first], last[last > first])]
        if not owners:
            return False
        which, shared = np.unique(np.concatenate(owners).astype(np.int64), return_counts=True)
        return bool((shared > NEAR * np.minimum(self.sizes[which], len(mine))).any())
