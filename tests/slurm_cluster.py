"""A real Slurm on this machine, for tests: munged, a controller, and nodes that are all this host, in a
folder that goes with them.

It needs root, and munged, slurmctld, slurmd and the commands (Debian: slurm-wlm, munge). Nothing outside its
folder is read or written: the daemons have ports and a socket of their own."""

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

DAEMONS = ("munged", "slurmctld", "slurmd")
COMMANDS = ("sbatch", "squeue", "scancel", "scontrol", "srun")

# The kernel's cgroups, accounting and CPUs that are there are left alone (config_overrides): what is tested
# is what a scheduler says to jobs. A requeued job waits until its credential has expired: 120 s elsewhere,
# and where less than 5 is asked for.
CONF = """ClusterName=bltjax
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge,cred_expire=5
SlurmctldPort={controller}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
MpiDefault=none
SwitchType=switch/none
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0,sched_min_interval=0,\
default_queue_depth=100
KillWait={kill_wait}
OverTimeLimit=0
InactiveLimit=0
MinJobAge=300
{nodes}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime={grace}
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=2 PreemptMode=OFF
"""


def missing() -> str:
    """Why there can be no cluster here, in a few words; "" if there can."""
    if os.geteuid() != 0:
        return "the daemons of a test cluster need root"
    lacking = [name for name in DAEMONS + COMMANDS if not _found(name)]
    return f"not installed: {', '.join(lacking)} (Debian: slurm-wlm, munge)" if lacking else ""


def _found(name: str) -> str | None:
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


@contextlib.contextmanager
def running(nodes: int = 2, cpus: int = 2, kill_wait: int = 10, grace: int = 20):
    """The names of the cluster's nodes, each with so many CPUs; SLURM_CONF names it while it is there. Jobs
    of the partition "urgent" preempt those of "main", the usual one.

    kill_wait: seconds between TERM and KILL of what is cancelled or requeued; grace: seconds that a job has
    which is preempted. RuntimeError, with the end of
    the logs, if it does not come up within a minute. All its daemons and jobs end with it."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="bltjax-slurm-"))
    before, conf = os.environ.get("SLURM_CONF"), str(folder / "slurm.conf")
    os.environ["SLURM_CONF"] = conf
    names = [f"node{number}" for number in range(nodes)]
    # ends them when its input does, however this process ends
    guard = subprocess.Popen(
        [sys.executable, __file__, str(folder)], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        _configure(folder, names, cpus, kill_wait=kill_wait, grace=grace)
        _start(folder, names)
        _wait_until_idle(folder, nodes)
        yield names
    finally:
        guard.communicate()
        if before is None:
            os.environ.pop("SLURM_CONF", None)
        else:
            os.environ["SLURM_CONF"] = before


def command(*words: str, check: bool = True) -> str:
    """What a command of Slurm prints. AssertionError if it fails, unless check is False."""
    ran = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0 or not check, f"{' '.join(words)}: {ran.stderr}"
    return ran.stdout.strip()


def _configure(folder: pathlib.Path, names: list[str], cpus: int, **seconds: int) -> None:
    controller, *ports = _free_ports(1 + len(names))
    host = socket.gethostname().split(".")[0]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    lines = [
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus}"
        f" RealMemory={memory} State=UNKNOWN"
        for name, port in zip(names, ports)
    ]
    (folder / "state").mkdir()
    text = CONF.format(
        host=host, folder=folder, controller=controller, nodes="\n".join(lines), **seconds
    )
    (folder / "slurm.conf").write_text(text)
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o400)


def _start(folder: pathlib.Path, names: list[str]) -> None:
    munge = {"socket": "munge", "key-file": "munge.key", "pid-file": "munged.pid"}
    munge |= {"log-file": "munged.log", "seed-file": "munged.seed"}
    _run(folder, "munged", "--force", *(f"--{option}={folder / name}" for option, name in munge.items()))
    conf = str(folder / "slurm.conf")
    _run(folder, "slurmctld", "-f", conf)
    for name in names:
        _run(folder, "slurmd", "-N", name, "-f", conf)


def _run(folder: pathlib.Path, name: str, *arguments: str) -> None:
    """A daemon, which goes to the background by itself."""
    with (folder / "start.log").open("ab") as log:
        subprocess.run(
            [_found(name), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            check=True,
            timeout=30,
        )


def _wait_until_idle(folder: pathlib.Path, nodes: int) -> None:
    for _ in range(120):
        states = command("sinfo", "--noheader", "--Node", "--partition=main", "--format=%T", check=False)
        if states.split() == ["idle"] * nodes:
            return
        time.sleep(0.5)
    logs = [f"{path.name}: {path.read_text()[-1000:]}" for path in sorted(folder.glob("*.log"))]
    raise RuntimeError("the test cluster did not come up: " + "\n".join(logs))


def _end(folder: pathlib.Path) -> None:
    """Ends jobs first, then the daemons, each by the number that it wrote down itself."""
    if (folder / "slurmctld.pid").exists():
        with contextlib.suppress(subprocess.TimeoutExpired):
            for how in ((), ("--signal=KILL", "--full")):
                subprocess.run(["scancel", "--user=root", *how], capture_output=True, timeout=20)
            for _ in range(40):
                if not command("squeue", "--noheader", check=False):
                    break
                time.sleep(0.25)
    for pattern in ("slurmd-*.pid", "slurmctld.pid", "munged.pid"):
        for path in folder.glob(pattern):
            _end_process(int(path.read_text()))


def _end_process(number: int) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        for _ in range(40):
            try:
                os.kill(number, sign)
            except ProcessLookupError:
                return
            time.sleep(0.25)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


if __name__ == "__main__":
    sys.stdin.read()
    _end(pathlib.Path(sys.argv[1]))
    shutil.rmtree(sys.argv[1], ignore_errors=True)
