"""Ready-made handlers that hold no content of their own: redirect, error and fallback.

Applications name them in their list of routes; `cycloneish.web.application` uses `ErrorHandler` for
what no route matches.
"""

from __future__ import annotations

import string
from collections.abc import Awaitable, Callable
from typing import Any, cast

from cycloneish import httputil
from cycloneish.web.browser_urls import has_control_characters, site_of
from cycloneish.web.decorators import stream_request_body
from cycloneish.web.errors import HTTPError
from cycloneish.web.handler import RequestHandler
from cycloneish.web.mount import Mountable, MountedMessage

__all__ = ["ErrorHandler", "FallbackHandler", "RedirectHandler"]


class RedirectHandler(RequestHandler):
    """Answers GET and HEAD with a redirect.

    The target may have the groups of the route's pattern put in, in the manner of `str.format`, and
    takes over the query arguments of the request::

        Application([
            (r"/old", RedirectHandler, {"url": "/new"}),
            (r"/blog/([0-9]+)/(.*)", RedirectHandler, {"url": "/articles/{1}?year={0}"}),
        ])

    What is put in cannot change where the redirect leads: when the scheme or the host of the result is
    not that of *url* up to its first replacement field, the answer is 400.

    Counterpart: `tornado.web.RedirectHandler`.
    """

    def initialize(self, url: str, permanent: bool = True) -> None:
        """Take the arguments of the route: the target, and whether the answer is 301 (*permanent*) or 302."""
        self._url = url
        self._permanent = permanent

    def get(self, *args: Any, **kwargs: Any) -> None:
        """Redirect."""
        target = self._url.format(*args, **kwargs)
        if self.request.query_arguments:
            # Values are bytes, which urlencode takes as they are.
            pairs = cast("list[tuple[str, str]]", list(httputil.qs_to_qsl(self.request.query_arguments)))
            try:
                target = httputil.url_concat(target, pairs)
            except ValueError:
                raise HTTPError(400, "Redirect URL cannot change the scheme or netloc") from None
        if not _keeps_site(self._url, target):
            raise HTTPError(400, "Redirect URL cannot change the scheme or netloc")
        if has_control_characters(target):
            raise HTTPError(400, "Redirect URL contains invalid characters")
        self.redirect(target, permanent=self._permanent)

    def head(self, *args: Any, **kwargs: Any) -> None:
        """Redirect."""
        self.get(*args, **kwargs)


def _keeps_site(template: str, target: str) -> bool:
    """Whether *target*, made from *template*, leads to the site that the template names by itself."""
    fixed = ""
    has_field = False
    for literal, field, _, _ in string.Formatter().parse(template):
        fixed += literal
        if field is not None:
            has_field = True
            break
    try:
        scheme, host = site_of(fixed)
        if has_field and scheme in ("http", "https") and not host:
            return False  # "https://{0}": the host would come from the request
        return site_of(target) == (scheme, host)
    except ValueError:
        return False


class ErrorHandler(RequestHandler):
    """Answers every request with the status *status_code*.

    Counterpart: `tornado.web.ErrorHandler`.
    """

    def initialize(self, status_code: int) -> None:
        """Take the argument of the route."""
        self.set_status(status_code)

    def prepare(self) -> Awaitable[None] | None:
        """Answer."""
        raise HTTPError(self._status_code)

    def check_xsrf_cookie(self) -> None:
        """Ask for no token: a 403 in place of the 404 would tell nothing."""

    def check_trusted_origin(self, origin: str) -> bool:
        """Trust everybody, as nothing is done here; see `check_xsrf_cookie`."""
        return True


class _AnyMethod(tuple[str, ...]):
    """A tuple of methods that has every method in it: what the fallback supports is for it to say."""

    __slots__ = ()

    def __contains__(self, method: object) -> bool:
        return True


@stream_request_body
class FallbackHandler(RequestHandler):
    """Hands the request to another server callback: an application, a WSGI container, a twisted.web resource.

    ::

        Application([
            (r"/api/.*", ApiHandler),
            (r".*", FallbackHandler, {"fallback": WSGIContainer(django_app)}),
        ])

    *fallback* is called with the `HTTPServerRequest` once the body is there, and answers through
    `request.connection`. A `cycloneish.web.mount.Mountable`, such as `cycloneish.wsgi.WSGIContainer` or
    `cycloneish.resource.ResourceContainer`, gets the body as it arrives instead.

    As the handler does not wait for the body, an application with the setting `xsrf_cookies` has to
    send the token in a header, not in a field of the form; or override `check_xsrf_cookie` and leave it
    to the fallback.

    Counterpart: `tornado.web.FallbackHandler`.
    """

    SUPPORTED_METHODS = _AnyMethod(RequestHandler.SUPPORTED_METHODS)

    def initialize(self, fallback: Callable[[httputil.HTTPServerRequest], Any]) -> None:
        """Take the argument of the route."""
        self.fallback = fallback
        self._message: MountedMessage | None = None
        self._body = bytearray()

    def prepare(self) -> Awaitable[None] | None:
        """Hand the request on as soon as its head is there, to a fallback that can take it so early."""
        if isinstance(self.fallback, Mountable):
            self._message = self.fallback.open_request(self.request)
            self._message.answered.addBoth(self._answered)
        return None

    def _log(self) -> None:
        """Leave the access log to the fallback, which knows the status."""

    def _answered(self, _result: object) -> None:
        if not self._concluded:
            self._finished = True
            self._conclude()

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        """Hand a part of the body on; the fallback's wait holds back the client."""
        if self._message is not None:
            return self._message.data_received(chunk)
        self._body += chunk
        return None

    def _hand_over(self, *_args: Any, **_kwargs: Any) -> None:
        # The answer belongs to the fallback.
        if self._message is not None:
            self._auto_finish = False
            self._message.finish()
        else:
            self.request.body = bytes(self._body)
            self._finished = True
            self.fallback(self.request)
            self.on_finish()

    get = head = post = put = patch = delete = options = _hand_over

    def _verb(self) -> Callable[..., Any]:
        # Methods beyond the usual ones (WebDAV's, say) are not looked up by name: a request with the method
        # WRITE, FINISH or DETACH would call what the handler itself is made of.
        if self.request.method in RequestHandler.SUPPORTED_METHODS:
            return super()._verb()
        return self._hand_over

    def on_connection_close(self, *args: Any, **kwargs: Any) -> None:
        """Tell the fallback that the client is gone."""
        if self._message is not None:
            self._message.on_connection_close()
        super().on_connection_close()
