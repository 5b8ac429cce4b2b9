"""Whether what a model says of an item depends on what it is scored with.

    python -m benchmarks.batch_invariance MODEL ... [--items 1000]

Items of benchmarks/score_items.py, scored in several batch sizes, with other padding and in another order,
each against the first. Prints the largest difference of a log-likelihood (nats), how many texts were cut into
another number of patches, and of how many items another choice was taken, by the sum of nats, by nats a
character or a byte; exit status 1 where a choice or a patch changed, or a log-likelihood moved by more than
1e-4."""

import argparse
import random
import sys

from benchmarks import score_items  # first: it says what JAX runs on
from bltjax import api
from bltjax.errors import UserError
from bltjax.evaluation import encoding, likelihood
from bltjax.parallel import host
from bltjax.sweep import plan

MOST = 1e-4  # nats
# batch size (0: by length), least slots of a row, whether the order is another
WAYS = ((16, 16, False), (0, 16, False), (0, 16, True), (1, 64, False), (4, 64, True), (16, 128, False))


def scored(model, pairs, batch_size: int, least: int, shuffled: bool) -> list[likelihood.Likelihood]:
    """Of the pairs, in their order."""
    order = list(range(len(pairs)))
    if shuffled:
        random.Random(1).shuffle(order)
    told = likelihood.loglikelihoods(model, [pairs[i] for i in order], batch_size=batch_size, least=least)
    return [one for _, one in sorted(zip(order, told, strict=True), key=lambda both: both[0])]


def taken(asked: list[dict], told: list[likelihood.Likelihood]) -> list[tuple[int, ...]]:
    """The choice of each item by the sum, by nats a character, by nats a byte."""
    each, found = iter(told), []
    for item in asked:
        texts = [choice.removeprefix(" ") for choice in item["choices"]]
        nats = [next(each).value for _ in texts]
        by = ([1] * len(texts), [len(t) for t in texts], [len(t.encode("utf-8")) for t in texts])
        found.append(tuple(max(range(len(nats)), key=lambda i: nats[i] / sizes[i]) for sizes in by))
    return found


def compared(path: str, count: int, choices: int) -> list[tuple]:
    """A line a way of scoring."""
    model, asked = api.load(path), score_items.items(count, choices)
    ids = encoding.Encoding(model)
    pairs = [ids.pair(item["context"], choice) for item in asked for choice in item["choices"]]
    rows, first = [], None
    for batch_size, least, shuffled in WAYS:
        found = scored(model, pairs, batch_size, least, shuffled)
        first = first or found
        moved = max(abs(a.value - b.value) for a, b in zip(found, first, strict=True))
        cut = sum(a.patches != b.patches for a, b in zip(found, first, strict=True))
        changed = sum(a != b for a, b in zip(taken(asked, found), taken(asked, first), strict=True))
        print(f"{path}: batch {batch_size or 'auto'}: {moved:.1e}", file=sys.stderr, flush=True)
        rows.append((model.folder.name, batch_size or "auto", least, shuffled, moved, cut, changed))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--choices", type=int, default=2)
    args = parser.parse_args()
    host.keep_compiled_programs()
    try:
        found = [row for path in args.models for row in compared(path, args.items, args.choices)]
    except UserError as error:
        print(f"batch_invariance: {error}", file=sys.stderr)
        return 2
    head = ("model", "batch", "least slots", "order", "largest difference", "patches", "answers changed")
    shown = [
        (name, str(batch), str(least), "other" if other else "given", f"{moved:.1e}", str(cut), str(changed))
        for name, batch, least, other, moved, cut, changed in found
    ]
    print("\n".join(plan.aligned([head, *shown])))
    return int(any(moved > MOST or cut or changed for *_, moved, cut, changed in found))


if __name__ == "__main__":
    sys.exit(main())
