"""The threshold of entropy patches: found for a run's own rows, so that they have the mean patch size asked
for."""

import functools
import math
import operator
from collections.abc import Callable

import numpy as np
from ml_collections import ConfigDict

from bltjax import config as cfg
from bltjax import patching
from bltjax.entropy import calibrate, histogram
from bltjax.run import budget

CALIBRATED = {"entropy": "threshold", "monotonic": "delta", "both": "threshold"}
# Bytes of documents, of a random order, whose scores are counted: the error of a mean is then a few tenths of
# a percent.
COUNTED = 1 << 31
# Positions: rows of more than these are as all the text is, and are not planned again to look.
LARGE = 1 << 24


def found(config: ConfigDict, documents, entropies, realized: Callable, of_few=None) -> ConfigDict:
    """The run's config with a number where its threshold (monotonic: its delta) was open, and with the
    rounding that entropies beside prepared data have.

    realized(config) -> mean patch size of the rows that the run would train on; of_few: of the first of them
    (None: they are few). An entropy model that came
    with a checkpoint brings its threshold along: the patch size is then what that gives. UserError where no
    threshold gives a size within 2% of patching.size."""
    key = CALIBRATED.get(config.patching.scheme)
    if key is None:
        return config
    config = cfg.replace(config, **{"patching.resolution": patching.RESOLUTION})
    at = lambda threshold: cfg.replace(config, **{f"patching.{key}": threshold})
    if not math.isnan(config.patching[key]):
        if budget.trained(config.entropy_model):
            return config
        return cfg.replace(config, **{"patching.size": realized(config)})
    scores = counted(config, documents, entropies)
    if documents.lengths.sum() > LARGE and not config.patching.max_length:
        return at(scores.threshold(config.patching.size))
    # Rows hold some of the documents only, and BOS again where one is cut.
    of_rows = lambda t: realized(at(t))
    of_few_rows = of_few and (lambda t: of_few(at(t)))
    return at(calibrate.approach(config.patching.size, scores.threshold, of_rows, of_few_rows)[0])


def counted(config: ConfigDict, documents, entropies) -> histogram.Histogram:
    """The scores of a run's training documents, of COUNTED bytes of them, for its scheme."""
    delta = None
    if config.patching.scheme == "both":
        delta = 0.0 if np.isnan(config.patching.delta) else config.patching.delta
    parts = documents.parts or [(0, len(documents), 1.0)]
    one_group, lengths = np.zeros(len(documents), np.int32), documents.lengths
    of_parts = []
    for first, last, _ in parts:
        numbers = first + histogram.sample(lengths[first:last], COUNTED // len(parts))
        of_parts.append(
            histogram.of_documents(entropies, numbers, one_group, config.patching.scheme, delta)[0]
        )
    if len(of_parts) == 1:
        return of_parts[0]
    whole = sum(one.positions for one in of_parts)  # each source counts as much as is read of it
    scaled = [one.scaled(weight * whole / one.positions) for one, (_, _, weight) in zip(of_parts, parts)]
    return functools.reduce(operator.add, scaled)
