"""Causal self-attention within documents and within a window: one dispatch function, one plain reference."""

import jax
import jax.numpy as jnp
import numpy as np

BLOCK = 256  # queries handled together, with their own static range of keys
MOST_BLOCKS = 64


def self_attention(q_BxTxHxK, k_BxTxHxK, v_BxTxHxK, doc_ids_BxT, window: int, implementation: str = "auto"):
    """softmax(q k / sqrt(K)) v over the keys a query may see: its own document's, not later than itself, and among the last
    `window` positions, itself included (0: all). Softmax in float32; result [B,T,H,K] in v's dtype.

    implementation: "reference" (dense T x T), "blocks" (O(T * window)) or "auto".
    """
    T = q_BxTxHxK.shape[1]
    if implementation == "reference" or (implementation == "auto" and T <= BLOCK):
        return attend(q_BxTxHxK, k_BxTxHxK, v_BxTxHxK, doc_ids_BxT, doc_ids_BxT, 0, window)
    block = max(BLOCK, -(-T // MOST_BLOCKS))
    outs = []
    for start in range(0, T, block):
        stop = min(start + block, T)
        first = max(0, start - window + 1) if window else 0
        outs.append(attend(q_BxTxHxK[:, start:stop], k_BxTxHxK[:, first:stop], v_BxTxHxK[:, first:stop],
                           doc_ids_BxT[:, start:stop], doc_ids_BxT[:, first:stop], start - first, window))
    return jnp.concatenate(outs, axis=1)


def attend(q, k, v, query_docs, key_docs, shift: int, window: int):
    """Dense masked attention of q [B,Q,H,K] over k, v [B,S,H,K]; query i stands at key position i + shift."""
    distance = np.arange(q.shape[1])[:, None] + shift - np.arange(k.shape[1])[None]
    near = (distance >= 0) & (distance < window if window else True)
    seen = near[None] & (query_docs[:, :, None] == key_docs[:, None, :])
    scores = jnp.einsum("BqHK,BsHK->BHqs", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
    weights = jax.nn.softmax(jnp.where(seen[:, None], scores, -1e30), axis=-1)
    return jnp.einsum("BHqs,BsHK->BqHK", weights.astype(v.dtype), v)
