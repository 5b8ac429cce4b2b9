"""How often patches cut from entropies at rest are not those that are cut live, with the rounding that both
share and without.

    python benchmarks/boundaries.py PREPARED --entropy-model DIRECTORY [--mb 2] [--size 4.5]

PREPARED is annotated by that entropy model. Of its test documents (their first 4 kB) three sets of entropies
are compared at the threshold that gives the size: those at rest, those of a document patched alone
(api.Model.patch), and those of generation, by caches and 128 bytes at a time. Prints a table: entropies'
largest difference, and bytes of a million at which one of two cuts and the other does not."""

import argparse
import functools
import os
import pathlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import FrozenConfigDict

from bltjax import api, patching
from bltjax import config as cfg
from bltjax.data import corpus
from bltjax.entropy import annotate, histogram, store
from bltjax.generation import lm as lms
from bltjax.models import patcher
from bltjax.patching import segmentation, vocab

LONGEST, PIECE = 4096, 128


@functools.partial(jax.jit, static_argnums=0)
def incremental(engine, params, pieces_NxC, count_N):
    """Entropies [N·C] of one document by caches, a piece after the other."""

    def one(state, piece):
        ids, count = piece
        logits, state, first = engine.forward(params, state, ids[None], count[None])
        return engine.commit(state, first, count[None]), patcher.entropy(logits)[0]

    return jax.lax.scan(one, engine.begin(1), (pieces_NxC, count_N))[1].reshape(-1)


def by_caches(lm, documents):
    config = FrozenConfigDict(lm.config.model)
    engine = lms.LM(config, LONGEST + 2 * PIECE, PIECE)
    params, found = engine.prepare(lm.params), []
    for document in documents:
        ids = np.asarray(vocab.encode_document(document), np.int32)
        pieces = np.zeros(LONGEST + PIECE, np.int32)
        pieces[: len(ids)] = ids
        counts = np.clip(len(ids) - PIECE * np.arange(len(pieces) // PIECE), 0, PIECE).astype(np.int32)
        found.append(
            np.asarray(
                incremental(engine, params, jnp.asarray(pieces.reshape(-1, PIECE)), jnp.asarray(counts))
            )[: len(ids)]
        )
    return found


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("--entropy-model", required=True)
    parser.add_argument("--mb", type=float, default=2.0)
    parser.add_argument("--size", type=float, default=4.5)
    args = parser.parse_args()
    lm = api.load(args.entropy_model)
    test = corpus.Documents([shard for shard in corpus.shards(args.data) if shard.split == "test"])
    values = store.Entropies(test, store.fingerprint(lm.config.model, lm.params))
    documents, at_rest = [], []
    for number in range(len(test)):
        documents.append(test[number][:LONGEST])
        at_rest.append(values[number][: len(documents[-1]) + 2])
        if sum(map(len, documents)) > args.mb * 1e6:
            break
    live = {
        "alone": [annotate.annotate(lm.config.model, lm.params, [document])[0] for document in documents],
        "by caches": by_caches(lm, documents),
    }
    total = sum(map(len, documents))
    print(f"{len(documents)} documents, {total / 1e6:.2f} MB")
    print(
        "| scheme | live | largest difference, nats | both rounded | rounded at rest alone | neither |\n| ---"
        " | --- | --- | --- | --- | --- |"
    )
    exact = annotate.annotate(lm.config.model, lm.params, documents)  # what was rounded to be stored
    for scheme, key in (("entropy", "threshold"), ("monotonic", "delta")):
        limit = histogram.of_documents(values, np.arange(len(test)), np.zeros(len(test), np.int32), scheme)[
            0
        ].threshold(args.size)
        rule = lambda resolution: cfg.patching(scheme, args.size, resolution=resolution, **{key: limit})
        cut = lambda entropies, resolution: segmentation.document_lengths(
            rule(resolution),
            documents,
            [np.append(e[: len(d) + 1], np.float32(0)) for e, d in zip(entropies, documents)],
        )
        for name, own in live.items():
            widest = max(
                float(np.abs(a[: len(d) + 1] - b[: len(d) + 1]).max())
                for a, b, d in zip(exact, own, documents)
            )
            rates = []
            for there, (first, second) in (
                (at_rest, (patching.RESOLUTION,) * 2),
                (at_rest, (patching.RESOLUTION, 0.0)),
                (exact, (0.0, 0.0)),
            ):
                differing = sum(
                    len(np.setxor1d(np.cumsum(a), np.cumsum(b)))
                    for a, b in zip(cut(there, first), cut(own, second))
                )
                rates.append(f"{differing / total * 1e6:.1f}")
            print(f"| {scheme} | {name} | {widest:.1e} | " + " | ".join(rates) + " |", flush=True)


if __name__ == "__main__":
    main()
