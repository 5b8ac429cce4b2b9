"""Models as pure functions: `init` gives parameters, `logits` applies them. Kinds: "blt", "token", "byte".

What differs from kind to kind stands in the file of the kind, and everything else asks `kind(config)` for it:

    module(config)        the Linen module
    inputs(batch)         the arrays of a batch that it reads, in order
    example()             the smallest such arrays, for initialisation
    head(params)          the matrix [D,V] that makes scores of the module's last states
    SLOTS, PATCHES        names of a training batch's arrays of shape [B,T] (or [B,N]) and [B,P]
    UNIT                  what a slot holds: "byte" or "token"
    bytes_of_targets(batch)   raw bytes that each target stands for, int32 like `targets`
    step_scales(config)   {path: factor} of parameters whose steps are larger than the learning rate says
    check(run)            UserError, one line, for a run's config that cannot be
    stacks(config)        its transformer layers, crosses(config): its cross-attention (shapes.Stack, .Cross)
    tables(config)        its tables that are looked up where they lie (shapes.Tables)

How parameters are cut over a mesh is the table of parallel/sharding.py, which the kinds share as they share
layers; `check_mesh` asks it for a run. Caches for generation: generation/generator.py.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import FrozenConfigDict

from bltjax.errors import UserError
from bltjax.models import blt, patcher, token_lm
from bltjax.parallel import sharding

KINDS = {"blt": blt, "token": token_lm, "byte": patcher}


def kind(model_config):
    """The file that knows this kind of model. UserError for an unknown one."""
    if model_config.kind not in KINDS:
        raise UserError(f"model.kind is {model_config.kind!r}; allowed: {', '.join(KINDS)}")
    return KINDS[model_config.kind]


ONE_DRAW = 2**28  # weights of a smaller model are drawn together


def init(model_config, rng) -> dict:
    """Fresh parameters: a plain nested dict of float32 arrays, layers stacked on a leading axis.

    Norm scales are 1, weights truncated normal at three sigmas, as the released code initialises everything.
    A model's modules give the sigmas; all weights are then drawn at once: XLA compiles a draw for each weight
    of the smallest BLT in eight seconds, this in a fifth of one."""

    def fresh(key):
        sigmas = _sigmas(model_config, key)
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


def shapes_of(model_config) -> dict:
    """The parameters as jax.ShapeDtypeStruct. Nothing is computed."""
    return _shapes_of(FrozenConfigDict(model_config))


@functools.lru_cache(maxsize=8)  # a check and a count of one run: each would trace the model
def _shapes_of(model_config) -> dict:
    return jax.eval_shape(lambda: _sigmas(model_config, jax.random.key(0)))


def _sigmas(model_config, key) -> dict:
    """Every weight's standard deviation, as large as the weight; norm scales as they are."""
    own = kind(model_config)
    return own.module(model_config).init(key, *own.example())["params"]


def logits(model_config, params, batch):
    """float32 scores of the next id, [B,T,V] ([B,N,V] for tokens). batch: the arrays of docs/contracts.md for
    this kind, int32."""
    own = kind(model_config)
    return own.module(model_config).apply({"params": params}, *own.inputs(batch))


def states(model_config, params, batch):
    """What the head makes scores of, [B,T,D] ([B,N,D] for tokens), in the compute dtype: for those who need
    few of them."""
    own = kind(model_config)
    return own.module(model_config).apply({"params": params}, *own.inputs(batch), head=False)


def check_mesh(run, shape: tuple[int, int, int]) -> None:
    """UserError, in one line, if a run (`config.run`) cannot be cut over a mesh of this shape (replica, data,
    model). Nothing is computed."""
    own = kind(run.model)
    layers = (*own.stacks(run.model), *own.crosses(run.model))
    sharding.check(
        run.name,
        shape,
        heads={f"{part.key}.heads": part.heads for part in layers},
        rows=run.data.rows,
        accumulate=run.train.accumulate,
        parameters=shapes_of(run.model),
    )
