"""Makes tests/golden/sentencepiece.model and .json anew: python tests/train_sentencepiece.py (extra
`sentencepiece`).

The text is this repository's contracts, handed over in memory, so that the file holds no folder's name."""

import io
import json
import pathlib

import sentencepiece

HERE = pathlib.Path(__file__).parent
TEXTS = (
    "Hello  world\n x=1",
    "def f(x):\n    return x + 12345\n",
    "naïve café — 你好 🙂",
    "\ttabs\tand   spaces  ",
    "a user's <piece> within",
)


def main():
    lines = (HERE.parent / "docs" / "contracts.md").read_text().splitlines()
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=written,
        model_type="bpe",
        vocab_size=700,
        character_coverage=0.995,
        byte_fallback=True,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        user_defined_symbols=["<piece>"],
        num_threads=1,
        minloglevel=2,
    )
    (HERE / "golden" / "sentencepiece.model").write_bytes(written.getvalue())
    library = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
    cases = [{"text": text, "ids": library.encode(text)} for text in TEXTS]
    (HERE / "golden" / "sentencepiece.json").write_text(
        json.dumps(cases, indent=0, ensure_ascii=False) + "\n"
    )


if __name__ == "__main__":
    main()
