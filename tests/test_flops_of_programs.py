"""FLOPs that are counted against the products of compiled programs, and against the pairs that rows hold."""

import in_memory
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import small_blt

from bltjax import config as cfg
from bltjax import flops, models
from bltjax.compile import hlo
from bltjax.data import packing
from bltjax.errors import UserError
from bltjax.models import loss
from bltjax.models.kernels import attention
from bltjax.patching import segmentation


def batch_of(model, rows, slots, patches):
    ones = jnp.ones((rows, slots), jnp.int32)
    batch = dict(doc_ids=ones, targets=ones, loss_mask=ones, tokens=ones, target_bytes=ones, bytes=5 * ones)
    if patches:
        ids = jnp.broadcast_to(jnp.arange(slots, dtype=jnp.int32) * patches // slots, (rows, slots))
        batch |= dict(patch_ids=ids, latent_ids=ids, patch_doc_ids=jnp.ones((rows, patches), jnp.int32))
    return batch


def program_flops(model, rows, slots, patches, gradient=True):
    """FLOPs of the matrix products of the compiled loss, or of its gradient, with every layer unrolled."""
    model = cfg.replace(model, scan=False)
    shapes = jax.eval_shape(lambda key: models.init(model, key), jax.random.key(0))
    f = lambda params, batch: loss.nats(model, params, batch)["loss"]
    return hlo.dot_flops(
        jax.jit(jax.grad(f) if gradient else f)
        .lower(shapes, batch_of(model, rows, slots, patches))
        .compile()
        .as_text()
    )


NONE = {"cross.encoder": "none", "cross.decoder": "none", "ngrams.sizes": ()}


# Attention-heavy: long rows of narrow models, more than one block of queries where the kind has it.
HEAVY = {
    "token": (cfg.transformer("token", vocab=300, width=32, layers=2, heads=2), 1, 300, 0),
    "byte": (cfg.transformer("byte", vocab=260, width=32, layers=2, heads=2, window=40), 1, 530, 0),
    "blt": (small_blt(), 1, 300, 280),
    "blt all, learned queries": (
        cfg.replace(small_blt(encoder_layers=2, k=3), **{"cross.encoder": "all", "cross.pool": "learned"}),
        2,
        120,
        40,
    ),
    "blt all, k 3": (cfg.replace(small_blt(encoder_layers=2, k=3), **{"cross.encoder": "all"}), 2, 120, 40),
    "spacebyte": (cfg.replace(small_blt(), **NONE), 2, 120, 60),
}


@pytest.mark.parametrize("name", HEAVY)
def test_executed_step_is_what_the_program_multiplies(name):
    """The rest, up to 0.3%, are cross-attention's scores, which the program does elementwise and `exact`
    counts."""
    model, rows, slots, patches = HEAVY[name]
    assert (
        abs(program_flops(model, rows, slots, patches) / flops.executed_step(model, rows, slots, patches) - 1)
        < 0.01
    )


def test_forward_is_a_third_of_a_step_without_what_is_computed_again(monkeypatch):
    monkeypatch.setattr(flops, "ATTENTION_TRAIN", flops.TRAIN)
    model, rows, slots, patches = HEAVY["blt"]
    assert (
        abs(
            program_flops(model, rows, slots, patches, gradient=False)
            * 3
            / flops.executed_step(model, rows, slots, patches)
            - 1
        )
        < 0.01
    )


# Rows so short that masked keys hardly count: here `exact` itself must be the program's products.
LIGHT = {
    "token": (cfg.transformer("token", vocab=300, width=256, layers=1, heads=2), 2, 16, 0),
    "blt": (small_blt(local_width=256, global_width=512), 2, 24, 8),
    "no cross": (cfg.replace(small_blt(local_width=256, global_width=512), **NONE), 2, 24, 8),
}


@pytest.mark.parametrize("name", LIGHT)
def test_exact_is_what_the_program_multiplies(name):
    model, rows, slots, patches = LIGHT[name]
    size, context = (4.0, 4 * slots) if model.kind == "token" else (slots / patches, slots)
    useful = flops.train_flops(model, flops.full_rows(model, rows, slots, patches))
    assert abs(program_flops(model, rows, slots, patches) / useful - 1) < 0.01
    per_byte = flops.count(model, size, context=context)["exact"]["total"]
    assert useful == pytest.approx(3 * rows * context * per_byte)


@pytest.mark.parametrize("queries,window", [(10, 0), (10, 3), (10, 10), (10, 50), (1, 4)])
def test_mean_keys(queries, window):
    pairs = sum(min(i + 1, window or queries) for i in range(queries))
    assert (
        flops.causal_pairs(queries, window) == pairs and flops.mean_keys(queries, window) == pairs / queries
    )


@pytest.mark.parametrize("queries,window", [(200, 0), (256, 30), (700, 0), (700, 100)])
def test_executed_keys_cover_the_useful_ones(queries, window):
    executed = attention.executed_pairs(queries, window) / queries
    assert flops.mean_keys(queries, window) <= executed <= queries + 64, "a block of padding at the most"


def seen(docs, window=0):
    """Pairs that the mask of attention leaves, counted one by one: docs int [B, T], 0 is padding."""
    return sum(
        1
        for row in docs.tolist()
        for i, own in enumerate(row)
        for j in range(max(0, i - (window or len(row)) + 1), i + 1)
        if own and row[j] == own
    )


@pytest.mark.parametrize("kind", ["blt", "token", "byte"])
@pytest.mark.parametrize("window", [0, 7, 64])
def test_exact_counts_the_pairs_of_filled_batches(kind, window):
    """Of every batch: slots, patches, and unmasked pairs times what each costs, where a full context would
    charge pairs across documents."""
    rng = np.random.default_rng(window)
    documents = [rng.integers(97, 123, n).astype(np.uint8).tobytes() for n in (3, 40, 17, 150, 5, 60, 33) * 3]
    model = {
        "blt": cfg.replace(small_blt(), **{"local.window": window}),
        "token": cfg.transformer("token", vocab=300, width=32, layers=2, heads=2, window=window),
        "byte": cfg.transformer("byte", vocab=260, width=32, layers=2, heads=2, window=window),
    }[kind]
    shape = dict(context=64, rows=3, buffer=4, window=flops.window(model))
    if kind == "blt":
        lengths = segmentation.document_lengths(cfg.patching("strided", 3), documents)
        rows = in_memory.byte_rows(documents, lengths, patches=24, **shape)
    else:
        rows = in_memory.byte_rows(documents, **shape)
    per = flops.per_unit(model)
    assert flops.window(model) == window and (per["patch_pairs"] > 0) == (kind == "blt")
    useful = flops.train_flops(model, rows.counts(6))
    for step in range(6):
        batch = rows.batch(step)
        forward = (batch["doc_ids"] > 0).sum() * per["slots"] + seen(batch["doc_ids"], window) * per["pairs"]
        if kind == "blt":
            docs = batch["patch_doc_ids"]
            forward += (docs > 0).sum() * per["patches"] + seen(docs) * per["patch_pairs"]
        assert useful[step] == pytest.approx(3 * forward, rel=1e-12)
    full = 3 * flops.mean_keys(64, window) * per["pairs"] * rows.counts(6)["slots"]
    assert (useful - 3 * per["slots"] * rows.counts(6)["slots"] < full).all() or kind == "blt"


def test_attention_averaged_over_documents_is_that_of_their_rows():
    """Within 1%, for bytes with a window and for tokens without: without lengths the same model is charged
    for a full context."""
    rng = np.random.default_rng(0)
    lengths = rng.lognormal(6.5, 1.0, 3000).astype(int) + 1
    packed = packing.of_lengths(lengths)
    for context, window in ((512, 128), (512, 0), (4096, 0)):
        counts = packing.counts(packed, packing.plan_rows(packed, context), window)
        realized = counts["pairs"].sum() / counts["slots"].sum()
        expected = flops.document_keys(lengths, context, window)
        histogram = dict(zip(*np.unique(lengths, return_counts=True)))
        assert flops.document_keys(histogram, context, window) == pytest.approx(expected)
        assert expected == pytest.approx(realized, rel=0.01) and expected < 0.95 * flops.mean_keys(
            context, window
        )
    assert flops.document_keys([10**9], 512, 0, 4.0) == pytest.approx(flops.mean_keys(128), rel=1e-3)
    model = small_blt()
    full, own = flops.count(model, 4.5, context=4096), flops.count(
        model, 4.5, context=4096, document_lengths=lengths
    )
    assert own["exact"]["latent"] < 0.9 * full["exact"]["latent"] and own["paper"] == full["paper"]
    assert (full["attention"], own["attention"]) == ("full contexts", "documents")
    with pytest.raises(UserError, match="no bytes"):
        flops.count(model, document_lengths=[0, 0])


def test_dots_in_loops_count_as_often_as_they_run():
    def f(w, x):
        return jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, None, length=5)[0].sum()

    square = jnp.ones((32, 32))
    text = jax.jit(f).lower(square, square).compile().as_text()
    assert hlo.dot_flops(text) == 5 * 2 * 32**3
    unknown = jax.jit(
        lambda w, x: jax.lax.while_loop(lambda x: x.sum() > 0, lambda x: jnp.tanh(x @ w), x)
    ).lower(square, square)
    with pytest.raises(ValueError, match="trip count"):
        hlo.dot_flops(unknown.compile().as_text())
