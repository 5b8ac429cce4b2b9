"""Texts for tokenizers, odd ones too, and what an exact one does with them."""

import numpy as np

TEXT = [
    b"def first(x):\n    return x + 1  # the first of them\n\n\ndef second(y):\n    return first(y) - 12345\n"
    * 3,
    "Straße, naïve café; 東京 and Ελλάδα aren't one word — they're 7.\r\n\r\n\t end".encode() * 3,
]


ODD = [
    b"",
    b"\0",
    b"\xff",
    b"\x85\xa0\x1c\x1f \xc3",
    bytes(range(256)),
    bytes(reversed(range(256))),
    b" " * 1000,
    b"\n \n\t \r\n  x",
    b"'s 'S 'Re x'll 'tis can't",
    "naïve €\N{GRINNING FACE}".encode()[:-1],
    b"1234567 12 3",
    b"<|begin_of_text|>",
]


def random_bytes(count, size, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, size).astype(np.uint8).tobytes() for _ in range(count)]


def check_exact(tokenizer, samples):
    for sample in samples:
        ids = tokenizer.encode(sample)
        assert ids.dtype == np.int32 and ids.ndim == 1
        assert tokenizer.decode(ids) == sample
        assert tokenizer.byte_counts[ids].sum() == len(sample)
        assert not np.isin(ids, (tokenizer.bos, tokenizer.eos)).any()
