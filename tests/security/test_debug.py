"""Debug mode: off unless asked for; the page shows no secrets and runs nothing."""

from __future__ import annotations

from typing import Any

from cycloneish.web import RequestHandler
from tests.security.support import RecordingApplication, Response, SecurityTestCase, request

SECRET = "hunter2-very-secret"


class Failing(RequestHandler):
    def get(self) -> None:
        password = SECRET
        raise ValueError("failed here, not because of " + str(len(password)))


class DebugTests(SecurityTestCase):
    def start(self, **settings: Any) -> None:
        settings = {"cookie_secret": "the-cookie-secret-" + SECRET, "db_password": SECRET} | settings
        self.served = self.serve(RecordingApplication([("/fail", Failing)], autoreload=False, **settings))

    async def get(self, target: str = "/fail", *headers: str) -> Response:
        return await self.fetch(self.served, request(target, *headers))

    async def test_debug_is_off_unless_asked_for(self) -> None:
        """77. The page of a failure says nothing about the program."""
        self.start()
        answer = await self.get()
        self.assertEqual(answer.status, 500)
        for text in (b"ValueError", b"Traceback", b"failed here", b".py", b"Failing", SECRET.encode()):
            self.assertNotIn(text, answer.body)

    async def test_a_client_cannot_switch_it_on(self) -> None:
        """77. Neither by argument nor by header nor by cookie."""
        self.start()
        answer = await self.get(
            "/fail?debug=1&debug=true", "X-Debug: 1", "Cookie: debug=1", "X-Forwarded-For: 127.0.0.1"
        )
        self.assertNotIn(b"ValueError", answer.body)

    async def test_the_page_shows_the_failure(self) -> None:
        """77. What it is for."""
        self.start(debug=True)
        answer = await self.get()
        self.assertEqual(answer.status, 500)
        self.assertIn(b"ValueError", answer.body)
        self.assertIn(b"failed here", answer.body)

    async def test_the_page_shows_no_secrets(self) -> None:
        """77. Cookies, Authorization, tokens in the query, settings, and variables that are called so."""
        self.start(debug=True)
        answer = await self.get(
            f"/fail?password={SECRET}&access_token={SECRET}&api_key={SECRET}",
            f"Cookie: session={SECRET}; user={SECRET}",
            f"Authorization: Bearer {SECRET}",
            f"Proxy-Authorization: {SECRET}",
            f"X-Api-Key: {SECRET}",
            f"X-Xsrftoken: {SECRET}",
            f"X-Auth-Token: {SECRET}",
        )
        self.assertEqual(answer.status, 500)
        position = answer.body.find(SECRET.encode())
        self.assertEqual(position, -1, answer.body[max(0, position - 200) : position + 50])

    async def test_the_page_has_no_console_and_runs_nothing(self) -> None:
        """77. No script, no form, no address that evaluates anything; other sites cannot frame it."""
        self.start(debug=True)
        answer = await self.get()
        for text in (
            b"<script",
            b"<form",
            b"<input",
            b"<iframe",
            b"eval(",
            b"onclick",
            b"onerror",
            b"javascript:",
        ):
            self.assertNotIn(text, answer.body.lower())
        for target in (
            "/fail?__debugger__=yes&cmd=1%2b1&frm=0&s=x",
            "/?__debugger__=yes&cmd=resource&f=debugger.js",
            "/console",
            "/__debug__",
            "/_debug",
        ):
            answer = await self.get(target)
            self.assertIn(answer.status, (404, 500))
            self.assertNotIn(b"console", answer.body.lower())

    async def test_a_404_in_debug_mode_does_not_list_the_routes_to_others(self) -> None:
        """77. Nothing of the settings on a page that anybody can get."""
        self.start(debug=True)
        answer = await self.get("/missing")
        self.assertEqual(answer.status, 404)
        self.assertNotIn(SECRET.encode(), answer.body)
