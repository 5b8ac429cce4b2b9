"""Every test runs on the CPU backend, and a broadcast between ranks that nobody wrote down is an error.

Two thirds of the suite's time is XLA's compilation of programs that run for milliseconds. Here, and in the
commands that tests start, they are compiled without most optimizations, and by the older of the CPU backend's
two code generators where it has both, in a third of that time: what is computed is the same up to rounding.
test_quickstart.py compiles as users do. What one process of a session has compiled, all others find:
pytest's workers, and commands."""

import atexit
import functools
import importlib.metadata
import json
import os
import shutil
import tempfile

import pytest

os.environ["JAX_PLATFORMS"] = "cpu"
if "PYTEST_XDIST_WORKER" not in os.environ:  # a worker has the environment of the process that started it
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="bltjax-tests-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    if importlib.metadata.version("jaxlib").startswith("0.10."):  # later ones have one generator, and no flag
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false"

import jax

from bltjax.parallel import host

host.collect_cycles_rarely()  # as commands do
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_collection_modifyitems(items):
    """What takes longest begins first, so that no worker waits long for the last of them."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """What a file's tests share is made by one worker, which has all of them; others go where one is free."""
    from xdist.scheduler import LoadScopeScheduling

    @functools.cache
    def shares(file):
        return 'scope="module"' in (config.rootpath / file).read_text()

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.split("::")[0]
            return file if shares(file) else nodeid

    return Scheduling(config, log)


@pytest.fixture
def fit(capsys):
    """Runs `bltjax fit ... --json` here: (exit status, what stdout's JSON says or None, stderr)."""

    def call(*arguments):
        from bltjax.cli import main

        status = main.main(["fit", *map(str, arguments), "--json"])
        said = capsys.readouterr()
        return status, json.loads(said.out) if said.out else None, said.err

    return call
