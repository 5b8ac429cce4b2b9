"""The runs that a fit reads: their variables, their loss, the units of both, and which were left out and why.

FLOPs of a run come from the run, never from 6ND; which parameters are counted (all, without embeddings,
latent ones) is part of the unit, and stays with the fit."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Runs:
    """values: {variable: [N]}; loss_N; units: {variable or "loss": unit}; rows_N: each run's row in the table
    it comes from; dropped: (row, reason) pairs; cells_N: runs of one cell differ in their seed alone."""

    values: dict
    loss_N: np.ndarray
    units: dict
    rows_N: np.ndarray
    cells_N: np.ndarray
    dropped: tuple = ()

    def __len__(self):
        return len(self.loss_N)

    def only(self, keep_N, why: str) -> "Runs":
        """The runs of a mask; the others are dropped for the reason given."""
        keep_N = np.asarray(keep_N, bool)
        return dataclasses.replace(
            self,
            values={name: values[keep_N] for name, values in self.values.items()},
            loss_N=self.loss_N[keep_N],
            rows_N=self.rows_N[keep_N],
            cells_N=self.cells_N[keep_N],
            dropped=self.dropped + tuple((int(row), why) for row in self.rows_N[~keep_N]),
        )

    def without_highest(self, count: int) -> "Runs":
        """Without the runs of the highest loss, as the fits of the Chinchilla points are made."""
        keep_N = np.ones(len(self), bool)
        keep_N[np.argsort(self.loss_N, kind="stable")[len(self) - count :]] = False
        return self.only(keep_N, f"among the {count} highest losses")

    @property
    def centres(self) -> dict:
        """{variable: geometric mean}."""
        return {name: float(np.exp(np.log(values).mean())) for name, values in self.values.items()}

    def logs(self, centres: dict) -> dict:
        return {name: np.log(values / centres[name]) for name, values in self.values.items()}

    @property
    def ranges(self) -> dict:
        return {name: (float(values.min()), float(values.max())) for name, values in self.values.items()}


def of(values: dict, loss, units: dict) -> Runs:
    """Runs from arrays. A run with a number that is missing, infinite or not positive is dropped, and said.

    values: {variable: [N]}. units: {variable: its unit, "loss": the loss's}; each must be named, since a unit
    that slips by a thousand moves exponents."""
    loss_N = np.asarray(loss, np.float64)
    values = {name: np.asarray(column, np.float64) for name, column in values.items()}
    missing = [name for name in (*values, "loss") if not units.get(name)]
    if missing:
        raise ValueError(f"no unit given for {', '.join(missing)}")
    shapes = {name: column.shape for name, column in values.items()} | {"loss": loss_N.shape}
    if len(set(shapes.values())) > 1 or loss_N.ndim != 1:
        raise ValueError(f"one number a run in each column, not {shapes}")
    cells_N = np.zeros(len(loss_N), int)
    if len(loss_N) and values:
        table = np.stack(list(values.values()), 1)
        cells_N = np.unique(table, axis=0, return_inverse=True)[1].reshape(-1)
    found = Runs(values, loss_N, dict(units), np.arange(len(loss_N)), cells_N)
    for name, column in {**values, "loss": loss_N}.items():
        column = column[found.rows_N]
        fine = np.isfinite(column) & (column > 0)
        if not fine.all():
            found = found.only(fine, f"{name} is not a positive number")
    return found
