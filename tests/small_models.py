"""Models of tests, a few hundred parameters each."""

from bltjax import config as cfg


def tokens(layers, width, vocab):
    return cfg.transformer("token", vocab=vocab, width=width, layers=layers, heads=width // 128)


SMALL = dict(
    local_width=24,
    encoder_layers=2,
    decoder_layers=3,
    local_heads=2,
    global_width=64,
    global_layers=2,
    global_heads=2,
    k=2,
    ngram_rows=11,
    ffn_multiple=8,
)


def small_blt(**changes):
    return cfg.blt_model(
        **{
            **dict(
                local_width=64,
                encoder_layers=1,
                decoder_layers=1,
                local_heads=2,
                global_width=128,
                global_layers=1,
                global_heads=2,
                k=2,
                ngram_rows=10,
                window=64,
            ),
            **changes,
        }
    )
