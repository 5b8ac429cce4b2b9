"""Sharded equals unsharded: the same gradients and losses on every mesh, of one process or of two; and a
strict table of layouts."""

import functools
import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from bltjax import config as cfg
from bltjax import models
from bltjax.errors import UserError
from bltjax.parallel import sharding
from bltjax.training import step as steps

HERE = pathlib.Path(__file__).parent
MESHES = ("8x1", "4x2", "2x2x2", "1x8")


def start(*arguments):
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "PYTHONPATH": str(HERE.parent),
    }
    return subprocess.Popen(
        [sys.executable, str(HERE / "sharded_steps.py"), *map(str, arguments)],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def measured(out, *groups) -> dict:
    """What processes started together wrote; each group is the arguments of one."""
    processes = [start(*group) for group in groups]
    said = [process.communicate(timeout=600)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), said
    with np.load(out) as file:
        return dict(file)


def compare(results: dict, mesh: str, plain: dict) -> None:
    """Gradients of step 0 within 1e-5 of their largest entry, losses of 10 steps within 1e-4."""
    for name, want in plain.items():
        if name.startswith("1/gradient"):
            got = results[f"{mesh}/{name[2:]}"]
            assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max(), (mesh, name)
    np.testing.assert_allclose(results[f"{mesh}/losses"][0], plain["1/losses"][0], rtol=1e-5)
    np.testing.assert_allclose(results[f"{mesh}/losses"], plain["1/losses"], rtol=1e-4)
    assert plain["1/losses"][-1] < plain["1/losses"][0] - 0.1  # something was learned


# What is measured beside one device, in the same process: a token model on every mesh, and a BLT on the one
# with all three axes; what only differs in its wiring from those, on one mesh of several axes.
BESIDE = {
    "blt": ("2x2x2",),
    "token": MESHES,
    "byte": ("4x2",),
    "released": ("2x2x2",),
    "no-cross": ("2x2x2",),
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Of a kind of model: what one device measures, and the meshes of BESIDE; once for all tests."""

    @functools.cache
    def of(kind):
        out = tmp_path_factory.mktemp("plain") / "out.npz"
        return measured(out, (kind, out, "1", *BESIDE[kind]))

    return of


def test_sharded_equals_unsharded(plain):
    """The quick one: a BLT on the mesh with all three axes."""
    compare(plain("blt"), "2x2x2", plain("blt"))


@pytest.mark.slow
def test_a_blt_on_every_other_mesh(plain, tmp_path):
    meshes = [mesh for mesh in MESHES if mesh not in BESIDE["blt"]]
    results = measured(tmp_path / "out.npz", ("blt", tmp_path / "out.npz", *meshes))
    for mesh in meshes:
        compare(results, mesh, plain("blt"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in BESIDE if kind != "blt"])
def test_every_mesh(kind, plain):
    for mesh in BESIDE[kind]:
        compare(plain(kind), mesh, plain(kind))


@pytest.mark.slow
def test_microbatches_on_a_mesh(plain, tmp_path):
    out = tmp_path / "out.npz"
    compare(measured(out, ("blt", out, "4x2", "--accumulate", 2)), "4x2", plain("blt"))


@pytest.mark.slow
@pytest.mark.parametrize("kind, mesh", [("blt", "4x2"), ("token", "8x1")])
def test_two_processes(kind, mesh, plain, tmp_path):
    """Two real processes on loopback, four devices each. (test_distributed.py has whole runs of each kind on
    the other mesh.)"""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    both = [
        (kind, tmp_path / "out.npz", mesh, "--coordinator", address, "--processes", 2, "--process", i)
        for i in range(2)
    ]
    results = measured(tmp_path / "out.npz", *both)
    compare(results, mesh, plain(kind))


CROWDED = """
import jax
jax.config.update("jax_num_cpu_devices", 8)
import jax.numpy as jnp, numpy as np
from bltjax.parallel import sharding
from bltjax.models.kernels import hash_lookup
rng = np.random.default_rng(0)
tables = rng.normal(size=(2, 4096, 8)).astype(np.float32)
g = rng.normal(size=(16, 64, 8)).astype(np.float32)
assert hash_lookup.list_length(2 * 2 * 64 * 2, 4, 2048) == 64
for most in (512, 4096, 1):  # of the first of four owners alone: seven rounds; evenly; one row for all
    ids = rng.integers(-1, most, (16, 2, 64)).astype(np.int32)
    want, back = jax.vjp(lambda t: hash_lookup.reference(t, ids), tables)
    for shape in ((2, 4, 1), (1, 4, 2), (2, 2, 2), (8, 1, 1), (1, 8, 1)):
        mesh = sharding.make_mesh(shape)
        def f(tables, ids, g):
            with sharding.active(mesh):
                lookup = lambda t: hash_lookup.lookup(t, ids, "float32", ("embed", "ngrams"))
                out, back = jax.vjp(lookup, tables)
            return out, back(g)[0]
        out, grad = jax.jit(f)(tables, ids, g)
        np.testing.assert_allclose(out, want, atol=1e-6)
        np.testing.assert_allclose(grad, back(g)[0], atol=1e-4)
print("equal")
"""


def test_look_ups_when_hashes_crowd():
    """Any number of rounds gives the rows and the gradients of a plain look-up."""
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "PYTHONPATH": str(HERE.parent),
    }
    done = subprocess.run(
        [sys.executable, "-c", CROWDED], capture_output=True, text=True, env=environment, timeout=600
    )
    assert done.stdout.strip() == "equal", done.stderr[-2000:]


SIZES = {"replica": 2, "data": 2, "model": 2}


@pytest.mark.parametrize(
    "model",
    [
        cfg.sized_blt("400M"),
        cfg.replace(cfg.sized_blt("8B"), **{"cross.encoder": "all"}),
        cfg.replace(cfg.sized_blt("1B"), **{"cross.decoder": "first"}),
        cfg.replace(
            cfg.sized_blt("1B"), **{"cross.encoder": "none", "cross.decoder": "none", "ngrams.sizes": ()}
        ),
        cfg.transformer("token", vocab=128_256, width=2048, layers=2, heads=16),
        cfg.transformer("byte", vocab=260, width=768, layers=14, heads=12),
    ],
)
def test_every_parameter_and_its_moments_have_a_layout(model):
    """Matrices are cut over data; nothing that is gathered (so everything but tables) is left whole where it
    is large."""
    like = jax.eval_shape(lambda: steps.init_state(cfg.training(), 10, models.init(model, jax.random.key(0))))
    for path, leaf in jax.tree_util.tree_leaves_with_path(like):
        cut = sharding.spec(sharding.parameter_path(path), leaf.shape, SIZES) if leaf.ndim else ()
        assert leaf.size < 2**18 or "data" in jax.tree.leaves(tuple(cut)), (path, leaf.shape, cut)


def test_the_table_is_strict():
    for path, shape, word in [
        ("encoder/unheard_of/kernel", (4, 4), "no layout is known"),
        ("blocks/ffn/down/kernel", (4,), "dimensions"),
        ("blocks/ffn/down/kernel", (3, 4), "no multiple of 2"),
    ]:
        with pytest.raises(UserError, match=word):
            sharding.spec(path, shape, SIZES)


def test_a_colliding_axis(monkeypatch):
    monkeypatch.setattr(sharding, "TABLE", ((r"kernel", ("data", "data")),))
    with pytest.raises(UserError, match="twice"):
        sharding.spec("head/kernel", (4, 4), SIZES)


def test_what_does_not_divide_stays_whole_only_where_the_table_says_so():
    assert tuple(sharding.spec("head/kernel", (32, 260), {"replica": 1, "data": 1, "model": 8})) == (
        "data",
        None,
    )
    assert tuple(sharding.spec("head/kernel", (32, 256), {"replica": 1, "data": 1, "model": 8})) == (
        "data",
        "model",
    )


def test_meshes():
    assert (
        sharding.parse_mesh("8") == (1, 8, 1)
        and sharding.parse_mesh("4x2") == (1, 4, 2)
        and sharding.parse_mesh("2X3x4") == (2, 3, 4)
    )
    for text in ("", "x", "0x8", "2x2x2x2", "-1", "axb"):
        with pytest.raises(UserError, match="a mesh is"):
            sharding.parse_mesh(text)
    with pytest.raises(UserError, match="needs 3 devices"):
        sharding.make_mesh((1, 3, 1))


@pytest.mark.parametrize("shape, word", [((1, 1, 8), "heads"), ((1, 3, 1), "rows"), ((1, 64, 1), "rows")])
def test_a_run_that_a_mesh_cannot_cut(shape, word):
    run = cfg.run(
        "a",
        "blt-space",
        cfg.sized_blt("400M", ngram_rows=64),
        patching_=cfg.patching("space", 6.0),
        data_=cfg.replace(cfg.data(), rows=32, context=64),
    )
    with pytest.raises(UserError, match=word) as error:
        models.check_mesh(run, shape)
    assert "\n" not in str(error.value) and "run a" in str(error.value)
