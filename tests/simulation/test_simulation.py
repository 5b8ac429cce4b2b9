"""A sweep whose root lies in a store that fails, with workers and launchers that die anywhere, in a simulated
world (world.py, faulty.py, sweep.py): no job is made twice at once or lost, nothing is read half-written, and
a sweep that ends is the undisturbed one. A seed that fails is replayed by

    python tests/simulation/test_simulation.py SEED

which prints what happened. With two numbers, the seeds from the one up to the other."""

import dataclasses
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import faulty
import pytest
import sweep

from bltjax.launch import submit
from bltjax.storage import journal, mirror, store

# Each failed once, and what it found was mended.
REGRESSIONS = ()


def several(first: int, last: int, folder) -> list[str]:
    """Runs seeds; a line for each that fails, with the command that replays it."""
    failed = []
    for seed in range(first, last):
        try:
            sweep.run(seed, pathlib.Path(folder) / str(seed))
        except (Exception, sweep.Broken) as error:
            again = f"python tests/simulation/test_simulation.py {seed}"
            failed.append(f"{again}: {type(error).__name__}: {error}")
    return failed


@pytest.mark.parametrize("first", range(0, 100, 25))
def test_a_hundred_seeds(first, tmp_path):
    assert not several(first, first + 25, tmp_path)


@pytest.mark.parametrize("seed", REGRESSIONS)
def test_what_failed_once(seed, tmp_path):
    assert not several(seed, seed + 1, tmp_path)


@pytest.mark.slow
def test_many_seeds():
    """In a process per core. BLTJAX_SEEDS says how many (default 300)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    most, first = int(os.environ.get("BLTJAX_SEEDS", 300)), 200
    ends = [first + most * part // cores for part in range(cores + 1)]
    # commands, since a fork of this process, in which JAX has threads, may hang
    parts = [
        subprocess.Popen([sys.executable, __file__, str(at), str(end)], stdout=subprocess.PIPE, text=True)
        for at, end in zip(ends, ends[1:])
    ]
    try:
        said = [part.communicate(timeout=1200)[0].splitlines() for part in parts]
    finally:
        for part in parts:
            part.kill()
    assert all(part.returncode == 0 for part in parts)
    assert not [line for lines in said for line in lines[:-1] if line]  # the last one is the time it took


def test_a_seed_is_a_whole_world(tmp_path):
    """Played again it is the same to the last pause; another is another."""
    records = [sweep.run(seed, tmp_path / "x").world.record for seed in (7, 7, 8)]
    assert records[0] == records[1] != records[2]


def found(tmp_path, seeds, **faults) -> str:
    """What a broken code base is caught with: the error of the first of some seeds that fails; "": none."""
    for seed in seeds:
        try:
            sweep.run(seed, tmp_path / str(seed), faulty.Faults(**faults))
        except (Exception, sweep.Broken) as error:
            return str(error)
    return ""


SOME = dict(drop=0.05, kill=0.01)


def test_the_code_as_it_is_passes_what_broken_code_does_not(tmp_path):
    for faults in (SOME, dict(stop=0.03), dict(drop=0.1, twice=0.1)):
        assert not found(tmp_path, range(5), **faults)


def test_an_entry_before_its_files_is_caught(tmp_path, monkeypatch):
    """done.json, and all else, before what it says is there."""
    put, publish = mirror.Directory._put, mirror.Directory.publish

    def late(self, paths, before, number):
        real, self.late = self.store, []
        self.store = store.Store(real.url, real.backend, real.clock)
        self.store.put = lambda name, data: self.late.append((name, data))
        self.store.put_file = lambda name, path: self.late.append((name, path.read_bytes()))
        try:
            return put(self, paths, before, number)
        finally:
            self.store = real

    def early(self, *given, **more):
        publish(self, *given, **more)
        for name, data in self.late:
            self.store.put(name, data)

    monkeypatch.setattr(mirror.Directory, "_put", late)
    monkeypatch.setattr(mirror.Directory, "publish", early)
    assert "missing" in found(tmp_path, range(20), **SOME)


def test_no_fencing_is_caught(tmp_path, monkeypatch):
    """An entry is put over whatever stands there."""

    def create(self, name, data):
        self.backend.content.check(name, data)
        self.put(name, data)
        return True

    monkeypatch.setattr(store.Store, "create", create)
    assert found(tmp_path, range(30), stop=0.03)


def test_clocks_of_two_machines_compared_are_caught(tmp_path, monkeypatch):
    """Gone is who said so long ago by the wall clock that he lives."""
    take = journal.take

    def by_the_wall(kept, me, wait=0.0, gone=""):
        entry, clock = kept.newest(), kept.store.clock
        said = kept.seen(entry).get("time")
        if entry.holder and said is not None and abs(clock.wall() - said) > journal.TTL:
            gone = entry.holder
        return take(kept, me, wait, gone)

    monkeypatch.setattr("bltjax.storage.work.journal.take", by_the_wall)
    monkeypatch.setattr(submit, "_going", lambda *given: {})  # so that the cluster is given jobs again
    assert "at once" in found(tmp_path, range(60), drop=0.01)


def test_names_that_two_may_write_are_caught(tmp_path, monkeypatch):
    """A file under its own path, which who was thought dead writes too."""
    put = mirror.Directory._put

    def plain(self, paths, before, number):
        files = put(self, paths, before, 0)
        return {path: {**one, "at": one["at"]} for path, one in files.items()}

    monkeypatch.setattr(mirror.Directory, "_put", plain)
    assert found(tmp_path, range(40, 100), stop=0.03, twice=0.2, drop=0.1)


def test_removing_before_the_new_stands_is_caught(tmp_path, monkeypatch):
    publish = mirror.Directory.publish

    def first(self, lease, release=False, beside=()):
        there = set(self._there())
        for path, one in lease.entry.files.items():
            if path not in there:
                self.store.delete(f"{self.name}/{one['at']}")
        publish(self, lease, release, beside)

    monkeypatch.setattr(mirror.Directory, "publish", first)
    assert found(tmp_path, range(20, 80), kill=0.05)


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[1:]]
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        if len(numbers) == 1:
            world = sweep.Sweep(numbers[0], pathlib.Path(folder)).world
            made = []
            begin, sweep.Sweep.__init__ = sweep.Sweep.__init__, lambda self, *given: (
                begin(self, *given),
                made.append(self),
            )[0]
            try:
                sweep.run(numbers[0], pathlib.Path(folder) / "x")
            finally:
                print("\n".join(made[0].world.record), made[0].wild, made[0].jobs, sep="\n")
        else:
            began = time.process_time()
            print(*several(*numbers, folder), sep="\n")
            print(f"{time.process_time() - began:.0f} s of CPU for {numbers[1] - numbers[0]} seeds")
