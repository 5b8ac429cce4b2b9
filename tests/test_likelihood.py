"""Log-likelihoods of continuations: what `logits` says, whatever they are batched with; generation behind
prompts."""

from types import SimpleNamespace

import numpy as np
import pytest
from hf_blt import HF
from test_llama import llama_with_tokenizer

from bltjax import api
from bltjax.errors import UserError
from bltjax.evaluation import answers, encoding, likelihood, row_patches
from bltjax.generation import Options
from bltjax.models import loss

WORDS = ["alpha ", "b", " gamma", "dé", "\n", "epsilon zeta", "   ", "7"]


def texts(count, longest, seed=0):
    rng = np.random.default_rng(seed)
    some = lambda n: "".join(rng.choice(WORDS) for _ in range(rng.integers(1, n)))
    return [(some(longest), some(4)) for _ in range(count)]


def by_logits(model, context, continuation):
    """(nats, whether greedy) the slow way: a text at a time."""
    ids = np.array([[*context, *continuation]], np.int32)
    scores = model.logits(ids[:, :-1]).astype(np.float64)[0]
    log_p = scores - np.logaddexp.reduce(scores, axis=-1, keepdims=True)
    last, targets = log_p[-len(continuation) :], ids[0, -len(continuation) :]
    return last[np.arange(len(targets)), targets].sum(), bool((last.argmax(-1) == targets).all())


@pytest.fixture(scope="module", params=["blt", "bpe"])
def model(request, tmp_path_factory):
    if request.param == "blt":
        return api.load(HF)
    return api.load(llama_with_tokenizer(tmp_path_factory.mktemp("llama") / "m", 288))


def test_equals_logits_and_depends_on_no_batch(model, monkeypatch):
    coded = encoding.Encoding(model)
    pairs = [coded.pair(*text) for text in [*texts(20, 5), ("", "at the beginning"), ("a ", "")]]
    found = likelihood.loglikelihoods(model, pairs, batch_size=4, least=64)
    for pair, one in list(zip(pairs, found))[::7]:
        value, greedy = by_logits(model, *pair)
        assert one.value == pytest.approx(value, abs=1e-4) and one.greedy == greedy and not one.cut
    monkeypatch.setattr(loss, "SCORES", 9 * model.config.model.vocab)  # the head in several parts
    for batch_size, least in ((1, 64), (16, 128)):
        again = likelihood.loglikelihoods(model, pairs[::-1], batch_size=batch_size, least=least)[::-1]
        assert [one.patches for one in again] == [one.patches for one in found]
        assert [one.greedy for one in again] == [one.greedy for one in found]
        assert max(abs(a.value - b.value) for a, b in zip(again, found)) < 1e-4


@pytest.mark.parametrize("scheme", ["entropy", "monotonic", "both"])
@pytest.mark.parametrize("resolution", [0.0, 2.0**-13])
def test_what_rounding_could_move_is_decided_by_the_text_alone(scheme, resolution, monkeypatch):
    """Entropies that stand as close to the numbers they are compared with as rounding errors are large."""
    rng = np.random.default_rng(0)
    made = [rng.integers(4, 260, rng.integers(5, 60)).astype(np.int32) for _ in range(40)]
    exact = {len(text): rng.integers(0, 4, 64).astype(np.float32) for text in made}
    alone = []

    def entropies(lm, some):
        alone.append(len(some) == 1)
        noise = (len(some) > 1) * rng.normal(0, 1e-6, (len(some), 64)).astype(np.float32)
        return [(exact[len(text)] + own)[: len(text) - 1] for text, own in zip(some, noise)]

    monkeypatch.setattr(row_patches, "_entropies", entropies)
    rule = SimpleNamespace(
        scheme=scheme, threshold=1.0, delta=1.0, max_length=6, resolution=resolution, size=1, seed=0
    )
    config = SimpleNamespace(model=SimpleNamespace(kind="blt"), patching=rule)
    model = SimpleNamespace(config=config, entropy_model=None)
    found = row_patches.starts(model, made)
    assert sum(alone) > 20
    for text, own in zip(made, found, strict=True):
        assert np.array_equal(row_patches.starts(model, [text])[0], own) and len(own) == len(text)
    alone.clear()
    rule.threshold = rule.delta = 0.5  # far from all of them
    row_patches.starts(model, made)
    assert not any(alone)


def test_rows_that_do_not_fill_a_call_go_into_the_next_size():
    lengths = [20, 21, 30, 300, 90, 5]
    rows = [likelihood.Row(np.zeros(n + 1, np.int32), 1, 0) for n in lengths]
    found = likelihood._calls(rows, [0] * len(rows), least=16, batch_size=2)
    # what is next to 30 and to 90 is more than twice as long
    told = [(slots, [lengths[i] for i in numbers]) for slots, numbers in found]
    assert told == [(384, [300]), (96, [90]), (32, [30, 21]), (24, [20, 5])]


    found = likelihood._calls(rows, [3, 9, 4, 1, 1, 1], least=32, batch_size=3)
    assert (32, [1, 2, 0, 5]) in found  # those of the most patches first


def test_entropies_in_rows_of_many_texts_are_those_of_each_alone():
    model, rng = api.load(HF), np.random.default_rng(1)
    made = [rng.integers(4, 260, n).astype(np.int32) for n in (700, 1, 2, *rng.integers(3, 65, 30))]
    for text, own in zip(made, row_patches._entropies(model.entropy_model, made), strict=True):
        assert len(own) == len(text) - 1
        if len(own):
            alone = model.entropies(text[None, :-1])[0]
            assert np.allclose(own, alone, atol=1e-5)


def test_rows_of_many_texts_are_full_and_hold_each_once():
    rng = np.random.default_rng(2)
    sizes = {i: int(n) for i, n in enumerate(rng.integers(0, 129, 500))}
    rows = row_patches._rows(sizes, 128)
    assert sorted(i for held, _ in rows for i in held) == sorted(sizes)
    for held, begins in rows:
        assert np.diff(begins).tolist() == [sizes[i] for i in held] and begins[-1] <= 128
    assert len(rows) < 1.05 * sum(sizes.values()) / 128 + 1


def test_what_is_read_alike_is_read_once(monkeypatch):
    model, read = api.load(HF), []
    compute = row_patches._entropies
    counted = lambda lm, some: read.append(len(some)) or compute(lm, some)
    monkeypatch.setattr(row_patches, "_entropies", counted)
    texts = [np.array([1, *map(ord, "one question "), last], np.int32) for last in (65, 66, 67, 65)]
    texts.insert(2, np.array([1, 70, 71], np.int32))
    found = row_patches.starts(model, texts)
    assert read[0] == 2 and [len(own) for own in found] == [len(text) for text in texts]
    assert all(np.array_equal(own, found[0]) for own in (found[1], found[3], found[4]))


def test_pairs_are_cut_where_tokens_have_their_spaces(model):
    coded = encoding.Encoding(model)
    for context, continuation in (("one two", " three"), ("one two ", "three"), ("one  ", " x"), (" ", "x")):
        head, tail = coded.pair(context, continuation)
        assert head + tail == coded.encode(context + continuation, bos=True)
        assert head == coded.encode(context.rstrip(), bos=True)
    assert coded.pair("", "x") == ([coded.bos], coded.encode("x"))


def test_what_does_not_fit_is_cut_on_the_left_and_counted(model):
    coded = encoding.Encoding(model)
    pair = coded.pair("a long context " * 4, " end")
    whole = [*pair[0], *pair[1]]
    one = likelihood.loglikelihoods(model, [pair], max_length=20)[0]
    assert one.cut == len(whole) - 21
    value, _ = by_logits(model, whole[-21 : -len(pair[1])], pair[1])
    assert one.value == pytest.approx(value, abs=1e-4)
    longer = likelihood.loglikelihoods(model, [([coded.bos], whole[1:])], max_length=20)[0]
    assert longer.cut == len(whole) - 21 and longer.value < 0


def test_what_cannot_be(model):
    for pairs, more, says in (
        ([([], [5])], {}, "no ids"),
        ([([1], [5000])], {}, "ids must be"),
        ([([1], [5])], {"max_length": 1}, "max_length"),
    ):
        with pytest.raises(UserError, match=says):
            likelihood.loglikelihoods(model, pairs, **more)
    with pytest.raises(UserError, match="no room"):
        answers.generate(model, ["a"], 100, max_length=100)


def test_generation_ends_at_texts_and_after_so_many_ids(model):
    whole = answers.generate(model, ["Once upon", "a"], 12, max_length=64)
    alone = model.generate(["Once upon", "a"], max_new_bytes=12)
    if encoding.Encoding(model).unit == "byte":
        assert whole == [new.decode("utf-8", "replace") for new in alone]
    stop = next(character for character in "".join(whole)[1:] if character.isascii())
    ended = answers.generate(model, ["Once upon", "a"], 12, (stop,), max_length=64, batch_size=1)
    assert ended == [text.split(stop)[0] for text in whole]
    ids = encoding.Encoding(model)
    if ids.unit == "token":  # tokens are counted, not bytes
        raw = model.generator.generate(["a"], Options(0, max_new_tokens=7)).new[0]
        assert len(raw) >= 7 or model.generator.generate(["a"], Options(0, max_new_tokens=7)).finished[0]
