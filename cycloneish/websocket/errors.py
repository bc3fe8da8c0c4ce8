"""What goes wrong with a WebSocket: the exceptions of the package, and the codes connections end with."""

from __future__ import annotations

from typing import Final

from cycloneish.httpclient.errors import HTTPClientError
from cycloneish.httputil import HTTPHeaders

__all__ = [
    "ABNORMAL_SILENCE",
    "BAD_DATA",
    "GOING_AWAY",
    "INTERNAL_ERROR",
    "NORMAL",
    "PROTOCOL_ERROR",
    "TOO_BIG",
    "TRY_AGAIN_LATER",
    "DecompressedTooBigError",
    "HandshakeError",
    "WebSocketClosedError",
    "WebSocketError",
    "is_sendable",
]

#: RFC 6455 section 7.4.1 and the registry it began.
NORMAL: Final = 1000
GOING_AWAY: Final = 1001
PROTOCOL_ERROR: Final = 1002
BAD_DATA: Final = 1007
TOO_BIG: Final = 1009
INTERNAL_ERROR: Final = 1011
TRY_AGAIN_LATER: Final = 1013
#: What a connection is closed with whose pings are not answered; Tornado says so.
ABNORMAL_SILENCE: Final = NORMAL

_SENDABLE: Final = frozenset((1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014))


def is_sendable(code: int) -> bool:
    """Whether *code* may stand in a close frame: a registered one, or 3000 to 4999 for applications.

    1005, 1006 and 1015 only ever describe the lack of a close frame.
    """
    return code in _SENDABLE or 3000 <= code <= 4999


class WebSocketError(Exception):
    """A connection could not be opened, or its peer broke the protocol.

    Counterpart: ``tornado.websocket.WebSocketError``.
    """


class WebSocketClosedError(WebSocketError):
    """Something was to be sent on a connection that is closed or closing.

    Counterpart: ``tornado.websocket.WebSocketClosedError``.
    """


class DecompressedTooBigError(Exception):
    """A compressed message is longer than the limit once it is not."""


class HandshakeError(WebSocketError, HTTPClientError):
    """A server answered a client's request with something else than a WebSocket.

    It is an :exc:`cycloneish.httpclient.HTTPError` as well, as in Tornado.

    :ivar code: status of the response.
    :ivar headers: its headers.
    """

    def __init__(self, code: int, message: str | None = None, headers: HTTPHeaders | None = None) -> None:
        HTTPClientError.__init__(self, code, message)
        self.headers = headers if headers is not None else HTTPHeaders()
