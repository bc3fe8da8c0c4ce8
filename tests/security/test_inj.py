"""Output injection: what a client sends never becomes a line, a header, an attribute or markup."""

from __future__ import annotations

import http.cookies
import warnings
from typing import Any

from cycloneish.web import ErrorHandler, HTTPError, RedirectHandler, RequestHandler
from tests.security.support import RecordingApplication, Response, SecurityTestCase, request

#: Percent-encoded, as they come in an argument.
BREAKS = ("%0d%0a", "%0a", "%0d", "%00", "%0d%0a%20", "%0b", "%0c", "%1c")
MARK = "X-Injected"


class Call(RequestHandler):
    """Calls one method with what the client says, the way careless programs do."""

    def get(self, method: str) -> None:
        value = self.get_argument("value", strip=False)
        # Arguments lose control characters; an application that decodes by itself does not.
        raw = self.request.arguments["value"][0].decode("latin-1")
        getattr(self, f"_{method}")(value, raw)

    def _set_header(self, value: str, raw: str) -> None:
        self.set_header("X-A", raw)

    def _set_header_name(self, value: str, raw: str) -> None:
        self.set_header(raw, "a")

    def _set_header_bytes(self, value: str, raw: str) -> None:
        self.set_header("X-A", raw.encode("latin-1"))

    def _add_header(self, value: str, raw: str) -> None:
        self.add_header("X-A", raw)

    def _add_header_name(self, value: str, raw: str) -> None:
        self.add_header(raw, "a")

    def _redirect(self, value: str, raw: str) -> None:
        self.redirect(raw)

    def _set_status(self, value: str, raw: str) -> None:
        self.set_status(200, raw)
        self.write("ok")

    def _http_error(self, value: str, raw: str) -> None:
        raise HTTPError(400, reason=raw)

    def _log_message(self, value: str, raw: str) -> None:
        raise HTTPError(400, raw)

    def _send_error(self, value: str, raw: str) -> None:
        self.send_error(400, reason=raw)

    def _content_type(self, value: str, raw: str) -> None:
        self.set_header("Content-Type", "text/html; charset=" + raw)


class Cookie(RequestHandler):
    """Sets a cookie one of whose parts is the client's."""

    def get(self, part: str) -> None:
        raw = self.request.arguments["value"][0].decode("latin-1")
        arguments: dict[str, Any] = {"name": "a", "value": "b"}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                self.set_cookie(**arguments | {part: raw})
        except (ValueError, TypeError, http.cookies.CookieError):
            self.send_error(400)


class InjectionTestCase(SecurityTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.served = self.serve(
            RecordingApplication(
                [
                    ("/call/(.*)", Call),
                    ("/cookie/(.*)", Cookie),
                    ("/redirect/(.*)", RedirectHandler, {"url": "/to/{0}"}),
                    ("/error", ErrorHandler, {"status_code": 404}),
                ],
                cookie_secret="secret",
            )
        )

    async def call(self, target: str) -> Response:
        peer = await self.exchange(self.served, request(target, "Connection: close"))
        await peer.until_closed()
        self.assertEqual(len(peer.answers), 1, bytes(peer.received))
        answer = peer.answers[0]
        names = [name.lower() for name, _ in answer.headers]
        self.assertNotIn(MARK.lower(), names, target)
        self.assertNotIn(b"\r\n" + MARK.encode(), peer.received, target)
        for name, value in answer.headers:
            self.assertNotRegex(name + value, r"[\x00-\x08\x0a-\x1f\x7f]", target)
        return answer

    async def call_with_breaks(self, path: str) -> list[int]:
        """Every kind of line end, in the middle, at the end and at the beginning."""
        statuses = []
        for end in BREAKS:
            for value in (f"a{end}{MARK}:%20b", f"{end}{MARK}:%20b", f"a{end}"):
                statuses.append((await self.call(f"{path}?value={value}")).status)
        return statuses


class HeaderInjectionTests(InjectionTestCase):
    async def test_line_ends_in_set_header(self) -> None:
        """38. CR, LF and NUL in a value (text and bytes) and a name of ``set_header``: refused with 500."""
        for method in ("set_header", "set_header_bytes", "set_header_name", "content_type"):
            self.assertEqual(set(await self.call_with_breaks(f"/call/{method}")), {500}, method)

    async def test_line_ends_in_add_header(self) -> None:
        """38. The same in ``add_header``."""
        for method in ("add_header", "add_header_name"):
            self.assertEqual(set(await self.call_with_breaks(f"/call/{method}")), {500}, method)

    async def test_line_ends_in_redirect(self) -> None:
        """38. The same in ``redirect``; what is left is no Location with two lines."""
        for status in await self.call_with_breaks("/call/redirect"):
            self.assertIn(status, (302, 400, 500))

    async def test_line_ends_in_a_reason(self) -> None:
        """38. ``set_status(reason)``, ``HTTPError(reason)``, ``send_error(reason)``: replaced, not sent."""
        for method in ("set_status", "http_error", "send_error", "log_message"):
            for end in BREAKS:
                answer = await self.call(f"/call/{method}?value=OK{end}{MARK}:b")
                self.assertNotIn(MARK, answer.reason)
                self.assertIn(answer.status, (200, 400))

    async def test_line_ends_in_redirect_handler(self) -> None:
        """38. A group of the route that is put into the target of a ``RedirectHandler``."""
        for end in BREAKS:
            answer = await self.call(f"/redirect/a{end}{MARK}:%20b")
            self.assertIn(answer.status, (301, 400))
            self.assertNotIn(f"\n{MARK}", answer.header("Location") or "")

    async def test_bytes_above_127_in_headers_stay_one_line(self) -> None:
        """38. ``\\x85`` and ``\\xa0`` are data for us; no line may begin behind them."""
        for value in ("a%c2%85X-Injected:%20b", "a%e2%80%a8X-Injected:%20b", "%ff%fe"):
            await self.call(f"/call/set_header?value={value}")


class CookieInjectionTests(InjectionTestCase):
    async def test_line_ends_and_separators_in_every_part_of_a_cookie(self) -> None:
        """38. Name, value, domain, path, samesite: refused with ``;``, line ends and control characters."""
        for part in ("name", "value", "domain", "path", "samesite"):
            for bad in (*BREAKS, "%3b", "%2c%20b=c%3b%20HttpOnly"):
                if part == "value" and bad.startswith(("%3b", "%2c")):
                    continue
                answer = await self.call(f"/cookie/{part}?value=a{bad}Partitioned")
                self.assertEqual(answer.status, 400, (part, bad))
                self.assertIsNone(answer.header("Set-Cookie"), (part, bad))

    async def test_a_separator_in_a_value_stays_inside_it(self) -> None:
        """38. ``;`` in a value is quoted or refused; it never begins an attribute."""
        for bad in ("%3b%20HttpOnly", "%3bSecure", "%22%3bSecure", "%5c%22%3bSecure", "%2cb=c"):
            answer = await self.call(f"/cookie/value?value=a{bad}")
            cookie = answer.header("Set-Cookie") or ""
            self.assertNotRegex(cookie.lower(), r";\s*(secure|httponly)", bad)

    async def test_other_spellings_of_the_keywords_are_checked_too(self) -> None:
        """38. ``Domain``, ``PATH``, ``SameSite``, ``Max_Age``, ``max_age``, ``expires``: the same check."""
        for part in (
            "Domain",
            "PATH",
            "Path",
            "SameSite",
            "Samesite",
            "sameSite",
            "max_age",
            "Max_Age",
            "MAX-AGE",
            "max-age",
            "expires",
            "Expires",
            "Comment",
            "comment",
            "Version",
            "HttpOnly",
            "Secure",
        ):
            for bad in ("%0d%0aX-Injected:%20b", "a%3b%20Partitioned", "1%3b%20Partitioned"):
                answer = await self.call(f"/cookie/{part}?value={bad}")
                cookie = (answer.header("Set-Cookie") or "").lower()
                self.assertNotIn("partitioned", cookie, (part, bad))
                self.assertNotIn("x-injected", cookie, (part, bad))

    async def test_an_unknown_keyword_is_refused(self) -> None:
        """38. A keyword that no cookie has does not become an attribute."""
        for part in ("X", "foo;bar", "a=b"):
            answer = await self.call(f"/cookie/{part.replace(';', '%3b')}?value=1")
            self.assertNotIn("foo", (answer.header("Set-Cookie") or ""))
            self.assertEqual(answer.status, 400)


class MarkupTests(InjectionTestCase):
    MARKUP = "%3Cscript%3Ealert(1)%3C/script%3E"

    def assert_no_markup(self, answer: Response, what: str = "") -> None:
        """The markup is escaped, or the page is declared to be plain text."""
        if b"<script>alert" in answer.body:
            self.assertRegex(answer.header("Content-Type") or "", "^text/plain", what)

    async def test_error_pages_escape_what_they_show(self) -> None:
        """39. Reason, log message and path in an error page, with and without debug mode."""
        for debug in (False, True):
            self.served = self.serve(
                RecordingApplication([("/call/(.*)", Call)], debug=debug, autoreload=False)
            )
            for target in (
                f"/call/http_error?value={self.MARKUP}",
                f"/call/send_error?value={self.MARKUP}",
                f"/call/log_message?value={self.MARKUP}",
                f"/call/set_header?value={self.MARKUP}%0a",
                f"/call/nothing{self.MARKUP}?value=a",
                f"/missing{self.MARKUP}",
                f"/missing?{self.MARKUP}={self.MARKUP}",
            ):
                answer = await self.call(target)
                self.assertGreaterEqual(answer.status, 400)
                self.assert_no_markup(answer, target)
                self.assertNotIn("<script>", answer.reason)

    async def test_error_pages_escape_headers_and_host(self) -> None:
        """39. Host (refused), Referer, User-Agent and cookies, which the debug page shows."""
        self.served = self.serve(RecordingApplication([("/call/(.*)", Call)], debug=True, autoreload=False))
        data = request(
            "/call/nothing?value=a",
            "Referer: <script>alert(1)</script>",
            "User-Agent: </pre><script>alert(1)</script>",
            "X-<script>: a",
            "Cookie: <script>alert(1)</script>=<script>alert(1)</script>",
            "Connection: close",
        ).replace(b"X-<script>: a\r\n", b"")
        answer = await self.fetch(self.served, data)
        self.assertEqual(answer.status, 500)
        self.assert_no_markup(answer)

    async def test_the_refusal_of_a_bad_request_shows_nothing_of_it(self) -> None:
        """39. The answer of the engine has no body."""
        peer = await self.attack(self.served, request("/", host="<script>"))
        self.assertEqual(peer.statuses, [400])
        self.assertNotIn(b"<script>", peer.received)

    async def test_redirects_do_not_put_the_target_into_markup(self) -> None:
        """39. A redirect's body, if any, escapes the target."""
        answer = await self.call("/call/redirect?value=/%22%3E%3Cscript%3Ealert(1)%3C/script%3E")
        self.assertEqual(answer.status, 302)
        self.assertNotIn(b"<script>", answer.body)
