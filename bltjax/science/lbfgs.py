"""L-BFGS within bounds, of many starts at once: arrays of R starts step together, since one start of a law's
few parameters is work that only calls, and no arithmetic, would fill.

Directions are those of Nocedal and Wright 2006, algorithm 7.4, among the parameters that no bound holds
(projected as in Schmidt et al. 2009); steps satisfy the weak Wolfe conditions, found by bisection, which also
ends where the objective has kinks (Lewis and Overton 2013)."""

import numpy as np

MEMORY = 20  # pairs of steps and changes of the gradient
STEPS = 3000
TRIALS = 40  # lengths of one step
DECREASE, CURVATURE = 1e-4, 0.9
GAIN = 1e-14  # relative: a step that gains less gains nothing
IDLE = 5  # such steps one after the other, until a start is where it ends


def minimize(value, start_RxQ, low_Q, high_Q):
    """(points [R, Q], values [R]) that R starts come to. value: [R, Q] -> (values [R], gradients [R, Q])."""
    at = np.clip(np.asarray(start_RxQ, np.float64), low_Q, high_Q)
    reached = np.full(len(at), np.inf)
    found = at.copy()
    going = np.arange(len(at))  # which starts the arrays below are of
    f, g = value(at)
    steps = np.zeros((0, *at.shape))
    changes = np.zeros((0, *at.shape))
    idle = np.zeros(len(at), int)
    for _ in range(STEPS):
        free = ~((at <= low_Q) & (g > 0) | (at >= high_Q) & (g < 0))
        direction = _direction(g * free, steps * free, changes * free)
        direction = np.where(free, direction, 0.0)
        slope = (direction * g).sum(-1)
        uphill = ~(slope < 0)
        direction[uphill] = -(g * free)[uphill]
        fresh = uphill | (idle > 0) & (idle % 2 == 0) | (len(steps) == 0)
        direction[fresh] = -(g * free)[fresh]
        length = np.ones(len(at))
        size = np.sqrt(np.square(direction).sum(-1))
        length[fresh] = 0.1 / np.maximum(size[fresh], 1e-300)
        new, new_f, new_g = _step(value, at, f, g, direction, length, low_Q, high_Q)
        little = f - new_f <= GAIN * np.abs(f)
        idle = np.where(little, idle + 1, 0)
        steps = np.concatenate([steps[-MEMORY + 1 :], (new - at)[None]])
        changes = np.concatenate([changes[-MEMORY + 1 :], (new_g - g)[None]])
        at, f, g = new, new_f, new_g
        found[going], reached[going] = at, f
        stay = idle < IDLE
        if not stay.all():
            going, at, f, g, idle = going[stay], at[stay], f[stay], g[stay], idle[stay]
            steps, changes = steps[:, stay], changes[:, stay]
            if not len(going):
                break
    return found, reached


def _direction(g_RxQ, steps_MxRxQ, changes_MxRxQ):
    """The two loops: minus the inverse Hessian, as the pairs tell it, times the gradient. A pair that tells
    no positive curvature counts for nothing."""
    direction = -g_RxQ
    if not len(steps_MxRxQ):
        return direction
    curve_MxR = (steps_MxRxQ * changes_MxRxQ).sum(-1)
    square_MxR = np.square(changes_MxRxQ).sum(-1)
    length_MxR = np.square(steps_MxRxQ).sum(-1)
    told_MxR = curve_MxR > 1e-12 * np.sqrt(square_MxR * length_MxR)
    inverse_MxR = np.where(told_MxR, 1 / np.where(told_MxR, curve_MxR, 1.0), 0.0)
    shares = []
    for s, y, inverse in zip(steps_MxRxQ[::-1], changes_MxRxQ[::-1], inverse_MxR[::-1]):
        shares.append(inverse * (s * direction).sum(-1))
        direction = direction - shares[-1][:, None] * y
    scale = np.ones(len(g_RxQ))
    for curve, square, told in zip(curve_MxR, square_MxR, told_MxR):  # of the newest that tells one
        scale = np.where(told, curve / np.maximum(square, 1e-300), scale)
    direction = direction * scale[:, None]
    for s, y, inverse, share in zip(steps_MxRxQ, changes_MxRxQ, inverse_MxR, shares[::-1]):
        direction = direction + (share - inverse * (y * direction).sum(-1))[:, None] * s
    return direction


def _step(value, at, f, g, direction, length, low_Q, high_Q):
    """(points, values, gradients) a step on; where no length leads down, the same as before."""
    new, new_f, new_g = at.copy(), f.copy(), g.copy()
    short, long = np.zeros(len(at)), np.full(len(at), np.inf)
    open_ = np.flatnonzero((direction * g).sum(-1) < 0)
    for _ in range(TRIALS):
        if not len(open_):
            break
        tried = np.clip(at[open_] + length[open_, None] * direction[open_], low_Q, high_Q)
        moved = tried - at[open_]
        tried_f, tried_g = value(tried)
        expected = (g[open_] * moved).sum(-1)
        lower = tried_f <= f[open_] + DECREASE * expected
        lower &= np.isfinite(tried_g).all(-1)
        flat = (tried_g * moved).sum(-1) >= CURVATURE * expected
        better = open_[lower & (tried_f <= new_f[open_])]
        pick = lower & (tried_f <= new_f[open_])
        new[better], new_f[better], new_g[better] = tried[pick], tried_f[pick], tried_g[pick]
        long[open_[~lower]] = length[open_[~lower]]
        short[open_[lower]] = length[open_[lower]]
        still = ~(lower & flat) & (moved != 0).any(-1)
        open_ = open_[still]
        bounded = np.isfinite(long[open_])
        middle = (short[open_] + np.where(bounded, long[open_], 0.0)) / 2
        length[open_] = np.where(bounded, middle, 2 * length[open_])
    return new, new_f, new_g
