"""What the numbers say, in plain words, and what they do not. Every sentence follows from the rows; none goes
beyond them."""

from bltjax.report.compare_series import by_series, reference_of
from bltjax.results.run_table import REFERENCE, budget_key
from bltjax.results.series import order
from bltjax.results.tables import listed, short_flops, signed, span

MANY_SERIES = 8  # in one sentence
MANY_EPOCHS = 4  # beyond, repeated text is worth less than new text (Muennighoff et al. 2023)


def winners(chosen: list, pairs: list) -> list:
    """One entry per budget: {"budget_flops", "here" (rows, lowest first), "best", "rival", "pair" (of best
    and rival, or None), "seeded" (all rows here have several seeds), "clear", "alone"}.

    The rival is the reference series, or where that is best the next series. clear: the interval of the
    difference covers seeds and excludes 0."""
    against = reference_of(chosen)
    found = []
    for budget in sorted({budget_key(r) for r in chosen}):
        here = sorted((r for r in chosen if budget_key(r) == budget), key=lambda r: (r["bpb"], r["name"]))
        best, others = here[0], {r["series"]: r for r in here[1:]}
        rival = others.get(against) or (here[1] if best["series"] == against and others else None)
        pair = None
        if rival:
            other = (best if best["series"] != against else rival)["series"]
            pair = next((p for p in pairs if (p["budget_flops"], p["series"]) == (budget, other)), None)
        found.append(
            dict(
                budget_flops=budget,
                here=here,
                best=best,
                rival=rival,
                pair=pair,
                seeded=all(r["seeds"] > 1 for r in here),
                clear=bool(pair and pair["covers_seeds"] and pair["excludes_zero"]),
                alone=not others,
            )
        )
    return found


def scores(rows: list) -> str:
    """Series with their bits per byte; of many the range of each family's."""
    if len(rows) <= MANY_SERIES:
        return ", ".join(f"{r['series']} {r['bpb']:.3f}" for r in rows)
    families: dict[str, list] = {}
    for r in rows:
        families.setdefault(r["family"], []).append(r)
    return ", ".join(
        scores(mine) if len(mine) == 1 else ranged_score(name, mine) for name, mine in families.items()
    )


def ranged_score(family: str, rows: list) -> str:
    low, high = (pick(r["bpb"] for r in rows) for pick in (min, max))
    return f"{family} {low:.3f} to {high:.3f} ({len(rows)} series)"


def headline(chosen: list, pairs: list) -> str:
    """One sentence. With several seeds: which series is lowest at which budgets, and at how many of them
    beyond the interval. With one seed anywhere: what was measured, and that seeds are missing; nothing of a
    difference. A second one where conditions were not equal."""
    unequal = any(pair["unlike"] for pair in pairs if pair["difference"] is not None)
    return measured(chosen, pairs) + (f" {UNEQUAL}" if unequal else "")


UNEQUAL = "Not all of them were made under equal conditions (see below), which a difference is then of, too."


def measured(chosen: list, pairs: list) -> str:
    """The headline's first sentence."""
    won = winners(chosen, pairs)
    compared = [w for w in won if not w["alone"]]
    if not compared:
        return (
            "Nothing to compare yet: no budget has runs of two series"
            f" ({listed(sorted({r['series'] for r in chosen}))} finished)."
        )
    against = reference_of(chosen)
    if not all(w["seeded"] for w in compared):
        largest = compared[-1]
        rest = f" ({len(compared) - 1} smaller budgets below)" if len(compared) > 1 else ""
        return (
            f"Test bits per byte measured at {short_flops(largest['budget_flops'])} FLOPs: "
            f"{scores(sorted(largest['here'], key=order))}{rest}. {MISSING}"
            + ("" if against else f" No {REFERENCE} run has finished.")
        )
    if against is None:
        lowest = "; ".join(f"{w['best']['series']} at {short_flops(w['budget_flops'])}" for w in compared)
        return (
            f"Lowest mean test bits per byte: {lowest}. No {REFERENCE} run has finished, so nothing is said"
            " against it."
        )
    parts = []
    level = [w for w in compared if w["here"][0]["bpb"] == w["here"][1]["bpb"]]
    for w in level:
        same = [r["series"] for r in w["here"] if r["bpb"] == w["best"]["bpb"]]
        where = short_flops(w["budget_flops"])
        parts.append(f"{listed(same)} have the same mean test bits per byte at {where} FLOPs")
    for series in dict.fromkeys(w["best"]["series"] for w in compared if w not in level):
        mine = [w for w in compared if w["best"]["series"] == series and w not in level]
        where = (
            f"at all {len(mine)} budgets"
            if len(mine) == len(compared) > 1
            else "at " + listed(short_flops(w["budget_flops"]) for w in mine) + " FLOPs"
        )
        rival = "the next series" if series == against else against
        parts.append(f"{series} has the lowest mean test bits per byte {where} ({surely(mine, rival)})")
    return "; ".join(parts) + "."


MISSING = "Seeds are missing (--seeds 3), and single runs do not rank series."


def surely(won: list, rival: str) -> str:
    """At which budgets the interval of the difference excludes 0, in words."""
    judged = [w for w in won if w["pair"] and w["pair"]["low"] is not None]
    clear = [w for w in judged if w["clear"]]
    what = f"the interval of the difference to {rival}, over documents and seeds,"
    if not judged:
        return "no interval of the difference could be formed"
    if len(clear) == len(judged):
        return f"{what} excludes 0" + (" at each" if len(won) > 1 else "")
    if clear:
        return f"{what} excludes 0 at {listed(short_flops(w['budget_flops']) for w in clear)} only"
    return f"but {what} includes 0, so no difference is shown"


def at_each_budget(chosen: list, pairs: list) -> list:
    """A sentence per budget. Where a single run takes part: what was measured, in the families' usual
    order."""
    lines = []
    for w in winners(chosen, pairs):
        best, rival, pair = w["best"], w["rival"], w["pair"]
        where = f"At {short_flops(w['budget_flops'])} FLOPs: "
        if w["alone"]:
            lines.append(f"{where}{scores([best])}, the only series that has finished here.")
        elif not w["seeded"]:
            measured = scores(sorted(w["here"], key=order))
            lines.append(f"{where}{measured}; seeds are missing, intervals are of these documents only.")
        elif not rival:
            lines.append(f"{where}{scores(w['here'])}; no {REFERENCE} run has finished here.")
        elif not pair or pair["low"] is None:
            why = pair["note"] if pair else "not paired"
            lines.append(f"{where}{scores([best, rival])}; no interval ({why}).")
        else:
            sign = 1 if pair["series"] == best["series"] else -1
            low, high = sorted((sign * pair["low"], sign * pair["high"]))
            verdict = "excludes 0" if w["clear"] else "includes 0: these runs do not tell the two apart"
            lines.append(
                f"{where}{scores([best, rival])}; difference {signed(sign * pair['difference'])}"
                f" (95% interval {span(low, high)} over documents and seeds, which {verdict})."
            )
    return lines + unequal_pairs(pairs)


def unequal_pairs(pairs: list) -> list:
    """A sentence for each thing that pairs differ in beside their series, with their budgets."""
    where = {}
    for pair in pairs:
        for words in pair["unlike"] if pair["difference"] is not None else ():
            said = f"{pair['series']} and {pair['against']} differ in more than that: {words}"
            where.setdefault(said, []).append(short_flops(pair["budget_flops"]))
    return [f"{said} (at {listed(budgets)} FLOPs)." for said, budgets in where.items()]


def with_budget(chosen: list) -> str:
    """Whether bits per byte fall from each budget to the next in every series."""
    long = {s: rs for s, rs in by_series(sorted(chosen, key=budget_key)).items() if len(rs) > 1}
    if not long:
        return ""
    rising = [
        f"{f} from {short_flops(budget_key(a))} to {short_flops(budget_key(b))}"
        for f, rs in long.items()
        for a, b in zip(rs, rs[1:])
        if b["bpb"] >= a["bpb"]
    ]
    return (
        "Test bits per byte fall from each budget to the next in every series."
        if not rising
        else f"Test bits per byte do not fall everywhere: {listed(rising)}."
    )


def crossings(crossovers: list) -> list:
    """A sentence per series whose curve meets the reference's inside the measured range, and one for those
    that do not."""
    lines = []
    for c in crossovers:
        if c["measured"]:
            at = listed(rounded(f) for f in c["measured"])
            if c["share"] is None:
                sure = "no resampling"
            elif c["low"] is None:
                sure = f"in {c['share']:.0%} of resamples, {c['covers']}"
            else:
                sure = (
                    f"in {c['share']:.0%} of resamples they meet in range, 95% of those from"
                    f" {rounded(c['low'])} to {rounded(c['high'])}, {c['covers']}"
                )
            lines.append(
                f"The measured curves of {c['series']} and {c['against']} meet near {at} FLOPs ({sure})."
            )
    apart = [c["series"] for c in crossovers if not c["measured"]]
    if apart:
        which = listed(apart) if len(apart) <= MANY_SERIES else f"{len(apart)} series"
        lines.append(
            f"No crossing with {crossovers[0]['against']} in the measured range: {which}."
            " Nothing is said beyond that range."
        )
    return lines


def epochs(chosen: list) -> list:
    """A sentence where a run reads its training text more than 4 times, where series at one budget differ in
    that by more than a fifth, and where some do not say."""
    lines = []
    many = [f"{r['name']} ({r['epochs']:.1f})" for r in chosen if (r["epochs"] or 0) > MANY_EPOCHS]
    if many:
        lines.append(
            f"More than {MANY_EPOCHS} epochs over the training text: {listed(many)}."
            " Repeated text teaches less than new text."
        )
    silent = [r["name"] for r in chosen if r["epochs"] is None]
    if silent:
        lines.append(f"How often they read their training text is not recorded of {listed(silent)}.")
    for budget in sorted({budget_key(r) for r in chosen}):
        read = {r["name"]: r["epochs"] for r in chosen if r["epochs"] and budget_key(r) == budget}
        if read and max(read.values()) > max(1.0, 1.2 * min(read.values())):  # below 1 nothing is repeated
            low, high = min(read, key=read.get), max(read, key=read.get)
            lines.append(
                f"Epochs at {short_flops(budget)} FLOPs differ by more than a fifth: {read[low]:.2f} ({low})"
                f" to {read[high]:.2f} ({high})."
            )
    return lines


def rounded(value: float) -> str:
    return short_flops(float(f"{value:.2g}"))


def caveats(chosen: list, pairs: list) -> list:
    """What the reader must keep in mind, as far as it applies here."""
    counts = sorted({r["seeds"] for r in chosen})
    if counts == [1]:
        seeds = listed(sorted({str(r["seed"]) for r in chosen}))
        lines = [
            f"One seed is one seed: every point is a single run (seed {seeds}). The intervals, those of"
            " crossings too, are of these documents only: they say how much the choice of test documents"
            " matters. How much another seed would move a point they do not say; only the interval of a fit's"
            " alpha knows of it, from how the points scatter about the fit."
        ]
    else:
        lines = [
            f"Points are means over {listed(map(str, counts))} seeds, never the best seed. Intervals are over"
            " documents and seeds; the variance of seeds, relative to the score, is pooled over a series'"
            " budgets."
        ]
        if counts[0] == 1:
            lines.append("Where a run of one seed takes part, the interval is of these documents only.")
    fewest = min(chosen, key=lambda r: r["test_documents_worth"])
    documents, worth = fewest["test_documents"], fewest["test_documents_worth"]
    if worth < 20:
        equal = f", by their sizes worth {worth:.1f} equal ones" if worth < 0.9 * documents else ""
        lines.append(f"Only {documents} test documents{equal}: intervals over so few are rough.")
    if len(pairs) > 1:
        lines.append(f"{len(pairs)} intervals of differences, 95% each, not corrected for being many.")
    if any(r["upper_bound"] for r in chosen):
        lines.append(
            f"{REFERENCE}'s bits per byte is an upper bound: it scores one tokenization out of all that spell"
            " the same bytes. Its true figure may be lower by what the others would add."
        )
    if helped := [r for r in chosen if r["entropy_train_flops"]]:
        most = max((r["entropy_forward_flops"] or 0) / (r["realized_flops"] or 1) for r in helped)
        trained = max(r["entropy_train_flops"] for r in helped)
        names = listed(sorted({r["series"] for r in helped}))
        lines.append(
            f"Budgets leave out the entropy model of {names}: its forward pass over the training bytes"
            f" adds up to {most:.0%}, and its training took {short_flops(trained)} FLOPs, shared by all runs"
            " that read it."
        )
    if any(w["best"]["family"] == REFERENCE for w in winners(chosen, pairs) if not w["alone"]):
        lines.append(local_modules(chosen))
    return lines


def local_modules(chosen: list) -> str:
    """Why bpe's figure may be lower here: what share of a byte family's FLOPs its local modules take, if the
    run directories say."""
    shares = {}
    for r in chosen:
        if r["local_share"] is not None:
            shares.setdefault(r["family"], []).append(r["local_share"])
    if not shares:
        return (
            f"{REFERENCE}'s lower figure says little about large scale: in small byte models the local"
            " modules take much of the FLOPs (these run directories do not record the share)."
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
