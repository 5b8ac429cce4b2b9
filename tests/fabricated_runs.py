"""Fabricated run directories whose exponents, differences and best runs are known."""

import json
import math
import pathlib

import numpy as np

from bltjax.report import report as reporting
from bltjax.results import run_directories
from bltjax.science import bootstrap

LAWS = {
    "bpe": (60.0, 0.132),
    "blt-entropy": (85.0, 0.145),
    "blt-space": (70.0, 0.137),
    "blt-strided": (66.0, 0.131),
}


BUDGETS = (1e11, 3e11, 1e12)


DOCUMENTS = 60


def write(path: pathlib.Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def law(family: str, flops: float) -> float:
    a, alpha = LAWS[family]
    return a * flops**-alpha


def fabricated_scores(bpb: float, seed: int = 0, family_noise: float = 0.004) -> dict:
    """Documents whose difficulty all families share, with a little noise of each family's own; together
    exactly bpb."""
    hard = np.random.default_rng(0)
    sizes = (hard.lognormal(8.5, 1.0, DOCUMENTS)).astype(int) + 200
    level = np.exp(hard.normal(0, 0.25, DOCUMENTS)) * np.exp(
        np.random.default_rng(seed + 1).normal(0, family_noise, DOCUMENTS)
    )
    nats = sizes * level
    nats *= bpb * math.log(2) * sizes.sum() / nats.sum()
    documents = [{"bytes": int(n), "nats": float(x), "eos_nats": 2.5} for n, x in zip(sizes, nats)]
    return {
        "bpb": bpb,
        "eos_nats": 2.5 * DOCUMENTS,
        "bytes": int(sizes.sum()),
        "documents": documents,
        "documents_digest": "d" * 12,
        "patch_size": 4.4,
    }


def add_run(
    root,
    family,
    budget,
    *,
    bpb=None,
    validation=None,
    lr=1e-3,
    vocab=1024,
    name=None,
    share=0.7,
    documents=None,
    noise_seed=None,
    finished=True,
    seed=0,
    digest="d" * 12,
    changes=None,
    planned=None,
):
    """One run directory; returns its path. changes: dotted keys of the config; planned: of planned.json."""
    token = family == "bpe"
    bpb = law(family, budget) if bpb is None else bpb
    name = name or f"{family}-{budget:.0e}".replace("+", "")
    path = pathlib.Path(root) / name
    flops_per_byte = 30_000 if token else 45_000
    train_bytes = int(budget / flops_per_byte / 3)
    model = (
        dict(kind="token", vocab=vocab, width=128)
        if token
        else dict(kind="blt", vocab=260, local=dict(width=64))
    )
    config = dict(
        name=name,
        family=family,
        size="",
        seed=seed,
        budget_flops=budget,
        model=model,
        data=dict(context=512, rows=8),
        patching=dict(scheme="none" if token else family[4:], size=1.0 if token else 4.5),
        tokenizer=(
            dict(kind="trained", vocab=vocab, bytes_per_token=3.2) if token else dict(kind="none", vocab=0)
        ),
        train=dict(lr=lr),
    )
    for key, value in (changes or {}).items():
        *sections_, last = key.split(".")
        node = config
        for part in sections_:
            node = node.setdefault(part, {})
        node[last] = value
    write(
        path / "config.json",
        {
            "schema_version": 2,
            "experiment": "fabricated",
            "versions": {"python": "3.11.2", "jax": "0.10.2"},
            "cores": 1,
            "platform": "cpu",
            "data_fingerprint": "abc",
            "created": "2026-01-01T00:00:00Z",
            "config": config,
        },
    )
    entropy = dict(
        fingerprint="e1e2", train_flops=2.5e10, forward_flops_per_byte=9000.0, params=123_456, bpb=2.6
    )
    exact = dict(encoder=1.0, latent=10 * (1 - share), decoder=10 * share - 1)
    write(
        path / "planned.json",
        dict(
            steps=200,
            train_bytes=train_bytes,
            train_flops=budget * 1.002,
            executed_flops=budget * 1.2,
            patch_size=3.21 if token else 4.52,
            flops_per_byte_exact=flops_per_byte,
            flops_per_byte_paper=flops_per_byte * 0.9,
            params=dict(total=900_000, hash=0 if token else 300_000),
            threshold=1.4 if family == "blt-entropy" else None,
            delta=None,
            bytes_per_batch=4000,
            budget_flops=budget,
            packing_efficiency=dict(bytes=0.97, patches=0.88),
            entropy_model=entropy if family == "blt-entropy" else None,
            **({} if token else dict(flops_components=exact)),
        )
        | (planned or {}),
    )
    steps = np.arange(1, 201)
    noise = np.random.default_rng(7).normal(0, 0.05, 200)
    reached = steps if finished else steps[:50]
    with (path / "metrics.jsonl").open("w") as file:
        for s in reached:
            fraction = s / 200
            line = dict(
                step=int(s),
                loss=1.0,
                bpb=float(bpb * fraction**-0.18 + noise[s - 1]),
                bytes=int(train_bytes * fraction),
                patch_size=4.5,
                useful_flops=budget * 1.002 * fraction,
                executed_flops=budget * 1.2 * fraction,
            )
            file.write(json.dumps(line) + "\n")
    if finished:
        scored = fabricated_scores(
            bpb, noise_seed if noise_seed is not None else sum(family.encode()) + int(budget % 9973)
        )
        if documents is not None:
            scored["documents"] = documents
            scored["bpb"] = float(bootstrap.bpb(*([d[k] for d in documents] for k in ("nats", "bytes"))))
        scored["documents_digest"] = digest
        write(
            path / "eval.json",
            {
                "schema_version": 1,
                "test": scored,
                "validation": {"bpb": validation or bpb * 1.01},
                "upper_bound": token,
            },
        )
        write(
            path / "done.json",
            dict(realized_flops=budget * 1.002, wall_s=60.0, finished="2026-01-01T00:10:00Z"),
        )
    return path


def experiment(root, families=("bpe", "blt-entropy", "blt-space")) -> pathlib.Path:
    for family in families:
        for budget in BUDGETS:
            add_run(root, family, budget)
    return pathlib.Path(root)


def analysed(root) -> dict:
    """The numbers of a report, nothing drawn."""
    root = pathlib.Path(root)
    return reporting.analyse(root, run_directories.read_experiment(root))
