"""Decorators."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cycloneish.web import RequestHandler, addslash, authenticated, removeslash, stream_request_body
from tests.web.fake import FakeConnection, Logs, fetch


class AuthenticatedTests(SynchronousTestCase):
    def fetch(self, login_url: str | None = "/login", user: Any = None, **kwargs: Any) -> FakeConnection:
        class Handler(RequestHandler):
            def get_current_user(self) -> Any:
                return user

            @authenticated
            def get(self) -> None:
                """What it is."""
                self.write("in")

            post = head = get

        self.assertEqual(Handler.get.__doc__, "What it is.")
        with Logs() as self.logs:
            return fetch(Handler, **kwargs, **({"login_url": login_url} if login_url else {}))

    def test_users_get_in(self) -> None:
        self.assertEqual(self.fetch(user="ada").body, b"in")
        self.assertEqual(self.fetch(user="ada", method="POST").body, b"in")

    def test_others_are_sent_to_the_login_page(self) -> None:
        for method in ("GET", "HEAD"):
            connection = self.fetch(path="/a?b=c&d", method=method)
            self.assertEqual(
                (connection.code, connection.headers["Location"]), (302, "/login?next=%2Fa%3Fb%3Dc%26d")
            )

    def test_way_back_from_another_host_is_absolute(self) -> None:
        connection = self.fetch("https://login.example/", path="/a")
        self.assertEqual(
            connection.headers["Location"], "https://login.example/?next=http%3A%2F%2Fexample.com%2Fa"
        )

    def test_login_url_with_arguments_is_used_as_it_is(self) -> None:
        self.assertEqual(self.fetch("/login?x=1").headers["Location"], "/login?x=1")

    def test_other_methods_are_403(self) -> None:
        self.assertEqual(self.fetch(method="POST").code, 403)

    def test_login_url_is_required(self) -> None:
        self.assertEqual(self.fetch(None).code, 500)
        self.assertIn("Uncaught exception", self.logs.text)


class SlashTests(SynchronousTestCase):
    def fetch(self, decorator: Any, path: str, method: str = "GET") -> tuple[int | None, str | None]:
        class Handler(RequestHandler):
            @decorator  # type: ignore[untyped-decorator]
            def get(self) -> None:
                self.write("x")

            post = get

        with Logs():
            connection = fetch(Handler, path, method)
        return connection.code, connection.headers.get("Location")

    def test_addslash(self) -> None:
        self.assertEqual(self.fetch(addslash, "/a/"), (200, None))
        self.assertEqual(self.fetch(addslash, "/a"), (301, "/a/"))
        self.assertEqual(self.fetch(addslash, "/a?b=c"), (301, "/a/?b=c"))
        self.assertEqual(self.fetch(addslash, "/a", "POST"), (404, None))

    def test_removeslash(self) -> None:
        self.assertEqual(self.fetch(removeslash, "/a"), (200, None))
        self.assertEqual(self.fetch(removeslash, "/"), (200, None))
        self.assertEqual(self.fetch(removeslash, "/a//"), (301, "/a"))
        self.assertEqual(self.fetch(removeslash, "/a/?b=c"), (301, "/a?b=c"))
        self.assertEqual(self.fetch(removeslash, "/a/", "POST"), (404, None))

    def test_no_redirect_to_another_host(self) -> None:
        for path in ("//evil.example", "/\\evil.example", "///evil.example"):
            self.assertEqual(self.fetch(addslash, path), (403, None), path)
            self.assertEqual(self.fetch(removeslash, path + "/"), (403, None), path)

    def test_stream_request_body_is_for_handlers(self) -> None:
        self.assertRaises(TypeError, stream_request_body, object)
        self.assertRaises(TypeError, stream_request_body, lambda: None)
