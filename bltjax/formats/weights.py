"""Tensors of a file as parameters of ours and back: one list of places says both ways which tensor is which
part of which parameter."""

import functools
from typing import Iterable, Iterator, NamedTuple

import jax
import numpy as np

from bltjax.errors import UserError
from bltjax.formats import safetensors

SLICE = 64 * 2**20  # bytes of a table that are read or written at once


class Place(NamedTuple):
    """A tensor's place in a parameter tree. torch's linear weights are [out, in]; ours are [in, out], out in
    one axis or several."""

    name: str  # of the tensor
    shape: tuple[int, ...]  # of the tensor, or of its `rows`
    path: tuple[str, ...]  # of the parameter
    index: tuple = ()  # the part of the parameter
    linear: bool = False
    rows: tuple[int, int] | None = None  # only these of the tensor's first axis
    heads: tuple[int, int] | None = (
        None  # (heads of the tensor, heads of ours): keys and values of grouped queries are repeated
    )
    halves: bool = False  # rotary pairs are (i, i + K/2) in the tensor and (2i, 2i + 1) here


class Arrays:
    """Arrays in memory, with the calls of safetensors.Files."""

    def __init__(self, arrays: dict):
        self.arrays = arrays

    def __iter__(self):
        return iter(self.arrays)

    def shape(self, name):
        return tuple(np.shape(self.arrays[name]))

    def dtype(self, name):
        return np.asarray(self.arrays[name]).dtype

    def read(self, name, start=0, stop=None):
        return np.asarray(self.arrays[name])[start:stop]


def check(source, places: Iterable[Place], ignored=()) -> None:
    """UserError naming a tensor that is missing, misshapen, not of floats, or unknown. ignored: names that
    may be there and are not read."""
    wanted = {}
    for place in places:
        rows, _ = wanted.get(place.name, (0, None))
        wanted[place.name] = max(rows, place.rows[1] if place.rows else place.shape[0]), place.shape[1:]
    there = set(source)
    for name, (rows, rest) in wanted.items():
        if name not in there:
            raise UserError(f"missing tensor {name}")
        if source.shape(name) != (rows, *rest):
            raise UserError(f"tensor {name} has shape {list(source.shape(name))}, expected {[rows, *rest]}")
        if not jax.numpy.issubdtype(source.dtype(name), np.floating):
            raise UserError(f"tensor {name} holds {source.dtype(name)}, not floats")
    unknown = sorted(there - set(wanted) - set(ignored))
    if unknown:
        raise UserError(f"unknown tensor {', '.join(unknown[:4])}{' and more' if len(unknown) > 4 else ''}")


def read(source, places: list[Place], like) -> dict:
    """A parameter tree of numpy arrays, each in the (widest) dtype of its tensors. like: the tree of shapes
    (models.init, abstractly).

    What no tensor fills is 0. Every tensor's shape was checked.
    """
    flat = {}
    for path, shape, dtype, own in leaves(source, places, like):
        flat[path] = safetensors.aligned(shape, dtype)
        whole, at = flat[path].reshape(-1), 0
        for part in parts(source, own, shape, dtype):
            whole[at : at + part.size] = part.reshape(-1)
            at += part.size
    return safetensors.nested(flat)


def leaves(source, places: list[Place], like) -> list[tuple]:
    """[(path, shape, dtype, its places)] of every parameter."""
    own = {}
    for place in places:
        own.setdefault(place.path, []).append(place)
    dtype = lambda path: functools.reduce(np.promote_types, (source.dtype(place.name) for place in own[path]))
    return [(path, leaf.shape, dtype(path), own[path]) for path, leaf in _leaves(like)]


def parts(source, places: list[Place], shape: tuple, dtype) -> Iterator[np.ndarray]:
    """A parameter in pieces along its first axis, in order: layer by layer, tables by slices of rows. Nothing
    else of it is in memory.

    UserError where a tensor holds NaN or infinity.
    """
    for part in _parts(source, places, shape, dtype):
        if not finite(part):
            raise UserError(
                f"tensor {', '.join(dict.fromkeys(place.name for place in places[:3]))} holds NaN or infinity"
            )
        yield part


def finite(x: np.ndarray) -> bool:
    """Whether every number is. Of 16 bits by their exponents: bfloat16 is no number to numpy, and slow to
    ask."""
    if x.dtype.itemsize != 2:
        return bool(np.isfinite(x).all())
    ones = np.uint16(0x7C00 if x.dtype == np.float16 else 0x7F80)
    bits = np.ascontiguousarray(x).view(np.uint16)
    return not bool(((bits & ones) == ones).any())


def _parts(source, places: list[Place], shape: tuple, dtype) -> Iterator[np.ndarray]:
    if not places[0].index:
        [place] = places
        if place.linear:
            yield ours(place, source.read(place.name)).astype(dtype).reshape(shape)
        else:
            yield from (
                source.read(place.name, *cut).astype(dtype, copy=False)
                for cut in _slices(0, shape[0], shape[1:], dtype.itemsize)
            )
        return
    if isinstance(places[0].index[0], slice):  # several tensors side by side, in a parameter that is no stack
        yield _joined(source, places, shape, dtype)
        return
    if {place.index[0] for place in places} - set(range(shape[0])):
        raise ValueError(f"places of {places[0].path} lie outside its {shape[0]} layers")
    for i in range(shape[0]):
        own = [place for place in places if place.index[0] == i]
        if len(own) == 1 and len(own[0].index) == 1 and not own[0].linear and len(shape) > 2:  # a table
            first, last = own[0].rows or (0, own[0].shape[0])
            yield from (
                source.read(own[0].name, *cut).astype(dtype, copy=False)
                for cut in _slices(first, last, shape[2:], dtype.itemsize)
            )
            continue
        yield _joined(source, [place._replace(index=place.index[1:]) for place in own], shape[1:], dtype)


def _joined(source, places: list[Place], shape: tuple, dtype) -> np.ndarray:
    """What several tensors fill together, each its part; the rest is 0."""
    whole = np.zeros(shape, dtype)
    for place in places:
        target = whole[place.index]
        whole[place.index] = ours(place, source.read(place.name, *(place.rows or ()))).reshape(target.shape)
    return whole


def ours(place: Place, tensor: np.ndarray) -> np.ndarray:
    """A linear weight [out, in] as [in, out], heads and rotary pairs as ours; anything else as it is."""
    if not place.linear:
        return tensor
    if place.heads:
        theirs, own = place.heads
        x = tensor.reshape(theirs, -1, tensor.shape[-1])
        if place.halves:
            x = x.reshape(theirs, 2, -1, tensor.shape[-1]).swapaxes(1, 2).reshape(x.shape)
        tensor = np.repeat(x, own // theirs, axis=0).reshape(-1, tensor.shape[-1])
    return tensor.T


def theirs(place: Place, params: dict):
    """The tensor of a place, in slices along its first axis. Places with `heads` do not go back."""
    part = params
    for key in place.path:
        part = part[key]
    part = part[place.index]
    if place.linear:
        yield part.reshape(place.shape[1], place.shape[0]).T
        return
    for start, stop in _slices(0, part.shape[0], place.shape[1:], part.dtype.itemsize):
        yield part[start:stop]


def _slices(first: int, last: int, rest: tuple, itemsize: int):
    rows = max(1, SLICE // max(1, int(np.prod(rest, dtype=np.int64)) * itemsize))
    return [(start, min(start + rows, last)) for start in range(first, last, rows)]


def _leaves(tree) -> list:
    return [
        (tuple(key.key for key in path), leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    ]
