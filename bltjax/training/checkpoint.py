"""Checkpoints of a run: written by orbax in the background, sealed with checksums, verified before use.

    checkpoints/<step>/{params,optimizer,about}    orbax; about is JSON: step, rng, data state, config
    checkpoints/<step>.manifest.json               size and sha256 of every file, written after orbax's commit

orbax may restore a file with a flipped bit as if nothing had happened; the manifest catches that. A folder
without a manifest is a checkpoint that was never finished: no reader takes it and the next writer removes it.

Of a run on a mesh every process writes its own shards into the one shared folder; process 0 makes, seals and
removes. What is read goes straight into the shards that are asked for, whichever mesh it was written from.
"""

import concurrent.futures
import hashlib
import json
import logging
import os
import pathlib
import shutil
import sys
import warnings

import jax
import numpy as np
import orbax.checkpoint as ocp

from bltjax.errors import RunFailed, UserError
from bltjax.formats import safetensors
from bltjax.parallel import distributed
from bltjax.storage.atomic import write_text
from bltjax.training.signals import disk_full
from bltjax.training.state import TrainState

MANIFEST = ".manifest.json"
PARAMS = "params.safetensors"  # of an imported checkpoint, in the place of what orbax writes

# What goes wrong in a save reaches the user as one line; orbax would log a traceback beside it.
logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname)


def folder(run_dir) -> pathlib.Path:
    """Where a run keeps its checkpoints."""
    return pathlib.Path(run_dir).absolute() / "checkpoints"


def steps(run_dir) -> list[int]:
    """Steps of the finished checkpoints, ascending. Finished is not verified: see `problem`."""
    return sorted(
        int(path.name.removesuffix(MANIFEST))
        for path in folder(run_dir).glob("*" + MANIFEST)
        if path.name.removesuffix(MANIFEST).isdecimal()
    )


def unfinished(run_dir) -> list[int]:
    """Steps whose folder is there and whose manifest is not."""
    return sorted(
        set(int(path.name) for path in folder(run_dir).glob("*") if path.name.isdecimal())
        - set(steps(run_dir))
    )


def _digests(root: pathlib.Path) -> dict:
    files = {}
    for path in sorted(root.rglob("*")):
        if path.is_file():
            with open(path, "rb") as file:
                files[path.relative_to(root).as_posix()] = {
                    "bytes": os.fstat(file.fileno()).st_size,
                    "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
                }
    return files


def problem(run_dir, step: int) -> str | None:
    """What is wrong with a checkpoint's files, in a few words; None if they are as they were written."""
    root = folder(run_dir) / str(step)
    try:
        wanted = json.loads((folder(run_dir) / f"{step}{MANIFEST}").read_text(encoding="utf-8"))["files"]
    except FileNotFoundError:
        return "its manifest is missing (never finished)" if root.exists() else "it does not exist"
    except (ValueError, KeyError, TypeError):
        return "its manifest is damaged"
    found = _digests(root)
    for name in wanted:
        if name not in found:
            return f"{name} is missing"
        if found[name]["bytes"] != wanted[name]["bytes"]:
            return f"{name} has {found[name]['bytes']} bytes, not {wanted[name]['bytes']}"
        if found[name] != wanted[name]:
            return f"{name} does not match its checksum"
    return None


def _by_itself() -> ocp.options.MultiprocessingOptions:
    """orbax in this process alone, however many are joined: it waits for none and leaves no part to another.

    Reading works so in every process; writing only in process 0, since that is who orbax has write an array
    of one device."""
    me = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process-{me}"
    )


class Checkpoints:
    """The writer of one run's checkpoints. Opening it removes what a killed writer left unfinished.

    keep: how many of the newest stay; 0: all. on_checkpoint(step) is called from the writing thread when one
    is whole. A full disk raises RunFailed from the next `save`, `wait` or `close`; checkpoints that were
    whole before stay so. mesh: of the run; all its processes make the same calls. A process but the first
    returns from `wait` when its part is written."""

    def __init__(self, run_dir, keep: int = 2, on_checkpoint=None, mesh=None):
        self._run_dir, self._keep, self._on_checkpoint, self._mesh = run_dir, keep, on_checkpoint, mesh
        self._first = distributed.first(mesh)
        self._folder = folder(run_dir)
        self._folder.mkdir(parents=True, exist_ok=True)
        who = ocp.options.MultiprocessingOptions() if distributed.shared(mesh) else _by_itself()
        handlers = dict(
            params=ocp.PyTreeCheckpointHandler(multiprocessing_options=who),
            optimizer=ocp.PyTreeCheckpointHandler(multiprocessing_options=who),
            about=ocp.JsonCheckpointHandler(multiprocessing_options=who),
        )
        # Folders made in the background would turn a full disk into a timeout.
        options = ocp.options.AsyncOptions(create_directories_asynchronously=False)
        composite = ocp.CompositeCheckpointHandler(
            composite_options=ocp.CompositeOptions(multiprocessing_options=who), **handlers
        )
        self._orbax = ocp.AsyncCheckpointer(composite, async_options=options, multiprocessing_options=who)
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
        self._writing = None  # (step, future)
        self._sweep()

    def save(self, step: int, state: TrainState, about: dict) -> None:
        """Starts writing; returns when `state` may be given away (donated). Waits for the write before, if it
        still runs."""
        self.wait()
        self.remove(step)  # a damaged one that the run fell back from
        distributed.barrier(self._mesh)  # orbax looks for it in every process
        # orbax takes a jax array for a part of all processes' one
        if distributed.joined() and not distributed.shared(self._mesh):
            state = jax.tree.map(np.array, state)
        items = ocp.args.Composite(
            params=ocp.args.PyTreeSave(state.params),
            optimizer=ocp.args.PyTreeSave(state.opt_state),
            about=ocp.args.JsonSave({**about, "step": step}),
        )
        try:
            self._orbax.save(self._folder / str(step), args=items)
        except Exception as error:
            self._fail(step, error)
        self._writing = step, self._thread.submit(self._seal, step)

    def wait(self) -> None:
        """Until the last save is whole, or raises why it is not."""
        if self._writing:
            (step, future), self._writing = self._writing, None
            try:
                future.result()
            except Exception as error:
                self._fail(step, error)

    def finish(self) -> None:
        """Until the last save is whole, or is not, from any thread."""
        if writing := self._writing:
            concurrent.futures.wait([writing[1]])

    def close(self) -> None:
        try:
            self.wait()
        finally:
            self._thread.shutdown()
            self._orbax.close()

    def remove(self, step: int) -> None:
        """The manifest goes first: whatever stops the removal, what is left counts as unfinished."""
        if not self._first:
            return
        (self._folder / f"{step}{MANIFEST}").unlink(missing_ok=True)
        if (self._folder / str(step)).exists():
            shutil.rmtree(self._folder / str(step))

    def _seal(self, step: int) -> None:
        self._orbax.wait_until_finished()  # all processes' parts
        if not self._first:
            return
        files = _digests(self._folder / str(step))
        manifest = json.dumps({"step": step, "files": files}, indent=1) + "\n"
        write_text(self._folder / f"{step}{MANIFEST}", manifest, durable=True)
        if self._keep > 0:
            for old in steps(self._run_dir)[: -self._keep]:
                self.remove(old)
        if self._on_checkpoint:
            self._on_checkpoint(step)

    def _sweep(self) -> None:
        if not self._first:
            return
        finished = {str(step) for step in steps(self._run_dir)}
        for path in self._folder.iterdir():
            if path.is_dir() and path.name not in finished:  # orbax's temporary folders too
                shutil.rmtree(path)
            elif path.name.endswith(".tmp"):
                path.unlink()

    def _fail(self, step: int, error: BaseException):
        if not disk_full(error):
            raise error
        self._sweep()
        whole = steps(self._run_dir)
        kept = f"checkpoint {whole[-1]} is whole" if whole else "there is no earlier one"
        raise RunFailed(
            f"disk full while writing checkpoint {step} in {self._folder}; {kept}; free some space and run"
            " again to resume"
        ) from None


def write_params(run_dir, leaves: dict, parts) -> None:
    """Parameters alone, as checkpoint 0 of a directory that has none, in one safetensors file and without
    ever holding them all.

    leaves: {"a/b": (dtype, shape)}; parts(name) yields a leaf's arrays along its first axis, in order."""
    (folder(run_dir) / "0").mkdir(parents=True)
    safetensors.write(folder(run_dir) / "0" / PARAMS, leaves, parts)
    write_text(
        folder(run_dir) / f"0{MANIFEST}",
        json.dumps({"step": 0, "files": _digests(folder(run_dir) / "0")}, indent=1) + "\n",
        durable=True,
    )


def newest_whole(run_dir, at_most: int | None = None, notes: list | None = None) -> int | None:
    """Step of the newest checkpoint (of at most `at_most` updates) that passes verification; None if none was
    ever finished.

    Each one passed over is said in one line on standard error and appended to `notes`. If some were finished
    and none is whole: UserError."""
    finished = steps(run_dir)
    candidates = [
        s for s in sorted(finished + unfinished(run_dir), reverse=True) if at_most is None or s <= at_most
    ]
    bad = []
    found = None
    for step in candidates:
        wrong = problem(run_dir, step)
        if not wrong:
            found = step
            break
        bad.append((step, wrong))
    if found is None and any(step in finished for step, _ in bad):
        raise UserError(
            f"no checkpoint of {run_dir} is whole: "
            + "; ".join(f"{step}: {why}" for step, why in bad)
            + f". Remove {folder(run_dir)} to start again from the first step"
        )
    for step, why in bad:
        line = f"checkpoint {step} of {run_dir} is not whole: {why}; " + (
            "there is no earlier one" if found is None else f"falling back to checkpoint {found}"
        )
        print(line, file=sys.stderr)
        if notes is not None:
            notes.append(line)
    return found


def read_about(run_dir, step: int) -> dict:
    """The JSON part of a verified checkpoint: {"step", "rng", "data": {"next_step", "seed"}, "config",
    "steps"}."""
    handler = ocp.JsonCheckpointHandler(multiprocessing_options=_by_itself())
    return ocp.Checkpointer(handler, multiprocessing_options=_by_itself()).restore(
        folder(run_dir) / str(step) / "about"
    )


def _read_arrays(path, like=None):
    """A tree of numpy arrays, or of jax arrays where a leaf of `like` has a sharding; of plain dicts and
    lists without `like`."""
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=_by_itself())
    tree = handler.metadata(path).tree if like is None else like

    def args(leaf):
        sharding = getattr(leaf, "sharding", None) if like is not None else None
        return (
            ocp.ArrayRestoreArgs(sharding=sharding, dtype=leaf.dtype)
            if sharding
            else ocp.RestoreArgs(restore_type=np.ndarray)
        )

    is_leaf = (lambda x: hasattr(x, "shape") and hasattr(x, "dtype")) if like is None else None
    restore_args = jax.tree.map(args, tree, is_leaf=is_leaf)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader = ocp.Checkpointer(handler, multiprocessing_options=_by_itself())
        return reader.restore(path, args=ocp.args.PyTreeRestore(item=like, restore_args=restore_args))


def restore(run_dir, step: int, like: TrainState) -> tuple[TrainState, dict]:
    """State and `about` of a verified checkpoint (see `newest_whole`), put on the devices.

    like: the state's shapes and dtypes, with shardings where an array must be read straight into one, of
    which every process then reads its own part. Other shapes: UserError."""
    root = folder(run_dir) / str(step)
    about = read_about(run_dir, step)
    try:
        params, opt_state = (
            _read_arrays(root / "params", like.params),
            _read_arrays(root / "optimizer", like.opt_state),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"checkpoint {step} of {run_dir} does not fit this model: {str(error).splitlines()[0]}"
        ) from None
    state = TrainState(params, opt_state, np.asarray(about["step"], np.int32))
    for (path, want), got in zip(
        jax.tree_util.tree_leaves_with_path(like), jax.tree.leaves(state), strict=True
    ):
        if want.shape != got.shape or want.dtype != got.dtype:
            raise UserError(
                f"checkpoint {step} of {run_dir} does not fit this model: {jax.tree_util.keystr(path)} is "
                f"{got.dtype}{list(got.shape)}, not {want.dtype}{list(want.shape)}"
            )
    return jax.tree.map(_on_devices, state, like), about


def _on_devices(x, like):
    """A restored leaf where `like` has it: one that orbax gave as numpy is the same in every process."""
    if isinstance(x, jax.Array):
        return x
    sharding = getattr(like, "sharding", None)
    return (
        jax.device_put(x)
        if sharding is None
        else jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])
    )


def load_params(run_dir, step: int | None = None) -> dict:
    """Parameters of a run as a nested dict of numpy arrays, without knowing shapes; verified.

    step: which checkpoint; None: the newest whole one. No such checkpoint, or a damaged one: UserError.
    """
    if step is None:
        step = newest_whole(run_dir)
        if step is None:
            raise UserError(f"{run_dir} has no checkpoint")
    else:
        wrong = problem(run_dir, step)
        if wrong:
            raise UserError(
                f"checkpoint {step} of {run_dir}: {wrong}; finished ones:"
                f" {', '.join(map(str, steps(run_dir))) or 'none'}"
            )
    path = folder(run_dir) / str(step) / PARAMS
    return (
        safetensors.read_tree(path) if path.exists() else _read_arrays(folder(run_dir) / str(step) / "params")
    )
