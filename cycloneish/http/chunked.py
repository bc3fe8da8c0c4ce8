"""Chunked transfer coding (RFC 9112 section 7.1), read strictly.

:class:`ChunkedReader` turns the bytes of a connection into the bytes of one body.  It keeps no more
than one unfinished line, counts the framing as well as the data, and says where the body ended.
"""

from __future__ import annotations

import re
from typing import Final

from cycloneish.http.limits import Limits
from cycloneish.httputil import HTTPHeaders, HTTPInputError
from cycloneish.httputil.grammar import CONTROL

__all__ = ["ChunkedReader"]

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED: Final = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
_SIZE_LINE: Final = re.compile(
    rb"([0-9A-Fa-f]{1,16})((?:[ \t]*;[ \t]*"
    + _TOKEN
    + rb"(?:[ \t]*=[ \t]*(?:"
    + _TOKEN
    + rb"|"
    + _QUOTED
    + rb"))?)*)"
)
_PLAIN_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})\r\n")
#: Chunks decoded before other connections get their turn.
_BURST: Final = 1000


class ChunkedReader:
    """Decodes one body.

    :param limits: the limits of the server.

    Feed it with :meth:`read` until :attr:`complete`; :attr:`rest` then holds what follows the body,
    and :attr:`trailers` the trailer fields, which are never merged into the headers.
    """

    __slots__ = (
        "_in_trailers",
        "_limits",
        "_remaining",
        "_skip_line_end",
        "_trailer_size",
        "complete",
        "rest",
        "trailers",
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._remaining = 0
        self._skip_line_end = False
        self._in_trailers = False
        self._trailer_size = 0
        self.complete = False
        self.rest = b""
        self.trailers = HTTPHeaders()

    @property
    def announced(self) -> int:
        """Bytes of the current chunk that have not been read."""
        return self._remaining

    def read(self, data: bytes, max_bytes: int) -> bytes:
        """Decode *data* behind what was left of the last call.

        :param max_bytes: at most so many bytes of body are returned; the rest stays in :attr:`rest`.
        :returns: decoded bytes.  When :attr:`rest` is not empty, the body is not complete and bytes
            were returned, there may be more: call again.
        :raises HTTPInputError: the framing is malformed, or over a limit.
        """
        buffer = self.rest + data if self.rest else data
        body: list[bytes] = []
        taken = position = 0
        for _ in range(_BURST):
            if self._remaining:
                piece = buffer[position : position + min(self._remaining, max_bytes - taken)]
                if not piece:
                    break
                body.append(piece)
                position += len(piece)
                taken += len(piece)
                self._remaining -= len(piece)
                if self._remaining:
                    break
                self._skip_line_end = True
            if self._skip_line_end:
                end = buffer[position : position + 2]
                if end != b"\r\n":
                    if b"\r\n".startswith(end):
                        break
                    raise HTTPInputError("chunk data not followed by CRLF")
                position += 2
                self._skip_line_end = False
            if self._in_trailers:
                position = self._read_trailers(buffer, position)
                break
            size, next_position = self._read_size(buffer, position)
            if next_position == position:
                break
            position = next_position
            if size == 0:
                self._in_trailers = True
            self._remaining = size
        self.rest = buffer[position:]
        return b"".join(body)

    def _read_size(self, buffer: bytes, position: int) -> tuple[int, int]:
        """The size of the chunk at *position* and where its data begins; no progress if incomplete."""
        plain = _PLAIN_SIZE.match(buffer, position)
        if plain is not None:
            return int(plain[1], 16), plain.end()
        end = buffer.find(b"\n", position)
        line_length = (end if end >= 0 else len(buffer)) - position
        if line_length > self._limits.max_chunk_line:
            raise HTTPInputError("chunk size line too long")
        if end < 0:
            if line_length and not _SIZE_LINE.match(buffer, position):
                raise HTTPInputError("invalid chunk size")
            return 0, position
        if buffer[end - 1 : end] != b"\r" or end == position:
            raise HTTPInputError("invalid chunk size: bare LF")
        line = _SIZE_LINE.fullmatch(buffer, position, end - 1)
        if line is None:
            raise HTTPInputError(f"invalid chunk size: {buffer[position : end - 1][:40]!r}")
        return int(line[1], 16), end + 1

    def _read_trailers(self, buffer: bytes, position: int) -> int:
        """Read the trailer fields that are complete, up to the empty line."""
        while True:
            end = buffer.find(b"\n", position)
            pending = (end + 1 if end >= 0 else len(buffer)) - position
            if self._trailer_size + pending > self._limits.max_trailer_size:
                raise HTTPInputError("trailer section too large")
            if end < 0:
                return position
            if end == position or buffer[end - 1 : end] != b"\r":
                raise HTTPInputError("bare LF in the trailer section")
            line = buffer[position : end - 1].decode("latin-1")
            self._trailer_size += pending
            position = end + 1
            if not line:
                self.complete = True
                return position
            if CONTROL.search(line):
                raise HTTPInputError("Control character in a trailer field")
            self.trailers.parse_line(line)
            if len(self.trailers) > self._limits.max_header_fields:
                raise HTTPInputError("Too many trailer fields")
