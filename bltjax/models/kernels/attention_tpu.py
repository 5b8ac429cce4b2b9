"""Self-attention on TPU: JAX's splash kernel with a causal or local mask and documents as segment ids.

Blocks of keys that the static mask hides are never visited, so that a window costs O(T · window); documents
are masked inside the blocks. Local arrays only: over several devices the caller wraps it in shard_map, with
check_vma=False (the kernel declares none)."""

import functools

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask_info as mask_info

LANES = 128  # a block is a multiple of it
# Queries and keys of one grid step, largest first. A step of 512 x 512 x 64 takes the matrix units longer
# than starting it does, and under a window of 512 a query then meets 1,024 keys. 1,024 would double that; 128
# leaves most of a step to its overhead.
BLOCKS = (512, 384, 256)
FILL = -1  # document of the positions that fill up the last block: no document has it


def attend(q_BxHxTxK, k_BxHxTxK, v_BxHxTxK, doc_ids_BxT, window: int, interpret: bool = False):
    """Equals `attention.reference`, [B,H,T,K] in v's dtype. Any T and K.

    interpret: run the kernel's steps as plain JAX, on any platform (slow: tests).
    """
    T, K = q_BxHxTxK.shape[2:]
    size = block_size(T)
    fill = -T % size
    q, k, v = (
        jnp.pad(x, ((0, 0), (0, 0), (0, fill), (0, 0)))
        for x in (q_BxHxTxK * jnp.asarray(K**-0.5, q_BxHxTxK.dtype), k_BxHxTxK, v_BxHxTxK)
    )
    docs = jnp.pad(doc_ids_BxT, ((0, 0), (0, fill)), constant_values=FILL)
    attend_row = _kernel(q.shape[1], T + fill, size, window if 0 < window < T else 0, interpret)
    out = jax.vmap(lambda q, k, v, docs: attend_row(q, k, v, kernel.SegmentIds(docs, docs)))(q, k, v, docs)
    return out[:, :, :T].astype(v.dtype)


def block_size(T: int) -> int:
    """Queries, and keys, of a block: a short row is one; else of BLOCKS the one that fills up least, the
    larger if equal."""
    if T <= BLOCKS[0]:
        return -(-T // LANES) * LANES
    return min(BLOCKS, key=lambda size: -T % size)


@functools.lru_cache
def _kernel(heads: int, T: int, size: int, window: int, interpret: bool):
    """The kernel for rows of T positions. Its tables of blocks stay in numpy: the library's own constructor
    would put them on a device, and where a program is only compiled there is none."""
    mask = masks.LocalMask((T, T), (window - 1, 0), 0) if window else masks.CausalMask((T, T))
    return of_mask(masks.MultiHeadMask([mask] * heads), size, interpret)


def of_mask(mask, size: int, interpret: bool = False):
    """The kernel of a MultiHeadMask, in blocks of `size` queries and keys."""
    forward, function = mask_info.process_mask(mask, (size, size), head_shards=1, q_seq_shards=1)
    backward, _ = mask_info.process_mask_dkv(mask, (size, size), head_shards=1, q_seq_shards=1)
    sizes = kernel.BlockSizes(
        block_q=size,
        block_kv=size,
        block_kv_compute=size,
        block_q_dkv=size,
        block_kv_dkv=size,
        block_kv_dkv_compute=size,
        block_q_dq=size,
        block_kv_dq=size,
    )
    # dq has its own kernel: the fused one writes a partial dq for every block of keys, and cannot skip blocks
    # out of the window.
    return kernel.SplashAttentionKernel(
        forward,
        forward,
        backward,
        block_sizes=sizes,
        is_mqa=False,
        save_residuals=False,
        mask_value=kernel.DEFAULT_MASK_VALUE,
        attn_logits_soft_cap=None,
        residual_checkpoint_name=None,
        mask_function=function,
        interpret=interpret,
    )
