"""The only counter of FLOPs and parameters: planner, trainer, reports and tests all call it.

Two conventions (docs/flops.md has every formula and what is counted where):

    paper   appendix B of arXiv 2412.09871 (flops_paper.py), checked against its Table 2
    exact   the multiplications and additions that the program must do: real widths, windows and output head,
            and the attention pairs that no mask hides

`exact` is linear in four counts of a batch (UNITS, counted by data.packing.counts): "slots" that are not
padding (bytes or tokens), "patches", and the pairs of a query and a key that self-attention must multiply, of
slots ("pairs") and of patches ("patch_pairs").

Both conventions count a multiply-add as 2 and leave out norms, softmax, look-ups (embeddings, hash tables)
and the entropy model, which is reported beside. Forward only, unless a name says `train` or `step`: backward
is twice forward, so training is 3 times."""

import numpy as np

from bltjax import flops_paper
from bltjax.errors import UserError

TRAIN = 3  # forward, and a backward of twice that (paper section 4.5)
# what the program executes of self-attention: its backward computes the scores again instead of keeping them
ATTENTION_TRAIN = 3.5
# Of a model given without its run: paper 4.3, the released default, Llama 3's tokenizer.
CONTEXT, PATCH_SIZE, BYTES_PER_TOKEN = 8192, 4.5, 4.4
UNITS = ("slots", "patches", "pairs", "patch_pairs")
OFFSETS = 32  # places in a row at which a document is taken to begin, where only lengths are known
FULL_CONTEXTS, DOCUMENTS = "full contexts", "documents"  # what a count of attention pairs stands on


def count(
    config, patch_size: float | None = None, *, context: int | None = None, document_lengths=None
) -> dict:
    """FLOPs per byte and parameters of a run config, or of a model config alone.

    patch_size: mean bytes per patch or token; default: what the run aims at (of a model alone: 4.5, tokens
    4.4). context: bytes of context; default: the run's (of a model alone: 8192). document_lengths: bytes of
    the documents, an array or a histogram {length: count}, over whose rows attention is averaged; None: every
    row is one document. Returns {"paper": {component: forward FLOPs per byte, ..., "total"}, "exact": the
    same, "params": {...}, "params_paper": {...}, "entropy_model": {"paper", "exact", "params"} (zeros where
    the run has none), "patch_size", "context", "attention": which of the two averages}. Components: encoder,
    cross_encoder, latent, cross_decoder, decoder, head; of the kinds `token` and `byte`: transformer, head.
    """
    model, context, patch_size, beside = _read(config, patch_size, context)
    exact = components(model, _per_byte(model, context, patch_size, document_lengths))
    entropy_model = dict(paper=0.0, exact=0.0, params=0)
    if beside:
        beside = count(beside, document_lengths=document_lengths)
        entropy_model = dict(
            paper=beside["paper"]["total"], exact=beside["exact"]["total"], params=beside["params"]["total"]
        )
    return dict(
        paper=_with_total(flops_paper.per_byte(model, context, patch_size)),
        exact=_with_total(exact),
        params=params(model),
        params_paper=params_paper(model),
        entropy_model=entropy_model,
        patch_size=patch_size,
        context=context,
        attention=FULL_CONTEXTS if document_lengths is None else DOCUMENTS,
    )


def components(config, counts: dict) -> dict:
    """`exact` forward FLOPs by component of a batch, of which counts has the UNITS (numbers or arrays; those
    that are missing are 0)."""
    rates = _rates(config.model if "model" in config else config)
    return {
        name: sum((counts.get(unit, 0) * rate for unit, rate in of_units.items()), 0.0)
        for name, of_units in rates.items()
    }


def per_unit(config) -> dict:
    """`exact` forward FLOPs of one slot (a byte or a token), one patch, one pair of slots and one pair of
    patches: {unit of UNITS: FLOPs}, 0 where the kind has no such unit."""
    of_components = _rates(config.model if "model" in config else config).values()
    return {unit: float(sum(rate.get(unit, 0.0) for rate in of_components)) for unit in UNITS}


def train_flops(config, counts: dict):
    """`exact` useful training FLOPs (forward and backward) of what counts says, number or array per step.

    counts: as of `components`; data.batches.Rows.counts and `full_rows` make them."""
    return TRAIN * sum(counts.get(unit, 0) * cost for unit, cost in per_unit(config).items())


def full_rows(config, rows: int, slots_per_row: int, patches_per_row: int = 0) -> dict:
    """The counts of rows without padding that are one document each: the most that such shapes can hold."""
    return {
        "slots": rows * slots_per_row,
        "patches": rows * patches_per_row,
        "pairs": rows * causal_pairs(slots_per_row, window(config)),
        "patch_pairs": rows * causal_pairs(patches_per_row),
    }


def executed_step(config, rows: int, slots_per_row: int, patches_per_row: int = 0) -> float:
    """FLOPs of one training step over fixed shapes, padding, masked attention blocks and scores computed
    again in the backward pass included: for MFU and wall time only.

    Rematerialised forwards (`model.remat`) are not counted. Kind `token`: slots are tokens."""
    from bltjax.models.kernels import attention  # late: counting for a plan needs no jax

    again = ATTENTION_TRAIN / TRAIN
    executed = {
        "slots": rows * slots_per_row,
        "patches": rows * patches_per_row,
        "pairs": again * rows * attention.executed_pairs(slots_per_row, window(config)),
        "patch_pairs": again * rows * attention.executed_pairs(patches_per_row, 0) if patches_per_row else 0,
    }
    return float(train_flops(config, executed))


def window(config) -> int:
    """Keys that a byte's or token's self-attention sees at most, itself included; 0: all."""
    model = config.model if "model" in config else config
    return model.local.window if model.kind == "blt" else model.window


def causal_pairs(positions, window: int = 0):
    """Pairs of a query and a key, itself included, in a segment of so many positions: the sum of min(i + 1,
    window) over them. A number, or an array of them; parts of a position are allowed."""
    reach = np.minimum(positions, window) if window else positions
    return reach * (reach + 1) / 2 + (positions - reach) * reach


def mean_keys(positions: float, window: int = 0) -> float:
    """Keys that a query sees, averaged over a segment of so many positions."""
    return float(causal_pairs(positions, window) / positions)


def document_keys(document_lengths, context: int, window: int = 0, unit: float = 1.0) -> float:
    """Keys that a query sees, averaged over documents that are laid end to end and cut every `context` bytes.

    document_lengths: bytes, as in `count`. A position is `unit` bytes; the window is in positions. A document
    is taken to begin anywhere in a row with the same probability."""
    if isinstance(document_lengths, dict):
        lengths, times = np.array(sorted(document_lengths.items()), np.float64).reshape(-1, 2).T
    else:
        lengths, times = np.unique(np.asarray(document_lengths, np.float64), return_counts=True)
    if not (lengths * times).sum() > 0:
        raise UserError("flops: documents of no bytes have no attention to average over")
    begin = (np.arange(OFFSETS) + 0.5) / OFFSETS * context
    pairs = 0.0
    for some in np.array_split(np.arange(len(lengths)), 1 + len(lengths) // 100_000):
        head = np.minimum(lengths[some, None], context - begin)
        whole, tail = np.divmod(lengths[some, None] - head, context)
        of = lambda size: causal_pairs(size / unit, window)
        pairs += float((times[some, None] * (of(head) + whole * of(context) + of(tail))).sum() / OFFSETS)
    return pairs / float((lengths * times).sum() / unit)


def params(config) -> dict:
    """Counted parameters by component, norms with the component that they are in.

    `encoder`, `latent`, `decoder` are their transformer layers (the decoder with the model's final norm);
    `cross_encoder` and `cross_decoder` are cross-attention and the projections between byte and patch widths;
    `hash` is the n-gram tables."""
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
            cross_encoder=4
            * flops_paper.cross_layers(model.cross.encoder, model.local.encoder_layers)
            * d**2,
            latent=12 * model.latent.layers * g**2,
            cross_decoder=4
            * flops_paper.cross_layers(model.cross.decoder, model.local.decoder_layers)
            * d**2,
            decoder=12 * model.local.decoder_layers * d**2,
        )
    )


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


def _cross_layers(which: str, layers: int) -> int:
    return {"none": 0, "first": 1, "last": 1, "all": layers}[which]


def _per_byte(model, context: int, patch_size: float, document_lengths) -> dict:
    """The UNITS of one byte of text."""

    def keys(window, unit):
        if document_lengths is None:
            return mean_keys(context / unit, window)
        return document_keys(document_lengths, context, window, unit)

    if model.kind == "blt":
        return {
            "slots": 1.0,
            "patches": 1 / patch_size,
            "pairs": keys(model.local.window, 1.0),
            "patch_pairs": keys(0, patch_size) / patch_size,
        }
    return {"slots": 1 / patch_size, "pairs": keys(model.window, patch_size) / patch_size}


def _layers(layers: int, width: int, ffn: int, positions: str, pairs: str) -> dict:
    """Transformer layers. A position: q, k, v, o, and three matrices of the SwiGLU; a pair: score and
    weighted sum."""
    return {positions: layers * 2 * (4 * width**2 + 3 * width * ffn), pairs: layers * 4 * width}


def _rates(model) -> dict:
    """`exact` forward FLOPs: {component: {unit of UNITS: FLOPs of one}}."""
    if model.kind != "blt":
        return dict(
            transformer=_layers(model.layers, model.width, model.ffn, "slots", "pairs"),
            head={"slots": 2 * model.width * model.vocab},
        )
    local, latent, d, k = model.local, model.latent, model.local.width, model.cross.k
    into, out_of = _projections(model)
    inner = _cross_width(model)
    square = 2 * d * inner
    scores = 4 * inner * k  # a byte meets the k queries (encoder) or keys (decoder) of one patch

    def cross(layers, once):
        return {"slots": layers * (2 * square + scores), "patches": layers * 2 * square * k + 2 * once}

    return dict(
        encoder=_layers(local.encoder_layers, d, local.ffn, "slots", "pairs"),
        cross_encoder=cross(_cross_layers(model.cross.encoder, local.encoder_layers), into),
        latent=_layers(latent.layers, latent.width, latent.ffn, "patches", "patch_pairs"),
        cross_decoder=cross(_cross_layers(model.cross.decoder, local.decoder_layers), out_of),
        decoder=_layers(local.decoder_layers, d, local.ffn, "slots", "pairs"),
        head={"slots": 2 * d * model.vocab},
    )


def _cross_width(model) -> int:
    """Heads of a whole number of dimensions: less than the local width where they do not divide it (400M of
    Table 10)."""
    return model.cross.heads * (model.local.width // model.cross.heads)


def _projections(model) -> tuple[int, int]:
    """Weights between byte and patch widths: (pooled bytes to the latent's input, latent to what bytes read).

    Without cross-attention a patch is one vector of the local width, not k of them; learned queries pool
    nothing."""
    d, g, k = model.local.width, model.latent.width, model.cross.k
    read = k if model.cross.decoder != "none" else 1
    made, pool = (k, d * k * d) if model.cross.encoder != "none" else (1, 0)
    pool = 0 if model.cross.pool == "learned" else pool
    return pool + (made * d * g if made * d != g else 0), g * read * d


def _layer_params(width: int, ffn: int) -> int:
    return 4 * width**2 + 3 * width * ffn + 2 * width


def _blt_params(model) -> dict:
    local, latent, d = model.local, model.latent, model.local.width
    into, out_of = _projections(model)
    cross = 4 * d * _cross_width(model) + 2 * d
    learned = model.cross.encoder != "none" and model.cross.pool == "learned"
    queries = model.cross.k * d if learned else 0
    return dict(
        encoder=local.encoder_layers * _layer_params(d, local.ffn),
        cross_encoder=_cross_layers(model.cross.encoder, local.encoder_layers) * cross + into + queries,
        latent=latent.layers * _layer_params(latent.width, latent.ffn),
        cross_decoder=_cross_layers(model.cross.decoder, local.decoder_layers) * cross + out_of,
        decoder=local.decoder_layers * _layer_params(d, local.ffn) + d,
        embeddings=model.vocab * d,
        hash=len(model.ngrams.sizes) * model.ngrams.functions * model.ngrams.rows * d,
        head=model.vocab * d,
    )
