"""`bltjax patch` and `bltjax data calibrate`: what a text's patches are, and which threshold gives a mean
patch size."""

import math
import pathlib

import numpy as np

from bltjax import api, patching
from bltjax import config as cfg
from bltjax.counts import counted
from bltjax.data import splits
from bltjax.entropy import annotate, calibrate, histogram, store
from bltjax.errors import UserError
from bltjax.patching import segmentation
from bltjax.run import inputs

# What a terminal would not show, or would obey, as a character of its own.
SPACE_MARKS = {
    **{chr(c): chr(0x2400 + c) for c in range(32)},
    "\x7f": "␡",
    "\n": "⏎",
    "\t": "⇥",
    **{chr(c): f"\\x{c:02x}" for c in range(0x80, 0xA0)},
}
# a word that ends so is meant as a file
FILES = (".txt", ".md", ".py", ".json", ".jsonl", ".csv", ".html", ".xml", ".bin", ".gz")


def of_text(
    text: str,
    run: pathlib.Path | None,
    scheme: str,
    *,
    entropy_model=None,
    threshold=None,
    delta=None,
    stride=None,
    mean=None,
    seed=None,
    max_length=None,
) -> dict:
    """Patches of a text, or of a file where `text` is the path of one, by a run's patcher or by a scheme
    given by hand.

    Returns {"scheme", "bytes", "patches" (text, with what is no UTF-8 as \\xNN), "lengths", "entropies" (nats
    or None), "mean"}."""
    data = read(text)
    given = {
        "threshold": threshold,
        "delta": delta,
        "stride": stride,
        "mean": mean,
        "seed": seed,
        "max_length": max_length,
    }
    given = {key: value for key, value in given.items() if value is not None}
    used, asked = None, entropy_model is not None
    if run is None and entropy_model is not None:
        run, entropy_model = entropy_model, None
    if run is not None:
        model = api.load(run, entropy_model)
        if model.config.model.kind == "token":
            if scheme not in ("", "bpe") or given:
                raise UserError(f"{run} is a BPE run: its patches are its tokens, and no option changes them")
            scheme = "bpe"
        else:
            scheme = scheme or model.config.patching.scheme
            if scheme == "none":
                raise UserError(
                    f"{run} is an entropy model: give --scheme entropy --threshold NATS (or monotonic, both)"
                    " with it"
                )
            if scheme != model.config.patching.scheme or given:
                model.config = cfg.replace(
                    model.config, patching=by_hand(scheme, given, model.config.patching)
                )
        if asked and scheme not in patching.NEEDS_ENTROPIES:
            raise UserError(f"--entropy-model means nothing to {scheme} patches, which need no entropies")
        patches, entropies = model.patch_with_entropies(data)
        used = model.config.patching
    else:
        scheme = scheme or "space"
        if scheme in patching.NEEDS_ENTROPIES or scheme == "bpe":
            raise UserError(
                f"--scheme {scheme} needs a model: give --run RUN_DIR, a run that has one (or an entropy"
                " model's own directory)"
            )
        used = by_hand(scheme, given)
        patches, entropies = api.cut(data, segmentation.document_lengths(used, [data])[0][1:]), None
    return {
        "scheme": scheme,
        "bytes": len(data),
        "patches": [p.decode("utf-8", "backslashreplace") for p in patches],
        "lengths": [len(p) for p in patches],
        "entropies": None if entropies is None else [round(float(e), 4) for e in entropies],
        "mean": len(data) / len(patches),
        "rule": rule(scheme, used),
    }


def rule(scheme: str, used) -> dict:
    """The numbers of a scheme: {"threshold", "delta", "stride", "mean"} as far as it has them."""
    values = (
        {key: used["size" if key in ("stride", "mean") else key] for key in OPTIONS.get(scheme, ())}
        if used is not None
        else {}
    )
    return {key: value for key, value in values.items() if math.isfinite(value)}


# Which options each scheme reads, and which it cannot do without.
OPTIONS = {"space": (), "strided": ("stride",), "random": ("mean",), **patching.THRESHOLDS}


def by_hand(scheme: str, given: dict, base=None):
    """A patching config from options; base: a run's own, which fills what is not given if it is of the same
    scheme."""
    if scheme not in OPTIONS:
        raise UserError(f"unknown --scheme {scheme!r}; allowed: {', '.join(OPTIONS)}")
    for key, value in given.items():
        if key not in (*OPTIONS[scheme], "max_length", *(("seed",) if scheme == "random" else ())):
            raise UserError(
                f"--{key.replace('_', '-')} means nothing to --scheme {scheme}; it reads"
                f" {', '.join('--' + o for o in OPTIONS[scheme]) or 'no option'}"
            )
        if (
            not math.isfinite(value)
            or key in ("stride", "mean")
            and value < 1
            or key in ("seed", "max_length")
            and value < 0
        ):
            least = {
                "stride": "a number of 1 or more",
                "mean": "a number of 1 or more",
                "seed": "0 or more",
                "max_length": "0 (no limit) or more",
            }
            raise UserError(
                f"--{key.replace('_', '-')} is {value}; it must be {least.get(key, 'a finite number')}"
            )
    same = base is not None and base.scheme == scheme
    missing = [f"--{option}" for option in OPTIONS[scheme] if option not in given]
    if missing and not same:
        raise UserError(f"--scheme {scheme} needs {' and '.join(missing)}")
    size = given.get("stride", given.get("mean", base.size if same else 1.0))
    kept = {key: base[key] for key in ("threshold", "delta", "seed", "max_length")} if same else {}
    return cfg.patching(
        scheme,
        size,
        **{**kept, **{key: value for key, value in given.items() if key not in ("stride", "mean")}},
    )


def read(text: str) -> bytes:
    """The text itself, or the file that it is the path of. UserError for an empty one, and for what looks
    like a path and is no file."""
    path = pathlib.Path(text) if len(text) < 4096 and "\0" not in text else None
    if path and path.is_file():
        data = path.read_bytes()
        what = f"{path} is empty"
    else:
        if (
            path
            and ("/" in text or path.suffix.lower() in FILES)
            and not set(text) & set(" \n\t")
            and (path.is_dir() or path.suffix or text.startswith(("/", "./", "../")))
        ):
            raise UserError(f"no file {text} (to patch these words as a text, put a space among them)")
        data, what = text.encode("utf-8", "surrogateescape"), "the text is empty"
    if not data:
        raise UserError(f"there is nothing to patch: {what}")
    return data


COLORS = (24, 94, 22, 53)  # backgrounds of the 256-colour palette, one patch after the other


def text(result: dict, color: bool = False) -> str:
    """The patches on a terminal: a bar between them, or in colour."""
    shown = [p.translate(str.maketrans(SPACE_MARKS)) for p in result["patches"]]
    if color:
        joined = "".join(f"\x1b[48;5;{COLORS[i % len(COLORS)]}m{p}\x1b[0m" for i, p in enumerate(shown))
    else:
        joined = "|".join(shown)
    return (
        f"{joined}\n\n{result['scheme']}: {counted(result['bytes'], 'byte')}, {counted(len(shown), 'patch')},"
        f" {result['mean']:.2f} bytes each"
    )


def calibrated(
    run: pathlib.Path, scheme: str, size: float, limit: int, *, delta: float = 0.0, max_length: int = 0
) -> dict:
    """The threshold (monotonic: the delta) in nats at which whole documents have `size` bytes per patch on
    average.

    run: an entropy model's run directory, or that of a run that used one. Reads validation text first, which
    the entropy model never trained on, then training text, up to `limit` bytes; test text never."""
    lm = api.load(run).entropy_model
    text = splits.opened(inputs.folders(lm.folder))
    documents = list(splits.first(text.validation, limit))
    if (more := limit - sum(map(len, documents))) > 0:
        documents += splits.first(text.train, more)
    live = annotate.annotate(lm.config.model, lm.params, documents, kept=store.rounded)
    entropies = [np.append(store.nats(values[:-1]), np.float32(0)) for values in live]
    key, fixed = ("delta", {}) if scheme == "monotonic" else ("threshold", {})
    if scheme == "both":
        fixed["delta"] = delta
    scores = histogram.Histogram(scheme, fixed.get("delta")).add(entropies)

    def realized(threshold):
        rule = {"resolution": patching.RESOLUTION, "max_length": max_length, **fixed, key: float(threshold)}
        lengths = segmentation.document_lengths(cfg.patching(scheme, size, **rule), documents, entropies)
        return sum(int(l.sum()) for l in lengths) / sum(map(len, lengths))

    found, gives = calibrate.approach(size, scores.threshold, realized)
    return {
        "scheme": scheme,
        "threshold": float(found),
        "size": size,
        "patch_size": gives,
        "bytes": sum(map(len, documents)),
        "documents": len(documents),
        "entropy_model": str(lm.folder),
    }
