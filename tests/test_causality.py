"""The property that everything rests on: the logits at a byte are a function of the bytes up to it, and of
its own document alone.

Rows are packed from several documents, one of them split over rows. Every byte of every row is changed in
turn, its document is patched anew (BPE: boundaries held), and nothing before it may move; in the `paper`
preset nothing in another document either."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from bltjax import config as cfg
from bltjax import models
from bltjax.data import filling, packing
from bltjax.models import patcher
from bltjax.patching import segmentation, vocab

T = 48
RNG = np.random.default_rng(0)
DOCUMENTS = [
    b"def f(x):\n  return x",
    bytes(RNG.integers(0, 256, 11, np.uint8)),
    b"the quick  brown fox, jumps: over 12 lazy dogs " * 2,
    b"z",
]
LM = cfg.transformer("byte", vocab=260, width=16, layers=1, heads=2, window=8, ffn_multiple=16)
LM_PARAMS = models.init(LM, jax.random.key(7))
SCHEMES = {
    "strided": cfg.patching("strided", 3),
    "space": cfg.patching("space"),
    "random": cfg.patching("random", 3, seed=5),
    "entropy": cfg.patching("entropy", 3, threshold=5.25),
    "monotonic": cfg.patching("monotonic", 3, delta=0.02),
    "both": cfg.patching("both", 3, threshold=5.2, delta=0.01),
    "entropy-max": cfg.patching("entropy", 3, threshold=5.3, max_length=4),
    "bpe": cfg.patching("bpe", 3),
}
_entropies = jax.jit(functools.partial(patcher.entropies, LM))


def entropies(documents):
    """By one program for all lengths, so that only what the model sees can make a difference."""
    longest = 128
    ids = np.zeros((len(documents), longest), np.int32)
    for row, document in zip(ids, documents):
        row[: len(document) + 2] = vocab.encode_document(document)
    found = np.asarray(_entropies(LM_PARAMS, {"bytes": ids, "doc_ids": (ids > 0).astype(np.int32)}))
    return [values[: len(document) + 2] for values, document in zip(found, documents)]


class Pieces:
    """Stands in for a tokenizer: cuts at fixed places, whatever the bytes are."""

    byte_counts = np.arange(5, dtype=np.int32)

    def encode(self, document):
        sizes = [2 + i % 3 for i in range(len(document))]
        ends = np.minimum(np.cumsum(sizes), len(document))
        return np.diff(np.concatenate([[0], np.unique(ends)]))


def lengths_of(patching, documents):
    needs = patching.scheme in ("entropy", "monotonic", "both")
    return segmentation.document_lengths(
        patching, documents, entropies(documents) if needs else None, Pieces()
    )


def model(preset):
    return cfg.blt_model(
        preset,
        local_width=16,
        encoder_layers=2,
        decoder_layers=1,
        local_heads=2,
        global_width=32,
        global_layers=1,
        global_heads=2,
        k=2,
        window=8,
        ngram_rows=64,
        ffn_multiple=16,
    )


@functools.cache
def logits_of(preset):
    config = model(preset)
    params = jax.tree.map(
        lambda x: x + 0.05 * jax.random.normal(jax.random.key(x.size), x.shape),
        models.init(config, jax.random.key(1)),
    )
    return jax.jit(functools.partial(models.logits, config, params))


def changed(document, at):
    return document[:at] + bytes([(document[at] + 97) % 256]) + document[at + 1 :]


@pytest.mark.parametrize("preset", ["paper", "released"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_nothing_before_a_changed_byte_moves(scheme, preset):
    patching = SCHEMES[scheme]
    before = packing.byte_documents(DOCUMENTS, lengths_of(patching, DOCUMENTS))
    plan = packing.plan_rows(before, T, T)
    assert len(plan) >= 3 and max(np.diff(plan.first)) >= 2, "rows with several documents, and a split one"
    batch = filling.fill(before, plan, np.arange(len(plan)))
    rows, slots, variants = [], [], []
    for d, document in enumerate(DOCUMENTS):
        for at in range(len(document)):
            documents = [changed(document, at) if i == d else other for i, other in enumerate(DOCUMENTS)]
            position = before.ends[d] + 1 + at
            segment = int(
                np.flatnonzero((plan.source < position) & (position < plan.source + plan.length))[0]
            )
            row = int(np.searchsorted(plan.first, segment, side="right")) - 1
            slot = int(plan.offset[segment] + position - plan.source[segment])
            after = packing.byte_documents(documents, lengths_of(patching, documents))
            variants.append(filling.fill(after, dataclasses.replace(plan, patch_capacity=T), [row]))
            rows.append(row)
            slots.append(slot)
    assert len(rows) == sum(map(len, DOCUMENTS)), "every byte of every document lies in one row"
    apply = logits_of(preset)
    original = np.asarray(apply(batch))
    moved = np.asarray(apply({name: np.concatenate([v[name] for v in variants]) for name in batch}))
    difference = np.abs(moved - original[rows]).max(-1)  # [variants, T]
    slot_VxT, row_V = np.arange(T)[None, :], np.array(rows)
    earlier = slot_VxT < np.array(slots)[:, None]
    real = batch["doc_ids"][row_V] > 0
    # of float32 sums in another order; a leak is a thousand times that
    assert difference[earlier & real].max() <= 3e-5
    at_itself = difference[np.arange(len(slots)), slots]
    assert (at_itself > 1e-4).mean() > 0.95, "a byte does move its own logits, else the test shows nothing"
    if preset == "paper":
        own = batch["doc_ids"][row_V] == batch["doc_ids"][row_V, slots][:, None]
        assert difference[~own & real].max() <= 1e-5, "another document of the row moved"


@pytest.mark.parametrize("preset", ["paper", "released"])
def test_no_gradient_from_later_bytes(preset):
    """d logits[i] / d (what the model is told of byte j) is 0 for j > i: bytes enter as rows of the
    embedding, one table row per slot."""
    config = cfg.replace(model(preset), **{"ngrams.sizes": ()})
    # no byte twice, so that an embedding row is a position
    documents = [bytes(range(4 + 0, 4 + 20)), bytes(range(40, 60))]
    lengths = segmentation.document_lengths(SCHEMES["strided"], documents)
    packed = packing.byte_documents(documents, lengths)
    batch = filling.fill(packed, packing.plan_rows(packed, T, T), [0])
    params = models.init(config, jax.random.key(2))
    ids = batch["bytes"][0]

    def one_logit(table):
        return models.logits(
            config, {**params, "encoder": {**params["encoder"], "embed": {"bytes": table}}}, batch
        )[0].sum(-1)

    # [T, 260]
    jacobian = np.abs(np.asarray(jax.jacrev(one_logit)(params["encoder"]["embed"]["bytes"]))).max(-1)
    influence = jacobian[:, ids]  # [logit slot, byte slot]
    raw = ids >= vocab.OFFSET
    later = np.triu(np.ones((T, T), bool), 1) & raw[None, :] & (batch["doc_ids"][0] > 0)[:, None]
    assert influence[later].max() == 0
    assert (influence[np.arange(T), np.arange(T)][raw] > 0).all()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_byte_is_predicted_once(scheme):
    packed = packing.byte_documents(DOCUMENTS, lengths_of(SCHEMES[scheme], DOCUMENTS))
    plan = packing.plan_rows(packed, T, 20)
    batch = filling.fill(packed, plan, np.arange(len(plan)))
    targets = batch["targets"][batch["loss_mask"] > 0]
    assert vocab.decode(targets) == b"".join(DOCUMENTS)
    assert (targets == vocab.EOS).sum() == len(DOCUMENTS)
    assert (batch["patch_ids"] <= 20).all() and (batch["latent_ids"] >= 0).all()
