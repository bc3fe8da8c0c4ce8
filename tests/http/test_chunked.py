"""Chunked bodies: whatever the pieces in which they arrive."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cycloneish.http.chunked import ChunkedReader
from cycloneish.http.limits import Limits
from cycloneish.httputil import HTTPInputError

LIMITS = Limits()
BODY = b'5\r\nhello\r\n6;a=b;c="d;\\"e"\r\n world\r\n00\r\nX-Sum: 7\r\nY:z\r\n\r\n'


def read(*pieces: bytes, limits: Limits = LIMITS, size: int = 65536) -> tuple[bytes, ChunkedReader]:
    reader = ChunkedReader(limits)
    out = []
    for piece in pieces:
        data = piece
        while True:
            got = reader.read(data, size)
            out.append(got)
            data = b""
            if not got or reader.complete:
                break
    return b"".join(out), reader


class Reading(SynchronousTestCase):
    def test_whole(self) -> None:
        body, reader = read(BODY + b"GET /next")
        self.assertEqual(body, b"hello world")
        self.assertTrue(reader.complete)
        self.assertEqual(reader.rest, b"GET /next")
        self.assertEqual(dict(reader.trailers), {"X-Sum": "7", "Y": "z"})

    def test_split_anywhere(self) -> None:
        for cut in range(1, len(BODY)):
            body, reader = read(BODY[:cut], BODY[cut:])
            self.assertEqual((body, reader.complete, reader.rest), (b"hello world", True, b""), cut)

    def test_byte_by_byte(self) -> None:
        body, reader = read(*[BODY[i : i + 1] for i in range(len(BODY))])
        self.assertEqual(body, b"hello world")
        self.assertTrue(reader.complete)

    def test_pieces_of_a_bounded_size(self) -> None:
        reader = ChunkedReader(Limits())
        sizes = [len(reader.read(b"10\r\n0123456789abcdef\r\n0\r\n\r\n", 5))]
        while not reader.complete:
            sizes.append(len(reader.read(b"", 5)))
        self.assertEqual(sum(sizes), 16)
        self.assertLessEqual(max(sizes), 5)

    def test_many_tiny_chunks(self) -> None:
        body, reader = read(b"1\r\na\r\n" * 5000 + b"0\r\n\r\n")
        self.assertEqual(len(body), 5000)
        self.assertTrue(reader.complete)


class Refused(SynchronousTestCase):
    def refused(self, *pieces: bytes, limits: Limits = LIMITS) -> str:
        return str(self.assertRaises(HTTPInputError, read, *pieces, limits=limits))

    def test_sizes(self) -> None:
        for size in [
            b"+5",
            b"-1",
            b"0x5",
            b"1_0",
            b" 5",
            b"5 ",
            b"",
            b"g",
            b"1" * 17,
            b"5;",
            b"5;a=",
            b"5 a",
        ]:
            self.assertIn("invalid chunk size", self.refused(size + b"\r\nhello\r\n0\r\n\r\n"), size)

    def test_bad_size_is_refused_before_its_line_ends(self) -> None:
        self.refused(b"zz")

    def test_line_ends(self) -> None:
        self.refused(b"5\nhello\r\n0\r\n\r\n")
        self.refused(b"5;a\nb\r\nhello\r\n0\r\n\r\n")
        self.refused(b"5\r\nhelloXX0\r\n\r\n")
        self.refused(b"5\r\nhello\n0\r\n\r\n")
        self.refused(b"0\r\nX: y\n\r\n")

    def test_long_lines(self) -> None:
        self.refused(b"5;" + b"a" * 300 + b"\r\nhello\r\n")
        self.refused(b"5;" + b"a" * 300)

    def test_trailers(self) -> None:
        self.refused(b"0\r\n" + b"X: y\r\n" * 2000)
        self.refused(b"0\r\nX: " + b"y" * 9000)
        self.refused(b"0\r\nnothing\r\n\r\n")
        self.refused(b"0\r\nX: a\x00\r\n\r\n")
        self.refused(b"0\r\nA: 1\r\nB: 2\r\n\r\n", limits=Limits(max_header_fields=1))
