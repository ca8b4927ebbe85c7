"""Compressed files read to their very end: streams that were joined come one after the other.

Python's own readers of bzip2 and xz end without a word where a later stream is damaged; here that is an error, as it is
with gzip. Zeros behind a stream are padding.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import IO, Any

CHUNK = 1 << 16


def decompressed(raw: IO[bytes]) -> IO[bytes]:
    """A file to read the content from, by the first bytes of a file at its start; itself when it is not compressed.

    Reading raises `EOFError`, `OSError` without a number, `lzma.LZMAError` or `zlib.error` for what is damaged.
    """
    import bz2
    import gzip
    import lzma

    head = raw.read(6)
    raw.seek(0)
    if head[:2] == b"\x1f\x8b":
        return gzip.GzipFile(fileobj=raw)  # type: ignore[return-value]
    if head[:3] == b"BZh":
        return io.BufferedReader(_Streams(raw, bz2.BZ2Decompressor))
    return io.BufferedReader(_Streams(raw, lzma.LZMADecompressor)) if head == b"\xfd7zXZ\0" else raw


class _Streams(io.RawIOBase):
    """The content of streams of one kind; `new` makes what decompresses one of them."""

    def __init__(self, raw: IO[bytes], new: Callable[[], Any]) -> None:
        self._raw, self._new, self._stream, self._at = raw, new, new(), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            fed = b""
            if self._stream.eof:
                if not (fed := self._after_padding()):
                    return 0
                self._stream = self._new()
            elif self._stream.needs_input and not (fed := self._raw.read(CHUNK)):
                raise EOFError("the compressed data end early")
            if data := self._stream.decompress(fed, len(buffer)):
                buffer[: len(data)] = data
                self._at += len(data)
                return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        to = offset + self._at * (whence == io.SEEK_CUR)
        if whence == io.SEEK_END:
            raise io.UnsupportedOperation("the end is known only when it has been reached")
        if to < self._at:
            self._raw.seek(0)
            self._stream, self._at = self._new(), 0
        while self._at < to and self.readinto(bytearray(min(to - self._at, CHUNK))):
            pass
        return self._at

    def _after_padding(self) -> bytes:
        """The beginning of the next stream, empty when there is none."""
        rest = self._stream.unused_data
        while not (rest := rest.lstrip(b"\0")):
            if not (rest := self._raw.read(CHUNK)):
                break
        return rest
