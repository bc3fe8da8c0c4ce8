"""Tornado's stream on real sockets."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from cycloneish.iostream import (
    READ_AHEAD,
    IOStream,
    StreamBufferFullError,
    StreamClosedError,
    UnsatisfiableReadError,
)


class Streams(TestCase):
    def pair(self, **options: Any) -> tuple[IOStream, IOStream]:
        one, other = socket.socketpair()
        streams = IOStream(one), IOStream(other, **options)
        for stream in streams:
            self.addCleanup(stream.close)
        return streams

    @inlineCallbacks
    def test_ways_to_read(self) -> Any:
        left, right = self.pair()
        yield left.write(b"one\r\ntwo 22 three")
        self.assertEqual((yield right.read_until(b"\r\n")), b"one\r\n")
        self.assertEqual((yield right.read_until_regex(rb"[0-9]+ ")), b"two 22 ")
        self.assertEqual((yield right.read_bytes(2)), b"th")
        self.assertEqual((yield right.read_bytes(100, partial=True)), b"ree")
        rest = right.read_until_close()
        self.assertTrue(right.reading())
        yield left.write(memoryview(b"the rest"))
        left.close()
        self.assertEqual((yield rest), b"the rest")
        self.assertTrue(right.closed())
        yield self.assertFailure(right.read_bytes(1), StreamClosedError)
        self.assertRaises(StreamClosedError, right.write, b"x")

    @inlineCallbacks
    def test_limits(self) -> Any:
        left, right = self.pair()
        yield left.write(b"x" * 100)
        error = yield self.assertFailure(right.read_until(b"\n", max_bytes=50), StreamClosedError)
        self.assertIsInstance(error.real_error, UnsatisfiableReadError)
        left, right = self.pair(max_buffer_size=1000)
        read = right.read_bytes(5000)
        yield left.write(b"x" * 2000)
        error = yield self.assertFailure(read, StreamClosedError)
        self.assertIsInstance(error.real_error, StreamBufferFullError)

    @inlineCallbacks
    def test_both_sides_are_held_back(self) -> Any:
        left, right = self.pair()
        written = left.write(b"x" * 20_000_000)
        yield deferLater(reactor, 0.1)
        self.assertFalse(written.done())
        self.assertTrue(left.writing())
        self.assertLess(len(right._buffer), READ_AHEAD + 1_000_000)
        self.assertEqual(len((yield right.read_bytes(20_000_000))), 20_000_000)
        yield written

    @inlineCallbacks
    def test_closing(self) -> Any:
        left, right = self.pair()
        seen: list[str] = []
        right.set_close_callback(lambda: seen.append("closed"))
        written = left.write(b"x" * 20_000_000)
        read = right.read_bytes(1)
        yield read
        endless = right.read_bytes(10**9)
        self.assertRaises(RuntimeError, right.read_bytes, 1)
        right.close()
        yield self.assertFailure(endless, StreamClosedError)
        self.assertEqual(seen, ["closed"])
        yield self.assertFailure(written, StreamClosedError)
        right.set_close_callback(lambda: seen.append("late"))
        self.assertEqual(seen, ["closed", "late"])

    @inlineCallbacks
    def test_connecting(self) -> Any:
        with socket.create_server(("127.0.0.1", 0)) as server:
            stream = IOStream(socket.socket())
            self.assertRaises(StreamClosedError, stream.write, b"x")
            self.assertIs((yield stream.connect(server.getsockname())), stream)
            stream.set_nodelay(True)
            accepted = IOStream(server.accept()[0])
            yield accepted.write(b"hello")
            self.assertEqual((yield stream.read_bytes(5)), b"hello")
            accepted.close()
            stream.close()
            address = server.getsockname()
        yield self.assertFailure(IOStream(socket.socket()).connect(address), StreamClosedError)

    @inlineCallbacks
    def test_a_cancelled_read_loses_nothing(self) -> Any:
        left, right = self.pair()
        read = right.read_bytes(5)
        read.addErrback(lambda _: None)
        read.cancel()
        yield left.write(b"hello")
        self.assertEqual((yield right.read_bytes(5)), b"hello")
