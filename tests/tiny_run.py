"""A run small enough to train many times in a test: `python tests/tiny_run.py RUN_DIR [key=value ...]` trains
it on one pinned core.

--die-in-save=STEP and --die-before-manifest=STEP kill the process with SIGKILL at those moments of the
checkpoint of that step."""

import os
import signal
import sys
import time

import numpy as np

from bltjax import config as configs

STEPS, ROWS, TOKENS, VOCAB = 24, 4, 16, 37


class TinyRows:
    """Rows of a token model; a batch is a function of its step alone. Contents are learnable: each token
    follows from the last."""

    capacity = {"rows": ROWS, "slots": ROWS * TOKENS, "patches": 0}

    def __init__(self, pause: float = 0.0):
        self.pause = pause

    def batch(self, step):
        rng = np.random.default_rng([7, step])
        start = rng.integers(0, VOCAB, (ROWS, 1))
        tokens = ((start + np.arange(TOKENS + 1) * 5) % VOCAB).astype(np.int32)
        mask = (np.arange(TOKENS) < rng.integers(3, TOKENS + 1, (ROWS, 1))).astype(np.int32)
        return dict(
            tokens=tokens[:, :-1],
            doc_ids=np.ones((ROWS, TOKENS), np.int32),
            targets=tokens[:, 1:],
            loss_mask=mask,
            target_bytes=1 + tokens[:, 1:] % 3,
        )

    def iterator(self, start, stop):
        for step in range(start, stop):
            time.sleep(self.pause)
            yield self.batch(step)

    def counts(self, steps):
        batches = [self.batch(step) for step in range(steps)]
        used = np.array([b["loss_mask"].sum() for b in batches])
        return {
            "bytes": np.array([(b["loss_mask"] * b["target_bytes"]).sum() for b in batches]),
            "slots": used,
            "patches": 0 * used,
        }


def tiny_config(**changes):
    model = configs.transformer("token", vocab=VOCAB, width=16, layers=2, heads=2, ffn_multiple=8)
    return configs.replace(
        configs.run("tiny", "bpe", model), **{"train.lr": 1e-2, "train.checkpoint_every": 6, **changes}
    )


def bigram_params(width=4):
    return {
        "read": np.full((VOCAB, width), 0.01, np.float32),
        "write": np.linspace(-1, 1, width * VOCAB, dtype=np.float32).reshape(width, -1),
    }


def bigram_nats(model_config, params, batch):
    """A model that compiles in a moment, where a test is about the loop and not about the model."""
    import jax

    scores = jax.nn.log_softmax(params["read"][batch["tokens"]] @ params["write"])
    nats = -(scores * jax.nn.one_hot(batch["targets"], VOCAB)).sum(-1) * batch["loss_mask"]
    count = (batch["target_bytes"] * batch["loss_mask"]).sum().astype("float32")
    return dict(
        loss=nats.sum(),
        targets=batch["loss_mask"].sum().astype("float32"),
        byte_nats=nats.sum(),
        bytes=count,
        eos_nats=0 * nats.sum(),
        eos=0 * count,
    )


def run(run_dir, config=None, rows=None, steps=STEPS, real=False, **more):
    """Trains; `real`: the token model itself."""
    from bltjax.training import loop

    more = more if real else {"init_params": bigram_params(), "loss_fn": bigram_nats, **more}
    return loop.train(
        config or tiny_config(),
        rows or TinyRows(),
        run_dir,
        steps=steps,
        useful_per_step=np.linspace(1e6, 1.3e6, steps),
        executed_per_step=2e6,
        **{"progress": False, **more},
    )


def main():
    run_dir, *options = sys.argv[1:]
    from bltjax.training import checkpoint

    die = lambda: os.kill(os.getpid(), signal.SIGKILL)
    for option in [o for o in options if o.startswith("--die-")]:
        options.remove(option)
        when, at = option.split("=")
        if when == "--die-in-save":
            save = checkpoint.ocp.AsyncCheckpointer.save
            checkpoint.ocp.AsyncCheckpointer.save = lambda self, path, *a, **k: (
                save(self, path, *a, **k),
                path.name == at and die(),
            )
        else:
            seal = checkpoint.write_text
            checkpoint.write_text = lambda path, text, durable: (
                die() if path.name.startswith(at + ".") else seal(path, text, durable)
            )
    run(run_dir, configs.parse_set(tiny_config(), options), TinyRows(pause=0.02), real=True)


if __name__ == "__main__":
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[os.getpid() % len(cores)]})
    os.environ["JAX_PLATFORMS"] = "cpu"
    from bltjax.errors import UserError

    try:
        main()
    except UserError as error:
        sys.exit(f"{type(error).__name__}: {error}")


class FailingAt(TinyRows):
    """Calls `what` when the loop asks for the batch of a step."""

    def __init__(self, step, what):
        super().__init__()
        self.step, self.what = step, what

    def iterator(self, start, stop):
        for step in range(start, stop):
            if step == self.step:
                self.what()
            yield self.batch(step)
