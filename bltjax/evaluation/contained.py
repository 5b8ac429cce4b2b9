"""The walls of sandbox.py, run as a file of its own by `python -I -S -B contained.py`: the standard library
alone. Three processes: the launcher makes the namespaces and waits; `_first` is process 1 of the sandbox,
whose end kills all in it; `_program` runs what is not trusted.

Told on standard input: a line of JSON (see sandbox.py), then "go" once this user is mapped. Says on standard
output: "ready", then a line of JSON, {"refused": why} or {"timeout": bool, "signal": number}."""

import ctypes
import fcntl
import json
import os
import platform
import resource
import signal
import socket
import sys

USER = 1000  # of the sandbox; outside, the caller or, where that is root, nobody
SCRATCH = "/tmp"
ROOT = "/proc"  # under its new root: every system has that folder, and Python needs nothing of it
DEVICES = ("null", "zero", "random", "urandom")
LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
CHANNEL = 3  # the descriptor through which tests come in and the token goes out
LOADED = b"loaded\n"  # said once the program's own lines have run
REFUSED = 255  # process 1's exit status where it could not give up its rights
LONGEST = 300  # bytes of what is said of an error

# linux/sched.h, linux/mount.h, linux/prctl.h
NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 1 << 17, 1 << 26, 1 << 27, 1 << 28, 1 << 29, 1 << 30
NEWCGROUP = 1 << 25
NOSUID, NODEV, NOEXEC, BIND, REC, PRIVATE, DETACH = 2, 4, 8, 1 << 12, 1 << 14, 1 << 18, 2
PDEATHSIG, DUMPABLE, SECCOMP, CAPBSET_DROP, NO_NEW_PRIVS = 1, 4, 22, 24, 38
MOUNT_SETATTR = 442  # of every machine

# What a program cannot call: sockets (those to the host of a virtual machine know no namespace), memory that
# no limit counts (System V's, memfd), other processes, what would give rights back, and large parts of the
# kernel that no program here needs.
CALLS = {
    "x86_64": {
        "arch": 0xC000003E,
        "clone": 56,
        "pivot_root": 155,
        "capset": 126,
        "denied": (29, 41, 64, 68, 101, 155, 161, 165, 166, 246, 248, 249, 250, 272, 298, 300, 303, 304, 308)
        + (310, 311, 319, 321, 323),
    },
    "aarch64": {
        "arch": 0xC00000B7,
        "clone": 220,
        "pivot_root": 41,
        "capset": 91,
        "denied": (39, 40, 41, 51, 97, 104, 117, 186, 190, 194, 198, 217, 218, 219, 241, 262, 264, 265, 268)
        + (270, 271, 279, 280, 282),
    },
}
# io_uring, pidfds, mounts by descriptors, memfd_secret: the same numbers everywhere
DENIED = (*range(424, 435), 438, 442, 447)
CLONE3 = 435  # its flags lie in memory, where no filter sees them; libc falls back to clone

_libc = ctypes.CDLL(None, use_errno=True)


def _done(status: int, what: str) -> None:
    if status < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _mount(source: str, target: str, kind: str | None = None, flags: int = 0, options: str = "") -> None:
    coded = [os.fsencode(text) if text is not None else None for text in (source, target, kind)]
    _done(_libc.mount(*coded, ctypes.c_ulong(flags), options.encode()), f"mount of {target}")


def _sealed(path: str) -> None:
    """Read-only and without set-user-id, with all that is mounted below it."""

    class Attributes(ctypes.Structure):
        _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "user_namespace")]

    asked = Attributes(1 | 2, 0, 0, 0)
    at, recursive = -100, 0x8000
    call = ctypes.c_long(MOUNT_SETATTR), at, path.encode(), recursive, ctypes.byref(asked)
    _done(_libc.syscall(*call, ctypes.c_size_t(32)), "mount_setattr")


def _rooms() -> list[str]:
    """What Python needs of the file system, nothing twice."""
    wanted = {*LIBRARIES, sys.prefix, os.path.dirname(sys.executable)}
    kept = []
    for path in sorted(path for path in wanted if os.path.isdir(path)):
        if not any(path.startswith(f"{one}/") for one in kept):
            kept.append(path)
    if "/" in kept:
        raise OSError(0, "Python's own prefix is /")
    return kept


def _file_system(root: str, scratch_bytes: int) -> None:
    """A root of its own: Python, libraries, four devices, an empty scratch; no /proc, no home."""
    _mount("none", "/", None, REC | PRIVATE)
    _mount("tmpfs", root, "tmpfs", NOSUID | NODEV, "size=1m,mode=755")
    for path in _rooms():
        os.makedirs(root + path)
        _mount(os.path.realpath(path), root + path, None, BIND | REC)
    os.mkdir(f"{root}/dev")
    for name in DEVICES:
        os.close(os.open(f"{root}/dev/{name}", os.O_CREAT | os.O_WRONLY))
        _mount(f"/dev/{name}", f"{root}/dev/{name}", None, BIND)
    os.makedirs(root + SCRATCH, exist_ok=True)
    _sealed(root)
    some = f"size={scratch_bytes},nr_inodes=1000,mode=1777"
    _mount("tmpfs", root + SCRATCH, "tmpfs", NOSUID | NODEV | NOEXEC, some)
    os.chdir(root)
    _done(_libc.syscall(ctypes.c_long(_calls()["pivot_root"]), b".", b"."), "pivot_root")
    _done(_libc.umount2(b".", DETACH), "umount")
    os.chdir(SCRATCH)


def _calls() -> dict:
    if platform.machine() not in CALLS:
        raise OSError(0, f"the sandbox knows {' and '.join(CALLS)}, not {platform.machine()}")
    return CALLS[platform.machine()]


def _rights(was_root: bool) -> None:
    """Gives up every right for good, for this process and all that it starts."""
    for capability in range(64):
        if _libc.prctl(CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) < 0:
            break
    if was_root:
        os.setgroups([])
    os.setresgid(USER, USER, USER)
    os.setresuid(USER, USER, USER)
    header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    _done(_libc.syscall(ctypes.c_long(_calls()["capset"]), header, none), "capset")
    _done(_libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    _done(_libc.prctl(PDEATHSIG, signal.SIGKILL, 0, 0, 0), "pdeathsig")
    _done(_libc.prctl(DUMPABLE, 0, 0, 0, 0), "dumpable")


def _limits(seconds: float, memory: int, processes: int, file_bytes: int, files: int) -> None:
    limits = {
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_CPU: int(seconds) + 2,
        resource.RLIMIT_NPROC: processes,
        resource.RLIMIT_FSIZE: file_bytes,
        resource.RLIMIT_NOFILE: files,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_RTPRIO: 0,
    }
    for kind, most in limits.items():
        resource.setrlimit(kind, (most, most))


def _filter() -> None:
    """Denies CALLS and DENIED, new namespaces, and calls of other machines' numbering (seccomp)."""
    calls = _calls()
    load, equal, at_least, any_bit, answer = 0x20, 0x15, 0x35, 0x45, 0x06
    kill, allow = 0x80000000, 0x7FFF0000
    error = lambda number: 0x00050000 | number
    lines = [(load, 0, 0, 4), (equal, 1, 0, calls["arch"]), (answer, 0, 0, kill), (load, 0, 0, 0)]
    lines += [(at_least, 0, 1, 1 << 30), (answer, 0, 0, error(1))]
    for number in (*calls["denied"], *DENIED):
        lines += [(equal, 0, 1, number), (answer, 0, 0, error(1))]
    lines += [(equal, 0, 1, CLONE3), (answer, 0, 0, error(38))]
    spaces = NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET
    lines += [(equal, 0, 3, calls["clone"]), (load, 0, 0, 16), (any_bit, 0, 1, spaces)]
    lines += [(answer, 0, 0, error(1)), (answer, 0, 0, allow)]

    class Line(ctypes.Structure):
        _fields_ = [("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8)]
        _fields_ += [("value", ctypes.c_uint32)]

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_uint16), ("lines", ctypes.POINTER(Line))]

    program = Program(len(lines), (Line * len(lines))(*lines))
    _done(_libc.prctl(SECCOMP, 2, ctypes.byref(program), 0, 0), "seccomp")


def _first(job: dict) -> None:
    """Process 1: gives up its rights, starts the program and ends with it. No return."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # process 1 is deaf to signals that it does not handle
    _rights(job["root"])
    _limits(**job["limits"])
    _filter()
    channel = fcntl.fcntl(job["channel"], fcntl.F_DUPFD, CHANNEL + 1)  # above what is written over here
    null = os.open("/dev/null", os.O_RDWR)
    for standard in range(3):
        os.dup2(null, standard)
    os.dup2(channel, CHANNEL)
    os.closerange(CHANNEL + 1, 1 << 16)
    program = os.fork()
    if program == 0:
        _program(job["program"])
    os.close(CHANNEL)
    while True:
        child, status = os.wait()
        if child == program:
            os._exit(os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0)


def _program(text: str, run=exec, make=compile, load=json.loads) -> None:
    """Runs the program, then asks for the tests and runs them, then says the token that came with them: a
    program that leaves early has nothing to say. run, make, load: as they were before the program ran. No
    return."""
    channel = socket.socket(fileno=CHANNEL)
    names = {"__name__": "program"}
    try:
        run(make(text, "program", "exec"), names)
        channel.sendall(LOADED)
        with channel.makefile("r", encoding="utf-8") as told:
            tests, said = load(told.readline())
        run(make(tests, "tests", "exec"), names)
    except BaseException as error:  # SystemExit, too
        where = "".join(str(error).splitlines()[:1])
        said = f"{type(error).__name__}: {where}" if where else type(error).__name__
    channel.sendall(said.encode("utf-8", "replace")[:LONGEST])
    os._exit(0)


def _refused(error: OSError) -> None:
    print(json.dumps({"refused": error.strerror or str(error)}), flush=True)


def main() -> None:
    job = json.loads(sys.stdin.readline())
    spaces = NEWUSER | NEWNS | NEWPID | NEWNET | NEWIPC | NEWUTS
    try:
        _calls()
        _done(_libc.prctl(PDEATHSIG, signal.SIGKILL, 0, 0, 0), "pdeathsig")
        with open("/proc/self/oom_score_adj", "w", encoding="utf-8") as file:
            file.write("1000")
        if os.getppid() != job["parent"]:
            return
        _done(_libc.unshare(spaces), "unshare")
        print("ready", flush=True)
        if sys.stdin.readline() != "go\n":
            return
        _done(_libc.sethostname(b"sandbox", 7), "sethostname")
        _file_system(ROOT, job["limits"]["file_bytes"])
        first = os.fork()
    except OSError as error:
        return _refused(error)
    if first == 0:
        try:
            _first(job)
        except OSError as error:
            _refused(error)
        finally:
            os._exit(REFUSED)
    os.close(job["channel"])
    late = []
    signal.signal(signal.SIGALRM, lambda *_: (late.append(True), os.kill(first, signal.SIGKILL)))
    signal.setitimer(signal.ITIMER_REAL, job["limits"]["seconds"])
    status = os.waitpid(first, 0)[1]  # all in the sandbox are dead by then
    signal.setitimer(signal.ITIMER_REAL, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == REFUSED:
        return
    code = os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    print(json.dumps({"timeout": bool(late), "signal": code}), flush=True)


if __name__ == "__main__":
    main()
