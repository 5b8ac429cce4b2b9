"""Updates that are skipped: one bad batch costs its step, and nothing else is another run's."""

import math
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_run import STEPS, FailingAt, TinyRows, bigram_nats, bigram_params, run, tiny_config

from bltjax import config as configs
from bltjax.errors import RunFailed
from bltjax.training import checkpoint, metrics, outliers
from bltjax.training.step import init_state

HERE = pathlib.Path(__file__).parent
SKIPPING = tiny_config(**{"train.skip_outliers": True})


def poisoned(step, value=jnp.nan):
    """A loss that is `value` times too large on the batch of a step."""
    tokens = TinyRows().batch(step - 1)["tokens"]

    def nats(model_config, params, batch):
        sums = bigram_nats(model_config, params, batch)
        hit = (batch["tokens"] == tokens).all()
        return {**sums, "loss": sums["loss"] * jnp.where(hit, value, 1.0)}

    return nats


def lines(run_dir):
    found = metrics.read(run_dir / "metrics.jsonl")
    return [{k: v for k, v in line.items() if k not in metrics.WALL_CLOCK} for line in found]


def same(a, b):
    return lines(a) == lines(b) and jax.tree.all(
        jax.tree.map(np.array_equal, checkpoint.load_params(a), checkpoint.load_params(b))
    )


def state_of(run_dir):
    like = jax.eval_shape(lambda: init_state(SKIPPING.train, STEPS, bigram_params()))
    return checkpoint.restore(run_dir, checkpoint.newest_whole(run_dir), like)[0]


def test_a_loss_that_is_not_finite_is_skipped_and_its_batch_is_gone(tmp_path):
    run(tmp_path, SKIPPING, loss_fn=poisoned(9))
    found = lines(tmp_path)
    assert [line["step"] for line in found] == list(range(1, STEPS + 1))
    assert [line["skipped"] for line in found] == [0] * 8 + [1] * (STEPS - 8)
    assert found[8]["loss"] is None and found[8]["grad_norm"] is None and found[9]["loss"] > 0
    state = state_of(tmp_path)
    assert int(state.step) == STEPS and int(state.opt_state.made) == STEPS - 1
    # the learning rate follows the steps, Adam's moments the updates that were made
    (adam,) = optax.tree_utils.tree_get_all_with_path(
        state.opt_state.inner, "count", lambda path, _: "ScaleByAdamState" in str(path)
    )
    counts = [int(value) for _, value in optax.tree_utils.tree_get_all_with_path(state.opt_state, "count")]
    assert int(adam[1]) == STEPS - 1 and sorted(counts) == [STEPS - 1, STEPS]


def test_a_run_in_which_nothing_is_far_is_the_run_without_it(tmp_path):
    run(tmp_path / "a", SKIPPING)
    run(tmp_path / "b")
    params = [checkpoint.load_params(tmp_path / name) for name in "ab"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), *params)
    for a, b in zip(lines(tmp_path / "a"), lines(tmp_path / "b")):
        assert a.pop("skipped") == 0 and a["loss"] == pytest.approx(b["loss"], rel=1e-5)


def test_stopped_and_resumed_it_is_the_uninterrupted_run_to_the_bit(tmp_path, monkeypatch):
    """Past the window's first filling, with a loss that is finite and far, on either side of a stop."""
    monkeypatch.setattr(outliers, "LEAST", 4)

    def fail():
        raise OSError("stopped here")

    options = dict(config=SKIPPING, loss_fn=poisoned(15, 40.0))
    with pytest.raises(OSError):
        run(tmp_path / "a", rows=FailingAt(17, fail), **options)
    assert checkpoint.newest_whole(tmp_path / "a") == 12
    run(tmp_path / "a", **options)
    run(tmp_path / "b", **options)
    assert same(tmp_path / "a", tmp_path / "b") and lines(tmp_path / "a")[-1]["skipped"] == 1
    with pytest.raises(OSError):
        run(tmp_path / "c", rows=FailingAt(21, fail), **options)
    assert checkpoint.newest_whole(tmp_path / "c") == 18
    run(tmp_path / "c", **options)
    assert same(tmp_path / "c", tmp_path / "b")


def test_what_stays_bad_ends_the_run_in_a_clear_line(tmp_path):
    def broken(model_config, params, batch):
        sums = bigram_nats(model_config, params, batch)
        return {**sums, "loss": sums["loss"] * jnp.nan}

    with pytest.raises(RunFailed, match="step 20: 20 updates in a row were skipped, by loss .nan.*step 18"):
        run(tmp_path, SKIPPING, loss_fn=broken)


def test_checkpoints_and_names_from_before_the_key_are_those_of_runs_without_it(tmp_path, monkeypatch):
    described = checkpoint.Checkpoints.save

    def without(self, step, state, about):
        train = {k: v for k, v in about["config"]["train"].items() if k not in ("skip_outliers", "watchdog")}
        described(self, step, state, {**about, "config": {**about["config"], "train": train}})

    with monkeypatch.context() as before:
        before.setattr(checkpoint.Checkpoints, "save", without)
        with pytest.raises(OSError):
            run(tmp_path / "a", rows=FailingAt(15, lambda: (_ for _ in ()).throw(OSError("stopped"))))
    run(tmp_path / "a")
    run(tmp_path / "b")
    assert same(tmp_path / "a", tmp_path / "b")
    assert not {"skip_outliers", "watchdog"} & configs.identified(tiny_config())["train"].keys()
    assert configs.identified(SKIPPING)["train"]["skip_outliers"] is True


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_far_is_robust_and_has_no_unit(scale):
    rng = np.random.default_rng(0)
    before = outliers.around(())
    after = jax.jit(lambda before, loss, norm: outliers.after(before, (), loss, norm))
    bad, skipped = {40, 41, 90, 300}, set()
    for i in range(400):
        loss, norm = scale * 2.0 * np.exp(rng.normal(0, 0.02, 2)) * [1.0, 3.0]
        if i in bad:
            loss, norm = (loss * 1.5, norm) if i % 2 else (loss, norm * 3)
        skip, before = after(before, jnp.float32(loss), jnp.float32(norm))
        skipped |= {i} if skip else set()
    assert skipped == bad and int(before.made) == 396 and int(before.skipped) == 4


def test_a_loss_that_falls_or_stands_still_is_no_outlier():
    before = outliers.around(())
    after = jax.jit(lambda before, loss: outliers.after(before, (), loss, jnp.float32(0.0)))
    for loss in [*np.linspace(10, 2, 100), *[2.0] * 200, 2.05, 1e-3, 0.0]:
        skip, before = after(before, jnp.float32(loss))
        assert not skip
    assert after(before, jnp.float32(math.inf))[0]


SHARDED = """
import jax
jax.config.update("jax_num_cpu_devices", 4)
import jax.numpy as jnp, numpy as np
from bltjax import models
from bltjax.parallel import sharding
from bltjax.training import outliers, step
from test_outliers import SKIPPING, STEPS, TinyRows
outliers.LEAST = 2
def poisoned(model_config, params, batch):
    sums = step.model_nats(model_config, params, batch)
    return {**sums, "loss": sums["loss"] * batch["times"][0, 0]}
def trained(mesh):
    train = SKIPPING.train
    state = step.init_state(train, STEPS, models.init(SKIPPING.model, jax.random.key(0)))
    if mesh:
        state = jax.device_put(state, sharding.state_shardings(mesh, state))
    update = step.make_step(SKIPPING.model, train, STEPS, poisoned, mesh=mesh)
    said = []
    for i, times in enumerate([1, 1, 1, np.nan, 1, 30, 1]):
        batch = {**TinyRows().batch(i), "times": np.full((4, 16), times, np.float32)}
        if mesh:
            batch = jax.device_put(batch, sharding.batch_sharding(mesh))
        state, found = update(state, batch)
        said.append((int(found["skipped"]), float(found["loss"])))
    return said, state
said, state = trained(sharding.make_mesh((1, 2, 2)))
whole, _ = trained(None)
assert [count for count, _ in said] == [count for count, _ in whole] == [0, 0, 0, 1, 1, 2, 2], (said, whole)
np.testing.assert_allclose([x for _, x in said], [x for _, x in whole], rtol=1e-4)
assert state.opt_state.logs.is_fully_replicated and len(state.opt_state.logs.devices()) == 4
"""


def test_on_a_mesh_the_same_updates_are_skipped():
    ended = subprocess.run(
        [sys.executable, "-c", SHARDED],
        env={**os.environ, "PYTHONPATH": f"{HERE}:{HERE.parent}"},
        capture_output=True,
        encoding="utf-8",
    )
    assert ended.returncode == 0, ended.stderr
