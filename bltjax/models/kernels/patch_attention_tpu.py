"""Patch cross-attention on TPU: what patch_attention_tpu_encoder.py and patch_attention_tpu_decoder.py share.
All products are matrix products; no scatter, no gather.

Cut bytes into blocks of BYTES and patches into blocks of PATCHES. Both are in order, so that of the grid of
tiles (a block of bytes by a block of patches) only those along one monotone path hold a byte with its patch.
The path goes from the first corner to the last, each tile one step right or down from the one before: exactly
(blocks of bytes) + (blocks of patches) - 1 tiles, whatever the lengths of the patches, with none, one or many
bytes. A kernel's grid goes along it: what belongs to a block stays in fast memory while the path stays in its
row or column, so that every array is read and written once.

Within a tile, bytes and patches meet by a product with a matrix of zeros and ones, `owner` [bytes, patches],
which byte belongs to which patch: segment_broadcast gives each byte its patch's row, segment_sum adds up each
patch's bytes. Heads stay side by side in the last axis, and a product with `head_of` [features, lanes], which
feature belongs to which head, sums over a head's features (head_sums) or gives each feature its head's value
(per_head).

Arrays are float32, or bfloat16 with float32 sums. Local arrays only: over several devices the caller wraps it
in shard_map, with check_vma=False (the kernel declares none)."""

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
    """What a kernel is compiled for: groups of heads, each computed apart, with k latents of `width`
    features, a multiple of LANES, of which the first heads · head_dim count."""

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
    """Groups of heads that are computed apart: two where each fills whole lanes, since a chip of two cores
    (v5p) has work for both then."""
    return 2 if heads % 2 == 0 and heads // 2 * head_dim % LANES == 0 else 1


class Plan:
    """The path of tiles of every row of a batch, and arrays filled up to whole blocks.

    rows int32 [B, tiles]: the block of bytes of each tile; its block of patches is the rest of its number.
    ids int32 [B, bytes, 1]: each byte's patch; -1: of none."""

    def __init__(self, ids_BxT, P: int, k: int, C: int, heads: int, interpret: bool):
        groups = groups_of(heads, C // heads)
        width = -(-C // groups // LANES) * LANES
        self.static = Static(groups, k, width, heads // groups, C // heads, interpret)
        T = ids_BxT.shape[1]
        down, across = -(-T // BYTES), -(-P // PATCHES)
        self.fill_T, self.fill_P, self.fill_C = down * BYTES - T, across * PATCHES - P, groups * width - C
        ids = jnp.pad(ids_BxT, ((0, 0), (0, self.fill_T)), constant_values=P)
        # The number of the tile after which the path goes down: that of the last block of patches that a
        # block of bytes meets. The path ends in the last of all.
        ends = jnp.minimum(ids[:, BYTES - 1 :: BYTES], P - 1) // PATCHES
        ends = ends.at[:, -1].set(across - 1) + jnp.arange(down, dtype=jnp.int32)[None]
        steps = jnp.arange(down + across - 1, dtype=jnp.int32)
        self.rows = jnp.sum(ends[:, None, :] < steps[None, :, None], axis=-1, dtype=jnp.int32)
        # P may be a place that only fills up the last block
        self.ids = jnp.where(ids < P, ids, -1)[..., None]

    def of_bytes(self, x_BxTxC):
        return jnp.pad(x_BxTxC, ((0, 0), (0, self.fill_T), (0, self.fill_C)))

    def of_patches(self, x_BxPxkxC):
        """[B,P,groups·k·width]"""
        x = jnp.pad(x_BxPxkxC, ((0, 0), (0, self.fill_P), (0, 0), (0, self.fill_C)))
        x = x.reshape(*x.shape[:3], self.static.groups, self.static.width).swapaxes(2, 3)
        return x.reshape(*x.shape[:2], -1)


def run(body, name: str, rows, inputs, outputs, scratch, static: Static):
    """Runs `body` on every tile of the path, rows of the batch and groups of heads each apart.

    inputs, outputs: ("bytes", array [B,bytes,...]) or ("patches", array [B,patches,...]), of outputs shapes;
    groups side by side in the last axis (ids: one for all). The last input has the dtype of products.
    scratch: widths of float32 [PATCHES, width]. body gets references: rows, head_of, inputs, outputs,
    scratch."""
    B, tiles = rows.shape
    size = {"bytes": BYTES, "patches": PATCHES}

    def spec(kind, x):
        groups = static.groups if x.shape[-1] > 1 else 1

        def place(b, group, tile, rows):
            block = rows[b, tile] if kind == "bytes" else tile - rows[b, tile]
            return b, block, group if groups > 1 else 0

        return pl.BlockSpec((None, size[kind], x.shape[-1] // groups), place)

    head_of = _head_of(static, inputs[-1][1].dtype)
    call = pl.pallas_call(
        body,
        name=name,
        interpret=static.interpret,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=(B, static.groups, tiles),
            in_specs=[pl.BlockSpec(head_of.shape, lambda *_: (0, 0)), *(spec(kind, x) for kind, x in inputs)],
            out_specs=[spec(kind, x) for kind, x in outputs],
            scratch_shapes=[pltpu.VMEM((PATCHES, width), jnp.float32) for width in scratch],
        ),
        out_shape=[x for _, x in outputs],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary"), vmem_limit_bytes=MEMORY
        ),
    )
    return call(rows, head_of, *(x for _, x in inputs))


def _head_of(static, dtype):
    """1 where a feature belongs to a head, [width, lanes]."""
    feature, head = (
        jax.lax.broadcasted_iota(jnp.int32, (static.width, static.lanes), axis) for axis in (0, 1)
    )
    return (feature // static.head_dim == jnp.where(head < static.heads, head, -1)).astype(dtype)


class Tile:
    """The tile that a kernel is at: where it lies on the path, and which byte belongs to which patch.

    first_of_bytes, first_of_patches, last_of_patches: bool, whether it is the first (last) tile of its block.
    owner: bool [bytes, patches]; owned: bool [bytes, 1], bytes whose patch is in the tile."""

    def __init__(self, rows_ref, ids_ref):
        b, number = pl.program_id(0), pl.program_id(2)
        last = pl.num_programs(2) - 1
        row = rows_ref[b, number]
        before = rows_ref[b, jnp.maximum(number - 1, 0)]
        after = rows_ref[b, jnp.minimum(number + 1, last)]
        self.first_of_bytes = (number == 0) | (before != row)
        self.first_of_patches = (number == 0) | (before == row)
        self.last_of_patches = (number == last) | (after == row)
        own = ids_ref[...] - (number - row) * PATCHES
        self.owner = own == jax.lax.broadcasted_iota(jnp.int32, (BYTES, PATCHES), 1)
        self.owned = (own >= 0) & (own < PATCHES)

    def segment_broadcast(self, x_patches):
        """Each byte's patch's row; 0 for a byte whose patch is not in the tile."""
        return dot(self.owner.astype(x_patches.dtype), x_patches, (1, 0))

    def segment_broadcast_float32(self, x_patches, dtype):
        """The same of float32 values by operands of `dtype`: to 16 digits of 24 where it has 8, in two
        products."""
        coarse = x_patches.astype(dtype)
        if dtype == jnp.float32:
            return self.segment_broadcast(coarse)
        rest = (x_patches - coarse.astype(jnp.float32)).astype(dtype)
        return self.segment_broadcast(coarse) + self.segment_broadcast(rest)

    def segment_sum(self, x_bytes):
        """The sum over each patch's bytes in the tile."""
        return dot(self.owner.astype(x_bytes.dtype), x_bytes, (0, 0))


def dot(a, b, contract):
    """Product with float32 sums. 16-bit operands are multiplied as they are, float32 ones in full."""
    exact = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return jax.lax.dot_general(
        a, b, ((contract[:1], contract[1:]), ((), ())), precision=exact, preferred_element_type=jnp.float32
    )


def head_sums(x, head_of_ref):
    """Sum over each head's features: [..., width] -> [..., lanes]."""
    return dot(x.astype(head_of_ref.dtype), head_of_ref[...], (1, 0))


def per_head(x, head_of_ref):
    """Each head's value at each of its features: [..., lanes] -> [..., width]."""
    return dot(x.astype(head_of_ref.dtype), head_of_ref[...], (1, 1))


def write_or_add(first, ref, x):
    """Writes an output of a block of bytes at its first tile, and adds at the others. A byte meets its patch
    in one tile only: every other adds zeros."""

    @pl.when(first)
    def _():
        ref[...] = x.astype(ref.dtype)

    @pl.when(jnp.logical_not(first))
    def _():
        ref[...] += x.astype(ref.dtype)


def clear(when, *refs):
    """Fills references with zeros."""

    @pl.when(when)
    def _():
        for ref in refs:
            ref[...] = jnp.zeros_like(ref)


def like(x):
    """x's shape and dtype, as an output."""
    return jax.ShapeDtypeStruct(x.shape, x.dtype)
