"""Several processes as one run: how they find one another, what they agree on, and how they end.

JAX's runtime (jax.distributed) joins them, watches their heartbeats, and aborts all that are left when one is
gone; each then exits non-zero without running another line of ours, and the run is started again from its
last checkpoint. What processes tell one another on the host goes over that runtime's key-value store: it
needs no device, waits as long as it takes, and ends with the runtime.

A run's `mesh` says whom it concerns: without one a run is this process's own (an entropy model that one of
several processes trains for all, say), and with one it belongs to every process. Calls that name a mesh are
made by all its processes, in the same order, in the main thread."""

import contextlib
import itertools
import json
import os
import socket
import sys
import threading

from bltjax import exit_codes
from bltjax.errors import Interrupted, RunFailed, UserError
from bltjax.parallel import runtime, stopping
from bltjax.storage import locks

HEARTBEAT = 30  # seconds without a sign of life after which a process counts as gone
LONGEST = 24 * 3600  # seconds that either may be
MOST_PROCESSES, MOST_DEVICES = 65_536, 1_024  # devices: of CPUs
TIMEOUT = 300  # seconds that processes may take to find one another
# for one another, once joined: a process that is gone ends the wait, a slow one must not
WAIT_MS = 7 * 24 * 3600 * 1000

_heartbeat = HEARTBEAT
# of what was said: the same in every process, since they all say it in the same order
_numbers = itertools.count()


def start(
    coordinator: str = "",
    processes: int = 0,
    process: int = -1,
    *,
    heartbeat: int = HEARTBEAT,
    timeout: int = TIMEOUT,
) -> str:
    """Joins this process to the others of its run; before any device is asked for. Returns by what, in a few
    words, or "" if it is alone.

    coordinator ("HOST:PORT" of process 0), processes and process (0-based) belong together. Without them the
    environment is asked what JAX itself knows (Slurm, GKE, TPU VM, Kubernetes, Open MPI); processes=1 alone:
    no others, whatever it says. heartbeat: seconds after which a silent process is taken for dead; timeout:
    seconds to find one another. UserError for flags that cannot be. Processes that do not come together in
    time end with status 2 and one line, from a thread: nothing else has begun."""
    global _heartbeat
    check(coordinator, processes, process, heartbeat, timeout)
    if processes == 1:
        return ""
    if coordinator:
        name, whom = (
            "flags",
            dict(
                coordinator_address=coordinator,
                num_processes=processes,
                process_id=process,
                cluster_detection_method="deactivate",
            ),
        )
    else:
        found = _detected()
        if not found:
            return ""
        (name, processes, process), whom = found, {}
    import jax

    if process == 0:
        if coordinator:
            _check_free(coordinator)
        others = (
            "start the others too, with the same --coordinator"
            if coordinator
            else f"{name} says that there are so many; --processes 1 runs this one alone"
        )
        late = f"not all of {processes} processes joined within {timeout} s; {others}"
    else:
        late = (
            f"the coordinator at {coordinator or 'the address that ' + name + ' gives'} did not answer within"
            f" {timeout} s; is process 0 running there?"
        )
    give_up = threading.Timer(timeout, _end_with_line, [late])  # JAX's own timeout aborts with a stack of C++
    give_up.daemon = True
    give_up.start()
    _heartbeat = heartbeat
    runtime.without_notices()
    try:
        jax.distributed.initialize(
            initialization_timeout=timeout + 60,
            heartbeat_timeout_seconds=heartbeat,
            shutdown_timeout_seconds=heartbeat,
            **whom,
        )
    # an address in use, a cluster's server that does not answer, ...: whichever, the line says it
    except Exception as error:
        perhaps = "; is the coordinator's port in use?" if process == 0 else ""
        raise UserError(
            f"process {process} of {processes} ({name}) could not join: {_first_line(error)}{perhaps}"
        ) from None
    finally:
        give_up.cancel()
    # one that a signal ended is missed a heartbeat later, and the first, the coordinator, at once
    stopping.grace(min(stopping.GRACE, heartbeat / 2) if process else 0.8 * heartbeat)
    runtime.pass_on_stops()
    return f"process {process} of {processes}, by {name}"


def _check_free(coordinator: str) -> None:
    """UserError where something listens on the coordinator's port: two servers would share it, or gRPC would
    crash."""
    port = int(coordinator.rpartition(":")[2])
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    with socket.socket(family) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what closed a moment ago is no obstacle
        try:
            trial.bind(("", port))
        except OSError as error:
            raise UserError(
                f"--coordinator {coordinator}: port {port} cannot be used here ({error.strerror}); is another"
                " process 0 running?"
            ) from None


def check(coordinator: str, processes: int, process: int, heartbeat: int, timeout: int) -> None:
    """UserError for flags that no set of processes can have."""
    if not (1 <= heartbeat <= LONGEST and 1 <= timeout <= LONGEST):
        raise UserError(
            f"--heartbeat and --start-timeout are whole seconds, 1 to {LONGEST}, not {heartbeat} and"
            f" {timeout}"
        )
    if processes == 1 and not coordinator and process in (-1, 0):
        return
    if 0 < processes <= process:
        raise UserError(
            f"--process is {process}; with --processes {processes} it is one of 0 to {processes - 1}"
        )
    given = {"--coordinator": bool(coordinator), "--processes": processes != 0, "--process": process != -1}
    missing = [flag for flag, there in given.items() if not there]
    if len(missing) == len(given):
        return
    if missing:
        raise UserError(
            f"--coordinator, --processes and --process belong together; missing: {', '.join(missing)}"
        )
    if not 1 <= processes <= MOST_PROCESSES:
        raise UserError(f"--processes is {processes}; it must be 1 to {MOST_PROCESSES}")
    if not 0 <= process < processes:
        raise UserError(
            f"--process is {process}; with --processes {processes} it is one of 0 to {processes - 1}"
        )
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UserError(
            f"--coordinator is HOST:PORT of process 0, with a port of 1 to 65535, not {coordinator!r}"
        )


def _detected():
    """(name, processes, process) of the cluster around this process as JAX sees it; None if there is none, or
    no others in it.

    An allocation of Slurm is not yet a job of several processes: the shell of `salloc` and the script of
    `sbatch` are one, however many tasks were asked for, and `srun` starts the others as a step. Of a step it
    says how many it has."""
    from jax._src.clusters import ClusterEnv  # what jax.distributed.initialize asks; it has no public name

    for kind in ClusterEnv._cluster_types:
        # a pod that is no part of a job
        if kind.opt_in_only_method or kind.name == "k8s" and "JOB_COMPLETION_INDEX" not in os.environ:
            continue
        if kind.name == "slurm" and os.environ.get("SLURM_STEP_NUM_TASKS", "1" * _outside_srun()) == "1":
            continue
        try:
            if kind.is_env_present():
                count = kind.get_process_count()
                return (kind.name, count, kind.get_process_id()) if count > 1 else None
        except Exception as error:
            raise UserError(
                f"this looks like a process of a {kind.name} cluster, but {_first_line(error)}; say"
                " --processes 1, or --coordinator, --processes and --process"
            ) from None
    return None


def _outside_srun() -> bool:
    """Whether Slurm's variables are those of an allocation, not of a process that `srun` started in it. (The
    shell of an interactive allocation is a step of one task, with a number of its own.)"""
    return not {"SLURM_STEP_ID", "SLURM_STEPID", "SLURM_STEP_NODELIST"} & os.environ.keys()


def use_cpu_devices(count: int) -> None:
    """This process has so many CPU devices (0: as many as JAX makes). Before any device is asked for;
    `on_cpu` checks afterwards."""
    if not 0 <= count <= MOST_DEVICES:
        raise UserError(f"--devices is {count}; it must be 1 to {MOST_DEVICES}")
    if count:
        import jax

        jax.config.update("jax_num_cpu_devices", count)


def mesh(shape: tuple[int, int, int] | None, devices: int = 0):
    """The run's mesh: of that shape; None: `sharding.usual_shape`, and no mesh at all where there is one
    device.

    devices: what `use_cpu_devices` was asked for. UserError if the shape needs another number of devices than
    there are."""
    import jax

    from bltjax.parallel import sharding

    if devices and jax.default_backend() != "cpu":
        raise UserError(
            f"--devices is for CPUs; here JAX runs on {jax.default_backend()}, whose devices are counted by"
            " themselves"
        )
    if shape is None and jax.device_count() == 1:
        return None
    slices = len({getattr(device, "slice_index", 0) for device in jax.devices()})
    return sharding.make_mesh(
        shape or sharding.usual_shape(jax.default_backend(), jax.device_count(), slices)
    )


def joined() -> bool:
    """Whether this process was joined to others."""
    if "jax" not in sys.modules:
        return False
    import jax

    return jax.distributed.is_initialized()


def shared(mesh) -> bool:
    """Whether a run on this mesh is one of several processes."""
    return mesh is not None and joined()


def first(mesh) -> bool:
    """Whether this process writes what the run has only one of: all files but its part of the checkpoints,
    and the progress bar."""
    return place(mesh)[0] == 0


def place(mesh) -> tuple[int, int]:
    """(this process's number, how many there are) of those that a run on this mesh has."""
    if not shared(mesh):
        return 0, 1
    import jax

    return jax.process_index(), jax.process_count()


def once(mesh, call):
    """call() in the first process; its answer (JSON values), or its UserError, in all of them."""
    if not shared(mesh):
        return call()
    key = f"bltjax/once/{next(_numbers)}"
    if first(mesh):
        try:
            answer = call()
        except UserError as error:
            said = {"error": str(error), "kind": type(error).__name__}
            runtime.client().key_value_set(key, json.dumps(said))
            raise
        runtime.client().key_value_set(key, json.dumps({"answer": answer}))
        return answer
    said = json.loads(runtime.value(key))
    if "error" in said:
        kinds = {kind.__name__: kind for kind in (RunFailed, Interrupted, locks.Busy)}
        raise kinds.get(said["kind"], UserError)(said["error"])
    return said["answer"]


def barrier(mesh) -> None:
    """Until every process of the mesh is here."""
    if shared(mesh):
        runtime.client().wait_at_barrier(f"bltjax/barrier/{next(_numbers)}", WAIT_MS)


def any_stopped(mesh) -> bool:
    """Whether a process of the mesh was asked to stop before all of them came here; the same answer in
    all."""
    barrier(mesh)
    return once(mesh, runtime.stop_said)


def agree(mesh, settings: dict) -> None:
    """UserError, the same line in all processes, unless they all have the same settings: {name: JSON
    value}."""
    if not shared(mesh):
        return
    import jax

    key = f"bltjax/agree/{next(_numbers)}"
    runtime.client().key_value_set(f"{key}/{jax.process_index()}", json.dumps(settings))
    barrier(mesh)

    def compare():
        said = {
            int(name.rpartition("/")[2]): json.loads(text)
            for name, text in runtime.client().key_value_dir_get(key)
        }
        for number, theirs in sorted(said.items()):
            for name in sorted(theirs.keys() | said[0].keys()):
                if json.dumps(theirs.get(name)) != json.dumps(said[0].get(name)):  # as text: nan is nan
                    raise UserError(
                        f"process {number} was started otherwise than process 0: {name} is"
                        f" {theirs.get(name)!r} there, {said[0].get(name)!r} in process 0"
                    )

    once(mesh, compare)


def leave(code: int, wait: bool = True) -> None:
    """The end of this process, which is about to exit with `code`: lets the others end too before the
    connection closes. Where they were asked to stop, the first process waits for the others, and exits here.

    wait=False, or others that do not come within a heartbeat of a failure: exits here and now. The others
    cannot go on without it, and what would run at the interpreter's end could wait for them. Alone: does
    nothing."""
    if not joined():
        return
    import jax

    sys.stdout.flush()
    sys.stderr.flush()
    if not wait:
        os._exit(code)
    if code == exit_codes.STOPPED:
        runtime.go(jax.process_index(), jax.process_count(), _heartbeat)
        os._exit(code)
    try:
        runtime.client().wait_at_barrier("bltjax/end", _heartbeat * 1000 if code else WAIT_MS)
        runtime.leaving.set()
        jax.distributed.shutdown()
    except Exception:
        os._exit(code or 1)


def lost(error: BaseException) -> str:
    """The line for an error that is nobody's input: most often the first sign that another process is
    gone."""
    import jax

    return (
        f"process {jax.process_index()} of {jax.process_count()} cannot go on, perhaps because another one is"
        f" gone ({_first_line(error)}); start all of them again to resume from the last checkpoint"
    )


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"


def _end_with_line(line: str) -> None:
    with contextlib.suppress(OSError):
        print(f"bltjax: {line}", file=sys.stderr, flush=True)
    os._exit(2)
