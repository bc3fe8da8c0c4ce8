"""What an attack on a running server found, each with the request that found it."""

from __future__ import annotations

from typing import Any

from cycloneish.web import FallbackHandler, RequestHandler
from tests.security.support import (
    RecordingApplication,
    SecurityTestCase,
    request,
)


class Who(RequestHandler):
    """Answers with the client's address."""

    def get(self) -> None:
        self.write(self.request.remote_ip or "")


class MethodNameTest(SecurityTestCase):
    """A fallback takes every method, and none of them is a method of the handler in Python."""

    async def test_a_method_named_like_an_attribute_goes_to_the_fallback(self) -> None:
        methods: list[str] = []

        def fallback(asked: Any) -> None:
            methods.append(asked.method)
            asked.connection.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            asked.connection.finish()

        served = self.serve(
            RecordingApplication([("/old(/.*)", FallbackHandler, {"fallback": fallback})]),
        )
        names = ["WRITE", "FINISH", "REDIRECT", "PREPARE", "SETTINGS", "DETACH", "_LOG", "BREW", "GET"]
        for name in names:
            answer = await self.fetch(served, request("/old/written", method=name))
            self.assertEqual((answer.status, answer.body), (204, b""), name)
        self.assertEqual(methods, names)
        self.assertEqual(self.logs.serious, [])
