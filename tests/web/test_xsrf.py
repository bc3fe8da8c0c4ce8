"""Requests that another site makes a browser send."""

from __future__ import annotations

from binascii import a2b_hex
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cycloneish.web import RequestHandler
from cycloneish.web.xsrf import _masked
from tests.web.fake import FakeConnection, Logs, fetch


class Form(RequestHandler):
    def get(self) -> None:
        self.write(self.xsrf_token)

    def post(self) -> None:
        self.write("ok")

    put = post


class TokenTests(SynchronousTestCase):
    def token(self, **settings: Any) -> tuple[str, str]:
        connection = fetch(Form, xsrf_cookies=True, **settings)
        return connection.body.decode(), connection.headers["Set-Cookie"]

    def post(
        self, cookie: str | None, token: str | None, header: str = "", **settings: Any
    ) -> FakeConnection:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        if cookie:
            headers["Cookie"] = f"_xsrf={cookie}"
        if header and token:
            headers[header] = token
        body = f"_xsrf={token}" if token and not header else ""
        with Logs() as self.logs:
            return fetch(Form, "/", "POST", headers, body.encode(), xsrf_cookies=True, **settings)

    def test_token_and_cookie_match_each_other_only(self) -> None:
        token, cookie = self.token()
        self.assertEqual(cookie, f"_xsrf={token}; Path=/")
        other, _ = self.token()
        self.assertEqual(self.post(token, token).code, 200)
        self.assertEqual(self.post(token, other).code, 403)
        self.assertIn("XSRF cookie does not match POST argument", self.logs.text)
        self.assertEqual(self.post(None, token).code, 403)
        self.assertEqual(self.post(token, None).code, 403)
        self.assertIn("'_xsrf' argument missing", self.logs.text)

    def test_headers(self) -> None:
        token, _ = self.token()
        for header in ("X-XSRFToken", "X-CSRFToken"):
            self.assertEqual(self.post(token, token, header).code, 200)
        self.assertEqual(self.post(token, "", "X-Requested-With").code, 403)

    def test_token_is_masked_anew_and_still_fits(self) -> None:
        token, _ = self.token()
        connection = fetch(Form, headers={"Cookie": f"_xsrf={token}"}, xsrf_cookies=True)
        again = connection.body.decode()
        self.assertNotEqual(again, token)
        self.assertNotIn("Set-Cookie", connection.headers)
        self.assertEqual(self.post(token, again).code, 200)
        raw = [_masked(a2b_hex(t.split("|")[1]), a2b_hex(t.split("|")[2])) for t in (token, again)]
        self.assertEqual(raw[0], raw[1])
        self.assertEqual(len(raw[0]), 16)

    def test_versions_understand_each_other(self) -> None:
        old, _ = self.token(xsrf_cookie_version=1)
        self.assertRegex(old, "^[0-9a-f]{32}$")
        self.assertEqual(self.post(old, old).code, 200)
        new = fetch(Form, headers={"Cookie": f"_xsrf={old}"}, xsrf_cookies=True).body.decode()
        self.assertTrue(new.startswith("2|"))
        self.assertEqual(self.post(old, new).code, 200)
        self.assertEqual(self.post(new, old).code, 200)
        self.assertEqual(self.post("any text", "any text").code, 200)
        with Logs():
            self.assertEqual(fetch(Form, xsrf_cookie_version=3).code, 500)

    def test_malformed_tokens_are_403(self) -> None:
        token, _ = self.token()
        for bad in ("2|", "2|zz|zz|0", "2|aabb|ccdd|1", "2|00000000|0|x", "3|x", "2||||", "2|00000000||0"):
            self.assertEqual(self.post(token, bad).code, 403, bad)
            self.assertEqual(self.post(bad, token).code, 403, bad)
        self.assertIn("XSRF cookie does not match", self.logs.text)
        self.assertEqual(self.post(token, "3|x").code, 403)
        self.assertIn("invalid format", self.logs.text)

    def test_settings_of_the_cookie(self) -> None:
        connection = fetch(
            Form, xsrf_cookies=True, xsrf_cookie_name="__Host-x", xsrf_cookie_kwargs={"secure": True}
        )
        self.assertRegex(connection.headers["Set-Cookie"], r"^__Host-x=.*; Path=/; Secure$")

    def test_cookie_of_a_user_lasts_and_the_setting_is_left_alone(self) -> None:
        class Handler(Form):
            def get_current_user(self) -> Any:
                return "ada"

        kwargs: dict[str, Any] = {}
        connection = fetch(Handler, xsrf_cookies=True, xsrf_cookie_kwargs=kwargs)
        self.assertIn("expires=", connection.headers["Set-Cookie"])
        self.assertEqual(kwargs, {})

    def test_form_field(self) -> None:
        class Handler(RequestHandler):
            def get(self) -> None:
                self.write(self.xsrf_form_html())

        self.assertRegex(fetch(Handler).body, rb'^<input type="hidden" name="_xsrf" value="2\|[^"]*"/>$')

    def test_off_by_default_and_safe_methods_free(self) -> None:
        self.assertEqual(fetch(Form, method="POST").code, 200)
        self.assertEqual(fetch(Form, xsrf_cookies=True).code, 200)

    def test_masking_odd_sizes(self) -> None:
        self.assertEqual(_masked(b"\1\2\3\4", b""), b"")
        self.assertEqual(_masked(b"\xff\xff\xff\xff", b"\0\1\2\3\4"), b"\xff\xfe\xfd\xfc\xfb")


class OriginTests(SynchronousTestCase):
    def code(
        self, headers: dict[str, str], method: str = "POST", handler: Any = Form, **settings: Any
    ) -> int | None:
        with Logs() as self.logs:
            return fetch(handler, "/", method, headers, cross_origin_protection=True, **settings).code

    def test_same_origin_and_no_browser_pass(self) -> None:
        self.assertEqual(self.code({"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.example"}), 200)
        self.assertEqual(self.code({"Sec-Fetch-Site": "none"}), 200)
        self.assertEqual(self.code({}), 200)
        self.assertEqual(self.code({"Origin": "https://EXAMPLE.com"}), 200)

    def test_others_are_refused(self) -> None:
        for site in ("cross-site", "same-site", "nonsense"):
            self.assertEqual(self.code({"Sec-Fetch-Site": site, "Origin": "https://example.com"}), 403, site)
            self.assertEqual(self.code({"Sec-Fetch-Site": site}), 403, site)
        self.assertIn("Sec-Fetch-Site nonsense & origin None not allowed", self.logs.text)
        for origin in ("https://evil.example", "null", "https://example.com:8443", "https://[bad"):
            self.assertEqual(self.code({"Origin": origin}), 403, origin)
        self.assertIn("Origin 'https://[bad' not allowed", self.logs.text)
        self.assertEqual(self.code({"Origin": "https://evil.example"}, "PUT"), 403)

    def test_safe_methods_are_free(self) -> None:
        self.assertEqual(self.code({"Sec-Fetch-Site": "cross-site"}, "GET"), 200)

    def test_trusted_origins(self) -> None:
        trusted = {"trusted_origins": ["https://partner.example"]}
        headers = {"Sec-Fetch-Site": "cross-site", "Origin": "https://partner.example"}
        self.assertEqual(self.code(headers, **trusted), 200)
        self.assertEqual(self.code({"Origin": "https://partner.example"}, **trusted), 200)
        self.assertEqual(self.code({"Origin": "http://partner.example"}, **trusted), 403)

    def test_trust_is_decided_before_prepare(self) -> None:
        seen: list[str] = []

        class Handler(Form):
            def prepare(self) -> None:
                seen.append("prepare")

            def check_trusted_origin(self, origin: str) -> bool:
                seen.append(origin)
                return origin.endswith(".example")

        self.assertEqual(self.code({"Origin": "http://a.example"}, handler=Handler), 200)
        self.assertEqual(self.code({"Origin": "http://a.test"}, handler=Handler), 403)
        self.assertEqual(seen, ["http://a.example", "prepare", "http://a.test"])

    def test_percent_in_an_origin_is_only_text(self) -> None:
        self.assertEqual(self.code({"Origin": "https://%s%d"}), 403)
        self.assertIn("%s%d", self.logs.text)
