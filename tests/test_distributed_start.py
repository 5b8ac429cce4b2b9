"""Which processes a run has, and how they find one another: by flags, by a cluster's variables, or alone."""

import os
import subprocess
import sys

import pytest
from test_distributed import HERE, free_port

from bltjax.errors import UserError
from bltjax.parallel import distributed


@pytest.mark.parametrize(
    "flags,line",
    [
        (("host:1", 2, 2), "--process is 2; with --processes 2 it is one of 0 to 1"),
        (("host:1", 0, 0), "missing: --processes"),
        (("", 2, 0), "missing: --coordinator"),
        (("host:1", -2, 0), "--processes is -2"),
        (("host", 2, 0), "HOST:PORT"),
        (("host:port", 2, 0), "HOST:PORT"),
        (("host:70000", 2, 0), "HOST:PORT"),
    ],
)
def test_flags_that_cannot_be(flags, line):
    with pytest.raises(UserError, match=line):
        distributed.check(*flags, distributed.HEARTBEAT, distributed.TIMEOUT)
    with pytest.raises(UserError, match="--heartbeat"):
        distributed.check("", 0, -1, 0, 1)


@pytest.mark.filterwarnings("ignore:Kubernetes environment detected")
def test_alone_nothing_is_joined(monkeypatch):
    assert distributed.start() == "" and distributed.start(processes=1) == "" and not distributed.joined()
    assert (
        distributed.once(None, lambda: [1]) == [1]
        and distributed.first(None)
        and distributed.mesh(None) is None
    )
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")  # a pod that is no part of an indexed job
    assert distributed.start() == ""
    for name, value in dict(
        JOB_ID="7", STEP_NODELIST="node[1-2]", NTASKS="1", PROCID="0", LOCALID="0"
    ).items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert distributed.start() == ""  # a job of one task
    monkeypatch.setenv("SLURM_NTASKS", "8")
    monkeypatch.setenv("SLURM_PROCID", "3")
    assert distributed._detected() == ("slurm", 8, 3)
    # the shell of an interactive allocation: a step of one process, in a job that asked for eight
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    monkeypatch.setenv("SLURM_STEP_ID", "4294967290")
    assert distributed._detected() is None and distributed.start() == ""
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    assert distributed._detected() == ("slurm", 8, 3)
    monkeypatch.setenv("SLURM_NTASKS", "many")
    with pytest.raises(UserError, match="looks like a process of a slurm cluster"):
        distributed.start()


def test_an_allocation_outside_srun_is_one_process(monkeypatch):
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    salloc = dict(JOB_ID="7", JOBID="7", NTASKS="8", NPROCS="8", NODELIST="node[1-2]", NNODES="2")
    batch = {**salloc, "PROCID": "0", "LOCALID": "0", "NODEID": "0", "TASK_PID": "1"}  # a script of sbatch
    for variables in (salloc, batch):
        for name, value in variables.items():
            monkeypatch.setenv(f"SLURM_{name}", value)
        assert distributed.start() == "" and not distributed.joined()


def test_no_coordinator_is_blamed_that_nobody_gave(monkeypatch):
    import jax

    late = []
    monkeypatch.setattr(distributed, "_detected", lambda: ("slurm", 8, 0))
    monkeypatch.setattr(jax.distributed, "initialize", lambda **options: None)
    monkeypatch.setattr(
        distributed.threading, "Timer", lambda wait, end, lines: late.extend(lines) or Never()
    )
    assert distributed.start() == "process 0 of 8, by slurm"
    assert "--coordinator" not in late[0] and "slurm" in late[0] and "--processes 1" in late[0]


class Never:
    """A timer that does not go off."""

    start = cancel = lambda self: None


MEET = """
from bltjax.parallel import distributed
distributed.use_cpu_devices(2)
print(distributed.start(timeout=60))
mesh = distributed.mesh(None)
assert dict(mesh.shape) == {"replica": 1, "data": 4, "model": 1}
assert distributed.once(mesh, lambda: [7]) == [7]
distributed.leave(0)
"""


def test_slurm_says_who_the_processes_are():
    env = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(HERE.parent),
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
        "JAX_COORDINATOR_PORT": str(free_port()),
    }
    both = [
        subprocess.Popen(
            [sys.executable, "-c", MEET],
            env={**env, "SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    said = [process.communicate(timeout=90)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert all(f"process {i} of 2, by slurm" in text for i, text in enumerate(said))
