"""Servers that mean no good, and what a fetch says where Twisted says something else."""

from __future__ import annotations

import socket
import time

from twisted.internet import reactor
from twisted.internet.defer import CancelledError
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from cycloneish.httpclient import HTTPError, HTTPRequest, HTTPStreamClosedError, HTTPTimeoutError
from cycloneish.httpclient.digest import best_challenge
from cycloneish.httpclient.heads import parse_url
from cycloneish.websocket import websocket_connect
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


class ConnectingTest(ClientTestCase):
    def nowhere(self) -> str:
        """The URL of a server that takes no more connections."""
        full = socket.socket()
        self.addCleanup(full.close)
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):
            one = socket.socket()
            self.addCleanup(one.close)
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        return f"http://127.0.0.1:{full.getsockname()[1]}/"

    async def test_the_time_for_all_ends_it(self) -> None:
        fetching = self.client.fetch(self.nowhere(), request_timeout=0.2)
        error = await self.error_of(fetching, HTTPTimeoutError)
        self.assertEqual(str(error), "Timeout during request")

    async def test_who_cancels_an_agent_hears_of_that(self) -> None:
        asking = self.client.agent().request(b"GET", self.nowhere().encode())
        asking.cancel()
        await self.error_of(asking, CancelledError)


class Collector(Protocol):
    """Keeps a body, and how often it was told the end."""

    def __init__(self) -> None:
        self.body = b""
        self.ends = 0

    def dataReceived(self, data: bytes) -> None:
        self.body += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ends += 1


class AgentTest(ClientTestCase):
    async def test_a_body_that_is_asked_for_late_ends_once(self) -> None:
        answers = (
            response(b"whole"),
            response(b"5\r\nwhole\r\n0\r\n\r\n", "Transfer-Encoding: chunked", length=False),
            response(b""),
        )
        for answer in answers:
            server = self.serve(answer)
            found = await self.client.agent().request(b"GET", server.url().encode())
            await deferLater(reactor, 0.05)
            collector = Collector()
            found.deliverBody(collector)
            await self.until(lambda collector=collector: collector.ends)
            await deferLater(reactor, 0.01)
            self.assertEqual((collector.body, collector.ends), (b"whole" if found.length else b"", 1))


class SecretsTest(ClientTestCase):
    def test_no_password_in_what_is_wrong_with_a_url(self) -> None:
        for url in (
            "ftp://me:secret@a/",
            "http://me:secret@a/\n",
            "http://me:secret@/",
            "http://me:secret@a:0/",
        ):
            with self.assertRaises(ValueError) as caught:
                parse_url(url)
            self.assertNotIn("secret", str(caught.exception))

    async def test_nor_in_a_time_out_of_a_websocket(self) -> None:
        server = self.serve(lambda request, _: None)
        request = HTTPRequest(f"ws://me:secret@127.0.0.1:{server.port}/?token=secret", request_timeout=0.1)
        error = await self.error_of(websocket_connect(request), TimeoutError)
        self.assertNotIn("secret", str(error))
        self.assertIn(f"127.0.0.1:{server.port}", str(error))

    async def test_no_websocket_goes_past_a_proxy(self) -> None:
        server = self.serve(lambda request, _: None)
        url = f"ws://127.0.0.1:{server.port}/"
        await self.error_of(
            websocket_connect(HTTPRequest(url, proxy_host="127.0.0.1", proxy_port=1)), ConnectionRefusedError
        )
        self.assertRaises(ValueError, websocket_connect, HTTPRequest(url, proxy_host="127.0.0.1"))
        self.assertEqual(server.requests, [])


class ManyServersTest(ClientTestCase):
    async def test_connections_are_not_kept_for_all_of_them(self) -> None:
        server = self.serve(response(b"ok"))
        names = [f"host{number}.example" for number in range(110)]
        client = self.make_client(hostname_mapping=dict.fromkeys(names, "127.0.0.1"))
        for name in names:
            await client.fetch(server.url(host=name))
        self.assertEqual(client.pool.idle, 100)
        await self.until(lambda: sum(one.is_closed for one in server.conversations) == 10)
        # The one that was used last is still there, the first one is not.
        await client.fetch(server.url(host=names[-1]))
        self.assertEqual(len(server.conversations), 110)
        await client.fetch(server.url(host=names[0]))
        self.assertEqual(len(server.conversations), 111)
