"""The bridge between straight-line code and Deferreds, without a database."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any

from greenlet import GreenletExit, getcurrent
from sqlalchemy.exc import MissingGreenlet
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from cycloneish.db.bridge import _KEPT, spawn, wait

name: ContextVar[str] = ContextVar("name", default="nobody")


class BridgeTest(SynchronousTestCase):
    def test_waiting(self) -> None:
        waited = Deferred[None]()

        def work() -> list[int]:
            # What has fired already must neither switch nor nest.
            total = [wait(Deferred.fromCoroutine(quick(number))) for number in range(2000)]
            wait(waited)
            with self.assertRaises(ZeroDivisionError):
                wait(failing())
            return total

        async def quick(number: int) -> int:
            return number

        def failing() -> Coroutine[Any, Any, None]:
            async def fail() -> None:
                raise ZeroDivisionError

            return fail()

        done = spawn(work)
        self.assertNoResult(done)
        waited.callback(None)
        self.assertEqual(self.successResultOf(done), list(range(2000)))
        with self.assertRaises(MissingGreenlet):
            wait(Deferred[None]())

    def test_cancelling_is_heard_where_the_function_waits(self) -> None:
        cleaned = Deferred[None]()

        def work() -> None:
            try:
                wait(Deferred[None]())
            finally:
                wait(cleaned)

        done = spawn(work)
        done.cancel()
        self.assertNoResult(done)
        cleaned.callback(None)
        self.failureResultOf(done, CancelledError)

    def test_a_greenlet_is_used_again(self) -> None:
        def work(waited: Deferred[None] | None, fails: bool = False) -> Any:
            if waited is not None:
                wait(waited)
            if fails:
                raise ZeroDivisionError
            return getcurrent()

        first = self.successResultOf(spawn(work, None))
        self.failureResultOf(spawn(work, None, fails=True), ZeroDivisionError)
        waited = Deferred[None]()
        failing = spawn(work, waited, fails=True)
        other = self.successResultOf(spawn(work, None))
        self.assertIsNot(other, first)
        waited.callback(None)
        self.failureResultOf(failing, ZeroDivisionError)
        self.assertIs(self.successResultOf(spawn(work, None)), first)
        # One that works may itself begin another, and go on while that one waits.
        waited = Deferred[None]()
        outer = spawn(lambda: (spawn(work, waited), getcurrent()))
        inner, used = self.successResultOf(outer)
        self.assertIs(used, first)
        self.assertIs(self.successResultOf(spawn(work, None)), first)
        waited.callback(None)
        self.assertIs(self.successResultOf(inner), other)

    def test_a_greenlet_keeps_nothing_of_its_last_function(self) -> None:
        class Value:
            pass

        def work(value: Value) -> tuple[str, Value]:
            before = name.get()
            name.set("work")
            return before, value

        def named(value: Value) -> Deferred[tuple[str, Value]]:
            name.set("ann")
            return spawn(work, value)

        value = Value()
        gone, context = weakref.ref(value), copy_context()
        before, _ = self.successResultOf(context.run(named, value))
        self.assertEqual((before, context[name]), ("ann", "work"))
        del value, _
        gc.collect()
        self.assertIsNone(gone())
        self.assertEqual(self.successResultOf(Context().run(spawn, work, Value()))[0], "nobody")

    def test_more_at_a_time_than_are_kept(self) -> None:
        waited = [Deferred[int]() for _ in range(_KEPT + 50)]
        for _ in range(2):
            done = [spawn(wait, each) for each in waited]
            for number, each in enumerate(waited):
                each.callback(number)
            self.assertEqual([self.successResultOf(each) for each in done], list(range(len(waited))))
            waited = [Deferred[int]() for _ in waited]

    def test_a_greenlet_that_is_ended(self) -> None:
        def work() -> None:
            raise GreenletExit

        self.failureResultOf(spawn(work), GreenletExit)
        self.assertEqual(self.successResultOf(spawn(int)), 0)
