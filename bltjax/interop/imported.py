"""A model that was trained elsewhere: its config, parameters and entropy model in memory, and as a directory of ours.

The directory is that of a run without its training: config.json, checkpoints/0, and byte_lm/, a directory of the same kind, if there is
an entropy model. It appears whole or not at all.
"""

import dataclasses
import pathlib
import shutil

import jax
import numpy as np
from ml_collections import ConfigDict

from bltjax import config as cfg
from bltjax.errors import UserError
from bltjax.interop import blt, weights
from bltjax.sweep import rundir

BYTE_LM, TOKENIZER = "byte_lm", "tokenizer.json"
SCHEMES = {"entropy": "blt-entropy", "monotonic": "blt-entropy", "both": "blt-entropy", "space": "blt-space", "strided": "blt-strided", "bpe": "blt-bpe"}


@dataclasses.dataclass
class Imported:
    """config: a run's. params: numpy, in the file's dtype. origin: what it was, in a few words. tokenizer: the path of its tokenizer.json."""
    config: ConfigDict
    params: dict
    origin: str
    byte_lm: "Imported | None" = None
    tokenizer: pathlib.Path | None = None


def byte_lm(model, places, source, origin: str, name: str = "byte-lm") -> Imported:
    """An entropy model from the tensors that `places` names."""
    return Imported(cfg.run(name, "byte-lm", model), weights.read(source, places, blt.like(model)), origin)


def sizes(params) -> dict:
    """{"parameters", "bytes", "dtypes"} of a tree."""
    leaves = jax.tree.leaves(params)
    return {"parameters": int(sum(leaf.size for leaf in leaves)), "bytes": int(sum(leaf.nbytes for leaf in leaves)),
            "dtypes": sorted({str(leaf.dtype) for leaf in leaves})}


def write(model: Imported, out: pathlib.Path) -> None:
    """Writes the directory. UserError where there is one already."""
    out = pathlib.Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already; name another --out, or remove it")
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        _write(model, part)
        if out.exists():
            out.rmdir()
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write(model: Imported, folder: pathlib.Path) -> None:
    from bltjax.training import checkpoint  # orbax takes a second to import, and loading needs none of it
    folder.mkdir(parents=True)
    rundir.create(folder, model.config, "imported")
    rundir.amend(folder, imported={"from": model.origin, **sizes(model.params)})
    checkpoint.write_params(folder, model.params)
    if model.tokenizer:
        shutil.copyfile(model.tokenizer, folder / TOKENIZER)
    if model.byte_lm:
        _write(model.byte_lm, folder / BYTE_LM)


def family(scheme: str) -> str:
    return SCHEMES.get(scheme, "blt-strided")


def total_bytes(source) -> int:
    """Bytes of all tensors of a source."""
    return sum(int(np.prod(source.shape(name), dtype=np.int64)) * source.dtype(name).itemsize for name in source)
