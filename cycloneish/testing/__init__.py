"""The testing kit: for trial, pytest and unittest.

* :class:`Client` and :class:`SyncClient` send requests through the real engine without a socket.
* :class:`AsyncHTTPTestCase` and :class:`AsyncHTTPSTestCase` start a server on a free port.
* :class:`AsyncTestCase` says who left what on the reactor; :func:`gen_test`, :class:`ExpectLog`,
  :func:`bind_unused_port` and :func:`setup_with_context_manager` are what Tornado's tests know.

The names that Tornado has, are those of ``tornado.testing``. :class:`CycloneTestCase` is Cyclone's, whose
``Client`` is :class:`cycloneish.testing.cyclone.Client`.
"""

from __future__ import annotations

from cycloneish.testing.cases import AsyncHTTPSTestCase, AsyncHTTPTestCase, AsyncTestCase
from cycloneish.testing.client import Client, SyncClient
from cycloneish.testing.cookies import CookieJar
from cycloneish.testing.cyclone import CycloneTestCase
from cycloneish.testing.decorators import gen_test
from cycloneish.testing.exchange import Exchange, IncompleteResponseError
from cycloneish.testing.fetching import FetchClient
from cycloneish.testing.helpers import bind_unused_port, get_async_test_timeout, setup_with_context_manager
from cycloneish.testing.leftovers import LeftoverError
from cycloneish.testing.logs import ExpectLog
from cycloneish.testing.response import HTTPClientError, HTTPRequest, HTTPResponse
from cycloneish.testing.spin import wait_for
from cycloneish.testing.waiting import main

__all__ = [
    "AsyncHTTPSTestCase",
    "AsyncHTTPTestCase",
    "AsyncTestCase",
    "Client",
    "CookieJar",
    "CycloneTestCase",
    "Exchange",
    "ExpectLog",
    "FetchClient",
    "HTTPClientError",
    "HTTPRequest",
    "HTTPResponse",
    "IncompleteResponseError",
    "LeftoverError",
    "SyncClient",
    "bind_unused_port",
    "gen_test",
    "get_async_test_timeout",
    "main",
    "setup_with_context_manager",
    "wait_for",
]
