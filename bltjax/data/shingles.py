"""Hashes of the 50-byte shingles of documents, sampled by their value, so that the same text is sampled the
same way wherever it stands."""

import numpy as np

SHINGLE = 50  # bytes
BLOCK = 1 << 18  # bytes hashed at once: what the processor's cache holds


def hashes(text: np.ndarray) -> np.ndarray:
    """Hash of every 50-byte shingle of uint8 [N]: uint64 [N - 49]. Horner's rule by doubling (1, 2, 3, 6, 12,
    25, 50 bytes), so that 64-bit wrap-around does all the work, then mixed, since the low bits of such a
    polynomial depend on low bits only."""
    multiplier = 0x9E3779B97F4A7C15
    one = text.astype(np.uint64) + np.uint64(1)
    found, width, power = one, 1, multiplier  # power = multiplier ** width
    for bit in bin(SHINGLE)[3:]:
        found = found[:-width] * np.uint64(power) + found[width:]
        width, power = 2 * width, power * power % 2**64
        if bit == "1":
            found = found[:-1] * np.uint64(multiplier) + one[width:]
            width, power = width + 1, power * multiplier % 2**64
    found ^= found >> np.uint64(31)
    found *= np.uint64(0xBF58476D1CE4E5B9)
    found ^= found >> np.uint64(29)
    return found


def sampled(documents, sampling: int):
    """`among` for hashes that are multiples of `sampling`, a power of two."""
    return among(documents, lambda found: found & np.uint64(sampling - 1) == 0)


def among(documents, wanted):
    """Yields (D, hashes uint64 [S], owners int64 [S]) for blocks of D documents, in order: the distinct
    hashes of every document that are wanted, by document (0 to D - 1) and then by value. wanted: uint64 [N]
    -> bool [N]."""
    block, size = [], 0
    for document in documents:
        if len(document) > BLOCK:
            if block:
                yield _of_block(block, wanted)
            block, size = [], 0
            found = _of_long(document, wanted)
            yield 1, found, np.zeros(len(found), np.int64)
            continue
        block.append(document)
        size += len(document)
        if size >= BLOCK:
            yield _of_block(block, wanted)
            block, size = [], 0
    if block:
        yield _of_block(block, wanted)


def _of_block(documents: list[bytes], wanted):
    ends = np.cumsum([len(document) for document in documents])
    found = hashes(np.frombuffer(b"".join(documents), np.uint8))
    at = np.flatnonzero(wanted(found))
    owners = np.searchsorted(ends, at, side="right")
    whole = at + SHINGLE <= ends[owners]  # not across the end of a document
    found, owners = found[at[whole]], owners[whole]
    order = np.lexsort((found, owners))
    found, owners = found[order], owners[order]
    distinct = np.ones(len(found), bool)
    distinct[1:] = (found[1:] != found[:-1]) | (owners[1:] != owners[:-1])
    return len(documents), found[distinct], owners[distinct]


def _of_long(document: bytes, wanted) -> np.ndarray:
    text, parts = np.frombuffer(document, np.uint8), []
    for at in range(0, len(text) - SHINGLE + 1, BLOCK):
        found = hashes(text[at : at + BLOCK + SHINGLE - 1])
        parts.append(found[wanted(found)])
    found = np.sort(np.concatenate(parts))  # np.unique is several times slower for numbers like these
    return found[np.append(True, found[1:] != found[:-1])[: len(found)]]
