"""Models as pure functions: `init` gives parameters, `logits` applies them. Kinds: "blt", "token", "byte"."""

import jax
import jax.numpy as jnp
import numpy as np

from bltjax.errors import UserError
from bltjax.models import blt, patcher, token_lm

KINDS = {"blt": blt, "token": token_lm, "byte": patcher}


def family(model_config):
    """The file that knows this kind: module(config), inputs(batch), example()."""
    if model_config.kind not in KINDS:
        raise UserError(f"unknown model kind {model_config.kind!r}; allowed: {', '.join(KINDS)}")
    return KINDS[model_config.kind]


ONE_DRAW = 2**28  # weights of a smaller model are drawn together


def init(model_config, rng) -> dict:
    """Fresh parameters: a plain nested dict of float32 arrays, layers stacked on a leading axis.

    Norm scales are 1, weights truncated normal at three sigmas, as the released code initialises everything.
    A model's modules give the sigmas; all weights are then drawn at once: XLA compiles a draw for each weight
    of the smallest BLT in eight seconds, this in a fifth of one. """
    kind = family(model_config)

    def fresh(key):
        sigmas = kind.module(model_config).init(key, *kind.example())["params"]
        paths, tree = jax.tree_util.tree_flatten_with_path(sigmas)
        ends = np.cumsum([leaf.size for _, leaf in paths])
        if ends[-1] <= ONE_DRAW:
            drawn = jnp.split(jax.random.truncated_normal(key, -3.0, 3.0, (ends[-1],)), ends[:-1])
        else:
            keys = jax.random.split(key, len(paths))
            drawn = [
                jax.random.truncated_normal(k, -3.0, 3.0, (leaf.size,)) for k, (_, leaf) in zip(keys, paths)
            ]
        return tree.unflatten(
            leaf if path[-1].key == "scale" else leaf * unit.reshape(leaf.shape)
            for (path, leaf), unit in zip(paths, drawn)
        )

    return jax.jit(fresh)(rng)


def logits(model_config, params, batch):
    """float32 scores of the next id, [B,T,V] ([B,N,V] for tokens). batch: the arrays of docs/contracts.md for
    this kind, int32."""
    kind = family(model_config)
    return kind.module(model_config).apply({"params": params}, *kind.inputs(batch))
