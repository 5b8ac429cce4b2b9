"""Prompts with shots, and what is left of them in a model whose rows are too short: whole shots go, the first
ones first, so that none is read from its middle on."""


def joined(before: str, shots: list[str], question: str) -> dict:
    """{"context": the whole prompt, "shots": where in it each shot begins, and where the last one ends}: of
    what stands before the shots, the shots, and the question."""
    ends = [len(before)]
    for shot in shots:
        ends.append(ends[-1] + len(shot))
    return {"context": before + "".join(shots) + question, "shots": ends}


def fitted(item: dict, pairs_of, length: int) -> tuple[dict, list, int]:
    """(the item with as many of its shots as fit, its pairs of ids, how many shots were left out).

    item: of multiple choice, with or without "shots". pairs_of: an item -> (context ids, continuation ids) of
    each choice: all choices are read behind the same shots. length: ids of a row at most. Where even the
    question alone does not fit, all shots are gone."""
    ends = item.get("shots", [0])
    for dropped, end in enumerate(ends):
        left = {**item, "context": item["context"][: ends[0]] + item["context"][end:]}
        pairs = pairs_of(left)
        if max(len(context) + len(rest) for context, rest in pairs) <= length + 1:  # the last is not read
            break
    return left, pairs, dropped
