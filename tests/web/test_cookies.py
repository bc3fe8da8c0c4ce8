"""Cookies, plain and signed."""

from __future__ import annotations

import warnings
from http.cookies import CookieError
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cycloneish.web import RequestHandler, asynchronous
from tests.web.fake import FakeConnection, fetch


def pending(**kwargs: Any) -> tuple[RequestHandler, FakeConnection]:
    """A handler in the middle of its request."""
    made: list[RequestHandler] = []

    class Handler(RequestHandler):
        @asynchronous
        def get(self) -> None:
            made.append(self)

    connection = fetch(Handler, **kwargs)
    return made[0], connection


class CookieTests(SynchronousTestCase):
    def sent(self, *args: Any, **kwargs: Any) -> str:
        handler, connection = pending()
        handler.set_cookie(*args, **kwargs)
        handler.finish()
        (cookie,) = connection.headers.get_list("Set-Cookie")
        return cookie

    def test_reading(self) -> None:
        handler, _ = pending(headers={"Cookie": 'a=1; b="2\\0543"; =nameless'})
        self.assertEqual(handler.get_cookie("a"), "1")
        self.assertEqual(handler.get_cookie("b"), "2,3")
        self.assertIsNone(handler.get_cookie("c"))
        self.assertEqual(handler.get_cookie("c", "default"), "default")
        self.assertEqual(handler.cookies["a"].value, "1")

    def test_setting(self) -> None:
        self.assertEqual(self.sent("a", "1"), "a=1; Path=/")
        self.assertEqual(self.sent("a", b"1", path=""), "a=1")
        self.assertEqual(self.sent("a", 'x"y'), 'a="x\\"y"; Path=/')
        self.assertEqual(
            self.sent("a", "1", domain="example.com", max_age=10, httponly=True, secure=True, samesite="Lax"),
            "a=1; Domain=example.com; HttpOnly; Max-Age=10; Path=/; SameSite=Lax; Secure",
        )
        self.assertEqual(
            self.sent("a", "1", expires=86400), "a=1; expires=Fri, 02 Jan 1970 00:00:00 GMT; Path=/"
        )
        self.assertIn("expires=", self.sent("a", "1", expires_days=1))

    def test_the_last_one_set_is_sent(self) -> None:
        handler, connection = pending()
        handler.set_cookie("a", "1", httponly=True)
        handler.set_cookie("b", "2")
        handler.set_cookie("a", "3")
        handler.finish()
        self.assertEqual(connection.headers.get_list("Set-Cookie"), ["b=2; Path=/", "a=3; Path=/"])

    def test_cookies_survive_an_error(self) -> None:
        handler, connection = pending()
        handler.set_cookie("a", "1")
        handler.send_error(404)
        self.assertEqual(connection.headers["Set-Cookie"], "a=1; Path=/")

    def test_clearing(self) -> None:
        handler, connection = pending(headers={"Cookie": "a=1; b=2"})
        handler.clear_all_cookies(path="/x")
        handler.finish()
        for cookie, name in zip(connection.headers.get_list("Set-Cookie"), "ab", strict=True):
            self.assertRegex(cookie, rf'^{name}=""; expires=.*; Path=/x$')
        self.assertRaises(TypeError, handler.clear_cookie, "a", expires=1)
        self.assertRaises(TypeError, handler.clear_cookie, "a", max_age=1)

    def test_other_spellings_warn(self) -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.assertEqual(
                self.sent("a", "1", HttpOnly=True, SameSite="Lax", Max_Age="5"),
                "a=1; HttpOnly; Max-Age=5; Path=/; SameSite=Lax",
            )
        self.assertEqual(caught[0].category, DeprecationWarning)

    def test_injection_is_refused_in_every_argument_and_spelling(self) -> None:
        handler, connection = pending()
        for bad in ("x\r\nSet-Cookie: y", "x\ny", "x\ry", "x\0y", "x\x7fy", "x; HttpOnly", "x y", "\u20ac"):
            for name in (
                "domain", "path", "samesite", "Domain", "PATH", "SameSite", "Expires", "Max_Age", "max-age",
                "comment", "Version",
            ):  # fmt: skip
                with self.assertRaises(CookieError, msg=f"{name}={bad!r}"):
                    handler.set_cookie("a", "1", **{name: bad})
            self.assertRaises(CookieError, handler.set_cookie, bad, "1")
        for bad in ("x\r\ny", "x\ny", "x\0y", "x y", "\u20ac"):
            self.assertRaises(ValueError, handler.set_cookie, "a", bad)
        self.assertRaises(ValueError, handler.set_cookie, "a", "1", max_age="1; Domain=evil")
        self.assertRaises(CookieError, handler.set_cookie, "", "1")
        handler.finish()
        self.assertNotIn("Set-Cookie", connection.headers)


class SignedCookieTests(SynchronousTestCase):
    def round_trip(self, **settings: Any) -> bytes | None:
        handler, connection = pending(**settings)
        handler.set_signed_cookie("user", "ada\xe4")
        handler.finish()
        cookie = connection.headers["Set-Cookie"].partition(";")[0]
        reader, _ = pending(headers={"Cookie": cookie}, **settings)
        self.assertIsNone(reader.get_signed_cookie("other", reader.get_cookie("user")))
        self.version = reader.get_signed_cookie_key_version("user")
        return reader.get_signed_cookie("user")

    def test_round_trip(self) -> None:
        self.assertEqual(self.round_trip(cookie_secret="s"), "adaä".encode())

    def test_key_versions(self) -> None:
        self.assertEqual(self.round_trip(cookie_secret={1: "a", 2: "b"}, key_version=2), "adaä".encode())
        self.assertEqual(self.version, 2)

    def test_several_keys_need_a_version(self) -> None:
        handler, _ = pending(cookie_secret={1: "a"})
        self.assertIn(
            "key_version", str(self.assertRaises(LookupError, handler.create_signed_value, "a", "b"))
        )

    def test_secret_is_required(self) -> None:
        handler, _ = pending()
        for call in (handler.get_signed_cookie, handler.get_signed_cookie_key_version):
            self.assertIn("cookie_secret", str(self.assertRaises(LookupError, call, "a")))

    def test_missing_and_forged(self) -> None:
        handler, _ = pending(cookie_secret="s", headers={"Cookie": "a=2|1:0|forged"})
        self.assertIsNone(handler.get_signed_cookie("a"))
        self.assertIsNone(handler.get_signed_cookie("b"))
        self.assertIsNone(handler.get_signed_cookie_key_version("b"))
        self.assertIsNone(handler.get_secure_cookie("a"))
