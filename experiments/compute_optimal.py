"""Claim: trained at the same FLOPs, each at its compute-optimal budget, byte patches match BPE tokens from
400M to 8B parameters.

Figure     6 of arXiv 2412.09871: bits per byte against training FLOPs. Left, space patches: BLT, BLT without
           cross-attention, SpaceByte, MegaByte (4, 6). Right, entropy patches: 4.5, 6, 8. Both against the
           Llama 3 tokenizer. (The paper's axis starts at 1B; 400M is its smallest shape.) Blt-strided and
           blt-random are no part of the figure.
Hardware   A pod: a run of 8B is 7.1e21 FLOPs, 10,800 hours of one v5p chip at 40% utilization; a run of 400M
           70 hours.
Time       All 45 runs are 9.8e22 FLOPs, 149,000 v5p chip-hours at 40%.
Expect     The paper prints no points. It says: entropy patches match or beat BPE; patches of 8 are clearly
           worse at 1B and better than Llama 2's BPE near 7B; SpaceByte beats MegaByte, and both stay far
           behind BPE.
Command    bltjax plan compute_optimal
           bltjax run compute_optimal --set 'data.globs=["/where/your/text/is/*.jsonl"]'
           bltjax run compute_optimal --runlocal     the same families, tiny, on this machine, in minutes

At one size all families have one budget, one batch in bytes and one context in bytes.
"""

import dataclasses
import math

from ml_collections import ConfigDict

from bltjax import config as cfg
from bltjax import flops
from bltjax.config import families
from bltjax.errors import UserError

CONTEXT = 8192  # bytes (paper section 4.3, Llama 2 data)
HASH_ROWS = 500_000  # for each of the six n-gram sizes (section 4.8)
LLAMA3_VOCAB, LLAMA3_BYTES_PER_TOKEN = 128_256, 4.4  # section 2.4
PATCHED = (  # family, patch size
    ("blt-entropy", 4.5),
    ("blt-entropy", 6),
    ("blt-entropy", 8),
    ("blt-space", 6),
    ("blt-space-no-cross", 6),
    ("spacebyte", 6),  # 6: what the space rule gives on the paper's text
    ("megabyte", 4),
    ("megabyte", 6),
)
# patches of 8 have three encoder layers, each with cross-attention as in Eq. 16 (section 5.3); others one
ENCODER_LAYERS = {8: 3}


# Size -> budget. Llama 3's law for BPE, D*(C) = A·C^alpha tokens (2407.21783 section 3.2.1), is printed as
# (0.29, 0.53); rounded so, it gives 1.05e13 tokens at 3.8e25 FLOPs where that paper has 1.655e13. We keep A
# and take alpha from the point itself: 0.538. It then gives 48B bytes at 400M and 433B at 4B, where Table 2
# of the BLT paper has 50B and 400B.
LAW_A = 0.29
LAW_ALPHA = math.log(16.55e12 / LAW_A) / math.log(3.8e25)


def optimal_budget(bpe_model: ConfigDict) -> float:
    """The training FLOPs C (`exact`) for which the law makes this model compute optimal: c·D*(C) = C, c FLOPs
    per token."""
    per_byte = flops.count(bpe_model, LLAMA3_BYTES_PER_TOKEN, context=CONTEXT)["exact"]["total"]
    per_token = per_byte * LLAMA3_BYTES_PER_TOKEN
    return (LAW_A * flops.TRAIN * per_token) ** (1 / (1 - LAW_ALPHA))


def batch_bytes(budget: float) -> int:
    """Rule `llama3-batch`: Llama 3's scaling runs had one batch per compute scale, 250k tokens at 6e18 FLOPs
    to 4M at 1e22 (2407.21783 section 3.2.1). We go from 1 MiB to 16 MiB (the paper's 16M bytes) between them,
    evenly in log FLOPs, in powers of 2."""
    place = math.log(budget / 6e18) / math.log(1e22 / 6e18)
    return 2 ** round(20 + 4 * min(max(place, 0.0), 1.0))


@dataclasses.dataclass(frozen=True)
class Scale:
    """What the runs of one size share."""

    name: str
    shape: cfg.Size
    budget: float
    data: ConfigDict
    training: ConfigDict
    evaluation: ConfigDict
    tokenizer: ConfigDict
    entropy_model: ConfigDict
    model: dict  # keys of the model config that differ from its defaults
    window: int = 512
    hash_rows: int = HASH_ROWS
    ffn_multiple: int = 256
    space_size: float = 6  # mean bytes that the space rule gives


def bpe_shape(shape: cfg.Size, vocab: int, ffn_multiple: int = 256) -> ConfigDict:
    """The BPE baseline of a size: the latent transformer of that row of Table 10, on tokens. (The paper does
    not print its shapes.)"""
    return cfg.transformer(
        "token",
        vocab=vocab,
        width=shape.global_width,
        layers=shape.global_layers,
        heads=shape.global_heads,
        ffn_multiple=ffn_multiple,
    )


def bpe(scale: Scale) -> ConfigDict:
    model = cfg.replace(bpe_shape(scale.shape, scale.tokenizer.vocab, scale.ffn_multiple), **scale.model)
    return _run(scale, f"bpe-{scale.name}", "bpe", model, tokenizer_=scale.tokenizer)


def patched(scale: Scale, family: str, patch_size: float) -> ConfigDict:
    scheme = families.family(family).scheme
    if scheme == "space":
        patch_size = scale.space_size
    layers = ENCODER_LAYERS.get(patch_size, scale.shape.encoder_layers)
    model = cfg.sized_blt(
        scale.shape,
        encoder_layers=layers,
        window=scale.window,
        ngram_rows=scale.hash_rows,
        ffn_multiple=scale.ffn_multiple,
    )
    model = cfg.replace(model, **{**scale.model, "cross.encoder": "all" if layers > 1 else "last"})
    model = families.changed(model, family)
    return _run(
        scale,
        f"{family}-{patch_size:g}-{scale.name}",
        family,
        model,
        patching_=cfg.patching(scheme, patch_size),
        entropy_model=scale.entropy_model if scheme == "entropy" else None,
    )


def _run(scale: Scale, name: str, family: str, model: ConfigDict, **parts) -> ConfigDict:
    return cfg.run(
        name,
        family,
        model,
        data_=scale.data,
        training_=scale.training,
        evaluation_=scale.evaluation,
        budget_flops=scale.budget,
        size=scale.name,
        **parts,
    )


def full() -> list[Scale]:
    """The paper's sizes."""

    def data(bytes_per_batch: int) -> ConfigDict:
        return cfg.replace(
            cfg.data(),
            **{
                "source": "files",
                # the paper's Llama 2 mix is not public: bring your own text
                "globs": ("data/compute_optimal/*.jsonl",),
                "context": CONTEXT,
                "rows": bytes_per_batch // CONTEXT,
                "validation": 0.001,
                "test": 0.001,
            },
        )

    mixed = {"dtype": "bfloat16", "remat": "full"}
    evaluation = cfg.replace(cfg.evaluation(), **{"test_bytes": 64_000_000, "validation_bytes": 16_000_000})
    # Section 4.2 and the released entropy model: 14 x 768, window 512, RoPE 1e4. How long it was trained is
    # not said; 10,000 batches of 1 MiB are about 100 bytes for each of its 1e8 parameters.
    lm_model = cfg.replace(
        cfg.transformer("byte", vocab=260, width=768, layers=14, heads=12, window=512, rope_theta=1e4),
        **mixed,
    )
    lm = cfg.run(
        "entropy-model",
        "entropy-model",
        lm_model,
        data_=data(2**20),
        evaluation_=evaluation,
        training_=cfg.replace(cfg.training(), **{"warmup": 500, "steps": 10_000}),
    )
    scales = []
    for name, shape in cfg.SIZES.items():
        budget = optimal_budget(bpe_shape(shape, LLAMA3_VOCAB))
        scales.append(
            Scale(
                name,
                shape,
                budget,
                data(batch_bytes(budget)),
                cfg.replace(cfg.training(), **{"lr": 4e-4, "warmup": 2000}),  # section 4.8
                evaluation,
                cfg.tokenizer("llama3", LLAMA3_VOCAB, LLAMA3_BYTES_PER_TOKEN),
                lm,
                mixed,
            )
        )
    return scales


def local() -> list[Scale]:
    """The same structure for a laptop: the standard library's text, a BPE trained on it, two sizes 3x apart
    in FLOPs.

    On that text 1,024 tokens hold 2.6 bytes each and the space rule gives patches of 7.8 (indentation). The
    learning rate is not tuned."""

    def data(rows: int) -> ConfigDict:
        return cfg.replace(
            cfg.data(),
            **{"context": 512, "rows": rows, "max_train_bytes": 2_000_000, "validation": 0.05, "test": 0.05},
        )

    training = cfg.replace(cfg.training(), **{"lr": 4e-3})
    evaluation = cfg.replace(cfg.evaluation(), **{"test_bytes": 100_000, "validation_bytes": 30_000})
    lm_model = cfg.transformer(
        "byte", vocab=260, width=64, layers=2, heads=2, window=128, rope_theta=1e4, ffn_multiple=32
    )
    lm = cfg.run(
        "entropy-model",
        "entropy-model",
        lm_model,
        data_=data(2),
        training_=training,
        evaluation_=evaluation,
        budget_flops=1.2e11,
    )
    shapes = {
        "XS": (cfg.Size(1, 1, 32, 2, 2, 64, 1, 1, 2), 1e11, 2),
        "S": (cfg.Size(1, 2, 64, 3, 4, 128, 1, 2, 2), 3e11, 2),
    }
    return [
        Scale(
            name,
            shape,
            budget,
            data(rows),
            training,
            evaluation,
            cfg.tokenizer("trained", 1024, 2.6),
            lm,
            {},
            window=128,
            hash_rows=4096,
            ffn_multiple=32,
            space_size=7.8,
        )
        for name, (shape, budget, rows) in shapes.items()
    ]


def get_config(arg: str | None = None) -> ConfigDict:
    if arg not in (None, "runlocal"):
        raise UserError(f"compute_optimal:{arg}: the only argument is runlocal")
    scales = local() if arg else full()
    runs = tuple(
        run for scale in scales for run in (bpe(scale), *(patched(scale, *which) for which in PATCHED))
    )
    return ConfigDict(
        dict(
            claim="at the same training FLOPs, byte patches match BPE tokens from 400M to 8B parameters",
            figure="Figure 6",
            runs=runs,
        )
    ).lock()
