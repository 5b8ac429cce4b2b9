"""Training throughput, ours against Hugging Face's Blt on the CPU, both sides in one run and in turn.

    python benchmarks/train_vs_hf.py                           # T 1024 batch 4, and T 8192 batch 1
    python benchmarks/train_vs_hf.py --length 1024 --batch 4 --peer-python ~/hf/bin/python

The peer (hf_blt_peer.py, which states the model) needs `pip install torch==2.13.0 transformers` (extra
`parity`), here or in the environment of --peer-python. Ours is the same shape with the preset `released`:
same text, patches of 4 and 5 bytes in turn, float32, AdamW, the whole step jitted, optimizer included. Each
side gets --threads threads and --rounds rounds, in turn, so that whatever else the machine does meets both; a
side's figure is its median step over all rounds. Prints one JSON line per shape."""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
TARGETS = {1024: 1.0, 8192: 2.0}  # times the peer's bytes per second, by length


def ours(args) -> dict:
    """One round of ours, in this process: median step in seconds."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    if hasattr(os, "sched_setaffinity"):  # before JAX starts: its thread pool takes its size from here
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-args.threads :])
    sys.path.insert(0, str(HERE.parent))
    from bltjax.parallel import host

    host.keep_memory()
    import glob
    import sysconfig

    import jax
    import numpy as np
    import optax
    import peer_shape

    from bltjax import models
    from bltjax.formats.released_batches import batch_from_lengths
    from bltjax.models import loss
    from bltjax.patching import vocab

    model = peer_shape.blt_model()
    files = sorted(glob.glob(sysconfig.get_paths()["stdlib"] + "/*.py"))[:60]
    text = vocab.encode(b"".join(open(name, "rb").read() for name in files))
    optimizer = optax.adamw(3e-4, 0.9, 0.95, weight_decay=0.1)

    def step(params, state, batch):
        def mean(params):
            sums = loss.nats(model, params, batch)
            return sums["loss"] / sums["targets"]

        value, gradient = jax.value_and_grad(mean)(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    def batch_of(number):
        starts = [
            (number * args.batch + row) * 7919 % (len(text) - args.length - 1) for row in range(args.batch)
        ]
        rows = np.stack([text[start : start + args.length + 1] for start in starts])
        lengths = [1]
        while sum(lengths) < args.length + 1:
            lengths.append(min(4 if len(lengths) % 2 else 5, args.length + 1 - sum(lengths)))
        batch = batch_from_lengths(rows[:, :-1], [lengths] * args.batch)
        return batch | dict(targets=rows[:, 1:], loss_mask=np.ones_like(batch["bytes"]))

    params = models.init(model, jax.random.key(0))
    state = jax.jit(optimizer.init)(params)
    began = time.perf_counter()
    train = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, batch_of(0)).compile()
    compile_s = time.perf_counter() - began
    times = []
    for number in range(args.steps + 2):
        batch = batch_of(number)
        began = time.perf_counter()
        params, state, value = train(params, state, batch)
        value.block_until_ready()
        times.append(time.perf_counter() - began)
    return dict(step_s=statistics.median(times[2:]), compile_s=round(compile_s, 1))


def run(command) -> dict:
    """The JSON line that a side printed last."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--length",
        type=int,
        default=0,
        help="bytes in a row (default: 1024 with batch 4, then 8192 with batch 1)",
    )
    parser.add_argument("--batch", type=int, default=0)
    parser.add_argument("--steps", type=int, default=7, help="timed steps of a round, after two others")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--peer-python", default=sys.executable, help="the Python that has torch and transformers"
    )
    parser.add_argument("--ours", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.ours:
        print(json.dumps(ours(args)))
        return
    if subprocess.run([args.peer_python, "-c", "import torch, transformers"], capture_output=True).returncode:
        sys.exit(
            f"{args.peer_python} has no torch and transformers: pip install torch==2.13.0 transformers (extra"
            " `parity`), or name another Python with --peer-python"
        )
    shapes = (
        [(args.batch or max(1, 4096 // args.length), args.length)] if args.length else [(4, 1024), (1, 8192)]
    )
    for batch, length in shapes:
        common = [
            "--batch",
            str(batch),
            "--length",
            str(length),
            "--steps",
            str(args.steps),
            "--threads",
            str(args.threads),
        ]
        here, there = (
            [sys.executable, __file__, "--ours", *common],
            [args.peer_python, str(HERE / "hf_blt_peer.py"), "train", *common],
        )
        rounds = [(run(here), run(there)) for _ in range(args.rounds)]
        ours_s, peer_s = (statistics.median(side["step_s"] for side in sides) for sides in zip(*rounds))
        rate = lambda seconds: round(batch * length / seconds)
        target = TARGETS.get(length)
        print(
            json.dumps(
                dict(
                    batch=batch,
                    length=length,
                    threads=args.threads,
                    ours_bytes_per_s=rate(ours_s),
                    peer_bytes_per_s=rate(peer_s),
                    ratio=round(peer_s / ours_s, 2),
                    target=target,
                    reached=target is None or peer_s / ours_s >= target,
                    ours_step_s=[round(side["step_s"], 3) for side, _ in rounds],
                    peer_step_s=[side["step_s"] for _, side in rounds],
                    compile_s=rounds[0][0]["compile_s"],
                )
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
