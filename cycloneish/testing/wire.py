"""The client's half of HTTP/1.1, as far as a test needs it: read one response out of bytes.

:class:`~cycloneish.testing.Exchange` feeds it with what the server writes.
"""

from __future__ import annotations

from cycloneish.http.chunked import ChunkedReader
from cycloneish.http.limits import Limits
from cycloneish.httputil import HTTPHeaders, HTTPInputError

__all__ = ["MalformedResponseError", "ResponseReader"]

_LIMITS = Limits()
_ALL = 2**62


class MalformedResponseError(Exception):
    """The server wrote what is no HTTP response."""


class ResponseReader:
    """Reads one response.

    :param method: of the request, as a HEAD has no body in its response.

    :ivar code: status, 0 before the head is there.
    :ivar informational: codes of the 1xx responses that came before it.
    :ivar complete: whether the body is there to its end.
    :ivar trailers: trailer fields of a chunked body.
    :ivar surplus: bytes behind the response.
    """

    def __init__(self, method: str) -> None:
        self._method = method
        self._buffer = b""
        self._remaining: int | None = None
        self._chunked: ChunkedReader | None = None
        self.code = 0
        self.reason = ""
        self.headers = HTTPHeaders()
        self.trailers = HTTPHeaders()
        self.informational: list[int] = []
        self.complete = False
        self.surplus = b""

    @property
    def upgraded(self) -> bool:
        """Whether what follows the head is another protocol's."""
        return self.code == 101 or (self._method == "CONNECT" and 200 <= self.code < 300)

    def feed(self, data: bytes) -> bytes:
        """Take bytes from the server.

        :returns: the bytes of the body that are in them.
        :raises MalformedResponseError: when they are no HTTP.
        """
        if self.complete:
            self.surplus += data
            return b""
        self._buffer += data
        while not self.code:
            if not self._read_head():
                return b""
        return b"" if self.complete else self._read_body()

    def connection_closed(self) -> bool:
        """Take the end of the connection; returns whether the response is complete with it."""
        if self.code and not self.complete and self._remaining is None and self._chunked is None:
            self.complete = True
        return self.complete

    def _read_head(self) -> bool:
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return False
        self._buffer = rest
        status, _, lines = head.partition(b"\r\n")
        version, _, tail = status.decode("latin-1").partition(" ")
        code, _, reason = tail.partition(" ")
        if version not in ("HTTP/1.1", "HTTP/1.0") or not (
            code.isascii() and code.isdigit() and len(code) == 3
        ):
            raise MalformedResponseError(f"no status line: {status[:200]!r}")
        if code.startswith("1") and code != "101":
            self.informational.append(int(code))
            return True
        try:
            self.headers = HTTPHeaders.parse(lines.decode("latin-1"))
        except HTTPInputError as error:
            raise MalformedResponseError(f"in the headers of the response: {error}") from error
        self.code, self.reason = int(code), reason
        self._frame()
        return True

    def _frame(self) -> None:
        """How long is the body (RFC 9112 section 6.3)?"""
        if self.upgraded:
            return
        if self._method == "HEAD" or self.code in (204, 304):
            self._end(self._buffer)
        elif "Transfer-Encoding" in self.headers:
            if "Content-Length" in self.headers:
                raise MalformedResponseError("both Transfer-Encoding and Content-Length in the response")
            if self.headers["Transfer-Encoding"].lower() != "chunked":
                raise MalformedResponseError(f"Transfer-Encoding {self.headers['Transfer-Encoding']!r}")
            self._chunked = ChunkedReader(_LIMITS)
        elif (length := self.headers.get("Content-Length")) is not None:
            if not (length.isascii() and length.isdigit()):
                raise MalformedResponseError(f"Content-Length {length!r}")
            self._remaining = int(length)
            if not self._remaining:
                self._end(self._buffer)

    def _read_body(self) -> bytes:
        data, self._buffer = self._buffer, b""
        if self._chunked is not None:
            body = self._read_chunks(data)
            if self._chunked.complete:
                self.trailers = self._chunked.trailers
                self._end(self._chunked.rest)
            return body
        if self._remaining is not None:
            body, rest = data[: self._remaining], data[self._remaining :]
            self._remaining -= len(body)
            if not self._remaining:
                self._end(rest)
            return body
        return data

    def _read_chunks(self, data: bytes) -> bytes:
        reader = self._chunked
        if reader is None:
            raise RuntimeError("the body is not chunked")
        pieces: list[bytes] = []
        try:
            # It stops now and then, to be fair to other connections; there are none here.
            while piece := reader.read(data, _ALL):
                pieces.append(piece)
                data = b""
        except HTTPInputError as error:
            raise MalformedResponseError(f"in the chunked body of the response: {error}") from error
        return b"".join(pieces)

    def _end(self, surplus: bytes) -> None:
        self.complete = True
        self.surplus = surplus
        self._buffer = b""
