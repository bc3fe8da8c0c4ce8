"""TLS over real sockets: Tornado's ssl_options, closing without a half-close, and peers that break off."""

from __future__ import annotations

import contextlib
import socket
import ssl
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from cycloneish.http.limits import Limits
from cycloneish.http.tls import server_options
from cycloneish.httpserver import HTTPServer
from tests.http.certificates import Authority
from tests.http.support import GET, Recorder, body_of, status_of


def certificates_shown(tls: Any) -> int:
    """How many certificates a client is sent."""
    server, client = tls.serverConnectionForTLS(None), SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)
    server.set_accept_state()
    client.set_connect_state()
    for _ in range(4):
        for one, other in ((client, server), (server, client)):
            with contextlib.suppress(SSL.WantReadError):
                one.do_handshake()
            with contextlib.suppress(SSL.WantReadError):
                other.bio_write(one.bio_read(65536))
    return len(client.get_peer_cert_chain())


class Options(SynchronousTestCase):
    def setUp(self) -> None:
        directory = Path(self.mktemp())
        directory.mkdir()
        self.authority = Authority(directory)
        self.certfile, self.keyfile = self.authority.issue()

    def test_two_files_or_one(self) -> None:
        options = server_options({"certfile": str(self.certfile), "keyfile": str(self.keyfile)})
        self.assertEqual(certificates_shown(options), 2)
        both = self.authority.directory / "both.pem"
        both.write_bytes(self.keyfile.read_bytes() + self.certfile.read_bytes())
        self.assertEqual(certificates_shown(server_options({"certfile": both})), 2)

    def test_what_is_wrong(self) -> None:
        _, other_key = self.authority.issue("other")
        _, secret_key = self.authority.issue("secret", b"password")
        text = self.authority.directory / "text"
        text.write_text("no certificate")
        for options, error in [
            ({}, KeyError),
            ({"certfile": "/does/not/exist"}, OSError),
            ({"certfile": self.certfile}, ValueError),
            ({"certfile": text, "keyfile": self.keyfile}, ValueError),
            ({"certfile": self.certfile, "keyfile": other_key}, ValueError),
            ({"certfile": self.certfile, "keyfile": secret_key}, ValueError),
            (
                {"certfile": self.certfile, "keyfile": self.keyfile, "cert_reqs": ssl.CERT_REQUIRED},
                KeyError,
            ),
            (ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), TypeError),
        ]:
            self.assertRaises(error, server_options, options)


class Serving(TestCase):
    def serve(self, answer: Any = None, **options: Any) -> int:
        directory = Path(self.mktemp())
        directory.mkdir()
        self.authority = Authority(directory)
        certfile, keyfile = self.authority.issue()
        self.recorder = Recorder(answer)
        limits = {name: options.pop(name) for name in list(options) if name in Limits.__slots__}
        tls = {"certfile": str(certfile), "keyfile": str(keyfile)}
        if "cert_reqs" in options:
            tls.update(cert_reqs=options.pop("cert_reqs"), ca_certs=str(self.authority.file))
        self.server = HTTPServer(self.recorder, ssl_options=tls, limits=Limits(**limits), **options)
        self.addCleanup(self.server.stop)
        self.addCleanup(self.server.close_all_connections)
        port: Any = self.server.listen(0, "127.0.0.1")
        return int(port.getHost().port)

    def client(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.authority.file))
        context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
        return context

    def talk(self, port: int, data: bytes, context: ssl.SSLContext | None = None) -> bytes:
        """Send *data*, and read until the server closes. In a thread."""
        with (
            socket.create_connection(("127.0.0.1", port), 10) as raw,
            (context or self.client()).wrap_socket(raw, server_hostname="localhost") as tls,
        ):
            tls.sendall(data)
            received = b""
            while piece := tls.recv(65536):
                received += piece
            return received

    @inlineCallbacks
    def test_requests(self) -> Any:
        seen: list[str] = []

        def answer(message: Any) -> None:
            seen.append(message.connection.context.protocol)
            message.reply(message.body)

        port = self.serve(answer)
        last = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        received = yield deferToThread(self.talk, port, GET + last)
        self.assertEqual(received.count(b"HTTP/1.1 200 Fine"), 2)
        self.assertEqual(seen, ["https", "https"])

    @inlineCallbacks
    def test_large_last_answer_is_complete(self) -> Any:
        port = self.serve(lambda message: message.reply(b"x" * 5_000_000, Connection="close"))
        received = yield deferToThread(self.talk, port, GET)
        self.assertEqual(len(body_of(received)), 5_000_000)

    @inlineCallbacks
    def test_refusal_arrives_and_the_connection_ends_properly(self) -> Any:
        port = self.serve()
        received = yield deferToThread(self.talk, port, b"nonsense\r\n\r\n" + b"x" * 100_000)
        self.assertEqual(received, b"HTTP/1.1 400 Bad Request\r\n\r\n")

    @inlineCallbacks
    def test_early_answer_to_a_long_body_that_is_not_read(self) -> Any:
        port = self.serve(drain_size=1000)
        self.recorder.on_headers = lambda message: message.reply(b"no", 403)
        data = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n" + bytes(200_000)
        received = yield deferToThread(self.talk, port, data)
        self.assertEqual(status_of(received), 403)

    @inlineCallbacks
    def test_peer_that_never_says_goodbye(self) -> Any:
        port = self.serve(drain_timeout=0.1)

        def stay(port: int) -> bool:
            with socket.create_connection(("127.0.0.1", port), 10) as raw:
                incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
                tls = self.client().wrap_bio(incoming, outgoing, server_hostname="localhost")
                while True:
                    try:
                        tls.do_handshake()
                        break
                    except ssl.SSLWantReadError:
                        raw.sendall(outgoing.read())
                        incoming.write(raw.recv(65536))
                tls.write(b"nonsense\r\n\r\n")
                raw.sendall(outgoing.read())
                while raw.recv(65536):  # and no close_notify in return
                    pass
                return True

        self.assertTrue((yield deferToThread(stay, port)))
        yield deferLater(reactor, 0.2)
        self.assertEqual(self.server._connections, set())

    @inlineCallbacks
    def test_peer_that_speaks_no_tls(self) -> Any:
        port = self.serve()

        def speak(port: int) -> bytes:
            with socket.create_connection(("127.0.0.1", port), 10) as raw:
                raw.sendall(GET)
                received = b""
                while piece := raw.recv(65536):
                    received += piece
                return received

        with self.assertLogs("cycloneish.general", "WARNING") as logs:
            received = yield deferToThread(speak, port)
            yield deferLater(reactor, 0.05)
        self.assertNotIn(b"HTTP/1.1", received)
        self.assertEqual(len(logs.records), 1)
        self.assertEqual(self.recorder.messages, [])

    @inlineCallbacks
    def test_handshake_that_never_comes(self) -> Any:
        port = self.serve(idle_connection_timeout=0.1)

        def wait(port: int) -> bytes:
            with socket.create_connection(("127.0.0.1", port), 10) as raw:
                try:
                    return raw.recv(100)
                except ConnectionResetError:
                    return b""

        self.assertEqual((yield deferToThread(wait, port)), b"")

    @inlineCallbacks
    def test_client_certificates(self) -> Any:
        port = self.serve(cert_reqs=ssl.CERT_REQUIRED)
        last = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        context = self.client()
        certfile, keyfile = self.authority.issue("client")
        context.load_cert_chain(certfile, keyfile)
        received = yield deferToThread(self.talk, port, last, context)
        self.assertEqual(status_of(received), 200)
        with self.assertLogs("cycloneish.general", "WARNING"):
            yield self.assertFailure(deferToThread(self.talk, port, last), OSError)
            yield deferLater(reactor, 0.05)

    @inlineCallbacks
    def test_optional_client_certificates(self) -> Any:
        port = self.serve(cert_reqs=ssl.CERT_OPTIONAL)
        last = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        self.assertEqual(status_of((yield deferToThread(self.talk, port, last))), 200)

    @inlineCallbacks
    def test_body_is_held_back(self) -> Any:
        """Reading pauses below TLS, and what TLS has decrypted already waits in order."""
        port = self.serve()
        self.recorder.on_data = lambda message: deferLater(reactor, 0.001)
        data = bytes(range(256)) * 2000
        head = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(data)
        received = yield deferToThread(self.talk, port, head + data)
        self.assertTrue(body_of(received) == data)

    @inlineCallbacks
    def test_stop_closes_idle_connections(self) -> Any:
        port = self.serve()

        def wait(port: int) -> bytes:
            with (
                socket.create_connection(("127.0.0.1", port), 10) as raw,
                self.client().wrap_socket(raw, server_hostname="localhost") as tls,
            ):
                tls.sendall(GET)
                first = tls.recv(65536)
                return first + tls.recv(65536)

        waiting = deferToThread(wait, port)
        while not self.recorder.messages:
            yield deferLater(reactor, 0.01)
        yield self.server.stop()
        self.assertEqual(status_of((yield waiting)), 200)
