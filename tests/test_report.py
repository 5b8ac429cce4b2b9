"""Reports from fabricated run directories whose exponents, differences and best runs are known."""

import csv
import json
import math
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from bltjax.config import families
from bltjax.errors import UserError
from bltjax.plots import drawing
from bltjax.report import figures, page, sections
from bltjax.report import report as reporting
from bltjax.results import run_directories, tables
from bltjax.science import bootstrap

LAWS = {
    "bpe": (60.0, 0.132),
    "blt-entropy": (85.0, 0.145),
    "blt-space": (70.0, 0.137),
    "blt-strided": (66.0, 0.131),
}
BUDGETS = (1e11, 3e11, 1e12)
DOCUMENTS = 60


def write(path: pathlib.Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def law(family: str, flops: float) -> float:
    a, alpha = LAWS[family]
    return a * flops**-alpha


def fabricated_scores(bpb: float, seed: int = 0, family_noise: float = 0.004) -> dict:
    """Documents whose difficulty all families share, with a little noise of each family's own; together
    exactly bpb."""
    hard = np.random.default_rng(0)
    sizes = (hard.lognormal(8.5, 1.0, DOCUMENTS)).astype(int) + 200
    level = np.exp(hard.normal(0, 0.25, DOCUMENTS)) * np.exp(
        np.random.default_rng(seed + 1).normal(0, family_noise, DOCUMENTS)
    )
    nats = sizes * level
    nats *= bpb * math.log(2) * sizes.sum() / nats.sum()
    documents = [{"bytes": int(n), "nats": float(x), "eos_nats": 2.5} for n, x in zip(sizes, nats)]
    return {
        "bpb": bpb,
        "eos_nats": 2.5 * DOCUMENTS,
        "bytes": int(sizes.sum()),
        "documents": documents,
        "documents_digest": "d" * 12,
        "patch_size": 4.4,
    }


def add_run(
    root,
    family,
    budget,
    *,
    bpb=None,
    validation=None,
    lr=1e-3,
    vocab=1024,
    name=None,
    share=0.7,
    documents=None,
    noise_seed=None,
    finished=True,
    seed=0,
    digest="d" * 12,
    changes=None,
    planned=None,
):
    """One run directory; returns its path. changes: dotted keys of the config; planned: of planned.json."""
    token = family == "bpe"
    bpb = law(family, budget) if bpb is None else bpb
    name = name or f"{family}-{budget:.0e}".replace("+", "")
    path = pathlib.Path(root) / name
    flops_per_byte = 30_000 if token else 45_000
    train_bytes = int(budget / flops_per_byte / 3)
    model = (
        dict(kind="token", vocab=vocab, width=128)
        if token
        else dict(kind="blt", vocab=260, local=dict(width=64))
    )
    config = dict(
        name=name,
        family=family,
        size="",
        seed=seed,
        budget_flops=budget,
        model=model,
        data=dict(context=512, rows=8),
        patching=dict(scheme="none" if token else family[4:], size=1.0 if token else 4.5),
        tokenizer=(
            dict(kind="trained", vocab=vocab, bytes_per_token=3.2) if token else dict(kind="none", vocab=0)
        ),
        train=dict(lr=lr),
    )
    for key, value in (changes or {}).items():
        *sections_, last = key.split(".")
        node = config
        for part in sections_:
            node = node.setdefault(part, {})
        node[last] = value
    write(
        path / "config.json",
        {
            "schema_version": 2,
            "experiment": "fabricated",
            "versions": {"python": "3.11.2", "jax": "0.10.2"},
            "cores": 1,
            "platform": "cpu",
            "data_fingerprint": "abc",
            "created": "2026-01-01T00:00:00Z",
            "config": config,
        },
    )
    entropy = dict(
        fingerprint="e1e2", train_flops=2.5e10, forward_flops_per_byte=9000.0, params=123_456, bpb=2.6
    )
    exact = dict(encoder=1.0, latent=10 * (1 - share), decoder=10 * share - 1)
    write(
        path / "planned.json",
        dict(
            steps=200,
            train_bytes=train_bytes,
            train_flops=budget * 1.002,
            executed_flops=budget * 1.2,
            patch_size=3.21 if token else 4.52,
            flops_per_byte_exact=flops_per_byte,
            flops_per_byte_paper=flops_per_byte * 0.9,
            params=dict(total=900_000, hash=0 if token else 300_000),
            threshold=1.4 if family == "blt-entropy" else None,
            delta=None,
            bytes_per_batch=4000,
            budget_flops=budget,
            packing_efficiency=dict(bytes=0.97, patches=0.88),
            entropy_model=entropy if family == "blt-entropy" else None,
            **({} if token else dict(flops_components=exact)),
        )
        | (planned or {}),
    )
    steps = np.arange(1, 201)
    noise = np.random.default_rng(7).normal(0, 0.05, 200)
    reached = steps if finished else steps[:50]
    with (path / "metrics.jsonl").open("w") as file:
        for s in reached:
            fraction = s / 200
            line = dict(
                step=int(s),
                loss=1.0,
                bpb=float(bpb * fraction**-0.18 + noise[s - 1]),
                bytes=int(train_bytes * fraction),
                patch_size=4.5,
                useful_flops=budget * 1.002 * fraction,
                executed_flops=budget * 1.2 * fraction,
            )
            file.write(json.dumps(line) + "\n")
    if finished:
        scored = fabricated_scores(
            bpb, noise_seed if noise_seed is not None else sum(family.encode()) + int(budget % 9973)
        )
        if documents is not None:
            scored["documents"] = documents
            scored["bpb"] = float(bootstrap.bpb(*([d[k] for d in documents] for k in ("nats", "bytes"))))
        scored["documents_digest"] = digest
        write(
            path / "eval.json",
            {
                "schema_version": 1,
                "test": scored,
                "validation": {"bpb": validation or bpb * 1.01},
                "upper_bound": token,
            },
        )
        write(
            path / "done.json",
            dict(realized_flops=budget * 1.002, wall_s=60.0, finished="2026-01-01T00:10:00Z"),
        )
    return path


def experiment(root, families=("bpe", "blt-entropy", "blt-space")) -> pathlib.Path:
    for family in families:
        for budget in BUDGETS:
            add_run(root, family, budget)
    return pathlib.Path(root)


def analysed(root) -> dict:
    """The numbers of a report, nothing drawn."""
    root = pathlib.Path(root)
    return reporting.analyse(root, run_directories.read_experiment(root))


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """A report of three families and three budgets, an unfinished run and a failed one among them."""
    root = experiment(tmp_path_factory.mktemp("runs") / "fabricated")
    half = add_run(root, "blt-strided", 1e11, finished=False)
    with (half / "metrics.jsonl").open("a") as file:
        file.write('{"step": 51, "bp')  # killed while it wrote
    write(
        root / "blt-strided-3e11" / "failed.json",
        {"error": "disk full while writing\n metrics.jsonl", "time": 0},
    )
    return reporting.report(root), root


# Bootstrap


def test_bits_per_byte_of_sums_not_mean_of_ratios():
    assert bootstrap.bpb([math.log(2) * 100, math.log(2) * 10], [50, 100]) == pytest.approx(110 / 150)


def test_resampling_is_deterministic_and_chunks_do_not_change_it(monkeypatch):
    rows_ = fabricated_scores(2.0)["documents"]
    nats, sizes = [[r["nats"] for r in rows_]], [r["bytes"] for r in rows_]
    whole = bootstrap.resample(nats, sizes, 300)
    monkeypatch.setattr(bootstrap, "CELLS", 60 * 7)
    np.testing.assert_allclose(bootstrap.resample(nats, sizes, 300), whole, rtol=1e-12)
    assert not np.allclose(bootstrap.resample(nats, sizes, 300, seed=1), whole)


def test_interval_covers_about_as_often_as_it_says():
    rng, hits = np.random.default_rng(0), 0
    for trial in range(200):
        sizes = rng.integers(200, 2000, 80)
        nats = sizes * 1.4 * np.exp(rng.normal(-0.02, 0.2, 80))  # mean of exp(N(-0.02, 0.2)) is 1
        low, high = bootstrap.interval(bootstrap.resample(nats, sizes, 400, seed=trial)[:, 0])
        hits += low <= 1.4 / math.log(2) <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_pairing_reduces_the_variance_of_a_difference():
    a, b = fabricated_scores(2.0, 1)["documents"], fabricated_scores(1.98, 2)["documents"]
    samples = bootstrap.resample_runs({"a": a, "b": b}, {"a": "same", "b": "same"})
    alone = bootstrap.resample_runs({"b": b}, {"b": "same"}, seed=1)["b"]
    assert np.std(samples["a"] - samples["b"]) < 0.1 * np.std(samples["a"] - alone)
    low, high = bootstrap.interval(samples["a"] - samples["b"])
    assert low < 0.02 < high


def test_documents_that_differ_or_are_too_few_are_not_paired(tmp_path):
    experiment(tmp_path, ("bpe", "blt-space"))
    other = fabricated_scores(2.0)["documents"][:-1]
    add_run(tmp_path, "blt-space", 3e11, documents=other, digest="other")
    for family in ("bpe", "blt-space"):
        add_run(tmp_path, family, 1e12, documents=other[:1])
    pairs = {p["budget_flops"]: p for p in analysed(tmp_path)["pairs"]}
    assert pairs[1e11]["low"] is not None and pairs[3e11]["note"] == "test documents differ"
    assert pairs[1e12]["note"] == "fewer than two test documents" and not pairs[1e12]["excludes_zero"]


def test_equal_byte_counts_are_not_equal_documents(tmp_path):
    experiment(tmp_path, ("bpe", "blt-space"))
    add_run(tmp_path, "blt-space", 3e11, digest="another text of the same sizes")
    add_run(tmp_path, "blt-space", 1e12, digest=None)
    result = analysed(tmp_path)
    pairs = {p["budget_flops"]: p for p in result["pairs"]}
    assert pairs[3e11]["low"] is None and pairs[3e11]["note"] == "test documents differ"
    assert pairs[1e12]["low"] is None and "documents_digest" in pairs[1e12]["note"]
    assert result["fits"]["bpe"]["alpha_low"] is not None and "blt-space" not in result["fits"]
    assert result["crossovers"] == []


# Choice and sweeps


def test_choice_is_by_validation_text_and_never_by_test(tmp_path):
    add_run(tmp_path, "bpe", 1e11, lr=1e-3, bpb=2.0, validation=2.2, name="a")
    add_run(tmp_path, "bpe", 1e11, lr=2e-3, bpb=2.1, validation=2.1, name="b")
    add_run(tmp_path, "bpe", 1e11, lr=4e-3, bpb=1.9, validation=2.3, name="c")
    result = analysed(tmp_path)
    assert [r["name"] for r in result["runs"]] == ["b"] and len(result["all_runs"]) == 3
    assert {r["name"]: r["chosen"] for r in result["all_runs"]} == {"a": False, "b": True, "c": False}


def test_sweep_table_and_edge_of_the_grid(tmp_path):
    for lr, validation in ((1e-3, 2.3), (2e-3, 2.1), (4e-3, 2.0), (8e-3, 2.2)):
        add_run(tmp_path, "bpe", 1e11, lr=lr, validation=validation, name=f"bpe-{lr}")
        add_run(tmp_path, "blt-space", 1e11, lr=lr, validation=3 - lr, name=f"space-{lr}")
    found = {s["family"]: s for s in reporting.report(tmp_path)["sweeps"]}
    assert set(found) == {"bpe", "blt-space"} and found["bpe"]["key"] == "train.lr"
    assert (found["bpe"]["chosen"], found["bpe"]["edge"]) == (4e-3, False)
    assert (found["blt-space"]["chosen"], found["blt-space"]["edge"]) == (8e-3, True)
    assert [v["validation_bpb"] for v in found["bpe"]["values"]] == [2.3, 2.1, 2.0, 2.2]
    page = (tmp_path / "report" / "report.html").read_text()
    assert "at the edge of the grid" in page and (tmp_path / "report" / "learning_rate_sweep.png").exists()


def test_a_vocabulary_sweep_at_two_learning_rates_is_not_mixed(tmp_path):
    for vocab in (512, 1024, 2048):
        for lr in (1e-3, 2e-3):
            add_run(
                tmp_path,
                "bpe",
                1e11,
                lr=lr,
                vocab=vocab,
                validation=2 + abs(math.log2(vocab) - 10) / 10 + lr,
                name=f"v{vocab}-{lr}",
            )
    found = [s for s in analysed(tmp_path)["sweeps"] if s["key"] == "tokenizer.vocab"]
    assert len(found) == 2 and all(s["chosen"] == 1024 and not s["edge"] for s in found)
    assert sorted(s["fixed"]["train.lr"] for s in found) == [1e-3, 2e-3]


# The report


def test_rows_equal_the_run_directories(reported):
    result, root = reported
    assert len(result["runs"]) == 9
    row = next(r for r in result["runs"] if r["family"] == "blt-entropy" and r["budget_flops"] == 3e11)
    for key in ("name", "family", "budget_flops", "realized_flops", "patch_size", "bpb", "run_dir"):
        assert row[key] is not None
    planned = json.loads((root / "blt-entropy-3e11" / "planned.json").read_text())
    assert row["bpb"] == law("blt-entropy", 3e11) and row["patch_size"] == 4.52 and row["patch_target"] == 4.5
    assert row["deviation_percent"] == pytest.approx(0.2) and row["executed_flops"] == pytest.approx(3.6e11)
    assert row["flops_with_entropy_model"] == pytest.approx(
        row["realized_flops"] + 9000 * planned["train_bytes"]
    )
    assert row["params_without_hash"] == 600_000 and row["bpb_low"] < row["bpb"] < row["bpb_high"]
    assert next(r for r in result["runs"] if r["family"] == "bpe")["upper_bound"] is True
    json.dumps(result, allow_nan=False)


def test_csv_holds_every_digit(reported):
    result, root = reported
    with (root / "report" / "report.csv").open() as file:
        lines = {line["name"]: line for line in csv.DictReader(file)}
    assert len(lines) == 9
    for row in result["all_runs"]:
        for key in (
            "bpb",
            "bpb_low",
            "realized_flops",
            "budget_flops",
            "validation_bpb",
            "flops_with_entropy_model",
        ):
            assert float(lines[row["name"]][key]) == row[key]


def test_fits_recover_the_laws_behind_the_runs(reported):
    fits = reported[0]["fits"]
    for family in ("bpe", "blt-entropy", "blt-space"):
        assert fits[family]["alpha"] == pytest.approx(LAWS[family][1], rel=1e-6)
        assert fits[family]["alpha_low"] < LAWS[family][1] < fits[family]["alpha_high"]
    assert reported[0]["scaling_law"] is None
    assert any(said.startswith("No law L(N, D): fabricated: no row") for said in reported[0]["caveats"])
    beside = reported[0]["fits_with_entropy_model"]
    assert beside["bpe"]["A"] == fits["bpe"]["A"] and beside["blt-entropy"]["A"] > fits["blt-entropy"]["A"]


def test_pairs_and_crossovers_of_the_report(reported):
    result, _ = reported
    assert {(p["family"], p["budget_flops"]) for p in result["pairs"]} == {
        (f, b) for f in ("blt-entropy", "blt-space") for b in BUDGETS
    }
    for p in result["pairs"]:
        assert p["difference"] == pytest.approx(
            law(p["family"], p["budget_flops"]) - law("bpe", p["budget_flops"])
        )
        assert p["low"] < p["difference"] < p["high"] and p["excludes_zero"] == (
            p["low"] > 0 or p["high"] < 0
        )
    crossing = {c["family"]: c for c in result["crossovers"]}["blt-entropy"]
    assert 3e11 < crossing["measured"][0] < 1e12


def test_files_are_there_and_the_page_needs_nothing_else(reported):
    result, root = reported
    names = {path.name for path in (root / "report").iterdir()}
    assert {
        "report.csv",
        "report.md",
        "report.html",
        "bpb_vs_flops.png",
        "bpb_vs_flops.svg",
        "bpb_vs_flops_with_entropy_model.png",
        "difference_to_bpe.svg",
        "training_curves.png",
    } <= names
    drawn = {name.removesuffix(".png") for name in names if name.endswith(".png")}
    for kind in ("svg", "csv"):
        assert {f"{name}.{kind}" for name in drawn} <= names
    page = (root / "report" / "report.html").read_text()
    assert not re.search(r"(?:src|href|url|@import)\s*[=(]?\s*[\"']?\s*(?:https?:)?//", page)
    assert page.count("<script") == page.count("<script>") == 1 and "fetch(" not in page
    assert (
        "<link" not in page
        and "<img" not in page
        and page.count("<svg") == 4
        and "prefers-color-scheme:dark" in page
    )
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert {target for target in re.findall(r'href="#([^"]+)"', page)} <= set(ids)
    assert "2.50×10¹⁰" in page  # the entropy model's training cost
    assert (root / "report" / "report.md").read_text().count("![") == 4


def test_colours_of_the_figures_follow_dark_mode(reported):
    page = (reported[1] / "report" / "report.html").read_text()
    for figure in re.findall(r"<svg.*?</svg>", page, re.S):
        assert "var(--ink)" in figure and not re.search(r"#[0-9a-f]{6}\b", figure)


def test_unfinished_and_failed_runs_are_listed_and_in_no_curve(reported):
    result, root = reported
    states = {u["name"]: (u["state"], u["reason"]) for u in result["unfinished"]}
    assert states["blt-strided-1e11"] == ("unfinished", "step 50 of 200; no eval.json, no done.json")
    assert states["blt-strided-3e11"] == ("failed", "disk full while writing metrics.jsonl")
    assert not any(r["family"] == "blt-strided" for r in result["all_runs"])
    assert "disk full" in (root / "report" / "report.html").read_text() and "disk full" in reporting.text(
        result
    )


def test_the_same_directories_give_the_same_files(reported, tmp_path):
    result, root = reported
    reporting.report(root, tmp_path)
    for path in (root / "report").iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_another_users_settings_give_the_same_files(reported, tmp_path):
    """A process of its own, with another matplotlibrc, locale, time zone and order of sets."""
    settings = tmp_path / "matplotlibrc"
    settings.write_text(
        "text.usetex: True\nsvg.fonttype: none\nsavefig.dpi: 37\nfont.size: 30\n"
        "axes.formatter.use_locale: True\nsvg.hashsalt: mine\n"
        "path.simplify: False\naxes.unicode_minus: False\nsavefig.bbox: tight\n"
    )
    program = (
        "import sys; from bltjax.parallel import host; host.import_matplotlib();"
        " from bltjax.report import report; report.report(sys.argv[1], sys.argv[2])"
    )
    mine = {
        "MATPLOTLIBRC": str(settings),
        "LC_ALL": "C",
        "LANG": "C",
        "TZ": "Asia/Tokyo",
        "PYTHONHASHSEED": "7",
    }
    root = reported[1]
    command = [sys.executable, "-c", program, str(root), str(tmp_path / "theirs")]
    where = {**os.environ, **mine, "PYTHONPATH": str(pathlib.Path(__file__).parent.parent)}
    subprocess.run(command, check=True, env=where)
    for path in (root / "report").iterdir():
        assert (tmp_path / "theirs" / path.name).read_bytes() == path.read_bytes(), path.name


def test_headline_follows_the_numbers(tmp_path):
    def runs(factor, share):
        for budget in BUDGETS:
            for seed in range(3):
                moved = (seed - 1) * 1e-3
                for family, bpb, own in (("bpe", 1.0, 1), ("blt-space", factor, 2)):
                    add_run(
                        tmp_path,
                        family,
                        budget,
                        bpb=law("bpe", budget) * (bpb + moved),
                        name=f"{family}-{budget:.0e}-seed{seed}".replace("+", ""),
                        noise_seed=own,
                        share=share,
                        seed=seed,
                    )
        return analysed(tmp_path)

    result = runs(1.05, 0.8)
    assert result["headline"].startswith("bpe has the lowest mean test bits per byte at all 3 budgets")
    assert "documents and seeds, excludes 0 at each" in result["headline"]
    assert any("take most of the FLOPs" in line and "80%" in line for line in result["caveats"])
    assert any("means over 3 seeds" in line for line in result["caveats"])
    result = runs(1.00005, 0.3)  # the same means, too close to tell
    assert "includes 0" in result["headline"] and "excludes 0" not in result["headline"]
    assert not any("take most of the FLOPs" in line for line in result["caveats"])


def test_one_seed_names_no_winner(reported):
    result, root = reported
    page = (root / "report" / "report.md").read_text()
    captions = [
        figure.caption for figure in figures.draw(result, run_directories.read_experiment(root)).values()
    ]
    for text in (result["headline"], *result["findings"], *captions):
        assert not re.search(r"excludes|includes|lowest|better|winn|ahead|beat", text), text
    assert "excludes 0" not in page and "includes 0" not in page
    assert "Seeds are missing" in result["headline"]
    assert all(p["covers"].startswith("of these documents only") for p in result["pairs"])
    assert all("scatter about the fit (1 degrees of freedom)" in f["covers"] for f in result["fits"].values())
    assert all(c["covers"].startswith("of these documents only") for c in result["crossovers"])
    assert all(r["interval_covers"].startswith("of these documents only") for r in result["runs"])
    assert any("One seed is one seed" in line for line in result["caveats"])


def test_headline_without_anything_to_compare_claims_nothing(tmp_path):
    add_run(tmp_path, "blt-space", 1e11)
    assert "Nothing to compare yet" in analysed(tmp_path)["headline"]
    add_run(tmp_path, "blt-strided", 1e11)
    result = analysed(tmp_path)
    assert "No bpe run has finished" in result["headline"] and result["pairs"] == [] and result["fits"] == {}


def test_bits_that_rise_with_budget_and_unequal_conditions_are_said(tmp_path):
    experiment(tmp_path, ("bpe",))
    path = add_run(tmp_path, "bpe", 1e12, bpb=9.0)
    record = json.loads((path / "config.json").read_text())
    write(path / "config.json", {**record, "data_fingerprint": "other"})
    write(path / "done.json", dict(realized_flops=1.05e12))
    (path / "metrics.jsonl").unlink()
    result = analysed(tmp_path)
    assert any("do not fall everywhere: bpe from 3×10¹¹ to 10¹²" in line for line in result["findings"])
    assert any("data_fingerprint" in line for line in result["warnings"]) and any(
        "+5.00%" in line for line in result["warnings"]
    )


def test_missing_optional_fields_leave_gaps_not_errors(tmp_path):
    path = add_run(tmp_path, "blt-space", 1e11)
    write(path / "planned.json", {"steps": 200, "budget_flops": 1e11})
    write(path / "eval.json", {"test": {"bpb": 2.0}})
    write(path / "done.json", {"finished": "now"})
    (path / "metrics.jsonl").unlink()
    (row,) = analysed(tmp_path)["all_runs"]
    assert row["bpb"] == 2.0 and row["bpb_low"] is None and row["realized_flops"] is None


# Bad input


def test_nothing_to_report_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no such directory"):
        reporting.report(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no run directories"):
        reporting.report(tmp_path)
    add_run(tmp_path, "bpe", 1e11, finished=False)
    with pytest.raises(UserError, match="none of its 1 runs has finished.*step 50 of 200"):
        reporting.report(tmp_path)
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("name", ["config.json", "planned.json", "eval.json", "done.json"])
def test_damaged_json_names_the_file(tmp_path, name):
    path = add_run(tmp_path, "bpe", 1e11)
    (path / name).write_text('{"a": ')
    with pytest.raises(UserError) as error:
        reporting.report(tmp_path)
    assert name in str(error.value) and "\n" not in str(error.value)
    (path / name).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=name):
        reporting.report(tmp_path)


def test_damaged_metrics_line_names_file_and_line(tmp_path):
    path = add_run(tmp_path, "bpe", 1e11)
    lines = (path / "metrics.jsonl").read_text().split("\n")
    (path / "metrics.jsonl").write_text("\n".join([lines[0], "{broken", *lines[1:]]))
    with pytest.raises(UserError, match=r"metrics.jsonl: line 2"):
        reporting.report(tmp_path)


def test_a_step_logged_twice_counts_once_and_the_later_line_wins(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 1, "bpb": 3}\n{"step": 2, "bpb": 9}\n{"step": 2, "bpb": 2}\n'
    )
    assert [m["bpb"] for m in run_directories.read_metrics(tmp_path / "metrics.jsonl")] == [3, 2]


def test_run_whose_score_is_not_finite_has_failed(tmp_path):
    add_run(tmp_path, "bpe", 1e11)
    path = add_run(tmp_path, "blt-space", 1e11)
    (path / "eval.json").write_text('{"test": {"bpb": NaN}}')
    (failed,) = analysed(tmp_path)["unfinished"]
    assert failed["state"] == "failed" and "not a finite number" in failed["reason"]


# Small parts


def test_labels_are_spread_apart_within_their_room():
    at = drawing.kept_apart([50.0, 51.0, 52.0, 90.0], 0, 100, 13)
    assert np.all(np.diff(at) >= 13 - 1e-9) and at[3] == 90 and at[:3].mean() == pytest.approx(51)
    assert drawing.kept_apart([99.0, 98.0], 0, 100, 13) == pytest.approx([100, 87])


@pytest.mark.parametrize("letters", [3, 200, 100_000])
def test_labels_of_any_length_leave_room_for_the_curves(letters):
    axes = drawing.place(drawing.canvas(), ["x" * letters])
    assert axes.get_position().width > 0.3


def test_every_family_looks_different():
    drawn = [drawing.style(name) for name in families.FAMILIES]
    colours, markers = zip(*drawn, *((colour, marker) for colour, _, marker in families.OTHERS))
    assert len(set(colours)) == len(set(markers)) == len(drawn) + len(families.OTHERS)
    assert drawing.style("somebody's own") in [(colour, marker) for colour, _, marker in families.OTHERS]
    assert set(page.themed()) >= set(colours)


def test_numbers_as_text():
    assert (tables.flops(1.234e12), tables.short_flops(3e11), tables.short_flops(1e12)) == (
        "1.23×10¹²",
        "3×10¹¹",
        "10¹²",
    )
    assert tables.to_markdown(["a", "b"], [["x|y", "1"]]).splitlines() == [
        "| a | b |",
        "| --- | ---: |",
        "| x\\|y | 1 |",
    ]
    assert tables.signed(-0.0123) == "−0.012"


def test_analysis_stands_apart():
    """A report and what it is made of import nothing of the package but themselves, the science, what
    families are called, how files contradict one another, what a process takes of its machine, and the
    exception; science only itself."""
    mine = "report|paper|fits|plots|results"
    below = "science|config|storage import contradictions|storage.contradictions|errors|parallel import host"
    for folder, allowed in (
        *((name, rf"{mine}|{below}") for name in mine.split("|")),
        ("science", "science"),
    ):
        paths = list((pathlib.Path(reporting.__file__).parent.parent / folder).glob("*.py"))
        assert paths, folder
        for path in paths:
            imported = r"^\s*(?:from|import)\s+(bltjax[\w.]*(?: import (?:host|contradictions))?)"
            for module in re.findall(imported, path.read_text(), re.M):
                assert re.match(rf"bltjax\.({allowed})\b", module), (path.name, module)


def test_markdown_has_the_same_sections_as_the_data(reported):
    result, root = reported
    text = (root / "report" / "report.md").read_text()
    parts = sections.of(result, run_directories.read_experiment(root), {})
    assert all(f"## {part['title']}" in text for part in parts) and {
        "Runs",
        "Entropy model",
        "Not finished",
    } <= {p["title"] for p in parts}


def test_a_crossing_that_hardly_any_resample_has_gets_no_interval():
    from bltjax.report import sections

    crossover = dict(
        series="blt", against="bpe", text="none in range", low=2e11, high=6e11, covers="", fits=[]
    )
    rows = lambda share: sections.crossing_table(dict(crossovers=[dict(crossover, share=share)]))["rows"][0]
    assert rows(0.004)[2:4] == ["<1%", "–"]
    assert rows(0.5)[2] == "50%" and " to " in rows(0.5)[3]
