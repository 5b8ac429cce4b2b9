"""What JAX's runtime of several processes (jax.distributed) has no public names for: its key-value store, its
notice of a preemption. And how a signal to one of the processes is one to all."""

import contextlib
import os
import signal
import threading
import time

from bltjax.parallel import stopping

# keys that a process sets: one that was asked to stop, and one that ends
STOP, GONE = "bltjax/stop", "bltjax/gone"

leaving = threading.Event()  # the connection is about to close


def state():
    """JAX's own record of what it is connected to; orbax uses it the same way."""
    from jax._src import distributed

    return distributed.global_state


def client():
    """The key-value store and barriers."""
    return state().client


def value(key: str) -> str:
    """Of a key, once a process has set it. Between short waits, so that a signal is heard."""
    while True:
        try:
            return client().blocking_key_value_get(key, 1000)
        except Exception as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise


def pass_on_stops() -> None:
    """From here on a signal to one process is one to all, a second or two later."""
    threading.Thread(target=_pass_on, name="stops", daemon=True).start()


def _pass_on() -> None:
    while not leaving.wait(1.0):
        if stopping.first():
            return say_stop()
        if stop_said():
            return os.kill(os.getpid(), signal.SIGTERM)


def say_stop() -> None:
    """Says that this process was asked to stop, if it was."""
    if mine := stopping.first():
        with contextlib.suppress(Exception):  # another one has said so, or the connection is gone
            client().key_value_set(STOP, mine)


def go(process: int, processes: int, seconds: float) -> None:
    """The last call of a process that was asked to stop. The first one keeps the connection of all, and waits
    so long for the others."""
    say_stop()
    deadline = time.monotonic() + seconds
    with contextlib.suppress(Exception):  # the connection is gone
        if process:
            client().key_value_set(f"{GONE}/{process}", "")
        while not process and time.monotonic() < deadline:
            if len(client().key_value_dir_get(GONE)) == processes - 1:
                return
            time.sleep(0.1)


def stop_said() -> bool:
    """Whether a process has said that it was asked to stop."""
    with contextlib.suppress(Exception):  # JAX's way to say that there is no such key
        return bool(client().key_value_try_get(STOP))
    return False


def take_notices() -> None:
    """From here on SIGTERM is the runtime's own notice of a preemption: it finds the step after which all
    processes stop, if they ask it after each. Before the first step and after the last it would be lost."""
    import jax

    end_notices()
    jax.config.update("jax_enable_preemption_service", True)
    state().initialize_preemption_sync_manager()


def end_notices() -> None:
    """SIGTERM is no longer the runtime's."""
    if state().preemption_sync_manager is not None:
        state().preemption_sync_manager.shutdown()
        state().preemption_sync_manager = None


def without_notices() -> None:
    """Before processes are joined: not yet."""
    import jax

    jax.config.update("jax_enable_preemption_service", False)
