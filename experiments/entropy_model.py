"""Claim: a larger entropy model with a longer window gives better patches, with little gain beyond 50M
parameters and 512 bytes.

Figure     8 of arXiv 2412.09871 (its entropy models: 1M to 100M parameters, windows of 64 to 512 bytes);
           `lm-100M-w512` is the paper's own (section 4.2: 14 layers of 768, window 512)
Hardware   A few accelerators: the paper's size is 6.6e18 FLOPs, ten hours of one v5p chip at 40% utilization
Expect     test bits per byte fall with size and with window; the figure's own axis, the BLT's bits per byte,
           needs a BLT for each: take one of these runs by `bltjax data annotate --entropy-model`, or by
           `entropy_model` in an experiment of your own
Command    bltjax run entropy_model --set 'data.globs=["/where/your/text/is/*.jsonl"]'
           bltjax run entropy_model --runlocal     two sizes, two windows, in minutes

How long the paper trained its model is not said: here every one reads 100 bytes for each of its parameters,
in batches of 1 MiB."""

from ml_collections import ConfigDict

from bltjax import config as cfg
from bltjax import flops
from bltjax.errors import UserError

# layers, width, heads
SHAPES = {"1M": (4, 128, 4), "10M": (6, 384, 6), "50M": (12, 576, 9), "100M": (14, 768, 12)}
WINDOWS = (64, 128, 256, 512)
CONTEXT, BATCH, BYTES_PER_PARAMETER = 8192, 2**20, 100


def model(layers: int, width: int, heads: int, window: int, ffn_multiple: int = 256, **changes) -> ConfigDict:
    return cfg.replace(
        cfg.transformer(
            "byte",
            vocab=260,
            width=width,
            layers=layers,
            heads=heads,
            window=window,
            rope_theta=1e4,
            ffn_multiple=ffn_multiple,
        ),
        **changes,
    )


def full() -> list[ConfigDict]:
    data = cfg.replace(
        cfg.data(),
        **{
            "source": "files",
            "globs": ("data/entropy_model/*.jsonl",),
            "context": CONTEXT,
            "rows": BATCH // CONTEXT,
            "validation": 0.001,
            "test": 0.001,
        },
    )
    evaluation = cfg.replace(cfg.evaluation(), **{"test_bytes": 16_000_000, "validation_bytes": 4_000_000})
    runs = []
    for name, shape in SHAPES.items():
        for window in WINDOWS:
            one = model(*shape, window, dtype="bfloat16", remat="full")
            steps = max(1000, BYTES_PER_PARAMETER * flops.params(one)["total"] // BATCH)
            training = cfg.replace(
                cfg.training(), **{"steps": int(steps), "warmup": min(500, int(steps) // 10)}
            )
            runs.append(
                cfg.run(
                    f"lm-{name}-w{window}",
                    "entropy-model",
                    one,
                    data_=data,
                    training_=training,
                    evaluation_=evaluation,
                    size=name,
                )
            )
    return runs


def local() -> list[ConfigDict]:
    data = cfg.replace(
        cfg.data(),
        **{"context": 512, "rows": 4, "max_train_bytes": 1_000_000, "validation": 0.05, "test": 0.05},
    )
    evaluation = cfg.replace(cfg.evaluation(), **{"test_bytes": 100_000, "validation_bytes": 30_000})
    training = cfg.replace(cfg.training(), **{"lr": 4e-3, "steps": 150})
    return [
        cfg.run(
            f"lm-{name}-w{window}",
            "entropy-model",
            model(*shape, window, 32),
            data_=data,
            training_=training,
            evaluation_=evaluation,
            size=name,
        )
        for name, shape in {"16k": (1, 32, 1), "100k": (2, 64, 2)}.items()
        for window in (16, 128)
    ]


def get_config(arg: str | None = None) -> ConfigDict:
    if arg not in (None, "runlocal"):
        raise UserError(f"entropy_model:{arg}: the only argument is runlocal")
    return ConfigDict(
        dict(
            claim="larger entropy models with longer windows predict bytes better",
            figure="Figure 8",
            runs=tuple(local() if arg else full()),
        )
    ).lock()
