"""The service behind ``twistd cycloneish`` and ``cycloneish run``: make the app, open its ports, drain.

The order is the point of it. Starting: the factory, then ``app.service`` (databases, queues, whatever the
application needs), then the ports, so that no request meets half an application. Stopping: the ports, then
the requests in flight, then ``app.service``, so that the last request still has its database.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from typing import Any

from twisted.application.service import IService, IServiceCollection, MultiService, Service
from twisted.internet.defer import CancelledError, Deferred, gatherResults, inlineCallbacks, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.python.failure import Failure

from cycloneish.db.errors import SchemaBehind
from cycloneish.httpserver import HTTPServer
from cycloneish.httputil import HTTPServerConnectionDelegate
from cycloneish.service.loading import AppSource, make_app
from cycloneish.service.options import DEFAULT_ENDPOINT

__all__ = ["START_TIMEOUT", "STOP_TIMEOUT", "CannotStart", "WebService", "start_app_service"]

log = logging.getLogger("cycloneish.general")

#: Seconds that a factory, and then ``app.service``, may take to start.
START_TIMEOUT = 120.0
#: Seconds that ``app.service`` may take to stop once the last request is answered.
STOP_TIMEOUT = 30.0


class CannotStart(Exception):
    """Starting failed for a reason that one line explains; the line is its text."""


class WebService(Service):
    """Serves one application on any number of endpoints.

    :param app: the application (a connection delegate, an ``HTTPServer`` with options of its own, or any
        protocol factory), or a function that makes one and may return a Deferred or another awaitable. An
        attribute ``service`` of the application is started before the ports open and stopped after the last
        request.
    :param listen: endpoint strings; port 0 takes a free one.
    :param name: what messages call the application.
    :param xheaders: believe ``X-Real-Ip``, ``X-Forwarded-For`` and ``X-Forwarded-Proto``.
    :param debug: turn the application's ``debug`` setting on.
    :param factory_options: keyword arguments for a function.
    :param schema: called with the application's database when that is ready, before the ports open; starting
        waits for its Deferred, and fails where it fails.
    :param raise_at_once: let :meth:`startService` raise a failure that is known before it returns, besides
        putting it into :attr:`started`; a daemonizing ``twistd`` tells its parent that way.
    :param reactor: the reactor; by default the global one, looked up at start.
    """

    def __init__(
        self,
        app: AppSource,
        listen: Sequence[str] = (DEFAULT_ENDPOINT,),
        *,
        name: str = "application",
        xheaders: bool = False,
        debug: bool = False,
        factory_options: dict[str, Any] | None = None,
        schema: Callable[[Any], Deferred[None]] | None = None,
        raise_at_once: bool = False,
        reactor: Any = None,
    ) -> None:
        self.source = app
        self.endpoints = list(listen)
        self.label = name
        self.xheaders = xheaders
        self.debug = debug
        self.factory_options = factory_options or {}
        self.schema = schema
        self.raise_at_once = raise_at_once
        #: The application, once the factory gave it.
        self.app: Any = None
        #: The open ports, in the order of the endpoints.
        self.ports: list[IListeningPort] = []
        #: Fires with None when the ports are open, or fails with the reason why they are not.
        self.started: Deferred[None] = Deferred()
        self._reactor = reactor
        self._server: Any = None
        self._app_service: Any = None
        self._starting: Deferred[None] | None = None

    # Starting

    def startService(self) -> None:
        """Start; :attr:`started` tells how it went."""
        super().startService()  # type: ignore[no-untyped-call]
        if self._reactor is None:
            from twisted.internet import reactor

            self._reactor = reactor
        if self.started.called:
            self.started = Deferred()
        known_at_once: list[Failure] = []
        self._starting = self._start()
        self._starting.addErrback(self._clean_up_after, known_at_once)
        self._starting.addBoth(self.started.callback)
        if known_at_once and self.raise_at_once:
            self.started.addErrback(lambda _: None)
            known_at_once[0].raiseException()

    @inlineCallbacks
    def _start(self) -> Generator[Deferred[Any], Any, None]:
        making = make_app(self.source, self.label, self.factory_options)
        self.app = yield making.addTimeout(START_TIMEOUT, self._reactor)
        if self.debug:
            turn_debug_on(self.app)
        server = self._make_server(self.app)
        # An HTTPServer that the factory made has the application inside.
        app_service = _service_of(getattr(server, "request_callback", server))
        if app_service is not None:
            self._app_service = app_service
            starting = start_app_service(app_service)
            yield starting.addTimeout(START_TIMEOUT, self._reactor)
        if self.schema is not None:
            yield self._look_after_schema(self.schema, getattr(server, "request_callback", server))
        self._server = server
        for endpoint in self.endpoints:
            self.ports.append((yield self._open(endpoint)))
        for endpoint, port in zip(self.endpoints, self.ports, strict=True):
            log.info("%s answers on %s", self.label, address_of(endpoint, port))

    def _look_after_schema(self, schema: Callable[[Any], Deferred[None]], app: Any) -> Deferred[None]:
        database = (getattr(app, "settings", None) or {}).get("database")
        if not hasattr(database, "run_connection"):
            raise CannotStart(
                f"--schema: {self.label} has no setting 'database' with a cycloneish.db.Database"
            )

        def in_words(failure: Failure) -> None:
            failure.trap(SchemaBehind, OSError, ImportError)
            raise CannotStart(str(failure.value)) from failure.value

        return maybeDeferred(schema, database).addErrback(in_words)

    def _make_server(self, app: Any) -> Any:
        if isinstance(app, HTTPServerConnectionDelegate):
            options = dict(getattr(app, "settings", {}).get("server_options", {}))
            # What was said to this service, on the command line for instance, goes first.
            options.update({"xheaders": True} if self.xheaders else {}, reactor=self._reactor)
            return HTTPServer(app, **options)
        if self.xheaders:
            raise CannotStart(
                f"{self.label} made its own server, where --xheaders has no effect: give xheaders=True to it"
            )
        return app

    def _open(self, endpoint: str) -> Deferred[IListeningPort]:
        listening: Deferred[IListeningPort]
        try:
            if isinstance(self._server, HTTPServer):
                listening = self._server.listen(endpoint)
            else:
                listening = serverFromString(self._reactor, endpoint).listen(self._server)
        except (ValueError, TypeError, LookupError, ImportError, AttributeError, OSError) as error:
            raise CannotStart(f"cannot listen on {endpoint}: {error}") from error

        def in_words(failure: Failure) -> IListeningPort:
            failure.trap(CannotListenError, OSError)
            error = failure.value
            # CannotListenError is (interface, port, the operating system's error), which alone says why.
            reason = getattr(error, "socketError", error)
            raise CannotStart(f"cannot listen on {endpoint}: {getattr(reason, 'strerror', None) or reason}")

        return listening.addErrback(in_words)

    def _clean_up_after(self, failure: Failure, known_at_once: list[Failure]) -> Deferred[Failure]:
        """Let go of what was started, then hand the failure on."""
        known_at_once.append(failure)
        self.running = 0
        return self._release().addCallback(lambda _: failure)

    # Stopping

    def stopService(self) -> Deferred[None]:
        """Close the ports, let requests in flight finish within the server's bound, stop ``app.service``.

        :returns: a Deferred that fires when all that is done.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        starting = self._starting
        if starting is None:
            return self._release()
        # A start that fails or is cancelled lets go by itself; that takes time, too.
        ended: Deferred[None] = Deferred()
        starting.addBoth(ended.callback)
        if not starting.called:
            starting.cancel()
        return ended.addCallback(lambda _: self._release())

    @inlineCallbacks
    def _release(self) -> Generator[Deferred[Any], Any, None]:
        ports, self.ports = self.ports, []
        server, self._server = self._server, None
        app_service, self._app_service = self._app_service, None
        for port in ports:
            yield self._quietly("closing a port", port.stopListening)
        if isinstance(server, HTTPServer):
            yield self._quietly("finishing the last requests", server.stop)
        if app_service is not None:
            stopping = self._quietly("stopping app.service", app_service.stopService)
            yield stopping.addTimeout(STOP_TIMEOUT, self._reactor, _took_too_long)

    def _quietly(self, what: str, do: Any) -> Deferred[Any]:
        """One step of stopping: a failure is logged, and the next step still runs."""

        def failed(failure: Failure) -> None:
            if not failure.check(CancelledError):
                log.error("%s: failed while %s", self.label, what, exc_info=failure.value)

        return maybeDeferred(do).addErrback(failed)


def _service_of(app: Any) -> Any:
    """What has to run for *app*: its ``service``, and its database where nobody else starts that."""
    own = getattr(app, "service", None)
    database = (getattr(app, "settings", None) or {}).get("database")
    if database is own or not IService.providedBy(database) or database.parent or database.running:
        return own
    if own is None:
        return database
    both = MultiService()
    database.setServiceParent(both)
    # Stops first, as it may need the database for that.
    own.setServiceParent(both)
    return both


def start_app_service(app_service: Any) -> Deferred[Any]:
    """Start *app_service*; fires when it, and what it is made of, can be used.

    Ready is what its ``startService`` waits for, and a ``when_ready()`` of it or of its parts, as the
    database pool has.
    """
    app_service.privilegedStartService()
    started = maybeDeferred(app_service.startService)
    return started.addCallback(lambda _: gatherResults(_ready(app_service), consumeErrors=True))


def _ready(app_service: Any) -> list[Deferred[Any]]:
    found = [app_service.when_ready()] if hasattr(app_service, "when_ready") else []
    if IServiceCollection.providedBy(app_service):
        for part in app_service:
            found += _ready(part)
    return found


def _took_too_long(_: object, seconds: float) -> None:
    log.error("app.service did not stop within %g s; going on without it", seconds)


def turn_debug_on(app: Any) -> None:
    """Give *app* the settings that ``Application(debug=True)`` has, those it set itself excepted."""
    settings = getattr(app, "settings", None)
    if settings is None:
        return
    settings["debug"] = True
    for setting, value in {
        "serve_traceback": True,
        "compiled_template_cache": False,
        "static_hash_cache": False,
    }.items():
        settings.setdefault(setting, value)


def address_of(endpoint: str, port: IListeningPort) -> str:
    """What a person types to reach *port*: a URL, or the path of a socket."""
    host: Any = port.getHost()
    path = getattr(host, "name", None)
    if path is not None:
        return f"unix:{path.decode() if isinstance(path, bytes) else path}"
    scheme = "https" if endpoint.startswith("ssl:") else "http"
    name = f"[{host.host}]" if ":" in host.host else host.host
    return f"{scheme}://{name}:{host.port}"
