"""What runs share: the split corpus, tokenizers, entropy models and their entropies. Each is made once, under
a lock, and found by fingerprint.

They live in ROOT/_shared: tokenizer-<fingerprint>.json, entropy-model-<fingerprint>/ (a run directory like
any other), entropies-<fingerprint>.npz. None of them ever sees test text in training. """

import dataclasses
import functools
import hashlib
import os
import pathlib
import secrets

import jax
import numpy as np
from ml_collections import ConfigDict

from bltjax import config as cfg
from bltjax import patching
from bltjax.data import sources, splits
from bltjax.entropy import annotate
from bltjax.errors import UserError
from bltjax.evaluation import bpb
from bltjax.run import at_rest
from bltjax.storage import locks, rundir
from bltjax.sweep import plan
from bltjax.tokenizers import bpe


@dataclasses.dataclass(frozen=True)
class EntropyModel:
    """A trained entropy model: its run directory, model config and parameters."""

    run_dir: pathlib.Path
    model: ConfigDict
    params: dict
    # what the report says of it: fingerprint, params, training FLOPs, forward FLOPs per byte, test bpb
    facts: dict


_corpora: dict[str, splits.Splits] = {}  # of this process


def corpus(data_config: ConfigDict) -> splits.Splits:
    """Documents of the config's source, split; read once a process. UserError where the text cannot be
    used."""
    key = cfg.fingerprint({key: data_config[key] for key in cfg.TEXT_KEYS})
    if key not in _corpora:
        prepared = data_config.source == sources.PREPARED
        _corpora[key] = (
            at_rest.opened(data_config)
            if prepared
            else splits.split(sources.documents(data_config), data_config)
        )
    return _corpora[key]


def preparation_key(config: ConfigDict) -> str:
    """Same key, same entropy model and same entropies; empty for a run that needs none."""
    if config.patching.scheme not in patching.NEEDS_ENTROPIES:
        return ""
    if not len(config.entropy_model):
        raise UserError(
            f"run {config.name}: patching.scheme {config.patching.scheme} needs entropies, and the run names"
            " no entropy_model"
        )
    for key in cfg.TEXT_KEYS:
        if config.entropy_model.data[key] != config.data[key]:
            raise UserError(
                f"run {config.name}: its entropy model would split other text (data.{key}:"
                f" {config.entropy_model.data[key]!r} against {config.data[key]!r}), and might see test text"
            )
    read = {key: config.data[key] for key in (*cfg.TEXT_KEYS, "seed", "max_train_bytes")}
    return cfg.fingerprint(
        {"entropy_model": cfg.to_dict(config.entropy_model), "read": read, "scored": cfg.to_dict(config.eval)}
    )


def tokenizer(config: ConfigDict, documents: list[bytes], shared: pathlib.Path) -> bpe.Tokenizer:
    """The run's BPE tokenizer: Llama 3's, that of the model it starts from, or one trained on `documents`,
    the text that every family of the sweep may train on."""
    if config.tokenizer.kind == "llama3":
        return bpe.llama3()
    if config.tokenizer.kind in READ:
        found = _read_tokenizer(config)
        path = tokenizer_path(config, documents, shared)
        with locks.held(path.with_suffix(".lock")):
            found.save(path)
        return found
    if config.tokenizer.kind != "trained":
        raise UserError(
            f"run {config.name}: tokenizer.kind {config.tokenizer.kind!r}; allowed here: trained, llama3,"
            " file, given"
        )
    path = tokenizer_path(config, documents, shared)
    with locks.held(path.with_suffix(".lock")):
        try:
            return bpe.load(path)
        except UserError:  # not there yet, or damaged: the same documents give the same tokenizer again
            bpe.train_bpe(
                (
                    bpb.first_documents(documents, at_rest.SAMPLE)
                    if at_rest.is_at_rest(documents)
                    else documents
                ),
                config.tokenizer.vocab,
            ).save(path)
        return bpe.load(path)


def tokenizer_path(config: ConfigDict, documents: list[bytes], shared: pathlib.Path) -> pathlib.Path:
    """Where the run's tokenizer is, or will be."""
    if config.tokenizer.kind in READ:
        return shared / f"tokenizer-{_read_tokenizer(config).fingerprint}.json"
    text = documents.fingerprint if at_rest.is_at_rest(documents) else sources.fingerprint(documents)
    return shared / f"tokenizer-{cfg.fingerprint({'vocab': config.tokenizer.vocab, 'text': text})}.json"


READ = ("file", "given")  # kinds of tokenizers that are neither trained nor in a package


@functools.lru_cache(maxsize=4)
def _tokenizer_of(path: str, is_file: bool) -> bpe.Tokenizer:
    from bltjax import api

    return bpe.read(path) if is_file else api.load(path).tokenizer


def _read_tokenizer(config: ConfigDict) -> bpe.Tokenizer:
    """The tokenizer of the file `tokenizer.path`, or that came with the checkpoint `train.init_from`."""
    is_file = config.tokenizer.kind == "file"
    path = config.tokenizer.path if is_file else config.train.init_from
    found = _tokenizer_of(path, is_file)
    if config.model.kind == "token" and found.vocab > config.model.vocab:
        raise UserError(
            f"{path}: the tokenizer has {found.vocab:,} entries, the model {config.model.vocab:,}"
            " (model.vocab, tokenizer.vocab)"
        )
    return found


def entropy_model(config: ConfigDict, text: splits.Splits, shared: pathlib.Path) -> EntropyModel:
    """The run's entropy model, trained to its end if it is not there yet (whoever holds the lock trains, the
    others wait)."""
    if not plan.trained(config.entropy_model):
        return _given(config)
    from bltjax.run import execute  # an entropy model is trained like any other run
    from bltjax.training import checkpoint

    key = cfg.fingerprint({"config": cfg.to_dict(config.entropy_model), "text": text.fingerprint})
    run_dir = shared / f"entropy-model-{key}"
    with locks.held(run_dir / ".lock"):
        rundir.create(run_dir, config.entropy_model, rundir.SHARED)
        if rundir.state(run_dir) != "done":
            execute.execute(run_dir, progress=False)
    planned, scored = rundir.read_json(run_dir / "planned.json"), rundir.read_json(run_dir / "eval.json")
    facts = {
        "fingerprint": key,
        "params": planned["params"]["total"],
        "train_flops": planned["train_flops"],
        "forward_flops_per_byte": planned["flops_per_byte_exact"],
        "bpb": scored["test"]["bpb"],
        "run_dir": rundir.from_run(run_dir),
    }
    return EntropyModel(run_dir, config.entropy_model.model, checkpoint.load_params(run_dir), facts)


def _given(config: ConfigDict) -> EntropyModel:
    """The entropy model that came with the checkpoint `entropy_model.train.init_from`."""
    from bltjax import api, flops

    path = config.entropy_model.train.init_from
    lm = api.load(path).entropy_model
    params = lm.raw_params()
    digest = hashlib.sha256(
        b"".join(
            np.ascontiguousarray(leaf).reshape(-1).view(np.uint8)[:: max(1, leaf.nbytes >> 16)].tobytes()
            for leaf in jax.tree.leaves(params)
        )
    )
    counted = flops.count(config.entropy_model)
    facts = {
        "fingerprint": digest.hexdigest()[:12],
        "params": counted["params"]["total"],
        "train_flops": 0.0,
        "forward_flops_per_byte": counted["exact"]["total"],
        "bpb": None,
        "run_dir": str(lm.folder),
    }
    return EntropyModel(lm.folder, config.entropy_model.model, params, facts)


def entropies(lm: EntropyModel, documents: list[bytes], shared: pathlib.Path) -> list[np.ndarray]:
    """Entropy in nats after every position of [BOS, bytes, EOS], float32 [len + 2], for each document."""
    key = cfg.fingerprint(
        {"entropy_model": lm.facts["fingerprint"], "documents": sources.fingerprint(documents)}
    )
    path = shared / f"entropies-{key}.npz"
    with locks.held(path.with_suffix(".lock")):
        found = stored_entropies(path, [len(d) + 2 for d in documents])
        if found is None:
            found = annotate.annotate(lm.model, lm.params, documents)
            part = path.with_suffix(f".{secrets.token_hex(4)}.part")
            with part.open("wb") as out:
                np.savez(out, entropies=np.concatenate(found), lengths=np.array([len(e) for e in found]))
            os.replace(part, path)
        return found


def stored_entropies(path: pathlib.Path, lengths: list[int]) -> list[np.ndarray] | None:
    """The file's entropies, split into documents of these lengths; None where it is missing, damaged or of
    other documents."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            values, there = stored["entropies"], stored["lengths"]
    except (
        Exception
    ):  # a cache: whichever of numpy's, zipfile's and zlib's many errors it is, the answer is to make it again
        return None
    if there.tolist() != lengths or values.shape != (sum(lengths),) or values.dtype != np.float32:
        return None
    return np.split(values, np.cumsum(lengths)[:-1])
