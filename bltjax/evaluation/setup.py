"""What decides a model's scores, said beside them, so that what goes on with results goes on with the same
model."""

import contextlib
import pathlib

from bltjax import config as cfg
from bltjax.errors import UserError
from bltjax.formats import detect
from bltjax.storage import atomic, locks, rundir
from bltjax.training import checkpoint

FILE = "setup.json"


def of(model, entropy_model=None) -> dict:
    """Of an api.Model: its directory, config and newest checkpoint, and the entropy model it was given."""
    ours = is_ours(model)
    return {
        "model": str(model.folder),
        "config": cfg.fingerprint(model.config),
        "step": max(checkpoint.steps(model.folder), default=None) if ours else None,
        "entropy_model": str(pathlib.Path(entropy_model).resolve()) if entropy_model else None,
    }


def is_ours(model) -> bool:
    """Whether the model is a run directory or an import, in which results may be kept."""
    return detect.of(model.folder) == detect.OURS


@contextlib.contextmanager
def held(out: pathlib.Path | None):
    """A folder of results, made and locked for this process alone; None: nothing. UserError where another
    process has it."""
    if out is None:
        yield
        return
    made(out)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locks.held(out / ".lock", wait=False))
        except locks.Busy:
            raise UserError(f"{out} is being written by another process") from None
        yield


def made(out: pathlib.Path) -> None:
    """Makes a folder of results. UserError where it cannot be."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot keep results in {out}: {error.strerror}") from None


def emptied(out: pathlib.Path) -> bool:
    """Whether a folder has no results; what claimed it is then gone, and so is the folder."""
    if _begun(out):
        return False
    for name in (FILE, ".lock"):
        (out / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # somebody else's files are in it
        out.rmdir()
    return True


def claim(out: pathlib.Path, said: dict) -> None:
    """Says in a folder of results what they are of. UserError where other results are in it, and where it
    cannot be written."""
    made(out)
    there = rundir.read_json(out / FILE)
    if there is None or not (_begun(out) or locks.is_held(out / ".lock")):
        try:
            atomic.write_json(out / FILE, said)
        except OSError as error:
            raise UserError(f"cannot keep results in {out}: {error.strerror}") from None
    elif there != said:
        keys = ", ".join(sorted(k for k in {*there, *said} if there.get(k) != said.get(k)))
        raise UserError(f"{out} holds results of another evaluation ({keys}); give another --out")


def _begun(out: pathlib.Path) -> bool:
    """Whether a folder has results: what failed before its first one leaves none."""
    return any(path.stat().st_size for path in out.iterdir() if path.name not in (FILE, ".lock"))
