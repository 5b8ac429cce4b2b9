"""Writes the programs of this folder: small and sharded, compiled for TPU topologies by libtpu 0.0.42.1 (jax
0.10.2) without a TPU. v6e_out_of_memory.txt is libtpu's error for a gradient of a scanned stack that just did
not fit.

    ALLOW_MULTIPLE_LIBTPU_LOAD=1 JAX_PLATFORMS=cpu python tests/golden/hlo/make.py

Backend configurations and source locations, which nothing reads, are cut. The numbers that tests/test_hlo.py
expects follow from the shapes here: a later compiler may choose other collectives."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

HERE = pathlib.Path(__file__).parent

# Flags that a user may set; some samples have the forms that they lead to.
FLAGS = {
    "xla_enable_async_all_gather": True,
    "xla_tpu_enable_async_collective_fusion": True,
    "xla_tpu_enable_async_collective_fusion_fuse_all_gather": True,
    "xla_tpu_prefer_async_allgather_to_allreduce": True,
    "xla_tpu_enable_sparse_core_collective_offload_reduce_scatter": True,
    "xla_tpu_enable_sparse_core_collective_offload_nd_reduce_scatter": True,
}


def mesh_of(name, shape, **options):
    return Mesh(
        np.array(topologies.get_topology_desc(name, "tpu", **options).devices).reshape(shape),
        ("replica", "data", "model"),
    )


def of(mesh, dims, dtype, *spec):
    return jax.ShapeDtypeStruct(dims, dtype, sharding=NamedSharding(mesh, P(*spec)))


def write(name, lowered, options=None):
    text = lowered.compile(compiler_options=options or {}).as_text()
    cut = re.compile(r", backend_config=\{.*\}$|, frontend_attributes=\{from[^}]*\}| stack_frame_id=\d+")
    lines = [cut.sub("", line) for line in text.splitlines()]
    lines[0] = lines[0].split(",")[0] + ", " + re.search(r"num_partitions=\d+", lines[0])[0]
    start = next(i for i, line in enumerate(lines) if i and re.match(r"^(ENTRY )?%", line))
    (HERE / f"{name}.txt").write_text("\n".join([lines[0], ""] + lines[start:]) + "\n")


def layers(mesh, count=3, batch=8, length=128, width=256, ffn=512):
    """Gradient of a scanned stack: weights cut over data and model, gathered where they are used."""
    inside = lambda x, *spec: jax.lax.with_sharding_constraint(x, NamedSharding(mesh, P(*spec)))

    def loss(weights, x):
        def layer(x, w):
            up, down = inside(w[0].astype(x.dtype), None, "model"), inside(w[1].astype(x.dtype), "model")
            return inside(x + jax.nn.silu(x @ up) @ down, ("replica", "data")), None

        return jnp.sum(jax.lax.scan(jax.checkpoint(layer), x, weights)[0].astype(jnp.float32) ** 2)

    weights = (
        of(mesh, (count, width, ffn), jnp.float32, None, "data", "model"),
        of(mesh, (count, ffn, width), jnp.float32, None, "model", "data"),
    )
    x = of(mesh, (batch, length, width), jnp.bfloat16, ("replica", "data"))
    return jax.jit(jax.grad(loss), out_shardings=jax.tree.map(lambda w: w.sharding, weights)).lower(
        weights, x
    )


def lookup(mesh, slots=128, rows=1000, features=128):
    """A table cut by feature: ids gathered, rows looked up, an all-to-all home; and the gradient."""
    data = mesh.shape["data"]

    def inside(table, ids):
        found = table[jax.lax.all_gather(ids, "data", tiled=True)]
        return jax.lax.all_to_all(found, "data", 0, 2, tiled=True)

    def step(table, ids):
        mapped = jax.shard_map(inside, mesh=mesh, in_specs=(P(None, "data"), P("data")), out_specs=P("data"))
        y, back = jax.vjp(lambda t: mapped(t, ids), table)
        return back(y)[0]

    return jax.jit(step).lower(
        of(mesh, (rows, data * features), jnp.float32, None, "data"),
        of(mesh, (data * 2, slots), jnp.int32, "data"),
    )


def attention(mesh, batch=8, length=256, heads=4, dim=64):
    """Products with batch dimensions, which become convolutions with holes."""

    def scores(q, k, v):
        weights = jax.nn.softmax(jnp.einsum("bqhd,bshd->bhqs", q, k).astype(jnp.float32)).astype(q.dtype)
        return jnp.einsum("bhqs,bshd->bqhd", weights, v).astype(jnp.float32).sum()

    return jax.jit(jax.grad(scores, (0, 1))).lower(
        *[of(mesh, (batch, length, heads, dim), jnp.bfloat16, "data")] * 3
    )


def product(mesh, rows=64, width=1024, ffn=2048):
    """Gradient of one product whose weights are cut over data: a gather, and a sum of gradients that is
    scattered again."""

    def loss(weights, x):
        whole = jax.lax.with_sharding_constraint(weights.astype(x.dtype), NamedSharding(mesh, P()))
        return jnp.sum(jnp.tanh(x @ whole).astype(jnp.float32) ** 2)

    weights = of(mesh, (width, ffn), jnp.float32, "data")
    x = of(
        mesh, (rows * mesh.shape["replica"] * mesh.shape["data"], width), jnp.bfloat16, ("replica", "data")
    )
    return jax.jit(jax.grad(loss), out_shardings=weights.sharding).lower(weights, x)


def products(mesh, rows=512, width=1024):
    """Three, of gathered weights: a gather overlaps with the product before."""

    def run(weights, x):
        for w in weights:
            x = jnp.tanh(x @ jax.lax.with_sharding_constraint(w.astype(x.dtype), NamedSharding(mesh, P())))
        return x

    weights = [of(mesh, (width, width), jnp.float32, None, "data")] * 3
    x = of(mesh, (rows * mesh.shape["data"], width), jnp.bfloat16, "data")
    return jax.jit(run, out_shardings=x.sharding).lower(weights, x)


if __name__ == "__main__":
    write("v5p_async_fusion", products(mesh_of("v5p:4x4x4", (1, 64, 1))), FLAGS)
    write("v5p_layers", layers(mesh_of("v5p:2x2x2", (1, 4, 2))))
    write(
        "v6e_async",
        product(mesh_of("v6e:4x4", (1, 16, 1))),
        {"xla_tpu_enable_sparse_core_collective_offload_all_gather": True},
    )
    write("v5p_whole_slice", product(mesh_of("v5p:4x4x4", (1, 64, 1))))
    write("v5p_two_slices", product(mesh_of("v5p:2x2x1", (2, 4, 1), num_slices=2)))
    write("v5p_lookup", lookup(mesh_of("v5p:2x2x1", (1, 4, 1))))
    write("v5p_attention", attention(mesh_of("v5p:2x2x1", (1, 4, 1))))
