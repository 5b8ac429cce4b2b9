"""Every implementation of attention equals its plain dense reference, forward and gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bltjax.models import cross_attention
from bltjax.models.kernels import attention
from bltjax.models.kernels.segments import segment_broadcast, segment_max, segment_sum

B, H, K = 2, 2, 4


def close(found, expected, tolerance=2e-5):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def normals(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes]


def with_gradient(f, *args):
    """f's value and the gradients of a weighted sum of it."""

    def both(*args):
        value, pull = jax.vjp(f, *args)
        return value, pull(jnp.sin(jnp.arange(value.size, dtype=jnp.float32) * 7).reshape(value.shape))

    return jax.jit(both)(*args)


def documents(T, starts):
    """Document ids of one row: a new one at each start; the last is padding (0)."""
    ids = 1 + np.searchsorted(starts, np.arange(T), side="right")
    return np.where(np.arange(T) >= T - 3, 0, ids).astype(np.int32)


@pytest.mark.parametrize(
    "T,window", [(1, 0), (65, 64), (64, 1), (201, 65), (130, 129), (130, 130), (200, 0), (333, 0), (1100, 0)]
)
def test_self_attention_blocks_equal_reference(T, window):
    q, k, v = normals(T, *[(B, H, T, K)] * 3)
    docs = jnp.asarray(np.stack([documents(T, [T // 3, T // 2, T // 2 + 1]), np.ones(T, np.int32)]))
    attend = lambda implementation: with_gradient(
        lambda q, k, v: attention.self_attention(q, k, v, docs, window, implementation), q, k, v
    )
    close(attend("blocks"), attend("reference"))


def test_self_attention_sees_window_and_document_only():
    """The mask itself, by hand: which positions change an output."""
    T, window = 9, 3
    docs = jnp.asarray([[1, 1, 1, 1, 1, 2, 2, 2, 2]])
    q, k, v = normals(0, *[(1, 1, T, K)] * 3)
    jacobian = jax.jit(jax.jacobian(lambda v: attention.self_attention(q, k, v, docs, window)))(v)
    seen = np.abs(jacobian).sum((0, 1, 3, 4, 5, 7)) > 0
    expected = [[max(0, i - 2) <= j <= i and (i < 5) == (j < 5) for j in range(T)] for i in range(T)]
    np.testing.assert_array_equal(seen, expected)


def test_self_attention_cost_is_linear_in_length():
    """Memory of the compiled gradient at four times the length: about four times, nowhere near sixteen."""

    def temporaries(T):
        shape = jax.ShapeDtypeStruct((1, 2, T, 8), jnp.float32)
        docs = jax.ShapeDtypeStruct((1, T), jnp.int32)
        loss = lambda q, k, v, docs: attention.self_attention(q, k, v, docs, 128).sum()
        return (
            jax.jit(jax.grad(loss, (0, 1, 2)))
            .lower(shape, shape, shape, docs)
            .compile()
            .memory_analysis()
            .temp_size_in_bytes
        )

    assert temporaries(8192) < 5 * temporaries(2048)


# Rows of patches: one with an empty patch in the middle (index 2) and padding at the end, one of single bytes
# and one long patch.
P = 6
PATCHES = np.array([[0, 1, 1, 1, 3, 3, 4, 5, 5, P, P], [0, 1, 2, 3, 4, 4, 4, 4, 4, 4, 4]], np.int32)
LATENTS = np.array([[0, 0, 0, 1, 1, 3, 4, 4, 5, P, P], [0, 1, 2, 3, 3, 3, 3, 3, 3, 3, 4]], np.int32)


@pytest.mark.parametrize("k", [1, 3])
def test_encoder_cross_attention_equals_dense(k):
    T, C = PATCHES.shape[1], H * K
    args = normals(k, (B, P, k, C), (B, T, C), (B, T, C))
    attend = lambda implementation: with_gradient(
        lambda *args: cross_attention.patches_from_bytes(*args, jnp.asarray(PATCHES), H, implementation),
        *args,
    )
    close(attend("auto"), attend("reference"))
    value, _ = attend("auto")
    assert not np.asarray(value[0, 2]).any(), "a patch without bytes gets nothing"


@pytest.mark.parametrize("k", [1, 3])
def test_decoder_cross_attention_equals_dense(k):
    T, C = LATENTS.shape[1], H * K
    args = normals(k, (B, T, C), (B, P, k, C), (B, P, k, C))
    attend = lambda implementation: with_gradient(
        lambda *args: cross_attention.bytes_from_patches(*args, jnp.asarray(LATENTS), H, implementation),
        *args,
    )
    close(attend("auto"), attend("reference"))


def test_segments_against_loops():
    x, p = normals(0, (B, PATCHES.shape[1], 3), (B, P, 3))
    ids = jnp.asarray(PATCHES)
    members = [
        [[t for t in range(PATCHES.shape[1]) if row[t] == patch] for patch in range(P)] for row in PATCHES
    ]
    rows = np.asarray(x)
    close(
        segment_sum(x, ids, P),
        np.array([[rows[b, m].sum(0) if m else np.zeros(3) for m in members[b]] for b in range(B)]),
    )
    close(
        segment_max(x, ids, P),
        np.array([[rows[b, m].max(0) if m else np.zeros(3) for m in members[b]] for b in range(B)]),
    )
    close(
        segment_broadcast(p, ids),
        np.array(
            [[np.asarray(p)[b, i] if i < P else np.zeros(3) for i in row] for b, row in enumerate(PATCHES)]
        ),
    )


def test_gradient_of_maximum_goes_to_the_largest_and_is_shared_by_ties():
    x = jnp.asarray([[[1.0], [3.0], [2.0], [5.0], [5.0], [9.0]]])
    ids = jnp.asarray([[0, 0, 0, 1, 1, 3]])  # patch 2 is empty, 3 is "no patch"
    gradient = jax.grad(lambda x: (segment_max(x, ids, 3) * jnp.asarray([[[2.0], [4.0], [8.0]]])).sum())(x)
    np.testing.assert_array_equal(gradient[0, :, 0], [0, 2, 0, 2, 2, 0])


def test_gradient_of_broadcast_is_summed_in_float32():
    """300 ones add up: in bfloat16 they stay at 256."""
    ids = jnp.asarray(np.repeat([0, 2, 3], [300, 200, 12])[None], jnp.int32)  # patch 1 is empty, 3: none
    x = jnp.ones((1, 3, 2), jnp.bfloat16)
    gradient = jax.grad(lambda x: segment_broadcast(x, ids).astype(jnp.float32).sum())(x)
    assert gradient.dtype == jnp.bfloat16
    np.testing.assert_array_equal(gradient[0, :, 0].astype(np.float32), [300, 0, 200])
