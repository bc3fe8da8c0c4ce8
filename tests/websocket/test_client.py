"""`websocket_connect` against this package's server, and against servers that behave badly."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol

from cycloneish.http.transport import unsent
from cycloneish.httpserver import HTTPServer
from cycloneish.httputil import HTTPHeaders
from cycloneish.iostream import StreamClosedError
from cycloneish.testing.certificates import self_signed_certificate
from cycloneish.web import Application
from cycloneish.websocket import (
    HandshakeError,
    WebSocketClosedError,
    WebSocketError,
    websocket_connect,
)
from tests.http.certificates import Authority
from tests.security.support import LogCapture
from tests.web.live import sleep
from tests.websocket.support import TEXT, Echo, WebSocketTestCase, frame


class Request:
    """Like an HTTPRequest, as far as it matters."""

    def __init__(self, url: str, **fields: Any) -> None:
        self.url = url
        self.__dict__.update(fields)


class ClientCase(WebSocketTestCase):
    def setUp(self) -> None:
        self.made: list[Any] = []
        self.logs = LogCapture()
        self.addCleanup(self.logs.close)

    def start(self, handler: type[Echo] = Echo, options: Any = None, **settings: Any) -> None:
        self.serve(Application([("/", handler, {"made": self.made, "options": options})], **settings))

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/"

    async def open(self, url: Any = None, **options: Any) -> Any:
        connection = await websocket_connect(url or self.url, **options)

        async def end() -> None:
            connection.close()
            await connection.wait_closed()
            while not connection.stream.closed():
                await sleep(0.001)

        self.addCleanup(lambda: Deferred.fromCoroutine(end()))
        return connection


class ClientTests(ClientCase):
    async def test_messages(self) -> None:
        self.start()
        connection = await self.open()
        for message in ("", "hällo", b"\0\xff", b"x" * 200_000):
            await connection.write_message(message, binary=isinstance(message, bytes))
            self.assertEqual(await connection.read_message(), message)
        connection.write_message({"a": 1})
        self.assertEqual(await connection.read_message(), '{"a": 1}')

    async def test_all_messages_until_the_end(self) -> None:
        self.start()
        connection = await self.open()
        for number in range(50):
            connection.write_message(str(number))
        got = []
        async for message in connection:
            got.append(message)
            if len(got) == 50:
                self.made[0].close(4001, "enough")
        self.assertEqual(got, [str(number) for number in range(50)])
        self.assertEqual((connection.close_code, connection.close_reason), (4001, "enough"))
        self.assertIsNone(await connection.read_message())
        self.assertRaises(WebSocketClosedError, connection.write_message, "late")
        self.assertRaises(WebSocketClosedError, connection.ping)

    async def test_with_statement(self) -> None:
        self.start()
        async with await websocket_connect(self.url) as connection:
            connection.write_message("a")
            self.assertEqual(await connection.read_message(), "a")
        self.assertTrue(connection.protocol.is_closing())
        await self.until(lambda: self.made[0].closes)

    async def test_callbacks(self) -> None:
        self.start()
        seen: list[Any] = []
        connected: list[Any] = []
        websocket_connect(self.url, callback=connected.append, on_message_callback=seen.append).addErrback(
            lambda _: None
        )
        await self.until(lambda: connected)
        connection = connected[0].result()
        connection.write_message("a")
        await self.until(lambda: seen)
        connection.close(1000)
        await self.until(lambda: len(seen) == 2)
        self.assertEqual(seen, ["a", None])
        futures: list[Any] = []
        connection.read_message(futures.append)
        self.assertIsNone(futures[0].result())

    async def test_a_slow_callback_holds_back_the_rest(self) -> None:
        self.start()
        gates: list[Deferred[None]] = []

        def slow(message: Any) -> Any:
            gates.append(Deferred())
            return gates[-1]

        connection = await self.open(on_message_callback=slow)
        connection.write_message("a")
        connection.write_message("b")
        await self.until(lambda: gates)
        await sleep(0.02)
        self.assertEqual(len(gates), 1)
        gates[0].callback(None)
        await self.until(lambda: len(gates) == 2)
        gates[1].callback(None)

    async def test_unread_messages_hold_back_the_rest(self) -> None:
        self.start()
        connection = await self.open()
        for number in range(100):
            connection.write_message(str(number))
        await self.until(lambda: len(self.made[0].events) == 101)
        await sleep(0.02)
        self.assertEqual(len(connection._received), 16)
        got = [await connection.read_message() for _ in range(100)]
        self.assertEqual(got, [str(number) for number in range(100)])

    async def test_options_of_the_request(self) -> None:
        self.start()
        headers = HTTPHeaders({"X-Test": "1"})
        headers.add("X-Test", "2")
        connection = await self.open(
            Request(
                self.url + "?a=b c".replace(" ", "%20"), headers=headers, auth_username="ü", auth_password="p"
            )
        )
        request = self.made[0].request
        self.assertEqual(request.headers.get_list("X-Test"), ["1", "2"])
        self.assertEqual(request.headers["Authorization"], "Basic w7w6cA==")
        self.assertEqual(request.headers["Host"], f"127.0.0.1:{self.port}")
        self.assertEqual(request.uri, "/?a=b%20c")
        self.assertIn("Sec-Websocket-Accept", connection.headers)
        await self.open(f"ws://joe:pw@127.0.0.1:{self.port}/")
        self.assertEqual(self.made[1].request.headers["Authorization"], "Basic am9lOnB3")

    async def test_subprotocols(self) -> None:
        class Speaks(Echo):
            def select_subprotocol(self, subprotocols: list[str]) -> str | None:
                return subprotocols[-1] if subprotocols else None

        self.start(Speaks)
        connection = await self.open(subprotocols=["a", "b"])
        self.assertEqual(connection.selected_subprotocol, "b")
        self.assertIsNone((await self.open()).selected_subprotocol)

    async def test_compression(self) -> None:
        for options in ({}, {"server_no_context_takeover": True, "max_wbits": 10}):
            self.start(options={})
            connection = await self.open(compression_options=options)
            for _ in range(3):
                connection.write_message("hello " * 1000)
                self.assertEqual(await connection.read_message(), "hello " * 1000)
            self.assertLess(connection.protocol._wire_bytes_in, 1000)
            self.assertEqual(connection.protocol._message_bytes_in, 18_000)

    async def test_pings(self) -> None:
        self.start()
        connection = await self.open(ping_interval=0.01)
        await self.until(lambda: self.made[0].events.count(("ping", b"")) > 2)
        self.assertFalse(connection.protocol.is_closing())

    async def test_cancelled_reads_lose_nothing(self) -> None:
        self.start()
        connection = await self.open()
        given_up = connection.read_message()
        given_up.cancel()
        await self.assertFailure(given_up, CancelledError)
        connection.write_message("a")
        self.assertEqual(await connection.read_message(), "a")

    async def test_masks_differ(self) -> None:
        self.start()
        connection = await self.open()
        written: list[bytes] = []
        connection.protocol._write = written.append
        for _ in range(5):
            connection.protocol.write_message(b"same", True)
        self.assertEqual(len(set(written)), 5)
        for data in written:
            self.assertEqual(data, frame(2, b"same", mask=data[2:6]))


class RefusalTests(ClientCase):
    async def test_other_answers(self) -> None:
        self.start()
        with self.assertRaises(HandshakeError) as caught:
            await websocket_connect(self.url + "nowhere")
        self.assertEqual(caught.exception.code, 404)
        self.assertIn("Content-Length", caught.exception.headers)

    async def test_no_server(self) -> None:
        self.start()
        listening = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
        port = listening.getHost().port
        await listening.stopListening()
        with self.assertRaises(ConnectionRefusedError):
            await websocket_connect(f"ws://127.0.0.1:{port}/")

    def test_urls_that_are_none(self) -> None:
        for url in ("http://a/", "//a/", "a", "ws:///x", "ws://a b/", "ws://a/\r\nX: y", "ws://a:99999/"):
            self.assertRaises(ValueError, websocket_connect, url)
        for headers in ({"X": "a\r\nB: c"}, {"X": "a\nB"}, {"X": "a\0"}):
            self.assertRaises(ValueError, websocket_connect, Request("ws://127.0.0.1:1/", headers=headers))

    async def serve_bytes(self, answer: Any) -> str:
        """A server that answers with what *answer* makes of the request."""

        class Server(Protocol):
            def dataReceived(self, data: bytes) -> None:
                assert self.transport is not None
                reply = answer(data) if callable(answer) else answer
                if reply is None:
                    self.transport.loseConnection()
                else:
                    self.transport.write(reply)

        listening = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(
            Factory.forProtocol(Server)
        )
        self.addCleanup(listening.stopListening)
        return f"ws://127.0.0.1:{listening.getHost().port}/"

    async def test_servers_that_break_the_rules(self) -> None:
        good = (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Accept: {accept}\r\n"
        )
        wrong = [
            good.format(accept="AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
            good.replace("Upgrade: websocket\r\n", ""),
            good.replace("Connection: Upgrade", "Connection: close"),
            good + "Sec-WebSocket-Protocol: not-offered\r\n",
            good + "Sec-WebSocket-Extensions: permessage-deflate\r\n",
            good + "no colon\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n",
            "220 mail.example.com ESMTP\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n" * 20,
            "X" * 70_000,
        ]
        from cycloneish.websocket.handshake import accept_value

        def reply(text: str) -> Any:
            def answer(data: bytes) -> bytes:
                key = data.partition(b"Sec-Websocket-Key: ")[2].partition(b"\r\n")[0]
                return (text.replace("{accept}", accept_value(key)) + "\r\n").encode()

            return answer

        for text in wrong:
            url = await self.serve_bytes(reply(text))
            with self.assertRaises(WebSocketError, msg=text[:100]):
                await websocket_connect(url)
        url = await self.serve_bytes(lambda data: None)
        with self.assertRaises(OSError):
            await websocket_connect(url)

        early = await self.serve_bytes(
            lambda data: (
                reply("HTTP/1.1 103 Early Hints\r\n\r\n" + good)(data) + frame(TEXT, b"hi", mask=None)
            )
        )
        connection = await self.open(early)
        self.assertEqual(await connection.read_message(), "hi")
        connection.stream.close()

        for data in (frame(TEXT, b"masked"), frame(3, b"", mask=None), frame(TEXT, b"\xff", mask=None)):
            url = await self.serve_bytes(lambda request, data=data: reply(good)(request) + data)
            connection = await self.open(url)
            self.assertIsNone(await connection.read_message())
            self.assertIn(connection.close_code, (1002, 1007))

    async def test_time_outs_and_giving_up(self) -> None:
        url = await self.serve_bytes(b"")
        with self.assertRaises(TimeoutError):
            await websocket_connect(Request(url, request_timeout=0.05, connect_timeout=0.05))
        trying = websocket_connect(url)
        await sleep(0.02)
        trying.cancel()
        await self.assertFailure(trying, CancelledError)
        await sleep(0)

    async def test_a_server_that_dies(self) -> None:
        self.start()
        connection = await self.open()
        self.made[0].ws_connection.transport.abortConnection()
        self.assertIsNone(await connection.read_message())
        self.assertIsNone(connection.close_code)

    async def test_a_server_that_answers_no_pings(self) -> None:
        self.start()
        connection = await self.open(ping_interval=0.05, ping_timeout=0.02)
        self.made[0].ws_connection._send_pong = lambda data: None
        self.assertIsNone(await connection.read_message())
        self.assertEqual(connection.close_reason, "ping timed out")

    async def test_the_time_ends_while_connecting(self) -> None:
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            for _ in range(3):
                one = socket.socket()
                self.addCleanup(one.close)
                one.setblocking(False)
                one.connect_ex(full.getsockname())
            url = f"ws://127.0.0.1:{full.getsockname()[1]}/"
            with self.assertRaises(TimeoutError):
                await websocket_connect(Request(url, request_timeout=0.2))
            opening = websocket_connect(url)
            opening.cancel()
            with self.assertRaises(CancelledError):
                await opening


class TLSTests(ClientCase):
    def setUp(self) -> None:
        super().setUp()
        self.directory = Path(self.mktemp())
        self.directory.mkdir()

    async def serve_tls(self, **options: Any) -> str:
        certificate, key = self_signed_certificate()
        self.certificate = certificate
        application = Application([("/", Echo, {"made": self.made})])
        server = HTTPServer(application, ssl_options={"certfile": certificate, "keyfile": key, **options})
        listening = server.listen(0, "127.0.0.1")
        self.addCleanup(server.close_all_connections)
        self.addCleanup(server.stop)
        return f"wss://localhost:{listening.getHost().port}/"

    async def test_certificates_are_checked(self) -> None:
        url = await self.serve_tls()
        with self.assertRaises(ssl.SSLCertVerificationError):
            await websocket_connect(url)
        connection = await self.open(Request(url, ca_certs=self.certificate))
        connection.write_message("secret " * 50_000)
        self.assertEqual(await connection.read_message(), "secret " * 50_000)
        connection.close(1000)
        self.assertIsNone(await connection.read_message())
        await self.until(lambda: self.made[0].closes)
        self.assertEqual(self.made[0].closes, [("close", 1000, None)])
        trusting = await self.open(Request(url, validate_cert=False))
        trusting.write_message("a")
        self.assertEqual(await trusting.read_message(), "a")

    async def test_options_are_those_of_the_http_client(self) -> None:
        url = await self.serve_tls()
        context = ssl.create_default_context(cafile=self.certificate)
        for options in (context, {"ca_certs": self.certificate}, {"cert_reqs": ssl.CERT_NONE}):
            connection = await self.open(Request(url, ssl_options=options))
            connection.write_message("a")
            self.assertEqual(await connection.read_message(), "a")
        with self.assertRaises(ValueError):
            websocket_connect(Request(url, ssl_options={"unknown": 1}))

    async def test_a_server_that_wants_a_certificate(self) -> None:
        authority = Authority(self.directory)
        certificate, key = map(str, authority.issue())
        url = await self.serve_tls(cert_reqs=ssl.CERT_REQUIRED, ca_certs=str(authority.file))
        shown = {"client_cert": certificate, "client_key": key}
        connection = await self.open(Request(url, ca_certs=self.certificate, **shown))
        connection.write_message("a")
        self.assertEqual(await connection.read_message(), "a")
        with self.assertRaises((OSError, StreamClosedError)):
            await websocket_connect(Request(url, ca_certs=self.certificate))

    async def test_what_the_server_does_not_take_is_seen_through_tls(self) -> None:
        url = await self.serve_tls()
        connection = await self.open(Request(url, validate_cert=False))
        await self.until(lambda: self.made)
        server = self.made[0].ws_connection.transport
        server.pauseProducing()
        waiting = [connection.write_message("x" * 500_000) for _ in range(16)]
        self.assertGreater(unsent(connection.protocol.transport), 1_000_000)
        self.assertFalse(waiting[-1].called)
        server.resumeProducing()
        await waiting[-1]
        for _ in waiting:
            self.assertEqual(len(await connection.read_message()), 500_000)

    async def test_failures_close_over_tls_too(self) -> None:
        url = await self.serve_tls()
        connection = await self.open(Request(url, validate_cert=False))
        connection.protocol._write(frame(3, b""))
        self.assertIsNone(await connection.read_message())
        self.assertEqual(connection.close_code, 1002)
