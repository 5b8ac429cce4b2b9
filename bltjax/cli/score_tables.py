"""What `bltjax eval` prints: a line a document and group of files, or a line a task; and what `bltjax data
overlap` prints."""

from bltjax.counts import counted
from bltjax.report import patch_places, task_scores
from bltjax.sweep import plan

SHOWN = 40  # documents of a table; all are in documents.jsonl


def of_files(found: dict) -> str:
    """Groups and documents, a line each, bits per byte with what they cost."""
    head = ("", "documents", "bytes", "nats", "bits/byte", f"bytes/{found['unit']}", "FLOPs/byte")

    def row(name, documents, x):
        return (name, f"{documents:,}", f"{x['bytes']:,}", f"{x['nats']:,.1f}", f"{x['bpb']:.4f}", *_cost(x))

    documents, groups = found["documents"], found["groups"]
    several = {d["file"] for d in documents if d["index"]}
    name = lambda d: f"{d['file']}:{d['index']}" if d["file"] in several else d["file"]
    rows = [head, *(row(name(d), 1, d) for d in documents[:SHOWN])]
    if len(documents) > SHOWN:
        rows.append((f"... {len(documents) - SHOWN:,} more", *[""] * 6))
    if len(groups) > 1 and len(groups) < len(documents):
        rows += [row(f"group {g['group']}", g["documents"], g) for g in groups]
    rows.append(row("all", len(documents), found))
    lines = plan.aligned(rows)
    if len(groups) > 1:
        lines.append(f"mean of {len(groups)} groups: {found['bpb_of_groups']:.4f} bits per byte")
    if found["noises"]:
        lines += ["", *_of_noises(found)]
    if found["patch_places"]:
        some = [("clean" if found["noises"] else "", found), *((x["noise"], x) for x in found["noises"])]
        rows = [(name, *patch_places.bits(x["patch_places"])) for name, x in some]
        lines += ["", *plan.aligned([("bits/byte by place in the patch", *patch_places.COLUMNS), *rows]), ""]
    if found["entropy_flops_per_byte"]:
        lines.append("FLOPs per byte are forward, exact: the model's + its entropy model's")
    if found["unit"] == "token":
        lines.append("of tokens an upper bound: one tokenization")
    return "\n".join(lines)


def _of_noises(found: dict) -> list[str]:
    """A line a noise and group: bits per byte as it was read, and per byte of the clean text."""
    unit = f"bytes/{found['unit']}"
    rows = [("", "bytes", "bits/byte", "bits/clean byte", "added", unit, "FLOPs/byte")]
    clean = {group["group"]: group for group in found["groups"]}
    for x in ({"noise": "clean", **found}, *found["noises"]):
        groups = x["groups"] if len(clean) > 1 else []
        for name, one, base in (
            (x["noise"], x, found),
            *((f"{x['noise']}, {g['group']}", g, clean[g["group"]]) for g in groups),
        ):
            per = one["bits_per_clean_byte"]
            scores = (f"{one['bpb']:.4f}", f"{per:.4f}", f"{per - base['bits_per_clean_byte']:+.4f}")
            rows.append((name, f"{one['bytes']:,}", *scores, *_cost(one)))
    return plan.aligned(rows)


def of_tasks(found: dict) -> str:
    """A line a task: its metrics with standard errors, chance, and what a byte cost."""
    results = found["tasks"]
    every = dict.fromkeys(name for r in results for name in r["metrics"])
    names = [name for name in every if name not in task_scores.HIDDEN]
    rows = [("", "items", *names, "chance", "bytes/patch", "FLOPs/byte", "cut", "shots dropped")]
    for r in results:
        known = {name: task_scores.shown(value) for name, value in r["metrics"].items()}
        scores = [known.get(name, "") for name in names]
        chance = f"{r['chance']:.3f}" if r.get("chance") else ""
        left_out = (str(r.get(key, 0)) for key in ("cut", "shots_dropped"))
        rows.append((r["task"], f"{r['items']:,}", *scores, chance, *_cost(r), *left_out))
    lines = plan.aligned(rows) if results else []
    for group in found["groups"]:
        drop = "" if group["drop"] is None else f", {group['drop']:.4f} below the clean task"
        of = f" ({group['metric']})" if group["metric"] else ""
        lines.append(f"{group['group']}: mean of {group['tasks']} tasks{of} {group['mean']:.4f}{drop}")
    return "\n".join(lines)


def of_overlap(found: dict) -> str:
    """What `bltjax data overlap` prints: a line a task or file."""
    rows = [("", "items", "overlapping", "share", "with any", "too short")]
    for one in found["tasks"]:
        counts = [f"{one[key]:,}" for key in ("items", "overlapping", "any", "short")]
        rows.append((one["task"], *counts[:2], f"{one['overlapping'] / one['items']:.1%}", *counts[2:]))
    sampled = f" (one in {found['sampling']} looked at)" if found["sampling"] > 1 else ""
    size = f"{counted(found['documents'], 'document')} ({found['bytes']:,} bytes)"
    return "\n".join(
        [
            *plan.aligned(rows),
            f"overlapping: more than {found['share']:.0%} of an item's 50-byte shingles{sampled} occur in the"
            f" training text of {size}, boilerplate left out",
        ]
    )


def of_pair(found: dict) -> str:
    """A line a metric and text: both models' scores, their difference and its interval."""
    head = ("items", "MODEL", "OTHER", "difference", "95% interval", "MODEL alone", "OTHER alone", "p")
    rows = [("", *head, "FLOPs/byte")]

    def row(name, items, one, flops=None):
        low, high = one["low"], one["high"]
        within = "" if low is None else f"{low:+.4f} to {high:+.4f}"
        alone = (f"{one['only_a']:,}", f"{one['only_b']:,}", f"{one['p']:.2g}") if "p" in one else [""] * 3
        values = (f"{one['a']:.4f}", f"{one['b']:.4f}", f"{one['difference']:+.4f}", within, *alone)
        rows.append((name, items, *values, f"{flops[0]:,.0f} : {flops[1]:,.0f}" if flops else ""))

    for task in found["tasks"]:
        for name, one in task["metrics"].items():
            if name not in task_scores.HIDDEN:
                row(f"{task['task']} {name}", f"{task['items']:,}", one, task["flops"])
    for group in found["groups"]:
        row(f"{group['group']} {group['metric']}, mean of {group['tasks']}", "", group)
        if group["drop"]:
            row(f"{group['group']} {group['metric']}, below clean", "", group["drop"])
    for one in found["files"]:
        name = " ".join(text for text in ("bits/byte", one["noise"], one["group"]) if text)
        row(name, f"{one['documents']:,}", one, one["flops"])
        if one["added"]:
            row(f"{name}, added per clean byte", f"{one['documents']:,}", one["added"])
    return "\n".join([*plan.aligned(rows), "differences are MODEL less OTHER, over items or documents"])


def _cost(x: dict) -> tuple[str, str]:
    """Bytes per patch, and forward FLOPs per byte: the model's, and behind a plus its entropy model's."""
    beside = f" + {x['entropy_flops_per_byte']:,.0f}" if x["entropy_flops_per_byte"] else ""
    return f"{x['patch_size']:.2f}", f"{x['flops_per_byte']:,.0f}{beside}"
