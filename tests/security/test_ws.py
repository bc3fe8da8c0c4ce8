"""WebSockets under attack: origins, sizes, broken frames, floods, refused upgrades, endings."""

from __future__ import annotations

import time
import tracemalloc
import zlib
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from cycloneish.http.limits import Limits
from cycloneish.web import Application, RequestHandler
from cycloneish.websocket import STATISTICS, WebSocketClosedError
from tests.security.support import SMUGGLED, LogCapture
from tests.web.live import sleep
from tests.websocket.support import (
    BINARY,
    CLOSE,
    PING,
    TEXT,
    Echo,
    Frame,
    RawSocket,
    Recorder,
    WebSocketTestCase,
    frame,
    upgrade,
)


class Smuggled(RequestHandler):
    seen: list[str] = []

    def get(self) -> None:
        self.seen.append(self.request.uri)


class WebSocketAttack(WebSocketTestCase):
    timeout = 60

    def setUp(self) -> None:
        self.made: list[Any] = []
        self.logs = LogCapture()
        self.addCleanup(self.logs.close)
        Smuggled.seen = []

    def start(
        self,
        handler: type[Recorder] = Echo,
        compression: dict[str, Any] | None = None,
        server_options: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        options = {"made": self.made, "options": compression}
        application = Application([("/", handler, options), ("/smuggled", Smuggled)], **settings)
        self.serve(application, **(server_options or {}))

    @property
    def handler(self) -> Any:
        return self.made[0]

    async def assert_ends(self, data: bytes, code: int, *headers: str) -> list[Frame]:
        """The server answers *data* with a close frame of *code* and closes; the application hears of it."""
        self.made.clear()
        socket = await self.raw("/", *headers)
        socket.client.send(data)
        frames = await socket.until_closed()
        self.assertTrue(socket.client.closed, data[:50])
        self.assertTrue(frames and frames[-1].opcode == CLOSE, (data[:50], frames))
        self.assertEqual(frames[-1].code, code, (data[:50], frames[-1].payload))
        await self.until(lambda: self.handler.closes)
        self.assertEqual(self.handler.closes[0][1], code)
        return frames


class OriginTests(WebSocketAttack):
    """Item 55: a page of another site cannot open a WebSocket with the visitor's cookies."""

    async def test_foreign_origins_are_refused(self) -> None:
        self.start(trusted_origins=["https://good.example"])
        own = f"http://127.0.0.1:{self.port}"
        for headers, status in [
            (["Origin: http://evil.example"], 403),
            (["Origin: null"], 403),
            (["Origin: http://127.0.0.1.evil.example"], 403),
            ([f"Origin: {own}.evil.example"], 403),
            (["Origin: http://127.0.0.1:1"], 403),
            (["Origin: http://evil.example", "Sec-Fetch-Site: cross-site"], 403),
            (["Origin: https://good.example.evil.example"], 403),
            ([f"Origin: {own}"], 101),
            (["Origin: https://good.example"], 101),
            ([], 101),
        ]:
            client = await self.connect()
            host = f"Host: 127.0.0.1:{self.port}"
            client.send(upgrade("/", *headers).replace(b"Host: 127.0.0.1", host.encode()))
            data = await client.until(b"\r\n\r\n")
            self.assertTrue(data.startswith(b"HTTP/1.1 %d " % status), (headers, bytes(data[:40])))


class SizeTests(WebSocketAttack):
    """Item 56: the limit counts what the application would get."""

    async def test_announced(self) -> None:
        self.start(websocket_max_message_size=1000)
        # Not one byte of the message has come.
        await self.assert_ends(frame(BINARY, b"x" * 1001)[:4], 1009)
        await self.assert_ends(b"\x82\xff\x7f" + b"\xff" * 7, 1009)

    async def test_over_fragments(self) -> None:
        self.start(websocket_max_message_size=1000)
        fragments = frame(TEXT, b"x" * 600, fin=False) + frame(0, b"x" * 600)
        await self.assert_ends(fragments, 1009)

    async def test_the_limit_itself_is_allowed(self) -> None:
        self.start(websocket_max_message_size=1000)
        socket = await self.raw()
        socket.client.send(frame(TEXT, b"x" * 500, fin=False) + frame(0, b"x" * 500))
        self.assertEqual(len((await socket.read())[0].payload), 1000)

    async def test_compressed_bombs(self) -> None:
        self.start(Recorder, compression={}, websocket_max_message_size=100_000)
        offer = "Sec-WebSocket-Extensions: permessage-deflate"
        squeezer = zlib.compressobj(9, zlib.DEFLATED, -15)
        bomb = squeezer.compress(bytes(50_000_000)) + squeezer.flush(zlib.Z_SYNC_FLUSH)
        bomb = bomb[:-4]
        self.assertLess(len(bomb), 100_000)
        half = len(bomb) // 2
        tracemalloc.start()
        try:
            await self.assert_ends(frame(BINARY, bomb, rsv=4), 1009, offer)
            pieces = frame(BINARY, bomb[:half], rsv=4, fin=False) + frame(0, bomb[half:])
            await self.assert_ends(pieces, 1009, offer)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        self.assertLess(peak, 5_000_000)

    async def test_a_stream_that_ends_again_and_again(self) -> None:
        self.start(Recorder, compression={})
        empty = zlib.compress(b"", wbits=-15)
        await self.assert_ends(
            frame(BINARY, empty * 20_000, rsv=4), 1007, "Sec-WebSocket-Extensions: permessage-deflate"
        )


class FrameTests(WebSocketAttack):
    """Item 57: what is no WebSocket traffic ends with the code that says so."""

    async def test_protocol_errors(self) -> None:
        self.start()
        for data in [
            frame(TEXT, b"a", rsv=4),  # compression that was not negotiated
            frame(TEXT, b"a", rsv=2),
            frame(TEXT, b"a", rsv=1),
            *[frame(opcode, b"") for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)],
            frame(TEXT, b"a", mask=None),
            frame(PING, b"", mask=None),
            frame(PING, b"x" * 126),
            frame(CLOSE, b"\x03\xe8" + b"x" * 124),
            frame(PING, b"", fin=False),
            frame(CLOSE, b"\x03\xe8", fin=False),
            frame(0, b"continues nothing"),
            frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"),
            frame(TEXT, b"a", fin=False) + frame(BINARY, b"b", fin=False),
            b"\x82\xfe\x00\x05" + b"\0" * 9,  # a length in more bytes than it needs
            b"\x82\xff" + (5).to_bytes(8, "big") + b"\0" * 9,
            b"\x82\xff" + (1 << 63).to_bytes(8, "big"),
            frame(CLOSE, b"\x03"),
            *[frame(CLOSE, code.to_bytes(2, "big")) for code in (0, 999, 1004, 1005, 1006, 1015, 1100, 5000)],
        ]:
            await self.assert_ends(data, 1002)
        self.assertEqual(self.logs.serious, [])

    async def test_a_negotiated_bit_where_it_has_no_place(self) -> None:
        self.start(compression={})
        offer = "Sec-WebSocket-Extensions: permessage-deflate"
        await self.assert_ends(frame(PING, b"", rsv=4), 1002, offer)
        await self.assert_ends(frame(TEXT, b"a", fin=False) + frame(0, b"b", rsv=4), 1002, offer)
        await self.assert_ends(frame(TEXT, b"no deflate", rsv=4), 1007, offer)

    async def test_text_that_is_none(self) -> None:
        self.start()
        for bad in (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"ok\xe2\x82"):
            await self.assert_ends(frame(TEXT, bad), 1007)
            await self.assert_ends(frame(TEXT, b"a", fin=False) + frame(0, bad), 1007)
        await self.assert_ends(frame(CLOSE, b"\x03\xe8\xff"), 1007)

    async def test_bad_text_is_found_in_its_fragment(self) -> None:
        self.start()
        # The message is not complete, and never will be.
        await self.assert_ends(frame(TEXT, b"a\xe2\x82", fin=False) + frame(0, b"b", fin=False), 1007)
        self.assertEqual(self.handler.events[:1], ["open"])
        self.assertNotIn("a", self.handler.events)

    async def test_nothing_after_an_error_or_a_close_is_delivered(self) -> None:
        self.start()
        await self.assert_ends(frame(TEXT, b"\xff") + frame(TEXT, b"late"), 1007)
        self.assertNotIn("late", self.handler.events)
        await self.assert_ends(frame(CLOSE, b"\x03\xe8") + frame(TEXT, b"late"), 1000)
        self.assertNotIn("late", self.handler.events)


class SlowReaderTests(WebSocketAttack):
    """Item 58: a client that does not read costs a bounded amount of memory."""

    async def stuck(self, **settings: Any) -> RawSocket:
        """A client that reads nothing."""
        self.start(Recorder, websocket_max_unsent=1_000_000, **settings)
        socket = await self.raw()
        assert socket.client.transport is not None
        socket.client.transport.pauseProducing()
        return socket

    async def test_it_is_closed(self) -> None:
        before = STATISTICS.closed_slow
        await self.stuck(websocket_close_timeout=0.05)
        handler, message, sent = self.handler, bytes(100_000), 0
        waiting = []
        with self.assertRaises(WebSocketClosedError):
            for _ in range(1000):
                waiting.append(handler.write_message(message, binary=True))
                sent += 1
                self.assertLess(handler.unsent, 1_200_000)
                await sleep(0)
        self.assertLess(sent, 200)  # the kernel's buffers, and a megabyte
        await self.until(lambda: handler.closes)
        self.assertEqual(handler.closes, [("close", 1013, "reads too slowly")])
        self.assertEqual(STATISTICS.closed_slow, before + 1)
        for deferred in waiting[-2:]:
            await self.assertFailure(deferred, WebSocketClosedError)

    async def test_its_messages_are_dropped(self) -> None:
        before = STATISTICS.dropped_messages
        socket = await self.stuck(websocket_slow_policy="drop")
        protocol = self.handler.ws_connection
        for number in range(300):
            self.handler.write_message(number.to_bytes(4, "big") + bytes(100_000), binary=True)
        self.assertLess(self.handler.unsent, 1_200_000)
        self.assertGreater(protocol.dropped_messages, 100)
        self.assertEqual(STATISTICS.dropped_messages, before + protocol.dropped_messages)
        assert socket.client.transport is not None
        socket.client.transport.resumeProducing()
        await self.until(lambda: not self.handler.unsent)
        self.handler.write_message(b"end", binary=True)
        frames = await socket.read(301 - protocol.dropped_messages)
        self.assertEqual(frames[-1].payload, b"end")
        numbers = [int.from_bytes(f.payload[:4], "big") for f in frames[:-1]]
        self.assertEqual(numbers, sorted(numbers))

    async def test_whoever_waits_sends_no_more_than_it_takes(self) -> None:
        socket = await self.stuck()
        sent = []

        async def pour() -> None:
            for _ in range(300):
                await self.handler.write_message(bytes(100_000), binary=True)
                sent.append(1)

        pouring = Deferred.fromCoroutine(pour())
        await sleep(0.05)
        stuck_at = len(sent)
        self.assertLess(stuck_at, 200)
        self.assertLess(self.handler.unsent, 300_000)
        assert socket.client.transport is not None
        socket.client.transport.resumeProducing()
        await pouring
        self.assertEqual(len(sent), 300)

    async def test_one_that_takes_nothing_for_long_is_aborted(self) -> None:
        await self.stuck(websocket_write_timeout=0.1)
        lost = self.handler.write_message(bytes(20_000_000), binary=True)
        await self.assertFailure(lost, WebSocketClosedError)
        await self.until(lambda: self.handler.closes)


class FloodTests(WebSocketAttack):
    async def test_pongs_are_coalesced(self) -> None:
        """Item 59: who sends pings and reads no pongs does not fill the memory."""
        self.start(Recorder)
        socket = await self.raw()
        assert socket.client.transport is not None
        socket.client.transport.pauseProducing()
        protocol = self.handler.ws_connection
        flood = frame(PING, b"x" * 125) * 500
        for _ in range(2000):
            if protocol._pending_pong is not None:
                break
            socket.client.send(flood)
            await sleep(0.005)
        self.assertIsNotNone(protocol._pending_pong)
        for _ in range(5):
            socket.client.send(flood)
        socket.send(PING, b"last")
        await self.until(lambda: protocol._pending_pong == b"last", 30)
        self.assertLess(self.handler.unsent, 300_000)
        socket.client.transport.resumeProducing()
        await self.until(lambda: socket.client.data.endswith(b"\x8a\x04last"), 30)

    async def test_tiny_fragments_stay_fair(self) -> None:
        """Item 60: 100,000 fragments of a byte neither stop the reactor nor fill the memory."""
        self.start(Recorder)
        socket = await self.raw()
        gaps: list[float] = []
        last = [time.monotonic()]

        def tick() -> None:
            now = time.monotonic()
            gaps.append(now - last[0])
            last[0] = now

        ticking = LoopingCall(tick)
        ticking.clock = reactor
        data = frame(TEXT, b"a", fin=False) + frame(0, b"b", fin=False) * 100_000 + frame(0, b"c")
        ticking.start(0.001)
        try:
            socket.client.send(data)
            await self.until(lambda: len(self.handler.events) == 2, 30)
        finally:
            ticking.stop()
        self.assertEqual(len(self.handler.events[1]), 100_002)
        self.assertGreater(len(gaps), 50)
        self.assertLess(sorted(gaps)[len(gaps) // 2], 0.1)

    async def test_empty_fragments_cost_no_memory(self) -> None:
        self.start(Recorder)
        socket = await self.raw()
        socket.client.send(frame(TEXT, b"", fin=False) + frame(0, b"", fin=False) * 20_000 + frame(0, b"x"))
        await self.until(lambda: len(self.handler.events) == 2)
        self.assertEqual(self.handler.events[1], "x")


class UpgradeTests(WebSocketAttack):
    """Item 61: what follows a refused request is no request."""

    async def test_refused_upgrades_close(self) -> None:
        self.start()
        for head, status in [
            (upgrade(version="8"), 426),
            (upgrade(version="14"), 426),
            (upgrade(version="13, 8"), 426),
            (upgrade("/", "Sec-WebSocket-Version: 8"), 426),
            (upgrade("/", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), 400),
            (upgrade("/", "Origin: http://evil.example"), 403),
            (upgrade(connection="notupgrade"), 400),
            (upgrade(connection="upgrade2"), 400),
            (upgrade().replace(b"Upgrade: websocket", b"Upgrade: notwebsocket"), 400),
            (upgrade().replace(b"HTTP/1.1", b"HTTP/1.0"), 400),
            (upgrade("/", "X: a\x0bUpgrade: x"), 400),
            (upgrade().replace(b"GET", b"POST"), 405),
        ]:
            client = await self.connect()
            client.send(head + SMUGGLED)
            await client.gone
            self.assertEqual(client.data.count(b"HTTP/1.1 "), 1, head)
            self.assertTrue(client.data.startswith(b"HTTP/1.1 %d " % status), (head, bytes(client.data[:80])))
        self.assertEqual(Smuggled.seen, [])
        self.assertEqual(self.made, [])

    async def test_an_accepted_one_takes_everything(self) -> None:
        self.start()
        await self.assert_ends(SMUGGLED, 1002)
        self.assertEqual(Smuggled.seen, [])

    async def test_other_line_ends_are_none(self) -> None:
        """Item 6: characters that Python takes for line ends do not make headers for the handshake."""
        self.start()
        for character in "\x0b\x0c\x1c\x1d\x1e\x85":
            client = await self.connect()
            client.send(upgrade("/", f"X-A: b{character}Origin: http://evil.example"))
            data = await client.until(b"\r\n\r\n")
            self.assertTrue(data.startswith(b"HTTP/1.1 400 "), (character, bytes(data[:60])))


class EndTests(WebSocketAttack):
    """Item 62: the application hears of the end exactly once, whatever the end was."""

    async def assert_one_close(self, end: Any, expected: tuple[Any, ...]) -> None:
        self.made.clear()
        socket = await self.raw()
        end(socket)
        await self.until(lambda: self.handler.closes)
        socket.client.close()
        await socket.client.gone
        await self.until(lambda: self.made[0]._on_close_called)
        await sleep(0.02)
        self.assertEqual(self.handler.closes, [("close", *expected)])

    async def test_close_frames(self) -> None:
        self.start()

        def both(socket: RawSocket) -> None:
            socket.send(CLOSE, b"\x03\xe9bye")
            self.handler.close(1001)

        await self.assert_one_close(lambda socket: socket.send(CLOSE, b"\x03\xe8"), (1000, None))
        await self.assert_one_close(lambda socket: socket.send(CLOSE), (None, None))
        await self.assert_one_close(both, (1001, "bye"))

    async def test_a_lost_connection(self) -> None:
        self.start()
        await self.assert_one_close(lambda socket: socket.client.close(), (None, None))
        await self.assert_one_close(
            lambda socket: socket.client.transport.abortConnection(),  # type: ignore[union-attr]
            (None, None),
        )

    async def test_a_ping_without_answer(self) -> None:
        self.start(websocket_ping_interval=0.05, websocket_ping_timeout=0.02, websocket_close_timeout=0.02)
        await self.assert_one_close(lambda socket: None, (1000, "ping timed out"))

    async def test_broken_frames(self) -> None:
        self.start()
        await self.assert_one_close(
            lambda socket: socket.send(3, b""),
            (1002, "invalid frame header"),
        )


class TimeoutTests(WebSocketAttack):
    async def test_upgraded_sockets_outlive_the_timeouts_of_http(self) -> None:
        """Item 63."""
        limits = Limits(
            header_timeout=0.05, idle_connection_timeout=0.05, body_grace=0.05, write_timeout=0.05
        )
        self.start(server_options={"limits": limits})
        socket = await self.raw()
        idle = await self.connect()
        await idle.gone
        await sleep(0.3)
        socket.send(TEXT, b"still here")
        self.assertEqual(await socket.read(), [Frame(TEXT, b"still here")])

    async def test_fuzzed_frames_never_raise(self) -> None:
        """Item 79: random bytes end with a close code, and with nothing in the log of errors."""
        import random

        generator = random.Random(63)
        self.start(compression={}, websocket_close_timeout=0.2)
        for _ in range(60):
            self.made.clear()
            socket = await self.raw("/", "Sec-WebSocket-Extensions: permessage-deflate")
            data = bytearray(frame(TEXT, b"hello") * 3 + frame(PING, b"p") + frame(BINARY, b"x" * 300))
            for _ in range(generator.randrange(1, 8)):
                data[generator.randrange(len(data))] = generator.randrange(256)
            socket.client.send(bytes(data))
            socket.client.send(frame(CLOSE, b"\x03\xe8"))
            await sleep(0)
            socket.client.close()
            await self.until(lambda: self.handler.closes)
            self.assertEqual(len(self.handler.closes), 1)
        self.assertEqual(self.logs.serious, [])
