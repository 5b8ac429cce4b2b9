"""Traced programs kept between processes.

JAX keeps what it compiled, but a process must trace and lower a program anew before it knows that it has it:
of a second `bltjax generate` that was half the time to its first byte. So a program is kept as StableHLO too
(jax.export), under a name that holds all that its trace depends on."""

import contextlib
import functools
import hashlib
import json
import os
import pathlib

import jax
import jax.export
import jaxlib

import bltjax

_DIGEST = 32  # bytes of a file that say that the others are whole
_known = {}  # name of a program -> what calls it: of this process


def call(function, static: tuple, *args):
    """jax.jit(function)(*static, *args), traced here or read from where an earlier process left it.

    function: of a module, with the tree of args[1] as its result; args[1] is given away. static: hashable,
    with a repr that says all of what they are. args: pytrees of arrays on one device. Without a folder for
    compiled programs (host.keep_compiled_programs), or where arrays lie on several devices, nothing is kept.
    """
    leaves = [jax.tree.leaves(arg) for arg in args]
    trees = [jax.tree.structure(arg) for arg in args]
    shapes = tuple(tuple(str(jax.typeof(x)) for x in arg) for arg in leaves)
    key = (function, static, tuple(trees), shapes, jax.config.jax_default_matmul_precision)
    if key not in _known:
        _known[key] = _program(function, static, trees, leaves, shapes)
    return jax.tree.unflatten(trees[1], _known[key](*leaves))


def _program(function, static, trees, leaves, shapes):
    def flat(*leaves):
        args = [jax.tree.unflatten(tree, arg) for tree, arg in zip(trees, leaves, strict=True)]
        return jax.tree.leaves(function(*static, *args))

    plain = jax.jit(flat, donate_argnums=1)
    folder = _folder()
    devices = {device for arg in leaves for x in arg for device in x.devices()}
    if folder is None or len(devices) != 1:
        return plain
    path = folder / f"{function.__name__}-{_name(function, static, trees, shapes)}"
    exported = _read(path)
    if exported is None:
        try:
            exported = jax.export.export(plain)(*leaves)
        except ValueError:  # a kernel whose form jax does not promise to keep
            return plain
        _write(path, bytes(exported.serialize()))
    return jax.jit(exported.call, donate_argnums=1)


def _name(function, static, trees, shapes) -> str:
    parts = (
        _sources(),
        jax.__version__,
        jaxlib.__version__,
        jax.default_backend(),
        function.__module__,
        function.__qualname__,
        repr(static),
        [str(tree) for tree in trees],
        {name: str(value) for name, value in jax.config.values.items()},
        shapes,
    )
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


@functools.cache
def _sources() -> str:
    """A digest of the package's code: programs of other code are others."""
    digest = hashlib.sha256()
    root = pathlib.Path(bltjax.__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _folder() -> pathlib.Path | None:
    base = jax.config.jax_compilation_cache_dir
    return pathlib.Path(base) / "traced" if base and "://" not in base else None


def _read(path: pathlib.Path):
    try:
        content = path.read_bytes()
    except OSError:
        return None
    body = content[_DIGEST:]
    if hashlib.sha256(body).digest() != content[:_DIGEST]:
        return None
    return jax.export.deserialize(bytearray(body))


def _write(path: pathlib.Path, body: bytes) -> None:
    """Whole or not at all; a folder that cannot be written to keeps nothing."""
    part = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(hashlib.sha256(body).digest() + body)
        part.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink()
