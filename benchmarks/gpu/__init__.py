"""Measures bltjax on one NVIDIA GPU in under eight minutes: `python -m benchmarks.gpu --out DIR`."""
