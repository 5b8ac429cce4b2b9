"""Whole documents scored by any model: cut into patches or tokens, put into windows, summed by document. What
training runs, `bltjax eval` and reports know of a text's bits per byte is computed here and nowhere else."""

import dataclasses
from collections.abc import Callable

import numpy as np

from bltjax import models
from bltjax.evaluation import bpb, windows
from bltjax.patching import segmentation, vocab


def score(
    config, params, documents: list[bytes], longest=None, *, entropies=None, tokenizer=None, mesh=None
) -> tuple[dict, np.ndarray, list]:
    """(bpb.summary, int64 [documents, 2]: positions and patches of each document, or its bytes and tokens,
    bpb.Scored.places).

    config: a run's; its data.context and data.rows are the windows' shape. longest: {"slots", "patches"} of
    the longest segment that the model trained on, or None. entropies: float32 [len + 2] nats of each
    document, for the schemes that need them. tokenizer: of a model of tokens, or of scheme bpe."""
    text = cut(config, documents, longest, entropies=entropies, tokenizer=tokenizer)
    summary, places = text.score(params, mesh)
    return summary, text.units, places


@dataclasses.dataclass(frozen=True)
class Text:
    """Documents cut into patches or tokens and put into windows, to be scored as often as one likes. sizes:
    their bytes; units: as `score` has them."""

    model_config: object
    sizes: list[int]
    units: np.ndarray
    windows: windows.Windows
    is_eos: Callable

    def score(self, params, mesh=None) -> tuple[dict, list]:
        """(bpb.summary, bpb.Scored.places) under these parameters."""
        found = bpb.nats_by_document(
            self.model_config, params, self.windows, len(self.sizes), self.is_eos, mesh
        )
        return bpb.summary(self.sizes, found, size_of(self.units), self.windows), found.places()


def cut(config, documents: list[bytes], longest=None, *, entropies=None, tokenizer=None) -> Text:
    """The first part of `score`, with its arguments: what does not hang on parameters."""
    sizes, shape = [len(d) for d in documents], (config.data.context, config.data.rows)
    if models.kind(config.model).UNIT == "token":
        ids = [tokenizer.encode(d) for d in documents]
        ends = tokenizer.bos, tokenizer.eos
        shaped = windows.token_windows(documents, ids, tokenizer.byte_counts, *shape, *ends, longest)
        is_eos = lambda batch: batch["target_bytes"] == 0
        units = [sizes, [len(i) for i in ids]]
    else:
        lengths = segmentation.document_lengths(config.patching, documents, entropies, tokenizer)
        patched = models.kind(config.model).PATCHES
        shaped = windows.byte_windows(documents, lengths if patched else None, *shape, longest)
        is_eos = lambda batch: batch["targets"] == vocab.EOS
        units = [[int(l.sum()) for l in lengths], [len(l) for l in lengths]]
    return Text(config.model, sizes, np.array(units, np.int64).T, shaped, is_eos)


def size_of(units) -> float:
    """Mean bytes per patch or token of int [documents, 2] of `score`."""
    positions, patches = np.asarray(units, np.int64).reshape(-1, 2).sum(0).tolist()
    return positions / patches
