"""Limits: nothing a client sends is kept or waited for without bound."""

from __future__ import annotations

import gzip
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater

from cycloneish.httpserver import HTTPServer
from cycloneish.web import RequestHandler, stream_request_body
from tests.security.support import (
    SMUGGLED,
    MemoryTransport,
    RecordingApplication,
    SecurityTestCase,
    chunked,
    parse_responses,
    request,
)

KIB = 1024


class BodySize(RequestHandler):
    """Answers with the size of its body."""

    def post(self) -> None:
        self.application.seen.append(("POST", self.request.uri))
        self.write(str(len(self.request.body)))

    put = post


class SmallBody(BodySize):
    max_body_size = 10


class LargeBody(BodySize):
    max_body_size = 10 * KIB


@stream_request_body
class StreamedBody(RequestHandler):
    """Sets the limit that the request asks for, before a byte of the body is read."""

    received = 0

    def prepare(self) -> None:
        limit = self.get_query_argument("limit", None)
        if limit is not None:
            self.request.connection.set_max_body_size(int(limit))
        timeout = self.get_query_argument("timeout", None)
        if timeout is not None:
            self.request.connection.set_body_timeout(float(timeout))

    def data_received(self, chunk: bytes) -> None:
        self.received += len(chunk)
        self.application.most = max(getattr(self.application, "most", 0), self.received)

    def post(self) -> None:
        self.application.seen.append(("POST", self.request.uri))
        self.write(str(self.received))

    put = post


@stream_request_body
class EarlyAnswer(RequestHandler):
    """Answers before it has seen the body."""

    def prepare(self) -> None:
        self.set_status(403)
        self.finish("no")

    def data_received(self, chunk: bytes) -> None:
        self.application.seen.append(("data", ""))


class LimitTestCase(SecurityTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.application = RecordingApplication(
            [
                ("/small", SmallBody),
                ("/large", LargeBody),
                ("/stream", StreamedBody),
                ("/early", EarlyAnswer),
                ("/.*", BodySize),
            ]
        )

    def start(self, **options: Any) -> None:
        self.served = self.serve(self.application, **options)

    async def refuse(self, data: bytes, *statuses: int, behind: bytes = SMUGGLED) -> None:
        await self.assert_refused(self.served, data, *statuses, behind=behind)

    async def answer(self, data: bytes) -> tuple[int, bytes]:
        answer = await self.fetch(self.served, data)
        return answer.status, answer.body


class HeadLimitTests(LimitTestCase):
    """8. The head."""

    async def test_an_over_long_request_line_is_refused(self) -> None:
        """8. Request line: 414 (or 431), complete or not."""
        self.start(max_header_size=4 * KIB)
        await self.refuse(request("/" + "a" * 5 * KIB), 414, 431)
        await self.refuse(b"GET /" + b"a" * 8 * KIB, 414, 431, behind=b"")

    async def test_an_over_long_header_is_refused(self) -> None:
        """8. Each header: 431, complete or not."""
        self.start(max_header_size=4 * KIB)
        await self.refuse(request("/", "X-A: " + "a" * 5 * KIB), 431)
        await self.refuse(request("/")[:-2] + b"X-A: " + b"a" * 8 * KIB, 431, behind=b"")
        await self.refuse(request("/")[:-2] + b"a" * 8 * KIB, 400, 431, behind=b"")

    async def test_too_many_headers_are_refused(self) -> None:
        """8. Number of headers: 431, though they are small."""
        self.start()
        await self.refuse(request("/", *(f"X-{number}: a" for number in range(1000))), 431)
        await self.refuse(request("/", *["X: a"] * 1000), 431)

    async def test_too_large_a_head_is_refused(self) -> None:
        """8. All headers together: 431."""
        self.start(max_header_size=4 * KIB)
        await self.refuse(request("/", *(f"X-{number}: {'a' * 100}" for number in range(50))), 431)

    async def test_the_default_takes_a_head_of_60_kib(self) -> None:
        """8. Proxies add a lot; Tornado's users count on 64 KiB."""
        self.start()
        self.assertEqual((await self.answer(request("/", "X-A: " + "a" * 60 * KIB, method="POST")))[0], 200)

    async def test_empty_lines_before_a_request_are_limited(self) -> None:
        """8. A few line ends before the request line are allowed (RFC 9112), a flood of them is not kept."""
        protocol, transport = self.memory_peer(HTTPServer(self.application, max_header_size=4 * KIB))
        for _ in range(200):
            if not transport.gone:
                protocol.dataReceived(b"\r\n" * 512)
        if not transport.gone:
            protocol.dataReceived(request("/", method="POST"))
        statuses = [answer.status for answer in parse_responses(transport.value())]
        self.assertIn(statuses, ([200], [400], [431], []))
        if not transport.gone:
            transport.loseConnection()
        await self.pause()


class BodyLimitTests(LimitTestCase):
    """8, 10, 11. The body."""

    async def test_a_body_announced_too_large_is_refused_before_it_comes(self) -> None:
        """8. Body: 413 as soon as the length is known."""
        self.start(max_body_size=1000)
        await self.refuse(request("/", "Content-Length: 1001", method="POST"), 413)
        self.assertEqual(self.application.seen, [])

    async def test_a_chunked_body_is_refused_where_it_gets_too_large(self) -> None:
        """8. The same without a length; a chunk that announces too much counts before it has come."""
        self.start(max_body_size=1000)
        await self.refuse(
            request("/", "Transfer-Encoding: chunked", method="POST", body=chunked(b"x" * 600, b"x" * 600)),
            413,
        )
        await self.refuse(
            request("/", "Transfer-Encoding: chunked", method="POST", body=b"7fffffff\r\nxxx"), 413
        )
        self.assertEqual(self.application.seen, [])

    async def test_a_body_of_exactly_the_limit_is_taken(self) -> None:
        """8. The limit is the largest size allowed."""
        self.start(max_body_size=1000)
        self.assertEqual(await self.answer(request("/", method="POST", body=b"x" * 1000)), (200, b"1000"))
        data = request("/", "Transfer-Encoding: chunked", method="POST", body=chunked(b"x" * 500, b"x" * 500))
        self.assertEqual(await self.answer(data), (200, b"1000"))

    async def test_expect_100_continue_is_refused_before_the_body(self) -> None:
        """8. ``Expect: 100-continue`` with too large a body gets the 413 and never the 100."""
        self.start(max_body_size=1000)
        peer = await self.connect(self.served)
        peer.send(request("/", "Expect: 100-continue", "Content-Length: 1001", method="POST"))
        await peer.until_closed(3)
        self.assertEqual(peer.statuses, [413])
        self.assertNotIn(b"100 Continue", peer.received)

    async def test_expect_100_continue_is_answered_when_the_body_may_come(self) -> None:
        """8. And below the limit the client is told to go on."""
        self.start(max_body_size=1000)
        peer = await self.connect(self.served)
        peer.send(request("/", "Expect: 100-continue", "Content-Length: 5", method="POST"))
        await peer.until(lambda: b"100 Continue" in peer.received, 3)
        peer.send(b"hello")
        await peer.until_answers(1)
        self.assertEqual(peer.statuses, [100, 200])
        self.assertEqual(peer.answers[-1].body, b"5")

    async def test_a_handler_class_may_have_a_lower_limit(self) -> None:
        """10. Lowered by the class; the server's limit stays for others."""
        self.start(max_body_size=1000)
        await self.refuse(request("/small", method="POST", body=b"x" * 11), 413)
        self.assertEqual((await self.answer(request("/small", method="POST", body=b"x" * 10)))[1], b"10")
        self.assertEqual((await self.answer(request("/", method="POST", body=b"x" * 11)))[1], b"11")

    async def test_a_handler_class_may_have_a_higher_limit(self) -> None:
        """10. Raised by the class, also for a chunked body."""
        self.start(max_body_size=1000)
        size = 8 * KIB
        self.assertEqual((await self.answer(request("/large", method="POST", body=b"x" * size)))[1], b"8192")
        data = request("/large", "Transfer-Encoding: chunked", method="POST", body=chunked(b"x" * size))
        self.assertEqual((await self.answer(data))[1], b"8192")

    async def test_prepare_may_raise_the_limit(self) -> None:
        """10. Raised in ``prepare``, for this request only."""
        self.start(max_body_size=1000)
        peer = await self.connect(self.served)
        peer.send(request("/stream?limit=5000", method="POST", body=b"x" * 5000))
        await peer.until_answers(1)
        self.assertEqual(peer.answers[-1].body, b"5000")
        peer.send(request("/", method="POST", body=b"x" * 1001))
        await peer.until_closed(3)
        self.assertEqual(peer.statuses, [200, 413])

    async def test_prepare_may_lower_the_limit(self) -> None:
        """10. Lowered in ``prepare``, before a byte of the body is read."""
        self.start(max_body_size=1000)
        await self.refuse(request("/stream?limit=10", method="POST", body=b"x" * 11), 413)
        self.assertEqual(getattr(self.application, "most", 0), 0)
        data = request(
            "/stream?limit=10", "Transfer-Encoding: chunked", method="POST", body=chunked(*[b"x" * 5] * 5)
        )
        await self.refuse(data, 413)
        self.assertLessEqual(getattr(self.application, "most", 0), 10)

    async def test_a_body_is_counted_after_decompression(self) -> None:
        """11. Few bytes on the wire, many in memory: 413; and what fits is taken."""
        self.start(max_body_size=10 * KIB, decompress_request=True)
        packed = gzip.compress(b"x" * 11 * KIB)
        self.assertLess(len(packed), KIB)
        await self.refuse(request("/", "Content-Encoding: gzip", method="POST", body=packed), 413)
        data = request("/", "Content-Encoding: gzip", method="POST", body=gzip.compress(b"x" * 10 * KIB))
        self.assertEqual(await self.answer(data), (200, b"10240"))

    async def test_a_limit_set_in_prepare_counts_after_decompression(self) -> None:
        """11. Also the limit of one request."""
        self.start(decompress_request=True)
        data = request(
            "/stream?limit=1000", "Content-Encoding: gzip", method="POST", body=gzip.compress(b"x" * 50 * KIB)
        )
        await self.refuse(data, 413)
        self.assertLessEqual(getattr(self.application, "most", 0), 1000)


class TimeLimitTests(LimitTestCase):
    """9. Time."""

    async def test_a_slow_head_times_out(self) -> None:
        """9. One byte now and then does not keep a head alive: the whole head has its time."""
        self.start(header_timeout=0.4)
        peer = await self.connect(self.served)
        started = reactor.seconds()
        for byte in b"GET / HTTP/1.1\r\nHost: example.com\r\nX-Slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa":
            peer.send(bytes([byte]))
            await peer.until_closed(0.05)
            if peer.closed:
                break
        await peer.until_closed(3)
        self.assertTrue(peer.closed)
        self.assertLess(reactor.seconds() - started, 2.5)
        self.assertIn(peer.statuses, ([408], []))
        self.assertEqual(self.logs.serious, [])

    async def test_a_slow_body_times_out(self) -> None:
        """9. The same for the body, with a length and in chunks."""
        self.start(body_timeout=0.4)
        for head in (
            request("/", "Content-Length: 1000", method="POST"),
            request("/", "Transfer-Encoding: chunked", method="POST") + b"3e8\r\n",
        ):
            peer = await self.connect(self.served)
            started = reactor.seconds()
            peer.send(head)
            while not peer.closed and reactor.seconds() - started < 4:
                peer.send(b"x")
                await peer.until_closed(0.1)
            self.assertTrue(peer.closed)
            self.assertLess(reactor.seconds() - started, 2.5)
            self.assertIn(peer.statuses, ([408], []))
        self.assertEqual(self.application.seen, [])
        self.assertEqual(self.logs.serious, [])

    async def test_prepare_may_shorten_the_time_of_a_body(self) -> None:
        """9. ``set_body_timeout`` for one request."""
        self.start()
        peer = await self.connect(self.served)
        peer.send(request("/stream?timeout=0.2", "Content-Length: 10", method="POST") + b"x")
        await peer.until_closed(3)
        self.assertTrue(peer.closed)
        self.assertEqual(self.application.seen, [])

    async def test_an_idle_connection_is_closed(self) -> None:
        """9. Before a first request, and between two."""
        self.start(idle_connection_timeout=0.3)
        fresh = await self.connect(self.served)
        used = await self.exchange(self.served, request("/", method="POST"))
        self.assertFalse(used.closed)
        await fresh.until_closed(3)
        await used.until_closed(3)
        self.assertTrue(fresh.closed)
        self.assertTrue(used.closed)
        self.assertEqual((fresh.statuses, used.statuses), ([], [200]))
        self.assertEqual(self.logs.of("general", "application"), [])

    async def test_a_client_that_never_reads_is_let_go(self) -> None:
        """9. An answer that nobody takes does not stay in memory for ever."""

        class Endless(RequestHandler):
            async def get(self) -> None:
                for _ in range(1000):
                    self.write(b"x" * 256 * KIB)
                    await self.flush()

        self.served = self.serve(RecordingApplication([("/", Endless)]), write_timeout=0.5)
        peer = await self.connect(self.served)
        peer.send(request())
        await peer.until(lambda: len(peer.received) > 0)
        peer.transport.pauseProducing()
        await deferLater(reactor, 1.5)
        peer.transport.resumeProducing()
        await peer.until_closed(5)
        self.assertTrue(peer.closed)
        self.assertLess(len(peer.received), 64 * KIB * KIB)
        self.assertEqual(self.logs.serious, [])


class DrainTests(LimitTestCase):
    """12. A body that nobody wants."""

    async def test_a_small_unread_body_is_drained_and_the_connection_goes_on(self) -> None:
        """12. After an early answer the body is read and thrown away; what follows is a request."""
        self.start()
        peer = await self.exchange(
            self.served,
            request("/early", method="POST", body=b"x" * 50 * KIB) + request("/", method="POST"),
            2,
        )
        self.assertIn(peer.statuses, ([403, 200], [403]))
        if peer.statuses == [403]:
            await peer.until_closed(3)
            self.assertTrue(peer.closed)
        self.assertNotIn(("data", ""), self.application.seen)

    async def test_a_large_unread_body_is_drained_up_to_a_bound(self) -> None:
        """12. Then the connection is closed, and what follows is no request."""
        self.start(drain_size=100_000)
        peer = await self.connect(self.served)
        peer.send(request("/early", "Content-Length: 50000000", method="POST"))
        await peer.until_answers(1)
        self.assertEqual(peer.statuses, [403])
        sent = 0
        while not peer.closed and sent < 50_000_000:
            peer.send(b"x" * 100_000)
            sent += 100_000
            await self.pause(0.001)
        self.assertTrue(peer.closed)
        self.assertLess(sent, 45_000_000)
        self.assertNotIn(("data", ""), self.application.seen)
        self.assertEqual(self.logs.serious, [])

    async def test_the_body_of_an_early_answer_is_never_taken_for_a_request(self) -> None:
        """12. A request hidden in an unread body stays a body."""
        self.start()
        peer = await self.exchange(self.served, request("/early", method="POST", body=SMUGGLED * 3))
        await peer.until_closed(0.3)
        self.assertEqual(peer.statuses, [403])
        self.assertNotIn("/smuggled", [uri for _, uri in self.application.seen])

    async def test_a_refused_body_that_keeps_coming_does_not_hide_the_answer(self) -> None:
        """12. The 413 can be read by a client that is still writing: no reset throws it away."""
        self.start(max_body_size=1000)
        peer = await self.connect(self.served)
        peer.send(request("/", "Content-Length: 500000", method="POST") + b"x" * 500_000)
        await peer.until_closed(8)
        self.assertTrue(peer.closed)
        self.assertEqual(peer.statuses, [413])

    async def test_a_paused_reader_bounds_what_is_kept(self) -> None:
        """12. While ``data_received`` is busy, the transport is paused."""

        @stream_request_body
        class Slow(RequestHandler):
            def data_received(self, chunk: bytes) -> Any:
                return deferLater(reactor, 3600)

        protocol, transport = self.memory_peer(HTTPServer(RecordingApplication([("/", Slow)])))
        self.assertIsInstance(transport, MemoryTransport)
        protocol.dataReceived(request("/", "Content-Length: 1000000", method="POST"))
        protocol.dataReceived(b"x" * 100_000)
        self.assertEqual(transport.producerState, "paused")
        for call in reactor.getDelayedCalls():
            if call.getTime() - reactor.seconds() > 3000:
                call.cancel()
        transport.loseConnection()
        await self.pause()
