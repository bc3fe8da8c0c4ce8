"""Request bodies in gzip coding: inflated in pieces, counted while they grow, and refused when broken."""

from __future__ import annotations

import gzip
from typing import Any

from twisted.internet.defer import Deferred

from tests.http.support import body_of, later, status_of
from tests.http.test_http1 import HEAD_OF_POST, EngineTestCase


def zipped(data: bytes, coding: bytes = b"gzip") -> bytes:
    head = HEAD_OF_POST.replace(b"\r\n\r\n", b"\r\nContent-Encoding: " + coding + b"\r\n\r\n")
    return head % len(data) + data


class Inflating(EngineTestCase):
    def test_body_is_inflated(self) -> None:
        for coding in (b"gzip", b"x-gzip", b"GZip"):
            peer = self.connect(decompress_request=True)
            self.assertEqual(body_of(peer.send(zipped(gzip.compress(b"hello"), coding))), b"hello")
            self.assertEqual(self.message.headers["X-Consumed-Content-Encoding"], coding.decode())
            self.assertNotIn("Content-Encoding", self.message.headers)

    def test_others_pass(self) -> None:
        peer = self.connect(decompress_request=True)
        self.assertEqual(body_of(peer.send(zipped(b"hello", b"br"))), b"hello")
        peer = self.connect()
        data = gzip.compress(b"hello")
        self.assertEqual(body_of(peer.send(zipped(data))), data)

    def test_split_everywhere(self) -> None:
        data = zipped(gzip.compress(b"hello"))
        peer = self.connect(decompress_request=True)
        for i in range(len(data)):
            answer = peer.send(data[i : i + 1])
        self.assertEqual(body_of(answer), b"hello")

    def test_several_members(self) -> None:
        peer = self.connect(decompress_request=True, max_gzip_members=3)
        member = gzip.compress(b"ab")
        self.assertEqual(body_of(peer.send(zipped(member * 3))), b"ababab")
        self.assertEqual(status_of(peer.send(zipped(member * 4))), 400)

    def test_pieces_are_bounded_and_wait_for_each_other(self) -> None:
        peer = self.connect(decompress_request=True, chunk_size=1000)
        waiting: list[Deferred[None]] = []

        def on_data(message: Any) -> Deferred[None] | None:
            if len(message.pieces) == 5:
                return None
            waiting.append(later())
            return waiting[-1]

        self.recorder.on_data = on_data
        peer.send(zipped(gzip.compress(bytes(9500))))
        for number in range(1, 5):
            self.assertEqual(len(self.message.pieces), number)
            waiting[number - 1].callback(None)
        self.assertEqual(len(self.message.pieces), 6)
        for deferred in waiting[4:]:
            deferred.callback(None)
        while not self.message.events:
            waiting[-1].callback(None)
        self.assertEqual({len(piece) for piece in self.message.pieces}, {1000, 500})
        self.assertEqual(len(self.message.body), 9500)

    def test_bomb(self) -> None:
        peer = self.connect(decompress_request=True, max_body_size=100_000, chunk_size=10_000)
        self.assertEqual(status_of(peer.send(zipped(gzip.compress(bytes(1_000_000))))), 413)
        self.assertLessEqual(len(self.message.body), 100_000)
        self.assertEqual(self.message.events, ["close"])

    def test_bomb_behind_a_piece_that_waits(self) -> None:
        peer = self.connect(decompress_request=True, max_body_size=100_000, chunk_size=60_000)
        waiting = later()
        self.recorder.on_data = lambda message: waiting
        peer.send(zipped(gzip.compress(bytes(1_000_000))))
        self.assertEqual(peer.received(), b"")
        waiting.callback(None)
        self.assertEqual(status_of(peer.received()), 413)

    def test_broken(self) -> None:
        data = gzip.compress(b"hello" * 100)
        for broken in (b"plain text", data[:-1], data[:20] + b"\xff" + data[21:], data + b"trailing"):
            peer = self.connect(decompress_request=True)
            with self.assertLogs("cycloneish.general", "INFO") as logs:
                self.assertEqual(status_of(peer.send(zipped(broken))), 400)
            self.assertIn("gzip", logs.output[0])

    def test_client_that_leaves(self) -> None:
        peer = self.connect(decompress_request=True)
        peer.send(zipped(gzip.compress(b"hello"))[:-3])
        peer.leave()
        self.assertEqual(self.message.events, ["close"])
