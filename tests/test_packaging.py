"""What an installed wheel holds: experiments and launchers inside the package, and no global names but
`bltjax`."""

import configparser
import pathlib
import re
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parent.parent


@pytest.mark.slow
def test_wheel(tmp_path):
    built = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(tmp_path), str(ROOT)],
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    wheel = next(tmp_path.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        top = {name.split("/")[0] for name in archive.namelist()}
        archive.extractall(tmp_path / "site")
    assert {name for name in top if not name.endswith(".dist-info")} == {"bltjax"}
    code = (
        "import bltjax, sys; from bltjax.experiments import registry; from bltjax.launch import local; assert"
        " bltjax.__file__.startswith(sys.argv[1]), bltjax.__file__; print(*registry.names());"
        " registry.load('quickstart')"
    )
    found = subprocess.run(
        [
            sys.executable,
            "-I",
            "-c",
            f"import sys; sys.path.insert(0, sys.argv[1]); {code}",
            str(tmp_path / "site"),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert found.returncode == 0, found.stderr
    assert {"quickstart", "compute_optimal"} <= set(found.stdout.split())


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-newest.lock"])
def test_locks_name_what_setup_cfg_wants_and_nothing_of_this_machine(name):
    """Every line is an exact version of a public package, and every package that is wanted has one."""
    lines = (ROOT / name).read_text().split()
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][A-Za-z0-9_.+-]*", line) for line in lines)
    plain = lambda package: re.sub(r"[-_.]+", "-", package).lower()
    locked = {plain(line.split("==")[0]) for line in lines}
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    wanted = config["options"]["install_requires"] + config["options.extras_require"]["test"]
    assert {plain(re.split(">=", line)[0]) for line in wanted.split()} <= locked and "bltjax" not in locked


def test_packages_are_all_named():
    listed = (ROOT / "setup.cfg").read_text()
    for folder in [
        *ROOT.glob("bltjax/*/__init__.py"),
        *ROOT.glob("experiments/__init__.py"),
        *ROOT.glob("launch/__init__.py"),
    ]:
        name = folder.parent.name
        assert f"    bltjax.{name}\n" in listed, f"setup.cfg does not list bltjax.{name}"
