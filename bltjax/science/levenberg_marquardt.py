"""Levenberg and Marquardt's descent, of many fits of one law at once, from starts close to the lowest point.

Each step offers two directions, and each fit takes the one that leads lower: that of re-weighted least
squares, which always leads down, and Newton's for the part of the residuals inside the knee, which ends the
search exactly (with a tiny knee, as many runs as parameters are met). Steps are damped as Levenberg and
Marquardt do; coefficients at 0 and exponents at their bounds stay there while they are pushed outwards."""

import numpy as np

from bltjax.science.formula import Formula
from bltjax.science.objectives import Objective, huber

STEPS = 200
TIGHT = 1e-12  # a step that gains less, relatively, gains nothing
LOOSE = 1e-7  # the same for draws, whose scatter is far above it
DAMPING = (1e-9, 1e9)


def descend(
    formula: Formula,
    logs: dict,
    loss,
    weights,
    parameters_RxQ,
    objective: Objective,
    bounds=None,
    tight=TIGHT,
):
    """(parameters [R, Q], values [R]) of R fits. loss, weights: [N] or [R, N]; parameters: for centred logs.
    bounds: (low, high), [Q] or [R, Q], if not the formula's; equal ones hold a parameter. tight: relative
    gain of a step that is none.

    A knee that moves with the residuals, or is far below them, is come down to in steps of 10."""
    weights = np.broadcast_to(np.asarray(weights, np.float64), (len(parameters_RxQ), np.shape(loss)[-1]))
    loss = np.broadcast_to(np.asarray(loss, np.float64), weights.shape)
    found = np.array(parameters_RxQ, np.float64)
    low, high = formula.bounds.T if bounds is None else bounds
    low_RxQ, high_RxQ = np.broadcast_to(low, found.shape), np.broadcast_to(high, found.shape)
    ends = low_RxQ, high_RxQ
    found = np.clip(found, *ends)
    residuals = lambda: objective.residuals(formula.values(logs, found), loss)
    if not objective.robust:
        found = _descend(
            formula, logs, loss, weights, found, ends, objective, np.full(len(found), np.inf), tight
        )
        return found, objective.value(residuals(), weights)
    size = np.nanmedian(np.abs(residuals()))
    knee = 10.0 ** np.ceil(np.log10(max(size, 1e-12)))
    while True:
        target = objective.knee(residuals(), weights)
        found = _descend(
            formula, logs, loss, weights, found, ends, objective, np.maximum(target, knee), tight
        )
        if knee <= target.min():
            return found, objective.value(residuals(), weights)
        knee /= 10


def _descend(formula, logs, loss_RxN, weights_RxN, found_RxQ, ends, objective, knee_R, tight):
    value_R = _value(formula, logs, loss_RxN, weights_RxN, found_RxQ, objective, knee_R)
    damping_R = np.full(len(found_RxQ), 1e-3)
    idle_R = np.zeros(len(found_RxQ), int)
    going = np.arange(len(found_RxQ))
    for _ in range(STEPS):
        loss, weights, knee = loss_RxN[going], weights_RxN[going], knee_R[going, None]
        at, low, high = found_RxQ[going], ends[0][going], ends[1][going]
        predicted, jacobian = formula.jacobian(logs, at)
        residuals = objective.residuals(predicted, loss)
        if objective.of_logs:
            jacobian = jacobian / predicted[:, None]
        size = np.abs(residuals)
        inside = size <= knee
        pull = weights * np.clip(residuals, -knee, knee)
        slope = (jacobian @ pull[..., None])[..., 0]
        fixed = ((at <= low) & (slope >= 0)) | ((at >= high) & (slope <= 0))
        slope[fixed] = 0
        jacobian[fixed] = 0
        reweighted = (
            weights * np.where(inside, 1, knee / np.maximum(size, 1e-300)) if objective.robust else weights
        )
        curves = [(jacobian * reweighted[:, None]) @ jacobian.transpose(0, 2, 1)]
        if objective.robust:
            curves.append((jacobian * (weights * inside)[:, None]) @ jacobian.transpose(0, 2, 1))
        width = np.maximum(np.diagonal(curves[0], axis1=1, axis2=2), 1e-30)
        best, lowest = at, value_R[going]
        started = lowest
        for curve in curves:
            damped = curve + (damping_R[going, None] * width)[:, None] * np.eye(low.shape[-1])
            length = np.sqrt(width)
            scaled = damped / length[:, :, None] / length[:, None]
            step = np.linalg.solve(scaled, (slope / length)[..., None])[..., 0] / length
            tried = np.clip(at - step, low, high)
            value = _value(formula, logs, loss, weights, tried, objective, knee_R[going])
            better = value < lowest
            best, lowest = np.where(better[:, None], tried, best), np.where(better, value, lowest)
        moved = lowest < started
        found_RxQ[going], value_R[going] = best, lowest
        damping_R[going] = np.clip(damping_R[going] * np.where(moved, 0.2, 8.0), *DAMPING)
        little = started - lowest <= tight * np.abs(started)
        idle_R[going] = np.where(little, idle_R[going] + 1, 0)
        patience = (
            np.where(moved | (damping_R[going] >= 1e3), 3, 12) if tight < LOOSE else np.where(moved, 1, 5)
        )
        going = going[idle_R[going] < patience]
        if not len(going):
            break
    return found_RxQ


def _value(formula, logs, loss, weights, parameters, objective, knee):
    residuals = objective.residuals(formula.values(logs, parameters), loss)
    with np.errstate(invalid="ignore"):  # a prediction of 0 is infinitely bad; with weight 0 too
        value = (weights * huber(residuals, knee[:, None])).sum(-1)
    return np.where(np.isnan(value), np.inf, value)
