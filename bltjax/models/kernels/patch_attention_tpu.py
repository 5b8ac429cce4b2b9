"""Patch cross-attention on TPU: what the kernels of staircase_encoder.py and staircase_decoder.py share. All
products are matrix products; no scatter, no gather.

Bytes and patches are both in order, so that in a grid of blocks of bytes by blocks of patches only those
along one staircase from the first corner to the last can meet. It has exactly (blocks of bytes) + (blocks of
patches) - 1 tiles, each one step right or down from the one before, whatever the lengths of the patches, with
none, one or many bytes. A kernel walks it: what belongs to a block stays in fast memory while the walk stays
in its row or column, so that every array is read and written once.

In a tile, bytes and patches meet by a product with the matrix of which byte is whose [bytes, patches]
("whose"): spread gives each byte its patch's row, collect sums each patch's bytes. Heads stay side by side in
the last axis, and a product with the matrix of which feature is whose head's ("member") [C, lanes] sums over
a head's features, or gives each feature its head's value.

Arrays are float32, or bfloat16 with float32 sums. Local arrays only: over several devices the caller wraps it
in shard_map, with check_vma=False (the kernel declares none). """

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

# A tile, bytes by patches: the matrix units are 128 or 256 wide, and k latents of 128 patches at width 1,280
# are 1.3 MB.
BYTES, PATCHES = 128, 128
LANES = 128
# of a chip's fast memory: the backward kernels of the 8B need more than the default of 16 MiB
MEMORY = 48 * 2**20


class Static(NamedTuple):
    """What a kernel is compiled for: groups of heads apart, each with k latents of `width` features, a
    multiple of LANES, of which the first heads · head_dim count."""

    groups: int
    k: int
    width: int
    heads: int
    head_dim: int
    interpret: bool

    @property
    def lanes(self) -> int:
        """Width of a value per head."""
        return -(-self.heads // LANES) * LANES

    @property
    def scale(self) -> float:
        return self.head_dim**-0.5

    def features(self, l: int):
        """Where latent l lies in a group's features of a patch, [:, k·width]."""
        return slice(l * self.width, (l + 1) * self.width)

    def per_head(self, l: int):
        """Where latent l lies in a group's values per head of a patch, [:, k·lanes]."""
        return slice(l * self.lanes, (l + 1) * self.lanes)


def groups_of(heads: int, head_dim: int) -> int:
    """Groups of heads that walk apart: two where each fills whole lanes, since a chip of two cores (v5p) has
    work for both then."""
    return 2 if heads % 2 == 0 and heads // 2 * head_dim % LANES == 0 else 1


class Plan:
    """The staircase of a batch, and arrays filled up to whole blocks."""

    def __init__(self, ids_BxT, P: int, k: int, C: int, heads: int, interpret: bool):
        groups = groups_of(heads, C // heads)
        width = -(-C // groups // LANES) * LANES
        self.static = Static(groups, k, width, heads // groups, C // heads, interpret)
        T = ids_BxT.shape[1]
        down, across = -(-T // BYTES), -(-P // PATCHES)
        self.fill_T, self.fill_P, self.fill_C = down * BYTES - T, across * PATCHES - P, groups * width - C
        ids = jnp.pad(ids_BxT, ((0, 0), (0, self.fill_T)), constant_values=P)
        # The last block of patches that a block of bytes meets; the walk goes down from there, and ends in
        # the last of all.
        ends = jnp.minimum(ids[:, BYTES - 1 :: BYTES], P - 1) // PATCHES
        ends = ends.at[:, -1].set(across - 1) + jnp.arange(down, dtype=jnp.int32)[None]
        steps = jnp.arange(down + across - 1, dtype=jnp.int32)
        # The block of bytes at each step; that of patches is the rest of the step's number.
        self.rows = jnp.sum(ends[:, None, :] < steps[None, :, None], axis=-1, dtype=jnp.int32)
        self.ids = jnp.where(ids < P, ids, -1)[
            ..., None
        ]  # P may be a place that only fills up the last block

    def of_bytes(self, x_BxTxC):
        return jnp.pad(x_BxTxC, ((0, 0), (0, self.fill_T), (0, self.fill_C)))

    def of_patches(self, x_BxPxkxC):
        """[B,P,groups·k·width]"""
        x = jnp.pad(x_BxPxkxC, ((0, 0), (0, self.fill_P), (0, 0), (0, self.fill_C)))
        x = x.reshape(*x.shape[:3], self.static.groups, self.static.width).swapaxes(2, 3)
        return x.reshape(*x.shape[:2], -1)


# What the steps of a walk share.


def walk(body, name: str, rows, inputs, outputs, scratch, static: Static):
    """Runs `body` on every tile, rows of the batch and groups of heads each apart. inputs, outputs: arrays or
    shapes, "t" [B,bytes,...] or "p" [B,patches,...], groups side by side in the last axis (ids: one for all);
    the last input has the dtype of products. scratch: widths of float32 [PATCHES, width]."""
    B, steps = rows.shape
    size = {"t": BYTES, "p": PATCHES}

    def spec(kind, x):
        groups = static.groups if x.shape[-1] > 1 else 1

        def place(b, group, s, rows):
            return b, rows[b, s] if kind == "t" else s - rows[b, s], group if groups > 1 else 0

        return pl.BlockSpec((None, size[kind], x.shape[-1] // groups), place)

    member = _member(static, inputs[-1][1].dtype)
    call = pl.pallas_call(
        body,
        name=name,
        interpret=static.interpret,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=(B, static.groups, steps),
            in_specs=[pl.BlockSpec(member.shape, lambda *_: (0, 0)), *(spec(kind, x) for kind, x in inputs)],
            out_specs=[spec(kind, x) for kind, x in outputs],
            scratch_shapes=[pltpu.VMEM((PATCHES, width), jnp.float32) for width in scratch],
        ),
        out_shape=[x for _, x in outputs],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary"), vmem_limit_bytes=MEMORY
        ),
    )
    return call(rows, member, *(x for _, x in inputs))


def _member(static, dtype):
    """1 where a feature belongs to a head, [width, lanes]."""
    feature, head = (
        jax.lax.broadcasted_iota(jnp.int32, (static.width, static.lanes), axis) for axis in (0, 1)
    )
    return (feature // static.head_dim == jnp.where(head < static.heads, head, -1)).astype(dtype)


class Step:
    """Where the walk stands."""

    def __init__(self, rows_ref):
        b, self.s = pl.program_id(0), pl.program_id(2)
        last = pl.num_programs(2) - 1
        self.row = rows_ref[b, self.s]
        before, after = rows_ref[b, jnp.maximum(self.s - 1, 0)], rows_ref[b, jnp.minimum(self.s + 1, last)]
        start, end = self.s == 0, self.s == last
        self.new_bytes, self.new_patches = start | (before != self.row), start | (before == self.row)
        self.done_with_patches = end | (after == self.row)

    def whose(self, ids_ref):
        """(bool [bytes, patches], bool [bytes, 1]): which byte is whose, and which bytes are anyone's."""
        first = (self.s - self.row) * PATCHES
        own = ids_ref[...] - first
        return own == jax.lax.broadcasted_iota(jnp.int32, (BYTES, PATCHES), 1), (own >= 0) & (own < PATCHES)


def dot(a, b, contract):
    """Product with float32 sums. 16-bit operands are multiplied as they are, float32 ones in full."""
    exact = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return jax.lax.dot_general(
        a, b, ((contract[:1], contract[1:]), ((), ())), precision=exact, preferred_element_type=jnp.float32
    )


def spread(whose, x_p):
    return dot(whose.astype(x_p.dtype), x_p, (1, 0))


def spread_finely(whose, x_p, dtype):
    """Spread of float32 values by operands of `dtype`: to 16 digits of 24 where it has 8, in two products."""
    coarse = x_p.astype(dtype)
    if dtype == jnp.float32:
        return spread(whose, coarse)
    return spread(whose, coarse) + spread(whose, (x_p - coarse.astype(jnp.float32)).astype(dtype))


def collect(whose, x_t):
    return dot(whose.astype(x_t.dtype), x_t, (0, 0))


def head_sums(x, member_ref):
    return dot(x.astype(member_ref.dtype), member_ref[...], (1, 0))


def per_head(x, member_ref):
    return dot(x.astype(member_ref.dtype), member_ref[...], (1, 1))


def add(step_is_new, ref, x):
    """Bytes meet their patch in one tile only: every other adds zeros."""

    @pl.when(step_is_new)
    def _():
        ref[...] = x.astype(ref.dtype)

    @pl.when(jnp.logical_not(step_is_new))
    def _():
        ref[...] += x.astype(ref.dtype)


def clear(when, *refs):
    @pl.when(when)
    def _():
        for ref in refs:
            ref[...] = jnp.zeros_like(ref)


def like(x):
    return jax.ShapeDtypeStruct(x.shape, x.dtype)
