"""A BLT that goes on where it was: encoder and decoder by bytes, the global model by patches, only when one
closes.

After byte t the patcher says whether t + 1 opens a patch. If so the patch of t closes: its bytes are pooled,
it goes through the global model at the next position there, and its latent is what the decoder reads from t
on; else the decoder goes on with the latent it has. What comes in at once may be one byte, a piece of a
prompt, or a draft; patches that close in it go through the global model GROUP at a time."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from ml_collections import FrozenConfigDict

from bltjax import patching
from bltjax.errors import UserError
from bltjax.generation import blt_state, cross_attention, decode, kv_cache
from bltjax.generation import lm as lms
from bltjax.generation.blt_state import State, Trail, added, closing, own, room
from bltjax.models import patcher
from bltjax.models.encoder import divisor
from bltjax.models.layers import rms_norm
from bltjax.patching import hashing

GROUP = 32  # patches of a row that go through the global model together, where several close
LONGEST_COUNTED = 65_536  # bytes of a prompt whose patches are counted ahead
SHORTEST_COUNTED = 128  # a prompt up to here is given room for a patch a byte: counting takes a second


@dataclasses.dataclass(frozen=True)
class BLT:
    """config: a frozen blt_model. patching: a frozen patching config. entropy_model: the frozen config of the
    model that gives entropies, or None. capacity: bytes at most. patches: at most, before `grown`. most:
    bytes that may come at once."""

    config: object
    patching: object
    entropy_model: object
    capacity: int
    patches: int
    most: int

    @property
    def lm(self) -> lms.LM | None:
        return (
            lms.LM(self.entropy_model, self.capacity, self.most) if self.entropy_model is not None else None
        )

    def prepare(self, params, lm_params=None):
        """Parameters as these functions want them."""
        c, dtype = self.config, self.config.dtype
        e, g, d = params["encoder"], params["latent"], params["decoder"]
        every = c.cross.decoder == "all"
        found = {
            "lm": self.lm.prepare(lm_params) if self.lm else None,
            "embed": e["embed"],
            "encoder": kv_cache.unstacked(e["blocks"], dtype),
            "latent": kv_cache.unstacked(g["blocks"], dtype),
            "latents": kv_cache.matrix(d["latents"]["kernel"], dtype),
            "norm": d["norm"]["scale"],
            "decoder": kv_cache.unstacked(d["layers"]["block"] if every else d["blocks"], dtype),
            "head": kv_cache.matrix(d["head"]["kernel"], dtype),
        }
        if "project" in g:
            found["project"] = kv_cache.matrix(g["project"]["kernel"], dtype)
        if c.cross.encoder != "none":
            crosses = e["cross"]["attention"]
            if c.cross.pool == "learned":
                found["queries"] = e["queries"].astype(dtype)
            else:
                found["pool"] = kv_cache.matrix(e["pool"]["kernel"], dtype)
            found["patch_cross"] = [
                cross_attention.weights_of(crosses, i, dtype) for i in range(crosses["q"]["kernel"].shape[0])
            ]
        if c.cross.decoder != "none":
            own = d["layers"]["cross"] if every else jax.tree.map(lambda x: x[None], d["cross"])
            found["byte_cross"] = [
                cross_attention.weights_of(own, i, dtype) for i in range(own["q"]["kernel"].shape[0])
            ]
        return found

    def weight_bytes(self, params) -> dict:
        """Bytes of weights that a pass of each module reads; look-up tables are read a few rows at a time."""
        found = {
            "encoder": kv_cache.nbytes(params, "encoder"),
            "global": kv_cache.nbytes(
                params, "pool", "queries", "patch_cross", "project", "latent", "latents"
            ),
            "decoder": kv_cache.nbytes(params, "decoder", "byte_cross", "head"),
        }
        if self.lm:
            found["lm"] = kv_cache.nbytes(params["lm"], "layers", "head")
        return found

    def passes(self, loop) -> dict:
        """How often each module's weights were read; "patches" and "bytes" of all rows."""
        return {name: int(value) for name, value in loop.state.passes.items()}

    def begin(self, B: int) -> State:
        lm = self.lm.begin(B) if self.lm else None
        return blt_state.begin(self.config, B, self.capacity, self.patches, self.most, lm)

    def grown(self, state: State) -> tuple["BLT", State]:
        """The same with room for more patches."""
        bigger = dataclasses.replace(self, patches=room(5 * self.patches // 4))
        return bigger, state._replace(latent=kv_cache.grown(state.latent, bigger.patches))

    def full(self, state: State, C: int):
        """Whether C more bytes might close more patches than there is room for."""
        return jnp.max(state.patches_B) + C > self.patches

    def forward(self, params, state: State, ids_BxC, count_B):
        """(float32 logits [B,C,V] of the next byte, state with caches and buffers written, Trail): `commit`
        moves on by what is kept of them."""
        where = kv_cache.positions(state.n_B, count_B, ids_BxC.shape[1])
        lm, found, first = state.lm, None, None
        if self.lm:
            logits, lm, first = self.lm.forward(params["lm"], lm, ids_BxC, count_B)
            found = patcher.entropy(logits)
        next_BxC, progress = patching.advance(self.patching, state.progress, ids_BxC, found)
        x, state = self._encode(params, state._replace(lm=lm), ids_BxC, where)
        closes = next_BxC & where.valid_BxC
        state, trail = self._close(params, state, progress, closes, where)
        index_BxC = trail.closed_BxC
        logits, decoder = self._decode(
            params, state.decoder, x, [own(r, index_BxC) for r in trail.read], where
        )
        return (
            logits,
            state._replace(decoder=decoder, passes=added(state.passes, lm=int(bool(self.lm)), decoder=1)),
            trail._replace(lm=first),
        )

    def commit(self, state: State, trail: Trail, kept_B) -> State:
        """The state after the first `kept` of the ids that came in last."""
        last = jnp.maximum(kept_B - 1, 0)
        pick = lambda new_BxC, old_B: jnp.where(
            kept_B > 0, jnp.take_along_axis(new_BxC, last[:, None], axis=1)[:, 0], old_B
        )
        closed = pick(trail.closed_BxC, jnp.zeros_like(kept_B))
        read = tuple(own(r, closed[:, None])[:, 0] for r in trail.read)
        lm = self.lm.commit(state.lm, trail.lm, kept_B) if self.lm else None
        return state._replace(
            n_B=state.n_B + kept_B,
            lm=lm,
            progress=jax.tree.map(pick, trail.progress, state.progress),
            patches_B=state.patches_B + closed,
            opened_B=pick(trail.opened_BxC, state.opened_B),
            read=read,
            passes=added(state.passes, patches=jnp.sum(closed), bytes=jnp.sum(kept_B)),
        )

    def draft(self, params, state: State, ids_Bx1, count_B):
        """(logits [B,1,V], state): one byte further by encoder and decoder alone, with the latent that there
        is. The next `forward` from where the rows really stand writes over what this one wrote."""
        where = kv_cache.positions(state.n_B, count_B, 1)
        x, state = self._encode(params, state, ids_Bx1, where)
        logits, decoder = self._decode(params, state.decoder, x, [r[:, None] for r in state.read], where)
        return logits, state._replace(
            decoder=decoder, n_B=state.n_B + count_B, passes=added(state.passes, decoder=1)
        )

    def _encode(self, params, state: State, ids_BxC, where):
        """Byte states [B,C,D]; what patches will pool and attend to is kept."""
        c, l = self.config, self.config.local
        ids_BxT = kv_cache.put(state.ids_BxT, ids_BxC, where)
        embedded = self._embed(params["embed"], ids_BxT, ids_BxC, where)
        rope = kv_cache.rope(self.capacity, l.width, l.heads, c.rope_theta)
        x, encoder, sources = kv_cache.extend(
            params["encoder"],
            state.encoder,
            embedded,
            where,
            l.heads,
            l.window,
            c.norm_eps,
            rope,
            c.cross.encoder_kv,
        )
        every = c.cross.encoder == "all"
        pooled = embedded
        if c.cross.encoder == "none":
            pooled = x
        elif c.cross.pool == "states":
            after = sources if c.cross.encoder_kv == "output" else [*sources[1:], x]
            pooled = after[0 if every else -1]
        keys = state.keys
        if c.cross.encoder != "none":
            keys = tuple(
                kv_cache.put(buffer, cross_attention.keys_and_values(weights, source, c.norm_eps), where)
                for buffer, weights, source in zip(
                    keys, params["patch_cross"], sources if every else sources[-1:], strict=True
                )
            )
        return x, state._replace(
            ids_BxT=ids_BxT,
            encoder=encoder,
            pooled_BxTxD=kv_cache.put(state.pooled_BxTxD, pooled, where),
            keys=keys,
            passes=added(state.passes, encoder=1),
        )

    def _embed(self, embed, ids_BxT, ids_BxC, where):
        """Byte embedding plus hash n-grams, which see the bytes before."""
        c, n = self.config, self.config.ngrams
        x = embed["bytes"].at[ids_BxC].get(mode="clip").astype(jnp.float32)
        if not n.sizes:
            return x.astype(c.dtype)
        back = max(n.sizes) - 1
        at = where.positions_BxC[:, :1] + jnp.arange(-back, ids_BxC.shape[1], dtype=jnp.int32)[None]
        window = jnp.where(
            at >= 0, jnp.take_along_axis(ids_BxT, jnp.clip(at, 0, ids_BxT.shape[1] - 1), axis=1), 0
        )
        # a document begins at position 0, and what is before it is none of its symbols
        there = (at >= 0).astype(jnp.int32)
        hashes = [
            hashing.ngram_hashes(window, n.sizes, n.rows, f, n.digits, doc_ids=there, raw_bytes=n.raw_bytes)
            for f in range(n.functions)
        ]
        ids_BxSxC = jnp.concatenate(hashes, axis=1)[:, :, back:]
        tables = embed["ngrams"]
        S, R, D = tables.shape
        rows = ids_BxSxC + jnp.arange(S, dtype=jnp.int32)[None, :, None] * R
        found = tables.reshape(S * R, D).at[rows].get(mode="clip").astype(jnp.float32)
        if n.short == "omit":
            present = hashing.ngram_present(there, n.sizes)[:, :, back:] & (there[:, None, back:] > 0)
            found = jnp.where(jnp.concatenate([present] * n.functions, axis=1)[..., None], found, 0)
        x = x + jnp.sum(found, axis=1)
        return (x / divisor(c) if divisor(c) > 1 else x).astype(c.dtype)

    def _close(self, params, state: State, progress, closes_BxC, where):
        """(state, Trail): the patches that close go through the global model, GROUP of a row at a time, and
        become what the decoder reads."""
        C = closes_BxC.shape[1]
        group = min(GROUP, C)
        room_Q = -(-C // group) * group
        spans, closed_BxC = closing(closes_BxC, where, state.opened_B, room_Q)
        count_B = closed_BxC[:, -1]
        pad = lambda r: jnp.zeros((r.shape[0], room_Q, *r.shape[1:]), r.dtype)
        read = tuple(jnp.concatenate([r[:, None], pad(r)], axis=1) for r in state.read)

        def turn(carry):
            turns, latent, read = carry
            first = turns * group
            own = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, first, group, axis=1), spans)
            there = kv_cache.positions(state.patches_B + first, jnp.clip(count_B - first, 0, group), group)
            latent, new = self._latents(params, latent, self._pool(params, state, own), there)
            put = lambda r, one: jax.lax.dynamic_update_slice_in_dim(r, one, 1 + first, axis=1)
            return turns + 1, latent, tuple(map(put, read, new))

        turns, latent, read = jax.lax.while_loop(
            lambda carry: jnp.any(count_B > carry[0] * group), turn, (jnp.int32(0), state.latent, read)
        )
        state = state._replace(latent=latent, passes=added(state.passes, **{"global": turns}))
        opened_BxC = jnp.where(closes_BxC, where.positions_BxC + 1, state.opened_B[:, None])
        return state, Trail(progress, None, closed_BxC, jax.lax.cummax(opened_BxC, axis=1), read)

    def _pool(self, params, state: State, spans: cross_attention.Spans):
        """Patch vectors [B,Q,*] of the bytes of spans: pooled, and with cross-attention to their bytes."""
        c = self.config
        if "queries" in params:
            patches = jnp.broadcast_to(params["queries"], (*spans.real_BxQ.shape, *params["queries"].shape))
        else:
            pooled_BxQxD = cross_attention.max_pool(state.pooled_BxTxD, spans)
            if c.cross.encoder == "none":
                return pooled_BxQxD
            patches = (pooled_BxQxD @ params["pool"]).reshape(*pooled_BxQxD.shape[:2], c.cross.k, -1)
        B, Q = patches.shape[:2]
        for weights, kv in zip(params["patch_cross"], state.keys, strict=True):
            patches = cross_attention.patches_from_bytes(c, weights, patches, kv, spans)
        return patches.reshape(B, Q, -1)

    def _latents(self, params, latent, x_BxQxE, where):
        """(the global model's cache, what the decoder reads of Q patches: see State.read)."""
        c, g = self.config, self.config.latent
        rope = kv_cache.rope(self.patches, g.width, g.heads, g.rope_theta or c.rope_theta, g.rope_scaling)
        x = x_BxQxE @ params["project"] if "project" in params else x_BxQxE
        x, latent, _ = kv_cache.extend(params["latent"], latent, x, where, g.heads, 0, c.norm_eps, rope)
        x = x @ params["latents"]
        if c.cross.decoder == "none":
            return latent, (x,)
        x = x.reshape(*x.shape[:2], c.cross.k, -1)
        return latent, tuple(
            cross_attention.keys_and_values(weights, x, c.norm_eps) for weights in params["byte_cross"]
        )

    def _decode(self, params, decoder, x, read, where):
        """(logits, caches). read: what each byte reads, [B,C,k,2,inner] of each cross-attention, or
        [[B,C,D]]."""
        c, l = self.config, self.config.local
        rope = kv_cache.rope(self.capacity, l.width, l.heads, c.rope_theta)
        written = []
        if c.cross.decoder == "none":
            x = x + read[0]
        for i, (layer, cache) in enumerate(zip(params["decoder"], decoder, strict=True)):
            if c.cross.decoder == "all" or c.cross.decoder == "first" and i == 0:
                x = cross_attention.bytes_from_patches(c, params["byte_cross"][i], x, read[i])
            x, [cache], _ = kv_cache.extend([layer], [cache], x, where, l.heads, l.window, c.norm_eps, rope)
            written.append(cache)
        logits = jnp.matmul(
            rms_norm(x, params["norm"], c.norm_eps), params["head"], preferred_element_type=jnp.float32
        )
        return logits, tuple(written)


DRAFTS = True  # with its encoder and decoder alone


def entropy_model(model):
    """The api.Model that gives entropies, or None where the patches need none."""
    return model.entropy_model if model.config.patching.scheme in patching.NEEDS_ENTROPIES else None


def engine(model, capacity: int, patches: int, most: int) -> BLT:
    """Of an api.Model. UserError for patches that cannot be made byte by byte."""
    rule, scheme = model.config.patching, model.config.patching.scheme
    if scheme == "bpe":
        raise UserError(
            f"{model.folder}: BPE patches depend on bytes that are not there yet, so that nothing can be"
            " generated with them"
        )
    lm = entropy_model(model)
    if any(math.isnan(rule[key]) for key in patching.THRESHOLDS.get(scheme, ())):
        raise UserError(
            f"{model.folder}: {scheme} patches have no threshold; calibrate one (bltjax data calibrate)"
        )
    frozen = FrozenConfigDict(lm.config.model) if lm is not None else None
    return BLT(FrozenConfigDict(model.config.model), FrozenConfigDict(rule), frozen, capacity, patches, most)


def parameters(model) -> tuple:
    """What `prepare` takes."""
    lm = entropy_model(model)
    return model.params, lm.params if lm is not None else None


def patches_expected(model, prompts: list[bytes], new_bytes: int, draft: int) -> int:
    """Room for the patches of the prompts, counted, and for as many of what follows as those prompts let
    expect. Too few is no harm: there will be more room, and another compilation."""
    long = [p for p in prompts if len(p) > SHORTEST_COUNTED]
    counts = [len(model.patch(p[:LONGEST_COUNTED])) * max(1, len(p) / LONGEST_COUNTED) for p in long]
    shares = [count / len(p) for count, p in zip(counts, long)]
    share = max(shares, default=1 / model.config.patching.size)
    counts += [len(p) for p in prompts if len(p) <= SHORTEST_COUNTED]
    return room(int(max(counts) + 2 + max(decode.PIECE, 1.2 * max(share, 0.125) * new_bytes + draft + 1)))
