"""Log-likelihoods of continuations: what `logits` says, whatever they are batched with; generation behind
prompts."""

import numpy as np
import pytest
from hf_blt import HF
from test_llama import llama_with_tokenizer

from bltjax import api
from bltjax.errors import UserError
from bltjax.evaluation import answers, encoding, likelihood
from bltjax.generation import Options

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


def test_equals_logits_and_depends_on_no_batch(model):
    coded = encoding.Encoding(model)
    pairs = [coded.pair(*text) for text in [*texts(20, 5), ("", "at the beginning"), ("a ", "")]]
    found = likelihood.loglikelihoods(model, pairs, batch_size=4)
    for pair, one in list(zip(pairs, found))[::7]:
        value, greedy = by_logits(model, *pair)
        assert one.value == pytest.approx(value, abs=1e-4) and one.greedy == greedy and not one.cut
    for batch_size, least in ((1, 64), (16, 64), (4, 128)):
        again = likelihood.loglikelihoods(model, pairs[::-1], batch_size=batch_size, least=least)[::-1]
        assert [one.patches for one in again] == [one.patches for one in found]
        assert [one.greedy for one in again] == [one.greedy for one in found]
        assert max(abs(a.value - b.value) for a, b in zip(again, found)) < 1e-4


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
