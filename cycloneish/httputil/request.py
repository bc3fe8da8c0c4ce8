"""The request as a handler sees it.

Made once per request by the web layer (or a router) when the head has arrived. Everything that a handler
may never ask for (arguments, form, cookies) is worked out on first access, so that making a request costs
about a microsecond.
"""

from __future__ import annotations

import time
from http.cookies import CookieError, SimpleCookie
from itertools import islice
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from cycloneish.escape import parse_qs_bytes
from cycloneish.httputil.certificate import certificate_der, certificate_dict
from cycloneish.httputil.cookies import is_cookie_name, parse_cookie
from cycloneish.httputil.errors import HTTPInputError
from cycloneish.httputil.forms import HTTPFile, get_parse_body_config, parse_body_arguments
from cycloneish.httputil.grammar import RequestStartLine, host_name
from cycloneish.httputil.headers import HTTPHeaders
from cycloneish.httputil.interfaces import HTTPConnection
from cycloneish.httputil.pieces import Pieces

__all__ = ["HTTPServerRequest"]

#: Browsers send some 200. A morsel takes half a kilobyte and its time, whatever is in it: a head full of
#: tiny cookies would be worth 5 MB for as long as its request lasts.
_MOST_COOKIES: Final = 1000


class HTTPServerRequest:
    """One HTTP request.

    Attributes, all of them settable:

    * ``method``, ``uri``, ``path``, ``query``, ``version``: strings; ``uri`` is the request target, and
      ``path`` and ``query`` are what stands before and after its first question mark, still
      percent-encoded.
    * ``headers``: :class:`~cycloneish.httputil.HTTPHeaders`.
    * ``body``: bytes; empty while the body streams.
    * ``host``: value of the Host header; ``host_name``: the same in lower case without a port.
    * ``remote_ip``, ``protocol`` ("http" or "https"): from the connection, which may have them from a
      trusted proxy.
    * ``connection``: an :class:`~cycloneish.httputil.HTTPConnection`; ``server_connection``: stands for the
      long-lived connection.

    Either *start_line* or *method* and *uri* say what is requested.

    :raises HTTPInputError: the Host header is missing in HTTP/1.1, invalid or repeated, or the query string
        has more fields than the limit (:func:`~cycloneish.httputil.set_parse_body_config`).

    Counterpart: ``tornado.httputil.HTTPServerRequest``, with ``write``, ``finish`` and ``notifyFinish`` of
    ``cyclone.httpserver.HTTPRequest``.
    """

    # Defaults of what is worked out later; they stand on the class so that making an instance does not pay
    # for them.
    _form_body: bytes | Pieces | None = None
    _arguments: dict[str, list[bytes]] | None = None
    _body_arguments: dict[str, list[bytes]] | None = None
    _query_arguments: dict[str, list[bytes]] | None = None
    # What came. It is not given out, so that what is done to one of the three above does not show in another.
    _form: dict[str, list[bytes]]
    _query: dict[str, list[bytes]] | None = None
    _files: dict[str, list[HTTPFile]]
    _given_files: dict[str, list[HTTPFile]] | None = None
    _cookies: SimpleCookie | None = None
    _cookie_values: dict[str, str] | None = None
    _finish_time: float | None = None
    _waiting: list[Deferred[None]] | None = None

    def __init__(
        self,
        method: str | None = None,
        uri: str | None = None,
        version: str = "HTTP/1.0",
        headers: HTTPHeaders | None = None,
        body: bytes | None = None,
        host: str | None = None,
        files: dict[str, list[HTTPFile]] | None = None,
        connection: HTTPConnection | None = None,
        start_line: RequestStartLine | None = None,
        server_connection: object | None = None,
    ) -> None:
        self._start_time = time.monotonic()
        if start_line is not None:
            method, uri, version = start_line
        elif uri is None:
            uri = "/"
        self.method: str = method or "GET"
        self.uri: str = uri
        self.version = version
        self.path, _, self.query = uri.partition("?")
        if headers is None:
            headers = HTTPHeaders()
        if host is not None:
            headers["Host"] = host
        else:
            found = headers._values.get("Host")
            if found is None:
                if version != "HTTP/1.0":
                    raise HTTPInputError("Missing Host header")
                host = "127.0.0.1"
            elif isinstance(found, str):
                host = found
            else:
                raise HTTPInputError("Multiple Host headers not allowed")
        name = host_name(host)
        if name is None:
            raise HTTPInputError(f"Invalid Host header: {host[:100]!r}")
        self.headers = headers
        self.host = host
        self.host_name = name
        self._body: bytes | Pieces = body or b""
        if files:
            self._given_files = files
        self.connection = connection
        self.server_connection = server_connection
        context = getattr(connection, "context", None)
        if context is None:
            self.remote_ip: str | None = None
            self.protocol: str = "http"
        else:
            self.remote_ip = getattr(context, "remote_ip", None)
            self.protocol = getattr(context, "protocol", "http")
        if "&" in self.query:
            limit = get_parse_body_config().urlencoded.max_arguments
            if self.query.count("&") >= limit:
                raise HTTPInputError("Invalid query string: Max number of fields exceeded")

    @property
    def body(self) -> bytes:
        """The body as bytes."""
        body = self._body
        if isinstance(body, Pieces):
            whole = body.join()
            if self._form_body is body:
                self._form_body = whole
            self._body = body = whole
        return body

    @body.setter
    def body(self, value: bytes) -> None:
        self._body = value

    @property
    def query_arguments(self) -> dict[str, list[bytes]]:
        """Arguments of the query string: name to values, percent-decoded. Names are text, values bytes."""
        found = self._query_arguments
        if found is None:
            found = self._query_arguments = _copy(self._parse_query())
        return found

    @query_arguments.setter
    def query_arguments(self, value: dict[str, list[bytes]]) -> None:
        self._query_arguments = value

    def _known_query_arguments(self) -> dict[str, list[bytes]]:
        """What :attr:`query_arguments` has, to be looked at only."""
        found = self._query_arguments
        return self._parse_query() if found is None else found

    def _parse_query(self) -> dict[str, list[bytes]]:
        found = self._query
        if found is None:
            try:
                found = self._query = parse_qs_bytes(self.query, keep_blank_values=True)
            except UnicodeEncodeError as error:
                raise HTTPInputError("Invalid query string: not encoded") from error
        return found

    @property
    def body_arguments(self) -> dict[str, list[bytes]]:
        """Fields of a form body that are not files: name to values.

        :raises HTTPInputError: the body is a form, and malformed or over a limit. So do :attr:`arguments` and
            :attr:`files`.
        """
        known = self._known_body_arguments()
        if self._body_arguments is None:
            self._body_arguments = known = _copy(known)
        return known

    @body_arguments.setter
    def body_arguments(self, value: dict[str, list[bytes]]) -> None:
        if self._form_body is not self._body:
            self._parse_body()
        self._body_arguments = value

    def _known_body_arguments(self) -> dict[str, list[bytes]]:
        """What :attr:`body_arguments` has, to be looked at only."""
        if self._form_body is not self._body:
            self._parse_body()
        found = self._body_arguments
        return self._form if found is None else found

    @property
    def arguments(self) -> dict[str, list[bytes]]:
        """Arguments of the query string and of a form body together, as they came."""
        if self._form_body is not self._body:
            self._parse_body()
        found = self._arguments
        if found is None:
            found = _copy(self._parse_query())
            for name, values in self._form.items():
                found.setdefault(name, []).extend(values)
            self._arguments = found
        return found

    @arguments.setter
    def arguments(self, value: dict[str, list[bytes]]) -> None:
        if self._form_body is not self._body:
            self._parse_body()
        self._arguments = value

    def _known_arguments(self) -> dict[str, list[bytes]]:
        """What :attr:`arguments` has, to be looked at only: not put together where one part is all of it."""
        if self._form_body is not self._body:
            if self._form_body is None and not self._body and not self._given_files:
                return self._parse_query()
            self._parse_body()
        if self._arguments is None and not (self.query and self._parse_query()):
            return self._form
        return self.arguments

    @property
    def files(self) -> dict[str, list[HTTPFile]]:
        """Uploaded files: field name to a list of :class:`~cycloneish.httputil.HTTPFile`."""
        if self._form_body is not self._body:
            self._parse_body()
        return self._files

    @files.setter
    def files(self, value: dict[str, list[HTTPFile]]) -> None:
        if self._form_body is not self._body:
            self._parse_body()
        self._files = value

    def _parse_body(self) -> None:
        """Work out the arguments now instead of on first access, so that a malformed form fails here."""
        body = self._body
        fields: dict[str, list[bytes]] = {}
        files = dict(self._given_files) if self._given_files else {}
        if body and (content_type := self.headers.get("Content-Type")) is not None:
            parse_body_arguments(content_type, body, fields, files, self.headers, _strict=True)
        self._adopt_form(fields, files)

    def _adopt_form(self, fields: dict[str, list[bytes]], files: dict[str, list[HTTPFile]]) -> None:
        """Take fields and files that were parsed elsewhere, while the body streamed by."""
        self._arguments = self._body_arguments = None
        self._form = fields
        self._files = files
        # What was parsed belongs to this body; a handler that sets another one gets that one parsed.
        self._form_body = self._body

    @property
    def cookies(self) -> SimpleCookie:
        """The cookies as ``http.cookies.Morsel`` by name.

        Those with impossible names are left out, and those behind the first thousand names.
        """
        cookies = self._cookies
        if cookies is None:
            cookies = SimpleCookie()
            for name, value in self._parse_cookies().items():
                try:
                    cookies[name] = value
                except CookieError:
                    pass
            self._cookies = cookies
        return cookies

    @cookies.setter
    def cookies(self, value: SimpleCookie) -> None:
        self._cookies = value

    def _parse_cookies(self) -> dict[str, str]:
        found = self._cookie_values
        if found is None:
            # Several Cookie headers count as one with "; " between them (RFC 9113 section 8.2.3).
            found = parse_cookie("; ".join(self.headers.get_list("Cookie")))
            if len(found) > _MOST_COOKIES:
                found = dict(islice(found.items(), _MOST_COOKIES))
            self._cookie_values = found
        return found

    def _cookie_value(self, name: str) -> str | None:
        """Value of one of :attr:`cookies`, for which the others need not be made morsels."""
        if self._cookies is not None:
            morsel = self._cookies.get(name)
            return None if morsel is None else str(morsel.value)
        value = self._parse_cookies().get(name)
        if value is not None and not value.isprintable():
            # Newer Pythons make no morsel with a control character; this one shall say.
            _ = self.cookies
            return self._cookie_value(name)
        return value if value is not None and is_cookie_name(name) else None

    def full_url(self) -> str:
        """Return the URL of this request, put together from protocol, host and target."""
        return f"{self.protocol}://{self.host}{self.uri}"

    def request_time(self) -> float:
        """Return the seconds that the request took, or has taken so far."""
        end = self._finish_time
        return (time.monotonic() if end is None else end) - self._start_time

    def supports_http_1_1(self) -> bool:
        """Tell whether the client speaks HTTP/1.1 (Cyclone)."""
        return self.version == "HTTP/1.1"

    def get_ssl_certificate(self, binary_form: bool = False) -> dict[str, Any] | bytes | None:
        """Return the client's TLS certificate, or ``None`` when it sent none.

        :param binary_form: as DER bytes, instead of a dictionary like that of ``ssl.SSLSocket.getpeercert``.
        """
        transport = getattr(self.connection, "transport", None)
        get_certificate = getattr(transport, "getPeerCertificate", None)
        certificate = None if get_certificate is None else get_certificate()
        if certificate is None:
            return None
        return certificate_der(certificate) if binary_form else certificate_dict(certificate)

    def write(self, chunk: bytes) -> Deferred[None]:
        """Write raw bytes to the connection (Cyclone); handlers use their own ``write``."""
        return self._writable().write(chunk)

    def finish(self) -> None:
        """End the response on the connection (Cyclone); handlers use their own ``finish``."""
        self._writable().finish()
        self._request_done()

    def _writable(self) -> HTTPConnection:
        if self.connection is None:
            raise RuntimeError(f"{self!r} was made without a connection to write to")
        return self.connection

    def notifyFinish(self) -> Deferred[None]:
        """Return a Deferred that fires when the response is finished (Cyclone, ``twisted.web``).

        When the client goes away before, it fails with the reason.
        """
        done: Deferred[None] = Deferred()
        if self._finish_time is not None:
            done.callback(None)
        elif self._waiting is None:
            self._waiting = [done]
        else:
            self._waiting.append(done)
        return done

    def _request_done(self, reason: Failure | None = None) -> None:
        """Stop the clock and fire what :meth:`notifyFinish` gave out, for whoever ends the request."""
        if self._finish_time is None:
            self._finish_time = time.monotonic()
        waiting = self._waiting
        if waiting is not None:
            self._waiting = None
            for done in waiting:
                if done.called:
                    continue
                if reason is None:
                    done.callback(None)
                else:
                    done.errback(reason)

    def __repr__(self) -> str:
        # Without the headers: they hold secrets, and this gets logged.
        return (
            f"{type(self).__name__}(protocol={self.protocol!r}, host={self.host!r}, method={self.method!r}, "
            f"uri={self.uri!r}, version={self.version!r}, remote_ip={self.remote_ip!r})"
        )


def _copy(arguments: dict[str, list[bytes]]) -> dict[str, list[bytes]]:
    return {name: values.copy() for name, values in arguments.items()}
