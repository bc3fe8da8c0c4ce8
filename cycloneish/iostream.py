"""Tornado's names for what can go wrong with a connection.

:class:`StreamClosedError` is raised by a Deferred of ``flush()``, ``write()`` or ``write_message()`` that is
waited for after the peer left.  Code that streams a response may catch it; the web layer takes it for a quiet
end.  :class:`UnsatisfiableReadError` comes from the HTTP client.
"""

from __future__ import annotations

from typing import Any

__all__ = ["IOStream", "StreamClosedError", "UnsatisfiableReadError"]


class StreamClosedError(OSError):
    """The connection closed before the bytes were on their way.

    :param real_error: what closed it, where that is known.

    Counterpart: ``tornado.iostream.StreamClosedError``.
    """

    def __init__(self, real_error: BaseException | None = None) -> None:
        super().__init__("Stream is closed")
        self.real_error = real_error


class UnsatisfiableReadError(Exception):
    """What is looked for did not come within the limit: the head of a response is larger than allowed.

    Counterpart: ``tornado.iostream.UnsatisfiableReadError``.
    """


class IOStream:
    """Tornado's stream, for annotations in programs that move in; none can be made.

    :raises NotImplementedError: always.  Write a Twisted protocol, and connect it with an endpoint.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(
            "there are no IOStreams here: write a twisted.internet.protocol.Protocol and connect it with an "
            "endpoint; a handler's connection is taken over with request.connection.detach()"
        )
