"""Decorators for the methods of a handler, and for handlers."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, Concatenate, ParamSpec, TypeVar
from urllib.parse import urlencode, urlsplit

from cycloneish.web.browser_urls import is_protocol_relative
from cycloneish.web.errors import HTTPError
from cycloneish.web.handler import RequestHandler

__all__ = ["addslash", "asynchronous", "authenticated", "removeslash", "stream_request_body"]

_Handler = TypeVar("_Handler", bound=RequestHandler)
_P = ParamSpec("_P")
_Result = Awaitable[Any] | None
_Method = Callable[Concatenate[_Handler, _P], _Result]


def authenticated(method: _Method[_Handler, _P]) -> _Method[_Handler, _P]:
    """Let only those in who are signed in, that is, for whom `current_user` is true.

    A GET or HEAD of anybody else is redirected to `get_login_url`, with the way back in the argument `next`
    (unless the login URL has arguments of its own); other methods are answered with 403. Where to go after
    signing in is for the login page to check: `next` comes from the address bar.
    """

    @functools.wraps(method)
    def wrapper(self: _Handler, /, *args: _P.args, **kwargs: _P.kwargs) -> _Result:
        if not self.current_user:
            request = self.request
            if request.method not in ("GET", "HEAD"):
                raise HTTPError(403)
            url = self.get_login_url()
            if "?" not in url:
                # To come back from another host, the whole address is needed.
                back = request.full_url() if urlsplit(url).scheme else request.uri
                url += "?" + urlencode({"next": back})
            self.redirect(url)
            return None
        return method(self, *args, **kwargs)

    return wrapper


def removeslash(method: _Method[_Handler, _P]) -> _Method[_Handler, _P]:
    """Redirect `/path/` to `/path`; the route has to match both, as `/path/*` does."""

    @functools.wraps(method)
    def wrapper(self: _Handler, /, *args: _P.args, **kwargs: _P.kwargs) -> _Result:
        path = self.request.path
        if path.endswith("/"):
            _require_get(self)
            target = path.rstrip("/")
            if target:  # "/" stays what it is
                _redirect_to_path(self, target)
                return None
        return method(self, *args, **kwargs)

    return wrapper


def addslash(method: _Method[_Handler, _P]) -> _Method[_Handler, _P]:
    """Redirect `/path` to `/path/`; the route has to match both, as `/path/?` does."""

    @functools.wraps(method)
    def wrapper(self: _Handler, /, *args: _P.args, **kwargs: _P.kwargs) -> _Result:
        if not self.request.path.endswith("/"):
            _require_get(self)
            _redirect_to_path(self, self.request.path + "/")
            return None
        return method(self, *args, **kwargs)

    return wrapper


def _require_get(handler: RequestHandler) -> None:
    # A redirect would turn the request into a GET and lose its body.
    if handler.request.method not in ("GET", "HEAD"):
        raise HTTPError(404)


def _redirect_to_path(handler: RequestHandler, path: str) -> None:
    if is_protocol_relative(path):
        # "//other.example/" names a host, not a path.
        raise HTTPError(403, "cannot redirect path with two initial slashes")
    query = handler.request.query
    handler.redirect(f"{path}?{query}" if query else path, permanent=True)


def stream_request_body(cls: type[_Handler]) -> type[_Handler]:
    """Make a handler take its body piece by piece instead of whole.

    `prepare` is called when the head is there, before a byte of the body is read: it may check who sends,
    call `set_max_body_size`, or answer at once. Then `data_received` gets each piece; nothing more is read
    before the awaitable it returns is done. The verb method comes last. There is no `request.body`, and no
    body arguments.
    """
    if not (isinstance(cls, type) and issubclass(cls, RequestHandler)):
        raise TypeError(f"@stream_request_body is for subclasses of RequestHandler, not {cls!r}")
    cls._stream_request_body = True
    return cls


def asynchronous(method: _Method[_Handler, _P]) -> _Method[_Handler, _P]:
    """Keep the request open when the method returns; somebody has to call `finish` (Cyclone).

    Not needed for a method that returns a Deferred or an awaitable.
    """

    @functools.wraps(method)
    def wrapper(self: _Handler, /, *args: _P.args, **kwargs: _P.kwargs) -> _Result:
        self._auto_finish = False
        return method(self, *args, **kwargs)

    return wrapper
