"""Optimizer rules, the step, metrics and the loop, on a model that trains in milliseconds."""

import json
import math
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_run import FailingAt, TinyRows, bigram_nats, bigram_params, run, tiny_config

from bltjax import config as configs
from bltjax import models
from bltjax.errors import RunFailed, UserError
from bltjax.training import checkpoint, loop, metrics, optimizer
from bltjax.training.step import init_state, make_step


def train_config(**changes):
    return configs.replace(configs.training(), **changes)


def rates(train, steps):
    return np.asarray(jax.vmap(optimizer.schedule(train, steps))(jnp.arange(steps)), np.float64)


def test_warmup_rule():
    default = train_config()
    assert [optimizer.warmup_steps(default, n) for n in (1, 9, 100, 20_000, 500_000)] == [
        1,
        1,
        10,
        2000,
        2000,
    ]
    assert optimizer.warmup_steps(train_config(warmup=7), 100) == 7


def test_cosine_rises_to_lr_and_falls_to_its_floor():
    lr = rates(train_config(lr=1.0, final_lr=0.1), 200)
    assert np.allclose(lr[:20], np.arange(1, 21) / 20) and np.all(np.diff(lr[20:]) < 0)
    assert lr[20] == 1 and lr[110] == pytest.approx(0.55) and 0.1 < lr[-1] < 0.101


def test_wsd_stays_then_falls_linearly():
    train = train_config(lr=1.0, schedule="wsd", decay=0.25)
    lr = rates(train, 100)
    assert optimizer.decay_start(train, 100) == 75
    assert (
        np.all(lr[9:76] == 1)
        and np.allclose(np.diff(lr[75:]), -1 / 25, atol=1e-6)
        and lr[-1] == pytest.approx(1 / 25)
    )


def test_stable_phase_does_not_know_the_number_of_steps():
    train = train_config(schedule="wsd", warmup=5)
    assert np.array_equal(rates(train, 100)[:41], rates(train, 50)[:41])


def test_constant_and_bad_schedules():
    assert np.all(rates(train_config(schedule="constant", warmup=0, lr=3e-4), 10) == np.float32(3e-4))
    for changes in ({"schedule": "linear"}, {"decay": 1.5}):
        with pytest.raises(UserError):
            optimizer.schedule(train_config(**changes), 10)
    with pytest.raises(UserError):
        optimizer.schedule(train_config(), 0)


def test_weight_decay_reaches_parameters_without_gradient():
    opt = optimizer.optimizer(train_config(lr=0.1, warmup=1, schedule="constant"), 10)
    params = {"table": jnp.ones((3, 2)), "gain": jnp.ones(2)}
    updates, _ = opt.update(jax.tree.map(jnp.zeros_like, params), opt.init(params), params)
    assert np.allclose(updates["table"], -0.01) and np.allclose(updates["gain"], -0.01)


@pytest.mark.parametrize("size", [1e-3, 0.3, 5.0])  # times 3: the norm
def test_gradients_are_clipped_by_their_norm_over_all_parameters(size):
    grads = {"a": size * jnp.arange(3, dtype=jnp.float32), "b": {"c": -size * jnp.ones((2, 2))}}
    own = optimizer.clipped(1.0).update(grads, optax.EmptyState())[0]
    want = optax.clip_by_global_norm(1.0).update(grads, optax.EmptyState())[0]
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), own, want)
    assert float(optax.tree.norm(own)) == pytest.approx(min(1, 3 * size), rel=1e-6)
    if size < 1 / 3:
        jax.tree.map(np.testing.assert_array_equal, own, grads)  # to the bit


def test_clipping_hides_no_gradient_that_is_not_finite():
    own = optimizer.clipped(1.0).update({"a": jnp.array([1.0, jnp.nan])}, optax.EmptyState())[0]
    assert not np.isfinite(own["a"]).any()


def states(train, accumulate, batches):
    config = tiny_config()
    train = configs.replace(train, accumulate=accumulate)
    state = init_state(train, 10, jax.tree.map(jnp.array, bigram_params()))
    step, out = make_step(config.model, train, 10, bigram_nats), []
    for batch in batches:
        state, results = step(state, batch)
        out.append({k: float(v) for k, v in results.items()})
    return state, out


def test_accumulation_is_one_big_batch():
    batches = [TinyRows().batch(i) for i in range(3)]  # rows hold different numbers of targets
    whole, whole_metrics = states(train_config(), 1, batches)
    for parts in (2, 4):
        cut, cut_metrics = states(train_config(), parts, batches)
        for a, b in zip(whole_metrics, cut_metrics):
            assert a == pytest.approx(b, rel=1e-4)
        # Adam divides by the gradient's size, so compare the accumulated first moments, not the parameters.
        for a, b in zip(
            jax.tree.leaves(optax.tree_utils.tree_get(whole.opt_state, "mu")),
            jax.tree.leaves(optax.tree_utils.tree_get(cut.opt_state, "mu")),
        ):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)
    with pytest.raises(UserError, match="3 equal"):
        states(train_config(), 3, batches)


def test_step_metrics_are_of_the_state_given():
    config, batch = tiny_config(), TinyRows().batch(0)
    state = init_state(config.train, 10, models.init(config.model, jax.random.key(0)))
    from bltjax.models import loss

    sums = jax.jit(lambda params: loss.nats(config.model, params, batch))(state.params)
    new, results = make_step(config.model, config.train, 10)(state, batch)
    assert float(results["loss"]) == pytest.approx(float(sums["loss"] / sums["targets"]), rel=1e-6)
    assert float(results["lr"]) == pytest.approx(1e-2) and bool(results["finite"]) and int(new.step) == 1
    assert float(results["bytes"]) == (batch["loss_mask"] * batch["target_bytes"]).sum()


def test_run_learns_and_its_lines_are_complete(tmp_path):
    params = run(tmp_path, steps=40, real=True)
    lines = metrics.read(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, 41)) and lines[-1]["loss"] < 0.5 * lines[0][
        "loss"
    ]
    counts = TinyRows().counts(40)
    assert [line["bytes"] for line in lines] == np.cumsum(counts["bytes"]).tolist()
    assert lines[-1]["executed_flops"] == 40 * 2e6 and lines[-1]["useful_flops"] == pytest.approx(40 * 1.15e6)
    wanted = {
        "step",
        "loss",
        "bpb",
        "bytes",
        "patch_size",
        "useful_flops",
        "executed_flops",
        "grad_norm",
        "lr",
        "packing_bytes",
        "packing_patches",
        *metrics.WALL_CLOCK,
    }
    assert all(
        set(line) == wanted and all(v is None or math.isfinite(v) for v in line.values()) for line in lines
    )
    assert [x["packing_bytes"] for x in lines] == (counts["slots"] / TinyRows.capacity["slots"]).tolist()
    assert [x["patch_size"] for x in lines] == (counts["bytes"] / counts["slots"]).tolist() and lines[0][
        "packing_patches"
    ] is None
    assert jax.tree.all(jax.tree.map(np.array_equal, params, checkpoint.load_params(tmp_path)))
    assert checkpoint.steps(tmp_path) == [36, 40]


class PatchedRows(TinyRows):
    capacity = {**TinyRows.capacity, "patches": 32}

    def counts(self, steps):
        return {**super().counts(steps), "patches": np.arange(steps) % 32 + 1}


def test_patches_are_counted_where_there_are_any(tmp_path):
    run(tmp_path, rows=PatchedRows(), steps=3)
    lines, slots = metrics.read(tmp_path / "metrics.jsonl"), TinyRows().counts(3)["slots"]
    assert [x["packing_patches"] for x in lines] == [1 / 32, 2 / 32, 3 / 32]
    assert [x["patch_size"] for x in lines] == (slots / [1, 2, 3]).tolist()


def test_log_every_keeps_the_last(tmp_path):
    run(tmp_path, tiny_config(**{"train.log_every": 10}))
    assert [line["step"] for line in metrics.read(tmp_path / "metrics.jsonl")] == [10, 20, 24]


def saves_after(steps, minutes_a_step, monkeypatch, **changes):
    """The steps after which a run saves whose steps take so long."""
    now = [0.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: now[0])
    saves = loop.Saves(train_config(**changes), steps)
    found = []
    for step in range(1, steps + 1):
        now[0] += 60 * minutes_a_step
        if saves.after(step):
            found.append(step)
    return found


def test_checkpoints_by_time_and_by_steps(monkeypatch):
    assert saves_after(100, 0.1, monkeypatch) == [100]  # ten minutes in all
    assert saves_after(100, 1, monkeypatch) == [30, 60, 90, 100]
    assert saves_after(6, 45, monkeypatch) == [1, 2, 3, 4, 5, 6]
    assert saves_after(100, 1, monkeypatch, checkpoint_minutes=50.0) == [50, 100]
    assert saves_after(100, 1, monkeypatch, checkpoint_every=40) == [40, 80, 100]


def test_finished_run_returns_at_once(tmp_path):
    params = run(tmp_path)
    text = (tmp_path / "metrics.jsonl").read_text()
    again = run(tmp_path, rows=FailingAt(0, lambda: pytest.fail("a batch was asked for")))
    assert (
        jax.tree.all(jax.tree.map(np.array_equal, params, again))
        and (tmp_path / "metrics.jsonl").read_text() == text
    )


def test_resuming_as_another_run_is_refused(tmp_path):
    run(tmp_path, steps=12)
    for changes, steps in (({"train.lr": 3e-3}, 12), ({"seed": 1}, 12), ({"data.seed": 5}, 12), ({}, 24)):
        with pytest.raises(UserError, match="another run"):
            run(tmp_path, tiny_config(**changes), steps=steps)
    run(tmp_path, tiny_config(**{"train.keep": 5}), steps=12)


def wsd(**changes):
    return tiny_config(
        **{"train.schedule": "wsd", "train.warmup": 3, "train.decay": 0.25, "train.keep": 0, **changes}
    )


def test_branch_continues_the_stable_phase(tmp_path):
    run(tmp_path / "long", wsd(), steps=40)  # checkpoints 6, 12, 18, 24, 30, 36, 40
    run(tmp_path / "short", wsd(), steps=20)  # decays from 15 on
    whole = metrics.read(tmp_path / "short" / "metrics.jsonl")
    for name, where, first in (("a", tmp_path / "long", 12), ("b", f"{tmp_path / 'long'}@6", 6)):
        branched = run(tmp_path / name, wsd(**{"train.branch_from": str(where)}), steps=20)
        lines = metrics.read(tmp_path / name / "metrics.jsonl")
        assert [line["step"] for line in lines] == list(range(first + 1, 21))
        assert [(x["loss"], x["lr"], x["bytes"]) for x in lines] == [
            (x["loss"], x["lr"], x["bytes"]) for x in whole[first:]
        ]
        assert jax.tree.all(
            jax.tree.map(np.array_equal, branched, checkpoint.load_params(tmp_path / "short"))
        )


@pytest.mark.parametrize(
    "changes,match",
    [
        ({"model.width": 8}, "model.width is 8 here, 16 there"),
        ({"data.seed": 1}, "data.seed"),
        ({"train.lr": 1e-3}, "train.lr"),
        ({"train.warmup": 4}, "warm-up has 4 steps here, 3 there"),
        ({"train.schedule": "cosine"}, "needs train.schedule wsd"),
        ({"train.branch_from": "{}@7"}, "of step 7"),
        ({"train.branch_from": "{}@18"}, "past the start"),
        ({"train.branch_from": "{}x"}, "no run"),
    ],
)
def test_branch_from_something_else_is_refused(tmp_path, long_run, changes, match):
    changes = {
        "train.branch_from": str(long_run),
        **{k: v.format(long_run) if isinstance(v, str) else v for k, v in changes.items()},
    }
    with pytest.raises(UserError, match=match):
        run(tmp_path, wsd(**changes), steps=20)


@pytest.fixture(scope="module")
def long_run(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("long")
    run(run_dir, wsd(), steps=30)
    return run_dir


def test_profile_of_a_short_run(tmp_path):
    run(tmp_path, steps=3, profile=True)
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_progress_bar_says_loss_bpb_and_rate(tmp_path, capsys):
    run(tmp_path, steps=3, progress=True)
    err = capsys.readouterr().err
    assert "loss=" in err and "bpb=" in err and "bytes_per_s=" in err and "3/3" in err


def test_tensorboard_is_an_extra(tmp_path):
    try:
        import tensorboardX  # noqa: F401
    except ImportError:
        with pytest.raises(UserError, match="tensorboard"):
            run(tmp_path, steps=3, tensorboard=True)
    else:
        run(tmp_path, steps=3, tensorboard=True)
        assert any((tmp_path / "tensorboard").iterdir())


def test_metrics_reader_forgives_a_torn_last_line_only(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert metrics.read(path) == [] and metrics.cut(path, 3) is None
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert [line["step"] for line in metrics.read(path)] == [1, 2]
    assert metrics.cut(path, 1) == {"step": 1} and path.read_text() == '{"step": 1}\n'
    path.write_text('{"step": 1}\nnonsense\n{"step": 3}\n')
    with pytest.raises(UserError, match="line 2"):
        metrics.read(path)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs the full device")
def test_full_disk_under_the_metrics_is_one_line(tmp_path):
    writer = metrics.Writer("/dev/full")
    with pytest.raises(RunFailed, match="disk full"):
        writer.write({"step": 1})
    with pytest.raises(RunFailed, match="disk full"):
        writer.close()


def test_metrics_are_json_without_nan(tmp_path):
    writer = metrics.Writer(tmp_path / "m")
    with pytest.raises(ValueError):
        writer.write({"step": 1, "loss": float("nan")})
    writer.write({"step": 1, "loss": 1 / 3})
    writer.close()
    assert json.loads((tmp_path / "m").read_text())["loss"] == 1 / 3
