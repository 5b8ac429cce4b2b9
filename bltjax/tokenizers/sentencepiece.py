"""SentencePiece files (Llama 2's tokenizer.model) as exact tokens, encoded by the library of that name (extra
`sentencepiece`).

Only what changes no byte is taken: no normalisation, and bytes for what no piece spells. The blank that
SentencePiece puts before a text is left out: it is no byte of the text."""

import base64
import importlib.util
import re

from bltjax.errors import UserError
from bltjax.tokenizers import specials
from bltjax.tokenizers.tokenizer import Tokenizer, check_exact, encode_parts

BLANK = "\u2581"  # a space, in a piece
# Bytes that are no UTF-8, and the character that stands for a space: both are spelled byte by byte.
INVALID = re.compile(rf"([\udc80-\udcff]+|{BLANK}+)")


def of(data: bytes, path, told: specials.Ends | None = None) -> Tokenizer:
    """The tokenizer of a file's content. UserError for what is none, or whose tokens are not exact."""
    if importlib.util.find_spec("sentencepiece") is None:
        raise UserError(
            f"{path}: SentencePiece files need the extra `sentencepiece` (the package of that name): make"
            " setup EXTRAS=sentencepiece"
        )
    pieces = _processor(data, path)
    count = pieces.vocab_size()
    byte_ids = {int(pieces.id_to_piece(i)[3:5], 16): i for i in range(count) if pieces.is_byte(i)}
    special = {i: pieces.id_to_piece(i) for i in range(count) if pieces.is_control(i)}
    own = tuple(number if number >= 0 else None for number in (pieces.bos_id(), pieces.eos_id()))
    ends = specials.ends(path, special, told, own)

    def spelled(i: int) -> bytes:
        if pieces.is_byte(i):
            return bytes([int(pieces.id_to_piece(i)[3:5], 16)])
        if pieces.is_control(i) or pieces.is_unknown(i) or pieces.is_unused(i):
            return b""
        return pieces.id_to_piece(i).replace(BLANK, " ").encode()

    def encoder(text: bytes) -> list[int]:
        return encode_parts(text, pieces.encode, byte_ids.__getitem__, INVALID)

    found = Tokenizer(
        "sentencepiece",
        [spelled(i) for i in range(count)],
        *ends,
        specials.fingerprint(data, special, ends),
        encoder,
        {"file": base64.b64encode(data).decode(), "ends": list(ends)},
    )
    check_exact(found, [], False, path)
    return found


def _processor(data: bytes, path):
    """The library's tokenizer of a file, without the blank before a text. UserError for no such file, and for
    one that changes text."""
    try:
        import sentencepiece
        from google.protobuf.message import DecodeError
        from sentencepiece import sentencepiece_model_pb2
    except (ImportError, TypeError) as error:  # protobuf is missing, or of a version that does not go with it
        raise UserError(
            f"{path}: the extra `sentencepiece` is not whole ({' '.join(str(error).split())}): make setup"
            " EXTRAS=sentencepiece"
        ) from None

    model = sentencepiece_model_pb2.ModelProto()
    try:
        model.ParseFromString(data)
        if not model.pieces:
            raise DecodeError("no pieces")
        normalizer = model.normalizer_spec
        if (
            normalizer.precompiled_charsmap
            or normalizer.remove_extra_whitespaces
            or not normalizer.escape_whitespaces
        ):
            raise UserError(f"{path}: its tokens are not exact bytes (it normalises text)")
        if not model.trainer_spec.byte_fallback:
            raise UserError(f"{path}: its tokens are not exact bytes (it has no byte fallback)")
        normalizer.add_dummy_prefix = False
        return sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())
    except (DecodeError, RuntimeError, ValueError):
        raise UserError(f"{path} is no SentencePiece file") from None
