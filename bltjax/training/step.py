"""One training step: a pure, jitted function of (state, batch)."""

import jax
import jax.numpy as jnp
import optax

from bltjax import models
from bltjax.errors import UserError
from bltjax.parallel import sharding
from bltjax.training import optimizer, outliers
from bltjax.training.state import TrainState


def init_state(train, steps: int, params) -> TrainState:
    """State before the first update."""
    inner = optimizer.optimizer(train, steps).init(params)
    opt_state = outliers.around(inner) if train.skip_outliers else inner
    return TrainState(params, opt_state, jnp.zeros((), jnp.int32))


def model_nats(model_config, params, batch):
    """The models' own loss. Imported late: a training step with another loss needs no model."""
    from bltjax.models import loss

    return loss.nats(model_config, params, batch)


def make_step(model_config, train, steps: int, loss_fn=model_nats, mesh=None):
    """The jitted `(state, batch) -> (state, metrics)`; it takes the state's memory over, so use the returned
    one only.

    mesh: the state it takes and gives is laid out by `sharding.state_shardings`, a batch by
    `sharding.batch_sharding`; metrics are on every device. The numbers are those of one device, up to the
    order of sums.

    loss_fn(model_config, params, batch) -> dict of float32 sums over the batch: loss (nats over all targets),
    byte_nats, bytes, eos_nats, ... (bltjax.models.loss.nats). What is minimised is the loss per target of the
    whole batch, however many microbatches `train.accumulate` cuts it into: rows with few targets weigh no
    more in one cut than in another.

    metrics: float32 [] each: loss (nats per target), grad_norm (before clipping), lr (of this update), finite
    (bool), and loss_fn's other sums; with train.skip_outliers also skipped and in_a_row, int32
    (training/outliers.py). Raises UserError at the first call if the rows cannot be cut evenly."""
    opt = optimizer.optimizer(train, steps, models.kind(model_config).step_scales(model_config))
    lr = optimizer.schedule(train, steps)
    parts = train.accumulate

    def loss_share(params, batch, targets):
        sums = loss_fn(model_config, params, batch)
        return sums["loss"] / targets, sums

    gradient = jax.grad(loss_share, has_aux=True)

    def accumulated(params, batch, targets):
        rows = batch["loss_mask"].shape[0]
        if rows % parts:
            raise UserError(
                f"train.accumulate: {rows} rows a batch cannot be cut into {parts} equal microbatches"
            )
        # Strided, not consecutive, rows: where a batch is spread over devices, every device works in every
        # microbatch.
        micro = jax.tree.map(lambda x: x.reshape(rows // parts, parts, *x.shape[1:]).swapaxes(0, 1), batch)

        def add(total, one):
            grads, sums = jax.tree.map(
                jnp.add, total, gradient(params, jax.tree.map(sharding.rows, one), targets)
            )
            return (laid_out(grads), sums), None

        shapes = jax.eval_shape(gradient, params, jax.tree.map(lambda x: x[0], micro), targets)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return jax.lax.scan(add, (laid_out(zeros[0]), zeros[1]), micro)[0]

    def laid_out(grads):
        return (
            grads
            if mesh is None
            else jax.lax.with_sharding_constraint(grads, sharding.state_shardings(mesh, grads))
        )

    def step(state, batch):
        with sharding.active(mesh):
            return update(state, batch)

    def update(state, batch):
        targets = jnp.maximum(batch["loss_mask"].sum(), 1).astype(jnp.float32)
        grads, sums = (gradient if parts == 1 else accumulated)(state.params, batch, targets)
        guarded = train.skip_outliers
        inner = state.opt_state.inner if guarded else state.opt_state
        updates, opt_state = opt.update(grads, inner, state.params)
        norm = optax.tree.norm(grads)
        loss = sums["loss"] / targets
        metrics = {
            **sums,
            "loss": loss,
            "grad_norm": norm,
            "lr": lr(state.step),
            "finite": jnp.isfinite(loss) & jnp.isfinite(norm),
        }
        params = optax.apply_updates(state.params, updates)
        if guarded:
            skip, opt_state = outliers.after(state.opt_state, opt_state, loss, norm)
            params = jax.tree.map(lambda old, new: jnp.where(skip, old, new), state.params, params)
            metrics |= {"skipped": opt_state.skipped, "in_a_row": opt_state.in_a_row}
        return TrainState(params, opt_state, state.step + 1), metrics

    if mesh is None:
        return jax.jit(step, donate_argnums=0)
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    like = jax.eval_shape(lambda: init_state(train, steps, models.init(model_config, jax.random.key(0))))
    layout = sharding.state_shardings(mesh, like)
    return jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(layout, sharding.batch_sharding(mesh)),
        out_shardings=(layout, everywhere),
    )
