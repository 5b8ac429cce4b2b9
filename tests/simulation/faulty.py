"""A store that fails as real ones do, and worse: calls are dropped before and after they had an effect,
delayed, made twice (the second time whenever), puts leave half of an object, listings are old, and the
process that asks may be stopped or killed at any of it. Only creating where none is stays what it is."""

import dataclasses
import hashlib
import json


@dataclasses.dataclass(frozen=True)
class Faults:
    """Shares of calls. outage: seconds, now and then, in which a process gets no answer at all."""

    drop: float = 0.0
    twice: float = 0.0
    half: float = 0.0
    stale: float = 0.0
    kill: float = 0.0
    stop: float = 0.0
    outage: float = 0.0
    slow: float = 0.05  # seconds of a call, in the mean


class Content:
    """What all see: objects by name. check(name, data): called when one is created."""

    def __init__(self, world, check=lambda name, data: None):
        self.world, self.objects, self.check, self.history = world, {}, check, []

    def set(self, name: str, data: bytes | None) -> None:
        if (name in self.objects) != (data is not None):
            self.history.append((self.world.now, name, data is not None))
        if data is None:
            self.objects.pop(name, None)
        else:
            self.objects[name] = data

    def before(self, when: float, prefix: str) -> list[str]:
        """Names as they were."""
        found = set()
        for at, name, there in self.history:
            if at > when:
                break
            if name.startswith(prefix):
                (found.add if there else found.discard)(name)
        return sorted(found)


class Faulty:
    """The backend (storage/store.py) of one process. faults(): those of now."""

    def __init__(self, world, content: Content, process, faults):
        self.world, self.content, self.process, self.faults = world, content, process, faults
        self.away_until = 0.0

    def _call(self, name, apply, half=None):
        world, faults, draw = self.world, self.faults(), self.world.draw
        slow = lambda: draw.expovariate(1 / faults.slow) if draw.random() < 0.9 else draw.uniform(0, 3)
        world.pause(slow())
        chance = draw.random()
        if chance < faults.kill:
            if draw.random() < 0.5:
                apply()
            world.kill(self.process)
        elif chance < faults.kill + faults.stop:
            if draw.random() < 0.5:
                apply()
            self.process.stopped_until = world.now + draw.uniform(100, 1500)
            world.note("stopped", self.process.name, name)
        elif chance < faults.kill + faults.stop + faults.outage:
            self.away_until = world.now + draw.uniform(50, 600)
            world.note("away", self.process.name)
        if chance < faults.kill + faults.stop:
            world.pause(0.0)
        if self.away_until > world.now and faults.outage:
            raise TimeoutError(name)
        chance = draw.random()
        if chance < faults.drop:
            if draw.random() < 0.5:
                apply()
            raise ConnectionError(name)
        if half and chance < faults.drop + faults.half:
            half()
            raise ConnectionError(name)
        try:
            found = apply()
        finally:
            if draw.random() < faults.twice and half is not None:
                world.later(draw.uniform(0, 400), apply)
            world.pause(slow())
        return found

    def get(self, name):
        def read():
            if name not in self.content.objects:
                raise FileNotFoundError(name)
            return self.content.objects[name]

        return self._call(name, read)

    def put(self, name, data):
        part = data[: self.world.draw.randrange(len(data) + 1)]
        self._call(name, lambda: self.content.set(name, data), lambda: self.content.set(name, part))

    def create(self, name, data):
        def make():
            if name in self.content.objects:
                raise FileExistsError(name)
            self.content.check(name, data)
            self.content.set(name, data)

        self._call(name, make)

    def delete(self, name):
        self._call(name, lambda: self.content.set(name, None), lambda: None)

    def list(self, prefix):
        when = self.world.now
        if self.world.draw.random() < self.faults().stale:
            when -= self.world.draw.uniform(0, 60)
            return self._call(prefix, lambda: self.content.before(when, prefix))
        return self._call(prefix, lambda: [name for name in self.content.objects if name.startswith(prefix)])

    def get_file(self, name, path):
        path.write_bytes(self.get(name))

    def put_file(self, name, path):
        self.put(name, path.read_bytes())


def damage_of(objects: dict, name: str) -> str:
    """What is wrong with an entry's files, in a line; "" where all is as it says."""
    job = name.partition("/log/")[0]
    for path, one in json.loads(objects[name])["files"].items():
        data = objects.get(f"{job}/{one['at']}")
        if data is None:
            return f"{name}: {path} is missing"
        if (len(data), hashlib.sha256(data).hexdigest()) != (one["bytes"], one["sha256"]):
            return f"{name}: {path} is not what the entry says"
    return ""
