"""``SimpleAsyncHTTPClient``: the client that does the work, with its pool, its queue and its limits."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from cycloneish.httpclient.client import AsyncHTTPClient
from cycloneish.httpclient.connection import ResponseLimits
from cycloneish.httpclient.cookies import CookieJar
from cycloneish.httpclient.fetching import Fetch
from cycloneish.httpclient.pool import Pool
from cycloneish.httpclient.request import HTTPRequest
from cycloneish.httpclient.resolving import Resolving
from cycloneish.httpclient.response import HTTPResponse

if TYPE_CHECKING:
    import ssl

__all__ = ["SimpleAsyncHTTPClient"]

_MAX_CONTEXTS = 100


class SimpleAsyncHTTPClient(AsyncHTTPClient):
    """The client of this package.

    :param max_clients: requests at a time; more wait, within their time-outs.
    :param hostname_mapping: addresses by name: ``host``, ``(host, port)`` or ``(host, port, family)``, to a
        host or to ``(host, port)``.
    :param max_buffer_size: the default of *max_body_size*.
    :param resolver: finds addresses in place of Twisted's: ``resolve(host, port, family)`` gives, now or
        later, a list of ``(family, socket address)``.
    :param defaults: of ``HTTPRequest``, for requests that leave them out.
    :param max_header_size: bytes of status line and header fields.
    :param max_body_size: bytes of body of any response, counted after decompression.
    :param max_per_host: requests at a time to one server (host and port); no limit by default.
    :param idle_timeout: seconds that a connection is kept for the next request; 0 keeps none.
    :param cookies: a ``CookieJar`` to keep the cookies of servers in; without one they are not kept.
    :param reactor: the reactor; the global one by default.

    Connections are kept and used again.  Counterpart: ``tornado.simple_httpclient.SimpleAsyncHTTPClient``,
    which has the first seven parameters.
    """

    def _initialize(  # type: ignore[override]
        self,
        max_clients: int = 10,
        hostname_mapping: Mapping[Any, Any] | None = None,
        max_buffer_size: int = 104_857_600,
        resolver: Any = None,
        defaults: dict[str, Any] | None = None,
        max_header_size: int | None = None,
        max_body_size: int | None = None,
        *,
        max_per_host: int | None = None,
        idle_timeout: float = 30.0,
        cookies: CookieJar | None = None,
        reactor: Any = None,
    ) -> None:
        AsyncHTTPClient._initialize(self, defaults, reactor)
        self.max_clients = max_clients
        self.max_per_host = max_per_host
        self.max_body_size = max_buffer_size if max_body_size is None else max_body_size
        self.cookies = cookies
        self.queue: deque[Fetch] = deque()
        self.active: set[Fetch] = set()
        self._per_host: Counter[str] = Counter()
        self._contexts: dict[Any, ssl.SSLContext] = {}
        limits = ResponseLimits(
            max_header_size=max_header_size or ResponseLimits.max_header_size,
            max_body_size=self.max_body_size,
        )
        self.pool = Pool(
            self.reactor,
            Resolving(self.reactor, resolver, hostname_mapping),
            limits,
            idle_timeout=idle_timeout,
        )

    initialize: Callable[..., None] = _initialize

    def close(self) -> Deferred[None]:
        """Close the connections; the client cannot be used afterwards.

        :returns: fires when those that are idle are gone.  A request in flight ends, and then its connection.
        """
        super().close()
        return self.pool.close()

    def fetch_impl(self, request: HTTPRequest, callback: Callable[[HTTPResponse], None]) -> Fetch:
        fetch = Fetch(self, request, callback)  # type: ignore[arg-type]
        if len(self.active) < self.max_clients and self._room_for(fetch):
            self._start(fetch)
        else:
            self.queue.append(fetch)
            fetch.wait()
        return fetch

    def agent(self) -> Any:
        """An ``IAgent`` on the connections of this client."""
        # Twisted's own client and its interfaces are loaded for who wants them.
        from cycloneish.httpclient.agent import Agent

        return Agent(self)

    def treq(self) -> Any:
        """A client of treq on the connections of this client.

        :raises ImportError: treq is not installed.
        """
        try:
            from treq.client import HTTPClient
        except ImportError as error:
            raise ImportError("treq needs: pip install 'cycloneish[client]'") from error
        return HTTPClient(self.agent())

    # -- the queue ---------------------------------------------------------------------------------

    def _room_for(self, fetch: Fetch) -> bool:
        return self.max_per_host is None or self._per_host[fetch.host] < self.max_per_host

    def _start(self, fetch: Fetch) -> None:
        self.active.add(fetch)
        if self.max_per_host is not None:
            self._per_host[fetch.host] += 1
        fetch.start()

    def fetch_ended(self, fetch: Fetch) -> None:
        """A fetch is over: the next one may begin."""
        if fetch in self.active:
            self.active.remove(fetch)
            if self.max_per_host is not None:
                self._per_host[fetch.host] -= 1
                self._per_host += Counter()  # drops what has come down to nothing
        elif fetch in self.queue:
            self.queue.remove(fetch)
        self._start_waiting()

    def _start_waiting(self) -> None:
        while self.queue and len(self.active) < self.max_clients:
            if self.max_per_host is None:
                self._start(self.queue.popleft())
                continue
            ready = next((fetch for fetch in self.queue if self._room_for(fetch)), None)
            if ready is None:
                return
            self.queue.remove(ready)
            self._start(ready)

    # -- what a fetch asks for ---------------------------------------------------------------------

    def tls_context(self, request: Any, foreign: bool) -> ssl.SSLContext:
        """The TLS settings for *request*; the same object for the same options, as it is part of the pool's
        key.

        :param foreign: a redirect has led to another origin, to which no certificate of ours is shown.
        """
        # Loads OpenSSL, which only https needs.
        from cycloneish.httpclient.tls import client_context

        options = request.ssl_options
        if options is not None and not isinstance(options, dict):
            return options  # type: ignore[no-any-return]
        if options is not None and foreign:
            options = {name: value for name, value in options.items() if name not in ("certfile", "keyfile")}
        certificate = None if foreign else request.client_cert or None
        key: Any = (
            None
            if options is None
            else tuple(sorted((name, repr(value)) for name, value in options.items())),
            bool(request.validate_cert),
            request.ca_certs,
            certificate,
            request.client_key if certificate else None,
        )
        context = self._contexts.get(key)
        if context is None:
            context = client_context(options, key[1], key[2], certificate, key[4])
            if len(self._contexts) >= _MAX_CONTEXTS:
                self._contexts.clear()
            self._contexts[key] = context
        return context
