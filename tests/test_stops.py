"""How a run ends before its last step, or at it: numbers that are not finite, signals, rows that fail. What a
checkpoint has is never lost, and the run goes on as if nothing had been."""

import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_run import STEPS, FailingAt, TinyRows, bigram_nats, bigram_params, run

from bltjax.data import feed
from bltjax.errors import RunFailed
from bltjax.training import checkpoint, loop, metrics


def test_loss_that_is_not_finite_stops_with_the_good_checkpoint_kept(tmp_path):
    poison = TinyRows().batch(14)["tokens"]

    def poisoned(model_config, params, batch):
        sums = bigram_nats(model_config, params, batch)
        return {**sums, "loss": jnp.where((batch["tokens"] == poison).all(), jnp.nan, sums["loss"])}

    with pytest.raises(RunFailed, match=r"step 15: loss \(nan\).*last good checkpoint is step 12"):
        run(tmp_path, loss_fn=poisoned)
    lines = metrics.read(tmp_path / "metrics.jsonl")
    assert lines[-1]["step"] == 14 and checkpoint.newest_whole(tmp_path) == 12


def test_state_that_is_not_finite_is_never_saved(tmp_path):
    params = {**bigram_params(), "unread": np.full(2, np.inf, np.float32)}  # loss and gradient stay finite
    with pytest.raises(RunFailed, match="step 6: parameters"):
        run(tmp_path, init_params=params)
    assert checkpoint.newest_whole(tmp_path) is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_saves_and_stops_and_the_run_goes_on(tmp_path, number):
    before = signal.getsignal(number)
    stops = 10 - feed.AHEAD  # the batch of step 10 is read, and the signal sent, so many steps before
    with pytest.raises(loop.Interrupted, match=rf"stopped by {number.name} after step {stops} of {STEPS}"):
        run(tmp_path / "a", rows=FailingAt(9, lambda: os.kill(os.getpid(), number)))
    assert signal.getsignal(number) == before and checkpoint.newest_whole(tmp_path / "a") == stops
    resumed, whole = run(tmp_path / "a"), run(tmp_path / "b")
    assert jax.tree.all(jax.tree.map(np.array_equal, resumed, whole))
    assert same_lines(tmp_path / "a", tmp_path / "b")


def test_a_signal_while_the_last_checkpoint_is_written_costs_nothing(tmp_path, monkeypatch):
    """It is still taken: the process ends when the checkpoint is whole, not before."""
    wait, killed = checkpoint.Checkpoints.wait, []

    def slowly(self):
        if self._writing and self._writing[0] == STEPS:
            os.kill(os.getpid(), signal.SIGTERM)
        wait(self)

    monkeypatch.setattr(checkpoint.Checkpoints, "wait", slowly)
    before = signal.signal(
        signal.SIGTERM, lambda *_: killed.append(True)
    )  # stands for the end of the process
    try:
        with pytest.raises(loop.Interrupted, match=f"SIGTERM after step {STEPS} of {STEPS}; saved"):
            run(tmp_path / "a")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not killed and checkpoint.newest_whole(tmp_path / "a") == STEPS


def same_lines(a, b):
    a, b = (
        [
            {k: v for k, v in line.items() if k not in metrics.WALL_CLOCK}
            for line in metrics.read(d / "metrics.jsonl")
        ]
        for d in (a, b)
    )
    return a == b


def test_failure_of_the_rows_loses_only_what_no_checkpoint_had(tmp_path):
    def fail():
        raise OSError("the data went away")

    with pytest.raises(OSError, match="went away"):
        run(tmp_path / "a", rows=FailingAt(15, fail))
    assert checkpoint.newest_whole(tmp_path / "a") == 12
    run(tmp_path / "a")
    run(tmp_path / "b")
    assert same_lines(tmp_path / "a", tmp_path / "b")
