"""Train, validation and test documents: near-duplicates are found first and stay together, so that no split
repeats another.

A document is sketched by the hashes of its 50-byte shingles, of which one in `SAMPLING` is kept by its value
(so that the same text is sampled the same way wherever it stands). Two documents that share more than
`SHARED` of the smaller's sketch are one group, and so are their own duplicates. A group goes where the
SHA-256 of its smallest member (in digest order) says, whatever else is in the corpus. """

import dataclasses
import hashlib

import numpy as np

from bltjax.data import sources
from bltjax.errors import UserError

SHINGLE = 50  # bytes
SAMPLING = 4
SHARED = 0.1
PAIRS = (
    32  # a shingle in more documents than this links them to the first of them only, which keeps pairs linear
)
BLOCK = 1 << 22  # bytes hashed at once
NAMES = ("test", "validation", "train")


@dataclasses.dataclass(frozen=True)
class Splits:
    """Documents of each split in digest order, exact duplicates once; fingerprint: 12 hex digits over all
    three."""

    train: list[bytes]
    validation: list[bytes]
    test: list[bytes]
    fingerprint: str


def split(documents: list[bytes], data_config) -> Splits:
    """Documents to splits by the fractions (of groups) data_config.validation and .test; the order of
    `documents` does not matter.

    Every split has at least one group. UserError where there are fewer than three groups or a fraction makes
    no sense. """
    validation, test = data_config.validation, data_config.test
    if not (validation > 0 and test > 0 and validation + test < 1):
        raise UserError(
            f"data.validation={validation} and data.test={test} must be above 0 and together below 1"
        )
    by_digest = {hashlib.sha256(document).digest(): document for document in documents}
    digests = sorted(by_digest)
    unique = [by_digest[digest] for digest in digests]
    group_of_document = groups(unique)
    firsts = np.unique(
        group_of_document
    )  # a group is named by its first document, which here is the smallest in digest order
    if len(firsts) < 3:
        raise UserError(
            f"the corpus has {len(documents)} documents in {len(firsts)} group(s) of near-duplicates; "
            "training, validation and test text need at least 3 (cut a long text into several files)"
        )
    members = {name: [] for name in NAMES}
    for first in firsts:  # in digest order
        place = int.from_bytes(digests[first][:8], "big") / 2**64
        members["test" if place < test else "validation" if place < test + validation else "train"].append(
            first
        )
    for name in NAMES:
        if not members[name]:
            largest = max(NAMES, key=lambda other: len(members[other]))
            members[name].append(members[largest].pop(0))
    lists = {
        name: [unique[i] for i in np.flatnonzero(np.isin(group_of_document, members[name]))] for name in NAMES
    }
    whole = hashlib.sha256("".join(sources.fingerprint(lists[name]) for name in NAMES).encode()).hexdigest()[
        :12
    ]
    return Splits(**lists, fingerprint=whole)


def groups(documents: list[bytes]) -> np.ndarray:
    """Near-duplicates of distinct documents: int64 [len(documents)], the index of the first document of each
    one's group."""
    hashes, owners = sketches(documents)
    sizes = np.bincount(owners, minlength=len(documents))
    left, right, shared = _shared_counts(hashes, owners, len(documents))
    close = shared > SHARED * np.minimum(sizes[left], sizes[right])
    return _components(len(documents), left[close], right[close])


def sketches(documents: list[bytes], sampling: int = SAMPLING) -> tuple[np.ndarray, np.ndarray]:
    """Distinct sampled shingle hashes of every document: uint64 [S] and the document of each, int64 [S]."""
    parts = []
    first, size = 0, 0
    for i, document in enumerate(documents):
        size += len(document)
        if size >= BLOCK or i == len(documents) - 1:
            parts.append(_sketch_block(documents[first : i + 1], first, sampling))
            first, size = i + 1, 0
    if not parts:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    return np.concatenate([h for h, _ in parts]), np.concatenate([o for _, o in parts])


def _sketch_block(documents, first: int, sampling: int):
    ends = np.cumsum([len(document) for document in documents])
    text = np.frombuffer(b"".join(documents), np.uint8)
    if len(text) < SHINGLE:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    hashes = shingle_hashes(text)
    at = np.flatnonzero(hashes % np.uint64(sampling) == 0)
    owners = np.searchsorted(ends, at, side="right")
    whole = at + SHINGLE <= ends[owners]  # not across the end of a document
    hashes, owners = hashes[at[whole]], owners[whole]
    order = np.lexsort((hashes, owners))
    hashes, owners = hashes[order], owners[order]
    distinct = np.ones(len(hashes), bool)
    distinct[1:] = (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1])
    return hashes[distinct], owners[distinct] + first


def shingle_hashes(text: np.ndarray) -> np.ndarray:
    """Hash of every 50-byte shingle of uint8 [N]: uint64 [N - 49]. Horner's rule by doubling (1, 2, 3, 6, 12,
    25, 50 bytes), so that 64-bit wrap-around does all the work, then mixed, since the low bits of such a
    polynomial depend on low bits only. """
    multiplier = 0x9E3779B97F4A7C15
    one = text.astype(np.uint64) + np.uint64(1)
    hashes, width, power = one, 1, multiplier  # power = multiplier ** width
    for bit in bin(SHINGLE)[3:]:
        hashes = hashes[:-width] * np.uint64(power) + hashes[width:]
        width, power = 2 * width, power * power % 2**64
        if bit == "1":
            hashes = hashes[:-1] * np.uint64(multiplier) + one[width:]
            width, power = width + 1, power * multiplier % 2**64
    hashes ^= hashes >> np.uint64(31)
    hashes *= np.uint64(0xBF58476D1CE4E5B9)
    hashes ^= hashes >> np.uint64(29)
    return hashes


def _shared_counts(hashes, owners, n: int):
    """Pairs of documents with a hash in common: (left < right, count), each int64 [pairs]."""
    order = np.lexsort((owners, hashes))
    hashes, owners = hashes[order], owners[order]
    first = (
        np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1]]))
        if len(hashes)
        else np.zeros(0, np.int64)
    )
    count = np.diff(np.append(first, len(hashes)))
    codes = [np.zeros(0, np.int64)]
    for k in range(2, PAIRS + 1):
        at = first[count == k]
        if len(at):
            owners_MxK = owners[at[:, None] + np.arange(k)[None, :]]
            i, j = np.triu_indices(k, 1)
            codes.append((owners_MxK[:, i] * n + owners_MxK[:, j]).ravel())
    many = count > PAIRS
    hub = np.repeat(owners[first[many]], count[many] - 1)
    rest = np.concatenate(
        [owners[a + 1 : a + c] for a, c in zip(first[many], count[many])] + [np.zeros(0, np.int64)]
    )
    codes.append(hub * n + rest)
    code, shared = np.unique(np.concatenate(codes), return_counts=True)
    return code // n, code % n, shared


def _components(n: int, left, right) -> np.ndarray:
    """Connected components: the smallest index of each one's component. Labels fall along edges and pointers
    until nothing moves."""
    label = np.arange(n)
    while True:
        before = label.copy()
        low = np.minimum(label[left], label[right])
        np.minimum.at(label, left, low)
        np.minimum.at(label, right, low)
        label = label[label]
        if np.array_equal(before, label):
            return label
