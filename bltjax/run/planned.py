"""planned.json: what is known of a run before its first step."""

import math
import pathlib

from ml_collections import ConfigDict

from bltjax import config as cfg
from bltjax import flops, models
from bltjax.data import batches, corpus
from bltjax.run.inputs import Inputs
from bltjax.storage import rundir


def facts(
    config: ConfigDict, inputs: Inputs, rows: batches.Rows, counts: dict, useful, executed: float
) -> dict:
    """counts: what each of the run's steps holds [steps]; useful: `exact` FLOPs of each; executed: of one."""
    steps = len(useful)
    patch_size = mean_size(config, counts)
    counted = flops.count(config, patch_size=patch_size)
    known = lambda x: None if math.isnan(x) else x
    bytes_ = int(counts["bytes"].sum())
    used = {"bytes": float(counts["slots"].sum() / (steps * rows.capacity["slots"])), "patches": None}
    if rows.capacity["patches"]:
        used["patches"] = float(counts["patches"].sum() / (steps * rows.capacity["patches"]))
    return {
        "schema_version": cfg.SCHEMA_VERSION,
        "budget_flops": config.budget_flops or None,
        "steps": steps,
        "train_bytes": bytes_,
        "train_flops": float(useful.sum()),
        "executed_flops": float(executed * steps),
        "patch_size": patch_size,
        "flops_per_byte_exact": counted["exact"]["total"],
        "flops_per_byte_paper": counted["paper"]["total"],
        "flops_components": counted["exact"],
        "params": counted["params"],
        "threshold": known(config.patching.threshold),
        "delta": known(config.patching.delta),
        "resolution": config.patching.resolution,
        "bytes_per_batch": bytes_ / steps,
        "rows": rows.rows,
        "row_slots": rows.row_length,
        "row_patches": rows.row_patches,
        "packing_efficiency": used,
        "positions": rows.longest(steps),
        "entropy_model": inputs.entropy_model and inputs.entropy_model.facts,
        "tokenizer": inputs.tokenizer_path,
        "tokenizer_fingerprint": inputs.tokenizer and inputs.tokenizer.fingerprint,
        "data": {"fingerprint": inputs.text.fingerprint, "test_overlap": corpus.test_overlap(inputs.folders)},
        **epochs(inputs, bytes_),
        "epochs_before": epochs_before(config.train.init_from, inputs.text.fingerprint),
    }


def mean_size(config: ConfigDict, counts: dict) -> float:
    """Mean patch size on a run's rows: positions over patches; of tokens, bytes over tokens."""
    patched = models.kind(config.model).PATCHES
    positions, units = (counts["slots"], counts["patches"]) if patched else (counts["bytes"], counts["slots"])
    return float(positions.sum() / units.sum())


def epochs(inputs: Inputs, train_bytes: int) -> dict:
    """How often the run reads its text: {"epochs"}, and where sources are mixed the most of them, beside
    {"mix": {directory: its own}}."""
    lengths = inputs.documents.lengths
    if not inputs.documents.parts:
        return {"epochs": float(train_bytes / lengths.sum())}
    own = {
        folder: float(weight * train_bytes / lengths[first:last].sum())
        for folder, (first, last, weight) in zip(inputs.folders, inputs.documents.parts)
    }
    return {"epochs": max(own.values()), "mix": own}


def epochs_before(path: str, fingerprint: str) -> float:
    """How often the model that a run starts from ("": none) has read this text already, and the one before
    it. What a model that came from elsewhere has read is not known, and counts 0."""
    folder = path and pathlib.Path(path).resolve()
    planned = folder and rundir.read_json(folder / "planned.json")
    if not planned:
        return 0.0
    same = (planned.get("data") or {}).get("fingerprint") == fingerprint
    before = rundir.load_config(folder).train.init_from
    return (planned.get("epochs") or 0.0) * same + epochs_before(before, fingerprint)
