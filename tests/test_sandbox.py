"""Programs in walls: what each tries comes to nothing but a failed item."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

from bltjax.errors import UserError
from bltjax.evaluation import contained, sandbox

ROOT = pathlib.Path(__file__).parent.parent
SHORT = sandbox.Limits(seconds=2.0, memory=1 << 27)
NOBODY = 65534

pytestmark = pytest.mark.skipif(bool(sandbox.refusal()), reason=sandbox.refusal() or "it runs")

LIBC = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
DENIED = "assert {} < 0 and ctypes.get_errno() in (1, 38), ctypes.get_errno()\nraise ValueError('denied')"

# {what it tries: (the program, the verdict's status, a part of why)}; a test that is never reached fails it
BAD = {
    "forks": ("import os\nwhile True: os.fork()", "failed", "BlockingIOError"),
    "forks that stay": (
        "import os, time\nwhile True:\n try: os.fork()\n except OSError: time.sleep(9)",
        "timeout",
        "",
    ),
    "threads": (
        "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=[9]).start()",
        "failed",
        "RuntimeError",
    ),
    "10 GB": ("x = bytearray(10 << 30)", "failed", "MemoryError"),
    "10 GB by and by": ("x = []\nwhile True: x.append(bytearray(1 << 20))", "failed", "MemoryError"),
    "memory that no limit counts": ("import os\nos.memfd_create('x')", "failed", "PermissionError"),
    "memory of System V": (LIBC + DENIED.format("libc.shmget(0, 10 << 30, 0o1600)"), "failed", "denied"),
    "a large file": ("open('x', 'wb').write(bytes(20 << 20))", "failed", "OSError"),
    "many large files": (
        "for i in range(99): open(str(i), 'wb').write(bytes(4 << 20))",
        "failed",
        "No space",
    ),
    "many open files": ("x = [open('/dev/null') for _ in range(1000)]", "failed", "Too many open files"),
    "an endless loop": ("while True: pass", "timeout", "2 s"),
    "sleep": ("import time\ntime.sleep(10**6)", "timeout", "2 s"),
    "deaf to signals": (
        "import signal, time\nfor s in range(1, 32):\n try: signal.signal(s, signal.SIG_IGN)\n"
        " except OSError: pass\nwhile True: time.sleep(1)",
        "timeout",
        "",
    ),
    "the parent killed": (
        "import os\nos.kill(os.getppid(), 9)\nos.kill(os.getppid(), 19)\nraise ValueError('it lives')",
        "failed",
        "it lives",
    ),
    "all killed": ("import os\nos.kill(-1, 9)", "failed", "No such process"),
    "itself killed": ("import os\nos.kill(os.getpid(), 9)", "failed", "signal 9"),
    "the parent's limits": (
        "import resource, os\nresource.prlimit(os.getppid(), resource.RLIMIT_CPU, (0, 0))\nwhile True: pass",
        "timeout",
        "",
    ),
    "output": ("while True: print('x' * 10**6)", "timeout", ""),
    "output on the channel": ("import os\nwhile True: os.write(3, b'x' * 10**6)", "timeout", ""),
    "recursion": ("def f(): return f()\nf()", "failed", "RecursionError"),
    "recursion on C's stack": (
        "import sys\nsys.setrecursionlimit(10**9)\nf = lambda _: list(map(f, [1]))\nf(0)",
        "failed",
        "",
    ),
    "a crash": ("import ctypes\nctypes.string_at(0)", "failed", "signal 11"),
    "success by status": ("import os\nos._exit(0)", "failed", "before its tests"),
    "success by exit": ("import sys\nsys.exit(0)", "failed", "SystemExit"),
    "input": ("input()", "failed", "EOFError"),
    "another exec": (
        "import builtins, json\nbuiltins.exec = builtins.compile = json.loads = lambda *_: ['', '']",
        "failed",
        "tests were reached",
    ),
    "success in words": ("print('passed')\nimport os\nos.write(3, b'passed')\nos._exit(0)", "failed", ""),
    "success at the end": ("import atexit, os\natexit.register(os._exit, 0)\nraise ValueError", "failed", ""),
    "the channel closed": ("import os\nos.close(3)", "failed", ""),
    "another user": ("import os\nos.setuid(0)", "failed", "PermissionError"),
    "a namespace": (LIBC + DENIED.format("libc.unshare(1 << 28)"), "failed", "denied"),
    "a mount": (LIBC + DENIED.format("libc.mount(b'x', b'/tmp', b'tmpfs', 0, None)"), "failed", "denied"),
    "a new root": ("import os\nos.chroot('/tmp')", "failed", "PermissionError"),
    "another's memory": (LIBC + DENIED.format("libc.ptrace(16, os.getppid(), 0, 0)"), "failed", "denied"),
    "no Python": ("def f(:", "failed", "SyntaxError"),
    "a half character": ("x = '\udc80'", "failed", "Unicode"),
    "an error that fails": (
        "class E(Exception):\n def __str__(self): raise E\nraise E",
        "failed",
        "before its tests",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_contained(what):
    program, status, why = BAD[what]
    found = sandbox.run(program, "raise ValueError('tests were reached')", SHORT)
    assert found.status == status and why in found.why and "\n" not in found.why, found


TALK = {
    "flushed": "print('x', flush=True)",
    "long": "print('x' * 9000)",
    "warnings": "import warnings\nwarnings.warn('x')\nif 1 is 1: pass",
    "errors, later": "import sys\ndef f():\n print('x', file=sys.stderr, flush=True)",
    "all that is sent": "import sys\nassert sys.stdin.read() == ''",
}


@pytest.mark.parametrize("what", TALK)
def test_what_it_prints_is_no_verdict(what):
    assert sandbox.run(TALK[what], "if 'f' in globals(): f()", SHORT) == ("passed", "")
    found = sandbox.run(TALK[what], "if 'f' in globals(): f()\nraise ValueError('no')", SHORT)
    assert found == ("failed", "ValueError: no")


def test_a_good_program_passes():
    program = """
import collections, dataclasses, functools, heapq, itertools, math, random, re, string, sys, typing
from typing import List
Point = collections.namedtuple("Point", "x y")
def twice(values: List[int]) -> List[int]:
    print("working")
    with open("scratch.txt", "w") as file: file.write("ok")
    return [2 * Point(v, 0).x for v in values]
if __name__ == "__main__": sys.exit(1)
"""
    tests = """
def check(f):
    assert f([1, 2]) == [2, 4]
check(twice)
assert open("scratch.txt").read() == "ok"
"""
    assert sandbox.run(program, tests) == ("passed", "")
    assert sandbox.run(program, tests + "\nassert twice([1]) == [3], 'three'") == (
        "failed",
        "AssertionError: three",
    )
    assert (
        sandbox.run("x = 1", "import os\nassert os.listdir('.') == []").status == "passed"
    ), "an empty scratch"
    assert sandbox.run("x = 1", "import os\nos._exit(0)").status == "failed"
    assert sandbox.run("x = 1", "while True: pass", SHORT).status == "timeout"
    assert sandbox.run("# " + "x" * 10**6, "# " + "y" * 10**6).status == "passed"


def test_no_file_but_the_scratch(tmp_path, monkeypatch):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    for path in (secret, pathlib.Path.home() / ".profile", "/etc/passwd", "/proc/self/environ", "/sys"):
        found = sandbox.run(f"import os\nos.stat({str(path)!r})", "")
        assert found.status == "failed" and "FileNotFoundError" in found.why, (path, found)
    for path in (tmp_path / "new.txt", "/new.txt", "/dev/new", os.__file__, "/usr/lib/new.txt"):
        found = sandbox.run(f"open({str(path)!r}, 'a').write('x')", "")
        assert found.status == "failed" and "Error" in found.why, (path, found)
    assert list(tmp_path.iterdir()) == [secret] and secret.read_text() == "secret"
    monkeypatch.setenv("TOKEN", "secret")
    assert (
        sandbox.run("import os", "assert 'secret' not in str(dict(os.environ)), os.environ").status
        == "passed"
    )
    seen = "import os\nassert os.getuid() == os.getgid() == 1000 and os.getppid() == 1, os.getuid()"
    assert sandbox.run(seen, "").status == "passed"


def test_no_network():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        for program in (
            f"import socket\nsocket.create_connection({server.getsockname()!r}, 1)",
            "import socket\nsocket.socket(socket.AF_UNIX)",
            "import socket\nsocket.socket(getattr(socket, 'AF_VSOCK', 40))",
            "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:%d')" % server.getsockname()[1],
        ):
            found = sandbox.run(program, "", SHORT)
            assert found.status == "failed" and "Error" in found.why, found
        with pytest.raises(TimeoutError):
            server.accept()


def _alive(name: str) -> list[str]:
    """Processes whose command line has a word."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if os.fsencode(name) in path.read_bytes().split(b"\0"):
                found.append(path.parent.name)
        except OSError:
            pass
    return found


DAEMON = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for descriptor in range(%d): os.close(descriptor)
        while True: time.sleep(1)
    os._exit(0)
time.sleep(0.2)
"""


def test_no_child_outlives(tmp_path, monkeypatch):
    own = shutil.copy(contained.__file__, tmp_path / "walls_of_this_test.py")
    monkeypatch.setattr(contained, "__file__", str(own))
    for descriptors in (0, 4):  # with the channel open, and closed
        assert sandbox.run(DAEMON % descriptors, "x = 1").status == "passed"
        assert sandbox.run(DAEMON % descriptors + "raise ValueError", "").status == "failed"
        assert not _alive(str(own))
    assert sandbox.run("import os\nos.fork()\nwhile True: pass", "", SHORT).status == "timeout"
    assert not _alive(str(own))


def test_all_dies_with_who_evaluates(tmp_path):
    own = shutil.copy(contained.__file__, tmp_path / "walls_of_this_test.py")
    text = f"""
from bltjax.evaluation import contained, sandbox
assert not sandbox.refusal()
contained.__file__ = {str(own)!r}
sandbox.run("while True: pass", "", sandbox.Limits(seconds=60))
"""
    evaluator = subprocess.Popen([sys.executable, "-c", text], env={**os.environ, "PYTHONPATH": str(ROOT)})
    deadline = time.monotonic() + 60
    while len(_alive(str(own))) != 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(_alive(str(own))) == 3
    evaluator.send_signal(signal.SIGKILL)
    evaluator.wait()
    while _alive(str(own)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(str(own))


def test_for_an_ordinary_user():
    """Root's tests again as nobody, where there is a Python that nobody may run."""
    python = "/usr/bin/python3"
    ask = [python, "-c", "import sys, bltjax.evaluation.sandbox; sys.exit(sys.version_info < (3, 11))"]
    as_nobody = dict(user=NOBODY, group=NOBODY, extra_groups=[], cwd="/")
    as_nobody["env"] = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    if os.geteuid() or not os.path.exists(python):
        pytest.skip("not root, or without a Python of the system's")
    if subprocess.run(ask, stderr=subprocess.DEVNULL, **as_nobody).returncode:
        pytest.skip("the system's Python is older than 3.11, or nobody may not read this checkout")
    names = (
        "forks",
        "10 GB",
        "an endless loop",
        "the parent killed",
        "success by exit",
        "a mount",
        "a namespace",
    )
    text = f"""
from bltjax.evaluation import sandbox
for program, status, why in {[BAD[name] for name in names]!r}:
    found = sandbox.run(program, "", sandbox.Limits(seconds=2.0))
    assert found.status == status and why in found.why, (program, found)
assert sandbox.run("import os", "assert os.listdir('.') == [] and os.getuid() == 1000").status == "passed"
"""
    subprocess.run([python, "-c", text], check=True, **as_nobody)


@pytest.mark.parametrize(
    "broken, says",
    [
        ("NEWUSER = 3", "unshare: Invalid argument"),
        ("LIBRARIES = ('/',)", "prefix is /"),
        ("CALLS = {}", "the sandbox knows"),
        ("SECCOMP = 1 << 20", "seccomp"),
        ("MOUNT_SETATTR = 10**6", "mount_setattr"),
        ("raise SystemExit", "does not start"),
    ],
)
def test_no_walls_no_run(tmp_path, monkeypatch, broken, says):
    """Where Linux does not give what it takes, nothing is run and one line says so."""
    text = pathlib.Path(contained.__file__).read_text(encoding="utf-8")
    own = tmp_path / "walls.py"
    own.write_text(text.replace("_libc = ", f"{broken}\n_libc = ", 1), encoding="utf-8")
    monkeypatch.setattr(contained, "__file__", str(own))
    with pytest.raises(UserError, match=says) as error:
        sandbox._run("x = 1", "", SHORT)
    assert "\n" not in str(error.value)
    monkeypatch.setattr(sandbox, "refusal", lambda: "no walls")
    with pytest.raises(UserError, match="no walls"):
        sandbox.run("x = 1", "")
