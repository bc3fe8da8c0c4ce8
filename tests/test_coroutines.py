"""The coroutine driver, on Deferreds here and on the asyncio reactor in a process of its own."""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
import textwrap

from twisted.internet import reactor, task
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from cycloneish.coroutines import as_deferred, drive, is_awaitable, run, running_loop


class OnDeferreds(SynchronousTestCase):
    def setUp(self) -> None:
        if running_loop() is not None:
            raise SkipTest("this suite runs on the asyncio reactor; see OnAsyncio")

    def test_result_of_a_coroutine(self) -> None:
        async def work() -> int:
            return await succeed(20) + await as_deferred(1)

        self.assertEqual(self.successResultOf(drive(work())), 21)

    def test_waits_for_a_deferred_that_fires_later(self) -> None:
        later: Deferred[str] = Deferred()

        async def work() -> str:
            return (await later) + "!"

        done = drive(work())
        self.assertNoResult(done)
        later.callback("now")
        self.assertEqual(self.successResultOf(done), "now!")

    def test_failure_is_raised_where_it_is_awaited(self) -> None:
        seen = []

        async def work() -> None:
            try:
                await fail(KeyError("gone"))
            except KeyError as error:
                seen.append(error.args)
            raise ValueError("after")

        self.failureResultOf(drive(work()), ValueError)
        self.assertEqual(seen, [("gone",)])

    def test_cancelling_cancels_what_is_waited_for(self) -> None:
        cancelled = []
        waiting: Deferred[None] = Deferred(cancelled.append)

        async def work() -> None:
            await waiting

        done = drive(work())
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.assertEqual(cancelled, [waiting])

    def test_asyncio_future_is_one_clear_error(self) -> None:
        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)

        async def work() -> None:
            await loop.create_future()

        failure = self.failureResultOf(drive(work()), RuntimeError)
        self.assertIn("asyncio reactor", str(failure.value))

    def test_any_object_with_await(self) -> None:
        class Later:
            def __await__(self):
                value = yield from succeed(3).__await__()
                return value + 1

        class Iterates:
            def __await__(self):
                return iter(())

        self.assertTrue(is_awaitable(Later()))
        self.assertEqual(self.successResultOf(drive(Later())), 4)
        self.assertIsNone(self.successResultOf(drive(Iterates())))
        self.assertFalse(is_awaitable(4))

    def test_deferred_passes_as_it_is(self) -> None:
        given: Deferred[None] = Deferred()
        self.assertIs(drive(given), given)

    def test_context_of_the_caller(self) -> None:
        name = contextvars.ContextVar("name", default="?")
        later: Deferred[None] = Deferred()

        async def work() -> str:
            await later
            return name.get()

        context = contextvars.copy_context()
        context.run(name.set, "inside")
        done = context.run(drive, work())
        later.callback(None)
        self.assertEqual(self.successResultOf(done), "inside")

    def test_many_fired_deferreds_do_not_recurse(self) -> None:
        async def work() -> int:
            total = 0
            for _ in range(5000):
                total += await succeed(1)
            return total

        self.assertEqual(self.successResultOf(drive(work())), 5000)


class RunTest(SynchronousTestCase):
    """What is under way without a Deferred of its own."""

    def setUp(self) -> None:
        if running_loop() is not None:
            raise SkipTest("on the asyncio reactor it is a Deferred")
        self.ends: list[object] = []

    def error(self) -> BaseException:
        (end,) = self.ends
        self.assertIsInstance(end, Failure)
        return end.value

    def test_it_tells_its_end_to_who_asked_before(self) -> None:
        later: Deferred[str] = Deferred()

        async def work() -> str:
            return (await later) + "!"

        running = run(work())
        running.addBoth(self.ends.append)
        self.assertEqual((running.called, self.ends), (False, []))
        later.callback("now")
        self.assertEqual((running.called, self.ends), (True, ["now!"]))

    def test_it_tells_its_end_to_who_asks_after(self) -> None:
        async def work() -> str:
            return await succeed("done")

        running = run(work())
        self.assertTrue(running.called)
        running.addBoth(self.ends.append)
        self.assertEqual(self.ends, ["done"])

    def test_failures_are_raised_where_they_are_awaited_and_told_at_the_end(self) -> None:
        first: Deferred[None] = Deferred()

        async def work() -> None:
            try:
                await first
            except ZeroDivisionError as error:
                raise LookupError("second") from error

        running = run(work())
        running.addBoth(self.ends.append)
        first.errback(ZeroDivisionError())
        self.assertIsInstance(self.error(), LookupError)
        self.assertIsInstance(self.error().__cause__, ZeroDivisionError)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_cancelling_cancels_what_is_waited_for_and_lets_it_clean_up(self) -> None:
        cancelled: list[str] = []
        cleaned: Deferred[None] = Deferred()

        async def work() -> None:
            try:
                await Deferred(lambda _: cancelled.append("query"))
            finally:
                await cleaned

        running = run(work())
        running.addBoth(self.ends.append)
        running.cancel()
        self.assertEqual((cancelled, self.ends), (["query"], []))
        cleaned.callback(None)
        self.assertIsInstance(self.error(), CancelledError)
        running.cancel()  # is over, and stays as it is
        self.assertEqual(len(self.ends), 1)

    def test_asyncio_future_is_one_clear_error(self) -> None:
        async def work() -> None:
            loop = asyncio.new_event_loop()
            try:
                await loop.create_future()
            finally:
                loop.close()

        run(work()).addBoth(self.ends.append)
        self.assertIn("asyncio reactor", str(self.error()))

    def test_each_step_runs_in_the_context_of_the_caller(self) -> None:
        variable = contextvars.ContextVar("variable", default="outside")
        first: Deferred[None] = Deferred()

        async def work() -> tuple[str, str]:
            before = variable.get()
            variable.set("within")
            await first
            return before, variable.get()

        variable.set("caller")
        run(work()).addBoth(self.ends.append)
        self.assertEqual(variable.get(), "caller")
        contextvars.Context().run(first.callback, None)
        self.assertEqual(self.ends, [("caller", "within")])

    def test_many_deferreds_do_not_recurse(self) -> None:
        waiting: list[Deferred[int]] = []

        async def work() -> int:
            total = 0
            for _ in range(5000):
                waiting.append(Deferred())
                total += await waiting[-1] + await succeed(1)
            return total

        run(work()).addBoth(self.ends.append)
        while not self.ends:
            waiting.pop().callback(1)
        self.assertEqual(self.ends, [10000])


class OnAsyncio(SynchronousTestCase):
    """Each script runs on the asyncio reactor in its own process and prints what it saw."""

    def script(self, body: str) -> str:
        program = textwrap.dedent(
            """
            from twisted.internet import asyncioreactor
            asyncioreactor.install()
            import asyncio
            from twisted.internet import reactor, task
            from twisted.internet.defer import Deferred, succeed, fail, CancelledError
            from cycloneish.coroutines import drive
            async def main():
            %s
            def start():
                drive(main()).addErrback(lambda f: print("failed", f.value)).addBoth(lambda _: reactor.stop())
            reactor.callWhenRunning(start)
            reactor.callLater(20, reactor.stop)
            reactor.run()
            """
        ) % textwrap.indent(textwrap.dedent(body), "    ")
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60
        )
        self.assertEqual(done.stderr, "")
        return done.stdout.strip()

    def test_deferreds_and_futures_side_by_side(self) -> None:
        out = self.script(
            """
            await asyncio.sleep(0.01)
            await task.deferLater(reactor, 0.01)
            assert asyncio.current_task() is not None
            try:
                await fail(KeyError("k"))
            except KeyError:
                pass
            later = Deferred()
            reactor.callLater(0.01, later.errback, ValueError("v"))
            try:
                await later
            except ValueError as error:
                print("caught", error)
            print(await succeed(1) + await asyncio.wait_for(asyncio.sleep(0, 2), 1))
            """
        )
        self.assertEqual(out.splitlines(), ["caught v", "3"])

    def test_timeout_cancels_the_deferred_under_it(self) -> None:
        out = self.script(
            """
            waiting = Deferred(lambda d: print("cancelled"))
            try:
                async with asyncio.timeout(0.05):
                    await waiting
            except TimeoutError:
                print("timeout")
            inner = Deferred(lambda d: print("inner cancelled"))
            async def work():
                await inner
            outer = drive(work())
            reactor.callLater(0.05, outer.cancel)
            try:
                await outer
            except asyncio.CancelledError:
                print("outer cancelled")
            """
        )
        self.assertEqual(out.splitlines(), ["cancelled", "timeout", "inner cancelled", "outer cancelled"])

    def test_future_that_is_done_already(self) -> None:
        out = self.script(
            """
            future = asyncio.get_running_loop().create_future()
            future.set_result(7)
            print(await drive(future))
            """
        )
        self.assertEqual(out, "7")


class AsDeferred(SynchronousTestCase):
    def test_plain_value(self) -> None:
        self.assertEqual(self.successResultOf(as_deferred(5)), 5)

    def test_clock_driven(self) -> None:
        clock = task.Clock()
        if running_loop() is not None:
            raise SkipTest("needs a reactor other than asyncio's")

        async def work() -> float:
            await task.deferLater(clock, 2)
            return clock.seconds()

        done = drive(work())
        clock.advance(2)
        self.assertEqual(self.successResultOf(done), 2)
        self.assertIsNotNone(reactor)
