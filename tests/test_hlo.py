"""What is read from compiled programs, against programs whose numbers are known by hand.

tests/golden/hlo holds programs that XLA:TPU made (make.py there says of what); the numbers beside them follow
from the sources' shapes."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from bltjax.compile import collectives as hc
from bltjax.compile import hlo, oom

GOLDEN = pathlib.Path(__file__).parent / "golden" / "hlo"
CPU_PROGRAMS = """
import json, sys, jax
jax.config.update("jax_platforms", "cpu"); jax.config.update("jax_num_cpu_devices", 8)
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2)

def one(x, axis, how):
    f = lambda x: jax.lax.scan(lambda c, _: (how(c, axis), None), x, None, length=3)[0]
    spec = P(axis)
    sharded = jax.shard_map(f, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    return jax.jit(sharded).lower(x).compile().as_text()

x = jnp.ones((16, 16))

def shift(c, axis):
    size = jax.lax.axis_size(axis)
    return jax.lax.ppermute(c, axis, [(i, (i + 1) % size) for i in range(size)])

json.dump(dict(
    gather=one(x, "data", lambda c, a: c + jax.lax.all_gather(c, a).sum(0)),
    reduce=one(x, "model", lambda c, a: jax.lax.psum(c, a)),
    scatter=one(x, "data", lambda c, a: jnp.tile(jax.lax.psum_scatter(c, a, tiled=True), (4, 1))),
    exchange=one(x, "data", lambda c, a: jax.lax.all_to_all(c, a, 1, 1, tiled=True)),
    permute=one(x, "model", shift),
    rows=jax.jit(lambda t, i: jax.value_and_grad(lambda t: (t[i] ** 2).sum())(t))
        .lower(jnp.ones((50, 6)), jnp.ones((3, 5), int)).compile().as_text()), sys.stdout)
"""


def golden(name):
    return (GOLDEN / f"{name}.txt").read_text()


def seen(text, **options):
    """{(kind, network, group size): [(bytes, times)]}."""
    found = {}
    for c in hc.collectives(text, **options):
        found.setdefault((c.kind, c.network, c.group_size), []).append((c.bytes, c.times))
    return {key: sorted(value) for key, value in found.items()}


@pytest.fixture(scope="module")
def cpu():
    left_out = ("JAX_DISABLE_MOST_OPTIMIZATIONS", "XLA_FLAGS")  # compiled as users do
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    done = subprocess.run(
        [sys.executable, "-c", CPU_PROGRAMS], capture_output=True, text=True, check=True, env=environment
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "name,kind,group,bytes_",
    [
        ("gather", "all-gather", 4, 4 * 16 * 4 * 3),  # [4,16] float32 of each of 4 chips, to 3 others
        ("reduce", "all-reduce", 2, 2 * 8 * 16 * 4 / 2),  # [8,16]
        ("scatter", "reduce-scatter", 4, 4 * 16 * 4 * 3 / 4),  # [4,16]
        ("exchange", "all-to-all", 4, 4 * 16 * 4 * 3 / 4),
        ("permute", "collective-permute", 2, 8 * 16 * 4),
    ],
)
def test_collectives_on_cpu(cpu, name, kind, group, bytes_):
    (found,) = hc.collectives(cpu[name])
    assert (found.kind, found.group_size, found.bytes, found.times) == (kind, group, bytes_, 3)
    assert (
        hc.by_kind([found]) == {kind: 3 * bytes_} == {kind: found.total_bytes}
        and found.network == "ici"
        and "while" in found.op_name
    )
    if kind != "collective-permute":
        assert found.groups == (
            ((0, 2, 4, 6), (1, 3, 5, 7)) if group == 4 else ((0, 1), (2, 3), (4, 5), (6, 7))
        )
    # of 4 devices: the groups of 4 reach over both
    over_hosts = hc.collectives(cpu[name], slice_devices=4)[0].network
    assert over_hosts == ("dcn" if group == 4 else "ici")


def test_rows_on_cpu(cpu):
    found = {access.kind: access for access in hc.row_gathers(cpu["rows"])}
    assert {kind: (a.rows, a.width, a.times, a.dtype) for kind, a in found.items()} == {
        "gather": (15, 6, 1, "f32"),
        "scatter": (15, 6, 1, "f32"),
    }
    assert found["gather"].table == hlo.Shape("f32", (50, 6)) and found["gather"].total_rows == 15


def test_layers_on_tpu():
    """3 scanned layers, weights [256,512] and [512,256] over data 4 and model 2, 2 rows of 128 positions a
    chip."""
    text = golden("v5p_layers")
    weight = 256 * 256 * 2  # one matrix, halved by model, in bfloat16
    assert seen(text) == {
        # two matrices, for the forward and for the backward pass
        ("all-gather", "ici", 4): [(weight * 3 / 4, 3)] * 4,
        ("all-reduce", "ici", 2): [(2 * 128 * 256 * 2, 3)] * 2,  # an activation, twice half of it
        # both gradients in one operation: an all-reduce-scatter fusion
        ("reduce-scatter", "ici", 4): [(2 * weight * 3 / 4, 3)],
    }
    assert hlo.dot_flops(text) == 3 * 7 * 2 * (2 * 128) * 256 * 256  # forward 2, computed again 1, backward 4
    gathers = [c for c in hc.collectives(text) if c.kind == "all-gather"]
    assert all(c.op_name.startswith("jit(loss)/") and "while" in c.op_name and c.gathers for c in gathers)
    assert (
        gathers[0].operands[0].dtype == "bf16"
        and gathers[0].results[0].bytes == 4 * gathers[0].operands[0].bytes
    )


def test_a_gather_that_is_written_as_an_all_reduce():
    """Weights [1024,2048] over all 64 chips: XLA:TPU moves twice what a gather would."""
    gather, gradient = hc.collectives(golden("v5p_whole_slice"))
    assert gather.kind == gradient.kind == "all-reduce" and gather.group_size == 64
    assert gather.bytes == gradient.bytes == 2 * 1024 * 2048 * 2 * 63 / 64
    assert gather.gathers and not gradient.gathers


def test_asynchronous_pairs_count_once():
    assert seen(golden("v6e_async")) == {
        ("all-gather", "ici", 16): [(64 * 2048 * 2 * 15, 1)],
        ("all-reduce", "ici", 16): [(2 * 1024 * 2048 * 2 * 15 / 16, 1)],
    }


def test_gathers_spread_over_fusions_count_once():
    """Three weights [1024,1024] over 64 chips, gathered while the product before runs: started in one fusion,
    named again in two more."""
    text = golden("v5p_async_fusion")
    assert text.count(" all-gather(") > 3 and "AsyncCollectiveStart" in text
    assert seen(text) == {("all-gather", "ici", 64): [(1024 * 1024 * 2 * 63 / 64, 1)] * 3}
    assert hlo.dot_flops(text) == 3 * 2 * 512 * 1024 * 1024


def test_what_goes_between_slices():
    weight = 1024 * 2048 * 2
    assert seen(golden("v5p_two_slices")) == {
        ("all-gather", "ici", 4): [(weight * 3 / 4, 1)],
        ("reduce-scatter", "ici", 4): [(weight * 3 / 4, 1)],
        ("all-reduce", "dcn", 2): [(weight / 4, 1)],
    }  # each chip its quarter
    assert hc.by_kind(hc.collectives(golden("v5p_two_slices")), "dcn") == {"all-reduce": weight / 4}


def test_look_ups_on_tpu():
    """A table of 4 x 128 features over 4 chips, 2 rows of 128 ids on each."""
    text = golden("v5p_lookup")
    assert seen(text) == {
        ("all-gather", "ici", 4): [(2 * 128 * 4 * 3, 1)],
        ("all-to-all", "ici", 4): [(4 * 2 * 128 * 128 * 4 * 3 / 4, 1)] * 2,
    }
    assert [(a.kind, a.rows, a.width, a.table.dims) for a in hc.row_gathers(text)] == [
        ("gather", 1024, 128, (1000, 128)),
        ("scatter", 1024, 128, (1000, 128)),
    ]


def test_batched_products_on_tpu_are_convolutions_with_holes():
    """Attention of 8 rows over 4 chips, 256 positions, 4 heads of 64: the scores, and gradients of weights, q
    and k."""
    assert hlo.dot_flops(golden("v5p_attention")) == 4 * 2 * (8 // 4) * 4 * 256 * 256 * 64


@pytest.mark.parametrize(
    "text,expected",
    [
        ("replica_groups={{0,1},{2,3}}, x", ((0, 1), (2, 3))),
        ("replica_groups={}, x", ((0, 1, 2, 3, 4, 5, 6, 7),)),
        ("replica_groups=[2,4]<=[8], x", ((0, 1, 2, 3), (4, 5, 6, 7))),
        ("replica_groups=[4,2]<=[2,4]T(1,0), x", ((0, 4), (1, 5), (2, 6), (3, 7))),
        ("replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0'}, x", ((0, 2, 4, 6), (1, 3, 5, 7))),
        ("replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_1'}, x", ((0, 1), (2, 3), (4, 5), (6, 7))),
        ("replica_groups=mesh['a'=2,'b'=2,'c'=2] {'a','b'}, x", ((0, 2, 4, 6), (1, 3, 5, 7))),
        ("replica_groups=mesh['a'=8] {'a':(2)2}, x", ((0, 2), (1, 3), (4, 6), (5, 7))),
        ("replica_groups=mesh['a'=8] {'a':(1)2,'a':(4)2}, x", ((0, 1, 4, 5), (2, 3, 6, 7))),
        (
            "replica_groups=mesh['a'=4,'b'=2], device_ids=([8]<=[2,4]T(1,0)) {'b'}, x",
            ((0, 4), (1, 5), (2, 6), (3, 7)),
        ),
    ],
)
def test_replica_groups(text, expected):
    assert hc.replica_groups(text, 8) == expected


LOOP = """HloModule m, num_partitions=1

%step (s: (s32[], f32[8,8])) -> (s32[], f32[8,8]) {
  %s = (s32[]{:T(128)}, f32[8,8]{1,0:T(8,128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%s), index=0
  %by = s32[]{:T(128)} constant(STEP)
  %next = s32[]{:T(128)} add(%i, %by)
  %x = f32[8,8]{1,0:T(8,128)} get-tuple-element(%s), index=1
  %y = f32[8,8]{1,0:T(8,128)} dot(%x, %x), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %out = (s32[]{:T(128)}, f32[8,8]{1,0:T(8,128)}) tuple(%next, %y)
}

%compared (a: s32[]) -> pred[] {
  %a = s32[]{:T(128)} parameter(0)
  %most = s32[]{:T(128)} constant(LIMIT)
  ROOT %less = pred[]{:T(512)} compare(%a, %most), direction=WHICH
}

%more (s: (s32[], f32[8,8])) -> pred[] {
  %s.1 = (s32[]{:T(128)}, f32[8,8]{1,0:T(8,128)}) parameter(0)
  %i.1 = s32[]{:T(128)} get-tuple-element(%s.1), index=0
  ROOT %go = pred[]{:T(512)} fusion(%i.1), kind=kLoop, calls=%compared
}

ENTRY %main (x: f32[8,8]) -> f32[8,8] {
  %x.1 = f32[8,8]{1,0:T(8,128)S(1)} parameter(0)
  %first = s32[]{:T(128)} constant(START)
  %copied = s32[]{:T(128)} copy(%first)
  %state = (s32[]{:T(128)}, f32[8,8]{1,0:T(8,128)}) tuple(%copied, %x.1)
  %loop = (s32[]{:T(128)}, f32[8,8]{1,0:T(8,128)}) while(%state), condition=%more, body=%step
  ROOT %result = f32[8,8]{1,0:T(8,128)} get-tuple-element(%loop), index=1
}
"""


@pytest.mark.parametrize(
    "start,step,limit,which,times",
    [
        (0, 1, 5, "LT", 5),
        (2, 1, 5, "LT", 3),
        (0, 2, 5, "LT", 3),
        (0, 1, 5, "LE", 6),
        (7, 1, 5, "LT", 0),
        (0, 1, 4, "NE", 4),
        (0, 1, 5, "GT", None),
    ],
)
def test_trip_counts_that_xla_does_not_say(start, step, limit, which, times):
    text = LOOP
    for word, value in dict(START=start, STEP=step, LIMIT=limit, WHICH=which).items():
        text = text.replace(word, str(value))
    if times is None:
        with pytest.raises(ValueError, match="trip count"):
            hlo.dot_flops(text)
    else:
        assert hlo.dot_flops(text) == times * 2 * 8**3


def test_other_text_is_refused():
    with pytest.raises(ValueError, match="ENTRY"):
        hlo.dot_flops("module @jit_f {}")


def test_meetings_of_dilated_windows():
    assert hlo._meetings(4, 4, 4, 0, 3, 4, 1) == 4  # a batch of 4: each output meets its own input only
    assert hlo._meetings(10, 3, 10, 1, 1, 1, 1) == 28  # an ordinary window, padded: the ends miss one each
    brute = sum(
        0 <= o * 2 + k * 3 - 2 <= 6 * 2 and (o * 2 + k * 3 - 2) % 2 == 0 for o in range(5) for k in range(3)
    )
    assert hlo._meetings(7, 3, 5, 2, 2, 2, 3) == brute
    assert np.isclose(hlo.Shape("bf16", (3, 5)).bytes, 30) and hlo.Shape("s4", (3, 5)).bytes == 7.5


def test_out_of_memory_in_one_line():
    late = oom.out_of_memory(golden("v6e_out_of_memory"))
    assert (
        late
        == "needs 31.3 GiB of 31.2 GiB a chip; largest buffers: 7.6 GiB bf16[10,49632,8192] (broadcast.1), "
        "7.6 GiB bf16[10,49632,8192] (broadcast.1), 7.6 GiB bf16[10,49632,8192] (broadcast.1)"
    )
    early = RuntimeError(
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries"
        " (447.51G) exceeds available HBM (95.74G)."
    )
    assert oom.out_of_memory(early) == "needs 447.5 GiB of 95.7 GiB a chip for temporaries alone"
    assert oom.is_out_of_memory(early) and not oom.is_out_of_memory(ValueError("no"))
    assert oom.out_of_memory("INTERNAL: something else\nand more") == "INTERNAL: something else"


def test_groups_of_a_mesh_in_another_order_of_devices():
    text = (
        "channel_id=4, replica_groups=mesh['axis_0'=3,'axis_1'=2], device_ids=([2,3]T(1,0)) {'axis_0'},"
        " dimensions={0}"
    )
    assert hc.replica_groups(text, 6) == ((0, 1, 2), (3, 4, 5))
    assert hc.replica_groups(text.replace("{'axis_0'}", "{'axis_1'}"), 6) == ((0, 3), (1, 4), (2, 5))
