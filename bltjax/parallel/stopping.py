"""How a process ends that a signal asked to stop: saved where there is something to save, in a bounded time
where there is not, and always with the exit status that has it started again (bltjax/exit_codes.py).

Schedulers ask with SIGTERM, SIGUSR1 or SIGUSR2, terminals with SIGINT and SIGHUP; all mean the same. Who has
something to save claims the request and looks at it (the training loop, after each step; `bltjax run`, which
stops its workers). Elsewhere the main thread gets a KeyboardInterrupt, as for Ctrl-C; where it does not come
to that (it compiles, say, or waits for another process), the process ends all the same, GRACE seconds later:
files appear whole or not at all. A second signal ends it at once; what a checkpoint has stays."""

import contextlib
import os
import select
import signal
import sys
import threading
import time

from bltjax import exit_codes

SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
)
# what a scheduler sends ahead of the SIGTERM that it means, which is then no second signal
WARNINGS = ("SIGUSR1", "SIGUSR2")
GRACE = 15.0  # seconds to end in, for a process that has nothing to save
# seconds within which signals are one: a terminal's or a scheduler's to a process and to its parent
TOGETHER = 1.0


class Request:
    """Whether somebody asked to stop: `signal` is the name of the signal, or empty.

    saves: whether its owner ends by itself once it is asked, however long that takes; else within GRACE."""

    signal = ""
    saves = True

    def ask(self, name: str) -> None:
        """Called for the first signal, in the main thread."""
        self.signal = self.signal or name


class _Listener:
    """The signals of this process, from the moment it listens."""

    def __init__(self):
        self.first, self.at, self.grace, self.deadline = "", 0.0, GRACE, None
        self.request, self._raised = None, False
        self._ends, self._wakes = os.pipe()
        os.set_blocking(self._wakes, False)
        self._before = {}

    def start(self) -> None:
        self._fd = signal.set_wakeup_fd(self._wakes, warn_on_full_buffer=False)
        for which in SIGNALS:
            self._before[which] = signal.getsignal(which)
        self.listen()
        threading.Thread(target=self._guard, name="signals", daemon=True).start()

    def listen(self) -> None:
        """Takes the signals, or takes them back from a library that did."""
        for which in SIGNALS:
            nohup = which.name == "SIGHUP" and self._before[which] == signal.SIG_IGN
            if not nohup:
                signal.signal(which, self._handle)

    def stop(self) -> None:
        for which, handler in self._before.items():
            signal.signal(which, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(self._fd)
        os.close(self._wakes)  # the guard reads the end, and ends

    def extend(self) -> None:
        self.deadline = time.monotonic() + self.grace

    def asked(self, name: str) -> None:
        """The first signal, as far as the main thread is concerned."""
        self.first = self.first or name
        if self.request is not None:
            self.request.ask(self.first)
        elif not self._raised:
            self._raised = True
            raise KeyboardInterrupt(self.first)

    def _handle(self, number, frame) -> None:
        self.asked(signal.Signals(number).name)

    def _guard(self) -> None:
        """In a thread of its own: the main one may be in a library for minutes, where no handler runs."""
        while True:
            left = None if self.deadline is None else max(0.0, self.deadline - time.monotonic())
            if not select.select([self._ends], [], [], left)[0]:
                if self.request is not None and self.request.saves:
                    self.extend()
                elif time.monotonic() >= self.deadline:
                    _end(f"stopped by {self.first}")
                continue
            numbers = os.read(self._ends, 64)
            if not numbers:
                os.close(self._ends)
                return
            for name in (signal.Signals(n).name for n in numbers if n in SIGNALS):
                now = time.monotonic()
                if self.deadline is None:
                    self.first, self.at = self.first or name, now
                    self.extend()
                elif now - self.at > TOGETHER:
                    if name in WARNINGS or self.first not in WARNINGS:
                        _end(f"stopped by {name}, the second signal: at once")
                    self.first, self.at = name, now  # what it was warned of


_listener: _Listener | None = None


@contextlib.contextmanager
def listening():
    """While it lasts, signals ask this process to stop. In the main thread; in others, and where it listens
    already, nothing changes."""
    global _listener
    if _listener is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    _listener = _Listener()
    _listener.start()
    try:
        yield
    finally:
        ended, _listener = _listener, None
        ended.stop()


def claim(request: Request) -> None:
    """From now on signals ask this request; one that came before does at once. Where nothing listens it is
    never asked."""
    if _listener is not None:
        _listener.request = request
        if _listener.first:
            request.ask(_listener.first)


def release(request: Request) -> None:
    """The end of a claim: from here on its owner has nothing to save, and GRACE begins if it was asked."""
    if _listener is None or _listener.request is not request:
        return
    if _listener.deadline is not None:
        _listener.extend()
    _listener.request = None
    if threading.current_thread() is threading.main_thread():
        _listener.listen()


@contextlib.contextmanager
def claimed(request: Request):
    """A claim for a block."""
    claim(request)
    try:
        yield
    finally:
        release(request)


def first() -> str:
    """The name of the first signal that this process got; "": none."""
    return _listener.first if _listener is not None else ""


def grace(seconds: float) -> None:
    """Another GRACE for this process."""
    if _listener is not None:
        _listener.grace = seconds


def _end(line: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"bltjax: {line}\n".encode())  # the stream's lock may be another thread's
    os._exit(exit_codes.STOPPED)


def leave(code: int) -> None:
    """The end of a process that listened: one that was stopped waits for none of its threads."""
    if code != exit_codes.STOPPED:
        sys.exit(code)
    for stream in filter(None, (sys.stdout, sys.stderr)):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
