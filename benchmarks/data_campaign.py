"""From text to a training run, at several sizes: what each stage needs of time and memory, which must not
grow with the text.

    python benchmarks/data_campaign.py --folder /tmp/campaign [--mb 100 1000] [--text DIRECTORY ...]

The text is the sources of this environment (and of --text: the kernel's, say, are 1.2 GB) as JSON lines;
where they do not suffice, again with the lines of each in another order. The entropy model is tiny, since
annotating is what it costs: one layer of 32. Each stage is a process of its own; MB/s are megabytes of text
for each second of one core that it used, and memory is the most that was resident. Prints a table."""

import argparse
import json
import os
import pathlib
import random
import subprocess
import sys
import sysconfig
import tempfile
import time

from ml_collections import ConfigDict

HERE = pathlib.Path(__file__).resolve()
SIZE, CONTEXT, STEPS = 4.5, 2048, 20
PIECE = 50_000_000  # bytes of a file of the corpus
ENDINGS = {".py", ".c", ".h", ".rst", ".S", ".dts", ".dtsi", ".txt", ".sh", ".rs", ".yaml"}
LONGEST = 1 << 24  # bytes: data.longest


def get_config(arg=None):
    """The experiment: one BLT on entropy patches and its entropy model."""
    from bltjax import config as cfg

    data = cfg.replace(
        cfg.data(),
        **{"source": "prepared", "context": CONTEXT, "rows": 4, "packing_buffer": 256, "patch_slack": 1.03},
    )
    evaluation = cfg.replace(cfg.evaluation(), test_bytes=50_000, validation_bytes=50_000)
    train = cfg.replace(cfg.training(), lr=4e-3)
    lm = cfg.run(
        "entropy-model",
        "entropy-model",
        cfg.transformer(
            "byte", vocab=260, width=32, layers=1, heads=1, window=16, rope_theta=1e4, ffn_multiple=32
        ),
        data_=data,
        training_=cfg.replace(train, steps=150),
        evaluation_=evaluation,
    )
    blt = cfg.blt_model(
        "released",
        local_width=32,
        encoder_layers=1,
        decoder_layers=1,
        local_heads=1,
        global_width=96,
        global_layers=2,
        global_heads=3,
        k=3,
        window=128,
        ngram_rows=4096,
        ffn_multiple=32,
    )
    run = cfg.run(
        "blt-entropy",
        "blt-entropy",
        blt,
        patching_=cfg.patching("entropy", SIZE),
        data_=data,
        entropy_model=lm,
        evaluation_=evaluation,
        training_=cfg.replace(train, steps=STEPS, warmup=5),
    )
    return ConfigDict(
        dict(
            claim="text of any size is prepared, annotated, calibrated and trained on in the same memory",
            figure="",
            runs=(lm, run),
        )
    ).lock()


def corpus(folder: pathlib.Path, size: int, more: list[str]) -> int:
    """JSON lines of `size` bytes of text; how many times each source was read."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = sysconfig.get_paths()
    files = sorted(
        {
            path
            for root in (paths["stdlib"], paths["purelib"], *more)
            for path in pathlib.Path(root).rglob("*")
            if path.suffix in ENDINGS and path.is_file() and path.stat().st_size <= LONGEST
        }
    )
    random.Random(0).shuffle(files)
    written, part, times, out = 0, 0, 0, None
    while written < size:
        for path in files:
            if out is None or out.tell() > PIECE:
                out = (folder / f"{part:03}.jsonl").open("w")
                part += 1
            text = path.read_text(errors="replace")
            if times:
                lines = text.split("\n")
                random.Random(times * 1_000_003 + len(text)).shuffle(lines)
                text = "\n".join(lines)
            out.write(json.dumps({"text": text}) + "\n")
            written += len(text.encode(errors="replace"))
            if written >= size:
                break
        times += 1
    out.close()
    return times


def measured(*arguments) -> dict:
    """Runs a command of ours, which is to end well: its last line, seconds, seconds of one core, and
    the most memory it held, in MB."""
    env = {"JAX_PLATFORMS": "cpu", **os.environ, "PYTHONPATH": str(HERE.parent.parent)}
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "bltjax.cli.main", *map(str, arguments)],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=env,
        )
        _, status, used = os.wait4(process.pid, 0)  # what this child used, and no other
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        last = out.read().strip().splitlines()[-1:]
    if process.returncode:
        sys.exit(f"bltjax {' '.join(map(str, arguments))} ended with {process.returncode}: {last}")
    return {
        "last": last,
        "seconds": time.perf_counter() - began,
        "core": used.ru_utime + used.ru_stime,
        "peak": used.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6,
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--mb", type=float, nargs="+", default=[100, 1000])
    parser.add_argument("--text", nargs="*", default=[], help="more directories of sources")
    args = parser.parse_args()
    print(
        "| MB | stage | seconds | MB/s of a core | peak MB | |\n| --- | --- | --- | --- | --- | --- |",
        flush=True,
    )
    for mb in args.mb:
        folder = args.folder / f"{mb:g}"
        times = corpus(folder / "text", int(mb * 1e6), args.text)
        prepared, runs = folder / "prepared", folder / "runs" / "campaign"

        def train(name):
            sources = ("data.folder", "entropy_model.data.folder")[: 1 if name == "entropy-model" else 2]
            sets = [word for key in sources for word in ("--set", f"{key}={prepared}")]
            return ("train", "--config", HERE, "--run", name, "--run-dir", runs / name, *sets)

        def show(name, found, text, note=""):
            rate = f"{text / found['core'] / 1e6:.2f}" if text else ""
            print(
                f"| {mb:g} | {name} | {found['seconds']:.0f} | {rate} | {found['peak']:.0f} | {note} |",
                flush=True,
            )

        found = measured("data", "prepare", "files", str(folder / "text" / "*.jsonl"), "--out", prepared)
        size = sum(
            shard["bytes"]
            for path in prepared.glob("part-*.json")
            for shard in json.loads(path.read_text())["shards"]
        )
        show("prepare", found, mb * 1e6, f"each source {times} times; {size / 1e6:.0f} MB kept")
        show("train the entropy model", measured(*train("entropy-model")), 0)
        lm = runs / "entropy-model"
        show("annotate", measured("data", "annotate", prepared, "--entropy-model", lm), size)
        found = measured(
            "data", "calibrate", "--data", prepared, "--entropy-model", lm, "--size", SIZE, "--json"
        )
        threshold = json.loads(found["last"][0])["threshold"]
        show("calibrate", found, size, f"threshold {threshold:.4f}")
        show(f"train, {STEPS} steps", measured(*train("blt-entropy")), 0)


if __name__ == "__main__":
    main()
