"""Tornado's gen, queues and concurrent over Deferreds, on the reactor that the tests run on."""

from __future__ import annotations

import asyncio
import datetime
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks, succeed
from twisted.trial.unittest import TestCase

from cycloneish import gen
from cycloneish.concurrent import Future, chain_future, dummy_executor, is_future, run_on_executor
from cycloneish.queues import LifoQueue, PriorityQueue, Queue, QueueEmpty, QueueFull
from cycloneish.testing import ExpectLog

SOON = datetime.timedelta(milliseconds=10)


class FutureTest(TestCase):
    def test_is_set_and_watched(self) -> None:
        future, seen = Future(), []
        future.add_done_callback(seen.append)
        self.assertFalse(future.done())
        self.assertRaises(asyncio.InvalidStateError, future.outcome)
        future.set_result(3)
        self.assertRaises(asyncio.InvalidStateError, future.set_result, 4)
        future.add_done_callback(seen.append)
        self.assertEqual((future.done(), future.outcome(), future.exception()), (True, 3, None))
        self.assertEqual(seen, [future, future])
        self.assertEqual(self.successResultOf(future), 3)

    def test_failures_and_cancelling(self) -> None:
        failed, cancelled = Future(), Future()
        failed.set_exception(KeyError("x"))
        self.assertIsInstance(failed.exception(), KeyError)
        self.assertRaises(KeyError, failed.outcome)
        cancelled.cancel()
        self.assertTrue(cancelled.cancelled())
        self.failureResultOf(cancelled, CancelledError)
        self.assertTrue(all(map(is_future, [failed, Deferred(), dummy_executor.submit(int)])))

    @inlineCallbacks
    def test_threads(self) -> Any:
        class Worker:
            executor = ThreadPoolExecutor(1)

            @run_on_executor
            def work(self, number: int) -> float:
                return 1 / number

        worker = Worker()
        self.addCleanup(worker.executor.shutdown)
        self.assertEqual((yield worker.work(2)), 0.5)
        yield self.assertFailure(worker.work(0), ZeroDivisionError)
        copy: Deferred[int] = Deferred()
        chain_future(dummy_executor.submit(int, "7"), copy)
        self.assertEqual(self.successResultOf(copy), 7)


class CoroutineTest(TestCase):
    @gen.coroutine
    def steps(self, *waited: Any) -> Any:
        results = []
        for one in waited:
            try:
                results.append((yield one))
            except KeyError as error:
                results.append(repr(error))
        raise gen.Return(results)

    def test_what_can_be_yielded(self) -> None:
        async def native() -> str:
            return "native"

        failed: Deferred[Any] = Deferred()
        failed.errback(KeyError(1))
        waited = self.steps(succeed(1), native(), [succeed(2), native()], {"a": succeed(3)}, failed)
        self.assertEqual(self.successResultOf(waited), [1, "native", [2, "native"], {"a": 3}, "KeyError(1)"])
        self.failureResultOf(self.steps(1), gen.BadYieldError)
        self.assertTrue(gen.is_coroutine_function(CoroutineTest.steps))

    @inlineCallbacks
    def test_time(self) -> Any:
        self.assertEqual((yield self.steps(gen.moment, None, gen.sleep(0.001))), [None] * 3)
        never: Deferred[None] = Deferred()
        yield self.assertFailure(gen.with_timeout(SOON, never), gen.TimeoutError)
        self.assertFalse(never.called)
        self.assertEqual((yield gen.with_timeout(SOON, succeed(1))), 1)
        with ExpectLog("cycloneish.application", "Exception in Future"):
            never.errback(KeyError())

    def test_cancelling_reaches_what_is_waited_for(self) -> None:
        inner: Deferred[None] = Deferred()
        waited = self.steps(inner)
        waited.cancel()
        self.failureResultOf(waited, CancelledError)
        self.assertTrue(inner.called)

    def test_several_at_once(self) -> None:
        first: Deferred[Any] = Deferred()
        both = gen.multi([first, succeed(2)])
        self.assertNoResult(both)
        first.errback(KeyError())
        self.failureResultOf(both, KeyError)

    @inlineCallbacks
    def test_as_they_come(self) -> Any:
        slow: Deferred[str] = Deferred()
        waiting = gen.WaitIterator(slow=slow, fast=succeed("f"))
        self.assertEqual(((yield waiting.next()), waiting.current_index), ("f", "fast"))
        coming = waiting.next()
        slow.callback("s")
        self.assertEqual(((yield coming), waiting.current_index), ("s", "slow"))
        self.assertTrue(waiting.done())


class QueueTest(TestCase):
    def test_room_and_order(self) -> None:
        queue: Queue[int] = Queue(1)
        self.assertRaises(QueueEmpty, queue.get_nowait)
        taken = queue.get()
        queue.put_nowait(1)
        self.assertEqual(self.successResultOf(taken), 1)
        queue.put_nowait(2)
        self.assertRaises(QueueFull, queue.put_nowait, 3)
        late = queue.put(3)
        self.assertNoResult(late)
        self.assertEqual((queue.get_nowait(), late.done(), queue.get_nowait()), (2, True, 3))
        for kind, order in ((LifoQueue(), [2, 1, 3]), (PriorityQueue(), [1, 2, 3])):
            for item in (3, 1, 2):
                kind.put(item)
            self.assertEqual([kind.get_nowait() for _ in range(3)], order)

    @inlineCallbacks
    def test_who_gives_up_loses_nothing(self) -> Any:
        queue: Queue[int] = Queue()
        yield self.assertFailure(queue.get(SOON), TimeoutError)
        cancelled = queue.get()
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        taken = queue.get()
        queue.put_nowait(1)
        self.assertEqual((yield taken), 1)
        joined = queue.join()
        self.assertNoResult(joined)
        queue.task_done()
        yield joined
        self.assertRaises(ValueError, queue.task_done)
