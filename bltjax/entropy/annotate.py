"""Entropies of every position of whole documents, ahead of training, in batches of few distinct shapes.

A row holds one document, or one window of a long one, from its first slot on: what a document's entropies are
depends on no other document, not even by rounding at another offset."""

import functools

import jax
import numpy as np
from ml_collections import FrozenConfigDict

from bltjax.errors import UserError
from bltjax.models import patcher
from bltjax.patching import vocab

# Positions in one call, on one device: on a CPU enough to keep matmuls busy and few enough to stay in cache;
# elsewhere so many that a call takes longer than to start it.
SYMBOLS, SYMBOLS_ACCELERATOR = 1 << 13, 1 << 17
SHORTEST, LONGEST = 64, 65536  # row lengths are powers of two between
ROOMY = 1024  # a row is at least so long where windows of a document overlap


def annotate(
    model_config,
    params,
    documents: list[bytes],
    *,
    entropies=patcher.entropies,
    progress=None,
    kept=np.asarray,
) -> list[np.ndarray]:
    """Next-byte entropy in nats at each of [BOS, bytes, EOS], float32 [len(document) + 2] per document.

    model_config, params: an entropy model. entropies: function (model_config, params, batch) -> float32 [B,
    T], batch = int32 bytes and doc_ids [B, T]. progress: called with the number of positions finished by each
    batch. kept: what is kept of float32 values (and its dtype), where all of a long document would be much. A
    document longer than a row is read in windows that overlap by the whole reach of the model, layers ·
    (window - 1), so its values equal those of one pass (to float32 rounding). Raises UserError where a model
    without a window meets a document over LONGEST."""
    reach = model_config.layers * (model_config.window - 1) if model_config.window else None
    sizes = [len(d) + 2 for d in documents]
    longest = _row_length(reach, max(sizes, default=0))
    buckets = {}
    for number, n in enumerate(sizes):
        for piece in _pieces(n, longest, reach):
            buckets.setdefault(_power_of_two(piece[1] - piece[0], SHORTEST), []).append((number, *piece))
    forward, shardings, devices = _compiled(FrozenConfigDict(model_config), entropies), *_devices()
    params = jax.device_put(params, shardings and shardings[1])
    found = [np.empty(n, kept(np.zeros(0, np.float32)).dtype) for n in sizes]

    def keep(group, values):
        """Of one call, once the device has it."""
        values = np.asarray(values)
        for row, (number, start, stop, first) in enumerate(group):
            found[number][first:stop] = kept(values[row, first - start : stop - start])
        if progress:
            progress(sum(stop - first for _, _, stop, first in group))

    running = None  # the call before, which the device computes while the next is made ready
    for length, pieces in _merged(buckets, devices):
        rows = devices * _rows(length, -(-len(pieces) // devices))
        for at in range(0, len(pieces), rows):
            group = pieces[at : at + rows]
            ids, docs = np.zeros((rows, length), np.int32), np.zeros((rows, length), np.int32)
            for row, (number, start, stop, _) in enumerate(group):
                ids[row, : stop - start] = _part(documents[number], start, stop)
                docs[row, : stop - start] = 1
            batch = jax.device_put({"bytes": ids, "doc_ids": docs}, shardings and shardings[0])
            values = forward(params, batch)
            if running:
                keep(*running)
            running = group, values
    if running:
        keep(*running)
    return found


def _most_rows(length: int) -> int:
    """Rows of a length in one call, on one device."""
    return max(1, (SYMBOLS if jax.default_backend() == "cpu" else SYMBOLS_ACCELERATOR) // length)


def _rows(length: int, pieces: int) -> int:
    """Rows of a call on one device, of `pieces` that it has in all. An accelerator is always given as many as
    it takes: a shape is compiled in the time of many calls."""
    most = _most_rows(length)
    return min(most, _power_of_two(pieces, 1)) if jax.default_backend() == "cpu" else most


def _merged(buckets: dict[int, list], devices: int):
    """(row length, pieces), shortest first. Pieces that would not fill half a call go into rows twice as
    long, where there are any: a call more at most, and a shape less. A shape is compiled in the time of
    twenty calls, and what is left over of each length would have its own."""
    waiting, length = [], SHORTEST
    while length <= max(buckets, default=0):
        waiting = waiting + buckets.get(length, [])
        if waiting and (length == max(buckets) or len(waiting) > devices * _most_rows(length) // 2):
            yield length, waiting
            waiting = []
        length *= 2


def _devices():
    """((sharding of rows, sharding of parameters) or None, count): every device of this process takes its
    rows."""
    devices = jax.local_devices()
    if len(devices) == 1:
        return None, 1
    mesh = jax.sharding.Mesh(np.array(devices), ("rows",))
    return tuple(
        jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes)) for axes in (("rows",), ())
    ), len(devices)


@functools.lru_cache(maxsize=8)
def _compiled(model_config, entropies):
    """One jitted function per model and process, so that a second call of `annotate` compiles nothing
    anew."""
    return jax.jit(functools.partial(entropies, model_config))


def _row_length(reach, longest_document):
    """Slots in the longest row: eight reaches, that little be computed twice, but at least two."""
    if reach is not None:
        return _power_of_two(min(8 * reach, max(LONGEST // 2, 2 * reach)), ROOMY)
    if longest_document > LONGEST:
        raise UserError(
            f"an entropy model without a window reads at most {LONGEST - 2} bytes a document, not"
            f" {longest_document - 2}"
        )
    return LONGEST


def _pieces(n, longest, reach):
    """(start, stop, first position kept) of the rows that a document of n positions is read in."""
    if n <= longest:
        return [(0, n, 0)]
    firsts = range(0, n - reach, longest - reach)
    return [(s, min(s + longest, n), s + reach if s else 0) for s in firsts]


def _part(document, start, stop):
    """Ids start..stop of [BOS, bytes, EOS] without building the rest."""
    ids = vocab.encode(document[max(start - 1, 0) : max(stop - 1, 0)])
    head = [vocab.BOS] if start == 0 else []
    tail = [vocab.EOS] if stop == len(document) + 2 else []
    return np.concatenate([np.array(head, np.int32), ids, np.array(tail, np.int32)])


def _power_of_two(n, least):
    return max(least, 1 << max(n - 1, 0).bit_length())
