"""The states of an HTTP/1 connection.

In the order in which a request goes through them::

    HEAD ──► ACCEPT ──► BODY ──► END ──► ANSWER ──► HEAD
      request line   the delegate   body in   the body   the response
      and headers    took the head  pieces    is read    is not complete

    DRAIN    an answer went out before the body was read; the rest is thrown away
    LINGER   our side is shut; what still comes is thrown away, then the connection closes
    DETACHED another protocol has the transport
    CLOSED   nothing more

:mod:`~cycloneish.http.http1` is the only reader.  States from LINGER on take no more requests.
"""

from __future__ import annotations

from enum import IntEnum

__all__ = ["ACCEPT", "ANSWER", "BODY", "CLOSED", "DETACHED", "DRAIN", "END", "HEAD", "LINGER", "State"]


class State(IntEnum):
    """Where a connection stands; see the table at the top of this file."""

    HEAD = 0
    ACCEPT = 1
    BODY = 2
    END = 3
    ANSWER = 4
    DRAIN = 5
    LINGER = 6
    DETACHED = 7
    CLOSED = 8


# Module globals: a look-up in an Enum class costs more than the comparison it serves.
HEAD, ACCEPT, BODY, END, ANSWER, DRAIN, LINGER, DETACHED, CLOSED = State
