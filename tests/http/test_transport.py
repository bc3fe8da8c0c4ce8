"""Writing straight to a TCP socket: in order, bounded, with the transport's help where the kernel is full."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cycloneish.http.transport import Outbox, TCPWriter, Writer


class Socket:
    """Takes at most *room* bytes; raises *error* when there is one."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.gathered = 0
        self.room = 1_000_000
        self.error: OSError | None = None

    def send(self, data: bytes) -> int:
        if self.error is not None:
            raise self.error
        data = data[: self.room]
        self.taken.append(data)
        return len(data)

    def sendmsg(self, pieces: list[bytes]) -> int:
        self.gathered += 1
        return self.send(b"".join(pieces))


class TCP:
    """The attributes of Twisted's TCP transport that the writer looks at."""

    def __init__(self) -> None:
        self.socket = Socket()
        self.written: list[bytes] = []
        self._tempDataBuffer: list[bytes] = []
        self.dataBuffer = b""
        self.disconnecting = False
        self.connected = True
        self.sequences = 0

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def writeSequence(self, pieces: list[bytes]) -> None:
        self.written += pieces
        self.sequences += 1


class Writing(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.outbox = Outbox(self.clock)
        self.transport = TCP()
        self.writer = TCPWriter(self.transport, self.outbox)

    def test_one_send_at_the_end_of_the_turn(self) -> None:
        other = TCP()
        self.writer.write(b"a")
        self.writer.write(b"b")
        TCPWriter(other, self.outbox).write(b"c")
        self.assertEqual(self.transport.socket.taken, [])
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(0)
        self.assertEqual((self.transport.socket.taken, other.socket.taken), ([b"ab"], [b"c"]))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.writer.write(b"d")
        self.clock.advance(0)
        self.assertEqual(self.transport.socket.taken, [b"ab", b"d"])

    def test_much_is_sent_at_once(self) -> None:
        self.writer.write(b"x" * 20_000)
        self.assertEqual(self.transport.socket.taken, [b"x" * 20_000])
        self.assertEqual(self.clock.getDelayedCalls(), [], "nothing is left for the end of the turn")
        self.writer.write(b"a")
        self.writer.write(b"y" * 20_000)
        self.assertEqual(b"".join(self.transport.socket.taken[1:]), b"a" + b"y" * 20_000, "in order")
        self.clock.advance(0)
        self.assertEqual(len(self.transport.socket.taken), 2)

    def test_the_transport_gets_what_the_kernel_does_not_take(self) -> None:
        self.transport.socket.room = 3
        self.writer.write(b"abcdef")
        self.writer.flush()
        self.assertEqual((self.transport.socket.taken, self.transport.written), ([b"abc"], [b"def"]))
        self.transport.socket.error = BlockingIOError()
        self.writer.write(b"ghi")
        self.writer.flush()
        self.assertEqual(self.transport.written, [b"def", b"ghi"])
        self.assertFalse(self.writer.broken)

    def test_large_pieces_are_sent_without_being_joined(self) -> None:
        large = b"x" * 20_000
        pieces = [b"4e20\r\n", large, b"\r\n"]
        whole = b"".join(pieces)
        for room in (0, 3, 6, 7, 20_000, 20_006, 20_007, 1_000_000):
            transport = TCP()
            transport.socket.room = room
            TCPWriter(transport, self.outbox).write_pieces(pieces)
            self.assertEqual(b"".join(transport.socket.taken + transport.written), whole)
            self.assertEqual(b"".join(transport.socket.taken), whole[:room])
            self.assertEqual(transport.socket.gathered, 1)
            self.assertEqual(transport.sequences, int(room < len(whole)), "one call, one look at what waits")
        for error, broken in ((BlockingIOError(), False), (ConnectionResetError(), True)):
            transport = TCP()
            transport.socket.error = error
            writer = TCPWriter(transport, self.outbox)
            writer.write_pieces(pieces)
            self.assertEqual((b"".join(transport.written), writer.broken), (whole, broken))
        waiting = TCP()
        waiting.dataBuffer = b"x"
        TCPWriter(waiting, self.outbox).write_pieces(pieces)
        self.assertEqual((waiting.socket.taken, b"".join(waiting.written)), ([], whole))
        self.writer.write(b"head")
        self.writer.write_pieces([b"1\r\n", b"x", b"\r\n"])
        self.writer.write_pieces([large] * 20)
        self.assertEqual(self.transport.socket.taken, [b"head1\r\nx\r\n" + large * 20])
        Writer(other := TCP()).write_pieces(pieces)
        self.assertEqual(other.written, [whole])

    def test_never_ahead_of_what_waits_in_the_transport(self) -> None:
        for name, value in [
            ("_tempDataBuffer", [b"x"]),
            ("dataBuffer", b"x"),
            ("disconnecting", True),
            ("connected", False),
        ]:
            transport = TCP()
            setattr(transport, name, value)
            writer = TCPWriter(transport, self.outbox)
            writer.write(b"a")
            writer.flush()
            self.assertEqual((transport.socket.taken, transport.written), ([], [b"a"]), name)

    def test_a_dead_socket_is_noted_and_left_to_the_transport(self) -> None:
        self.transport.socket.error = ConnectionResetError()
        self.writer.write(b"a")
        self.writer.flush()
        self.assertTrue(self.writer.broken)
        self.assertEqual(self.transport.written, [b"a"])

    def test_other_transports_are_written_to_as_they_are(self) -> None:
        writer = Writer(self.transport)
        writer.write(b"a")
        writer.flush()
        self.assertEqual(self.transport.written, [b"a"])
        self.assertEqual(self.transport.socket.taken, [])
