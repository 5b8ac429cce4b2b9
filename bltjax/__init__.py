"""FLOP-controlled scaling experiments with the Byte Latent Transformer."""

import pathlib

_checkout = pathlib.Path(__file__).parent.parent
if (_checkout / "setup.cfg").exists() and (_checkout / "experiments").is_dir():
    # experiments/ and launch/ stand at the top of a checkout and inside the package in a wheel; this makes
    # them bltjax.experiments and bltjax.launch in both.
    __path__.append(str(_checkout))

from bltjax.parallel import environment  # noqa: E402  (after the path; it imports no JAX)

environment.pin()  # whoever imports bltjax, in whatever order: before anything is computed


def __getattr__(name):
    if name == "load":  # late: importing JAX starts its threads, and a worker pins itself before that
        from bltjax.api import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
