"""Streams of compressed bytes, decompressed as they are read; damage is an error, and so is what stands
behind the last stream."""

import bz2
import gzip
import io
import lzma

OPENED = {
    "gzip": lambda raw: gzip.GzipFile(fileobj=raw),
    "bzip2": lambda raw: _decompressed(raw, bz2.BZ2Decompressor),
    "xz": lambda raw: _decompressed(raw, lzma.LZMADecompressor),
    "lzma": lambda raw: _decompressed(raw, lzma.LZMADecompressor),
    "zstd": lambda raw: _of_pyarrow(raw, "zstd"),
    "lz4": lambda raw: _of_pyarrow(raw, "lz4"),
}


class _Decompressed(io.RawIOBase):
    """A stream of compressed streams behind one another. Unlike BZ2File and LZMAFile it does not take what is
    none of them, at the end, for nothing."""

    def __init__(self, raw, decompressor):
        self._raw, self._new = raw, decompressor
        self._one, self._rest = None, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        while True:
            needs = not self._rest and (self._one is None or self._one.needs_input)
            if needs and not (chunk := self._raw.read(1 << 16)):
                if self._one is None:
                    return 0
                raise EOFError("Compressed file ended before the end-of-stream marker was reached")
            data = chunk if needs else self._rest
            if self._one is None:
                self._rest = data.lstrip(b"\0")  # xz may fill up with NULs
                if not self._rest:
                    continue
                self._one, data = self._new(), self._rest
            found = self._one.decompress(data, len(buffer))
            self._rest = self._one.unused_data if self._one.eof else b""
            if self._one.eof:
                self._one = None
            if found:
                buffer[: len(found)] = found
                return len(found)


def _decompressed(raw, decompressor):
    return io.BufferedReader(_Decompressed(raw, decompressor), 1 << 20)


def _of_pyarrow(raw, codec: str):
    import pyarrow  # where it is needed: it takes longer to import than most verbs take

    return io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.PythonFile(raw, mode="r"), codec), 1 << 20)
