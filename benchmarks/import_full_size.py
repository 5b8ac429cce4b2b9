"""A full-size BLT 1B of random bfloat16 weights in Hugging Face's layout, written shard by shard, imported,
loaded, and asked for logits.

    python benchmarks/import_full_size.py --folder /where/there/are/20/GB

Prints seconds and peak memory of the import (a process of its own), the size of the checkpoint, whether the
first logits are finite, and how far those of a prefix alone, and of the generator's caches, are from them.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import ml_dtypes
import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
SLICE = 2**24  # numbers drawn at once


def sizes(scale: int):
    """Config of the released 1B (scale 1), or of one with 1/scale of its layers, widths and rows."""
    from bltjax import config as cfg

    model = cfg.sized_blt("1B", "released", ngram_rows=500_002 // scale)
    lm = cfg.transformer("byte", vocab=260, width=768, layers=14, heads=12, window=512, rope_theta=1e4)
    if scale > 1:
        model = cfg.replace(
            model,
            **{
                "local.width": 1024 // scale,
                "local.ffn": 2816 // scale,
                "latent.width": 2048 // scale,
                "latent.ffn": 5632 // scale,
                "local.decoder_layers": 2,
                "latent.layers": 3,
            },
        )
        lm = cfg.replace(lm, width=96, heads=12, layers=2, ffn=256)
    return model, lm


def write(folder: pathlib.Path, scale: int) -> int:
    """The checkpoint; its bytes."""
    from bltjax import config as cfg
    from bltjax.formats import blt, huggingface, safetensors

    model, lm = sizes(scale)
    run = cfg.run(
        "1B", "blt-entropy", model, patching_=cfg.patching("entropy", 4.5, threshold=1.335442066192627)
    )
    places = {
        p.name: p
        for p in [
            *blt.huggingface(blt.blt_places(model)),
            *blt.huggingface(blt.entropy_model_places(lm, "patcher.")),
        ]
    }
    dtype, rng = np.dtype(ml_dtypes.bfloat16), np.random.default_rng(0)

    def rows(name):
        left, width = places[name].shape[0], int(np.prod(places[name].shape[1:]))
        std = 1.0 if len(places[name].shape) == 1 else width**-0.5
        while left:
            count = min(left, max(1, SLICE // width))
            part = (
                rng.standard_normal((count, width), np.float32) * std
                if len(places[name].shape) > 1
                else 1 + 0.1 * rng.standard_normal((count, 1))
            )
            yield part.astype(dtype).reshape(count, *places[name].shape[1:])
            left -= count

    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(huggingface.to_config(run, lm, dtype)))
    shards, filled, total = [[]], 0, 0
    for name, place in places.items():
        size = int(np.prod(place.shape)) * 2
        if shards[-1] and filled + size > 2**30:
            shards, filled = [*shards, []], 0
        shards[-1].append(name)
        filled, total = filled + size, total + size
    names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    for file, shard in zip(names, shards):
        safetensors.write(folder / file, {name: (dtype, places[name].shape) for name in shard}, rows)
    (folder / safetensors.INDEX).write_text(
        json.dumps({"weight_map": {name: file for file, shard in zip(names, shards) for name in shard}})
    )
    return total


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--scale", type=int, default=1, help="divides widths and tables: a try")
    parser.add_argument(
        "--generate",
        action="store_true",
        help="compare the generator's caches too: they hold weights in float32 beside",
    )
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args()
    source, out = args.folder / "hf", args.folder / "imported"
    for folder in (source, out):
        shutil.rmtree(folder, ignore_errors=True)
    start = time.perf_counter()
    total = write(source, args.scale)
    print(
        f"checkpoint: {total / 1e9:.2f} GB in {len(list(source.glob('*.safetensors')))} shards, written in"
        f" {time.perf_counter() - start:.0f} s",
        flush=True,
    )
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(HERE.parent)}
    done = subprocess.run(
        [sys.executable, "-m", "bltjax.cli.main", "import", str(source), "--out", str(out), "--json"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        return done.returncode
    found = json.loads(done.stdout)
    print(
        f"import: {found['seconds']:.0f} s, peak memory {found['peak_bytes'] / 1e9:.2f} GB,"
        f" {(found['peak_bytes'] - total) / 1e9:+.2f} GB of the checkpoint's size",
        flush=True,
    )
    os.environ["JAX_PLATFORMS"] = "cpu"
    from bltjax import api, convert

    if not args.keep:
        shutil.rmtree(source)
    model = api.load(out)
    ids = np.concatenate(
        [
            [1],
            np.frombuffer(b"The first logits of a full-size model, and a slice of them.", np.uint8).astype(
                np.int32
            )
            + 4,
        ]
    )[None]
    start = time.perf_counter()
    logits = model.logits(ids)
    print(
        f"logits: {logits.shape}, finite {bool(np.isfinite(logits).all())}, standard deviation"
        f" {logits.std():.2f}, in {time.perf_counter() - start:.0f} s",
        flush=True,
    )
    part = model.logits(ids[:, :20])
    print(f"a prefix of 20 alone: differs by {np.abs(part - logits[:, :20]).max():.1e}")
    if args.generate:
        import jax
        import jax.numpy as jnp

        engine = model.generator.engine(128, 256, 0)
        last = jax.jit(
            lambda params, piece: engine.forward(params, engine.begin(1), piece, jnp.int32([piece.shape[1]]))[
                0
            ]
        )(model.generator.params, jnp.asarray(ids))
        print(f"the generator's caches: differ by {np.abs(np.asarray(last) - logits).max():.1e}")
    print(f"peak memory of this process {convert.peak_bytes() / 1e9:.2f} GB")
    if not args.keep:
        shutil.rmtree(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
