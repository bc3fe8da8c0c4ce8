"""StaticFileHandler: what it serves, and what it must not."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from cycloneish.httputil import format_timestamp
from cycloneish.web import Application, RequestHandler, StaticFileHandler, servable, static
from cycloneish.web.errors import HTTPError
from tests.web.live import LiveTestCase, sleep


class Directory:
    """A directory `static` with files, beside files that are not to be served."""

    def __init__(self, test: Any) -> None:
        self.top = os.path.realpath(tempfile.mkdtemp())
        test.addCleanup(shutil.rmtree, self.top)
        self.root = os.path.join(self.top, "static")
        os.mkdir(self.root)
        os.mkdir(os.path.join(self.top, "static-secret"))
        self.write("hello.txt", b"hello, world")
        self.write("../outside.txt", b"outside")
        self.write("../static-secret/sibling.txt", b"sibling")
        StaticFileHandler.reset()
        test.addCleanup(StaticFileHandler.reset)

    def path(self, name: str) -> str:
        return os.path.join(self.root, name)

    def write(self, name: str, content: bytes) -> str:
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
        return path

    def link(self, name: str, target: str) -> None:
        os.symlink(target, self.path(name))


class StaticTestCase(LiveTestCase):
    def setUp(self) -> None:
        self.files = Directory(self)
        self.serve_files()

    def serve_files(self, handler: type[StaticFileHandler] = StaticFileHandler, **arguments: Any) -> None:
        arguments = {"path": self.files.root, **arguments}
        self.serve(Application([(r"/static/(.*)", handler, arguments)]))


class ServingTests(StaticTestCase):
    async def test_a_file_comes_with_its_type_size_and_validators(self) -> None:
        response = await self.fetch("/static/hello.txt")
        self.assertEqual((response.code, response.body), (200, b"hello, world"))
        self.assertEqual(response.headers["Content-Type"], "text/plain")
        self.assertEqual(response.headers["Content-Length"], "12")
        self.assertEqual(response.headers["Accept-Ranges"], "bytes")
        self.assertEqual(response.headers["Etag"], f'"{hashlib.sha512(b"hello, world").hexdigest()}"')
        modified = int(os.stat(self.files.path("hello.txt")).st_mtime)
        self.assertEqual(response.headers["Last-Modified"], format_timestamp(modified))
        self.assertNotIn("Cache-Control", response.headers)

    async def test_head_has_the_headers_and_no_body(self) -> None:
        response = await self.fetch("/static/hello.txt", "HEAD")
        self.assertEqual((response.code, response.body), (200, b""))
        self.assertEqual(response.headers["Content-Length"], "12")

    async def test_a_version_in_the_url_lets_it_be_cached_for_years(self) -> None:
        response = await self.fetch("/static/hello.txt?v=1")
        self.assertEqual(response.headers["Cache-Control"], "max-age=315360000")
        self.assertIn("Expires", response.headers)

    async def test_types_that_the_standard_library_may_not_know(self) -> None:
        for name, expected in [
            ("a.js", "text/javascript"),
            ("a.woff2", "font/woff2"),
            ("a.webp", "image/webp"),
            ("a.xml.gz", "application/gzip"),
            ("a.xml.bz2", "application/octet-stream"),
            ("a.unheard-of", "application/octet-stream"),
        ]:
            self.files.write(name, b"x")
            response = await self.fetch(f"/static/{name}")
            self.assertEqual(response.headers["Content-Type"], expected, name)

    async def test_an_empty_file(self) -> None:
        self.files.write("empty", b"")
        response = await self.fetch("/static/empty")
        self.assertEqual((response.code, response.body), (200, b""))
        self.assertEqual(response.headers["Content-Length"], "0")

    async def test_a_big_file_is_read_in_threads_and_comes_whole(self) -> None:
        content = os.urandom(1_500_000)
        self.files.write("big.bin", content)
        whole = await self.fetch("/static/big.bin")
        self.assertEqual(whole.body, content)
        self.assertEqual(whole.headers["Etag"], f'"{hashlib.sha512(content).hexdigest()}"')
        part = await self.fetch("/static/big.bin", headers={"Range": "bytes=1000-900999"})
        self.assertEqual(part.code, 206)
        self.assertEqual(part.body, content[1000:901000])

    async def test_of_a_file_too_big_to_hash_the_tag_is_made_of_size_and_time(self) -> None:
        self.files.write("big.bin", bytes(400_000))
        self.patch(StaticFileHandler, "MAX_VERSION_CONTENT_SIZE", 300_000)
        first = await self.fetch("/static/big.bin")
        self.assertLess(len(first.headers["Etag"]), 40)
        again = await self.fetch("/static/big.bin", headers={"If-None-Match": first.headers["Etag"]})
        self.assertEqual(again.code, 304)

    async def test_a_client_that_reads_nothing_does_not_have_the_file_read(self) -> None:
        self.files.write("big.bin", bytes(30_000_000))
        reads = []
        real = os.pread
        self.patch(static.os, "pread", lambda *args: reads.append(args) or real(*args))
        self.patch(StaticFileHandler, "MAX_VERSION_CONTENT_SIZE", 1000)
        client = await self.connect()
        client.transport.pauseProducing()
        client.send(b"GET /static/big.bin HTTP/1.1\r\nHost: a\r\n\r\n")
        await sleep(0.3)
        read_ahead = len(reads)
        self.assertGreater(read_ahead, 0)
        self.assertLess(read_ahead, 80, "read on although nobody takes it")
        client.transport.resumeProducing()
        await client.until(lambda data: len(data) > 20_000_000)
        self.assertGreater(len(reads), read_ahead)
        client.transport.abortConnection()
        await client.gone
        await sleep(0.1)
        after = len(reads)
        await sleep(0.1)
        self.assertEqual(len(reads), after, "read on although the client is gone")

    async def test_a_file_that_shrinks_while_it_is_sent_breaks_the_connection(self) -> None:
        self.files.write("big.bin", bytes(30_000_000))
        self.patch(StaticFileHandler, "MAX_VERSION_CONTENT_SIZE", 1000)
        client = await self.connect()
        client.transport.pauseProducing()
        client.send(b"GET /static/big.bin HTTP/1.1\r\nHost: a\r\n\r\n")
        await sleep(0.2)
        os.truncate(self.files.path("big.bin"), 100)
        client.transport.resumeProducing()
        with self.assertLogs("cycloneish.application", "ERROR") as logs:
            await client.gone
        self.assertIn("became shorter", "".join(logs.output))
        self.assertLess(len(client.data), 30_000_000)


class ValidatorTests(StaticTestCase):
    async def status(self, **headers: str) -> int:
        response = await self.fetch(
            "/static/hello.txt", headers={name.replace("_", "-"): value for name, value in headers.items()}
        )
        return response.code

    async def test_a_matching_tag_or_date_gives_304(self) -> None:
        first = await self.fetch("/static/hello.txt")
        tag, date = first.headers["Etag"], first.headers["Last-Modified"]
        self.assertEqual(await self.status(If_None_Match=tag), 304)
        self.assertEqual(await self.status(If_None_Match=f'"other", W/{tag}'), 304)
        self.assertEqual(await self.status(If_Modified_Since=date), 304)
        unchanged = await self.fetch("/static/hello.txt", headers={"If-None-Match": tag})
        self.assertEqual(unchanged.body, b"")
        self.assertEqual(unchanged.headers["Etag"], tag)
        self.assertNotIn("Content-Length", unchanged.headers)

    async def test_the_tag_decides_before_the_date(self) -> None:
        date = (await self.fetch("/static/hello.txt")).headers["Last-Modified"]
        self.assertEqual(await self.status(If_None_Match='"other"', If_Modified_Since=date), 200)

    async def test_dates(self) -> None:
        modified = os.stat(self.files.path("hello.txt")).st_mtime
        self.assertEqual(await self.status(If_Modified_Since=format_timestamp(modified + 60)), 304)
        self.assertEqual(await self.status(If_Modified_Since=format_timestamp(modified - 60)), 200)
        for nonsense in ["yesterday", "Fri, 01 Jan 1960 00:00:00 GMT", "Mon, 99 Jan 99999 00:00:00 GMT", ""]:
            self.assertEqual(await self.status(If_Modified_Since=nonsense), 200, nonsense)

    async def test_a_changed_file_has_a_new_tag_at_once(self) -> None:
        tag = (await self.fetch("/static/hello.txt")).headers["Etag"]
        self.files.write("hello.txt", b"changed")
        os.utime(self.files.path("hello.txt"), (1, 1))
        response = await self.fetch("/static/hello.txt", headers={"If-None-Match": tag})
        self.assertEqual((response.code, response.body), (200, b"changed"))
        self.assertNotEqual(response.headers["Etag"], tag)


class RangeTests(StaticTestCase):
    async def part(self, header: str, **more: str) -> Any:
        headers = {"Range": header, **{name.replace("_", "-"): value for name, value in more.items()}}
        return await self.fetch("/static/hello.txt", headers=headers)

    async def test_parts(self) -> None:
        for header, body, content_range in [
            ("bytes=0-4", b"hello", "bytes 0-4/12"),
            ("bytes=7-", b"world", "bytes 7-11/12"),
            ("bytes=-5", b"world", "bytes 7-11/12"),
            ("bytes=7-99999999999999999999", b"world", "bytes 7-11/12"),
            ("bytes=11-11", b"d", "bytes 11-11/12"),
        ]:
            response = await self.part(header)
            self.assertEqual((response.code, response.body), (206, body), header)
            self.assertEqual(response.headers["Content-Range"], content_range)
            self.assertEqual(response.headers["Content-Length"], str(len(body)))

    async def test_what_is_ignored_gives_the_whole(self) -> None:
        for header in [
            "bytes=0-",
            "bytes=0-100",
            "bytes=-100",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=+1-2",
            "bytes=1_0-11",
            "items=0-1",
            "bytes 0-1",
            "bytes=0-1,3-4",
            "bytes=" + ",".join(["0-"] * 2000),
            "bytes=" + "9" * 6000 + "-",
        ]:
            response = await self.part(header)
            self.assertEqual((response.code, response.body), (200, b"hello, world"), header[:40])
            self.assertNotIn("Content-Range", response.headers)

    async def test_digits_of_other_scripts_are_none(self) -> None:
        response = await self.part("bytes=\u00b2-\u00b3")
        self.assertEqual(response.code, 200)

    async def test_what_is_not_there_gives_416(self) -> None:
        for header in ["bytes=12-", "bytes=-0", "bytes=99999999999-", "bytes=5-2", "bytes=0-0x"]:
            response = await self.part(header)
            if header.endswith("x"):
                self.assertEqual(response.code, 200)
                continue
            self.assertEqual((response.code, response.body), (416, b""), header)
            self.assertEqual(response.headers["Content-Range"], "bytes */12")

    async def test_if_range_gives_the_whole_when_the_file_is_another_one(self) -> None:
        first = await self.fetch("/static/hello.txt")
        tag, date = first.headers["Etag"], first.headers["Last-Modified"]
        self.assertEqual((await self.part("bytes=0-4", If_Range=tag)).code, 206)
        self.assertEqual((await self.part("bytes=0-4", If_Range=date)).code, 206)
        for other in ['"other"', f"W/{tag}", format_timestamp(1), "nonsense"]:
            self.assertEqual((await self.part("bytes=0-4", If_Range=other)).code, 200, other)


class ForbiddenTests(StaticTestCase):
    async def refused(self, path: str, code: int) -> None:
        response = await self.fetch(path)
        self.assertEqual(response.code, code, path)
        for content in (b"outside", b"sibling", b"hello"):
            self.assertNotIn(content, response.body)

    async def test_paths_that_leave_the_directory(self) -> None:
        for path in [
            "../outside.txt",
            "%2e%2e/outside.txt",
            "..%2foutside.txt",
            "a/../../outside.txt",
            "/" + self.files.top + "/outside.txt",
            "%2f" + self.files.top[1:] + "/outside.txt",
            "../static-secret/sibling.txt",
        ]:
            await self.refused(f"/static/{path}", 403)

    async def test_names_that_no_file_has(self) -> None:
        for path in [
            "missing",
            "hello.txt%00",
            "hello.txt%00.png",
            "..%5coutside.txt",
            "x" * 300,
            "hello.txt/x",
        ]:
            await self.refused(f"/static/{path}", 404)
        await self.refused("/static/%ff", 400)

    async def test_links_that_lead_out_of_it_whether_or_not_something_is_there(self) -> None:
        self.files.link("file", "../outside.txt")
        self.files.link("dir", "../static-secret")
        self.files.link("nothing", "../nothing")
        self.files.link("loop", "loop")
        for path in ["file", "dir/sibling.txt", "nothing"]:
            await self.refused(f"/static/{path}", 403)
        await self.refused("/static/loop", 404)

    async def test_a_link_within_it_is_followed(self) -> None:
        self.files.link("link.txt", "hello.txt")
        self.assertEqual((await self.fetch("/static/link.txt")).body, b"hello, world")

    async def test_a_link_that_is_turned_after_the_first_request(self) -> None:
        self.files.link("link.txt", "hello.txt")
        self.assertEqual((await self.fetch("/static/link.txt")).code, 200)
        os.unlink(self.files.path("link.txt"))
        self.files.link("link.txt", "../outside.txt")
        await self.refused("/static/link.txt", 403)

    async def test_a_file_that_is_replaced_by_a_link(self) -> None:
        self.assertEqual((await self.fetch("/static/hello.txt")).code, 200)
        os.unlink(self.files.path("hello.txt"))
        self.files.link("hello.txt", "../outside.txt")
        await self.refused("/static/hello.txt", 403)

    async def test_links_into_allowed_directories(self) -> None:
        self.files.link("file", "../outside.txt")
        self.files.link("dir", "../static-secret")
        self.serve_files(
            allowed_symlink_directory=[self.files.root, os.path.join(self.files.top, "static-secret")]
        )
        self.assertEqual((await self.fetch("/static/dir/sibling.txt")).code, 200)
        self.assertEqual((await self.fetch("/static/hello.txt")).code, 200)
        await self.refused("/static/file", 403)
        self.serve_files(allowed_symlink_directory=self.files.top)
        self.assertEqual((await self.fetch("/static/file")).code, 200)
        await self.refused("/static/../outside.txt", 403)

    async def test_a_root_that_is_a_link(self) -> None:
        os.symlink(self.files.root, os.path.join(self.files.top, "current"))
        self.serve_files(path=os.path.join(self.files.top, "current"))
        self.assertEqual((await self.fetch("/static/hello.txt")).code, 200)

    async def test_directories_devices_and_fifos_are_no_files_and_not_opened(self) -> None:
        os.mkdir(self.files.path("dir"))
        os.mkfifo(self.files.path("fifo"))
        self.serve_files(allowed_symlink_directory=["/dev", self.files.root])
        self.files.link("zero", "/dev/zero")
        self.patch(servable.os, "open", lambda *args: self.fail(f"opened {args}"))
        for name in ["dir", "fifo", "zero"]:
            await self.refused(f"/static/{name}", 403)

    async def test_a_file_that_may_not_be_read_is_answered_like_a_missing_one(self) -> None:
        self.files.write("private", b"private")
        self.patch(servable.os, "access", lambda path, mode: not path.endswith("private"))
        forbidden = await self.fetch("/static/private")
        missing = await self.fetch("/static/missing")
        self.assertEqual((forbidden.code, forbidden.body), (404, missing.body))
        self.assertEqual(set(forbidden.headers), set(missing.headers))

    async def test_other_methods(self) -> None:
        self.assertEqual((await self.fetch("/static/hello.txt", "DELETE")).code, 405)


class DefaultFileTests(StaticTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.files.write("dir/index.html", b"the index")
        self.serve_files(default_filename="index.html")

    async def test_a_directory_is_served_by_its_default_file(self) -> None:
        for _ in range(2):
            response = await self.fetch("/static/dir/")
            self.assertEqual((response.code, response.body), (200, b"the index"))
            self.assertEqual(response.headers["Content-Type"], "text/html")

    async def test_without_the_slash_it_redirects(self) -> None:
        response = await self.fetch("/static/dir")
        self.assertEqual((response.code, response.headers["Location"]), (301, "/static/dir/"))

    async def test_the_redirect_does_not_lead_to_another_host(self) -> None:
        self.serve(
            Application(
                [(r"/(.*)", StaticFileHandler, {"path": self.files.root, "default_filename": "index.html"})]
            )
        )
        os.makedirs(self.files.path("dir/sub"), exist_ok=True)
        for path in [
            f"//evil.example/..{self.files.root}/dir",
            "/\\evil.example/../dir",
            "/%5cevil.example/../dir",
            "/%09/evil.example/../dir",
            "/\\/evil.example/../../dir",
        ]:
            response = await self.fetch(path)
            location = response.headers.get("Location", "/")
            self.assertFalse(location.replace("\\", "/").startswith("//"), f"{path} -> {location}")

    async def test_a_default_file_that_is_a_link_out(self) -> None:
        os.mkdir(self.files.path("other"))
        self.files.link("other/index.html", "../../outside.txt")
        self.assertEqual((await self.fetch("/static/other/")).code, 403)

    async def test_a_link_out_is_not_redirected(self) -> None:
        self.files.link("link", "../static-secret")
        self.assertEqual((await self.fetch("/static/link")).code, 403)


class SubclassTests(StaticTestCase):
    async def test_content_from_somewhere_else(self) -> None:
        class FromMemory(StaticFileHandler):
            content = {"mem:/a": b"abcdef"}

            @classmethod
            def get_absolute_path(cls, root: str, path: str) -> str:
                return f"mem:/{path}"

            def validate_absolute_path(self, root: str, absolute_path: str) -> str | None:
                if absolute_path not in self.content:
                    raise HTTPError(404)
                return absolute_path

            @classmethod
            def get_content(cls, abspath: str, start: int | None = None, end: int | None = None) -> Any:
                part = cls.content[abspath][start:end]
                return iter([part[:2], part[2:]]) if cls.in_pieces else part

            def get_content_size(self) -> int:
                return len(self.content[self.absolute_path or ""])

            def get_modified_time(self) -> Any:
                return None

            in_pieces = False

        self.serve_files(FromMemory)
        for in_pieces in (False, True):
            FromMemory.in_pieces = in_pieces
            response = await self.fetch("/static/a")
            self.assertEqual((response.code, response.body), (200, b"abcdef"))
            self.assertEqual(response.headers["Etag"], f'"{hashlib.sha512(b"abcdef").hexdigest()}"')
            part = await self.fetch("/static/a", headers={"Range": "bytes=1-3"})
            self.assertEqual((part.code, part.body), (206, b"bcd"))
        unchanged = await self.fetch("/static/a", headers={"If-Modified-Since": format_timestamp(10**9)})
        self.assertEqual(unchanged.code, 200)
        self.assertEqual((await self.fetch("/static/b")).code, 404)

    async def test_an_overriding_get_can_await_the_one_it_overrides(self) -> None:
        class Awaiting(StaticFileHandler):
            async def get(self, path: str, include_body: bool = True) -> None:  # type: ignore[override]
                self.set_header("X-Before", "yes")
                await super().get(path, include_body)  # type: ignore[misc]

            def set_extra_headers(self, path: str) -> None:
                self.set_header("X-Path", path)

        self.serve_files(Awaiting)
        for method in ("GET", "HEAD"):
            response = await self.fetch("/static/hello.txt", method)
            self.assertEqual((response.code, response.headers["X-Before"]), (200, "yes"))
            self.assertEqual(response.headers["X-Path"], "hello.txt")

    async def test_an_initialize_of_its_own_and_many_roots(self) -> None:
        class Roots(StaticFileHandler):
            def initialize(self, path: Any) -> None:  # type: ignore[override]
                self.root = path
                self.default_filename = None

            @classmethod
            def get_absolute_path(cls, root: Any, path: str) -> str:
                for directory in root:
                    candidate = os.path.abspath(os.path.join(directory, path))
                    if os.path.exists(candidate):
                        return candidate
                return os.path.abspath(os.path.join(root[0], path))

            def validate_absolute_path(self, root: Any, absolute_path: str) -> str | None:
                for directory in root:
                    if absolute_path.startswith(directory + os.sep):
                        root = directory
                return super().validate_absolute_path(root, absolute_path)

        self.serve_files(Roots, path=(self.files.root, os.path.join(self.files.top, "static-secret")))
        self.assertEqual((await self.fetch("/static/hello.txt")).code, 200)
        self.assertEqual((await self.fetch("/static/sibling.txt")).code, 200)
        self.assertEqual((await self.fetch("/static/none.txt")).code, 404)

    async def test_static_url_in_a_page(self) -> None:
        class Page(RequestHandler):
            def get(self) -> None:
                self.write(self.static_url("hello.txt"))

        self.serve(Application([("/", Page)], static_path=self.files.root))
        url = (await self.fetch("/")).body.decode()
        self.assertEqual(url, f"/static/hello.txt?v={hashlib.sha512(b'hello, world').hexdigest()}")
        self.assertEqual((await self.fetch(url)).body, b"hello, world")

    async def test_short_files_are_compressed_as_well_where_responses_are(self) -> None:
        self.serve(Application([], static_path=self.files.root, compress_response=True))
        response = await self.fetch("/static/hello.txt", headers={"Accept-Encoding": "gzip"})
        self.assertEqual(response.headers["Content-Encoding"], "gzip")


class VersionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.files = Directory(self)
        self.settings = {"static_path": self.files.root}

    def test_urls(self) -> None:
        version = hashlib.sha512(b"hello, world").hexdigest()
        self.assertEqual(
            StaticFileHandler.make_static_url(self.settings, "hello.txt"), f"/static/hello.txt?v={version}"
        )
        plain = StaticFileHandler.make_static_url(
            {**self.settings, "static_url_prefix": "/s/"}, "hello.txt", include_version=False
        )
        self.assertEqual(plain, "/s/hello.txt")

    def test_outside_the_directory_nothing_is_read(self) -> None:
        self.patch(servable.os, "open", lambda *args: self.fail(f"opened {args}"))
        for path in ["../outside.txt", "/etc/passwd"]:
            error = self.assertRaises(HTTPError, StaticFileHandler.get_version, self.settings, path)
            self.assertEqual(error.status_code, 403)

    def test_what_cannot_be_read_has_no_version_and_is_logged(self) -> None:
        os.mkfifo(self.files.path("fifo"))
        os.symlink("/dev/zero", self.files.path("zero"))
        os.mkdir(self.files.path("dir"))
        for name in ["missing", "fifo", "zero", "dir"]:
            with self.assertLogs("cycloneish.general", "ERROR") as logs:
                self.assertIsNone(StaticFileHandler.get_version(self.settings, name))
            self.assertIn("Could not open static file", logs.output[0])
            url = StaticFileHandler.make_static_url(self.settings, name)
            self.assertEqual(url, f"/static/{name}", "asked for once, not logged again")

    def test_big_content_is_not_hashed(self) -> None:
        class Small(StaticFileHandler):
            MAX_VERSION_CONTENT_SIZE = 11

        Small.reset()
        with self.assertLogs("cycloneish.general", "ERROR") as logs:
            self.assertIsNone(Small.get_version(self.settings, "hello.txt"))
        self.assertIn("larger than", logs.output[0])

    def test_the_cache_is_bounded_and_forgets_what_was_used_least_recently(self) -> None:
        class Two(StaticFileHandler):
            MAX_CACHED_VERSIONS = 2
            reads: list[str] = []

            @classmethod
            def get_content_version(cls, abspath: str) -> str:
                cls.reads.append(os.path.basename(abspath))
                return super().get_content_version(abspath)

        Two.reset()
        for name in "abacab":
            self.files.write(name, name.encode())
            Two.get_version(self.settings, name)
        self.assertEqual(Two.reads, ["a", "b", "c", "b"])
        self.assertEqual(len(Two._static_hashes), 2)

    def test_parts_of_content(self) -> None:
        path = self.files.write("long", bytes(range(256)) * 1000)
        content = StaticFileHandler.get_content(path, 10, 200_000)
        self.assertEqual(b"".join(content), (bytes(range(256)) * 1000)[10:200_000])
        self.assertEqual(len(b"".join(StaticFileHandler.get_content(path))), 256_000)

    def test_the_memory_of_resolved_paths_is_bounded(self) -> None:
        self.patch(servable, "_MAX_REMEMBERED", 5)
        self.patch(servable, "_resolved", {})
        for number in range(12):
            path = self.files.write(f"f{number}", b"x")
            servable.resolve(path, (self.files.root,), "f")
        self.assertEqual(len(servable._resolved), 5)

    def test_a_second_look_at_the_same_file_resolves_nothing(self) -> None:
        path = self.files.path("hello.txt")
        first = servable.resolve(path, (self.files.root,), "f")
        with mock.patch.object(servable.os.path, "realpath", side_effect=AssertionError("resolved again")):
            self.assertEqual(servable.resolve(path, (self.files.root,), "f"), first)

    def test_alternate_streams_of_ntfs(self) -> None:
        self.patch(servable.os, "name", "nt")
        for name in ["hello.txt:secret", "hello.txt::$DATA"]:
            error = self.assertRaises(HTTPError, servable.directory_of, "/srv", f"/srv/{name}", name)
            self.assertEqual(error.status_code, 403)

    def test_a_fifo_that_takes_the_place_of_a_file_is_not_waited_for(self) -> None:
        os.mkfifo(self.files.path("fifo"))
        regular = os.stat(self.files.path("hello.txt"))
        self.patch(servable.os, "stat", lambda path: regular)
        error = self.assertRaises(HTTPError, servable.open_regular, self.files.path("fifo"))
        self.assertEqual(error.status_code, 403)
