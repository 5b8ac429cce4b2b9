"""What the numbers say, in plain words, and what they do not. Every sentence follows from the rows; none goes
beyond them."""

from bltjax.report.rows import REFERENCE, budget_key
from bltjax.report.tables import short_flops


def signed(value: float, digits: int = 3) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")


def span(low: float, high: float, digits: int = 3) -> str:
    return f"{signed(low, digits)} to {signed(high, digits)}"


def listed(words) -> str:
    words = list(words)
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def winners(chosen: list, pairs: list) -> list:
    """One entry per budget: {"budget_flops", "best", "rival", "pair" (best minus rival or None), "clear",
    "alone"}.

    The rival is bpe, or where bpe is best the next family. clear: the interval of the paired difference
    excludes 0. """
    found = []
    for budget in sorted({budget_key(r) for r in chosen}):
        here = sorted((r for r in chosen if budget_key(r) == budget), key=lambda r: (r["bpb"], r["name"]))
        best, others = here[0], {r["family"]: r for r in here[1:]}
        rival = others.get(REFERENCE) or (here[1] if best["family"] == REFERENCE and others else None)
        pair = None
        if rival:
            other = best if best["family"] != REFERENCE else rival
            pair = next(
                (p for p in pairs if p["budget_flops"] == budget and p["family"] == other["family"]), None
            )
        found.append(
            dict(
                budget_flops=budget,
                best=best,
                rival=rival,
                pair=pair,
                clear=bool(pair and pair["excludes_zero"]),
                alone=not others,
            )
        )
    return found


def headline(chosen: list, pairs: list) -> str:
    """One sentence: which family is best at which budgets, and at how many of them beyond the interval."""
    won = winners(chosen, pairs)
    compared = [w for w in won if not w["alone"]]
    if not compared:
        return (
            "Nothing to compare yet: no budget has runs of two families"
            f" ({listed(sorted({r['family'] for r in chosen}))} finished)."
        )
    if not any(r["family"] == REFERENCE for r in chosen):
        best = "; ".join(f"{w['best']['family']} at {short_flops(w['budget_flops'])}" for w in compared)
        return (
            f"Lowest test bits per byte: {best}. No {REFERENCE} run has finished, so nothing is said"
            " against it."
        )
    parts = []
    for family in dict.fromkeys(w["best"]["family"] for w in compared):
        mine = [w for w in compared if w["best"]["family"] == family]
        where = (
            f"at all {len(mine)} budgets"
            if len(mine) == len(compared) > 1
            else "at " + listed(short_flops(w["budget_flops"]) for w in mine) + " FLOPs"
        )
        judged = [w for w in mine if w["pair"] and w["pair"]["low"] is not None]
        clear = sum(w["clear"] for w in judged)
        rival = "the next family" if family == REFERENCE else REFERENCE
        if not judged:
            sure = "no interval of the difference could be formed"
        elif clear == len(judged):
            sure = f"the interval of the paired difference to {rival} excludes 0" + (
                " at each" if len(mine) > 1 else ""
            )
        elif clear:
            sure = (
                f"the interval of the paired difference to {rival} excludes 0 at "
                f"{listed(short_flops(w['budget_flops']) for w in judged if w['clear'])} only"
            )
        else:
            sure = (
                f"but the interval of the paired difference to {rival} includes 0, so no difference is shown"
            )
        parts.append(f"{family} has the lowest test bits per byte {where} ({sure})")
    return "; ".join(parts) + "."


def at_each_budget(chosen: list, pairs: list) -> list:
    """A sentence per budget."""
    lines = []
    for w in winners(chosen, pairs):
        best, rival, pair = w["best"], w["rival"], w["pair"]
        text = f"At {short_flops(w['budget_flops'])} FLOPs: {best['family']} {best['bpb']:.3f}"
        if w["alone"]:
            lines.append(text + ", the only family that has finished here.")
        elif not rival:
            lines.append(text + f", the lowest; no {REFERENCE} run has finished here.")
        elif not pair or pair["low"] is None:
            lines.append(
                text
                + f", {rival['family']} {rival['bpb']:.3f}; no interval"
                f" ({pair['note'] if pair else 'not paired'})."
            )
        else:
            sign = 1 if pair["family"] == best["family"] else -1
            low, high = sorted((sign * pair["low"], sign * pair["high"]))
            verdict = "excludes 0" if w["clear"] else "includes 0: these documents do not tell the two apart"
            lines.append(
                text
                + f", {rival['family']} {rival['bpb']:.3f}; paired difference"
                f" {signed(sign * pair['difference'])} (95% interval {span(low, high)}), which {verdict}."
            )
    return lines


def with_budget(chosen: list) -> str:
    """Whether bits per byte fall from each budget to the next in every family."""
    families = {}
    for r in sorted(chosen, key=budget_key):
        families.setdefault(r["family"], []).append(r)
    long = {f: rs for f, rs in families.items() if len(rs) > 1}
    if not long:
        return ""
    rising = [
        f"{f} from {short_flops(budget_key(a))} to {short_flops(budget_key(b))}"
        for f, rs in long.items()
        for a, b in zip(rs, rs[1:])
        if b["bpb"] >= a["bpb"]
    ]
    return (
        "Test bits per byte fall from each budget to the next in every family."
        if not rising
        else f"Test bits per byte do not fall everywhere: {listed(rising)}."
    )


def crossings(crossovers: list) -> list:
    """A sentence per family that meets bpe inside the measured range, and one for those that do not."""
    lines = []
    for c in crossovers:
        if c["measured"]:
            at = listed(rounded(f) for f in c["measured"])
            if c["share"] is None:
                sure = "no resampling"
            elif c["low"] is None:
                sure = f"in {c['share']:.0%} of resamples"
            else:
                sure = (
                    f"in {c['share']:.0%} of resamples they meet in range, 95% of those from"
                    f" {rounded(c['low'])} to {rounded(c['high'])}"
                )
            lines.append(
                f"The measured curves of {c['family']} and {REFERENCE} meet near {at} FLOPs ({sure})."
            )
    apart = [c["family"] for c in crossovers if not c["measured"]]
    if apart:
        lines.append(
            f"No crossover with {REFERENCE} in the measured range: {listed(apart)}. Nothing is said beyond"
            " that range."
        )
    return lines


def rounded(value: float) -> str:
    return short_flops(float(f"{value:.2g}"))


def caveats(chosen: list, rows: list, pairs: list) -> list:
    """What the reader must keep in mind, as far as it applies here."""
    lines = []
    seeds = sorted({str(r["seed"]) for r in rows})
    per_group = max(
        len({str(r["seed"]) for r in rows if (r["family"], budget_key(r)) == (c["family"], budget_key(c))})
        for c in chosen
    )
    if per_group == 1:
        lines.append(
            f"One seed is one seed: every point is a single run (seed {listed(seeds)}). The intervals say how"
            " much the choice of test documents matters; how much another seed would move a point they do"
            " not say."
        )
    else:
        lines.append(
            f"Up to {per_group} seeds per family and budget; each point is the run that is best on validation"
            " text, not a mean. The intervals are over test documents, not over seeds."
        )
    documents = sorted({r["test_documents"] for r in chosen})
    if documents[0] < 20:
        lines.append(f"Only {documents[0]} test documents: a bootstrap over so few understates the spread.")
    if len(pairs) > 1:
        lines.append(f"{len(pairs)} paired intervals of 95% each, not corrected for being many.")
    if any(r["upper_bound"] for r in chosen):
        lines.append(
            f"{REFERENCE}'s bits per byte is an upper bound: it scores one tokenization out of all that spell"
            " the same bytes. Where a byte family is ahead, the true gap may be smaller by what the others"
            " would add."
        )
    if any(w["best"]["family"] == REFERENCE for w in winners(chosen, pairs) if not w["alone"]):
        lines.append(local_modules(chosen))
    return lines


def local_modules(chosen: list) -> str:
    """Why bpe may win here: what share of a byte family's FLOPs its local modules take, if the run
    directories say."""
    shares = {}
    for r in chosen:
        if r["local_share"] is not None:
            shares.setdefault(r["family"], []).append(r["local_share"])
    if not shares:
        return (
            f"{REFERENCE} winning here says little about large scale: in small byte models the local modules"
            " take much of the FLOPs (these run directories do not record the share)."
        )
    parts = [f"{family} {ranged(values)}" for family, values in shares.items()]
    most = min(min(values) for values in shares.values()) > 0.5
    verdict = (
        "take most of the FLOPs at this scale" if most else "take a large part of the FLOPs at this scale"
    )
    return (
        f"The local modules of the byte families (encoder, cross-attention, decoder, output head) {verdict}:"
        f" {', '.join(parts)} of the forward FLOPs per byte. This is a result about this scale."
    )


def ranged(values) -> str:
    low, high = f"{min(values):.0%}", f"{max(values):.0%}"
    return low if low == high else f"{low} to {high}"


def unequal(runs: list, rows: list) -> list:
    """Conditions that should be equal in one sweep and are not (docs/contracts.md), a line each; and budgets
    missed by more than 1%."""
    lines = []
    checks = {
        "training and test text (data_fingerprint)": lambda r: r.record.get("data_fingerprint"),
        "bytes of context": lambda r: r.setting("data.context"),
        "cores": lambda r: r.record.get("cores"),
        "platform": lambda r: r.record.get("platform"),
    }
    for what, read in checks.items():
        values = sorted({str(read(r)) for r in runs if read(r) is not None})
        if len(values) > 1:
            lines.append(f"Not the same in all runs: {what}: {listed(values)}.")
    for budget in sorted({budget_key(r) for r in rows}):
        batches = {
            r["name"]: r["bytes_per_batch"] for r in rows if r["bytes_per_batch"] and budget_key(r) == budget
        }
        if batches and max(batches.values()) > 1.02 * min(batches.values()):
            low, high = min(batches, key=batches.get), max(batches, key=batches.get)
            lines.append(
                f"Bytes per batch at {short_flops(budget)} FLOPs differ by more than 2%: {batches[low]:,.0f}"
                f" ({low}) to {batches[high]:,.0f} ({high})."
            )
    off = [
        f"{r['name']} {r['deviation_percent']:+.2f}%" for r in rows if abs(r["deviation_percent"] or 0) > 1
    ]
    if off:
        lines.append(f"More than 1% off their budget: {listed(off)}.")
    return lines
