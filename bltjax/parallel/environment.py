"""What a run's numbers follow from beside its config and its text: settings of JAX, which are pinned; and
what is left of its surroundings, which is recorded, and compared where a run goes on.

JAX takes settings from the environment (JAX_ENABLE_X64, JAX_DEFAULT_PRNG_IMPL, ...) and from whoever shares
the process. Those that make another run of the same config, or that our programs do not work under, have one
value here, whatever is set. Others (XLA_FLAGS, another version or device) change how sums are rounded, and no
more."""

import os
import pathlib
import re
import subprocess
import sys

PINNED = {  # JAX's own defaults, by name; JAX_... in the environment
    "jax_enable_x64": False,
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_random_seed_offset": 0,
    "jax_high_dynamic_range_gumbel": False,
    "jax_default_matmul_precision": None,
    "jax_numpy_dtype_promotion": "standard",
    "jax_allow_f16_reductions": True,
    "jax_disable_jit": False,
    "jax_debug_nans": False,
    "jax_debug_infs": False,
    "jax_no_tracing": False,
    "jax_no_execution": False,
    "jax_transfer_guard": None,
    "jax_transfer_guard_host_to_device": None,
    "jax_transfer_guard_device_to_device": None,
    "jax_transfer_guard_device_to_host": None,
}
# as JAX reads a variable
TRUE, FALSE = ("1", "y", "yes", "t", "true", "on"), ("0", "n", "no", "f", "false", "off")
RECORDED = re.compile(
    "(JAX|XLA|LIBTPU)_.*"
    # of TF_ what XLA and its libraries read: TF_VAR_... and TF_TOKEN_... are another program's secrets
    "|TF_(XLA_FLAGS|CUDNN_.*|DETERMINISTIC_OPS|ENABLE_ONEDNN_OPTS|GPU_ALLOCATOR|NUM_(INTER|INTRA)OP_THREADS)"
    "|NVIDIA_TF32_OVERRIDE|CUBLAS_WORKSPACE_CONFIG|OMP_NUM_THREADS"
)
# where things lie, who is who among processes, and what may be a secret
NEVER = re.compile(
    ".*(CACHE|DUMP|LOG|TRACE|COORDINATOR|PROCESS|ADDRESS|HOST|TOKEN|SECRET|PASSW|CREDENTIAL|AUTH|KEY).*"
)

ignored: dict[str, str] = {}  # what the environment said against PINNED


def pin() -> None:
    """Gives JAX the settings of PINNED; before anything is computed. Where JAX is not imported yet, they are
    taken out of the environment, so that it starts with its defaults, here and in processes started here."""
    for name, value in PINNED.items():
        said = os.environ.pop(name.upper(), None)
        if said is not None and not _means(said, value):
            ignored[name.upper()] = said
    jax = sys.modules.get("jax")
    if jax is None or not hasattr(jax, "config"):  # or it is being imported
        return
    for name, value in PINNED.items():
        now = getattr(jax.config, name, value)  # a version that lacks a setting has its default
        if getattr(now, "value", now) != value:
            jax.config.update(name, value)


def _means(said: str, value) -> bool:
    """Whether a variable says what is pinned anyway."""
    if isinstance(value, bool):
        return said.lower() in (TRUE if value else FALSE)
    return said.lower() in ("", "none", "default", "allow") if value is None else said == str(value)


def ignoring() -> str:
    """A line about settings that have no effect here; "" where there are none."""
    said = ", ".join(f"{name}={value}" for name, value in sorted(ignored.items()))
    return f"{said}: not followed; a run is the same run wherever it is computed" if said else ""


def no_device(error: BaseException) -> str:
    """A line about a kind of device that JAX was told to use and that is not here; "": it is another error.
    The message is JAX's own, where it has one: for some kinds it only asserts that there is a device."""
    text = " ".join(str(error).split())
    if isinstance(error, AssertionError) and not text:
        text = "" if _has_devices() else "there is no such device here"
    elif not text.startswith(("Unable to initialize backend", "Unknown backend")):
        return ""
    asked = os.environ.get("JAX_PLATFORMS", "")
    return f"JAX_PLATFORMS={asked}: {text}" if asked and text else text


def _has_devices() -> bool:
    try:
        return "jax" not in sys.modules or bool(sys.modules["jax"].devices())
    except (AssertionError, RuntimeError):
        return False


def variables() -> dict[str, str]:
    """The environment variables that are recorded: of JAX, XLA and the libraries below, none that holds a
    secret, a path or a process's number."""
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if RECORDED.fullmatch(name) and not NEVER.fullmatch(name) and name.lower() not in PINNED
    }


def code() -> dict:
    """{"commit", "dirty"} of the checkout that this code runs from (dirty: its files were changed since);
    nulls for an installed package, whose version says it. "image": what the container says of itself in
    BLTJAX_IMAGE, or null."""
    found = {"commit": None, "dirty": None, "image": os.environ.get("BLTJAX_IMAGE") or None}
    root = pathlib.Path(__file__).parents[2]
    if not (root / ".git").exists():
        return found
    git = lambda *words: subprocess.run(
        ["git", "-C", str(root), *words], capture_output=True, encoding="utf-8", errors="replace", timeout=30
    )
    try:
        commit = git("rev-parse", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.TimeoutExpired):  # no git here, or a file system that hangs
        return found
    if commit.returncode or changed.returncode:  # another user's checkout, say
        return found
    return {**found, "commit": commit.stdout.strip(), "dirty": bool(changed.stdout.strip())}


def described(versions: dict[str, str], **machine) -> dict:
    """What is recorded of a process: variables, pinned settings, versions of packages, its code, and its
    machine."""
    parts = {"variables": variables(), "pinned": dict(PINNED), "versions": versions, "code": code()}
    return {**parts, **machine}


def differences(before: dict, now: dict) -> list[str]:
    """ "NAME was ... and is ..." for all in which two such descriptions differ. One that lacks a part, of an
    earlier version of bltjax, does not differ in it."""
    flat = lambda found: {
        **{key: value for key, value in found.items() if not isinstance(value, dict)},
        **{key: value for part in found.values() if isinstance(part, dict) for key, value in part.items()},
    }
    parts = before.keys() & now.keys()
    old, new = (flat({key: found[key] for key in parts}) for found in (before, now))
    shown = lambda value: "not set" if value is None else str(value)[:200]
    return [
        f"{key} was {shown(old.get(key))} and is {shown(new.get(key))}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
