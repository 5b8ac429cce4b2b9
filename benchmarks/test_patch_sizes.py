"""How far the mean patch size of text that no threshold saw lies from its target: calibrated on random halves
of annotated data.

    python benchmarks/test_patch_sizes.py PREPARED --entropy-model DIRECTORY [--halves 200] [--split test
    validation]

Documents are dealt into 64 parts by lot; a threshold is found on 32 of them and measured on the other 32,
again and again. How far it is off is the sample's affair, and has to be what the standard errors of `data
calibrate` say (here of one half against the other). Text that the entropy model did not train on is the
fairer, so that is the default. Prints a table."""

import argparse
import functools
import operator

import numpy as np

from bltjax import api
from bltjax.data import corpus
from bltjax.entropy import histogram, store

PARTS = 64


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data")
    parser.add_argument("--entropy-model", required=True)
    parser.add_argument("--split", nargs="+", choices=corpus.SPLITS, default=["validation", "test"])
    parser.add_argument("--halves", type=int, default=200)
    parser.add_argument("--size", type=float, nargs="+", default=[4.5, 6, 8])
    args = parser.parse_args()
    lm = api.load(args.entropy_model).entropy_model
    documents = corpus.Documents([shard for shard in corpus.shards(args.data) if shard.split in args.split])
    entropies = store.Entropies(documents, store.fingerprint(lm.config.model, lm.params))
    rng = np.random.default_rng(0)
    part = rng.permutation(np.arange(len(documents)) % PARTS)
    print(
        f"{len(documents):,} documents, {documents.lengths.sum() / 1e6:.1f} MB\n\n| scheme | target | off by"
        " (root mean square) | standard errors say | halves within 1% |\n| --- | --- | --- | --- | --- |"
    )
    for scheme in ("entropy", "monotonic"):
        histograms = histogram.of_documents(entropies, range(len(documents)), part, scheme)
        whole = functools.reduce(operator.add, histograms.values())
        for size in args.size:
            errors = []
            for _ in range(args.halves):
                chosen = set(rng.permutation(PARTS)[: PARTS // 2].tolist())
                one, other = (
                    functools.reduce(
                        operator.add,
                        [found for name, found in histograms.items() if (name in chosen) == here],
                    )
                    for here in (True, False)
                )
                errors.append(other.mean_size(one.threshold(size)) / size - 1)
            counts = np.concatenate(
                [
                    histogram.patches(scheme, [entropies[i]], whole.threshold(size))
                    for i in range(len(documents))
                ]
            )
            # each half's is sqrt(2) times the whole's, and there are two
            said = 2 * histogram.standard_error(documents.lengths + 2, counts)
            print(
                f"| {scheme} | {size:g} | {np.sqrt(np.mean(np.square(errors))):.2%} | {said:.2%} |"
                f" {np.mean(np.abs(errors) < 0.01):.0%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
