"""The paper's division of a byte's embeddings by their number: with initial scale and step compensated, the
released sum, trained alike."""

import functools

import jax
import numpy as np
import pytest
from in_memory import byte_rows

from bltjax import config as cfg
from bltjax import models, patching
from bltjax.training.step import init_state, make_step

STEPS, PARTS = 20, 3  # two sizes of n-grams, and the byte; not a power of 2, by which division is exact
SMALLEST = dict.fromkeys(
    ("encoder_layers", "decoder_layers", "local_heads", "global_layers", "global_heads"), 1
)
TEXT = [f"the {word} sat on the {word}, and {word} sat on it.\n".encode() for word in ("cat", "dog", "mat")]


@functools.cache
def rows():
    lengths = [patching.lengths([1, *(b + 4 for b in text)], "space") for text in TEXT]
    return byte_rows(TEXT, lengths, context=32, rows=2, patches=16)


@functools.cache
def trained(preset="paper", **ngrams):
    """(losses of STEPS steps, float64; the embeddings then), weight decay included. clip 0: the norm that is
    clipped counts the smaller gradients of divided embeddings."""
    model = cfg.blt_model(
        preset,
        **SMALLEST,
        local_width=16,
        global_width=32,
        k=2,
        window=8,
        ngram_rows=64,
        ngram_sizes=(2, 3),
        ffn_multiple=16,
    )
    model = cfg.replace(model, **{f"ngrams.{key}": value for key, value in ngrams.items()})
    train = cfg.replace(cfg.training(), lr=1e-2, clip=0.0)
    state = init_state(train, STEPS, models.init(model, jax.random.key(0)))
    step, losses = make_step(model, train, STEPS), []
    for i in range(STEPS):
        state, metrics = step(state, rows().batch(i))
        losses.append(float(metrics["loss"]))
    return np.array(losses), jax.tree.map(np.asarray, state.params["encoder"]["embed"])


def test_compensated_is_the_sum_step_by_step():
    """AdamW does not see the gradient's scale, and decays a share: losses agree to rounding, and parameters
    are PARTS times those of the sum."""
    losses, embed = trained()
    expected, summed = trained(normalise=False)
    assert expected[-1] < 0.8 * expected[0]
    np.testing.assert_allclose(losses, expected, rtol=2e-5)
    for name in ("bytes", "ngrams"):
        np.testing.assert_allclose(embed[name], PARTS * summed[name], rtol=1e-2, atol=2e-3)


def test_divided_as_it_is_trains_another_way():
    losses, _ = trained(compensate=False)
    expected, _ = trained(normalise=False)
    assert np.abs(losses - expected).max() > 0.05


def test_what_is_not_divided_is_not_compensated():
    np.testing.assert_array_equal(trained(normalise=False)[0], trained(normalise=False, compensate=False)[0])


def test_tables_start_where_their_scale_says():
    model = cfg.blt_model(**SMALLEST, local_width=8, global_width=8, k=1, ngram_rows=4096)
    wide = cfg.replace(model, **{"ngrams.compensate": False, "ngrams.init_scale": 7.0})
    both, tables = (models.init(m, jax.random.key(0))["encoder"]["embed"] for m in (model, wide))
    np.testing.assert_allclose(both["ngrams"], tables["ngrams"], rtol=1e-6)
    np.testing.assert_allclose(both["bytes"], 7 * tables["bytes"], rtol=1e-6)
    assert both["ngrams"].std() == pytest.approx(7 * 8**-0.5, rel=0.05)


def test_a_run_from_before_compensated_nothing():
    model = cfg.blt_model(**SMALLEST, local_width=8, global_width=8, k=1)
    run = cfg.run("x", "blt-space", model, patching_=cfg.patching("space", 6))
    old = cfg.to_dict(run)
    del old["model"]["ngrams"]["compensate"], old["model"]["ngrams"]["init_scale"]
    read = cfg.completed(cfg.from_dict(old)).model.ngrams
    assert (read.compensate, read.init_scale) == (False, 1.0) and model.ngrams.compensate
