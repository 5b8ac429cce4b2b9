"""The rows that a run trains on, and how many steps of them its budget pays for."""

import functools
import math
import pathlib

from ml_collections import ConfigDict

from bltjax import config as cfg
from bltjax import flops
from bltjax.data import batches, packing, row_plans, splits
from bltjax.data.unit_cache import Shelf
from bltjax.errors import UserError
from bltjax.patching import segmentation
from bltjax.run import budget

SAMPLE = 1 << 24  # bytes of documents that stand for all, where the length of token rows is found


def rows(
    config: ConfigDict, documents, entropies, tokenizer, plans: pathlib.Path | None, place=(0, 1)
) -> batches.Rows:
    """The run's batches: a pure function of (data.seed, step).

    entropies: of these documents, or None. plans: a folder under which plans of rows are kept; None: nowhere. place:
    this process's among those that plan them together (distributed.place)."""
    kind, rule = config.model.kind, config.patching

    def units(numbers, found):
        if kind == "token":
            ids = [tokenizer.encode(document) for document in found]
            return packing.token_documents(ids, tokenizer.byte_counts, tokenizer.bos, tokenizer.eos)
        if kind == "byte":
            return packing.byte_documents(found)
        own = None if entropies is None else [entropies[number] for number in numbers]
        return packing.byte_documents(found, segmentation.document_lengths(rule, found, own, tokenizer))

    length, patches = config.data.context, None
    if kind == "token":
        sample = list(splits.first(documents, SAMPLE))
        shape = dict(context=config.data.context, rows=config.data.rows, seed=config.data.seed)
        length = batches.token_rows(sample, tokenizer, **shape).row_length
    elif kind == "blt":
        patches = batches.row_shape(config)[1]
    together = config.data.together if kind == "blt" else 0
    made_of = {
        "documents": documents.fingerprint,
        "patching": cfg.to_dict(rule) if kind == "blt" else kind,
        "row": [length, patches, together],
        "seed": config.data.seed,
        "tokenizer": tokenizer and tokenizer.fingerprint,
        "entropies": entropies and entropies.mark,
        "parts": documents.parts,
    }
    key = cfg.fingerprint(made_of)
    kept = plans and plans / f"plans-{key}"
    chunks = row_plans.Blocks(Shelf(documents, units, key), length, patches, config.data.seed, together, kept)
    ahead = functools.partial(chunks.ahead, part=place[0], parts=place[1])
    return batches.Rows(chunks, length, patches, config.data.rows, ahead)


def steps_ahead(config: ConfigDict, rows: batches.Rows):
    """(steps, useful FLOPs of each, what each holds): as many steps as the budget pays for, counted before the first."""
    if config.train.steps:
        counts = rows.counts(config.train.steps)
        return config.train.steps, flops.train_flops(config, counts["slots"], counts["patches"]), counts
    if not config.budget_flops > 0:
        raise UserError(f"run {config.name}: neither budget_flops nor train.steps says how long it is")
    full = flops.train_flops(
        config, rows.capacity["slots"], rows.capacity["patches"]
    )  # of a step without padding
    ahead = max(budget.FEWEST_STEPS // 2, math.ceil(1.1 * config.budget_flops / full))
    while True:
        counts = rows.counts(ahead)
        useful = flops.train_flops(config, counts["slots"], counts["patches"])
        if useful.sum() >= 1.01 * config.budget_flops:
            steps = budget.steps_for_budget(useful, config.budget_flops, config.name, config.data.rows)
            return steps, useful[:steps], {name: values[:steps] for name, values in counts.items()}
        ahead = math.ceil(ahead * 1.05 * 1.01 * config.budget_flops / useful.sum())
