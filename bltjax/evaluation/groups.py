"""Bits per byte by group of the text (data.group_field: a language, say)."""

import math

import numpy as np


def of(chosen, documents: list[dict]) -> dict:
    """{"bpb_of_groups": mean over groups, "groups": [{"group", "documents", "bytes", "nats", "bpb"}, ...]},
    the largest group first, of those that were scored; both None where the text is of one group.

    chosen: what was scored (corpus.Selection); documents: of it, in its order, {"bytes", "nats"} each."""
    if len(chosen.group_names) < 2:
        return {"bpb_of_groups": None, "groups": None}
    count = len(chosen.group_names)
    sizes, nats = (
        np.bincount(chosen.groups, weights=[document[key] for document in documents], minlength=count)
        for key in ("bytes", "nats")
    )
    held = np.bincount(chosen.groups, minlength=count)
    found = [
        {
            "group": chosen.group_names[i],
            "documents": int(held[i]),
            "bytes": int(sizes[i]),
            "nats": float(nats[i]),
            "bpb": float(nats[i] / sizes[i] / math.log(2)),
        }
        for i in np.lexsort((np.arange(count), -sizes))
        if sizes[i]
    ]
    return {"bpb_of_groups": float(np.mean([group["bpb"] for group in found])), "groups": found}
