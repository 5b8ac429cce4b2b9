"""Documents into rows of fixed shape: a plan (small arrays, made once) and batches filled from it
(vectorised, on demand).

A row is a sequence of segments, laid down in order (next-fit). A segment is BOS, then units `a` to `b` of one
document; a unit is a byte or a token, EOS is a document's last. Slot j of a segment predicts the unit in slot
j + 1; the last slot predicts nothing. So a document cut into segments has every byte and its one EOS
predicted exactly once: the continuation's own BOS predicts its first unit.

A segment takes what the row has left, cut back to the start of a patch, and never only BOS: where not one
whole patch fits, the row ends. A patch longer than a whole row is cut at the row's end all the same, since it
fits nowhere. A cut that would leave a segment of EOS alone moves one patch back: such a segment would ask the
model how often documents are empty. """

import bisect
import dataclasses

import numpy as np

from bltjax.data import balanced_packing
from bltjax.errors import UserError
from bltjax.patching import vocab


@dataclasses.dataclass(frozen=True)
class Documents:
    """All documents end to end, each as [BOS, units, EOS]. U units in all, D documents.

    ids [U] (uint16 for bytes, int32 for tokens), ends int64 [D + 1] from 0 on, starts bool [U] or None
    (patches of one unit, unnamed), raw_bytes int32 [U] or None (one byte a unit, none for BOS and EOS), bos:
    the id a segment opens with. """

    ids: np.ndarray
    ends: np.ndarray
    starts: np.ndarray | None
    raw_bytes: np.ndarray | None
    bos: int

    def __len__(self):
        return len(self.ends) - 1


@dataclasses.dataclass(frozen=True)
class Plan:
    """Rows of R in all, S segments: first int64 [R + 1] (row r holds segments first[r] to first[r + 1]); per
    segment int64 [S]: source (index in Documents.ids of the slot before its first unit), length (slots, BOS
    included), offset (slot in the row), patches (0 where patches have no names). capacity: T (slots of a
    row); patch_capacity: P, or None."""

    first: np.ndarray
    source: np.ndarray
    length: np.ndarray
    offset: np.ndarray
    patches: np.ndarray
    capacity: int
    patch_capacity: int | None

    def __len__(self):
        return len(self.first) - 1


def byte_documents(documents: list[bytes], lengths=None) -> Documents:
    """Documents of byte ids. lengths: per document its patch lengths over [BOS, bytes, EOS], the first of
    them 1; None: no patches.

    ValueError where lengths do not sum to len(document) + 2, are not positive, or do not begin with 1.
    """
    sizes = np.array([len(document) + 2 for document in documents], np.int64)
    ends = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    ids = np.empty(ends[-1], np.uint16)
    inner = np.ones(len(ids), bool)
    ids[ends[:-1]], ids[ends[1:] - 1] = vocab.BOS, vocab.EOS
    inner[ends[:-1]] = inner[ends[1:] - 1] = False
    ids[inner] = np.frombuffer(b"".join(documents), np.uint8).astype(np.uint16) + vocab.OFFSET
    if lengths is None:
        return Documents(ids, ends, None, None, vocab.BOS)
    lengths = [np.asarray(one, np.int64) for one in lengths]
    for i, (one, size) in enumerate(zip(lengths, sizes, strict=True)):
        if one.sum() != size or one.min() < 1 or one[0] != 1:
            raise ValueError(
                f"patch lengths of document {i} must be positive, begin with 1 (BOS) and sum to {size}, not"
                f" {one.sum()}"
            )
    starts = np.zeros(len(ids), bool)
    if lengths:
        flat = np.concatenate(lengths)
        starts[np.cumsum(flat) - flat] = True
    return Documents(ids, ends, starts, None, vocab.BOS)


def part(documents: Documents, i: int) -> Documents:
    """Document number i alone (a copy)."""
    at = slice(documents.ends[i], documents.ends[i + 1])
    own = lambda x: None if x is None else x[at].copy()
    return Documents(
        own(documents.ids),
        np.array([0, at.stop - at.start], np.int64),
        own(documents.starts),
        own(documents.raw_bytes),
        documents.bos,
    )


def joined(parts: list[Documents]) -> Documents:
    """All documents of the parts, one after the other."""
    ends = np.concatenate([[0], np.cumsum(np.concatenate([np.diff(part.ends) for part in parts]))]).astype(
        np.int64
    )
    together = lambda name: (
        None if getattr(parts[0], name) is None else np.concatenate([getattr(part, name) for part in parts])
    )
    return Documents(together("ids"), ends, together("starts"), together("raw_bytes"), parts[0].bos)


def rows_of(plan: Plan, rows) -> Plan:
    """The plan of some rows of a plan, in that order."""
    rows = np.asarray(rows, np.int64)
    per_row = plan.first[rows + 1] - plan.first[rows]
    first = np.concatenate([[0], np.cumsum(per_row)])
    segments = np.repeat(plan.first[rows] - first[:-1], per_row) + np.arange(first[-1])
    return Plan(
        first,
        *(x[segments] for x in (plan.source, plan.length, plan.offset, plan.patches)),
        plan.capacity,
        plan.patch_capacity,
    )


def token_documents(token_ids, byte_counts: np.ndarray, bos: int, eos: int) -> Documents:
    """Documents of token ids (one int32 array each, without BOS and EOS); byte_counts int32 [V], 0 for
    specials."""
    ends = np.concatenate([[0], np.cumsum([len(ids) + 2 for ids in token_ids])]).astype(np.int64)
    parts = [part for ids in token_ids for part in ([bos], ids, [eos])]
    ids = np.concatenate(parts).astype(np.int32) if parts else np.zeros(0, np.int32)
    return Documents(ids, ends, None, np.asarray(byte_counts, np.int32)[ids], bos)


def plan_byte_rows(
    documents: Documents,
    capacity: int,
    patch_capacity: int | None = None,
    order=None,
    together: int = 0,
    seed=0,
) -> Plan:
    """Rows of `capacity` byte slots and at most `patch_capacity` patches, over documents in `order` (indices;
    None: all as they come).

    together: rows that are packed together, so that both run out at once (data/balance.py), and come in an
    order drawn from `seed`; 0: rows are filled one after the other. """
    if patch_capacity is not None and documents.starts is None:
        raise ValueError("a limit of patches needs documents with patches")
    if together and patch_capacity is not None:
        _check(capacity, patch_capacity)
        order = np.arange(len(documents)) if order is None else np.asarray(order)
        rows = balanced_packing.plan(
            documents.ends,
            documents.starts,
            order,
            capacity,
            patch_capacity,
            together,
            np.random.default_rng(seed),
        )
        segments = np.array([segment for row in rows for segment in row], np.int64).reshape(-1, 3)
        first = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
        before = np.concatenate([[0], np.cumsum(segments[:, 1])])
        offset = before[:-1] - np.repeat(before[first[:-1]], np.diff(first))
        return Plan(first, segments[:, 0], segments[:, 1], offset, segments[:, 2], capacity, patch_capacity)
    return _plan(documents, capacity, patch_capacity, order)


def plan_token_rows(documents: Documents, capacity: int, order=None) -> Plan:
    """Rows of `capacity` token slots."""
    return _plan(documents, capacity, None, order)


def _plan(documents: Documents, capacity: int, patch_capacity: int | None, order) -> Plan:
    _check(capacity, patch_capacity)
    named = documents.starts is not None
    cuts = np.append(np.flatnonzero(documents.starts), len(documents.ids)) if named else None
    index_of_cut = np.searchsorted(cuts, documents.ends).tolist() if named else None
    ends = documents.ends.tolist()
    limit = patch_capacity if patch_capacity is not None else len(documents.ids) + 2
    first, source, length, offset, patches = [0], [], [], [], []
    used = used_patches = 0
    for d in range(len(documents)) if order is None else np.asarray(order).tolist():
        begin, end = ends[d] + 1, ends[d + 1]
        if end - begin < 2:  # an empty document predicts nothing but its own emptiness
            continue
        a, i = begin, index_of_cut[d] + 1 if named else 0  # i: the patch that holds a
        last = index_of_cut[d + 1] if named else 0
        while a < end:
            room = a + capacity - used - 1  # the first unit that no longer fits
            if named:
                j = (
                    bisect.bisect_right(cuts, room, i, min(last, i + limit - used_patches - 1) + 1) - 1
                    if room > a
                    else i
                )
                if j < last and cuts[j] == end - 1 and (used or j - 1 > i):
                    j -= 1
                b = int(cuts[j]) if j > i else a
            else:
                j, b = 0, min(room, end)
                b -= b == end - 1
            if b <= a:
                if used:
                    first.append(len(source))
                    used = used_patches = 0
                    continue
                j, b = i, min(room, end)  # one patch longer than a row
                b -= b == end - 1
            source.append(a - 1)
            length.append(b - a + 1)
            offset.append(used)
            patches.append(max(j - i, 1) + 1 if named else 0)
            used, used_patches, a, i = used + b - a + 1, used_patches + patches[-1], b, j
    if used:
        first.append(len(source))
    return Plan(
        *(np.array(part, np.int64) for part in (first, source, length, offset, patches)),
        capacity,
        patch_capacity,
    )


def _check(capacity: int, patch_capacity: int | None) -> None:
    if capacity < 4 or (patch_capacity is not None and patch_capacity < 3):
        raise UserError(
            f"a row of {capacity} slots and {patch_capacity} patches is too small (at least 4 and 3)"
        )


def counts(documents: Documents, plan: Plan) -> dict:
    """Useful units of every row, int64 [R]: raw bytes predicted, slots that are not padding, patches that are
    not padding."""
    if documents.raw_bytes is None:
        of_segment = plan.length - 1 - _closes(documents, plan)
    else:
        total = np.concatenate([[0], np.cumsum(documents.raw_bytes, dtype=np.int64)])
        of_segment = total[plan.source + plan.length] - total[plan.source + 1]
    parts = {"bytes": of_segment, "slots": plan.length, "patches": plan.patches}
    sums = {name: np.concatenate([[0], np.cumsum(part)]) for name, part in parts.items()}
    return {name: total[plan.first[1:]] - total[plan.first[:-1]] for name, total in sums.items()}


def _closes(documents: Documents, plan: Plan) -> np.ndarray:
    """Whether a segment holds its document's EOS, bool [S]."""
    stop = plan.source + plan.length
    return documents.ends[np.searchsorted(documents.ends, stop)] == stop


def fill(documents: Documents, plan: Plan, rows) -> dict:
    """The batch of the given rows of the plan: the arrays of the contract (docs/contracts.md), int32
    [len(rows), T] and [len(rows), P].

    Keys: doc_ids, targets, loss_mask; for bytes `bytes`, and with patches patch_ids, latent_ids,
    patch_doc_ids; for tokens `tokens` and target_bytes. Padding is 0 everywhere but in patch_ids, where it is
    P. """
    rows = np.asarray(rows, np.int64)
    R, T, P = len(rows), plan.capacity, plan.patch_capacity
    # Every row is closed by a piece of padding, so that what follows are whole arrays of R * T slots, without
    # a gap to scatter around.
    per_row = plan.first[rows + 1] - plan.first[rows]
    last_S = np.cumsum(per_row + 1) - 1  # S: segments and pieces of padding
    segment = np.repeat(plan.first[rows] - (last_S - per_row), per_row + 1) + np.arange(R + per_row.sum())
    real_S = np.ones(len(segment), bool)
    real_S[last_S] = False
    segment[~real_S] = 0
    length_S = np.where(real_S, plan.length[segment], 0)
    used_R = np.add.reduceat(length_S, last_S - per_row)
    length_S[last_S] = T - used_R
    begin_S = np.cumsum(length_S) - length_S  # slot of R * T
    number_S = np.where(
        real_S, np.arange(len(segment)) - np.repeat(last_S - per_row, per_row + 1) + 1, 0
    ).astype(np.int32)
    pads = [slice(begin, begin + size) for begin, size in zip(begin_S[last_S], length_S[last_S]) if size]
    opens, closes = begin_S[real_S], (begin_S + length_S - 1)[real_S]

    # Padding reads what stands at the end of the documents, and is overwritten.
    source = np.where(real_S, plan.source[segment], 0) - begin_S
    source_U = np.repeat(source, length_S) + np.arange(R * T)
    for pad in pads:
        source_U[pad] = 0

    def shaped(values, padding=0):
        for pad in pads:
            values[pad] = padding
        return values.reshape(R, T)

    def next_one(values):
        """Each slot's successor in its segment; 0 at a segment's last."""
        moved = np.empty(R * T, np.int32)
        moved[:-1] = values[1:]
        moved[closes] = 0
        return shaped(moved)

    ids_U = documents.ids[source_U].astype(np.int32)
    ids_U[opens] = documents.bos
    learnt_U = np.ones(R * T, np.int32)
    learnt_U[closes] = 0
    name = "bytes" if documents.raw_bytes is None else "tokens"
    batch = {
        name: shaped(ids_U),
        "doc_ids": np.repeat(number_S, length_S).reshape(R, T),
        "targets": next_one(ids_U),
        "loss_mask": shaped(learnt_U),
    }
    if documents.raw_bytes is not None:
        bytes_U = documents.raw_bytes[source_U]
        bytes_U[opens] = 0
        batch["target_bytes"] = next_one(bytes_U)
    if P is not None:
        starts_U = documents.starts[source_U]
        starts_U[opens] = starts_U[opens + 1] = True
        for pad in pads:
            starts_U[pad] = False
        patch_RxT = np.cumsum(starts_U.reshape(R, T), axis=1, dtype=np.int32) - 1
        patch_U = patch_RxT.reshape(-1)
        latent_U = patch_U - 1
        latent_U[:-1] += starts_U[1:]
        latent_U[closes] = patch_U[closes]
        at = np.flatnonzero(starts_U)
        patch_doc_ids = np.zeros((R, P), np.int32)
        patch_doc_ids[at // T, patch_U[at]] = batch["doc_ids"].reshape(-1)[at]
        batch["latent_ids"], batch["patch_doc_ids"], batch["patch_ids"] = (
            shaped(latent_U),
            patch_doc_ids,
            shaped(patch_U, P),
        )
    return batch
