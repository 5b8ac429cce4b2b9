"""`bltjax import` and `bltjax export`: checkpoints of other projects in, models of this one out."""

import pathlib
import resource
import sys
import time

from bltjax import api, patching
from bltjax.errors import UserError
from bltjax.formats import detect, huggingface_export, imported
from bltjax.tokenizers import bpe
from bltjax.training import checkpoint


def bring_in(source: pathlib.Path, out: pathlib.Path, entropy_model: pathlib.Path | None = None) -> dict:
    """Writes a checkpoint of another format as a directory of ours. {"out", "from", "parameters", "bytes",
    "entropy_model_parameters", "seconds", "peak_bytes" (of this process)}. UserError for what does not fit;
    then nothing is left behind."""
    began = time.perf_counter()
    imported.check_free(out)
    found = detect.load(source)
    if entropy_model is not None:
        other = detect.load(entropy_model)
        found.entropy_model = other if other.config.model.kind == "byte" else other.entropy_model
        if found.entropy_model is None:
            raise UserError(f"{entropy_model} has no entropy model")
    if found.tokenizer and (entries := bpe.read(found.tokenizer).vocab) > found.config.model.vocab:
        raise UserError(f"{found.tokenizer} has {entries:,} entries, the model {found.config.model.vocab:,}")
    imported.write(found, out, checkpoint.write_params)
    return {
        "out": str(out),
        "from": found.origin,
        **found.sizes(),
        "entropy_model_parameters": found.entropy_model.sizes()["parameters"] if found.entropy_model else 0,
        "seconds": time.perf_counter() - began,
        "peak_bytes": peak_bytes(),
    }


def send_out(
    source: pathlib.Path, out: pathlib.Path, entropy_model: pathlib.Path | None = None, loosely: bool = False
) -> None:
    """Writes a model as a Hugging Face Blt directory; returns what its user has to know, a line or "".
    UserError for what that format cannot express."""
    model = api.load(source, entropy_model)
    huggingface_export.check_expressible(model.config, loosely)  # before gigabytes are read
    scheme = model.config.patching.scheme
    if entropy_model is not None and scheme not in patching.NEEDS_ENTROPIES:
        raise UserError(
            f"--entropy-model means nothing to {source}: its patches are {scheme}, and need no entropies"
        )
    lm = model.entropy_model if model.has_entropy_model and scheme in patching.NEEDS_ENTROPIES else None
    if lm is not None and lm.config.model.reset:
        raise UserError("Hugging Face's Blt cannot express an entropy model that begins anew at newlines")
    huggingface_export.save(
        model.config, model.raw_params(), lm and (lm.config.model, lm.raw_params()), out, loosely
    )
    if scheme in patching.NEEDS_ENTROPIES and lm is None:
        return (
            "there is no entropy model: transformers will make a patch of every byte, unless it is given"
            " patch lengths"
        )
    if lm is not None and model.config.patching.max_length:
        return (
            "where patches have a longest length, transformers leaves out the patch that begins after the"
            " last byte: its last position differs"
        )
    return ""


def text(found: dict) -> str:
    lm = (
        f" and an entropy model of {found['entropy_model_parameters']:,}"
        if found["entropy_model_parameters"]
        else ""
    )
    return (
        f"{found['out']}: {found['parameters']:,} parameters ({', '.join(found['dtypes'])}){lm},"
        f" {found['bytes'] / 1e9:.2f} GB, in {found['seconds']:.1f} s; peak memory"
        f" {found['peak_bytes'] / 1e9:.2f} GB"
    )


def peak_bytes() -> int:
    """The most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
