"""Patch cross-attention on TPU, both ways: one kernel forward and one backward, all products matrix products, no scatter, no gather.

Bytes and patches are both in order, so that in a grid of blocks of bytes by blocks of patches only those along one staircase from
the first corner to the last can meet. It has exactly (blocks of bytes) + (blocks of patches) - 1 tiles, each one step right or down
from the one before, whatever the lengths of the patches, with none, one or many bytes. A kernel walks it: what belongs to a block
stays in fast memory while the walk stays in its row or column, so that every array is read and written once.

In a tile, bytes and patches meet by a product with the matrix of which byte is whose [bytes, patches] ("whose"): spread gives each
byte its patch's row, collect sums each patch's bytes. Heads stay side by side in the last axis, and a product with the matrix of
which feature is whose head's ("member") [C, lanes] sums over a head's features, or gives each feature its head's value.

Arrays are float32, or bfloat16 with float32 sums. Local arrays only: over several devices the caller wraps it in shard_map, with
check_vma=False (the kernel declares none).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

# A tile, bytes by patches: the matrix units are 128 or 256 wide, and k latents of 128 patches at width 1,280 are 1.3 MB.
BYTES, PATCHES = 128, 128
LANES = 128
MEMORY = 48 * 2 ** 20  # of a chip's fast memory: the backward kernels of the 8B need more than the default of 16 MiB
UNSEEN = -1e30


def patches_from_bytes(q_BxPxkxC, k_BxTxC, v_BxTxC, patch_ids_BxT, heads: int, interpret: bool = False):
    """`cross_attention.patches_from_bytes`: [B,P,k,C]. patch_ids: nondecreasing along a row.

    interpret: run the kernels' steps as plain JAX, on any platform (slow: tests).
    """
    B, P, k, C = q_BxPxkxC.shape
    plan = Plan(patch_ids_BxT, P, k, C, heads, interpret)
    out = _patches_from_bytes(plan.of_patches(q_BxPxkxC), plan.of_bytes(k_BxTxC), plan.of_bytes(v_BxTxC), plan.ids, plan.rows, plan.static)
    out = out.reshape(B, -1, plan.static.groups, k, plan.static.width).swapaxes(2, 3)
    return out.reshape(B, -1, k, plan.static.groups * plan.static.width)[:, :P, :, :C]


def bytes_from_patches(q_BxTxC, k_BxPxkxC, v_BxPxkxC, latent_ids_BxT, heads: int, interpret: bool = False):
    """`cross_attention.bytes_from_patches`: [B,T,C]. latent_ids: nondecreasing along a row. interpret: as above."""
    B, P, k, C = k_BxPxkxC.shape
    plan = Plan(latent_ids_BxT, P, k, C, heads, interpret)
    k, v = plan.of_patches(k_BxPxkxC), plan.of_patches(v_BxPxkxC)
    out = _bytes_from_patches(plan.of_bytes(q_BxTxC), k, v, plan.ids, plan.rows, plan.static)
    return out[:, :q_BxTxC.shape[1], :C]


class Static(NamedTuple):
    """What a kernel is compiled for: groups of heads apart, each with k latents of `width` features, a multiple of LANES, of which the
    first heads · head_dim count."""
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
        return self.head_dim ** -0.5

    def features(self, l: int):
        """Where latent l lies in a group's features of a patch, [:, k·width]."""
        return slice(l * self.width, (l + 1) * self.width)

    def per_head(self, l: int):
        """Where latent l lies in a group's values per head of a patch, [:, k·lanes]."""
        return slice(l * self.lanes, (l + 1) * self.lanes)


def groups_of(heads: int, head_dim: int) -> int:
    """Groups of heads that walk apart: two where each fills whole lanes, since a chip of two cores (v5p) has work for both then."""
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
        # The last block of patches that a block of bytes meets; the walk goes down from there, and ends in the last of all.
        ends = jnp.minimum(ids[:, BYTES - 1::BYTES], P - 1) // PATCHES
        ends = ends.at[:, -1].set(across - 1) + jnp.arange(down, dtype=jnp.int32)[None]
        steps = jnp.arange(down + across - 1, dtype=jnp.int32)
        # The block of bytes at each step; that of patches is the rest of the step's number.
        self.rows = jnp.sum(ends[:, None, :] < steps[None, :, None], axis=-1, dtype=jnp.int32)
        self.ids = jnp.where(ids < P, ids, -1)[..., None]  # P may be a place that only fills up the last block

    def of_bytes(self, x_BxTxC):
        return jnp.pad(x_BxTxC, ((0, 0), (0, self.fill_T), (0, self.fill_C)))

    def of_patches(self, x_BxPxkxC):
        """[B,P,groups·k·width]"""
        x = jnp.pad(x_BxPxkxC, ((0, 0), (0, self.fill_P), (0, 0), (0, self.fill_C)))
        x = x.reshape(*x.shape[:3], self.static.groups, self.static.width).swapaxes(2, 3)
        return x.reshape(*x.shape[:2], -1)


# What the steps of a walk share.

def _walk(body, name: str, rows, inputs, outputs, scratch, static: Static):
    """Runs `body` on every tile, rows of the batch and groups of heads each apart. inputs, outputs: arrays or shapes, "t" [B,bytes,...]
    or "p" [B,patches,...], groups side by side in the last axis (ids: one for all); the last input has the dtype of products. scratch:
    widths of float32 [PATCHES, width]."""
    B, steps = rows.shape
    size = {"t": BYTES, "p": PATCHES}

    def spec(kind, x):
        groups = static.groups if x.shape[-1] > 1 else 1

        def place(b, group, s, rows):
            return b, rows[b, s] if kind == "t" else s - rows[b, s], group if groups > 1 else 0
        return pl.BlockSpec((None, size[kind], x.shape[-1] // groups), place)

    member = _member(static, inputs[-1][1].dtype)
    call = pl.pallas_call(
        body, name=name, interpret=static.interpret,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1, grid=(B, static.groups, steps),
            in_specs=[pl.BlockSpec(member.shape, lambda *_: (0, 0)), *(spec(kind, x) for kind, x in inputs)],
            out_specs=[spec(kind, x) for kind, x in outputs],
            scratch_shapes=[pltpu.VMEM((PATCHES, width), jnp.float32) for width in scratch]),
        out_shape=[x for _, x in outputs],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "arbitrary"), vmem_limit_bytes=MEMORY))
    return call(rows, member, *(x for _, x in inputs))


def _member(static, dtype):
    """1 where a feature belongs to a head, [width, lanes]."""
    feature, head = (jax.lax.broadcasted_iota(jnp.int32, (static.width, static.lanes), axis) for axis in (0, 1))
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


def _dot(a, b, contract):
    """Product with float32 sums. 16-bit operands are multiplied as they are, float32 ones in full."""
    exact = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return jax.lax.dot_general(a, b, ((contract[:1], contract[1:]), ((), ())), precision=exact, preferred_element_type=jnp.float32)


def _spread(whose, x_p):
    return _dot(whose.astype(x_p.dtype), x_p, (1, 0))


def _spread_finely(whose, x_p, dtype):
    """Spread of float32 values by operands of `dtype`: to 16 digits of 24 where it has 8, in two products."""
    coarse = x_p.astype(dtype)
    if dtype == jnp.float32:
        return _spread(whose, coarse)
    return _spread(whose, coarse) + _spread(whose, (x_p - coarse.astype(jnp.float32)).astype(dtype))


def _collect(whose, x_t):
    return _dot(whose.astype(x_t.dtype), x_t, (0, 0))


def _head_sums(x, member_ref):
    return _dot(x.astype(member_ref.dtype), member_ref[...], (1, 0))


def _per_head(x, member_ref):
    return _dot(x.astype(member_ref.dtype), member_ref[...], (1, 1))


def _add(step_is_new, ref, x):
    """Bytes meet their patch in one tile only: every other adds zeros."""
    @pl.when(step_is_new)
    def _():
        ref[...] = x.astype(ref.dtype)

    @pl.when(jnp.logical_not(step_is_new))
    def _():
        ref[...] += x.astype(ref.dtype)


def _clear(when, *refs):
    @pl.when(when)
    def _():
        for ref in refs:
            ref[...] = jnp.zeros_like(ref)


# Decoder: every byte over the k latents of its patch. A byte's softmax lies in one tile.

@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _bytes_from_patches(q, k, v, ids, rows, static):
    return _bytes_forward(q, k, v, ids, rows, static)[0]


def _bytes_forward(q, k, v, ids, rows, static):
    def body(rows_ref, member, ids_ref, k_ref, v_ref, q_ref, out_ref):
        step = Step(rows_ref)
        whose, _ = step.whose(ids_ref)
        _, weights = _byte_weights(whose, q_ref, k_ref, member, static)
        out = sum(_per_head(weights[l], member) * _spread(whose, v_ref[:, static.features(l)]) for l in range(static.k))
        _add(step.new_bytes, out_ref, out)

    out, = _walk(body, "bytes_from_patches", rows, [("t", ids), ("p", k), ("p", v), ("t", q)], [("t", _like(q))], [], static)
    return out, (q, k, v, ids, rows)


def _byte_weights(whose, q_ref, k_ref, member, static):
    """Keys of each byte, and its weights [bytes, lanes], by latent."""
    keys = [_spread(whose, k_ref[:, static.features(l)]) for l in range(static.k)]
    q = q_ref[...].astype(jnp.float32)
    scores = [_head_sums(q * key, member) * static.scale for key in keys]
    most = functools.reduce(jnp.maximum, scores)
    weights = [jnp.exp(score - most) for score in scores]
    share = 1 / sum(weights)
    return keys, [weight * share for weight in weights]


def _bytes_backward(static, kept, g):
    q, k, v, ids, rows = kept

    def body(rows_ref, member, ids_ref, k_ref, v_ref, g_ref, q_ref, to_q_ref, to_k_ref, to_v_ref, sum_k, sum_v):
        step = Step(rows_ref)
        whose, _ = step.whose(ids_ref)
        _clear(step.new_patches, sum_k, sum_v)
        keys, weights = _byte_weights(whose, q_ref, k_ref, member, static)
        g, q = g_ref[...].astype(jnp.float32), q_ref[...].astype(jnp.float32)
        slopes = [_head_sums(g * _spread(whose, v_ref[:, static.features(l)]), member) for l in range(static.k)]
        inner = sum(weight * slope for weight, slope in zip(weights, slopes))
        to_q = 0
        for l in range(static.k):
            to_score = _per_head(weights[l] * (slopes[l] - inner) * static.scale, member)
            to_q += to_score * keys[l]
            own = static.features(l)
            sum_k[:, own] += _collect(whose, (to_score * q).astype(q_ref.dtype))
            sum_v[:, own] += _collect(whose, (_per_head(weights[l], member) * g).astype(q_ref.dtype))
        _add(step.new_bytes, to_q_ref, to_q)

        @pl.when(step.done_with_patches)
        def _():
            to_k_ref[...], to_v_ref[...] = sum_k[...].astype(to_k_ref.dtype), sum_v[...].astype(to_v_ref.dtype)

    inputs = [("t", ids), ("p", k), ("p", v), ("t", g), ("t", q)]
    outputs = [("t", _like(q)), ("p", _like(k)), ("p", _like(v))]
    return *_walk(body, "bytes_from_patches_backward", rows, inputs, outputs, [static.k * static.width] * 2, static), None, None


_bytes_from_patches.defvjp(_bytes_forward, _bytes_backward)


# Encoder: every latent over its patch's bytes. A patch may go on in the tiles below: its softmax is kept as in flash attention, by
# the largest score so far, the sum of weights and the weighted sum of values, each per patch.

@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _patches_from_bytes(q, k, v, ids, rows, static):
    return _patches_forward(q, k, v, ids, rows, static)[0]


def _patches_forward(q, k, v, ids, rows, static):
    lanes = static.lanes

    def body(rows_ref, member, ids_ref, q_ref, v_ref, k_ref, out_ref, log_total_ref, most, total, acc):
        step = Step(rows_ref)
        whose, anyones = step.whose(ids_ref)
        _clear(step.new_patches, total, acc)

        @pl.when(step.new_patches)
        def _():
            most[...] = jnp.full_like(most, UNSEEN)

        dtype = member.dtype
        here = _collect(whose, jnp.ones((BYTES, lanes), dtype)) > 0
        keys, values = k_ref[...].astype(jnp.float32), v_ref[...].astype(jnp.float32)
        for l in range(static.k):
            wide, narrow = static.features(l), static.per_head(l)
            scores = _head_sums(_spread(whose, q_ref[:, wide]) * keys, member) * static.scale
            before = most[:, narrow]
            # Any number near the largest will do if all that follows uses the same, and a rounded one is spread by one product. For
            # the same reason weights and fading are rounded before they are summed: what is divided by is what was multiplied with.
            now = jnp.where(here, jnp.maximum(before, _largest(scores, ids_ref, whose, dtype)), before)
            weights = jnp.where(anyones, jnp.exp(scores - _spread(whose, now.astype(dtype))), 0).astype(dtype)
            fade = jnp.exp(before - now).astype(dtype)
            most[:, narrow] = now
            total[:, narrow] = fade.astype(jnp.float32) * total[:, narrow] + _collect(whose, weights)
            acc[:, wide] = _per_head(fade, member) * acc[:, wide] + _collect(whose, (_per_head(weights, member) * values).astype(dtype))

        @pl.when(step.done_with_patches)
        def _():
            for l in range(static.k):
                wide, narrow = static.features(l), static.per_head(l)
                seen = total[:, narrow] > 0
                sums = jnp.where(seen, total[:, narrow], 1)
                out_ref[:, wide] = (acc[:, wide] * _dot(1 / sums, member[...].astype(jnp.float32), (1, 1))).astype(out_ref.dtype)
                log_total_ref[:, narrow] = jnp.where(seen, most[:, narrow] + jnp.log(sums), 0)

    log_total = jax.ShapeDtypeStruct((*q.shape[:2], static.groups * static.k * lanes), jnp.float32)
    inputs, outputs = [("t", ids), ("p", q), ("t", v), ("t", k)], [("p", _like(q)), ("p", log_total)]
    scratch = [static.k * lanes, static.k * lanes, static.k * static.width]
    out, log_total = _walk(body, "patches_from_bytes", rows, inputs, outputs, scratch, static)
    return out, (q, k, v, ids, rows, out, log_total)


def _largest(scores, ids_ref, whose, dtype):
    """Each patch's largest score in the tile, rounded to dtype, [patches, lanes]: running maxima along each patch's bytes, read at
    its last."""
    ids = jnp.broadcast_to(ids_ref[...], scores.shape)
    place = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 0)
    distance = 1
    while distance < BYTES:
        same = (place >= distance) & (pltpu.roll(ids, distance, 0) == ids)
        scores = jnp.where(same, jnp.maximum(scores, pltpu.roll(scores, distance, 0)), scores)
        distance *= 2
    last = (place == BYTES - 1) | (pltpu.roll(ids, BYTES - 1, 0) != ids)
    return _collect(whose, jnp.where(last, scores, 0).astype(dtype))


def _patches_backward(static, kept, g):
    q, k, v, ids, rows, out, log_total = kept

    def body(rows_ref, member, ids_ref, q_ref, g_ref, out_ref, log_total_ref, v_ref, k_ref, to_k_ref, to_v_ref, to_q_ref, inner, sum_q):
        step = Step(rows_ref)
        whose, anyones = step.whose(ids_ref)
        _clear(step.new_patches, sum_q)

        @pl.when(step.new_patches)
        def _():
            for l in range(static.k):
                wide = static.features(l)
                product = g_ref[:, wide].astype(jnp.float32) * out_ref[:, wide].astype(jnp.float32)
                inner[:, static.per_head(l)] = _head_sums(product, member)

        keys, values = k_ref[...].astype(jnp.float32), v_ref[...].astype(jnp.float32)
        to_k = to_v = 0
        for l in range(static.k):
            wide, narrow = static.features(l), static.per_head(l)
            queries, g = _spread(whose, q_ref[:, wide]), _spread(whose, g_ref[:, wide])
            scores = _head_sums(queries * keys, member) * static.scale
            weights = jnp.where(anyones, jnp.exp(scores - _spread_finely(whose, log_total_ref[:, narrow], member.dtype)), 0)
            slopes = _head_sums(g * values, member) - _spread_finely(whose, inner[:, narrow], member.dtype)
            to_score = _per_head(weights * slopes * static.scale, member)
            to_k += to_score * queries
            to_v += _per_head(weights, member) * g
            sum_q[:, wide] += _collect(whose, (to_score * keys).astype(k_ref.dtype))
        _add(step.new_bytes, to_k_ref, to_k)
        _add(step.new_bytes, to_v_ref, to_v)

        @pl.when(step.done_with_patches)
        def _():
            to_q_ref[...] = sum_q[...].astype(to_q_ref.dtype)

    inputs = [("t", ids), ("p", q), ("p", g), ("p", out), ("p", log_total), ("t", v), ("t", k)]
    outputs, scratch = [("t", _like(k)), ("t", _like(v)), ("p", _like(q))], [static.k * static.lanes, static.k * static.width]
    to_k, to_v, to_q = _walk(body, "patches_from_bytes_backward", rows, inputs, outputs, scratch, static)
    return to_q, to_k, to_v, None, None


_patches_from_bytes.defvjp(_patches_forward, _patches_backward)


def _like(x):
    return jax.ShapeDtypeStruct(x.shape, x.dtype)
