"""Token and entropy models that go on where they were."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import FrozenConfigDict

from bltjax.generation import kv_cache
from bltjax.models.layers import rms_norm
from bltjax.patching import vocab


class State(NamedTuple):
    n_B: jax.Array  # positions done
    caches: tuple
    # the first position that is seen: of the last newline, where a model begins anew at them; else 0
    line_B: jax.Array


@dataclasses.dataclass(frozen=True)
class LM:
    """config: a frozen transformer config. capacity: positions at most; most: positions that may come at
    once."""

    config: object
    capacity: int
    most: int

    def prepare(self, params):
        """Parameters as these functions want them."""
        dtype = self.config.dtype
        return {
            "embed": params["embed"],
            "layers": kv_cache.unstacked(params["blocks"], dtype),
            "norm": params["norm"]["scale"],
            "head": kv_cache.matrix(params["head"]["kernel"], dtype),
        }

    def weight_bytes(self, params) -> dict:
        """Bytes of weights that a pass of each module reads; look-up tables are read a few rows at a time."""
        return {"decoder": kv_cache.nbytes(params, "layers", "head")}

    def passes(self, loop) -> dict:
        """How often each module's weights were read; "bytes": ids of all rows."""
        n_B = np.asarray(loop.n_B)
        return {"decoder": int(np.max(n_B)), "bytes": int(np.sum(n_B))}

    def full(self, state: State, C: int):
        """Never: there is room for `capacity` positions from the beginning."""
        return False

    def begin(self, B: int) -> State:
        c = self.config
        R = kv_cache.slots(c.window, self.capacity, self.most)
        zeros = jnp.zeros((B,), jnp.int32)
        return State(zeros, kv_cache.begin(c.layers, B, c.heads, c.width // c.heads, R, c.dtype), zeros)

    def forward(self, params, state: State, ids_BxC, count_B):
        """(float32 logits [B,C,V], state with the caches written; `commit` moves it on, the first position
        that each of the new ones sees)."""
        c = self.config
        where = kv_cache.positions(state.n_B, count_B, ids_BxC.shape[1])
        x = params["embed"].at[ids_BxC].get(mode="clip").astype(c.dtype)
        rope = kv_cache.rope(self.capacity, c.width, c.heads, c.rope_theta, c.rope_scaling)
        first_BxC = jnp.broadcast_to(state.line_B[:, None], ids_BxC.shape)
        if c.reset:
            first_BxC = jax.lax.cummax(
                jnp.where(ids_BxC == vocab.NEWLINE, where.positions_BxC, first_BxC), axis=1
            )
        x, written, _ = kv_cache.extend(
            params["layers"],
            state.caches,
            x,
            where,
            c.heads,
            c.window,
            c.norm_eps,
            rope,
            first_BxC=first_BxC if c.reset else None,
        )
        logits = jnp.matmul(
            rms_norm(x, params["norm"], c.norm_eps), params["head"], preferred_element_type=jnp.float32
        )
        return logits, state._replace(caches=written), first_BxC

    def commit(self, state: State, first_BxC, kept_B) -> State:
        """The state after the first `kept` of the ids that came in last."""
        last = jnp.take_along_axis(first_BxC, jnp.maximum(kept_B - 1, 0)[:, None], axis=1)[:, 0]
        return state._replace(n_B=state.n_B + kept_B, line_B=jnp.where(kept_B > 0, last, state.line_B))


DRAFTS = False  # whether it can draft with a part of itself


def engine(model, capacity: int, patches: int, most: int) -> LM:
    """Of an api.Model without patches."""
    return LM(FrozenConfigDict(model.config.model), capacity, most)


def parameters(model) -> tuple:
    """What `prepare` takes."""
    return (model.params,)


def patches_expected(model, prompts: list[bytes], new_bytes: int, draft: int) -> int:
    return 0
