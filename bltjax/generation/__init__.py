"""Generation that recomputes nothing: caches of every module, whole batches, one compiled loop."""

from bltjax.generation.generator import Generated, Generator, Options, characters

__all__ = ["Generated", "Generator", "Options", "characters"]
