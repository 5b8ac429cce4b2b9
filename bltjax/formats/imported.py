"""A model that was trained elsewhere: its config, parameters and entropy model in memory, and as a directory
of ours.

The directory is that of a run without its training: config.json, checkpoints/0, and entropy_model/, a
directory of the same kind, if there is an entropy model. It appears whole or not at all."""

import contextlib
import dataclasses
import pathlib
import shutil

import numpy as np
from ml_collections import ConfigDict

from bltjax import models
from bltjax.errors import UserError
from bltjax.formats import weights
from bltjax.storage import locks, rundir
from bltjax.tokenizers import bpe, specials

ENTROPY_MODEL = "entropy_model"
SCHEMES = {
    "entropy": "blt-entropy",
    "monotonic": "blt-entropy",
    "both": "blt-entropy",
    "space": "blt-space",
    "strided": "blt-strided",
    "bpe": "blt-bpe",
}


@dataclasses.dataclass
class Imported:
    """config: a run's. origin: what it was, in a few words. source, places: its tensors and where they
    belong, which were checked; nothing is read before it is asked for. tokenizer: the path of its
    tokenizer's file."""

    config: ConfigDict
    origin: str
    source: object
    places: list
    entropy_model: "Imported | None" = None
    tokenizer: pathlib.Path | None = None

    @property
    def params(self) -> dict:
        """The parameters: numpy, in the file's dtype. Read anew each time."""
        return weights.read(self.source, self.places, models.shapes_of(self.config.model))

    def leaves(self) -> list[tuple]:
        """weights.leaves of it."""
        return weights.leaves(self.source, self.places, models.shapes_of(self.config.model))

    def sizes(self) -> dict:
        """{"parameters", "bytes", "dtypes"}."""
        shapes = [(int(np.prod(shape, dtype=np.int64)), dtype) for _, shape, dtype, _ in self.leaves()]
        return {
            "parameters": sum(size for size, _ in shapes),
            "bytes": sum(size * dtype.itemsize for size, dtype in shapes),
            "dtypes": sorted({str(dtype) for _, dtype in shapes}),
        }


def write(model: Imported, out: pathlib.Path, write_params) -> None:
    """Writes the directory. write_params: training.checkpoint's. UserError where there is one already."""
    with appearing(out) as part:
        _write(model, part, write_params)


@contextlib.contextmanager
def appearing(out: pathlib.Path):
    """A path to write a directory to; it becomes `out` if the block ends well, and nothing is left of it
    otherwise. UserError where `out` is taken."""
    out = pathlib.Path(out)
    part, lock = out.with_name(f".{out.name}.part"), out.with_name(f".{out.name}.lock")
    try:
        with locks.held(lock, wait=False):
            check_free(out)
            shutil.rmtree(part, ignore_errors=True)  # of one that was killed
            try:
                yield part
                if out.exists():
                    out.rmdir()
                part.rename(out)
            finally:
                shutil.rmtree(part, ignore_errors=True)
                lock.unlink(missing_ok=True)
    except locks.Busy:
        raise UserError(f"{out} is being written by another process") from None


def check_free(out: pathlib.Path) -> None:
    """UserError where there is something already."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already; name another --out, or remove it")


def _write(model: Imported, folder: pathlib.Path, write_params) -> None:
    folder.mkdir(parents=True)
    rundir.create(folder, model.config, "imported")
    rundir.amend(folder, imported={"from": model.origin, **model.sizes()})
    leaves = {"/".join(path): (shape, dtype, own) for path, shape, dtype, own in model.leaves()}
    write_params(
        folder,
        {name: (dtype, shape) for name, (shape, dtype, _) in leaves.items()},
        lambda name: weights.parts(model.source, leaves[name][2], *leaves[name][:2]),
    )
    if model.tokenizer:
        shutil.copyfile(model.tokenizer, folder / model.tokenizer.name)
        found = bpe.read(model.tokenizer)  # its ends may be said by the config.json that stays behind
        specials.write_beside(folder, specials.Ends(found.bos, found.eos))
    if model.entropy_model:
        _write(model.entropy_model, folder / ENTROPY_MODEL, write_params)


def family(scheme: str) -> str:
    return SCHEMES.get(scheme, "blt-strided")
