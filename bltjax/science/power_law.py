"""Power laws of bits per byte in training FLOPs.

The 3-parameter fit is Chinchilla's third approach in one variable (Hoffmann et al. 2022): Huber loss, delta
1e-3, on log residuals, L-BFGS from a grid of starts. Besiroglu et al. 2024 showed what goes wrong: a loss
averaged (and so tiny) stops the optimiser early. Here it is summed, scaled by 1/delta² (which moves no
minimum) and the starts that agree are counted."""

import numpy as np
from scipy.optimize import minimize

from bltjax.science import exponent_interval

DELTA = 1e-3
THREE_PARAMETERS_FROM = 5  # points; below, E cannot be told from a small alpha
FLOOR = 1e-6  # E at least this fraction of the smallest bpb: log E must stay finite


def two_parameters(flops_N, bpb_N, weights_N):
    """Least squares of log bpb = log A - alpha·log C. Returns (log A, alpha)."""
    x, y = np.log(flops_N), np.log(bpb_N)
    mean = np.average(x, weights=weights_N)
    moments = weights_N * (x - mean)
    alpha = -(moments @ y) / (moments @ x)
    return np.average(y, weights=weights_N) + alpha * mean, alpha


def objective(theta, x, y):
    """Summed Huber loss of log residuals over delta², and its gradient. theta: (log E, log A at the centre,
    alpha); x centred log C."""
    e, a, alpha = theta
    power = a - alpha * x
    predicted = np.logaddexp(e, power)
    r = (predicted - y) / DELTA
    slope = np.clip(r, -1, 1) / DELTA
    weight = np.exp(power - predicted)
    loss = np.where(np.abs(r) <= 1, r * r / 2, np.abs(r) - 0.5).sum()
    return loss, np.array([(slope * (1 - weight)).sum(), (slope * weight).sum(), -(slope * weight * x).sum()])


def descend(theta, x, y):
    floor = np.log(FLOOR) + y.min()
    result = minimize(
        objective,
        theta,
        args=(x, y),
        jac=True,
        method="L-BFGS-B",
        bounds=[(floor, None), (None, None), (-2.0, 5.0)],
        options=dict(maxiter=3000, maxfun=6000, ftol=1e-14, gtol=1e-8),
    )
    return result.fun, result.x


def starts(x, y):
    """Grid of starts: E as a fraction of the smallest bpb; A and the exponent by least squares on what is
    left, and two fixed exponents."""
    low = np.exp(y.min())
    for fraction in (1e-4, 0.2, 0.4, 0.6, 0.8, 0.95):
        rest = np.log(np.exp(y) - fraction * low * 0.999)
        slope = -(rest @ x) / (x @ x)
        for alpha in (slope, 0.05, 0.3):
            yield np.array([np.log(fraction * low), rest.mean(), alpha])


def power_law(flops, bpb, noise: exponent_interval.Noise | None = None) -> dict | None:
    """Fit of bpb = E + A·C^-alpha to one point per budget; None below 3 points.

    flops, bpb: [N]. noise: of the points, for the interval of alpha. 3 or 4 points: E = 0 and the fit is a
    line in log-log, which "note" says; from 5 on all three parameters. Returns {"form", "E", "A", "alpha",
    "alpha_low", "alpha_high" (an end that the points do not bound is None), "alpha_if" (what the interval
    takes for granted), "freedom" (degrees of freedom of the runs' noise; None without an interval),
    "no_interval" (why there is none), "points", "low_flops", "high_flops", "largest_residual" (relative),
    "starts", "starts_agreeing", "note"}."""
    flops, bpb = np.asarray(flops, np.float64), np.asarray(bpb, np.float64)
    if len(np.unique(flops)) < 3:
        return None
    fit = dict(points=len(flops), low_flops=float(flops.min()), high_flops=float(flops.max()))
    if len(flops) < THREE_PARAMETERS_FROM:
        log_a, alpha = two_parameters(flops, bpb, noise.seeds_N if noise else np.ones(len(flops)))
        fit.update(
            form="A·C^-alpha",
            E=0.0,
            A=float(np.exp(log_a)),
            alpha=float(alpha),
            alpha_if="E is 0",
            note=(
                f"{len(flops)} points, too few to fit E (it takes {THREE_PARAMETERS_FROM}): E fixed at 0; not"
                " to be extrapolated"
            ),
        )
    else:
        centre = np.log(flops).mean()
        x, y = np.log(flops) - centre, np.log(bpb)
        found = sorted((descend(start, x, y) for start in starts(x, y)), key=lambda pair: pair[0])
        loss, (e, a, alpha) = found[0]
        agreeing = sum(other <= loss + 1e-3 * (1 + loss) for other, _ in found)
        fit.update(
            form="E + A·C^-alpha",
            E=float(np.exp(e)),
            A=float(np.exp(a + alpha * centre)),
            alpha=float(alpha),
            alpha_if="",
            starts=len(found),
            starts_agreeing=int(agreeing),
            note="",
        )
        if e < np.log(10 * FLOOR) + y.min():
            fit.update(note="the best E is 0: these budgets do not show a floor")
    fit.update(alpha_low=None, alpha_high=None, freedom=None, no_interval="")
    if noise is not None:
        found = exponent_interval.of(flops, bpb, len(flops) >= THREE_PARAMETERS_FROM, noise)
        low, high = found["low"], found["high"]
        # the fit shrugs off outliers, the interval does not: it reaches to the fit
        low = None if low is None else min(low, fit["alpha"])
        high = None if high is None else max(high, fit["alpha"])
        freedom = found["freedom"] or None
        fit.update(alpha_low=low, alpha_high=high, freedom=freedom, no_interval=found["why"])
    fit["largest_residual"] = float(np.abs(predict(fit, flops) / bpb - 1).max())
    return fit


def predict(fit: dict, flops):
    """bpb of the fit at given FLOPs."""
    return fit["E"] + fit["A"] * np.asarray(flops, np.float64) ** -fit["alpha"]
