"""The KV cache: transformer stacks that read C new positions at a time and keep the keys and values of the
earlier ones.

A layer's cache is a ring buffer of R slots: position p lies in slot p mod R. A windowed layer keeps its
window and what one call may add, an unwindowed one has a slot for every position. Rows of a batch stand at
positions of their own. What was written and then not kept (drafts that were wrong) is simply written over: a
slot counts by the position that it should hold, and R leaves room for the difference."""

import functools
import math
import os
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bltjax.models.kernels.attention import HIDDEN
from bltjax.models.layers import gated, rms_norm, rope_table, rotate


class LayerCache(NamedTuple):
    """Keys and values of one layer in R slots; N is B·H. Keys lie with positions last: the product with a
    query is a sum of rows then.

    Of all shapes this is the one that products read as it is. In any other, XLA's CPU backend writes a cache
    twice, for the product and for the next step, each into a copy of it all: 3.3 ms instead of 0.6 a step of
    six layers with 2048 slots."""

    k_NxKxR: jax.Array
    v_NxRxK: jax.Array


class Positions(NamedTuple):
    """Where C new ids of each row stand; a row may have fewer than C, the others are padding."""

    positions_BxC: jax.Array  # int32
    valid_BxC: jax.Array  # bool: no padding
    end_B: jax.Array  # int32: positions that the row has with them


def positions(n_B, count_B, C: int) -> Positions:
    """Of up to C ids, `count` of which are no padding, in rows that have n positions."""
    steps = jnp.arange(C, dtype=jnp.int32)[None]
    return Positions(n_B[:, None] + steps, steps < count_B[:, None], n_B + count_B)


def begin(layers: int, B: int, heads: int, head_dim: int, slots: int, dtype) -> tuple[LayerCache, ...]:
    """Empty caches of so many layers."""
    return tuple(
        LayerCache(
            jnp.zeros((B * heads, head_dim, slots), dtype), jnp.zeros((B * heads, slots, head_dim), dtype)
        )
        for _ in range(layers)
    )


def slots(window: int, capacity: int, most: int) -> int:
    """Slots of a layer: `capacity` positions in all, of which `most` come at once."""
    return min(window + most, capacity) if window else capacity


def grown(caches: tuple[LayerCache, ...], slots: int) -> tuple[LayerCache, ...]:
    """Caches of unwindowed layers with more slots."""
    more = lambda x, axis: jnp.pad(x, [(0, slots - x.shape[axis] if i == axis else 0) for i in range(3)])
    return tuple(LayerCache(more(cache.k_NxKxR, 2), more(cache.v_NxRxK, 1)) for cache in caches)


def put(buffer_BxTx, values_BxCx, where: Positions):
    """values at their positions in a buffer [B,T,...]. One row and one position: written in place, no
    scatter."""
    values = values_BxCx.astype(buffer_BxTx.dtype)
    if values.shape[:2] == (1, 1):
        return jax.lax.dynamic_update_slice_in_dim(buffer_BxTx, values, where.positions_BxC[0, 0], axis=1)
    rows = jnp.arange(values.shape[0], dtype=jnp.int32)[:, None]
    return buffer_BxTx.at[rows, jnp.where(where.valid_BxC, where.positions_BxC, buffer_BxTx.shape[1])].set(
        values, mode="drop"
    )


def write(cache: LayerCache, k_BxCxHxK, v_BxCxHxK, where: Positions) -> LayerCache:
    """The cache with new keys and values in their positions' slots."""
    B, C, H, _ = k_BxCxHxK.shape
    R = cache.k_NxKxR.shape[2]
    slot_BxC = where.positions_BxC % R
    if (B, C) == (1, 1):
        slot = slot_BxC[0, 0]
        return LayerCache(
            jax.lax.dynamic_update_slice_in_dim(cache.k_NxKxR, k_BxCxHxK[0, 0][:, :, None], slot, axis=2),
            jax.lax.dynamic_update_slice_in_dim(cache.v_NxRxK, v_BxCxHxK[0, 0][:, None, :], slot, axis=1),
        )
    slot_BxCx1 = jnp.where(where.valid_BxC, slot_BxC, R)[:, :, None]
    N_BxCxH = (jnp.arange(B, dtype=jnp.int32)[:, None] * H + jnp.arange(H, dtype=jnp.int32)[None])[:, None]
    return LayerCache(
        cache.k_NxKxR.at[N_BxCxH, :, slot_BxCx1].set(k_BxCxHxK, mode="drop"),
        cache.v_NxRxK.at[N_BxCxH, slot_BxCx1].set(v_BxCxHxK, mode="drop"),
    )


def causal_mask(where: Positions, R: int, window: int, first_BxC=None):
    """What to add to scores, float32 [B,1,C,R]: 0 where a new position sees the slot's. first: positions
    before which nothing is seen."""
    last = where.end_B[:, None] - 1
    held_BxR = last - (last - jnp.arange(R, dtype=jnp.int32)[None]) % R
    distance = where.positions_BxC[:, :, None] - held_BxR[:, None]
    near = (distance >= 0) & (held_BxR >= 0)[:, None]
    if first_BxC is not None:
        near &= held_BxR[:, None] >= first_BxC[:, :, None]
    return jnp.where(near & (distance < window) if window else near, 0.0, HIDDEN)[:, None]


def attend(q_BxCxHxK, cache: LayerCache, mask):
    """[B,C,H·K]: softmax over a layer's slots, in float32. mask: of `causal_mask`."""
    B, C, H, K = q_BxCxHxK.shape
    q_NxCxK = (q_BxCxHxK * jnp.asarray(K**-0.5, q_BxCxHxK.dtype)).swapaxes(1, 2).reshape(B * H, C, K)
    scores = jnp.einsum("NCK,NKR->NCR", q_NxCxK, cache.k_NxKxR, preferred_element_type=jnp.float32)
    weights = (
        jax.nn.softmax(scores.reshape(B, H, C, -1) + mask, axis=-1)
        .reshape(scores.shape)
        .astype(cache.v_NxRxK.dtype)
    )
    return (
        jnp.einsum("NCR,NRK->NCK", weights, cache.v_NxRxK)
        .reshape(B, H, C, K)
        .swapaxes(1, 2)
        .reshape(B, C, H * K)
    )


def extend(
    layers,
    caches,
    x_BxCxD,
    where: Positions,
    heads: int,
    window: int,
    eps: float,
    rope,
    emit: str = "",
    first_BxC=None,
):
    """(x after the layers, caches, what each layer emits): C more positions of every row. layers: of
    `unstacked`. emit: "" | "input" | "output". first: as in `causal_mask`."""
    mask = causal_mask(where, caches[0].k_NxKxR.shape[2], window, first_BxC)
    rotation = tuple(
        jnp.asarray(table).at[where.positions_BxC].get(mode="clip")[:, :, None] for table in rope
    )
    emitted, written = [], []
    for layer, cache in zip(layers, caches, strict=True):
        x_in = x_BxCxD
        x_BxCxD, cache = _layer(layer, cache, x_in, where, mask, rotation, heads, eps)
        written.append(cache)
        emitted.append({"": None, "input": x_in, "output": x_BxCxD}[emit])
    return x_BxCxD, tuple(written), emitted


@functools.partial(jax.jit, static_argnames=("heads", "eps"))
def _layer(layer, cache: LayerCache, x_in, where: Positions, mask, rotation, heads: int, eps: float):
    """(x, cache) after one transformer layer. A jit of its own, so that layers of one shape are traced once:
    tracing is most of what a command waits for whose programs are compiled already."""
    B, C, _ = x_in.shape
    qkv = matmul(rms_norm(x_in, layer["attention_norm"], eps), layer["qkv"]).reshape(B, C, 3, heads, -1)
    q, k = (rotate(qkv[:, :, i], *rotation) for i in (0, 1))
    cache = write(cache, k, qkv[:, :, 2], where)
    x = x_in + matmul(attend(q, cache, mask), layer["out"])
    gate_up = matmul(rms_norm(x, layer["ffn_norm"], eps), layer["gate_up"]).reshape(B, C, 2, -1)
    return x + matmul(gated(gate_up), layer["down"]), cache


def rope(length: int, width: int, heads: int, theta: float, scaling=()):
    """Rotary tables of all positions that there may be."""
    return rope_table(length, width // heads, theta, scaling)


def unstacked(blocks: dict, dtype) -> list[dict]:
    """A stack's parameters as a list of layers: norms, and kernels as `matmul` wants them, in the compute
    dtype."""
    flat = {
        "qkv": blocks["attention"]["qkv"]["kernel"],
        "out": blocks["attention"]["out"]["kernel"],
        "gate_up": blocks["ffn"]["gate_up"]["kernel"],
        "down": blocks["ffn"]["down"]["kernel"],
    }
    norms = {name: blocks[name]["scale"].astype(jnp.float32) for name in ("attention_norm", "ffn_norm")}
    return [
        {
            **{name: x[i] for name, x in norms.items()},
            **{name: column_blocks(matrix(x[i], dtype)) for name, x in flat.items()},
        }
        for i in range(flat["qkv"].shape[0])
    ]


def matrix(kernel, dtype):
    """A kernel [D, *F] as [D, F] in the compute dtype."""
    return kernel.reshape(kernel.shape[0], -1).astype(dtype)


def column_blocks(kernel_DxF):
    """A kernel's columns in blocks, [n, D, F/n], as `matmul` wants them: one for each core of a CPU, up to
    four."""
    D, F = kernel_DxF.shape
    n = (
        math.gcd(F, 1 << min(os.cpu_count() or 1, 4).bit_length() - 1)
        if jax.default_backend() == "cpu"
        else 1
    )
    return kernel_DxF.reshape(D, n, F // n).swapaxes(0, 1)


def matmul(x_BxCxD, kernel_nxDxF):
    """x @ kernel. XLA's CPU backend multiplies a vector with one matrix on one core, with a batch of matrices
    on all of them: a step, which mostly reads weights, takes two thirds of the time."""
    n, D, F = kernel_nxDxF.shape
    if n == 1:
        return x_BxCxD @ kernel_nxDxF[0]
    x_nxNxD = jnp.broadcast_to(x_BxCxD.reshape(1, -1, D), (n, x_BxCxD.size // D, D))
    return jnp.einsum("nND,nDF->nNF", x_nxNxD, kernel_nxDxF).swapaxes(0, 1).reshape(*x_BxCxD.shape[:2], n * F)


def nbytes(params: dict, *names: str) -> int:
    """Bytes of the arrays below these names, as far as they are there."""
    return sum(leaf.nbytes for name in names for leaf in jax.tree.leaves(params.get(name, ())))
