"""Files scored by a model: nats of every document, as it is and with noise, kept line by line as they are
known, and summed by group.

Every document's line is in `documents.jsonl` before the next chunk is begun, so that what was stopped goes on
where it was; a document is known by its file, its place in it, its noise and the digest of its bytes."""

import contextlib
import hashlib
import json
import math
import os
import pathlib

import numpy as np

from bltjax import models, patching
from bltjax import config as cfg
from bltjax.data import files as sources
from bltjax.entropy import annotate
from bltjax.errors import RunFailed, UserError
from bltjax.evaluation import bpb, costs, scoring, setup
from bltjax.evaluation.noise import noised
from bltjax.storage import atomic, json_lines

SCHEMA_VERSION = 2
CHUNK = 1 << 16  # bytes of text between two points from which it can go on, at least
CONTEXT = 4096  # bytes of context for a model that was trained elsewhere: the released ones' is longer
GROUPS = ("file", "folder")  # anything else is a field of JSON lines or rows


def evaluate(
    model,
    patterns,
    out: pathlib.Path | None = None,
    *,
    separator: str = "",
    group: str = "",
    limit: int = 0,
    context: int = 0,
    noises=(),
    seed: int = 0,
    progress=None,
    say=print,
) -> dict:
    """What `bltjax eval` shows: {"bpb", "bytes", "nats", "patch_size", "flops_per_byte",
    "entropy_flops_per_byte", "patch_places", "unit", "documents": [...], "groups": [...], "noises": the same
    of each noise, with its name and "bits_per_clean_byte", "skipped": [...]}.

    model: an api.Model. patterns: of files, as data.globs has them. out: a directory for documents.jsonl and
    files.json; None: nothing is kept. separator: what stands between documents of a plain file. group: file,
    folder or a field's name; "": folders where there are several, else files. limit: documents at most, 0:
    all. context: bytes of a window; 0: what the model trained on. noises: of noise.NOISES, which the same
    documents are scored with, too. seed: of noise, which hangs on nothing else than a document's bytes.
    progress: called with bytes as they are scored. say: told of every file that is left out, in a line.
    UserError where nothing can be scored."""
    config, longest = windowed(model, context)
    lines, skipped = [], []
    with _kept(out) as (known, keep):
        chunk, held = [], 0
        for document in _noised(
            _documents(model, patterns, separator, group, limit, say, skipped), noises, seed
        ):
            line = known.get(_key(document))
            if line is not None:
                lines.append({**line, "group": document["group"]})
                progress and progress(line["bytes"])
                continue
            chunk.append(document)
            held += len(document["text"])
            if held >= max(CHUNK, 4 * config.data.rows * config.data.context):
                lines += keep(_scored(model, config, longest, chunk))
                progress and progress(held)
                chunk, held = [], 0
        if chunk:
            lines += keep(_scored(model, config, longest, chunk))
            progress and progress(held)
    if not lines:
        raise UserError(f"no text to score in {' '.join(map(str, patterns))}")
    lines.sort(key=lambda line: (line["file"], line["index"]))
    result = _summed(model, config, lines, noises, skipped)
    if out is not None:
        atomic.write_json(out / "files.json", {"schema_version": SCHEMA_VERSION, **result})
    return result


def windowed(model, context: int = 0):
    """(the model's config with the context to evaluate with, the longest segment it trained on or None)."""
    if context and context < 8:
        raise UserError(f"a context is {context} bytes; at least 8 are needed")
    if model.positions and not context:
        return model.config, model.positions
    if model.positions and context > model.config.data.context:
        trained = f"{model.folder} trained on {model.config.data.context} bytes of context"
        raise UserError(f"{trained}, and is scored at no position behind them: --context {context}")
    return cfg.replace(model.config, **{"data.context": context or CONTEXT, "data.rows": 4}), None


def _documents(model, patterns, separator, group, limit, say, skipped):
    """Yields {"file", "index", "group", "text"}; what cannot be read is said and left out."""
    listed = sources.found(patterns)
    folders = {os.path.dirname(file.path) for file in listed}
    group = group or ("folder" if len(folders) > 1 else "file")
    count = 0
    for file in listed:
        index, field = 0, "" if group in GROUPS else group
        try:
            for text, told in sources.documents(
                file, "text", model.config.data.longest, group_field=field, separator=separator
            ):
                if limit and count >= limit:
                    return
                index += 1
                if text:
                    count += 1
                    name = {"file": file.path, "folder": os.path.dirname(file.path) or "."}.get(group, told)
                    yield dict(file=file.path, index=index - 1, group=str(name), text=text)
        except UserError as error:
            skipped.append({"file": file.path, "why": " ".join(str(error).split())})
            say(skipped[-1]["why"])
        else:
            if index == 0 or index == 1 and not file.size:
                skipped.append({"file": file.path, "why": f"{file.path} is empty"})
                say(skipped[-1]["why"])


def _noised(documents, noises, seed: int):
    """Yields each document, and then it with each noise: {..., "noise": "" or its name, "clean_bytes",
    "digest"}."""
    for document in documents:
        clean = document["text"]
        for name in ("", *noises):
            text = clean
            if name:
                decoded = noised(clean.decode("utf-8", "surrogateescape"), name, seed)
                text = decoded.encode("utf-8", "surrogateescape")
            digest = hashlib.sha256(text).hexdigest()[:16]
            yield {**document, "noise": name, "clean_bytes": len(clean), "digest": digest, "text": text}


def _scored(model, config, longest, chunk) -> list[dict]:
    """The lines of some documents."""
    texts = [document["text"] for document in chunk]
    entropies = None
    if models.kind(config.model).PATCHES and config.patching.scheme in patching.NEEDS_ENTROPIES:
        lm = model.entropy_model
        entropies = annotate.annotate(lm.config.model, lm.params, texts)
    tokens = models.kind(config.model).UNIT == "token" or config.patching.scheme == "bpe"
    summary, units, places = scoring.score(
        config,
        model.params,
        texts,
        longest,
        entropies=entropies,
        tokenizer=model.tokenizer if tokens else None,
    )
    lines = []
    for document, scored, (positions, patches), at in zip(
        chunk, summary["documents"], units.tolist(), places
    ):
        if not math.isfinite(scored["nats"]):
            raise RunFailed(f"{model.folder} gives no number for {document['file']}: {scored['nats']} nats")
        kept = {key: value for key, value in document.items() if key != "text"}
        lines.append({**kept, **scored, "positions": positions, "patches": patches, "places": at})
    return lines


@contextlib.contextmanager
def _kept(out):
    """(lines of earlier documents by what they are of, a function that keeps new ones and returns them)."""
    if out is None:
        yield {}, lambda lines: lines
        return
    path = out / "documents.jsonl"
    with setup.held(out):
        known = {_key(line): line for line in json_lines.read(path)}
        with json_lines.appending(path) as file:

            def keep(lines):
                file.write("".join(json.dumps(line) + "\n" for line in lines))
                file.flush()
                return lines

            yield known, keep


def _key(line: dict) -> tuple:
    return line["file"], line["index"], line.get("noise"), line["digest"]


def _summed(model, config, lines, noises, skipped) -> dict:
    of = lambda name: [line for line in lines if line["noise"] == name]
    return {
        "model": str(model.folder),
        "unit": "token" if models.kind(config.model).UNIT == "token" else "patch",
        "context": int(config.data.context),
        **_sums(model, config, of("")),
        "noises": [{"noise": name, **_sums(model, config, of(name))} for name in noises],
        "skipped": skipped,
    }


def _sums(model, config, lines) -> dict:
    """Of all documents of one noise, by group, and by document."""
    groups = {}
    for line in lines:
        groups.setdefault(line["group"], []).append(line)
    total = lambda some: _total(model, config, some)
    places = lambda some: {"patch_places": bpb.by_place([line["places"] for line in some])}
    by_group = [
        {"group": name, "documents": len(some), **total(some), **places(some)}
        for name, some in groups.items()
    ]
    return {
        **total(lines),
        **places(lines),
        "bpb_of_groups": float(np.mean([group["bpb"] for group in by_group])),
        "groups": by_group,
        "documents": [{**line, **total([line])} for line in lines],
    }


def _total(model, config, lines) -> dict:
    sizes, nats = [line["bytes"] for line in lines], sum(line["nats"] for line in lines)
    bits, clean = nats / math.log(2), sum(line["clean_bytes"] for line in lines)
    told = {"bpb": bits / sum(sizes), "nats": nats, "bytes": sum(sizes), "bits_per_clean_byte": bits / clean}
    size = scoring.size_of([(line["positions"], line["patches"]) for line in lines])
    return {**told, **costs.of(model, config, size, sizes)}
