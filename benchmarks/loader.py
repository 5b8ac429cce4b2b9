"""How fast rows come from prepared data, on one core: reading, patching, planning, filling, and n-gram hashes
of what was filled.

    bltjax data prepare files '/some/**/*.py' --out /tmp/prepared
    python benchmarks/loader.py /tmp/prepared [--entropies FINGERPRINT] [--context 8192] [--rows 64] [--steps
    40]

MB/s are of packed bytes. Hashes are computed by the model, on its device; here in numpy they show what they
would cost on the host."""

import argparse
import os
import pathlib
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from bltjax import config as cfg
from bltjax.data import batches, corpus, packing, row_plans, splits
from bltjax.data.unit_cache import UnitCache
from bltjax.entropy import curves, histogram, store
from bltjax.patching import hashing, segmentation


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument(
        "--entropies",
        default="",
        help="whose entropies (default: the only ones there; without any, other schemes)",
    )
    parser.add_argument("--context", type=int, default=8192)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--size", type=float, default=4.5)
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    documents = corpus.Documents([shard for shard in corpus.shards(args.data) if shard.split == "train"])
    choice = splits.training(documents)
    marks = curves.marks(args.data)
    values = store.Entropies(documents, args.entropies or marks[0]) if marks else None
    print(f"{len(documents):,} documents, {documents.lengths.sum() / 1e6:,.0f} MB; one core")
    print(
        "| patches | rows | plan MB/s | fill MB/s | hashes MB/s | all MB/s | bytes used | patches used |\n|"
        " --- | --- | --- | --- | --- | --- | --- | --- |"
    )
    for scheme in ("space", "strided", *(("entropy", "monotonic") if values else ())):
        patching = cfg.patching(scheme, 4.0 if scheme == "strided" else args.size)
        if scheme in ("entropy", "monotonic"):
            some = histogram.of_documents(values, choice.numbers[:2000], documents.groups * 0, scheme)[0]
            patching = cfg.patching(
                scheme,
                args.size,
                **{"threshold" if scheme == "entropy" else "delta": some.threshold(args.size)},
            )
        for buffer in (0, 64, 256):
            measure(args, choice, values if scheme in ("entropy", "monotonic") else None, patching, buffer)


def measure(args, choice, values, patching, buffer):
    def units(numbers, found):
        own = None if values is None else [values[choice.numbers[number]] for number in numbers]
        return packing.byte_documents(found, segmentation.document_lengths(patching, found, own))

    size = patching.size
    if patching.scheme == "space":  # what it comes to
        first = units(range(200), [choice[i] for i in range(200)])
        size = len(first.ids) / first.starts.sum()
    shape = row_plans.Shape(
        args.context, batches.patch_capacity(args.context, size, 1.02 if buffer else 1.15), buffer
    )
    blocks = lambda: row_plans.Blocks(UnitCache(choice, units, ""), shape, 0)
    rows = batches.Rows(blocks(), shape.slots, shape.patches, args.rows)
    began = time.perf_counter()
    planned = batches.Rows(blocks(), shape.slots, shape.patches, args.rows)
    counts = planned.counts(args.steps)
    planning, total = (
        time.perf_counter() - began,
        sum(chunk.counts["bytes"].sum() for chunk in planned.chunks),
    )
    rows.counts(args.steps)
    began = time.perf_counter()
    filled_batches = [rows.batch(step) for step in range(args.steps)]
    filling, filled = time.perf_counter() - began, counts["bytes"].sum()
    began = time.perf_counter()
    for batch in filled_batches[:4]:
        hashing.ngram_hashes(batch["bytes"], (3, 4, 5, 6, 7, 8), 500_000, doc_ids=batch["doc_ids"])
    hashed = counts["bytes"][:4].sum() / (time.perf_counter() - began)
    rates = total / planning, filled / filling, hashed
    used = (
        counts["slots"].sum() / (args.steps * rows.capacity["slots"]),
        counts["patches"].sum() / (args.steps * rows.capacity["patches"]),
    )
    print(
        f"| {patching.scheme} {size:.2f} | {f'buffer of {buffer}' if buffer else 'in order'} | "
        + " | ".join(f"{rate / 1e6:.0f}" for rate in rates)
        + f" | {1e-6 / sum(1 / rate for rate in rates):.1f} | {used[0]:.1%} | {used[1]:.1%} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
