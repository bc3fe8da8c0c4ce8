"""Tornado's module of the client that does the work; the names are those of :mod:`cycloneish.httpclient`."""

from __future__ import annotations

from cycloneish.httpclient.errors import HTTPStreamClosedError, HTTPTimeoutError
from cycloneish.httpclient.simple import SimpleAsyncHTTPClient

__all__ = ["HTTPStreamClosedError", "HTTPTimeoutError", "SimpleAsyncHTTPClient"]
