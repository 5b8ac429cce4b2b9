"""Bytes per second of generation: 1B shapes with random weights, greedy, by the library's own generator."""

import pathlib

import jax

from benchmarks.gpu import inputs, machine
from benchmarks.gpu.record import first_line
from bltjax import api, models
from bltjax.generation import Options
from bltjax.tokenizers import bpe

TRAINING_TEXT = 2_000_000  # bytes, of the tokenizer


def run(settings, record, which: str) -> None:
    """record["runs"]: one entry a batch. The first call of each compiles, the second is the measurement.
    Random weights may end a text early, so that rates count the bytes that came."""
    config = inputs.run_config(settings, which)
    tokenizer = None
    if config.model.kind == "token":
        tokenizer = bpe.train_bpe([inputs.text(TRAINING_TEXT)], settings.tokenizer_vocab)
    params = models.init(config.model, jax.random.key(0))
    model = api.Model(
        config, lambda: params, pathlib.Path("random weights"), None, tokenizer and (lambda: tokenizer)
    )
    record["model"], record["runs"] = which, []
    options = Options(max_new_bytes=settings.new_bytes)
    for batch in settings.batches:
        prompts = [inputs.text(settings.prompt_bytes, seed) for seed in range(batch)]
        one = {"batch": batch, "prompt_bytes": settings.prompt_bytes}
        record["runs"].append(one)
        with record.kept():
            try:
                one["first_s"] = model.generator.generate(prompts, options).seconds
                made = model.generator.generate(prompts, options)
                one.update(made.facts(), finished=sum(made.finished), peak_bytes=machine.peak_memory())
            except Exception as error:  # the other batch may still run
                one["error"] = first_line(error)
