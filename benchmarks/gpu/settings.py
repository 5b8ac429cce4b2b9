"""Every shape, repeat count and time limit of the kit: FULL for a GPU, SMALL to try the kit on a CPU.

Legend: B rows, H heads, T positions, K features of a head, P patches of a row, k latents of a patch, C = H·K.
"""

import dataclasses
from typing import NamedTuple

TOTAL_SECONDS = 465  # of all parts together; what does not fit any more is skipped, and said
LEAST_SECONDS = 15  # a part is not started with less
SMALL_SECONDS = 1800  # of --small, whose machine may be a slow or busy one


class Part(NamedTuple):
    """One process of its own, so that a failure or a hang ends no other part and memory is whole again."""

    name: str
    module: str  # of benchmarks/gpu: run(settings, record, argument)
    argument: str
    seconds: int  # at most, on a GPU
    small: bool = True  # whether --small runs it too


PARTS = (  # in the order in which they run: the most valuable number first
    Part("machine", "machine", "", 30),
    Part("train_blt", "train", "blt", 160),
    Part("train_bpe", "train", "bpe", 95),
    Part("kernels", "kernels", "", 75),
    Part("train_blt_full_tables", "train", "blt_full_tables", 75, small=False),
    Part("generate_blt", "generate", "blt", 90),
    Part("generate_bpe", "generate", "bpe", 50),
)


class Attention(NamedTuple):
    """One shape of self-attention. window 0: none."""

    name: str
    B: int
    H: int
    T: int
    K: int
    window: int


class Cross(NamedTuple):
    """One shape of cross-attention between T bytes and P patches of k latents, both ways."""

    name: str
    B: int
    T: int
    P: int
    k: int
    heads: int
    C: int


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is measured. blt, bpe: how the models differ from Table 10's 1B."""

    # machine
    matmul: int  # side of the square bfloat16 product
    copy_mib: int
    # kernels
    attention: tuple[Attention, ...]
    cross: tuple[Cross, ...]
    repeats: int  # timed calls of each; the median counts
    # training
    dtype: str
    context: int  # bytes of a BLT row; a BPE row has as many in context / bytes_per_token tokens
    patch_size: float
    patch_slack: float
    bytes_per_token: float
    vocab: int
    blt: dict
    bpe: dict
    hash_rows: int  # leaves an 80 GB card room for a batch: look-ups cost as many FLOPs in larger tables
    full_hash_rows: int  # the paper's
    remats: dict  # tried for each model
    probe_rows: int  # rows of the program whose memory tells how many fit
    most_rows: int
    memory_limit: int  # bytes; 0: what the device says
    warmup: int
    steps: int  # timed; the median counts
    step_seconds: float  # a candidate's timed steps stop here, though not before three
    traced_steps: int
    # generation
    batches: tuple[int, ...]
    prompt_bytes: int
    new_bytes: int
    tokenizer_vocab: int  # of the tokenizer that is trained on the kit's own text


FULL = Settings(
    matmul=8192,
    copy_mib=4096,
    attention=(
        Attention("local, 2,048 bytes", 4, 16, 2048, 64, 512),
        Attention("local, 8,192 bytes", 1, 16, 8192, 64, 512),
        Attention("latent, 1,920 patches", 2, 16, 1920, 128, 0),
        Attention("BPE, 1,862 tokens", 2, 16, 1862, 128, 0),
    ),
    cross=(Cross("2,048 bytes", 4, 2048, 480, 2, 16, 1024), Cross("8,192 bytes", 1, 8192, 1920, 2, 16, 1024)),
    repeats=10,
    dtype="bfloat16",
    context=8192,
    patch_size=4.5,
    patch_slack=1.05,
    bytes_per_token=4.4,
    vocab=128_256,
    blt={},
    bpe={},
    hash_rows=100_000,
    full_hash_rows=500_000,
    remats={"blt": ("none", "dots", "full"), "bpe": ("none", "dots", "full"), "blt_full_tables": ("full",)},
    probe_rows=2,
    most_rows=64,
    memory_limit=0,
    warmup=2,
    steps=7,
    step_seconds=6.0,
    traced_steps=2,
    batches=(1, 16),
    prompt_bytes=512,
    new_bytes=512,
    tokenizer_vocab=8192,
)

SMALL = dataclasses.replace(
    FULL,
    matmul=256,
    copy_mib=4,
    attention=(
        Attention("local, 192 bytes", 1, 2, 192, 16, 32),
        Attention("latent, 45 patches", 1, 2, 45, 32, 0),
    ),
    cross=(Cross("192 bytes", 1, 192, 45, 2, 2, 32),),
    repeats=2,
    dtype="float32",
    context=256,
    patch_slack=1.15,
    vocab=1024,
    blt=dict(
        local_width=32,
        encoder_layers=1,
        decoder_layers=1,
        local_heads=2,
        global_width=64,
        global_layers=2,
        global_heads=2,
        k=2,
        cross_heads=2,
        window=64,
        ffn_multiple=32,
    ),
    bpe=dict(width=64, layers=2, heads=2, ffn_multiple=32),
    hash_rows=512,
    full_hash_rows=1024,
    remats={"blt": ("none",), "bpe": ("none", "full")},  # a BLT's step takes long to compile on a CPU
    probe_rows=1,
    most_rows=4,
    memory_limit=12 * 2**20,
    steps=3,
    batches=(1, 2),
    prompt_bytes=32,
    new_bytes=16,
    tokenizer_vocab=512,
)
