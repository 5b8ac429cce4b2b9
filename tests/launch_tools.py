"""The real parsers of what `bltjax launch` prints: gcloud and kubectl of this machine, xpk and SkyPilot of
`make launch-tools`. None of them is given credentials, and none reaches a network."""

import os
import pathlib
import shutil
import subprocess

import pytest

FOLDER = pathlib.Path(
    os.environ.get("BLTJAX_LAUNCH_TOOLS") or pathlib.Path.home() / ".cache" / "bltjax" / "launch-tools"
)


def tool(name: str) -> str:
    """The path of a program; the test is skipped where it is not installed."""
    found = shutil.which(name)
    if name in ("xpk", "sky"):
        path = FOLDER / {"sky": "skypilot"}.get(name, name) / "bin" / name
        found = str(path) if path.exists() else found
    if not found:
        where = (
            "`make launch-tools` installs it" if name in ("xpk", "sky") else "it is Google's, installed apart"
        )
        pytest.skip(f"{name} is not here: {where}")
    return found


def run(command, home: pathlib.Path) -> subprocess.CompletedProcess:
    """A command line as it was printed, by the program that it names; its home and settings are in `home`."""
    program, *arguments = command
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8", "TERM": "dumb"}
    environ |= {"CLOUDSDK_CONFIG": str(home / "gcloud"), "CLOUDSDK_CORE_DISABLE_PROMPTS": "1"}
    environ |= {"KUBECONFIG": str(home / "kubeconfig"), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
    environ["CLOUDSDK_PYTHON_SITEPACKAGES"] = "0"
    return subprocess.run(
        [tool(program), *arguments],
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        cwd=home,
        timeout=300,
    )
