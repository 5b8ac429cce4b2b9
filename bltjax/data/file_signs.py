"""The signs by which kinds of files are told: one table of those that are read, and one of those that are
refused, with what to do instead. file_kinds.py goes by them; docs/data.md has them in words."""

import dataclasses
import pickletools
import re
import struct
import tarfile
import zlib
from collections.abc import Callable

from bltjax.data import crc32c

HEAD = 1 << 16  # bytes of a file by which it is told
MOST_CONTROL = 0.05  # of bytes in text that are control characters
CONTROL = bytes({*range(32), 127} - set(b"\t\n\v\f\r\b\x1b"))  # what text does not use

PLAIN, LINES_OF_JSON, PARQUET, ARROW, ARROW_STREAM, ARRAY_RECORD, TF_RECORD = (
    "plain text",
    "JSON lines",
    "Parquet",
    "Arrow",
    "Arrow stream",
    "ArrayRecord",
    "TFRecord",
)
AS_IT_IS = "data.format=bytes reads the file as it is"


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of file. told(head) says whether a file that begins with those bytes is one. advice: what a
    person does with one that is not read here; "": it is read."""

    name: str
    told: Callable[[bytes], bool]
    advice: str = ""


def starts(*signs: bytes, at: int = 0):
    return lambda head: head.startswith(signs, at)


def binary_after(*signs: bytes):
    """Signs that text may begin with, too."""
    return lambda head: head.startswith(signs) and binary(head)


def has_member(*endings: str):
    """A ZIP archive whose first member's name ends, or whose folder begins, with one of these."""

    def told(head):
        if not head.startswith(b"PK\x03\x04") or len(head) < 30:
            return False
        name = head[30 : 30 + struct.unpack_from("<H", head, 26)[0]].decode("utf-8", "replace")
        return any(name.endswith(e) or e.endswith("/") and name.startswith(e) for e in endings)

    return told


def _tar(head: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(head[:512], "utf-8", "surrogateescape")  # compares the header's checksum
    except tarfile.HeaderError:
        return False
    return True


def _tf_record(head: bytes) -> bool:
    return len(head) >= 12 and struct.unpack_from("<I", head, 8)[0] == crc32c.masked(crc32c.of(head[:8]))


def _zlib(head: bytes) -> bool:
    if head[:2] not in (b"\x78\x01", b"\x78\x9c", b"\x78\xda"):
        return False
    try:
        return bool(zlib.decompressobj().decompress(head, 1))
    except zlib.error:
        return False


def _cpio(head: bytes) -> bool:
    return bool(re.match(rb"07070[127][0-9A-Fa-f]{104}", head))


def _pickle(head: bytes) -> bool:
    """Protocols 0 and 1 have no sign, and 0 is text in ASCII: they are told by their operations, of which one
    memorizes something as number 0."""
    if head[:1] == b"\x80":
        return head[1:2] in (b"\2", b"\3", b"\4", b"\5")
    memorized = None
    try:
        for (code, argument, _), _ in zip(pickletools.genops(head), range(64)):
            if memorized is None and code.name in ("PUT", "BINPUT"):
                memorized = argument
    except (ValueError, OverflowError, Warning):  # a warning where they are errors
        if len(head) < HEAD:  # else it may have been cut here
            return False
    return memorized == 0


# grey and coloured pixels with nothing packed, astronomers' arrays, and pictures of light
PIXELS = re.compile(rb"P[1-6]\n(#[^\n]*\n)*\d+ +\d+\s|P7\nWIDTH \d+\n|SIMPLE  = {20}T|#\?RADIANCE\n")


def _image(head: bytes) -> bool:
    return (
        head.startswith((b"\x89PNG\r\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*"))
        or PIXELS.match(head) is not None
        or binary_after(b"GIF87a", b"GIF89a", b"BM")(head)
        or head[:4] == b"RIFF"
        and head[8:12] == b"WEBP"
    )


def _sound_or_video(head: bytes) -> bool:
    return (
        head.startswith((b"OggS\0", b"fLaC\0", b"\x1aE\xdf\xa3", b"\xff\xfb", b"\xff\xf3"))
        or head[:3] == b"ID3"
        and head[3:4] < b"\x10"
        or head[:1] == b"\0"
        and head[4:8] == b"ftyp"
        or head[:4] == b"RIFF"
        and head[8:12] in (b"WAVE", b"AVI ")
    )


def _utf16(head: bytes) -> bool:
    if head.startswith((b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")):
        return True
    # without a mark: most of its text is Latin, and every other byte a NUL
    even, odd = head[0:512:2], head[1:512:2]
    nuls = sorted((even.count(0), odd.count(0)))
    return len(odd) >= 4 and nuls[1] > 0.7 * len(odd) and nuls[0] <= 0.02 * len(odd)


COMPRESSIONS = (
    Kind("gzip", starts(b"\x1f\x8b\x08")),
    Kind("bzip2", lambda head: head[:3] == b"BZh" and head[4:10] in (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90")),
    Kind("xz", starts(b"\xfd7zXZ\0")),
    Kind("lzma", lambda head: head[:3] == b"]\0\0" and head[12:13] in (b"\0", b"\xff")),
    Kind(
        "zstd",
        lambda head: head[:4] == b"\x28\xb5\x2f\xfd" or head[1:4] == b"\x2a\x4d\x18" and head[0] >> 4 == 5,
    ),
    Kind("lz4", starts(b"\x04\x22\x4d\x18")),
)
READ = (
    # text may begin with PAR1, but not with what stands behind it in Parquet
    Kind(PARQUET, starts(b"PAR1\x15")),
    Kind(ARROW, starts(b"ARROW1\0\0")),
    Kind(ARROW_STREAM, lambda head: head[:4] == b"\xff\xff\xff\xff" and head[7:8] == b"\0"),
    Kind(ARRAY_RECORD, starts(b"\x83\xaf\x70\xd1\x0d\x88\x4a\x3f")),  # a file of Riegeli, of which it is one
    Kind(TF_RECORD, _tf_record),
)
UNPACK = "unpack it, or name what is in it as a URL: {0}://**/*.txt::PATH"
TEXT_OF_IT = "take the text out of it first"
AS_TABLE = "write its text as Parquet or JSON lines first"
NO_TEXT = f"leave it out of the pattern ({AS_IT_IS})"
REFUSED = (
    Kind(
        "a Word, Excel or PowerPoint file",
        has_member("[Content_Types].xml", "_rels/", "docProps/", "word/", "xl/", "ppt/"),
        TEXT_OF_IT,
    ),
    Kind("an OpenDocument or EPUB file", starts(b"mimetypeapplication/", at=30), TEXT_OF_IT),
    Kind("a NumPy archive (.npz)", has_member(".npy"), AS_TABLE),
    Kind("a PyTorch checkpoint", has_member("data.pkl", ".format_version"), NO_TEXT),
    Kind("a ZIP archive", starts(b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08"), UNPACK.format("zip")),
    Kind("a tar archive", _tar, UNPACK.format("tar")),
    Kind(
        "an archive (7z, RAR, CAB, ar or cpio)",
        lambda head: head.startswith((b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07", b"MSCF\0", b"!<arch>\n"))
        or _cpio(head),
        "unpack it",
    ),
    Kind(
        "compressed in a way that is not read here (compress, lzip, lzop, Snappy or zlib)",
        lambda head: head.startswith((b"\x1f\x9d", b"LZIP\1", b"\x89LZO\0", b"\xff\x06\0\0sNaPpY"))
        or _zlib(head),
        "decompress it, or compress it with gzip or zstd",
    ),
    Kind("a NumPy array", starts(b"\x93NUMPY"), AS_TABLE),
    Kind("an HDF5 file", starts(b"\x89HDF\r\n\x1a\n"), AS_TABLE),
    Kind("an SQLite database", starts(b"SQLite format 3\0"), AS_TABLE),
    Kind("a MATLAB file", starts(b"MATLAB 5.0 MAT-file"), AS_TABLE),
    Kind("a Feather file of version 1", starts(b"FEA1\0\0\0\0"), AS_TABLE),
    Kind("an Avro file", starts(b"Obj\1"), AS_TABLE),
    Kind("an ORC file", binary_after(b"ORC"), AS_TABLE),
    Kind("a Parquet file with an encrypted footer", binary_after(b"PARE"), "decrypt it first"),
    Kind("a Python pickle", _pickle, AS_TABLE),
    Kind("a PDF", starts(b"%PDF-"), TEXT_OF_IT),
    Kind("an old Word, Excel or PowerPoint file", starts(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"), TEXT_OF_IT),
    Kind("an RTF file", starts(b"{\\rtf"), TEXT_OF_IT),
    Kind("a DjVu file", starts(b"AT&TFORM"), TEXT_OF_IT),
    Kind("an image", _image, NO_TEXT),
    Kind("sound or video", _sound_or_video, NO_TEXT),
    Kind("a file of weights (GGUF)", binary_after(b"GGUF"), NO_TEXT),
    Kind(
        "a file of weights (safetensors)",
        lambda head: head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < 1 << 32,
        NO_TEXT,
    ),
    Kind("a program or library", starts(b"\x7fELF", b"\0asm", b"\xca\xfe\xba\xbe"), NO_TEXT),
    Kind(
        "a pointer of Git LFS in place of the file",
        starts(b"version https://git-lfs.github.com/spec/", b"version https://hawser.github.com/spec/"),
        "fetch the file (git lfs pull)",
    ),
    Kind(
        "a pointer of git-annex in place of the file",
        starts(b"/annex/objects/"),
        "fetch the file (git annex get)",
    ),
    Kind(
        "text in UTF-16 or UTF-32",
        _utf16,
        "write it in UTF-8 (iconv -f utf-16 -t utf-8), or data.format=bytes keeps its bytes",
    ),
)


def binary(data: bytes) -> bool:
    """Whether bytes are no text in any encoding that leaves control characters alone, as all of ASCII's
    kin do (UTF-8, Latin, Cyrillic, Shift JIS, GB 18030). Three NULs in a row are a number or a filling."""
    if b"\0\0\0" in data:
        return True
    control = len(data) - len(data.translate(None, CONTROL))
    return control > max(1, MOST_CONTROL * len(data))
