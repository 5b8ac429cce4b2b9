"""Tasks that have a reference for what a model should write: what it writes behind shots, and how likely the
reference is there."""

from bltjax.evaluation import answers, multiple_choice, shots
from bltjax.evaluation.task import Settings, ratio

END = "\n\n"  # behind an answer, in shots and where a reference is scored
UNTIL = ("\n",)


def prompt(layout: str, shown, asked) -> dict:
    """shots.joined of shots [(field..., answer)] and a question. layout: of a shot, with {0}, {1}, ... for
    fields; its answer stands last, behind a space."""
    done = [f"{layout.format(*shot[:-1])} {shot[-1]}{END}" for shot in shown]
    return shots.joined("", done, layout.format(*asked))


def written(model, asked: list[dict], most: int, settings: Settings, progress=None):
    """(result, lines) of items {"id", "context", "shots", "reference"}: the one metric of the result so far
    is "nats_per_byte", and lines have {"id", "text": the line that was written, "reference", "nats",
    "nats_per_byte"}.

    most: ids of an answer. Nats are those of the reference and the blank line behind it, by bytes of the
    reference. What is scored loses shots that do not fit the model's rows, and its left where that is not
    enough, which is counted; what is continued is not cut."""
    choices = [{**item, "choices": [f" {item['reference']}{END}"], "answer": 0} for item in asked]
    likely = multiple_choice.score(model, choices, settings.batch_size)
    texts = answers.generate(
        model,
        [item["context"] for item in asked],
        most,
        UNTIL,
        batch_size=settings.batch_size,
        max_length=answers.UNCUT,
        progress=progress,
    )
    nats = [-line["nats"][0] for line in likely]
    sizes = [len(item["reference"].encode()) for item in asked]
    lines = [
        {
            "id": item["id"],
            "text": text.partition("\n")[0].strip(),
            "reference": item["reference"],
            "nats": value,
            "nats_per_byte": value / size,
            **{key: one[key] for key in multiple_choice.COUNTED},
        }
        for item, text, value, size, one in zip(asked, texts, nats, sizes, likely, strict=True)
    ]
    metrics = {"nats_per_byte": ratio(nats, sizes)}
    return {"metrics": metrics, "main": "nats_per_byte", **multiple_choice.cost(model, likely)}, lines
