"""Static files: nothing outside the directory is served, opened, hashed or told apart."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from cycloneish.web import HTTPError, RequestHandler, StaticFileHandler
from tests.security.support import RecordingApplication, Response, SecurityTestCase, request

SECRET = b"should not be served"


class StaticTestCase(SecurityTestCase):
    """``root`` is served; ``root/../outside`` and the prefix sibling ``root-other`` are not."""

    def setUp(self) -> None:
        super().setUp()
        self.base = Path(self.mktemp()).resolve()
        self.root = self.base / "root"
        for directory in (self.root / "sub", self.base / "outside", self.base / "root-other"):
            directory.mkdir(parents=True)
        (self.root / "file.txt").write_text("served")
        (self.root / "sub" / "file.txt").write_text("served too")
        for path in ("outside/secret.txt", "root-other/secret.txt", "rootsecret.txt"):
            (self.base / path).write_bytes(SECRET)
        self.addCleanup(StaticFileHandler.reset)
        StaticFileHandler.reset()
        self.start()

    def start(self, **arguments: Any) -> None:
        self.served = self.serve(
            RecordingApplication([("/s/(.*)", StaticFileHandler, {"path": str(self.root)} | arguments)])
        )

    async def get(self, path: str, *headers: str, method: str = "GET") -> Response:
        self.logs.clear()
        peer = await self.exchange(
            self.served, request("/s/" + path, *headers, "Connection: close", method=method)
        )
        await peer.until_closed()
        answer = peer.answers[0]
        self.assertNotIn(SECRET, answer.body, path)
        self.assertLess(answer.status, 500, path)
        self.assertEqual(self.logs.serious, [], path)
        return answer

    async def refuse(self, *paths: str) -> None:
        for path in paths:
            self.assertIn((await self.get(path)).status, (400, 403, 404), path)


class TraversalTests(StaticTestCase):
    async def test_a_file_is_served(self) -> None:
        """The plain case works, also with dots that stay inside."""
        for path, body in (
            ("file.txt", b"served"),
            ("sub/file.txt", b"served too"),
            ("sub/../file.txt", b"served"),
        ):
            answer = await self.get(path)
            self.assertEqual((answer.status, answer.body), (200, body))

    async def test_dots_do_not_leave_the_directory(self) -> None:
        """42. ``..`` plain and percent-encoded, once and twice."""
        for dots in (
            "..",
            "%2e%2e",
            ".%2e",
            "%2e.",
            "%252e%252e",
            "..%00",
            "...",
            "....//",
            "..;",
            "%c0%ae%c0%ae",
        ):
            for slash in ("/", "%2f", "//", "/./", "%252f"):
                await self.refuse(
                    f"{dots}{slash}outside/secret.txt", f"sub/{dots}{slash}{dots}{slash}outside/secret.txt"
                )

    async def test_backslashes_do_not_leave_the_directory(self) -> None:
        """42. ``..%5c``, ``..\\``."""
        for path in (
            "..\\outside\\secret.txt",
            "..%5coutside%5csecret.txt",
            "sub%5c..%5c..%5coutside/secret.txt",
        ):
            await self.refuse(path)

    async def test_absolute_paths_do_not_leave_the_directory(self) -> None:
        """42. A path that begins with a slash replaces what stands before it in ``os.path.join``."""
        secret = self.base / "outside" / "secret.txt"
        await self.refuse(
            str(secret),
            "/" + str(secret),
            "%2f" + str(secret).lstrip("/"),
            "/etc/passwd",
            "file:///etc/passwd",
        )

    async def test_a_nul_is_no_traceback(self) -> None:
        """42. NUL and other control characters in a path."""
        await self.refuse("file.txt%00", "%00", "file.txt%00.png", "..%00/outside", "%0a", "%7f", "a%1b[31m")

    async def test_a_directory_with_the_same_beginning_is_another(self) -> None:
        """42. Prefix sibling: ``root`` and ``root-other``."""
        await self.refuse(
            "../root-other/secret.txt", "..%2froot-other/secret.txt", "../rootsecret.txt", "-other/secret.txt"
        )

    async def test_a_symbolic_link_out_is_not_followed(self) -> None:
        """42. To a file, to a directory, to a prefix sibling, through two links."""
        (self.root / "link.txt").symlink_to(self.base / "outside" / "secret.txt")
        (self.root / "linkdir").symlink_to(self.base / "outside")
        (self.root / "sibling").symlink_to(self.base / "root-other")
        (self.root / "twice").symlink_to(self.root / "linkdir")
        (self.root / "loop").symlink_to(self.root / "loop")
        await self.refuse(
            "link.txt", "linkdir/secret.txt", "sibling/secret.txt", "twice/secret.txt", "loop", "loop/x"
        )

    async def test_a_symbolic_link_inside_is_followed(self) -> None:
        """42. Links that stay in the directory are files like others."""
        (self.root / "inside.txt").symlink_to(self.root / "file.txt")
        self.assertEqual((await self.get("inside.txt")).body, b"served")

    async def test_a_symbolic_link_to_an_allowed_directory_is_followed(self) -> None:
        """42. The allowed list: what it names, and nothing beside it."""
        allowed = self.base / "allowed"
        allowed.mkdir()
        (allowed / "file.txt").write_text("allowed")
        (self.root / "a").symlink_to(allowed)
        (self.root / "o").symlink_to(self.base / "outside")
        self.start(allowed_symlink_directory=[str(self.root), str(allowed)])
        self.assertEqual((await self.get("a/file.txt")).body, b"allowed")
        await self.refuse("o/secret.txt", "a/../outside/secret.txt", "a/../../outside/secret.txt")

    async def test_a_compressed_sibling_is_not_served_in_place(self) -> None:
        """42. ``file.txt.gz`` and ``.br`` that are links out, with a client that accepts them."""
        for end in (".gz", ".br", ".zst"):
            (self.root / f"file.txt{end}").symlink_to(self.base / "outside" / "secret.txt")
        answer = await self.get("file.txt", "Accept-Encoding: gzip, br, zstd")
        self.assertEqual(answer.status, 200)
        await self.refuse("file.txt.gz", "file.txt.br", "file.txt.zst")

    async def test_a_root_that_is_a_symbolic_link_is_served(self) -> None:
        """42. A release directory behind a link, as deployments have it."""
        (self.base / "current").symlink_to(self.root)
        self.start(path=str(self.base / "current"))
        self.assertEqual((await self.get("file.txt")).body, b"served")
        await self.refuse("../outside/secret.txt")


class OddNameTests(StaticTestCase):
    async def test_windows_names_are_no_way_out(self) -> None:
        """43. UNC paths, drives, device names, alternate streams, short names: never 200, never 500."""
        await self.refuse(
            *(
                "//server/share/x",
                "\\\\server\\share\\x",
                "%5c%5cserver%5cshare%5cx",
                "C:/Windows/win.ini",
                "C:file.txt",
            ),
            *(
                "c:%5cx",
                "CON",
                "NUL",
                "aux.txt",
                "COM1",
                "file.txt::$DATA",
                "file.txt:stream",
                "FILE~1.TXT",
                "file.txt.",
            ),
        )
        await self.refuse(
            "file.txt%20", "file.txt ".strip() + "%00", "sub::$INDEX_ALLOCATION/file.txt", "?/C:/x"
        )

    async def test_devices_and_fifos_are_never_opened(self) -> None:
        """44. A FIFO would hang the thread that opens it; a socket and a device are no files either."""
        os.mkfifo(self.root / "fifo")
        listening = socket.socket(socket.AF_UNIX)
        self.addCleanup(listening.close)
        here = os.getcwd()
        os.chdir(self.root)
        try:
            listening.bind("sock")
        finally:
            os.chdir(here)
        (self.root / "null").symlink_to("/dev/null")
        (self.root / "zero").symlink_to("/dev/zero")
        await self.refuse("fifo", "sock", "null", "zero")
        self.start(allowed_symlink_directory=["/dev", str(self.root)])
        await self.refuse("fifo", "zero", "null")

    async def test_a_directory_is_not_listed(self) -> None:
        """43. No index is made up, with and without a slash."""
        for path in ("", "sub", "sub/", "."):
            answer = await self.get(path)
            self.assertIn(answer.status, (403, 404))
            self.assertNotIn(b"file.txt", answer.body)

    async def test_other_methods_are_refused(self) -> None:
        """43. Nothing is written or removed."""
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            self.assertEqual((await self.get("file.txt", method=method)).status, 405)
        self.assertEqual((self.root / "file.txt").read_text(), "served")
        self.assertEqual((await self.get("file.txt", method="HEAD")).body, b"")


class VersionTests(StaticTestCase):
    class Show(RequestHandler):
        def get(self) -> None:
            self.write(self.static_url(self.get_argument("path", strip=False)))

    def start(self, **arguments: Any) -> None:
        self.served = self.serve(
            RecordingApplication(
                [("/url", self.Show)], static_path=str(self.root), static_url_prefix="/s/", **arguments
            )
        )

    async def url(self, path: str) -> Response:
        return await self.fetch(self.served, request(f"/url?path={path}"))

    async def test_a_file_has_a_version(self) -> None:
        """The plain case works."""
        self.assertRegex((await self.url("file.txt")).body.decode(), r"^/s/file\.txt\?v=[0-9a-f]+$")

    async def test_a_path_outside_has_none_and_is_not_read(self) -> None:
        """44. ``static_url`` outside the root: 403, or no version; never a hash of a foreign file."""
        os.mkfifo(self.root / "fifo")
        for path in (
            "../outside/secret.txt",
            str(self.base / "outside" / "secret.txt"),
            "fifo",
            "../rootsecret.txt",
        ):
            answer = await self.url(path)
            self.assertNotIn(b"?v=", answer.body, path)
        with self.assertRaises(HTTPError):
            StaticFileHandler.make_static_url(
                {"static_path": str(self.root), "static_url_prefix": "/s/"}, "../outside/secret.txt"
            )

    async def test_the_cache_of_versions_is_bounded(self) -> None:
        """44. Thousands of names, missing and present, do not stay in memory."""
        self.patch(StaticFileHandler, "MAX_CACHED_VERSIONS", 50)
        settings = {"static_path": str(self.root), "static_url_prefix": "/s/"}
        for number in range(200):
            (self.root / f"f{number}").write_text(str(number))
            StaticFileHandler.make_static_url(settings, f"f{number}")
            StaticFileHandler.make_static_url(settings, f"missing{number}")
        self.assertLessEqual(len(StaticFileHandler._static_hashes), 51)


class SameAnswerTests(StaticTestCase):
    async def test_missing_and_unreadable_cannot_be_told_apart(self) -> None:
        """45. A file that may not be read is missing, for whoever asks."""
        if os.getuid() == 0:
            self.patch(os, "open", _refusing(os.open, "locked.txt"))
            self.patch(os, "access", lambda path, mode, **_: "locked.txt" not in str(path))
        (self.root / "locked.txt").write_bytes(SECRET)
        (self.root / "locked.txt").chmod(0)
        missing, locked = await self.get("missing.txt"), await self.get("locked.txt")
        self.assertEqual((missing.status, missing.reason), (locked.status, locked.reason))
        self.assertEqual(missing.body, locked.body)

    async def test_outside_the_directory_present_and_missing_cannot_be_told_apart(self) -> None:
        """45. Nobody can probe which files the machine has."""
        for present, missing in (
            ("../outside/secret.txt", "../outside/none.txt"),
            ("../outside", "../none"),
            (str(self.base / "outside" / "secret.txt"), str(self.base / "outside" / "none.txt")),
            ("/etc/passwd", "/etc/passwd-none"),
        ):
            first, second = await self.get(present), await self.get(missing)
            self.assertEqual((first.status, first.body), (second.status, second.body), present)

    async def test_behind_a_link_present_and_missing_cannot_be_told_apart(self) -> None:
        """45. The same behind a symbolic link that leads out."""
        (self.root / "linkdir").symlink_to(self.base / "outside")
        first, second = await self.get("linkdir/secret.txt"), await self.get("linkdir/none.txt")
        self.assertEqual((first.status, first.body), (second.status, second.body))


def _refusing(function: Any, name: str) -> Any:
    """``function`` that may not open ``name``: permissions stop nobody who is root."""

    def refuse(path: Any, *args: Any, **kwargs: Any) -> Any:
        if name in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return function(path, *args, **kwargs)

    return refuse
