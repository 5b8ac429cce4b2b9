"""Answers that a model writes: greedy (or sampled) continuations of many prompts, in batches."""

from bltjax.errors import UserError
from bltjax.evaluation import encoding
from bltjax.generation import Options

ROWS = 16  # prompts in a batch
UNCUT = 1 << 16  # ids of a prompt and its answer, where no shot may be lost


def generate(
    model,
    prompts: list[str],
    most: int,
    until=(),
    *,
    batch_size: int = 0,
    max_length: int = 0,
    progress=None,
    counts: dict | None = None,
    **sampling,
) -> list[str]:
    """What follows each prompt behind BOS, up to the first text of `until`, EOS, or `most` ids.

    A prompt is cut on the left so that it and `most` ids fit `max_length` (0: as many as the model has).
    Bytes that are no UTF-8 come as U+FFFD. progress: called with the number of prompts done. counts: a dict
    to which "bytes" and "patches" (or tokens) that the model went through are added. UserError where nothing
    of a prompt would be left."""
    ids = encoding.Encoding(model)
    room = (max_length or encoding.longest(model)) - most
    if room < 2:
        raise UserError(f"{most} new ids leave no room for a prompt in a context of {room + most}")
    options = Options(
        0 if ids.unit == "token" else most,
        stop=tuple(text.encode() for text in until),
        max_new_tokens=most if ids.unit == "token" else 0,
        **sampling,
    )
    data = [_cut(model, ids, prompt, room - 1) for prompt in prompts]
    order = sorted(range(len(data)), key=lambda i: -len(data[i]))
    found, rows = [""] * len(data), batch_size or ROWS
    for at in range(0, len(order), rows):
        some = order[at : at + rows]
        done = model.generator.generate([data[i] for i in some], options)
        for i, text in zip(some, done.new, strict=True):
            found[i] = text.decode("utf-8", "replace")
        if counts is not None:
            went = done.passes.get("patches") or done.passes.get("bytes", 0)
            counts["bytes"] = counts.get("bytes", 0) + done.prompt_bytes + sum(map(len, done.new))
            counts["patches"] = counts.get("patches", 0) + went
        if progress:
            progress(len(some))
    return found


def _cut(model, ids, prompt: str, room: int) -> bytes:
    """The end of a prompt, `room` bytes or tokens of it."""
    data = prompt.encode("utf-8", "surrogateescape")
    if ids.unit == "byte":
        return data[-room:]
    return data if len(data) <= room else model.tokenizer.decode(ids.encode(data)[-room:])
