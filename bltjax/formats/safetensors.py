"""Safetensors files, read and written in slices of rows, so that a tensor larger than memory can pass
through.

The format is eight bytes (length of the header, little endian), a JSON header {name: dtype, shape,
data_offsets}, and the tensors' bytes one behind the other. The library of that name maps files into memory,
and what has been read of a mapped file counts as used; here a slice is read into the array that wants it, and
nothing else stays. """

import json
import os
import pathlib
from typing import NamedTuple

import ml_dtypes
import numpy as np

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
LONGEST_HEADER = 100_000_000  # bytes: the format's own limit
INDEX = "model.safetensors.index.json"


class Tensor(NamedTuple):
    """Where a tensor lies."""

    dtype: np.dtype
    shape: tuple[int, ...]
    path: pathlib.Path
    offset: int  # of its first byte in the file


class Files:
    """All tensors of a directory's safetensors file or files, by name; nothing is read before it is asked
    for."""

    def __init__(self, tensors: dict[str, Tensor]):
        self.tensors = tensors

    def __iter__(self):
        return iter(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name].shape

    def dtype(self, name: str) -> np.dtype:
        return self.tensors[name].dtype

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows start to stop of a tensor (all), a new array in the file's dtype."""
        t = self.tensors[name]
        if not t.shape:
            return self._read(t, t.offset, ())
        stop = t.shape[0] if stop is None else stop
        row = int(np.prod(t.shape[1:], dtype=np.int64)) * t.dtype.itemsize
        return self._read(t, t.offset + start * row, (stop - start, *t.shape[1:]))

    def _read(self, t: Tensor, offset: int, shape) -> np.ndarray:
        array = aligned(shape, t.dtype)
        with t.path.open("rb", buffering=0) as file:
            file.seek(offset)
            left = memoryview(array.reshape(-1).view(np.uint8)) if array.size else memoryview(b"")
            while len(left):
                got = file.readinto(left)
                if not got:
                    raise UserError(f"{t.path} is truncated: it ends inside its tensors")
                left = left[got:]
        return array


def aligned(shape, dtype) -> np.ndarray:
    """An empty array at an address that JAX's CPU device takes over as it is (64 bytes): one copy of large
    weights less."""
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)


def header(path: pathlib.Path) -> dict[str, Tensor]:
    """The tensors of one file. UserError for a file that is missing, truncated, or none of these."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, LONGEST_HEADER):
                raise UserError(
                    f"{path} is no whole safetensors file: its header would take {length} bytes, the file has"
                    f" {size}"
                )
            fields = json.loads(file.read(length))
        found, spans = {}, []
        for name, about in fields.items():
            if name == "__metadata__":
                continue
            if about["dtype"] not in DTYPES:
                raise UserError(
                    f"{path}: tensor {name} is of dtype {about['dtype']}; known: {', '.join(DTYPES)}"
                )
            dtype, shape, (begin, end) = (
                DTYPES[about["dtype"]],
                tuple(int(n) for n in about["shape"]),
                about["data_offsets"],
            )
            if (
                min(shape, default=0) < 0
                or end - begin != int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            ):
                raise UserError(
                    f"{path}: tensor {name} of shape {list(shape)} cannot lie in bytes {begin} to {end}"
                )
            if not 0 <= begin <= end <= size - 8 - length:
                raise UserError(
                    f"{path} is truncated: tensor {name} would end at byte {8 + length + end}, the file has"
                    f" {size}"
                )
            found[name] = Tensor(dtype, shape, path, 8 + length + begin)
            spans.append((begin, end))
        spans.sort()
        if any(a[1] != b[0] for a, b in zip([(0, 0), *spans], [*spans, (size - 8 - length, 0)])):
            raise UserError(f"{path} is damaged: its tensors overlap, or leave bytes that belong to none")
    except FileNotFoundError:
        raise UserError(f"no file {path}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{path} is no safetensors file: its header cannot be read") from None
    return found


def read_tree(path: pathlib.Path) -> dict:
    """All tensors of a file whose names are paths, "a/b/c", as a nested dict."""
    files = Files(header(path))
    return nested({tuple(name.split("/")): files.read(name) for name in files})


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
        shard_of = dict(json.loads(index.read_text())["weight_map"])
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
