"""Patch boundaries: the released vectors, incremental in every scheme but BPE, host equal to device."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bltjax import config as cfg
from bltjax import patching
from bltjax.errors import UserError
from bltjax.patching import segmentation, vocab

GOLDEN = json.loads((pathlib.Path(__file__).parent / "golden" / "patch_lengths.json").read_text())
GOLDEN_SCHEMES = {
    "space": dict(scheme="space"),
    "entropy_3": dict(scheme="entropy", threshold=3),
    "entropy_3_max4": dict(scheme="entropy", threshold=3, max_length=4),
    "monotonic_1": dict(scheme="monotonic", delta=1),
    "both_3_1": dict(scheme="both", threshold=3, delta=1),
    "static_4": dict(scheme="strided", stride=4, bos_alone=False),
}
SETTINGS = {
    "strided": dict(stride=3),
    "strided released": dict(stride=3, bos_alone=False),
    "space": dict(),
    "entropy": dict(threshold=3.0),
    "monotonic": dict(delta=0.5),
    "both": dict(threshold=2.0, delta=0.25),
    "random": dict(mean=3.5, seed=7),
}
SETTINGS |= {f"{name} max": {**settings, "max_length": 2} for name, settings in SETTINGS.items()}


def text(seed, rows=4, n=60):
    """Ids with specials, runs of spaces and non-ASCII; entropies with many ties."""
    rng = np.random.default_rng(seed)
    ids = (
        rng.choice(
            np.frombuffer(bytes(range(256)) + b" a" * 200 + b"\xc3\xa9" * 60, np.uint8), (rows, n)
        ).astype(np.int32)
        + vocab.OFFSET
    )
    ids[rng.random((rows, n)) < 0.05] = vocab.EOS
    ids[:, 0] = vocab.BOS
    return ids, (rng.integers(0, 20, (rows, n)) / 4).astype(np.float32)


def starts(name, ids, entropies, **more):
    return patching.starts(ids, name.split()[0], entropies=entropies, **SETTINGS[name], **more)


@pytest.mark.parametrize("name", GOLDEN_SCHEMES)
def test_released_vectors_exactly(name):
    for case in GOLDEN:
        got = patching.lengths(
            case["ids"],
            **GOLDEN_SCHEMES[name],
            entropies=case["entropies"],
            include_next=case["include_next"],
        )
        assert got == case[name], case["text"]


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize(
    "name, next_lengths",
    [
        ("entropy", {1: [1, 1], 2: [1, 2], 3: [1, 3], 4: [1, 4]}),
        ("monotonic", {1: [1, 1], 2: [1, 1, 1], 3: [1, 1, 2], 4: [1, 1, 3]}),
        ("both", {1: [1, 1], 2: [1, 1, 1], 3: [1, 1, 2], 4: [1, 1, 3]}),
        ("space", {1: [1, 1], 2: [1, 1, 1], 3: [1, 1, 2], 4: [1, 1, 3]}),
        ("strided", {1: [1, 1], 2: [1, 2], 3: [1, 3], 4: [1, 3, 1]}),
        ("strided released", {1: [2], 2: [3], 3: [3, 1], 4: [3, 2]}),
    ],
)
def test_short_inputs(name, next_lengths, n):
    ids = [vocab.BOS, vocab.EOS, 36, 101][:n]
    scheme, settings = name.split()[0], SETTINGS[name]
    want = next_lengths[n]
    assert patching.lengths(ids, scheme, entropies=[1.0] * n, **settings) == want
    shorter = want[:-1] + [want[-1] - 1] * (want[-1] > 1)
    assert patching.lengths(ids, scheme, entropies=[1.0] * n, include_next=False, **settings) == shorter


def test_strict_thresholds_and_the_reference_example():
    e = [5, 1, 1, 6, 1, 1, 7, 1]
    ids = [1] + [101] * 7
    assert patching.lengths(ids, "entropy", entropies=e, threshold=4.9) == [1, 3, 3, 2]
    assert patching.lengths(ids, "monotonic", entropies=e, threshold=0.5) == [1, 1, 2, 3, 2]
    assert patching.lengths(ids, "both", entropies=e, threshold=4.9, delta=0.5) == [1, 1, 2, 3, 2]
    assert patching.lengths(ids, "entropy", entropies=e, threshold=6) == [1, 6, 2]
    assert patching.lengths(ids, "monotonic", entropies=e, delta=5) == [1, 1, 5, 2]


@pytest.mark.parametrize("name", SETTINGS)
def test_incremental(name):
    for seed in range(5):
        ids, entropies = text(seed)
        whole = starts(name, ids, entropies)
        np.testing.assert_array_equal(starts(name, ids, entropies, include_next=True)[:, :-1], whole)
        for cut in range(1, ids.shape[1]):
            prefix = starts(name, ids[:, :cut], entropies[:, :cut], include_next=True)
            np.testing.assert_array_equal(prefix, whole[:, : cut + 1])


@pytest.mark.parametrize("name", SETTINGS)
def test_device_equals_host_and_rows_are_independent(name):
    ids, entropies = text(11)
    for include_next in (False, True):
        host = starts(name, ids, entropies, include_next=include_next)
        device = jax.jit(lambda i, e: starts(name, i, e, include_next=include_next))(ids, entropies)
        assert host.dtype == device.dtype == bool and host.shape == (4, 60 + include_next)
        np.testing.assert_array_equal(device, host)
        for row in range(4):
            np.testing.assert_array_equal(
                starts(name, ids[row], entropies[row], include_next=include_next), host[row]
            )
        deeper = starts(name, ids.reshape(2, 2, -1), entropies.reshape(2, 2, -1), include_next=include_next)
        np.testing.assert_array_equal(deeper.reshape(host.shape), host)


def test_a_traced_threshold_is_no_constant():
    ids, entropies = text(2)
    at = jax.jit(
        lambda t: patching.starts(jnp.asarray(ids), "entropy", entropies=jnp.asarray(entropies), threshold=t)
    )
    for threshold in (1.0, 3.25):
        np.testing.assert_array_equal(
            at(threshold), patching.starts(ids, "entropy", entropies=entropies, threshold=threshold)
        )


@pytest.mark.parametrize("name", [name for name in SETTINGS if "max" not in name])
def test_max_length_only_cuts(name):
    ids, entropies = text(5, rows=1, n=200)
    settings = dict(entropies=entropies[0], **SETTINGS[name])
    free = patching.lengths(ids[0], name.split()[0], **settings)
    assert sum(free) == 201
    assert patching.lengths(ids[0], name.split()[0], max_length=0, **settings) == free
    for limit in (1, 2, 3, 7):
        cut = [piece for n in free for piece in [limit] * (n // limit) + [n % limit] * (n % limit > 0)]
        assert patching.lengths(ids[0], name.split()[0], max_length=limit, **settings) == cut


def test_random_has_its_mean_and_depends_on_seed_position_and_prefix():
    rng = np.random.default_rng(0)
    ids = vocab.encode_document(rng.integers(97, 123, 100_000).astype(np.uint8).tobytes())
    for mean in (1, 2.5, 4.5, 8):
        mask = patching.starts(ids, "random", mean=mean, seed=1)
        assert mask[:2].all() and abs(ids.size / mask.sum() / mean - 1) < 0.03
    ones = np.full(100_000, 101, np.int32)  # a constant text must not make a constant coin
    assert abs(ones.size / patching.starts(ones, "random", mean=4, seed=1).sum() / 4 - 1) < 0.03
    a, b = patching.starts(ids, "random", mean=4, seed=1), patching.starts(ids, "random", mean=4, seed=2)
    assert 0.3 < (a & b).sum() / a.sum() * 4 / 3 < 0.4  # independent coins agree on a quarter of the starts
    changed = ids.copy()
    changed[500] += 1
    c = patching.starts(changed, "random", mean=4, seed=1)
    assert (a[:501] == c[:501]).all() and 0.2 < (a & c)[501:].sum() / a[501:].sum() < 0.3


def test_bpe_starts():
    mask = patching.bpe_starts([3, 1, 2], 8)
    np.testing.assert_array_equal(mask, [1, 1, 0, 0, 1, 1, 0, 1])
    np.testing.assert_array_equal(patching.bpe_starts([], 2), [1, 1])
    for counts in ([3, 1], [3, 0, 3], [3, 1, 3]):
        with pytest.raises(UserError):
            patching.bpe_starts(counts, 8)


def test_starts_from_lengths_inverts_lengths():
    ids, entropies = text(3)
    mask = starts("entropy", ids, entropies, include_next=True)
    rows = [np.diff(np.append(np.flatnonzero(row), row.size)) for row in mask]
    padded = np.zeros((4, max(map(len, rows)) + 2), np.int32)
    for row, values in zip(padded, rows):
        row[: len(values)] = values
    padded[1, -1] = -1  # transformers ends shorter rows with -1
    for n in (61, 60, 30):
        np.testing.assert_array_equal(patching.starts_from_lengths(padded, n), mask[:, :n])
        np.testing.assert_array_equal(
            jax.jit(patching.starts_from_lengths, static_argnums=1)(jnp.asarray(padded), n), mask[:, :n]
        )


@pytest.mark.parametrize(
    "scheme, settings",
    [
        ("words", {}),
        ("bpe", {}),
        ("strided", {}),
        ("strided", dict(stride=0)),
        ("strided", dict(stride=2.5)),
        ("random", {}),
        ("random", dict(mean=0)),
        ("random", dict(mean=0.5)),
        ("random", dict(mean=float("nan"))),
        ("random", dict(mean=float("inf"))),
        ("entropy", dict(threshold=1)),
        ("entropy", dict(entropies=np.zeros(8))),
        ("entropy", dict(entropies=np.zeros(7), threshold=1)),
        ("entropy", dict(entropies=np.full(8, np.nan), threshold=1)),
        ("entropy", dict(entropies=np.zeros(8), threshold=float("nan"))),
        ("entropy", dict(entropies=["x"] * 8, threshold=1)),
        ("entropy", dict(entropies=np.zeros(8), threshold="x")),
        ("monotonic", dict(entropies=np.zeros(8))),
        ("both", dict(entropies=np.zeros(8), threshold=1)),
        ("both", dict(entropies=np.zeros(8), delta=1)),
        ("space", dict(max_length=-1)),
        ("space", dict(max_length=2.5)),
        ("space", dict(bos_alone=False)),
    ],
)
def test_bad_arguments_are_one_line(scheme, settings):
    for function in (patching.starts, patching.lengths):
        with pytest.raises(UserError) as error:
            function(np.full(8, 101), scheme, **settings)
        assert "\n" not in str(error.value)


def test_ids_must_be_whole_numbers_in_a_row():
    for ids in (np.zeros((2, 3), np.int32), np.zeros(4)):
        with pytest.raises(UserError):
            patching.lengths(ids, "space")


@pytest.mark.parametrize(
    "scheme, size",
    [("strided", 3), ("space", 1), ("random", 4), ("entropy", 1), ("monotonic", 1), ("both", 1)],
)
@pytest.mark.parametrize("limit", [0, 4])
@pytest.mark.parametrize("resolution", [0, patching.RESOLUTION, 0.5])
def test_piece_by_piece(scheme, size, limit, resolution):
    """`advance` decides what `starts` decides, however the ids are cut, and from any of the places that it
    has passed."""
    rng = np.random.default_rng(0)
    text = b"a b,  cd! \xc3\xa9 xyz 42\n\n\tif (x): pass" * 3
    ids = np.stack(
        [vocab.encode_document(text), np.concatenate([[vocab.BOS], rng.integers(4, 260, len(text) + 1)])]
    ).astype(np.int32)
    entropies = rng.exponential(2.0, ids.shape).astype(np.float32)
    config = cfg.patching(
        scheme, size, threshold=1.5, delta=0.5, max_length=limit, seed=7, resolution=float(resolution)
    )
    whole = patching.starts(ids, scheme, entropies=entropies, include_next=True, **segmentation.rule(config))
    progress, at = patching.begin(2), 0
    while at < ids.shape[1]:
        C, kept = int(rng.integers(1, 9)), int(rng.integers(1, 9))
        piece = slice(at, at + C)
        start, after = patching.advance(
            config, progress, jnp.asarray(ids[:, piece]), jnp.asarray(entropies[:, piece])
        )
        kept = min(kept, start.shape[1])
        np.testing.assert_array_equal(start, whole[:, at + 1 : at + 1 + start.shape[1]])
        progress = jax.tree.map(lambda x: x[:, kept - 1], after)
        at += kept


def test_rounded_entropies_cut_the_same_whatever_their_last_bits(rng_seed=0):
    rng = np.random.default_rng(rng_seed)
    ids = np.concatenate([[vocab.BOS], rng.integers(4, 260, 5000)]).astype(np.int32)
    entropies = rng.uniform(0, 5.5, len(ids)).astype(np.float32)
    stored = np.round(entropies / patching.RESOLUTION).astype(np.uint16)
    assert stored.max() < 2**16 - 1 and np.log(vocab.SIZE) / patching.RESOLUTION < 2**16
    at_rest = stored.astype(np.float32) * np.float32(patching.RESOLUTION)
    np.testing.assert_array_equal(patching.rounded(entropies, patching.RESOLUTION), at_rest)
    assert np.abs(at_rest - entropies).max() <= patching.RESOLUTION / 2
    for scheme in ("entropy", "monotonic", "both"):
        settings = dict(threshold=2.0 + patching.RESOLUTION / 2, delta=0.5 + patching.RESOLUTION / 2)
        live = patching.lengths(ids, scheme, entropies=entropies, resolution=patching.RESOLUTION, **settings)
        assert live == patching.lengths(ids, scheme, entropies=at_rest, **settings)
        assert live != patching.lengths(ids, scheme, entropies=patching.rounded(entropies, 1.0), **settings)
