"""Urlencoded forms and query strings."""

from __future__ import annotations

from cycloneish.escape import json_decode
from cycloneish.web import RequestHandler
from tests.security.support import RecordingApplication, SecurityTestCase, request


class Show(RequestHandler):
    """Answers with its arguments."""

    def get(self) -> None:
        self.write({name: self.get_arguments(name) for name in self.request.arguments})

    post = get


class FormTests(SecurityTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.served = self.serve(RecordingApplication([("/", Show)]))

    def form(self, body: bytes) -> bytes:
        return request("/", "Content-Type: application/x-www-form-urlencoded", method="POST", body=body)

    async def status(self, data: bytes) -> int:
        answer = await self.fetch(self.served, data)
        self.assertEqual(self.logs.serious, [])
        self.assertLessEqual(len(self.logs.of("general", "application")), 2)
        self.logs.clear()
        return answer.status

    async def test_more_than_1000_arguments_of_a_body_are_refused(self) -> None:
        """35. In the body."""
        self.assertEqual(await self.status(self.form(b"&".join([b"a=b"] * 1001))), 400)
        self.assertEqual(await self.status(self.form(b"&" * 5000)), 400)
        self.assertEqual(await self.status(self.form(b"&".join([b"a=b"] * 1000))), 200)

    async def test_more_than_1000_arguments_of_a_query_are_refused(self) -> None:
        """35. In the query, where the request is refused before a handler is chosen."""
        self.assertEqual(await self.status(request("/?" + "&".join(["a=b"] * 1001))), 400)
        self.assertEqual(await self.status(request("/?" + "&" * 5000)), 400)
        self.assertEqual(await self.status(request("/?" + "&".join(["a=b"] * 1000))), 200)

    async def test_a_semicolon_is_no_separator(self) -> None:
        """36. A cache in front may think otherwise; then it, not we, is wrong (WHATWG URL)."""
        answer = await self.fetch(self.served, request("/?a=1;b=2&c=3"))
        self.assertEqual(json_decode(answer.body), {"a": ["1;b=2"], "c": ["3"]})
        answer = await self.fetch(self.served, self.form(b"a=1;b=2&c=3"))
        self.assertEqual(json_decode(answer.body), {"a": ["1;b=2"], "c": ["3"]})

    async def test_invalid_utf_8_is_refused(self) -> None:
        """37. In names and values, of query and body, raw and encoded: 400, never 500."""
        for text in ("%ff", "%c3", "%c3%28", "%ed%a0%80", "%80", "%e2%82"):
            self.assertEqual(await self.status(request(f"/?a={text}")), 400, text)
            self.assertEqual(await self.status(self.form(f"a={text}".encode())), 400, text)
            self.assertIn(await self.status(request(f"/?{text}=a")), (200, 400), text)
            self.assertIn(await self.status(self.form(f"{text}=a".encode())), (200, 400), text)
        self.assertEqual(await self.status(self.form(b"a=\xff\xfe")), 400)

    async def test_nul_and_control_characters_are_no_traceback(self) -> None:
        """37. They are dropped or handed over, as the application asks."""
        for text in ("%00", "a%00b", "%0d%0a", "%1b[31m", "%ef%bf%bf"):
            self.assertIn(await self.status(request(f"/?a={text}")), (200, 400), text)

    async def test_a_compressed_form_is_refused_rather_than_misread(self) -> None:
        """35. A form with a Content-Encoding that was not undone: 4xx, or no arguments at all."""
        data = request(
            *("/", "Content-Type: application/x-www-form-urlencoded", "Content-Encoding: x-unknown"),
            method="POST",
            body=b"a=b",
        )
        answer = await self.fetch(self.served, data)
        self.assertTrue(400 <= answer.status < 500 or json_decode(answer.body) == {}, answer)
        self.assertEqual(self.logs.serious, [])
