"""What the paper (arXiv 2412.09871) printed, as data. Never a number of ours: run directories have those.

Every number carries where it comes from (MARKS), since not every table of the paper could be read. Rows are
keyed as runs are labelled (`paper.row` of a run's config); `paper.figure` names the table or figure."""

import dataclasses
import re

from bltjax.paper.printed_task_tables import CHARACTERS, TRANSLATION

ARXIV = "arXiv 2412.09871"
MARKS = {
    "P": "read in the paper",
    "R": "read in a review that reprints the table",
    "S": "from a secondary source",
    "M": "from memory, not verified",
}


@dataclasses.dataclass(frozen=True)
class Column:
    """key; heading, as printed; unit. ours: the key of a row of ours that is the same quantity, "" for one
    that is not evaluated, None for one that runs cannot have."""

    key: str
    heading: str
    unit: str
    ours: str | None = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """One table, or a figure of which the paper says something but prints no points.

    rows: {key: (words, values in the columns' order, None where nothing is printed)}; mark: of its numbers,
    but for those in marks {(row, column): mark}. reference: the row that differences are taken against.
    parameters, bytes: the scale of its runs, 0 where rows differ. across: whether models stand across and
    tasks down. says: what the paper's text says of it, in our words, with the mark of that; notes: what
    is to be known of the numbers."""

    name: str
    words: str
    scale: str
    mark: str
    columns: tuple = ()
    rows: dict = dataclasses.field(default_factory=dict)
    reference: str = ""
    parameters: float = 0.0
    bytes: float = 0.0
    across: bool = False
    also: str = ""
    marks: dict = dataclasses.field(default_factory=dict)
    says: tuple = ()
    notes: tuple = ()

    def value(self, row: str, column: str):
        """The printed number, None where there is none."""
        if row not in self.rows:
            return None
        return self.rows[row][1][[c.key for c in self.columns].index(column)]

    def mark_of(self, row: str, column: str) -> str:
        return self.marks.get((row, column), self.mark)


def _tasks(*names) -> tuple:
    return tuple(Column(name, name, "%") for name in names)


def _bits(*names) -> tuple:
    """Columns of bits per byte; the last is the sample of the training distribution, as our test text is."""
    return tuple(Column(n, n, "bit/byte", "bpb" if n == "Train dist" else "") for n in names)


TASKS = _tasks("ARC-E", "ARC-C", "HellaSwag", "PIQA", "MMLU", "MBPP", "HumanEval")
BLEU = tuple(
    Column(f"{language} {way}", f"{language}, {way} English", "BLEU")
    for way in ("into", "from")
    for language in TRANSLATION
)
TEXTS = _bits("Wiki", "CC", "GitHub", "Train dist")
ABLATION = "1B parameters, 100B bytes of the Llama 2 data"
PATCH_SIZE = Column("patch size", "bytes per patch, training mix", "byte", "patch_size")
SIZES = (
    Column("parameters", "parameters, non-embedding", "parameter", "params_without_lexicon"),
    Column("FLOPs/byte", "forward FLOPs/byte", "FLOP/byte", "flops_per_byte_paper"),
    Column("optimal", "BPE-optimal data", "byte", None),
    Column("crossover", "crossover with BPE", "byte", "crossover_bytes"),
)
SMALL, LARGE = (3.1e8, 50e9), (2.1e9, 400e9)  # forward FLOPs a byte, BPE's compute-optimal bytes

TABLES = (
    Table(
        "Table 1",
        "8B models at equal training FLOPs",
        "8B parameters, BLT-1T",
        "P",
        (*TASKS, Column("average", "average", "%"), PATCH_SIZE),
        {
            "llama3": ("Llama 3, 1T tokens", (77.6, 53.3, 79.1, 80.7, 58.1, 40.2, 31.1, 60.0, 4.4)),
            "blt-space": ("BLT-Space, 6T bytes", (75.4, 49.8, 79.6, 81.1, 54.8, 37.6, 27.4, 58.0, 6.1)),
            "blt-entropy": ("BLT-Entropy, 4.5T bytes", (79.6, 52.1, 80.6, 80.6, 57.4, 41.8, 35.4, 61.1, 4.5)),
        },
        reference="llama3",
        parameters=8e9,
        across=True,
    ),
    Table(
        "Table 2",
        "BPE and BLT at equal inference FLOPs, over a range of data",
        "450M to 6.6B parameters, Llama 2 data",
        "P",
        SIZES,
        {
            "llama2-470M": ("Llama 2, 470M", (470e6, *SMALL, None)),
            "llama3-450M": ("Llama 3, 450M", (450e6, *SMALL, None)),
            "blt-6-610M": ("BLT, patches of 6, 610M", (610e6, *SMALL, 150e9)),
            "blt-8-760M": ("BLT, patches of 8, 760M", (760e6, *SMALL, 150e9)),
            "llama2-3.6B": ("Llama 2, 3.6B", (3.6e9, *LARGE, None)),
            "llama3-3.9B": ("Llama 3, 3.9B", (3.9e9, *LARGE, None)),
            "blt-6-5.2B": ("BLT, patches of 6, 5.2B", (5.2e9, *LARGE, 1e12)),
            "blt-8-6.6B": ("BLT, patches of 8, 6.6B", (6.6e9, *LARGE, 1e12)),
        },
        also="Figure 1",
        says=(
            (
                "BPE is better at small budgets; BLT crosses at about 3 times BPE's compute-optimal data in"
                " the small class and 2.5 times in the large one; patches of 8 gain earlier in the large"
                " class. No points of the curves are printed.",
                "P",
            ),
        ),
        notes=("The figure's legend has 550M where the table has 610M.",),
    ),
    Table(
        "Table 3",
        "noise, phonology and characters",
        "8B parameters; BLT and Llama 3 on 1T tokens",
        "R",
        _tasks(*CHARACTERS),
        {
            key: (words, tuple(values[index] for values in CHARACTERS.values()))
            for index, (key, words) in enumerate(
                {
                    "llama3": "Llama 3, 1T tokens",
                    "llama3.1": "Llama 3.1, 16T tokens",
                    "blt-entropy": "BLT, 1T tokens",
                }.items()
            )
        },
        reference="llama3",
        parameters=8e9,
        across=True,
        notes=(
            "The printed averages do not all follow from the rows: the five rows of noise give BLT 65.1, and"
            " CUTE's give Llama 3.1 17.1.",
        ),
    ),
    Table(
        "Table 4",
        "translation, FLORES-101",
        "8B parameters, 1T tokens",
        "R",
        BLEU,
        {
            key: (
                words,
                tuple(TRANSLATION[c.key.rpartition(" ")[0]][index + 2 * (" from" in c.key)] for c in BLEU),
            )
            for index, (key, words) in enumerate({"llama3": "Llama 3", "blt-entropy": "BLT"}.items())
        },
        reference="llama3",
        parameters=8e9,
        across=True,
    ),
    Table(
        "Table 5",
        "BLT's global model from Llama 3.1's weights",
        "8B parameters, Llama 2 data, 220B tokens",
        "R",
        TASKS,
        {
            "llama3-220B": ("Llama 3 8B, 220B tokens", (67.4, 40.4, 71.2, 77.0, 26.5, 11.8, 9.2)),
            "blt-220B": ("BLT 8B, 220B tokens", (66.8, 38.8, 72.2, 78.2, 25.2, 10.0, 7.3)),
            "blt-from-llama3.1": ("BLT from Llama 3.1", (66.6, 45.8, 76.1, 77.4, 63.7, 38.2, 34.2)),
            "llama3.1-15T": ("Llama 3.1 8B, 15T tokens", (83.4, 55.2, 80.7, 80.7, 66.3, 47.2, 37.2)),
        },
        reference="llama3-220B",
        parameters=8e9,
        across=True,
    ),
    Table(
        "Table 6",
        "patching schemes",
        "8B parameters, Llama 2 data",
        "M",
        _tasks("ARC-E", "ARC-C", "HellaSwag", "PIQA"),
        {
            "bpe": ("Llama 3, BPE", (67.4, 40.5, 71.3, 77.0)),
            "blt-space": ("BLT, space patches", (67.2, 37.6, 70.8, 76.5)),
            "blt-entropy": ("BLT, entropy patches", (68.9, 38.3, 72.7, 77.6)),
        },
        reference="bpe",
        parameters=8e9,
        across=True,
        says=(("All dynamic schemes beat static ones; space patches are a close second to entropy's.", "S"),),
    ),
    Table(
        "Table 7",
        "where cross-attention stands, and pooled queries (decoder, encoder, pooling)",
        ABLATION,
        "M",
        TEXTS,
        {
            "none|all|no": ("none, all layers, not pooled", (0.830, 0.915, 0.442, 0.891)),
            "none|last|no": ("none, last layer, not pooled", (0.836, 0.906, 0.447, 0.886)),
            "none|none|none": ("none, none", (0.833, 0.892, 0.446, 0.866)),
            "first|last|yes": ("first layer, last layer, pooled", (0.825, 0.883, 0.443, 0.861)),
            "all|last|yes": ("all layers, last layer, pooled", (0.823, 0.871, 0.443, 0.846)),
            "all|all|yes": ("all layers, all layers, pooled", (0.828, 0.868, 0.443, 0.844)),
        },
        reference="none|none|none",
        parameters=1e9,
        bytes=100e9,
        says=(("Cross-attention in the decoder helps most; in the encoder only with pooled queries.", "S"),),
        notes=("A secondary source gives 0.891 to the row without cross-attention; memory has it as here.",),
    ),
    Table(
        "Table 8",
        "hash n-grams: sizes, and rows of each table",
        ABLATION,
        "M",
        TEXTS,
        {
            "none": ("none", (0.892, 0.867, 0.506, 0.850)),
            "6,7,8@100k": ("6, 7, 8 with 100k rows each", (0.873, 0.860, 0.499, 0.842)),
            "6,7,8@200k": ("6, 7, 8 with 200k rows each", (0.862, 0.856, 0.492, 0.838)),
            "3,4,5@100k": ("3, 4, 5 with 100k rows each", (0.859, 0.855, 0.491, 0.837)),
            "6,7,8@400k": ("6, 7, 8 with 400k rows each", (0.855, 0.853, 0.491, 0.834)),
            "3,4,5@200k": ("3, 4, 5 with 200k rows each", (0.850, 0.852, 0.485, 0.833)),
            "3-8@100k": ("3 to 8 with 100k rows each", (0.850, 0.852, 0.486, 0.833)),
            "3,4,5@400k": ("3, 4, 5 with 400k rows each", (0.844, 0.851, 0.483, 0.832)),
            "3-8@200k": ("3 to 8 with 200k rows each", (0.840, 0.849, 0.481, 0.830)),
            "3-8@400k": ("3 to 8 with 400k rows each", (0.831, 0.846, 0.478, 0.826)),
        },
        reference="none",
        parameters=1e9,
        bytes=100e9,
        marks={(row, "Train dist"): "S" for row in ("none", "6,7,8@100k", "3,4,5@100k", "3-8@400k")},
        says=(("Rows of each table matter most; short n-grams are worth more than long ones.", "R"),),
    ),
    Table(
        "Table 9",
        "layers of the encoder and of the decoder, with and without n-grams",
        ABLATION,
        "S",
        _bits("Train dist"),
        {
            "no|1|9": ("no n-grams, 1 and 9 layers", (0.850,)),
            "no|5|5": ("no n-grams, 5 and 5 layers", (0.843,)),
            "yes|5|5": ("n-grams, 5 and 5 layers", (0.844,)),
            "yes|3|7": ("n-grams, 3 and 7 layers", (0.824,)),
            "yes|1|9": ("n-grams, 1 and 9 layers", (0.822,)),
        },
        reference="no|1|9",
        parameters=1e9,
        bytes=100e9,
    ),
    Table(
        "Figure 6",
        "bits per byte at compute-optimal budgets",
        "1B to 8B parameters, Llama 2 data",
        "P",
        says=(
            (
                "Entropy patches match or pass BPE; patches of 6 and 8 lie between Llama 2's BPE and Llama"
                " 3's; patches of 8 are clearly worse at 1B and better than Llama 2's BPE near 7B.",
                "P",
            ),
            ("SpaceByte is better than MegaByte, and both are far from Llama 3's BPE.", "P"),
        ),
    ),
    Table(
        "Figure 8",
        "sizes and windows of the entropy model",
        "BLT of 400M and 1B parameters; entropy models of 1M to 100M with 64 to 512 bytes of context",
        "R",
        says=(
            (
                "Larger entropy models and longer contexts both help, with little gain beyond 50M parameters"
                " and 512 bytes.",
                "R",
            ),
        ),
    ),
)


def named(text: str) -> list:
    """The tables and figures that a label names, such as "Figure 6", "Figure 1, Table 2", "Tables 1, 3 and
    4", "table7"; those that nothing is kept of are left out."""
    wanted = []
    for kind, numbers in re.findall(
        r"(table|figure|fig\.?)s?\s*((?:\d+(?:\s*(?:,|and|&)\s*)?)+)", text, re.I
    ):
        word = "Table" if kind.lower() == "table" else "Figure"
        wanted += [f"{word} {number}" for number in re.findall(r"\d+", numbers)]
    return [table for table in TABLES if table.name in wanted or table.also in wanted]
