"""A training step of a 1B model: the largest batch that fits, remat as measured, MFU, memory, slowest
kernels.

What fits is asked of the compiler, which says a program's memory before anything runs: a probe of few rows
for each remat, then the largest power of two that this lets expect, halved while it is too much. The best of
the remats is the one with most useful FLOPs per second.
"""

import gzip
import time
from concurrent.futures import ThreadPoolExecutor

import jax

from benchmarks.gpu import inputs, machine, trace
from benchmarks.gpu.record import first_line, out_of_memory
from bltjax import config as cfg
from bltjax import flops, models
from bltjax.models.kernels import attention
from bltjax.training import step as training

STEPS = 1000  # of the schedule; the cost of a step does not depend on it
TRACING = 15  # seconds that are kept for the trace of the best
SHARE = 0.85  # of the memory limit: programs of many rows were found to need up to a ninth more
# Memory is asked for without trying out algorithms on the device, which takes most of a compilation.
PROBE = {"xla_gpu_autotune_level": 0}


def run(settings, record, which: str) -> None:
    """record: config facts, "candidates" (one a remat and batch), "best", "trace"."""
    config = inputs.run_config(settings, which)
    rows = inputs.rows_of(config, settings.most_rows)
    record.update(
        model=which,
        hash_rows=config.model.ngrams.rows if config.model.kind == "blt" else 0,
        params=flops.count(config)["params"],
        row={"slots": rows.slots, "patches": rows.patches, "context": config.data.context},
        attention=attention.chosen(jax.default_backend(), jax.numpy.dtype(config.model.dtype)),
        memory_limit=settings.memory_limit or machine.memory_limit(),
        candidates=[],
    )
    record.save()
    bench = Bench(settings, record, config, rows)
    expected = bench.expected(settings.remats[which])
    best, took = None, 0.0
    for remat, count in expected.items():
        if record.left() < TRACING + 1.3 * took:
            record["candidates"].append({"remat": remat, "rows": count, "error": "not tried: no time left"})
            continue
        began = time.perf_counter()
        measured = bench.largest(remat, count)
        took = max(took, time.perf_counter() - began)
        if measured and (best is None or measured[0]["useful_tflops"] > best[0]["useful_tflops"]):
            best = measured
            record["best"] = best[0]
            record.save()
    if best is None:
        record["error"] = "no batch fits or runs: see candidates"
        return
    try:
        record["trace"] = bench.traced(*best)
    except Exception as error:  # the numbers above stand without a trace
        record["trace"] = {"error": first_line(error)}


class Bench:
    """One model's state on the device, and the steps that are tried on it."""

    def __init__(self, settings, record, config, rows):
        self.settings, self.record, self.config, self.rows = settings, record, config, rows
        self.state = None
        self.shapes = jax.eval_shape(self._fresh)

    def _fresh(self):
        params = models.init(self.config.model, jax.random.key(0))
        return training.init_state(self.config.train, STEPS, params)

    def compiled(self, remat: str, batch: dict, options: dict | None = None):
        """The step's program for a batch of these shapes."""
        model = cfg.replace(self.config.model, remat=remat)
        step = training.make_step(model, self.config.train, STEPS)
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch)
        return step.lower(self.shapes, shapes).compile(compiler_options=options)

    def largest(self, remat: str, count: int):
        """(measurements, program, batch) of the largest batch of at most `count` rows that fits under a
        remat; None where none does."""
        while count:
            batch = self.rows.batch(count)
            one = {"remat": remat, "rows": count}
            self.record["candidates"].append(one)
            with self.record.kept():
                if (program := self._tried(one, batch)) is not None:
                    return one, program, batch
            if not one["out_of_memory"]:
                if not self._falls_back(one["error"]):
                    return None
                continue
            count //= 2
        return None

    def expected(self, remats) -> dict[str, int]:
        """Rows of the largest power of two that the memory of a few rows' program lets expect, by remat."""
        if not self.record["memory_limit"]:
            return dict.fromkeys(remats, self.settings.most_rows)
        with ThreadPoolExecutor() as pool:  # compilers work beside each other: nothing runs on the device
            found = dict(zip(remats, pool.map(self._expected, remats)))
        self.record.save()
        errors = [one["error"] for one in self.record["candidates"] if "error" in one]
        return self.expected(remats) if errors and self._falls_back(errors[-1]) else found

    def _falls_back(self, error: str) -> bool:
        """From the chip's own attention, which may be what failed, to plain blocks: a number without it is
        worth more than none. False where that is done already, or there is no such kernel."""
        if self.record["attention"] == "blocks":
            return False
        attention.chosen = lambda platform, dtype: "blocks"
        self.record["attention"], self.record["attention_error"] = "blocks", error
        return True

    def _expected(self, remat: str) -> int:
        probe = self.settings.probe_rows
        one = {"remat": remat, "rows": probe, "probe": True}
        self.record["candidates"].append(one)
        try:
            began = time.perf_counter()
            stats = self.compiled(remat, self.rows.batch(probe), PROBE).memory_analysis()
            one["compile_s"], one["program_bytes"] = time.perf_counter() - began, needed(stats)
        except Exception as error:  # whatever a chip's compiler or kernels raise is a finding
            one["error"] = first_line(error)
            return probe
        # Gradients are float32 and as many as parameters, whatever the batch; all else grows with it.
        fixed = sum(leaf.size * 4 for leaf in jax.tree.leaves(self.shapes.params))
        each = max(1.0, (stats.temp_size_in_bytes - fixed) / probe)
        room = SHARE * self.record["memory_limit"] - (needed(stats) - each * probe)
        count = 1
        while count < self.settings.most_rows and 2 * count * each <= room:
            count *= 2
        return count

    def _tried(self, one: dict, batch: dict):
        """Compiles and measures a candidate; the program, or None with `error` and `out_of_memory` said."""
        one["out_of_memory"] = False
        try:
            began = time.perf_counter()
            program = self.compiled(one["remat"], batch)
            one["compile_s"] = time.perf_counter() - began
            one["program_bytes"] = needed(program.memory_analysis())
            limit = self.record["memory_limit"]
            if limit and one["program_bytes"] > limit:
                one["out_of_memory"], one["error"] = True, "the program needs more memory than there is"
                return None
            self._measure(one, program, batch)
            return program
        except Exception as error:  # a finding too
            one["error"], one["out_of_memory"] = first_line(error), out_of_memory(error)
            self.state = None  # its memory may have been given to the step that failed
            return None

    def _measure(self, one: dict, program, batch: dict) -> None:
        s, batch = self.settings, jax.device_put(batch)
        if self.state is None:
            self.state = self._fresh()
        self._steps(program, batch, s.warmup)
        seconds, metrics = [], None
        while len(seconds) < s.steps and (len(seconds) < 3 or sum(seconds) < s.step_seconds):
            began = time.perf_counter()
            metrics = self._steps(program, batch, 1)
            seconds.append(time.perf_counter() - began)
        one["loss"], one["finite"] = float(metrics["loss"]), bool(metrics["finite"])
        one["step_s"] = sorted(seconds)[len(seconds) // 2]
        one["steps_s"] = [round(x, 5) for x in seconds]
        one["peak_bytes"] = machine.peak_memory()  # of the process so far
        one.update(self.rates(one["rows"], one["step_s"]))

    def _steps(self, program, batch, count: int):
        metrics = None
        for _ in range(count):
            self.state, metrics = program(self.state, batch)
        jax.block_until_ready((self.state, metrics))
        return metrics

    def rates(self, count: int, seconds: float) -> dict:
        """Bytes and FLOPs per second of a step, and MFU by both counts of FLOPs (null on an unknown chip)."""
        counts = self.rows.counts(count)
        useful = flops.train_flops(self.config, counts)
        executed = flops.executed_step(self.config, count, self.rows.slots, self.rows.patches)
        peak = machine.peak()
        return {
            "bytes_per_s": counts["bytes"] / seconds,
            "slots_filled": counts["slots"] / (count * self.rows.slots),
            "patches_filled": counts["patches"] / (count * self.rows.patches) if self.rows.patches else None,
            "useful_flops": useful,
            "executed_flops": executed,
            "useful_tflops": useful / seconds / 1e12,
            "executed_tflops": executed / seconds / 1e12,
            "mfu_useful": useful / seconds / peak if peak else None,
            "mfu_executed": executed / seconds / peak if peak else None,
        }

    def traced(self, one: dict, program, batch: dict) -> dict:
        """The slowest kernels of the best candidate."""
        batch = jax.device_put(batch)
        if self.state is None:
            self.state = self._fresh()
        self._steps(program, batch, 1)
        text, steps = program.as_text(), self.settings.traced_steps
        with gzip.open(self.record.path.parent / f"{self.record['part']}.hlo.gz", "wt") as file:
            file.write(text)
        found = trace.kernels(lambda: self._steps(program, batch, steps), steps, text)
        return {"remat": one["remat"], "rows": one["rows"], **found}


def needed(stats) -> int:
    """Device bytes of a program while it runs: arguments, results not in their place, temporaries, code."""
    return int(
        stats.argument_size_in_bytes
        + stats.output_size_in_bytes
        - stats.alias_size_in_bytes
        + stats.temp_size_in_bytes
        + stats.generated_code_size_in_bytes
    )
