"""Documents at rest as rows want them: units and patch starts of whichever documents are asked for, read then and kept for a while.

For text that does not fit in memory. Rows are planned by blocks of documents, and a plan names documents by number, so that filling a
few rows reads the few documents that are in them.
"""

import collections
import hashlib
import threading
from collections.abc import Callable

import numpy as np

from bltjax.data import packing

KEPT = 1 << 28  # bytes of units that are kept for the next rows that want them


class Shelf:
    """documents: a sequence with `lengths` (store.Documents, or a Choice of it). units: function (numbers, documents) -> packing.Documents
    of these documents, one after the other. key: what it all depends on, for plans that are kept."""

    def __init__(self, documents, units: Callable, key: str):
        self.documents, self.key = documents, key
        self._units, self._kept, self._size, self._lock = units, collections.OrderedDict(), 0, threading.Lock()

    def __len__(self):
        return len(self.documents)

    def take(self, numbers) -> packing.Documents:
        """The documents of these numbers."""
        with self._lock:  # a thread that fills batches ahead, and one that asks for counts
            missing = [number for number in dict.fromkeys(map(int, numbers)) if number not in self._kept]
            if missing:
                found = self._units(missing, [self.documents[number] for number in missing])
                for i, number in enumerate(missing):
                    self._keep(number, packing.part(found, i))
            for number in numbers:
                self._kept.move_to_end(int(number))
            joined = packing.joined([self._kept[int(number)] for number in numbers])
            while self._size > KEPT and len(self._kept) > 1:
                self._size -= _bytes(self._kept.popitem(last=False)[1])
            return joined

    def read(self, numbers) -> packing.Documents:
        """The same for a block that is wanted once: nothing of it is kept."""
        return self._units([int(number) for number in numbers], [self.documents[int(number)] for number in numbers])

    def _keep(self, number: int, one: packing.Documents) -> None:
        self._kept[number] = one
        self._size += _bytes(one)


def _bytes(one: packing.Documents) -> int:
    return sum(x.nbytes for x in (one.ids, one.starts, one.raw_bytes) if x is not None)


class Choice:
    """Some documents of a sequence, by their numbers there: len, [i] -> bytes, lengths, iteration; nothing is read before it is asked for."""

    def __init__(self, documents, numbers, parts=()):
        """parts: [(first, last + 1, weight)] of positions here that are of one source each, where several are mixed (store.Mixture)."""
        self.documents, self.numbers, self.parts = documents, np.asarray(numbers, np.int64), list(parts)
        self.fingerprint = hashlib.sha256(documents.fingerprint.encode() + self.numbers.tobytes()).hexdigest()[:12]

    def __len__(self):
        return len(self.numbers)

    def __getitem__(self, i: int) -> bytes:
        return self.documents[int(self.numbers[i])]

    @property
    def lengths(self) -> np.ndarray:
        return self.documents.lengths[self.numbers]
