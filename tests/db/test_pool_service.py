"""The pool as a service: what happens when it is stopped while it is still starting; no server is needed."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cycloneish.db import postgres
from cycloneish.db.errors import PoolClosed, PoolTimeout
from cycloneish.db.postgres import Pool


class SlowServer:
    """A server that starts when the test says so; stopping waits for that, as the embedded one does."""

    def __init__(self) -> None:
        self.starting: Deferred[str] = Deferred()
        self.stopped: list[str] = []

    def start(self) -> Deferred[str]:
        return self.starting

    def stop(self) -> Deferred[None]:
        self.stopped.append("stopped")
        return succeed(None)


class StopWhileStartingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.server = SlowServer()
        self.attempts: list[Deferred[Any]] = []

        def open_connection(*_: object) -> Deferred[Any]:
            self.attempts.append(Deferred())
            return self.attempts[-1]

        self.patch(postgres, "open_connection", open_connection)
        self.pool = Pool(self.server, reactor=self.clock)
        self.pool.startService()
        self.ready = self.pool.when_ready()

    def test_a_server_that_starts_after_the_stop_is_not_connected_to(self) -> None:
        self.successResultOf(self.pool.stopService())
        self.failureResultOf(self.ready, PoolClosed)
        self.server.starting.callback("host=here")
        self.assertEqual(self.attempts, [])
        self.assertEqual(self.server.stopped, ["stopped"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_server_that_fails_after_the_stop_is_no_news(self) -> None:
        self.successResultOf(self.pool.stopService())
        self.failureResultOf(self.ready, PoolClosed)
        with self.assertNoLogs("cycloneish.db", "ERROR"):
            self.server.starting.errback(OSError("no"))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_work_that_waits_for_the_start_is_waited_for(self) -> None:
        work = self.pool.execute("select 1")
        stopping = self.pool.stopService()
        self.assertNoResult(stopping)
        self.server.starting.callback("host=here")
        self.assertEqual(len(self.attempts), 1)
        self.clock.advance(self.pool.acquire_timeout)
        self.failureResultOf(work, PoolTimeout)
        self.successResultOf(stopping)
        self.failureResultOf(self.ready, PoolClosed)
        self.assertEqual(self.clock.getDelayedCalls(), [])
