"""`Application`: the routes, the settings, and what all handlers of a program share.

Given to `cycloneish.httpserver.HTTPServer`, to `reactor.listenTCP`, to `twistd cycloneish --app`, or as a
target to a router.
"""

from __future__ import annotations

import logging
import re
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory
from zope.interface import implementer

from cycloneish import autoreload
from cycloneish.http.http1 import HTTP1ServerConnection
from cycloneish.httpserver import HTTPServer
from cycloneish.httputil import HTTPConnection, HTTPMessageDelegate, HTTPServerRequest, RequestStartLine
from cycloneish.log import access_log
from cycloneish.routing import (
    AnyMatches,
    DefaultHostMatches,
    HostMatches,
    PathMatches,
    ReversibleRouter,
    ReversibleRuleRouter,
    Router,
    Rule,
    RuleList,
)
from cycloneish.util import ObjectDict
from cycloneish.web.dispatch import ApplicationDelegate, HandlerDelegate
from cycloneish.web.handler import RequestHandler
from cycloneish.web.redirects import ErrorHandler
from cycloneish.web.static import StaticFileHandler
from cycloneish.web.transforms import GZipContentEncoding, OutputTransform
from cycloneish.web.uimodules import LinkifyModule, TemplateModule, UIModule, XsrfFormModule
from cycloneish.web.unhandled import watch

__all__ = ["Application"]

# Handler, arguments of `initialize`, unnamed and named groups of the path.
_Route = tuple[type[RequestHandler], dict[str, Any], Sequence[bytes], dict[str, bytes]]

# Matchers whose answer depends on nothing but the host and the path, so that it can be remembered.
_STEADY = frozenset((AnyMatches, HostMatches, PathMatches))
_MAX_ROUTES = 1024
_ANY_HOST = re.compile(".*$")
_MAX_ROUTE_LENGTH = 256


class _ApplicationRouter(ReversibleRuleRouter):
    """A router whose targets may also be handler classes and lists of rules."""

    def __init__(self, application: Application, rules: RuleList | None = None) -> None:
        self.application = application
        super().__init__(rules)

    def nested_router(self, rules: RuleList) -> Router:
        return _ApplicationRouter(self.application, rules)

    def get_target_delegate(
        self, target: Any, request: HTTPServerRequest, **target_params: Any
    ) -> HTTPMessageDelegate | None:
        if isinstance(target, type) and issubclass(target, RequestHandler):
            return self.application.get_handler_delegate(request, target, **target_params)
        return super().get_target_delegate(target, request, **target_params)


class _Search:
    """One walk through the routers; *steady* if its result holds for all requests of this host and path."""

    __slots__ = ("indexes", "steady")

    def __init__(self) -> None:
        self.steady = True
        # The rules that were looked at, each with the index that is exchanged when they change.
        self.indexes: list[tuple[Any, Any]] = []

    def run(
        self, router: ReversibleRuleRouter, request: HTTPServerRequest
    ) -> _Route | HTTPMessageDelegate | None:
        path = request.path
        candidates = router.candidates(path)
        self.indexes.append((router._rules, router._rules.by_path))
        for prefix, rule in candidates:
            if not path.startswith(prefix):
                continue
            matcher = rule.matcher
            if type(matcher) not in _STEADY:
                self.steady = False
            params = matcher.match(request)
            if params is None:
                continue
            target = rule.target
            found: _Route | HTTPMessageDelegate | None
            if type(target) is _ApplicationRouter:
                found = self.run(target, request)
            elif isinstance(target, type) and issubclass(target, RequestHandler):
                return (
                    target,
                    rule.target_kwargs,
                    params.get("path_args") or (),
                    params.get("path_kwargs") or {},
                )
            else:
                self.steady = False
                if rule.target_kwargs:
                    params["target_kwargs"] = rule.target_kwargs
                found = router.get_target_delegate(target, request, **params)
            if found is not None:
                return found
        return None


@implementer(IProtocolFactory)
class Application(ReversibleRouter):
    """A web application.

    :param handlers: the routes, tried in order: tuples of pattern, handler class, and optionally keyword
        arguments for its `initialize` and a name for `reverse_url`; or `URLSpec` and `Rule` objects. In place
        of a handler class there may be a list of further routes, another router or application, or any
        `HTTPServerConnectionDelegate`.
    :param default_host: for requests whose host matches none of those of `add_handlers`.
    :param transforms: what responses go through, in place of what `compress_response` asks for.
    :param error_handler: the handler of what matches no route, in place of `ErrorHandler`; its `initialize`
        is given `status_code=404` (Cyclone). The setting `default_handler_class`, Tornado's, goes first.
    :param settings: everything else. Those of this package are in the reference; others are the program's
        own.

    ::

        app = Application([(r"/", MainHandler), (r"/user/([0-9]+)", UserHandler, {"db": db}, "user")],
        debug=True) app.listen(8888)

    It is a Twisted factory too, the Cyclone way: `reactor.listenTCP(8888, app)`. Arguments for the server it
    then makes are in the setting `server_options`.

    Counterpart: `tornado.web.Application`.
    """

    noisy = False
    protocol: Any = HTTP1ServerConnection
    """What `buildProtocol` makes: a Twisted factory has this attribute."""
    service: Any = None
    """A Twisted service that `twistd cycloneish` starts before the port opens and stops after the last
    request: databases, queues, whatever the handlers need."""

    def __init__(
        self,
        handlers: RuleList | None = None,
        default_host: str | None = None,
        transforms: list[type[OutputTransform]] | None = None,
        error_handler: type[RequestHandler] | None = None,
        **settings: Any,
    ) -> None:
        settings = self.settings = ObjectDict(settings)
        self.error_handler = error_handler or ErrorHandler
        self.default_host = default_host
        if transforms is not None:
            self.transforms = transforms
        else:
            self.transforms = []
            if settings.get("compress_response") or settings.get("gzip"):
                self.transforms.append(GZipContentEncoding)
        if settings.get("debug"):
            for name, value in _DEBUG_SETTINGS.items():
                settings.setdefault(name, value)
        self.ui_modules: dict[str, type[UIModule]] = {
            "linkify": LinkifyModule,
            "xsrf_form_html": XsrfFormModule,
            "Template": TemplateModule,
        }
        self.ui_methods: dict[str, Callable[..., Any]] = {}
        self._load_ui_modules(settings.get("ui_modules", {}))
        self._load_ui_methods(settings.get("ui_methods", {}))
        watch()
        self._server: HTTPServer | None = None
        self._ports = 0
        self._routes: dict[tuple[str, str], _Route] = {}
        self._route_indexes: list[tuple[Any, Any]] = []
        self.wildcard_router = _ApplicationRouter(self, [*self._static_routes(), *(handlers or ())])
        self.default_router = _ApplicationRouter(self, [Rule(AnyMatches(), self.wildcard_router)])

    def _static_routes(self) -> list[tuple[str, Any, dict[str, Any]]]:
        path = self.settings.get("static_path")
        if not path:
            return []
        arguments = {**self.settings.get("static_handler_args", {}), "path": path}
        prefix = re.escape(self.settings.get("static_url_prefix", "/static/"))
        return [
            (pattern, self.static_handler_class, arguments)
            for pattern in (r"/(robots\.txt)", r"/(favicon\.ico)", prefix + r"(.*)")
        ]

    @property
    def static_handler_class(self) -> Any:
        """What serves `static_path` and knows the versions of its files: the setting of this name."""
        return self.settings.get("static_handler_class") or StaticFileHandler

    # -- serving -----------------------------------------------------------------------------------

    def listen(self, port: int | str, address: str | None = None, **kwargs: Any) -> HTTPServer:
        """Serve the application on a port.

        :param port: a number, or a Twisted endpoint string.
        :param kwargs: `backlog` and `reuse_port` are for the port (`family` and `flags` are accepted and not
            needed), the others for the server.
        :returns: the server, to be stopped with its `stop`.
        """
        options = {
            name: kwargs.pop(name) for name in ("backlog", "family", "flags", "reuse_port") if name in kwargs
        }
        server = HTTPServer(self, **{**self._server_options(), **kwargs})
        if isinstance(port, str):
            server.listen(port, **options)
        else:
            server.listen(port, address, **options)
        self._start_autoreload()
        return server

    def _server_options(self) -> dict[str, Any]:
        options = dict(self.settings.get("server_options", {}))
        if "xheaders" in self.settings:  # Cyclone's place for it
            options.setdefault("xheaders", bool(self.settings["xheaders"]))
        return options

    def _start_autoreload(self) -> None:
        if self.settings.get("autoreload"):
            autoreload.start()

    def doStart(self) -> None:
        """Called by Twisted for every port that the application is given to."""
        if self._server is None:
            self._server = HTTPServer(self, **self._server_options())
            self._start_autoreload()
        self._ports += 1
        self._server.doStart()  # type: ignore[no-untyped-call]

    def doStop(self) -> None:
        """Called by Twisted when such a port is closed."""
        if self._server is not None and self._ports:
            self._ports -= 1
            self._server.doStop()  # type: ignore[no-untyped-call]

    def buildProtocol(self, addr: IAddress) -> IProtocol | None:
        """Called by Twisted for every connection to such a port."""
        if self._server is None:
            self._server = HTTPServer(self, **self._server_options())
        return self._server.buildProtocol(addr)

    # -- routes ------------------------------------------------------------------------------------

    def add_handlers(self, host_pattern: str, host_handlers: RuleList) -> None:
        """Add routes for the hosts that match *host_pattern*; they are tried before those without a host."""
        host_matcher = HostMatches(host_pattern)
        self.default_router.rules.insert(-1, Rule(host_matcher, _ApplicationRouter(self, host_handlers)))
        if self.default_host is not None:
            self.wildcard_router.add_rules(
                [(DefaultHostMatches(self, host_matcher.host_pattern), host_handlers)]
            )

    def reverse_url(self, name: str, *args: Any, **kwargs: Any) -> str:
        """The path of the route called *name*.

        :param args: for the groups of its pattern; made text and percent-encoded.
        :param kwargs: the same by the names of the groups.
        :raises KeyError: there is no such route.
        """
        found = self.default_router.reverse_url(name, *args, **kwargs)
        if found is None:
            raise KeyError(f"{name} not found in named urls")
        return found

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        """Called by the engine for every request."""
        return ApplicationDelegate(self, server_conn, request_conn)

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> HTTPMessageDelegate:
        """Return the delegate that answers *request*: that of the first route that matches.

        If there is none, that of the setting `default_handler_class` (with `default_handler_args`), else of
        an `ErrorHandler` for 404.
        """
        found = self._find_route(request)
        return found if isinstance(found, HTTPMessageDelegate) else self.get_handler_delegate(request, *found)

    def get_handler_delegate(
        self,
        request: HTTPServerRequest,
        target_class: type[RequestHandler],
        target_kwargs: dict[str, Any] | None = None,
        path_args: Sequence[bytes] | None = None,
        path_kwargs: dict[str, bytes] | None = None,
    ) -> HTTPMessageDelegate:
        """Return a delegate that answers *request* with a handler of the class *target_class*.

        :param target_kwargs: for its `initialize`.
        :param path_args: for its verb method, as bytes; they are decoded by `decode_argument`.
        :param path_kwargs: the same by name.
        """
        return HandlerDelegate(self, request, target_class, target_kwargs, path_args, path_kwargs)

    def _find(self, request: HTTPServerRequest) -> _Route | HTTPMessageDelegate:
        """What `find_handler` would return, without making a delegate where the caller is one already."""
        cls = type(self)
        if cls is not Application and (
            cls.find_handler is not Application.find_handler
            or cls.get_handler_delegate is not Application.get_handler_delegate
        ):
            return self.find_handler(request)
        return self._find_route(request)

    def _find_route(self, request: HTTPServerRequest) -> _Route | HTTPMessageDelegate:
        key = (request.host_name, request.path)
        found: _Route | HTTPMessageDelegate | None = self._routes.get(key)
        for rules, index in self._route_indexes:
            if rules.by_path is not index:
                # Somebody has changed the routes.
                self._routes.clear()
                self._route_indexes.clear()
                found = None
                break
        if found is not None:
            return found
        search = _Search()
        found = search.run(self.default_router, request)
        if found is None:
            settings = self.settings
            if settings.get("default_handler_class"):
                return settings["default_handler_class"], settings.get("default_handler_args") or {}, (), {}
            return self.error_handler, {"status_code": 404}, (), {}
        if search.steady and len(key[0]) + len(key[1]) <= _MAX_ROUTE_LENGTH:
            if len(self._routes) >= _MAX_ROUTES:
                self._routes.clear()
            self._routes[key] = cast("_Route", found)
            for pair in search.indexes:
                if not any(pair[0] is rules for rules, _ in self._route_indexes):
                    self._route_indexes.append(pair)
        return found

    def __call__(self, request: HTTPServerRequest) -> None:
        """Answer a request whose body is there: what `FallbackHandler` and old servers call."""
        delegate = self.find_handler(request)
        if isinstance(delegate, HandlerDelegate):
            delegate.execute()
            return
        delegate.headers_received(
            RequestStartLine(request.method, request.uri, request.version), request.headers
        )
        if request.body:
            delegate.data_received(request.body)
        delegate.finish()

    @property
    def named_handlers(self) -> dict[str, Rule]:
        """The routes that `reverse_url` knows, by name (Cyclone)."""
        return {name: rule for router in self._routers() for name, rule in router.named_rules.items()}

    @property
    def handlers(self) -> list[tuple[re.Pattern[str], list[Rule]]]:
        """For each pattern of hosts its routes (Cyclone); to change them, use `add_handlers`."""
        return [
            (getattr(rule.matcher, "host_pattern", _ANY_HOST), list(rule.target.rules))
            for rule in self.default_router.rules
            if isinstance(rule.target, _ApplicationRouter)
        ]

    def _routers(self) -> list[_ApplicationRouter]:
        routers = [self.default_router]
        for router in routers:  # grows while it is walked through
            routers += [rule.target for rule in router.rules if isinstance(rule.target, _ApplicationRouter)]
        return routers

    # -- the rest ----------------------------------------------------------------------------------

    def add_transform(self, transform_class: type[OutputTransform]) -> None:
        """Send every response through another transform, after those that are there."""
        self.transforms.append(transform_class)

    def log_request(self, handler: RequestHandler) -> None:
        """Write a line for a completed request to the access log, or call the setting `log_function` with the
        handler.

        The level is INFO, from 400 on WARNING, from 500 on ERROR.
        """
        log_function = self.settings.get("log_function")
        if log_function is not None:
            log_function(handler)
            return
        status = handler.get_status()
        level = logging.INFO if status < 400 else logging.WARNING if status < 500 else logging.ERROR
        if access_log.isEnabledFor(level):
            access_log.log(
                level,
                "%d %s %.2fms",
                status,
                handler._request_summary(),
                1000.0 * handler.request.request_time(),
            )

    def _load_ui_methods(self, methods: Any) -> None:
        for name, method in _named(methods):
            if not name.startswith("_") and callable(method) and name[0].lower() == name[0]:
                self.ui_methods[name] = method

    def _load_ui_modules(self, modules: Any) -> None:
        for name, module in _named(modules):
            if isinstance(module, type) and issubclass(module, UIModule):
                self.ui_modules[name] = module


_DEBUG_SETTINGS = {
    "autoreload": True,
    "compiled_template_cache": False,
    "static_hash_cache": False,
    "serve_traceback": True,
}


def _named(source: Any) -> list[tuple[str, Any]]:
    """Names and values of a dictionary, a Python module, or a list of these."""
    if isinstance(source, types.ModuleType):
        return [(name, getattr(source, name)) for name in dir(source)]
    if isinstance(source, Mapping):
        return list(source.items())
    return [item for part in source for item in _named(part)]
