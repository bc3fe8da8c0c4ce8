"""Compressed request bodies: what comes out is bounded, what is broken is refused."""

from __future__ import annotations

import gzip
import time
import tracemalloc
import zlib
from typing import Any

from cycloneish.web import RequestHandler
from tests.security.support import RecordingApplication, SecurityTestCase, chunked, request

MIB = 1024 * 1024


class Body(RequestHandler):
    """Answers with the size of its body and its encoding."""

    def post(self) -> None:
        self.write(f"{len(self.request.body)} {self.request.headers.get('Content-Encoding')}")


class DecompressionTestCase(SecurityTestCase):
    def start(self, **options: Any) -> None:
        options = {"decompress_request": True, "max_body_size": MIB} | options
        self.served = self.serve(RecordingApplication([("/.*", Body)]), **options)

    def post(self, body: bytes, encoding: str = "gzip") -> bytes:
        return request("/", f"Content-Encoding: {encoding}", method="POST", body=body)

    async def test_a_gzip_body_is_unpacked(self) -> None:
        """The plain case works, with a length and in chunks."""
        self.start()
        packed = gzip.compress(b"hello" * 100)
        self.assertTrue((await self.fetch(self.served, self.post(packed))).body.startswith(b"500 "))
        data = request(
            *("/", "Content-Encoding: gzip", "Transfer-Encoding: chunked"),
            method="POST",
            body=chunked(*(packed[n : n + 1] for n in range(len(packed)))),
        )
        self.assertTrue((await self.fetch(self.served, data)).body.startswith(b"500 "))

    async def test_a_gzip_bomb_is_refused_in_little_memory(self) -> None:
        """13. 200 MiB in 200 KiB: 413, without ever holding more than the limit and a bit."""
        self.start()
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        bomb = b"".join(packer.compress(bytes(MIB)) for _ in range(200)) + packer.flush()
        tracemalloc.start()
        try:
            await self.assert_refused(self.served, self.post(bomb), 413)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        self.assertLess(peak, 8 * MIB)

    async def test_a_bomb_in_the_last_byte_is_refused(self) -> None:
        """13. A bomb behind a harmless first member."""
        self.start()
        body = gzip.compress(b"x" * 1000) + gzip.compress(bytes(2 * MIB))
        await self.assert_refused(self.served, self.post(body), 400, 413)

    async def test_ten_thousand_members_are_refused(self) -> None:
        """14. 10,000 members of one byte, and as many empty ones: a cost without a size."""
        self.start()
        started = time.monotonic()
        await self.assert_refused(self.served, self.post(gzip.compress(b"x") * 10_000), 400, 413)
        await self.assert_refused(self.served, self.post(gzip.compress(b"") * 10_000), 400, 413)
        self.assertLess(time.monotonic() - started, 5)

    async def test_trailing_garbage_is_refused(self) -> None:
        """15. Bytes behind the last member."""
        self.start()
        for garbage in (b"x", b"\0" * 100, b"GET / HTTP/1.1\r\n\r\n", gzip.compress(b"x")[:5]):
            await self.assert_refused(self.served, self.post(gzip.compress(b"hello") + garbage))

    async def test_a_truncated_member_is_refused(self) -> None:
        """16. Cut in the header, in the data, and before the check sum; also an empty body."""
        self.start()
        packed = gzip.compress(b"hello" * 100)
        for end in (1, 9, 15, len(packed) - 8, len(packed) - 1):
            await self.assert_refused(self.served, self.post(packed[:end]))

    async def test_a_wrong_check_sum_is_refused(self) -> None:
        """16. A body that was changed on its way."""
        self.start()
        packed = bytearray(gzip.compress(b"hello" * 100))
        packed[-6] ^= 1
        await self.assert_refused(self.served, self.post(bytes(packed)))

    async def test_what_is_no_gzip_is_refused(self) -> None:
        """15. Text that claims to be gzip."""
        self.start()
        await self.assert_refused(self.served, self.post(b"hello, world"))

    async def test_a_body_is_left_alone_unless_asked(self) -> None:
        """13. Without ``decompress_request`` nothing is unpacked."""
        self.start(decompress_request=False)
        packed = gzip.compress(bytes(2 * MIB))
        self.assertEqual((await self.fetch(self.served, self.post(packed))).body, b"%d gzip" % len(packed))
