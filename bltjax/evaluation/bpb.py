"""Bits per byte on whole documents (paper Eq. 18): nats of raw bytes over ln 2 times raw bytes, document by
document."""

import dataclasses
import functools
import math

import jax
import numpy as np
from ml_collections import FrozenConfigDict

from bltjax.data import feed
from bltjax.models import loss
from bltjax.parallel import sharding

PLACES = 16  # in a patch that are told apart


@functools.lru_cache(maxsize=8)
def _scorer(model_config: FrozenConfigDict, mesh=None):
    """Jitted (params, batch) -> float32 nats [B,T]; on a mesh the same on every device, so that every process
    can read them."""

    def score(params, batch):
        with sharding.active(mesh):
            return loss.nats_per_position(model_config, params, batch)

    everywhere = mesh and jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.jit(score, out_shardings=everywhere)


@dataclasses.dataclass(frozen=True)
class Scored:
    """nats_D, eos_nats_D float64 [documents]: of raw bytes, and of ends. place_nats_DxP float64,
    place_bytes_DxP int64 [documents, PLACES]: of raw bytes by their place in their patch, the first's 0, the
    last with all beyond; zeros where there are no patches."""

    nats_D: np.ndarray
    eos_nats_D: np.ndarray
    place_nats_DxP: np.ndarray
    place_bytes_DxP: np.ndarray

    @classmethod
    def nothing(cls, documents: int) -> "Scored":
        """Zeros, to add to."""
        places = (documents, PLACES)
        return cls(np.zeros(documents), np.zeros(documents), np.zeros(places), np.zeros(places, np.int64))

    def places(self) -> list:
        """Of each document [[bytes, nats], ...] by place, up to the last that it has."""
        counts = [np.trim_zeros(bytes_P, "b").size for bytes_P in self.place_bytes_DxP]
        pairs = zip(counts, self.place_bytes_DxP.tolist(), self.place_nats_DxP.tolist())
        return [[list(pair) for pair in zip(bytes_P[:n], nats_P[:n])] for n, bytes_P, nats_P in pairs]


def nats_by_document(model_config, params, windows, documents: int, is_eos, mesh=None) -> Scored:
    """Sums the nats of every scored position into its document, and into its place in its patch.

    windows yields (batch, score [B,T] bool, document [B,T] int, -1 where not scored); is_eos(batch) -> bool
    [B,T], the positions whose target is the end of the document. mesh: where the parameters are; every
    process of it makes the same call and gets the same numbers."""
    scorer = _scorer(FrozenConfigDict(model_config), mesh)

    def place(batch):
        rows = len(batch["loss_mask"])
        return jax.device_put(batch) if mesh is None else feed.placed(batch, mesh, rows, np.arange(rows))

    found = Scored.nothing(documents)
    pending = None
    for window in [*windows, None]:  # one batch behind, so that the device works while the host adds up
        if pending is not None:
            (batch, score, document), result = pending
            values, eos = np.asarray(result, np.float64), is_eos(batch)
            of_bytes = score & ~eos
            np.add.at(found.nats_D, document[of_bytes], values[of_bytes])
            np.add.at(found.eos_nats_D, document[score & eos], values[score & eos])
            if "patch_ids" in batch:
                places = np.minimum(target_places(batch["patch_ids"]), PLACES - 1)
                at = document[of_bytes], places[of_bytes]
                np.add.at(found.place_nats_DxP, at, values[of_bytes])
                np.add.at(found.place_bytes_DxP, at, 1)
        pending = None if window is None else (window, scorer(params, place(window[0])))
    return found


def target_places(patch_ids_BxT: np.ndarray) -> np.ndarray:
    """int [B,T]: how many slots of its patch stand before each slot's target, which is the slot after it. Of
    a row's last slot, which has none: 0."""
    slot_T = np.arange(patch_ids_BxT.shape[1])
    begins = np.diff(patch_ids_BxT, axis=1, prepend=-1) != 0
    place_BxT = slot_T - np.maximum.accumulate(np.where(begins, slot_T, 0), axis=1)
    return np.pad(place_BxT[:, 1:], ((0, 0), (0, 1)))


def summary(sizes, scored: Scored, patch_size: float, windows=None) -> dict:
    """What eval.json holds of one text: bits per byte over all documents, and the parts that bootstraps
    resample. windows: windows.Windows that were scored, whose left context and positions it then has too."""
    return {
        "bpb": float(scored.nats_D.sum() / (math.log(2) * sum(sizes))),
        "bytes": int(sum(sizes)),
        "eos_nats": float(scored.eos_nats_D.sum()),
        "patch_size": float(patch_size),
        "mean_context_bytes": windows and windows.mean_context_bytes,
        "largest_position": windows and windows.largest_position,
        "documents": [
            {"bytes": int(b), "nats": float(n), "eos_nats": float(e)}
            for b, n, e in zip(sizes, scored.nats_D, scored.eos_nats_D)
        ],
        "patch_places": by_place(scored.places()),
    }


def by_place(places) -> list[dict] | None:
    """[{"bytes", "nats"}] of each place in patches, summed over documents' [[bytes, nats], ...]; None where
    there are no patches."""
    sums = np.zeros((PLACES, 2))
    for one in places:
        sums[: len(one)] += np.reshape(one, (-1, 2))
    return [{"bytes": int(size), "nats": nats} for size, nats in sums.tolist()] if sums.any() else None
