"""What XLA is told beyond its defaults, by platform. Runs and ahead-of-time compilation use the same."""

# Seen with libtpu 0.0.42 for v5p, v5e and v6e pods (docs/results/compile.md): over one axis of 64 or more chips of a 3D torus, XLA:TPU
# writes an all-gather as an all-reduce of zeros, which moves twice the bytes; the first four make it an all-gather again. Where a mesh is
# one axis, it writes a reduce-scatter as a whole all-reduce, twice the bytes and all of the gradient in memory; the last two hand it to the
# sparse cores, which scatter.
TPU = {
    "xla_enable_async_all_gather": True,
    "xla_tpu_enable_async_collective_fusion": True,
    "xla_tpu_enable_async_collective_fusion_fuse_all_gather": True,
    "xla_tpu_prefer_async_allgather_to_allreduce": True,
    "xla_tpu_enable_sparse_core_collective_offload_reduce_scatter": True,
    "xla_tpu_enable_sparse_core_collective_offload_nd_reduce_scatter": True,
}


def options(mesh) -> dict | None:
    """`compiler_options` of a program on this mesh (None: of one on a single device)."""
    return TPU if mesh is not None and mesh.size > 1 and mesh.devices.flat[0].platform == "tpu" else None
