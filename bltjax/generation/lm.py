"""Token and byte LMs that go on where they were."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bltjax.generation import rings
from bltjax.models.layers import rms_norm


class State(NamedTuple):
    n_B: jax.Array  # positions done
    rings: tuple


@dataclasses.dataclass(frozen=True)
class LM:
    """config: a frozen transformer config. capacity: positions at most; most: positions that may come at once."""
    config: object
    capacity: int
    most: int

    def prepare(self, params):
        """Parameters as these functions want them."""
        dtype = self.config.dtype
        return {"embed": params["embed"], "layers": rings.stacked(params["blocks"], dtype), "norm": params["norm"]["scale"],
                "head": rings.matrix(params["head"]["kernel"], dtype)}

    def begin(self, B: int) -> State:
        c = self.config
        R = rings.slots(c.window, self.capacity, self.most)
        return State(jnp.zeros((B,), jnp.int32), rings.begin(c.layers, B, c.heads, c.width // c.heads, R, c.dtype))

    def forward(self, params, state: State, ids_BxC, count_B):
        """(float32 logits [B,C,V], state with the rings written; `commit` moves it on, what it keeps)."""
        c = self.config
        where = rings.at(state.n_B, count_B, ids_BxC.shape[1])
        x = params["embed"].at[ids_BxC].get(mode="clip").astype(c.dtype)
        rope = rings.rope(self.capacity, c.width, c.heads, c.rope_theta, c.rope_scaling)
        x, kept, _ = rings.extend(params["layers"], state.rings, x, where, c.heads, c.window, c.norm_eps, rope)
        logits = jnp.matmul(rms_norm(x, params["norm"], c.norm_eps), params["head"], preferred_element_type=jnp.float32)
        return logits, state._replace(rings=kept), None

    def commit(self, state: State, _, kept_B) -> State:
        """The state after the first `kept` of the ids that came in last."""
        return state._replace(n_B=state.n_B + kept_B)


def entropies(logits):
    """Nats, float32, over all ids."""
    log_p = jax.nn.log_softmax(logits, axis=-1)
    return -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)
