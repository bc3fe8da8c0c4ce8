"""Waiting for a Deferred where no reactor runs: in plain unittest and pytest functions.

:class:`~cycloneish.testing.SyncClient` uses it for handlers that answer later. Under trial, whose
tests may return Deferreds, nobody needs it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from threading import Thread
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from cycloneish.testing.helpers import get_async_test_timeout

__all__ = ["wait_for"]

T = TypeVar("T")


class _DaemonThreadPool(ThreadPool):
    # Nobody will stop this pool, as the reactor does not run; its threads must not hold up the end of Python.
    threadFactory = partial(Thread, daemon=True)  # type: ignore[assignment]  # a factory all the same


def wait_for(
    deferred: Deferred[T],
    timeout: float | None = None,
    reactor: Any = None,
    each_turn: Callable[[], object] | None = None,
) -> T:
    """Return the result of *deferred*, turning the reactor until it has one.

    :param timeout: in seconds; :func:`~cycloneish.testing.get_async_test_timeout` by default.
    :param each_turn: called after each turn of the reactor.
    :param reactor: the global one by default. It is neither started nor stopped, only turned.
    :returns: the result. A failure is raised, with its own traceback.
    :raises TimeoutError: when there is none in time; *deferred* is cancelled.
    :raises RuntimeError: when the reactor runs already, as under trial: wait for the Deferred there.
    """
    results: list[Any] = []
    deferred.addBoth(results.append)
    if not results:
        _turn(results, deferred, get_async_test_timeout() if timeout is None else timeout, reactor, each_turn)
    result = results[0]
    if isinstance(result, Failure):
        result.raiseException()
    return result  # type: ignore[no-any-return]


def _turn(
    results: list[Any],
    deferred: Deferred[Any],
    timeout: float,
    reactor: Any,
    each_turn: Callable[[], object] | None,
) -> None:
    if reactor is None:
        from twisted.internet import reactor
    if reactor.running:
        raise RuntimeError(
            "the reactor is running, so this cannot be waited for: "
            "use Client instead of SyncClient, and yield, await or return its Deferreds"
        )
    if getattr(reactor, "threadpool", None) is None and hasattr(reactor, "_initThreadPool"):
        reactor.threadpool = _DaemonThreadPool(0, 10, "cycloneish.testing")
        reactor.threadpool.start()
    end = time.monotonic() + timeout
    while not results:
        if time.monotonic() >= end:
            deferred.cancel()
            raise TimeoutError(f"nothing came within {timeout:g} s")
        reactor.iterate(0.01)
        if each_turn is not None:
            each_turn()
