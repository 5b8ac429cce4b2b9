"""What a run reads and where it lies: prepared data, a tokenizer, an entropy model and its entropies.

Each is the output of a job of its own (run/jobs.py), and nothing is made here. A run's `inputs.json`, which
sweep/graph.py writes, says where they are, relative to the run's directory:

    {"data": {directory: weight}, "tokenizer": file or null, "entropy_model": directory or null,
     "annotation": directory or null}
"""

import dataclasses
import functools
import glob
import hashlib
import os
import pathlib

import jax
import numpy as np
from ml_collections import ConfigDict

from bltjax import config as cfg
from bltjax import flops, models
from bltjax.data import corpus, prepare, sources, splits
from bltjax.data.corpus import Selection
from bltjax.entropy import store
from bltjax.errors import UserError
from bltjax.run import budget
from bltjax.storage import rundir
from bltjax.tokenizers import bpe

NAME = "inputs.json"


@dataclasses.dataclass(frozen=True)
class EntropyModel:
    """A trained entropy model: its directory, model config and parameters."""

    folder: pathlib.Path
    model: ConfigDict
    params: dict
    # what the report says of it: fingerprint, params, training FLOPs, forward FLOPs per byte, test bpb
    facts: dict


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Everything that a run reads. documents: the training documents that it may read, in the data set's
    order."""

    text: splits.Splits
    folders: dict[str, float]  # of prepared data, with weights
    documents: Selection
    tokenizer: bpe.Tokenizer | None
    tokenizer_path: str | None  # relative to the run's directory
    entropy_model: EntropyModel | None
    mark: str | None  # of the entropies beside the data

    def entropies(self, documents: Selection) -> store.Entropies | None:
        """The entropies of some of the text; None for a run that needs none."""
        return store.Entropies(documents, self.mark) if self.mark else None


def load(run_dir: pathlib.Path, config: ConfigDict) -> Inputs:
    """What the run in a directory reads. UserError where one of its inputs is not there yet, or damaged."""
    run_dir = run_dir.resolve()  # the paths in it are relative to where it really lies
    said, at = _said(run_dir), lambda path: path and run_dir / path
    text = splits.opened(folders(run_dir))
    tokenizer = bpe.load(at(said["tokenizer"])) if said["tokenizer"] else None
    if tokenizer and models.kind(config.model).UNIT == "token":
        _check_vocabulary(config, tokenizer)
    mark, model = None, None
    if said["annotation"]:
        annotated = rundir.read_json(at(said["annotation"]) / "done.json")
        if annotated is None:
            raise UserError(
                f"{at(said['annotation'])} has not ended: the entropies that {run_dir} reads are not there"
                " yet"
            )
        mark = annotated["fingerprint"]
        model = entropy_model(config.entropy_model, at(said["entropy_model"]))
    return Inputs(
        text,
        folders(run_dir),
        splits.training(text.train, config.data.max_train_bytes),
        tokenizer,
        said["tokenizer"],
        model,
        mark,
    )


def check_named(config: ConfigDict, asked=(), seen: dict | None = None) -> list[str]:
    """What can be told of a run's inputs before any of them is made: UserError for what `load`, and the jobs
    before it, would refuse. Text that is not on this machine is no error yet, and neither is a model that the
    experiment names; a line in the answer says so. asked: keys that the user set, which must be right.
    seen: keeps what was found of each text, for runs that are planned together and share theirs.

    Of text only the first documents are read, no weights are, and no network is asked."""
    seen = {} if seen is None else seen
    text = cfg.fingerprint({key: config.data[key] for key in (*prepare.KEYS, "mix")})
    if text not in seen:
        seen[text] = _text_problem(config.data)
    said, why = seen[text]
    if why:
        raise UserError(why)
    said = list(said)
    tokenizer = config.tokenizer
    if tokenizer.kind == "file":
        found = read_tokenizer("file", os.path.abspath(tokenizer.path))
        if models.kind(config.model).UNIT == "token":
            _check_vocabulary(config, found)
    for key in ("init_from", "branch_from"):
        path = config.train[key]
        place, sign, step = path.rpartition("@")
        whole = place if sign and step.isdecimal() else path
        if not path or os.path.isdir(whole) or key == "init_from" and cfg.sibling(config):
            continue
        if key != "init_from" or "train.init_from" in asked:
            raise UserError(f"run {config.name}: train.{key}: no directory {whole!r}")
        said.append(f"no directory {whole!r}, from which {config.name} starts")
    _check_lr_scale(config)
    if len(config.entropy_model):
        said += check_named(config.entropy_model, asked, seen)
    return list(dict.fromkeys(said))


def _text_problem(data_config: ConfigDict) -> tuple[list[str], str]:
    """(lines about text that is not here, why it would be refused or "")."""
    try:
        return _check_text(data_config), ""
    except UserError as error:
        return [], str(error)


def _check_text(data_config: ConfigDict) -> list[str]:
    if data_config.source == sources.PREPARED:
        splits.opened(splits.weights(data_config))
        return []
    if data_config.source not in ("files", "arrayrecord") or any(":/" in p for p in data_config.globs):
        return []
    if data_config.globs and not any(
        next(glob.iglob(os.path.expanduser(pattern), recursive=True), None) for pattern in data_config.globs
    ):
        return [f"no file here matches data.globs ({', '.join(data_config.globs)})"]
    prepare.first_look(data_config)
    return []


PARAMETERS = {}  # fingerprint of what of a model's config says which parameters there are: their paths


def _parameters(model: ConfigDict) -> list[str]:
    """Paths of a model's parameters, each with a / behind. Numbers (widths, layers) say how large they are,
    not which there are: runs that differ in these alone are traced once."""
    decides = {
        k: v for k, v in cfg.flat(model).items() if isinstance(v, bool) or not isinstance(v, (int, float))
    }
    key = cfg.fingerprint(decides)
    if key not in PARAMETERS:
        leaves = jax.tree_util.tree_leaves_with_path(models.shapes_of(model))
        PARAMETERS[key] = [jax.tree_util.keystr(path, simple=True, separator="/") + "/" for path, _ in leaves]
    return PARAMETERS[key]


def _check_lr_scale(config: ConfigDict) -> None:
    """As training/optimizer.py would refuse it, at the first step."""
    if factors := cfg.lr_scales(config.train):
        names = _parameters(config.model)
        for prefix in factors:
            if not any(name.startswith(f"{prefix}/") for name in names):
                raise UserError(f"run {config.name}: train.lr_scale: no parameter is below {prefix}")


def _check_vocabulary(config: ConfigDict, tokenizer: bpe.Tokenizer) -> None:
    if tokenizer.vocab > config.model.vocab:
        raise UserError(
            f"run {config.name}: the tokenizer has {tokenizer.vocab:,} entries, the model"
            f" {config.model.vocab:,} (model.vocab, tokenizer.vocab)"
        )


def folders(run_dir: pathlib.Path) -> dict[str, float]:
    """{directory: weight} of the prepared data that a run reads."""
    return {str((run_dir / path).resolve()): weight for path, weight in _said(run_dir)["data"].items()}


def training_text(path: pathlib.Path):
    """The training documents of prepared data, or those that a run may read. UserError where a directory is
    neither."""
    if (path / NAME).exists():
        text = splits.opened(folders(path))
        return splits.training(text.train, rundir.load_config(path).data.max_train_bytes)
    found = [shard for shard in corpus.shards(path) if shard.split == "train"]
    if not sum(shard.documents for shard in found):
        raise UserError(f"{path} has no training documents")
    return corpus.Documents(found)


def read(run_dir: pathlib.Path) -> dict | None:
    """inputs.json, or None where there is none or it is damaged."""
    said = rundir.read_json(run_dir / NAME)
    paths = ("tokenizer", "entropy_model", "annotation")
    if not isinstance(said, dict) or not isinstance(said.get("data"), dict):
        return None
    whole = all(isinstance(said.get(key, 0), str | None) for key in paths)
    return (
        said if whole and all(isinstance(weight, int | float) for weight in said["data"].values()) else None
    )


def _said(run_dir: pathlib.Path) -> dict:
    said = read(run_dir)
    if said is None:
        raise UserError(
            f"{run_dir} has no whole {NAME}: `bltjax run` and `bltjax train` write it, and make what the run"
            " reads"
        )
    return said


def entropy_model(config: ConfigDict, folder: pathlib.Path) -> EntropyModel:
    """The entropy model of this config in a directory: trained for some runs, or come with a checkpoint."""
    if not budget.trained(config):
        return _given(config, folder)
    if rundir.state(folder) != "done":
        raise UserError(f"the entropy model {folder} is not trained yet")
    from bltjax.training import checkpoint  # here and below, late: a plan needs neither

    planned, scored = rundir.read_json(folder / "planned.json"), rundir.read_json(folder / "eval.json")
    facts = {
        "fingerprint": folder.name.removeprefix("entropy-model-"),
        "params": planned["params"]["total"],
        "train_flops": planned["train_flops"],
        "forward_flops_per_byte": planned["flops_per_byte_exact"],
        "bpb": scored["test"]["bpb"],
        "epochs": planned.get("epochs"),
        "run_dir": rundir.from_run(folder),
    }
    return EntropyModel(folder, config.model, checkpoint.load_params(folder), facts)


def _given(config: ConfigDict, folder: pathlib.Path) -> EntropyModel:
    """The entropy model that came with the checkpoint `train.init_from`."""
    from bltjax import api

    lm = api.load(folder).entropy_model
    params = lm.raw_params()
    few = lambda leaf: np.ascontiguousarray(leaf).reshape(-1).view(np.uint8)[:: max(1, leaf.nbytes >> 16)]
    digest = hashlib.sha256(b"".join(few(leaf).tobytes() for leaf in jax.tree.leaves(params)))
    counted = flops.count(config)
    facts = {
        "fingerprint": digest.hexdigest()[:12],
        "params": counted["params"]["total"],
        "train_flops": 0.0,
        "forward_flops_per_byte": counted["exact"]["total"],
        "bpb": None,
        "run_dir": str(lm.folder),
    }
    return EntropyModel(lm.folder, config.model, params, facts)


READ = ("llama3", "file", "given")  # kinds of tokenizers that are not trained here


@functools.lru_cache(maxsize=4)
def read_tokenizer(kind: str, path: str) -> bpe.Tokenizer:
    """The tokenizer of a file (kind `file`), or that came with a checkpoint (`given`), or Llama 3's."""
    if kind == "given":
        from bltjax import api

        return api.load(path).tokenizer
    return bpe.llama3() if kind == "llama3" else bpe.read(path)
