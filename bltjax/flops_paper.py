"""FLOPs in the `paper` convention: appendix B of arXiv 2412.09871, Eq. 13-17 and Table 11 (docs/flops.md)."""

BYTE_VOCAB = 256  # Eq. 15; the program's head has 260 columns

# The primitives of Table 11: forward FLOPs per query position, for `layers` layers.


def attention(layers: int, width: int, m: float) -> float:
    """Scores and weighted sum over m keys, causal: (m + 1) / 2 of them on average."""
    return 4 * layers * width * (m + 1) / 2


def qkvo(layers: int, width: int, r: float) -> float:
    """Projections: q and o once per query, k and v for r keys per query."""
    return (2 * r + 2) * 2 * layers * width**2


def feed_forward(layers: int, width: int, d_ff: float = 4) -> float:
    """Two matrices of width x (d_ff·width); SwiGLU of 8/3 has the same count in three."""
    return 2 * layers * 2 * width * (d_ff * width)


def de_embedding(width: int, vocab: int) -> float:
    """The output head."""
    return 2 * width * vocab


def cross_attention(layers: int, width: int, p: float, r: float) -> float:
    """Attention over p keys and projections with r keys per query."""
    return attention(layers, width, p) + qkvo(layers, width, r)


def transformer(layers: int, width: int, m: float) -> float:
    """TransfFL without its de-embedding, which is a component of its own here."""
    return feed_forward(layers, width) + qkvo(layers, width, 1) + attention(layers, width, m)


def cross_layers(which: str, layers: int) -> int:
    """The paper counts cross-attention in all l_E and l_D layers (Eq. 16 and 17), whichever of them have
    it."""
    return 0 if which == "none" else layers


def per_byte(model, context: int, n_p: float) -> dict:
    """Eq. 13-17: forward FLOPs per byte by component, of a model config; n_p: bytes per patch or token."""
    if model.kind != "blt":
        positions = context / n_p
        vocab = BYTE_VOCAB if model.kind == "byte" else model.vocab
        m = min(model.window, positions) if model.window else positions
        return dict(
            transformer=transformer(model.layers, model.width, m) / n_p,
            head=de_embedding(model.width, vocab) / n_p,
        )
    local, d, k = model.local, model.local.width, model.cross.k
    encoder_cross = cross_layers(model.cross.encoder, local.encoder_layers)
    decoder_cross = cross_layers(model.cross.decoder, local.decoder_layers)
    return dict(
        encoder=transformer(local.encoder_layers, d, local.window),
        cross_encoder=cross_attention(encoder_cross, d, n_p, n_p / k) * k / n_p,
        latent=transformer(model.latent.layers, model.latent.width, context / n_p) / n_p,
        cross_decoder=cross_attention(decoder_cross, d, k, k / n_p),
        decoder=transformer(local.decoder_layers, d, local.window),
        head=de_embedding(d, BYTE_VOCAB),
    )
