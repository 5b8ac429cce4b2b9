"""A checkpoint is whole, or it is passed over and that is said."""

import errno
import json

import jax
import numpy as np
import pytest
from tiny_run import STEPS, bigram_params, run, tiny_config

from bltjax.errors import RunFailed, UserError
from bltjax.training import checkpoint, metrics
from bltjax.training.state import TrainState
from bltjax.training.step import init_state


def state_of(value: float) -> TrainState:
    params = jax.tree.map(lambda x: jax.numpy.full_like(x, value), bigram_params())
    return init_state(tiny_config().train, 10, params)._replace(step=jax.numpy.int32(value))


def write(run_dir, *steps, keep=0):
    saved = checkpoint.Checkpoints(run_dir, keep)
    for step in steps:
        saved.save(step, state_of(step), {"data": {"next_step": step, "seed": 0}})
    saved.close()


def largest(run_dir, step):
    return max(
        (f for f in (checkpoint.folder(run_dir) / str(step)).rglob("*") if f.is_file()),
        key=lambda f: f.stat().st_size,
    )


def flip_a_bit(run_dir, step):
    data = bytearray(largest(run_dir, step).read_bytes())
    data[len(data) // 2] ^= 4
    largest(run_dir, step).write_bytes(data)


def truncate(run_dir, step):
    largest(run_dir, step).write_bytes(largest(run_dir, step).read_bytes()[:-1])


def lose_a_file(run_dir, step):
    largest(run_dir, step).unlink()


def lose_the_manifest(run_dir, step):
    manifest(run_dir, step).unlink()


def spoil_the_manifest(run_dir, step):
    manifest(run_dir, step).write_text('{"files": ')


def lose_the_folder(run_dir, step):
    (checkpoint.folder(run_dir) / str(step)).rename(run_dir / "elsewhere")


def manifest(run_dir, step):
    return checkpoint.folder(run_dir) / f"{step}{checkpoint.MANIFEST}"


DAMAGE = {
    flip_a_bit: "checksum",
    truncate: "bytes, not",
    lose_a_file: "is missing",
    lose_the_manifest: "manifest is missing",
    spoil_the_manifest: "manifest is damaged",
    lose_the_folder: "is missing",
}


def test_what_is_saved_comes_back(tmp_path):
    write(tmp_path, 3, 7)
    like = jax.eval_shape(lambda: state_of(0))
    state, about = checkpoint.restore(tmp_path, 7, like)
    assert jax.tree.structure(state) == jax.tree.structure(like) and about["step"] == 7
    for got, want in zip(jax.tree.leaves(state), jax.tree.leaves(state_of(7)), strict=True):
        assert np.array_equal(got, want) and got.dtype == want.dtype and isinstance(got, jax.Array)
    params = checkpoint.load_params(tmp_path, 3)
    assert jax.tree.structure(params) == jax.tree.structure(bigram_params())
    assert all(isinstance(x, np.ndarray) and (x == 3).all() for x in jax.tree.leaves(params))
    assert checkpoint.load_params(tmp_path)["read"][0, 0] == 7


def test_state_may_be_donated_while_it_is_being_written(tmp_path):
    add_one = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)
    state = add_one(
        TrainState({"w": jax.numpy.zeros(3_000_000)}, {"m": jax.numpy.zeros(3_000_000)}, jax.numpy.int32(0))
    )
    saved = checkpoint.Checkpoints(tmp_path, 0)
    for step in range(1, 4):
        saved.save(step, state, {})
        for _ in range(5):
            state = add_one(state)
    saved.close()
    assert [checkpoint.load_params(tmp_path, step)["w"].tolist()[::999_999] for step in (1, 2, 3)] == [
        [1] * 4,
        [6] * 4,
        [11] * 4,
    ]


def test_keeps_the_newest(tmp_path):
    write(tmp_path, 1, 2, 3, 4, keep=2)
    assert checkpoint.steps(tmp_path) == [3, 4]
    assert sorted(p.name for p in checkpoint.folder(tmp_path).iterdir()) == [
        "3",
        "3.manifest.json",
        "4",
        "4.manifest.json",
    ]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda f: f.__name__)
def test_damage_is_found_and_said(tmp_path, capsys, damage):
    write(tmp_path, 5, 10)
    damage(tmp_path, 10)
    notes = []
    assert checkpoint.newest_whole(tmp_path, notes=notes) == 5
    assert len(notes) == 1 and DAMAGE[damage] in notes[0] and "falling back to checkpoint 5" in notes[0]
    assert capsys.readouterr().err == notes[0] + "\n"
    with pytest.raises(UserError, match="checkpoint 10"):
        checkpoint.load_params(tmp_path, 10)
    assert (checkpoint.load_params(tmp_path)["read"] == 5).all()
    damage(tmp_path, 5) if damage is not lose_the_folder else flip_a_bit(tmp_path, 5)
    if damage is lose_the_manifest:
        assert checkpoint.newest_whole(tmp_path) is None  # nothing was ever finished
    else:
        with pytest.raises(UserError, match="no checkpoint of .* is whole: 10: .*; 5: "):
            checkpoint.newest_whole(tmp_path)


def test_every_bit_counts(tmp_path):
    """One flipped bit in any file of a checkpoint is noticed, also where orbax would restore without an
    error."""
    write(tmp_path, 1)
    for path in sorted(f for f in (checkpoint.folder(tmp_path) / "1").rglob("*") if f.is_file()):
        good = path.read_bytes()
        path.write_bytes(bytes([good[0] ^ 1]) + good[1:])
        assert checkpoint.problem(tmp_path, 1), path
        path.write_bytes(good)
    assert checkpoint.problem(tmp_path, 1) is None


def test_a_writer_removes_what_was_never_finished(tmp_path):
    write(tmp_path, 5, 10)
    lose_the_manifest(tmp_path, 10)
    (checkpoint.folder(tmp_path) / "12.orbax-checkpoint-tmp-1").mkdir()
    (checkpoint.folder(tmp_path) / "10.manifest.json.tmp").write_text("{")
    write(tmp_path)
    assert sorted(p.name for p in checkpoint.folder(tmp_path).iterdir()) == ["5", "5.manifest.json"]


def test_another_models_checkpoint_is_refused(tmp_path):
    write(tmp_path, 5)
    for params in (
        {**bigram_params(), "more": np.ones(2, np.float32)},
        bigram_params(5),
        {"read": bigram_params()["read"]},
    ):
        like = jax.eval_shape(lambda: init_state(tiny_config().train, 10, params))
        with pytest.raises(UserError, match="does not fit this model"):
            checkpoint.restore(tmp_path, 5, like)


def test_no_checkpoint_is_said(tmp_path):
    assert checkpoint.newest_whole(tmp_path) is None
    for step in (None, 3):
        with pytest.raises(UserError):
            checkpoint.load_params(tmp_path, step)


@pytest.mark.parametrize("damage", [flip_a_bit, lose_the_manifest], ids=lambda f: f.__name__)
def test_a_run_goes_on_from_the_one_before_the_damaged(tmp_path, capsys, damage):
    whole = run(tmp_path / "a")
    before = metrics.read(tmp_path / "a" / "metrics.jsonl")
    damage(tmp_path / "a", STEPS)
    resumed = run(tmp_path / "a")
    assert "falling back to checkpoint 18" in capsys.readouterr().err
    assert (
        jax.tree.all(jax.tree.map(np.array_equal, whole, resumed))
        and checkpoint.newest_whole(tmp_path / "a") == STEPS
    )
    after = metrics.read(tmp_path / "a" / "metrics.jsonl")
    assert [x["loss"] for x in before] == [x["loss"] for x in after] and before[:18] == after[:18]


def test_nothing_whole_is_one_line_and_nothing_is_touched(tmp_path):
    run(tmp_path)
    for step in checkpoint.steps(tmp_path):
        flip_a_bit(tmp_path, step)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="is whole"):
        run(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_about_is_json_with_seed_key_and_data_state(tmp_path):
    run(tmp_path, tiny_config(seed=9))
    about = checkpoint.read_about(tmp_path, STEPS)
    assert (
        about["data"] == {"next_step": STEPS, "seed": 0}
        and about["config"]["seed"] == 9
        and json.dumps(about)
    )
    assert about["rng"] == np.asarray(jax.random.key_data(jax.random.key(9))).tolist()


@pytest.mark.parametrize("where", ["orbax", "commit", "manifest"])
def test_full_disk_is_one_line_and_the_checkpoint_before_stays(tmp_path, monkeypatch, where):
    def full(real, at):
        def call(*args, **kwargs):
            if any(str(a).split("/")[-1].startswith(at) for a in args):
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*args, **kwargs)

        return call

    if where == "orbax":
        monkeypatch.setattr(
            checkpoint.ocp.AsyncCheckpointer, "save", full(checkpoint.ocp.AsyncCheckpointer.save, "12")
        )
    elif where == "commit":  # as TensorStore says it
        real, calls = checkpoint.ocp.AsyncCheckpointer.wait_until_finished, []

        def wait(self):
            real(self)
            calls.append(len(checkpoint.unfinished(tmp_path)))
            if len(checkpoint.steps(tmp_path)) == 1 and calls[-1]:
                raise ValueError("RESOURCE_EXHAUSTED: Error writing file: No space left on device")

        monkeypatch.setattr(checkpoint.ocp.AsyncCheckpointer, "wait_until_finished", wait)
    else:
        monkeypatch.setattr(checkpoint, "write_text", full(checkpoint.write_text, "12."))
    with pytest.raises(RunFailed, match="disk full while writing checkpoint 12.*checkpoint 6 is whole"):
        run(tmp_path)
    assert checkpoint.newest_whole(tmp_path) == 6 and checkpoint.unfinished(tmp_path) == []
    monkeypatch.undo()
    run(tmp_path)
    assert checkpoint.newest_whole(tmp_path) == STEPS


def test_on_checkpoint_is_called_when_one_is_whole(tmp_path):
    called = []
    run(tmp_path, on_checkpoint=lambda step: called.append((step, checkpoint.problem(tmp_path, step))))
    assert called == [(step, None) for step in (6, 12, 18, STEPS)]
