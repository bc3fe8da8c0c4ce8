"""HTTPServer: its ports and sockets, its way to stop, proxies' headers, and the reactors it runs on."""

from __future__ import annotations

import os
import socket
import ssl
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import inlineCallbacks
from twisted.internet.error import CannotListenError
from twisted.internet.task import Clock, deferLater
from twisted.internet.threads import deferToThread
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import SynchronousTestCase, TestCase

from cycloneish.http.limits import Limits
from cycloneish.http.transport import Outbox, can_half_close, unsent, writer_for
from cycloneish.httpserver import HTTPRequest, HTTPServer
from cycloneish.httputil import HTTPHeaders, HTTPServerRequest, ResponseStartLine
from tests.http.certificates import Authority
from tests.http.support import GET, Peer, Recorder, body_of, later, make_server, status_of
from tests.http.test_http1 import get, post

LAST = get("/", "Connection: close")


def exchange(address: Any, data: bytes, family: int = socket.AF_INET) -> bytes:
    """Send *data* to *address* and read until the other side closes. In a thread."""
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(20)
        sock.connect(address)
        sock.sendall(data)
        received = b""
        while piece := sock.recv(65536):
            received += piece
        return received


class Functions(SynchronousTestCase):
    """A plain function as the application."""

    def test_gets_complete_requests(self) -> None:
        requests: list[HTTPServerRequest] = []

        def answer(request: HTTPServerRequest) -> None:
            requests.append(request)
            body = request.body
            connection: Any = request.connection
            headers = HTTPHeaders({"Content-Length": str(len(body))})
            connection.write_headers(ResponseStartLine("", 200, "Fine"), headers, body)
            connection.finish()

        peer = Peer(make_server(answer)[0])
        self.assertEqual(body_of(peer.send(post(b"hello"))), b"hello")
        self.assertIsInstance(requests[0], HTTPRequest)
        self.assertEqual((requests[0].method, requests[0].host), ("POST", "a"))
        peer.send(get("/path?x=1"))
        self.assertEqual((requests[1].path, requests[1].body), ("/path", b""))

    def test_raw_answer(self) -> None:
        def answer(request: HTTPServerRequest) -> None:
            connection: Any = request.connection
            connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
            connection.finish()

        peer = Peer(make_server(answer)[0])
        self.assertEqual(body_of(peer.send(GET)), b"hi")
        self.assertTrue(peer.transport.closed)

    def test_coroutine(self) -> None:
        waiting = later()

        async def answer(request: HTTPServerRequest) -> None:
            await waiting
            connection: Any = request.connection
            connection.write_headers(ResponseStartLine("", 200, "Fine"), HTTPHeaders(), b"hi")
            connection.finish()

        peer = Peer(make_server(answer)[0])
        self.assertEqual(peer.send(GET), b"")
        waiting.callback(None)
        self.assertEqual(body_of(peer.received()), b"2\r\nhi\r\n0\r\n\r\n")

    def test_coroutine_that_fails(self) -> None:
        waiting = later()

        async def answer(request: HTTPServerRequest) -> None:
            await waiting

        peer = Peer(make_server(answer)[0])
        peer.send(GET)
        with self.assertLogs("cycloneish.application", "ERROR"):
            waiting.errback(ZeroDivisionError())
        self.assertTrue(peer.transport.closed)

    def test_coroutine_whose_client_left(self) -> None:
        async def answer(request: HTTPServerRequest) -> None:
            connection: Any = request.connection
            peer.stall()
            await connection.write_headers(ResponseStartLine("", 200, "Fine"), HTTPHeaders())

        peer = Peer(make_server(answer)[0])
        peer.send(GET)
        with self.assertNoLogs("cycloneish.application"):
            peer.leave()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_client_that_leaves_early(self) -> None:
        peer = Peer(make_server(lambda request: None)[0])
        peer.send(post(b"hello")[:-1])
        peer.leave()


class Settings(SynchronousTestCase):
    def test_limits(self) -> None:
        server = HTTPServer(
            Recorder(),
            chunk_size=1,
            max_header_size=2,
            idle_connection_timeout=3,
            body_timeout=4,
            max_body_size=5,
            limits=Limits(drain_size=6, max_body_size=7),
        )
        limits = server.limits
        self.assertEqual((limits.chunk_size, limits.max_header_size, limits.body_timeout), (1, 2, 4))
        self.assertEqual((limits.idle_connection_timeout, limits.max_body_size, limits.drain_size), (3, 5, 6))

    def test_largest_body(self) -> None:
        self.assertEqual(HTTPServer(Recorder(), max_buffer_size=5).limits.max_body_size, 5)
        self.assertEqual(HTTPServer(Recorder(), max_buffer_size=5, max_body_size=0).limits.max_body_size, 0)

    def test_one_process(self) -> None:
        self.assertRaises(ValueError, HTTPServer(Recorder()).start, 2)

    def test_global_reactor(self) -> None:
        server = HTTPServer(Recorder())
        self.assertIs(server.reactor, reactor)
        self.assertEqual(server.deadlines._interval, 1.0)

    def test_transports(self) -> None:
        peer = Peer(make_server(Recorder())[0])
        writer = writer_for(peer.transport, Outbox(Clock()))
        writer.write(b"at once")
        writer.flush()
        self.assertEqual(peer.received(), b"at once")
        self.assertTrue(can_half_close(peer.transport))
        self.assertFalse(can_half_close(object()))
        self.assertEqual(unsent(object()), 0)


class Proxies(SynchronousTestCase):
    def facts(self, *lines: str, **options: Any) -> tuple[str, str]:
        recorder = Recorder()
        server, _ = make_server(recorder, **options)
        peer = Peer(server)
        peer.protocol.context.remote_ip = "10.0.0.1"
        peer.send(get("/", *lines))
        context = recorder.messages[0].connection.context
        self.assertEqual(str(context), context.remote_ip)
        return context.remote_ip, context.protocol

    def test_headers_are_believed_only_when_told_to(self) -> None:
        lines = ("X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https")
        self.assertEqual(self.facts(*lines), ("10.0.0.1", "http"))
        self.assertEqual(self.facts(*lines, xheaders=True), ("1.2.3.4", "https"))

    def test_which_address(self) -> None:
        for lines, ip in [
            (["X-Real-Ip: 4.4.4.4"], "4.4.4.4"),
            (["X-Real-Ip: 4.4.4.4<script>"], "10.0.0.1"),
            (["X-Forwarded-For: 127.0.0.1, 4.4.4.4"], "4.4.4.4"),
            (["X-Forwarded-For: 4.4.4.4, 5.5.5.5", "X-Real-Ip: 6.6.6.6"], "6.6.6.6"),
            (["X-Forwarded-For: 4.4.4.4, host.example.com"], "10.0.0.1"),
            (["X-Forwarded-For: 2620:0:1cfe:face:b00c::3"], "2620:0:1cfe:face:b00c::3"),
            (["X-Forwarded-For: fe80::1%eth0"], "fe80::1%eth0"),
            ([], "10.0.0.1"),
        ]:
            self.assertEqual(self.facts(*lines, xheaders=True)[0], ip, lines)

    def test_proxies_in_between(self) -> None:
        lines = ["X-Forwarded-For: 4.4.4.4, 5.5.5.5, 6.6.6.6"]
        options = {"xheaders": True, "trusted_downstream": ["5.5.5.5", "6.6.6.6"]}
        self.assertEqual(self.facts(*lines, **options)[0], "4.4.4.4")
        options["trusted_downstream"] = ["6.6.6.6"]
        self.assertEqual(self.facts(*lines, **options)[0], "5.5.5.5")

    def test_which_scheme(self) -> None:
        for lines, protocol in [
            (["X-Scheme: https"], "https"),
            (["X-Forwarded-Proto: https"], "https"),
            (["X-Forwarded-Proto: http, https"], "https"),
            (["X-Forwarded-Proto: unknown"], "http"),
        ]:
            self.assertEqual(self.facts(*lines, xheaders=True)[1], protocol)

    def test_scheme_that_is_told(self) -> None:
        self.assertEqual(self.facts(protocol="https")[1], "https")

    def test_bodies_and_leaving_reach_the_application(self) -> None:
        recorder = Recorder()
        peer = Peer(make_server(recorder, xheaders=True, decompress_request=True)[0])
        self.assertEqual(body_of(peer.send(post(b"hello"))), b"hello")
        peer.send(post(b"hello")[:-1])
        peer.leave()
        self.assertEqual(recorder.messages[1].events, ["close"])


class Ports(TestCase):
    def serve(self, answer: Any = None, **options: Any) -> HTTPServer:
        self.recorder = Recorder(answer)
        server = HTTPServer(self.recorder, **options)
        self.addCleanup(server.stop)
        self.addCleanup(server.close_all_connections)
        return server

    @inlineCallbacks
    def answers(self, address: Any, family: int = socket.AF_INET) -> Any:
        received = yield deferToThread(exchange, address, GET + LAST, family)
        self.assertEqual(received.count(b"HTTP/1.1 200 Fine"), 2)

    def address(self, port: Any) -> tuple[str, int]:
        return "127.0.0.1", port.getHost().port

    @inlineCallbacks
    def test_number(self) -> Any:
        server = self.serve()
        port: Any = server.listen(0, "127.0.0.1", backlog=5)
        self.assertEqual(server.ports, [port])
        yield self.answers(self.address(port))
        self.assertEqual(self.recorder.messages[0].connection.context.remote_ip, "127.0.0.1")
        self.assertEqual(self.recorder.messages[0].connection.context.address[0], "127.0.0.1")

    def test_port_in_use(self) -> None:
        server = self.serve()
        port: Any = server.listen(0, "127.0.0.1")
        self.assertRaises(CannotListenError, server.listen, port.getHost().port, "127.0.0.1")

    @inlineCallbacks
    def test_bind_and_start(self) -> Any:
        server = self.serve()
        server.bind(0, "127.0.0.1")
        self.assertEqual(server.ports, [])
        server.start()
        server.start()
        self.assertEqual(len(server.ports), 1)
        yield self.answers(self.address(server.ports[0]))

    @inlineCallbacks
    def test_endpoint_strings(self) -> Any:
        server = self.serve()
        path = os.path.join(self.mktemp() + ".sock")
        port = yield server.listen("tcp:0:interface=127.0.0.1")
        yield self.answers(self.address(port))
        yield server.listen(f"unix:{path}")
        yield self.answers(path, socket.AF_UNIX)
        self.assertEqual(self.recorder.messages[-1].connection.context.remote_ip, "0.0.0.0")
        self.assertEqual(len(server.ports), 2)

    @inlineCallbacks
    def test_endpoint_with_tls(self) -> Any:
        directory = Path(self.mktemp())
        directory.mkdir()
        authority = Authority(directory)
        certfile, keyfile = authority.issue()
        tls = {"certfile": str(certfile), "keyfile": str(keyfile)}
        described = f"ssl:0:interface=127.0.0.1:privateKey={keyfile}:certKey={certfile}"

        def ask(address: tuple[str, int]) -> bytes:
            context = ssl.create_default_context(cafile=str(authority.file))
            context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
            with (
                socket.create_connection(address, 20) as raw,
                context.wrap_socket(raw, server_hostname="localhost") as sock,
            ):
                sock.sendall(LAST)
                return sock.recv(65536)

        for options, description in [
            ({}, described),
            ({"ssl_options": tls}, "tcp:0:interface=127.0.0.1"),
        ]:
            port = yield self.serve(**options).listen(description)
            self.assertEqual(status_of((yield deferToThread(ask, self.address(port)))), 200)
            self.assertEqual(self.recorder.messages[0].connection.context.protocol, "https")

    @inlineCallbacks
    def test_sockets_of_the_caller(self) -> Any:
        server = self.serve()
        path = os.path.abspath(self.mktemp() + ".sock")
        for family, name in [(socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_UNIX, path)]:
            sock = socket.socket(family, socket.SOCK_STREAM)
            self.addCleanup(sock.close)
            sock.bind(name)
            sock.listen()
            server.add_socket(sock)
            yield self.answers(sock.getsockname(), family)

    @inlineCallbacks
    def test_sockets_without_a_file(self) -> Any:
        if not sys.platform.startswith("linux"):
            return
        server = self.serve()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        name = f"\0cycloneish-test-{os.getpid()}"
        sock.bind(name)
        sock.listen()
        server.add_sockets([sock])
        self.assertEqual(sock.fileno(), -1)
        yield self.answers(name, socket.AF_UNIX)

    @inlineCallbacks
    def test_port_shared_by_processes(self) -> Any:
        server = self.serve()
        port: Any = server.listen(0, "127.0.0.1", reuse_port=True)
        number = port.getHost().port
        other: Any = self.serve().listen(number, "127.0.0.1", reuse_port=True)
        self.assertEqual(other.getHost().port, number)
        yield self.answers(self.address(port))
        sixth: Any = server.listen(0, "::1", reuse_port=True)
        self.assertEqual(sixth.getHost().type, "TCP")

    @inlineCallbacks
    def test_as_a_twisted_factory(self) -> Any:
        server = self.serve()
        port = reactor.listenTCP(0, server, interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        yield self.answers(self.address(port))

    @inlineCallbacks
    def test_stop_and_listen_again(self) -> Any:
        server = self.serve()
        port: Any = server.listen(0, "127.0.0.1")
        address = self.address(port)
        yield self.answers(address)
        yield server.stop()
        yield self.assertFailure(deferToThread(exchange, address, LAST), ConnectionRefusedError)
        port = server.listen(0, "127.0.0.1")
        yield self.answers(self.address(port))

    @inlineCallbacks
    def test_stop_waits_for_requests_in_flight(self) -> Any:
        server = self.serve(lambda message: deferLater(reactor, 0.1, message.reply, b"last"))
        port: Any = server.listen(0, "127.0.0.1")
        asking = deferToThread(exchange, self.address(port), GET)
        while not self.recorder.messages:
            yield deferLater(reactor, 0.01)
        yield server.stop()
        self.assertEqual(self.recorder.closed, 1)
        self.assertEqual(body_of((yield asking)), b"last")

    @inlineCallbacks
    def test_large_answer_to_a_slow_peer(self) -> Any:
        """What the kernel does not take at once is sent later, in order."""
        data = bytes(range(256)) * 40_000
        server = self.serve(lambda message: message.reply(data))
        port: Any = server.listen(0, "127.0.0.1")
        received = yield deferToThread(exchange, self.address(port), GET + LAST)
        first, second = received.split(b"HTTP/1.1 200 Fine\r\n")[1:]
        self.assertTrue(body_of(first) == data and body_of(second) == data)

    @inlineCallbacks
    def test_refusal_reaches_a_peer_that_goes_on_sending(self) -> Any:
        server = self.serve()
        port: Any = server.listen(0, "127.0.0.1")
        received = yield deferToThread(exchange, self.address(port), b"nonsense\r\n\r\n" + bytes(200_000))
        self.assertEqual(received, b"HTTP/1.1 400 Bad Request\r\n\r\n")

    @inlineCallbacks
    def test_peer_that_resets(self) -> Any:
        """Its handler hears of it, and writes to it fail quietly."""
        left: list[bool] = []

        def answer(message: Any) -> None:
            message.connection.set_close_callback(lambda: left.append(True))

        server = self.serve(answer)
        port: Any = server.listen(0, "127.0.0.1")

        def reset(address: tuple[str, int]) -> None:
            sock = socket.create_connection(address, 20)
            sock.sendall(GET)
            sock.recv(5)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.close()

        def hint(message: Any) -> None:
            answer(message)
            message.connection.write(b"hello")

        self.recorder.answer = hint
        yield deferToThread(reset, self.address(port))
        while not left:
            yield deferLater(reactor, 0.01)
        for _ in range(3):
            self.recorder.messages[0].connection.write(b"x" * 100_000)
        self.assertEqual(left, [True])

    def test_address_of_a_peer(self) -> None:
        class Transport:
            def getPeer(self) -> Any:
                return IPv4Address("TCP", "1.2.3.4", 5)

        context = self.serve().make_context(Transport())
        self.assertEqual((context.address, context.remote_ip), (("1.2.3.4", 5), "1.2.3.4"))


class Reactors(TestCase):
    timeout = 60

    @inlineCallbacks
    def runs_on(self, name: str) -> Any:
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
        out, err, code = yield getProcessOutputAndValue(
            sys.executable, ["-m", "tests.reactor_smoke", name], env=env
        )
        self.assertEqual((out.strip(), code), (b"fine", 0), err.decode())

    def test_epoll(self) -> Any:
        return self.runs_on("epoll") if sys.platform.startswith("linux") else None

    def test_select(self) -> Any:
        return self.runs_on("select")

    def test_poll(self) -> Any:
        return self.runs_on("poll")

    def test_asyncio(self) -> Any:
        return self.runs_on("asyncio")
