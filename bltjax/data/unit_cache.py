"""Documents as rows want them: units and patch starts of whichever documents are asked for, read then and
kept for a while.

For text that does not fit in memory. Rows are planned by blocks of documents, and a plan names documents by
number, so that filling a few rows reads the few documents that are in them."""

import collections
import threading
from collections.abc import Callable

import numpy as np

from bltjax.data import packing

KEPT = 1 << 28  # bytes of units that are kept for the next rows that want them


class UnitCache:
    """documents: a sequence with `lengths` (store.Documents, or a Selection of it). units: function (numbers,
    documents) -> packing.Documents of these documents, one after the other. key: what it all depends on, for
    plans that are kept."""

    def __init__(self, documents, units: Callable, key: str):
        self.documents, self.key = documents, key
        self._units, self._kept, self._size, self._lock = (
            units,
            collections.OrderedDict(),
            0,
            threading.Lock(),
        )

    def __len__(self):
        return len(self.documents)

    def take(self, numbers) -> packing.Documents:
        """The documents of these numbers. Threads that fill batches ahead read at the same time, one document
        perhaps twice."""
        numbers = [int(number) for number in numbers]
        with self._lock:
            found = {number: self._kept[number] for number in numbers if number in self._kept}
        if missing := [number for number in dict.fromkeys(numbers) if number not in found]:
            units = self._units(missing, [self.documents[number] for number in missing])
            found |= {number: packing.part(units, i) for i, number in enumerate(missing)}
        with self._lock:
            for number, one in found.items():
                if number not in self._kept:
                    self._size += _bytes(one)
                self._kept[number] = one
                self._kept.move_to_end(number)
            while self._size > KEPT and len(self._kept) > 1:
                self._size -= _bytes(self._kept.popitem(last=False)[1])
        return packing.joined([found[number] for number in numbers])

    def read(self, numbers) -> packing.Documents:
        """The same for a block that is wanted once: nothing of it is kept."""
        return self._units(
            [int(number) for number in numbers], [self.documents[int(number)] for number in numbers]
        )


class Lengths:
    """In a UnitCache's place where only the documents' lengths matter: rows of bytes without a limit of
    patches can be planned, and what they hold counted, without a document being read."""

    def __init__(self, documents):
        """documents: a sequence with `lengths`."""
        self.documents, self._lengths = documents, documents.lengths

    def read(self, numbers) -> packing.Documents:
        return packing.of_lengths(self._lengths[np.asarray(numbers, np.int64)])


def _bytes(one: packing.Documents) -> int:
    return sum(x.nbytes for x in (one.ids, one.starts, one.raw_bytes) if x is not None)
