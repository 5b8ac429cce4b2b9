"""What a run's config must satisfy, said before anything is read or trained: one line that names the key, the
value and what is allowed. What only one kind of model must satisfy stands with the model (models.kind)."""

import math

from ml_collections import ConfigDict

from bltjax import config as cfg
from bltjax import models
from bltjax.config import families
from bltjax.data import sources
from bltjax.errors import UserError

CHOICES = {
    "model.kind": tuple(models.KINDS),
    "model.dtype": ("float32", "bfloat16"),
    "model.remat": ("none", "full", "dots"),
    "model.cross.encoder": ("last", "all", "none"),
    "model.cross.decoder": ("all", "first", "none"),
    "model.cross.encoder_kv": ("input", "output"),
    "model.cross.pool": ("embeddings", "states"),
    "model.reset": ("", "newline"),
    "model.ngrams.digits": ("paper", "released"),
    "model.ngrams.short": ("omit", "pad"),
    "patching.scheme": cfg.SCHEMES,
    "tokenizer.kind": ("none", "trained", "llama3", "file", "given"),
    "train.schedule": ("cosine", "wsd", "constant"),
}
# Smallest value allowed. Where a key is a number and not listed here, it must only be finite.
AT_LEAST = {
    "seed": 0,
    "budget_flops": 0,
    "data.seed": 0,
    "data.rows": 1,
    "data.context": 16,
    "data.min_bytes": 0,
    "data.longest": 1,
    "data.max_train_bytes": 0,
    "data.patch_slack": 1,
    "data.packing_buffer": 0,
    "train.steps": 0,
    "train.lr": 0,
    "train.eps": 0,
    "train.weight_decay": 0,
    "train.clip": 0,
    "train.warmup": -1,
    "train.final_lr": 0,
    "train.accumulate": 1,
    "train.checkpoint_every": 0,
    "train.checkpoint_minutes": 0,
    "train.keep": 0,
    "train.log_every": 1,
    "eval.test_bytes": 0,
    "eval.validation_bytes": 0,
    "patching.size": 1,
    "patching.max_length": 0,
    "patching.resolution": 0,
    "patching.seed": 0,
    "tokenizer.vocab": 0,
    "tokenizer.bytes_per_token": 0,
    "model.vocab": 1,
    "model.rope_theta": 1,
    "model.norm_eps": 0,
}
AT_MOST = {"train.final_lr": 1, "train.decay": 1, "train.beta1": 1, "train.beta2": 1}
POSITIVE = ("train.lr", "train.eps", "model.norm_eps")
# of models: 1 or more
WIDTHS = ("width", "heads", "layers", "ffn", "encoder_layers", "decoder_layers", "k", "rows", "functions")
CALIBRATED = ("patching.threshold", "patching.delta")  # nan: found on the rows that the run reads


def check(run: ConfigDict) -> ConfigDict:
    """The run itself, or UserError."""
    try:
        families.family(run.family)
        _values(run)
        _shapes(run)
        models.kind(run.model).check(run)
        _family(run)
        if len(run.entropy_model):
            if run.entropy_model.family != families.ENTROPY_MODEL:
                raise UserError(
                    f"entropy_model.family is {run.entropy_model.family!r}; it must be"
                    f" {families.ENTROPY_MODEL}"
                )
            check(run.entropy_model)
    except UserError as error:
        text = str(error)
        raise UserError(text if text.startswith("run ") else f"run {run.name}: {text}") from None
    return run


def _values(run: ConfigDict) -> None:
    values = {key: value for key, value in cfg.flat(run).items() if not key.startswith("entropy_model")}
    for key, value in values.items():
        if key in CHOICES and value not in CHOICES[key]:
            raise UserError(f"{key} is {value!r}; allowed: {', '.join(CHOICES[key])}")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        least = (
            1
            if key.startswith("model.") and key.split(".")[-1] in WIDTHS
            else 0 if key.endswith("window") else AT_LEAST.get(key)
        )
        if not math.isfinite(value) and not (key in CALIBRATED and math.isnan(value)):
            raise UserError(f"{key} is {value}; it must be a finite number")
        if least is not None and value < least or key in POSITIVE and value <= 0:
            raise UserError(
                f"{key} is {value:g}; it must be {'above 0' if key in POSITIVE else f'{least} or more'}"
            )
        if value > AT_MOST.get(key, math.inf):
            raise UserError(f"{key} is {value:g}; it must be {AT_MOST[key]} or less")
    cfg.lr_scales(run.train)
    if not sources.known(run.data.source):
        raise UserError(f"data.source is {run.data.source!r}; allowed: {sources.allowed()}")
    sources.check(run.data)
    for key in ("globs", "mix"):
        if any(not isinstance(item, str) for item in run.data[key]):
            raise UserError(f'data.{key} must be a list of texts, such as ["texts/*.txt"]')
    if not (run.data.validation > 0 and run.data.test > 0 and run.data.validation + run.data.test < 1):
        raise UserError(
            f"data.validation={run.data.validation:g} and data.test={run.data.test:g} must be above 0 and"
            " together below 1"
        )


def _shapes(run: ConfigDict) -> None:
    for stack in models.kind(run.model).stacks(run.model):
        if stack.width % stack.heads or stack.width // stack.heads % 2:
            raise UserError(
                f"{stack.key}.heads is {stack.heads}; heads must cut {stack.key}.width ({stack.width}) into"
                " equal even parts"
            )
    if run.data.rows % run.train.accumulate:
        raise UserError(
            f"train.accumulate is {run.train.accumulate}; it must divide data.rows ({run.data.rows})"
        )
    if 0 < run.train.steps <= run.train.warmup:
        raise UserError(
            f"train.warmup is {run.train.warmup} of {run.train.steps} steps (train.steps); it must be shorter"
        )
    if (
        not run.budget_flops
        and not run.train.steps
        and not (run.family == families.ENTROPY_MODEL and run.train.init_from)
    ):
        raise UserError(
            "neither budget_flops nor train.steps says how long the run is; set one of them above 0"
        )
    if (run.tokenizer.kind == "file") != bool(run.tokenizer.path):
        raise UserError(
            f"tokenizer.kind is {run.tokenizer.kind!r} and tokenizer.path {run.tokenizer.path!r}; a path goes"
            " with kind 'file', and that with a path"
        )
    if run.tokenizer.kind == "given" and not run.train.init_from:
        raise UserError(
            "tokenizer.kind is 'given': it comes with the model that train.init_from (--from) names, and"
            " there is none"
        )


def _family(run: ConfigDict) -> None:
    """That the run is of the family that it says (config/families.py)."""
    family, model = families.family(run.family), cfg.flat(run.model)
    if run.model.kind != family.kind:
        raise UserError(f"model.kind is {run.model.kind!r}; family {run.family} has {family.kind!r}")
    if run.patching.scheme not in family.schemes:
        raise UserError(
            f"patching.scheme is {run.patching.scheme!r}; family {run.family} has {', '.join(family.schemes)}"
        )
    for key, value in family.changes.items():
        if model[key] != value:
            raise UserError(f"model.{key} is {model[key]!r}; family {run.family} has {value!r}")
