"""The HTTP client: Tornado's ``AsyncHTTPClient`` and what belongs to it, Cyclone's ``fetch``, an agent for
treq.

This file hands names on.  The client itself, and TLS under it, are loaded with the first client that is made;
``HTTPRequest``, ``HTTPResponse`` and the errors cost next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cycloneish.httpclient.client import AsyncHTTPClient, HTTPClient
from cycloneish.httpclient.errors import (
    HTTPClientError,
    HTTPError,
    HTTPStreamClosedError,
    HTTPTimeoutError,
)
from cycloneish.httpclient.request import HTTPRequest, _RequestProxy
from cycloneish.httpclient.response import HTTPResponse
from cycloneish.httpclient.retries import Retry
from cycloneish.util import import_object

if TYPE_CHECKING:
    from cycloneish.httpclient.command import main
    from cycloneish.httpclient.cookies import CookieJar
    from cycloneish.httpclient.cyclone import JsonRPC, fetch
    from cycloneish.httpclient.gather import fetch_all
    from cycloneish.httpclient.simple import SimpleAsyncHTTPClient

__all__ = [
    "AsyncHTTPClient",
    "CookieJar",
    "HTTPClient",
    "HTTPClientError",
    "HTTPError",
    "HTTPRequest",
    "HTTPResponse",
    "HTTPStreamClosedError",
    "HTTPTimeoutError",
    "JsonRPC",
    "Retry",
    "SimpleAsyncHTTPClient",
    "_RequestProxy",
    "fetch",
    "fetch_all",
    "main",
]

_LAZY = {
    "JsonRPC": "cycloneish.httpclient.cyclone.JsonRPC",
    "fetch": "cycloneish.httpclient.cyclone.fetch",
    "fetch_all": "cycloneish.httpclient.gather.fetch_all",
    "main": "cycloneish.httpclient.command.main",
    "CookieJar": "cycloneish.httpclient.cookies.CookieJar",
    "SimpleAsyncHTTPClient": "cycloneish.httpclient.simple.SimpleAsyncHTTPClient",
}


def __getattr__(name: str) -> Any:
    try:
        return import_object(_LAZY[name])
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
