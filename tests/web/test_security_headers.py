"""The mixin that sets headers for careful browsers."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cycloneish.testing import Client
from cycloneish.web import Application, HTTPError, RequestHandler, SecurityHeadersMixin


class Careful(SecurityHeadersMixin, RequestHandler):
    def get(self) -> None:
        if self.get_argument("fail", ""):
            raise HTTPError(418)
        self.write("fine")


class Changed(SecurityHeadersMixin, RequestHandler):
    content_security_policy = "script-src 'nonce-{nonce}'"
    hsts_max_age = 60
    hsts_include_subdomains = True
    hsts_preload = True
    frame_options = None
    permissions_policy = "camera=()"

    def set_default_headers(self) -> None:
        super().set_default_headers()
        self.set_header("Referrer-Policy", "no-referrer")

    def get(self) -> None:
        self.write(self.csp_nonce)


class SecurityHeaders(SynchronousTestCase):
    def get(self, path: str, protocol: str = "http") -> Any:
        application = Application([("/", Careful), ("/changed", Changed)])
        return self.successResultOf(Client(application).get(path, protocol=protocol))

    def test_defaults(self) -> None:
        for path, status in (("/", 200), ("/?fail=1", 418)):
            answer = self.get(path)
            self.assertEqual(answer.code, status)
            for name, value in {
                "X-Content-Type-Options": "nosniff",
                "X-Frame-Options": "DENY",
                "Referrer-Policy": "strict-origin-when-cross-origin",
                "Cross-Origin-Opener-Policy": "same-origin",
            }.items():
                self.assertEqual(answer.headers[name], value)
            self.assertIn("default-src 'self'", answer.headers["Content-Security-Policy"])
            self.assertNotIn("Permissions-Policy", answer.headers)
            # Over plain http a browser has to ignore it.
            self.assertNotIn("Strict-Transport-Security", answer.headers)

    def test_changed(self) -> None:
        first, second = (self.get("/changed", "https") for _ in range(2))
        self.assertEqual(first.headers["Strict-Transport-Security"], "max-age=60; includeSubDomains; preload")
        nonce = first.body.decode()
        self.assertGreaterEqual(len(nonce), 20)
        self.assertEqual(first.headers["Content-Security-Policy"], f"script-src 'nonce-{nonce}'")
        self.assertNotEqual(nonce, second.body.decode())
        self.assertNotIn("X-Frame-Options", first.headers)
        self.assertEqual(first.headers["Permissions-Policy"], "camera=()")
        self.assertEqual(first.headers["Referrer-Policy"], "no-referrer")
