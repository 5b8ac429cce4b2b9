"""Files of text to be prepared, and what prepared data holds."""

import json

import numpy as np

from bltjax import config as cfg
from bltjax.data import corpus, sources


def text(seed, count=40):
    rng = np.random.default_rng(seed)
    return b" ".join(b"%x" % n for n in rng.integers(0, 2**32, count))


def eight_files(folder):
    """Eight files of twenty documents, some of them copies."""
    folder.mkdir()
    for i in range(8):
        lines = [{"text": text(100 * i + j).decode(), "lang": f"l{j % 3}"} for j in range(20)]
        lines += [{"text": text(5).decode(), "lang": "l2"}, {"text": "short", "lang": "l0"}]
        (folder / f"{i}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def data(texts, **changes):
    return cfg.replace(
        cfg.data(),
        **{
            "source": "files",
            "globs": (f"{texts}/*.jsonl",),
            "group_field": "lang",
            "test": 0.1,
            "validation": 0.1,
            **changes,
        },
    )


def content(directory):
    """{split: documents in order} of a prepared data set."""
    found = corpus.shards(directory)
    return {
        split: list(corpus.Documents([shard for shard in found if shard.split == split]))
        for split in corpus.SPLITS
    }


def files_of(directory):
    return {
        path.name: path.read_bytes()
        for path in sorted(directory.iterdir())
        if path.is_file() and not path.name.startswith(".")
    }


def read(settings):
    """Every document of a source that is long enough, in its own order."""
    every = (document for unit in sources.units(settings) for document, _ in unit.read())
    return [document for document in every if len(document) >= settings.min_bytes]
