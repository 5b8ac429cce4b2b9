"""FLOP-controlled scaling experiments with the Byte Latent Transformer."""

import pathlib

_checkout = pathlib.Path(__file__).parent.parent
if (_checkout / "setup.cfg").exists() and (_checkout / "experiments").is_dir():
    # experiments/ and launch/ stand at the top of a checkout and inside the package in a wheel; this makes them
    # bltjax.experiments and bltjax.launch in both.
    __path__.append(str(_checkout))
