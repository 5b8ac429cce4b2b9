"""What training changes, and a checkpoint holds."""

from typing import Any, NamedTuple

import jax


class TrainState(NamedTuple):
    params: Any  # nested dict of float32 arrays
    opt_state: Any  # optax
    step: jax.Array  # int32 [], updates done
