"""Runs whose text is prepared data (`data.source` prepared): read as rows want it, with entropies that lie beside it.

What a run in memory holds (documents, entropies, plans of its rows) is here read when it is asked for; the rest of the run is the same.
"""

import pathlib

import numpy as np
from ml_collections import ConfigDict

from bltjax import config as cfg, patching
from bltjax.data import loader, packing, segmentation, splits, store
from bltjax.data.shelf import Shelf
from bltjax.entropies import sketch, stored
from bltjax.errors import UserError
from bltjax.evals import bpb

ANNOTATED_HERE = 1 << 26  # bytes: a larger data set is annotated by its own command, on as many machines as it wants
SAMPLE = 1 << 24  # bytes of documents that stand for all, where a tokenizer is trained or a row of tokens is measured


def corpus(data_config: ConfigDict) -> splits.Splits:
    """The splits of a prepared data set, unread. UserError where data.folder holds none, or one of its splits is empty."""
    if not data_config.folder:
        raise UserError("data.source=prepared needs data.folder, the directory that bltjax data prepare made")
    shards = store.shards(pathlib.Path(data_config.folder))
    found = {split: store.Documents([shard for shard in shards if shard.split == split]) for split in store.SPLITS}
    if empty := [split for split, documents in found.items() if not len(documents)]:
        raise UserError(f"{data_config.folder} has no {' and no '.join(empty)} documents; prepare it with larger fractions data.tuning and data.held_out")
    fingerprint = cfg.fingerprint({split: documents.fingerprint for split, documents in found.items()})
    return splits.Splits(**found, fingerprint=fingerprint)


def is_at_rest(documents) -> bool:
    return not isinstance(documents, list)


def entropies(lm, text, folder: str) -> stored.Entropies:
    """The training text's entropies by a byte LM (artifacts.ByteLM); made here where the data set is small. UserError where it is not."""
    mark = stored.fingerprint(lm.model, lm.params)
    shards = [shard for documents in (text.train, text.tuning, text.held_out) for shard in documents.shards]
    there = all(stored.whole(pathlib.Path(folder) / f"entropies-{mark}", shard) for shard in text.train.shards)
    if not there and sum(shard.bytes for shard in shards) > ANNOTATED_HERE:
        raise UserError(f"{folder} has no entropies by this byte LM yet: bltjax data annotate {folder} --byte-lm {lm.run_dir}")
    if not there:
        stored.make(folder, lm.model, lm.params, source=str(lm.run_dir))
    return stored.Entropies(text.train, mark)


def counted(config: ConfigDict, documents, values: stored.Entropies) -> sketch.Sketch:
    """The sketch of a run's training documents, for its scheme. UserError for limits on length, which no sketch knows."""
    if config.patching.max_length:
        raise UserError(f"run {config.name}: patching.max_length with data.source=prepared needs a threshold (patching.threshold or delta) that is given")
    delta = None if config.patching.scheme != "both" else 0.0 if np.isnan(config.patching.delta) else config.patching.delta
    return sketch.of_documents(values, documents.numbers, np.zeros(len(documents.documents), np.int32), config.patching.scheme, delta)[0]


def rows(config: ConfigDict, documents, values, tokenizer, plans: pathlib.Path) -> loader.Rows:
    """The run's batches. values: stored.Entropies or None; plans: a folder under which plans of rows are kept."""
    kind, rule = config.model.kind, config.patching

    def units(numbers, found):
        if kind == "token":
            return packing.token_documents([tokenizer.encode(d) for d in found], tokenizer.byte_counts, tokenizer.bos, tokenizer.eos)
        if kind == "byte":
            return packing.byte_documents(found)
        own = None if values is None else [values[documents.numbers[number]] for number in numbers]
        return packing.byte_documents(found, segmentation.document_lengths(rule, found, own, tokenizer))

    length, patches = config.data.context, None
    if kind == "token":
        sample = bpb.first_documents(documents, SAMPLE)
        length = loader.token_rows(sample, tokenizer, context=config.data.context, rows=config.data.rows, seed=config.data.seed).row_length
    elif kind == "blt":
        patches = loader.row_shape(config)[1]
    together = config.data.together if kind == "blt" else 0
    key = cfg.fingerprint({"documents": documents.fingerprint, "patching": cfg.to_dict(rule) if kind == "blt" else kind, "row": [length, patches, together],
                           "seed": config.data.seed, "tokenizer": tokenizer and tokenizer.fingerprint, "entropies": values and str(values.folder.name)})
    chunks = loader.at_rest(Shelf(documents, units, key), length, patches, config.data.seed, together, plans / f"plans-{key}")
    return loader.Rows(chunks, length, patches, config.data.rows)


def with_resolution(config: ConfigDict) -> ConfigDict:
    """The config of a run that reads entropies at rest: live patching rounds as they are rounded."""
    return cfg.replace(config, **{"patching.resolution": patching.RESOLUTION})
