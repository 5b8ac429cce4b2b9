"""What one part has found so far, in a file that is whole at any moment: a part that is cut loses nothing."""

import contextlib
import pathlib
import time

from bltjax.storage import rundir


class Record(dict):
    """A dict of plain values that can be written."""

    def __init__(self, path: pathlib.Path, limit: float = float("inf"), **values):
        """limit: seconds after which the part is cut."""
        super().__init__(values)
        self.path, self.limit, self.began = path, limit, time.perf_counter()

    def left(self) -> float:
        """Seconds until the part is cut."""
        return self.limit - (time.perf_counter() - self.began)

    def save(self) -> None:
        """Writes the file anew, atomically."""
        self["seconds"] = round(time.perf_counter() - self.began, 2)
        rundir.write_json(self.path, dict(self))

    @contextlib.contextmanager
    def kept(self):
        """Saves when the block ends, whatever ends it."""
        try:
            yield self
        finally:
            self.save()


def first_line(error: BaseException) -> str:
    """An error in one line."""
    text = f"{type(error).__name__}: {error}".strip()
    return text.splitlines()[0][:300]


def out_of_memory(error: BaseException) -> bool:
    """Whether the device had no room."""
    return "RESOURCE_EXHAUSTED" in str(error) or "out of memory" in str(error).lower()
