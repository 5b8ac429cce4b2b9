"""Bits per byte on whole documents (paper Eq. 18): nats of raw bytes over ln 2 times raw bytes, document by
document."""

import functools
import math

import jax
import numpy as np
from ml_collections import FrozenConfigDict

from bltjax.data import feed
from bltjax.models import loss
from bltjax.parallel import sharding


@functools.lru_cache(maxsize=8)
def _scorer(model_config: FrozenConfigDict, mesh=None):
    """Jitted (params, batch) -> float32 nats [B,T]; on a mesh the same on every device, so that every process
    can read them."""

    def score(params, batch):
        with sharding.active(mesh):
            return loss.nats_per_position(model_config, params, batch)

    everywhere = mesh and jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.jit(score, out_shardings=everywhere)


def nats_by_document(
    model_config, params, windows, documents: int, is_eos, mesh=None
) -> tuple[np.ndarray, np.ndarray]:
    """Sums the nats of every scored position into its document.

    windows yields (batch, score [B,T] bool, document [B,T] int, -1 where not scored); is_eos(batch) -> bool
    [B,T], the positions whose target is the end of the document. Returns (nats of raw bytes, nats of EOS),
    float64 [documents] each. mesh: where the parameters are; every process of it makes the same call and gets
    the same numbers."""
    scorer = _scorer(FrozenConfigDict(model_config), mesh)

    def place(batch):
        rows = len(batch["loss_mask"])
        return jax.device_put(batch) if mesh is None else feed.placed(batch, mesh, rows, np.arange(rows))

    nats, eos_nats = np.zeros(documents), np.zeros(documents)
    pending = None
    for window in [*windows, None]:  # one batch behind, so that the device works while the host adds up
        if pending is not None:
            (batch, score, document), result = pending
            values, eos = np.asarray(result, np.float64), is_eos(batch)
            np.add.at(nats, document[score & ~eos], values[score & ~eos])
            np.add.at(eos_nats, document[score & eos], values[score & eos])
        pending = None if window is None else (window, scorer(params, place(window[0])))
    return nats, eos_nats


def summary(sizes, nats, eos_nats, patch_size: float, windows=None) -> dict:
    """What eval.json holds of one text: bits per byte over all documents, and the parts that bootstraps
    resample. windows: windows.Windows that were scored, whose left context and positions it then has too."""
    return {
        "bpb": float(nats.sum() / (math.log(2) * sum(sizes))),
        "bytes": int(sum(sizes)),
        "eos_nats": float(eos_nats.sum()),
        "patch_size": float(patch_size),
        "mean_context_bytes": windows and windows.mean_context_bytes,
        "largest_position": windows and windows.largest_position,
        "documents": [
            {"bytes": int(b), "nats": float(n), "eos_nats": float(e)}
            for b, n, e in zip(sizes, nats, eos_nats)
        ],
    }
