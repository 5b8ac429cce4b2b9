"""Runs that start from another model (`train.init_from`): a run, an imported checkpoint, or a directory of
another format.

A model of the same kind gives everything, its shape too; a Llama gives a BLT its global model (paper section
6.2). An entropy model with `init_from` and without steps or budget is not trained at all: it is the entropy
model that came with a checkpoint."""

import functools
import pathlib

import jax
import numpy as np
from ml_collections import ConfigDict

from bltjax import api, models, patching
from bltjax import config as cfg
from bltjax.data import splits
from bltjax.errors import UserError
from bltjax.formats import llama
from bltjax.run import inputs
from bltjax.storage import rundir

# how a model is computed is the run's affair, what it computes the checkpoint's
HOW = ("dtype", "remat", "scan")
LLAMA_LR = ("latent/blocks=0.1",)  # paper section 6.2: a tenth of the learning rate for what comes from Llama


def adopted(run: ConfigDict, path: pathlib.Path) -> ConfigDict:
    """The run with `train.init_from`, and with what the checkpoint decides: the model, and where it has them
    entropy model and threshold.

    From a Llama into a BLT, the run keeps its model and takes a tenth of the learning rate for the Llama's
    layers, unless it says otherwise. UserError where the two do not go together."""
    source = api.load(path)
    run = cfg.replace(run, **{"train.init_from": str(pathlib.Path(path).absolute())})
    theirs, ours = source.config.model, run.model
    if theirs.kind == "token" and ours.kind == "blt":
        llama.check_shape(theirs, ours)
        kept = {
            "model.latent.rope_theta": theirs.rope_theta,
            "model.latent.rope_scaling": theirs.rope_scaling,
        }
        return cfg.replace(run, **kept, **({} if run.train.lr_scale else {"train.lr_scale": LLAMA_LR}))
    if theirs.kind != ours.kind:
        raise UserError(
            f"{path} is a model of kind {theirs.kind!r}; run {run.name} trains one of kind {ours.kind!r}"
        )
    run = cfg.replace(run, model=cfg.replace(theirs, **{key: ours[key] for key in HOW}))
    if ours.kind == "token":  # a checkpoint's ids mean what its own tokenizer says
        size = source.config.tokenizer.bytes_per_token or run.tokenizer.bytes_per_token
        run = cfg.replace(
            run, tokenizer=cfg.tokenizer("given", theirs.vocab, size, source.config.tokenizer.ends)
        )
    if (
        run.patching.scheme in patching.NEEDS_ENTROPIES
        and source.has_entropy_model
        and source.config.patching.scheme == run.patching.scheme
    ):
        lm = cfg.run(
            "entropy-model",
            "entropy-model",
            source.entropy_model.config.model,
            data_=run.data,
            training_=cfg.replace(cfg.training(), init_from=str(pathlib.Path(path).absolute())),
        )
        run = cfg.replace(
            run, entropy_model=lm, patching=cfg.replace(source.config.patching, size=run.patching.size)
        )
    return run


def params(run: ConfigDict) -> dict | None:
    """float32 parameters that a run starts from; None: fresh ones. UserError where they do not fit."""
    if not run.train.init_from:
        return None
    source = api.load(run.train.init_from)
    if source.config.model.kind == "token" and run.model.kind == "blt":
        fresh = models.init(run.model, jax.random.key(run.seed))
        found = llama.into_global(fresh, source.config.model, source.raw_params(), run.model)
    else:
        found = source.raw_params()
    like = jax.eval_shape(functools.partial(models.init, run.model), jax.random.key(0))
    shapes = lambda tree: {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
    theirs, ours = shapes(found), shapes(like)
    if wrong := [name for name in sorted(theirs.keys() | ours.keys()) if theirs.get(name) != ours.get(name)]:
        raise UserError(
            f"{run.train.init_from} does not fit run {run.name}: {wrong[0]} is"
            f" {theirs.get(wrong[0], 'missing')} there, {ours.get(wrong[0], 'missing')} here"
        )
    return jax.tree.map(lambda x: np.asarray(x, np.float32), found)


def check_text(config: ConfigDict, text: splits.Splits) -> None:
    """UserError where a run starts from one that trained on this run's test text, or that was tested on what
    this one trains on, or has its entropies from a model that trained on its test text: no score would mean
    anything. What an imported model has read is not known.

    text: of the run with this config."""
    check_start(config.train.init_from, text, f"run {config.name}: ")
    if len(config.entropy_model):
        check_start(config.entropy_model.train.init_from, text, f"run {config.name}: ", entropies=True)


def check_start(path: str, text: splits.Splits, where: str = "", entropies: bool = False) -> None:
    """check_text of one model, and of those that it started from ("": of none). entropies: the model only
    gives entropies, so that what it was tested on says nothing of the scores here."""
    source = pathlib.Path(path).resolve() if path else None
    while source and (source / inputs.NAME).exists():
        theirs = splits.opened(inputs.folders(source))
        if theirs.fingerprint != text.fingerprint:
            pairs = [
                (text.test, "test", theirs.train, "trained on"),
                (text.validation, "validation", theirs.train, "trained on"),
                (text.train, "training", theirs.test, "is tested on"),
            ]
            for ours, what, others, whose in pairs[: 2 if entropies else 3]:
                if found := splits.common(ours, others):
                    use = "take entropies from" if entropies else "start from"
                    raise UserError(
                        f"{where}{source} {whose} text that is {what} text here (a document that"
                        f" begins {found[:24]!r}); split both alike, or {use} another model"
                    )
        before = rundir.load_config(source).train.init_from
        source = pathlib.Path(before).resolve() if before else None
