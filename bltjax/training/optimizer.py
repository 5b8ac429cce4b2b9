"""AdamW and its learning rate: the paper's numbers (defaults of config.training) and the rules that carry
them to shorter runs."""

import jax
import jax.numpy as jnp
import optax

from bltjax import config as configs
from bltjax.errors import UserError

SCHEDULES = ("cosine", "wsd", "constant")


def warmup_steps(train, steps: int) -> int:
    """Steps of linear warm-up: as configured, or for -1 min(2000, 10% of the steps), at least 1.

    The paper warms up for 2000 steps (section 4.8), which is 10% of a run of 20,000; shorter runs keep that
    share."""
    return train.warmup if train.warmup >= 0 else max(1, min(2000, steps // 10))


def decay_start(train, steps: int) -> int:
    """Updates done when the learning rate begins to fall: a state of this step or earlier (past warm-up)
    knows nothing of `steps`."""
    if train.schedule == "wsd":
        return steps - round(train.decay * steps)
    return steps if train.schedule == "constant" else min(warmup_steps(train, steps), steps)


def schedule(train, steps: int):
    """Learning rate as a pure function of the number of updates done: int32 [] -> float32 [].

    Warm-up ends at `lr` in its last step. cosine falls to final_lr · lr at `steps`; wsd stays, then falls
    linearly from decay_start. Both reach the floor one step after the last update, so that no update is spent
    at a rate of zero."""
    if train.schedule not in SCHEDULES:
        raise UserError(f"train.schedule: unknown {train.schedule!r}; allowed: {', '.join(SCHEDULES)}")
    if steps < 1:
        raise UserError(f"a run needs at least one step, not {steps}")
    if not 0 <= train.decay <= 1:
        raise UserError(f"train.decay is a fraction of the steps, 0 to 1, not {train.decay}")
    warmup, start = warmup_steps(train, steps), decay_start(train, steps)

    def lr(done):
        done = jnp.asarray(done, jnp.float32)
        rise = jnp.minimum(1.0, (done + 1) / warmup) if warmup else 1.0
        gone = jnp.clip((done - start) / max(1, steps - start), 0.0, 1.0)  # of the decay
        fall = {
            "cosine": lambda: 0.5 + 0.5 * jnp.cos(jnp.pi * gone),
            "wsd": lambda: 1 - gone,
            "constant": lambda: jnp.float32(1),
        }
        return jnp.float32(train.lr) * rise * (train.final_lr + (1 - train.final_lr) * fall[train.schedule]())

    return lr


def optimizer(train, steps: int, step_scales=None) -> optax.GradientTransformation:
    """Clip by global norm, then AdamW.

    step_scales: {path: factor} of Adam's steps below a path (`models`), without weight decay: a parameter
    that is divided by a constant where it is used, starts as many times larger and takes steps as many times
    larger is, up to rounding, the parameter itself, if its decay stays what it is. (Adam does not see the
    gradient's scale. Two things do: clipping, which counts the smaller gradient, and eps.) The state is the
    same with and without them.

    Weight decay reaches every parameter, gains of norms and hash tables too, as in the paper's and the
    released code: rows of a table that no n-gram hit in a step decay as well."""
    adam = optax.scale_by_adam(b1=train.beta1, b2=train.beta2, eps=train.eps)
    larger = scaled(step_scales or {})

    def directions(grads, state, params=None):
        steps_taken, state = adam.update(grads, state, params)
        return larger.update(steps_taken, optax.EmptyState())[0], state

    adamw = optax.chain(
        optax.GradientTransformation(adam.init, directions) if step_scales else adam,
        optax.add_decayed_weights(train.weight_decay),
        optax.scale_by_learning_rate(schedule(train, steps)),
    )
    parts = [clipped(train.clip)] if train.clip else []
    parts += [adamw] + ([scaled(configs.lr_scales(train))] if train.lr_scale else [])
    return optax.chain(*parts) if len(parts) > 1 else adamw


def clipped(most: float) -> optax.GradientTransformation:
    """Gradients scaled to a global norm of at most `most`.

    optax.clip_by_global_norm, up to rounding; but that divides each element, and XLA's CPU backend then
    writes and compiles the clipped gradient of every parameter by itself, where a product goes into what
    reads it: 2.3 instead of 3.9 s to compile the update of a small BLT, and a sixth less to run it."""

    def update(updates, state, params=None):
        factor = most / jnp.maximum(optax.tree.norm(updates), most)  # 1, exactly, of what is not longer
        return jax.tree.map(lambda leaf: leaf * factor.astype(leaf.dtype), updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def scaled(factors: dict[str, float]) -> optax.GradientTransformation:
    """Multiplies the updates of parameters below each path: another learning rate for them, in weight decay
    too. The longest path counts.

    UserError for a path that no parameter has.
    """

    def update(updates, state, params=None):
        unused = set(factors)

        def own(path, leaf):
            name = "/".join(key.key for key in path) + "/"
            fits = [prefix for prefix in factors if name.startswith(prefix + "/")]
            unused.difference_update(fits)
            return leaf * factors[max(fits, key=len)] if fits else leaf

        updates = jax.tree_util.tree_map_with_path(own, updates)
        if unused:
            raise UserError(
                f"train.lr_scale: no parameter is below {', '.join(sorted(unused))}; the model has"
                f" {', '.join(sorted(updates))}"
            )
        return updates, state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
