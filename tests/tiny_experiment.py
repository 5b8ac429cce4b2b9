"""A user's own experiment file, as small as one can be: two families at one budget, on text files named by
--set data.globs."""

from ml_collections import ConfigDict

from bltjax import config as cfg


def get_config(arg=None):
    data = cfg.replace(
        cfg.data(),
        **{"source": "files", "globs": ("*.txt",), "context": 64, "rows": 2, "validation": 0.2, "test": 0.2},
    )
    train = cfg.replace(cfg.training(), **{"lr": 3e-3, "checkpoint_every": 20})
    lm = cfg.run(
        "entropy-model",
        "entropy-model",
        cfg.transformer("byte", vocab=260, width=16, layers=1, heads=1, window=32, ffn_multiple=16),
        data_=data,
        training_=cfg.replace(train, **{"steps": 120}),
    )
    blt = cfg.blt_model(
        local_width=16,
        encoder_layers=1,
        decoder_layers=1,
        local_heads=1,
        global_width=32,
        global_layers=1,
        global_heads=1,
        k=2,
        window=32,
        ngram_rows=64,
        ffn_multiple=16,
    )
    token = cfg.transformer("token", vocab=300, width=16, layers=1, heads=1, ffn_multiple=16)
    budget = 2e9
    runs = (
        cfg.run(
            "bpe",
            "bpe",
            token,
            tokenizer_=cfg.tokenizer("trained", 300, 2.0),
            data_=data,
            training_=train,
            budget_flops=budget,
        ),
        cfg.run(
            "entropy",
            "blt-entropy",
            blt,
            patching_=cfg.patching("entropy", 3.0),
            data_=data,
            training_=train,
            entropy_model=lm,
            budget_flops=budget,
        ),
        cfg.run(
            "space",
            "blt-space",
            blt,
            patching_=cfg.patching("space", 5.0),
            data_=data,
            training_=train,
            budget_flops=budget,
        ),
    )
    return ConfigDict(dict(claim="tiny", figure="", runs=runs)).lock()
