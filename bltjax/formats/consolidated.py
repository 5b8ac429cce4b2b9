"""Consolidated checkpoints of the released code: one .pth of tensors by name, read by torch's weights-only
unpickler."""

import pathlib
import zipfile

import ml_dtypes
import numpy as np

from bltjax.errors import UserError


class Archive:
    """The tensors of a .pth, by name, with the calls of safetensors.Files. Needs the extra `parity`
    (torch)."""

    def __init__(self, path: pathlib.Path):
        try:
            import torch
        except ImportError:
            raise UserError(
                f"{path.name} needs torch, which reads it without running code from it: make setup"
                " EXTRAS=parity"
            ) from None
        if path.is_file() and not zipfile.is_zipfile(path):
            raise UserError(
                f"{path} is no zip archive, as torch.save writes them: truncated, of another kind, or so old"
                " that it has to be saved anew"
            )
        try:
            # Weights only: a pickle that wants to run code is refused. Mapped: tensors are read when they are
            # used.
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except FileNotFoundError:
            raise UserError(f"no file {path}") from None
        # pickle's, zipfile's and torch's own, all for a file that is not what it should be
        except Exception as error:
            why = " ".join(str(error).split())[:300]
            code = type(error).__name__ == "UnpicklingError"
            raise UserError(
                f"{path} "
                + (
                    "holds more than tensors, and is not unpickled"
                    if code
                    else f"cannot be read as weights: {why}"
                )
            ) from None
        found = found.get("model", found) if isinstance(found, dict) else {}
        for name, value in found.items():
            if isinstance(value, torch.Tensor) and value.dtype not in (
                torch.float64,
                torch.float32,
                torch.float16,
                torch.bfloat16,
            ):
                raise UserError(
                    f"{path}: tensor {name} is of {str(value.dtype).removeprefix('torch.')}; floats of 16 to"
                    " 64 bits can be read"
                )
        self._tensors = {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}
        if not self._tensors:
            raise UserError(f"{path} holds no tensors by name")
        self._bfloat16, self._int16 = torch.bfloat16, torch.int16

    def __iter__(self):
        return iter(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].shape)

    def dtype(self, name: str) -> np.dtype:
        return self.read(name, 0, 0).dtype

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows start to stop of a tensor (all), in the file's dtype."""
        part = self._tensors[name][start:stop].contiguous()
        return (
            part.view(self._int16).numpy().view(ml_dtypes.bfloat16)
            if part.dtype == self._bfloat16
            else part.numpy()
        )
