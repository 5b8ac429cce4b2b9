"""A pod's out-of-memory error, met at compile time, as one line."""

import re

LARGEST = 3
GIB = {"B": 2**-30, "K": 2**-20, "M": 2**-10, "G": 1.0, "T": 2**10}

_EARLY = re.compile(
    r"total memory required for (.+?) \(([\d.]+)([BKMGT])\) exceeds available (\w+) \(([\d.]+)([BKMGT])\)"
)
_LATE = re.compile(r"memory space (\w+)\. Used ([\d.]+)([BKMGT]) of ([\d.]+)([BKMGT]) \w+\.")
_BUFFER = re.compile(r"^\s*\d+\. Size: ([\d.]+)([BKMGT])\s*$(.*?)^\s*=+", re.M | re.S)


def is_out_of_memory(error) -> bool:
    """error: an exception, or its text."""
    return "RESOURCE_EXHAUSTED" in str(error) or "Ran out of memory" in str(error)


def out_of_memory(error) -> str:
    """ "needs 118.3 GiB of 95.7 GiB a chip; largest buffers: 7.6 GiB bf16[10,49632,8192] (jit(step)/...)".

    error: the JaxRuntimeError (or its text) of a compilation that does not fit. XLA:TPU has two of them: an
    early one, without buffers, for programs whose temporaries alone are too big, and a late one with a list.
    Text that is neither comes back as its first line."""
    text = str(error)
    early, late = _EARLY.search(text), _LATE.search(text)
    if early:
        what, used, unit, space, available, other = early.groups()
        return (
            f"needs {_gib(used, unit)} of {_gib(available, other)} a chip"
            + (f" ({space})" if space.lower() != "hbm" else "")
            + (" for temporaries alone" if "temporaries" in what else "")
        )
    if not late:
        return next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)[:300]
    space, used, unit, available, other = late.groups()
    over = re.search(r"Exceeded \w+ capacity by ([\d.]+)([BKMGT])", text)
    needed = (
        _gib(used, unit)
        if not over
        else f"{float(available) * GIB[other] + float(over[1]) * GIB[over[2]]:.1f} GiB"
    )
    line = f"needs {needed} of {_gib(available, other)} a chip" + (
        f" ({space})" if space.lower() != "hbm" else ""
    )
    buffers = [_buffer(*found) for found in _BUFFER.findall(text)[:LARGEST]]
    return line + (f"; largest buffers: {', '.join(buffers)}" if buffers else "")


def _buffer(size: str, unit: str, about: str) -> str:
    shape = re.search(r"Shape: (\w+\[[\d,]*\])", about)
    where = re.search(r'op_name="([^"]*)"', about)
    return " ".join(
        part
        for part in (_gib(size, unit), shape[1] if shape else "", f"({where[1]})" if where else "")
        if part
    )


def _gib(number: str, unit: str) -> str:
    return f"{float(number) * GIB[unit]:.1f} GiB"
