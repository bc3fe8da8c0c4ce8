"""The two exceptions of HTTP framing, raised below the web layer and caught by it.

The engines and the parsers of this package raise them; the engine turns an input error into a status line
and a closed connection, the web layer (forms, arguments) into an error page.
"""

from __future__ import annotations

__all__ = ["HTTPInputError", "HTTPOutputError"]


class HTTPInputError(Exception):
    """The peer sent something that is not acceptable HTTP.

    :param reason: what was wrong, in words for a log line. It may hold text from the peer, so escape it in
        pages.
    :param status: the response status that says it best (400, 408, 413, 414, 431 and so on).

    Tornado's class of the same name has no status; its meaning is always 400.
    """

    status: int = 400

    def __init__(self, reason: str = "", *, status: int = 400) -> None:
        super().__init__(reason)
        if status != 400:
            self.status = status


class HTTPOutputError(Exception):
    """The application tried to send something that is not HTTP, such as more body than its Content-Length."""
