"""Every test runs on the CPU backend, and a broadcast between ranks that nobody wrote down is an error.

Two thirds of the suite's time is XLA's compilation of programs that run for milliseconds. Here they are
compiled without most optimizations, in half of that time: what is computed is the same up to rounding.
Commands that tests start as processes of their own are compiled as users have them, but for those on many
devices."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_disable_most_optimizations", True)
