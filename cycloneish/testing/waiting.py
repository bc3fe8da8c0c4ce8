"""What Tornado's ``AsyncTestCase`` has to wait with, on a reactor that runs already.

Part of :class:`~cycloneish.testing.AsyncTestCase`.
"""

from __future__ import annotations

import sys
import unittest
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed

from cycloneish.ioloop import IOLoop
from cycloneish.options import options
from cycloneish.testing.helpers import get_async_test_timeout

__all__ = ["WaitingMixin", "main"]

_NOTHING = object()


class WaitingMixin:
    """``io_loop``, ``stop`` and ``wait``."""

    _stopped_with: Any = _NOTHING
    _waiter: Deferred[Any] | None = None

    @property
    def io_loop(self) -> IOLoop:
        """The reactor under Tornado's names."""
        return IOLoop.current()

    def get_new_ioloop(self) -> IOLoop:
        """The same: there is one reactor for all tests."""
        return IOLoop.current()

    def stop(self, _arg: Any = None, **kwargs: Any) -> None:
        """Let :meth:`wait` go on, now or when it is called.

        :param _arg: its result; *kwargs* as a dictionary if any are given.
        """
        result = kwargs or _arg
        waiter, self._waiter = self._waiter, None
        if waiter is None:
            self._stopped_with = result
        elif not waiter.called:
            waiter.callback(result)

    def wait(
        self, condition: Callable[[], bool] | None = None, timeout: float | None = None
    ) -> Deferred[Any]:
        """Wait until :meth:`stop` is called.

        :param condition: wait on, for further calls, until this is true.
        :param timeout: seconds, :func:`~cycloneish.testing.get_async_test_timeout` by default.
        :returns: a Deferred of what ``stop`` was given, to be awaited; Tornado runs its loop meanwhile and
            returns the value. It fails with :exc:`TimeoutError`.
        """
        from twisted.internet import reactor

        result, self._stopped_with = self._stopped_with, _NOTHING
        if result is not _NOTHING and (condition is None or condition()):
            return succeed(result)
        self._waiter = Deferred()
        waiting = self._waiter
        if condition is not None:
            waiting.addCallback(lambda value: value if condition() else self.wait(condition, timeout))
        waiting.addTimeout(timeout or get_async_test_timeout(), reactor)
        return waiting


def main(**kwargs: Any) -> None:
    """Run the tests of a file that is started as a program, after the options of its command line.

    :param kwargs: for ``unittest.main``. Counterpart: ``tornado.testing.main``.
    """
    arguments = options.parse_command_line(sys.argv)
    unittest.main(**{"argv": [sys.argv[0], *arguments], **kwargs})
