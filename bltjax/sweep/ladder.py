"""The model ladder: size -> shape, and (family, patches, size, budget or data) -> a run: what the experiments
of one scale share.

A `Scale` (sweep/scales.py has the three: the paper's, one GPU, a laptop) says how large things are and by
which rules of sweep/rules.py a budget becomes a batch and a learning rate. An experiment asks `run` for its
cells and names what differs, so that it reads the same at every scale."""

import dataclasses
import math
from collections.abc import Callable

from ml_collections import ConfigDict

from bltjax import config as cfg
from bltjax import flops
from bltjax.config import families
from bltjax.sweep import rules

# Those that are tuned and repeated, and their mean bytes per patch (0: the space rule's; none of tokens).
FAMILIES = (("bpe", 0), ("blt-entropy", 4.5), ("blt-space", 0), ("blt-strided", 4))


@dataclasses.dataclass(frozen=True)
class Scale:
    """What the runs of one scale share.

    name: "" (the paper's), "gpu" or "runlocal". sizes: rows in the form of Table 10, smallest first. text:
    the data section, but for rows. batch: bytes of a batch at a budget, before they become whole rows. lr:
    of (family, parameters by part as flops.params has them, tokens). vocab: of the BPE baseline. tokenizers:
    {vocab: (kind, mean bytes per token)}. space: mean bytes of the space rule's patches on this text.
    entropy_model: the run that trains it. changes: keys of every model that differ from its preset. ffn:
    what feed-forward widths are multiples of. microbatch: bytes that go through the model at once (0: the
    batch)."""

    name: str
    sizes: dict
    text: ConfigDict
    evaluation: ConfigDict
    batch: Callable[[float], float]
    lr: Callable[[str, dict, float], float]
    warmup: int
    vocab: int
    tokenizers: dict
    space: float
    entropy_model: ConfigDict
    window: int
    hash_rows: int
    preset: str
    blt_changes: dict
    changes: dict
    ffn: int = 256
    microbatch: int = 0


def token_model(scale: Scale, size: str, vocab: int) -> ConfigDict:
    """The BPE baseline of a size: the latent transformer of that row, on tokens. (The paper does not print
    its shapes.)"""
    s = scale.sizes[size]
    model = cfg.transformer(
        "token",
        vocab=vocab,
        width=s.global_width,
        layers=s.global_layers,
        heads=s.global_heads,
        ffn_multiple=scale.ffn,
    )
    return cfg.replace(model, **scale.changes)


def blt_model(scale: Scale, family: str, size: str, encoder_layers: int = 0) -> ConfigDict:
    """The BLT of a size as a family has it. encoder_layers: other than the size's; each of several has
    cross-attention, as in Eq. 16."""
    layers = encoder_layers or scale.sizes[size].encoder_layers
    model = cfg.sized_blt(
        scale.sizes[size],
        scale.preset,
        encoder_layers=layers,
        window=scale.window,
        ngram_rows=scale.hash_rows,
        ffn_multiple=scale.ffn,
    )
    crossed = {"cross.encoder": "all" if layers > 1 else "last"}
    return families.changed(cfg.replace(model, **{**scale.changes, **scale.blt_changes, **crossed}), family)


def model_of(
    scale: Scale, family: str, size: str, *, patch: float = 0.0, vocab: int = 0, encoder_layers: int = 0
) -> tuple[ConfigDict, float]:
    """(model config, mean bytes of a patch or token that it aims at). Arguments: as of `run`."""
    kind, scheme = families.family(family).kind, families.family(family).scheme
    vocab = vocab or scale.vocab
    if kind == "token":
        return token_model(scale, size, vocab), scale.tokenizers[vocab][1]
    unit = {"space": scale.space, "bpe": scale.tokenizers[vocab][1]}.get(scheme, patch)
    return blt_model(scale, family, size, encoder_layers), unit


def flops_per_byte(scale: Scale, family: str, size: str, **unit) -> float:
    """`exact` forward FLOPs per byte of a family at a size, in the scale's context. unit: as of `run`."""
    model, mean = model_of(scale, family, size, **unit)
    return flops.count(model, mean, context=scale.text.context)["exact"]["total"]


def run(
    scale: Scale,
    name: str,
    family: str,
    size: str,
    *,
    patch: float = 0.0,
    vocab: int = 0,
    budget: float = 0.0,
    data_bytes: float = 0.0,
    like: float = 0.0,
    context: int = 0,
    encoder_layers: int = 0,
    entropy_model: ConfigDict | None = None,
    changes: dict | None = None,
    series: str = "",
    figure: str = "",
    row: str = "",
    seed: int = 0,
) -> ConfigDict:
    """One run of a family at a size of the scale.

    patch: mean bytes of a patch (0: the space rule's); vocab: of BPE, or of patches by BPE (0: the scale's).
    budget: FLOPs, of which the run spends all; or data_bytes: that it reads, whatever they cost. like: the
    budget whose batch it has (0: its own; where data is given, what the BPE baseline of the size would spend
    on it, so that families and variants of a size have one batch). context: in bytes (0: the scale's).
    entropy_model: another one than the scale's. changes: dotted keys of the run that the experiment differs
    in. figure, row: what of the paper the run answers."""
    scheme, vocab = families.family(family).scheme, vocab or scale.vocab
    model, unit = model_of(scale, family, size, patch=patch, vocab=vocab, encoder_layers=encoder_layers)
    tokenizer = None
    if model.kind == "token" or scheme == "bpe":
        tokenizer = cfg.tokenizer(scale.tokenizers[vocab][0], vocab, scale.tokenizers[vocab][1])
    made = cfg.run(
        name,
        family,
        model,
        patching_=None if model.kind == "token" else cfg.patching(scheme, unit),
        tokenizer_=tokenizer,
        data_=scale.text,
        evaluation_=scale.evaluation,
        entropy_model=(entropy_model or scale.entropy_model) if scheme == "entropy" else None,
        budget_flops=budget,
        size=size,
        seed=seed,
        series=series,
        figure=figure,
        row=row,
    )
    changes = changes or {}
    if of_model := {key: value for key, value in changes.items() if key.startswith("model.")}:
        made = cfg.replace(made, **of_model)  # they change what the run costs
    context = context or scale.text.context
    cost = flops.TRAIN * flops.count(made.model, unit, context=context)["exact"]["total"]
    like = like or budget or data_bytes * flops.TRAIN * flops_per_byte(scale, "bpe", size)
    rows, parts = _rows(scale, like, context)
    read = data_bytes or budget / cost
    fixed = {"train.steps": max(1, round(data_bytes / (rows * context)))} if data_bytes else {}
    rates = {"train.lr": _rounded(scale.lr(family, flops.params(made.model), read / unit))}
    batch = {"data.context": context, "data.rows": rows, "train.accumulate": parts}
    return cfg.replace(made, **{**batch, "train.warmup": scale.warmup, **fixed, **rates, **changes})


def of_every_family(scale: Scale, size: str, budget: float) -> list[ConfigDict]:
    """One cell in each family of FAMILIES, with the warm-up of short runs."""
    short = {"train.warmup": rules.SHORT_WARMUP}
    return [
        run(scale, f"{family}-{size}", family, size, patch=patch, budget=budget, changes=short)
        for family, patch in FAMILIES
    ]


def _rows(scale: Scale, budget: float, context: int) -> tuple[int, int]:
    """(rows of a batch at a budget, microbatches that they are cut into)."""
    rows = max(1, round(scale.batch(budget) / context))
    parts = math.ceil(rows * context / scale.microbatch) if scale.microbatch else 1
    return parts * round(rows / parts), parts


def short(amount: float) -> str:
    """A budget or an amount of data in a run's name: 1e20, 2.5e10."""
    return f"{amount:.2g}".replace("e+", "e")


def _rounded(value: float, digits: int = 3) -> float:
    return float(f"{value:.{digits - 1}e}")


def optimal_budget(scale: Scale, size: str) -> float:
    """The budget for which Llama 3's law makes the BPE baseline of a size compute optimal (rule
    `llama3-data`; the paper's own, section 5.1)."""
    per_token = flops_per_byte(scale, "bpe", size) * scale.tokenizers[scale.vocab][1]
    return rules.llama3_budget(flops.TRAIN * per_token)
