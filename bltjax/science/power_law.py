"""Power laws of bits per byte in training FLOPs, and where two families' curves meet.

The 3-parameter fit is Chinchilla's third approach in one variable (Hoffmann et al. 2022): Huber loss, delta
1e-3, on log residuals, L-BFGS from a grid of starts. Besiroglu et al. 2024 showed what goes wrong: a loss
averaged (and so tiny) stops the optimiser early. Here it is summed, scaled by 1/delta² (which moves no
minimum) and the starts that agree are counted. """

import numpy as np
from scipy.optimize import minimize

from bltjax.science.bootstrap import interval

DELTA = 1e-3
THREE_PARAMETERS_FROM = 5  # points; below, E cannot be told from a small alpha
RESAMPLES_3 = 300  # each is an optimisation of its own
FLOOR = 1e-6  # E at least this fraction of the smallest bpb: log E must stay finite


def two_parameters(flops_N, bpb_xN):
    """Least squares of log bpb = log A - alpha·log C. bpb_xN: [..., N]. Returns (log A, alpha), each
    [...]."""
    x = np.log(flops_N)
    centred = x - x.mean()
    y = np.log(bpb_xN)
    alpha = -(y @ centred) / (centred @ centred)
    return y.mean(axis=-1) + alpha * x.mean(), alpha


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


def power_law(flops, bpb, samples=None) -> dict | None:
    """Fit of bpb = E + A·C^-alpha to one point per budget; None below 3 points.

    flops, bpb: [N]. samples: [S, N], the same points under resampled documents, for the interval of alpha. 3
    or 4 points: E = 0 and the fit is a line in log-log, which "note" says; from 5 on all three parameters.
    Returns {"form", "E", "A", "alpha", "alpha_low", "alpha_high", "points", "low_flops", "high_flops",
    "largest_residual" (relative), "starts", "starts_agreeing", "note"}. """
    flops, bpb = np.asarray(flops, np.float64), np.asarray(bpb, np.float64)
    if len(np.unique(flops)) < 3:
        return None
    fit = dict(points=len(flops), low_flops=float(flops.min()), high_flops=float(flops.max()))
    if len(flops) < THREE_PARAMETERS_FROM:
        log_a, alpha = two_parameters(flops, bpb)
        alphas = None if samples is None else two_parameters(flops, samples)[1]
        fit.update(
            form="A·C^-alpha",
            E=0.0,
            A=float(np.exp(log_a)),
            alpha=float(alpha),
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
        alphas = (
            None
            if samples is None
            else np.array([descend(found[0][1], x, np.log(row))[1][2] for row in samples[:RESAMPLES_3]])
        )
        agreeing = sum(other <= loss + 1e-3 * (1 + loss) for other, _ in found)
        fit.update(
            form="E + A·C^-alpha",
            E=float(np.exp(e)),
            A=float(np.exp(a + alpha * centre)),
            alpha=float(alpha),
            starts=len(found),
            starts_agreeing=int(agreeing),
            note="",
        )
        if e < np.log(10 * FLOOR) + y.min():
            fit.update(note="the best E is 0: these budgets do not show a floor")
    low, high = interval(alphas) if alphas is not None else (None, None)
    fit.update(alpha_low=low, alpha_high=high)
    fit["largest_residual"] = float(np.abs(predict(fit, flops) / bpb - 1).max())
    return fit


def predict(fit: dict, flops):
    """bpb of the fit at given FLOPs."""
    return fit["E"] + fit["A"] * np.asarray(flops, np.float64) ** -fit["alpha"]


def roots(x, difference_xM):
    """Where piecewise-linear differences change sign: [.., M] over increasing x [M] -> [.., M-1], nan where
    an interval has no root."""
    left, right = difference_xM[..., :-1], difference_xM[..., 1:]
    crosses = (left < 0) & (right > 0) | (left > 0) & (right < 0) | (left != 0) & (right == 0)
    step = np.where(crosses, left - right, 1.0)
    return np.where(crosses, x[:-1] + (x[1:] - x[:-1]) * left / step, np.nan)


def overlap(flops_a, flops_b):
    """The range of FLOPs that both families were measured in, or None."""
    low, high = max(np.min(flops_a), np.min(flops_b)), min(np.max(flops_a), np.max(flops_b))
    return (float(low), float(high)) if low < high else None


def onto(flops, knots):
    """Matrix [M, N] of linear interpolation in log FLOPs from measured points [N] (increasing) to knots [M]
    among them."""
    return np.stack([np.interp(np.log(knots), np.log(flops), unit) for unit in np.eye(len(flops))], axis=1)


def crossover_measured(flops_a, bpb_a, flops_b, bpb_b, samples_a=None, samples_b=None) -> dict:
    """Where two measured curves, straight between neighbouring points in log-log, meet; never outside what
    both were measured in.

    Returns {"flops": [crossings], "low", "high", "share"}: share of resampled document sets whose curves
    meet, and the interval of the first crossing among those. """
    none = dict(flops=[], low=None, high=None, share=None)
    order_a, order_b = np.argsort(flops_a), np.argsort(flops_b)
    flops_a, bpb_a = np.asarray(flops_a, np.float64)[order_a], np.asarray(bpb_a, np.float64)[order_a]
    flops_b, bpb_b = np.asarray(flops_b, np.float64)[order_b], np.asarray(bpb_b, np.float64)[order_b]
    span = overlap(flops_a, flops_b)
    if not span:
        return none
    knots = np.unique(np.clip(np.concatenate([flops_a, flops_b]), *span))
    a_MxN, b_MxN = onto(flops_a, knots), onto(flops_b, knots)
    at = roots(np.log(knots), a_MxN @ np.log(bpb_a) - b_MxN @ np.log(bpb_b))
    found = dict(none, flops=[float(value) for value in np.exp(at[np.isfinite(at)])])
    if samples_a is not None and samples_b is not None:
        drawn = roots(
            np.log(knots), np.log(samples_a[:, order_a]) @ a_MxN.T - np.log(samples_b[:, order_b]) @ b_MxN.T
        )
        first = np.nanmin(np.where(np.isfinite(drawn), drawn, np.inf), axis=1)
        met = first[np.isfinite(first)]
        low, high = interval(np.exp(met))
        found.update(share=float(len(met) / len(first)), low=low, high=high)
    return found


def crossover_fits(fit_a: dict, fit_b: dict) -> list:
    """FLOPs at which two fits meet, inside the range both were measured in."""
    span = overlap([fit_a["low_flops"], fit_a["high_flops"]], [fit_b["low_flops"], fit_b["high_flops"]])
    if not span:
        return []
    x = np.linspace(*np.log(span), 4001)
    at = roots(x, np.log(predict(fit_a, np.exp(x))) - np.log(predict(fit_b, np.exp(x))))
    return [float(value) for value in np.exp(at[np.isfinite(at)])]
