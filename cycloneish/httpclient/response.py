"""``HTTPResponse``: what a fetch fires with."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

from cycloneish.httpclient.errors import HTTPClientError
from cycloneish.httpclient.request import HTTPRequest, _RequestProxy
from cycloneish.httputil import HTTPHeaders, _parse_header, responses

__all__ = ["HTTPResponse"]


class HTTPResponse:
    """The answer to a request.

    :param request: the request as it was given to ``fetch``; after redirects still the first one.
    :param code: the status; 599 where there was no response.
    :param headers: the header fields.
    :param buffer: the body as a file in memory.
    :param effective_url: where it came from in the end.
    :param error: why there is no successful response.
    :param request_time: seconds that the last request took, from the search for a connection to the last
        byte.
    :param time_info: seconds after the start at which each stage was reached: ``queue`` (its length),
        ``namelookup``, ``connect``, ``appconnect`` (TLS), ``pretransfer``, ``starttransfer``, ``total``.
    :param reason: the reason phrase.
    :param start_time: when it began, in seconds since the epoch.

    Counterpart: ``tornado.httpclient.HTTPResponse``.
    """

    def __init__(
        self,
        request: HTTPRequest | _RequestProxy,
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
        self.request: HTTPRequest = request.request if isinstance(request, _RequestProxy) else request
        self.code = code
        self.reason = reason or responses.get(code, "Unknown")
        self.headers = HTTPHeaders() if headers is None else headers
        self.buffer = buffer
        self._body: bytes | None = None
        self.effective_url: str = self.request.url if effective_url is None else effective_url
        self._error_is_response_code = False
        self.error = error
        if error is None and not 200 <= code < 300:
            self._error_is_response_code = True
            self.error = HTTPClientError(code, message=self.reason, response=self)
        self.start_time = start_time
        self.request_time = request_time
        self.time_info = time_info or {}

    @property
    def body(self) -> bytes:
        """The body; empty when a ``streaming_callback`` took it."""
        if self._body is None:
            self._body = b"" if self.buffer is None else self.buffer.getvalue()
        return self._body

    @property
    def text(self) -> str:
        """The body as text, in the character set that its Content-Type names, else UTF-8."""
        charset = _parse_header(self.headers.get("Content-Type", ""))[1].get("charset", "utf-8")
        try:
            return self.body.decode(charset, "replace")
        except LookupError:
            return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body read as JSON.

        :raises ValueError: it is none.
        """
        return json.loads(self.body)

    def rethrow(self) -> None:
        """Raise the error, if there is one.

        :raises HTTPClientError: the status is not one of success.
        """
        if self.error is not None:
            raise self.error

    def __repr__(self) -> str:
        # Neither headers nor body nor query: they hold what does not belong in a log.
        parts = urlsplit(self.effective_url)
        where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        return f"{type(self).__name__}(code={self.code!r},effective_url={where!r},reason={self.reason!r})"
