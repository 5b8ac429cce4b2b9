"""`bltjax.load`: a finished run, ready for use from Python."""

import functools
import pathlib

import jax
import numpy as np

from bltjax import config as cfg
from bltjax import models, vocab
from bltjax.data import segmentation, tokenizers
from bltjax.entropies import annotate
from bltjax.errors import UserError
from bltjax.interop import blt
from bltjax.sweep import rundir
from bltjax.training import checkpoint


def load(path) -> "Model":
    """The model of a run directory. UserError where there is none, or where its checkpoint is not whole."""
    run_dir = pathlib.Path(path)
    if not run_dir.is_dir():
        raise UserError(f"no run directory {run_dir}")
    config = rundir.load_config(run_dir)
    if broken := rundir.damage(run_dir):
        raise UserError(f"{run_dir}: {broken}; `bltjax run` will redo it")
    return Model(run_dir, config, rundir.read_json(run_dir / "planned.json") or {})


class Model:
    """A run's config, parameters, and the patcher that it was trained with."""

    def __init__(self, run_dir: pathlib.Path, config, planned: dict):
        self.run_dir, self.planned = run_dir, planned
        found = {f"patching.{key}": planned[key] for key in ("threshold", "delta") if planned.get(key) is not None}
        self.config = cfg.replace(config, **found)

    @functools.cached_property
    def params(self) -> dict:
        return checkpoint.load_params(self.run_dir)

    @functools.cached_property
    def byte_lm(self) -> "Model":
        """The model that supplies entropies: this one if it is a byte LM, else the one that the run was patched with."""
        if self.config.model.kind == "byte":
            return self
        facts = self.planned.get("entropy_model")
        if not facts:
            raise UserError(f"{self.run_dir} has no byte LM: it was not patched by entropies")
        return load(self.run_dir / facts["run_dir"])

    @functools.cached_property
    def tokenizer(self) -> tokenizers.Tokenizer:
        if "tokenizer" not in self.planned:
            raise UserError(f"{self.run_dir} has no tokenizer")
        return tokenizers.llama3() if self.config.tokenizer.kind == "llama3" else tokenizers.load(self.run_dir / self.planned["tokenizer"])

    def entropies(self, ids) -> np.ndarray:
        """Entropy of the next byte, nats float32 [B,N], for ids [B,N]; row by row, documents masked at EOS."""
        lm = self.byte_lm
        ids = checked(ids, lm.config.model.vocab)
        batch = {"bytes": ids, "doc_ids": blt.documents_at(ids, vocab.EOS)}
        return np.asarray(jax.jit(functools.partial(models.byte_lm.entropies, lm.config.model))(lm.params, batch))

    def logits(self, ids, patch_lengths=None) -> np.ndarray:
        """float32 [B,N,V] for ids [B,N]. patch_lengths [B,P]: rows sum to N + 1 (the released models' convention); None: its own patches."""
        ids = checked(ids, self.config.model.vocab)
        kind = self.config.model.kind
        if kind == "blt":
            lengths = self._lengths(ids) if patch_lengths is None else np.asarray(patch_lengths, np.int32)
            batch = blt.batch_from_lengths(ids, lengths)
        else:
            eos = self.tokenizer.eos if kind == "token" else vocab.EOS
            batch = {"tokens" if kind == "token" else "bytes": ids, "doc_ids": blt.documents_at(ids, eos)}
        return np.asarray(jax.jit(functools.partial(models.logits, self.config.model))(self.params, batch))

    def _lengths(self, ids: np.ndarray) -> np.ndarray:
        from bltjax import patching
        scheme, arguments = self.config.patching.scheme, segmentation.rule(self.config.patching)
        entropies = self.entropies(ids) if scheme in ("entropy", "monotonic", "both") else None
        rows = [patching.lengths(row, scheme, entropies=None if entropies is None else entropies[i], **arguments)
                for i, row in enumerate(ids)]
        width = max(map(len, rows))
        return np.array([row + [0] * (width - len(row)) for row in rows], np.int32)

    def patch(self, text) -> list[bytes]:
        """A text's patches (a BPE model's tokens), bytes objects that join to the input."""
        return self.patch_with_entropies(text)[0]

    def patch_with_entropies(self, text) -> tuple[list[bytes], np.ndarray | None]:
        """The patches, and the nats of entropy that decided each byte (float32 [bytes]; None for schemes that need none)."""
        if not isinstance(text, (str, bytes, bytearray, memoryview)):
            raise UserError(f"a text is str or bytes, not {type(text).__name__}")
        data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else bytes(text)
        if not data:
            return [], None
        if self.config.model.kind == "token":
            return cut(data, self.tokenizer.byte_counts[self.tokenizer.encode(data)]), None
        scheme = self.config.patching.scheme
        needs = scheme in ("entropy", "monotonic", "both")
        entropies = annotate.annotate(self.byte_lm.config.model, self.byte_lm.params, [data]) if needs else None
        tokenizer = self.tokenizer if scheme == "bpe" else None
        lengths = segmentation.document_lengths(self.config.patching, [data], entropies, tokenizer)[0]
        return cut(data, lengths[1:]), entropies[0][:len(data)] if needs else None


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
