"""Pipelining: one at a time, in order, nothing behind the end, and no queue without bound."""

from __future__ import annotations

import socket
import threading
import time

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from cycloneish.httpserver import HTTPServer
from cycloneish.web import RequestHandler
from tests.security.support import (
    SMUGGLED,
    Recorder,
    RecordingApplication,
    SecurityTestCase,
    parse_responses,
    request,
)


class Slow(RequestHandler):
    """Answers after the delay in its path, and notes how many were at work at once."""

    async def get(self, milliseconds: str) -> None:
        application = self.application
        application.seen.append(("GET", self.request.uri))
        application.working = getattr(application, "working", 0) + 1
        application.most = max(getattr(application, "most", 0), application.working)
        await deferLater(reactor, int(milliseconds) / 1000)
        application.working -= 1
        self.write(milliseconds)


class Waiting(RequestHandler):
    """Answers when the test fires ``application.gate``."""

    async def get(self) -> None:
        self.application.seen.append(("GET", self.request.uri))
        await self.application.gate
        self.write("ok")


class PipelineTests(SecurityTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.application = RecordingApplication(
            [(r"/slow/(\d+)", Slow), ("/wait", Waiting), ("/.*", Recorder)]
        )
        self.application.gate = Deferred()
        self.served = self.serve(self.application)

    async def test_answers_come_in_the_order_of_the_requests(self) -> None:
        """17. The first takes longest and is still answered first."""
        delays = (120, 5, 60, 0, 30)
        peer = await self.exchange(
            self.served, b"".join(request(f"/slow/{delay}") for delay in delays), len(delays)
        )
        self.assertEqual([answer.body for answer in peer.answers], [b"%d" % delay for delay in delays])

    async def test_requests_are_processed_one_at_a_time(self) -> None:
        """17. The second is not begun before the first is answered."""
        await self.exchange(self.served, b"".join(request(f"/slow/{delay}") for delay in (30, 1, 1)), 3)
        self.assertEqual(self.application.most, 1)

    async def test_many_in_one_packet_are_all_answered(self) -> None:
        """17. 500 at once."""
        peer = await self.exchange(self.served, request("/a") * 500, 500)
        self.assertEqual(peer.statuses, [200] * 500)

    async def test_nothing_behind_connection_close_is_processed(self) -> None:
        """18. ``Connection: close``, HTTP/1.0, and both with a handler that takes its time."""
        for data in (
            request("/a", "Connection: close"),
            request("/a", "Connection: keep-alive, close"),
            request("/a", version="HTTP/1.0"),
            request("/slow/30", "Connection: close"),
        ):
            peer = await self.connect(self.served)
            peer.send(data + SMUGGLED)
            await peer.until_closed(3)
            self.assertTrue(peer.closed, data)
            self.assertEqual(peer.statuses, [200])
        self.assertNotIn("/smuggled", [uri for _, uri in self.application.seen])

    async def test_nothing_behind_a_400_is_processed(self) -> None:
        """18. Neither behind a first request that is bad, nor behind a later one."""
        bad = request("/", "X-A : b")
        await self.assert_refused(self.served, bad)
        peer = await self.attack(self.served, request("/a") + bad)
        self.assertEqual(peer.statuses, [200, 400])
        peer = await self.attack(self.served, request("/slow/30") + bad)
        self.assertEqual(peer.statuses, [200, 400])
        self.assert_nothing_smuggled(self.served)

    async def test_nothing_behind_a_refused_upgrade_is_another_protocol(self) -> None:
        """18. A handler that ignores ``Upgrade`` answers, and the next bytes are HTTP again."""
        data = request("/a", "Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AA")
        peer = await self.exchange(self.served, data + request("/b"), 2)
        self.assertEqual(peer.statuses, [200, 200])
        self.assertEqual([uri for _, uri in self.application.seen], ["/a", "/b"])

    async def test_the_queue_of_unprocessed_bytes_is_bounded(self) -> None:
        """19. While a request waits, the transport is paused after a bounded number of bytes."""
        protocol, transport = self.memory_peer(HTTPServer(self.application))
        protocol.dataReceived(request("/wait"))
        fed = 0
        while transport.producerState == "producing" and fed < 10_000_000:
            protocol.dataReceived(request("/a") * 100)
            fed += len(request("/a")) * 100
        self.assertEqual(transport.producerState, "paused")
        self.assertLess(fed, 1_000_000)
        self.application.gate.callback(None)
        while len(transport.value()) < 100 * 100 and transport.producerState != "producing":
            await self.pause()
        await self.pause(0.05)
        answers = parse_responses(transport.value())
        self.assertEqual(len(answers), 1 + fed // len(request("/a")))
        transport.loseConnection()
        await self.pause()

    async def test_a_flooding_client_is_stopped_by_its_own_socket(self) -> None:
        """19. The same over a socket: the client cannot get rid of 64 MB while its first request waits."""
        stop = threading.Event()

        def flood() -> int:
            sent = 0
            with socket.create_connection(("127.0.0.1", self.served.port), timeout=0.5) as client:
                client.sendall(request("/wait"))
                try:
                    while sent < 64_000_000 and not stop.is_set():
                        sent += client.send(request("/a") * 1000)
                except TimeoutError:
                    pass
            return sent

        sent = await deferToThread(flood)
        stop.set()
        self.assertLess(sent, 32_000_000)
        self.assertEqual(self.application.seen, [("GET", "/wait")])
        self.application.gate.callback(None)
        await self.pause(0.05)

    async def test_requests_behind_a_lost_connection_are_not_processed(self) -> None:
        """19. The client leaves while its first request waits: the others die with it."""
        peer = await self.connect(self.served)
        peer.send(request("/wait") + request("/a") * 10)
        while not self.application.seen:
            await self.pause(0.01)
        peer.drop()
        await self.pause(0.05)
        if not self.application.gate.called:
            self.application.gate.callback(None)
        await self.pause(0.05)
        self.assertEqual(self.application.seen, [("GET", "/wait")])
        self.assertEqual(self.logs.serious, [])

    async def test_a_client_may_close_between_requests(self) -> None:
        """20. No answer, nothing in the log; with and without a request before."""
        for data in (b"", request("/a")):
            peer = await self.connect(self.served)
            if data:
                peer.send(data)
                await peer.until_answers(1)
            self.logs.clear()
            peer.transport.loseConnection()
            await peer.until_closed()
            await self.pause(0.02)
            self.assertEqual(self.logs.records, [])

    async def test_a_client_may_reset_at_any_point(self) -> None:
        """20. In the head, in the body, while the answer is made: no traceback, at most a line."""
        for data in (
            b"GET / HT",
            request("/", "Content-Length: 10", method="POST") + b"x",
            request("/slow/20"),
        ):
            self.logs.clear()
            peer = await self.connect(self.served)
            peer.send(data)
            await self.pause(0.01)
            peer.drop()
            await self.pause(0.05)
            self.assertEqual(self.logs.serious, [])
            self.assertLessEqual(len(self.logs.of("general", "application")), 1)

    async def test_a_client_may_close_its_sending_side_and_still_gets_its_answer(self) -> None:
        """20. Half-close behind a complete request, as ``nc -N`` does."""
        peer = await self.connect(self.served)
        peer.send(request("/a") + request("/b"))
        peer.transport.loseWriteConnection()
        await peer.until_closed(5)
        self.assertTrue(peer.closed)
        self.assertEqual(peer.statuses, [200, 200])

    async def test_a_half_close_while_a_handler_waits_ends_in_time_and_quietly(self) -> None:
        """20. It cannot be told from a client that left: an answer or none, but no hang and no traceback."""
        peer = await self.connect(self.served)
        peer.send(request("/slow/30"))
        peer.transport.loseWriteConnection()
        started = time.monotonic()
        await peer.until_closed(5)
        self.assertTrue(peer.closed)
        self.assertLess(time.monotonic() - started, 3)
        self.assertIn(peer.statuses, ([200], []))
        self.assertEqual(self.logs.serious, [])

    async def test_a_half_request_and_half_close_is_closed(self) -> None:
        """20. An incomplete request whose rest can never come does not wait for a time-out."""
        for data in (b"GET / HT", request("/", "Content-Length: 10", method="POST") + b"x"):
            peer = await self.connect(self.served)
            peer.send(data)
            peer.transport.loseWriteConnection()
            await peer.until_closed(3)
            self.assertTrue(peer.closed)
            self.assertNotIn(200, peer.statuses)
