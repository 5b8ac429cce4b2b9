"""A small sweep in the simulated world: jobs that read one another's outputs, workers that make them, a
cluster that starts workers again, launchers, and readers. Jobs and cluster are fakes; storage/,
launch/submit.py and storage/attempts.py are the real ones."""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import shutil

import faulty
import world as worlds

from bltjax import exit_codes
from bltjax.errors import Interrupted, RunFailed, UserError
from bltjax.launch import stored, submit
from bltjax.launch.job import Job, Step
from bltjax.run import jobs
from bltjax.storage import attempts, json_object, locks, mirror, store, work
from bltjax.storage.atomic import write_json, write_text

EVERY = 2  # steps between checkpoints
KIND = "simulated"
jobs.KINDS[KIND] = jobs.Kind(None, lambda directory: True)
CALM = 2500.0  # seconds, after which nothing fails any more


class Broken(BaseException):
    """An invariant does not hold; no Exception, which a store would take for one of its faults."""


@dataclasses.dataclass(frozen=True)
class Target:
    """launch/job.py's, for the fake cluster. chains: CHAINS."""

    cluster: "Cluster"
    CHAINS: bool

    def steps(self, folder, jobs, settings, limit):
        here = {job.name for job in jobs}
        after = lambda job: tuple(f"s-{name}" for name in job.needs if name in here)
        return [Step(f"s-{job.name}", (job.name,), ("x",), after(job)) for job in jobs]

    def submit(self, step, ids, settings):
        return self.cluster.submit(step, [ids[name] for name in step.after if name in ids])

    def found(self, name, settings):
        self.cluster.asked()
        return next((i for i, one in self.cluster.given.items() if one["step"] == name and one["alive"]), "")

    def alive(self, ids, settings):
        self.cluster.asked()
        return {one for one in ids if one in self.cluster.given and self.cluster.given[one]["alive"]}


class Cluster:
    """Starts a worker for what it is given, and again after most of what may befall it."""

    def __init__(self, sweep: "Sweep"):
        self.sweep, self.given = sweep, {}

    def asked(self) -> None:
        world = self.sweep.world
        world.pause(world.draw.expovariate(1.0))
        if world.draw.random() < self.sweep.faults().drop:
            raise UserError("the cluster does not answer")

    def submit(self, step, after) -> str:
        self.asked()
        name = str(len(self.given))
        self.given[name] = {"step": step.name, "job": step.jobs[0], "alive": True, "after": after}
        self.sweep.world.note("submitted", name, step.name)
        self._start(name)
        self.asked()
        return name

    def _start(self, name: str) -> None:
        world, one = self.sweep.world, self.given[name]
        if any(self.given[other]["alive"] for other in one["after"]):
            world.later(20.0, lambda: self._start(name))
            return
        process = self.sweep.worker(one["job"])
        self._look(name, process)

    def _look(self, name: str, process) -> None:
        """Every ten seconds, whether it has ended, and what then."""
        sweep, world, one = self.sweep, self.sweep.world, self.given[name]
        if process.ended is None:
            if world.draw.random() < 4 * sweep.faults().kill:
                process.asked_to_stop = True  # a warning; it may be killed before it took note of it
                if world.draw.random() < 0.3:
                    world.later(world.draw.uniform(0, 30), lambda: world.kill(process))
            world.later(10.0, lambda: self._look(name, process))
        elif process.ended == exit_codes.STOPPED or process.ended < 0 and world.draw.random() < 0.7:
            world.later(world.draw.uniform(1, 30), lambda: self._start(name))
        else:
            one["alive"] = False


class Sweep:
    """A world with a sweep in it. jobs: {name: (steps, needs)}; faults: until CALM."""

    def __init__(self, seed: int, folder: pathlib.Path, faults=None):
        self.world = worlds.World(seed)
        draw = self.world.draw
        self.folder, self.machines, self.busy = folder, [], {}
        self.wild = faults or some_faults(draw)
        self.content = faulty.Content(self.world, self.entry_made)
        names = ["data", "lm", "a", "b"][: draw.choice([1, 1, 2, 2, 3])]
        self.jobs = {}
        for i, name in enumerate(names):
            needs = [other for other in names[:i] if draw.random() < 0.6]
            self.jobs[name] = draw.randint(1, 4), needs
        self.target = Target(Cluster(self), draw.random() < 0.5)
        self.limit = draw.choice([0, 0, 2])
        self.working, self.newest = {}, {}

    def faults(self) -> faulty.Faults:
        return self.wild if self.world.now < CALM else faulty.Faults()

    # What the jobs make, undisturbed.

    def states(self, name: str) -> list[str]:
        """Of a job after each of its steps, from its beginning on."""
        steps, needs = self.jobs[name]
        state = digest(name, *(self.output(need) for need in needs))
        found = [state]
        for step in range(1, steps + 1):
            found.append(digest(found[-1], step))
        return found

    def output(self, name: str) -> str:
        return self.states(name)[-1]

    # Processes.

    def process(self, name: str, machine=None):
        if machine is None:
            scratch = self.folder / str(len(self.machines))
            machine = worlds.Machine(str(len(self.machines)), scratch, self.world.draw.uniform(-900, 900))
            self.machines.append(machine)
        found = worlds.Process(name, machine)
        found.asked_to_stop = False
        return found

    def root(self, process) -> mirror.Root:
        backend = faulty.Faulty(self.world, self.content, process, self.faults)
        opened = store.Store("sim://x", backend, worlds.Clock(self.world, process), self.world.draw.random)
        return mirror.Root(opened, process.machine.scratch)

    def directory(self, job: str) -> str:
        return f"e/{job}"

    def worker(self, job: str):
        """Starts one, on a machine where one of this job was before, or on a new one."""
        draw, free = self.world.draw, []
        for machine, process in self.busy.get(job, {}).items():
            if process.ended is not None:
                free.append(machine)
        machine = draw.choice(free) if free and draw.random() < 0.5 else None
        process = self.process(f"{job}", machine)
        self.busy.setdefault(job, {})[process.machine] = process
        self.world.note("worker", job, "on", process.machine.name)
        self.world.start(process, lambda: self.work(job, process))
        return process

    def work(self, job: str, process) -> None:
        """A worker's life; its exit status as run/worker.py gives it."""
        try:
            root, needs = self.root(process), [self.directory(need) for need in self.needed(job)]
            stop = lambda: setattr(process, "asked_to_stop", True)
            start = lambda live: self.world.start(process, live)
            here = work.Work(root, self.directory(job), needs, 600.0, lost=stop, start=start)
            with here:
                if here.lease:
                    try:
                        self.make(job, process, here)
                    except RunFailed as error:
                        if not isinstance(error, Interrupted):
                            write_json(here.directory.local / "failed.json", {"error": str(error)})
                        raise
            code = 0
        except locks.Busy:
            code = exit_codes.BUSY
        except UserError as error:
            code = error.exit_code
            if type(error) is UserError and "not done" not in str(error):
                raise Broken(f"{job}: {error}") from error
        self.world.note("ended", job, "with", code)
        process.ended = code

    def needed(self, job: str) -> list[str]:
        """The jobs that it needs, and those that they do."""
        found = dict.fromkeys(self.jobs[job][1])
        for need in list(found):
            found |= dict.fromkeys(self.needed(need))
        return list(found)

    def make(self, job: str, process, here) -> None:
        """The fake job: as run/execute.py, it goes on from its newest whole checkpoint."""
        folder, world, steps = here.directory.local, self.world, self.jobs[job][0]
        for need in self.jobs[job][1]:
            found = (folder.parent / need / "out.bin").read_text()
            if found != self.output(need):
                raise Broken(f"{job} reads {found} of {need}")
        first, state = newest_checkpoint(folder) or (0, self.states(job)[0])
        attempt = attempts._next(folder)
        facts = {"began": world.now, "seen": world.now, "chips": 0, "step": first}
        facts |= {"code": None, "ended": None}
        write_json(attempt, facts)
        lines = folder / "metrics.jsonl"
        kept = lines.read_text().splitlines(keepends=True)[:first] if lines.exists() else []
        write_text(lines, "".join(kept))
        if len(kept) < first:
            raise Broken(f"{job}: a checkpoint of step {first}, and metrics up to {len(kept)}")
        with self.at_work(job, process), contextlib.ExitStack() as ended:
            died = lambda kind: kind is worlds.Killed
            ended.push(lambda kind, error, _: died(kind) or note_end(attempt, facts, error, world))
            for step in range(first + 1, steps + 1):
                world.pause(world.draw.uniform(2, 25))
                state = digest(state, step)
                with lines.open("a") as out:
                    out.write(json.dumps(line(step, state)) + "\n")
                if step % EVERY == 0 or process.asked_to_stop or step == steps:
                    save(folder, step, state, world)
                    here.checkpoint(step)
                if process.asked_to_stop:
                    raise Interrupted("asked to stop")
                if world.draw.random() < self.faults().kill:
                    raise RunFailed("no luck")
            write_text(folder / "out.bin", state)
            world.pause(1.0)
            write_json(folder / "done.json", {})
            (folder / "failed.json").unlink(missing_ok=True)

    @contextlib.contextmanager
    def at_work(self, job: str, process):
        """Where no process is stopped for minutes, no two are at one job at once."""
        others = [one for one in self.working.get(job, ()) if not one.dead]
        if others and not self.wild.stop:
            raise Broken(f"two processes at once make {job}")
        self.working.setdefault(job, []).append(process)
        try:
            yield
        finally:
            self.working[job].remove(process)

    def launcher(self, number: int, patience: float) -> None:
        """`bltjax launch --watch`, of which there may be several; with what `bltjax retry` does, now and
        then."""
        process = self.process(f"launcher {number}")

        def live():
            while True:
                try:
                    if self.launch(process):
                        return
                except UserError as error:
                    self.world.note("launcher", number, type(error).__name__, error)
                self.world.pause(patience)

        self.world.start(process, live)
        if self.world.now < CALM:  # it may be killed, and somebody launches again
            self.world.later(CALM, lambda: process.dead and self.launcher(number + 10, patience))

    def launch(self, process) -> bool:
        """One step further; whether the sweep is over."""
        root = self.root(process)
        root.local.mkdir(parents=True, exist_ok=True)
        made = []
        for name, (_, needs) in self.jobs.items():
            directory = root.directory(self.directory(name))
            made.append(Job(name, KIND, str(directory.local), tuple(needs), own=True))
            if directory.here[0] == 0 and directory.pull_small().number == 0:
                write_json(directory.local / "config.json", {"kind": KIND, "config": {"job": name}})
                directory.offer()
        start = lambda live: self.world.start(process, live)
        here = stored.Launch(root, "e/launch", made, wait=400.0, start=start)
        folder = root.local / "e/launch"
        standing = submit.forward(folder, made, "x", self.target, None, self.limit, work=here)
        if standing.failed and self.world.draw.random() < (0.3 if self.world.now < CALM else 1.0):
            submit.forgive(made)
            for job in made:
                with contextlib.suppress(UserError):
                    root.directory(job.directory).offer()
        return standing.over and not standing.failed

    def reader(self) -> None:
        """Somebody who looks at whatever there is, and believes it."""
        process = self.process("reader")

        def live():
            root, draw = self.root(process), self.world.draw
            while self.world.now < CALM:
                self.world.pause(draw.uniform(5, 400))
                job = draw.choice(list(self.jobs))
                directory = root.directory(self.directory(job))
                try:
                    small = draw.random() < 0.5
                    entry = directory.pull_small() if small else directory.pull()
                except UserError as error:
                    if "damaged" in str(error):
                        raise Broken(str(error)) from error
                    continue
                self.check(job, directory.local, entry, small)

        self.world.start(process, live)

    # Invariants.

    def check(self, job: str, folder: pathlib.Path, entry, small: bool = False) -> None:
        """What a directory says is so, as far as it goes."""
        states = self.states(job)
        lines = folder / "metrics.jsonl"
        said = [json.loads(one) for one in lines.read_text().splitlines()] if lines.exists() else []
        if not small and said != [line(step, states[step]) for step in range(1, len(said) + 1)]:
            raise Broken(f"{job}: metrics.jsonl is not what an undisturbed one says")
        found = None if small else newest_checkpoint(folder)
        if found and found[1] != states[found[0]]:
            raise Broken(f"{job}: checkpoint {found[0]} is not that of an undisturbed run")
        if not entry.done or small:
            return
        if (folder / "out.bin").read_text() != states[-1] or len(said) != len(states) - 1:
            raise Broken(f"{job} is done, and not as an undisturbed one")

    def entry_made(self, name: str, data: bytes) -> None:
        """Each entry, when it is made: all that it names is there, and a job that was done stays so."""
        if "/log/" not in name:
            return
        job, number = name.partition("/log/")[0], int(name.rpartition("/")[2])
        said, before = json.loads(data), self.newest.get(job, {"number": 0, "holder": "", "files": {}})
        self.newest[job] = said
        if number != before["number"] + 1:
            raise Broken(f"{name} stands behind entry {before['number']}")
        if "done.json" in before["files"]:
            raise Broken(f"{name}: the job was done")
        writes = said["files"] != before["files"]
        if writes and before["holder"] not in ("", said["by"]):
            raise Broken(f"{name}: {said['by']} writes, and {before['holder']} holds the job")
        checked = {name: data}
        if why := faulty.damage_of(self.content.objects | checked, name):
            raise Broken(why)

    def finished(self) -> None:
        """Every job is done, as if nothing had been."""
        calm = self.process("last")
        root = mirror.Root(store.Store("sim://x", Plain(self.content)), calm.machine.scratch)
        for job in self.jobs:
            entry = root.directory(self.directory(job)).pull()
            if not entry.done:
                raise Broken(f"{job} is not done in the end")
            self.check(job, root.local / self.directory(job), entry)


class Plain:
    """A store that does what it is asked."""

    def __init__(self, content):
        self.objects = content.objects

    def get(self, name):
        if name not in self.objects:
            raise FileNotFoundError(name)
        return self.objects[name]

    def list(self, prefix):
        return [name for name in self.objects if name.startswith(prefix)]

    def get_file(self, name, path):
        path.write_bytes(self.get(name))


def run(seed: int, folder: pathlib.Path, faults=None) -> Sweep:
    """The world of a seed, from beginning to end. Raises Broken, and whatever else goes wrong."""
    sweep = Sweep(seed, folder, faults)
    draw = sweep.world.draw
    for i in range(draw.choice([1, 1, 1, 2, 2, 3])):
        sweep.launcher(i, draw.uniform(100, 900))
    if draw.random() < 0.2:
        sweep.reader()
    try:
        sweep.world.run()
        sweep.finished()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return sweep


def some_faults(draw) -> faulty.Faults:
    """Some kinds of faults, not all at once, so that each is seen with and without the others."""
    share = lambda most: draw.choice([0.0, draw.uniform(0, most)])
    return faulty.Faults(
        drop=share(0.2),
        twice=share(0.2),
        half=share(0.1),
        stale=share(0.5),
        kill=share(0.02),
        stop=share(0.02),
        outage=share(0.01),
        slow=draw.choice([0.01, 0.2]),
    )


def digest(*words) -> str:
    return hashlib.sha256(" ".join(map(str, words)).encode()).hexdigest()[:12]


def line(step: int, state: str) -> dict:
    return {"step": step, "useful_flops": float(step), "state": state}


def note_end(path, facts, error, world) -> None:
    code = 0 if error is None else getattr(error, "exit_code", exit_codes.FAILED)
    write_json(path, {**facts, "seen": world.now, "ended": world.now, "code": code})


def save(folder: pathlib.Path, step: int, state: str, world) -> None:
    """A checkpoint as training/checkpoint.py makes it: files, then the manifest; then those before go."""
    at = folder / "checkpoints" / str(step)
    write_text(at / "params" / "x", state)
    world.pause(0.5)
    write_json(folder / "checkpoints" / f"{step}.manifest.json", {"state": state})
    for other in folder.glob("checkpoints/*.manifest.json"):
        if other.name != f"{step}.manifest.json":
            other.unlink()
            shutil.rmtree(other.with_name(other.name.removesuffix(".manifest.json")))


def newest_checkpoint(folder: pathlib.Path) -> tuple[int, str] | None:
    """(step, state) of the newest that is whole."""
    for path in sorted(folder.glob("checkpoints/*.manifest.json"), reverse=True):
        at = path.with_name(path.name.removesuffix(".manifest.json"))
        try:
            state = (at / "params" / "x").read_text()
        except FileNotFoundError:
            raise Broken(f"{at} has a manifest, and is not whole") from None
        if json_object.read(path)[0] != {"state": state}:
            raise Broken(f"{at} is not what its manifest says")
        return int(at.name), state
    return None
