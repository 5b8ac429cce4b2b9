"""`bltjax fit` finds laws that were planted in tables and run directories, and refuses, in one line and with
exit status 2, what they do not tell. Published tables: the last tests, where BLTJAX_PUBLISHED_RUNS names
them."""

import csv
import json
import pathlib

import numpy as np
import pytest
from fabricated_runs import add_run

from bltjax.fits import analysis, approaches, experiment, source, text
from bltjax.report import report as reporting
from bltjax.science import allocation, effective_compute
from bltjax.science.formula import CHINCHILLA
from bltjax.science.parametric import predict

LAW = dict(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)  # Hoffmann et al. 2022


BETTER = dict(E=1.6, A=500.0, B=410.7, alpha=0.35, beta=0.28)


ND = "N=params,D=tokens,L=loss"


def loss(n, d, law=LAW):
    return predict(CHINCHILLA, np.array([law[name] for name in CHINCHILLA.names]), dict(N=n, D=d))


def isoflops(noise=0.0, law=LAW, seed=0) -> dict:
    """Columns of 5 budgets of 7 sizes about the best."""
    rng = np.random.default_rng(seed)
    budgets = np.geomspace(1e18, 1e21, 5)
    best, _ = allocation.best(CHINCHILLA, np.array([law[n] for n in CHINCHILLA.names]), budgets)
    n = (best[:, None] * np.geomspace(1 / 6, 6, 7)).ravel()
    budget = np.repeat(budgets, 7)
    d = budget / 6 / n
    noisy = loss(n, d, law) * np.exp(rng.normal(0, noise, len(n)))
    return dict(params=n, tokens=d, budget=budget, loss=noisy)


def write(path: pathlib.Path, columns: dict) -> str:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values()))
    return str(path)


def of(result: dict, method: str, **keys) -> dict:
    [entry] = [e for e in result["fits"] if e["method"] == method and keys.items() <= e.items()]
    return entry


def test_a_planted_law_by_three_names_of_file_and_two_methods(fit, tmp_path):
    columns = isoflops(noise=0.002)
    files = [write(tmp_path / "runs.csv", columns), tmp_path / "runs.txt", tmp_path / "runs.bin"]
    rows = [dict(zip(columns, map(float, row))) for row in zip(*columns.values())]
    files[1].write_text("".join(json.dumps(row) + "\n" for row in rows))
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    parquet.write_table(pyarrow.table(columns), files[2])
    results = [
        fit(file, "--columns", ND, "--budget", "budget", "--at", "1e24", "--draws", "200") for file in files
    ]
    status, result, err = results[0]
    assert status == 0 and err == ""
    assert results[1][1]["fits"] == results[2][1]["fits"] == result["fits"]
    found = of(result, "parametric")
    for name, truth in LAW.items():
        low, high = found["intervals"][name]
        assert low < found[name] < high and low < truth < high
    assert found["n"] == 35 and found["objective"] == "huber" and all(found["identified"].values())
    assert found["a"] == pytest.approx(LAW["beta"] / (LAW["alpha"] + LAW["beta"]), abs=0.02)
    planes = of(result, "isoflop")
    assert planes["a"] == pytest.approx(found["a"], abs=0.03) and planes["E"] is None
    assert planes["intervals"]["a"][0] < planes["a"] < planes["intervals"]["a"][1]
    for at in planes["N_minima"]:
        assert at["interval"][0] < at["best"] < at["interval"][1]
    [far] = [o for o in result["optimum"] if o["method"] == "isoflop" and o["flops"] == 1e24]
    for name in ("N", "D", "data_per_parameter"):
        assert far[f"{name}_interval"][0] < far[name] < far[f"{name}_interval"][1]
    [far] = [o for o in result["optimum"] if o["method"] == "parametric" and o["flops"] == 1e24]
    assert far["D_interval"][0] < 4.0358e12 < far["D_interval"][1]
    assert any("extrapolation by parametric at 1e+24" in said for said in result["warnings"])


def test_what_runs_do_not_tell_is_refused_with_the_reason(fit, tmp_path):
    n = np.geomspace(1e7, 1e9, 12)
    whole = isoflops()
    one = {name: values[:7] for name, values in whole.items()}
    tables = {
        "one line": (dict(params=n, tokens=20 * n, loss=loss(n, 20 * n)), ND),
        "it takes 6": ({name: values[::9] for name, values in whole.items()}, ND),
        "one budget": (one, ND),
        "holds text ('abc')": (dict(whole, tokens=["abc"] * 35), ND),
        "did you mean 'params'": (whole, "N=param,D=tokens,L=loss"),
        "names no loss": (whole, "N=params"),
        "no row can be fitted (35 of 35 rows": (dict(whole, loss=-whole["loss"]), ND),
    }
    for reason, (columns, named) in tables.items():
        budget = ("--budget", "budget") if "budget" in columns else ()
        status, result, err = fit(write(tmp_path / "t.csv", columns), "--columns", named, *budget)
        assert status == 2 and reason in err and err.count("\n") == 1, err
        for entry in (result or dict(fits=[]))["fits"]:
            assert not any(entry["identified"].values()) and entry["a"] is None and entry["refused"]


def test_a_lowest_point_at_the_edge_is_refused_while_the_surface_is_not(fit, tmp_path):
    columns = isoflops()
    kept = np.tile(np.arange(7) > 4, 5) | (np.arange(35) % 7 == 4)
    wide = np.geomspace(1, 1.2, 3)  # more sizes, all on one side
    n = np.concatenate([columns["params"][kept] * f for f in wide])
    budget = np.concatenate([columns["budget"][kept]] * 3)
    table = dict(params=n, tokens=budget / 6 / n, budget=budget, loss=loss(n, budget / 6 / n))
    status, result, _ = fit(
        write(tmp_path / "t.csv", table), "--columns", ND, "--budget", "budget", "--draws", "50"
    )
    assert status == 0 and of(result, "parametric")["beta"] == pytest.approx(0.28, rel=1e-4)
    planes = of(result, "isoflop")
    assert planes["a"] is None and not planes["identified"]["a"] and "edge" in planes["refused"]


def test_rows_that_cannot_count_are_left_out_and_counted(fit, tmp_path):
    good = isoflops(noise=0.002)
    bad = [("x", 1e9, 1e18, 3), (1e8, "", 1e18, 3), (1e8, 1e9, 1e18, "nan"), (1e8, -5, 1e18, 2)]
    copies = [tuple(values[i] for values in good.values()) for i in (3, 4)]
    columns = {name: [*good[name], *(row[i] for row in bad + copies)] for i, name in enumerate(good)}
    columns["kind"] = ["a"] * 35 + ["a"] * 6
    columns["kind"][0] = "b"
    table = write(tmp_path / "t.csv", columns)
    few = ("--draws", "20")
    status, result, _ = fit(table, "--columns", ND, "--where", "kind=a", "--drop-highest", "2", *few)
    assert status == 0 and result["n"] == 32 == of(result, "parametric")["n"]
    said = " ".join(result["warnings"] + result["notes"])
    assert "1 row left out: holds text where a number belongs (row 35: N is 'x')" in said
    assert "2 duplicate rows" in said and "2 rows left out: among the 2 highest losses" in said
    assert "1 row left out: kind=a does not hold" in said
    assert sum(result["dropped"].values()) == 41 - 32


@pytest.mark.parametrize("scale", (1e-150, 1e150))
def test_losses_that_floats_cannot_square_are_refused(fit, tmp_path, scale):
    columns = isoflops()
    table = write(tmp_path / "runs.csv", dict(columns, loss=columns["loss"] * scale))
    status, said, error = fit(table, "--columns", ND)
    assert status == 2 and "scale them" in error and said["fits"][0]["refused"]


def test_options_that_do_not_fit_together_are_refused(fit, tmp_path):
    table, fake = write(tmp_path / "runs.csv", isoflops()), tmp_path / "fake.parquet"
    fake.write_text("hello")
    for arguments, reason in (
        ((table, "--columns", "N=params,D=loss,L=loss"), "D and L are the same column"),
        ((table, "--columns", "N=params,D=params,L=loss"), "N and D are the same column"),
        ((table, "--columns", ND, "--reference", "blt"), "--reference takes --group"),
        ((table, "--columns", ND, "--runlocal"), "of an experiment"),
        ((table, "--columns", ND, "--set", "train.lr=1"), "of an experiment"),
        (("quickstart", "--columns", ND), "quickstart is an experiment"),
        ((tmp_path / "none.csv",), "No such file"),
        ((table, "--columns", ND, "--draws", "999999999"), "20 and more, up to 100,000"),
        ((table, "--columns", ND, "--delta", "1e300"), "at most 1e+06"),
        ((table, "--columns", ND, "--at", "-1"), "--at is -1; a budget is a number of FLOPs above 0"),
        ((fake, "--columns", ND), "is not Parquet"),
    ):
        status, said, error = fit(*arguments)
        assert status == 2 and said is None and reason in error and len(error.splitlines()) == 1


def test_a_folder_that_cannot_be_written_to_is_refused_before_anything_is_computed(
    fit, tmp_path, monkeypatch
):
    monkeypatch.setattr(analysis, "analyse", lambda *_: pytest.fail("it was computed"))
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "out"
    status, said, error = fit(write(tmp_path / "runs.csv", isoflops()), "--columns", ND, "--out", out)
    assert status == 2 and said is None and error.count("\n") == 1 and "cannot be written to" in error


def test_reasons_stand_below_tables_and_open_ends_are_words(tmp_path):
    columns = isoflops()
    line = dict(columns, params=columns["tokens"] / 20)  # one ratio of data to size
    of_line = source.of_table(
        source.Table("t", {name: list(values) for name, values in line.items()}),
        dict(N="params", D="tokens", L="loss"),
        dict(N="parameters", D="tokens", L="nats"),
        budget="budget",
    )
    result = analysis.analyse(of_line, approaches.Settings(draws=20))
    [[_, _, _, ends], *_] = text.fit_table(result)["rows"]
    assert ends == "–" and "one line" in text.reasons(result)["fits"][0]
    said = text.terminal(result)
    assert said.index("Fits\n") < said.index("approach 3, parametric, is refused")
    assert [text.interval(ends) for ends in ([None, 2], [2, None], [1, 2], [None, None])] == [
        "2 or less",
        "2 or more",
        "1 to 2",
        "–",
    ]


def test_tables_as_others_write_them(fit, tmp_path):
    columns = isoflops(noise=0.002)
    plain = fit(write(tmp_path / "runs.csv", columns), "--columns", ND, "--draws", "20")[1]["fits"]
    whole = dict(columns, tokens=[f"{value:,.9f}" for value in columns["tokens"]])
    remark = tmp_path / "remark.csv"
    remark.write_text("# from a paper\n" + pathlib.Path(write(tmp_path / "w.csv", whole)).read_text())
    lists = tmp_path / "lists.json"
    lists.write_text(json.dumps({name: [float(one) for one in values] for name, values in columns.items()}))
    for file in (remark, lists):
        found = fit(file, "--columns", ND, "--draws", "20")[1]["fits"]
        assert found[0]["alpha"] == pytest.approx(plain[0]["alpha"], rel=1e-6)
    decimals = dict(columns, loss=[f"{value:.3f}".replace(".", ",") for value in columns["loss"]])
    status, _, error = fit(write(tmp_path / "d.csv", decimals), "--columns", ND)
    assert status == 2 and "'loss' holds text ('" in error  # not thousands of nats
    logs = dict(log_n=np.log10(columns["params"]), tokens=columns["tokens"], loss=columns["loss"])
    named = ("--columns", "N=log_n,D=tokens,L=loss", "--draws", "20")
    _, found, _ = fit(write(tmp_path / "l.csv", logs), *named)
    assert any("if these are logarithms" in said for said in found["warnings"])


def test_what_is_no_number_and_no_json_is_said_with_its_line(fit, tmp_path):
    import datetime

    import pyarrow
    import pyarrow.parquet

    when = pyarrow.table(dict(params=[datetime.datetime(2024, 1, 1)] * 9, tokens=[1.0] * 9, loss=[1.0] * 9))
    pyarrow.parquet.write_table(when, tmp_path / "dates.parquet")
    status, _, error = fit(tmp_path / "dates.parquet", "--columns", ND)
    assert status == 2 and "'params' holds text ('2024-01-01" in error
    (tmp_path / "bad.jsonl").write_text('{"params": 1}\n{bad}\n')
    status, _, error = fit(tmp_path / "bad.jsonl", "--columns", ND)
    assert status == 2 and "line 2 is not a JSON object" in error


def test_data_from_flops_scaled_columns_and_slipped_units(fit, tmp_path):
    columns = isoflops(noise=0.002)
    columns["model size"] = columns["params"] / 1e6
    columns["tokens"][7] /= 1000
    table = write(tmp_path / "t.csv", columns)
    few = ("--draws", "20", "--budget", "budget")
    named = 'N="model size*1e6",C=budget,L=loss'
    _, derived, _ = fit(table, "--columns", named, "--units", "N=parameters", *few)
    found = of(derived, "parametric")
    assert found["A"] == pytest.approx(406.4, rel=0.5) and found["alpha"] == pytest.approx(0.34, abs=0.02)
    assert derived["units"]["N"] == "parameters" and "D = C/(6N)" in " ".join(derived["notes"])
    _, slipped, _ = fit(table, "--columns", ND + ",C=budget", *few)
    said = "units: FLOPs per parameter and unit of data of 1 run (row 7)"
    assert any(warning.startswith(said) for warning in slipped["warnings"])
    _, millions, _ = fit(table, "--columns", "N=model size,D=tokens,L=loss", *few)
    assert any("scale them" in said for said in millions["warnings"])


def test_a_heading_may_be_named_without_its_unit(fit, tmp_path):
    n, d, _, bits = isoflops(noise=0.002).values()
    columns = {"params_latent [parameter]": n, "train_bytes [byte]": d, "bpb [bit/byte]": bits}
    file = write(tmp_path / "exported.csv", columns)
    draws = ("--draws", 20)
    whole = fit(file, "--columns", ",".join(f"{v}={name}" for v, name in zip("NDL", columns)), *draws)
    short = fit(file, "--columns", "N=params_latent,D=train_bytes,L=bpb", *draws)
    assert short == whole and short[0] == 0 and "params_latent [parameter]" in short[1]["units"]["N"]
    scaled = fit(file, "--columns", "N=params_latent*1e-6,D=train_bytes,L=bpb", *draws)[1]
    ones, millions = of(short[1], "parametric"), of(scaled, "parametric")
    assert millions["alpha"] == pytest.approx(ones["alpha"], rel=1e-3)
    assert millions["A"] == pytest.approx(1e-6 ** ones["alpha"] * ones["A"], rel=1e-2)
    status, _, said = fit(
        write(tmp_path / "two.csv", {**columns, "bpb [nat/byte]": bits}),
        *("--columns", "N=params_latent,D=train_bytes,L=bpb"),
    )
    assert status == 2 and "has no column 'bpb'" in said  # which of the two is not guessed


def test_families_gain_and_cross_with_intervals_and_files(fit, tmp_path):
    a, b = isoflops(0.002), isoflops(0.002, BETTER, seed=1)
    columns = {name: np.concatenate([a[name], b[name]]) for name in a}
    columns["family"] = ["bpe"] * 35 + ["blt"] * 35
    table = write(tmp_path / "t.csv", columns)
    out = tmp_path / "out"
    named = ("--columns", ND + ",C=budget", "--group", "family")
    status, result, _ = fit(table, *named, "--draws", "100", "--out", out)
    [one] = result["comparisons"]
    assert status == 0 and (one["group"], one["against"]) == ("blt", "bpe")
    flops = one["gain"][-1]["flops"]
    curves = [
        allocation.frontier(CHINCHILLA, np.array([law[n] for n in CHINCHILLA.names])) for law in (BETTER, LAW)
    ]
    assert one["gain"][-1]["low"] < effective_compute.of(*curves, flops) < one["gain"][-1]["high"]
    assert one["crossing"]["says"]
    assert {e["group"] for e in result["fits"]} == {"bpe", "blt"}
    names = {path.name for path in out.iterdir()}
    assert {
        "fit.md",
        "fits.csv",
        "gain.png",
        "gain.svg",
        "gain.csv",
        "isoflop_blt.png",
        "residuals_bpe.csv",
    } <= names


def test_a_third_variable_stands_beside_separate_laws(fit, tmp_path):
    rng = np.random.default_rng(0)
    patch, budget, off = (
        axis.ravel()
        for axis in np.meshgrid([2, 3, 4.5, 6, 8.0], np.geomspace(1e17, 1e19, 4), np.geomspace(0.3, 3, 4))
    )
    n = np.sqrt(budget * patch / 6 / 20) * off
    d = budget * patch / 6 / n
    bits = (loss(n, d) - 0.69 + 0.05 * patch**0.8) * np.exp(rng.normal(0, 0.002, len(n)))
    table = write(tmp_path / "t.csv", dict(latent=n, bytes=d, patch=patch, flops=budget, bpb=bits))
    named = "N=latent,D=bytes,T=patch,C=flops,L=bpb"
    status, result, _ = fit(table, "--columns", named, "--draws", "100", "--at", "1e20")
    found = of(result, "parametric")
    assert status == 0 and found["exponents"]["T"] == pytest.approx(0.8, abs=0.2) and found["grows"] == ["T"]
    assert np.exp(found["log_coefficients"]["N"]) == pytest.approx(found["A"])
    [joint] = result["joint"]
    errors = joint["held_out"]["errors"]
    assert set(errors) == {"joint, powers", "joint, log square", "separate"}
    assert errors["joint, powers"] < errors["separate"] and len(joint["separate"]) == 5
    assert joint["best"][-1]["T_interval"][0] and joint["law_one"]
    assert any("6 FLOPs per parameter and patch (D/T)" in said for said in result["notes"])


def finished(root, family, name, n, d, bits, seed, size, series):
    """A run directory of a run that is done: n latent parameters, d bytes, 20 n d FLOPs."""
    flops = 20 * n * d
    run = add_run(
        root,
        family,
        flops,
        bpb=bits,
        name=name,
        seed=seed,
        changes={"size": size, "series": series},
        planned=dict(params=dict(total=2 * n, hash=0, latent_12lh2=n)),
    )
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines[-1].update(bytes=int(d), useful_flops=flops)
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / "done.json").write_text(json.dumps(dict(realized_flops=flops, wall_s=1.0)))


def test_runs_that_read_their_text_again_are_said(tmp_path):
    root = tmp_path / "runs" / "tiny"
    for i, epochs in enumerate((0.4, 1.0, 2.5)):
        add_run(root, "bpe", 10.0 ** (10 + i), planned=dict(epochs=epochs, params=dict(latent_12lh2=1e5)))
    said = " ".join(experiment.of_directory(root).warnings)
    assert "1 of 3 runs read text more than once, up to 2.5 times" in said
    kept = experiment.of_directory(root, where=["epochs<=1.05"])
    assert kept.runs.rows_N.size == 2 and "more than once" not in " ".join(kept.warnings)


def test_isoflops_of_which_every_size_is_a_series_are_drawn(tmp_path):
    """The parabolas are the family's, of which no series has a law: they are drawn of the family's runs."""
    root = tmp_path / "runs" / "tiny"
    for flops in (1e15, 1e16, 1e17):
        [best], _ = allocation.best(
            CHINCHILLA, np.array([LAW[n] for n in CHINCHILLA.names]), [flops * 6 / 20]
        )
        for size in (0.25, 0.5, 1, 2, 4):
            n = size * best
            bits = float(loss(n, flops / 20 / n))
            finished(root, "bpe", f"bpe-{n:.0f}", n, flops / 20 / n, bits, 0, f"{n:.0f}", f"{n:.0f}")
    report = reporting.report(root)
    drawn = next((root / "report").glob("isoflop*.csv")).read_text().splitlines()
    assert sum(line.startswith("run,") for line in drawn) == 15
    assert of(report["scaling_law"], "parametric", group="bpe")["n"] == 15


@pytest.mark.parametrize("series", ["all", "{size}"])
def test_run_directories_of_an_experiment(fit, tmp_path, monkeypatch, series):
    """Seeds are repeated cells, of a learning rate's sweep the best counts, and what has not finished does
    not. Series of three runs tell no law, their family does."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "runs" / "tiny"
    rng = np.random.default_rng(0)
    for family, law in (("bpe", LAW), ("blt-space", BETTER)):
        for i, n in enumerate(np.geomspace(1e5, 1e7, 4)):
            for j, d in enumerate(np.geomspace(1e6, 1e8, 3)):
                for seed in (0, 1) if i == j else (0,):
                    bits = float(loss(n, d, law) * np.exp(rng.normal(0, 0.002)))
                    name = f"{family}-{i}{j}-{seed}"
                    finished(root, family, name, n, d, bits, seed, f"{i}", series.format(size=i))
    add_run(root, "bpe", 1e11, finished=False, changes={"series": "all"})
    add_run(
        root,
        "bpe",
        20 * 1e5 * 1e6,
        bpb=90.0,
        validation=95.0,
        lr=9e-3,
        name="worse",
        changes={"size": "0", "series": series.format(size=0)},
        planned=dict(params=dict(total=2e5, hash=0, latent_12lh2=1e5)),
    )
    (tmp_path / "tiny.py").write_text(EXPERIMENT)
    status, result, err = fit("tiny.py", "--draws", "100", "--objective", "squares")
    assert status == 0, err
    named = "{} (all)" if series == "all" else "{}"
    found = of(result, "parametric", group=named.format("blt-space"))
    small = [said for said in result["notes"] if "4 series of fewer than 4 different runs" in said]
    assert len(small) == 2 * (series != "all")
    assert found["n"] == 15 and found["alpha"] == pytest.approx(BETTER["alpha"], abs=0.1)
    assert found["units"]["N"].startswith("latent parameters") and found["units"]["D"] == "training bytes"
    assert found["lack_of_fit"]["freedom"][1] == 3
    assert of(result, "parametric", group=named.format("bpe"))["n"] == 15
    notes = " ".join(result["notes"])
    assert (
        "left out, since not finished: 1 run" in notes
        and "left out, since not the best on validation text: 1 run" in notes
    )
    assert "20 FLOPs per parameter and unit of data" in notes
    assert [one["group"] for one in result["comparisons"]] == [named.format("blt-space")]
    assert fit("tiny.py", "--params", "latents")[0] == 2
    report = reporting.report(root)
    law = report["scaling_law"]
    assert of(law, "parametric", group=named.format("bpe"))["n"] == 15
    text, drawn = (root / "report" / "report.md").read_text(), "residuals_bpe" + "-all" * (series == "all")
    assert "## Scaling law" in text and f"{drawn}.png" in text
    assert (root / "report" / f"{drawn}.csv").read_text().startswith("row,N (latent parameters")


EXPERIMENT = """
from bltjax.experiments import quickstart

def get_config(arg=None):
    return quickstart.get_config(arg)
"""


@pytest.mark.parametrize(
    "text, holds",
    [("x=1", [0, 2]), ("x!=true", [1, 3]), ("y>=2", [1, 2, 3]), ("y < 2", [0]), ("z = a b", [0])],
)
def test_conditions(text, holds):
    columns = dict(x=["True", "0", True, None], y=["1", "2", 3, "4"], z=["A b", "c", "", None])
    found = source.condition(source.Table("t", columns), text)
    assert list(np.flatnonzero(found)) == holds
