"""The only counter of FLOPs and parameters: planner, trainer, reports and tests all call it.

Two conventions (docs/flops.md has every formula and what is counted where):

    paper   appendix B of arXiv 2412.09871 (Eq. 13-17, Table 11), checked against Table 2
    exact   the multiplications and additions that the program must do: real windows, widths and output head

Both count a multiply-add as 2 and leave out norms, softmax, look-ups (embeddings, hash tables) and the
entropy model, which is reported beside. Forward only, unless a name says `train` or `step`: backward is twice
forward, so training is 3 times. """

from bltjax.errors import UserError

TRAIN = 3  # forward, and a backward of twice that (paper section 4.5)
# what the program executes of self-attention: its backward computes the scores again instead of keeping them
ATTENTION_TRAIN = 3.5
PAPER_BYTE_VOCAB = 256  # Eq. 15; the program's head has 260 columns
CONTEXT, PATCH_SIZE, BYTES_PER_TOKEN = (
    8192,
    4.5,
    4.4,
)  # of a model given without its run: paper 4.3, released default, Llama 3 tokenizer


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


# The public counts.


def count(config, patch_size: float | None = None, *, context: int | None = None) -> dict:
    """FLOPs per byte and parameters of a run config, or of a model config alone.

    patch_size: mean bytes per patch or token; default: what the run aims at (of a model alone: 4.5, tokens
    4.4). context: bytes of context; default: the run's (of a model alone: 8192). Returns {"paper":
    {component: forward FLOPs per byte, ..., "total"}, "exact": the same, "params": {...}, "params_paper":
    {...}, "entropy_model": {"paper", "exact", "params"} (zeros where the run has none), "patch_size",
    "context"}. Components: encoder, cross_encoder, latent, cross_decoder, decoder, head; of the kinds `token`
    and `byte`: transformer, head. """
    model, context, patch_size, beside = _read(config, patch_size, context)
    slot, patch = _split(_rates(model, *_useful_keys(model, context, patch_size)))
    slots = 1 / patch_size if model.kind == "token" else 1.0
    exact = {name: slots * slot[name] + patch[name] / patch_size for name in slot}
    entropy_model = dict(paper=0.0, exact=0.0, params=0)
    if beside:
        beside = count(beside)
        entropy_model = dict(
            paper=beside["paper"]["total"], exact=beside["exact"]["total"], params=beside["params"]["total"]
        )
    return dict(
        paper=_with_total(_paper(model, context, patch_size)),
        exact=_with_total(exact),
        params=params(model),
        params_paper=params_paper(model),
        entropy_model=entropy_model,
        patch_size=patch_size,
        context=context,
    )


def per_unit(config, patch_size: float | None = None, *, context: int | None = None) -> tuple[float, float]:
    """(`exact` forward FLOPs per byte slot, or per token; per patch). Constants of the config: attention keys
    are averaged over a full context, so that useful forward FLOPs are slots·a + patches·b whatever the
    packing. Kinds without patches: b = 0. """
    model, context, patch_size, _ = _read(config, patch_size, context)
    slot, patch = _split(_rates(model, *_useful_keys(model, context, patch_size)))
    return sum(slot.values()), sum(patch.values())


def train_flops(config, slots, patches=0):
    """`exact` useful training FLOPs (forward and backward) of so many unpadded byte slots (or tokens) and
    patches.

    slots, patches: numbers, or arrays of counts per step."""
    a, b = per_unit(config)
    return TRAIN * (slots * a + patches * b)


def executed_step(config, rows: int, slots_per_row: int, patches_per_row: int = 0) -> float:
    """FLOPs of one training step over fixed shapes, padding, masked attention blocks and scores computed
    again in the backward pass included: for MFU and wall time only.

    Rematerialised forwards (`model.remat`) are not counted. Kind `token`: slots are tokens."""
    model = config.model if "model" in config else config
    window = model.local.window if model.kind == "blt" else model.window
    latent_keys = executed_keys(patches_per_row) if model.kind == "blt" else 0.0
    again = ATTENTION_TRAIN / TRAIN
    slot, patch = _split(_rates(model, again * executed_keys(slots_per_row, window), again * latent_keys))
    return TRAIN * rows * (slots_per_row * sum(slot.values()) + patches_per_row * sum(patch.values()))


def params(config) -> dict:
    """Counted parameters by component, norms with the component that they are in.

    `encoder`, `latent`, `decoder` are their transformer layers (the decoder with the model's final norm);
    `cross_encoder` and `cross_decoder` are cross-attention and the projections between byte and patch widths;
    `hash` is the n-gram tables. """
    model = config.model if "model" in config else config
    if model.kind == "blt":
        out = _blt_params(model)
    else:
        layer = _layer_params(model.width, model.ffn)
        out = dict(
            transformer=model.layers * layer + model.width,
            embeddings=model.vocab * model.width,
            hash=0,
            head=model.vocab * model.width,
        )
    total = sum(out.values())
    latent = model.latent if model.kind == "blt" else model
    return {
        **out,
        "total": total,
        "total_without_hash": total - out["hash"],
        "latent_12lh2": 12 * latent.layers * latent.width**2,
    }


def params_paper(config) -> dict:
    """Parameters as Tables 2 and 10 have them: 12·l·h² per stack and 4·h² per cross-attention layer; no
    embeddings, head or tables."""
    model = config.model if "model" in config else config
    if model.kind != "blt":
        return _with_total(dict(transformer=12 * model.layers * model.width**2))
    d, g = model.local.width, model.latent.width
    return _with_total(
        dict(
            encoder=12 * model.local.encoder_layers * d**2,
            cross_encoder=4 * _paper_cross_layers(model.cross.encoder, model.local.encoder_layers) * d**2,
            latent=12 * model.latent.layers * g**2,
            cross_decoder=4 * _paper_cross_layers(model.cross.decoder, model.local.decoder_layers) * d**2,
            decoder=12 * model.local.decoder_layers * d**2,
        )
    )


def mean_keys(queries: float, window: int = 0) -> float:
    """Keys that a causal query sees, itself included, averaged over `queries` of them: the mean of min(i + 1,
    window)."""
    w = min(window, queries) if window else queries
    return (w * (w + 1) / 2 + (queries - w) * w) / queries


def executed_keys(queries: int, window: int = 0) -> float:
    """Keys per query that models.attention multiplies, masked ones in its blocks included, averaged over a
    row."""
    from bltjax.models.kernels import attention  # late: counting for a plan needs no jax

    return attention.executed_pairs(queries, window) / queries


# What they are made of.


def _read(config, patch_size, context):
    """(model, context in bytes, bytes per patch or token, entropy model's run config or None) of a run config
    or a model config."""
    run = config if "model" in config else None
    model = run.model if run is not None else config
    if "kind" not in model:
        raise UserError(
            "flops: this is neither a run config (it has no `model`) nor a model config (it has no `kind`)"
        )
    context = context or (run.data.context if run is not None else CONTEXT)
    if model.kind == "byte":
        patch_size = 1.0
    elif patch_size is None and run is None:
        patch_size = BYTES_PER_TOKEN if model.kind == "token" else PATCH_SIZE
    elif patch_size is None:
        patch_size = run.tokenizer.bytes_per_token if model.kind == "token" else run.patching.size
    if not patch_size > 0:
        raise UserError(
            "flops: no bytes per patch or token; set tokenizer.bytes_per_token or patching.size, or pass"
            " patch_size"
        )
    return (
        model,
        context,
        float(patch_size),
        run.entropy_model if run is not None and len(run.entropy_model) else None,
    )


def _with_total(components: dict) -> dict:
    return {**components, "total": sum(components.values())}


def _split(rates: dict) -> tuple[dict, dict]:
    return {name: r[0] for name, r in rates.items()}, {name: r[1] for name, r in rates.items()}


def _paper_cross_layers(which: str, layers: int) -> int:
    """The paper counts cross-attention in all l_E and l_D layers (Eq. 16 and 17), whichever of them have
    it."""
    return 0 if which == "none" else layers


def _paper(model, context, n_p) -> dict:
    """Eq. 13-17, forward FLOPs per byte."""
    if model.kind != "blt":
        positions = context / n_p
        vocab = PAPER_BYTE_VOCAB if model.kind == "byte" else model.vocab
        m = min(model.window, positions) if model.window else positions
        return dict(
            transformer=transformer(model.layers, model.width, m) / n_p,
            head=de_embedding(model.width, vocab) / n_p,
        )
    local, d, k = model.local, model.local.width, model.cross.k
    encoder_cross = _paper_cross_layers(model.cross.encoder, local.encoder_layers)
    decoder_cross = _paper_cross_layers(model.cross.decoder, local.decoder_layers)
    return dict(
        encoder=transformer(local.encoder_layers, d, local.window),
        cross_encoder=cross_attention(encoder_cross, d, n_p, n_p / k) * k / n_p,
        latent=transformer(model.latent.layers, model.latent.width, context / n_p) / n_p,
        cross_decoder=cross_attention(decoder_cross, d, k, k / n_p),
        decoder=transformer(local.decoder_layers, d, local.window),
        head=de_embedding(d, PAPER_BYTE_VOCAB),
    )


def _cross_layers(which: str, layers: int) -> int:
    return {"none": 0, "first": 1, "last": 1, "all": layers}[which]


def _useful_keys(model, context, patch_size) -> tuple[float, float]:
    """Keys per query over a full context: (of byte slots or tokens, of patches)."""
    if model.kind == "blt":
        return mean_keys(context, model.local.window), mean_keys(context / patch_size)
    return mean_keys(context / patch_size, model.window), 0.0


def _layer(width: int, ffn: int, keys: float) -> float:
    """One transformer layer per position: q, k, v, o; three matrices of the SwiGLU; scores and weighted
    sum."""
    return 2 * (4 * width**2 + 3 * width * ffn) + 4 * width * keys


def _rates(model, keys: float, latent_keys: float) -> dict:
    """`exact` forward FLOPs by component: (per byte slot or token, per patch)."""
    if model.kind != "blt":
        return dict(
            transformer=(model.layers * _layer(model.width, model.ffn, keys), 0.0),
            head=(2 * model.width * model.vocab, 0.0),
        )
    local, latent, d, g, k = model.local, model.latent, model.local.width, model.latent.width, model.cross.k
    encoder_cross = _cross_layers(model.cross.encoder, local.encoder_layers)
    decoder_cross = _cross_layers(model.cross.decoder, local.decoder_layers)
    into, out_of = _projections(model)
    inner = _cross_width(model)
    square = 2 * d * inner
    scores = 4 * inner * k  # a byte meets the k queries (encoder) or keys (decoder) of one patch
    return dict(
        encoder=(local.encoder_layers * _layer(d, local.ffn, keys), 0.0),
        cross_encoder=(encoder_cross * (2 * square + scores), encoder_cross * 2 * square * k + 2 * into),
        latent=(0.0, latent.layers * _layer(g, latent.ffn, latent_keys)),
        cross_decoder=(decoder_cross * (2 * square + scores), decoder_cross * 2 * square * k + 2 * out_of),
        decoder=(local.decoder_layers * _layer(d, local.ffn, keys), 0.0),
        head=(2 * d * model.vocab, 0.0),
    )


def _cross_width(model) -> int:
    """Heads of a whole number of dimensions: less than the local width where they do not divide it (400M of
    Table 10)."""
    return model.cross.heads * (model.local.width // model.cross.heads)


def _projections(model) -> tuple[int, int]:
    """Weights between byte and patch widths: (pooled bytes to the latent's input, latent to what bytes read).

    Without cross-attention a patch is one vector of the local width, not k of them."""
    d, g, k = model.local.width, model.latent.width, model.cross.k
    read = k if model.cross.decoder != "none" else 1
    made, pool = (k, d * k * d) if model.cross.encoder != "none" else (1, 0)
    return pool + (made * d * g if made * d != g else 0), g * read * d


def _layer_params(width: int, ffn: int) -> int:
    return 4 * width**2 + 3 * width * ffn + 2 * width


def _blt_params(model) -> dict:
    local, latent, d = model.local, model.latent, model.local.width
    into, out_of = _projections(model)
    cross = 4 * d * _cross_width(model) + 2 * d
    return dict(
        encoder=local.encoder_layers * _layer_params(d, local.ffn),
        cross_encoder=_cross_layers(model.cross.encoder, local.encoder_layers) * cross + into,
        latent=latent.layers * _layer_params(latent.width, latent.ffn),
        cross_decoder=_cross_layers(model.cross.decoder, local.decoder_layers) * cross + out_of,
        decoder=local.decoder_layers * _layer_params(d, local.ffn) + d,
        embeddings=model.vocab * d,
        hash=len(model.ngrams.sizes) * model.ngrams.functions * model.ngrams.rows * d,
        head=model.vocab * d,
    )
