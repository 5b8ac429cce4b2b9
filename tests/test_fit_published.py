"""`bltjax fit` on tables that others published, where BLTJAX_PUBLISHED_RUNS names them."""

import os
import pathlib

import numpy as np
import pytest
from test_fit_command import of

FOLDER = pathlib.Path(os.environ.get("BLTJAX_PUBLISHED_RUNS", "no-such-folder"))


published = lambda test: pytest.mark.slow(
    pytest.mark.skipif(not FOLDER.is_dir(), reason="BLTJAX_PUBLISHED_RUNS names no folder")(test)
)


POINTS = ("chinchilla_points.csv", "--columns", "N=Model Size,C=Training FLOP,L=loss")


WITHOUT_FIVE = (*POINTS, "--drop-highest", "5")


SURFACES = {  # alpha, beta, E, A, B and a of the surface; a and b by approach 2
    "llama3": (0.3100, 0.3136, 0.6047, 59.1, 155.1, 0.5029, 0.4632, 0.5368),
    "chinchilla": (0.3885, 0.4334, 1.9176, 974.1, 8518, 0.5274, 0.5134, 0.4879),
    "marin_dclm": (0.7413, 0.4972, 2.7146, 954201, 24671, 0.4015, 0.4236, 0.5521),
}


GEMSTONES = {  # objective; alpha, beta, log A, log B, log E
    "hot": (0.0019816129, 0.29287, 0.71287, 5.3613, 15.4160, 0.76226),
    "hot_100b_plus": (0.0065925344, 0.25911, 0.59727, 4.9008, 12.8510, 0.66816),
    "cool_end": (0.0019640865, 0.30027, 0.58024, 5.4197, 12.5139, 0.72979),
}


HIDDEN = {
    1e-3: (0.0038782174, (0.26065, 0.14165, 0.53096)),
    1e-4: (0.0004199462, (0.26077, 0.14180, 0.54206)),
}


@published
def test_chinchilla_points(fit):
    def found(*arguments):
        status, result, _ = fit(FOLDER / arguments[0], *arguments[1:])
        entry = of(result, "parametric")
        assert status == 0 and "D = C/(6N)" in " ".join(result["notes"])
        return entry, result, [entry[name] for name in ("A", "B", "E", "alpha", "beta")]

    huber, _, values = found(*WITHOUT_FIVE)
    assert huber["n"] == 240 and huber["value"] == pytest.approx(0.00101827402, rel=1e-8)
    assert values == pytest.approx([477.83, 2143.4, 1.817218, 0.347310, 0.367172], rel=5e-5)
    assert huber["a"] == pytest.approx(0.5139, abs=5.1e-5)
    ends = dict(A=(285, 744), B=(1042, 5810), E=(1.769, 1.871), alpha=(0.317, 0.373), beta=(0.331, 0.415))
    for name, (low, high) in ends.items():
        assert huber["intervals"][name] == pytest.approx((low, high), abs=0.12 * (high - low)), name
    lad, _, values = found(*WITHOUT_FIVE, "--objective", "lad", "--draws", "100")
    assert values == pytest.approx([482.00572, 2085.43420, 1.81686, 0.34781, 0.36585], rel=5e-5)
    assert lad["a"] == pytest.approx(0.513, abs=5e-4)
    _, _, values = found(*WITHOUT_FIVE, "--delta", "1e-6", "--draws", "20")
    assert values == pytest.approx([481.93, 2085.00, 1.81684, 0.347804, 0.365844], rel=5e-5)
    _, whole, values = found(*POINTS, "--draws", "20")
    assert values == pytest.approx([495.7, 12845.6, 1.8913, 0.3493, 0.4530], rel=2e-4)
    assert any("5 runs of the highest losses are influential" in said for said in whole["warnings"])


@published
@pytest.mark.parametrize("name", SURFACES)
def test_isoflop_tables_by_two_methods(fit, name):
    columns = ("--columns", "N=params,D=tokens,L=loss", "--budget", "budget", "--objective", "squares")
    status, result, _ = fit(FOLDER / f"isoflop_{name}.csv", *columns, "--at", "3.8e25", "--draws", "100")
    surface, planes = of(result, "parametric"), of(result, "isoflop")
    alpha, beta, e, a_, b_, a, size, data = SURFACES[name]
    close = lambda value: pytest.approx(value, abs=5.1e-5)
    assert [surface[k] for k in ("alpha", "beta", "E", "a")] == [close(v) for v in (alpha, beta, e, a)]
    assert [surface["A"], surface["B"]] == pytest.approx([a_, b_], rel=1e-3)
    assert (planes["a"], planes["b"]) == (close(size), close(data))
    said = " ".join(result["warnings"])
    if name == "llama3":
        at = {o["method"]: o for o in result["optimum"] if o["flops"] == 3.8e25}
        assert at["isoflop"]["D"] == pytest.approx(16.1e12, rel=3e-3)
        assert (at["parametric"]["N"], at["parametric"]["D"]) == pytest.approx((622e9, 10.2e12), rel=2e-3)
        assert "58% apart" in said and "the surface is trusted" in said and "extrapolation" in said
    if name == "chinchilla":  # one budget's lowest point lies outside of what was run
        assert "at 1e+20 FLOPs the lowest point is at the edge" in said


@published
@pytest.mark.parametrize("name", GEMSTONES)
def test_gemstones_in_two_variables(fit, name):
    value, *answer = GEMSTONES[name]
    columns = "N=params_active_precise,D=tokens,L=final_loss"
    _, result, _ = fit(FOLDER / f"gemstones_{name}.jsonl", "--columns", columns, "--draws", "20")
    found = of(result, "parametric")
    logs = [*found["log_coefficients"].values(), np.log(found["E"])]
    assert found["value"] <= value + 1e-10
    assert [found["alpha"], found["beta"], *logs] == pytest.approx(answer, rel=1e-3)


@published
@pytest.mark.parametrize("delta", HIDDEN)
def test_gemstones_in_three_variables(fit, delta):
    value, exponents = HIDDEN[delta]
    columns = ("--columns", "W=width,H=depth,D=tokens,L=final_loss", "--delta", delta, "--draws", "20")
    _, result, _ = fit(FOLDER / "gemstones_hot_100b_plus.jsonl", *columns)
    found = of(result, "parametric")
    assert found["value"] <= value + 1e-10 and list(found["exponents"]) == ["W", "H", "D"]
    assert list(found["exponents"].values()) == pytest.approx(exponents, rel=3e-4)
    assert found["E"] is None and not found["identified"]["E"]
    assert any("E is not identified by these runs" in said for said in result["warnings"])
    if delta == 1e-3:
        assert list(found["log_coefficients"].values()) == pytest.approx(
            [2.11446, 0.73076, 11.28412], rel=2e-4
        )
