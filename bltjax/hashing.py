"""The public name of `bltjax.patching.hashing`, which others script against."""

from bltjax.patching.hashing import ngram_hashes

__all__ = ["ngram_hashes"]
