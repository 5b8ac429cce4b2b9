"""The rows that a run trains on: its documents as bytes, patches or tokens, packed."""

import dataclasses
import functools
import pathlib

from ml_collections import ConfigDict

from bltjax import config as cfg
from bltjax import models
from bltjax.data import batches, packing, row_plans
from bltjax.data.unit_cache import UnitCache
from bltjax.patching import segmentation
from bltjax.run import row_shape


def rows(config: ConfigDict, units: UnitCache, plans: pathlib.Path | None = None, place=(0, 1), shape=None):
    """The run's batches (batches.Rows): a pure function of (data.seed, step).

    units: as units_of gives them. plans: a folder under which plans of rows are kept, or None. place: this
    process's among those that plan them together (distributed.place). shape: of the rows, where it was chosen
    already.
    """
    shape = shape or row_shape.chosen(config, units)
    kept = plans and plans / f"plans-{_key(units, shape, config)}"
    chunks = row_plans.Blocks(units, shape, config.data.seed, kept)
    ahead = functools.partial(chunks.ahead, part=place[0], parts=place[1])
    return batches.Rows(chunks, shape.slots, shape.patches, config.data.rows, ahead)


def units_of(config: ConfigDict, documents, entropies=None, tokenizer=None) -> UnitCache:
    """The documents (corpus.Selection) as bytes, patches or tokens. entropies: of these documents
    (entropy.store.Entropies), tokenizer: where the run has them."""
    kind, rule = models.kind(config.model), config.patching

    def tokens(_, found):
        return batches.tokens_of(found, tokenizer)

    def patches(numbers, found):
        own = None if entropies is None else [entropies[number] for number in numbers]
        return packing.byte_documents(found, segmentation.document_lengths(rule, found, own, tokenizer))

    def plain(_, found):
        return packing.byte_documents(found)

    made_of = {
        "documents": documents.fingerprint,
        "patching": cfg.to_dict(rule) if kind.PATCHES else kind.UNIT,
        "tokenizer": tokenizer and tokenizer.fingerprint,
        "entropies": entropies and entropies.mark,
        "parts": documents.parts,
    }
    cut = patches if kind.PATCHES else tokens if kind.UNIT == "token" else plain
    return UnitCache(documents, cut, cfg.fingerprint(made_of))


def _key(units: UnitCache, shape: row_plans.Shape, config: ConfigDict) -> str:
    """All that a plan of rows depends on."""
    sizes = dataclasses.asdict(shape)
    made_of = {"units": units.key, "shape": sizes, "seed": config.data.seed, "version": packing.VERSION}
    return cfg.fingerprint(made_of)
