"""Programs that a process finds as an earlier one traced them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bltjax.parallel import programs

traces = []


def added(n, params, carry, by):
    traces.append(n)
    return {"x": carry["x"] + n * params + by, "key": carry["key"]}


def result(n=2):
    carry = {"x": jnp.arange(3.0), "key": jax.random.key(0)}
    return np.asarray(programs.call(added, (n,), jnp.float32(2), carry, jnp.float32(1))["x"])


@pytest.fixture
def cache(tmp_path):
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    traces.clear()
    programs._known.clear()
    yield tmp_path / "traced"
    jax.config.update("jax_compilation_cache_dir", before)


def another_process():
    programs._known.clear()


def test_another_process_does_not_trace_what_was_traced(cache):
    first = result()
    another_process()
    np.testing.assert_array_equal(result(), first)
    assert traces == [2]
    np.testing.assert_array_equal(result(3), np.arange(3) + 7)  # what is static is in the name
    assert traces == [2, 3] and len(list(cache.iterdir())) == 2


def test_a_damaged_file_is_traced_anew(cache):
    first = result()
    [path] = cache.iterdir()
    for damage in (lambda content: content[:-5], lambda content: content[:40] + b"X" + content[41:]):
        path.write_bytes(damage(path.read_bytes()))
        another_process()
        np.testing.assert_array_equal(result(), first)
    assert traces == [2, 2, 2]
    another_process()
    result()
    assert traces == [2, 2, 2]  # and kept anew


def test_other_code_or_other_settings_are_other_programs(cache, monkeypatch):
    result()
    another_process()
    monkeypatch.setattr(programs, "_sources", lambda: "other")
    result()
    another_process()
    with jax.default_matmul_precision("highest"):
        result()
    assert traces == [2, 2, 2]


def test_without_a_folder_nothing_is_kept(cache):
    jax.config.update("jax_compilation_cache_dir", None)
    result()
    another_process()
    result()
    assert traces == [2, 2] and not cache.exists()
