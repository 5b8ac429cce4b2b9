"""Where patches start: every scheme but BPE as one vectorised, incremental function of a document's ids.

Position p of a document [BOS, bytes, EOS] starts a patch or not by what came before p alone (x_0..x_{p-1} and
the entropies e_0..e_{p-1}, where e_i is the entropy of the prediction of x_{i+1}): the segmentation of a
prefix is the prefix of the segmentation. BPE is the exception; its boundaries come from a tokenizer's byte
counts (`bpe_starts`).

The rules are the released ones (paper section 2.1-2.3 and its code): BOS is a patch of its own, position 1
always starts one. Everything runs on numpy arrays on the host and on jax arrays, under `jax.jit` too, with
the same result."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from bltjax.errors import UserError
from bltjax.patching import vocab

# what each compares entropies with
THRESHOLDS = {"entropy": ("threshold",), "monotonic": ("delta",), "both": ("threshold", "delta")}
NEEDS_ENTROPIES = tuple(THRESHOLDS)
RESOLUTION = 2.0**-13  # nats: entropies of a vocabulary of 260 fit 16 bits (entropy/store.py)
SCHEMES = ("strided", "space", "entropy", "monotonic", "both", "random")


def starts(
    ids,
    scheme,
    *,
    entropies=None,
    threshold=None,
    delta=None,
    max_length=None,
    stride=None,
    mean=None,
    seed=None,
    include_next=False,
    bos_alone=True,
    resolution=None,
    xp=None,
):
    """True where a patch starts, bool [..., N + include_next].

    ids: int [..., N], one document (or the beginning of one) along the last axis, BOS first; leading axes are
    independent. scheme: one of SCHEMES and what it needs:
      strided    stride: [1, k, k, ...]; bos_alone=False gives the released [k, k, ...], which leaks into a
                 model's first patch
      space      nothing: a patch starts after the first of a run of bytes that are no letter, digit or UTF-8
                 continuation
      entropy    entropies > threshold (nats, strict)
      monotonic  the entropy's rise > delta (nats, strict; `threshold` is read where delta is None)
      both       entropies > threshold and rise > delta
      random     a coin of probability 1 / mean that is a hash of (seed, position, prefix)
    entropies: float [..., N] in nats, compared as float32; the last is read only with include_next.
    max_length: longer patches are cut into pieces of so many bytes; None or 0: no limit. include_next: decide
    for the byte that comes after the last, too. resolution: entropies are rounded to multiples of it
    (`rounded`) before they are compared; None or 0: they are not. xp: numpy or jax.numpy; None: jax.numpy
    where an input is a jax array. Raises UserError on an unknown scheme and on missing or impossible values
    (of traced inputs only shapes are checked)."""
    xp = xp or (jnp if isinstance(ids, jax.Array) or isinstance(entropies, jax.Array) else np)
    ids = xp.asarray(ids)
    if ids.ndim < 1 or (ids.size and not xp.issubdtype(ids.dtype, xp.integer)):
        raise UserError(f"ids must be integers of shape [..., N], not {ids.dtype} of shape {list(ids.shape)}")
    if scheme not in SCHEMES:
        extra = " (bpe boundaries come from a tokenizer)" if scheme == "bpe" else ""
        raise UserError(f"unknown patching scheme {scheme!r}{extra}; allowed: {', '.join(SCHEMES)}")
    if not bos_alone and scheme != "strided":
        raise UserError(f"bos_alone=False exists for strided patches only, not for {scheme}")
    limit = 0 if max_length is None else _whole("max_length", max_length, 0)

    n = ids.shape[-1]
    shape = ids.shape[:-1] + (n + 1,)
    position = xp.broadcast_to(xp.arange(n + 1, dtype=xp.int32), shape)
    forced = position < 2
    if scheme == "strided":
        k = _whole("stride", stride, 1)
        natural = (position == 0) | ((position - 1) % k == 0) if bos_alone else position % k == 0
    elif scheme == "space":
        natural = forced | _after_each(_space_ends(ids, xp), False, xp)
    elif scheme == "random":
        natural = forced | _coins(ids, position, mean, seed, xp)
    else:
        if scheme == "monotonic":
            delta = threshold if delta is None else delta
        if "threshold" in THRESHOLDS[scheme]:
            threshold = _number("threshold", threshold)
        if "delta" in THRESHOLDS[scheme]:
            delta = _number("delta", delta)
        before, rise = _before(rounded(_entropies(ids, entropies, xp), resolution or 0, xp), xp)
        natural = opens(scheme, position, before, rise, threshold, delta)
    return limited(natural, limit, xp)[..., : n + bool(include_next)]


def opens(scheme, position, before, rise, threshold, delta):
    """Where a patch starts by an entropy scheme, bool [...], before a length limit: the one place where these
    conditions stand, for numpy and jax arrays alike.

    position: int in the document; before: e_{p-1}, nats; rise: e_{p-1} - e_{p-2}. What is before position 1
    (2 for the rise) is not read. threshold, delta: nats, as far as the scheme has them (THRESHOLDS)."""
    forced = position < (2 if scheme == "entropy" else 3)  # the released mask opens where no rise is known
    if scheme == "entropy":
        return forced | (before > threshold)
    if scheme == "monotonic":
        return forced | (rise > delta)
    # Position 3 never starts: the released rule bars a start next to the forced one at 2, and next to no
    # other.
    return forced | ((position >= 4) & (before > threshold) & (rise > delta))


def limited(natural, limit: int, xp):
    """The same starts, bool [...,N], and those that cut longer patches into pieces of `limit` bytes (0:
    none)."""
    if not limit:
        return natural
    at = xp.broadcast_to(xp.arange(natural.shape[-1], dtype=xp.int32), natural.shape)
    return natural | ((at - running_max(xp.where(natural, at, 0), xp)) % limit == 0)


def _before(entropies, xp):
    """(e_{p-1}, e_{p-1} - e_{p-2}) at every position p, float32 [...,N + 1] of entropies [...,N]; -inf and 0
    where there are none."""
    before = _after_each(entropies, -xp.inf, xp)
    pad = [(0, 0)] * (entropies.ndim - 1) + [(2, 0)]
    return before, xp.pad(entropies[..., 1:] - entropies[..., :-1], pad)[..., : before.shape[-1]]


def rounded(entropies, resolution: float, xp=np):
    """Entropies at the nearest multiple of the resolution (nats), float32; 0: as they are.

    What is stored ahead of training is rounded, so that live patching rounds too: then both cut at the same
    places, wherever two ways of computing an entropy differ in its last bits only. RESOLUTION is a power of
    two, so that multiples and their differences are exact."""
    return (
        xp.round(entropies * np.float32(1 / resolution)) * np.float32(resolution) if resolution else entropies
    )


def lengths(
    ids,
    scheme,
    *,
    entropies=None,
    threshold=None,
    delta=None,
    max_length=None,
    stride=None,
    mean=None,
    seed=None,
    include_next=True,
    bos_alone=True,
    resolution=None,
) -> list[int]:
    """Patch lengths of one row of ids [N], summing to N + include_next (the released models' convention is N
    + 1). See `starts`."""
    ids = np.asarray(ids)
    if ids.ndim != 1:
        raise UserError(f"ids must be one row [N], not of shape {list(ids.shape)}")
    entropies = None if entropies is None else np.asarray(entropies)
    mask = starts(
        ids.astype(np.int32) if not ids.size else ids,
        scheme,
        entropies=entropies,
        threshold=threshold,
        delta=delta,
        max_length=max_length,
        stride=stride,
        mean=mean,
        seed=seed,
        include_next=include_next,
        bos_alone=bos_alone,
        resolution=resolution,
        xp=np,
    )
    return np.diff(np.append(np.flatnonzero(mask), mask.size)).tolist()


def scores(scheme, entropies, *, threshold=None, delta=None, xp=None):
    """What an entropy scheme compares with its threshold, float32 [..., N + 1]: p starts a patch iff
    scores[p] > threshold (or is forced).

    entropies: float [..., N]. -inf where only force makes a start (p < 2; p = 2 but for entropy) or another
    condition rules it out. both: with delta (nats) given the score is the entropy where the rise exceeds
    delta; with threshold given instead, the rise where the entropy exceeds the threshold: the same rule, with
    the other of its two numbers left open."""
    xp = xp or (jnp if isinstance(entropies, jax.Array) else np)
    entropies = xp.asarray(entropies, xp.float32)
    before, rise = _before(entropies, xp)
    position = xp.broadcast_to(xp.arange(before.shape[-1], dtype=xp.int32), before.shape)
    if scheme == "entropy":
        return xp.where(position >= 2, before, -xp.inf)
    if scheme == "monotonic":
        return xp.where(position >= 3, rise, -xp.inf)
    if scheme != "both":
        raise UserError(f"{scheme!r} patches have no threshold; allowed: entropy, monotonic, both")
    # Position 3 never starts: the released rule bars a start next to the forced one at 2, and next to no
    # other.
    if threshold is None:
        return xp.where((position >= 4) & (rise > _number("delta", delta)), before, -xp.inf)
    return xp.where((position >= 4) & (before > _number("threshold", threshold)), rise, -xp.inf)


def bpe_starts(byte_counts, n: int) -> np.ndarray:
    """Patch starts of a document [BOS, bytes, EOS] of n ids from its tokens, bool [n]: BOS, every token and
    EOS are patches.

    byte_counts: int [tokens], raw bytes of each token in order, without BOS and EOS; they sum to n - 2, else
    UserError. Not incremental: a token's end can depend on bytes after it."""
    byte_counts = np.asarray(byte_counts, np.int64)
    if byte_counts.ndim != 1 or (byte_counts < 1).any() or byte_counts.sum() != n - 2:
        raise UserError(
            f"the tokens' byte counts must be positive and sum to the document's {n - 2} bytes, not"
            f" {byte_counts.sum()}"
        )
    mask = np.zeros(n, bool)
    mask[0] = mask[n - 1] = True
    mask[1 + np.cumsum(byte_counts) - byte_counts] = True
    return mask


def starts_from_lengths(lengths, n: int):
    """Patch starts bool [B, n] from lengths int [B, P] whose rows are padded with zeros (or less).

    n: positions wanted, static; starts beyond are cut. numpy in, numpy out; jax in, jax out.
    """
    xp = jnp if isinstance(lengths, jax.Array) else np
    lengths = xp.maximum(xp.asarray(lengths, xp.int32), 0)
    first = xp.cumsum(lengths, axis=-1, dtype=xp.int32) - lengths
    slot = xp.where(lengths > 0, xp.minimum(first, n), n)  # column n takes what is padding or out of range
    row = xp.broadcast_to(xp.arange(lengths.shape[0], dtype=xp.int32)[:, None], slot.shape)
    mask = xp.zeros((lengths.shape[0], n + 1), bool)
    if xp is np:
        mask[row, slot] = True
    else:
        mask = mask.at[row, slot].set(True)
    return mask[:, :n]


def _after_each(values, first, xp):
    """[..., N] moved one position later, [..., N + 1] with `first` at 0: what is known at i acts on i + 1."""
    return xp.pad(values, [(0, 0)] * (values.ndim - 1) + [(1, 0)], constant_values=first)


def running_max(values, xp):
    return (
        np.maximum.accumulate(values, axis=-1) if xp is np else jax.lax.cummax(values, axis=values.ndim - 1)
    )


def _space_ends(ids, xp):
    """True where a space patch ends, bool [..., N]: at the first of a run of space-like ids, and at every
    special."""
    inside = word(ids, xp)
    # Specials are space-like here as well: a space right after BOS goes on with its run and ends nothing.
    return (~inside & _after_each(inside, True, xp)[..., :-1]) | (ids < vocab.OFFSET)


def word(ids, xp):
    """True for letters, digits and what goes on with a character of UTF-8."""
    byte = ids.astype(xp.int32) - vocab.OFFSET
    letter = ((byte >= ord("a")) & (byte <= ord("z"))) | ((byte >= ord("A")) & (byte <= ord("Z")))
    return letter | ((byte >= ord("0")) & (byte <= ord("9"))) | ((byte >= 0x80) & (byte < 0xC0))


def _coins(ids, position, mean, seed, xp):
    """Heads with probability 1 / mean, bool [..., N + 1], a function of seed, position and all ids before it.
    32-bit wrap-around."""
    prefix = _after_each(xp.cumsum(symbols(ids, position[..., :-1], xp), axis=-1, dtype=xp.uint32), 0, xp)
    return heads(prefix, position, mean, seed, xp)


def symbols(ids, position, xp):
    """What each id adds to the hash of a prefix, uint32."""
    return _mix(
        ids.astype(xp.uint32) * np.uint32(0x9E3779B1) + position.astype(xp.uint32) * np.uint32(0x85EBCA77), xp
    )


def heads(prefix, position, mean, seed, xp):
    mean = _number("mean", mean)
    if not 1 <= mean < math.inf:
        raise UserError(f"mean must be a finite patch size of at least 1, not {mean:g}")
    seed = _whole("seed", 0 if seed is None else seed, None)
    salt = np.uint32((seed * 0x27D4EB2F + 0x165667B1) & 0xFFFFFFFF)
    coin = _mix(prefix ^ _mix(position.astype(xp.uint32) * np.uint32(0xC2B2AE3D) + salt, xp), xp)
    return coin <= np.uint32(max(int(2**32 / mean), 1) - 1)


def _mix(x, xp):
    """Every bit of a uint32 spread over all others (the finalizer of MurmurHash3, public domain)."""
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return x ^ (x >> np.uint32(16))


def _entropies(ids, entropies, xp):
    if entropies is None:
        raise UserError("this patching scheme needs entropies, one per id")
    try:
        entropies = xp.asarray(entropies, xp.float32)
    except (TypeError, ValueError):
        raise UserError("entropies must be numbers, one per id") from None
    if entropies.shape != ids.shape:
        raise UserError(
            f"entropies of shape {list(entropies.shape)} do not fit ids of shape {list(ids.shape)}"
        )
    if not isinstance(entropies, jax.core.Tracer) and bool(xp.isnan(entropies).any()):
        raise UserError("entropies must not be NaN")
    return entropies


def _number(name, value):
    """A number, not NaN; a traced scalar passes unseen."""
    if value is None:
        raise UserError(f"this patching scheme needs {name}")
    if isinstance(value, jax.core.Tracer):
        return value
    try:
        value = float(value)
    except (TypeError, ValueError):
        raise UserError(f"{name} must be a number, not {value!r}") from None
    if math.isnan(value):
        raise UserError(f"{name} must be a number, not NaN")
    return value


def _whole(name, value, least):
    """A whole number of at least `least` (None: any)."""
    number = _number(name, value)
    if not math.isfinite(number) or number != int(number) or (least is not None and number < least):
        raise UserError(
            f"{name} must be a whole number{'' if least is None else f' of at least {least}'}, not {value}"
        )
    return int(number)
