"""Byte ids: the numbering of the released checkpoints (four specials, then the 256 byte values)."""

import numpy as np

BOE, BOS, EOS, DELIMITER = 0, 1, 2, 3
OFFSET = 4
SIZE = 256 + OFFSET
NEWLINE = ord("\n") + OFFSET


def encode(data: bytes) -> np.ndarray:
    """Byte values as ids, int32 [N]; adds no BOS and no EOS."""
    return np.frombuffer(data, np.uint8).astype(np.int32) + OFFSET


def encode_document(data: bytes) -> np.ndarray:
    """A whole document, int32 [N + 2]: BOS, its bytes, EOS."""
    return np.concatenate([np.int32([BOS]), encode(data), np.int32([EOS])])


def decode(ids) -> bytes:
    """The raw bytes behind ids; specials stand for no byte and are dropped."""
    ids = np.asarray(ids)
    return (ids[ids >= OFFSET] - OFFSET).astype(np.uint8).tobytes()
