"""Plain text that is cut into documents as it is read: at a separator, or into pieces at line ends."""

from bltjax.errors import UserError

CHUNK = 1 << 20  # bytes read at once
PIECE = 1 << 16  # bytes of a piece, at most


def at_separator(stream, separator: bytes, longest: int, where: str):
    """Yields what stands between separators, as it is; what is empty is no document. Holds `longest` bytes
    and a chunk at most. UserError for a longer document."""
    rest, searched = bytearray(), 0
    while chunk := stream.read(CHUNK):
        rest += chunk
        first = 0
        while (at := rest.find(separator, max(first, searched))) >= 0:
            if at - first > longest:
                raise _too_long(longest, separator, where)
            if at > first:
                yield bytes(rest[first:at])
            first = at + len(separator)
        del rest[:first]
        searched = max(0, len(rest) - len(separator) + 1)  # a separator may have begun
        if searched > longest:
            raise _too_long(longest, separator, where)
    if len(rest) > longest:
        raise _too_long(longest, separator, where)
    if rest:
        yield bytes(rest)


def at_line_ends(stream, size: int = PIECE):
    """Yields pieces of `size` bytes at most that join to the stream: each ends with the last line that fits,
    or, where no line ends in so many bytes, has them all."""
    rest = b""
    while True:
        rest += stream.read(size - len(rest))
        if not rest:
            return
        end = rest.rfind(b"\n") + 1 if len(rest) == size else len(rest)
        yield rest[: end or size]
        rest = rest[end or size :]


def length(stream) -> int:
    """Bytes that are left of a stream, which is read to its end."""
    return sum(map(len, iter(lambda: stream.read(CHUNK), b"")))


def skip(stream, count: int) -> None:
    while count and (chunk := stream.read(min(CHUNK, count))):
        count -= len(chunk)


class Limited:
    """The next `left` bytes of a stream."""

    def __init__(self, stream, left: int):
        self._stream, self._left = stream, left

    def read(self, count: int) -> bytes:
        found = self._stream.read(min(count, self._left))
        self._left -= len(found)
        return found


def _too_long(longest: int, separator: bytes, where: str) -> UserError:
    return UserError(
        f"{where}: more than {longest:,} bytes without the separator {separator.decode()!r}; set"
        " data.separator to what stands between documents, or data.longest to allow more"
    )
