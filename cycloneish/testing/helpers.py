"""Small things that every test suite needs: a port, a time-out, a context manager in setUp.

Used by :mod:`cycloneish.testing.cases` and by tests directly.
"""

from __future__ import annotations

import os
import socket
from contextlib import AbstractContextManager
from typing import TypeVar
from unittest import TestCase

__all__ = ["bind_unused_port", "get_async_test_timeout", "setup_with_context_manager"]

T = TypeVar("T")


def get_async_test_timeout() -> float:
    """How long one asynchronous step of a test may take, in seconds.

    The environment variable ``ASYNC_TEST_TIMEOUT``, else 5.

    Tornado: ``tornado.testing.get_async_test_timeout``.
    """
    try:
        return float(os.environ["ASYNC_TEST_TIMEOUT"])
    except (KeyError, ValueError):
        return 5.0


def bind_unused_port(reuse_port: bool = False, address: str = "127.0.0.1") -> tuple[socket.socket, int]:
    """A socket that listens on a port nobody else has.

    :param reuse_port: set ``SO_REUSEPORT``, so that several sockets can share the port.
    :param address: interface, IPv4 or IPv6.
    :returns: the socket, non-blocking, and the port. It is the caller's to close, or to hand to
        :meth:`~cycloneish.httpserver.HTTPServer.add_sockets`.

    Tornado: ``tornado.testing.bind_unused_port``.
    """
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setblocking(False)
        sock.bind((address, 0))
        sock.listen(128)
    except BaseException:
        sock.close()
        raise
    return sock, sock.getsockname()[1]


def setup_with_context_manager(testcase: TestCase, cm: AbstractContextManager[T]) -> T:
    """Enter a context manager in ``setUp`` and leave it when the test is over.

    :returns: what entering it gave.

    ``TestCase.enterContext`` of the standard library does the same. Tornado:
    ``tornado.testing.setup_with_context_manager``.
    """
    value = cm.__enter__()
    testcase.addCleanup(cm.__exit__, None, None, None)
    return value
