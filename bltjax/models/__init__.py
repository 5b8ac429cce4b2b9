"""Models as pure functions: `init` gives parameters, `logits` applies them. Kinds: "blt", "token", "byte"."""

import jax

from bltjax.errors import UserError
from bltjax.models import blt, byte_lm, token_lm

KINDS = {"blt": blt, "token": token_lm, "byte": byte_lm}


def family(model_config):
    """The file that knows this kind: module(config), inputs(batch), example()."""
    if model_config.kind not in KINDS:
        raise UserError(f"unknown model kind {model_config.kind!r}; allowed: {', '.join(KINDS)}")
    return KINDS[model_config.kind]


def init(model_config, rng) -> dict:
    """Fresh parameters: a plain nested dict of float32 arrays, layers stacked on a leading axis."""
    kind = family(model_config)
    module = kind.module(model_config)
    # Jitted, so that the forward pass that Linen runs to learn the shapes is dead code.
    return jax.jit(lambda key: module.init(key, *kind.example())["params"])(rng)


def logits(model_config, params, batch):
    """float32 scores of the next id, [B,T,V] ([B,N,V] for tokens). batch: the arrays of docs/contracts.md for this kind, int32."""
    kind = family(model_config)
    return kind.module(model_config).apply({"params": params}, *kind.inputs(batch))
