"""Time per byte of the local encoder and decoder together, at two lengths of row: linear cost shows as a
ratio near 1.

    python benchmarks/local_cost.py

The model is the peer's of train_vs_hf.py (width 128, 1 + 3 layers, window 512, k 2), its global transformer
left out: the decoder reads the encoder's patches. One row a call, other bytes in every call, both lengths in
turn and the same bytes in all; a figure is the median call. Prints one JSON line for the forward pass and one
for the gradient."""

import argparse
import json
import os
import pathlib
import statistics
import sys
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from bltjax.parallel import host

host.keep_memory()

import jax
import jax.numpy as jnp
import numpy as np
import peer_shape

from bltjax import models
from bltjax.formats.released_batches import batch_from_lengths
from bltjax.models.blt import ARRAYS
from bltjax.models.decoder import Decoder
from bltjax.models.encoder import Encoder

TARGET = 1.2


def batch_of(length, seed):
    """One row of random bytes in patches of 4 and 5 in turn."""
    lengths = [1]
    while sum(lengths) < length + 1:
        lengths.append(min(4 if len(lengths) % 2 else 5, length + 1 - sum(lengths)))
    ids = np.random.default_rng(seed).integers(4, 260, (1, length)).astype(np.int32)
    return {name: jnp.asarray(array) for name, array in batch_from_lengths(ids, [lengths]).items()}


def local_models(model, params, batch):
    """Logits [1,T,V] of the row."""
    bytes_, patch_ids, latent_ids, doc_ids, patch_doc_ids = (batch[name] for name in ARRAYS)
    states, patches = Encoder(model).apply(
        {"params": params["encoder"]}, bytes_, patch_ids, doc_ids, patch_doc_ids
    )
    return Decoder(model).apply(
        {"params": params["decoder"]}, states, patches, latent_ids, doc_ids, patch_doc_ids
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lengths", type=int, nargs=2, default=(2048, 16384))
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    model = peer_shape.blt_model(global_layers=1)
    params = models.init(model, jax.random.key(0))
    forward = lambda params, batch: local_models(model, params, batch)
    gradient = jax.grad(lambda params, batch: jnp.mean(jnp.square(forward(params, batch))))
    # of a round: as many bytes at either length
    calls = {length: max(args.lengths) // length for length in args.lengths}
    batches = {length: [batch_of(length, seed) for seed in range(calls[length])] for length in args.lengths}
    for name, f in (("forward", forward), ("gradient", gradient)):
        programs = {length: jax.jit(f).lower(params, batches[length][0]).compile() for length in args.lengths}
        times = {length: [] for length in args.lengths}
        for _ in range(args.rounds + 1):
            for length in args.lengths:
                for batch in batches[length]:
                    began = time.perf_counter()
                    jax.block_until_ready(programs[length](params, batch))
                    times[length].append(time.perf_counter() - began)
        per_byte = [
            statistics.median(times[length][calls[length] :]) / length * 1e6 for length in args.lengths
        ]
        ratio = per_byte[1] / per_byte[0]
        print(
            json.dumps(
                dict(
                    what=name,
                    lengths=args.lengths,
                    us_per_byte=[round(x, 1) for x in per_byte],
                    ratio=round(ratio, 3),
                    target=TARGET,
                    reached=ratio <= TARGET,
                )
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
