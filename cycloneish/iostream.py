"""Tornado's name for a connection that is gone.

Raised by a Deferred of ``flush()``, ``write()`` or ``write_message()`` that is waited for after the
peer left.  Code that streams a response may catch it; the web layer takes it for a quiet end.
"""

from __future__ import annotations

__all__ = ["StreamClosedError"]


class StreamClosedError(OSError):
    """The connection closed before the bytes were on their way.

    :param real_error: what closed it, where that is known.

    Counterpart: ``tornado.iostream.StreamClosedError``.
    """

    def __init__(self, real_error: BaseException | None = None) -> None:
        super().__init__("Stream is closed")
        self.real_error = real_error
