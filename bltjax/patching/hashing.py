"""Rolling-polynomial hashes of byte n-grams, exact in wrap-around 64-bit integers on host and device.

The hash of the n-gram that ends at t (paper equation 4 and appendix C; the released code):

    h = (sum_j digit_j · a^j  mod 2^64, read as signed int64)  mod V, floored to [0, V)

`released` gives the oldest symbol a^0, `paper` the newest. On a device a 64-bit number is two uint32 limbs
(high, low), so that JAX's 64-bit mode stays off; all of it is element-wise and fuses into one loop."""

import jax
import jax.numpy as jnp
import numpy as np

from bltjax.errors import UserError
from bltjax.patching import vocab as byte_ids

# One per hash function, in the released order: the multipliers a, primes of ten digits.
PRIMES = (
    1000000007,
    5915587277,
    1500450271,
    3267000013,
    5754853343,
    4093082899,
    9576890767,
    3628273133,
    2860486313,
    5463458053,
    3367900313,
)
DIGITS = ("released", "paper")
MASK = 2**64 - 1


def ngram_hashes(ids, sizes, vocab, function=0, digits="released", *, doc_ids=None, raw_bytes=False):
    """Row of the hash table for the n-gram ending at every symbol, int32 [B, len(sizes), N] in [0, vocab).

    ids: int [B, N] (any leading axes), ids in [0, 260). Symbols before the row count as digit 0 (the released
    code's left padding). sizes: the n of each n-gram, static. vocab: V, rows of a table, below 2^31.
    function: which of PRIMES. digits: "released" (the oldest symbol gets a^0) or "paper" (the newest).
    doc_ids: int like ids; symbols of another document then count as symbols before the row. None: not reset.
    raw_bytes: digits are byte values (specials 256..259) instead of ids. numpy in, numpy out; jax in (or
    traced), jax out. Raises UserError on an unknown function or digits, or impossible sizes."""
    sizes = _checked(sizes)
    if digits not in DIGITS:
        raise UserError(f"unknown digits {digits!r}; allowed: {', '.join(DIGITS)}")
    if not 0 <= function < len(PRIMES):
        raise UserError(f"hash function must be 0 to {len(PRIMES) - 1}, not {function}")
    if not 1 <= vocab < 2**31:
        raise UserError(f"the hash vocabulary must be 1 to {2**31 - 1}, not {vocab}")
    if isinstance(ids, jax.Array) or isinstance(doc_ids, jax.Array):
        return _on_device(
            jnp.asarray(ids),
            sizes,
            vocab,
            PRIMES[function],
            digits,
            None if doc_ids is None else jnp.asarray(doc_ids),
            raw_bytes,
        )
    ids = np.asarray(ids)
    doc_ids = None if doc_ids is None else np.broadcast_to(doc_ids, ids.shape)
    hashes = np.empty((*ids.shape[:-1], len(sizes), ids.shape[-1]), np.int32)
    for row in np.ndindex(ids.shape[:-1]):  # what a row needs stays in the cache
        _row(
            hashes[row],
            ids[row],
            sizes,
            vocab,
            PRIMES[function],
            digits,
            None if doc_ids is None else doc_ids[row],
            raw_bytes,
        )
    return hashes


def _row(hashes_SxN, ids_N, sizes, vocab, prime, digits, doc_ids_N, raw_bytes) -> None:
    """Fills in the hashes of one row, in uint64, whose arithmetic wraps."""
    N, back = len(ids_N), max(sizes) - 1
    symbols = np.zeros(back + N, np.uint64)
    symbols[back:] = _digits(ids_N, raw_bytes, np)
    firsts = (
        np.zeros(0, np.int64) if doc_ids_N is None else np.flatnonzero(doc_ids_N[1:] != doc_ids_N[:-1]) + 1
    )
    total, quotient, divisor, power = np.zeros(N, np.uint64), np.empty(N, np.int64), np.int64(vocab), 1
    signed = total.view(np.int64)
    # the n-gram grows by one older symbol, which for the first n - 1 of a document is of another
    for n in range(1, back + 2):
        digit = symbols[back + 1 - n : back + 1 - n + N]
        if n == 1 or digits == "released":
            np.multiply(total, np.uint64(prime), out=total)
        else:
            power = power * prime & MASK
            digit = digit * np.uint64(power)
        np.add(total, digit, out=total)
        beyond = (firsts[:, None] + np.arange(n - 1)).reshape(-1)
        beyond = beyond[beyond < N]
        total[beyond] -= digit[beyond]
        for i, size in enumerate(sizes):
            # the remainder, by a quotient: numpy divides by one number ten times as fast as it takes
            # remainders
            if size == n:
                np.floor_divide(signed, divisor, out=quotient)
                np.multiply(quotient, divisor, out=quotient)
                np.subtract(signed, quotient, out=hashes_SxN[i], casting="unsafe")


def _on_device(ids, sizes, vocab, prime, digits, doc_ids, raw_bytes):
    """The same of jax.Arrays, all rows at once: one element-wise loop."""
    symbols = _digits(ids, raw_bytes, jnp)
    joined = None if doc_ids is None else _joined(doc_ids, jnp)
    hashes, total, power = {}, None, 1
    for n in range(1, max(sizes) + 1):  # the n-gram grows by one older symbol; static, at most a few steps
        if n > 1:
            symbols = _later(symbols, jnp)
            if joined is not None:  # once cut, a symbol stays cut: zeros travel along
                symbols = jnp.where(joined, symbols, np.uint32(0))
        digit = (jnp.zeros_like(symbols), symbols)
        if total is None:
            total = digit
        elif digits == "released":
            total = _plus(_times(total, prime), digit)
        else:
            power = power * prime & MASK
            total = _plus(total, _times(digit, power))
        hashes[n] = total
    stacked = tuple(jnp.stack(limbs, axis=-2) for limbs in zip(*(hashes[n] for n in sizes)))
    return _remainder(stacked, vocab).astype(jnp.int32)


def _digits(ids, raw_bytes, xp):
    """The value of every symbol, uint32: its id, or a byte's value (specials from 256)."""
    symbols = ids.astype(xp.uint32)
    return (
        xp.where(symbols < byte_ids.OFFSET, symbols + np.uint32(256), symbols - np.uint32(byte_ids.OFFSET))
        if raw_bytes
        else symbols
    )


def ngram_present(doc_ids, sizes):
    """False where the n-gram reaches beyond its row's (or document's) first symbol, bool [B, len(sizes), N].

    doc_ids: int [B, N] (numpy in, numpy out; jax in, jax out), or N alone: then of one row that is one
    document, numpy [1, len(sizes), N]."""
    sizes = _checked(sizes)
    if isinstance(doc_ids, int):
        doc_ids = np.zeros((1, doc_ids), np.int32)
    xp = jnp if isinstance(doc_ids, jax.Array) else np
    joined = _joined(doc_ids, xp)
    present, masks = xp.ones(doc_ids.shape, bool), {}
    for n in range(1, max(sizes) + 1):
        if n > 1:
            present = _later(present, xp) & joined
        masks[n] = present
    return xp.stack([masks[n] for n in sizes], axis=-2)


def _checked(sizes):
    sizes = tuple(sizes)
    if not sizes or any(not isinstance(n, (int, np.integer)) or n < 1 for n in sizes):
        raise UserError(f"n-gram sizes must be whole numbers of at least 1, not {sizes}")
    return sizes


def _later(values, xp):
    """Everything one position later, zero (False) at the first."""
    return xp.pad(values, [(0, 0)] * (values.ndim - 1) + [(1, 0)])[..., :-1]


def _joined(doc_ids, xp):
    """True where a symbol and the one before it are of one document, bool [..., N]."""
    same = doc_ids[..., 1:] == doc_ids[..., :-1]
    return xp.pad(same, [(0, 0)] * (same.ndim - 1) + [(1, 0)])


# A number is (high, low), both uint32.


def _times(x, constant):
    """x · constant mod 2^64. The low limbs' 64-bit product comes from four products of 16-bit halves."""
    high, low = x
    constant_high, constant_low = np.uint32(constant >> 32), np.uint32(constant & 0xFFFFFFFF)
    c1, c0 = constant_low >> np.uint32(16), constant_low & np.uint32(0xFFFF)
    half, bits = np.uint32(0xFFFF), np.uint32(16)
    x1, x0 = low >> bits, low & half
    cross10, cross01 = x1 * c0, x0 * c1
    middle = (x0 * c0 >> bits) + (cross10 & half) + (cross01 & half)
    carried = x1 * c1 + (cross10 >> bits) + (cross01 >> bits) + (middle >> bits)
    return carried + high * constant_low + low * constant_high, low * constant_low


def _plus(x, y):
    low = x[1] + y[1]
    return x[0] + y[0] + (low < y[1]).astype(jnp.uint32), low


def _remainder(x, vocab):
    """(x as signed int64) floored mod vocab, uint32.

    Cut into chunks of b bits, x is a sum of chunk · (2^(b·i) mod V), which stays below 2^32 for a small
    enough b: one division in all, where vocab is at most 2^24 or so."""
    high, low = x
    if vocab & (vocab - 1) == 0:
        return low & np.uint32(vocab - 1)
    for b in range(16, 3, -1):
        spans = [(limb, shift, min(b, 32 - shift)) for limb in (0, 1) for shift in range(0, 32, b)]
        if (sum(2**width - 1 for _, _, width in spans) + 1) * (vocab - 1) < 2**32:
            # the sign bit weighs -2^63, not 2^63
            total = (high >> np.uint32(31)) * np.uint32(-(2**64) % vocab)
            for limb, shift, width in spans:
                chunk = ((low, high)[limb] >> np.uint32(shift)) & np.uint32(2**width - 1)
                total = total + chunk * np.uint32(2 ** (32 * limb + shift) % vocab)
            return total % np.uint32(vocab)
    step = 32 - vocab.bit_length()  # a remainder moved up by so many bits still fits
    divisor, rest = np.uint32(vocab), high % np.uint32(vocab)
    for shift in range(32, 0, -step):
        width = min(step, shift)
        chunk = (low >> np.uint32(shift - width)) & np.uint32(2**width - 1)
        rest = ((rest << np.uint32(width)) | chunk) % divisor
    sign = (high >> np.uint32(31)) * np.uint32(-(2**64) % vocab)
    return (rest + sign) % divisor  # both below V < 2^31
