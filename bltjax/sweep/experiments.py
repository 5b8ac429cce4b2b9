"""Where the roof is reached from inside the package: the registry of experiments lives in `experiments/`, next to what it lists.

`bltjax.experiments` is that folder, in a checkout (bltjax/__init__.py) and in a wheel (setup.cfg) alike."""

from bltjax.experiments.registry import Experiment, load, names

__all__ = ["Experiment", "load", "names"]
