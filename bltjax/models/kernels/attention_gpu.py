"""Self-attention on NVIDIA GPUs: cuDNN's fused kernel, causal, with its local window, by
jax.nn.dot_product_attention.

cuDNN has no mask for documents that goes with a window at every length. Packed sequences (offsets and
lengths) are not in JAX's public interface, need Hopper, and a bound on the documents of a row that sizes a
[documents, H, T] statistic. A T x T mask excludes the window, so that the cost would be dense again. So:

    with a window   each position carries its document's number within the row as a code of signs behind its
                    features: equal codes add exactly 0 to a score, others at most -GAP. Only documents within
                    one window of each other need to differ: ten features for a window of 512.
    without         a mask [B,1,T,T]: every score is computed anyway, and rows of patches are short (2,096
                    in the 8B). Not a bias of our own, of which cuDNN would compute the gradient, in 118 MB of
                    memory a row instead of 15 (T 1,862, 16 heads).

Local arrays only, float16 or bfloat16. Each document must be one run of positions, as packing makes them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

# feature of a code; SIGN² · bits is summed and cancelled in float32: about 1e-3 of a score at most,
# bfloat16's own error
SIGN = 16.0
GAP = 2 * SIGN**2  # what a score loses for each bit in which two documents differ: exp(-512) is 0
MULTIPLE = 8  # of features in a head that cuDNN takes


class Arguments(NamedTuple):
    """What cuDNN gets, in jax.nn.dot_product_attention's terms. q, k, v: [B,T,H,K'], K' >= K."""

    q: jax.Array
    k: jax.Array
    v: jax.Array
    mask: jax.Array | None
    local_window_size: tuple[int, int] | None


def attend(q_BxHxTxK, k_BxHxTxK, v_BxHxTxK, doc_ids_BxT, window: int, implementation: str = "cudnn"):
    """Equals `attention.reference` to the precision of the dtype, [B,H,T,K] in v's dtype. float32: cuDNN
    raises NotImplementedError.

    implementation: "xla" is JAX's plain version of the same arguments (tests).
    """
    T, K = q_BxHxTxK.shape[2:]
    given = arguments(q_BxHxTxK, k_BxHxTxK, v_BxHxTxK, doc_ids_BxT, window)
    out = jax.nn.dot_product_attention(
        given.q,
        given.k,
        given.v,
        mask=given.mask,
        scale=1.0,
        is_causal=True,
        local_window_size=given.local_window_size,
        implementation=implementation,
    )
    return out[:, :T, :, :K].swapaxes(1, 2)


def arguments(q_BxHxTxK, k_BxHxTxK, v_BxHxTxK, doc_ids_BxT, window: int) -> Arguments:
    """The arguments that make causal attention at scale 1 attention within documents; T and K filled up to
    what cuDNN takes."""
    T, K = q_BxHxTxK.shape[2:]
    fill = -T % 2  # a mask wants even lengths, for gradients
    q, k, v = (
        jnp.pad(x.swapaxes(1, 2), ((0, 0), (0, fill), (0, 0), (0, 0)))
        for x in (q_BxHxTxK * jnp.asarray(K**-0.5, q_BxHxTxK.dtype), k_BxHxTxK, v_BxHxTxK)
    )
    docs = jnp.pad(doc_ids_BxT, ((0, 0), (0, fill)), constant_values=-1)
    if 0 < window < T:
        codes_q, codes_k = codes(docs, window, q.dtype)
        features = lambda x, more: jnp.concatenate(
            [x, jnp.broadcast_to(more[:, :, None], (*x.shape[:3], more.shape[-1]))], -1
        )
        q, k, v = (
            _wider(x)
            for x in (features(q, codes_q), features(k, codes_k), features(v, jnp.zeros_like(codes_k)))
        )
        return Arguments(q, k, v, None, (window - 1, 0))
    same = docs[:, None, :, None] == docs[:, None, None, :]
    return Arguments(*(_wider(x) for x in (q, k, v)), same, None)


def codes(doc_ids_BxT, window: int, dtype):
    """Features [B,T,bits + 1] of queries and of keys whose products are 0 in one document and at most -GAP in
    two, where a query sees `window` keys: then the documents of the two are less than `window` apart."""
    bits = max(1, (window - 1).bit_length())
    number = jnp.cumsum(
        jnp.diff(doc_ids_BxT, axis=1, prepend=doc_ids_BxT[:, :1]) != 0, axis=1, dtype=jnp.int32
    )
    signs = SIGN * (2 * (number[..., None] >> jnp.arange(bits, dtype=jnp.int32)[None, None] & 1) - 1)
    one = jnp.full_like(signs[..., :1], SIGN)
    return jnp.concatenate([signs, one], -1).astype(dtype), jnp.concatenate([signs, -bits * one], -1).astype(
        dtype
    )


def _wider(x):
    """[..., K] with zeros up to a multiple of what cuDNN takes."""
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, -x.shape[-1] % MULTIPLE)))
