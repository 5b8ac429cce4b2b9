"""Documents on their way through `prepare`: thrown into a file by a part of their key, read from it by
ascending key.

A bucket is records, one after the other: a header, then the document. The header's CRC is of all that it says
and of the document, so that what a failing disk or a power cut left is not taken for text."""

import os
import pathlib
import struct
import zlib

import numpy as np

from bltjax.errors import UserError

FORMAT = 2
HEADER = struct.Struct("<16sIHI")  # key, length of the document, group, CRC
ENTRY = np.dtype([("key", ">u8", 2), ("offset", "<i8"), ("length", "<u4"), ("group", "<u2"), ("crc", "<u4")])


def record(key: bytes, group: int, document: bytes) -> bytes:
    """A document as a bucket holds it. key: 16 bytes."""
    return HEADER.pack(key, len(document), group, _crc(key, len(document), group, document)) + document


def by_key(file, path: pathlib.Path) -> np.ndarray:
    """Where every document of a bucket lies, by ascending key: ENTRY [documents]. UserError where the last is
    torn."""
    found, parts = np.empty(1 << 14, ENTRY), []
    used = 0
    while header := file.read(HEADER.size):
        if len(header) < HEADER.size:
            raise _damaged(path)
        key, length, group, crc = HEADER.unpack(header)
        found[used] = (np.frombuffer(key, ">u8"), file.tell(), length, group, crc)
        used += 1
        if used == len(found):
            parts.append(found.copy())
            used = 0
        file.seek(length, os.SEEK_CUR)
    entries = np.concatenate([*parts, found[:used]])
    return entries[np.lexsort((entries["key"][:, 1], entries["key"][:, 0]))]


def key_of(entry) -> bytes:
    return entry["key"].astype(">u8").tobytes()  # arrays that were joined are of the machine's byte order


def read(file, entry, path: pathlib.Path) -> bytes:
    """The document of an entry. UserError where it, or what its header says, is not what was written."""
    file.seek(entry["offset"])
    document = file.read(int(entry["length"]))
    if _crc(key_of(entry), int(entry["length"]), int(entry["group"]), document) != entry["crc"]:
        raise _damaged(path)
    return document


def _crc(key: bytes, length: int, group: int, document: bytes) -> int:
    return zlib.crc32(document, zlib.crc32(HEADER.pack(key, length, group, 0)))


def _damaged(path: pathlib.Path) -> UserError:
    return UserError(f"{path} is damaged; remove {path.parent} and prepare this part again")
