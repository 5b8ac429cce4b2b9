"""Generation equals recomputing everything, byte for byte: every patcher and every kind of model, prompts of
different lengths in one batch, with and without drafts; pieces of any size give the same logits."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bltjax import api, models
from bltjax import config as cfg
from bltjax.errors import UserError
from bltjax.generation import Options, characters
from bltjax.patching import vocab
from bltjax.tokenizers import bpe

PROMPTS = [
    b"",
    b"hello world",
    b"aaaaa",
    "the quick brown fox jumps over the lazy dog, na\u00efvely".encode(),
    b"x = 1\n\tif x:\n",
    bytes(range(200, 230)),
    b"ab " * 16,
    b"0123456789" * 3,
]
PATCHING = {
    "entropy": cfg.patching("entropy", 2.0, threshold=5.05),
    "entropy, short": cfg.patching("entropy", 2.0, threshold=5.1, max_length=3),
    "space": cfg.patching("space", 3.0),
    "strided": cfg.patching("strided", 4),
    "random": cfg.patching("random", 3.0, seed=5),
    "monotonic": cfg.patching("monotonic", 2.0, delta=0.05),
    "both": cfg.patching("both", 2.0, threshold=5.0, delta=0.02),
}


def blt(preset="released", **changes):
    shape = dict(
        local_width=32,
        encoder_layers=1,
        decoder_layers=2,
        local_heads=4,
        global_width=48,
        global_layers=2,
        global_heads=4,
        k=2,
        window=24,
        ngram_rows=211,
        ffn_multiple=16,
    )
    nested = {key: changes.pop(key) for key in [*changes] if "." in key}
    return cfg.replace(cfg.blt_model(preset, **{**shape, **changes}), **nested)


@functools.cache
def lm_model():
    config = cfg.transformer(
        "byte", vocab=260, width=32, layers=2, heads=4, window=16, rope_theta=1e4, ffn_multiple=16
    )
    return of(cfg.run("lm", "entropy-model", config))


def of(run, entropy_model=None, tokenizer=None, seed=0):
    """A model with random weights, whose norms are no ones."""

    @jax.jit
    def made(key):
        noise = lambda x: 1 + 0.3 * jax.random.normal(jax.random.key(x.size), x.shape)
        return jax.tree.map(lambda x: x * noise(x), models.init(run.model, key))

    noisy = made(jax.random.key(seed))
    return api.Model(
        run,
        lambda: noisy,
        pathlib.Path(run.name),
        entropy_model and (lambda: entropy_model),
        tokenizer and (lambda: tokenizer),
    )


def patched(name="space", model=None):
    return of(cfg.run("m", "blt-space", model or blt(), patching_=PATCHING[name]), lm_model())


def recomputed(model, prompt, count, forward):
    """Greedy bytes from whole passes, and the scores that decided each."""
    ids, scores = [vocab.BOS, *vocab.encode(prompt)], []
    for _ in range(count):
        logits = forward(np.array([ids]))[0, -1].copy()
        logits[[vocab.BOE, vocab.BOS, vocab.DELIMITER]] = -np.inf
        scores.append(logits)
        if (best := int(logits.argmax())) == vocab.EOS:
            break
        ids.append(best)
    return vocab.decode(ids[1 + len(prompt) :]), scores


def some(names, fast):
    """All of them as parameters, those that are not `fast` among the slow tests."""
    return [pytest.param(name, marks=() if name in fast else pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", ["entropy", "strided"])
def test_equals_recomputing(name):
    model = patched(name)
    expected = [recomputed(model, p, 40, model.logits)[0] for p in PROMPTS]
    assert model.generate(PROMPTS, 40) == expected
    assert model.generate(PROMPTS[3:4], 40) == expected[3:4]  # alone as in a batch
    result = model.generator.generate(PROMPTS, Options(40, draft=5))
    assert result.new == expected and 0 <= result.agreed <= result.drafted


@pytest.mark.slow
@pytest.mark.parametrize("name", PATCHING)
def test_equals_recomputing_for_long(name):
    """200 bytes after 8 prompts in one batch: each the likeliest by one pass over all, the last of them by
    passes that end before them too."""
    model = patched(name)
    found = model.generate(PROMPTS, 200)
    for prompt, new in zip(PROMPTS, found):
        ids = [vocab.BOS, *vocab.encode(prompt + new)]
        logits = model.logits(np.array([ids]))[0, len(prompt) :].copy()
        logits[:, [vocab.BOE, vocab.BOS, vocab.DELIMITER]] = -np.inf
        after = list(vocab.encode(new)) if len(new) == 200 else [*vocab.encode(new), vocab.EOS]
        assert logits.argmax(-1)[: len(after)].tolist() == after
        known = max(0, len(new) - 6)
        assert recomputed(model, prompt + new[:known], 200 - known, model.logits)[0] == new[known:]
    assert model.generate(PROMPTS[3:4], 200) == found[3:4]  # alone as in a batch
    assert model.generate(PROMPTS, 200, draft=4) == found


MODELS = {
    "paper": blt("paper"),
    "projection": blt(global_width=64, k=3),
    "encoder, every layer": blt(encoder_layers=2, **{"cross.encoder": "all"}),
    "paper, every layer": blt("paper", encoder_layers=3, **{"cross.encoder": "all"}),
    "decoder, first layer": blt(**{"cross.decoder": "first"}),
    "learned queries": blt("paper", encoder_layers=2, **{"cross.encoder": "all", "cross.pool": "learned"}),
    "no cross-attention": blt("paper", **{"cross.encoder": "none", "cross.decoder": "none"}),
    "neither n-grams nor cross-attention": blt(
        "paper", ngram_sizes=(), **{"cross.encoder": "none", "cross.decoder": "none"}
    ),
    "no window": blt(window=0),
    "two hash functions": blt(**{"ngrams.functions": 2}),
    "other heads": blt(cross_heads=2),
    "scaled positions": blt(**{"latent.rope_theta": 1e4, "latent.rope_scaling": (4.0, 1.0, 4.0, 16.0)}),
}


@pytest.mark.parametrize("name", some(MODELS, ("paper, every layer",)))
def test_every_shape_of_model(name):
    model = patched("space", MODELS[name])
    expected = [recomputed(model, p, 12, model.logits)[0] for p in PROMPTS[:4]]
    assert model.generate(PROMPTS[:4], 12) == expected
    assert model.generate(PROMPTS[:4], 12, draft=2) == expected


@pytest.mark.parametrize("name", ["entropy", "space"])
def test_logits_piece_by_piece(name):
    """Pieces of any size, different in each row, and taken back in part: logits of whole passes to 1e-4."""
    model, rng = patched(name), np.random.default_rng(1)
    text = (b"def f(x):\n    return x + 1  # done\n" * 6)[:180]
    ids = np.stack(
        [
            np.concatenate([[vocab.BOS], vocab.encode(text)]),
            np.concatenate([[vocab.BOS], vocab.encode(text[::-1])]),
        ]
    ).astype(np.int32)
    whole = model.logits(ids)
    engine = model.generator.engine(256, 256, 8)
    forward = jax.jit(lambda state, piece, count: engine.forward(model.generator.params, state, piece, count))
    commit = jax.jit(engine.commit)
    state, n = engine.begin(2), np.zeros(2, int)
    while (n < ids.shape[1]).any():
        count = np.minimum(rng.integers(0, 9, 2), ids.shape[1] - n)
        piece = np.stack([np.pad(row[a : a + c], (0, 8 - c)) for row, a, c in zip(ids, n, count)])
        logits, state, trail = forward(state, jnp.asarray(piece), jnp.asarray(count, jnp.int32))
        kept = np.minimum(rng.integers(0, 9, 2), count)
        for row in range(2):
            np.testing.assert_allclose(
                logits[row, : count[row]], whole[row, n[row] : n[row] + count[row]], atol=1e-4
            )
        state, n = commit(state, trail, jnp.asarray(kept, jnp.int32)), n + kept


def test_entropy_model_and_tokens():
    lm = lm_model()
    expected = [recomputed(lm, p, 30, lm.logits)[0] for p in PROMPTS]
    assert lm.generate(PROMPTS, 30) == expected
    tokenizer = bpe.train_bpe(
        [b"the quick brown fox jumps over the lazy dog " * 20, b"if x: return x + 1\n" * 20], 290
    )
    model = of(
        cfg.run(
            "bpe", "bpe", cfg.transformer("token", vocab=290, width=32, layers=2, heads=4, ffn_multiple=16)
        ),
        tokenizer=tokenizer,
    )
    for prompt, new in zip(PROMPTS[:3], model.generate(PROMPTS[:3], 20)):
        ids, found = [tokenizer.bos, *tokenizer.encode(prompt)], b""
        while len(found) < 20:
            logits = model.logits(np.array([ids]))[0, -1].copy()
            logits[tokenizer.bos] = -np.inf
            if (best := int(logits.argmax())) == tokenizer.eos:
                break
            ids.append(best)
            found += tokenizer.token_bytes[best]
        assert new == found[:20]


@pytest.mark.slow
def test_an_entropy_model_that_begins_anew_at_newlines():
    config = cfg.replace(lm_model().config, **{"model.reset": "newline"})
    model = of(cfg.run("m", "blt-entropy", blt(), patching_=PATCHING["entropy"]), of(config))
    prompts = [b"one\ntwo\n", b"a longer line of text\n" * 8 + b"and", b"\n\n", b"none"]
    expected = [recomputed(model, p, 24, model.logits)[0] for p in prompts]
    assert model.generate(prompts, 24) == model.generate(prompts, 24, draft=3) == expected
    lm = of(config)
    assert lm.generate(prompts, 12) == [recomputed(lm, p, 12, lm.logits)[0] for p in prompts]
    ids = np.array([[vocab.BOS, *vocab.encode(prompts[1])]])
    assert (
        np.abs(
            model.entropies(ids)
            - of(cfg.run("m", "blt-entropy", blt(), patching_=PATCHING["entropy"]), lm_model()).entropies(ids)
        ).max()
        > 1e-3
    )


def test_drawing():
    model = patched()
    draw = lambda seed, **options: model.generate([b"abc", b"abc"], 24, 1.0, seed=seed, **options)
    assert draw(0) == draw(0) and draw(0) != draw(1) and draw(0)[0] != draw(0)[1]
    assert draw(3, top_k=1) == model.generate([b"abc", b"abc"], 24) == draw(3, top_p=1e-6)
    assert model.generate([b"abc"], 24, 1.0)[0] == draw(0)[0]  # a row's bytes do not depend on the others


def test_shares_of_top_p_and_top_k():
    from bltjax.generation import sampling

    logits = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05]]))
    keys = jax.vmap(jax.random.key)(jnp.arange(1))

    def drawn(k, p):
        rule = sampling.Rule(jnp.float32(1), jnp.int32(k), jnp.float32(p))
        found = jax.vmap(lambda n: sampling.draw(logits, jnp.zeros(4, bool), rule, keys, n[None])[0])(
            jnp.arange(2000)
        )
        return np.bincount(np.asarray(found), minlength=4) / 2000

    np.testing.assert_allclose(drawn(0, 1.0), [0.5, 0.3, 0.15, 0.05], atol=0.04)
    np.testing.assert_allclose(drawn(2, 1.0), [0.625, 0.375, 0, 0], atol=0.04)
    np.testing.assert_allclose(drawn(0, 0.7), [0.625, 0.375, 0, 0], atol=0.04)
    np.testing.assert_allclose(drawn(0, 0.81), [0.526, 0.316, 0.158, 0], atol=0.04)


def test_ends_and_streams():
    model = patched("entropy")
    [whole] = model.generate([b"hello"], 60)
    stop = whole[10:12]
    assert model.generate([b"hello"], 60, stop=stop)[0] == whole[: whole.index(stop)]
    assert model.generate(b"hello", 0) == [b""]
    assert b"".join(model.stream(b"hello", 60, raw=True)) == whole
    assert b"".join(model.stream(b"hello", 60, raw=True, stop=stop)) == whole[: whole.index(stop)]
    assert "".join(model.stream(b"hello", 60)) == whole.decode("utf-8", "replace")
    accents = "na\u00efve \u20ac \U0001f600".encode()
    assert list(characters(iter([accents[i : i + 1] for i in range(len(accents))]))) == list(
        "na\u00efve \u20ac \U0001f600"
    )
    params = model.generator.params
    try:
        model.generator.params = {
            **params,
            "head": params["head"].at[:, vocab.EOS].set(0) + 0,
            "norm": params["norm"] * 0,
        }
        # all scores are 0: the first that is allowed is EOS
        result = model.generator.generate([b"hello"], Options(20))
        assert result.new == [b""] and result.finished == [True]
    finally:
        model.generator.params = params


@pytest.mark.parametrize("temperature", [1e-6, 1e-30, 1.2e-38, 1e-38, 1e-45, 1e-300])
def test_the_lower_the_temperature_the_likelier_the_byte(temperature):
    from bltjax.generation import sampling

    assert Options(temperature=temperature).greedy == (temperature < 1.1754943e-38)
    Options(temperature=temperature).check()
    if Options(temperature=temperature).greedy:
        return
    logits = jnp.asarray([[-7.0, 900.0, 899.0, 1e4], [3.0, -1e30, 2.0, 5.0]])
    barred = jnp.asarray([False, False, False, True])
    rule = sampling.Rule(jnp.float32(temperature), jnp.int32(0), jnp.float32(1))
    drawn = sampling.draw(logits, barred, rule, sampling.keys(np.uint32(0), 2), jnp.zeros(2, jnp.int32))
    assert drawn.tolist() == [1, 0] == sampling.likeliest(logits, barred).tolist()


def test_temperatures_below_float32s_are_greedy():
    model = patched()
    greedy = model.generate([b"abc"], 24)
    assert model.generate([b"abc"], 24, 1e-38) == greedy == model.generate([b"abc"], 24, 1e-45, draft=0)


def test_facts():
    result = patched("strided").generator.generate([b"abcdefgh"], Options(40))
    facts = result.facts()
    # 48 bytes and BOS in patches [1, 4, 4, ...]; the last byte closes one only if the next opens one.
    assert (
        facts["patches"] == 1 + 48 // 4
        and facts["passes"]["decoder"] == 1 + 40
        and facts["weight_bytes_per_byte"] > 0
    )
    assert facts["global_passes"] <= facts["patches"]


@pytest.mark.parametrize(
    "options, says",
    [
        (dict(max_new_bytes=-1), "max_new_bytes"),
        (dict(temperature=float("nan")), "temperature"),
        (dict(temperature=-1.0), "temperature"),
        (dict(temperature=float("inf")), "temperature"),
        (dict(temperature=1e39), "temperature"),  # more than float32 has
        (dict(temperature=-1e-45), "temperature"),
        (dict(top_p=0.0), "top_p"),
        (dict(top_k=-1), "top_k"),
        (dict(stop=""), "stop"),
        (dict(draft=4, temperature=1.0), "draft"),
        (dict(draft=-1), "draft"),
        (dict(seed=-1), "seed"),
        (dict(beams=3), "beams"),
        (dict(max_new_bytes=10**9), "10,000,000"),
        (dict(temperature="x"), "temperature"),
        (dict(seed=1.5), "seed"),
        (dict(draft=True), "draft"),
        (dict(stop=5), "stop"),
        (dict(stop=[5]), "stop"),
        (dict(top_k=2.5), "top_k"),
        (dict(top_p="a"), "top_p"),
    ],
)
def test_options_that_cannot_be(options, says):
    with pytest.raises(UserError, match=says):
        patched().generate([b"a"], **{"max_new_bytes": 4, **options})


@pytest.mark.parametrize("prompts", [5, None, [5], [None], []])
def test_prompts_that_are_none(prompts):
    with pytest.raises(UserError, match="prompt"):
        patched().generate(prompts, 4)


def test_every_id_that_ends_a_text():
    """Ids of config.tokenizer.ends stop a row as EOS does, and are no text."""
    tokenizer = bpe.train_bpe([b"the quick brown fox jumps over the lazy dog " * 20], 270)
    config = cfg.run(
        "bpe", "bpe", cfg.transformer("token", vocab=270, width=32, layers=2, heads=4, ffn_multiple=16)
    )
    [whole] = of(config, tokenizer=tokenizer).generate([b"the "], 12)
    third = tokenizer.encode(whole)[2]
    first = tokenizer.decode(tokenizer.encode(whole)[:2])
    model = of(cfg.replace(config, **{"tokenizer.ends": (int(third),)}), tokenizer=tokenizer)
    result = model.generator.generate([b"the "], Options(12))
    assert whole.startswith(result.new[0]) and len(result.new[0]) <= len(first) and result.finished == [True]


def test_what_cannot_generate():
    with pytest.raises(UserError, match="BPE patches"):
        of(cfg.run("m", "blt-bpe", blt(), patching_=cfg.patching("bpe", 4.0))).generate([b"a"], 4)
    with pytest.raises(UserError, match="no entropy model"):
        of(cfg.run("m", "blt-entropy", blt(), patching_=PATCHING["entropy"])).generate([b"a"], 4)
    with pytest.raises(UserError, match="no threshold"):
        of(cfg.run("m", "blt-entropy", blt(), patching_=cfg.patching("entropy", 4.0)), lm_model()).generate(
            [b"a"], 4
        )
    with pytest.raises(UserError, match="no prompt"):
        patched().generate([], 4)
