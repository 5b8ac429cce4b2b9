"""Which documents nearly repeat test or validation text, and how much of test text is trained on: by 50-byte
shingles, sampled by their hashes, in memory that does not grow with the source.

Boilerplate is a shingle that many documents have (`many`): of a licence, a header, a menu. It says nothing
about where the rest of a document comes from, and links nothing. Two documents are near-copies where they
share more than NEAR of the shingles of the one that has fewer, boilerplate left out.

What is left of test text in training text then comes in passages. The training documents that hold the most
of it leave, too, until OVERLAP of it is left, as long as that costs no more than COST of the documents."""

import dataclasses
import functools
import math

import numpy as np

NEAR = 0.2
FEWEST = 3  # sampled shingles in common: fewer are no evidence
OVERLAP = 0.015
COST = 0.05
SAMPLING = 8  # one shingle in so many is looked at, or fewer where held-out text is large
MOST = 1 << 21  # sampled shingles of held-out text, about
NEVER = np.iinfo(np.int32).max
PREFIX = 24  # bits of a hash that are looked at first
TOP = 1 << 16  # what a document holds of test text is counted below this
NONE = -1
STAYS, TEST, VALIDATION = range(3)  # why a document leaves


def many(documents: int) -> float:
    """A shingle in more documents than this is boilerplate, in a source of so many documents: 50, or one in a
    thousand where that is more; in a small source one in eight, but 8 at least."""
    return max(8, min(50, documents / 8), documents / 1000)


def sampling_for(size: int, least: int = SAMPLING) -> int:
    """One shingle in so many is sampled where held-out text has `size` bytes."""
    return least * (1 << max(0, math.ceil(math.log2(max(1, size / least) / MOST))))


@dataclasses.dataclass(frozen=True)
class Hits:
    """The sampled shingles of D documents that held-out text has, too: sampled int64 [D], how many shingles
    of each were looked at, counts int64 [D], how many of them it has, and those, document by document, as
    rows int64 [sum of counts] of its table."""

    sampled: np.ndarray
    counts: np.ndarray
    rows: np.ndarray

    def documents(self):
        """Yields (sampled, rows) of each document."""
        ends = np.cumsum(self.counts).tolist()
        for sampled, first, last in zip(self.sampled.tolist(), [0, *ends], ends):
            yield sampled, self.rows[first:last]

    def owners(self) -> np.ndarray:
        """The document, from 0 on, of each of `rows`."""
        return np.repeat(np.arange(len(self.counts)), self.counts)


class HeldOut:
    """The sampled shingles of held-out documents: of test text (numbers 0 to tests - 1), then of validation
    text.

    First every document of the source is matched and counted. `settle` then says what is boilerplate. Then
    documents are decided on: those of test text in order, those of validation text, and those of training
    text. `limit` and `overlap` close the account."""

    def __init__(self, blocks, tests: int):
        """blocks: what shingles.sampled yields for the held-out documents."""
        hashes, owners, first = [np.zeros(0, np.uint64)], [np.zeros(0, np.int32)], 0
        for count, found, owner in blocks:
            hashes.append(found)
            owners.append((owner + first).astype(np.int32))
            first += count
        hashes, owners = np.concatenate(hashes), np.concatenate(owners)
        order = np.argsort(hashes, kind="stable")  # so that the owners of a row ascend
        hashes, self.owners = hashes[order], owners[order]
        new = np.ones(len(hashes), bool)
        new[1:] = hashes[1:] != hashes[:-1]
        firsts = np.flatnonzero(new)
        self.hashes = hashes[firsts]  # a row of the table for each
        self._maybe = np.zeros(1 << PREFIX, bool)  # whether any hash begins so: most others need no look-up
        self._maybe[self.hashes >> np.uint64(64 - PREFIX)] = True
        self.starts = np.append(firsts, len(hashes))  # of a row's owners
        self.tests = tests
        self.kept = np.zeros(first, bool)  # held-out documents so far
        self.documents = np.zeros(len(self.hashes), np.int32)  # of the source that have it
        self.least = np.full(len(self.hashes), NEVER, np.int32)  # of what its training documents hold: `hold`

    def maybe(self, hashes: np.ndarray) -> np.ndarray:
        """Whether each hash may be in the table: bool, False where it is not."""
        return self._maybe[hashes >> np.uint64(64 - PREFIX)]

    def match(self, blocks) -> Hits:
        """The hits of documents of the source, each of which must be matched once."""
        sampled, counts, rows = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for count, hashes, owners in blocks:
            maybe = self.maybe(hashes)
            sampled.append(np.bincount(owners, minlength=count))
            hashes, owners = hashes[maybe], owners[maybe]
            row = np.searchsorted(self.hashes, hashes)
            hit = self.hashes[np.minimum(row, len(self.hashes) - 1)] == hashes
            counts.append(np.bincount(owners[hit], minlength=count))
            rows.append(row[hit])
        return Hits(*map(np.concatenate, (sampled, counts, rows)))

    def count(self, hits: Hits) -> None:
        """Counts the documents of some hits."""
        np.add.at(self.documents, hits.rows, 1)

    def settle(self, documents: int, most: float = math.inf) -> None:
        """All documents of the source, so many, have been counted: says what is boilerplate. most: what more
        held-out documents than this have is boilerplate, too."""
        self.boilerplate = (self.documents > many(documents)) | (np.diff(self.starts) > most)
        postings = np.repeat(~self.boilerplate, np.diff(self.starts))
        self.sizes = np.bincount(self.owners[postings], minlength=len(self.kept))

    def trained(self) -> np.ndarray:
        """How many shingles of each held-out document, boilerplate left out, the counted documents have:
        int64 [held-out documents]; `sizes` says of how many."""
        there = np.repeat((self.documents > 0) & ~self.boilerplate, np.diff(self.starts))
        return np.bincount(self.owners[there], minlength=len(self.kept))

    def repeated(self, sampled: int, rows: np.ndarray, upto: int) -> int:
        """The first held-out document, below number `upto` and kept, of which a document with these hits is a
        near-copy; NONE: there is none."""
        own = rows[~self.boilerplate[rows]]
        if len(own) < FEWEST:
            return NONE
        counts = self.starts[own + 1] - self.starts[own]
        steps = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        owners = self.owners[np.repeat(self.starts[own], counts) + steps]
        owners, shared = np.unique(owners[self.kept[owners] & (owners < upto)], return_counts=True)
        smaller = np.minimum(self.sizes[owners], sampled - (len(rows) - len(own)))
        near = owners[(shared >= FEWEST) & (shared > NEAR * smaller)]
        return int(near[0]) if len(near) else NONE

    def decide(self, hits: Hits, split: str, first: int, stay: bool = False) -> np.ndarray:
        """Why each document of some hits leaves, uint8 [D]: it stays (STAYS), nearly repeats test text (TEST)
        or validation text (VALIDATION). first: the number of the first of them, where they are held out.
        stay: none leaves."""
        why = np.zeros(len(hits.counts), np.uint8)
        for i, (sampled, rows) in enumerate(hits.documents()):
            number = first + i
            upto = {"test": number, "validation": self.tests, "train": len(self.kept)}[split]
            of = NONE if stay else self.repeated(sampled, rows, upto)
            why[i] = STAYS if of == NONE else TEST if of < self.tests else VALIDATION
            if split != "train":
                self.kept[number] = why[i] == STAYS
        return why

    def hold(self, hits: Hits, stays: np.ndarray) -> np.ndarray:
        """How many shingles of test text, boilerplate left out, each training document holds, int64 [D];
        `least` remembers it for those that stay (bool [D])."""
        owners = hits.owners()
        counted = (self.in_tests[hits.rows] > 0) & ~self.boilerplate[hits.rows]
        held = np.minimum(np.bincount(owners[counted], minlength=len(hits.counts)), TOP - 1)
        mine = stays[owners]
        np.minimum.at(self.least, hits.rows[mine], held[owners[mine]].astype(np.int32))
        return held

    @functools.cached_property
    def in_tests(self) -> np.ndarray:
        """How many kept test documents have each shingle: int64 [rows]."""
        of_test = (self.kept & (np.arange(len(self.kept)) < self.tests))[self.owners]
        sums = np.concatenate([[0], np.cumsum(of_test)])
        return sums[self.starts[1:]] - sums[self.starts[:-1]]

    def limit(self, held: np.ndarray) -> int:
        """Training documents that hold so many shingles of test text, or more, leave; NEVER: none does. held
        int64 [TOP]: how many training documents hold 0, 1, 2, ... of them."""
        own = ~self.boilerplate
        weights, least = self.in_tests[own], self.least[own]
        left = np.bincount(np.minimum(least, TOP), weights=weights, minlength=TOP + 1)[:TOP]
        left = np.concatenate([[0], np.cumsum(left)])  # shingles in training text, if limit is 0, 1, 2, ...
        cost = np.concatenate([np.cumsum(held[::-1])[::-1], [0]])  # documents that then leave
        if left[-1] <= OVERLAP * weights.sum():
            return NEVER
        enough = np.flatnonzero(left <= OVERLAP * weights.sum())[-1]
        cheap = np.flatnonzero(cost <= COST * held.sum())[0]
        return int(max(enough, cheap, FEWEST))

    def overlap(self, limit: int) -> dict:
        """How many shingles, each once a document, the kept test documents have, and how many of them occur
        in training text: {"all": [in training text, in all], "without_boilerplate": the same}."""
        trained, own = self.least < limit, ~self.boilerplate
        return {
            "all": [int(self.in_tests[trained].sum()), int(self.in_tests.sum())],
            "without_boilerplate": [int(self.in_tests[trained & own].sum()), int(self.in_tests[own].sum())],
        }
