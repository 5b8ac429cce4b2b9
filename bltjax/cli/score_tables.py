"""What `bltjax eval` prints: a line a document and group of files, or a line a task."""

from bltjax.sweep import plan

SHOWN = 40  # documents of a table; all are in documents.jsonl


def of_files(found: dict) -> str:
    """Groups and documents, a line each, bits per byte with what they cost."""
    head = ("", "documents", "bytes", "nats", "bits/byte", f"bytes/{found['unit']}", "FLOPs/byte")

    def row(name, documents, x):
        return (
            name,
            f"{documents:,}",
            f"{x['bytes']:,}",
            f"{x['nats']:,.1f}",
            f"{x['bpb']:.4f}",
            *_cost(x),
        )

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
    if found["entropy_flops_per_byte"]:
        lines.append("FLOPs per byte are forward, exact: the model's + its entropy model's")
    if found["unit"] == "token":
        lines.append("of tokens an upper bound: one tokenization")
    return "\n".join(lines)


def of_tasks(found: dict) -> str:
    """A line a task: accuracies with standard errors, chance, and what a byte cost."""
    head = ("", "items", "acc", "acc_norm", "chance", "bytes/patch", "FLOPs/byte", "cut")

    def shown(metric):
        if metric is None:
            return ""
        error = "" if metric["stderr"] is None else f" ± {metric['stderr']:.4f}"
        return f"{metric['value']:.4f}{error}"

    rows = [head]
    for r in found["tasks"]:
        chance = f"{r['chance']:.3f}" if r.get("chance") else ""
        scores = (shown(r["metrics"]["acc"]), shown(r["metrics"].get("acc_norm")), chance)
        rows.append((r["task"], f"{r['items']:,}", *scores, *_cost(r), str(r["cut"])))
    lines = plan.aligned(rows) if len(rows) > 1 else []
    for group in found["groups"]:
        drop = "" if group["drop"] is None else f", {group['drop']:.4f} below the clean task"
        lines.append(f"{group['group']}: mean of {group['tasks']} tasks {group['acc']:.4f}{drop}")
    return "\n".join(lines)


def _cost(x: dict) -> tuple[str, str]:
    """Bytes per patch, and forward FLOPs per byte: the model's, and behind a plus its entropy model's."""
    beside = f" + {x['entropy_flops_per_byte']:,.0f}" if x["entropy_flops_per_byte"] else ""
    return f"{x['patch_size']:.2f}", f"{x['flops_per_byte']:,.0f}{beside}"
