"""The chips that programs are planned for: one table of peaks with their sources, and the topologies that are
made of them.

Numbers are per device, as JAX counts devices: a chip, but for v7x, whose chips are two devices each. Peaks
are the vendors'; no program reaches them, and bltjax/compile/roofline.py says what it assumes of that. Bytes
per second are of one direction."""

import dataclasses
import math
import re
from typing import NamedTuple

from bltjax.errors import UserError

GIB = 2**30
GOOGLE = "https://docs.cloud.google.com/tpu/docs/"

# HBM of TPUs is what libtpu 0.0.42.1 says in its out-of-memory error ("exceeds available HBM (95.74G)"), for
# a program compiled here for that topology: less than the vendor's 95, 32, 16 or 192 GiB. It counts 0.25 GiB
# that the runtime reserves as used. HBM of GPUs is what `nvidia-smi` calls total; XLA takes 75% of that
# unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise.
#
# Row look-ups are an ASSUMPTION, not measured on any of these chips. A gather or scatter-add of random rows
# is one small copy per row, and what limits it is how fast copies are issued, not the bytes of short rows
# (which the estimate adds: roofline.py). On TPU a TensorCore walks the rows in sequence, some 15 to 20 cycles
# each at 0.9 to 1.75 GHz: 10 to 20 ns, half of that where a device has two TensorCores. On GPUs thousands of
# threads have loads under way, so that rows cost little more than their bytes: 0.5 ns. The ranking of meshes
# does not hang on the factor of two that this may be off, only on rows being the dearer the more chips share
# tables.


@dataclasses.dataclass(frozen=True)
class Chip:
    """One device. FLOP/s: dense bfloat16; 0: unknown. hbm_bytes: what a program may use. ici: to the other
    chips of its slice (TPU) or host (NVLink), all links together; dcn: between slices or hosts. lanes:
    features that a row is padded to, in memory and in registers. row_seconds: of one random row looked up (an
    assumption, see above). axes: dimensions of the torus; 0: every chip sees every other at full rate.
    devices: JAX devices per chip; chips_per_host; largest: chips in a slice; source: of peaks."""

    name: str
    platform: str
    flops_per_second: float
    hbm_bytes: int
    hbm_bytes_per_second: float
    ici_bytes_per_second: float
    dcn_bytes_per_second: float
    row_seconds: float
    axes: int
    chips_per_host: int
    largest: int
    source: str
    devices: int = 1
    lanes: int = 128


def _tpu(name, tflops, hbm_gib, hbm, ici, dcn, row, axes, per_host, largest, source, devices=1) -> Chip:
    return Chip(
        name,
        "tpu",
        tflops * 1e12,
        int(hbm_gib * GIB),
        hbm,
        ici,
        dcn,
        row,
        axes,
        per_host,
        largest,
        source,
        devices,
    )


def _gpu(name, tflops, hbm_mib, hbm, nvlink, source) -> Chip:
    """nvlink: both directions together, as data sheets have it; dcn: one port per GPU, as in DGX (A100 200
    Gb/s, later ones 400 Gb/s)."""
    dcn = 25e9 if name.startswith("a100") else 50e9
    return Chip(
        name,
        "gpu",
        tflops * 1e12,
        hbm_mib * 2**20,
        hbm,
        nvlink / 2,
        dcn,
        0.5e-9,
        0,
        8,
        2**20,
        source,
        lanes=8,
    )


CHIPS = {
    chip.name: chip
    for chip in (
        # ICI of v5p, v5e, v6e and v7x: half of the page's "bidirectional ICI bandwidth per chip". DCN: the
        # page's, per chip (v5e and v6e: the pod's by its chips, or the host's network cards by its chips:
        # both give 25 and 100 Gb/s). v4: the page has no ICI; 6 links of 50 GB/s are from arXiv 2304.01433
        # (table 4). Its DCN is not published; taken as v5p's.
        _tpu("v4", 275, 30.75, 1.2e12, 300e9, 6.25e9, 10e-9, 3, 4, 4096, GOOGLE + "v4"),
        _tpu("v5e", 197, 15.75, 819e9, 200e9, 3.125e9, 20e-9, 2, 8, 256, GOOGLE + "v5e"),
        _tpu("v5p", 459, 95.74, 2.765e12, 600e9, 6.25e9, 6e-9, 3, 4, 6144, GOOGLE + "v5p"),
        _tpu("v6e", 918, 31.25, 1.638e12, 400e9, 12.5e9, 10e-9, 2, 8, 256, GOOGLE + "v6e"),
        # A chip has 2307 TFLOP/s, 192 GiB, 7.38 TB/s, 1200 GB/s of bidirectional ICI, 100 Gb/s of DCN and two
        # devices, which share all that.
        _tpu(
            "v7x", 2307 / 2, 94.75, 7.38e12 / 2, 300e9, 6.25e9, 10e-9, 3, 4, 9216, GOOGLE + "tpu7x", devices=2
        ),
        _gpu("a100-40", 312, 40960, 1.555e12, 600e9, "https://www.nvidia.com/en-us/data-center/a100/"),
        _gpu("a100-80", 312, 81920, 2.039e12, 600e9, "https://www.nvidia.com/en-us/data-center/a100/"),
        _gpu(
            "h100",
            989.4,
            81559,
            3.35e12,
            900e9,
            "https://www.nvidia.com/en-us/data-center/h100/ (SXM; half of the figure with sparsity)",
        ),
        _gpu(
            "h200",
            989.4,
            143771,
            4.8e12,
            900e9,
            "https://www.nvidia.com/en-us/data-center/h200/ (SXM; half of the figure with sparsity)",
        ),
        _gpu(
            "b200",
            2250,
            183359,
            8e12,
            1.8e12,
            "https://www.nvidia.com/en-us/data-center/hgx/ (B200; half of the figure with sparsity)",
        ),
        Chip(
            "cpu",
            "cpu",
            0.0,
            0,
            0.0,
            0.0,
            0.0,
            0.0,
            0,
            2**20,
            2**20,
            "peaks unknown: nothing is estimated",
            lanes=1,
        ),
    )
}

MOST_CHIPS, MOST_CPUS = 65_536, 1_024  # more is a slip of the finger, which would be minutes and all memory
ALIASES = {
    "v5litepod": "v5e",
    "v5lite": "v5e",
    "v6": "v6e",
    "trillium": "v6e",
    "tpu7x": "v7x",
    "v7": "v7x",
    "ironwood": "v7x",
    "v5": "v5p",
    "a100": "a100-80",
    "h100-sxm": "h100",
}
# What JAX calls them (device_kind), in small letters. Cards for PCIe and NVL have other peaks and stand in no
# table here.
KINDS = {
    "tpu v4": "v4",
    "tpu v5 lite": "v5e",
    "tpu v5e": "v5e",
    "tpu v5": "v5p",
    "tpu v5p": "v5p",
    "tpu v6 lite": "v6e",
    "tpu v6e": "v6e",
    "tpu7x": "v7x",
    "nvidia a100-sxm4-40gb": "a100-40",
    "nvidia a100-sxm4-80gb": "a100-80",
    "nvidia h100 80gb hbm3": "h100",
    "nvidia h200": "h200",
    "nvidia b200": "b200",
}
# What libtpu calls them, where it differs, and what get_topology_desc wants beside: v4 as one device per
# chip, as Cloud TPU has it.
_LIBTPU = {"v7x": "tpu7x"}
_LIBTPU_OPTIONS = {"v4": dict(chip_config_name="megacore")}


def of_kind(device_kind: str) -> Chip | None:
    """The chip that JAX's device_kind means; None for one that is not in the table."""
    name = KINDS.get(" ".join(device_kind.lower().split()))
    return CHIPS[name] if name else None


class Topology(NamedTuple):
    """chips: of all slices together; grid: of one slice, chips along each axis; slices: joined by DCN. Hosts
    of GPUs count as slices."""

    chip: Chip
    chips: int
    grid: tuple[int, ...]
    slices: int

    @property
    def devices(self) -> int:
        return self.chips * self.chip.devices

    @property
    def slice_devices(self) -> int:
        """Devices that are joined by ICI or NVLink."""
        return self.devices // self.slices

    @property
    def name(self) -> str:
        if not self.chip.axes:
            return f"{self.chip.name}:{self.chips}"
        return (
            f"{self.slices}*" if self.slices > 1 else ""
        ) + f"{self.chip.name}:{'x'.join(map(str, self.grid))}"

    def libtpu(self) -> tuple[str, dict]:
        """Arguments of `jax.experimental.topologies.get_topology_desc(name, "tpu", **options)`; of TPUs
        only."""
        options = dict(_LIBTPU_OPTIONS.get(self.chip.name, {}))
        if self.slices > 1:
            options["num_slices"] = self.slices
        if math.prod(self.grid) == 1:
            options["chips_per_host_bounds"] = [1, 1, 1]  # libtpu's default host is 2x2
        return f"{_LIBTPU.get(self.chip.name, self.chip.name)}:{'x'.join(map(str, self.grid))}", options


def topology(text: str) -> Topology:
    """A topology from its name: v5p:4x4x4, v6e:8x8, 2*v5p:4x4x4 (two slices over DCN), cpu:8, h100:16 (two
    hosts). Else: UserError."""
    found = re.fullmatch(r"(?:(\d+)\*)?([a-z0-9\-]+):(\d+(?:x\d+)*)", text.strip().lower())
    if not found:
        raise UserError(
            "a topology is CHIP:GRID, such as v5p:4x4x4, v6e:8x8, 2*v5p:4x4x4 (two slices), h100:16 or"
            f" cpu:8, not {text!r}"
        )
    slices, name, grid = (
        int(found[1] or 1),
        ALIASES.get(found[2], found[2]),
        tuple(int(n) for n in found[3].split("x")),
    )
    if name not in CHIPS:
        raise UserError(f"unknown chip {found[2]!r} in {text!r}; allowed: {', '.join(CHIPS)}")
    chip, chips = CHIPS[name], math.prod(grid)
    if not slices or not chips:
        raise UserError(f"topology {text!r} has no chips")
    if slices * chips > MOST_CHIPS or chip.platform == "cpu" and chips > MOST_CPUS:
        raise UserError(
            f"topology {text!r} has {slices * chips} chips;"
            f" {MOST_CPUS if chip.platform == 'cpu' else MOST_CHIPS} is the most that is looked at"
        )
    if not chip.axes:
        if slices > 1 or len(grid) > 1:
            raise UserError(f"{name} has no grid: write {name}:{slices * chips}, not {text!r}")
        hosts = math.ceil(chips / chip.chips_per_host) if chip.platform == "gpu" else 1
        if chips % hosts or hosts > 1 and chips % chip.chips_per_host:
            raise UserError(
                f"topology {text!r}: {chips} is no whole number of hosts of {chip.chips_per_host}"
            )
        return Topology(chip, chips, (chips // hosts,), hosts)
    shape = {2: "XxY, such as 4x4", 3: "XxYxZ, such as 4x4x4"}[chip.axes]
    if len(grid) != chip.axes:
        raise UserError(f"{name} is a torus of {chip.axes} axes: {name}:{shape}, not {text!r}")
    if chips > 1 and (grid[0] % 2 or grid[1] % 2):
        raise UserError(f"topology {text!r}: the first two sides are even, since hosts are 2x2 chips")
    if chips > chip.largest:
        raise UserError(
            f"topology {text!r} has {chips} chips; a slice of {name} has {chip.largest} at most (two slices:"
            f" 2*{name}:...)"
        )
    return Topology(chip, slices * chips, grid, slices)
