"""Server-sent events: format, life of a stream, slow and departed clients."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from cycloneish.sse import EventLog, SSEHandler, format_comment, format_event
from cycloneish.web import Application, HTTPError
from tests.web.live import Client, LiveTestCase, sleep


class FormatTests(SynchronousTestCase):
    def test_fields(self) -> None:
        self.assertEqual(format_event("hello"), b"data: hello\n\n")
        self.assertEqual(
            format_event("x", event="news", eid=7, retry=1500),
            b"event: news\nid: 7\nretry: 1500\ndata: x\n\n",
        )
        self.assertEqual(format_event("", eid=""), b"id: \ndata: \n\n")

    def test_lines_of_the_message(self) -> None:
        self.assertEqual(format_event("a\nb\r\nc\rd\n"), b"data: a\ndata: b\ndata: c\ndata: d\ndata: \n\n")
        # Other characters that Python takes for line ends are none here.
        self.assertEqual(format_event("a\x0bb\x85c\u2028d"), "data: a\x0bb\x85c\u2028d\n\n".encode())

    def test_other_messages(self) -> None:
        self.assertEqual(format_event("é".encode()), "data: é\n\n".encode())
        self.assertEqual(format_event({"a": [1, None]}), b'data: {"a": [1, null]}\n\n')
        self.assertEqual(format_event(5), b"data: 5\n\n")

    def test_what_would_break_out_of_its_line(self) -> None:
        for fields in [
            {"event": "a\ndata: b"},
            {"event": "a\r"},
            {"eid": "1\n2"},
            {"eid": "1\0"},
            {"retry": -1},
            {"retry": "5"},
            {"retry": True},
        ]:
            self.assertRaises(ValueError, format_event, "x", **fields)

    def test_comments(self) -> None:
        self.assertEqual(format_comment(), b": \n\n")
        self.assertEqual(format_comment("a\nb"), b": a\n: b\n\n")


class EventLogTests(SynchronousTestCase):
    def test_what_is_behind_an_id(self) -> None:
        log = EventLog(size=3)
        events = [log.append(str(number)) for number in range(5)]
        ids = [event.partition(b"\n")[0].removeprefix(b"id: ").decode() for event in events]
        self.assertEqual(len(set(ids)), 5)
        self.assertEqual(log.since(ids[3]), events[4:])
        self.assertEqual(log.since(ids[4]), [])
        # Too long ago, of another run, or no id at all: everything that is kept.
        for strange in (ids[0], "0-4", "", "x", f"{ids[4]}x", None, ids[4].replace("-", "-\u0664")):
            self.assertEqual(log.since(strange), events[2:], strange)


class ReplayTests(LiveTestCase):
    async def ask(self, path: str, *headers: str) -> bytes:
        client = await self.connect()
        lines = [f"GET {path} HTTP/1.1", "Host: a", *headers, "", ""]
        client.send("\r\n".join(lines).encode())
        data = await client.until(b"data: live")
        return bytes(data).partition(b"\r\n\r\n")[2]

    async def test_replay_comes_before_bind(self) -> None:
        class Resumed(SSEHandler):
            retry = 500

            async def replay(self, last_event_id: str) -> None:
                await sleep(0.01)
                await self.send_raw(format_event(f"since {last_event_id}"))

            def bind(self) -> None:
                self.send_event("live")

        self.serve(Application([("/", Resumed)]))
        first = await self.ask("/")
        self.assertIn(b"retry: 500\n\n", first)
        self.assertNotIn(b"since", first)
        again = await self.ask("/", "Last-Event-ID: 7")
        self.assertLess(again.index(b"data: since 7"), again.index(b"data: live"))
        by_argument = await self.ask("/?lastEventId=8")
        self.assertIn(b"data: since 8", by_argument)

    async def test_a_client_that_leaves_during_replay_is_not_bound(self) -> None:
        gate: Deferred[None] = Deferred()
        bound: list[Any] = []
        gone: list[Any] = []

        class Resumed(SSEHandler):
            async def replay(self, last_event_id: str) -> None:
                await gate

            def bind(self) -> None:
                bound.append(self)

            def unbind(self) -> None:
                bound.remove(self)

            def on_connection_closed(self, *args: Any, **kwargs: Any) -> None:
                gone.append(self)

        self.serve(Application([("/", Resumed)]))
        client = await self.connect()
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nLast-Event-ID: 7\r\n\r\n")
        await client.until(b"\r\n\r\n")
        client.close()
        for _ in range(1000):
            if gone:
                break
            await sleep(0.005)
        gate.callback(None)
        await sleep(0.01)
        self.assertEqual((len(gone), bound), (1, []))


class News(SSEHandler):
    readers: list[News] = []
    left: list[News] = []
    greeting: Any = None

    def bind(self) -> Any:
        self.readers.append(self)
        return self.greeting(self) if self.greeting else None

    def unbind(self) -> None:
        self.left.append(self)


class StreamTests(LiveTestCase):
    def setUp(self) -> None:
        class Reader(News):
            readers: list[News] = []
            left: list[News] = []

        self.news = Reader
        self.serve(Application([("/news", Reader)]))

    async def open(self, more: bytes = b"") -> Client:
        client = await self.connect()
        client.send(b"GET /news HTTP/1.1\r\nHost: a\r\n" + more + b"\r\n")
        await client.until(b"\r\n\r\n")
        return client

    async def until_left(self) -> None:
        while not self.news.left:
            await sleep(0.01)

    async def test_events_arrive_one_by_one(self) -> None:
        client = await self.open(b"Last-Event-ID: 41\r\n")
        reader = self.news.readers[0]
        self.assertEqual(reader.last_event_id, "41")
        self.assertTrue(reader.is_open)
        reader.send_event("one", eid=42)
        await client.until(b"id: 42\ndata: one\n\n")
        reader.sendEvent({"a": 1}, event="news")
        await client.until(b'event: news\ndata: {"a": 1}\n\n')
        head = bytes(client.data).partition(b"\r\n\r\n")[0]
        self.assertIn(b"Content-Type: text/event-stream; charset=utf-8", head)
        self.assertIn(b"Cache-Control: no-cache", head)
        self.assertNotIn(b"Content-Length", head)

    async def test_a_client_that_leaves_is_unbound_once_and_sent_nothing(self) -> None:
        client = await self.open()
        reader = self.news.readers[0]
        client.close()
        await self.until_left()
        self.assertFalse(reader.is_open)
        self.assertIsNone(await reader.send_event("into the void"))
        reader.close()
        self.assertEqual(self.news.left, [reader])

    async def test_close_ends_the_response(self) -> None:
        client = await self.open()
        self.news.readers[0].send_event("last")
        self.news.readers[0].close()
        await client.until(b"\r\n0\r\n\r\n")
        self.assertIn(b"data: last", client.data)
        self.assertEqual(len(self.news.left), 1)
        client.send(b"GET /news HTTP/1.1\r\nHost: a\r\n\r\n")
        await client.until(lambda data: data.count(b"event-stream") == 2)

    async def test_an_asynchronous_bind(self) -> None:
        async def greeting(reader: News) -> None:
            await reader.send_event("welcome")
            await sleep(0.01)
            reader.send_event("here it is")

        self.patch(self.news, "greeting", staticmethod(greeting))
        client = await self.open()
        await client.until(b"data: here it is")
        client.close()
        await self.until_left()

    async def test_a_client_that_leaves_during_bind(self) -> None:
        never: Deferred[None] = Deferred()
        self.patch(self.news, "greeting", staticmethod(lambda reader: never))
        client = await self.open()
        client.close()
        await self.until_left()
        never.callback(None)

    async def test_a_bind_that_refuses(self) -> None:
        class Closed(SSEHandler):
            def prepare(self) -> None:
                raise HTTPError(403)

        self.serve(Application([("/news", Closed)]))
        response = await self.fetch("/news")
        self.assertEqual(response.code, 403)
        self.assertEqual(response.headers["Content-Type"], "text/html; charset=UTF-8")

    async def test_an_error_in_unbind_is_logged(self) -> None:
        def broken(self: Any) -> None:
            raise ZeroDivisionError

        self.patch(self.news, "unbind", broken)
        client = await self.open()
        with self.assertLogs("cycloneish.application", "ERROR"):
            self.news.readers[0].close()
            await client.until(b"\r\n0\r\n\r\n")

    async def test_heartbeats_come_when_nothing_else_does(self) -> None:
        self.patch(self.news, "heartbeat_interval", 0.05)
        client = await self.open()
        await client.until(lambda data: data.count(b": \n\n") >= 2)
        self.patch(self.news, "heartbeat_interval", None)

    async def test_no_heartbeats(self) -> None:
        self.patch(self.news, "heartbeat_interval", None)
        client = await self.open()
        await sleep(0.1)
        self.assertTrue(client.data.endswith(b"\r\n\r\n"))

    async def test_who_waits_is_held_back_by_a_slow_client(self) -> None:
        self.patch(self.news, "max_buffered", 100_000_000)
        client = await self.open()
        reader = self.news.readers[0]
        client.transport.pauseProducing()
        sent = 0
        waiting = reader.send_event("x" * 1_000_000)
        while waiting.called:
            sent += 1
            waiting = reader.send_event("x" * 1_000_000)
            self.assertLess(sent, 100, "never held back")
        client.transport.resumeProducing()
        await waiting
        self.assertTrue(reader.is_open)

    async def test_a_client_that_is_too_slow_is_disconnected(self) -> None:
        client = await self.open()
        reader = self.news.readers[0]
        client.transport.pauseProducing()
        for _ in range(100):
            reader.send_event("x" * 900_000)
        self.assertFalse(reader.is_open)
        self.assertEqual(self.news.left, [reader])
        client.transport.resumeProducing()
        await client.gone

    async def test_the_end_of_the_program_ends_the_stream(self) -> None:
        class Reactor:
            triggers: dict[int, Any] = {}

            def addSystemEventTrigger(self, phase: str, event: str, call: Any) -> int:
                self.triggers[len(self.triggers)] = call
                return len(self.triggers) - 1

            def removeSystemEventTrigger(self, key: int) -> None:
                del self.triggers[key]

        reactor = Reactor()
        self.patch(self.news, "heartbeat_interval", None)
        self.serve(Application([("/news", self.news)], reactor=reactor))
        client = await self.open()
        self.assertEqual(len(reactor.triggers), 1)
        reactor.triggers[0]()
        await client.until(b"\r\n0\r\n\r\n")
        self.assertEqual(reactor.triggers, {})
