"""Small programs in the style of Bottle: functions with a route each, and ``run`` at the end.

::

    from cycloneish.bottle import route, run

    @route("/")
    def index(web):
        web.write("Hello, world")

    @route("/auth/login", method="post")
    async def login(web):
        ...

    run(host="127.0.0.1", port=8888)

Each function gets the handler of the request. Routes are collected until :func:`create_app` or :func:`run`
makes an application of them. Counterpart: ``cyclone.bottle``.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, TextIO, cast

from twisted.logger import globalLogBeginner, textFileLogObserver

from cycloneish.log import logging_to_twisted
from cycloneish.web import Application, RequestHandler

__all__ = ["Router", "create_app", "delete", "get", "patch", "post", "put", "route", "run"]

_Function = Callable[..., Any]

# Path, method and function of each route, in the order in which they were written.
_routes: list[tuple[str, str, _Function]] = []


class Router:
    """The functions of one path.

    :ivar items: pairs of method (or ``default``) and function.
    """

    def __init__(self) -> None:
        self.items: list[tuple[str, _Function]] = []
        self.base_handler: type[RequestHandler] = RequestHandler

    def add(self, method: str, callback: _Function) -> None:
        """Have *callback* answer *method*, the last one where there are several."""
        self.items.append((method, callback))

    def handler_class(self) -> type[RequestHandler]:
        """A subclass of the base handler with the functions as its methods."""
        methods = {method.lower(): _as_method(callback) for method, callback in self.items}
        supported = self.base_handler.SUPPORTED_METHODS
        methods["SUPPORTED_METHODS"] = (
            *supported,
            *(m.upper() for m in methods if m.upper() not in supported),
        )
        return cast("type[RequestHandler]", type("BottleHandler", (self.base_handler,), methods))

    def __call__(self, *args: Any, **kwargs: Any) -> RequestHandler:
        """Make a handler; the arguments are those of ``RequestHandler``."""
        return self.handler_class()(*args, **kwargs)


def _as_method(callback: _Function) -> Any:
    @functools.wraps(callback)
    def method(self: RequestHandler, *args: Any, **kwargs: Any) -> Any:
        return callback(self, *args, **kwargs)

    return method


def route(
    path: Any = None,
    method: str = "GET",
    callback: _Function | None = None,
    **kwargs: Any,  # noqa: ARG001
) -> Callable[[_Function], _Function]:
    """Decorate a function that answers requests for *path*.

    :param path: a pattern, as in the routes of an ``Application``; the function gets what its groups match.
    :param method: the HTTP method, in any case; ``any`` for all that have no function of their own.
    :param callback: the function, where this is not used as a decorator.
    :raises TypeError: there is no path.
    """
    if not isinstance(path, str):
        raise TypeError('a route needs its path: @route("/")')

    def decorator(function: _Function) -> _Function:
        _routes.append((path, "default" if method.lower() == "any" else method.lower(), function))
        return function

    return decorator if callback is None else decorator(callback)


def get(path: str) -> Callable[[_Function], _Function]:
    """``route(path, method="get")``; the functions below do the same for their methods."""
    return route(path, "get")


def post(path: str) -> Callable[[_Function], _Function]:
    """See :func:`get`."""
    return route(path, "post")


def put(path: str) -> Callable[[_Function], _Function]:
    """See :func:`get`."""
    return route(path, "put")


def patch(path: str) -> Callable[[_Function], _Function]:
    """See :func:`get`."""
    return route(path, "patch")


def delete(path: str) -> Callable[[_Function], _Function]:
    """See :func:`get`."""
    return route(path, "delete")


def create_app(**settings: Any) -> Application:
    """Make an application of the routes that were written so far; the next one begins without any.

    :param settings: *base_handler*, the class of the handlers; *more_handlers*, a list of further routes, as
        ``Application`` takes them. The others are the application's settings.
    """
    base_handler = settings.pop("base_handler", RequestHandler)
    routers: dict[str, Router] = {}
    for path, method, callback in _routes:
        routers.setdefault(path, Router()).add(method, callback)
    _routes.clear()
    for router in routers.values():
        router.base_handler = base_handler
    handlers = [(path, router.handler_class()) for path, router in routers.items()]
    return Application([*handlers, *settings.pop("more_handlers", [])], **settings)


def run(**settings: Any) -> None:
    """Serve the routes until the program is ended.

    :param settings: *host*, the address to listen on (all by default); *port* (8888); *log*, the open file
        that is logged to (standard output), None for none; *reactor*. The others are those of
        :func:`create_app`.
    """
    reactor = settings.pop("reactor", None)
    if reactor is None:
        from twisted.internet import reactor
    log: TextIO | None = settings.pop("log", sys.stdout)
    if log is not None:
        globalLogBeginner.beginLoggingTo([textFileLogObserver(log)], redirectStandardIO=False)
        logging_to_twisted()
    port = settings.pop("port", 8888)
    interface = settings.pop("host", "0.0.0.0")  # noqa: S104 (as in Cyclone)
    app = create_app(**settings)
    reactor.listenTCP(port, app, interface=interface)
    reactor.run()
