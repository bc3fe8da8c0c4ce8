"""Fairness: one client that does its worst does not keep the others waiting."""

from __future__ import annotations

import gzip
import socket
import threading
import time

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from cycloneish.web import RequestHandler, stream_request_body
from tests.security.support import Recorder, RecordingApplication, SecurityTestCase, Served, request

#: Seconds that a second client may wait. On an idle machine it waits a few milliseconds.
PATIENCE = 0.5


@stream_request_body
class Counted(RequestHandler):
    """Takes its body as it comes."""

    def data_received(self, chunk: bytes) -> None:
        pass

    def post(self) -> None:
        self.write("ok")


class FairnessTests(SecurityTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.served = self.serve(
            RecordingApplication(
                [("/stream", Counted), ("/.*", Recorder)], log_function=lambda handler: None
            ),
            decompress_request=True,
        )

    async def measure(self, *floods: bytes, first: bytes = b"", answers: bool = False) -> None:
        """Flood the server from threads, again and again with the same bytes, while a second client asks."""
        stop = threading.Event()

        def flood(data: bytes) -> int:
            sent = 0
            try:
                with socket.create_connection(("127.0.0.1", self.served.port), timeout=0.2) as client:
                    client.sendall(first)
                    while not stop.is_set():
                        try:
                            sent += client.send(data)
                        except TimeoutError:
                            pass
                        if answers:
                            client.setblocking(False)
                            try:
                                client.recv(1 << 20)
                            except BlockingIOError:
                                pass
                            client.settimeout(0.2)
            except OSError:
                pass  # refused and closed: just as well
            return sent

        running = [deferToThread(flood, data) for data in floods]
        try:
            await deferLater(reactor, 0.1)
            waits = []
            deadline = time.monotonic() + 1.5
            while time.monotonic() < deadline:
                started = time.monotonic()
                answer = await self.fetch(self.served, request("/"))
                waits.append(time.monotonic() - started)
                self.assertEqual(answer.status, 200)
        finally:
            stop.set()
            sent = [await one for one in running]
        self.assertGreater(max(sent), 0)
        waits.sort()
        # One long wait in fifty may be the machine's.
        self.assertLess(
            waits[int(len(waits) * 0.98) - 1], PATIENCE, f"{len(waits)} waits, longest {waits[-3:]}"
        )
        self.assertEqual(self.logs.serious, [])

    async def test_tiny_chunks_do_not_delay_a_second_client(self) -> None:
        """64. Chunks of one byte, as fast as they can be sent."""
        head = request("/stream", "Transfer-Encoding: chunked", method="POST")
        await self.measure(b"1\r\nx\r\n" * 10_000, first=head)

    async def test_a_large_body_does_not_delay_a_second_client(self) -> None:
        """64. A plain body at full speed."""
        head = request("/stream", "Content-Length: 99000000", method="POST")
        await self.measure(b"x" * 1_000_000, first=head)

    async def test_pipelined_requests_do_not_delay_a_second_client(self) -> None:
        """64. Thousands of small requests in one packet."""
        await self.measure(request("/a") * 1000, answers=True)

    async def test_a_slow_trickle_of_headers_does_not_delay_a_second_client(self) -> None:
        """64. A head that is never complete, from several connections."""
        await self.measure(*[b"X-A: b\r\n"] * 3, first=b"GET / HTTP/1.1\r\n")

    async def test_empty_lines_do_not_delay_a_second_client(self) -> None:
        """64. Line ends before a request, which are to be ignored, as fast as they can be sent."""
        await self.measure(b"\r\n" * 30_000, b"\r\n" * 30_000)

    async def test_tiny_gzip_members_do_not_delay_a_second_client(self) -> None:
        """64. Work that costs the client nothing."""
        head = request("/stream", "Content-Encoding: gzip", "Transfer-Encoding: chunked", method="POST")
        piece = gzip.compress(b"")
        await self.measure(b"%x\r\n%b\r\n" % (len(piece), piece) * 1000, first=head)

    async def test_malformed_requests_do_not_delay_a_second_client(self) -> None:
        """64. Connections that are opened, refused and opened again."""
        stop = threading.Event()
        refused = 0

        def flood(served: Served) -> None:
            nonlocal refused
            while not stop.is_set():
                try:
                    with socket.create_connection(("127.0.0.1", served.port), timeout=1) as client:
                        client.sendall(b"BAD\r\n\r\n" * 100)
                        client.recv(1000)
                        refused += 1
                except OSError:
                    pass

        running = deferToThread(flood, self.served)
        waits = []
        try:
            deadline = time.monotonic() + 1.5
            while time.monotonic() < deadline:
                started = time.monotonic()
                await self.fetch(self.served, request("/"))
                waits.append(time.monotonic() - started)
        finally:
            stop.set()
            await running
        self.assertGreater(refused, 10)
        waits.sort()
        self.assertLess(waits[int(len(waits) * 0.98) - 1], PATIENCE)
        self.assertEqual(self.logs.serious, [])
