"""The table of chips, the names of topologies, and the roofline estimate against numbers worked out by
hand."""

import dataclasses
import math

import pytest

from bltjax import config as cfg
from bltjax import flops
from bltjax.compile import chips, roofline
from bltjax.data import batches
from bltjax.errors import UserError
from bltjax.models import layers
from experiments import compute_optimal

RUNS = {run.name: run for run in compute_optimal.get_config().runs}
BLT, BPE = RUNS["blt-entropy-4.5-8B"], RUNS["bpe-8B"]


@pytest.mark.parametrize(
    "text,chip,count,grid,slices,devices",
    [
        ("v5p:4x4x4", "v5p", 64, (4, 4, 4), 1, 64),
        ("v6e:8x8", "v6e", 64, (8, 8), 1, 64),
        ("v5litepod:4x4", "v5e", 16, (4, 4), 1, 16),
        ("2*v5p:4x4x4", "v5p", 128, (4, 4, 4), 2, 128),
        ("ironwood:2x2x1", "v7x", 4, (2, 2, 1), 1, 8),
        ("cpu:8", "cpu", 8, (8,), 1, 8),
        ("H100:8", "h100", 8, (8,), 1, 8),
        ("h100:16", "h100", 16, (8,), 2, 16),
        ("a100:4", "a100-80", 4, (4,), 1, 4),
    ],
)
def test_topologies(text, chip, count, grid, slices, devices):
    found = chips.topology(text)
    assert (found.chip.name, found.chips, found.grid, found.slices, found.devices) == (
        chip,
        count,
        grid,
        slices,
        devices,
    )
    assert chips.topology(found.name) == found
    assert found.slice_devices * found.slices == found.devices


def test_what_libtpu_is_asked_for():
    assert chips.topology("2*v5p:4x4x4").libtpu() == ("v5p:4x4x4", {"num_slices": 2})
    assert chips.topology("v7x:2x2x1").libtpu() == ("tpu7x:2x2x1", {})
    assert chips.topology("v4:2x2x1").libtpu() == ("v4:2x2x1", {"chip_config_name": "megacore"})
    assert chips.topology("v6e:1x1").libtpu() == ("v6e:1x1", {"chips_per_host_bounds": [1, 1, 1]})


@pytest.mark.parametrize(
    "text,says",
    [
        ("v5p", "CHIP:GRID"),
        ("v5p:4x4xx", "CHIP:GRID"),
        ("tpu9:2x2", "allowed: v4, v5e"),
        ("v5p:8x8", "3 axes: v5p:XxYxZ"),
        ("v6e:4x4x4", "2 axes"),
        ("v6e:32x32", "256 at most"),
        ("v5p:3x3x3", "even"),
        ("0*v5p:2x2x1", "no chips"),
        ("h100:12", "whole number of hosts"),
        ("2*h100:8", "write h100:16"),
    ],
)
def test_topologies_that_cannot_be(text, says):
    with pytest.raises(UserError) as error:
        chips.topology(text)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_every_chip_says_where_its_numbers_are_from():
    for chip in chips.CHIPS.values():
        if chip.platform == "cpu":
            continue
        assert chip.source.startswith("https://") and 1e14 < chip.flops_per_second < 1e16
        assert chip.hbm_bytes_per_second > chip.ici_bytes_per_second > chip.dcn_bytes_per_second > 1e9
        assert 8 * 2**30 < chip.hbm_bytes < 200 * 2**30


UNIT = dataclasses.replace(
    chips.CHIPS["v5p"],
    flops_per_second=100.0,
    hbm_bytes_per_second=10.0,
    ici_bytes_per_second=5.0,
    dcn_bytes_per_second=1.0,
    row_seconds=0.5,
)


def test_estimate_by_hand():
    got = roofline.estimate(UNIT, flops=800, hbm_bytes=60, ici_bytes=20, dcn_bytes=3, useful_flops=500)
    assert got["seconds"] == dict(compute=8, hbm=6, ici=4, dcn=3, rows=0, ici_blocking=0)
    assert got["step_seconds"] == 8 and got["bound"] == "compute" and got["mfu"] == 500 / 800
    # Rows (2 looked up, 1 added to: read and written) and blocking collectives come on top of the largest of
    # the others.
    got = roofline.estimate(
        UNIT,
        flops=100,
        hbm_bytes=60,
        ici_blocking_bytes=10,
        rows_gathered=2,
        rows_scattered=1,
        row_bytes=5,
        useful_flops=50,
        steps=900,
        devices=8,
    )
    assert (
        got["seconds"]["rows"] == 4 * (0.5 + 5 / 10)
        and got["step_seconds"] == 6 + 4 + 2
        and got["bound"] == "hbm"
    )
    assert got["mfu"] == pytest.approx(50 / 1200) and got["chip_hours"] == pytest.approx(900 * 12 * 8 / 3600)


def test_nothing_is_estimated_for_an_unknown_chip():
    got = roofline.predict(BPE, chips.topology("cpu:8"))
    assert (
        got["step_seconds"] is got["mfu"] is got["chip_hours"] is got["fits"] is None
        and got["hbm_peak_bytes"] > 2**30
    )


def test_prediction_of_one_chip_is_the_models_own_count():
    run = cfg.replace(BPE, **{"data.rows": 2, "model.remat": "none"})
    got = roofline.predict(run, chips.topology("v5p:1x1x1"), steps=10)
    slots = batches.row_shape(run)[0]
    assert got["counts"]["flops"] == flops.executed_step(run, 2, slots) and got["mfu"] < 1
    assert got["hbm_bytes"]["state"] == 12 * flops.params(run)["total"] and got["hbm_bytes"]["weights"] == 0
    assert (
        got["counts"]["ici_bytes"] == got["counts"]["dcn_bytes"] == got["counts"]["ici_blocking_bytes"] == 0
    )
    assert got["counts"]["rows_gathered"] == 2 * slots and got["counts"]["row_bytes"] == 4 * 4096
    assert (
        roofline.predict(run, chips.topology("v5p:1x1x1"), remat="full")["counts"]["flops"]
        > 1.2 * got["counts"]["flops"]
    )


def test_fsdp_moves_two_gathers_and_one_scatter_of_the_weights():
    topology = chips.topology("v5p:4x4x4")
    got = roofline.predict(BPE, topology, accumulate=4)
    p = flops.params(BPE)
    weights = p["total"] - p["embeddings"]  # which are looked up where they lie
    assert got["mesh"] == (1, 64, 1)
    assert got["counts"]["ici_bytes"] == pytest.approx(4 * weights * 63 / 64 * (2 * 2 + 4))
    # Two slices: a replica each; gradients of what a chip holds go between them, and the tables' features are
    # shared out.
    two = roofline.predict(BPE, chips.topology("2*v5p:4x4x4"), accumulate=4)
    tokens = BPE.data.rows / 128 * batches.row_shape(BPE)[0]
    assert two["mesh"] == (2, 64, 1) and two["counts"]["ici_bytes"] == got["counts"]["ici_bytes"]
    assert two["counts"]["dcn_bytes"] == pytest.approx(
        weights / 64 * 4 + 2 * 4 * tokens + 2 * 2 * tokens * 4096 / 2
    )


def test_look_ups_of_hash_tables():
    """6 tables of 500,000 rows over 32 chips, 1280 features over 2: 640 a chip, which are whole lanes."""
    found = roofline.lookup(BLT.model, (2, 32, 1), 128, slots=1000)
    asked = 6 * 2 * 1000
    assert (
        found["rows"] == 1.5 * asked
        and found["row_bytes"] == 640 * 4
        and found["entries"] == 6 * 15_625 * 640
    )
    activation = 1000 * 1280 * 2
    assert found["home"] == pytest.approx(31 / 32 * asked / 2 * (8 + 640 * 6)) and found["model"] == 0
    assert found["replicas"] == 8 * 6 * 1000 + activation
    assert roofline.lookup(BLT.model, (1, 32, 2), 128, slots=1000)["model"] == activation / 2
    # no more than there are
    assert roofline.lookup(BLT.model, (1, 2, 1), 128, slots=10**9)["rows"] == 6 * 10**9 + 6 * 500_000
    assert roofline.lookup(RUNS["megabyte-4-8B"].model, (1, 64, 1), 128, 1000)["rows"] == 0
    from bltjax.models.kernels import hash_lookup

    assert roofline.LISTED == hash_lookup.SHARE


def test_share_of_links():
    v5p, v6e = chips.topology("v5p:4x4x4"), chips.topology("v6e:8x8")
    assert [roofline.link_share(n, v5p) for n in (1, 4, 16, 64)] == pytest.approx([1, 1 / 3, 2 / 3, 1])
    assert [roofline.link_share(n, v6e) for n in (2, 8, 64)] == [0.5, 0.5, 1] and roofline.link_share(
        4, chips.topology("h100:8")
    ) == 1


@pytest.mark.parametrize("name", ["v5p:4x4x4", "v6e:8x8"])
@pytest.mark.parametrize("run", [BLT, BPE, RUNS["blt-space-6-400M"]], ids=lambda run: run.name)
def test_candidates_fit_and_come_fastest_first(run, name):
    found = roofline.candidates(run, chips.topology(name), steps=100)
    fitting = [c for c in found if c["fits"]]
    assert fitting and found[: len(fitting)] == fitting
    assert [c["step_seconds"] for c in fitting] == sorted(c["step_seconds"] for c in fitting)
    for c in found:
        assert (
            not roofline.mistake(run, chips.topology(name), c["mesh"], c["accumulate"])
            and math.prod(c["mesh"]) == 64
        )
        assert run.data.rows % (c["mesh"][0] * c["mesh"][1] * c["accumulate"]) == 0 and 0 < c["mfu"] < 1
    assert len({(c["mesh"], c["accumulate"], c["remat"]) for c in found}) == len(found)


@pytest.mark.parametrize(
    "mesh,accumulate,says",
    [
        ((1, 32, 1), 1, "needs 32 devices; v5p:4x4x4 has 64"),
        ((1, 64, 1), 3, "3 microbatches"),
        ((1, 8, 8), 1, "20 heads"),
        ((1, 64, 1), 8, ""),
    ],
)
def test_layouts_that_cannot_be_say_why(mesh, accumulate, says):
    found = roofline.mistake(BLT, chips.topology("v5p:4x4x4"), mesh, accumulate)
    assert says in found and bool(says) == bool(found)


def test_names_are_those_of_the_models():
    assert set(roofline.REMAT) == set(layers.REMAT)
