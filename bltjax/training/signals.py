"""How a run ends before its last step: interrupted, out of disk, or no longer finite. Each is one line for
the user."""

import contextlib
import errno
import signal
import threading


def disk_full(error: BaseException | None) -> bool:
    """Whether an error, or one it was raised from, says that no space (or quota) is left."""
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        # TensorStore reports in words, with no errno.
        if "No space left on device" in str(error) or "Disk quota exceeded" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


class Request:
    """Whether somebody asked the run to stop: `signal` is the name of the signal, or empty."""

    signal = ""

    def reached(self, step: int) -> bool:
        """Whether the run stops after this step; asked once a step."""
        return bool(self.signal)


class SharedRequest(Request):
    """The same of a run of several processes: one of them is asked, and all stop after the same step, which
    JAX's runtime finds."""

    def reached(self, step: int) -> bool:
        from jax.experimental import multihost_utils

        if multihost_utils.reached_preemption_sync_point(step):
            self.signal = "SIGTERM"
        return bool(self.signal)


@contextlib.contextmanager
def on_signals(joined: bool = False, shared: bool = False):
    """Yields a Request that SIGTERM or SIGINT fills. A second signal acts as it would without us, so a stuck
    run can still be ended.

    Only the main thread may set handlers; elsewhere the request is never filled. joined: this process is one
    of several, where SIGTERM is the runtime's: it tells all processes, from the moment they are joined.
    SIGINT is then passed on as SIGTERM. shared: so is the run; another run of a joined process, which makes
    something that all wait for, goes on to its end."""
    request = SharedRequest() if shared else Request()
    if joined and not shared:
        yield request
        return
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {}

    def ask(number, frame):
        if shared:
            signal.raise_signal(signal.SIGTERM)
        else:
            request.signal = signal.Signals(number).name
        for which, handler in before.items():
            signal.signal(which, handler)

    try:
        for which in (signal.SIGINT,) if shared else (signal.SIGTERM, signal.SIGINT):
            before[which] = signal.signal(which, ask) or signal.SIG_DFL
        yield request
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)
