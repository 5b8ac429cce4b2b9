"""A process that reads prepared data as a run does and writes a hash of every array of every row of its
batches: for test_batches.py."""

import argparse
import hashlib
import json
import pathlib

import jax

from bltjax import config as cfg
from bltjax.data import batches, corpus, feed, row_plans, splits
from bltjax.entropy import store
from bltjax.parallel import distributed
from bltjax.run import rows as rows_of

THRESHOLD = 0.9


def rows(folder: pathlib.Path, plans: pathlib.Path | None) -> batches.Rows:
    """Batches of a run of entropy patches. Blocks are small, so that plans are made on the way."""
    row_plans.BLOCK = 100_000
    config = cfg.run(
        "hashed",
        "blt-entropy",
        cfg.blt_model(
            "paper",
            local_width=8,
            encoder_layers=1,
            decoder_layers=1,
            local_heads=1,
            global_width=8,
            global_layers=1,
            global_heads=1,
            k=1,
        ),
        patching_=cfg.patching("entropy", 3.0, threshold=THRESHOLD),
    )
    config = cfg.replace(
        config,
        **{
            "data.context": 256,
            "data.rows": 8,
            "data.packing_buffer": 16,
            "data.patch_slack": 1.1,
            "train.steps": 500,
        },
    )
    training = corpus.Documents([shard for shard in corpus.shards(folder) if shard.split == "train"])
    documents = splits.training(training)
    mark = next(folder.glob("entropies-*")).name.removeprefix("entropies-")
    return rows_of.rows(config, rows_of.units_of(config, documents, store.Entropies(documents, mark)), plans)


def main():
    parser = argparse.ArgumentParser()
    for name in ("folder", "plans", "log"):
        parser.add_argument(name, type=pathlib.Path)
    for name in ("start", "stop", "threads", "processes", "process"):
        parser.add_argument(name, type=int)
    parser.add_argument("coordinator")
    args = parser.parse_args()
    distributed.use_cpu_devices(1)
    distributed.start(args.coordinator, args.processes, args.process)
    mesh = distributed.mesh((args.processes, 1, 1)) if args.processes > 1 else None
    batches = rows(args.folder, args.plans)
    iterate = batches.iterator
    batches.iterator = lambda *these: (
        iterate(*these, threads=args.threads) if len(these) > 2 else iterate(*these, None, args.threads)
    )
    with args.log.open("a") as log:
        for step, batch in enumerate(feed.batches(batches, args.start, args.stop, mesh), args.start):
            found = {}
            for name in sorted(batch):
                for shard in batch[name].addressable_shards:
                    first = shard.index[0].start or 0
                    for row, values in enumerate(jax.device_get(shard.data), first):
                        found.setdefault(row, hashlib.sha256()).update(name.encode() + values.tobytes())
            log.write(json.dumps([step, {row: digest.hexdigest() for row, digest in found.items()}]) + "\n")
            log.flush()
    distributed.leave(0)


if __name__ == "__main__":
    main()
