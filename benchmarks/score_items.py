"""Short multiple-choice items a second, by log-likelihood, and where their time goes.

    python -m benchmarks.score_items MODEL ... [--items 1000] [--choices 2,4]

Items are made of this repository's documents, of PIQA's shape: a context of some 60 bytes and choices of some
40. All programs are compiled by a first round, which is not counted. Seconds are the process's CPU seconds
(user and system, all threads), which a machine's other work hardly moves, and the items a second are those of
two cores that are busy all the time; `wall` is what the clock said. Stages are measured in a round of their
own, in which nothing runs beside anything else; `rest` is what Python does between them."""

import argparse
import functools
import os
import pathlib
import random
import resource
import sys
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from bltjax.parallel import host

host.keep_memory()

import jax

from bltjax import api
from bltjax.errors import UserError
from bltjax.evaluation import encoding, likelihood, multiple_choice, row_patches
from bltjax.sweep import plan

CORES = 2
STAGES = ("encoding", "entropies", "patching", "model")


def items(count: int, choices: int, seed: int = 0) -> list[dict]:
    """Items of multiple choice, cut from the documents of this repository; the answers are drawn, too."""
    folder = pathlib.Path(__file__).resolve().parent.parent / "docs"
    text = " ".join(
        " ".join(path.read_text(encoding="utf-8").split()) for path in sorted(folder.rglob("*.md"))
    )
    draw = random.Random(seed)

    def cut(size):
        at = draw.randrange(len(text) - 4 * size)
        return text[at : at + max(5, int(draw.gauss(size, size / 3)))]

    return [
        {
            "id": str(i),
            "context": f"Question: {cut(43)}\nAnswer:",
            "choices": [f" {cut(40)}" for _ in range(choices)],
            "answer": draw.randrange(choices),
        }
        for i in range(count)
    ]


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def timed(spent: dict, stage: str, function):
    """`function`, whose CPU seconds are added to its stage, less those of stages within it."""

    @functools.wraps(function)
    def measured(*args, **kwargs):
        before, inner = cpu(), sum(spent.values())
        found = jax.block_until_ready(function(*args, **kwargs))
        spent[stage] += cpu() - before - (sum(spent.values()) - inner)
        return found

    return measured


def stages(model, asked) -> dict:
    """CPU seconds of each stage of one round, and of the rest."""
    spent = dict.fromkeys(STAGES, 0.0)
    scorer, compiled = likelihood._scorer, row_patches._compiled
    kept = [
        (encoding.Encoding, "pair", timed(spent, "encoding", encoding.Encoding.pair)),
        (row_patches, "_compiled", lambda c: timed(spent, "entropies", compiled(c))),
        (row_patches, "starts", timed(spent, "patching", row_patches.starts)),
        (likelihood, "_scorer", lambda c: timed(spent, "model", scorer(c))),
    ]
    kept = [(owner, name, getattr(owner, name), new) for owner, name, new in kept]
    before = cpu()
    try:
        for owner, name, _, new in kept:
            setattr(owner, name, new)
        multiple_choice.score(model, asked)
    finally:
        for owner, name, old, _ in kept:
            setattr(owner, name, old)
    return spent | {"rest": cpu() - before - sum(spent.values())}


def measured(path: str, count: int, choices: int, rounds: int) -> tuple:
    """A line of the table."""
    model, asked = api.load(path), items(count, choices)
    multiple_choice.score(model, asked)
    best = wall = float("inf")
    for _ in range(rounds):
        before, began = cpu(), time.perf_counter()
        multiple_choice.score(model, asked)
        best, wall = min(best, cpu() - before), min(wall, time.perf_counter() - began)
    each = stages(model, asked)
    return (
        model.folder.name,
        model.config.patching.scheme,
        str(choices),
        f"{CORES * count / best:,.0f}",
        f"{count / wall:,.0f}",
        f"{1000 * best / count:.2f}",
        *(f"{1000 * seconds / count:.2f}" for seconds in each.values()),
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--choices", default="2,4", help="choices of an item, a table's line each")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    host.keep_compiled_programs()
    rows = [("model", "patches", "choices", "items/s", "wall", "CPU s/1,000", *STAGES, "rest")]
    try:
        for path in args.models:
            for choices in args.choices.split(","):
                rows.append(measured(path, args.items, int(choices), args.rounds))
                print(f"{rows[-1][0]}, {choices} choices: done", file=sys.stderr, flush=True)
    except UserError as error:
        print(f"score_items: {error}", file=sys.stderr)
        return 2
    print("\n".join(plan.aligned(rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
