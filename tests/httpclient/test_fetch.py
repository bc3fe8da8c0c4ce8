"""Fetches over real sockets: each option, what comes back, what happens when it does not."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import socket
from typing import Any
from unittest import mock

from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater

from cycloneish.httpclient import (
    AsyncHTTPClient,
    HTTPClientError,
    HTTPRequest,
    HTTPStreamClosedError,
    HTTPTimeoutError,
    Retry,
    SimpleAsyncHTTPClient,
    fetch,
)
from cycloneish.httpclient.digest import best_challenge, digest_credentials
from cycloneish.httpserver import HTTPServer
from cycloneish.web import Application
from cycloneish.websocket import WebSocketHandler, websocket_connect
from tests.httpclient.support import ClientTestCase, RawServer, response


class ResponseTest(ClientTestCase):
    async def test_what_a_response_has(self) -> None:
        server = self.serve(
            response(b'{"a": "\xc3\xa4"}', "Content-Type: application/json", "X-A: 1", "X-A: 2")
        )
        answer = await self.client.fetch(server.url("/x?y=z"))
        self.assertEqual((answer.code, answer.reason), (200, "OK"))
        self.assertEqual(answer.headers.get_list("x-a"), ["1", "2"])
        self.assertEqual(answer.json(), {"a": "ä"})
        self.assertEqual(answer.text, '{"a": "ä"}')
        self.assertEqual(answer.buffer.read(), answer.body)
        self.assertEqual(answer.effective_url, server.url("/x?y=z"))
        self.assertEqual(answer.request.url, server.url("/x?y=z"))
        for stage in ("queue", "namelookup", "connect", "pretransfer", "starttransfer", "total"):
            self.assertTrue(0 <= answer.time_info[stage] <= answer.request_time, stage)
        answer.rethrow()

    async def test_a_status_of_failure_is_raised_or_returned(self) -> None:
        server = self.serve(response(b"why", status="404 Nowhere"))
        error = await self.error_of(self.client.fetch(server.url()), HTTPClientError)
        self.assertEqual((error.code, str(error)), (404, "HTTP 404: Nowhere"))
        assert error.response is not None
        self.assertEqual(error.response.body, b"why")
        answer = await self.client.fetch(server.url(), raise_error=False)
        self.assertRaises(HTTPClientError, answer.rethrow)

    async def test_bodies_in_pieces(self) -> None:
        whole = response(b"0123456789" * 10, "X: y")
        chunked = (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nT: x\r\n\r\n"
        )
        for message, body in ((whole, b"0123456789" * 10), (chunked, b"abcde")):
            for size in (1, 7, 50):

                def answer(request: bytes, one: Any, message: bytes = message, size: int = size) -> None:
                    for start in range(0, len(message), size):
                        at = 0.0005 * start / size
                        reactor.callLater(at, one.transport.write, message[start : start + size])

                server = self.serve(answer)
                self.assertEqual((await self.client.fetch(server.url())).body, body)

    async def test_no_body(self) -> None:
        for head, method in (("204 No Content", "GET"), ("304 Not Modified", "GET"), ("200 OK", "HEAD")):
            server = self.serve(f"HTTP/1.1 {head}\r\nX: y\r\n\r\n".encode())
            answer = await self.client.fetch(server.url(), method=method, raise_error=False)
            self.assertEqual(answer.body, b"")
            await self.client.fetch(server.url(), method=method, raise_error=False)
            self.assertEqual(len(server.conversations), 1)

    async def test_connections_are_kept(self) -> None:
        server = self.serve(response(b"ok"))
        for _ in range(5):
            await self.client.fetch(server.url())
        self.assertEqual(len(server.conversations), 1)
        await self.client.fetch(server.url(), headers={"Connection": "close"})
        await self.until(lambda: self.client.pool.idle == 0)

    async def test_connections_that_are_not_kept(self) -> None:
        for message in (
            response(b"ok", "Connection: close"),
            response(b"ok").replace(b"1.1", b"1.0"),
        ):
            server = self.serve(message)
            await self.client.fetch(server.url())
            await server.conversations[0].closed
        server = self.serve(response(b"ok", "Connection: keep-alive").replace(b"1.1", b"1.0"))
        for _ in range(2):
            await self.client.fetch(server.url())
        self.assertEqual(len(server.conversations), 1)

    async def test_idle_connections_are_closed_in_time(self) -> None:
        client = self.make_client(idle_timeout=0.05)
        server = self.serve(response(b"ok"))
        await client.fetch(server.url())
        await server.conversations[0].closed
        client = self.make_client(idle_timeout=0)
        await client.fetch(server.url())
        await server.conversations[1].closed

    async def test_a_stale_connection_is_replaced(self) -> None:
        def answer(request: bytes, conversation: Any) -> bytes | None:
            if len(conversation.requests) == 2:
                conversation.transport.loseConnection()
                return None
            return response(b"ok")

        server = self.serve(answer)
        for _ in range(3):
            self.assertEqual((await self.client.fetch(server.url())).body, b"ok")
        # What may not be repeated is not.
        server = self.serve(answer)
        await self.client.fetch(server.url(), method="POST", body=b"1")
        await self.error_of(self.client.fetch(server.url(), method="POST", body=b"2"), HTTPStreamClosedError)
        self.assertEqual(len(server.requests), 2)


class RequestTest(ClientTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.server = self.serve(response(b"ok"))

    async def sent(self, path: str = "/", **options: Any) -> bytes:
        await self.client.fetch(self.server.url(path), **options)
        return self.server.requests[-1]

    async def test_the_request_line_and_the_usual_fields(self) -> None:
        seen = await self.sent("/ä b?q=ü&r=%20#fragment")
        self.assertTrue(seen.startswith(b"GET /%C3%A4%20b?q=%C3%BC&r=%20 HTTP/1.1\r\n"))
        self.assertIn(f"\r\nHost: 127.0.0.1:{self.server.port}\r\n".encode(), seen)
        self.assertIn(b"\r\nAccept-Encoding: gzip\r\n", seen)
        self.assertIn(b"\r\nUser-Agent: cycloneish/", seen)
        seen = await self.sent(user_agent="mine", decompress_response=False, headers={"Host": "other"})
        self.assertIn(b"User-Agent: mine", seen)
        self.assertIn(b"Host: other", seen)
        self.assertNotIn(b"Accept-Encoding", seen)

    async def test_bodies(self) -> None:
        self.assertTrue((await self.sent(method="POST", body="ä")).endswith(b"Length: 2\r\n", 0) is False)
        self.assertTrue(self.server.requests[-1].endswith("\r\n\r\nä".encode()))
        self.assertIn(b"x-www-form-urlencoded", self.server.requests[-1])
        seen = await self.sent(method="PUT", json={"a": [1]})
        self.assertIn(b"Content-Type: application/json", seen)
        self.assertEqual(json.loads(seen.partition(b"\r\n\r\n")[2]), {"a": [1]})
        seen = await self.sent(method="POST", form={"a": "1 2", "b": ["x", "y"]})
        self.assertTrue(seen.endswith(b"\r\n\r\na=1+2&b=x&b=y"))
        seen = await self.sent(method="POST", form={"a": "1"}, files={"f": ("p.png", b"\0\1", "image/png")})
        self.assertIn(b'name="f"; filename="p.png"\r\nContent-Type: image/png\r\n\r\n\0\1\r\n', seen)

    async def test_bodies_that_are_missing_or_too_many(self) -> None:
        for options in (
            {"method": "POST"},
            {"body": b"x"},
            {"method": "OTHER"},
            {"method": "DELETE", "body": b"x"},
        ):
            await self.error_of(self.client.fetch(self.server.url(), **options), (ValueError, KeyError))  # type: ignore[arg-type]
        for both in ({"body": b"", "json": 1}, {"json": 1, "form": {"a": 1}}):
            self.assertRaises(ValueError, HTTPRequest, "http://a/", method="POST", **both)
        seen = await self.sent(method="DELETE", body=b"x", allow_nonstandard_methods=True)
        self.assertTrue(seen.endswith(b"\r\n\r\nx"))
        self.assertIn(b"Content-Length: 0", await self.sent(method="POST", allow_nonstandard_methods=True))

    async def test_a_producer_in_chunks_and_with_a_length(self) -> None:
        async def produce(write: Any) -> None:
            await write(b"abc")
            await deferLater(reactor, 0)
            await write("dé")

        seen = await self.sent(method="POST", body_producer=produce)
        self.assertTrue(seen.endswith(b"3\r\nabc\r\n3\r\nd\xc3\xa9\r\n0\r\n\r\n"))
        seen = await self.sent(method="POST", body_producer=produce, headers={"Content-Length": "6"})
        self.assertTrue(seen.endswith(b"\r\n\r\nabcd\xc3\xa9"))

    async def test_a_producer_that_does_not_keep_its_word(self) -> None:
        for length in ("2", "9"):
            fetching = self.client.fetch(
                self.server.url(),
                method="POST",
                headers={"Content-Length": length},
                body_producer=lambda write: write(b"abc") and None,
            )
            await self.error_of(fetching, ValueError)

        def fails(write: Any) -> None:
            raise ZeroDivisionError

        fetching = self.client.fetch(self.server.url(), method="POST", body_producer=fails)
        await self.error_of(fetching, ZeroDivisionError)

    async def test_a_large_producer_waits_for_the_server(self) -> None:
        waits = []

        async def produce(write: Any) -> None:
            for _ in range(100):
                written = write(b"x" * 100_000)
                waits.append(written.called)
                await written

        seen = await self.sent(method="POST", body_producer=produce, headers={"Content-Length": "10000000"})
        self.assertEqual(len(seen.partition(b"\r\n\r\n")[2]), 10_000_000)
        self.assertIn(False, waits)

    async def test_expect_100_continue(self) -> None:
        def answer(request: bytes, conversation: Any) -> bytes | None:
            if request.startswith(b"POST /refuse"):
                return response(b"no", status="417 No")
            conversation.dataReceived = lambda data: (  # what follows is the body
                conversation.factory.requests.append(data),
                conversation.transport.write(response(b"got " + data, "Connection: close")),
            )
            return b"HTTP/1.1 100 Continue\r\n\r\n"

        server = self.serve(answer)
        options: dict[str, Any] = {"method": "POST", "body": b"body", "expect_100_continue": True}
        answered = await self.client.fetch(server.url(), **options)
        self.assertEqual(answered.body, b"got body")
        answered = await self.client.fetch(server.url("/refuse"), raise_error=False, **options)
        self.assertEqual(answered.code, 417)
        self.assertEqual(len(server.requests), 3)

    async def test_a_server_that_ignores_expect_gets_the_body_after_a_while(self) -> None:
        server = self.serve(lambda request, one: response(b"ok") if request == b"body\r\n\r\n" else None)
        with mock.patch("cycloneish.httpclient.connection.CONTINUE_TIMEOUT", 0.01):
            answer = await self.client.fetch(
                server.url(), method="POST", body=b"body\r\n\r\n", expect_100_continue=True
            )
        self.assertEqual(answer.body, b"ok")

    async def test_if_modified_since_and_a_source_address(self) -> None:
        seen = await self.sent(if_modified_since=0.5, network_interface="127.0.0.1")
        self.assertIn(b"If-Modified-Since: Thu, 01 Jan 1970", seen)
        await self.error_of(self.client.fetch(self.server.url(), network_interface="eth0"), ValueError)

    async def test_what_is_curl_s_is_refused(self) -> None:
        fetching = self.client.fetch(self.server.url(), prepare_curl_callback=lambda curl: None)
        await self.error_of(fetching, NotImplementedError)


class StreamingTest(ClientTestCase):
    async def test_header_lines_come_first_and_in_order(self) -> None:
        server = self.serve(response(b"body", "A: 1", "A: 2", "B: 3"))
        seen: list[Any] = []
        answer = await self.client.fetch(
            server.url(), header_callback=seen.append, streaming_callback=seen.append
        )
        self.assertEqual(answer.body, b"")
        lines = [
            "HTTP/1.1 200 OK\r\n",
            "A: 1\r\n",
            "A: 2\r\n",
            "B: 3\r\n",
            "Content-Length: 4\r\n",
            "\r\n",
            b"body",
        ]
        self.assertEqual(seen, lines)

    async def test_a_slow_callback_holds_back_the_server(self) -> None:
        sent = []

        def answer(request: bytes, conversation: Any) -> None:
            conversation.transport.write(b"HTTP/1.1 200 OK\r\n\r\n")

            class Producer:
                def resumeProducing(self) -> None:
                    sent.append(100_000)
                    conversation.transport.write(b"x" * 100_000)
                    if len(sent) == 1000:
                        conversation.transport.unregisterProducer()
                        conversation.transport.loseConnection()

                def stopProducing(self) -> None:
                    pass

            conversation.transport.registerProducer(Producer(), False)

        gate: Deferred[None] = Deferred()
        got = [0]

        def take(data: bytes) -> Deferred[None]:
            got[0] += len(data)
            if gate.called:
                return succeed(None)
            waits: Deferred[None] = Deferred()
            gate.addCallback(lambda _: waits.callback(None))
            return waits

        server = self.serve(answer)
        fetching = self.client.fetch(server.url(), streaming_callback=take)
        await self.until(lambda: got[0])
        before = -1
        while before != len(sent):
            before = len(sent)
            await deferLater(reactor, 0.1)
        self.assertLess(len(sent), 500)
        gate.callback(None)
        await fetching
        self.assertEqual(got[0], 100_000_000)

    async def test_gzip_reaches_the_callback_inflated(self) -> None:
        server = self.serve(response(gzip.compress(b"ab" * 100_000), "Content-Encoding: gzip"))
        got: list[bytes] = []

        async def take(data: bytes) -> None:
            await deferLater(reactor, 0)
            got.append(data)

        answer = await self.client.fetch(server.url(), streaming_callback=take)
        self.assertEqual(b"".join(got), b"ab" * 100_000)
        self.assertEqual(answer.headers["X-Consumed-Content-Encoding"], "gzip")
        self.assertNotIn("Content-Encoding", answer.headers)

    async def test_a_callback_that_raises_is_logged_and_ends_the_fetch(self) -> None:
        def fails(data: Any) -> None:
            raise ZeroDivisionError

        async def fails_later(data: Any) -> None:
            await deferLater(reactor, 0)
            raise ZeroDivisionError

        for callback in (
            {"streaming_callback": fails},
            {"header_callback": fails},
            {"streaming_callback": fails_later},
        ):
            server = self.serve(response(b"body"))
            self.records.messages.clear()
            await self.error_of(self.client.fetch(server.url(), **callback), HTTPStreamClosedError)
            self.assertEqual(self.logged.count("Uncaught exception"), 1)


class TimeoutTest(ClientTestCase):
    def timeout_of(self, fetching: Any) -> Any:
        return self.error_of(fetching, HTTPTimeoutError)

    async def test_a_silent_server(self) -> None:
        server = self.serve(lambda request, _: None)
        error = await self.timeout_of(self.client.fetch(server.url(), request_timeout=0.05))
        self.assertEqual((str(error), error.code), ("Timeout during request", 599))
        await self.until(lambda: server.conversations[0].is_closed)

    async def test_a_name_that_is_not_resolved(self) -> None:
        class Never:
            def resolve(self, host: str, port: int, family: int) -> Deferred[Any]:
                return Deferred()

        client = self.make_client(resolver=Never())
        error = await self.timeout_of(client.fetch("http://name/", connect_timeout=0.05))
        self.assertEqual(str(error), "Timeout while resolving name")

    async def test_tls_that_does_not_begin(self) -> None:
        server = self.serve(lambda request, _: None)
        url = server.url().replace("http:", "https:")
        error = await self.timeout_of(self.client.fetch(url, connect_timeout=0.1))
        self.assertEqual(str(error), f"Timeout during TLS handshake with 127.0.0.1:{server.port}")
        await self.until(lambda: server.conversations[0].is_closed)

    async def test_the_queue(self) -> None:
        server = self.serve(lambda request, _: None)
        client = self.make_client(max_clients=1)
        first = client.fetch(server.url())
        error = await self.timeout_of(client.fetch(server.url(), connect_timeout=0.05))
        self.assertEqual(str(error), "Timeout in request queue")
        self.assertEqual(len(client.queue), 0)
        first.cancel()
        first.addErrback(lambda _: None)

    async def test_redirects_have_no_time_of_their_own(self) -> None:
        calls: list[Any] = []

        def answer(request: bytes, conversation: Any) -> None:
            again = response(b"", "Location: /again", status="302 F")
            calls.append(reactor.callLater(0.05, conversation.transport.write, again))

        server = self.serve(answer)
        fetching = self.client.fetch(server.url(), request_timeout=0.2, max_redirects=1000)
        await self.timeout_of(fetching)
        self.assertLess(len(server.requests), 10)
        if calls[-1].active():
            calls[-1].cancel()


class LimitsTest(ClientTestCase):
    async def test_so_many_at_a_time_and_per_host(self) -> None:
        waiting: list[Any] = []
        one = self.serve(lambda request, conversation: waiting.append(conversation))
        two = self.serve(lambda request, conversation: waiting.append(conversation))
        client = self.make_client(max_clients=5, max_per_host=2)
        fetching = [client.fetch(server.url()) for server in (one, one, one, one, two, two, two)]
        await self.until(lambda: len(waiting) == 4)
        self.assertEqual((len(one.requests), len(two.requests)), (2, 2))
        self.assertEqual(len(client.queue), 3)
        while waiting or client.active:
            if waiting:
                self.assertLessEqual(len(client.active), 4)
                waiting.pop().transport.write(response(b"ok"))
            await deferLater(reactor, 0)
        for one_fetch in fetching:
            self.assertEqual((await one_fetch).body, b"ok")

    async def test_cancelling_what_waits(self) -> None:
        server = self.serve(lambda request, _: None)
        client = self.make_client(max_clients=1)
        fetching = [client.fetch(server.url()) for _ in range(3)]
        for one in reversed(fetching):
            one.cancel()
            one.addErrback(lambda _: None)
        self.assertEqual((len(client.queue), len(client.active)), (0, 0))


class NetworkTest(ClientTestCase):
    async def test_nobody_listens(self) -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            error = await self.error_of(
                self.client.fetch(f"http://127.0.0.1:{sock.getsockname()[1]}/"), ConnectionRefusedError
            )
        self.assertIn("Connection refused", str(error))

    async def test_no_such_name(self) -> None:
        await self.error_of(self.client.fetch("http://no-such-name.invalid/"), socket.gaierror)

    async def test_addresses_are_tried_one_after_the_other(self) -> None:
        server = self.serve(response(b"ok"))

        class Two:
            async def resolve(self, host: str, port: int, family: int) -> Any:
                with socket.socket() as sock:
                    sock.bind(("127.0.0.1", 0))
                    closed = sock.getsockname()
                return [(socket.AF_INET, closed), (socket.AF_INET, ("127.0.0.1", server.port))]

        client = self.make_client(resolver=Two())
        self.assertEqual((await client.fetch("http://name:1/")).body, b"ok")


class DigestTest(ClientTestCase):
    def test_the_examples_of_the_rfc(self) -> None:
        values = [
            'Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm=SHA-256, '
            'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", '
            'opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"',
            'Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm=MD5, '
            'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", '
            'opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"',
        ]
        cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
        expected = (
            "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
            "8ca523f5e9506fed4657c9700eebdbec",
        )
        for value, answer in zip(values, expected, strict=True):
            challenge = best_challenge([value])
            assert challenge is not None
            made = digest_credentials(challenge, "Mufasa", "Circle of Life", "GET", "/dir/index.html", cnonce)
            self.assertIn(f'response="{answer}"', made)
        best = best_challenge([", ".join(["Basic realm=x", *reversed(values)])])
        assert best is not None
        self.assertEqual(best.algorithm, "SHA-256")
        self.assertIsNone(best_challenge(["Basic realm=x", 'Digest nonce="a", algorithm=WHAT', "Digest"]))

    async def test_the_challenge_is_answered_once(self) -> None:
        def answer(request: bytes, _: Any) -> bytes:
            challenge = 'WWW-Authenticate: Digest realm="r", nonce="abc", qop="auth"'
            if b'Authorization: Digest username="me"' in request and b"/good" in request:
                return response(b"in")
            return response(b"", challenge, status="401 Who")

        server = self.serve(answer)
        options = {"auth_username": "me", "auth_password": "pw", "auth_mode": "digest"}
        self.assertEqual((await self.client.fetch(server.url("/good"), **options)).body, b"in")
        self.assertNotIn(b"Authorization", server.requests[0])
        answered = await self.client.fetch(server.url("/bad"), raise_error=False, **options)
        self.assertEqual(answered.code, 401)
        self.assertEqual(len(server.requests), 4)


class ProxyTest(ClientTestCase):
    def proxy(self) -> RawServer:
        """Passes requests with CONNECT through, others it answers itself."""

        def answer(request: bytes, conversation: Any) -> bytes | None:
            if not request.startswith(b"CONNECT"):
                return response(b"by proxy")
            if b"/refuse" in request or b"refused.example" in request:
                return response(b"", status="403 No")
            port = int(request.split()[1].rpartition(b":")[2])
            from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
            from twisted.internet.protocol import Protocol

            other = Protocol()
            other.dataReceived = conversation.transport.write  # type: ignore[method-assign]
            opened = connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), other)

            def through(_: Any) -> None:
                conversation.dataReceived = other.transport.write  # type: ignore[union-attr]
                conversation.closed.addCallback(lambda _: other.transport.abortConnection())  # type: ignore[union-attr]
                conversation.transport.write(b"HTTP/1.1 200 Go\r\n\r\n")

            opened.addCallback(through)
            return None

        return self.serve(answer)

    async def test_http_goes_to_the_proxy(self) -> None:
        proxy = self.proxy()
        answer = await self.client.fetch(
            "http://example.com/x?y",
            proxy_host="127.0.0.1",
            proxy_port=proxy.port,
            proxy_username="me",
            proxy_password="pw",
        )
        self.assertEqual(answer.body, b"by proxy")
        self.assertTrue(
            proxy.requests[0].startswith(b"GET http://example.com/x?y HTTP/1.1\r\nHost: example.com\r\n")
        )
        self.assertIn(b"Proxy-Authorization: Basic " + base64.b64encode(b"me:pw"), proxy.requests[0])

    async def test_https_goes_through_it(self) -> None:
        from cycloneish.http.tls import server_options

        authority = self.authority()
        certfile, keyfile = authority.issue()
        server = self.serve(
            response(b"secret"), server_options({"certfile": str(certfile), "keyfile": str(keyfile)})
        )
        proxy = self.proxy()
        through: dict[str, Any] = {
            "proxy_host": "127.0.0.1",
            "proxy_port": proxy.port,
            "proxy_username": "me",
            "ca_certs": str(authority.file),
        }
        for _ in range(2):
            answer = await self.client.fetch(server.url(), **through)
            self.assertEqual(answer.body, b"secret")
        self.assertEqual(len(proxy.requests), 1)
        self.assertNotIn(b"Proxy-Authorization", server.requests[0])
        error = await self.error_of(self.client.fetch("https://refused.example/", **through), HTTPClientError)
        self.assertIn("403", str(error))

    async def test_websockets_go_through_it(self) -> None:
        class Echo(WebSocketHandler):
            def on_message(self, message: str | bytes) -> None:
                self.write_message(message)

        authority = self.authority()
        certfile, keyfile = authority.issue()
        application = Application([("/", Echo)])
        proxy = self.proxy()
        through = {"proxy_host": "127.0.0.1", "proxy_port": proxy.port, "ca_certs": str(authority.file)}
        for scheme, options in (
            ("ws", None),
            ("wss", {"certfile": str(certfile), "keyfile": str(keyfile)}),
        ):
            server = HTTPServer(application, ssl_options=options)
            port = server.listen(0, "127.0.0.1").getHost().port
            self.addCleanup(server.close_all_connections)
            self.addCleanup(server.stop)
            connection = await websocket_connect(HTTPRequest(f"{scheme}://localhost:{port}/", **through))
            await connection.write_message(scheme)
            self.assertEqual(await connection.read_message(), scheme)
            connection.close()
            await connection.wait_closed()
            self.assertIn(f"CONNECT localhost:{port} HTTP/1.1".encode(), proxy.requests[-1])
        request = HTTPRequest("ws://refused.example/", **through)
        error = await self.error_of(websocket_connect(request), HTTPClientError)
        self.assertIn("403", str(error))

    async def test_half_a_proxy_is_refused(self) -> None:
        for options in (
            {"proxy_host": "a"},
            {"proxy_port": 1},
            {"proxy_host": "a", "proxy_port": 1, "proxy_auth_mode": "digest"},
        ):
            await self.error_of(self.client.fetch("http://example.com/", **options), ValueError)


class RetryTest(ClientTestCase):
    RETRY = Retry(attempts=3, backoff=0.001)

    async def test_until_it_works(self) -> None:
        answers = [response(b"", status="503 Busy"), None, response(b"ok")]

        def answer(request: bytes, conversation: Any) -> bytes | None:
            message = answers.pop(0)
            if message is None:
                conversation.transport.abortConnection()
            return message

        server = self.serve(answer)
        answered = await self.client.fetch(server.url(), retry=self.RETRY)
        self.assertEqual(answered.body, b"ok")

    async def test_it_gives_up_and_says_what_came_last(self) -> None:
        server = self.serve(response(b"", "Retry-After: 0", status="503 Busy"))
        error = await self.error_of(self.client.fetch(server.url(), retry=self.RETRY), HTTPClientError)
        self.assertEqual(error.code, 503)
        self.assertEqual(len(server.requests), 3)

    async def test_never_what_may_not_be_repeated_and_only_when_asked(self) -> None:
        server = self.serve(response(b"", status="503 Busy"))
        await self.client.fetch(server.url(), raise_error=False)
        await self.client.fetch(server.url(), raise_error=False, method="POST", body=b"", retry=self.RETRY)
        self.assertEqual(len(server.requests), 2)

    def test_pauses(self) -> None:
        from cycloneish.httputil import HTTPHeaders

        retry = Retry(backoff=1, max_backoff=5)
        for attempt, longest in ((1, 1), (2, 2), (3, 4), (4, 5), (9, 5)):
            self.assertTrue(longest / 2 <= retry.pause(attempt) <= longest)
        self.assertEqual(retry.pause(1, HTTPHeaders({"Retry-After": "3"})), 3)
        self.assertEqual(retry.pause(1, HTTPHeaders({"Retry-After": "3000"})), 5)
        self.assertLessEqual(retry.pause(1, HTTPHeaders({"Retry-After": "soon"})), 1)

    async def test_cancelled_in_a_pause(self) -> None:
        server = self.serve(response(b"", status="503 Busy"))
        fetching = self.client.fetch(server.url(), retry=Retry(backoff=60, max_backoff=60))
        await self.until(lambda: server.requests)
        await self.until(lambda: self.client.pool.idle)
        fetching.cancel()
        fetching.addErrback(lambda _: None)


class ClassTest(ClientTestCase):
    def test_one_client_for_all(self) -> None:
        one = AsyncHTTPClient()
        self.addCleanup(one.close)
        self.assertIs(one, AsyncHTTPClient())
        self.assertIsInstance(one, SimpleAsyncHTTPClient)
        self.assertIsNot(one, AsyncHTTPClient(force_instance=True))
        one.close()
        self.assertIsNot(one, AsyncHTTPClient())
        self.assertRaises(RuntimeError, one.fetch, "http://a/")
        AsyncHTTPClient().close()

    def test_configure(self) -> None:
        saved = AsyncHTTPClient._save_configuration()
        self.addCleanup(AsyncHTTPClient._restore_configuration, saved)

        class Mine(SimpleAsyncHTTPClient):
            def fetch_impl(self, request: Any, callback: Any) -> None:
                from cycloneish.httpclient import HTTPResponse

                callback(HTTPResponse(request, 200, reason=str(request.connect_timeout)))

        AsyncHTTPClient.configure(Mine, max_clients=3, defaults={"connect_timeout": 7})
        client = self.make_client()
        self.assertEqual(client.max_clients, 3)
        self.assertEqual(self.successResultOf(client.fetch("http://a/")).reason, "7")

    async def test_fetch_json_and_a_default(self) -> None:
        server = self.serve(response(b"[1]"))
        client = self.make_client(defaults={"user_agent": "by default"})
        self.assertEqual(await client.fetch_json(server.url()), [1])
        self.assertIn(b"Accept: application/json", server.requests[0])
        self.assertIn(b"User-Agent: by default", server.requests[0])

    async def test_cyclone_s_fetch(self) -> None:
        self.addCleanup(lambda: AsyncHTTPClient().close())
        server = self.serve(
            lambda request, _: (
                response(b"page", status="404 No")
                if b"/2" in request
                else response(b"", "Location: /2", status="302 F")
            )
        )
        answer = await fetch(server.url(), headers={"X-A": ["1", b"2"]}, postdata="body")
        self.assertEqual((answer.code, answer.phrase, answer.length), (302, "F", 0))
        self.assertIn(b"X-A: 1\r\nX-A: 2\r\n", server.requests[0])
        self.assertTrue(server.requests[0].startswith(b"POST"))
        answer = await fetch(server.url().encode(), followRedirect=True)
        self.assertEqual((answer.code, answer.body), (404, b"page"))

    def test_an_asyncio_task_may_await_it(self) -> None:
        from cycloneish.awaiting import AwaitableDeferred

        async def wait(deferred: Any) -> Any:
            return await deferred

        async def main() -> list[Any]:
            results: list[Any] = []
            good: AwaitableDeferred[str] = AwaitableDeferred()
            bad: AwaitableDeferred[str] = AwaitableDeferred()
            asyncio.get_running_loop().call_later(0.001, good.callback, "good")
            asyncio.get_running_loop().call_later(0.001, bad.errback, ZeroDivisionError())
            results += await asyncio.gather(good, bad, return_exceptions=True)
            closed: list[Any] = []
            never: AwaitableDeferred[str] = AwaitableDeferred(closed.append)
            try:
                await asyncio.wait_for(wait(never), 0.01)
            except TimeoutError:
                results.append(len(closed))
            return results

        good, bad, closed = asyncio.run(main())
        self.assertEqual((good, type(bad), closed), ("good", ZeroDivisionError, 1))
