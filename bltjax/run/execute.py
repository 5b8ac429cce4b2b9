"""One run, from what it reads to its results: rows counted ahead, steps for the budget, training, evaluation.

Everything that a report needs lands in the run directory: config.json, inputs.json, planned.json (counted
ahead of training), metrics.jsonl, eval.json, checkpoints/, and last of all done.json."""

import dataclasses
import pathlib
import time

import jax
import numpy as np
from ml_collections import ConfigDict

from bltjax import flops
from bltjax.data import batches
from bltjax.errors import UserError
from bltjax.parallel import distributed, environment, host
from bltjax.run import budget, evaluate, inputs, planned, row_shape, thresholds, warm_start
from bltjax.run import rows as run_rows
from bltjax.storage import rundir
from bltjax.training import loop


@dataclasses.dataclass
class Ready:
    """A run that is ready to train: its rows, how many steps of them, and what they cost."""

    config: ConfigDict  # with the threshold in it
    inputs: inputs.Inputs
    rows: batches.Rows
    steps: int
    useful: np.ndarray  # `exact` training FLOPs of each step [steps]
    executed: float  # training FLOPs that a step executes
    planned: dict  # planned.json


def ready(run_dir: pathlib.Path, place: tuple[int, int] = (0, 1)) -> Ready:
    """Everything up to the first step. place: this process's among those that do so together
    (distributed.place).

    UserError for inputs that are not there, and for budgets and patch sizes that cannot be had."""
    config = rundir.load_config(run_dir)
    reads = inputs.load(run_dir, config)
    warm_start.check_text(config, reads.text)
    entropies, shape = reads.entropies(reads.documents), None

    def units(config):
        return run_rows.units_of(config, reads.documents, entropies, reads.tokenizer)

    def tried(config):
        """The rows under a config; all that are tried have the shape that the first was given."""
        nonlocal shape
        shape = shape or row_shape.chosen(config, units(config))
        return run_rows.rows(config, units(config), shape=shape)

    def realized(config):
        """Mean patch size of the rows that the budget pays for."""
        return planned.mean_size(config, budget.steps_ahead(config, tried(config))[2])

    def of_few(config):
        """The same of the first of them."""
        return planned.mean_size(config, tried(config).counts(row_shape.few_steps(config)))

    few_first, asked = of_few if row_shape.is_long(config) else None, config
    aim, before = row_shape.aim(config, reads.documents), set()
    while True:
        config = thresholds.found(asked, reads.documents, entropies, realized, few_first)
        shape = shape or row_shape.chosen(config, units(config))
        rows = run_rows.rows(config, units(config), rundir.shared(run_dir), place, shape)
        steps, useful, counts = budget.steps_ahead(config, rows)
        bytes_off = row_shape.bytes_off(config, counts, aim)
        before.add(shape)
        # the threshold moves patch starts, and with them what rows of a shape hold; and the first rows of a
        # long run do not hold quite what all do
        if not row_shape.differs(config, rows, bytes_off, steps):
            break
        shape = row_shape.mended(config, units(config), shape, bytes_off)
        if shape in before:
            break
    row_shape.check_bytes(config, rows, bytes_off, steps)
    executed = flops.executed_step(config, rows.rows, rows.row_length, rows.row_patches or 0)
    facts = planned.facts(config, reads, rows, counts, useful, executed)
    facts |= {"row_filled": shape.filled, "bytes_off": bytes_off}
    return Ready(config, reads, rows, steps, useful, executed, facts)


def execute(
    run_dir: pathlib.Path,
    *,
    progress: bool = True,
    profile: bool = False,
    tensorboard: bool = False,
    wandb: str = "",
    mesh=None,
    on_checkpoint=None,
) -> None:
    """Brings a run directory whose inputs are there to done.json; goes on from its newest whole checkpoint.
    Done already: nothing.

    mesh: what the run is spread over, and its processes, each of which calls this on the same, shared,
    directory (training/loop.py). on_checkpoint(step): called, in another thread, when a checkpoint is
    whole."""
    run_dir = pathlib.Path(run_dir)
    if distributed.once(mesh, lambda: rundir.state(run_dir)) == "done":
        return
    environment.pin()
    began = time.time()
    run = ready(run_dir, distributed.place(mesh))
    counted = {
        name: run.planned[name] for name in ("steps", "train_bytes", "patch_size", "threshold", "delta")
    }
    distributed.agree(mesh, {"data_fingerprint": run.inputs.text.fingerprint, **counted})
    check_same_text(run_dir, run.inputs.text.fingerprint)
    distributed.once(mesh, lambda: check_same_rows(run_dir, run.planned))
    longest = run.rows.longest(run.steps)
    sample = evaluate.sample(run.config, run.inputs, run.steps, longest, mesh)
    writes = distributed.first(mesh)
    if writes:
        record_environment(run_dir)
        rundir.amend(run_dir, data_fingerprint=run.inputs.text.fingerprint, **where(mesh))
        record = rundir.read_json(run_dir / "config.json")
        made_with = {"config_fingerprint": rundir.config_fingerprint(record or {})}
        validation = {"validation": sample and sample.facts()}
        rundir.write_json(run_dir / "planned.json", {**run.planned, **validation, **made_with})
    params = loop.train(
        run.config,
        run.rows,
        run_dir,
        steps=run.steps,
        useful_per_step=run.useful,
        executed_per_step=run.executed,
        init_params=warm_start.params(run.config),
        progress=progress,
        profile=profile,
        tensorboard=tensorboard,
        on_checkpoint=on_checkpoint,
        wandb=wandb,
        sample=sample,
        mesh=mesh,
    )
    scored = evaluate.evaluate(run.config, run.inputs, params, longest, mesh)
    if writes:
        rundir.write_json(run_dir / "eval.json", {**scored, **made_with})
        ended = {
            "realized_flops": run.planned["train_flops"],
            "wall_s": time.time() - began,
            "finished": time.time(),
            **made_with,
        }
        rundir.write_json(run_dir / "done.json", ended)
        (run_dir / "failed.json").unlink(missing_ok=True)


def check_same_text(run_dir: pathlib.Path, fingerprint: str) -> None:
    """UserError where a run that has begun would go on with other text."""
    trained_on = (rundir.read_json(run_dir / "config.json") or {}).get("data_fingerprint")
    if rundir.begun(run_dir) and trained_on not in (None, fingerprint):
        raise UserError(
            f"{run_dir} was begun on other text (fingerprint {trained_on}, now {fingerprint}): bring that"
            " back, or begin anew in another directory"
        )


def check_same_rows(run_dir: pathlib.Path, planned: dict) -> None:
    """UserError where a run that has begun would go on with other rows: those of another version of the
    packer, whose steps hold other bytes."""
    before = rundir.read_json(run_dir / "planned.json") or {}
    keys = ("steps", "train_bytes", "row_filled", "threshold")
    differ = [key for key in keys if key in before and before[key] != planned[key]]
    if rundir.begun(run_dir) and differ:
        said = ", ".join(f"{key} was {before[key]} and is {planned[key]}" for key in differ)
        raise UserError(
            f"{run_dir} was begun on other rows, by another version of bltjax ({said}): go on with that one,"
            " or begin anew in another directory"
        )


def record_environment(run_dir: pathlib.Path) -> None:
    """Writes this process's surroundings (parallel/environment.py) into config.json. Where a run that has
    begun goes on in others, a line says what differs, and stays in notes.txt: what could change more than
    the rounding of sums is pinned, so that nothing is refused."""
    machine = dict(
        cores=len(host.cores()), platform=jax.default_backend(), device=jax.local_devices()[0].device_kind
    )
    now = environment.described(rundir.versions(), **machine)
    before = (rundir.read_json(run_dir / "config.json") or {}).get("environment")
    if isinstance(before, dict) and rundir.begun(run_dir):
        if differ := environment.differences(before, now):
            rundir.note(run_dir, f"goes on in another environment: {'; '.join(differ)} (other rounding)")
    rundir.amend(run_dir, environment=now, **machine)


def where(mesh) -> dict:
    """What a run was spread over, for its record: {"mesh": axis sizes or None, "devices", "processes"}."""
    if mesh is None:
        return {"mesh": None, "devices": 1, "processes": 1}
    return {"mesh": dict(mesh.shape), "devices": mesh.size, "processes": jax.process_count()}
