"""The entropy model and where patches start from its entropies, on the device: equal to the rules on the
host, document by document."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import FrozenConfigDict

from bltjax import config as cfg
from bltjax import models, patching
from bltjax.entropy import annotate
from bltjax.errors import UserError
from bltjax.models import patcher
from bltjax.patching import segmentation, vocab


def packed(rng, lengths=((1, 2, 3, 40, 17), (30, 1, 1, 20, 11))):
    """Rows of 64 positions of documents one behind the other, the last one cut off by padding (0)."""
    docs = np.zeros((len(lengths), 64), np.int32)
    for row, sizes in zip(docs, lengths):
        row[: sum(sizes)] = np.repeat(np.arange(1, len(sizes) + 1), sizes)
    return docs, rng.exponential(2.0, docs.shape).astype(np.float32)


@pytest.mark.parametrize("scheme", patching.NEEDS_ENTROPIES)
@pytest.mark.parametrize("limit", [0, 4])
@pytest.mark.parametrize("resolution", [0.0, patching.RESOLUTION, 0.5])
def test_starts_are_those_of_each_document_alone(scheme, limit, resolution):
    rng = np.random.default_rng(1)
    docs, entropies = packed(rng)
    config = cfg.patching(scheme, 4.0, threshold=1.5, delta=0.5, max_length=limit, resolution=resolution)
    starts = np.asarray(jax.jit(functools.partial(patcher.starts, FrozenConfigDict(config)))(entropies, docs))
    assert starts.dtype == bool and starts.shape == docs.shape
    found = 0
    for row, of, values in zip(starts, docs, entropies):
        for number in range(1, of.max() + 1):
            mine = of == number
            ids = np.concatenate([[vocab.BOS], rng.integers(4, 260, mine.sum() - 1)]).astype(np.int32)
            wanted = patching.lengths(
                ids, scheme, entropies=values[mine], include_next=False, **segmentation.rule(config)
            )
            assert np.diff(np.append(np.flatnonzero(row[mine]), mine.sum())).tolist() == wanted
            found += len(wanted)
    assert found > 30


def test_no_document_sees_another():
    docs, entropies = packed(np.random.default_rng(2))
    config = cfg.patching("monotonic", 4.0, delta=0.5, max_length=5)
    other = np.where(docs == 4, entropies, entropies[:, ::-1])
    same = [
        np.asarray(patcher.starts(config, jnp.asarray(e), jnp.asarray(docs)))[docs == 4]
        for e in (entropies, other)
    ]
    np.testing.assert_array_equal(*same)


def test_schemes_without_entropies_are_refused():
    docs, entropies = packed(np.random.default_rng(0))
    with pytest.raises(
        UserError, match="'space' patches are not cut by entropies; entropy, monotonic, both are"
    ):
        patcher.starts(cfg.patching("space", 6.0), entropies, docs)


def test_the_model_cuts_as_its_annotation_is_cut():
    """In one traced call, rows of documents give the patches that entropies computed ahead give on the
    host."""
    config = cfg.transformer("byte", vocab=260, width=16, layers=1, heads=2, window=8, ffn_multiple=8)
    params = models.init(config, jax.random.key(0))
    params["head"]["kernel"] = 30 * params["head"]["kernel"]  # entropies that differ
    documents = [b"patches start where it is hard to say what comes next", b"", b"x = [1, 2]\n"]
    ahead = annotate.annotate(config, params, documents)
    rule = cfg.patching(
        "entropy", 3.0, threshold=float(np.median(np.concatenate(ahead))), resolution=patching.RESOLUTION
    )
    ids = np.concatenate([vocab.encode_document(d) for d in documents])[None]
    docs = np.repeat(np.arange(1, 4, dtype=np.int32), [len(d) + 2 for d in documents])[None]
    module = patcher.module(FrozenConfigDict(config))
    assert jax.tree.structure(module.init(jax.random.key(0), ids, docs)["params"]) == jax.tree.structure(
        params
    )
    entropies, starts = jax.jit(
        lambda params: module.apply({"params": params}, ids, docs, rule, method="patch_starts")
    )(params)
    np.testing.assert_allclose(entropies[0], np.concatenate(ahead), rtol=1e-5, atol=1e-5)
    wanted = segmentation.document_lengths(rule, documents, ahead)
    begins = np.cumsum(np.concatenate([[0], np.concatenate(wanted)[:-1]]))
    assert np.flatnonzero(starts[0]).tolist() == begins.tolist() and len(begins) > 10
