"""One kind of model on several meshes: gradients and losses of ten steps, written to a file.
Run by test_sharding.py.

python sharded_steps.py KIND OUT.npz MESH... [--coordinator HOST:PORT --processes N --process I]
MESH is 1 (no mesh), 8, 4x2, 2x2x2 or 1x8.
"""

import argparse
import os
import sys

os.environ["JAX_PLATFORMS"] = "cpu"

import jax

parser = argparse.ArgumentParser()
parser.add_argument("kind")
parser.add_argument("out")
parser.add_argument("meshes", nargs="+")
parser.add_argument("--coordinator")
parser.add_argument("--processes", type=int, default=1)
parser.add_argument("--process", type=int, default=0)
parser.add_argument("--accumulate", type=int, default=1)
args = parser.parse_args()
jax.config.update("jax_num_cpu_devices", 8 // args.processes)
jax.config.update("jax_numpy_rank_promotion", "raise")
if args.coordinator:
    jax.distributed.initialize(args.coordinator, args.processes, args.process)

import numpy as np
import optax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from bltjax import config as cfg
from bltjax import models
from bltjax.parallel import host, sharding
from bltjax.training import step as steps

host.collect_cycles_rarely()
STEPS, ROWS, T, PATCHES = 10, 16, 48, 20
BLT = dict(
    local_width=32,
    encoder_layers=1,
    decoder_layers=2,
    local_heads=8,
    global_width=64,
    global_layers=3,
    global_heads=8,
    k=2,
    window=16,
    ngram_rows=64,
    ffn_multiple=16,
)
MODELS = {
    "blt": lambda: cfg.blt_model("paper", **BLT),
    "released": lambda: cfg.replace(
        cfg.blt_model("released", **{**BLT, "encoder_layers": 2}), **{"cross.encoder": "all", "remat": "full"}
    ),
    "no-cross": lambda: cfg.replace(
        cfg.blt_model("paper", **BLT),
        **{"cross.encoder": "none", "cross.decoder": "none", "ngrams.sizes": ()},
    ),
    "token": lambda: cfg.transformer("token", vocab=512, width=32, layers=3, heads=8, ffn_multiple=16),
    "byte": lambda: cfg.transformer(
        "byte", vocab=260, width=32, layers=3, heads=8, window=16, ffn_multiple=16
    ),
}


def batch(kind: str, seed: int) -> dict:
    """Rows of two documents and some padding."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 512 if kind == "token" else 260, (ROWS, T + 1)).astype(np.int32)
    docs = np.sort(rng.integers(1, 3, (ROWS, T)), axis=1).astype(np.int32)
    docs[:, -5:] = 0
    common = dict(
        doc_ids=docs,
        targets=ids[:, 1:],
        loss_mask=((docs > 0) & (rng.random((ROWS, T)) < 0.9)).astype(np.int32),
    )
    if kind == "token":
        return dict(common, tokens=ids[:, :-1], target_bytes=rng.integers(0, 6, (ROWS, T)).astype(np.int32))
    starts = rng.random((ROWS, T)) < 0.3
    starts[:, 1:] |= docs[:, 1:] != docs[:, :-1]
    patch_ids = np.minimum(np.cumsum(starts, axis=1), PATCHES).astype(np.int32)
    patch_docs = np.zeros((ROWS, PATCHES + 1), np.int32)
    np.put_along_axis(patch_docs, patch_ids[:, ::-1], docs[:, ::-1], axis=1)
    return dict(
        common,
        bytes=ids[:, :-1],
        patch_ids=np.where(docs > 0, patch_ids, PATCHES).astype(np.int32),
        latent_ids=patch_ids,
        patch_doc_ids=patch_docs[:, :PATCHES],
    )


def placed(tree, shardings):
    """Host arrays on the devices of a mesh, also of other processes (which hold the same ones)."""
    if shardings is None:
        return jax.tree.map(jax.numpy.asarray, tree)
    return jax.tree.map(
        lambda x, s: jax.make_array_from_callback(x.shape, s, lambda index: np.asarray(x)[index]),
        tree,
        shardings,
    )


def measure(kind: str, mesh) -> tuple[list, list]:
    """(losses, gradients of the first step up to a factor, as host arrays: what its first moments are)."""
    model = MODELS[kind]()
    train = cfg.replace(cfg.training(), lr=1e-3, accumulate=args.accumulate)
    state = jax.device_get(
        jax.jit(lambda: steps.init_state(train, STEPS, models.init(model, jax.random.key(0))))()
    )
    in_batch = None
    whole = jax.jit(lambda x: x)
    if mesh is not None:
        in_batch = {name: sharding.batch_sharding(mesh) for name in batch(model.kind, 0)}
        whole = jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, P()))
    state = placed(state, None if mesh is None else sharding.state_shardings(mesh, state))
    step, losses, moments = steps.make_step(model, train, STEPS, mesh=mesh), [], None
    for i in range(STEPS):
        state, metrics = step(state, placed(batch(model.kind, i % 2), in_batch))
        losses.append(float(metrics["loss"]))
        if moments is None:
            moments = jax.device_get(jax.tree.leaves(whole(optax.tree_utils.tree_get(state.opt_state, "mu"))))
    return losses, moments


results = {}
for text in args.meshes:
    mesh = None if text == "1" else sharding.make_mesh(sharding.parse_mesh(text))
    losses, grads = measure(args.kind, mesh)
    results[f"{text}/losses"] = np.array(losses)
    results |= {f"{text}/gradient{i}": grad for i, grad in enumerate(grads)}
if args.process == 0:
    np.savez(args.out, **results)
sys.exit(0)
