"""What a fit makes small, by name: two right answers to the same runs differ because of it.

huber: the sum (never the mean, which stops optimisers early: Besiroglu et al. 2024) of the Huber loss of
residuals in log loss, knee at delta; Hoffmann et al. 2022 take delta 1e-3.
scaled_huber: the likelihood of Besiroglu et al. 2024, whose scale is fitted too; its knee is delta times the
scale, so that at delta 1e-3 it is least absolute deviations in effect.
least_squares: half the sum of squared residuals of the loss itself.
log_least_squares: the same of log loss: noise in percent."""

import dataclasses

import numpy as np

NAMES = ("huber", "scaled_huber", "least_squares", "log_least_squares")
DELTA = 1e-3


@dataclasses.dataclass(frozen=True)
class Objective:
    """name: one of NAMES. delta: of the two with a knee."""

    name: str = "huber"
    delta: float = DELTA

    def __post_init__(self):
        if self.name not in NAMES:
            raise ValueError(f"no objective {self.name!r}; there are {', '.join(NAMES)}")
        if not self.delta > 0:
            raise ValueError(f"delta is above 0, not {self.delta}")

    @property
    def of_logs(self) -> bool:
        return self.name != "least_squares"

    @property
    def robust(self) -> bool:
        return self.name in ("huber", "scaled_huber")

    def __str__(self):
        return {
            "huber": f"sum of Huber losses of log loss, delta {self.delta:g}",
            "scaled_huber": f"Huber likelihood of log loss with free scale, delta {self.delta:g} of it",
            "least_squares": "half the sum of squares of loss",
            "log_least_squares": "half the sum of squares of log loss",
        }[self.name]

    def residuals(self, predicted, loss):
        """Of any shapes that broadcast; inf where nothing positive was predicted."""
        if not self.of_logs:
            return predicted - loss
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(predicted > 0, np.log(np.maximum(predicted, 1e-300)) - np.log(loss), np.inf)

    def knee(self, residuals_xN, weights_xN):
        """Where squares end, [...]: inf for least squares, delta, or delta times the fitted scale."""
        if not self.robust:
            return np.full(np.shape(residuals_xN)[:-1], np.inf)
        if self.name == "huber":
            return np.full(np.shape(residuals_xN)[:-1], self.delta)
        return self.delta * scale(residuals_xN, weights_xN, self.delta)

    def value(self, residuals_xN, weights_xN):
        """What is made small: [...]."""
        knee = self.knee(residuals_xN, weights_xN)
        total = (weights_xN * huber(residuals_xN, knee[..., None])).sum(-1)
        if self.name != "scaled_huber":
            return total
        sigma = knee / self.delta
        return total / sigma**2 + np.sum(weights_xN, -1) * (np.log(sigma) + np.log(_mass(self.delta)))


def huber(residuals, knee):
    """Half the square up to the knee, linear beyond."""
    size = np.abs(residuals)
    with np.errstate(invalid="ignore"):
        return np.where(size <= knee, np.square(size) / 2, knee * (size - knee / 2))


def _mass(delta: float) -> float:
    """Integral of exp(-huber): what makes the likelihood one."""
    from scipy.stats import norm

    return np.sqrt(2 * np.pi) * (1 - 2 * norm.sf(delta)) + 2 * np.exp(-(delta**2) / 2) / delta


def scale(residuals_xN, weights_xN, delta: float):
    """The scale of the likeliest Huber density about 0, by a fixed point: [...]."""
    size, weights_xN = np.abs(residuals_xN), np.broadcast_to(weights_xN, np.shape(residuals_xN))
    runs = weights_xN.sum(-1)
    sigma = delta * (weights_xN * size).sum(-1) / runs + 1e-300
    for _ in range(30):
        inside = size <= delta * sigma[..., None]
        square = (weights_xN * np.where(inside, np.square(size), 0)).sum(-1)
        linear = (weights_xN * np.where(inside, 0, size)).sum(-1) * delta
        # sigma² · runs = square + linear · sigma
        sigma = (linear + np.sqrt(np.square(linear) + 4 * runs * square)) / (2 * runs) + 1e-300
    return sigma
