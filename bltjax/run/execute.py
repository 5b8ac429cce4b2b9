"""One run from its config to its results: text, patches or tokens, rows, steps for the budget, training,
evaluation.

Everything that a report needs lands in the run directory: config.json, planned.json (counted ahead of
training), metrics.jsonl, eval.json, checkpoints/, and last of all done.json. """

import dataclasses
import math
import pathlib
import time

import jax
import numpy as np
from ml_collections import ConfigDict

from bltjax import config as cfg
from bltjax import flops
from bltjax.data import batches
from bltjax.entropy import calibrate
from bltjax.errors import UserError
from bltjax.evaluation import bpb, windows
from bltjax.parallel import distributed, host
from bltjax.patching import segmentation, vocab
from bltjax.run import at_rest, inputs, warm_start
from bltjax.run import rows as rows_of
from bltjax.storage import rundir
from bltjax.sweep import plan
from bltjax.training import loop

NEAR = 0.5, 2.0  # target patch sizes between whose thresholds that of little text is looked for
SIZE_TOLERANCE = 0.02  # of a target patch size, on the rows that the run trains on
CALIBRATED = {"entropy": "threshold", "monotonic": "delta", "both": "threshold"}


@dataclasses.dataclass
class Prepared:
    """A run that is ready to train: its rows, how many steps of them, and what they cost."""

    config: ConfigDict  # with the calibrated threshold in it
    rows: batches.Rows
    steps: int
    useful: np.ndarray  # `exact` training FLOPs of each step [steps]
    executed: float  # training FLOPs that a step executes
    planned: dict  # planned.json
    text: object  # splits.Splits
    tokenizer: object  # or None
    entropy_model: inputs.EntropyModel | None


def prepare_shared(run_dir: pathlib.Path) -> None:
    """Makes what the run shares with others (tokenizer, entropy model, entropies), so that several runs do
    not wait for one another."""
    config = rundir.load_config(run_dir)
    shared = rundir.shared(run_dir)
    text = inputs.corpus(config.data)
    documents = training_documents(config, text)
    if needs_tokens(config):
        inputs.tokenizer(config, documents, shared)
    if not inputs.preparation_key(config):
        return
    lm = inputs.entropy_model(config, text, shared)
    training_entropies(config, lm, text, documents, shared)
    for documents, limit in (
        (text.test, config.eval.test_bytes),
        (text.validation, config.eval.validation_bytes),
    ):
        inputs.entropies(lm, bpb.first_documents(documents, limit), shared)


def needs_tokens(config: ConfigDict) -> bool:
    """Whether the run has a tokenizer: its model reads tokens, or its patches are tokens."""
    return config.model.kind == "token" or config.patching.scheme == "bpe"


def training_documents(config: ConfigDict, text):
    """The training documents that the run may read, in the order of its seed: the same for every family. A
    list, or of prepared data a shelf.Choice."""
    return batches.training_documents(text.train, config.data)


def prepare(run_dir: pathlib.Path, config: ConfigDict, place: tuple[int, int] = (0, 1)) -> Prepared:
    """Everything up to the first step. place: this process's among those that do so together
    (distributed.place). Raises UserError for text, budgets and patch sizes that cannot be had."""
    shared = rundir.shared(run_dir)
    text = inputs.corpus(config.data)
    documents = training_documents(config, text)
    tokenizer = inputs.tokenizer(config, documents, shared) if needs_tokens(config) else None
    lm, entropies = None, None
    if inputs.preparation_key(config):
        lm = inputs.entropy_model(config, text, shared)
        entropies = training_entropies(config, lm, text, documents, shared)
        if at_rest.is_at_rest(documents):
            config = at_rest.with_resolution(config)

    def counted(config, shared=shared):
        """Rows under a config, the steps that spend its budget, their useful FLOPs, and the mean patch size
        on them."""
        rows = make_rows(config, documents, entropies, tokenizer, shared, place)
        steps, useful, counts = rows_of.steps_ahead(config, rows)
        units = counts["patches"] if config.model.kind == "blt" else counts["slots"]
        positions = counts["slots"] if config.model.kind == "blt" else counts["bytes"]
        return (
            rows,
            steps,
            useful,
            {k: v[:steps] for k, v in counts.items()},
            positions[:steps].sum() / units[:steps].sum(),
        )

    key = CALIBRATED.get(config.patching.scheme)
    if key and math.isnan(config.patching[key]) and at_rest.is_at_rest(documents):
        found = at_rest.counted(config, documents, entropies)
        config = cfg.replace(config, **{f"patching.{key}": found.threshold(config.patching.size)})
        counts, size = counted(config)[3:]
        if (
            abs(size / config.patching.size - 1) > SIZE_TOLERANCE / 4
            and counts["slots"].sum() < at_rest.SAMPLE
        ):  # so little text wanders from the mean of all
            near = [found.threshold(config.patching.size * factor) for factor in NEAR]
            config = calibrated(config, key, near, lambda c: counted(c, None)[4])
    elif key and math.isnan(config.patching[key]):
        config = calibrated(config, key, bounds(key, entropies), lambda c: counted(c)[4])
    elif key and not plan.trained(config.entropy_model) and at_rest.is_at_rest(documents):
        config = cfg.replace(
            config,
            **{
                "patching.size": at_rest.counted(config, documents, entropies).mean_size(config.patching[key])
            },
        )
    elif key and not plan.trained(
        config.entropy_model
    ):  # entropy model and threshold came with a checkpoint: the size is what they give
        lengths = segmentation.document_lengths(config.patching, documents, entropies)
        config = cfg.replace(
            config, **{"patching.size": float(sum(l.sum() for l in lengths) / sum(map(len, lengths)))}
        )
    rows, steps, useful, counts, patch_size = counted(config)
    if (
        key
        and plan.trained(config.entropy_model)
        and abs(patch_size / config.patching.size - 1) > SIZE_TOLERANCE
    ):
        raise UserError(
            f"run {config.name}: no {key} gives a mean patch size within 2% of {config.patching.size:g}; the"
            f" nearest gives {patch_size:.3f}"
        )
    bytes_off = rows_of.check_bytes(config, rows, documents, steps)
    executed = executed_per_step(config, rows)
    planned = facts(config, rows, steps, useful, executed, counts, patch_size) | {"bytes_off": bytes_off}
    if at_rest.is_at_rest(documents):
        planned |= at_rest.epochs(config, documents, int(counts["bytes"].sum()))
    if lm:
        planned["entropy_model"] = lm.facts
    if tokenizer:
        planned["tokenizer_fingerprint"] = tokenizer.fingerprint
        planned["tokenizer"] = rundir.from_run(inputs.tokenizer_path(config, documents, shared))
    return Prepared(config, rows, steps, useful, executed, planned, text, tokenizer, lm)


def training_entropies(config: ConfigDict, lm, text, documents, shared: pathlib.Path):
    """Entropies of the training documents: a list of arrays, or of documents at rest stored.Entropies."""
    return (
        at_rest.entropies(lm, text)
        if at_rest.is_at_rest(documents)
        else inputs.entropies(lm, documents, shared)
    )


def make_rows(
    config: ConfigDict,
    documents,
    entropies,
    tokenizer,
    shared: pathlib.Path | None,
    place: tuple[int, int] = (0, 1),
) -> batches.Rows:
    """The run's batches: a pure function of (data.seed, step). shared: where plans of rows of prepared data
    are kept; None: nowhere. place: as in `prepare`."""
    return rows_of.rows(
        config, documents, entropies, tokenizer, shared if at_rest.is_at_rest(documents) else None, place
    )


def bounds(key: str, entropies) -> tuple[float, float]:
    """Between which a threshold (or delta) lies."""
    values = np.concatenate(entropies)
    return (
        (float(values.min()), float(values.max()))
        if key == "threshold"
        else (-float(np.ptp(values)), float(np.ptp(values)))
    )


def calibrated(config: ConfigDict, key: str, between, mean_size) -> ConfigDict:
    """The config with the threshold (or delta) between two that gives its patch size on exactly the rows that
    it will read."""
    found = calibrate.solve(
        lambda t: mean_size(cfg.replace(config, **{f"patching.{key}": float(t)})),
        *between,
        config.patching.size,
    )
    return cfg.replace(config, **{f"patching.{key}": float(found)})


def executed_per_step(config: ConfigDict, rows: batches.Rows) -> float:
    return flops.executed_step(config, rows.rows, rows.row_length, rows.row_patches or 0)


def facts(
    config: ConfigDict,
    rows: batches.Rows,
    steps: int,
    useful,
    executed: float,
    counts: dict,
    patch_size: float,
) -> dict:
    """planned.json: what is known before the first step."""
    counted = flops.count(config, patch_size=float(patch_size))
    known = lambda x: None if math.isnan(x) else x
    used = {"slots": counts["slots"].sum() / (steps * rows.capacity["slots"])}
    if config.model.kind == "blt":
        used["patches"] = counts["patches"].sum() / (steps * rows.capacity["patches"])
    return {
        "schema_version": cfg.SCHEMA_VERSION,
        "budget_flops": config.budget_flops or None,
        "steps": steps,
        "train_bytes": int(counts["bytes"].sum()),
        "train_flops": float(useful.sum()),
        "executed_flops": float(executed * steps),
        "patch_size": float(patch_size),
        "flops_per_byte_exact": counted["exact"]["total"],
        "flops_per_byte_paper": counted["paper"]["total"],
        "flops_components": counted["exact"],
        "params": counted["params"],
        "threshold": known(config.patching.threshold),
        "delta": known(config.patching.delta),
        "resolution": config.patching.resolution,
        "bytes_per_batch": float(counts["bytes"].sum() / steps),
        "rows": rows.rows,
        "row_slots": rows.row_length,
        "row_patches": rows.row_patches,
        "packing_efficiency": {
            "bytes": float(used["slots"]),
            "patches": float(used["patches"]) if "patches" in used else None,
        },
        "epochs": steps * rows.rows / rows.epoch_rows(),
        "entropy_model": None,
    }


def execute(
    run_dir: pathlib.Path,
    *,
    progress: bool = True,
    profile: bool = False,
    tensorboard: bool = False,
    mesh=None,
) -> None:
    """Brings a run directory that has a config.json to done.json; goes on from its newest whole checkpoint.
    Done already: nothing.

    mesh: what the run is spread over, and its processes, each of which calls this on the same, shared,
    directory (training/loop.py). """
    run_dir = pathlib.Path(run_dir)
    if distributed.once(mesh, lambda: rundir.state(run_dir)) == "done":
        return
    began = time.time()
    if distributed.shared(mesh):  # made by the first process, on a device of its own, while the others wait
        distributed.once(mesh, lambda: prepare_shared(run_dir))
    prepared = prepare(run_dir, rundir.load_config(run_dir), distributed.place(mesh))
    distributed.agree(
        mesh,
        {
            "data_fingerprint": prepared.text.fingerprint,
            **{
                name: prepared.planned[name]
                for name in ("steps", "train_bytes", "patch_size", "threshold", "delta")
            },
        },
    )
    writes = distributed.first(mesh)
    trained_on = (rundir.read_json(run_dir / "config.json") or {}).get("data_fingerprint")
    if rundir.begun(run_dir) and trained_on not in (None, prepared.text.fingerprint):
        raise UserError(
            f"{run_dir} was begun on other text (fingerprint {trained_on}, now {prepared.text.fingerprint}):"
            " bring that back, or begin anew in another directory"
        )
    if writes:
        rundir.amend(
            run_dir,
            cores=len(host.cores()),
            platform=jax.default_backend(),
            device=jax.local_devices()[0].device_kind,
            data_fingerprint=prepared.text.fingerprint,
            **where(mesh),
        )
        rundir.write_json(run_dir / "planned.json", prepared.planned)
    params = loop.train(
        prepared.config,
        prepared.rows,
        run_dir,
        steps=prepared.steps,
        useful_per_step=prepared.useful,
        executed_per_step=prepared.executed,
        init_params=warm_start.params(prepared.config),
        progress=progress,
        profile=profile,
        tensorboard=tensorboard,
        mesh=mesh,
    )
    scored = evaluate(prepared, params, run_dir, mesh)
    if writes:
        rundir.write_json(run_dir / "eval.json", scored)
        rundir.write_json(
            run_dir / "done.json",
            {
                "realized_flops": prepared.planned["train_flops"],
                "wall_s": time.time() - began,
                "finished": time.time(),
            },
        )
        (run_dir / "failed.json").unlink(missing_ok=True)


def where(mesh) -> dict:
    """What a run was spread over, for its record: {"mesh": axis sizes or None, "devices", "processes"}."""
    if mesh is None:
        return {"mesh": None, "devices": 1, "processes": 1}
    return {"mesh": dict(mesh.shape), "devices": mesh.size, "processes": jax.process_count()}


def evaluate(prepared: Prepared, params, run_dir: pathlib.Path, mesh=None) -> dict:
    """eval.json: bits per byte of whole test and validation documents."""
    config, text = prepared.config, prepared.text
    parts = {
        "test": bpb.first_documents(text.test, config.eval.test_bytes),
        "validation": bpb.first_documents(text.validation, config.eval.validation_bytes),
    }
    return {
        "schema_version": cfg.SCHEMA_VERSION,
        "upper_bound": config.model.kind == "token",
        **{name: score(prepared, params, documents, run_dir, mesh) for name, documents in parts.items()},
    }


def score(prepared: Prepared, params, documents: list[bytes], run_dir: pathlib.Path, mesh=None) -> dict:
    """Bits per byte of whole documents, each byte once, with the same left context in bytes for every
    family."""
    config, sizes = prepared.config, [len(d) for d in documents]
    longest = prepared.rows.longest(prepared.steps)  # no position is scored that was not trained
    if config.model.kind == "token":
        tokenizer = prepared.tokenizer
        ids = [tokenizer.encode(d) for d in documents]
        shaped = windows.token_windows(
            documents,
            ids,
            tokenizer.byte_counts,
            config.data.context,
            config.data.rows,
            tokenizer.bos,
            tokenizer.eos,
            longest,
        )
        is_eos = lambda batch: batch["target_bytes"] == 0
        patch_size = sum(sizes) / sum(map(len, ids))
    else:
        shared = rundir.shared(run_dir)
        entropies = (
            inputs.entropies(prepared.entropy_model, documents, shared) if prepared.entropy_model else None
        )
        lengths = segmentation.document_lengths(config.patching, documents, entropies, prepared.tokenizer)
        shaped = windows.byte_windows(
            documents,
            lengths if config.model.kind == "blt" else None,
            config.data.context,
            config.data.rows,
            longest,
        )
        is_eos = lambda batch: batch["targets"] == vocab.EOS
        patch_size = sum(int(l.sum()) for l in lengths) / sum(map(len, lengths))
    nats = bpb.nats_by_document(config.model, params, shaped, len(documents), is_eos, mesh)
    return bpb.summary(sizes, *nats, patch_size, shaped)
