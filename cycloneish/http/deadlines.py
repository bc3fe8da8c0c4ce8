"""Time-outs of many connections for the price of one timer.

A delayed call per connection and request would cost more than the request.  Instead every connection
carries the time at which it is to be looked at, and one timer per server looks at all of them now and
then.  A time-out is late by at most one tick, a quarter of the shortest time-out and never above a second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from cycloneish.log import app_log

__all__ = ["NEVER", "Deadlines", "Watched"]

#: A deadline that does not come.
NEVER = float("inf")


class Watched(Protocol):
    """A connection with a deadline."""

    deadline: float

    def deadline_passed(self) -> None:
        """Close, or set a new deadline."""


class Deadlines:
    """The connections of one server.

    :param reactor: gives ``seconds`` and ``callLater``.
    :param shortest: the shortest time-out in use, in seconds.

    The timer runs only while there are connections.
    """

    def __init__(self, reactor: Any, shortest: float) -> None:
        self.now: Callable[[], float] = reactor.seconds
        self.connections: set[Watched] = set()
        self._reactor = reactor
        self._interval = min(1.0, max(0.01, shortest / 4))
        self._timer: Any = None

    def add(self, connection: Watched) -> None:
        """Watch *connection* until :meth:`remove`."""
        self.connections.add(connection)
        if self._timer is None:
            self._timer = self._reactor.callLater(self._interval, self._tick)

    def remove(self, connection: Watched) -> None:
        """Forget *connection*, known or not."""
        self.connections.discard(connection)
        if not self.connections and self._timer is not None:
            if self._timer.active():  # else whoever cleans up behind a test was here
                self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._timer = None
        now = self.now()
        for connection in [c for c in self.connections if c.deadline <= now]:
            try:
                connection.deadline_passed()
            except Exception:  # one connection's trouble must not end the time-outs of the others
                app_log.error("Uncaught exception in a time-out", exc_info=True)
        if self.connections and self._timer is None:
            self._timer = self._reactor.callLater(self._interval, self._tick)
