"""Tornado's ioloop and locks over the reactor."""

from __future__ import annotations

import datetime
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from textwrap import dedent
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks
from twisted.trial.unittest import SynchronousTestCase, TestCase

from cycloneish.ioloop import IOLoop, PeriodicCallback
from cycloneish.locks import BoundedSemaphore, Condition, Event, Lock, Semaphore
from cycloneish.testing import AsyncTestCase, ExpectLog
from tests.programs import environment

SOON = datetime.timedelta(milliseconds=10)


class LoopTest(TestCase):
    def test_there_is_one(self) -> None:
        self.assertIs(IOLoop.current(), IOLoop())
        self.assertIs(IOLoop.instance(), IOLoop.current())
        IOLoop.current().make_current()
        IOLoop.clear_current()
        IOLoop.current().close()

    @inlineCallbacks
    def test_later(self) -> Any:
        loop, called = IOLoop.current(), []
        done: Deferred[None] = Deferred()
        loop.remove_timeout(loop.call_later(0.01, called.append, "removed"))
        loop.call_later(0.01, called.append, "later")
        loop.call_at(loop.time() + 0.02, called.append, "at")
        loop.add_timeout(datetime.timedelta(seconds=0.03), called.append, "delta")
        loop.add_timeout(loop.time() + 0.06, done.callback, None)
        loop.add_callback(called.append, "soon")
        loop.add_callback_from_signal(called.append, "signal")
        loop.spawn_callback(called.append, "spawned")
        yield done
        self.assertEqual(called, ["soon", "signal", "spawned", "later", "at", "delta"])

    @inlineCallbacks
    def test_a_callback_that_fails_is_logged(self) -> Any:
        loop = IOLoop.current()
        done: Deferred[None] = Deferred()

        async def fail() -> None:
            raise ValueError("no")

        with ExpectLog("cycloneish.application", "Exception in callback"):
            loop.add_callback(fail)
            loop.call_later(0.02, done.callback, None)
            yield done

    @inlineCallbacks
    def test_futures_and_threads(self) -> Any:
        loop = IOLoop.current()
        told: Deferred[Any] = Deferred()
        waiting: Deferred[int] = Deferred()
        loop.add_future(waiting, told.callback)
        waiting.callback(3)
        self.assertIs((yield told), waiting)
        here = threading.get_ident()
        self.assertNotEqual((yield loop.run_in_executor(None, threading.get_ident)), here)
        with ThreadPoolExecutor(1) as pool:
            self.assertEqual((yield loop.run_in_executor(pool, divmod, 7, 2)), (3, 1))
            yield self.assertFailure(loop.run_in_executor(pool, int, "x"), ValueError)
            loop.set_default_executor(pool)
            self.assertNotEqual((yield loop.run_in_executor(None, threading.get_ident)), here)
            blocking = loop.run_in_executor(None, time.sleep, 0.05)
            queued = loop.run_in_executor(None, time.sleep, 5)
            queued.cancel()
            yield self.assertFailure(queued, CancelledError)
            yield blocking
        loop._executor = None

    @inlineCallbacks
    def test_periodic(self) -> Any:
        called: list[float] = []
        done: Deferred[None] = Deferred()

        async def call() -> None:
            called.append(time.monotonic())
            if len(called) == 3:
                periodic.stop()
                done.callback(None)
            if len(called) == 2:
                raise ValueError("logged, and goes on")

        periodic = PeriodicCallback(call, 10, jitter=0.1)
        self.assertRaises(ValueError, PeriodicCallback, call, 0)
        self.assertEqual(PeriodicCallback(call, datetime.timedelta(seconds=1)).callback_time, 1000)
        with ExpectLog("cycloneish.application", "Exception in callback"):
            periodic.start()
            periodic.start()
            self.assertTrue(periodic.is_running())
            yield done
        self.assertFalse(periodic.is_running())
        periodic.start()
        periodic.stop()


class RunTest(SynchronousTestCase):
    def start(self, program: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", dedent(program)],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.stdout + done.stderr

    def test_run_has_both_kinds_of_awaiting(self) -> None:
        said = self.start(
            """
            import asyncio
            from twisted.internet.defer import succeed
            from cycloneish.ioloop import run
            async def main():
                await asyncio.sleep(0)
                return await succeed("both")
            print(run(main()))
            """
        )
        self.assertEqual(said, "both\n")

    def test_run_sync_has_both_kinds_of_awaiting(self) -> None:
        said = self.start(
            """
            import asyncio
            from twisted.internet.defer import succeed
            from cycloneish.ioloop import IOLoop
            async def main():
                await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0))
                return await succeed("both")
            print(IOLoop.current().run_sync(main))
            """
        )
        self.assertEqual(said, "both\n")

    def test_what_main_raises_comes_out(self) -> None:
        said = self.start(
            """
            from cycloneish.ioloop import IOLoop
            async def main():
                raise ValueError("out")
            IOLoop.current().run_sync(main)
            """
        )
        self.assertTrue(said.endswith("ValueError: out\n"), said)

    def test_start_stop_and_a_time_out(self) -> None:
        said = self.start(
            """
            from cycloneish.ioloop import IOLoop
            loop = IOLoop.current()
            loop.call_later(0.01, loop.stop)
            loop.start()
            print("stopped")
            """
        )
        self.assertEqual(said, "stopped\n")
        said = self.start(
            """
            from cycloneish.ioloop import IOLoop
            from twisted.internet.defer import Deferred
            IOLoop.current().run_sync(Deferred, timeout=0.01)
            """
        )
        self.assertIn("TimeoutError", said)

    def test_a_signal_ends_it(self) -> None:
        said = self.start(
            """
            import os, signal
            from cycloneish.ioloop import IOLoop, run
            from twisted.internet.defer import Deferred
            IOLoop.current().call_later(0.05, os.kill, os.getpid(), signal.SIGTERM)
            run(Deferred())
            """
        )
        self.assertIn("KeyboardInterrupt", said)

    def test_a_signal_lets_main_clean_up(self) -> None:
        said = self.start(
            """
            import asyncio, os, signal
            from cycloneish.ioloop import IOLoop, run

            async def main():
                IOLoop.current().call_later(0.05, os.kill, os.getpid(), signal.SIGTERM)
                try:
                    await asyncio.Event().wait()
                finally:
                    await asyncio.sleep(0.01)
                    print("cleaned up", flush=True)

            run(main())
            """
        )
        self.assertIn("cleaned up", said)
        self.assertIn("KeyboardInterrupt", said)
        self.assertNotIn("was destroyed", said)


class LocksTest(TestCase):
    def test_condition(self) -> None:
        condition = Condition()
        first, second, third = (condition.wait() for _ in range(3))
        self.assertIn("waiters[3]", repr(condition))
        second.cancel()
        self.failureResultOf(second, CancelledError)
        condition.notify()
        self.assertTrue(self.successResultOf(first))
        self.assertNoResult(third)
        condition.notify_all()
        self.assertTrue(self.successResultOf(third))

    @inlineCallbacks
    def test_time_outs(self) -> Any:
        self.assertFalse((yield Condition().wait(SOON)))
        yield self.assertFailure(Event().wait(time.time() + 0.01), TimeoutError)
        lock = Lock()
        yield lock.acquire()
        yield self.assertFailure(lock.acquire(SOON), TimeoutError)
        condition = Condition()
        waiting = condition.wait(datetime.timedelta(seconds=60))
        condition.notify()
        self.assertTrue((yield waiting))

    def test_event(self) -> None:
        event = Event()
        waiting = event.wait()
        self.assertEqual(repr(event), "<Event clear>")
        event.set()
        event.set()
        self.successResultOf(waiting)
        self.successResultOf(event.wait())
        self.assertTrue(event.is_set())
        event.clear()
        self.assertNoResult(event.wait())

    def test_semaphore(self) -> None:
        semaphore = Semaphore(2)
        self.assertRaises(ValueError, Semaphore, -1)
        self.assertIn("unlocked,value:2", repr(semaphore))
        self.successResultOf(semaphore.acquire())
        with self.successResultOf(semaphore.acquire()):
            waiting = semaphore.acquire()
            self.assertNoResult(waiting)
        self.successResultOf(waiting)
        self.assertRaises(RuntimeError, semaphore.__enter__)
        self.assertRaises(RuntimeError, semaphore.__exit__, None, None, None)
        self.assertRaises(ValueError, BoundedSemaphore().release)

    async def test_async_with(self) -> None:
        for lock in (Lock(), Semaphore()):
            async with lock:
                self.assertIn("[locked]", repr(lock))
                self.assertNoResult(lock.acquire())

    def test_a_lock_that_is_not_locked(self) -> None:
        self.assertRaises(RuntimeError, Lock().release)
        self.assertRaises(RuntimeError, Lock().__enter__)
        self.assertRaises(RuntimeError, Lock().__exit__, None, None, None)


class WaitTest(AsyncTestCase):
    async def test_stop_before_and_after_wait(self) -> None:
        self.stop("before")
        self.assertEqual(await self.wait(), "before")
        self.io_loop.add_callback(self.stop, a=1)
        self.assertEqual(await self.wait(), {"a": 1})
        self.assertIs(self.get_new_ioloop(), self.io_loop)

    async def test_a_condition_and_a_time_out(self) -> None:
        calls: list[int] = []

        def call() -> None:
            calls.append(1)
            self.stop(len(calls))

        self.io_loop.call_later(0.01, call)
        self.io_loop.call_later(0.02, call)
        self.assertEqual(await self.wait(lambda: len(calls) == 2), 2)
        await self.assertFailure(self.wait(timeout=0.01), Exception)
