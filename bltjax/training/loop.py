"""The training loop of one run: from its config and its rows to a run directory's metrics and checkpoints.

The same loop runs in every process of a run on a mesh; which of them writes, and how they stop together, is
bltjax/parallel/distributed.py's."""

import math
import pathlib
import time

import jax
import numpy as np

from bltjax.data import feed
from bltjax.errors import Interrupted, RunFailed, UserError
from bltjax.parallel import distributed, sharding
from bltjax.storage import rundir
from bltjax.training import branch, checkpoint, metrics, outliers, patch_size_monitor, trackers, watchdog
from bltjax.training.signals import on_signals
from bltjax.training.state import TrainState
from bltjax.training.step import init_state, make_step, model_nats

__all__ = ["Interrupted", "RunFailed", "Saves", "train"]

PROFILED = (5, 10)  # steps of this process: past compilation and the first transfers


class Saves:
    """After which updates a run saves: every `checkpoint_every`, or where that is 0 whenever
    `checkpoint_minutes` have passed since the last time; and after its last.

    Processes of a run look at the first one's clock, every LOOK steps."""

    LOOK = 16

    def __init__(self, train_config, steps: int, mesh=None):
        self._every, self._seconds = train_config.checkpoint_every, 60 * train_config.checkpoint_minutes
        self._steps, self._mesh, self._since = steps, mesh, time.monotonic()

    def after(self, step: int) -> bool:
        """Whether to save after this step; asked once a step."""
        if step == self._steps:
            return True
        if self._every:
            return step % self._every == 0
        if distributed.shared(self._mesh):
            due = step % self.LOOK == 0 and distributed.once(self._mesh, self._due)
        else:
            due = self._due()
        if due:
            self._since = time.monotonic()
        return due

    def _due(self) -> bool:
        return time.monotonic() - self._since >= self._seconds


def train(
    config,
    rows,
    run_dir,
    *,
    steps: int,
    useful_per_step,
    executed_per_step,
    progress: bool = True,
    profile: bool = False,
    tensorboard: bool = False,
    wandb: str = "",
    init_params=None,
    on_checkpoint=None,
    loss_fn=model_nats,
    sample=None,
    mesh=None,
):
    """Trains to `steps` updates, resuming from the newest whole checkpoint in `run_dir`, and returns the
    final parameters.

    rows: `iterator(start, stop)` yields the batches of those steps (dicts of int32 arrays; with a mesh, what
    data/feed.py says); `counts(steps)` says what each holds, {"slots": byte or token slots used, "patches":
    patches used, "bytes": raw bytes predicted}, int [steps]; `capacity` how many {"slots", "patches"} a batch
    has (patches: 0 or absent for models without). useful_per_step, executed_per_step: FLOPs, float [steps] or
    one float for all. tensorboard, wandb: what follows the metrics (trackers.chosen). init_params:
    parameters to start from instead of fresh ones. on_checkpoint(step): called from the writing thread
    when a checkpoint is whole. sample: what is scored after each of its `every` steps, by
    `score(params)`, and written as `validation` (run/evaluate.py); None: nothing. mesh: what the run is
    spread over (sharding.make_mesh), and its processes, each of which makes this call with the same
    arguments on the same, shared, run_dir; the parameters that come back are laid out over it. None: one
    device of this process.

    An interrupted and resumed run writes the lines and the parameters of an uninterrupted one, bit for bit on
    the same core count. Raises UserError (checkpoints of another run, or none whole), RunFailed (not finite,
    disk full), Interrupted (a signal; saved first)."""
    run_dir = pathlib.Path(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    ahead = _Ahead(rows, steps, useful_per_step, executed_per_step)
    state = _start(config, run_dir, steps, init_params, mesh)
    first = int(state.step)
    writes = distributed.first(mesh)
    last_line = metrics.cut(run_dir / "metrics.jsonl", first) if writes else None
    if first >= steps:
        return state.params
    about = {
        **branch.described(config, steps),
        "rng": np.asarray(jax.random.key_data(jax.random.key(config.seed))).tolist(),
    }
    saves = Saves(config.train, steps, mesh)
    step_fn = make_step(config.model, config.train, steps, loss_fn, mesh=mesh)
    writer = (
        metrics.Writer(run_dir / "metrics.jsonl", trackers.chosen(run_dir, config, tensorboard, wandb))
        if writes
        else _Unwritten()
    )
    saved = checkpoint.Checkpoints(run_dir, config.train.keep, on_checkpoint, mesh)
    log = _Log(
        config,
        ahead,
        writer,
        steps,
        first,
        progress and writes,
        last_line,
        lambda line: writes and rundir.note(run_dir, line),
    )
    dog = watchdog.Watchdog(run_dir, config.train.watchdog, saved.finish)
    profiler = _Profiler(run_dir / "profile", first, steps) if profile and writes else None

    def save(step):
        with jax.transfer_guard("allow"), dog.slow():
            writer.sync()  # a checkpoint is never ahead of its metrics
            if not _all_finite(state):
                raise _NotFinite(f"step {step}: parameters or optimizer state not finite")
            saved.save(step, state, {**about, "data": {"next_step": step, "seed": config.data.seed}})

    def validated(step, params):
        if sample is None or step % sample.every:
            return None
        with jax.transfer_guard("allow"), dog.slow():
            return sample.score(params)

    pending = None
    try:
        with (
            on_signals(mesh) as request,
            jax.transfer_guard("disallow"),
        ):
            for step, batch in enumerate(feed.batches(rows, first, steps, mesh), first + 1):
                if profiler:
                    profiler.at(step, state)
                state, results = step_fn(state, batch)
                # one step late, so that the device has its next step before we wait for this one's numbers
                if pending:
                    log(*pending)
                pending = step, results, validated(step, state.params)
                stops = request.reached(step)
                if saves.after(step) or stops:
                    log(*pending)
                    pending = None
                    save(step)
                if stops or step == steps:
                    with dog.slow():
                        saved.wait()  # while signals are ours: one that comes now must not cost the whole run
                        distributed.barrier(mesh)  # the first process has sealed the last checkpoint
                    if request.signal:
                        raise Interrupted(
                            f"stopped by {request.signal} after step {step} of {steps}; saved, run again to"
                            " resume"
                        )
                dog.beat(step)
    except _NotFinite as error:
        saved.wait()
        whole = distributed.once(mesh, lambda: checkpoint.steps(run_dir))
        kept = f"the last good checkpoint is step {whole[-1]}" if whole else "there is no earlier checkpoint"
        raise RunFailed(f"{error}; {kept} in {run_dir}") from None
    finally:
        dog.close()
        if profiler:
            profiler.stop()
        log.close()
        try:
            writer.close()
        finally:
            saved.close()
    return state.params


def _start(config, run_dir, steps, init_params, mesh) -> TrainState:
    """The state to go on from, where the mesh wants it: a checkpoint's, or the first parameters, made in
    their shards."""
    from bltjax import models

    key = jax.random.key(config.seed)
    fresh = lambda params: init_state(config.train, steps, params)
    source = distributed.once(mesh, lambda: _source(config, run_dir, steps))
    if source is None and mesh is None:
        if init_params:
            return jax.jit(fresh)(jax.tree.map(lambda x: jax.numpy.array(x, copy=True), init_params))
        return jax.jit(lambda: fresh(models.init(config.model, key)))()  # one program, not two
    like = jax.eval_shape(fresh, init_params or jax.eval_shape(lambda: models.init(config.model, key)))
    if mesh is not None:
        layout = sharding.state_shardings(mesh, like)
        like = jax.tree.map(
            lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), like, layout
        )
    if source is not None:
        return checkpoint.restore(*source, like)[0]
    if init_params:
        # each device its part, nothing whole on any
        own = lambda x, where: jax.make_array_from_callback(x.shape, where, lambda index: x[index])
        return jax.jit(fresh, out_shardings=layout)(jax.tree.map(own, init_params, layout.params))
    return jax.jit(lambda: fresh(models.init(config.model, key)), out_shardings=layout)()


def _source(config, run_dir, steps) -> list | None:
    """[run directory, step] of the checkpoint to go on from: this run's newest whole one, or that of the run
    it branches from."""
    notes = []
    step = checkpoint.newest_whole(run_dir, notes=notes)
    for note in notes:  # which were said on standard error already
        rundir.note(run_dir, note, said=True)
    if step is not None:
        branch.check_same_run(config, steps, checkpoint.read_about(run_dir, step), run_dir)
        if step > steps:
            raise UserError(f"{run_dir} is already at step {step}, past the {steps} asked for")
        return [str(run_dir), step]
    if config.train.branch_from:
        return list(branch.source(config, steps))
    return None


def _all_finite(state: TrainState) -> bool:
    leaves = [x for x in jax.tree.leaves(state) if jax.numpy.issubdtype(x.dtype, jax.numpy.inexact)]
    if all(x.is_fully_addressable and next(iter(x.devices())).platform == "cpu" for x in leaves):
        # where arrays lie numpy can look at them: to compile a program for it took two seconds of each run
        return all(np.isfinite(part.data).all() for x in leaves for part in x.addressable_shards)
    return bool(_all_finite_on_devices(leaves))


@jax.jit
def _all_finite_on_devices(leaves: list):
    return jax.numpy.stack([jax.numpy.isfinite(x).all() for x in leaves]).all()


class _NotFinite(Exception):
    """Which step, what of it, and that it is not finite, or that it and those before were skipped."""


class _Ahead:
    """What every step will hold and cost, cumulated before the first: a resumed run reports the numbers an
    uninterrupted one does."""

    def __init__(self, rows, steps, useful_per_step, executed_per_step):
        counts = {name: np.asarray(values, np.int64) for name, values in rows.counts(steps).items()}
        room = rows.capacity
        self.bytes, self.counts = np.cumsum(counts["bytes"]), counts
        self._per_step = {"packing_bytes": counts["slots"] / room["slots"]}
        if room.get("patches"):
            self._per_step["patch_size"] = counts["slots"] / np.maximum(counts["patches"], 1)
            self._per_step["packing_patches"] = counts["patches"] / room["patches"]
        else:
            self._per_step["patch_size"] = counts["bytes"] / np.maximum(counts["slots"], 1)
        self._useful, self._executed = (
            np.cumsum(np.broadcast_to(np.asarray(x, np.float64), (steps,)))
            for x in (useful_per_step, executed_per_step)
        )

    def line(self, step: int) -> dict:
        i = step - 1
        per_step = {name: float(values[i]) for name, values in self._per_step.items()}
        return {
            "bytes": int(self.bytes[i]),
            "useful_flops": float(self._useful[i]),
            "executed_flops": float(self._executed[i]),
            "packing_patches": None,
            **per_step,
        }


class _Unwritten:
    """The metrics file of a process that is not the run's first: it looks at the numbers as the first does,
    and leaves the file to it."""

    def write(self, line):
        pass

    sync = close = lambda self: None


class _Log:
    """Turns a step's results into its line, and the bar."""

    def __init__(self, config, ahead, writer, steps, first, progress, last_line, note):
        self._every, self._ahead, self._writer, self._steps = (
            max(1, config.train.log_every),
            ahead,
            writer,
            steps,
        )
        self._bar, self._note = metrics.bar(config.name, first, steps, progress), note
        self._patch_sizes = (
            patch_size_monitor.Monitor(config.patching.size, ahead.counts["slots"], ahead.counts["patches"])
            if ahead.counts["patches"].any()
            else None
        )
        self._wall = last_line.get("wall_s", 0.0) if last_line else 0.0  # of the processes before this one
        self._start = self._before = time.perf_counter()
        self._bytes_before = int(ahead.bytes[first - 1]) if first else 0

    def __call__(self, step, results, validation=None):
        """validation: what the step's line has under that name, which then is written whatever log_every
        says."""
        values = {name: value.item() for name, value in jax.device_get(results).items()}
        numbers = f"loss ({values['loss']}) or gradient norm ({values['grad_norm']})"
        if "skipped" not in values and not values["finite"]:
            raise _NotFinite(f"step {step}: {numbers} not finite")
        if values.get("in_a_row", 0) >= outliers.MOST_IN_A_ROW:
            raise _NotFinite(f"step {step}: {values['in_a_row']} updates in a row were skipped, by {numbers}")
        self._bar.update()
        if self._patch_sizes and (line := self._patch_sizes.said(step)):
            self._note(line)
        if step % self._every and step != self._steps and validation is None:
            return
        now = time.perf_counter()
        finite = lambda value: value if math.isfinite(value) else None  # of a step that was skipped
        line = {
            "step": step,
            "loss": finite(values["loss"]),
            "bpb": finite(metrics.bits_per_byte(values["byte_nats"], values["bytes"])),
            **self._ahead.line(step),
            "grad_norm": finite(values["grad_norm"]),
            "lr": values["lr"],
            **({"skipped": values["skipped"]} if "skipped" in values else {}),
            **({} if validation is None else {"validation": validation}),
        }
        rate = (line["bytes"] - self._bytes_before) / max(now - self._before, 1e-9)
        self._before, self._bytes_before = now, line["bytes"]
        self._writer.write(
            {**line, "wall_s": self._wall + now - self._start, "bytes_per_s": rate, "time": time.time()}
        )
        shown = {name: "-" if line[name] is None else f"{line[name]:.3f}" for name in ("loss", "bpb")}
        self._bar.set_postfix(**shown, bytes_per_s=f"{rate:.0f}", refresh=False)

    def close(self):
        self._bar.close()


class _Profiler:
    """A jax.profiler trace of a few steps; of the last ones where the run is shorter."""

    def __init__(self, folder, first, steps):
        self._folder, self._on = str(folder), False
        length = PROFILED[1] - PROFILED[0] + 1
        self._from = max(first + 1, min(first + PROFILED[0], steps - length + 1))
        self._to = min(steps, self._from + length - 1)

    def at(self, step, state):
        """Before a step is started. `state` is waited for at both ends, so that the trace holds whole
        steps."""
        if step in (self._from, self._to + 1):
            jax.block_until_ready(state)
        if step == self._from:
            jax.profiler.start_trace(self._folder)
            self._on = True
        elif step == self._to + 1:
            self.stop()

    def stop(self):
        if self._on:
            self._on = False
            jax.profiler.stop_trace()
