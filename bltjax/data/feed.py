"""Batches on devices, ahead of the step that takes them: each process fills and places only the rows that its
own devices hold."""

import collections

import jax
import numpy as np

from bltjax.parallel import sharding

AHEAD = 2  # batches that lie on the devices before they are asked for


def batches(rows, start: int, stop: int, mesh=None):
    """Yields the batches of steps start to stop - 1 as arrays on devices: on the one device, or laid out by
    sharding.batch_sharding(mesh).

    rows: `iterator(start, stop)` yields host batches in order; with a mesh also `iterator(start, stop,
    these)` with only the rows of the given numbers, and `rows`, how many a whole batch has. Placing one is
    asynchronous, and AHEAD of them are on their way."""
    if mesh is None:
        filled, place = rows.iterator(start, stop), jax.device_put
    else:
        mine = own_rows(mesh, rows.rows)
        filled, place = rows.iterator(start, stop, mine), lambda batch: placed(batch, mesh, rows.rows, mine)
    queue = collections.deque()
    for batch in filled:
        queue.append(place(batch))
        if len(queue) > AHEAD:
            yield queue.popleft()
    while queue:
        yield queue.popleft()


def own_rows(mesh, count: int) -> np.ndarray:
    """Numbers of the rows, of `count` in a batch, that this process's devices hold: ascending int64, with
    gaps where devices interleave."""
    held = sharding.batch_sharding(mesh).addressable_devices_indices_map((count,))
    return np.unique(np.concatenate([np.arange(count)[index] for index in held.values()]))


def placed(batch: dict, mesh, count: int, numbers: np.ndarray) -> dict:
    """The global arrays [count, ...] of a batch of which this process has the rows `numbers` (all that its
    devices hold, or more)."""
    layout = sharding.batch_sharding(mesh)
    where = {
        device: np.searchsorted(numbers, np.arange(count)[index])
        for device, index in layout.addressable_devices_indices_map((count,)).items()
    }
    # Explicit puts of each device's rows: the transfer guard of a training loop allows these and no others.
    pieces = {name: [x[at] for at in where.values()] for name, x in batch.items()}
    put = jax.device_put(pieces, {name: list(where) for name in batch})
    return {
        name: jax.make_array_from_single_device_arrays((count, *x.shape[1:]), layout, put[name])
        for name, x in batch.items()
    }
