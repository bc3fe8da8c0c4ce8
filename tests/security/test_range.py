"""Range requests: cheap to refuse, never a traceback, never bytes of something else."""

from __future__ import annotations

from pathlib import Path

from cycloneish.web import StaticFileHandler
from tests.security.support import RecordingApplication, Response, SecurityTestCase, request

CONTENT = bytes(range(256)) * 4


class RangeTests(SecurityTestCase):
    def setUp(self) -> None:
        super().setUp()
        root = Path(self.mktemp()).resolve()
        root.mkdir()
        (root / "file.bin").write_bytes(CONTENT)
        (root / "empty").write_bytes(b"")
        self.served = self.serve(RecordingApplication([("/(.*)", StaticFileHandler, {"path": str(root)})]))

    async def ask(self, value: str | bytes, *headers: str, path: str = "/file.bin") -> Response:
        value = value.encode() if isinstance(value, str) else value
        answer = await self.fetch(self.served, request(path, b"Range: " + value, *headers))
        self.assertEqual(self.logs.serious, [])
        length = answer.header("Content-Length")
        if answer.status in (200, 206) and length is not None:
            self.assertEqual(len(answer.body), int(length))
        return answer

    async def test_plain_ranges(self) -> None:
        """46. They work: from the start, from the end, one byte, beyond the end."""
        for value, start, end in (
            *(("bytes=0-9", 0, 10), ("bytes=10-", 10, 1024), ("bytes=-10", 1014, 1024), ("bytes=5-5", 5, 6)),
            *(("bytes=1000-5000", 1000, 1024), ("bytes=-5000", 0, 1024)),
        ):
            answer = await self.ask(value)
            self.assertIn(answer.status, (206, 200) if end - start == 1024 else (206,))
            self.assertEqual(answer.body, CONTENT[start:end], value)

    async def test_many_and_overlapping_ranges_do_not_multiply_the_answer(self) -> None:
        """46. 10,000 ranges of one file: at most the file, once."""
        for value in (
            "bytes=" + "0-," * 10_000,
            "bytes=" + ",".join(["0-1023"] * 200),
            "bytes=0-0,-1",
            "bytes=0-9,5-15",
        ):
            answer = await self.ask(value)
            self.assertIn(answer.status, (200, 206, 416))
            self.assertLessEqual(len(answer.body), len(CONTENT) + 1000)

    async def test_digits_of_other_scripts_are_no_digits(self) -> None:
        """46. Non-ASCII digits, signs, underscores, white space inside: the header is ignored."""
        for value in (
            "bytes=\uff10-\uff19",
            "bytes=\u0660-9",
            b"bytes=\xb2-9",
            "bytes=+0-9",
            "bytes=0_0-9",
            "bytes=0 0-9",
            "bytes=0x0-9",
            "bytes=0-9_9",
            "bytes=1e1-",
            "bytes=--5",
            "bytes=-+5",
        ):
            answer = await self.ask(value)
            self.assertIn(answer.status, (200, 416), value)
            if answer.status == 200:
                self.assertEqual(answer.body, CONTENT)

    async def test_a_suffix_of_no_bytes(self) -> None:
        """46. ``bytes=-0`` cannot be satisfied; neither can anything of an empty file."""
        answer = await self.ask("bytes=-0")
        self.assertEqual((answer.status, answer.body), (416, b""))
        for value in ("bytes=0-", "bytes=0-0", "bytes=-1"):
            self.assertIn((await self.ask(value, path="/empty")).status, (200, 416))

    async def test_huge_numbers(self) -> None:
        """46. Numbers of thousands of digits, in every place."""
        for digits in ("9" * 18, "9" * 30, "9" * 5000, "0" * 5000):
            for value in (
                f"bytes={digits}-",
                f"bytes=0-{digits}",
                f"bytes=-{digits}",
                f"bytes={digits}-{digits}",
            ):
                self.assertIn((await self.ask(value)).status, (200, 206, 416), value[:50])

    async def test_ranges_beyond_and_backwards(self) -> None:
        """46. Behind the end: 416 with the size; backwards: 416 or ignored."""
        answer = await self.ask("bytes=1024-")
        self.assertEqual((answer.status, answer.header("Content-Range")), (416, "bytes */1024"))
        self.assertIn((await self.ask("bytes=9-5")).status, (200, 416))

    async def test_other_units_and_nonsense_are_ignored(self) -> None:
        """46. The whole file."""
        for value in (
            "",
            "bytes",
            "bytes=",
            "bytes=a-b",
            "bytes=-",
            "lines=0-9",
            "bytes:0-9",
            "0-9",
            "bytes=0-9;a=b",
        ):
            answer = await self.ask(value)
            self.assertIn(answer.status, (200, 416), value)

    async def test_if_range_that_does_not_match_gets_the_whole(self) -> None:
        """46. Wrong tag, weak tag, other date, nonsense: 200 with everything; the right one: 206."""
        whole = await self.fetch(self.served, request("/file.bin"))
        etag, modified = whole.header("Etag"), whole.header("Last-Modified")
        for condition in (
            '"other"',
            f"W/{etag}",
            "Mon, 01 Jan 1990 00:00:00 GMT",
            "nonsense",
            "*",
            etag.strip('"'),
        ):
            answer = await self.ask("bytes=0-9", f"If-Range: {condition}")
            self.assertEqual((answer.status, len(answer.body)), (200, 1024), condition)
        for condition in (etag, modified):
            answer = await self.ask("bytes=0-9", f"If-Range: {condition}")
            self.assertEqual((answer.status, len(answer.body)), (206, 10), condition)
