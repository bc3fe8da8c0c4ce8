"""Leaks: a hundred thousand requests that go wrong leave nothing behind."""

from __future__ import annotations

import gc
import logging
import resource
import sys
from collections.abc import Callable
from pathlib import Path

from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from cycloneish.httpserver import HTTPServer
from cycloneish.web import RequestHandler
from tests.security.support import (
    Recorder,
    RecordingApplication,
    SecurityTestCase,
    make_server,
    multipart,
    part,
    post_multipart,
    request,
)

KIB = 1024


def _resident() -> int:
    """Bytes of resident memory now; where the system does not tell, the most there ever was."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB


class Waiting(RequestHandler):
    """Never answers by itself."""

    _auto_finish = False

    def get(self) -> None:
        pass


class Application(RecordingApplication):
    """Does not write down what it has seen."""

    class _Nothing(list[tuple[str, str]]):
        def append(self, item: tuple[str, str]) -> None:
            pass

    def __init__(self) -> None:
        super().__init__(
            [("/ok", Recorder), ("/wait", Waiting), (r"/item/(\d+)", Recorder)],
            log_function=lambda handler: None,
        )
        self.seen = self._Nothing()


class LeakTests(SecurityTestCase):
    timeout = 120

    def setUp(self) -> None:
        super().setUp()
        # The captured log would be the leak.
        logging.getLogger("cycloneish").setLevel(logging.ERROR)
        self.server: HTTPServer = make_server(Application())

    async def assert_flat(self, play: Callable[[int], None], count: int) -> None:
        """``play(n)`` for ``count`` numbers leaves no more behind in its second half than caches may.

        Counted are the interpreter's memory blocks, which costs nothing, and the resident memory of the
        process for what is too large for a block.
        """
        middle, end = await self._play(play, 0, count // 2), await self._play(play, count // 2, count)
        self.assertLess(end[0] - middle[0], 500, "memory blocks")
        self.assertLess(end[1] - middle[1], 16 * KIB * KIB, "resident bytes")
        self.assertEqual(self.logs.serious, [])

    async def _play(self, play: Callable[[int], None], start: int, end: int) -> tuple[int, int]:
        for number in range(start, end):
            play(number)
            if not number % 500:
                await self.pause()
        await self.pause(0.02)
        gc.collect()
        return sys.getallocatedblocks(), _resident()

    async def one_connection(self, make: Callable[[int], bytes], status: bytes, count: int) -> None:
        """Many requests over one connection that stays."""
        protocol, transport = self.memory_peer(self.server)
        try:

            def play(number: int) -> None:
                protocol.dataReceived(make(number))
                if not transport.value().startswith(b"HTTP/1.1 " + status):
                    raise AssertionError(transport.value()[:200])
                transport.clear()

            await self.assert_flat(play, count)
        finally:
            transport.loseConnection()
            await self.pause()

    async def test_100_000_requests_for_nothing_leave_memory_flat(self) -> None:
        """78. 404s, each for another path."""
        await self.one_connection(lambda number: request(f"/missing/{number}"), b"404", 100_000)

    async def test_requests_with_a_wrong_method_leave_memory_flat(self) -> None:
        """78. 405s, each with another method."""
        await self.one_connection(lambda number: request("/ok", method=f"M{number}"), b"405", 10_000)

    async def test_ever_new_headers_hosts_and_paths_leave_memory_flat(self) -> None:
        """78. Whatever is cached by name is bounded: header names, hosts, routes, cookies, arguments."""
        await self.one_connection(
            lambda n: request(
                f"/item/{n}?a{n}=b",
                f"X-Name-{n}: a",
                f"Cookie: c{n}=d",
                f"Accept-Language: l{n}",
                host=f"h{n}.example",
            ),
            b"200",
            20_000,
        )

    async def test_aborted_requests_leave_memory_flat(self) -> None:
        """78. Clients that leave in the head, in the body, and while a handler waits."""
        for data in (
            b"GET / HTTP/1.1\r\nHost: a",
            request("/ok", "Content-Length: 1000", method="POST") + b"x" * 500,
            request("/wait"),
            request("/wait") * 3,
        ):

            def play(number: int, data: bytes = data) -> None:
                protocol, transport = self.memory_peer(self.server)
                protocol.dataReceived(data)
                transport.gone = True
                protocol.connectionLost(Failure(ConnectionLost()))

            await self.assert_flat(play, 3000)
        self.assertEqual(len(self.server._connections), 0)

    async def test_refused_requests_leave_memory_flat(self) -> None:
        """78. 400s, each over a connection of its own."""

        def play(number: int) -> None:
            protocol, transport = self.memory_peer(self.server)
            protocol.dataReceived(request(f"/{number}", "X-A : b"))
            transport.gone = True
            protocol.connectionLost(Failure(ConnectionLost()))

        await self.assert_flat(play, 5000)
        self.assertEqual(len(self.server._connections), 0)

    async def test_malformed_forms_leave_memory_flat(self) -> None:
        """78. Multipart bodies that are refused while they are read."""
        self.served = self.serve(Application())
        data = post_multipart(multipart(part("f", b"x" * 1000, "f")) + b"garbage", "/ok")
        protocol, transport = self.memory_peer(self.server)

        def play(number: int) -> None:
            protocol.dataReceived(data)
            transport.clear()

        await self.assert_flat(play, 2000)
        transport.loseConnection()
        await self.pause()
