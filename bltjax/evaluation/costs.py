"""What a byte costs in a text that was scored, as it was cut."""

from bltjax import flops, models, patching


def of(model, config, patch_size: float, sizes) -> dict:
    """{"patch_size", "flops_per_byte", "entropy_flops_per_byte"}: `exact` forward FLOPs of each byte once.

    patch_size: bytes per patch or token as cut; sizes: bytes of each document or row, each a row of its own
    in attention."""
    given = dict(context=int(config.data.context), document_lengths=sizes)
    beside = 0.0
    if models.kind(config.model).PATCHES and config.patching.scheme in patching.NEEDS_ENTROPIES:
        beside = flops.count(model.entropy_model.config.model, **given)["exact"]["total"]
    return {
        "patch_size": patch_size,
        "flops_per_byte": flops.count(config.model, patch_size, **given)["exact"]["total"],
        "entropy_flops_per_byte": beside,
    }


def of_rows(model, positions: int, patches: int, sizes) -> dict:
    """The same of rows that likelihood.loglikelihoods scored: positions and patches of all of them, as it
    says; sizes: bytes of each."""
    tokens = models.kind(model.config.model).UNIT == "token"
    return of(model, model.config, (sum(sizes) if tokens else positions) / patches, sizes)


def of_answers(model, counts: dict, prompts: list[str]) -> dict:
    """The same of prompts that answers.generate went on with. counts: as it has them."""
    size = counts["bytes"] / max(1, counts["patches"])
    return of(model, model.config, size, [len(prompt.encode()) for prompt in prompts])
