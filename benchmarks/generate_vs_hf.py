"""Greedy generation, ours against Hugging Face's Blt on the CPU, both sides in one run and in turn.

    # prompts of 64 and 824 bytes; then ours after 100 and 8,000
    python benchmarks/generate_vs_hf.py --peer-python ~/hf/bin/python
    python benchmarks/generate_vs_hf.py --no-peer

The peer (hf_blt_peer.py, which states the model) needs `pip install torch==2.13.0 transformers` (extra
`parity`), here or in the environment of --peer-python; it recomputes the prefix for every byte. Ours is the
same shape, random weights too, preset `released`: `entropy` runs an untrained patcher of the same shape at
the same threshold, `strided` patches of 4. A side's figure is its best of --rounds rounds (others on the
machine only slow it down); ours without compilation, which a first call pays, prompt included. Then, of ours
alone: the time of one more byte after 100 and after 8,000 bytes, and what drafts of 4 and 8 change. Prints a
table."""

import argparse
import glob
import json
import os
import pathlib
import subprocess
import sys
import sysconfig

HERE = pathlib.Path(__file__).resolve().parent
TARGETS = {64: 20, 824: 60}  # times the peer's bytes per second, by prompt
ROWS = "{:>8} {:>9} {:>12} {:>12} {:>8} {:>8}"


def models(threads: int):
    """{mode: our model}."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    if hasattr(os, "sched_setaffinity"):  # before JAX starts: its thread pool takes its size from here
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])
    sys.path.insert(0, str(HERE.parent))
    import jax
    import peer_shape

    from bltjax import api, config, models

    model = peer_shape.blt_model()
    lm = config.replace(
        config.transformer("byte", vocab=260, width=128, layers=4, heads=4, window=512, rope_theta=1e4),
        ffn=512,
    )
    patcher = api.Model(
        config.run("lm", "entropy-model", lm), lambda: models.init(lm, jax.random.key(1)), pathlib.Path("lm")
    )
    patchings = {
        "entropy": config.patching("entropy", 4.0, threshold=5.0),
        "strided": config.patching("strided", 4),
    }
    return {
        mode: api.Model(
            config.run("m", "blt-entropy", model, patching_=p),
            lambda: models.init(model, jax.random.key(0)),
            pathlib.Path("m"),
            lambda: patcher,
        )
        for mode, p in patchings.items()
    }


def text() -> bytes:
    files = sorted(glob.glob(sysconfig.get_paths()["stdlib"] + "/*.py"))[:60]
    return b"".join(open(name, "rb").read() for name in files)


def seconds(model, prompt: bytes, new: int, draft: int = 0) -> float:
    from bltjax.generation import Options

    return model.generator.generate([prompt], Options(new, draft=draft)).seconds


def peer(args, prompt: int) -> dict:
    command = [
        args.peer_python,
        str(HERE / "hf_blt_peer.py"),
        "generate",
        "--prompt",
        str(prompt),
        "--new",
        str(args.peer_new),
        "--threads",
        str(args.threads),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(
            f"the peer failed: {done.stderr.strip().splitlines()[-1:]}; --peer-python needs torch and"
            " transformers, or use --no-peer"
        )
    return json.loads(done.stdout.splitlines()[-1])["bytes_per_s"]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument(
        "--peer-new", type=int, default=200, help="bytes that the peer generates in a round; ours: --new"
    )
    parser.add_argument("--new", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    ours, data = models(args.threads), text()
    print(ROWS.format("prompt", "patches", "peer B/s", "ours B/s", "times", "wanted"))
    for length, wanted in TARGETS.items():
        best = {mode: {"peer": 0.0, "ours": 0.0} for mode in ours}
        for model in ours.values():
            seconds(model, data[:length], args.new)  # compiles
        for _ in range(args.rounds):
            rates = {} if args.no_peer else peer(args, length)
            for mode, model in ours.items():
                best[mode]["ours"] = max(
                    best[mode]["ours"], args.new / seconds(model, data[:length], args.new)
                )
                best[mode]["peer"] = max(best[mode]["peer"], rates.get(mode, 0.0))
        for mode, rate in best.items():
            times = f"{rate['ours'] / rate['peer']:.0f}" if rate["peer"] else "-"
            print(
                ROWS.format(
                    length,
                    mode,
                    f"{rate['peer']:.1f}" if rate["peer"] else "-",
                    f"{rate['ours']:.0f}",
                    times,
                    wanted,
                ),
                flush=True,
            )
    print(
        "\nms for one more byte of ours, after 100 bytes and after 8,000 (of --new bytes, the prompt's time"
        " taken off)"
    )
    for mode, model in ours.items():
        more = []
        for length in (100, 8000):
            prompt = data[:length]
            taken = {
                n: min(seconds(model, prompt, n) for _ in range(args.rounds + 1)) for n in (1, 1 + args.new)
            }
            more.append((taken[1 + args.new] - taken[1]) / args.new * 1e3)
        print(f"{mode:>9}: {more[0]:.3f} and {more[1]:.3f}, {more[1] / more[0]:.2f} times")
    print("\nbytes/s with drafts (BLT-S), prompt of 64: the same bytes")
    for mode, model in ours.items():
        rates = {
            k: max(args.new / seconds(model, data[:64], args.new, k) for _ in range(args.rounds + 1))
            for k in (0, 4, 8)
        }
        print(f"{mode:>9}: " + ", ".join(f"k {k}: {rate:.0f}" for k, rate in rates.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
