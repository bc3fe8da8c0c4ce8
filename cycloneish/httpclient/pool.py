"""Open connections of one client: how many there may be, which are idle, which request gets one next.

Called by the client for each request, and by the agent under treq.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet.defer import Deferred

from cycloneish.httpclient.connecting import Connector, Route
from cycloneish.httpclient.connection import ClientConnection, ResponseLimits
from cycloneish.httpclient.resolving import Resolving

__all__ = ["Pool"]


class Pool:
    """Keeps connections between requests.

    :param reactor: the reactor.
    :param resolving: finds addresses.
    :param limits: what is accepted from a server.
    :param idle_timeout: seconds that a connection is kept without a request; 0 keeps none.
    :param max_idle_per_route: connections kept for one server.
    :param max_idle_routes: servers for which connections are kept; of one more, those of the server that was
        asked longest ago are closed. Who walks through the Internet would run out of files otherwise.
    """

    def __init__(
        self,
        reactor: Any,
        resolving: Resolving,
        limits: ResponseLimits,
        idle_timeout: float = 30.0,
        max_idle_per_route: int = 100,
        max_idle_routes: int = 100,
    ) -> None:
        self._reactor = reactor
        self._limits = limits
        self._idle_timeout = idle_timeout
        self._max_idle = max_idle_per_route
        self._max_routes = max_idle_routes
        self._connector = Connector(reactor, resolving, self._make)
        self._idle: dict[Route, deque[ClientConnection]] = {}
        self._routes: dict[ClientConnection, Route] = {}
        self._sweeper: Any = None
        self._closed = False

    def _make(self) -> ClientConnection:
        connection = ClientConnection(self._limits, self._reactor)
        connection.on_idle = self._put_back
        connection.on_closed = self._forget
        return connection

    def idle_connection(self, route: Route) -> ClientConnection | None:
        """A connection that is open and free, the one used last."""
        waiting = self._idle.get(route)
        while waiting:
            connection = waiting.pop()
            if not waiting:
                del self._idle[route]
            if connection.usable:
                return connection
        return None

    def connect(
        self, route: Route, timeout: float | None
    ) -> Deferred[tuple[ClientConnection, dict[str, float]]]:
        """Open a new connection; see ``Connector.connect``."""

        def connected(result: tuple[ClientConnection, dict[str, float]]) -> Any:
            self._routes[result[0]] = route
            return result

        return self._connector.connect(route, timeout).addCallback(connected)

    @property
    def idle(self) -> int:
        """How many connections wait for a request."""
        return sum(map(len, self._idle.values()))

    def _put_back(self, connection: ClientConnection) -> None:
        route = self._routes.get(connection)
        if self._closed or route is None or not self._idle_timeout:
            connection.close()
            return
        waiting = self._idle.get(route)
        if waiting is None:
            if len(self._idle) >= self._max_routes:
                for oldest in self._idle.pop(next(iter(self._idle))):
                    oldest.close()
            waiting = self._idle[route] = deque()
        elif len(waiting) >= self._max_idle:
            waiting.popleft().close()
        connection.idle_since = self._reactor.seconds()
        waiting.append(connection)
        if self._sweeper is None:
            self._sweeper = self._reactor.callLater(self._idle_timeout, self._sweep)

    def _forget(self, connection: ClientConnection) -> None:
        route = self._routes.pop(connection, None)
        if route is None:
            return
        waiting = self._idle.get(route)
        if waiting is not None and connection in waiting:
            waiting.remove(connection)
            if not waiting:
                del self._idle[route]
                self._stop_sweeping()

    def _sweep(self) -> None:
        """Close what has been idle for too long."""
        self._sweeper = None
        oldest = self._reactor.seconds() - self._idle_timeout
        for route, waiting in list(self._idle.items()):
            while waiting and waiting[0].idle_since <= oldest:
                waiting.popleft().close()
            if not waiting:
                del self._idle[route]
        if self._idle:
            first = min(waiting[0].idle_since for waiting in self._idle.values())
            self._sweeper = self._reactor.callLater(max(0.01, first - oldest), self._sweep)

    def _stop_sweeping(self) -> None:
        if not self._idle and self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None

    def close(self) -> Deferred[None]:
        """Close what is idle; what is in use closes after its request.

        :returns: fires when the idle connections are gone.
        """
        self._closed = True
        idle, self._idle = self._idle, {}
        self._stop_sweeping()
        closing = [connection for waiting in idle.values() for connection in waiting]
        done: Deferred[None] = Deferred()
        left = set(closing)

        def closed(connection: ClientConnection) -> None:
            self._forget(connection)
            left.discard(connection)
            if not left and not done.called:
                done.callback(None)

        for connection in closing:
            connection.on_closed = closed
            connection.close()
        if not left and not done.called:
            done.callback(None)
        return done
