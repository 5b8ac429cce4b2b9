"""Variable projection: for given exponents the best coefficients are a linear problem, solved exactly with
none negative, so that only the exponents are searched: on a dense grid, all of it (Golub and Pereyra 1973;
non-negative parts as in Lawson and Hanson 1974, by trying each set of coefficients that may be positive)."""

import itertools

import numpy as np

from bltjax.science.formula import Formula

RIDGE = 1e-13


def non_negative(gram_xKxK, right_xK):
    """(coefficients [..., K], what they take off the sum of squares [...]): least squares with none below 0.

    gram, right: inner products of the columns with each other and with the data."""
    kinds, shape = right_xK.shape[-1], right_xK.shape
    gram_xKxK, right_xK = gram_xKxK.reshape(-1, kinds, kinds), right_xK.reshape(-1, kinds)
    length = np.sqrt(np.maximum(np.diagonal(gram_xKxK, axis1=-2, axis2=-1), 1e-300))
    gram = gram_xKxK / length[..., :, None] / length[..., None, :] + RIDGE * np.eye(kinds)
    right = right_xK / length
    best, most = np.zeros_like(right), np.zeros(right.shape[:-1])
    open_ = np.ones(most.shape, bool)  # where all at once are not positive, subsets are tried
    for size in range(kinds, 0, -1):
        for chosen in itertools.combinations(range(kinds), size):
            where = np.flatnonzero(open_)
            if not len(where):
                break
            some = np.ix_(chosen, chosen)
            found = np.linalg.solve(gram[where][:, *some], right[where][:, chosen, None])[..., 0]
            taken = (found * right[where][:, chosen]).sum(-1)
            better = (found >= 0).all(-1) & (taken > most[where])
            at = where[better]
            most[at] = taken[better]
            best[at] = 0.0
            best[at[:, None], chosen] = found[better]
        if size == kinds:
            open_ &= most == 0
    return (best / length).reshape(shape), most.reshape(shape[:-1])


def over_grid(formula: Formula, logs: dict, loss_N, weights_N, log_residuals: bool):
    """(sum of squares [G1, G2, ...], coefficients [G1, G2, ..., K], the terms' grids): the whole grid.

    log_residuals: residuals relative to the loss, which are those of logs where they are small. The columns
    of a term depend on its own exponents alone, so that inner products of pairs of terms are all it takes."""
    grids = formula.grids()
    weights_N = weights_N / np.square(loss_N) if log_residuals else weights_N
    columns = [term.column(logs, grid) for term, grid in zip(formula.terms, grids)]
    axes = [len(grid) for grid in grids]
    if formula.constant:
        columns.insert(0, np.ones((1, len(loss_N))))
    kinds, first = len(columns), int(formula.constant)

    def spread(values, *terms):  # from the axes of two terms to those of all
        shape = [1] * len(axes)
        for axis, term in enumerate(terms):
            if term >= first:
                shape[term - first] = values.shape[axis]
        return values.reshape(shape)

    gram, right = np.empty((*axes, kinds, kinds)), np.empty((*axes, kinds))
    for i in range(kinds):
        right[..., i] = spread(columns[i] @ (weights_N * loss_N), i)
        own = (np.square(columns[i]) * weights_N).sum(-1)
        gram[..., i, i] = spread(own, i)
        for j in range(i):
            pair = (columns[j] * weights_N) @ columns[i].T
            gram[..., i, j] = gram[..., j, i] = spread(pair, j, i)
    found, taken = non_negative(gram, right)
    left = (weights_N * np.square(loss_N)).sum() - taken
    return left, found, grids


def starts(formula: Formula, logs: dict, loss_N, weights_N, log_residuals: bool, most: int = 4):
    """The best points of the grid that are lower than all beside them, best first: parameters [S, Q]."""
    left, linear, grids = over_grid(formula, logs, loss_N, weights_N, log_residuals)
    lowest = np.ones(left.shape, bool)
    for axis in range(left.ndim):
        ahead = np.diff(left, axis=axis)
        up, down = [slice(None)] * left.ndim, [slice(None)] * left.ndim
        up[axis], down[axis] = slice(1, None), slice(None, -1)
        lowest[tuple(up)] &= ahead <= 0
        lowest[tuple(down)] &= ahead >= 0
    at = np.argwhere(lowest)
    at = at[np.argsort(left[lowest], kind="stable")][:most]
    rows = [
        np.concatenate([linear[tuple(index)], *(grid[i] for grid, i in zip(grids, index))]) for index in at
    ]
    return np.array(rows)
