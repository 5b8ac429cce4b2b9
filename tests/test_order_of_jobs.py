"""In which order a runner starts jobs."""

import pathlib

from bltjax.sweep import graph, runner


class Ended:
    """A process that has ended well."""

    returncode = 0

    def poll(self):
        return 0


class Noted:
    """A machine of processes that end at once, and the order in which they began."""

    def __init__(self):
        self.began = []

    def start(self, arguments, slot, log):
        self.began.append(pathlib.Path(arguments[0]).name)
        return Ended()


def test_a_job_that_waited_goes_before_those_behind_it(tmp_path):
    """Entropies are wanted by the longest runs: they are made as soon as their model is there."""
    needs = {"model": (), "annotation": ("model",), "run-L": (), "run-S": ()}
    tasks = []
    for name, wanted in needs.items():
        (tmp_path / name).mkdir()
        kind = "run" if name.startswith("run") else "annotate"
        tasks.append(
            runner.Task(graph.Job(name, kind, tmp_path / name, tuple(tmp_path / other for other in wanted)))
        )
    machine, free = Noted(), [None]
    display = runner.Display("test", tasks)
    for _ in range(8):
        runner.advance(tasks, free, machine, display)
    assert machine.began == ["model", "annotation", "run-L", "run-S"]
    assert all(task.state == "done" for task in tasks)
