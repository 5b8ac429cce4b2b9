"""Updates that are skipped: of a loss or a gradient norm that is not finite, or far above the recent ones
(`train.skip_outliers`). One bad batch then costs its step and not the run.

The recent ones are part of the optimizer's state, so that a checkpoint has them and a resumed run decides as
an uninterrupted one. The schedule of the learning rate follows the steps, skipped ones included; weights and
moments stay as they were.

Far is robust: SPREADS times the median absolute deviation (as of a normal distribution) above the median, of
logarithms, so that one rule serves both numbers and any unit. A fall is never an outlier."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

WINDOW, LEAST = 128, 32  # updates that are remembered; so many before any is called far
SPREADS = 6.0
NARROWEST = 0.01  # least spread, of logarithms: less than 6% above the median is never far
MOST_IN_A_ROW = 20  # skipped, after which a run ends: it has left the road


class Recent(NamedTuple):
    """The updates before, and the optimizer's own state."""

    inner: Any  # optax
    logs: jax.Array  # float32 [WINDOW, 2]: of loss and gradient norm, of updates that were made
    made: jax.Array  # int32 []: how many those are in all
    skipped: jax.Array  # int32 []
    in_a_row: jax.Array  # int32 []: skipped ones since the last that was made


def around(inner) -> Recent:
    """Before the first update."""
    none = lambda: jnp.zeros((), jnp.int32)  # an array of its own each: the step takes their memory over
    return Recent(inner, jnp.zeros((WINDOW, 2), jnp.float32), none(), none(), none())


def skips(before: Recent, loss, norm):
    """(whether this update is skipped: bool [], the logarithms of both: float32 [2]). loss, norm: float32
    []."""
    logs = jnp.log(jnp.maximum(jnp.stack([loss, norm]), jnp.finfo(jnp.float32).tiny))
    known = (jnp.arange(WINDOW) < before.made)[:, None]
    seen = jnp.where(known, before.logs, jnp.nan)
    middle = jnp.nanmedian(seen, axis=0)
    spread = 1.4826 * jnp.nanmedian(jnp.abs(seen - middle[None]), axis=0)
    far = logs > middle + SPREADS * jnp.maximum(spread, NARROWEST)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    return ~finite | ((before.made >= LEAST) & far.any()), logs


def after(before: Recent, inner, loss, norm):
    """(whether the update is skipped, the state after it). inner: the optimizer's state after it, if it were
    made."""
    skip, logs = skips(before, loss, norm)
    schedule = lambda x: isinstance(x, optax.ScaleByScheduleState)
    choose = lambda old, new: new if schedule(new) else jnp.where(skip, old, new)
    kept = jax.tree.map(choose, before.inner, inner, is_leaf=schedule)
    place = before.made % WINDOW
    row = jnp.where(skip, before.logs[place], logs)
    return skip, Recent(
        kept,
        before.logs.at[place].set(row),
        before.made + ~skip,
        before.skipped + skip,
        jnp.where(skip, before.in_a_row + 1, 0),
    )
