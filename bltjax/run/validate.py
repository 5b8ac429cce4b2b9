"""What a run's config must satisfy, said before anything is read or trained: one line that names the key, the
value and what is allowed."""

import math

from ml_collections import ConfigDict

from bltjax import config as cfg
from bltjax.data import sources
from bltjax.errors import UserError

ENTROPY_MODEL = "entropy-model"  # the family of the model that supplies entropies
FAMILIES = (*cfg.FAMILIES, ENTROPY_MODEL)
CHOICES = {
    "family": FAMILIES,
    "model.kind": cfg.KINDS,
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
    "data.together": 0,
    "train.steps": 0,
    "train.lr": 0,
    "train.eps": 0,
    "train.weight_decay": 0,
    "train.clip": 0,
    "train.warmup": -1,
    "train.final_lr": 0,
    "train.accumulate": 1,
    "train.checkpoint_every": 0,
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
WIDTHS = (
    "width",
    "heads",
    "layers",
    "ffn",
    "encoder_layers",
    "decoder_layers",
    "k",
    "rows",
    "functions",
)  # of models: 1 or more
CALIBRATED = ("patching.threshold", "patching.delta")  # nan: found on the rows that the run reads


def check(run: ConfigDict) -> ConfigDict:
    """The run itself, or UserError."""
    try:
        _values(run)
        _shapes(run)
        if len(run.entropy_model):
            if run.entropy_model.model.kind != "byte":
                raise UserError(
                    f"entropy_model.model.kind is {run.entropy_model.model.kind!r}; an entropy model is of"
                    " kind 'byte'"
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
    model, scheme = run.model, run.patching.scheme
    stacks = (
        {"model.local": model.local, "model.latent": model.latent}
        if model.kind == "blt"
        else {"model": model}
    )
    for name, stack in stacks.items():
        if stack.width % stack.heads or stack.width // stack.heads % 2:
            raise UserError(
                f"{name}.heads is {stack.heads}; heads must cut {name}.width ({stack.width}) into equal even"
                " parts"
            )
    if run.data.rows % run.train.accumulate:
        raise UserError(
            f"train.accumulate is {run.train.accumulate}; it must divide data.rows ({run.data.rows})"
        )
    if (
        not run.budget_flops
        and not run.train.steps
        and not (run.family == ENTROPY_MODEL and run.train.init_from)
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
    if model.kind == "token":
        if run.tokenizer.kind == "none" or model.vocab != run.tokenizer.vocab:
            raise UserError(
                f"model.vocab is {model.vocab} and tokenizer.vocab {run.tokenizer.vocab}"
                f" ({run.tokenizer.kind}); they must be equal"
            )
        if not run.tokenizer.bytes_per_token > 0:
            raise UserError(
                "tokenizer.bytes_per_token must be above 0: the plan's guess of how many bytes a token has"
            )
    elif model.vocab != 260:
        raise UserError(f"model.vocab is {model.vocab}; models of bytes have 260 ids")
    if model.kind == "blt":
        if model.cross.heads > model.local.width:
            raise UserError(
                f"model.cross.heads is {model.cross.heads}; no more than model.local.width"
                f" ({model.local.width})"
            )
        if any(not isinstance(n, int) or n < 1 for n in model.ngrams.sizes):
            raise UserError(
                f"model.ngrams.sizes is {tuple(model.ngrams.sizes)!r}; whole numbers of 1 or more"
            )
        expected = {
            "blt-entropy": cfg.SCHEMES[2:5],
            "blt-space": ("space",),
            "blt-space-no-cross": ("space",),
            "blt-strided": ("strided",),
            "blt-bpe": ("bpe",),
            "blt-random": ("random",),
            "spacebyte": ("space",),
            "megabyte": ("strided",),
        }.get(run.family, ())
        if scheme not in expected:
            raise UserError(
                f"patching.scheme is {scheme!r}; family {run.family} has"
                f" {', '.join(expected) or 'no patches'}"
            )
        if scheme == "strided" and run.patching.size != int(run.patching.size):
            raise UserError(
                f"patching.size is {run.patching.size:g}; strided patches have a whole number of bytes"
            )
        if scheme == "bpe" and run.tokenizer.kind == "none":
            raise UserError("patching.scheme 'bpe' needs a tokenizer: tokenizer.kind trained or llama3")
    elif model.kind == "token" and model.reset:
        raise UserError(
            f"model.reset is {model.reset!r}; only models of bytes have newlines to begin anew at"
        )
    elif run.family != {"token": "bpe", "byte": ENTROPY_MODEL}[model.kind]:
        raise UserError(
            f"family is {run.family!r}, and the model's kind {model.kind!r} is of family"
            f" {'bpe' if model.kind == 'token' else ENTROPY_MODEL}"
        )
