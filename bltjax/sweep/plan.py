"""Budgets become runs: what every run of an experiment is, reads and costs. From configs alone: no data is
read, nothing is run."""

from ml_collections import ConfigDict

from bltjax import flops
from bltjax.data import batches
from bltjax.errors import UserError
from bltjax.run import budget, inputs
from bltjax.sweep import epochs

STATE_BYTES = 16  # a parameter, its gradient and AdamW's two moments, float32


def plan(experiment, document_lengths=None) -> list[dict]:
    """One dict per run, ready for JSON. experiment: `registry.Experiment`, or its runs. document_lengths:
    bytes of the documents that they read, as flops.count takes them, over whose rows attention is averaged;
    None: every row is one document.

    name, family, size, patch_size (mean bytes per patch or token that the run aims at), params_latent
    (12·l·h² of the latent, or of the token transformer), params_total and params_hash (counted),
    state_bytes (memory of weights, gradients and AdamW's moments), params (by component),
    flops_per_byte_paper and _exact (forward), flops_components (of `exact`), steps, batch_bytes, context,
    train_bytes, train_flops (`exact`, useful, entropy model left out), budget_flops, executed_flops
    (padding and masked blocks included), attention (what its FLOPs are averaged over), seed, epochs (how
    often the training text is read, as epochs.of has it), entropy_model {paper, exact: forward FLOPs per
    byte; params; train_flops; epochs}. Bytes are byte
    slots: the few of them that hold BOS and EOS are counted exactly when the data is read."""
    texts = {}
    return [_plan(run, texts, document_lengths) for run in getattr(experiment, "runs", experiment)]


def plan_each(runs, refused: list, said: list, asked=()) -> tuple[list[dict], list]:
    """(plans, their runs) of those that can be planned, and that `bltjax run` would not refuse for what they
    name; {"name", "why"} of the others are added to refused, and lines about text that is not here to said.
    asked: keys that the user set.
    """
    plans, kept, texts, seen = [], [], {}, {}
    for run in runs:
        try:
            planned, missing = _plan(run, texts), inputs.check_named(run, asked, seen)
            said += [line for line in missing if line not in said]
            plans.append(planned)
            kept.append(run)
        except UserError as error:
            refused.append({"name": run.name, "why": str(error)})
    return plans, kept


def _plan(run: ConfigDict, texts: dict, document_lengths=None) -> dict:
    """texts: what epochs.of keeps of the texts of one plan."""
    counted = flops.count(run, document_lengths=document_lengths)
    batch_bytes = run.data.rows * run.data.context
    per_step = flops.TRAIN * counted["exact"]["total"] * batch_bytes
    steps = budget.steps_of(run, per_step)
    trained = (
        _plan(run.entropy_model, texts, document_lengths)
        if budget.trained(run.entropy_model)
        else {"train_flops": 0.0, "epochs": None}
    )
    entropy_model = counted["entropy_model"] | {key: trained[key] for key in ("train_flops", "epochs")}
    return dict(
        name=run.name,
        family=run.family,
        size=run.size,
        seed=run.seed,
        patch_size=counted["patch_size"],
        params_latent=counted["params"]["latent_12lh2"],
        params_total=counted["params"]["total"],
        params_hash=counted["params"]["hash"],
        params=counted["params"],
        state_bytes=STATE_BYTES * counted["params"]["total"],
        flops_per_byte_paper=counted["paper"]["total"],
        flops_per_byte_exact=counted["exact"]["total"],
        flops_components=counted["exact"],
        steps=steps,
        batch_bytes=batch_bytes,
        context=run.data.context,
        train_bytes=steps * batch_bytes,
        epochs=epochs.of(run.data, steps * batch_bytes, texts),
        train_flops=steps * per_step,
        budget_flops=run.budget_flops or None,
        executed_flops=steps * flops.executed_step(run, run.data.rows, *batches.row_shape(run)),
        attention=counted["attention"],
        entropy_model=entropy_model,
    )


def seconds(planned: dict, flops_per_second: float) -> float:
    """Rough training time of one plan on one process: what it executes, at this machine's rate
    (sweep/speed.py) or a measured one. Compilation, evaluation and the entropy model come on top."""
    return planned["executed_flops"] / flops_per_second


COLUMNS = (  # title, of a plan
    ("run", lambda p: p["name"]),
    ("patch", lambda p: f"{p['patch_size']:g}"),
    ("latent", lambda p: _short(p["params_latent"])),
    ("params", lambda p: _short(p["params_total"])),
    ("in hashes", lambda p: _short(p["params_hash"])),
    ("memory", lambda p: _short(p["state_bytes"]).replace("B", "G") + "B"),
    ("paper", lambda p: f"{p['flops_per_byte_paper']:.3g}"),
    ("exact", lambda p: f"{p['flops_per_byte_exact']:.3g}"),
    ("entropies", lambda p: f"{p['entropy_model']['exact']:.2g}" if p["entropy_model"]["exact"] else "-"),
    ("train FLOPs", lambda p: f"{p['train_flops']:.4g}"),
    ("bytes", lambda p: _short(p["train_bytes"])),
    ("epochs", lambda p: f"{p['epochs']:.2f}" if p.get("epochs") else "-"),
    ("batch", lambda p: _short(p["batch_bytes"])),
    ("steps", lambda p: f"{p['steps']:,}"),
    ("here", lambda p: _duration(p["seconds_here"]) if "seconds_here" in p else "-"),
)


def text_table(plans: list[dict]) -> str:
    """The runs, then each one's forward FLOPs per byte by component, for a terminal."""
    runs = aligned([[title for title, _ in COLUMNS]] + [[str(cell(p)) for _, cell in COLUMNS] for p in plans])
    names = list(dict.fromkeys(name for p in plans for name in p["flops_components"] if name != "total"))
    shares = aligned(
        [["run", *names]] + [[p["name"], *(_share(p["flops_components"], n) for n in names)] for p in plans]
    )
    total = sum(p.get("seconds_here", 0.0) for p in plans)
    return "\n".join(
        [
            *runs,
            "",
            *epochs.said(plans),
            "memory: of weights, gradients and AdamW's two moments, on all devices together.",
            "paper, exact: forward FLOPs per byte in either convention; training is 3 times that.",
            f"Attention of exact is averaged over {plans[0]['attention'] if plans else 'nothing'} here;"
            " runs count it in the rows that they read.",
            "entropies: the entropy model's, not in the budget. here: rough time of one run on one core or"
            " device of this machine" + (f"; all of them {_duration(total)}." if total else "."),
            "",
            "Share of the exact FLOPs per byte",
            *shares,
        ]
    )


def _share(components: dict, name: str) -> str:
    return f"{components[name] / components['total']:.1%}" if name in components else "-"


def aligned(rows: list[list[str]]) -> list[str]:
    """Lines of a table for a terminal: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths))).rstrip()
        for row in rows
    ]


def _short(n: float) -> str:
    for unit, sign in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if n >= 0.9995 * unit:  # what three digits round up to the unit
            return f"{n / unit:.3g}{sign}"
    return f"{n:g}"


def _duration(s: float) -> str:
    if s > 365 * 86400:
        return "over a year"
    for unit, sign in ((86400, "days"), (3600, "h"), (60, "min")):
        if s >= unit:
            return f"{s / unit:.2g} {sign}" if s / unit < 100 else f"{s / unit:,.0f} {sign}"
    return f"{s:.0f} s"
