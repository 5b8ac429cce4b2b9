"""What patch cross-attention costs on a TPU, by implementation: forward and gradient compiled for one chip,
none needed.

    python benchmarks/cross_attention_tpu.py [--topology v5p:2x2x1] [--patch-sizes 4.5 6] [--only
    blocks,segments]

Shapes of the 8B: one row of 8,192 bytes, k 4, width 1,280, 20 heads, bfloat16. Implementations:

    segments    segment operations and look-ups, as on CPU
    one-hot     the same formulas, with sums and look-ups as products of blocks of 128 bytes with windows of
                128 patches, in XLA
    splash      JAX's attention kernel, each patch a segment id: no block is skipped, since ids are only known
                at run time
    blocks      bltjax/models/kernels/patch_attention_tpu*.py: one kernel each way, over the tiles in which
                bytes and patches can meet
    dense       the reference

Bytes are the compiler's (cost_analysis), which counts a kernel's arrays once; splash reads keys and values
once per block of queries, and what that adds is added here. FLOPs are the compiler's plus those of the
kernels' products, which it does not count. Temporaries: memory_analysis. "scatter": scatters left in the
compiled program, each of which a chip runs row by row, slower than its bytes say. ms: the larger of bytes /
bandwidth and FLOPs / peak of the chip: a lower bound that only ranks."""

import argparse
import os
import pathlib
import re
import sys

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from bltjax.models import cross_attention
from bltjax.models.kernels import attention_tpu, patch_attention_tpu

T, K, HEADS, LATENTS = 8192, 64, 20, 4
C = HEADS * K
# bfloat16 FLOP/s and bytes/s of a chip, from Google's documentation
PEAK = {"v5p": (459e12, 2.765e12), "v6e": (918e12, 1.64e12)}
BLOCK = 128
SPLASH = 512


def one_hot(ids_BxT, start_BxN):
    """bool [B,N,BLOCK,BLOCK]: which byte of each block is whose, of the patches from the block's first on."""
    own = ids_BxT.reshape(ids_BxT.shape[0], -1, BLOCK) - start_BxN[..., None]
    return own[..., None] == jnp.arange(BLOCK)


def starts(ids_BxT, patches):
    return jnp.minimum(ids_BxT[:, ::BLOCK], patches - 1)


def _broadcast_blocks(x_BxPxC, ids_BxT):
    start = starts(ids_BxT, x_BxPxC.shape[1])
    window = lambda x, at: jax.lax.dynamic_slice_in_dim(x, at, BLOCK, 0)
    filled = jnp.pad(x_BxPxC, ((0, 0), (0, BLOCK), (0, 0)))
    windows = jax.vmap(lambda x, at: jax.vmap(window, (None, 0))(x, at))(filled, start)
    out = jnp.einsum("BNtp,BNpC->BNtC", one_hot(ids_BxT, start).astype(x_BxPxC.dtype), windows)
    return out.reshape(*ids_BxT.shape, -1)


def _sum_blocks(x_BxTxC, ids_BxT, patches):
    start = starts(ids_BxT, patches)
    blocks = x_BxTxC.reshape(*start.shape, BLOCK, -1)
    parts = jnp.einsum(
        "BNtp,BNtC->BNpC",
        one_hot(ids_BxT, start).astype(x_BxTxC.dtype),
        blocks,
        preferred_element_type=jnp.float32,
    )

    def add(total, parts, start):
        for n in range(start.shape[0]):  # no loop: the compiler would count its body once
            old = jax.lax.dynamic_slice_in_dim(total, start[n], BLOCK, 0)
            total = jax.lax.dynamic_update_slice_in_dim(total, old + parts[n], start[n], 0)
        return total

    total = jnp.zeros((ids_BxT.shape[0], patches + BLOCK, x_BxTxC.shape[-1]), jnp.float32)
    return jax.vmap(add)(total, parts, start)[:, :patches].astype(x_BxTxC.dtype)


@jax.custom_vjp
def segment_broadcast(x_BxPxC, ids_BxT):
    return _broadcast_blocks(x_BxPxC, ids_BxT)


segment_broadcast.defvjp(
    lambda x, ids: (_broadcast_blocks(x, ids), (ids, jnp.zeros((x.shape[1],), jnp.int8))),
    lambda kept, g: (_sum_blocks(g, kept[0], kept[1].shape[0]), None),
)


@jax.custom_vjp
def _summed(x_BxTxC, ids_BxT, like_P):
    return _sum_blocks(x_BxTxC, ids_BxT, like_P.shape[0])


_summed.defvjp(
    lambda x, ids, like: (_summed(x, ids, like), ids), lambda ids, g: (_broadcast_blocks(g, ids), None, None)
)


def segment_sum(x_BxTxC, ids_BxT, patches):
    return _summed(x_BxTxC, ids_BxT, jnp.zeros((patches,), jnp.int8))


def segment_max(x_BxTxC, ids_BxT, patches):
    """Running maxima along each patch's bytes, in steps of 1, 2, 4, ...; read at its last byte."""
    x, distance = jax.lax.stop_gradient(x_BxTxC), 1
    while distance < ids_BxT.shape[1]:
        same = jnp.pad(ids_BxT[:, distance:] == ids_BxT[:, :-distance], ((0, 0), (distance, 0)))
        x = jnp.where(same[..., None], jnp.maximum(x, jnp.roll(x, distance, 1)), x)
        distance *= 2
    last = jnp.pad(ids_BxT[:, 1:] != ids_BxT[:, :-1], ((0, 0), (0, 1)), constant_values=True)
    return _sum_blocks(jnp.where(last[..., None], x, 0), ids_BxT, patches)


def splash_over(q_BxQxC, k_BxSxC, v_BxSxC, q_ids_BxQ, k_ids_BxS):
    """Attention among equal ids. A query without a key gets garbage here: this function is compiled, never
    run."""
    fill = lambda x, value=0: jnp.pad(
        x, [(0, 0), (0, -x.shape[1] % SPLASH)] + [(0, 0)] * (x.ndim - 2), constant_values=value
    )
    apart = lambda x: fill(x).reshape(x.shape[0], -1, HEADS, K).swapaxes(1, 2)
    q, k, v = apart(q_BxQxC * K**-0.5), apart(k_BxSxC), apart(v_BxSxC)
    ids = attention_tpu.kernel.SegmentIds(fill(q_ids_BxQ, -1), fill(k_ids_BxS, -1))
    mask = attention_tpu.masks.MultiHeadMask([attention_tpu.masks.FullMask((q.shape[2], k.shape[2]))] * HEADS)
    kernel = attention_tpu.of_mask(mask, SPLASH)
    out = jax.vmap(kernel)(q, k, v, ids)
    return out.swapaxes(1, 2).reshape(*out.shape[:1], -1, C)[:, : q_BxQxC.shape[1]]


def attend(way: str, implementation: str, x, k, v, ids):
    """One implementation, by name."""
    if implementation == "splash":
        patches, latents = (x if way == "patches_from_bytes" else k).shape[1:3]
        patch_ids = jnp.repeat(jnp.arange(patches, dtype=jnp.int32), latents)[None].repeat(ids.shape[0], 0)
        flat = lambda x: x.reshape(x.shape[0], -1, C)
        if way == "patches_from_bytes":
            return splash_over(flat(x), k, v, patch_ids, ids).reshape(x.shape)
        return splash_over(x, flat(k), flat(v), ids, patch_ids)
    name = {"dense": "reference", "segments": "segments", "one-hot": "segments", "blocks": "blocks"}[
        implementation
    ]
    original = {
        part: getattr(cross_attention, part) for part in ("segment_broadcast", "segment_sum", "segment_max")
    }
    try:
        if implementation == "one-hot":
            cross_attention.segment_broadcast, cross_attention.segment_sum, cross_attention.segment_max = (
                segment_broadcast,
                segment_sum,
                segment_max,
            )
        return getattr(cross_attention, way)(x, k, v, ids, HEADS, name)
    finally:
        for part, function in original.items():
            setattr(cross_attention, part, function)


def kernels(way: str, implementation: str, P: int):
    """(FLOPs, bytes) of a kernel's products and repeated reads, forward and backward, that the compiler does
    not count."""
    if implementation == "blocks":
        down, across = -(-T // patch_attention_tpu.BYTES), -(-P // patch_attention_tpu.PATCHES)
        # Products of a tile for each latent, forward and backward: of the features, and of one number a head
        # (in whole lanes).
        features, per_head = {"bytes_from_patches": (4 + 8, 0), "patches_from_bytes": (5 + 7, 4 + 4)}[way]
        width = features * C + per_head * patch_attention_tpu.groups_of(HEADS, K) * patch_attention_tpu.LANES
        return (
            down + across - 1
        ) * LATENTS * width * 2 * patch_attention_tpu.BYTES * patch_attention_tpu.PATCHES, 0
    if implementation == "splash":
        queries, keys = (P * LATENTS, T) if way == "patches_from_bytes" else (T, P * LATENTS)
        queries, keys = (-(-n // SPLASH) * SPLASH for n in (queries, keys))
        wide = HEADS * 128 * 2  # bytes of a position: heads of 64 features lie in lanes of 128
        # k, v fwd and dq; q, do in dkv
        again = 2 * 2 * (queries // SPLASH - 1) * keys * wide + 2 * (keys // SPLASH - 1) * queries * wide
        return (2 + 3 + 4) * 2 * queries * keys * C, again
    return 0, 0


def row(topology, chip: str, way: str, implementation: str, P: int) -> str:
    """One line of the table."""
    device = SingleDeviceSharding(topology.devices[0])
    shape = lambda *sizes, dtype=jnp.bfloat16: jax.ShapeDtypeStruct(sizes, dtype, sharding=device)
    of_bytes, of_patches = shape(1, T, C), shape(1, P, LATENTS, C)
    x, source = (of_patches, of_bytes) if way == "patches_from_bytes" else (of_bytes, of_patches)

    def both(x, k, v, ids, g):
        out, pull = jax.vjp(lambda *args: attend(way, implementation, *args, ids), x, k, v)
        return out, pull(g)

    lowered = (
        jax.jit(both)
        .trace(x, source, source, shape(1, T, dtype=jnp.int32), x)
        .lower(lowering_platforms=("tpu",))
    )
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return f"| {way} | {P} | {implementation} | out of the chip's memory | | | | |"
    cost, (flops, again) = compiled.cost_analysis(), kernels(way, implementation, P)
    flops, moved = cost["flops"] + flops, cost["bytes accessed"] + again
    temporaries = compiled.memory_analysis().temp_size_in_bytes / 2**20
    scatters = len(re.findall(r" scatter\(", compiled.as_text()))
    peak, bandwidth = PEAK[chip]
    least = 1e3 * max(moved / bandwidth, flops / peak)
    return (
        f"| {way} | {P} | {implementation} | {moved / 1e9:.2f} | {flops / 1e9:,.0f} | {temporaries:,.0f} |"
        f" {scatters} | {least:.2f} |"
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--topology", default="v5p:2x2x1")
    parser.add_argument("--patch-sizes", type=float, nargs="+", default=(4.5, 6))
    parser.add_argument("--only", default="segments,one-hot,splash,blocks,dense")
    args = parser.parse_args()
    chip = args.topology.split(":")[0]
    topology = topologies.get_topology_desc(args.topology, "tpu")
    print(
        "| | P | implementation | GB moved | GFLOP | temporaries, MiB | scatters | ms, at least"
        " |\n|---|---|---|---|---|---|---|---|"
    )
    for way in ("patches_from_bytes", "bytes_from_patches"):
        for size in args.patch_sizes:
            for implementation in args.only.split(","):
                print(row(topology, chip, way, implementation, round(T / size)), flush=True)


if __name__ == "__main__":
    main()
