"""`python -m benchmarks.gpu --out DIR`: every part in its own process, one JSON, one table."""

import argparse
import importlib.util
import os
import pathlib
import shlex
import subprocess
import sys
import time

NEEDED = ("jax", "flax", "optax", "orbax", "ml_collections", "tokenizers", "numpy")
ROOT = pathlib.Path(__file__).resolve().parents[2]
ENVIRONMENT = {  # of the parts, unless set already
    "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92",  # JAX takes 75% otherwise; cuDNN and CUDA have the rest
    "TF_CPP_MIN_LOG_LEVEL": "1",
}
# Graphs of kernels hide their names from a trace, and recording one fails while another thread compiles. A
# step of seconds gains nothing from them; generation, which does, runs with them.
WITHOUT_GRAPHS = {"XLA_FLAGS": "--xla_gpu_enable_command_buffer="}
SMALL_ENVIRONMENT = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}  # a CPU compiles much faster


def main(argv=None) -> int:
    """Exit status: 0 where every part ended well, 1 where one did not, 2 where nothing could be measured."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description="Measures bltjax on one GPU."
    )
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder for gpu.json and gpu.log")
    parser.add_argument("--small", action="store_true", help="tiny shapes, to try the kit on any machine")
    parser.add_argument("--only", default="", help="some parts, by name, separated by commas")
    args = parser.parse_args(argv)
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        return unusable(
            f"missing Python packages: {', '.join(missing)} (benchmarks/gpu/README.md, \"Carrying\")"
        )
    from benchmarks.gpu import settings

    names = [part.name for part in settings.PARTS]
    only = [name.strip() for name in args.only.split(",") if name.strip()] or names
    if unknown := sorted(set(only) - set(names)):
        return unusable(f"--only: unknown {', '.join(unknown)}; allowed: {', '.join(names)}")
    parts = [part for part in settings.PARTS if part.name in only and (part.small or not args.small)]
    return measure(parts, args.out, args.small, list(sys.argv[1:] if argv is None else argv))


def unusable(line: str) -> int:
    print(line, file=sys.stderr)
    return 2


def measure(parts, out: pathlib.Path, small: bool, argv: list[str]) -> int:
    """Runs the parts and keeps gpu.json up to date after each."""
    from benchmarks.gpu import settings, summary
    from bltjax.storage import rundir

    out.mkdir(parents=True, exist_ok=True)
    total = settings.SMALL_SECONDS if small else settings.TOTAL_SECONDS
    began = time.monotonic()
    found = {
        "schema_version": 1,
        "command": shlex.join(["python", "-m", "benchmarks.gpu", *argv]),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "small": small,
        "parts": {},
    }
    with open(out / "gpu.log", "w") as log:
        for part in parts:
            left = total - (time.monotonic() - began)
            if left < settings.LEAST_SECONDS:
                record = {"error": f"skipped: {total} s were over"}
            else:
                record = run_part(part, min(total if small else part.seconds, left), out, small, log)
            if record.get("unusable"):
                return unusable(record["error"])
            found["parts"][part.name] = record
            found["seconds"] = round(time.monotonic() - began, 1)
            rundir.write_json(out / "gpu.json", found)
            state = record.get("error", "done")
            print(f"[{found['seconds']:5.0f} s] {part.name}: {state}", flush=True)
    print(summary.table(found))
    print(out / "gpu.json")
    return 1 if any("error" in record for record in found["parts"].values()) else 0


def run_part(part, seconds: float, out: pathlib.Path, small: bool, log) -> dict:
    """What the part wrote, however it ended."""
    from bltjax.storage import rundir

    file = (out / f"{part.name}.part.json").absolute()
    command = [sys.executable, "-m", "benchmarks.gpu.part", part.name, str(file), f"{seconds:.0f}"] + [
        "--small"
    ] * small
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    print(f"--- {part.name}", file=log, flush=True)
    own = {} if part.module == "generate" else WITHOUT_GRAPHS
    own = SMALL_ENVIRONMENT if small else own
    ended = ""
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**ENVIRONMENT, **own, **os.environ, "PYTHONPATH": path},
            stdout=log,
            stderr=subprocess.STDOUT,
            timeout=seconds,
        )
        if done.returncode not in (0, 1, 2):
            ended = f"ended by signal or crash (exit status {done.returncode}): see gpu.log"
    except subprocess.TimeoutExpired:
        ended = f"cut after {seconds:.0f} s; what it had measured is kept"
    record = rundir.read_json(file) or {}
    file.unlink(missing_ok=True)
    if ended:
        record["error"] = ended
    elif not record:
        record["error"] = "wrote nothing: see gpu.log"
    return record


if __name__ == "__main__":
    sys.exit(main())
