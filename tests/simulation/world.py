"""A world of processes that is a function of its seed: one thread runs at a time, until it pauses, and the
fake clock goes from one pause's end to the next. A process can be killed wherever it pauses, and stopped for
a while; none of its code runs after that, `finally` neither: whatever it asks of the world raises Killed."""

import heapq
import itertools
import random
import threading


class Killed(BaseException):
    """This process is no more."""


class Process:
    """Some threads that die together, on a machine whose clock may be wrong. name: for the record."""

    def __init__(self, name: str, machine: "Machine"):
        self.name, self.machine, self.dead, self.stopped_until = name, machine, False, 0.0
        self.ended = None  # its exit status; -9: killed


class Machine:
    """scratch: its folder; skew: seconds by which its wall clock is off."""

    def __init__(self, name: str, scratch, skew: float = 0.0):
        self.name, self.scratch, self.skew = name, scratch, skew


class World:
    """now: seconds since the beginning. record: lines of what happened, alike for equal seeds."""

    def __init__(self, seed: int, until: float = 30_000.0):
        self.draw, self.now, self.until = random.Random(seed), 0.0, until
        self.record, self.here, self.failure = [], None, None
        self._heap, self._number, self._threads = [], itertools.count(), 0
        self._over = threading.Lock()
        self._over.acquire()

    def note(self, *words) -> None:
        self.record.append(f"{self.now:10.2f} {' '.join(map(str, words))}")

    def later(self, seconds: float, call) -> None:
        """Calls something then, in nobody's name."""
        heapq.heappush(self._heap, (self.now + seconds, next(self._number), call))

    def start(self, process: Process, target) -> None:
        """A thread of a process."""
        thread = _Thread(self, process, target)
        self._threads += 1
        heapq.heappush(self._heap, (self.now, next(self._number), thread))

    def kill(self, process: Process) -> None:
        if not process.dead:
            process.dead, process.ended = True, -9
            self.note("killed", process.name)

    def pause(self, seconds: float) -> None:
        """The running thread waits; others run meanwhile. Raises Killed."""
        me = self.here
        if me.process.dead:
            raise Killed
        heapq.heappush(self._heap, (self.now + seconds, next(self._number), me))
        self._next(me)
        if me.process.dead:
            raise Killed

    def run(self) -> None:
        """Until no thread is left. Raises what went wrong in one."""
        self._next(None)
        self._over.acquire()
        if self.failure:
            raise self.failure

    def _next(self, me) -> None:
        """Hands over to whoever is next; returns when that is `me`, at once where it is None."""
        while self._heap:
            when, _, what = heapq.heappop(self._heap)
            self.now = max(self.now, when)
            if self.now > self.until and not self.failure:
                self.failure = AssertionError(f"not over after {self.until} s")
            if not isinstance(what, _Thread):
                if not self.failure:
                    what()
                continue
            if what.process.stopped_until > self.now and not what.process.dead and not self.failure:
                heapq.heappush(self._heap, (what.process.stopped_until, next(self._number), what))
                continue
            if self.failure:
                what.process.dead = True
            self.here = what
            if what is not me:
                what.go.release()
                if me is not None and not me.gone:
                    me.go.acquire()
            return
        self._over.release()


class _Thread:
    def __init__(self, world: World, process: Process, target):
        self.world, self.process, self.target, self.gone = world, process, target, False
        self.go = threading.Lock()
        self.go.acquire()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        self.go.acquire()
        try:
            if not self.process.dead:
                self.target()
        except Killed:
            pass
        except BaseException as error:
            self.world.failure = self.world.failure or error
        self.gone = True
        self.world._threads -= 1
        self.world._next(self)


class Clock:
    """storage/store.py's clock, of a process."""

    def __init__(self, world: World, process: Process):
        self.world, self.process = world, process

    def monotonic(self) -> float:
        return self.world.now

    def wall(self) -> float:
        return self.world.now + self.process.machine.skew

    def sleep(self, seconds: float) -> None:
        self.world.pause(seconds)

    def wait(self, event, seconds: float) -> bool:
        if not event.is_set():
            self.world.pause(seconds)
        return event.is_set()
