"""Splits as they were asked for, whatever repeats in a source: near-copies leave, boilerplate links nothing,
and how much test text is trained on is measured."""

import hashlib
import json

import numpy as np
import pytest

from bltjax import config as cfg
from bltjax.cli.main import main
from bltjax.data import corpus, near_copies, prepare, shingles
from bltjax.errors import UserError


def words(seed, count):
    """Text that repeats nothing longer than a word or so."""
    rng = np.random.default_rng(seed)
    return " ".join("%x" % n for n in rng.integers(0, 2**32, count))


def edited(text, seed, share):
    """A text of which a share of the words is others."""
    rng = np.random.default_rng(seed)
    return " ".join("%x" % rng.integers(0, 2**32) if rng.random() < share else word for word in text.split())


def made(tmp_path, documents, **changes):
    """(manifest, {split: documents}) of a list of texts."""
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    settings = cfg.replace(
        cfg.data(), source="files", globs=(str(tmp_path / "texts.jsonl"),), **{"min_bytes": 1, **changes}
    )
    manifest = prepare.prepare(settings, tmp_path / "out")
    found = corpus.shards(tmp_path / "out")
    return manifest, {
        split: [d.decode() for d in corpus.Documents([one for one in found if one.split == split])]
        for split in corpus.SPLITS
    }


def within_error(sizes, share, found):
    """Whether the documents that were drawn hold about their share: within four standard errors."""
    sizes = np.asarray(sizes, float)
    return abs(found - share * sizes.sum()) <= 4 * np.sqrt(share * (1 - share) * (sizes**2).sum())


def exact_overlap(test, train):
    """The share of test text's shingles, every one of them, that training text has."""
    hashes = lambda texts: [shingles.hashes(np.frombuffer(text.encode(), np.uint8)) for text in texts]
    trained = np.sort(np.concatenate(hashes(train)))
    own = np.concatenate([np.unique(own) for own in hashes(test)])
    return (trained[np.minimum(np.searchsorted(trained, own), len(trained) - 1)] == own).mean()


def clusters(count, sizes=range(1, 31), share=0.03):
    """(texts, the cluster of each) with clusters of near-copies of each size."""
    texts, of = [], []
    for size in sizes:
        for again in range(count):
            original = words(1000 * size + again, 60 + 7 * (again + size) % 90)
            for member in range(size):
                texts.append(edited(original, 1000 * member + again, share if member else 0))
                of.append((size, again))
    return texts, of


@pytest.mark.parametrize("share", [0.01, 0.02])
def test_clusters_of_near_copies(tmp_path, share):
    texts, of = clusters(6, share=share)
    cluster = dict(zip(texts, of))
    manifest, found = made(tmp_path, texts, test=0.05, validation=0.05)
    sizes = [len(text) for text in set(texts)]
    for split in ("test", "validation"):  # before near-copies leave: documents and bytes as asked
        drawn = manifest["drawn"][split]
        assert within_error(np.ones(len(sizes)), 0.05, drawn["documents"])
        assert within_error(sizes, 0.05, drawn["bytes"])
        # after: no more than was drawn, which was more for groups that went together
        assert manifest["splits"][split]["documents"] <= drawn["documents"]
        assert len(found[split]) == manifest["splits"][split]["documents"] > 20
    kinds = {split: [cluster[text] for text in some] for split, some in found.items()}
    assert len(set(kinds["test"])) == len(kinds["test"])  # near-copies of one text are kept once
    assert not set(kinds["test"]) & set(kinds["train"]) and not set(kinds["test"]) & set(kinds["validation"])
    assert not set(kinds["validation"]) & set(kinds["train"])
    assert manifest["test_overlap"]["all"] < 0.01 and exact_overlap(found["test"], found["train"]) < 0.01
    reasons, read = manifest["near_copies"], len(set(texts))
    assert (
        all(reasons[why] for why in list(reasons)[:4])
        and sum(reasons.values()) == manifest["counts"]["near_copies"]
    )
    assert sum(map(len, found.values())) + manifest["counts"]["near_copies"] == read


# Shingles and what is made of them


def test_hashes_are_of_the_shingles_own_bytes():
    text = np.frombuffer(words(1, 100).encode(), np.uint8)
    hashes = shingles.hashes(text)
    assert len(hashes) == len(text) - 49 and len(np.unique(hashes)) == len(hashes)
    assert np.array_equal(shingles.hashes(text[17:117]), hashes[17:68])
    assert len(shingles.hashes(text[:49])) == 0
    changed = text.copy()
    changed[200] ^= 1
    assert np.flatnonzero(shingles.hashes(changed) != hashes).tolist() == list(range(151, 201))


def sampled(documents, sampling=4):
    """[the sampled hashes of each document]."""
    found = []
    for count, hashes, owners in shingles.sampled(documents, sampling):
        found += [hashes[owners == i].tolist() for i in range(count)]
    return found


def test_samples_are_the_same_whatever_the_blocks(monkeypatch):
    documents = [words(i, 40 + 10 * i).encode() for i in range(12)] + [b"short", b"", b"x" * 5000]
    own = [shingles.hashes(np.frombuffer(document, np.uint8)) for document in documents]
    expected = [np.unique(hashes[hashes % np.uint64(4) == 0]).tolist() for hashes in own]
    for block in (1 << 18, 500, 700, 10_000):
        monkeypatch.setattr(shingles, "BLOCK", block)
        assert sampled(documents) == expected


def test_who_is_a_near_copy_of_whom():
    a, b, c = (words(i, 400).encode() for i in range(3))
    held = near_copies.HeldOut(shingles.sampled([a, b, c], 4), tests=2)
    others = [
        a.replace(b"a", b"A", 40),
        b[: len(b) // 2] + words(4, 400).encode(),
        c[1000:1600],  # inside of it
        words(5, 400).encode(),
        a[:300] + words(6, 400).encode(),  # a passage
        b"short",
    ]
    hits = [held.match(shingles.sampled(some, 4)) for some in ([a, b], [c], others)]
    for some in hits:
        held.count(some)
    held.settle(9)
    test, validation, stay = near_copies.TEST, near_copies.VALIDATION, near_copies.STAYS
    assert held.decide(hits[0], "test", 0).tolist() == [stay, stay]
    assert held.decide(hits[1], "validation", 2).tolist() == [stay]
    why = held.decide(hits[2], "train", 3)
    assert why.tolist() == [test, test, validation, stay, stay, stay]
    holds = held.hold(hits[2], why == stay)
    assert 250 / 4 * 0.6 < holds[4] < 250 / 4 * 1.4 and not holds[3]
    counted = np.bincount(holds[why == stay], minlength=near_copies.TOP)
    assert held.limit(counted) == holds[4] + 1  # dear: one document of three
    many = counted.copy()
    many[0] += 50
    assert near_copies.FEWEST <= held.limit(many) <= holds[4]
    shares = {limit: held.overlap(limit)["all"][0] for limit in (near_copies.NEVER, held.limit(many))}
    assert list(shares.values()) == [holds[4], 0]


def test_memory_of_held_out_text_is_bounded():
    for size in (10**3, 10**7, 10**9, 10**12):
        assert size / near_copies.sampling_for(size) <= near_copies.MOST
    assert near_copies.sampling_for(10**7) == near_copies.SAMPLING
    assert [near_copies.many(n) for n in (10, 100, 400, 10**4, 10**6)] == [8, 12.5, 50, 50, 1000]


# Boilerplate

LICENCE = words(1, 400)


BOILERPLATE = {
    "510 files of which 500 share a long licence": (
        [LICENCE + words(10 + i, 150) for i in range(500)] + [words(5000 + i, 150) for i in range(10)]
    ),
    "short files that are mostly licence": [LICENCE + words(10 + i, 20) for i in range(400)],
    "a header in every file": [words(2, 30) + words(10 + i, 100) for i in range(300)],
    "two licences": [(LICENCE if i % 2 else words(3, 300)) + words(10 + i, 30) for i in range(300)],
    "a few dozen files, all with the licence": [LICENCE + words(10 + i, 40) for i in range(40)],
    "a licence that is cut in many ways": [LICENCE[i:] + words(10 + i, 40) for i in range(300)],
}


@pytest.mark.parametrize("name", BOILERPLATE)
def test_boilerplate_links_nothing(tmp_path, name):
    texts = BOILERPLATE[name]
    manifest, found = made(tmp_path, texts, test=0.1, validation=0.1)
    assert sum(map(len, found.values())) == len(texts) and not manifest["counts"]["near_copies"]
    for split in ("test", "validation"):
        assert within_error(np.ones(len(texts)), 0.1, len(found[split])) and found[split]
    assert manifest["test_overlap"]["without_boilerplate"] < 0.01
    if "licence" in name:
        assert manifest["test_overlap"]["all"] > 0.2
        assert abs(manifest["test_overlap"]["all"] - exact_overlap(found["test"], found["train"])) < 0.05


def test_what_repeats_among_boilerplate_is_still_found(tmp_path):
    texts = [LICENCE + words(10 + i, 60) for i in range(200)]
    again = [LICENCE + edited(text[len(LICENCE) :], i, 0.03) for i, text in enumerate(texts)]
    manifest, found = made(tmp_path, texts + again, test=0.1, validation=0.1)
    origin = {text: i % 200 for i, text in enumerate(texts + again)}
    trained = {origin[text] for text in found["train"]}
    assert not trained & {origin[text] for text in found["test"] + found["validation"]}
    assert len(found["train"]) > 200 and manifest["near_copies"]["train_repeats_test"] > 10


def test_long_passages_of_test_text_are_not_trained_on(tmp_path):
    texts = [words(i, 400) for i in range(300)]
    # too little for a copy
    quoting = [text[:600] + words(1000 + i, 700) for i, text in enumerate(texts[:60])]
    manifest, found = made(tmp_path, texts + quoting, test=0.1, validation=0.1)
    assert manifest["near_copies"]["train_holds_test_passages"] > 0
    assert manifest["test_overlap"]["without_boilerplate"] <= near_copies.OVERLAP
    assert len(found["train"]) > 0.9 * manifest["drawn"]["train"]["documents"]


@pytest.fixture(scope="module")
def standard_library(tmp_path_factory):
    out = tmp_path_factory.mktemp("stdlib") / "out"
    return prepare.prepare(cfg.data(), out), out


def test_the_standard_library(standard_library):
    manifest, out = standard_library
    found = corpus.shards(out)
    texts = lambda split: [
        d.decode("latin-1") for d in corpus.Documents([one for one in found if one.split == split])
    ]
    exact = exact_overlap(texts("test"), texts("train"))
    assert manifest["test_overlap"]["without_boilerplate"] < 0.02 and exact < 0.03
    assert corpus.test_overlap([out]) == manifest["test_overlap"]
    total = manifest["drawn"]
    documents = sum(one["documents"] for one in total.values())
    left = manifest["counts"]["near_copies"]
    lengths = corpus.Documents(found).lengths
    for split in ("test", "validation"):
        share = cfg.data()[split]
        assert within_error(np.ones(documents), share, total[split]["documents"])
        assert within_error(lengths, share, total[split]["bytes"])
        assert within_error(np.ones(documents - left), share, manifest["splits"][split]["documents"])
        assert within_error(lengths, share, manifest["splits"][split]["bytes"])
    assert left < 0.05 * documents


# Small corpora


@pytest.mark.parametrize("count", [3, 4, 7, 24])
@pytest.mark.parametrize("fraction", [1e-9, 0.03, 0.4999999])
def test_no_split_is_empty_where_three_documents_are(tmp_path, count, fraction):
    texts = [words(i, 60) for i in range(count)]
    changes = dict(test=fraction, validation=fraction)
    manifest, found = made(tmp_path, texts, **changes)
    assert all(found.values()) and sorted(sum(found.values(), [])) == sorted(texts)
    texts.reverse()  # the order of the source does not matter
    (tmp_path / "again").mkdir()
    assert {
        split: set(some) for split, some in made(tmp_path / "again", texts * 2, **changes)[1].items()
    } == {split: set(some) for split, some in found.items()}
    if fraction < 0.01:  # the documents nearest to the splits: those whose digests come first
        place = lambda text: int.from_bytes(hashlib.sha256(text.encode()).digest()[-8:], "big")
        assert [found["test"], found["validation"]] == [[text] for text in sorted(texts, key=place)[:2]]
        assert len(manifest["moved"]) == 2


def test_a_split_that_would_be_empty_is_said(tmp_path, capsys):
    for i in range(5):
        (tmp_path / f"{i}.txt").write_text(words(i, 50))
    arguments = [
        "data",
        "prepare",
        "files",
        f"{tmp_path}/*.txt",
        "--set",
        "data.test=1e-9",
        "--set",
        "validation=0",
    ]
    assert main([*arguments, "--out", str(tmp_path / "out"), "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["splits"]["test"]["documents"] == 1 and found["splits"]["validation"]["documents"] == 0
    assert "no document fell into test text" in err and "no validation text" in err
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0  # there already
    assert "no validation text" in capsys.readouterr().err
    assert main(["data", "inspect", str(tmp_path / "out")]) == 0
    assert "no validation text" in capsys.readouterr().out


def test_too_few_documents(tmp_path):
    for texts in ([words(0, 50)], [words(0, 50), words(1, 50)] * 4):
        with pytest.raises(UserError, match="cut a long text into several"):
            made(tmp_path, texts)
        assert not list((tmp_path / "out").glob(".part*/"))
    assert made(tmp_path, [words(0, 50)], test=0.0, validation=0.0)[1]["train"]


# The command line


def test_json_and_the_names_of_keys(tmp_path, capsys):
    for i in range(60):
        (tmp_path / f"{i}.txt").write_text(words(i, 50))
    arguments = ["data", "prepare", "files", f"{tmp_path}/*.txt"]
    found = []
    for i, changes in enumerate((["data.test=0.2", "data.validation=0.1"], ["test=0.2", "validation=0.1"])):
        sets = [part for item in changes for part in ("--set", item)]
        assert main([*arguments, "--out", str(tmp_path / f"out{i}"), *sets, "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0] == found[1] and set(found[0]["splits"]) == {"train", "validation", "test"}
    assert found[0]["splits"]["test"]["documents"] > 4 and found[0]["test_overlap"] == {
        "all": 0,
        "without_boilerplate": 0,
    }
    assert main(["data", "inspect", str(tmp_path / "out0"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["test_overlap"] == found[0]["test_overlap"]
    for verb in (
        ["data", "inspect", str(tmp_path / "out0")],
        [*arguments, "--out", str(tmp_path / "out0"), *sets],
    ):
        assert main(verb) == 0
        assert "test overlap: 0.00% of test text" in capsys.readouterr().out
    for old, new in (
        ("held_out=0.1", "test"),
        ("data.held_out=0.1", "test"),
        ("data.tuning=0.1", "validation"),
    ):
        assert main([*arguments, "--out", str(tmp_path / "bad"), "--set", old]) == 2
        assert f"now called {new}" in capsys.readouterr().err


def test_data_of_another_version_is_other_data(tmp_path, monkeypatch):
    texts = [words(i, 50) for i in range(20)]
    made(tmp_path, texts)
    monkeypatch.setattr(prepare, "PREPARE_VERSION", prepare.PREPARE_VERSION + 1)
    with pytest.raises(UserError, match="other settings"):
        made(tmp_path, texts)


def test_the_overlap_of_several_parts(tmp_path):
    for i in range(6):
        (tmp_path / f"{i}.jsonl").write_text(
            "".join(json.dumps({"text": LICENCE + words(100 * i + j, 60)}) + "\n" for j in range(60))
        )
    settings = cfg.replace(
        cfg.data(), source="files", globs=(f"{tmp_path}/*.jsonl",), test=0.2, validation=0.1
    )
    parts = [prepare.prepare(settings, tmp_path / "out", part=part, parts=2) for part in range(2)]
    counts = np.array([manifest["test_shingles"]["all"] for manifest in parts]).sum(axis=0)
    assert corpus.test_overlap([tmp_path / "out"])["all"] == counts[0] / counts[1] > 0.5
