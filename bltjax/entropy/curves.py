"""Calibration on annotated data (entropy/store.py): the threshold for a patch size, what it gives in each
split and group, the curve."""

import dataclasses
import functools
import math
import operator
import pathlib

import numpy as np

from bltjax.data import corpus
from bltjax.entropy import histogram, store
from bltjax.errors import UserError
from bltjax.parallel import host

POINTS = 200  # of a curve that is written out
ALL, OTHERS = "all", "all others"  # what stands for several groups
GROUPS = 32  # that are counted on their own: each takes a megabyte
DRAWN = 8  # groups with a line of their own in a plot
SAMPLED = 64_000_000  # bytes of a split whose documents are looked at one by one
BEYOND = 3  # standard errors that chance hardly explains
FEWEST = 30  # documents by which to say so


def marks(directory) -> list[str]:
    """Fingerprints of the entropy models whose entropies lie beside a prepared data set."""
    return sorted(
        path.name.removeprefix("entropies-")
        for path in pathlib.Path(directory).glob("entropies-*")
        if any(path.glob("*.arrayrecord"))
    )


def calibrated(
    directory, scheme: str, size: float, *, mark: str = "", delta: float | None = None, limit: int = 0
) -> dict:
    """The threshold (monotonic: the delta; both: the threshold at this delta) in nats whose mean patch size
    on training text is `size`.

    mark: whose entropies; "": the only ones there. limit: about so many bytes of each split are counted, of a
    random order; 0: all. Returns {"scheme", "size", "threshold", "patch_size", "bytes", "documents", "groups"
    {name: patch size}, "splits" {name: patch size}, "counted" {split: documents}, "errors" {split:
    relative standard error, histogram.standard_error}, "curve" {name: [[thresholds], [sizes]]}}, where the
    curve of all text together is called "all"."""
    there = marks(directory)
    shards = corpus.shards(directory)
    if mark and mark not in there or not mark and len(there) != 1:
        raise UserError(
            f"{directory} has entropies of {', '.join(there) or 'no entropy model'}"
            + (
                f", not of {mark}"
                if mark
                else "; --entropy-model says which" if there else "; bltjax data annotate makes them"
            )
        )
    mark = mark or there[0]
    splits = {}
    for split in corpus.SPLITS:
        documents = corpus.Documents([shard for shard in shards if shard.split == split])
        if len(documents):
            splits[split] = counted(documents, mark, scheme, delta, limit)
    if "train" not in splits:
        raise UserError(f"{directory} has no training text to calibrate on")
    training = splits["train"]
    threshold = training.total.threshold(size)
    return {
        "scheme": scheme,
        "size": size,
        "threshold": threshold,
        "patch_size": training.total.mean_size(threshold),
        "documents": len(training.numbers),
        "bytes": int(training.documents.lengths[training.numbers].sum()),
        "entropies": mark,
        "delta": delta,
        "groups": {name: found.mean_size(threshold) for name, found in training.groups},
        "splits": {split: found.total.mean_size(threshold) for split, found in splits.items()},
        "counted": {split: len(found.numbers) for split, found in splits.items()},
        "errors": {
            split: error(found.documents.lengths, found.entropies, found.numbers, scheme, threshold, delta)
            for split, found in splits.items()
        },
        "curve": {
            name: curve(found)
            for name, found in {ALL: training.total, **dict(training.groups[:DRAWN])}.items()
        },
    }


@dataclasses.dataclass
class Counted:
    """A split whose documents of these numbers were counted. groups: (name, histogram.Histogram), the largest
    first."""

    documents: corpus.Documents
    entropies: store.Entropies
    numbers: np.ndarray
    groups: list

    @functools.cached_property
    def total(self) -> histogram.Histogram:
        return functools.reduce(operator.add, [found for _, found in self.groups])


def counted(documents, mark: str, scheme: str, delta: float | None, limit: int) -> Counted:
    numbers = histogram.sample(documents.lengths, limit) if limit else np.arange(len(documents))
    entropies = store.Entropies(documents, mark)
    names, groups = largest(documents)
    found = histogram.of_documents(entropies, numbers, groups, scheme, delta)
    return Counted(
        documents,
        entropies,
        numbers,
        [(names[group], one) for group, one in sorted(found.items(), key=lambda item: -item[1].positions)],
    )


def largest(documents) -> tuple[list[str], np.ndarray]:
    """(names, int [D]): the GROUPS groups with most bytes, each on its own, and all others as one."""
    sizes = np.bincount(documents.groups, weights=documents.lengths, minlength=len(documents.group_names))
    chosen = np.argsort(-sizes, kind="stable")[:GROUPS]
    number = np.full(len(sizes), len(chosen), np.int32)
    number[chosen] = np.arange(len(chosen))
    names = [documents.group_names[group] for group in chosen]
    return [*(f"group {name}" if name in (ALL, OTHERS) else name for name in names), OTHERS], number[
        documents.groups
    ]


def error(lengths, entropies, numbers, scheme: str, threshold: float, delta: float | None) -> float | None:
    """Relative standard error of the mean patch size of these documents, as histogram.standard_error; of
    SAMPLED bytes, scaled, where they are more."""
    chosen = numbers[histogram.sample(lengths[numbers], SAMPLED)]
    counts = [histogram.patches(scheme, [entropies[i]], threshold, delta) for i in chosen]
    found = histogram.standard_error(lengths[chosen] + 2, np.concatenate(counts))
    return found and found * math.sqrt(len(chosen) / len(numbers))


def curve(found: histogram.Histogram) -> list[list[float]]:
    """[[thresholds], [mean sizes]]: POINTS of them, as far as scores reach."""
    thresholds, sizes = found.sizes()
    at = np.flatnonzero(found.counts)
    if not len(at):
        return [[], []]
    chosen = np.unique(np.linspace(max(0, at[0] - 1), min(len(sizes) - 1, at[-1]), POINTS).astype(int))
    return [thresholds[chosen].tolist(), sizes[chosen].tolist()]


def check_plot(path) -> None:
    """UserError where no picture can be written to a path; asked before anything is counted."""
    host.import_matplotlib()
    from matplotlib.figure import Figure

    path = pathlib.Path(path)
    endings = sorted(Figure().canvas.get_supported_filetypes())
    if path.suffix[1:].lower() not in endings or path.is_dir() or not path.absolute().parent.is_dir():
        raise UserError(
            f"cannot write the plot {path}: wanted is a file in a directory that is there, such as curve.png;"
            f" endings: {', '.join(endings)}"
        )


def plot(result: dict, path) -> None:
    """The curves of a result of `calibrated`, as a picture (its format by the path's ending)."""
    host.import_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever the user's matplotlibrc says
        figure = Figure(figsize=(7, 4.5), layout="constrained")
        axes = figure.add_subplot()
        for name, (thresholds, sizes) in result["curve"].items():
            axes.plot(
                thresholds,
                sizes,
                label=name,
                color="black" if name == ALL else None,
                linewidth=2 if name == ALL else 1,
            )
        axes.axvline(result["threshold"], color="grey", linewidth=0.8)
        axes.axhline(result["size"], color="grey", linewidth=0.8)
        axes.set(
            xlabel=f"{'rise' if result['scheme'] == 'monotonic' else 'threshold'}, nats",
            ylabel="mean patch size, bytes",
            yscale="log",
            title=f"{result['scheme']}: {result['size']:g} bytes a patch at {result['threshold']:.4f} nats",
        )
        axes.legend(fontsize="small")
        try:
            figure.savefig(path)
        except (OSError, ValueError) as error:
            raise UserError(f"cannot write the plot {path}: {' '.join(str(error).split())}") from None


def text(result: dict) -> str:
    lines = [
        f"{result['scheme']}: {'delta' if result['scheme'] == 'monotonic' else 'threshold'}"
        f" {result['threshold']:.6f} nats gives {result['patch_size']:.3f} bytes per patch on"
        f" {result['bytes']:,} bytes of training text"
    ]
    lines += [f"  {split:<10} {split_text(result, split)}" for split in result["splits"]]
    if len(result["groups"]) > 1:
        lines += [f"  {name[:24]:<24} {size:.3f}" for name, size in list(result["groups"].items())[:DRAWN]]
    return "\n".join(lines)


def split_text(result: dict, split: str) -> str:
    """A split's patch size, how far it is from the one asked for, and whether its documents, drawn at random,
    explain that."""
    off, own, training = (
        result["splits"][split] / result["size"] - 1,
        result["errors"][split],
        result["errors"]["train"],
    )
    said = f"{result['splits'][split]:.3f} ({off:+.1%}; " + (
        "a single document)" if own is None else f"standard error {own:.1%})"
    )
    if split == "train" or min(result["counted"][name] for name in (split, "train")) < FEWEST:
        return said
    # training text has not always exactly what was asked for
    apart = math.log(result["splits"][split] / result["splits"]["train"])
    if abs(apart) < max(BEYOND * math.hypot(own, training), 0.001):
        return said
    # what it knows is cut into longer patches
    why = "the entropy model may know its training text by heart, or " if apart < 0 else ""
    return f"{said}: hardly chance; {why}a few large documents are unlike the rest"
