"""Handlers that wait: Deferreds, coroutines, asyncio, and context variables."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Generator
from contextvars import ContextVar
from typing import Any

from twisted.internet.defer import Deferred, fail, inlineCallbacks
from twisted.trial.unittest import SynchronousTestCase

from cycloneish.web import Application, HTTPError, RequestHandler, asynchronous, stream_request_body
from tests.web.fake import Exchange, Logs, fetch

who: ContextVar[str] = ContextVar("who", default="nobody")


class WaitingTests(SynchronousTestCase):
    def check(self, handler: type[RequestHandler]) -> None:
        wait: Deferred[str] = Deferred()
        app = Application([("/", handler)], wait=wait)
        connection = fetch(app)
        self.assertFalse(connection.finished)
        self.assertIsNotNone(connection.close_callback)
        wait.callback("done")
        self.assertEqual((connection.code, connection.body), (200, b"done"))
        self.assertEqual(connection.calls, ["write_headers", "finish"])

    def test_coroutine(self) -> None:
        class Handler(RequestHandler):
            async def get(self) -> None:
                self.write(await self.settings["wait"])

        self.check(Handler)

    def test_inline_callbacks(self) -> None:
        class Handler(RequestHandler):
            @inlineCallbacks
            def get(self) -> Generator[Deferred[str], str, None]:
                self.write((yield self.settings["wait"]))

        self.check(Handler)

    def test_deferred(self) -> None:
        class Handler(RequestHandler):
            def get(self) -> Deferred[None]:
                return self.settings["wait"].addCallback(self.write)  # type: ignore[no-any-return]

        self.check(Handler)

    def test_any_awaitable(self) -> None:
        class Waiter:
            def __init__(self, handler: RequestHandler) -> None:
                self.handler = handler

            def __await__(self) -> Generator[Any, Any, None]:
                self.handler.write((yield from self.handler.settings["wait"].__await__()))

        class Handler(RequestHandler):
            def get(self) -> Waiter:
                return Waiter(self)

        self.check(Handler)

    def test_asynchronous_finishes_by_itself(self) -> None:
        class Handler(RequestHandler):
            @asynchronous
            def get(self) -> None:
                self.settings["wait"].addCallback(self.finish)

        self.check(Handler)

    def test_waiting_prepare(self) -> None:
        class Handler(RequestHandler):
            async def prepare(self) -> None:
                self.text = await self.settings["wait"]

            def get(self) -> None:
                self.write(self.text)

        self.check(Handler)

    def test_waiting_prepare_and_verb(self) -> None:
        class Handler(RequestHandler):
            @inlineCallbacks
            def prepare(self) -> Generator[Deferred[str], str, None]:
                self.text = yield self.settings["wait"]

            async def get(self) -> None:
                self.write(self.text)

        self.check(Handler)

    def test_finish_within_the_coroutine(self) -> None:
        class Handler(RequestHandler):
            async def get(self) -> None:
                await self.finish(await self.settings["wait"])

        self.check(Handler)

    def test_prepare_that_answers_keeps_the_verb_from_running(self) -> None:
        class Handler(RequestHandler):
            async def prepare(self) -> None:
                self.finish(await self.settings["wait"])

            def get(self) -> None:
                raise AssertionError

        self.check(Handler)

    def test_prepare_that_returns_nonsense(self) -> None:
        class Handler(RequestHandler):
            def prepare(self) -> Any:
                return 7

        with Logs():
            self.assertEqual(fetch(Handler).code, 500)

    def test_errors(self) -> None:
        class Handler(RequestHandler):
            async def get(self) -> None:
                await self.settings["wait"]

        for error, code in ((HTTPError(409), 409), (ValueError(), 500)):
            wait: Deferred[None] = Deferred()
            connection = fetch(Handler, wait=wait)
            with Logs():
                wait.errback(error)
            self.assertEqual(connection.code, code)

    def test_own_cancellation_is_an_error_while_the_client_is_there(self) -> None:
        wait: Deferred[None] = Deferred()

        class Handler(RequestHandler):
            async def get(self) -> None:
                await wait

        connection = fetch(Handler)
        with Logs() as logs:
            wait.cancel()
        self.assertEqual(connection.code, 500)
        self.assertIn("Uncaught exception", logs.text)

    def test_asyncio_cancelled_error_of_a_plain_handler(self) -> None:
        import asyncio

        class Handler(RequestHandler):
            def get(self) -> None:
                raise asyncio.CancelledError

        class Awaiting(RequestHandler):
            async def get(self) -> None:
                raise asyncio.CancelledError

        for handler in (Handler, Awaiting):
            with Logs():
                self.assertEqual(fetch(handler).code, 500)


class ContextTests(SynchronousTestCase):
    def test_plain_prepare(self) -> None:
        class Handler(RequestHandler):
            def prepare(self) -> None:
                who.set("ada")

            def get(self) -> None:
                self.write(who.get())

        self.assertEqual(fetch(Handler).body, b"ada")
        self.assertEqual(who.get(), "nobody")

    def test_waiting_prepare_verb_and_on_finish(self) -> None:
        seen: list[str] = []
        wait: Deferred[None] = Deferred()

        class Handler(RequestHandler):
            async def prepare(self) -> None:
                await wait
                who.set("ada")

            async def get(self) -> None:
                self.write(who.get())

            def on_finish(self) -> None:
                seen.append(who.get())

        connection = fetch(Handler)
        wait.callback(None)
        self.assertEqual(connection.body, b"ada")
        self.assertEqual(seen, ["ada"])
        self.assertEqual(who.get(), "nobody")

    def test_pieces_of_a_body(self) -> None:
        async def waiting() -> None:
            who.set("ada")

        def plain() -> None:
            who.set("ada")

        for action in (plain, waiting):
            seen: list[str] = []

            @stream_request_body
            class Handler(RequestHandler):
                def prepare(self, action: Any = action) -> Any:
                    return action()

                def data_received(self, chunk: bytes, seen: list[str] = seen) -> None:
                    seen.append(who.get())

                def post(self) -> None:
                    self.write(who.get())

            exchange = Exchange(Application([("/", Handler)]), "POST", "/", {"Content-Length": "1"})
            exchange.send(b"a")
            self.assertEqual(exchange.end().body, b"ada")
            self.assertEqual(seen, ["ada"])
        self.assertEqual(who.get(), "nobody")

    def test_requests_do_not_see_each_other(self) -> None:
        waits = {"a": Deferred[None](), "b": Deferred[None]()}

        class Handler(RequestHandler):
            async def get(self, name: str) -> None:
                who.set(name)
                await waits[name]
                self.write(who.get())

        app = Application([("/(.*)", Handler)])
        first, second = fetch(app, "/a"), fetch(app, "/b")
        waits["b"].callback(None)
        waits["a"].callback(None)
        self.assertEqual((first.body, second.body), (b"a", b"b"))


class UnhandledTests(SynchronousTestCase):
    def check(self, handler: type[RequestHandler], fire: Any = None) -> None:
        with Logs("cycloneish.application") as logs:
            self.assertEqual(fetch(handler).code, 200)
            if fire is not None:
                fire()
            gc.collect()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(
            logs.text,
            f"ERROR Nobody waited for a Deferred of {handler.__qualname__}, GET / (192.0.2.7), "
            "which failed: oops",
        )

    def test_failure_within_the_request(self) -> None:
        class Handler(RequestHandler):
            def get(self) -> None:
                fail(ZeroDivisionError("oops"))

        self.check(Handler)

    def test_failure_after_the_request(self) -> None:
        wait: Deferred[None] = Deferred()

        class Handler(RequestHandler):
            def get(self) -> None:
                self.work()

            @inlineCallbacks
            def work(self) -> Generator[Deferred[None], None, None]:
                yield wait
                raise ZeroDivisionError("oops")

        self.check(Handler, lambda: wait.callback(None))

    def test_other_failures_are_no_business_of_handlers(self) -> None:
        Application()
        with Logs("cycloneish.application") as logs:
            fail(ZeroDivisionError("oops"))
            gc.collect()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(logs.text, "")


ASYNCIO = """
import asyncio, contextvars, sys
from twisted.internet import asyncioreactor
asyncioreactor.install()
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from cycloneish.web import Application, RequestHandler
from tests.web.fake import fetch

who = contextvars.ContextVar("who", default="nobody")
tasks = []

class Handler(RequestHandler):
    cancel_on_disconnect = True

    async def prepare(self):
        await asyncio.sleep(0)
        self.task = asyncio.current_task()
        who.set("ada")

    async def get(self, what):
        assert asyncio.current_task() is self.task
        tasks.append(self.task)
        if what == "both":
            await asyncio.sleep(0.001)
            async with asyncio.timeout(5):
                self.write(await deferLater(reactor, 0.001, lambda: "deferred "))
            self.write(who.get())
        else:
            try:
                await Deferred()
            finally:
                self.application.ended = True

    def on_finish(self):
        self.application.finished = True

async def main():
    app = Application([("/(.*)", Handler)])
    connection = fetch(app, "/both")
    await asyncio.sleep(0.1)
    print(connection.code, connection.body)
    connection = fetch(app, "/cancelled")
    await asyncio.sleep(0.01)
    tasks[-1].cancel()
    await asyncio.sleep(0.01)
    print(connection.code, tasks[-1].cancelled())
    app.ended = app.finished = False
    connection = fetch(app, "/gone")
    await asyncio.sleep(0.01)
    connection.lose()
    await asyncio.sleep(0.01)
    print(connection.code, app.ended, app.finished)
    reactor.stop()

reactor.callWhenRunning(lambda: Deferred.fromFuture(asyncio.ensure_future(main())).addErrback(
    lambda failure: (failure.printTraceback(), reactor.stop())))
reactor.run()
"""


class AsyncioTests(SynchronousTestCase):
    def test_one_task_for_the_whole_request(self) -> None:
        result = subprocess.run(
            [sys.executable, "-W", "error", "-c", ASYNCIO],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        self.assertEqual(result.stdout, "200 b'deferred ada'\n500 True\nNone True True\n", result.stderr)
        self.assertNotIn("Traceback", result.stderr)
