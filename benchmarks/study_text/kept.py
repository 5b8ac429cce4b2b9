"""Which documents are kept, and in which pieces."""

import collections.abc

REPEATED_SHARE = 0.5  # of a document's bytes in long paragraphs: above it repeats others
LEAST_PARAGRAPH = 40  # bytes: shorter ones (headings, options) say nothing about copying
LONGEST_PIECE = 100_000  # bytes


def unrepeated(documents: collections.abc.Iterable[dict]) -> list[dict]:
    """Those whose paragraphs do not stand, for the most part, in documents before them: untranslated pages,
    and pages that several packages hold."""
    seen, kept = set(), []
    for document in documents:
        paragraphs = [part.encode() for part in document["text"].split("\n\n")]
        long = [part for part in paragraphs if len(part) >= LEAST_PARAGRAPH]
        repeated = sum(len(part) for part in long if hash(part) in seen)
        if repeated <= REPEATED_SHARE * sum(map(len, long)):
            kept.append(document)
            seen.update(map(hash, long))
    return kept


def pieces(text: str, longest: int = LONGEST_PIECE) -> list[str]:
    """The text in pieces of at most `longest` bytes, cut at ends of paragraphs, else of lines, else anywhere
    between characters. They join to the text."""
    found, piece, size = [], [], 0
    for part in parts(text, longest):
        length = len(part.encode())
        if size + length > longest:
            found.append("".join(piece))
            piece, size = [], 0
        piece.append(part)
        size += length
    return found + ["".join(piece)] if piece else found


def parts(text: str, longest: int, ends: tuple = ("\n\n", "\n")) -> collections.abc.Iterator[str]:
    """What may not be cut further: paragraphs with their ends, or where they are too long what they consist
    of."""
    if len(text.encode()) <= longest and len(ends) < 2:
        yield text
    elif not ends:
        step = longest // 4  # characters of UTF-8 have at most four bytes
        yield from (text[start : start + step] for start in range(0, len(text), step))
    else:
        pieces_ = text.split(ends[0])
        for index, part in enumerate(pieces_):
            part += ends[0] if index < len(pieces_) - 1 else ""
            if len(part.encode()) <= longest:
                if part:
                    yield part
            else:
                yield from parts(part, longest, ends[1:])
