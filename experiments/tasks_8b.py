"""Claim: at 8B and equal FLOPs, BLT with entropy patches matches or beats BPE on tasks, with more bytes read.

Figure     Tables 1, 3 and 4 of arXiv 2412.09871: tasks, robustness and characters, translation; three models
           on BLT-1T, which is not public.
Hardware   paper's scale: a pod, 4.5e22 FLOPs a run. tasks_8b:gpu and --runlocal: the same three in small,
           where bits per byte are what there is to see.
Time       as planned: 3 runs of 1.4e23 FLOPs in all, 210,000 hours of one v5p chip at 40% utilization; gpu: 3
           runs, 4.2e17; runlocal: 3 runs, 6.4e12, some 7 minutes of two cores beside what is compiled
Expect     averages of Table 1: 60.0 (Llama 3's tokenizer), 58.0 (space), 61.1 (entropy)
Command    bltjax plan tasks_8b

BPE reads 1T tokens, space patches 6T bytes, entropy patches 4.5T. The entropy model starts anew at newlines,
and a patch starts where entropy rises (section 4.4). Contexts are 16k bytes."""

from ml_collections import ConfigDict

from bltjax import flops
from bltjax.sweep import ladder, scales

DATA = {"llama3": 4.4e12, "blt-space": 6e12, "blt-entropy": 4.5e12}  # bytes; 1T tokens of 4.4
SPACE = 6.1  # bytes per patch (Table 1); ours elsewhere
MONOTONIC = {"patching.scheme": "monotonic", "entropy_model.model.reset": "newline"}
# scale: size, share of the data, bytes of context
AT = {"": ("8B", 1.0, 16_384), "gpu": ("25M", 2e9 / 4.5e12, 4096), "runlocal": ("M", 1e6 / 4.5e12, 512)}


def get_config(arg: str | None = None) -> ConfigDict:
    scale = scales.of("tasks_8b", arg)
    size, share, context = AT[scale.name]
    space = {} if scale.name else {"patching.size": SPACE}

    def one(row: str, family: str, patch: float, changes: dict) -> ConfigDict:
        return ladder.run(
            scale,
            row,
            family,
            size,
            patch=patch,
            data_bytes=share * DATA[row],
            like=ladder.flops_per_byte(scale, "bpe", size) * flops.TRAIN * share * DATA["llama3"],
            context=context,
            changes=changes,
            series=row,
            figure="Tables 1, 3, 4",
            row=row,
        )

    return ConfigDict(
        dict(
            claim="at 8B, entropy patches match or beat BPE on tasks at the same FLOPs",
            figure="Tables 1, 3, 4",
            runs=(
                one("llama3", "bpe", 0, {}),
                one("blt-space", "blt-space", 0, space),
                one("blt-entropy", "blt-entropy", 4.5, MONOTONIC),
            ),
        )
    ).lock()
