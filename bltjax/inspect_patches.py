"""`bltjax patch` and `bltjax data calibrate`: what a text's patches are, and which threshold gives a mean patch size."""

import pathlib

from bltjax import api, config as cfg, vocab
from bltjax.data import segmentation
from bltjax.entropies import annotate, calibrate
from bltjax.errors import UserError
from bltjax.evals import bpb
from bltjax.sweep import artifacts

SPACE_MARKS = {"\n": "⏎", "\t": "⇥", "\r": "␍"}


def of_text(text: str, run: pathlib.Path | None, scheme: str, *, threshold=None, delta=None, stride=None, mean=None, seed=None,
            max_length=None) -> dict:
    """Patches of a text, or of a file where `text` is the path of one, by a run's patcher or by a scheme given by hand.

    Returns {"scheme", "bytes", "patches" (text, with what is no UTF-8 as \\xNN), "lengths", "entropies" (nats or None), "mean"}.
    """
    data = pathlib.Path(text).read_bytes() if len(text) < 4096 and "\0" not in text and pathlib.Path(text).is_file() else text.encode("utf-8", "surrogateescape")
    if not data:
        raise UserError("there is no text to patch: it is empty")
    if run is not None:
        model = api.load(run)
        changes = {"scheme": scheme or None, "threshold": threshold, "delta": delta, "seed": seed, "max_length": max_length,
                   "size": float(stride) if stride is not None else mean}
        if model.config.model.kind != "token":
            model.config = cfg.replace(model.config, **{f"patching.{k}": v for k, v in changes.items() if v is not None})
        if model.config.model.kind == "byte" and model.config.patching.scheme == "none":
            raise UserError(f"{run} is a byte LM: give --scheme entropy --threshold NATS (or monotonic, both) with it")
        patches, entropies = model.patch_with_entropies(data)
        scheme = "bpe" if model.config.model.kind == "token" else model.config.patching.scheme
    else:
        scheme = scheme or "space"
        if scheme in artifacts.NEEDS_ENTROPIES:
            raise UserError(f"--scheme {scheme} needs entropies: give --run RUN_DIR, a byte LM's run directory or a run's that used one")
        if scheme == "strided" and stride is None or scheme == "random" and mean is None:
            raise UserError("--scheme strided needs --stride K, --scheme random needs --mean BYTES")
        size = stride if scheme == "strided" else mean if scheme == "random" else 1.0
        patching = cfg.patching(scheme, size, seed=seed or 0, max_length=max_length or 0)
        patches, entropies = api.cut(data, segmentation.document_lengths(patching, [data])[0][1:]), None
    return {"scheme": scheme, "bytes": len(data), "patches": [p.decode("utf-8", "backslashreplace") for p in patches],
            "lengths": [len(p) for p in patches], "entropies": None if entropies is None else [round(float(e), 4) for e in entropies],
            "mean": len(data) / len(patches)}


def text(result: dict) -> str:
    """The patches on a terminal, a bar between them."""
    shown = [p.translate(str.maketrans(SPACE_MARKS)) for p in result["patches"]]
    return f"{'|'.join(shown)}\n\n{result['scheme']}: {result['bytes']} bytes, {len(shown)} patches, {result['mean']:.2f} bytes each"


def calibrated(run: pathlib.Path, scheme: str, size: float, limit: int, *, delta: float = 0.0, max_length: int = 0) -> dict:
    """The threshold (monotonic: the delta) in nats at which whole documents have `size` bytes per patch on average.

    run: a byte LM's run directory, or that of a run that used one. Reads tuning text first, which the byte LM never trained on,
    then training text, up to `limit` bytes; held-out text never.
    """
    model = api.load(run)
    lm = model.byte_lm
    splits = artifacts.corpus(lm.config.data)
    documents = bpb.first_documents(splits.tuning + splits.train, limit)
    entropies = annotate.annotate(lm.config.model, lm.params, documents)
    found = calibrate.calibrate(scheme, [vocab.encode_document(d) for d in documents], entropies, size, max_length=max_length, delta=delta if scheme == "both" else None)
    key = "delta" if scheme == "monotonic" else "threshold"
    patching = cfg.patching(scheme, size, **{"max_length": max_length, **({"delta": delta} if scheme == "both" else {}), key: float(found)})
    lengths = segmentation.document_lengths(patching, documents, entropies)
    return {"scheme": scheme, "threshold": float(found), "size": size, "patch_size": sum(l.sum() for l in lengths) / sum(map(len, lengths)),
            "bytes": sum(map(len, documents)), "documents": len(documents), "byte_lm": str(lm.run_dir)}
