"""Programs that nobody has read, run in walls: passed, failed or timeout, and why.

    sandbox.run("def f(x): return x + 1", "assert f(1) == 2")     Verdict(status="passed", why="")

A program runs in Linux namespaces of its own (user, process, network, mount, IPC, host name), as an ordinary
user without any right, also where root starts it: it sees Python and the system's libraries, read-only, and
an empty /tmp in memory; no /proc, no home, no environment, no other process, no network and no sockets. Time,
memory, processes, files and their sizes are limited, and when the verdict is known, all that it started is
dead. Where the kernel lacks any of this, nothing is run.

What it prints goes nowhere, and neither that nor its exit status is the verdict: the tests and a random token
come only once the program's own lines have run, and the token is said behind the last test. What is left:
tests run in the same interpreter as the program, so that code which was written against these walls could ask
for the tests itself, or look for the token in the frames above it, just as it could give back an object that
is equal to everything. It would then be called passed, wrongly; it could do nothing else.
"""

import functools
import json
import os
import pathlib
import secrets
import socket
import subprocess
import sys
from typing import NamedTuple

from bltjax.errors import UserError
from bltjax.evaluation import contained

GRACE = 10  # seconds beyond a program's own until its launcher is killed, too
OUTSIDE = 65534  # nobody: who a program is outside where root starts it


class Limits(NamedTuple):
    """seconds: of the clock. memory: bytes of a process. processes: at a time, with threads and the one that
    watches. file_bytes: of a file, and of all files together. files: open at a time, of a process."""

    seconds: float = 10.0
    memory: int = 1 << 29
    processes: int = 8
    file_bytes: int = 1 << 24
    files: int = 64


class Verdict(NamedTuple):
    """status: "passed", "failed" or "timeout". why: a line; "" where it passed."""

    status: str
    why: str


def run(program: str, tests: str, limits: Limits = Limits()) -> Verdict:
    """Runs a program and then its tests, in one namespace; they pass where nothing is raised. UserError where
    this machine has no walls."""
    if why := refusal():
        raise UserError(why)
    return _run(program, tests, limits)


@functools.cache
def refusal() -> str:
    """Why nothing can be run here, in a line; "" where it can."""
    if sys.platform != "linux":
        return f"code is run in Linux namespaces alone, and this is {sys.platform}"
    try:
        found = _run("x = 1", "assert x == 1", Limits())
    except UserError as error:
        return str(error)
    return "" if found.status == "passed" else f"code cannot be run here: the sandbox's own test: {found.why}"


def _run(program: str, tests: str, limits: Limits) -> Verdict:
    token = secrets.token_hex(16)
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            launcher = _launched(program, limits, theirs.fileno())
        try:
            ours.settimeout(limits.seconds + GRACE)
            said = _heard(ours, tests, token)
            told, _ = launcher.communicate(timeout=limits.seconds + GRACE)
            ended = json.loads(told)
        except (subprocess.TimeoutExpired, TimeoutError):
            return Verdict("timeout", f"not done after {limits.seconds:g} s")
        except ValueError:
            raise UserError("code cannot be run here: the sandbox's launcher failed") from None
        finally:
            launcher.kill()  # and with it process 1 of the sandbox, and so all in it
            launcher.wait()
    if "refused" in ended:
        raise _refused(ended["refused"])
    if said == token.encode():
        return Verdict("passed", "")
    if ended["timeout"]:
        return Verdict("timeout", f"not done after {limits.seconds:g} s")
    if ended["signal"]:
        return Verdict("failed", f"killed by signal {ended['signal']}")
    text = "".join(
        c if c.isprintable() else " " for c in said[: contained.LONGEST].decode("utf-8", "replace")
    )
    return Verdict("failed", text or "it ended before its tests did")


def _launched(program: str, limits: Limits, channel: int) -> subprocess.Popen:
    """contained.py, told its job and its user mapped."""
    root = os.geteuid() == 0
    job = {"program": program, "limits": limits._asdict(), "channel": channel, "root": root}
    job["parent"] = os.getpid()
    launcher = subprocess.Popen(
        [os.path.realpath(sys.executable), "-I", "-S", "-B", contained.__file__],
        env={},
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        pass_fds=[channel],
        start_new_session=True,
        text=True,
        encoding="utf-8",
    )
    try:
        launcher.stdin.write(json.dumps(job) + "\n")
        launcher.stdin.flush()
        if (line := launcher.stdout.readline()) == "ready\n":
            _mapped(pathlib.Path(f"/proc/{launcher.pid}"), root)
            launcher.stdin.write("go\n")
            launcher.stdin.flush()
            return launcher
        why = json.loads(line)["refused"] if line else "its launcher does not start"
    except OSError as error:
        why = f"{error}"
    launcher.kill()
    launcher.communicate()
    raise _refused(why)


def _refused(why: str) -> UserError:
    return UserError(
        f"code is run only where Linux gives it namespaces of its own, and here it does not: {why}"
    )


def _mapped(process: pathlib.Path, root: bool) -> None:
    """Says who the launcher's users are outside: root's program is nobody."""
    if not root:
        (process / "setgroups").write_text("deny", encoding="utf-8")
    for name, own in (("uid_map", os.geteuid()), ("gid_map", os.getegid())):
        lines = f"0 0 1\n{contained.USER} {OUTSIDE} 1\n" if root else f"{contained.USER} {own} 1\n"
        (process / name).write_text(lines, encoding="utf-8")


def _heard(channel: socket.socket, tests: str, token: str) -> bytes:
    """What a program says at last, b"" of one that says nothing; once loaded, it is told its tests. Ends
    with the sandbox at the latest."""
    said, asked = b"", False
    try:
        while len(said) < 1000 and (more := channel.recv(1000)):
            said += more
            if not asked and said.startswith(contained.LOADED):
                said, asked = said.removeprefix(contained.LOADED), True
                channel.sendall(json.dumps([tests, token]).encode() + b"\n")
    except ConnectionError:  # it ended with tests unread
        pass
    return said
