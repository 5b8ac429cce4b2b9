"""Batches on their way to devices: the rows that a process needs, ahead of the step that takes them."""

import os
import pathlib
import random
import subprocess
import sys

import in_memory
import jax
import numpy as np
import pytest
from test_distributed import free_port

from bltjax.data import feed
from bltjax.parallel import sharding

HERE = pathlib.Path(__file__).parent


def rows_of_documents():
    documents = [bytes(random.Random(i).choices(range(97, 123), k=30 + i)) for i in range(20)]
    return in_memory.byte_rows(documents, context=32, rows=8, seed=3)


def test_rows_that_are_asked_for_are_those_of_the_whole_batch():
    rows = rows_of_documents()
    ends_in_epoch_0 = rows.epoch_rows() // rows.rows  # a batch that reaches into the next epoch
    for step in (0, 1, ends_in_epoch_0):
        whole = rows.batch(step)
        for these in ([0, 1, 2, 3], [1, 5], [7], [0, 2, 4, 6]):
            part = rows.batch(step, np.array(these))
            assert part.keys() == whole.keys() and all(
                np.array_equal(part[name], whole[name][these]) for name in whole
            )
    assert all(
        np.array_equal(a[name], rows.batch(i + 2, [3, 4])[name])
        for i, a in enumerate(rows.iterator(2, 5, [3, 4]))
        for name in a
    )


def test_batches_wait_on_the_device_ahead_of_their_step():
    rows, asked = rows_of_documents(), []

    class Watched:
        def iterator(self, start, stop):
            for step in range(start, stop):
                asked.append(step)
                yield rows.batch(step)

    with jax.transfer_guard("disallow"):
        for step, batch in enumerate(feed.batches(Watched(), 4, 10), 4):
            assert asked[-1] == min(step + feed.AHEAD, 9) and isinstance(batch["bytes"], jax.Array)
            with jax.transfer_guard("allow"):
                assert all(np.array_equal(batch[name], x) for name, x in rows.batch(step).items())
    assert step == 9


def test_placed_on_a_mesh_of_one():
    mesh, rows = sharding.make_mesh((1, 1, 1)), rows_of_documents()
    assert feed.own_rows(mesh, 8).tolist() == list(range(8))
    for step, batch in enumerate(feed.batches(rows, 0, 3, mesh)):
        for name, x in rows.batch(step).items():
            assert np.array_equal(batch[name], x) and batch[name].sharding == sharding.batch_sharding(mesh)


SHARES = """
import sys; sys.path.insert(0, {here!r})
import jax, numpy as np
from jax.experimental import multihost_utils
from bltjax.parallel import distributed, sharding
from bltjax.data import feed
from test_feed import rows_of_documents
distributed.use_cpu_devices(4)
distributed.start("127.0.0.1:{port}", 2, {i})
rows, filled = rows_of_documents(), []
fill = rows.batch
rows.batch = lambda step, these=None: (filled.append(these.tolist()), fill(step, these))[1]
devices = np.array(jax.devices())
for shape, order, mine in (
    ((1, 8, 1), range(8), [[0, 1, 2, 3], [4, 5, 6, 7]]),
    ((1, 8, 1), (0, 4, 1, 5, 2, 6, 3, 7), [[0, 2, 4, 6], [1, 3, 5, 7]]),  # processes take turns
    ((2, 2, 2), range(8), [[0, 1, 2, 3], [4, 5, 6, 7]]),
    ((1, 2, 4), (0, 1, 4, 5, 2, 3, 6, 7), [list(range(8))] * 2),  # a model axis over both processes
):
    mesh = sharding.make_mesh(shape, devices[list(order)])
    with jax.transfer_guard("disallow"):
        batches = list(feed.batches(rows, 2, 5, mesh))
    assert all(these == mine[{i}] for these in filled), (shape, filled)
    filled.clear()
    for step, batch in enumerate(batches, 2):
        for name, x in fill(step).items():
            whole = multihost_utils.process_allgather(batch[name], tiled=True)
            assert np.array_equal(whole, x), (shape, step, name)
distributed.leave(0)
"""


@pytest.mark.slow
def test_each_process_fills_its_rows_of_the_same_batch():
    port = free_port()
    env = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "PYTHONPATH": str(HERE.parent),
    }
    both = [
        subprocess.Popen([sys.executable, "-c", SHARES.format(here=str(HERE), port=port, i=i)], env=env)
        for i in range(2)
    ]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
