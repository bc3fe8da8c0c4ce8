"""The server's end: handshake, messages, closing, pings, back-pressure, Tornado's and Cyclone's names."""

from __future__ import annotations

import contextvars
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks

from cycloneish.web import Application, HTTPError, RequestHandler
from cycloneish.websocket import STATISTICS, WebSocketClosedError, WebSocketHandler
from tests.security.support import LogCapture
from tests.web.live import sleep
from tests.websocket.support import (
    ACCEPT,
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Echo,
    Frame,
    RawSocket,
    Recorder,
    WebSocketTestCase,
    frame,
    upgrade,
)


class Made(WebSocketTestCase):
    """With the handlers that were made, and a silent log."""

    def setUp(self) -> None:
        self.made: list[Any] = []
        self.logs = LogCapture()
        self.addCleanup(self.logs.close)

    def start(self, handler: type[WebSocketHandler] = Echo, path: str = "/", **settings: Any) -> None:
        options = {"made": self.made} if issubclass(handler, Recorder) else {}
        self.serve(Application([(path, handler, options)], **settings))

    @property
    def handler(self) -> Any:
        return self.made[0]


class HandshakeTests(Made):
    async def test_answer(self) -> None:
        self.start()
        socket = await self.raw()
        self.assertTrue(socket.head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n"))
        self.assertIn(f"\r\nSec-Websocket-Accept: {ACCEPT}".lower(), socket.head.decode().lower())
        self.assertIn(b"\r\nupgrade: websocket", socket.head.lower())
        self.assertIn(b"\r\nconnection: upgrade", socket.head.lower())
        for absent in (b"content-length", b"content-type", b"transfer-encoding", b"sec-websocket-protocol"):
            self.assertNotIn(absent, socket.head.lower())

    async def test_tokens_in_any_case_among_others(self) -> None:
        self.start()
        client = await self.connect()
        client.send(upgrade("/", connection="keep-alive, UPGRADE"))
        data = await client.until(b"\r\n\r\n")
        self.assertTrue(data.startswith(b"HTTP/1.1 101 "))

    async def test_messages_may_come_with_the_request(self) -> None:
        self.start()
        client = await self.connect()
        client.send(upgrade() + frame(TEXT, b"early"))
        socket = RawSocket(client)
        self.assertEqual(await socket.read(), [Frame(TEXT, b"early")])

    async def test_head_with_cookies_and_headers_of_the_handler(self) -> None:
        class Polite(Echo):
            def prepare(self) -> None:
                self.set_header("X-Seen", "yes")
                self.set_cookie("session", "17")

        self.start(Polite)
        socket = await self.raw()
        self.assertIn(b"\r\nX-Seen: yes", socket.head)
        self.assertIn(b"\r\nSet-Cookie: session=17; Path=/", socket.head)

    async def test_what_answers_before_refuses(self) -> None:
        class Closed(Echo):
            async def prepare(self) -> None:
                await sleep(0)
                raise HTTPError(401)

        self.start(Closed)
        client = await self.connect()
        client.send(upgrade() + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
        await client.gone
        self.assertTrue(client.data.startswith(b"HTTP/1.1 401 "))
        self.assertEqual(client.data.count(b"HTTP/1.1"), 1)
        self.assertEqual(self.made, [])

    async def test_subprotocols(self) -> None:
        offered: list[list[str]] = []

        class Speaks(Echo):
            def select_subprotocol(self, subprotocols: list[str]) -> str | None:
                offered.append(subprotocols)
                return "b" if "b" in subprotocols else None

        self.start(Speaks)
        socket = await self.raw("/", "Sec-WebSocket-Protocol: a, b", "Sec-WebSocket-Protocol: c")
        self.assertIn(b"\r\nsec-websocket-protocol: b\r\n", socket.head.lower() + b"\r\n")
        self.assertEqual(self.handler.selected_subprotocol, "b")
        await self.raw()
        self.assertEqual(offered, [["a", "b", "c"], []])

    async def test_a_subprotocol_that_was_not_offered_is_a_mistake(self) -> None:
        class Wrong(Echo):
            def select_subprotocol(self, subprotocols: list[str]) -> str | None:
                return "z"

        self.start(Wrong)
        response = await self.fetch(
            "/",
            headers={
                "Upgrade": "websocket",
                "Connection": "Upgrade",
                "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            },
        )
        self.assertEqual(response.code, 500)

    async def test_groups_of_the_pattern(self) -> None:
        seen = []

        class Room(Echo):
            def open(self, *args: str, **kwargs: str) -> None:
                seen.append((args, kwargs))

        self.start(Room, "/room/([a-z]+)")
        await self.raw("/room/kitchen")
        self.assertEqual(seen, [(("kitchen",), {})])

    async def test_methods_of_http_are_refused_afterwards(self) -> None:
        errors = []

        class Confused(Echo):
            def open(self, *args: str, **kwargs: str) -> None:
                for call in (
                    lambda: self.write("x"),
                    lambda: self.finish(),
                    lambda: self.flush(),
                    lambda: self.set_status(500),
                    lambda: self.set_header("A", "b"),
                    lambda: self.set_cookie("a", "b"),
                    lambda: self.redirect("/"),
                ):
                    try:
                        call()
                    except RuntimeError as error:
                        errors.append(str(error))

        self.start(Confused)
        await self.raw()
        self.assertEqual(len(errors), 7)
        self.assertIn("write_message", errors[0])

    async def test_get_that_waits_for_the_end(self) -> None:
        ends = []

        class Session(Echo):
            async def get(self, *args: str, **kwargs: str) -> None:  # type: ignore[override]
                closed = super().get(*args, **kwargs)
                assert closed is not None
                await closed
                ends.append(self.close_code)

        self.start(Session)
        socket = await self.raw()
        socket.send(TEXT, b"a")
        await socket.read()
        self.assertEqual(ends, [])
        socket.send(CLOSE, b"\x03\xe8")
        await self.until(lambda: ends)
        self.assertEqual(ends, [1000])


class MessageTests(Made):
    async def test_echo_of_all_sizes(self) -> None:
        self.start(websocket_max_message_size=1 << 20)
        socket = await self.raw()
        for size in (0, 1, 125, 126, 127, 65535, 65536, 1 << 20):
            socket.client.data[:] = b"\r\n\r\n"
            socket.send(BINARY, b"\xfe" * size)
            (answer,) = await socket.read()
            self.assertEqual(answer, Frame(BINARY, b"\xfe" * size))
        self.assertEqual(self.handler.events[1], b"")

    async def test_text_is_str_and_binary_is_bytes(self) -> None:
        self.start()
        socket = await self.raw()
        socket.send(TEXT, "hällo".encode())
        socket.send(BINARY, b"\0")
        self.assertEqual(await socket.read(2), [Frame(TEXT, "hällo".encode()), Frame(BINARY, b"\0")])
        self.assertEqual(self.handler.events[1:], ["hällo", b"\0"])

    async def test_frames_cut_anywhere(self) -> None:
        self.start()
        data = frame(TEXT, b"one") + frame(TEXT, b"x" * 200) + frame(PING, b"p") + frame(TEXT, b"three")
        for size in (1, 2, 3, 7):
            socket = await self.raw()
            for start in range(0, len(data), size):
                socket.client.send(data[start : start + size])
                await sleep(0)
            frames = await socket.read(4)
            self.assertEqual([f.payload for f in frames], [b"one", b"x" * 200, b"p", b"three"])

    async def test_fragments_with_control_frames_between(self) -> None:
        self.start()
        socket = await self.raw()
        euro = "€".encode()
        socket.send(TEXT, b"a" + euro[:1], fin=False)
        socket.send(PING, b"now")
        socket.send(0, euro[1:2], fin=False)
        socket.send(0, b"", fin=False)
        socket.send(0, euro[2:] + b"z")
        self.assertEqual(await socket.read(2), [Frame(PONG, b"now"), Frame(TEXT, b"a" + euro + b"z")])

    async def test_kinds_of_messages_sent(self) -> None:
        self.start()
        socket = await self.raw()
        self.handler.write_message({"a": [1]})
        self.handler.write_message(b"bytes as text")
        self.handler.write_message(b"\xff", binary=True)
        self.handler.write_message(memoryview(b"view"), binary=True)
        self.assertRaises(TypeError, self.handler.write_message, 5)
        self.assertRaises(TypeError, self.handler.write_message, ["a"])
        self.assertEqual(
            await socket.read(4),
            [
                Frame(TEXT, b'{"a": [1]}'),
                Frame(TEXT, b"bytes as text"),
                Frame(BINARY, b"\xff"),
                Frame(BINARY, b"view"),
            ],
        )

    async def test_messages_wait_for_open(self) -> None:
        gate: Deferred[None] = Deferred()

        class Slow(Echo):
            async def open(self, *args: str, **kwargs: str) -> None:
                super().open()
                await gate
                self.events.append("ready")

        self.start(Slow)
        socket = await self.raw()
        socket.send(TEXT, b"a")
        await sleep(0.02)
        self.assertEqual(self.handler.events, ["open"])
        gate.callback(None)
        await socket.read()
        self.assertEqual(self.handler.events, ["open", "ready", "a"])

    async def test_one_message_at_a_time(self) -> None:
        gates: list[Deferred[None]] = []

        class Careful(Recorder):
            @inlineCallbacks
            def on_message(self, message: str | bytes) -> Any:
                gates.append(Deferred())
                yield gates[-1]
                self.events.append(message)

        self.start(Careful)
        socket = await self.raw()
        socket.client.send(frame(TEXT, b"1") + frame(TEXT, b"2"))
        socket.send(TEXT, b"3")
        for count in (1, 2, 3):
            await self.until(lambda count=count: len(gates) == count)
            await sleep(0.005)
            self.assertEqual(len(gates), count)
            gates[-1].callback(None)
        self.assertEqual(self.handler.events[1:], ["1", "2", "3"])

    async def test_a_busy_handler_stops_the_reading(self) -> None:
        gate: Deferred[None] = Deferred()

        class Busy(Recorder):
            def on_message(self, message: str | bytes) -> Any:
                self.events.append(len(message))
                return gate if not gate.called else None

        self.start(Busy)
        socket = await self.raw()
        piece = frame(BINARY, bytes(50_000))
        for _ in range(400):  # 20 MB, which no buffer of the kernel takes
            socket.client.send(piece)
        protocol = self.handler.ws_connection
        await self.until(lambda: not protocol._reading)
        self.assertLess(len(protocol._buffer), 300_000)
        self.assertEqual(len(self.handler.events), 2)
        gate.callback(None)
        await self.until(lambda: len(self.handler.events) == 401)

    async def test_context_of_the_request(self) -> None:
        user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")
        seen = []

        class Named(Recorder):
            def prepare(self) -> None:
                user.set(self.get_argument("user"))

            async def on_message(self, message: str | bytes) -> None:
                seen.append(user.get())
                await sleep(0)
                seen.append(user.get())

            def on_close(self) -> None:
                seen.append(user.get())

        self.start(Named)
        ann, bob = await self.raw("/?user=ann"), await self.raw("/?user=bob")
        ann.send(TEXT, b"")
        await self.until(lambda: len(seen) == 2)
        bob.client.close()
        await self.until(lambda: len(seen) == 3)
        self.assertEqual(seen, ["ann", "ann", "bob"])
        self.assertEqual(user.get(), "nobody")


class CloseTests(Made):
    async def test_closed_by_the_client(self) -> None:
        self.start()
        socket = await self.raw()
        socket.send(CLOSE, b"\x0f\xa0bye")
        self.assertEqual(await socket.until_closed(), [Frame(CLOSE, b"\x0f\xa0")])
        self.assertEqual(self.handler.events, ["open", ("close", 4000, "bye")])
        self.assertRaises(WebSocketClosedError, self.handler.write_message, "x")

    async def test_closed_by_the_server(self) -> None:
        self.start()
        socket = await self.raw()
        self.handler.close(1001, "bye")
        self.assertRaises(WebSocketClosedError, self.handler.write_message, "x")
        self.handler.close()
        self.assertEqual(await socket.read(), [Frame(CLOSE, b"\x03\xe9bye")])
        self.assertEqual(self.handler.closes, [])
        socket.send(CLOSE, b"\x03\xe9")
        await socket.until_closed()
        self.assertEqual(self.handler.closes, [("close", 1001, None)])

    async def test_a_client_that_does_not_answer(self) -> None:
        self.start(websocket_close_timeout=0.05)
        socket = await self.raw()
        self.handler.close()
        self.assertEqual(await socket.until_closed(), [Frame(CLOSE, b"")])
        await self.until(lambda: self.handler.closes)
        self.assertEqual(self.handler.closes, [("close", None, None)])

    async def test_codes_that_cannot_be_sent(self) -> None:
        self.start()
        await self.raw()
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000):
            self.assertRaises(ValueError, self.handler.ws_connection.close, code)
        self.assertRaises(ValueError, self.handler.ws_connection.close, 1000, "x" * 124)
        self.assertFalse(self.handler.ws_connection.is_closing())

    async def test_a_connection_that_breaks(self) -> None:
        self.start()
        socket = await self.raw()
        assert socket.client.transport is not None
        socket.client.transport.abortConnection()
        await self.until(lambda: self.handler.closes)
        self.assertEqual(self.handler.closes, [("close", None, None)])

    async def test_errors_of_the_application(self) -> None:
        class Fails(Recorder):
            def on_message(self, message: str | bytes) -> Any:
                raise ZeroDivisionError

        class FailsLater(Recorder):
            async def on_message(self, message: str | bytes) -> None:
                await sleep(0)
                raise ZeroDivisionError

        class FailsAtOnce(Recorder):
            def open(self, *args: str, **kwargs: str) -> Any:
                super().open()
                raise ZeroDivisionError

        for handler in (Fails, FailsLater, FailsAtOnce):
            self.made.clear()
            self.start(handler)
            socket = await self.raw()
            socket.send(TEXT, b"a")
            (answer,) = await socket.until_closed()
            self.assertEqual((answer.opcode, answer.code), (CLOSE, 1011), handler)
            await self.until(lambda: self.handler.closes)
            self.assertEqual(self.handler.closes, [("close", 1011, "internal error")])
        self.assertEqual(len([entry for entry in self.logs.serious if "ZeroDivisionError" in entry]), 3)

    async def test_a_handler_that_waits_for_a_client_that_left(self) -> None:
        class Waits(Recorder):
            cancel_on_disconnect = True

            async def on_message(self, message: str | bytes) -> None:
                try:
                    await Deferred()
                except CancelledError:
                    self.events.append("cancelled")
                    raise

        self.start(Waits)
        socket = await self.raw()
        socket.send(TEXT, b"a")
        await self.until(lambda: self.handler.ws_connection._running)
        socket.client.close()
        await self.until(lambda: "cancelled" in self.handler.events)
        self.assertEqual(self.handler.events, ["open", ("close", None, None), "cancelled"])
        self.assertEqual(self.logs.serious, [])

    async def test_what_came_before_the_end_is_delivered(self) -> None:
        gate: Deferred[None] = Deferred()

        class Waits(Recorder):
            def on_message(self, message: str | bytes) -> Any:
                self.events.append(message)
                return gate

        self.start(Waits)
        socket = await self.raw()
        socket.client.send(frame(TEXT, b"1") + frame(TEXT, b"2"))
        await self.until(lambda: self.handler.ws_connection._running)
        socket.client.close()
        await self.until(lambda: self.handler.ws_connection._lost)
        gate.callback(None)
        await self.until(lambda: self.handler.closes)
        self.assertEqual(self.handler.events, ["open", "1", "2", ("close", None, None)])

    async def test_asynchronous_on_close(self) -> None:
        done = []

        class Tidy(Recorder):
            async def on_close(self) -> None:  # type: ignore[override]
                await sleep(0)
                done.append(self.close_code)
                raise ZeroDivisionError

        self.start(Tidy)
        socket = await self.raw()
        socket.send(CLOSE, b"\x03\xe8")
        await self.until(lambda: done)
        self.assertIn("on_close", self.logs.serious[0])

    async def test_a_stopping_server_says_good_bye(self) -> None:
        self.start()
        socket = await self.raw()
        stopped = self.server.stop()
        self.assertEqual(await socket.read(), [Frame(CLOSE, b"\x03\xe9the server stops")])
        socket.send(CLOSE, b"\x03\xe9")
        await stopped
        self.assertEqual(self.handler.closes, [("close", 1001, None)])

    async def test_counts(self) -> None:
        before, ended = STATISTICS.open, STATISTICS.by_close_code.get(4444, 0)
        self.start()
        socket = await self.raw()
        self.assertEqual(STATISTICS.open, before + 1)
        socket.send(CLOSE, (4444).to_bytes(2, "big"))
        await socket.until_closed()
        await self.until(lambda: STATISTICS.open == before)
        self.assertEqual(STATISTICS.by_close_code[4444], ended + 1)


class PingTests(Made):
    async def test_pings_of_both_sides(self) -> None:
        self.start()
        socket = await self.raw()
        socket.send(PING, b"are you there")
        self.assertEqual(await socket.read(), [Frame(PONG, b"are you there")])
        self.handler.ping("you?")
        self.assertEqual((await socket.read(2))[1], Frame(PING, b"you?"))
        socket.send(PONG, b"you?")
        await self.until(lambda: len(self.handler.events) == 3)
        self.assertEqual(self.handler.events[1:], [("ping", b"are you there"), ("pong", b"you?")])
        self.assertRaises(ValueError, self.handler.ping, b"x" * 126)

    async def test_regular_pings(self) -> None:
        self.start(websocket_ping_interval=0.02, websocket_ping_timeout=0)
        socket = await self.raw()
        frames = await socket.read(3)
        self.assertEqual(frames, [Frame(PING, b"")] * 3)

    async def test_a_silent_client(self) -> None:
        self.start(websocket_ping_interval=0.03, websocket_ping_timeout=0.02, websocket_close_timeout=0.05)
        socket = await self.raw()
        ping, close = await socket.until_closed()
        self.assertEqual(ping.opcode, PING)
        self.assertEqual(close, Frame(CLOSE, b"\x03\xe8ping timed out"))
        await self.until(lambda: self.handler.closes)
        self.assertEqual(self.handler.closes, [("close", 1000, "ping timed out")])

    async def test_a_busy_handler_is_no_silent_client(self) -> None:
        gate: Deferred[None] = Deferred()

        class Busy(Recorder):
            def on_message(self, message: str | bytes) -> Any:
                return gate

        self.start(Busy, websocket_ping_interval=0.02)
        socket = await self.raw()
        socket.send(TEXT, b"")
        frames = await socket.read(3)
        self.assertEqual(frames, [Frame(PING, b"")] * 3)
        gate.callback(None)


class Cyclone(WebSocketHandler):
    """Written for Cyclone."""

    events: list[Any]

    def headersReceived(self) -> None:
        if self.request.headers.get("X-Unwanted"):
            self.forbidConnection("not you")

    def connectionMade(self, *args: Any, **kwargs: Any) -> None:
        self.events.append(("made", args, self.transport is not None))

    def messageReceived(self, message: str | bytes) -> None:
        self.sendMessage({"got": message})

    def connectionLost(self, reason: Any) -> None:
        self.events.append(("lost", reason.type.__name__))


class CycloneTests(Made):
    async def test_names(self) -> None:
        Cyclone.events = []
        self.start(Cyclone, "/([a-z]*)")
        socket = await self.raw("/abc")
        socket.send(TEXT, b"hi")
        self.assertEqual(await socket.read(), [Frame(TEXT, b'{"got": "hi"}')])
        socket.send(CLOSE, b"\x03\xe8")
        await socket.until_closed()
        self.assertEqual(Cyclone.events, [("made", ("abc",), True), ("lost", "ConnectionDone")])

    async def test_forbidden(self) -> None:
        Cyclone.events = []
        self.start(Cyclone, "/([a-z]*)")
        client = await self.connect()
        client.send(upgrade("/", "X-Unwanted: 1"))
        await client.gone
        self.assertTrue(client.data.startswith(b"HTTP/1.1 403 "))
        self.assertTrue(client.data.endswith(b"not you"))
        self.assertEqual(Cyclone.events, [])


class NoWebSocketTests(Made):
    async def test_requests_that_ask_for_none(self) -> None:
        self.start()
        good = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        }
        for name, value, code in [
            ("Upgrade", "h2c", 400),
            ("Connection", "keep-alive", 400),
            ("Sec-WebSocket-Version", "8", 426),
            ("Sec-WebSocket-Key", "", 400),
            ("Sec-WebSocket-Key", "c2hvcnQ=", 400),
            ("Sec-WebSocket-Key", "!" * 24, 400),
            ("Sec-WebSocket-Extensions", "a b c", 400),
        ]:
            client = await self.connect()
            headers = {**good, name: value}
            lines = "".join(f"{key}: {text}\r\n" for key, text in headers.items())
            client.send(f"GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n".encode())
            await client.gone
            self.assertTrue(client.data.startswith(b"HTTP/1.1 %d " % code), (name, value, client.data))
            self.assertIn(b"\r\nConnection: close\r\n", client.data)
            if code == 426:
                self.assertIn(b"\r\nSec-Websocket-Version: 13", client.data)
        self.assertEqual((await self.fetch("/")).code, 400)
        self.assertEqual((await self.fetch("/", "POST")).code, 405)
        self.assertEqual(self.made, [])

    async def test_beside_ordinary_handlers(self) -> None:
        class Page(RequestHandler):
            def get(self) -> None:
                self.write("page")

        self.serve(Application([("/", Page), ("/ws", Echo, {"made": self.made})]))
        self.assertEqual((await self.fetch("/")).body, b"page")
        socket = await self.raw("/ws")
        socket.send(TEXT, b"x")
        self.assertEqual(await socket.read(), [Frame(TEXT, b"x")])
