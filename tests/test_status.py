"""`bltjax status`: how runs stand, what they cost and when they end, from files that nobody need write to;
one that is damaged hides no other; a watch that ends by itself."""

import contextlib
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

import pytest
import tiny_experiment
from fabricated_runs import add_run, write

from bltjax import config as cfg
from bltjax.cli import main, watch
from bltjax.compile import chips
from bltjax.launch import overview
from bltjax.results import run_directories
from bltjax.storage import attempts, json_lines, locks, rundir
from bltjax.sweep import progress, status, status_table

HERE = pathlib.Path(__file__).parent
TINY = str(HERE / "tiny_experiment.py")
NAMES = ["bpe", "entropy", "space"]
CONFIGS = list(tiny_experiment.get_config().runs)


def logged(run_dir, steps, seconds=2.0, pause=None, time_of=lambda step: time.time()):
    """Metrics of some steps; pause: {step: seconds that it took in place of the others'}."""
    wall, lines = 0.0, []
    for step in range(1, steps + 1):
        wall += (pause or {}).get(step, seconds)
        line = dict(step=step, bytes=1000 * step, useful_flops=1e6 * step, wall_s=wall, time=time_of(step))
        lines.append(json.dumps({**line, "bpb": 2.0}) + "\n")
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "metrics.jsonl").write_text("".join(lines))


def attempt(directory, number, code=None, hours=1.0, chips=4, step=0, host="elsewhere", ago=7200.0):
    """An attempt that ended, or was last heard of, so many seconds ago."""
    seen = time.time() - ago
    facts = dict(began=seen - 3600 * hours, seen=seen, ended=None if code is None else seen, code=code)
    facts |= dict(chips=chips, on="", step=step, host=host, process=1)
    write(directory / attempts.FOLDER / f"{number:04}.json", facts)


@pytest.fixture
def root(tmp_path):
    """bpe is done, entropy under way on eight chips, space not begun."""
    runs = tmp_path / "runs" / "tiny_experiment"
    add_run(runs, "bpe", 1e9, name="bpe")
    attempt(runs / "bpe", 1, 0, chips=0, hours=0.5)
    planned = dict(steps=100, train_flops=1e8)
    add_run(runs, "blt-entropy", 1e9, name="entropy", finished=False, planned=planned)
    record = json.loads((runs / "entropy" / "config.json").read_text())
    write(runs / "entropy" / "config.json", {**record, "device": "NVIDIA H100 80GB HBM3", "devices": 8})
    logged(runs / "entropy", 50)
    attempt(runs / "entropy", 1, 42, chips=8)
    attempt(runs / "entropy", 2, None, chips=8, ago=1.0)
    return tmp_path / "runs"


def rows(root, names=NAMES):
    return {row["name"]: row for row in status.of_experiment(root, "tiny_experiment", names)}


def overall(root):
    """As the command sees it, of the runs' own configs."""
    return overview.of_experiment(root, "tiny_experiment", CONFIGS)


def launched(root, *names, given=(), **facts):
    folder = root / "tiny_experiment" / "launch"
    listed = [{"name": name, "own": not name.startswith("data")} for name in names]
    write(folder / "jobs.json", {"schema": 1, "on": "slurm", "jobs": listed, **facts})
    (folder / "submitted.jsonl").write_text("".join(json.dumps(line) + "\n" for line in given))
    return folder


def test_rates_leave_pauses_out(tmp_path):
    logged(tmp_path, 60, pause={1: 300.0, 31: 900.0, 40: 4.0})
    found = progress.rate(progress.recent(tmp_path))
    assert found.steps == pytest.approx(48 / 98) and found.bytes == pytest.approx(1000 * found.steps)
    assert progress.rate([]) is None and progress.rate(progress.recent(tmp_path)[:1]) is None
    logged(tmp_path, 60, time_of=lambda step: float(step))
    assert [line["step"] for line in progress.recent(tmp_path, since=55.0)] == list(range(55, 61))
    assert len(progress.recent(tmp_path, since=59.5)) == progress.LINES  # two steps tell no rate


def test_what_is_logged_twice_or_backwards_is_no_rate(tmp_path):
    logged(tmp_path, 4)
    text = (tmp_path / "metrics.jsonl").read_text()
    (tmp_path / "metrics.jsonl").write_text(text + text + "5\n[]\n{}\nx\n" + text[:20])
    assert progress.rate(progress.recent(tmp_path)).steps == pytest.approx(0.5)


def test_the_last_lines_of_a_file_of_any_size(tmp_path):
    path, whole = tmp_path / "lines", [b"%d" % i * (1 + i % 3) for i in range(3000)]
    path.write_bytes(b"\n".join(whole) + b"\nhalf a li")
    for lines in (1, 2, 500, 2999, 3000, 9999):
        assert json_lines.tail(path, lines) == whole[-lines:]
    path.write_bytes(b"a" * 10_000 + b"\n")
    assert json_lines.tail(path, 1) == [b"a" * 10_000]
    path.write_bytes(b"")
    assert json_lines.tail(path, 1) == []


def test_peaks_of_devices_by_their_kinds():
    peaks = {
        "NVIDIA H100 80GB HBM3": 989.4e12,
        "NVIDIA A100-SXM4-80GB": 312e12,
        "NVIDIA H100 PCIe": None,
        "NVIDIA GB200": None,
        "TPU v4": 275e12,
        "TPU v4 lite": None,
        "TPU v5 lite": 197e12,
        "TPU v5": 459e12,
        "TPU v6 lite": 918e12,
        "TPU7x": 2307e12 / 2,
        "cpu": None,
    }
    found = {kind: chips.of_kind(kind) for kind in peaks}
    assert {kind: chip and chip.flops_per_second for kind, chip in found.items()} == peaks
    record = {"device": "NVIDIA H100 80GB HBM3", "devices": 8}
    assert progress.mfu(989.4e12, record) == pytest.approx(1 / 8)
    for unknown in ({}, {"device": 3}, {"device": "cpu"}, {"devices": 0}, {"devices": None}):
        assert progress.mfu(1e12, unknown and {**record, **unknown}) is None


def test_a_run_under_way(root):
    run = rows(root)["entropy"]
    assert (run["state"], run["step"], run["steps"]) == ("running", 50, 100)
    assert run["bytes_per_s"] == pytest.approx(500) and run["eta_s"] == pytest.approx(100)
    assert run["mfu"] == pytest.approx(5e5 / (8 * 989.4e12)) and run["flops_left"] == pytest.approx(5e7)
    assert (run["attempts"], run["last_ended"], run["chips"]) == (2, None, 8)
    assert run["chip_hours"] == pytest.approx(16) and run["silent_s"] is None
    logged(root / "tiny_experiment" / "entropy", 50, time_of=lambda step: time.time() - 4000)
    attempt(root / "tiny_experiment" / "entropy", 2, None, chips=8, ago=1.0)
    run = rows(root)["entropy"]
    assert run["silent_s"] == pytest.approx(3600, abs=60)  # since its attempt began
    assert "no step for 1 h 00 min" in status_table.text({"runs": [run]})
    waiting = rows(root)["space"]
    assert (waiting["state"], waiting["eta_s"], waiting["attempts"]) == ("waiting", None, 0)


def test_who_is_at_work_is_known_by_its_lock_here_and_by_signs_of_life_elsewhere(root):
    run_dir = root / "tiny_experiment" / "entropy"
    state = lambda: rows(root)["entropy"]["state"]
    attempt(run_dir, 2, None, ago=attempts.LIVES_SECONDS + 5)
    assert state() == "stopped" and rows(root)["entropy"]["last_ended"] == "killed"
    attempt(run_dir, 2, None, ago=1.0, host=socket.gethostname())
    (run_dir / ".lock").touch()
    assert state() == "stopped"  # killed a moment ago: this machine's kernel knows
    with locks.held(run_dir / ".lock"):
        assert state() == "running"


ENDED = {None: "killed", 1: "failed", 2: "wrong input", 42: "stopped, saved", 9: "exit status 9"}


@pytest.mark.parametrize("code, word", ENDED.items())
def test_how_the_last_attempt_ended(root, code, word):
    attempt(root / "tiny_experiment" / "entropy", 2, code)
    run = rows(root)["entropy"]
    assert run["state"] == "stopped" and run["last_ended"] == word
    assert f"2 ({word})" in status_table.text({"runs": [run]})


def test_one_that_comes_no_further_is_given_up(root):
    run_dir = root / "tiny_experiment" / "entropy"
    for number in range(1, attempts.MOST + 1):
        attempt(run_dir, number, step=7)
    run = rows(root)["entropy"]
    assert run["state"] == "given up" and "`bltjax retry`" in run["why"]
    attempts.forgive(run_dir)
    assert rows(root)["entropy"]["state"] == "stopped"


def test_an_error_stays_in_sight_while_the_run_is_tried_again(root):
    run_dir = root / "tiny_experiment" / "entropy"
    write(run_dir / "failed.json", {"error": "disk\n full \x1b[2J"})
    run = rows(root)["entropy"]
    assert run["state"] == "running" and run["last_error"] == "disk full [2J" and not run["why"]
    assert "failed before: disk full [2J" in status_table.text({"runs": [run]})
    attempt(run_dir, 2, 1)
    assert rows(root)["entropy"]["why"] == "disk full [2J" and rows(root)["entropy"]["state"] == "failed"


def test_what_a_launch_says_and_what_it_has_cost(root):
    given = [
        {"step": "a", "on": "slurm", "jobs": ["space", "entropy"], "time": 1.0},
        {"step": "b", "on": "slurm", "jobs": ["bpe"], "time": 1.0},
        {"step": "b", "id": ""},
        {"step": "a", "id": "12"},
    ]
    launched(root, "bpe", "space", "of-another-only", "data-1", "../../..", given=given, chip_hours=50.0)
    attempt(root / "tiny_experiment" / "of-another-only", 1, 0, hours=0.25, chips=4)
    attempt(root / "_shared" / "data-1", 1, 0, hours=0.5, chips=0)
    found = overall(root)
    runs = {row["name"]: row for row in found["runs"]}
    assert runs["space"]["launched"] == {"on": "slurm", "id": "12"} and runs["bpe"]["launched"] is None
    total = found["totals"]
    assert total["chip_hours"] == pytest.approx(0.5 + 16 + 1 + 0.5) and total["budget_chip_hours"] == 50.0
    assert (total["runs"], total["done"], total["failed"]) == (3, 1, 0)
    text = status_table.text(found)
    assert "given to slurm as 12" in text and "18.00 of 50 chip-hours spent" in text and "0.50 (CPU)" in text
    # 5e7 FLOPs left of one run, 2e9 of the other, at 5e5 a second
    assert total["eta_s"] == pytest.approx(2.05e9 / 5e5) and "all done in 1 h 08 min" in text


def test_hours_of_processes_where_no_chip_was_there(root):
    for number in (1, 2):
        attempt(root / "tiny_experiment" / "entropy", number, 42, chips=0)
    text = status_table.text(overall(root))
    assert "  hours" in text and "chip-hours" not in text and "2.50 hours spent" in text


def test_no_end_is_said_where_none_is_known(root):
    found = overall(root)
    assert progress.seconds_left(found["runs"], []) == found["totals"]["eta_s"] > 0
    for change in (dict(eta_s=None), dict(flops_left=None), dict(state="stopped")):
        changed = [{**row, **change} if row["name"] == "entropy" else row for row in found["runs"]]
        assert progress.seconds_left(changed, []) is None
    assert progress.seconds_left(found["runs"], [{"state": "waiting"}]) is None


JUNK = [b"", b"{", b"\xff\xfe\x00\n", b"5\n", b"[1]\n", b"{}\n", b"null", b"[" * 100_000]
JUNK.append(b'{"step": [1], "error": {"a": 1}, "data": 3, "jobs": {}, "on": []}\n')
JUNK.append(b'{"began": 1e999, "seen": NaN, "chips": true, "steps": 1e308, "step": %s}\n' % (b"9" * 500))
FILES = ("config.json", "planned.json", "metrics.jsonl", "eval.json", "done.json", "failed.json")
FILES += ("inputs.json", "notes.txt", "attempts/0001.json", "attempts", ".lock")


@pytest.mark.parametrize("name", [*FILES, "../launch/jobs.json", "../launch/submitted.jsonl", "../launch"])
def test_what_is_damaged_hides_nothing_else(root, name):
    launched(root, "space", given=[{"step": "a", "on": "slurm", "jobs": ["space"], "time": 1.0}])
    sound = overall(root)
    path = root / "tiny_experiment" / "entropy" / name
    for junk in [*JUNK, None]:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        path.mkdir() if junk is None else path.write_bytes(junk)
        found = overall(root)
        json.dumps(found, allow_nan=False)
        for width in (None, 60):
            assert status_table.text(found, width)
        for before, after in zip(sound["runs"], found["runs"]):
            if after["name"] != "entropy":
                assert {**before, "launched": 0} == {**after, "launched": 0}


def test_an_integer_beyond_all_floats_is_no_number():
    assert rundir.number({"a": {"b": 10**400}}, "a.b") is None
    assert rundir.number({"a": 10**300}, "a") == 10**300


def test_shared_jobs_that_are_damaged_hide_nothing(root):
    shared = root / "_shared"
    said = {"data": {f"../../_shared/{name}": 1.0 for name in ("a", "b", "c")}}
    said |= {"entropy_model": "../../_shared/d", "tokenizer": None, "annotation": None}
    write(root / "tiny_experiment" / "space" / "inputs.json", said)
    for name, kind in (("a", "unheard of"), ("b", "annotate"), ("c", "prepare")):
        config = {"schema_version": cfg.SCHEMA_VERSION, "kind": kind, "config": {}}
        write(shared / name / "config.json", config)
        if name != "c":
            write(shared / name / "done.json", {})
    for number in range(1, attempts.MOST + 1):
        attempt(shared / "c", number, chips=0)
    write(shared / "d" / "inputs.json", {**said, "data": {}, "entropy_model": "../d"})  # that reads itself
    found = overall(root)
    jobs = {job["name"]: job["state"] for job in found["jobs"]}
    assert jobs == {"a": "damaged", "b": "damaged", "c": "given up", "d": "waiting"}
    waiting = next(row for row in found["runs"] if row["name"] == "space")
    assert waiting["blocked"] and waiting["why"].startswith("c given up: ")
    assert "shared by these runs\na " in status_table.text(found)


def test_a_run_that_starts_from_a_failed_one_waits_for_it(tmp_path):
    run = tiny_experiment.get_config().runs[2]
    config = cfg.replace(run, **{"train.init_from": "run:other"})
    write(tmp_path / "x" / "other" / "failed.json", {"error": "no space"})
    (row,) = status.of_experiment(tmp_path, "x", ["space"], {"space": config})
    assert row["blocked"] and row["why"] == "other failed: no space"


def test_the_table_folds_to_a_width(root):
    error = "a long tale of woe " * 12 + "the end"
    write(root / "tiny_experiment" / "space" / "failed.json", {"error": error})
    found = overall(root)
    titles = {}
    for width in range(30, 200, 3):
        lines = status_table.text(found, width).splitlines()
        assert max(map(len, lines)) <= width
        titles[width] = [title for title in (*status_table.DROPPED, "run", "state") if title in lines[0]]
        assert "the end" in " ".join(" ".join(lines).split())
    shown = [set(titles[width]) for width in sorted(titles)]
    assert all(less <= more for less, more in zip(shown, shown[1:]))
    assert len(shown[0]) == 3 and len(shown[-1]) > 9
    (line,) = (line for line in status_table.text(found).splitlines() if line.startswith("space"))
    assert line.endswith("the end")  # a line a run, where nothing folds it
    short = status_table.text(found, 200, height=9).splitlines()
    assert len(short) <= 9 and "(not shown: 1 done)" in short
    assert not any(line.startswith("bpe") for line in short)


def test_numbers_for_people():
    said = {4: "4 s", 59.7: "1 min", 3599: "1 h 00 min", 7500: "2 h 05 min", 200_000: "2 d 7 h"}
    assert {n: status_table.duration(n) for n in said} == said
    said = {0.5: "0.5", 950: "950", 999.7: "1k", 12_345: "12.3k", 4.56e6: "4.56M", 7e15: "7,000T"}
    assert {n: status_table.rounded(n) for n in said} == said


def test_a_done_run_is_read_again_when_its_files_change(root, monkeypatch):
    before, looked_at, of_run = {}, [], status.of_run
    looks = lambda run_dir, *more: looked_at.append(run_dir.name) or of_run(run_dir, *more)
    monkeypatch.setattr(status, "of_run", looks)
    look = lambda: overview.of_experiment(root, "tiny_experiment", CONFIGS, before)
    first = look()
    assert looked_at == NAMES and look()["runs"][0] == first["runs"][0] and looked_at == [*NAMES, *NAMES[1:]]
    (root / "tiny_experiment" / "bpe" / "eval.json").write_text("{")
    assert look()["runs"][0]["state"] == "damaged" and "bpe" in looked_at[5:]


class Looks:
    """Standings one after the other; at the end Ctrl-C."""

    def __init__(self, *found):
        self.found = list(found)

    def __call__(self):
        if not self.found:
            raise KeyboardInterrupt
        return self.found.pop(0)


def changed(found, **by_name):
    """The same with other values of runs, and totals that belong to them."""
    runs = [{**row, **by_name.get(row["name"], {})} for row in found["runs"]]
    done = sum(row["state"] == "done" for row in runs)
    return {**found, "runs": runs, "totals": {**found["totals"], "done": done}}


@pytest.fixture
def looked(root, monkeypatch):
    monkeypatch.setattr(watch.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(watch, "on_terminal", lambda: False)
    return overall(root)


def test_a_watch_ends_where_nothing_is_left_to_wait_for(looked):
    done, failed = {"state": "done", "eta_s": None}, {"state": "failed", "why": "no space"}
    assert watch.watch(Looks(looked, changed(looked, entropy=done, space=done))) == 0
    both = changed(looked, entropy=done, space=failed)
    assert watch.watch(Looks(looked, both, both)) == 1
    assert watch.watch(Looks(both)) == 130  # a failure has to be there twice
    behind = changed(looked, entropy=failed, space={"blocked": True, "why": "c failed: no space"})
    assert watch.watch(Looks(behind, behind)) == 1
    waits = changed(looked, entropy=failed)
    assert watch.watch(Looks(waits, waits, waits)) == 130
    spent = {**waits, "totals": {**waits["totals"], "budget_chip_hours": 1.0}}
    assert watch.watch(Looks(spent, spent)) == 1


def test_a_watch_without_a_terminal_says_what_changed(looked, capsys):
    on = changed(looked, entropy={"step": 60})
    assert watch.watch(Looks(looked, looked, on, on)) == 130
    said = capsys.readouterr()
    first, later = said.out.split("60/100")
    assert first.count("\n") == len(status_table.text(looked).splitlines()) and first.count("50/100") == 1
    assert "bpe" not in later and "\x1b" not in said.out and said.err == ""
    assert watch.watch(Looks(looked, looked, on), as_json=True) == 130
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [looked, on]


def test_a_watch_on_a_terminal_redraws(looked, capsys, monkeypatch):
    monkeypatch.setattr(watch, "on_terminal", lambda: True)
    monkeypatch.setattr(status_table, "terminal", lambda: (50, 40))
    assert watch.watch(Looks(looked, looked)) == 130
    out = capsys.readouterr().out
    assert out.count(watch.CLEAR) == 2 and out.startswith(watch.CLEAR + "tiny_experiment, ")
    assert max(map(len, out.replace(watch.CLEAR, "").splitlines())) <= 50


def test_the_command_watches_and_ends(root, monkeypatch, capsys):
    monkeypatch.setattr(watch, "SECONDS", 0.01)
    arguments = ["status", TINY, "--root", str(root), "--watch", "--only", "space"]
    write(root / "tiny_experiment" / "space" / "failed.json", {"error": "no space"})
    assert main.main(arguments) == 1
    said = capsys.readouterr()
    assert said.out.count("no space") == 1 and said.err == ""


def tree(folder):
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in [folder, *folder.rglob("*")]}


@contextlib.contextmanager
def nobody():
    """This process is another user's."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_users_directory_is_read_and_left_as_it_was(root):
    folder = launched(root, "space", given=[{"step": "a", "on": "slurm", "jobs": ["space"], "time": 1.0}])
    (root / "tiny_experiment" / "entropy" / ".lock").touch()
    opened = [path for path in [root, *root.parents] if not path.stat().st_mode & 0o001]
    modes = {path: path.stat().st_mode for path in opened}
    try:
        [path.chmod(0o755) for path in opened]
        before = tree(root)
        with nobody():
            found = overall(root)
            with pytest.raises(PermissionError):
                (root / "probe").touch()
        assert {row["name"]: row["state"] for row in found["runs"]} == dict(
            bpe="done", entropy="running", space="waiting"
        )
        assert found["launch"]["why"] is None and tree(root) == before
        for path in (folder / "jobs.json", root / "tiny_experiment" / "entropy" / ".lock"):
            path.chmod(0)
        (root / "tiny_experiment" / "bpe").chmod(0o700)
        (root / "tiny_experiment" / "entropy" / "attempts").chmod(0o700)
        with nobody():
            found = overall(root)
        runs = {row["name"]: row for row in found["runs"]}
        assert runs["bpe"]["state"] == "unreadable" and runs["bpe"]["chip_hours"] is None
        assert runs["entropy"]["state"] == "stopped"
        assert "no permission to read .lock, attempts" in runs["entropy"]["why"]
        assert runs["space"]["state"] == "waiting" and "may not be read" in found["launch"]["why"]
        folder.chmod(0o700)
        with nobody():
            assert "may not be read" in overall(root)["launch"]["why"]
    finally:
        [path.chmod(mode) for path, mode in modes.items()]


def test_a_read_only_mount_is_read(root):
    (root / "tiny_experiment" / "entropy" / ".lock").touch()
    script = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && ! touch "$0/probe" && exec "$@"'
    mounted = ["unshare", "--mount", "--map-root-user", "sh", "-c", script, str(root)]
    if not shutil.which("unshare") or subprocess.run([*mounted, "true"], capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    command = [sys.executable, "-m", "bltjax.cli.main", "status", TINY, "--root", str(root), "--json"]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent), "JAX_PLATFORMS": "cpu"}
    ended = subprocess.run([*mounted, *command], env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert [row["state"] for row in json.loads(ended.stdout)["runs"]] == ["done", "running", "waiting"]


def test_a_launch_is_no_run_of_a_report(root, tmp_path):
    folder = launched(root, "space")
    write(folder / "space.sh", {})
    runs = root / "tiny_experiment"
    assert [run.name for run in run_directories.read_experiment(runs)] == ["bpe", "entropy"]
    looks = run_directories.may_look_into
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_directories, "may_look_into", lambda path: path.name != "launch" and looks(path))
        assert [run.name for run in run_directories.read_experiment(runs)] == ["bpe", "entropy"]
    assert rundir.LAUNCH == "launch"
