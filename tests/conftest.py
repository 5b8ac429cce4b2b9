"""Every test runs on the CPU backend, and a broadcast between ranks that nobody wrote down is an error.

Two thirds of the suite's time is XLA's compilation of programs that run for milliseconds. Here they are
compiled without most optimizations, in half of that time: what is computed is the same up to rounding.
Commands that tests start as processes of their own are compiled as users have them, but for those on many
devices. What one process of a session has compiled, all others find: pytest's workers, and commands."""

import atexit
import functools
import os
import shutil
import tempfile

import pytest

os.environ["JAX_PLATFORMS"] = "cpu"
if "PYTEST_XDIST_WORKER" not in os.environ:  # a worker has the folder of the process that started it
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="bltjax-tests-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_disable_most_optimizations", True)


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
