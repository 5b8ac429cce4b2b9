"""`bltjax.load`: a run, an imported checkpoint, or a directory of another project's format, ready for use
from Python."""

import dataclasses
import functools
import pathlib
from typing import Callable

import jax
import numpy as np
from ml_collections import FrozenConfigDict

from bltjax import config as cfg
from bltjax import models, patching
from bltjax.entropy import annotate
from bltjax.errors import UserError
from bltjax.formats import detect, imported, released_batches
from bltjax.generation import Generator, Options, characters
from bltjax.models import patcher
from bltjax.models.padded_lengths import bucket
from bltjax.parallel import environment
from bltjax.patching import segmentation, vocab
from bltjax.storage import rundir
from bltjax.tokenizers import bpe
from bltjax.training import checkpoint


def load(path, entropy_model=None) -> "Model":
    """The model in a run directory, an imported checkpoint, a Hugging Face Blt or Llama directory, or a
    released checkpoint.

    entropy_model: another such path, of the model that supplies entropies; None: the one that comes with it.
    UserError where there is no model, or where it is not whole."""
    environment.pin()
    folder = pathlib.Path(path).resolve()  # a run's paths are relative to where it really lies
    model = _ours(folder) if detect.of(folder) == detect.OURS else _imported(folder, detect.load(folder))
    if entropy_model is not None:
        other = load(entropy_model)
        model.entropy_model = other.entropy_model
    return model


def _ours(folder: pathlib.Path) -> "Model":
    """A run directory, or what `bltjax import` wrote."""
    config = rundir.load_config(folder)
    if "model" not in config:
        raise UserError(f"{folder / 'config.json'} is damaged (it has no model)")
    if broken := rundir.damage(folder):
        raise UserError(f"{folder}: {broken}; `bltjax run` will redo it")
    if not (folder / "planned.json").exists() and not checkpoint.folder(folder).exists():
        raise UserError(f"{folder} has not begun to train: there is no model in it yet")
    planned = rundir.read_json(folder / "planned.json") or {}
    found = {
        f"patching.{key}": planned[key]
        for key in ("threshold", "delta", "resolution")
        if planned.get(key) is not None
    }
    lm = None
    if facts := planned.get("entropy_model"):
        lm = lambda: load(folder / facts["run_dir"]).entropy_model
    elif (folder / imported.ENTROPY_MODEL / "config.json").exists():
        lm = lambda: _ours(folder / imported.ENTROPY_MODEL)
    tokenizer = None
    if "tokenizer" in planned:
        tokenizer = lambda: (
            bpe.llama3() if config.tokenizer.kind == "llama3" else bpe.load(folder / planned["tokenizer"])
        )
    elif path := bpe.in_folder(folder):
        tokenizer = lambda: bpe.read(path)
    read = lambda: checkpoint.load_params(folder)
    return Model(cfg.replace(config, **found), read, folder, lm, tokenizer, planned.get("positions"))


def _imported(folder: pathlib.Path, found: imported.Imported) -> "Model":
    lm = found.entropy_model and (lambda: _imported(folder, found.entropy_model))
    tokenizer = found.tokenizer and (lambda: bpe.read(found.tokenizer))
    return Model(found.config, lambda: found.params, folder, lm, tokenizer)


class Model:
    """A config, its parameters, and the patcher or tokenizer that goes with it; each is read when it is first
    used."""

    def __init__(
        self,
        config,
        params: Callable,
        folder: pathlib.Path,
        entropy_model: Callable | None = None,
        tokenizer: Callable | None = None,
        positions: dict | None = None,
    ):
        """positions: {"slots", "patches"} of the longest segment that it trained on; None: not known."""
        self.config, self.folder, self.positions = config, folder, positions
        self._params, self._entropy_model, self._tokenizer = params, entropy_model, tokenizer

    @functools.cached_property
    def params(self) -> dict:
        """Nested dict of arrays, on the device."""
        # a CPU takes over what was read, without a copy
        return jax.tree.map(lambda x: jax.device_put(x, may_alias=True), self._params())

    def raw_params(self) -> dict:
        """Nested dict of arrays, as they are stored."""
        return self._params()

    @property
    def has_entropy_model(self) -> bool:
        return self.is_entropy_model or self._entropy_model is not None

    @property
    def is_entropy_model(self) -> bool:
        return models.kind(self.config.model) is patcher

    @functools.cached_property
    def entropy_model(self) -> "Model":
        """The model that supplies entropies: this one if it is an entropy model, else the one that it was
        patched with. UserError without."""
        if self.is_entropy_model:
            return self
        if not self._entropy_model:
            raise UserError(
                f"{self.folder} has no entropy model: give one with --entropy-model DIR, or entropy_model= in"
                " Python"
            )
        return self._entropy_model()

    @functools.cached_property
    def tokenizer(self) -> bpe.Tokenizer:
        if not self._tokenizer:
            raise UserError(f"{self.folder} has no tokenizer: neither {' nor '.join(bpe.FILES)}")
        return self._tokenizer()

    def entropies(self, ids) -> np.ndarray:
        """Entropy of the next byte, nats float32 [B,N], for ids [B,N]; row by row, documents masked at
        EOS."""
        lm = self.entropy_model
        ids = checked(ids, lm.config.model.vocab)
        batch = {"bytes": ids, "doc_ids": released_batches.documents_at(ids, vocab.EOS)}
        return run(patcher.entropies, lm, batch, ids.shape)

    def logits(self, ids, patch_lengths=None) -> np.ndarray:
        """float32 [B,N,V] for ids [B,N]. patch_lengths [B,P]: rows sum to N + 1 (the released models'
        convention); None: its own patches.

        Documents are masked at EOS. Shapes are filled up to a few sizes, so that many lengths do not mean
        many compilations."""
        ids = checked(ids, self.config.model.vocab)
        kind = models.kind(self.config.model)
        if kind.PATCHES:
            lengths = self._lengths(ids) if patch_lengths is None else patch_lengths
            batch = released_batches.batch_from_lengths(ids, lengths)
        else:
            # without a tokenizer: one document
            eos = vocab.EOS if kind.UNIT == "byte" else self.tokenizer.eos if self._tokenizer else -1
            batch = {kind.SLOTS[0]: ids, "doc_ids": released_batches.documents_at(ids, eos)}
        return run(models.logits, self, batch, ids.shape)

    def _lengths(self, ids: np.ndarray) -> np.ndarray:
        scheme, arguments = self.config.patching.scheme, segmentation.rule(self.config.patching)
        entropies = self.entropies(ids) if scheme in patching.NEEDS_ENTROPIES else None
        rows = [
            patching.lengths(row, scheme, entropies=None if entropies is None else entropies[i], **arguments)
            for i, row in enumerate(ids)
        ]
        width = max(map(len, rows))
        return np.array([row + [0] * (width - len(row)) for row in rows], np.int32)

    @functools.cached_property
    def generator(self) -> Generator:
        """What generates from it: loops, caches, and its weights as they want them."""
        return Generator(self)

    def generate(self, prompts, max_new_bytes: int, temperature: float = 0.0, **options) -> list[bytes]:
        """The bytes that follow each prompt (text or bytes; BOS is prepended), at most so many, up to EOS or
        a stop string.

        options: top_k, top_p, seed, stop, draft (generation.Options). UserError for options that cannot be.
        """
        prompts = list(prompts) if isinstance(prompts, (list, tuple)) else [prompts]
        return self.generator.generate(prompts, _options(max_new_bytes, temperature, options)).new

    def stream(self, prompt, max_new_bytes: int, temperature: float = 0.0, raw: bool = False, **options):
        """Yields what follows a prompt as it comes: text without broken characters, or with `raw` bytes."""
        pieces = self.generator.stream(prompt, _options(max_new_bytes, temperature, options))
        return pieces if raw else characters(pieces)

    def patch(self, text) -> list[bytes]:
        """A text's patches (a BPE model's tokens), bytes objects that join to the input."""
        return self.patch_with_entropies(text)[0]

    def patch_with_entropies(self, text) -> tuple[list[bytes], np.ndarray | None]:
        """The patches, and the nats of entropy that decided each byte (float32 [bytes]; None for schemes that
        need none)."""
        data = text.encode() if isinstance(text, str) else bytes(text)
        if not data:
            return [], None
        if models.kind(self.config.model).UNIT == "token":
            return cut(data, self.tokenizer.byte_counts[self.tokenizer.encode(data)]), None
        scheme = self.config.patching.scheme
        needs = scheme in patching.NEEDS_ENTROPIES
        entropies = (
            annotate.annotate(self.entropy_model.config.model, self.entropy_model.params, [data])
            if needs
            else None
        )
        tokenizer = self.tokenizer if scheme == "bpe" else None
        lengths = segmentation.document_lengths(self.config.patching, [data], entropies, tokenizer)[0]
        return cut(data, lengths[1:]), entropies[0][: len(data)] if needs else None


def _options(max_new_bytes, temperature, options: dict) -> Options:
    """Options of keywords. UserError for an unknown one."""
    known = {field.name for field in dataclasses.fields(Options)}
    if unknown := set(options) - known:
        raise UserError(f"unknown option {', '.join(sorted(unknown))}; allowed: {', '.join(sorted(known))}")
    stop = options.pop("stop", ())
    return Options(
        max_new_bytes,
        temperature,
        stop=(
            (stop,)
            if isinstance(stop, (str, bytes))
            else tuple(stop) if isinstance(stop, (list, tuple, set)) else stop
        ),
        **options,
    )


def run(function, model: Model, batch: dict, shape) -> np.ndarray:
    """function(model config, params, batch) -> [B,N,...], on arrays that are filled up to one of few shapes
    and cut again.

    Padding stands behind everything and in a document of its own, so that nothing sees it; where models
    differ by length (the first patch of padding, blocks of attention) they differ in rounding alone."""
    B, N = shape
    longer = {name: _filled(name, x, B, N, batch) for name, x in batch.items()}
    return np.asarray(_compiled(function, FrozenConfigDict(model.config.model))(model.params, longer))[:B, :N]


@functools.lru_cache(maxsize=16)
def _compiled(function, model_config):
    return jax.jit(functools.partial(function, model_config))


def _filled(name: str, x: np.ndarray, B: int, N: int, batch: dict) -> np.ndarray:
    """An array of a batch with more rows and slots: patch numbers of padding are that of no patch."""
    rows, slots = bucket(B, 1), bucket(N, 64)
    patches = bucket(batch["patch_doc_ids"].shape[1], 16) if "patch_doc_ids" in batch else 0
    out = np.full(
        (rows, patches if name == "patch_doc_ids" else slots),
        patches if name in ("patch_ids", "latent_ids") else 0,
        np.int32,
    )
    out[:B, : x.shape[1]] = x
    return out


def checked(ids, vocabulary: int) -> np.ndarray:
    """ids as int32 [B,N], or UserError."""
    ids = np.asarray(ids)
    if ids.ndim != 2 or not ids.size or not np.issubdtype(ids.dtype, np.integer):
        raise UserError(f"ids must be integers of shape [B, N], not {ids.dtype} of shape {list(ids.shape)}")
    if ids.min() < 0 or ids.max() >= vocabulary:
        raise UserError(f"ids must be 0 to {vocabulary - 1}; there are {ids.min()} to {ids.max()}")
    return ids.astype(np.int32)


def cut(data: bytes, lengths) -> list[bytes]:
    """data in pieces of these lengths; what reaches past its end (the patch of EOS) is dropped."""
    ends = np.minimum(np.cumsum(lengths), len(data))
    return [data[a:b] for a, b in zip([0, *ends[:-1]], ends) if b > a]
