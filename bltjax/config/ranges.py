"""Which values of a config's keys can be meant: one table, of numbers and of words, for runs and for
`bltjax data prepare`. What keys must be to one another is in run/validate.py."""

import math

import numpy as np

from bltjax.errors import UserError

MOST = 2**63 - 1  # of what is counted: bytes, say
LARGEST_DOCUMENT = 2**32 - 1  # bytes: what an index can say
SEED = 2**32 - 1  # what a key of JAX is made of

# (least, most), both allowed but for ABOVE and BELOW. A key that is a number and not here must be finite.
RANGES = {
    "seed": (0, SEED),
    "budget_flops": (0, 1e40),
    "data.seed": (0, MOST),
    "data.rows": (1, 2**24),
    "data.context": (16, 2**24),
    "data.min_bytes": (0, LARGEST_DOCUMENT),
    "data.longest": (1, LARGEST_DOCUMENT),
    "data.validation": (0, 1),
    "data.test": (0, 1),
    "data.max_train_bytes": (0, MOST),
    "data.patch_slack": (1, 100),
    "data.packing_buffer": (0, 2**24),
    "train.steps": (0, 10**9),
    "train.lr": (0, 1e38),
    "train.beta1": (0, 1),
    "train.beta2": (0, 1),
    "train.eps": (0, 1),
    "train.weight_decay": (0, 100),
    "train.clip": (0, 1e9),
    "train.warmup": (-1, 10**9),
    "train.final_lr": (0, 1),  # a share of lr, so that the last rate is never above the first
    "train.decay": (0, 1),
    "train.accumulate": (1, 2**24),
    "train.checkpoint_every": (0, 10**9),
    "train.checkpoint_minutes": (0, 1e6),
    "train.keep": (0, 10**6),
    "train.log_every": (1, 10**9),
    "train.watchdog": (0, 1e9),
    "eval.test_bytes": (0, MOST),
    "eval.validation_bytes": (0, MOST),
    "eval.every": (-1, 10**9),
    "eval.sample_bytes": (1, MOST),
    "patching.size": (1, 2**24),
    "patching.max_length": (0, 2**31 - 1),
    "patching.resolution": (0, 1),
    "patching.threshold": (-100, 100),
    "patching.delta": (-100, 100),
    "patching.seed": (0, MOST),
    "tokenizer.vocab": (0, 2**24),
    "tokenizer.bytes_per_token": (0, 1000),
    "model.vocab": (1, 2**24),
    "model.rope_theta": (1, 1e15),
    "model.norm_eps": (0, 1),
    "model.latent.rope_theta": (0, 1e15),
    "model.cross.k": (1, 1024),
    "model.ngrams.rows": (1, 2**31 - 1),
    "model.ngrams.functions": (1, 11),
    "model.ngrams.init_scale": (0, 1e6),
}
# of models, wherever they stand
SHAPES = {
    **dict.fromkeys(("width", "ffn"), (1, 2**20)),
    **dict.fromkeys(("heads", "layers", "encoder_layers", "decoder_layers"), (1, 2**14)),
    "window": (0, 2**31 - 1),  # 0: all before
}
ABOVE = ("train.lr", "train.eps", "model.norm_eps")
BELOW = ("train.beta1", "train.beta2", "data.validation", "data.test")
SINGLE = ("train.", "model.")  # keys whose numbers are computed with in float32
OPEN = ("patching.threshold", "patching.delta")  # nan: found on the rows that the run reads

WORDS = {
    "model.kind": ("blt", "token", "byte"),
    "model.dtype": ("float32", "bfloat16"),
    "model.remat": ("none", "full", "dots"),
    "model.cross.encoder": ("last", "all", "none"),
    "model.cross.decoder": ("all", "first", "none"),
    "model.cross.encoder_kv": ("input", "output"),
    "model.cross.pool": ("embeddings", "states", "learned"),
    "model.reset": ("", "newline"),
    "model.ngrams.digits": ("paper", "released"),
    "model.ngrams.short": ("omit", "pad"),
    "patching.scheme": ("strided", "space", "entropy", "monotonic", "both", "bpe", "random", "none"),
    "tokenizer.kind": ("none", "trained", "llama3", "file", "given"),
    "train.schedule": ("cosine", "wsd", "constant"),
}


def _number_above_0(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf


# {last part of a key: (whether a list of it can be meant, what it must be)}
LISTS = {
    "rope_scaling": (
        lambda values: len(values) in (0, 4) and all(map(_number_above_0, values)),
        "empty, or four numbers above 0 (factor, low, high, original length)",
    ),
    "ends": (
        lambda values: all(type(value) is int and value >= 0 for value in values),
        "a list of ids, whole numbers of 0 or more",
    ),
    "swept": (
        lambda values: all(isinstance(value, str) for value in values),
        'a list of keys, such as ["train.lr"]',
    ),
}


def check(values: dict) -> None:
    """UserError, naming key, value and what is allowed, for the first of {dotted key: value} that cannot be
    meant."""
    for key, value in values.items():
        if key in WORDS and value not in WORDS[key]:
            raise UserError(f"{key} is {value!r}; allowed: {', '.join(WORDS[key])}")
        can_be, must = LISTS.get(key.split(".")[-1], (None, ""))
        if can_be and isinstance(value, (tuple, list)) and not can_be(value):
            raise UserError(f"{key} is {list(value)!r}; it must be {must}")
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            _number(key, value)


def _number(key: str, value) -> None:
    if math.isnan(value) and key in OPEN:
        return
    if not math.isfinite(value):
        raise UserError(f"{key} is {value}; it must be a finite number")
    shape = SHAPES.get(key.split(".")[-1]) if key.startswith("model.") else None
    least, most = RANGES.get(key) or shape or (-math.inf, math.inf)
    if value < least or key in ABOVE and value == least:
        must = f"above {least}" if key in ABOVE else f"{least} or more"
        raise UserError(f"{key} is {value:g}; it must be {must}")
    if key.startswith(SINGLE) and key in (*ABOVE, *BELOW):
        _in_single(key, value, least if key in ABOVE else most)
    if value > most or key in BELOW and value == most:
        must = f"below {most}" if key in BELOW else f"{most:,} or less"
        raise UserError(f"{key} is {value:g}; it must be {must}")


def _in_single(key: str, value: float, limit: float) -> None:
    """UserError for a number beside a limit that it may not have, which float32 cannot tell from it. What is
    below float32's smallest normal number is 0 on the devices."""
    there = 0.0 if abs(value) < float(np.finfo(np.float32).tiny) else float(np.float32(min(value, 3e38)))
    if there == limit and value != limit:
        raise UserError(
            f"{key} is {value!r}, which is {limit} in float32; it must be"
            f" {'above' if key in ABOVE else 'below'} that"
        )
