"""The three scales that every experiment is declared at: the paper's (no argument), one GPU (`NAME:gpu`) and
a laptop (`NAME:runlocal`, or --runlocal).

The paper's has the paper's sizes, text form, context, learning rate and preset. The other two are small, have
the same kinds of models, and compute what the released models do, but that no document sees another. (The
paper's preset is the same model otherwise parametrised: docs/results/ngram_normalisation.)"""

import functools

from ml_collections import ConfigDict

from bltjax import config as cfg
from bltjax.errors import UserError
from bltjax.sweep import rules
from bltjax.sweep.ladder import Scale

NOTHING_CROSSES = {"ngrams.reset": True, "mask_encoder_documents": True}

# Below Table 10: the same proportions, for sweeps that begin smaller than the paper's.
SMALL = {
    "100M": cfg.Size(1, 8, 512, 14, 12, 768, 4, 8, 2),
    "210M": cfg.Size(1, 10, 640, 17, 16, 1024, 5, 10, 2),
}
PAPER_SIZES = {**SMALL, **cfg.SIZES}
# Heads of 64, which GPU kernels like; the local models' share falls with size as it does in Table 10.
GPU_SIZES = {
    "100k": cfg.Size(1, 1, 64, 2, 1, 64, 1, 1, 1),
    "200k": cfg.Size(1, 2, 128, 1, 2, 128, 1, 2, 1),
    "400k": cfg.Size(1, 2, 128, 2, 2, 128, 2, 2, 1),
    "1M": cfg.Size(1, 2, 128, 3, 3, 192, 2, 2, 2),
    "3M": cfg.Size(1, 2, 128, 4, 4, 256, 2, 2, 2),
    "6M": cfg.Size(1, 3, 192, 5, 5, 320, 2, 3, 2),
    "11M": cfg.Size(1, 3, 192, 6, 6, 384, 2, 3, 2),
    "25M": cfg.Size(1, 4, 256, 8, 8, 512, 3, 4, 2),
    "71M": cfg.Size(1, 6, 384, 10, 12, 768, 4, 6, 2),
    "151M": cfg.Size(1, 8, 512, 12, 16, 1024, 5, 8, 2),
    "302M": cfg.Size(1, 8, 512, 16, 20, 1280, 6, 8, 3),
}
# Heads of 32, and of 16 in the smallest. S (221k), M and L are quickstart_seeds'.
LAPTOP_SIZES = {
    "3k": cfg.Size(1, 1, 16, 1, 1, 16, 1, 1, 1),
    "6k": cfg.Size(1, 1, 16, 2, 1, 16, 1, 1, 1),
    "12k": cfg.Size(1, 1, 16, 1, 1, 32, 1, 1, 2),
    "25k": cfg.Size(1, 1, 16, 2, 1, 32, 1, 1, 2),
    "49k": cfg.Size(1, 1, 32, 1, 2, 64, 1, 1, 2),
    "98k": cfg.Size(1, 1, 32, 2, 2, 64, 1, 1, 2),
    "S": cfg.Size(1, 1, 32, 2, 3, 96, 1, 1, 3),
    "M": cfg.Size(1, 2, 64, 3, 4, 128, 1, 2, 2),
    "L": cfg.Size(1, 2, 64, 4, 6, 192, 2, 2, 3),
}
# {vocab: mean bytes per token}. The paper's: section 2.4, of Llama 2's and Llama 3's tokenizers; others by
# interpolation in log entries, which a run replaces by what it finds.
PAPER_TOKENS = {8192: 3.2, 32_000: 3.7, 128_256: 4.4}
GPU_TOKENS = {2048: 3.0, 8192: 3.8, 32_768: 4.4}
# of the standard library's sources
LAPTOP_TOKENS = {
    512: 1.9,
    1024: 2.6,
    2048: 3.2,
    4096: 3.7,
    8192: 4.1,
    10240: 4.2,
    16384: 4.5,
    24576: 4.8,
    32768: 4.9,
    65536: 5.3,
}
GLOBS = ("data/text/*.jsonl",)  # the paper's mixes are not public: bring your own text


def of(name: str, arg: str | None) -> Scale:
    """The scale that the argument of an experiment names: None, "gpu" or "runlocal"."""
    makers = {None: paper, "gpu": gpu, "runlocal": laptop}
    if arg not in makers:
        raise UserError(f"{name}:{arg}: allowed are gpu and runlocal")
    return makers[arg]()


def _text(**changes) -> ConfigDict:
    return cfg.replace(cfg.data(), **changes)


def _scored(test_bytes: int, validation_bytes: int) -> ConfigDict:
    return cfg.replace(cfg.evaluation(), **{"test_bytes": test_bytes, "validation_bytes": validation_bytes})


@functools.cache
def paper() -> Scale:
    """Table 10, 8,192 bytes of context (section 4.3), Llama 3's tokenizer, one learning rate and 2,000 steps
    of warm-up."""
    text = _text(source="files", globs=GLOBS, context=8192, rows=128, validation=0.001, test=0.001)
    evaluation = _scored(64_000_000, 16_000_000)
    mixed = {"dtype": "bfloat16", "remat": "full"}
    return Scale(
        name="",
        sizes=PAPER_SIZES,
        text=text,
        evaluation=evaluation,
        batch=rules.llama3_batch,
        lr=lambda family, params, tokens: rules.PAPER_LR,
        warmup=rules.PAPER_WARMUP,
        vocab=128_256,
        tokenizers={
            vocab: ("llama3" if vocab == 128_256 else "trained", size) for vocab, size in PAPER_TOKENS.items()
        },
        space=6,
        # Section 4.2 and the released entropy model: 14 x 768, window 512, RoPE 1e4. How long it was trained
        # is not said; 10,000 batches of 1 MiB are about 100 bytes for each of its 1e8 parameters.
        entropy_model=_entropy_model(
            text, evaluation, (14, 768, 12), 512, mixed, **{"train.warmup": 500, "train.steps": 10_000}
        ),
        window=512,
        hash_rows=500_000,
        preset="paper",
        blt_changes={},
        changes=mixed,
    )


@functools.cache
def gpu() -> Scale:
    """3e14 to 1e18 FLOPs on one card of 80 GB: Table 10's proportions, narrower. Batches on Llama 3's line.

    Learning rates by the step law, whose N is here all parameters but hash tables. The law leaves embeddings
    out; but of a token model of 400k parameters they and the head are five sixths, and the law's rate (0.029)
    costs it 0.07 bits per byte against a fourth of it. So counted, it and the BLT of that size get 0.009,
    for the BLT the best of four (docs/results/study_gpu)."""
    text = _text(source="files", globs=GLOBS, context=4096, rows=8, validation=0.01, test=0.01)
    evaluation = _scored(4_000_000, 1_000_000)
    mixed = {"dtype": "bfloat16"}
    return Scale(
        name="gpu",
        sizes=GPU_SIZES,
        text=text,
        evaluation=evaluation,
        batch=rules.batch_line,
        lr=lambda family, params, tokens: rules.step_law_lr(params["total_without_hash"], tokens),
        warmup=rules.SHORT_WARMUP,
        vocab=8192,
        tokenizers={vocab: ("trained", size) for vocab, size in GPU_TOKENS.items()},
        space=6,
        entropy_model=_entropy_model(
            text, evaluation, (4, 256, 4), 512, mixed, **{"train.lr": 4e-3, "budget_flops": 1e15}
        ),
        window=512,
        hash_rows=65_536,
        preset="released",
        blt_changes=NOTHING_CROSSES,
        changes=mixed,
        microbatch=2**17,  # 80 GB hold it without remat, which costs time
    )


@functools.cache
def laptop() -> Scale:
    """1e11 to 2e12 FLOPs on two cores: quickstart_seeds' shapes, learning rates and text (the standard
    library's). Batches are 0.4 of Llama 3's line, so that a run of 1e11 FLOPs has its 100 steps."""
    text = _text(
        context=512,
        # 512 kB of text wait: rows are full of bytes and of patches at once
        packing_buffer=1024,
        patch_slack=1.0,  # widened until rows hold the bytes that they should
        max_train_bytes=10_000_000,  # of `compression`, no run reads more
        validation=0.02,
        test=0.03,
    )
    evaluation = _scored(200_000, 100_000)
    return Scale(
        name="runlocal",
        sizes=LAPTOP_SIZES,
        text=text,
        evaluation=evaluation,
        batch=lambda budget: 0.4 * rules.batch_line(budget),
        lr=lambda family, params, tokens: rules.laptop_lr(family),
        warmup=rules.SHORT_WARMUP,
        vocab=8192,
        tokenizers={vocab: ("trained", size) for vocab, size in LAPTOP_TOKENS.items()},
        space=7.9,  # indentation
        entropy_model=_entropy_model(
            text,
            evaluation,
            (2, 64, 2),
            128,
            {"ffn": cfg.ffn_width(64, 32)},
            **{"data.rows": 4, "train.lr": rules.laptop_lr("entropy-model"), "budget_flops": 2.5e11},
        ),
        window=128,
        hash_rows=8192,
        preset="released",
        blt_changes=NOTHING_CROSSES,
        changes={},
        ffn=32,
    )


def _entropy_model(text, evaluation, shape, window: int, changes: dict, **run_changes) -> ConfigDict:
    """shape: layers, width, heads."""
    layers, width, heads = shape
    model = cfg.transformer(
        "byte", vocab=260, width=width, layers=layers, heads=heads, window=window, rope_theta=1e4
    )
    lm = cfg.run(
        "entropy-model", "entropy-model", cfg.replace(model, **changes), data_=text, evaluation_=evaluation
    )
    return cfg.replace(lm, **run_changes)
