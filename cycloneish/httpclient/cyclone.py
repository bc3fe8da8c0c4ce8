"""Cyclone's way to fetch: ``fetch`` with its names, and ``JsonRPC``.

For programs that move in; new ones use ``AsyncHTTPClient``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

from cycloneish.awaiting import AwaitableDeferred
from cycloneish.escape import native_str
from cycloneish.httpclient.client import AsyncHTTPClient
from cycloneish.httpclient.request import HTTPRequest
from cycloneish.httpclient.response import HTTPResponse
from cycloneish.httputil import HTTPHeaders

__all__ = ["JsonRPC", "fetch"]


class CycloneResponse(HTTPResponse):
    """A response with Cyclone's names for what is in it."""

    @property
    def phrase(self) -> str:
        """The reason phrase."""
        return self.reason

    @property
    def length(self) -> int:
        """Bytes of body."""
        return len(self.body)


def _headers(given: Mapping[Any, Any] | None) -> HTTPHeaders:
    """Cyclone's header fields: lists of values by name, bytes or text."""
    headers = HTTPHeaders()
    for name, values in (given or {}).items():
        for value in values if isinstance(values, list | tuple) else [values]:
            headers.add(native_str(name), native_str(value))
    return headers


def fetch(
    url: str | bytes,
    *args: Any,  # noqa: ARG001  (Cyclone takes them)
    followRedirect: bool = False,
    maxRedirects: int = 3,
    postdata: bytes | str | None = None,
    headers: Mapping[Any, Any] | None = None,
    timeout: float | None = None,
    method: str | bytes | None = None,
    proxyConfig: tuple[Any, ...] | None = None,
    **options: Any,
) -> AwaitableDeferred[CycloneResponse]:
    """Fetch a page, whatever its status.

    :param url: what to fetch.
    :param args: not used, as in Cyclone.
    :param followRedirect: follow redirects; Cyclone does not unless told.
    :param maxRedirects: how many.
    :param postdata: the body; makes the method POST.
    :param headers: values, or lists of values, by name.
    :param timeout: seconds for everything.
    :param method: ``GET`` or ``POST`` by default.
    :param proxyConfig: host and port of a proxy; then, if wanted, user and password.
    :param options: further arguments of ``HTTPRequest``.
    :returns: fires with a response that has ``code``, ``phrase``, ``headers``, ``length`` and ``body``.

    Counterpart: ``cyclone.httpclient.fetch``.  ``headers`` of the response are ``HTTPHeaders`` with values of
    text, where Cyclone gave lists of bytes.
    """
    if proxyConfig is not None:
        host, port, *rest = proxyConfig
        options.update(proxy_host=native_str(host), proxy_port=int(port))
        if rest:
            options["proxy_username"] = native_str(rest[0])
            options["proxy_password"] = native_str(rest[1]) if len(rest) > 1 else ""
    request = HTTPRequest(
        native_str(url),
        method=native_str(method) if method else ("GET" if postdata is None else "POST"),
        headers=_headers(headers),
        body=postdata,
        follow_redirects=bool(followRedirect),
        max_redirects=maxRedirects,
        request_timeout=timeout,
        allow_nonstandard_methods=True,
        **options,
    )

    def as_cyclone(response: HTTPResponse) -> CycloneResponse:
        response.__class__ = CycloneResponse
        return response  # type: ignore[return-value]

    fetching = AsyncHTTPClient().fetch(request, raise_error=False)
    return fetching.addCallback(as_cyclone)  # type: ignore[return-value]


class JsonRPC:
    """Methods of a JSON-RPC service, as methods.

    ::

        rpc = JsonRPC("http://localhost:8888/jsonrpc")
        total = await rpc.add(1, 2)

    :param url: of the service.
    :param args: not used, as in Cyclone.
    :param options: further arguments of ``HTTPRequest``.

    Counterpart: ``cyclone.httpclient.JsonRPC``.
    """

    def __init__(self, url: str, *args: Any, **options: Any) -> None:
        self.__url = url
        self.__options = options
        self.__ids = itertools.count(1)

    def __getattr__(self, attr: str) -> Callable[..., AwaitableDeferred[Any]]:
        if attr.startswith("__"):
            raise AttributeError(attr)

        def call(*args: Any, **kwargs: Any) -> AwaitableDeferred[Any]:
            """Call the method.

            :returns: fires with its result; fails with ``RuntimeError`` where the service says that it
                failed.
            """
            asked = {"id": next(self.__ids), "method": attr, "params": kwargs or list(args)}
            fetching = AsyncHTTPClient().fetch(
                self.__url, raise_error=False, method="POST", json=asked, **self.__options
            )
            return fetching.addCallback(result)  # type: ignore[return-value]

        def result(response: HTTPResponse) -> Any:
            try:
                answer = response.json()
            except ValueError:
                response.rethrow()
                raise
            if not isinstance(answer, dict):
                raise RuntimeError("the answer is no JSON-RPC")
            error = answer.get("error")
            if error:
                raise RuntimeError(error.get("message", error) if isinstance(error, dict) else error)
            return answer.get("result")

        return call
