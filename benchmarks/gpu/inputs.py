"""What the kit computes on: 1B-shaped run configs, and batches of made-up text filled by the real packer."""

import dataclasses

import numpy as np

from bltjax import config as cfg
from bltjax import flops
from bltjax.data import filling, packing
from bltjax.patching import segmentation

MEAN_DOCUMENT = 4000  # bytes; lengths are log-normal
LEAST_ROWS = 32  # packed at once: of less text balanced packing leaves rows that are part empty
WORDS, MEAN_WORD = 20_000, 4.7  # a made-up vocabulary, drawn by Zipf's law: n-grams repeat as in text


def run_config(settings, which: str):
    """The run of "blt", "blt_full_tables" or "bpe". BLT patches are random ones of the mean size: as many as
    entropy patches, with no entropy model to run beside."""
    data = cfg.replace(cfg.data(), **{"context": settings.context, "patch_slack": settings.patch_slack})
    if which == "bpe":
        size = cfg.SIZES["1B"]
        shape = dict(width=size.global_width, layers=size.global_layers, heads=size.global_heads)
        model = cfg.transformer("token", vocab=settings.vocab, **{**shape, **settings.bpe})
        family = "bpe"
        parts = dict(tokenizer_=cfg.tokenizer("llama3", settings.vocab, settings.bytes_per_token))
    else:
        rows = settings.full_hash_rows if which == "blt_full_tables" else settings.hash_rows
        model = cfg.sized_blt("1B", **{"ngram_rows": rows, **settings.blt})
        family = "blt-random"
        parts = dict(patching_=cfg.patching("random", settings.patch_size))
    model = cfg.replace(model, dtype=settings.dtype)
    return cfg.run(f"{which}-1B", family, model, data_=data, **parts)


def text(size: int, seed: int = 0) -> bytes:
    """`size` bytes of made-up words."""
    rng = np.random.default_rng(seed)
    letters = rng.integers(ord("a"), ord("z") + 1, 1 << 20, dtype=np.uint8).tobytes()
    lengths = 1 + rng.poisson(MEAN_WORD - 1, WORDS)
    starts = rng.integers(0, len(letters) - lengths.max(), WORDS)
    words = [letters[a : a + n] for a, n in zip(starts.tolist(), lengths.tolist())]
    chosen = zipf(rng, WORDS, int(1.5 * size / MEAN_WORD) + 10)
    return b" ".join([words[i] for i in chosen.tolist()])[:size]


def zipf(rng, count: int, size: int) -> np.ndarray:
    """`size` numbers below `count`, number i about as often as 1 / (i + 1), int64."""
    return np.minimum(np.exp(rng.random(size) * np.log(count)).astype(np.int64), count - 1)


def document_sizes(total: int, seed: int = 0) -> np.ndarray:
    """Bytes of documents that hold `total` and a little more together, int64."""
    rng = np.random.default_rng(seed)
    sizes = rng.lognormal(np.log(MEAN_DOCUMENT) - 0.5, 1.0, 10 + 4 * total // MEAN_DOCUMENT)
    sizes = np.maximum(sizes.astype(np.int64), 16)
    return sizes[: np.searchsorted(np.cumsum(sizes), total) + 1]


@dataclasses.dataclass(frozen=True)
class Rows:
    """Packed rows: `slots` bytes or tokens and `patches` patches each (tokens: 0). window: of attention in
    slots."""

    documents: packing.Documents
    plan: packing.Plan
    slots: int
    patches: int
    window: int

    def batch(self, rows: int) -> dict:
        """The first `rows` rows, int32 arrays [rows, ...]."""
        return filling.fill(self.documents, self.plan, np.arange(rows))

    def counts(self, rows: int) -> dict:
        """Raw bytes, unpadded slots and patches, and their unmasked attention pairs, of the same rows."""
        found = packing.counts(self.documents, self.plan, self.window)
        return {name: int(each[:rows].sum()) for name, each in found.items()}


def rows_of(run, most: int) -> Rows:
    """At least `most` rows of the run's shape."""
    context = run.data.context
    sizes = document_sizes(int(1.2 * max(most, LEAST_ROWS) * context) + 2 * context)
    if run.model.kind == "token":
        return _token_rows(run, sizes)
    data, ends = text(int(sizes.sum())), np.cumsum(sizes).tolist()
    documents = [data[a:b] for a, b in zip([0, *ends], ends)]
    packed = packing.byte_documents(documents, segmentation.document_lengths(run.patching, documents))
    patches = 8 * -(-int(run.data.patch_slack * context / run.patching.size) // 8)
    return Rows(
        packed,
        packing.plan_rows(packed, context, patches, buffer=run.data.packing_buffer),
        context,
        patches,
        flops.window(run),
    )


def _token_rows(run, sizes: np.ndarray) -> Rows:
    """Made-up tokens: what a step costs does not depend on which they are, so that no tokenizer is needed."""
    rng = np.random.default_rng(1)
    vocab, mean = run.model.vocab, run.tokenizer.bytes_per_token
    byte_counts = (1 + rng.poisson(mean - 1, vocab)).astype(np.int32)
    byte_counts[-2:] = 0  # BOS, EOS
    tokens = [zipf(rng, vocab - 2, max(1, round(size / mean))) for size in sizes.tolist()]
    packed = packing.token_documents(tokens, byte_counts, vocab - 2, vocab - 1)
    slots = round(run.data.context / mean)
    return Rows(packed, packing.plan_rows(packed, slots), slots, 0, flops.window(run))
