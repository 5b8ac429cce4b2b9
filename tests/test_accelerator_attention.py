"""What runs on TPU and GPU equals the plain dense reference, as far as a machine without either can tell: TPU
kernels in interpret mode, cuDNN by its arguments."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies
from test_attention import close, documents, normals, with_gradient

from bltjax.models import cross_attention
from bltjax.models.kernels import (
    attention,
    attention_gpu,
    attention_tpu,
    patch_attention_tpu,
    patch_attention_tpu_decoder,
    patch_attention_tpu_encoder,
)
from bltjax.parallel import sharding

B, H, K = 2, 2, 12


def rows(T):
    """Two rows: four documents and padding; one document."""
    return jnp.asarray(np.stack([documents(T, [T // 3, T // 2, T // 2 + 1]), np.ones(T, np.int32)]))


def both_ways(attend, T, window, tolerance):
    """Asserts that an implementation equals the reference, values and gradients, at every position."""
    q, k, v = normals(T, *[(B, H, T, K)] * 3)
    docs = rows(T)
    found = with_gradient(lambda q, k, v: attend(q, k, v, docs, window), q, k, v)
    close(
        found, with_gradient(lambda q, k, v: attention.reference(q, k, v, docs, window), q, k, v), tolerance
    )


@pytest.mark.parametrize("T,window", [(130, 900), (256, 129)])
def test_splash_equals_reference(T, window, monkeypatch):
    monkeypatch.setattr(attention_tpu, "BLOCKS", (128,))  # several blocks, and none but the last filled up
    both_ways(lambda *args: attention_tpu.attend(*args, interpret=True), T, window, 1e-5)


def test_splash_blocks():
    assert [attention_tpu.block_size(T) for T in (1, 128, 300, 512, 1820, 2096, 8192)] == [
        128,
        128,
        384,
        512,
        384,
        384,
        512,
    ]


@pytest.mark.parametrize(
    "T,window,tolerance",
    [(150, 0, 1e-5), (131, 0, 1e-5), (150, 20, 1e-3), (131, 64, 1e-3), (9, 1, 1e-3), (90, 500, 1e-5)],
)
def test_cudnn_arguments_mean_the_reference(T, window, tolerance):
    """JAX's plain attention with what cuDNN would get. With a window, codes of documents cost digits that
    bfloat16 has not."""
    both_ways(lambda *args: attention_gpu.attend(*args, implementation="xla"), T, window, tolerance)


def test_cudnn_codes_part_documents_within_a_window():
    """Every byte a document of its own: all that a window reaches are apart by a GAP at least, and equal ones
    by nothing, in bfloat16."""
    window, T = 100, 300
    q, k = attention_gpu.codes(jnp.arange(T, dtype=jnp.int32)[None], window, jnp.bfloat16)
    products = np.asarray(q[0], np.float32) @ np.asarray(k[0], np.float32).T
    distance = np.subtract.outer(np.arange(T), np.arange(T))
    assert not products[distance == 0].any()
    assert (products[(distance > 0) & (distance < window)] <= -attention_gpu.GAP).all()


@pytest.mark.parametrize("window,call", [(0, "fmhaScaleBiasSoftmax"), (64, "fmhaSoftmax")])
def test_cudnn_lowers_to_its_kernel(window, call, monkeypatch):
    """Lowering only: compiling a cuDNN call needs a GPU. JAX asks for cuDNN's version first, which a jaxlib
    for CPU does not have."""
    from jax._src.cudnn import fused_attention_stablehlo

    monkeypatch.setattr(
        fused_attention_stablehlo, "cuda_versions", types.SimpleNamespace(cudnn_get_version=lambda: 91000)
    )
    monkeypatch.setattr(sharding, "platform", lambda: "gpu")
    shape, docs = (
        jax.ShapeDtypeStruct((B, H, 256, 64), jnp.bfloat16),
        jax.ShapeDtypeStruct((B, 256), jnp.int32),
    )
    loss = lambda q, k, v, docs: attention.self_attention(q, k, v, docs, window).astype(jnp.float32).sum()
    text = (
        jax.jit(jax.grad(loss, (0, 1, 2)))
        .trace(shape, shape, shape, docs)
        .lower(lowering_platforms=("cuda",))
        .as_text()
    )
    assert f"@__cudnn${call}(" in text and f"@__cudnn${call}Backward(" in text
    assert f"sliding_window_length\\22: {window}," in text


@pytest.mark.parametrize(
    "platform,dtype,expected",
    [
        ("cpu", "float32", "blocks"),
        ("cpu", "bfloat16", "blocks"),
        ("tpu", "float32", "splash"),
        ("tpu", "bfloat16", "splash"),
        ("gpu", "bfloat16", "cudnn"),
        ("gpu", "float16", "cudnn"),
        ("gpu", "float32", "blocks"),
    ],
)
def test_self_attention_follows_the_platform(platform, dtype, expected, monkeypatch):
    called = []
    monkeypatch.setattr(sharding, "platform", lambda: platform)
    for name, (owner, attribute) in {
        "blocks": (attention, "blocks"),
        "splash": (attention_tpu, "attend"),
        "cudnn": (attention_gpu, "attend"),
    }.items():
        monkeypatch.setattr(owner, attribute, lambda *args, name=name: called.append(name))
    x = jnp.zeros((1, 1, 4, 8), dtype)
    attention.self_attention(x, x, x, jnp.ones((1, 4), jnp.int32), 2)
    assert called == [expected]


P, T_PATCHES = 40, 150
TILE = 16


def patch_rows():
    """Nondecreasing ids [4,T]: random, some patches empty; single bytes, a patch over several blocks,
    padding; two long patches and many empty ones between; nothing but padding."""
    rng = np.random.default_rng(0)
    mixed = np.concatenate([np.arange(30), np.full(70, 30), np.repeat(np.arange(31, 38), 3), np.full(29, P)])
    long = np.concatenate([np.zeros(70), np.full(79, 35), [36]])
    return jnp.asarray(
        np.stack([np.sort(rng.integers(0, P, T_PATCHES)), mixed, long, np.full(T_PATCHES, P)]).astype(
            np.int32
        )
    )


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(patch_attention_tpu, "BYTES", TILE)
    monkeypatch.setattr(patch_attention_tpu, "PATCHES", TILE)


@pytest.mark.parametrize("k,heads,head_dim", [(3, 2, K), (2, 4, 64)])  # one group of heads; two
def test_encoder_blocks_equal_dense(k, heads, head_dim, small_tiles):
    ids, C = patch_rows(), heads * head_dim
    q, keys, values = normals(k, (4, P, k, C), (4, T_PATCHES, C), (4, T_PATCHES, C))
    # Scores up to a few hundred: a largest score that is another patch's would overflow or leave nothing.
    args = (
        q,
        100 * head_dim**-0.5 * keys * jnp.sin(jnp.arange(T_PATCHES, dtype=jnp.float32))[None, :, None],
        values,
    )
    found = with_gradient(
        lambda *args: patch_attention_tpu_encoder.patches_from_bytes(*args, ids, heads, interpret=True), *args
    )
    expected = with_gradient(
        lambda *args: cross_attention.patches_from_bytes(*args, ids, heads, "reference"), *args
    )
    # Gradients are then up to hundreds themselves: 1e-5 of the largest.
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * max(1, float(jnp.abs(b).max())))


@pytest.mark.parametrize("k,heads,head_dim", [(3, 2, K), (2, 4, 64)])
def test_decoder_blocks_equal_dense(k, heads, head_dim, small_tiles):
    ids, C = patch_rows(), heads * head_dim
    args = normals(k, (4, T_PATCHES, C), (4, P, k, C), (4, P, k, C))
    found = with_gradient(
        lambda *args: patch_attention_tpu_decoder.bytes_from_patches(*args, ids, heads, interpret=True), *args
    )
    close(
        found,
        with_gradient(
            lambda *args: cross_attention.bytes_from_patches(*args, ids, heads, "reference"), *args
        ),
        1e-5,
    )


@pytest.mark.parametrize("way", ["blocks", "segments"])
def test_encoder_in_bfloat16_rounds_operands_only(way, small_tiles):
    """bfloat16 operands, float32 sums: off from the float32 reference by two roundings of its largest value
    at most."""
    ids, k, heads = patch_rows()[:2], 2, 2
    args = [
        x.astype(jnp.bfloat16)
        for x in normals(0, (2, P, k, heads * K), (2, T_PATCHES, heads * K), (2, T_PATCHES, heads * K))
    ]
    plain = lambda *args, implementation: cross_attention.patches_from_bytes(
        *args, ids, heads, implementation
    )
    attend = {
        "segments": functools.partial(plain, implementation="segments"),
        "blocks": lambda *args: patch_attention_tpu_encoder.patches_from_bytes(
            *args, ids, heads, interpret=True
        ),
    }[way]
    dense = with_gradient(
        functools.partial(plain, implementation="reference"), *(x.astype(jnp.float32) for x in args)
    )
    found = with_gradient(lambda *args: attend(*args).astype(jnp.float32), *args)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(dense), strict=True):
        assert jnp.max(jnp.abs(a - b)) <= 2**-7 * jnp.max(jnp.abs(b))


def test_the_path_of_tiles_meets_every_pair_once():
    """Each byte's tile with its patch lies on the walk, which moves one block at a time from the first corner
    to the last."""
    size, ids = (
        patch_attention_tpu.BYTES,
        np.sort(np.random.default_rng(1).integers(0, 700, (3, 900)), axis=1).astype(np.int32),
    )
    rows = np.asarray(patch_attention_tpu.Plan(jnp.asarray(ids), 700, 1, 8, 1, True).rows)
    steps = np.arange(rows.shape[1])
    for row, own in zip(rows, ids):
        walk = list(zip(row.tolist(), (steps - row).tolist()))
        assert walk[0] == (0, 0) and walk[-1] == (7, 5) and len(set(walk)) == 8 + 6 - 1
        assert {(t // size, p // patch_attention_tpu.PATCHES) for t, p in enumerate(own.tolist())} <= set(
            walk
        )


@pytest.mark.parametrize("platform,expected", [("cpu", []), ("gpu", []), ("tpu", ["patches", "bytes"])])
def test_cross_attention_follows_the_platform(platform, expected, monkeypatch):
    called = []
    monkeypatch.setattr(sharding, "platform", lambda: platform)
    monkeypatch.setattr(
        patch_attention_tpu_encoder, "patches_from_bytes", lambda *args: called.append("patches")
    )
    monkeypatch.setattr(
        patch_attention_tpu_decoder, "bytes_from_patches", lambda *args: called.append("bytes")
    )
    of_bytes, of_patches, ids = jnp.zeros((1, 4, 8)), jnp.zeros((1, 2, 1, 8)), jnp.zeros((1, 4), jnp.int32)
    both = lambda of_bytes, of_patches, ids: (
        cross_attention.patches_from_bytes(of_patches, of_bytes, of_bytes, ids, 2),
        cross_attention.bytes_from_patches(of_bytes, of_patches, of_patches, ids, 2),
    )
    jax.eval_shape(both, of_bytes, of_patches, ids)  # which is called is known from tracing alone
    assert called == expected


def test_kernels_compile_for_a_tpu(monkeypatch):
    """What interpret mode cannot tell: that the chip's compiler takes the kernels, forward and backward."""
    pytest.importorskip("libtpu")
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    monkeypatch.setattr(sharding, "platform", lambda: "tpu")
    device = jax.sharding.SingleDeviceSharding(topologies.get_topology_desc("v5p:2x2x1", "tpu").devices[0])
    shape = lambda *sizes, dtype=jnp.bfloat16: jax.ShapeDtypeStruct(sizes, dtype, sharding=device)

    def loss(x_BxTxC, x_BxPxkxC, ids_BxT):
        x_BxHxTxK = x_BxTxC.reshape(1, -1, 4, 64).swapaxes(1, 2)
        outs = (
            attention.self_attention(x_BxHxTxK, x_BxHxTxK, x_BxHxTxK, ids_BxT, 128),
            cross_attention.patches_from_bytes(x_BxPxkxC, x_BxTxC, x_BxTxC, ids_BxT, 4),
            cross_attention.bytes_from_patches(x_BxTxC, x_BxPxkxC, x_BxPxkxC, ids_BxT, 4),
        )
        return sum(out.astype(jnp.float32).sum() for out in outs)

    traced = jax.jit(jax.value_and_grad(loss, (0, 1))).trace(
        shape(1, 600, 256), shape(1, 150, 2, 256), shape(1, 600, dtype=jnp.int32)
    )
    text = traced.lower(lowering_platforms=("tpu",)).compile().as_text()
    assert text.count('custom_call_target="tpu_custom_call"') == 3 + 2 + 2
