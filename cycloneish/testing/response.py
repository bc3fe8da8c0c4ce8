"""What the clients of the testing kit give back, with the members of Tornado's ``HTTPResponse``.

Made by :mod:`cycloneish.testing.fetching` and :mod:`cycloneish.testing.client`.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from io import BytesIO
from typing import Any, TypeAlias

from cycloneish.httpclient.errors import HTTPClientError
from cycloneish.httputil import HTTPHeaders, _parse_header

__all__ = ["HTTPClientError", "HTTPRequest", "HTTPResponse", "HeaderSource", "make_headers"]

#: Headers as a test may write them.
HeaderSource: TypeAlias = HTTPHeaders | Mapping[str, str] | Iterable[tuple[str, str]]


def make_headers(source: HeaderSource | None) -> HTTPHeaders:
    """Headers that are the caller's own to change."""
    headers = HTTPHeaders()
    if isinstance(source, HTTPHeaders):
        return HTTPHeaders(source)
    if source is not None:
        for name, value in source.items() if isinstance(source, Mapping) else source:
            headers.add(name, value)
    return headers


@dataclass(slots=True, eq=False)
class HTTPRequest:
    """What was asked: the last request, when redirects were followed.

    :ivar url: absolute.
    """

    url: str
    method: str = "GET"
    headers: HTTPHeaders = field(default_factory=HTTPHeaders)
    body: bytes | None = None


class HTTPResponse:
    """A response.

    :ivar code: status.
    :ivar reason: the text behind it.
    :ivar headers: :class:`~cycloneish.httputil.HTTPHeaders`.
    :ivar body: the whole body, inflated if that was asked for.
    :ivar buffer: the same as a file.
    :ivar effective_url: where it came from, behind the last redirect.
    :ivar error: an :exc:`~cycloneish.httpclient.errors.HTTPClientError` unless the status is 2xx or 304; not
        raised, but see :meth:`rethrow`.
    :ivar request: the :class:`HTTPRequest`.
    :ivar request_time: seconds from the first byte sent to the last received.
    :ivar history: the responses that redirected here, the first one first.
    :ivar exception: what the handler raised and did not catch; known to the in-memory client alone.

    Tornado: ``tornado.httpclient.HTTPResponse``.
    """

    def __init__(
        self,
        request: HTTPRequest,
        code: int,
        headers: HTTPHeaders | None = None,
        buffer: BytesIO | None = None,
        effective_url: str | None = None,
        error: BaseException | None = None,
        request_time: float | None = None,
        time_info: dict[str, float] | None = None,
        reason: str | None = None,
        start_time: float | None = None,
    ) -> None:
        self.request = request
        self.code = code
        self.reason = reason if reason is not None else http.client.responses.get(code, "Unknown")
        self.headers = headers if headers is not None else HTTPHeaders()
        self.buffer = buffer if buffer is not None else BytesIO()
        self.effective_url = effective_url if effective_url is not None else request.url
        self.error = error
        if error is None and not (200 <= code < 300 or code == 304):
            self.error = HTTPClientError(code, self.reason, self)  # type: ignore[arg-type]
        self.request_time = request_time
        self.start_time = start_time
        self.time_info = time_info or {}
        self.history: list[HTTPResponse] = []
        self.exception: BaseException | None = None

    @property
    def body(self) -> bytes:
        """The body as bytes."""
        return self.buffer.getvalue()

    @property
    def text(self) -> str:
        """The body as text, in the charset of its Content-Type, else UTF-8."""
        parameters = _parse_header(self.headers.get("Content-Type", ""))[1]
        return self.body.decode(parameters.get("charset") or "utf-8")

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies that this very response sets, by name."""
        cookies: SimpleCookie = SimpleCookie()
        for value in self.headers.get_list("Set-Cookie"):
            cookies.load(value)
        return {name: morsel.value for name, morsel in cookies.items()}

    def rethrow(self) -> None:
        """Raise :attr:`error`, if there is one."""
        if self.error is not None:
            raise self.error

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.code} {self.request.method} {self.effective_url} "
            f"{len(self.body)} bytes>"
        )
