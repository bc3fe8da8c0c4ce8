"""Cookies, signatures and the protection against requests of other sites."""

from __future__ import annotations

import hmac
import pickle
import sys
import time
from collections.abc import Callable
from typing import Any

from cycloneish import signing
from cycloneish.escape import json_decode, url_escape
from cycloneish.signing import create_signed_value, decode_signed_value
from cycloneish.web import RequestHandler
from tests.security.support import RecordingApplication, Response, SecurityTestCase, request

SECRET = "a secret that is long enough"


class Show(RequestHandler):
    """Answers with the cookies it sees, and with what a signed cookie says."""

    def get(self) -> None:
        signed = self.get_signed_cookie("user")
        self.write(
            {
                "cookies": {name: morsel.value for name, morsel in self.request.cookies.items()},
                "signed": signed.decode() if signed is not None else None,
            }
        )


class Protected(RequestHandler):
    def get(self) -> None:
        self.write(self.xsrf_token)

    def post(self) -> None:
        self.application.seen.append(("POST", "/done"))
        self.write("done")

    put = delete = patch = post


class CookieTests(SecurityTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.application = RecordingApplication([("/", Show)], cookie_secret=SECRET)
        self.served = self.serve(self.application)

    async def show(self, *cookies: str) -> Any:
        headers = [b"Cookie: " + cookie.encode("latin-1", "replace") for cookie in cookies]
        answer = await self.fetch(self.served, request("/", *headers))
        self.assertEqual(answer.status, 200, cookies)
        self.assertEqual(self.logs.serious, [], cookies)
        return json_decode(answer.body)

    async def test_a_nameless_cookie_shadows_nothing(self) -> None:
        """47. ``=__Host-x=evil`` is a cookie without a name and not ``__Host-x``."""
        for cookie in ("=__Host-x=evil", "__Host-x=good; =__Host-x=evil", " =__Host-x=evil"):
            seen = (await self.show(cookie))["cookies"]
            self.assertIn(seen.get("__Host-x"), (None, "good"), cookie)

    async def test_a_prefixed_cookie_is_not_shadowed_by_another_spelling(self) -> None:
        """47. ``__host-x``, `` __Host-x`` with other white space, quoted names: other cookies."""
        for cookie in (
            "__Host-x=good; __host-x=evil",
            '__Host-x=good; "__Host-x"=evil',
            "__Host-x=good; \xa0__Host-x=evil",
            "__Host-x=good; a=__Host-x=evil",
            "__Host-x=good; a]__Host-x=evil",
            "__Host-x=good, __Host-x=evil",
        ):
            self.assertNotEqual((await self.show(cookie))["cookies"].get("__Host-x"), "evil", cookie)

    async def test_duplicate_names_give_one_value_and_no_traceback(self) -> None:
        """47. One header, two headers, thousands of the same."""
        self.assertIn((await self.show("a=1; a=2"))["cookies"]["a"], ("1", "2"))
        self.assertIn((await self.show("a=1", "a=2"))["cookies"].get("a"), ("1", "2", "1,a=2"))
        self.assertEqual(len((await self.show("; ".join(["a=1"] * 5000)))["cookies"]), 1)

    async def test_a_value_cannot_make_another_cookie(self) -> None:
        """47. Separators of other parsers, quotes and escapes inside a value."""
        for cookie in (
            "a=b]_xsrf=evil",
            "a=b,_xsrf=evil",
            'a="b, _xsrf=evil"',
            "a=b _xsrf=evil",
            "a=b\t_xsrf=evil",
            "a=b\xa0_xsrf=evil",
            "a=b&_xsrf=evil",
            'a="\\"_xsrf=evil"',
            "a=b:_xsrf=evil",
        ):
            self.assertNotIn("_xsrf", (await self.show(cookie))["cookies"], cookie)

    async def test_malformed_cookies_are_no_error(self) -> None:
        """47. Every other cookie is still there."""
        for bad in (
            "",
            ";",
            "=",
            ";;;=;",
            '"',
            '"\\',
            "a",
            "\xff\xfe",
            "[]=x",
            "a=\xe9",
            "$Version=1",
            "a=" + "b" * 20_000,
            "(=x",
            "é=x",
        ):
            self.assertEqual((await self.show(f"{bad}; good=1"))["cookies"].get("good"), "1", bad[:50])

    async def signed(self, value: bytes | str) -> str | None:
        text = value.decode() if isinstance(value, bytes) else value
        return (await self.show(f"user={text}"))["signed"]

    async def test_a_signed_value_is_read(self) -> None:
        """The plain case works."""
        self.assertEqual(await self.signed(create_signed_value(SECRET, "user", "ada")), "ada")

    async def test_a_signed_value_of_another_name_is_refused(self) -> None:
        """48. Moved to another name, also with the border between name and value moved."""
        self.assertIsNone(await self.signed(create_signed_value(SECRET, "other", "ada")))
        self.assertIsNone(await self.signed(create_signed_value(SECRET, "use", "rada")))
        self.assertIsNone(await self.signed(create_signed_value(SECRET, "user2", "ada")))

    async def test_a_changed_value_is_refused(self) -> None:
        """48. Every single character of it, one after another; and every prefix."""
        value = create_signed_value(SECRET, "user", "ada").decode()
        for position in range(len(value)):
            other = value[:position] + ("0" if value[position] != "0" else "1") + value[position + 1 :]
            self.assertIsNone(decode_signed_value(SECRET, "user", other), position)
            self.assertIsNone(decode_signed_value(SECRET, "user", value[:position]), position)

    async def test_an_unknown_key_version_is_refused(self) -> None:
        """48. A key that was retired, and one that never was."""
        keys = {1: "one", 2: "two"}
        value = create_signed_value(keys, "user", "ada", key_version=2)
        self.assertEqual(decode_signed_value(keys, "user", value), b"ada")
        self.assertIsNone(decode_signed_value({1: "one"}, "user", value))
        self.assertIsNone(decode_signed_value({1: "one", 2: "other"}, "user", value))
        self.assertIsNone(decode_signed_value(keys, "user", value.replace(b"|1:2|", b"|1:9|")))

    async def test_a_time_stamp_in_the_future_or_too_old_is_refused(self) -> None:
        """48. Signed rightly, at the wrong time."""
        month = 31 * 86400
        for shift in (-month - 60, 40 * 86400):
            made = create_signed_value(SECRET, "user", "ada", clock=lambda shift=shift: time.time() + shift)
            got = await self.signed(made)
            if shift < 0:
                self.assertIsNone(got)
        old = create_signed_value(SECRET, "user", "ada", version=1, clock=lambda: time.time() + 40 * 86400)
        self.assertIsNone(decode_signed_value(SECRET, "user", old, min_version=1))

    async def test_malformed_values_are_none_and_never_an_error(self) -> None:
        """48. All that is no signed value; with wrong lengths, digits of other scripts, huge numbers."""
        good = create_signed_value(SECRET, "user", "ada").decode()
        for value in (
            *(
                "",
                "|",
                "2|",
                "2|1:0",
                "2|1:0|",
                "|||",
                "2|1:0|10:1300000000|4:user|4:YWRh|",
                "a|b|c",
                "1|2|3|4|5|6|7",
                "99|1:0|",
            ),
            *(
                "2|-1:0|",
                "2|9999999999:0|",
                "2|1:x|",
                "2|1:\u0660|",
                "\u0662|1:0|",
                "2|1_0:0|",
                "2|+1:0|",
                "2|" + "9" * 5000 + ":0|",
            ),
            *(
                good[:-1],
                good + "0",
                good + "|",
                " " + good,
                good.upper(),
                good.replace("|", ":"),
                "0" + good,
                "2" * 5000,
                "\x00",
            ),
            *(
                "2|1:0|10:13000000\xff0|4:user|4:YWRh|" + "0" * 64,
                "2|1:0|10:1300000000|4:user|4:Y?Rh|" + "0" * 64,
            ),
        ):
            self.assertIsNone(decode_signed_value(SECRET, "user", value), value[:60])
            self.assertIsNone(decode_signed_value(SECRET, "user", value.encode()), value[:60])
            self.assertIsNone(decode_signed_value(SECRET, "user", value, min_version=1), value[:60])
            if value.isprintable() and value == value.strip() and ";" not in value:
                self.assertIsNone(
                    await self.signed(url_escape(value) if not value.isascii() else value), value[:60]
                )

    async def test_signatures_are_compared_in_constant_time(self) -> None:
        """49. Every comparison with a secret goes through ``hmac.compare_digest``."""
        calls: list[int] = []
        compare = hmac.compare_digest

        def counted(first: Any, second: Any) -> bool:
            calls.append(1)
            return compare(first, second)

        self.patch(hmac, "compare_digest", counted)
        self.assertTrue(
            hasattr(signing, "hmac"), "signing took the function out of its module: patch it there"
        )
        for version in (1, 2):
            made = create_signed_value(SECRET, "user", "ada", version=version)
            calls.clear()
            decode_signed_value(SECRET, "user", made, min_version=1)
            self.assertGreater(len(calls), 0, version)
            calls.clear()
            decode_signed_value(SECRET, "user", made[:-1] + b"x", min_version=1)
            self.assertGreater(len(calls), 0, version)

    async def test_nothing_of_a_client_is_unpickled(self) -> None:
        """53. Cookies, arguments and bodies that are pickles stay bytes."""
        loads: list[bytes] = []
        for name in ("loads", "load", "Unpickler"):
            self.patch(pickle, name, lambda *args, **kwargs: loads.append(b"called"))
        value = create_signed_value(SECRET, "user", pickle.dumps({"a": 1}, protocol=0).decode("ascii"))
        self.assertIsNotNone(await self.signed(value))
        self.assertEqual(loads, [])
        loaded = [name for name in sys.modules if name.startswith("cycloneish.")]
        users = [
            name
            for name in loaded
            if hasattr(sys.modules[name], "pickle") or hasattr(sys.modules[name], "shelve")
        ]
        self.assertEqual(users, [])


class XsrfTests(SecurityTestCase):
    def start(self, **settings: Any) -> None:
        self.application = RecordingApplication([("/", Protected)], **settings)
        self.served = self.serve(self.application)

    async def send(self, *headers: str, body: bytes = b"", method: str = "POST") -> Response:
        self.logs.clear()
        answer = await self.fetch(
            self.served,
            request(
                "/", "Content-Type: application/x-www-form-urlencoded", *headers, method=method, body=body
            ),
        )
        self.assertEqual(self.logs.serious, [])
        return answer

    async def assert_refused_with_403(self, *headers: str, body: bytes = b"", method: str = "POST") -> None:
        answer = await self.send(*headers, body=body, method=method)
        self.assertEqual(answer.status, 403, (headers, body))
        self.assertEqual(self.application.seen, [])

    async def token(self) -> tuple[str, str]:
        """The token of a page and its cookie."""
        answer = await self.fetch(self.served, request("/"))
        return answer.body.decode(), (answer.header("Set-Cookie") or "").partition(";")[0]

    async def test_the_token_is_accepted(self) -> None:
        """The plain case works: as an argument and as a header."""
        self.start(xsrf_cookies=True)
        token, cookie = await self.token()
        body = b"_xsrf=" + url_escape(token).encode()
        self.assertEqual((await self.send(f"Cookie: {cookie}", body=body)).status, 200)
        self.assertEqual((await self.send(f"Cookie: {cookie}", f"X-Xsrftoken: {token}")).status, 200)

    async def test_the_token_is_masked_anew_for_each_response(self) -> None:
        """50. So that compression cannot give it away; and the secret itself is in none of them."""
        self.start(xsrf_cookies=True)
        cookie = "_xsrf=0123456789abcdef0123456789abcdef"
        bodies = {(await self.fetch(self.served, request("/", f"Cookie: {cookie}"))).body for _ in range(20)}
        self.assertEqual(len(bodies), 20)
        for body in bodies:
            self.assertNotIn(b"0123456789abcdef", body)

    async def test_a_missing_or_malformed_token_is_refused(self) -> None:
        """50. 403, never 500."""
        self.start(xsrf_cookies=True)
        _, cookie = await self.token()
        await self.assert_refused_with_403(f"Cookie: {cookie}")
        for token in (
            "",
            "x",
            "2|",
            "2|||",
            "2|zz|zz|1",
            "2|aabbccdd|00|x",
            "9|1|2|3",
            "2|aa|bb|1",
            "2|aabbccdd||1",
            "\x00",
            "%00",
            "é",
            "2|aabbccdd|" + "a" * 5001 + "|1",
            "2|" + "a" * 5000,
            "2|aabbccdd|aabb|" + "9" * 5000,
            "\u0662|a|b|c",
        ):
            body = b"_xsrf=" + url_escape(token).encode()
            await self.assert_refused_with_403(f"Cookie: {cookie}", body=body)
            await self.assert_refused_with_403(body=body)

    async def test_a_malformed_cookie_is_refused(self) -> None:
        """50. Whatever stands in the cookie, a token that is not its own does not pass, nor an empty one."""
        self.start(xsrf_cookies=True)
        token, _ = await self.token()
        for value in ("", "2|", "2|aabbccdd||1", "x|y", '"', "2|aabbccdd|zz|1", "99|a", "2|||"):
            for sent in (token, "2|aabbccdd||1", "2|||"):
                body = b"_xsrf=" + url_escape(sent).encode()
                await self.assert_refused_with_403(f"Cookie: _xsrf={value}", body=body)

    async def test_the_token_of_another_cookie_is_refused(self) -> None:
        """50. Each visitor has one of his own."""
        self.start(xsrf_cookies=True)
        token, _ = await self.token()
        _, other = await self.token()
        await self.assert_refused_with_403(f"Cookie: {other}", body=b"_xsrf=" + url_escape(token).encode())

    async def test_xml_http_request_is_no_exemption(self) -> None:
        """50. Neither is a JSON body, another method, or ``Sec-Fetch-Site`` by itself."""
        self.start(xsrf_cookies=True)
        await self.assert_refused_with_403("X-Requested-With: XMLHttpRequest", body=b"a=b")
        await self.assert_refused_with_403("Content-Type: application/json", body=b"{}")
        for method in ("PUT", "DELETE", "PATCH"):
            await self.assert_refused_with_403(body=b"a=b", method=method)

    async def test_a_method_override_is_no_way_around(self) -> None:
        """50. ``_method`` and ``X-HTTP-Method-Override`` mean nothing."""
        self.start(xsrf_cookies=True)
        await self.assert_refused_with_403("X-HTTP-Method-Override: GET", body=b"_method=GET")

    async def test_the_token_is_compared_in_constant_time(self) -> None:
        """49. Also here."""
        self.start(xsrf_cookies=True)
        calls: list[int] = []
        compare: Callable[..., bool] = hmac.compare_digest

        def counted(first: Any, second: Any) -> bool:
            calls.append(1)
            return compare(first, second)

        token, cookie = await self.token()
        self.patch(hmac, "compare_digest", counted)
        await self.send(f"Cookie: {cookie}", body=b"_xsrf=" + url_escape(token).encode())
        self.assertGreater(len(calls), 0)

    async def test_a_cross_site_post_is_refused(self) -> None:
        """51. By ``Sec-Fetch-Site``, by ``Origin``; safe methods and programs pass."""
        self.start(cross_origin_protection=True)
        for headers in (
            ("Sec-Fetch-Site: cross-site",),
            ("Sec-Fetch-Site: same-site", "Origin: http://other.example.com"),
            ("Sec-Fetch-Site: cross-site", "Origin: http://example.com"),
            ("Sec-Fetch-Site: nonsense",),
            ("Sec-Fetch-Site: Same-Origin, cross-site",),
            ("Origin: http://evil.example",),
            ("Origin: http://example.com.evil.example",),
            ("Origin: http://example.com@evil.example",),
            ("Origin: http://evil.example#example.com",),
            ("Origin: null",),
            ("Origin: ",),
            ("Origin: http://[",),
        ):
            await self.assert_refused_with_403(*headers)
        for headers in (
            (),
            ("Sec-Fetch-Site: same-origin",),
            ("Sec-Fetch-Site: none",),
            ("Origin: http://example.com",),
        ):
            self.assertEqual((await self.send(*headers)).status, 200, headers)
        answer = await self.fetch(self.served, request("/", "Sec-Fetch-Site: cross-site"))
        self.assertEqual(answer.status, 200)
