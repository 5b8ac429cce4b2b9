"""What a model is made of, in numbers: what checks, meshes and estimates ask of every kind."""

from typing import NamedTuple


class Stack(NamedTuple):
    """Transformer layers of one shape. key: their section of the run's config. over: what their positions
    are, "slots" (bytes or tokens) or "patches". window: positions that a query sees; 0: all before it."""

    key: str
    layers: int
    heads: int
    width: int
    ffn: int
    window: int
    over: str


class Cross(NamedTuple):
    """Cross-attention layers between the slots of a row and the k vectors of each patch. queries: which of
    both asks, "slots" or "patches"; the other answers."""

    key: str
    layers: int
    heads: int
    width: int
    k: int
    queries: str


class Tables(NamedTuple):
    """Tables whose rows are looked up where they lie: how many, rows of each, features of a row."""

    count: int
    rows: int
    width: int

    @property
    def size(self) -> int:
        """Parameters."""
        return self.count * self.rows * self.width


NO_TABLES = Tables(0, 0, 0)
