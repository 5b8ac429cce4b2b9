"""Safetensors files, read and written in slices of rows, so that a tensor larger than memory can pass
through.

They are read by the library of that name, which also checks that a file's tensors cover it exactly. It reads
by `pread`: of a file that is mapped into memory, what has been read counts as used. It writes only what is in
memory as a whole, so that `write` streams a file itself: eight bytes (length of the header, little endian), a
JSON header {name: dtype, shape, data_offsets}, and the tensors' bytes one behind the other."""

import functools
import json
import os
import pathlib
from typing import NamedTuple

import ml_dtypes
import numpy as np
import safetensors

from bltjax.errors import UserError

DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(bool),
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
SLICE = 64 * 2**20  # bytes that are read at once where a whole tensor is wanted
INDEX = "model.safetensors.index.json"
# What the library says of a damaged file, in words that say what to look for.
FAULTS = {
    "not fully covered": "it is truncated, or has bytes that belong to none of its tensors",
    "invalid offset": "its tensors overlap, or leave bytes that belong to none",
    "invalid shape": "a tensor's shape does not go with its size",
}


class Tensor(NamedTuple):
    """What a file says of a tensor."""

    dtype: np.dtype
    shape: tuple[int, ...]
    path: pathlib.Path


class Files:
    """All tensors of a directory's safetensors file or files, by name; nothing is read before it is asked
    for."""

    def __init__(self, tensors: dict[str, Tensor]):
        self.tensors = tensors
        self._open = functools.cache(_opened)

    def __iter__(self):
        return iter(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name].shape

    def dtype(self, name: str) -> np.dtype:
        return self.tensors[name].dtype

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows start to stop of a tensor (all), a new array in the file's dtype. UserError where the file
        ends too early."""
        dtype, shape, path = self.tensors[name]
        try:
            if not shape:
                return self._open(path).get_tensor(name)
            stop = shape[0] if stop is None else stop
            if start == stop or 0 in shape:
                return np.empty((stop - start, *shape[1:]), dtype)
            return self._open(path).get_slice(name)[start:stop]
        except (safetensors.SafetensorError, OSError) as error:
            raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}") from None

    def read_aligned(self, name: str) -> np.ndarray:
        """The whole tensor in an `aligned` array, filled in slices."""
        dtype, shape, _ = self.tensors[name]
        whole = aligned(shape, dtype)
        if not shape:
            whole[...] = self.read(name)
            return whole
        row = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
        step = max(1, SLICE // max(1, row))
        for start in range(0, shape[0], step):
            whole[start : start + step] = self.read(name, start, min(start + step, shape[0]))
        return whole


def aligned(shape, dtype) -> np.ndarray:
    """An empty array at an address that JAX's CPU device takes over as it is (64 bytes): one copy of large
    weights less."""
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)


def header(path: pathlib.Path) -> dict[str, Tensor]:
    """The tensors of one file. UserError for a file that is missing, damaged, or none of these."""
    found, tensors = _opened(path), {}
    for name in found.keys():
        about = found.get_slice(name)
        if about.get_dtype() not in DTYPES:
            raise UserError(
                f"{path}: tensor {name} is of dtype {about.get_dtype()}; known: {', '.join(DTYPES)}"
            )
        tensors[name] = Tensor(DTYPES[about.get_dtype()], tuple(about.get_shape()), path)
    return tensors


def _opened(path: pathlib.Path):
    """The library's handle of a file, whose header it has checked; or UserError."""
    try:
        return safetensors.safe_open(path, framework="numpy", backend="pread").__enter__()
    except FileNotFoundError:
        raise UserError(f"no file {path}") from None
    except (safetensors.SafetensorError, OSError) as error:
        said = " ".join(str(error).split())
        fault = next((words for part, words in FAULTS.items() if part in said), said)
        raise UserError(f"{path} is no whole safetensors file: {fault}") from None


def read_tree(path: pathlib.Path) -> dict:
    """All tensors of a file whose names are paths, "a/b/c", as a nested dict."""
    files = Files(header(path))
    return nested({tuple(name.split("/")): files.read_aligned(name) for name in files})


def nested(flat: dict) -> dict:
    """{("a", "b"): leaf} as {"a": {"b": leaf}}."""
    tree = {}
    for (*above, last), leaf in flat.items():
        node = tree
        for key in above:
            node = node.setdefault(key, {})
        node[last] = leaf
    return tree


def open_directory(directory: pathlib.Path) -> Files:
    """The tensors of a directory: of its index's shards, or of its only safetensors file. UserError where
    there is none, or a shard is missing."""
    index = directory / INDEX
    if not index.exists():
        paths = sorted(directory.glob("*.safetensors"))
        preferred = directory / "model.safetensors"
        if preferred not in paths and len(paths) != 1:
            raise UserError(
                f"{directory} has no model.safetensors"
                + (f" and no {INDEX} that says how its {len(paths)} files belong together" if paths else "")
            )
        return Files(header(preferred if preferred in paths else paths[0]))
    try:
        shard_of = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{index} cannot be read: it must hold a weight_map") from None
    tensors = {}
    for shard in sorted(set(map(str, shard_of.values()))):
        if pathlib.PurePath(shard).name != shard:
            raise UserError(f"{index} names {shard!r}, which is no file beside it")
        tensors |= header(directory / shard)
    for name, shard in shard_of.items():
        if name not in tensors or tensors[name].path.name != shard:
            raise UserError(f"{directory / str(shard)} has no tensor {name}, which {INDEX} says it has")
    if unnamed := sorted(tensors.keys() - shard_of.keys()):
        raise UserError(f"{tensors[unnamed[0]].path} has a tensor {unnamed[0]}, which {INDEX} does not name")
    return Files(tensors)


def write(path: pathlib.Path, tensors: dict[str, tuple[np.dtype, tuple[int, ...]]], rows) -> None:
    """Writes one file. tensors: {name: (dtype, shape)}; rows(name) yields the tensor's arrays, slices along
    its first axis in order."""
    fields, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, shape) in tensors.items():
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        fields[name] = {
            "dtype": NAMES[np.dtype(dtype)],
            "shape": list(shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(fields, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        start = file.tell()
        for name, (dtype, _) in tensors.items():
            for part in rows(name):
                file.write(
                    np.ascontiguousarray(part, dtype).reshape(-1).view(np.uint8).data if part.size else b""
                )
            if file.tell() != start + fields[name]["data_offsets"][1]:
                raise ValueError(f"tensor {name} is not of the size that was announced")
        file.flush()
        os.fsync(file.fileno())
    header(path)  # as the library sees it
