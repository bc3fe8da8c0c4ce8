"""The head of an HTTP/1 response as bytes, and the Deferred that says that bytes were taken.

Called by :mod:`~cycloneish.http.http1` for each response.
"""

from __future__ import annotations

from typing import Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from cycloneish.httputil import HTTPHeaders, HTTPOutputError
from cycloneish.iostream import StreamClosedError

__all__ = ["WriteDeferred", "error_response", "response_head", "tornado_status"]

_REASONS: Final = {
    400: "Bad Request",
    408: "Request Timeout",
    413: "Content Too Large",
    414: "URI Too Long",
    417: "Expectation Failed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    505: "HTTP Version Not Supported",
}

_TORNADO_STATUSES: Final = {408: None, 413: 400, 414: None, 431: None, 501: 400, 505: 400}


def response_head(code: int, reason: str, headers: HTTPHeaders, extra: str) -> bytes:
    """Status line and header fields, with the empty line behind them.

    :param extra: complete header lines of the engine's own, such as ``"Connection: close\\r\\n"``.
    :raises HTTPOutputError: the reason or a header would break out of its line, or does not fit latin-1.
    """
    lines = [f"HTTP/1.1 {code} {reason}\r\n"]
    for name, value in headers._values.items():
        if value.__class__ is str:
            lines.append(f"{name}: {value}\r\n")
        else:
            lines.extend([f"{name}: {one}\r\n" for one in value])
    text = "".join(lines)
    # One count for the whole head instead of one search for each field.
    if text.count("\n") != len(lines) or text.count("\r") != len(lines) or "\0" in text:
        raise HTTPOutputError("Illegal character (CR, LF or NUL) in a response header")
    try:
        return (text + extra + "\r\n").encode("latin-1")
    except UnicodeEncodeError as error:
        raise HTTPOutputError(
            f"A response header is not latin-1: {error.object[error.start : error.end]!r}"
        ) from None


def tornado_status(code: int) -> int | None:
    """The status with which Tornado refuses what we refuse with *code*; None: it closes without an answer."""
    return _TORNADO_STATUSES.get(code, code)


def error_response(code: int) -> bytes:
    """What a refused request is answered with before the connection closes."""
    reason = _REASONS.get(code, "Error")
    if code == 400:
        return b"HTTP/1.1 400 Bad Request\r\n\r\n"
    return f"HTTP/1.1 {code} {reason}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode()


class WriteDeferred(Deferred[None]):
    """Fires when the transport wants more bytes; fails with ``StreamClosedError`` when the peer has left.

    Nobody has to wait for a write, so a failure that nobody waits for is not reported as unhandled.
    """

    @classmethod
    def fired(cls) -> WriteDeferred:
        """One that has fired: ``callback(None)`` without looking for callbacks that cannot be there."""
        deferred = cls()
        deferred.called = True
        deferred.result = None
        return deferred

    def lose(self) -> None:
        """Say that the connection is gone."""
        if self.called:
            return
        self.errback(StreamClosedError())
        if self._debugInfo is not None and _is_quiet(self.result):
            # Whoever adds a callback later, or returns this from one, takes the failure over.
            self._debugInfo.failResult = None


def _is_quiet(result: object) -> bool:
    """Whether *result* only says that the peer has left."""
    return isinstance(result, Failure) and result.check(StreamClosedError) is not None
