"""Which project's format a directory is of, by what is in it."""

import pathlib

from bltjax.errors import UserError
from bltjax.formats import golden_vectors, huggingface, imported, llama, released

OURS = "bltjax"
READERS = {"blt": huggingface.load, "llama": llama.load}  # by a config.json's model_type


def of(folder: pathlib.Path) -> str:
    """OURS, "original", "vectors" (an .npz file), or the model_type of a Hugging Face directory. UserError
    for anything else."""
    if folder.is_file() and folder.suffix == ".npz":
        return "vectors"
    if not folder.is_dir():
        raise UserError(f"no directory {folder}")
    if released.is_original(folder):
        return "original"
    path = folder / "config.json"
    if not path.exists():
        raise UserError(
            f"{folder} is no run directory and no checkpoint: it has neither config.json nor params.json"
        )
    found = huggingface.read_json(path)
    if "config" in found:
        return OURS
    if "model_type" not in found:
        raise UserError(
            f"{path} is of no format that is known here: it has neither config (a run) nor model_type"
            " (Hugging Face) nor args (released)"
        )
    if found["model_type"] not in READERS:
        raise UserError(f"{path} is of model_type {found['model_type']!r}; known: {', '.join(READERS)}")
    return found["model_type"]


def load(folder: pathlib.Path) -> imported.Imported:
    """The model of a directory of another format. UserError where it does not fit."""
    kind = of(folder)
    if kind == OURS:
        raise UserError(f"{folder} is a directory of this project's own: there is nothing to import")
    return {"original": released.load, "vectors": golden_vectors.load, **READERS}[kind](folder)
