"""Runs whose text is prepared data (`data.source` prepared): read as rows want it, with entropies that lie
beside it.

What a run in memory holds (documents, entropies, plans of its rows) is here read when it is asked for; the
rest of the run is the same. """

import functools
import operator
import pathlib

import numpy as np
from ml_collections import ConfigDict

from bltjax import config as cfg
from bltjax import patching
from bltjax.data import corpus, splits
from bltjax.data.unit_cache import Choice
from bltjax.entropy import sketch, store
from bltjax.errors import UserError

# bytes: a larger data set is annotated by its own command, on as many machines as it wants
ANNOTATED_HERE = 1 << 26
# bytes of documents, of a random order, in whose scores a threshold is looked for: its error is then a few
# tenths of a percent
COUNTED = 1 << 31
HEAVIEST = 1e9  # weight of a source
# bytes of documents that stand for all, where a tokenizer is trained or a row of tokens is measured
SAMPLE = 1 << 24


def opened(data_config: ConfigDict) -> splits.Splits:
    """The splits of a prepared data set, or of several that are mixed, unread. UserError where there is none,
    or one of its splits is empty."""
    if bool(data_config.folder) == bool(data_config.mix):
        raise UserError(
            "data.source=prepared needs either data.folder, a directory that bltjax data prepare made, or"
            " data.mix, several with weights"
        )
    weights = sources_of(data_config)
    shards = {folder: corpus.shards(pathlib.Path(folder)) for folder in weights}
    found = {}
    for split in corpus.SPLITS:
        own = [
            ([shard for shard in shards[folder] if shard.split == split], weight)
            for folder, weight in weights.items()
        ]
        if empty := [
            folder for folder, (some, _) in zip(weights, own) if not sum(shard.documents for shard in some)
        ]:
            raise UserError(
                f"{empty[0]} has no {split} documents; prepare it with other fractions data.validation and"
                " data.test"
            )
        documents = corpus.Mixture(own) if len(own) > 1 else corpus.Documents(own[0][0])
        if len(own) > 1 and split != "train":  # the first so many bytes are to be of all sources
            documents = Choice(documents, np.random.default_rng(0).permutation(len(documents)))
        found[split] = documents
    fingerprint = cfg.fingerprint({split: documents.fingerprint for split, documents in found.items()})
    return splits.Splits(**found, fingerprint=fingerprint)


def sources_of(data_config: ConfigDict) -> dict[str, float]:
    """{directory: weight}. UserError for a data.mix that is not of the form "DIR=WEIGHT"."""
    if data_config.folder:
        return {data_config.folder: 1.0}
    found = {}
    for item in data_config.mix:
        folder, _, text = str(item).rpartition("=")
        try:
            found[folder] = float(text)
        except ValueError:
            folder = ""
        if not folder or not 0 < found[folder] <= HEAVIEST:
            raise UserError(
                f"data.mix: {item!r} must be DIR=WEIGHT with a weight above 0 and at most {HEAVIEST:g}, such"
                " as prepared/web=0.7"
            )
    if len(found) != len(data_config.mix):
        raise UserError("data.mix names a directory twice")
    return found


def is_at_rest(documents) -> bool:
    return not isinstance(documents, list)


def entropies(lm, text) -> store.Entropies:
    """The training text's entropies by an entropy model (artifacts.EntropyModel); made here where the data
    set is small. UserError where it is not."""
    mark = store.fingerprint(lm.model, lm.params)
    lacking = [shard for shard in text.train.shards if not store.whole(store.folder_of(shard, mark), shard)]
    for folder in dict.fromkeys(shard.path.parent for shard in lacking):
        if sum(shard.bytes for shard in corpus.shards(folder)) > ANNOTATED_HERE:
            raise UserError(
                f"{folder} has no entropies by this entropy model yet: bltjax data annotate {folder}"
                f" --entropy-model {lm.run_dir}"
            )
        store.make(folder, lm.model, lm.params, source=str(lm.run_dir), wait=True)
    return store.Entropies(text.train, mark)


def counted(config: ConfigDict, documents, values: store.Entropies) -> sketch.Sketch:
    """The sketch of a run's training documents, COUNTED of them, for its scheme. UserError for limits on
    length, which no sketch knows."""
    if config.patching.max_length:
        raise UserError(
            f"run {config.name}: patching.max_length with data.source=prepared needs a threshold"
            " (patching.threshold or delta) that is given"
        )
    delta = (
        None
        if config.patching.scheme != "both"
        else 0.0 if np.isnan(config.patching.delta) else config.patching.delta
    )
    groups = np.zeros(len(documents.documents), np.int32)
    parts = documents.parts or [(0, len(documents), 1.0)]
    lengths = documents.lengths
    found = [
        sketch.of_documents(
            values,
            documents.numbers[first:last][sketch.sample(lengths[first:last], COUNTED // len(parts))],
            groups,
            config.patching.scheme,
            delta,
        )[0]
        for first, last, _ in parts
    ]
    if len(found) == 1:
        return found[0]
    whole = sum(one.positions for one in found)  # each source counts as much as is read of it
    return functools.reduce(
        operator.add,
        [one.scaled(weight * whole / one.positions) for one, (_, _, weight) in zip(found, parts)],
    )


def epochs(config: ConfigDict, documents, train_bytes: int) -> dict:
    """How often the run reads its text: {"epochs"}, and where sources are mixed the most of them, beside
    {"mix": {directory: its own}}."""
    if not documents.parts:
        return {"epochs": float(train_bytes / documents.lengths.sum())}
    own = {
        folder: float(weight * train_bytes / documents.lengths[first:last].sum())
        for folder, (first, last, weight) in zip(sources_of(config.data), documents.parts)
    }
    return {"epochs": max(own.values()), "mix": own}


def with_resolution(config: ConfigDict) -> ConfigDict:
    """The config of a run that reads entropies at rest: live patching rounds as they are rounded."""
    return cfg.replace(config, **{"patching.resolution": patching.RESOLUTION})
