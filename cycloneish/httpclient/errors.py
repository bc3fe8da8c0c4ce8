"""What a fetch fails with: Tornado's exceptions of its client.

Raised by everything in this package and by ``websocket_connect``.  Errors of the network that have a class of
their own in Python (``ConnectionRefusedError``, ``ssl.SSLError``, ``socket.gaierror``) are raised as these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cycloneish.httputil import responses
from cycloneish.iostream import UnsatisfiableReadError

if TYPE_CHECKING:
    from cycloneish.httpclient.response import HTTPResponse

__all__ = ["HTTPClientError", "HTTPError", "HTTPStreamClosedError", "HTTPTimeoutError", "LargeHeadError"]


class HTTPClientError(Exception):
    """A request that was not answered with a status of success.

    :param code: the status of the response; 599 when there is none.
    :param message: what to say; the usual phrase of the status by default.
    :param response: the response, where there is one.

    A redirect that was not followed is such an error too; ``error.response.headers["Location"]`` says where
    it led.  Counterpart: ``tornado.httpclient.HTTPClientError``, alias ``HTTPError``.
    """

    def __init__(self, code: int, message: str | None = None, response: HTTPResponse | None = None) -> None:
        self.code = code
        self.message = message or responses.get(code, "Unknown")
        self.response = response
        super().__init__(code, message, response)

    def __str__(self) -> str:
        return f"HTTP {self.code}: {self.message}"

    # The response refers to its error: the usual repr would go round in a circle.
    __repr__ = __str__


#: The older name, which ``tornado.web.HTTPError`` is easily taken for.
HTTPError = HTTPClientError


class _WithoutResponse(HTTPClientError):
    """Nothing came back; the code 599 stands for that, for historical reasons."""

    def __init__(self, message: str) -> None:
        super().__init__(599, message=message)

    def __str__(self) -> str:
        return self.message

    __repr__ = __str__

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return type(self), (self.message,)


class HTTPTimeoutError(_WithoutResponse):
    """A time-out passed; the text says which.

    Counterpart: ``tornado.simple_httpclient.HTTPTimeoutError``.
    """


class HTTPStreamClosedError(_WithoutResponse):
    """The connection ended before the response did, or what came is not HTTP.

    Counterpart: ``tornado.simple_httpclient.HTTPStreamClosedError``.
    """


class LargeHeadError(HTTPStreamClosedError, UnsatisfiableReadError):
    """The head of the response is larger than ``max_header_size``.

    Tornado lets the second of these classes through.
    """
