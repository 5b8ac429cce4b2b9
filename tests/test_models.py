"""What the models promise: causal, blind to other documents and to padding, finite on empty patches, the same
function however compiled."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bltjax import config as cfg
from bltjax import models
from bltjax.errors import UserError
from bltjax.models import layers, loss, patcher
from bltjax.patching import vocab

PRESETS = tuple(cfg.PRESETS)
# Tiny programs are compiled often and run once: unoptimised they are ready in half the time.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def blt(preset="paper", **changes):
    return cfg.replace(
        cfg.blt_model(
            preset,
            local_width=16,
            encoder_layers=2,
            decoder_layers=2,
            local_heads=2,
            global_width=40,
            global_layers=1,
            global_heads=2,
            k=2,
            window=6,
            ngram_rows=64,
            ngram_sizes=(2, 3),
            ffn_multiple=16,
        ),
        **changes,
    )


SHALLOW = {"local.encoder_layers": 1, "local.decoder_layers": 1}


def packed(segments, T, P, seed=0):
    """One row of segments, each given by its patch lengths (the first, BOS's, is 1), by the rules for rows;
    then padding."""
    rng = np.random.default_rng(seed)
    batch = {
        name: np.zeros((1, size), np.int32)
        for name, size in dict(
            bytes=T, patch_ids=T, latent_ids=T, doc_ids=T, patch_doc_ids=P, targets=T, loss_mask=T
        ).items()
    }
    batch["patch_ids"][:] = P
    at = patch = 0
    for document, lengths in enumerate(segments, 1):
        here = slice(at, at + sum(lengths))
        own = patch + np.repeat(np.arange(len(lengths)), lengths)
        batch["bytes"][0, here] = np.concatenate(
            [[vocab.BOS], rng.integers(vocab.OFFSET, vocab.SIZE, sum(lengths) - 1)]
        )
        batch["patch_ids"][0, here] = own
        batch["latent_ids"][0, here] = np.append(own[1:] - 1, own[-1])
        batch["doc_ids"][0, here] = document
        batch["patch_doc_ids"][0, patch : patch + len(lengths)] = document
        batch["targets"][0, here] = np.append(batch["bytes"][0, here][1:], vocab.EOS)
        batch["loss_mask"][0, here] = 1
        at, patch = here.stop, patch + len(lengths)
    return batch


SEGMENTS = ([1, 4, 2, 5], [1, 3, 1, 3])
REAL = sum(map(sum, SEGMENTS))
T, P = REAL + 4, 10


def once_per_config(f):
    """f(model config), computed once for equal configs."""
    known = {}

    def of(model):
        key = cfg.fingerprint(model)
        if key not in known:
            known[key] = f(model)
        return known[key]

    return of


@once_per_config
def program(model):
    return jit(functools.partial(models.logits, model))


@once_per_config
def gradients(model):
    return jit(jax.value_and_grad(lambda params, batch: loss.nats(model, params, batch)["loss"]))


def close(found, expected, tolerance=1e-5):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@once_per_config
def trained_apart(model):
    """Parameters far enough from zero that a missing connection shows."""
    return models.init(model, jax.random.key(1))


@pytest.mark.parametrize("preset", PRESETS)
def test_causal_by_perturbation(preset):
    """With boundaries held, another byte changes nothing before it, and does change its own prediction;
    padding changes nothing at all."""
    model, batch = blt(preset), packed(SEGMENTS, T, P)
    run, params = program(model), trained_apart(model)
    before = np.asarray(run(params, batch))
    for changed in range(T):
        other = {**batch, "bytes": batch["bytes"].copy()}
        other["bytes"][0, changed] = (batch["bytes"][0, changed] + 77) % vocab.SIZE
        moved = np.abs(np.asarray(run(params, other)) - before).max((0, 2)) > 0
        assert not moved[: min(changed, REAL)].any()
        assert moved[changed]
        if changed >= REAL:
            assert not moved[:REAL].any()


@pytest.mark.parametrize("preset", PRESETS)
def test_causal_by_gradient(preset):
    """Every byte has an id, and so an embedding row, of its own: which rows a prediction depends on is which
    bytes it sees."""
    model, batch = blt(preset), packed(SEGMENTS, T, P)
    batch["bytes"][0] = 4 + np.arange(T)
    params = trained_apart(model)

    def one_number_each(table):
        embed = {**params["encoder"]["embed"], "bytes": table}
        scores = models.logits(model, {**params, "encoder": {**params["encoder"], "embed": embed}}, batch)[0]
        return scores @ jnp.cos(jnp.arange(vocab.SIZE, dtype=jnp.float32) * 3)

    slopes = jit(jax.jacrev(one_number_each))(params["encoder"]["embed"]["bytes"])[:REAL, 4 : 4 + T]
    seen = np.abs(np.asarray(slopes)).max(-1) > 0
    assert not np.triu(seen, 1).any()
    assert np.diag(seen).all()
    first = sum(SEGMENTS[0])
    assert seen[:first, 0].all(), "the first byte reaches every prediction of its document"
    assert not seen[
        first:, :first
    ].any(), "rows that are packed by the rules mix no documents, in either preset"


def test_padding_is_nothing():
    """More padding, in bytes or in patches, leaves every real prediction as it was."""
    model = blt()
    params = trained_apart(model)
    short, long = packed(SEGMENTS, REAL, 8), packed(SEGMENTS, REAL + 9, 12)
    close(program(model)(params, long)[:, :REAL], program(model)(params, short))


@pytest.mark.parametrize("preset", PRESETS)
def test_empty_patches_are_harmless(preset):
    """Patch 2 has no byte and an unused latent: values and gradients stay finite."""
    model, batch = blt(preset), packed(SEGMENTS, T, P)
    shift = lambda ids: np.where((ids >= 2) & (ids < P - 1), ids + 1, ids)
    batch |= dict(
        patch_ids=shift(batch["patch_ids"]),
        latent_ids=shift(batch["latent_ids"]),
        patch_doc_ids=np.int32([[1, 1, 1, 1, 1, 2, 2, 2, 2, 0]]),
    )
    value, gradient = gradients(model)(trained_apart(model), batch)
    assert np.isfinite(value) and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize(
    "preset,encoder,decoder,sizes",
    [
        ("released", "none", "none", ()),
        ("paper", "none", "all", (3,)),
        ("paper", "all", "first", (3,)),
        ("released", "all", "none", (2,)),
    ],
)
def test_every_configuration_trains_every_parameter(preset, encoder, decoder, sizes):
    model = blt(preset, **{"cross.encoder": encoder, "cross.decoder": decoder, "ngrams.sizes": sizes})
    params = trained_apart(model)
    value, gradient = gradients(model)(params, packed(SEGMENTS, T, P))
    assert 4 < value / REAL < 8
    dead = [
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradient)
        if not np.abs(leaf).max() > 0
    ]
    assert not dead
    assert ("ngrams" in params["encoder"]["embed"]) == bool(sizes)


SWITCHES = {
    "cross.encoder_kv": "output",
    "cross.pool": "states",
    "cross.doubled_residual": True,
    "ngrams.digits": "released",
    "ngrams.raw_bytes": False,
    "ngrams.short": "pad",
    "ngrams.normalise": False,
    "ngrams.reset": False,
}


def test_every_switch_matters():
    """Each difference between the presets shows in the logits of a row of two documents."""
    params, batch = trained_apart(blt(**SHALLOW)), packed(SEGMENTS, T, P)
    paper = np.asarray(program(blt(**SHALLOW))(params, batch))[:, :REAL]
    for switch, value in SWITCHES.items():
        changed = np.asarray(program(blt(**SHALLOW, **{switch: value}))(params, batch))[:, :REAL]
        assert np.abs(changed - paper).max() > 1e-4, switch


def test_documents_in_one_patch_are_masked_where_the_preset_says_so():
    """A patch that holds the end of one document and the start of the next: `released` mixes them, `paper`
    does not."""
    batch = packed(SEGMENTS, T, P)
    batch["doc_ids"][0, 9:12] = 2  # the first document's last patch now ends with three bytes of the second
    for masked in (True, False):
        model = blt(**{"mask_encoder_documents": masked})
        other = {**batch, "bytes": batch["bytes"].copy()}
        other["bytes"][0, 8] = 200  # the first document's last byte, in the mixed patch
        run = functools.partial(program(model), trained_apart(model))
        moved = np.abs(np.asarray(run(other) - run(batch))).max((0, 2)) > 0
        assert moved[8]
        assert moved[9:REAL].any() != masked


def test_scan_equals_unrolled(monkeypatch):
    monkeypatch.setattr(layers, "UNROLLED", 0)
    small = blt(**{"latent.layers": 3})
    batch, params = packed(SEGMENTS, T, P), trained_apart(small)
    looped, unrolled = cfg.replace(small, scan=True), cfg.replace(small, scan=False)
    compiled = {model.scan: gradients(model).lower(params, batch).compile() for model in (looped, unrolled)}
    # of a scan: a scatter may be a loop too
    loops = {scan: re.findall(r'while\(.*op_name="[^"]*/while"', p.as_text()) for scan, p in compiled.items()}
    assert loops[True] and not loops[False]
    # Sums in another order: gradients of some units are of the size of 1, and are summed over a row.
    close(compiled[True](params, batch), compiled[False](params, batch), 1e-4)
    assert jax.tree.map(jnp.shape, models.init(looped, jax.random.key(0))) == jax.tree.map(jnp.shape, params)


@pytest.mark.parametrize("remat,unrolled", [("full", 9), ("dots", 0)])
def test_remat_changes_nothing(remat, unrolled, monkeypatch):
    batch, params = packed(SEGMENTS, T, P), trained_apart(blt())
    expected = gradients(blt())(params, batch)
    monkeypatch.setattr(layers, "UNROLLED", unrolled)
    close(gradients(blt(remat=remat))(params, batch), expected, 1e-4)  # what is fused differs


def test_bfloat16_stays_near_float32():
    model, batch = blt(**SHALLOW), packed(SEGMENTS, T, P)
    params = trained_apart(model)
    half = cfg.replace(model, dtype="bfloat16")
    assert jax.eval_shape(functools.partial(models.logits, half), params, batch).dtype == jnp.float32
    (value, gradient), (expected, slopes) = gradients(half)(params, batch), gradients(model)(params, batch)
    assert 0 < abs(value / expected - 1) < 0.02
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(gradient))
    norm = lambda tree: np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(tree)))
    assert norm(jax.tree.map(np.subtract, gradient, slopes)) < 0.05 * norm(slopes)


def test_parameters_are_plain_and_start_as_published():
    """Truncated normal at three sigmas; sigma is the input width ** -0.5, embeddings and tables width ** -0.5
    (truncation takes 1.3%)."""
    model = cfg.blt_model(
        "released",
        local_width=64,
        encoder_layers=1,
        decoder_layers=2,
        local_heads=2,
        global_width=96,
        global_layers=2,
        global_heads=2,
        k=2,
        ngram_rows=500,
    )
    params = models.init(model, jax.random.key(0))
    leaves = jax.tree.leaves(params)
    assert all(type(leaf).__name__ == "ArrayImpl" and leaf.dtype == jnp.float32 for leaf in leaves)
    close(leaves, jax.tree.leaves(models.init(model, jax.random.key(0))), 0)
    D, F, G = 64, model.local.ffn, 96
    layer = params["decoder"]["layers"]
    for leaf, width in (
        (params["encoder"]["embed"]["bytes"], D),
        (params["encoder"]["embed"]["ngrams"], D),
        (params["encoder"]["pool"]["kernel"], D),
        (params["latent"]["project"]["kernel"], 2 * D),
        (params["latent"]["blocks"]["attention"]["qkv"]["kernel"], G),
        (params["latent"]["blocks"]["attention"]["out"]["kernel"], G),
        (params["decoder"]["latents"]["kernel"], G),
        (params["decoder"]["head"]["kernel"], D),
        (layer["block"]["ffn"]["gate_up"]["kernel"], D),
        (layer["block"]["ffn"]["down"]["kernel"], F),
        (layer["cross"]["kv"]["kernel"], D),
        (layer["cross"]["out"]["kernel"], D),
    ):
        assert abs(np.std(leaf) * width**0.5 / 0.987 - 1) < 0.05
        assert np.abs(leaf).max() <= 3.001 * width**-0.5
    assert (layer["block"]["ffn_norm"]["scale"] == 1).all()


def test_projection_only_where_widths_differ():
    names = lambda model: set(
        jax.eval_shape(lambda key: models.init(model, key), jax.random.key(0))["latent"]
    )
    assert names(blt()) == {"blocks", "project"}  # 2 · 16 into 40
    fits = cfg.blt_model(
        local_width=16,
        encoder_layers=1,
        decoder_layers=1,
        local_heads=2,
        global_width=48,
        global_layers=1,
        global_heads=2,
        k=3,
    )
    assert names(fits) == {"blocks"}


def log_softmax(scores):
    scores = np.asarray(scores, np.float64)
    return (
        scores
        - np.log(np.exp(scores - scores.max(-1, keepdims=True)).sum(-1, keepdims=True))
        - scores.max(-1, keepdims=True)
    )


def test_loss_sums():
    model, batch = (
        cfg.transformer("byte", vocab=260, width=16, layers=1, heads=2, window=5, ffn_multiple=16),
        packed(SEGMENTS, T, P),
    )
    params = trained_apart(model)
    log_p = log_softmax(program(model)(params, batch))
    value, sums = jit(
        lambda params, batch: (loss.nats_per_position(model, params, batch), loss.nats(model, params, batch))
    )(params, batch)
    each = -np.take_along_axis(log_p, batch["targets"][..., None], -1)[..., 0] * batch["loss_mask"]
    close(value, each)
    eos = each[batch["targets"] == vocab.EOS].sum()  # one per document, and padding's is masked
    close(
        sums,
        dict(loss=each.sum(), targets=REAL, byte_nats=each.sum() - eos, bytes=REAL - 2, eos_nats=eos, eos=2),
    )
    close(jit(functools.partial(patcher.entropies, model))(params, batch), -(np.exp(log_p) * log_p).sum(-1))


def test_token_loss_counts_the_bytes_that_targets_stand_for():
    model = cfg.transformer("token", vocab=50, width=16, layers=1, heads=2, ffn_multiple=16)
    batch = dict(
        tokens=np.int32([[48, 3, 7, 9, 0]]),
        doc_ids=np.int32([[1, 1, 1, 1, 0]]),
        targets=np.int32([[3, 7, 9, 49, 0]]),
        loss_mask=np.int32([[1, 1, 1, 1, 0]]),
        target_bytes=np.int32([[2, 5, 1, 0, 9]]),
    )
    sums = jit(functools.partial(loss.nats, model))(trained_apart(model), batch)
    assert (sums["targets"], sums["bytes"], sums["eos"]) == (4, 8, 1)
    assert sums["eos_nats"] > 0
    close(sums["loss"], sums["byte_nats"] + sums["eos_nats"])


def test_unknown_kind():
    with pytest.raises(UserError, match="model.kind is 'rnn'; allowed: blt, token, byte"):
        models.init(cfg.replace(blt(), kind="rnn"), jax.random.key(0))
