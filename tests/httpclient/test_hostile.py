"""Servers that mean no good, and what a fetch says where Twisted says something else."""

from __future__ import annotations

import socket
import time
from typing import Any

from cycloneish.httpclient import HTTPError, HTTPStreamClosedError, HTTPTimeoutError
from cycloneish.httpclient.digest import best_challenge
from tests.httpclient.support import ClientTestCase, response


class ChallengeTest(ClientTestCase):
    options = {"auth_username": "me", "auth_password": "pw", "auth_mode": "digest"}

    def test_reading_one_takes_linear_time(self) -> None:
        for text in ("a", "a ", " ", "a=", 'a="', "a='", 'a="\\"', "/,", ",", '"'):
            began = time.process_time()
            best_challenge(["Digest " + text * (60000 // len(text))])
            self.assertLess(time.process_time() - began, 3.0, text)

    async def test_one_without_a_scheme_is_a_response_all_the_same(self) -> None:
        for challenge in ("", ",  ,", '"', "=", "Digest"):
            server = self.serve(response(b"", f"WWW-Authenticate: {challenge}", status="401 Who"))
            error = await self.error_of(self.client.fetch(server.url(), **self.options), HTTPError)
            self.assertEqual(error.code, 401)

    def test_commas_in_quotes_begin_no_challenge(self) -> None:
        challenge = best_challenge(
            ['Basic realm="x, Digest y", Digest realm="Acme, Inc site", qop="auth, auth-int", nonce="n\\"o"']
        )
        assert challenge is not None
        self.assertEqual((challenge.realm, challenge.nonce, challenge.auth), ("Acme, Inc site", 'n"o', True))


class StatusTest(ClientTestCase):
    async def test_a_status_below_100_is_no_interim_response(self) -> None:
        server = self.serve(response(b"x", status="000 Zero"))
        error = await self.error_of(self.client.fetch(server.url()), HTTPStreamClosedError)
        self.assertIn("no status code", str(error))


class TimeoutTest(ClientTestCase):
    async def test_the_time_for_all_ends_while_connecting(self) -> None:
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            waiting: list[Any] = []
            for _ in range(3):
                one = socket.socket()
                self.addCleanup(one.close)
                one.setblocking(False)
                one.connect_ex(full.getsockname())
                waiting.append(one)
            url = f"http://127.0.0.1:{full.getsockname()[1]}/"
            error = await self.error_of(self.client.fetch(url, request_timeout=0.2), HTTPTimeoutError)
            self.assertEqual(str(error), "Timeout during request")
