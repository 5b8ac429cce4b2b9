"""Budget -> data, batch and learning rate, by named rules, each with its source.

Budgets are `exact` training FLOPs. Tokens are what the latent transformer reads: tokens of BPE, patches of a
BLT. A warm-up that is as long as the run is refused (run/budget.py, check_schedule); `train.warmup` of -1 is
the rule for short runs, min(2000, a tenth of the steps)."""

import math

# Llama 3's law for BPE, D*(C) = A·C^alpha tokens (2407.21783 section 3.2.1), is printed as (0.29, 0.53);
# rounded so, it gives 1.05e13 tokens at 3.8e25 FLOPs where that paper has 1.655e13. We keep A and take alpha
# from the point itself: 0.538. It then gives 48B bytes at 400M and 433B at 4B, where Table 2 of the BLT paper
# has 50B and 400B.
LAW_A = 0.29
LAW_ALPHA = math.log(16.55e12 / LAW_A) / math.log(3.8e25)

# Llama 3's scaling runs had one batch per compute scale: 250k tokens at 6e18 FLOPs to 4M at 1e22 (2407.21783
# section 3.2.1). Here 1 MiB to 16 MiB (the paper's 16M bytes), evenly in log FLOPs between them.
FIRST, LAST = (6e18, 2**20), (1e22, 2**24)  # FLOPs, bytes

PAPER_LR = 4e-4  # of all families and sizes: section 4.8, from a search at 400M and 1B
PAPER_WARMUP = 2000  # steps, section 4.8
SHORT_WARMUP = -1  # min(2000, a tenth of the steps)

# Predictable Scale (the step law): lr* = 1.797 N^-.7129 D^.3075, batch* = .5807 D^.5709 tokens; N parameters
# without embeddings, D tokens. Means of its 1,000 bootstrap rows (printed: 1.79, -.713, .307, .58, .571).
STEP_LR = (1.797, -0.7129, 0.3075)
STEP_BATCH = (0.5807, 0.5709)

# Best of six on validation text at 6.5e11 FLOPs, on the ladder of quickstart_seeds (docs/results/README.md).
# Families that were not tuned have the rate of the one that they share their patches with.
LAPTOP_LR = {"bpe": 4e-3, "blt-entropy": 3.2e-2, "blt-space": 1.6e-2, "blt-strided": 3.2e-2}
LIKE = {
    "blt-space-no-cross": "blt-space",
    "spacebyte": "blt-space",
    "megabyte": "blt-strided",
    "blt-random": "blt-strided",
    "blt-bpe": "blt-entropy",
    "entropy-model": "bpe",
}


def llama3_tokens(budget: float) -> float:
    """Rule `llama3-data`: the tokens that are optimal for a BPE transformer at a budget."""
    return LAW_A * budget**LAW_ALPHA


def llama3_budget(flops_per_token: float) -> float:
    """The same law asked the other way round: the budget C for which it makes a model compute optimal that
    costs so many training FLOPs per token, flops_per_token · D*(C) = C."""
    return (LAW_A * flops_per_token) ** (1 / (1 - LAW_ALPHA))


def llama3_batch(budget: float) -> int:
    """Rule `llama3-batch`: bytes of a batch, a power of two, from FIRST to LAST and constant beyond."""
    return 2 ** round(math.log2(min(max(batch_line(budget), FIRST[1]), LAST[1])))


def batch_line(budget: float) -> float:
    """Bytes of a batch on the line through FIRST and LAST, which goes on below and above: 1.3 kB at 1e11
    FLOPs, 40 kB at 1e15. (The step law's batch for 20M tokens, the data of a small model at 1e15, is 38 kB.)
    """
    power = math.log(LAST[1] / FIRST[1]) / math.log(LAST[0] / FIRST[0])
    return FIRST[1] * (budget / FIRST[0]) ** power


def step_law_lr(params: float, tokens: float) -> float:
    """Rule `step-law`: the learning rate for so many parameters (the law's are without embeddings) and
    tokens. It was fitted to much larger models than sweep/scales.py's."""
    return STEP_LR[0] * params ** STEP_LR[1] * tokens ** STEP_LR[2]


def step_law_batch(tokens: float) -> float:
    """Rule `step-law`: tokens of a batch, for a run over so many."""
    return STEP_BATCH[0] * tokens ** STEP_BATCH[1]


def laptop_lr(family: str) -> float:
    """Rule `laptop`: the learning rate of a family at 1e11 to 2e12 FLOPs."""
    return LAPTOP_LR[LIKE.get(family, family)]
