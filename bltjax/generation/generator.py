"""From prompts to bytes: a model's engine, its parameters as the engine wants them, and the loops of
decode.py in slices."""

import codecs
import dataclasses
import functools
import time
from typing import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from bltjax.counts import counted
from bltjax.errors import UserError
from bltjax.generation import blt, decode, lm, sampling, text
from bltjax.models.padded_lengths import bucket
from bltjax.parallel import programs

ENGINES = {"blt": blt, "token": lm, "byte": lm}  # what generates from each kind of model
LONGEST = 10_000_000  # new bytes at most: room for their ids is made at the start
# Temperatures of float32: below the least (subnormal numbers count as 0) there is the likeliest byte alone.
COLDEST, HOTTEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
SLICE = 32  # steps between looks at what came out, where somebody waits for it


@dataclasses.dataclass(frozen=True)
class Options:
    """How to go on. temperature 0 (or below COLDEST): greedily. top_k 0, top_p 1: no limit. seed: row i of a
    batch draws with (seed, i). stop: bytes (or text) at whose first occurrence a row ends, before them.
    draft: BLT-S drafts of so many bytes (greedy BLT only; 0: none). max_new_tokens: so many ids (of a model
    of tokens: tokens) at most, however many bytes they are, instead of max_new_bytes; 0: bytes count."""

    max_new_bytes: int = 256
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple = ()
    draft: int = 0
    max_new_tokens: int = 0

    @property
    def most(self) -> int:
        """New ids at most."""
        return self.max_new_tokens or self.max_new_bytes

    @property
    def greedy(self) -> bool:
        """Whether the likeliest byte is always taken."""
        return self.temperature < COLDEST

    def check(self) -> None:
        """UserError for what cannot be."""
        for name, least, most in (
            ("max_new_bytes", 0, LONGEST),
            ("max_new_tokens", 0, LONGEST),
            ("top_k", 0, 2**31 - 1),
            ("draft", 0, 256),
            ("seed", 0, 2**32 - 1),
        ):
            value = getattr(self, name)
            if (
                isinstance(value, bool)
                or not isinstance(value, (int, np.integer))
                or not least <= value <= most
            ):
                raise UserError(f"{name} is {value!r}; it must be a whole number from {least} to {most:,}")
        for name, fits, must in (
            ("temperature", lambda x: 0 <= x <= HOTTEST, f"0 (greedy) or more, and at most {HOTTEST:.2g}"),
            ("top_p", lambda x: 0 < x <= 1, "above 0 and up to 1"),
        ):
            value = getattr(self, name)
            if not isinstance(value, (int, float, np.number)) or not fits(value):
                raise UserError(f"{name} is {value!r}; it must be {must}")
        if self.draft and not self.greedy:
            raise UserError(f"draft is {self.draft}; it goes with temperature 0 alone")
        if not isinstance(self.stop, (tuple, list)) or any(
            not isinstance(s, (str, bytes)) or not s for s in self.stop
        ):
            raise UserError(f"stop is {self.stop!r}; it must be a list of texts that are not empty")


@dataclasses.dataclass
class Generated:
    """new: the bytes that follow each prompt. finished: rows that ended by EOS or a stop string."""

    new: list[bytes]
    finished: list[bool]
    seconds: float
    prompt_bytes: int
    passes: dict  # of each module over the batch; "patches" and "bytes" summed over rows, prompts included
    weight_bytes: dict  # of each module, read in a pass
    drafted: int = 0
    agreed: int = 0
    unit: str = "byte"  # or token: what "bytes" of passes counts

    def facts(self) -> dict:
        """Numbers to print: bytes/s, patches, passes of the global model per byte, estimated weight traffic
        in bytes per byte, prompts included."""
        new, done = sum(map(len, self.new)), max(1, self.passes.get("bytes", 0))
        traffic = sum(self.passes.get(name, 0) * size for name, size in self.weight_bytes.items())
        return {
            "new_bytes": new,
            "prompt_bytes": self.prompt_bytes,
            "seconds": self.seconds,
            "bytes_per_s": new / self.seconds if self.seconds else 0.0,
            "patches": self.passes.get("patches", 0),
            "global_passes": self.passes.get("global", 0),
            "global_passes_per_byte": self.passes.get("global", 0) / done,
            "passes": self.passes,
            "weight_bytes": traffic,
            "weight_bytes_per_byte": traffic / done,
            "drafted": self.drafted,
            "agreed": self.agreed,
        }

    def text(self) -> str:
        """The facts in two lines."""
        f = self.facts()
        line = (
            f"{counted(f['new_bytes'], 'byte')} in {f['seconds']:.2f} s, {f['bytes_per_s']:.1f} bytes/s"
            " (compilation included, where there was one)"
        )
        if not f["passes"]:
            return line
        drafts = f"; {f['agreed']} of {f['drafted']} drafted bytes were right" if f["drafted"] else ""
        patches = (
            f"{counted(f['patches'], 'patch')}, {f['global_passes_per_byte']:.3f} passes of the global model"
            " a byte, "
            if f["patches"]
            else ""
        )
        return (
            f"{line}\n{patches}about {f['weight_bytes_per_byte'] / 1e6:.3g} MB of weights read a {self.unit}"
            f" (prompts included){drafts}"
        )


class Generator:
    """Generates from one model (api.Model); holds its parameters in the form that the loops want."""

    def __init__(self, model):
        self.model, self.text, self.kind = model, text.of(model), ENGINES[model.config.model.kind]
        self.engine(decode.PIECE, 1, 0)  # what cannot generate says so here
        self.ends, self.barred = jnp.asarray(self.text.ends, jnp.int32), jnp.asarray(self.text.barred)
        self.last = None  # what the last `stream` came to

    @functools.cached_property
    def params(self):
        """The engine's parameters."""
        return prepared(self.engine(decode.PIECE, 1, 0), *self.kind.parameters(self.model))

    def engine(self, capacity: int, patches: int, draft: int):
        """For so many bytes or tokens, so many patches at first, and drafts of so many bytes."""
        return self.kind.engine(self.model, capacity, patches, max(decode.PIECE, draft + 1))

    def generate(self, prompts, options: Options = Options()) -> Generated:
        """All prompts in one batch. UserError for options that cannot be."""
        last = None
        for last in self.slices(
            prompts, options, SLICE if options.stop or self.text.unit == "token" else options.most
        ):
            pass
        return last

    def stream(self, prompt, options: Options = Options()) -> Iterator[bytes]:
        """New bytes as they come. (characters() makes whole characters of them.)"""
        given = 0
        for result in self.slices([prompt], options, SLICE):
            self.last = result
            end = len(result.new[0])
            if options.stop and not result.finished[0]:  # a stop string may have begun
                end -= max(
                    n
                    for n in range(max(map(len, _bytes(options.stop))))
                    if n == 0 or any(s.startswith(result.new[0][end - n :]) for s in _bytes(options.stop))
                )
            if end > given:
                yield result.new[0][given:end]
                given = end
        if len(result.new[0]) > given:
            yield result.new[0][given:]

    def slices(self, prompts, options: Options, steps: int) -> Iterator[Generated]:
        """What there is after each `steps` steps, until all rows are done."""
        options.check()
        if wrong := [p for p in prompts if not isinstance(p, (str, bytes, bytearray, memoryview))]:
            raise UserError(f"a prompt is {wrong[0]!r}; it must be text or bytes")
        prompts = [p.encode("utf-8", "surrogateescape") if isinstance(p, str) else bytes(p) for p in prompts]
        if not prompts:
            raise UserError("there is no prompt; an empty text is one, no text is none")
        if options.draft and not self.kind.DRAFTS:
            raise UserError("draft: only a BLT drafts with its local modules")
        ids = [self.text.encode(p) for p in prompts]
        stops, began = _bytes(options.stop), time.perf_counter()
        if options.most == 0:
            yield Generated([b""] * len(ids), [False] * len(ids), 0.0, sum(map(len, prompts)), {}, {})
            return
        B, longest = bucket(len(ids), 1), max(map(len, ids))
        capacity = bucket(longest + options.most + options.draft + 1, 128)
        patches = self.kind.patches_expected(self.model, prompts, options.most, options.draft)
        engine = self.engine(capacity, patches, options.draft)
        lengths = np.array([len(x) for x in ids] + [1] * (B - len(ids)), np.int32)
        rows = np.zeros((B, capacity), np.int32)
        for row, x in zip(rows, ids):
            row[: len(x)] = x
        done = np.arange(B) >= len(ids)
        loop = decode.begin(engine, rows, lengths + options.most, done)
        length_B = jnp.asarray(lengths)
        while True:
            loop = programs.call(decode.read, (engine,), self.params, loop, length_B)
            if not np.any(np.asarray(loop.n_B) < lengths):
                break
            engine, loop = self._grown(engine, loop)
        rule = sampling.Rule(
            jnp.float32(1.0 if options.greedy else options.temperature),
            jnp.int32(options.top_k),
            jnp.float32(options.top_p),
        )
        keys = sampling.keys(np.uint32(options.seed), B)
        ended = [False] * len(ids)
        while True:
            if options.draft:
                loop = programs.call(
                    decode.speculate,
                    (engine, options.draft),
                    self.params,
                    loop,
                    jnp.int32(max(1, steps)),
                    self.ends,
                    self.barred,
                )
            else:
                loop = programs.call(
                    decode.follow,
                    (engine, options.greedy),
                    self.params,
                    loop,
                    jnp.int32(max(1, steps)),
                    self.ends,
                    self.barred,
                    rule,
                    keys,
                )
            ids_BxT, n_B, done_B = (np.array(x) for x in (loop.ids_BxT, loop.n_B, loop.done_B))
            new = []
            for i in range(len(ids)):
                out = self.text.decode(ids_BxT[i, lengths[i] : n_B[i]])
                cut = min((at for at in (out.find(s) for s in stops) if at >= 0), default=-1)
                ended[i] = bool(
                    ended[i] or cut >= 0 or done_B[i] and n_B[i] < lengths[i] + options.most
                )
                room = len(out) + 1 if options.max_new_tokens else options.max_new_bytes
                done_B[i] |= cut >= 0 or len(out) >= room
                new.append(out[:cut] if cut >= 0 else out[:room])
            finished = bool(done_B.all())
            yield Generated(
                new,
                list(ended),
                time.perf_counter() - began,
                sum(map(len, prompts)),
                engine.passes(loop),
                engine.weight_bytes(self.params),
                int(loop.drafted),
                int(loop.agreed),
                self.text.unit,
            )
            if finished:
                return
            if bool(engine.full(loop.state, options.draft + 1)):
                engine, loop = self._grown(engine, loop)
            loop = loop._replace(done_B=jnp.asarray(done_B))

    def _grown(self, engine, loop):
        engine, state = engine.grown(loop.state)
        return engine, loop._replace(state=state)


@functools.partial(jax.jit, static_argnums=0)
def prepared(engine, *params):
    """engine.prepare as one program: one by one its little cuts are sixty."""
    return engine.prepare(*params)


def _bytes(texts) -> list[bytes]:
    return [s.encode() if isinstance(s, str) else bytes(s) for s in texts]


def characters(pieces: Iterator[bytes]) -> Iterator[str]:
    """Bytes as text, never a part of a character; what is no UTF-8 becomes U+FFFD."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for piece in pieces:
        if text := decoder.decode(piece):
            yield text
    if text := decoder.decode(b"", final=True):
        yield text
