"""What every tokenizer here is: ids whose bytes join to the input, whatever the input, invalid UTF-8
included."""

import dataclasses
import functools
import json
import re

import numpy as np

from bltjax.errors import UserError
from bltjax.storage import atomic

SCHEMA_VERSION = 1
INVALID = re.compile("([\udc80-\udcff]+)")
PROBES = (
    bytes(range(256)),
    b"two  words,\tand a line\r\n\n  'quoted' 12345 ",
    " \u00e9\u4f60\u597d \U0001f642".encode() * 100,
    b"a" * 3000,
    b"",
)


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """Ids 0 to vocab - 1, among them bos and eos. token_bytes: what each id stands for (b"" for specials)."""

    kind: str  # trained | llama3 | huggingface | sentencepiece
    token_bytes: list[bytes]
    bos: int
    eos: int
    fingerprint: str
    encoder: object  # bytes -> list of ids
    state: dict  # what `save` writes beside the kind

    @property
    def vocab(self) -> int:
        return len(self.token_bytes)

    @functools.cached_property
    def byte_counts(self) -> np.ndarray:
        """Raw bytes per id, int32 [V]; 0 for specials."""
        return np.array([len(token) for token in self.token_bytes], np.int32)

    def encode(self, data: bytes) -> np.ndarray:
        """Token ids, int32 [N]; their bytes join to `data`. Adds no BOS and no EOS. UserError where they are
        not as many."""
        ids = np.asarray(self.encoder(data), np.int32)
        if (size := int(self.byte_counts[ids].sum())) != len(data):
            raise UserError(
                f"the tokenizer makes tokens of {size:,} bytes of {len(data):,}: its tokens are not exact"
                " bytes"
            )
        return ids

    def decode(self, ids) -> bytes:
        """The bytes that ids stand for; specials stand for none."""
        return b"".join(self.token_bytes[i] for i in np.asarray(ids).tolist())

    def save(self, path) -> None:
        """Writes a JSON file that `load` reads; it appears whole or not at all."""
        head = {"schema_version": SCHEMA_VERSION, "kind": self.kind, "fingerprint": self.fingerprint}
        atomic.write_text(path, json.dumps({**head, **self.state}))


def check_exact(found: Tokenizer, more: list[bytes], random: bool, path) -> None:
    """UserError where tokens of PROBES and more texts are not exactly their bytes, or not the same each
    time."""
    for probe in (*more, *PROBES):
        try:
            same = not random and found.decode(found.encode(probe)) == probe
        except Exception:  # of the library, or None for a byte without an id
            same = False
        if not same:
            raise UserError(
                f"{path}: its tokens are not exact bytes: not those of {probe[:24]!r} (added spaces, words"
                " cut away, truncation, dropout?)"
            )


def encode_parts(data: bytes, valid, byte_id, invalid=INVALID) -> list[int]:
    """Ids of bytes of which a part may be no UTF-8. valid: text -> ids; byte_id: the id of one byte, for what
    `invalid` finds in the text (bytes that are no UTF-8 decode to lone surrogates)."""
    ids = []
    for i, part in enumerate(invalid.split(data.decode("utf-8", "surrogateescape"))):
        if i % 2:
            ids += [byte_id(b) for b in part.encode("utf-8", "surrogateescape")]
        elif part:
            ids += valid(part)
    return ids
