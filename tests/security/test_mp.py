"""Multipart forms: bounded parts, one refusal, harmless names, memory that does not follow the upload."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

from cycloneish.escape import json_decode
from cycloneish.web import RequestHandler
from tests.security.support import (
    RecordingApplication,
    SecurityTestCase,
    chunked,
    multipart,
    part,
    post_multipart,
    request,
)

MIB = 1024 * 1024


class Show(RequestHandler):
    """Answers with the names and sizes of what it got."""

    def post(self) -> None:
        files = {
            name: [(file.filename, len(file.body)) for file in found]
            for name, found in self.request.files.items()
        }
        self.application.seen.append(("POST", repr(files)))
        self.write({"fields": sorted(self.request.body_arguments), "files": files})


class Length(RequestHandler):
    """Reads the uploaded file a piece at a time, without having it in memory."""

    def post(self) -> None:
        file = self.request.files["f"][0].file
        size = 0
        while chunk := file.read(65536):
            size += len(chunk)
        self.write(str(size))


class MultipartTestCase(SecurityTestCase):
    """Every test is run on the parser in memory, and by :class:`StreamedTests` on the streaming one."""

    settings: dict[str, Any] = {}

    def setUp(self) -> None:
        super().setUp()
        self.application = RecordingApplication([("/length", Length), ("/.*", Show)], **self.settings)
        self.served = self.serve(self.application)

    async def refuse(self, data: bytes) -> None:
        """One 400 and at most two log records beside the access log; the server goes on."""
        self.logs.clear()
        answer = await self.fetch(self.served, data)
        self.assertEqual(answer.status, 400, data[:200])
        self.assertEqual(self.application.seen, [])
        self.assertLessEqual(len(self.logs.of("general", "application")), 2, data[:200])
        self.assertEqual(self.logs.serious, [])

    async def accept(self, data: bytes) -> Any:
        answer = await self.fetch(self.served, data)
        self.assertEqual(answer.status, 200, data[:200])
        self.assertEqual(self.logs.serious, [])
        return json_decode(answer.body)

    async def test_a_form_is_read(self) -> None:
        """The plain case works."""
        shown = await self.accept(post_multipart(multipart(part("a"), part("f", b"12345", "x.txt"))))
        self.assertEqual(shown, {"fields": ["a"], "files": {"f": [["x.txt", 5]]}})

    async def test_more_than_100_parts_are_refused(self) -> None:
        """29. Parts: 100 are taken, 101 not."""
        await self.refuse(post_multipart(multipart(*[part("a")] * 101)))
        await self.refuse(post_multipart(multipart(*[part("f", b"x", "x")] * 150)))
        shown = await self.accept(post_multipart(multipart(*(part(f"a{n}") for n in range(100)))))
        self.assertEqual(len(shown["fields"]), 100)

    async def test_many_parts_are_refused_before_they_are_all_read(self) -> None:
        """29. 100,000 parts cost no more than 101."""
        tracemalloc.start()
        try:
            await self.refuse(post_multipart(multipart(*[part("a")] * 100_000)))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        # The body itself is about 6 MB, in the client and once or twice in the server.
        self.assertLess(peak, 40 * MIB)

    async def test_a_large_part_header_is_refused(self) -> None:
        """29. Part header over 10 kB, in one field and in many; below is fine."""
        for head in (
            b'Content-Disposition: form-data; name="a"\r\nX: ' + b"x" * 11_000,
            b'Content-Disposition: form-data; name="a"\r\n' + b"X: xxxxxxxxx\r\n" * 1000 + b"Y: y",
            b'Content-Disposition: form-data; name="' + b"a" * 11_000 + b'"',
        ):
            await self.refuse(post_multipart(multipart(head + b"\r\n\r\nx")))
        head = b'Content-Disposition: form-data; name="a"\r\nX: ' + b"x" * 9000
        await self.accept(post_multipart(multipart(head + b"\r\n\r\nx")))

    async def test_a_long_or_odd_boundary_is_refused(self) -> None:
        """29. Boundary: 70 characters are taken, 300 not; neither an empty one nor control characters."""
        for boundary, status in (("a" * 70, 200), ("a" * 300, 400)):
            body = multipart(part("a"), boundary=boundary.encode(), end=f"--{boundary}--\r\n".encode())
            data = request(
                "/", f"Content-Type: multipart/form-data; boundary={boundary}", method="POST", body=body
            )
            self.assertEqual((await self.fetch(self.served, data)).status, status)
        self.application.seen.clear()
        for content_type in ("boundary=", "", 'boundary=""', "boundary=\xe9\xe9", 'boundary="a\tb"'):
            data = request(
                "/",
                f"Content-Type: multipart/form-data; {content_type}",
                method="POST",
                body=multipart(part("a")),
            )
            await self.refuse(data)

    async def test_parts_without_headers_or_name_are_refused(self) -> None:
        """30. No headers, no name, another disposition."""
        for bad in (
            b"x",
            b"\r\nx",
            b"\r\n\r\nx",
            b"Content-Type: text/plain\r\n\r\nx",
            b"Content-Disposition: form-data\r\n\r\nx",
            b'Content-Disposition: form-data; name=""\r\n\r\nx',
            b'Content-Disposition: attachment; name="a"\r\n\r\nx',
            b'Content-Disposition: invalid; name="a"\r\n\r\nx',
            b"Content-Disposition\r\n\r\nx",
            b": x\r\n\r\nx",
        ):
            await self.refuse(post_multipart(multipart(bad)))
            await self.refuse(post_multipart(multipart(*[bad] * 50)))

    async def test_line_end_tricks_in_part_headers_are_refused(self) -> None:
        """30. Bare CR, bare LF, NUL, folding, space before the colon."""
        for bad in (b"a\rb", b"a\nb", b"a\x00b", b"a\x0bb", b"a\r\n b"):
            head = b'Content-Disposition: form-data; name="f"; filename="' + bad + b'"\r\n\r\nx'
            await self.refuse(post_multipart(multipart(head)))
        await self.refuse(post_multipart(multipart(b'Content-Disposition : form-data; name="a"\r\n\r\nx')))
        await self.refuse(post_multipart(multipart(b'Content-Disposition: form-data; name="a"\n\nx')))

    async def test_a_body_without_its_end_is_refused(self) -> None:
        """30. Missing final boundary, cut anywhere."""
        whole = multipart(part("a"), part("f", b"12345", "x.txt"))
        for end in range(1, len(whole) - 4, 3):
            await self.refuse(post_multipart(whole[:end]))

    async def test_data_around_the_form_is_refused(self) -> None:
        """30. Before the first boundary and behind the last one, another part above all."""
        await self.refuse(post_multipart(b"preamble\r\n" + multipart(part("a"))))
        await self.refuse(post_multipart(multipart(part("a")) + b"epilogue"))
        await self.refuse(post_multipart(multipart(part("a")) + multipart(part("b"))))
        await self.refuse(post_multipart(multipart(part("a")) + b"\r\n" * 5000))

    async def test_a_flood_behind_the_end_is_refused_quietly(self) -> None:
        """30. A megabyte of it is one refusal, not a million log records."""
        await self.refuse(post_multipart(multipart(part("a")) + b"x" * MIB))

    async def test_paths_in_file_names_are_cut_off(self) -> None:
        """31. ``../x``, ``C:\\x``: the base name alone reaches the application."""
        for filename, expected in (
            ("../x", "x"),
            ("C:\\\\docs\\\\x", "x"),
            ("../../etc/passwd", "passwd"),
            ("a/b", "b"),
            ("..", "unnamed"),
            ("/", "unnamed"),
        ):
            shown = await self.accept(post_multipart(multipart(part("f", b"1", filename))))
            self.assertEqual(shown["files"]["f"][0][0], expected)

    async def test_a_nul_in_a_file_name_is_refused(self) -> None:
        """31. NUL in a name of a file or field; also percent-encoded it stays text."""
        await self.refuse(post_multipart(multipart(part("f", b"x", "a\x00.txt"))))
        await self.refuse(post_multipart(multipart(part("a\x00", b"x"))))

    async def test_an_extended_file_name_does_not_hide_a_path(self) -> None:
        """31. ``filename*`` is ignored or decoded; it never becomes a path or a traceback."""
        for value in (
            "utf-8''..%2f..%2fx",
            "utf-8''%00",
            "nonsense''x",
            "utf-8'x",
            "",
            "iso-8859-1''%e9",
            "''",
        ):
            head = f'Content-Disposition: form-data; name="f"; filename="plain.txt"; filename*={value}'
            answer = await self.fetch(self.served, post_multipart(multipart(head.encode() + b"\r\n\r\nx")))
            self.assertIn(answer.status, (200, 400), value)
            self.assertEqual(self.logs.serious, [])

    async def test_two_files_of_one_name_are_kept(self) -> None:
        """32. And two fields of one name too."""
        shown = await self.accept(
            post_multipart(
                multipart(part("f", b"1", "one"), part("f", b"22", "two"), part("f", b"333", "one"))
            )
        )
        self.assertEqual(shown["files"], {"f": [["one", 1], ["two", 2], ["one", 3]]})


class StreamedTests(MultipartTestCase):
    """The same attacks on forms that are parsed while they arrive."""

    settings = {"multipart_buffer_size": 0}

    async def test_temporary_files_are_gone_after_the_request(self) -> None:
        """33. Also after a refusal half-way, and when the client leaves."""
        big = part("f", b"x" * 2 * MIB, "big")
        before = _open_files()
        await self.accept(post_multipart(multipart(big)))
        await self.refuse_quietly(post_multipart(multipart(big, b"bad")))
        peer = await self.connect(self.served)
        peer.send(
            request(
                "/",
                "Content-Type: multipart/form-data; boundary=1234",
                "Content-Length: 9000000",
                method="POST",
            )
        )
        peer.send(multipart(big, end=b""))
        await self.pause(0.2)
        peer.drop()
        for _ in range(50):
            await self.pause(0.02)
            if _open_files() <= before:
                break
        self.assertLessEqual(_open_files(), before)
        self.assertEqual(self.logs.serious, [])

    async def refuse_quietly(self, data: bytes) -> None:
        self.assertEqual((await self.fetch(self.served, data)).status, 400)
        self.assertEqual(self.logs.serious, [])

    async def test_memory_is_bounded_by_the_limits_and_not_by_the_upload(self) -> None:
        """33. 48 MiB through a server that never holds more than a few, with and without a length."""
        piece = b"x" * MIB
        head = b'--1234\r\nContent-Disposition: form-data; name="f"; filename="big"\r\n\r\n'
        end = b"\r\n--1234--\r\n"
        size = 48 * MIB
        content_type = "Content-Type: multipart/form-data; boundary=1234"
        length = len(head) + size + len(end)
        tracemalloc.start()
        try:
            for framing in (f"Content-Length: {length}", "Transfer-Encoding: chunked"):
                frame = chunked if "chunked" in framing else _plain
                peer = await self.connect(self.served)
                peer.send(request("/length", content_type, framing, method="POST"))
                peer.send(frame(head, end=b""))
                for _ in range(size // MIB):
                    peer.send(frame(piece, end=b""))
                    while peer.transport.dataBuffer or peer.transport._tempDataBuffer:
                        await self.pause(0.002)
                peer.send(frame(end))
                await peer.until_answers(1)
                self.assertEqual([answer.body for answer in peer.answers], [b"%d" % size])
                peer.drop()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        self.assertLess(peak, 16 * MIB)

    async def test_a_field_cannot_be_as_large_as_a_file(self) -> None:
        """33. What is no file stays in memory, so it has a limit of its own: 413."""
        for fields in ((part("a", b"x" * 3 * MIB),), tuple(part(f"a{n}", b"x" * 900_000) for n in range(6))):
            answer = await self.fetch(self.served, post_multipart(multipart(*fields)))
            self.assertIn(answer.status, (400, 413))
        self.assertEqual(self.application.seen, [])
        self.assertEqual(self.logs.serious, [])


def _plain(*pieces: bytes, end: bytes = b"") -> bytes:
    return b"".join(pieces)


def _open_files() -> int:
    """Files of this process in the directory for temporary files, nameless ones included."""
    directory = tempfile.gettempdir()
    count = 0
    for entry in Path("/proc/self/fd").iterdir() if Path("/proc/self/fd").exists() else ():
        try:
            count += os.readlink(entry).startswith((directory, "/memfd"))
        except OSError:
            continue
    return count


class WithoutAssertsTests(SecurityTestCase):
    """34. The same under ``python -O``, which drops every ``assert``."""

    timeout = 150

    def test_all_of_it_under_python_o(self) -> None:
        """34. All of the group, and the fuzz group, in a process that was started with ``-O``."""
        if not __debug__:
            return
        root = Path(__file__).resolve().parents[2]
        with tempfile.TemporaryDirectory() as directory:
            done = subprocess.run(
                [
                    *(sys.executable, "-O", "-m", "twisted.trial", "--temp-directory", f"{directory}/trial"),
                    *("tests.security.test_mp", "tests.security.test_fuzz"),
                ],
                cwd=root,
                capture_output=True,
                text=True,
                timeout=140,
                check=False,
                env=os.environ | {"CYCLONEISH_FUZZ_REQUESTS": "3000"},
            )
        self.assertEqual(done.returncode, 0, done.stdout[-3000:] + done.stderr[-3000:])
