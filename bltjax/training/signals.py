"""How a run ends before its last step: interrupted, out of disk, or no longer finite. Each is one line for
the user."""

import contextlib
import errno
import signal

from bltjax.parallel import distributed, runtime, stopping


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


class Request(stopping.Request):
    """Whether somebody asked the run to stop. Before its first step it has nothing to save, and a signal ends
    it as it does elsewhere (parallel/stopping.py)."""

    _claimed = False

    def reached(self, step: int) -> bool:
        """Whether the run stops after this step; asked once a step."""
        if not self._claimed:
            stopping.claim(self)
            self._claimed = True
        return bool(self.signal)

    def end(self) -> None:
        stopping.release(self)


class SharedRequest(Request):
    """The same of a run of several processes: one of them is asked, and all stop after the same step, which
    JAX's runtime finds. Past the first step SIGTERM is the runtime's, and other signals are passed on as
    SIGTERM."""

    saves = False
    _asked = False

    def __init__(self, mesh):
        self._mesh = mesh

    def ask(self, name: str) -> None:
        if self.saves and not self._asked:
            signal.raise_signal(signal.SIGTERM)
        self._asked = True

    def reached(self, step: int) -> bool:
        from jax.experimental import multihost_utils

        if not self._claimed:
            super().reached(step)
            # one that is asked from here on waits for all; one that was before never comes here
            if distributed.any_stopped(self._mesh):
                self.signal = "SIGTERM"
            else:
                runtime.take_notices()
            self.saves = True
            if self._asked and not self.signal:
                signal.raise_signal(signal.SIGTERM)
        if not self.signal and multihost_utils.reached_preemption_sync_point(step):
            self.signal = "SIGTERM"
        return bool(self.signal)

    def end(self) -> None:
        if self.saves:
            runtime.end_notices()
        super().end()


@contextlib.contextmanager
def on_signals(mesh=None):
    """Yields a Request that a signal fills, whichever of stopping.SIGNALS it is. A second one ends the
    process at once, with what the last checkpoint has.

    mesh: of the run, whose processes stop together. Where nothing listens for signals (in a thread that is
    not the main one of a program that does not) the request is never filled."""
    with stopping.listening():
        request = SharedRequest(mesh) if distributed.shared(mesh) else Request()
        try:
            yield request
        finally:
            request.end()
