"""Every test runs on the CPU backend, and a broadcast between ranks that nobody wrote down is an error."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
