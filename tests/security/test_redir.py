"""Open redirects: no path of ours leads to another site."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cycloneish.web import (
    RedirectHandler,
    RequestHandler,
    StaticFileHandler,
    addslash,
    authenticated,
    removeslash,
)
from tests.security.support import RecordingApplication, Response, SecurityTestCase, request

#: What a browser takes for another host, written where a path is expected.
EVIL = (
    "//evil.example",
    "//evil.example/",
    "///evil.example",
    "////evil.example/a",
    "/\\evil.example",
    "\\/evil.example",
    "\\\\evil.example",
    "/%09/evil.example",
    "/%5cevil.example",
    "/%5c%5cevil.example",
    "/%2fevil.example",
    "/%2f%2fevil.example",
    "/%0a/evil.example",
    "/%0d/evil.example",
    "/%20/evil.example",
    "//evil.example/%2e%2e",
    "//evil.example:80@example.com",
    "//user@evil.example",
    "http:evil.example",
    "https:evil.example",
    "http:/evil.example",
    "javascript:alert(1)",
    "/%E3%80%82/evil.example",
)


def leads_elsewhere(location: str) -> bool:
    """Whether a browser on http://example.com/ that follows ``location`` leaves the site."""
    text = location.strip("".join(map(chr, range(0x21)))).translate(dict.fromkeys(map(ord, "\t\r\n")))
    text = text.replace("\\", "/")
    scheme, colon, rest = text.partition(":")
    if colon and scheme.isascii() and scheme.replace("+", "").replace("-", "").replace(".", "").isalnum():
        if not scheme[:1].isalpha() or "/" in scheme:
            return text.startswith("//")
        if scheme.lower() not in ("http", "https"):
            return True
        host = rest.lstrip("/").partition("/")[0].partition("?")[0].partition("#")[0]
        # A special scheme without slashes is relative when it is the page's own, and a host when it is not.
        if scheme.lower() == "http" and not rest.startswith("/"):
            return False
        return host.rpartition("@")[2].partition(":")[0].lower() != "example.com"
    return text.startswith("//")


class AddSlash(RequestHandler):
    @addslash
    def get(self, *args: str) -> None:
        self.write("ok")


class RemoveSlash(RequestHandler):
    @removeslash
    def get(self, *args: str) -> None:
        self.write("ok")


class Members(RequestHandler):
    @authenticated
    def get(self, *args: str) -> None:
        self.write("ok")


class RedirectTests(SecurityTestCase):
    def start(self, handlers: list[Any], **settings: Any) -> None:
        self.served = self.serve(RecordingApplication(handlers, **settings))

    async def get(self, target: str) -> Response | None:
        """The answer, or ``None`` where the engine refused the target."""
        self.logs.clear()
        peer = await self.exchange(self.served, request(target, "Connection: close"))
        await peer.until_closed()
        self.assertEqual(self.logs.serious, [], target)
        answers = peer.answers
        self.assertEqual(len(answers), 1, target)
        return answers[0]

    async def assert_stays(self, target: str) -> Response | None:
        answer = await self.get(target)
        location = answer.header("Location") if answer is not None else None
        if location is not None:
            self.assertFalse(leads_elsewhere(location), f"{target} -> {location}")
        return answer

    def test_the_judge_knows_what_a_browser_does(self) -> None:
        """41. The test's own idea of "another site"."""
        for location in (
            "//evil.example",
            "/\\evil.example",
            "\\\\evil",
            "http://evil.example/",
            "/\t/evil.example",
            "https:evil.example",
            "javascript:alert(1)",
            " //evil.example",
            "http:///evil.example",
        ):
            self.assertTrue(leads_elsewhere(location), location)
        for location in (
            "/a//b",
            "a",
            "/",
            "",
            "http://example.com/x",
            "?a=//evil",
            "/%2fevil.example",
            "/a:b",
        ):
            self.assertFalse(leads_elsewhere(location), location)

    async def test_add_slash(self) -> None:
        """41. ``addslash``: ``//evil.example`` does not become ``//evil.example/``."""
        self.start([("(.*)", AddSlash)])
        for path in EVIL:
            await self.assert_stays(path)
            await self.assert_stays(path + "?a=b")
        answer = await self.get("/a?b=c")
        self.assertEqual((answer.status, answer.header("Location")), (301, "/a/?b=c"))

    async def test_remove_slash(self) -> None:
        """41. ``removeslash``."""
        self.start([("(.*)", RemoveSlash)])
        for path in EVIL:
            await self.assert_stays(path + "/")
            await self.assert_stays(path + "//?a=b")
        answer = await self.get("/a/?b=c")
        self.assertEqual((answer.status, answer.header("Location")), (301, "/a?b=c"))

    async def test_substitution_into_a_redirect_handler(self) -> None:
        """41. Groups at the beginning, in the middle and at the end of the target."""
        for url in (
            "{0}",
            "/{0}",
            "/a{0}",
            "/a/{0}",
            "{0}/b",
            "http://example.com{0}",
            "http://example.com/{0}",
            "?{0}",
        ):
            self.start([("/old(.*)", RedirectHandler, {"url": url})])
            for path in (*EVIL, ".evil.example", "@evil.example", ":80@evil.example", "evil.example"):
                answer = await self.assert_stays("/old" + path)
                self.assertIn(answer.status, (301, 302, 400, 403, 404, 500), path)

    async def test_the_query_of_a_redirect_handler(self) -> None:
        """41. Query arguments are handed on and change nothing but the query."""
        self.start([("/old", RedirectHandler, {"url": "/new"})])
        answer = await self.get("/old?a=//evil.example&b=http://evil.example")
        self.assertEqual(answer.status, 301)
        self.assertTrue(answer.header("Location").startswith("/new?"))

    async def test_a_redirect_handler_to_another_site_stays_there(self) -> None:
        """41. A target that names a site is meant; a group cannot change that site."""
        for url in ("https://other.example/{0}", "https://other.example{0}"):
            self.start([("/go(.*)", RedirectHandler, {"url": url})])
            for path in (".evil.example", "@evil.example", ":1@evil.example", "\\@evil.example", "/ok"):
                answer = await self.get("/go" + path)
                location = answer.header("Location")
                if location is not None:
                    authority = location.removeprefix("https://").replace("\\", "/").partition("/")[0]
                    self.assertEqual(authority.partition("?")[0], "other.example", (url, path))

    async def test_the_default_file_of_a_static_directory(self) -> None:
        """41. The redirect from ``/dir`` to ``/dir/``, at the root of the site, where it hurts."""
        root = Path(self.mktemp()).resolve()  # noqa: ASYNC240
        (root / "dir").mkdir(parents=True)
        (root / "dir" / "index.html").write_text("index")
        (root / "evil.example").mkdir()
        (root / "evil.example" / "index.html").write_text("index")
        self.start([("/(.*)", StaticFileHandler, {"path": str(root), "default_filename": "index.html"})])
        answer = await self.get("/dir")
        self.assertEqual((answer.status, answer.header("Location")), (301, "/dir/"))
        for prefix in ("", "//evil.example/..", "/\\evil.example/..", "//evil.example/%2e%2e"):
            await self.assert_stays(f"{prefix}/dir")
            await self.assert_stays(f"{prefix}{root}/dir")
        for path in EVIL:
            await self.assert_stays(path)
            await self.assert_stays(path + "/../dir")

    async def test_the_way_back_from_a_login_page(self) -> None:
        """41. ``login_url?next=`` is quoted: it adds no argument and leads to the login page in any case."""
        self.start([("(.*)", Members)], login_url="/login")
        for path in (*EVIL, "/a?b=c&next=//evil.example", "/a%26next=//evil.example"):
            answer = await self.assert_stays(path)
            if answer.status in (301, 302):
                location = answer.header("Location")
                self.assertTrue(location.startswith("/login?next="), location)
                self.assertEqual(location.count("next="), 1 + location.count("%26next="), location)
                self.assertNotIn("&", location)

    async def test_an_absolute_login_url_gets_the_address_of_this_site(self) -> None:
        """41. Where the login page is elsewhere, the way back has our host, which is checked."""
        self.start([("(.*)", Members)], login_url="https://login.example/")
        answer = await self.get("/a")
        location = answer.header("Location")
        self.assertEqual(location, "https://login.example/?next=http%3A%2F%2Fexample.com%2Fa")
