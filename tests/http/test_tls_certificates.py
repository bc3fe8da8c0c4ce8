"""Which certificate a client is shown, new ones under load, and what a scanner finds refused."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import warnings
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import gatherResults, inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from cycloneish.http import tls
from cycloneish.http.tls import CIPHERS, ServerTLS
from cycloneish.http.tls_endpoint import parse_ssl_endpoint
from cycloneish.httpserver import HTTPServer
from cycloneish.web import Application, RequestHandler, SecurityHeadersMixin
from tests.http.certificates import Authority


class Hello(SecurityHeadersMixin, RequestHandler):
    def get(self) -> None:
        self.write("hello")


class Certificates(TestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.authority = Authority(self.directory)
        # Every connection looks at the files.
        self.patch(tls, "LOOK_INTERVAL", 0.0)

    def pair(self, subject: str, *names: str) -> dict[str, Any]:
        certfile, keyfile = self.authority.issue(subject, names=names or (subject,))
        return {"certfile": str(certfile), "keyfile": str(keyfile)}

    def serve(self, options: dict[str, Any]) -> int:
        self.server = HTTPServer(
            Application([("/", Hello)], log_function=lambda handler: None), ssl_options=options
        )
        self.addCleanup(self.server.stop)
        port: Any = self.server.listen(0, "127.0.0.1")
        return int(port.getHost().port)

    def client(self, **attributes: Any) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.authority.file))
        context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
        context.check_hostname = False
        for name, value in attributes.items():
            setattr(context, name, value)
        return context

    def shown(self, port: int, name: str | None, context: ssl.SSLContext | None = None) -> str:
        """Ask for ``/`` and give the subject of the certificate."""
        with (
            socket.create_connection(("127.0.0.1", port), 10) as raw,
            (context or self.client()).wrap_socket(raw, server_hostname=name) as connection,
        ):
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            received = b""
            while piece := connection.recv(65536):
                received += piece
            if not received.startswith(b"HTTP/1.1 200 "):
                raise ValueError(f"answered {received[:100]!r}")
            subject: Any = connection.getpeercert()
        return str(dict(field[0] for field in subject["subject"])["commonName"])

    @inlineCallbacks
    def test_the_certificate_for_the_name(self) -> Any:
        folder = self.directory / "more"
        folder.mkdir()
        for subject, name in [("shop", "shop.example"), ("wild", "*.wild.example")]:
            pair = self.pair(subject, name)
            (folder / f"{subject}.pem").write_bytes(
                Path(pair["certfile"]).read_bytes() + Path(pair["keyfile"]).read_bytes()
            )
        listed = [self.pair("first", "first.example"), self.pair("second", "second.example", "2.example")]
        for more, expected in [
            (str(folder), {"shop.example": "shop", "SHOP.example": "shop", "a.wild.example": "wild"}),
            (listed, {"first.example": "first", "second.example": "second", "2.example": "second"}),
        ]:
            port = self.serve({**self.pair("main", "localhost"), "certificates": more})
            for name in ("localhost", "unknown.example", "a.b.wild.example", "wild.example", None):
                self.assertEqual((yield deferToThread(self.shown, port, name)), "main", name)
            for name, subject in expected.items():
                self.assertEqual((yield deferToThread(self.shown, port, name)), subject, name)

    @inlineCallbacks
    def test_certificates_are_swapped_under_load_without_a_failed_request(self) -> Any:
        old, new = self.pair("old", "localhost"), self.pair("new", "localhost")
        certfile, keyfile = self.directory / "cert.pem", self.directory / "key.pem"

        def use(pair: dict[str, Any], *kinds: str) -> None:
            for kind, target in (("certfile", certfile), ("keyfile", keyfile)):
                if kind in kinds:
                    shutil.copy(pair[kind], target.with_suffix(".new"))
                    os.replace(target.with_suffix(".new"), target)

        use(old, "certfile", "keyfile")
        port = self.serve({"certfile": str(certfile), "keyfile": str(keyfile)})
        context = self.client()

        def visit(times: int) -> list[str]:
            return [self.shown(port, "localhost", context) for _ in range(times)]

        seen: list[str] = yield deferToThread(visit, 3)
        self.assertEqual(seen, ["old"] * 3)
        load = [deferToThread(visit, 30) for _ in range(4)]
        with self.assertLogs("cycloneish.general", "INFO") as logs:
            # The key is there before its certificate: for that long the old pair serves.
            use(new, "keyfile")
            self.assertEqual((yield deferToThread(visit, 1)), ["old"])
            use(new, "certfile")
            self.assertEqual((yield deferToThread(visit, 1)), ["new"])
            visits = yield gatherResults(load)
        self.assertEqual({len(one) for one in visits}, {30})
        self.assertEqual({subject for one in visits for subject in one} | {"new"}, {"old", "new"})
        self.assertEqual([record.levelname for record in logs.records], ["ERROR", "INFO"])
        self.assertEqual((yield deferToThread(visit, 1)), ["new"])

    def test_the_files_are_looked_at_once_a_second(self) -> None:
        self.patch(tls, "LOOK_INTERVAL", 1.0)
        now = [0.0]
        options = ServerTLS(self.pair("one"), seconds=lambda: now[0])
        looks: list[float] = []
        self.patch(options, "_state_of_files", lambda: looks.append(now[0]) or options._seen)
        for now[0] in (0.5, 1.0, 1.5, 2.5):
            options.serverConnectionForTLS(None)
        self.assertEqual(looks, [1.0, 2.5])

    def test_a_reload_that_fails_says_so_and_changes_nothing(self) -> None:
        pair = self.pair("one")
        options = ServerTLS(pair)
        before = options._contexts
        Path(pair["certfile"]).write_text("nothing")
        self.assertRaises(ValueError, options.reload)
        self.assertIs(options._contexts, before)

    @inlineCallbacks
    def test_protocols(self) -> Any:
        port = self.serve(self.pair("localhost"))
        accepted = set()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for version in (
                ssl.TLSVersion.TLSv1,
                ssl.TLSVersion.TLSv1_1,
                ssl.TLSVersion.TLSv1_2,
                ssl.TLSVersion.TLSv1_3,
            ):
                context = self.client(minimum_version=version, maximum_version=version)
                context.set_ciphers("ALL:@SECLEVEL=0")
                try:
                    yield deferToThread(self.shown, port, "localhost", context)
                except ssl.SSLError:
                    continue
                accepted.add(version.name)
        self.assertEqual(accepted, {"TLSv1_2", "TLSv1_3"})

    @inlineCallbacks
    def test_ciphers(self) -> Any:
        """Every cipher that OpenSSL has is offered alone; with both kinds of keys."""
        port = self.serve(self.pair("localhost"))
        everything = self.client()
        everything.set_ciphers("ALL:COMPLEMENTOFALL:@SECLEVEL=0")
        names = [cipher["name"] for cipher in everything.get_ciphers() if cipher["protocol"] != "TLSv1.3"]
        self.assertGreater(len(names), 50)
        accepted = set()
        for name in names:
            context = self.client(maximum_version=ssl.TLSVersion.TLSv1_2)
            context.set_ciphers(f"{name}:@SECLEVEL=0")
            try:
                yield deferToThread(self.shown, port, "localhost", context)
            except ssl.SSLError:
                continue
            accepted.add(name)
        self.assertEqual(accepted, {name for name in CIPHERS.split(":") if "ECDSA" in name})

    @inlineCallbacks
    def test_application_protocols(self) -> Any:
        port = self.serve(self.pair("localhost"))

        def agree(*offered: str) -> str | None:
            context = self.client()
            context.set_alpn_protocols(list(offered))
            with (
                socket.create_connection(("127.0.0.1", port), 10) as raw,
                context.wrap_socket(raw, server_hostname="localhost") as connection,
            ):
                return connection.selected_alpn_protocol()

        self.assertEqual((yield deferToThread(agree, "h2", "http/1.1")), "http/1.1")
        with self.assertLogs("cycloneish.general", "WARNING"):
            yield self.assertFailure(deferToThread(agree, "h2", "acme-tls/1"), ssl.SSLError)

    def test_a_client_cannot_ask_for_another_handshake(self) -> None:
        server = ServerTLS(self.pair("localhost")).serverConnectionForTLS(None)
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        client = SSL.Connection(context, None)
        server.set_accept_state()
        client.set_connect_state()

        def exchange(step: Any) -> None:
            try:
                step()
            except SSL.WantReadError:
                pass
            for one, other in ((client, server), (server, client)):
                try:
                    other.bio_write(one.bio_read(65536))
                except SSL.WantReadError:
                    pass

        for _ in range(4):
            exchange(client.do_handshake)
            exchange(server.do_handshake)
        self.assertEqual(client.get_protocol_version_name(), "TLSv1.2")
        client.renegotiate()
        exchange(client.do_handshake)
        exchange(lambda: server.recv(100))
        # The alert "no renegotiation" ends the attempt at the client.
        self.assertRaises(SSL.Error, client.do_handshake)


class Endpoints(TestCase):
    def test_read(self) -> None:
        for text, tcp, options in [
            ("ssl:443:privateKey=a.pem", "tcp:443", {"keyfile": "a.pem", "certfile": "a.pem"}),
            (
                "ssl:port=8443:interface=\\:\\:1:certKey=C\\:\\\\c=d.pem:privateKey=k.pem:extraCertChain=e.pem",
                "tcp:8443:interface=\\:\\:1",
                {"certfile": "C:\\c=d.pem", "keyfile": "k.pem", "chainfile": "e.pem"},
            ),
            (
                "ssl:1:certKey=c:certificates=/etc/tls:clientCertificate=required:caCerts=a:backlog=9:ciphers=HIGH",
                "tcp:1:backlog=9",
                {
                    "certfile": "c",
                    "certificates": "/etc/tls",
                    "cert_reqs": ssl.CERT_REQUIRED,
                    "ca_certs": "a",
                    "ciphers": "HIGH",
                },
            ),
        ]:
            self.assertEqual(parse_ssl_endpoint(text), (tcp, options))

    def test_refused(self) -> None:
        for text in (
            "ssl:443",
            "ssl:443:privateKey=a:sslmethod=SSLv3_METHOD",
            "ssl:443:privateKey=a:privateKey=b",
            "ssl:443:privateKey=a:clientCertificate=maybe",
        ):
            self.assertRaises(ValueError, parse_ssl_endpoint, text)

    @inlineCallbacks
    def test_served(self) -> Any:
        directory = Path(self.mktemp())
        directory.mkdir()
        authority = Authority(directory)
        certfile, keyfile = authority.issue("localhost")
        server = HTTPServer(Application([("/", Hello)], log_function=lambda handler: None))
        self.addCleanup(server.stop)
        port = yield server.listen(f"ssl:0:interface=127.0.0.1:certKey={certfile}:privateKey={keyfile}")

        def ask(number: int) -> bytes:
            context = ssl.create_default_context(cafile=str(authority.file))
            context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
            with (
                socket.create_connection(("127.0.0.1", number), 10) as raw,
                context.wrap_socket(raw, server_hostname="localhost") as connection,
            ):
                connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                received = b""
                while piece := connection.recv(65536):
                    received += piece
                return received

        answer = yield deferToThread(ask, port.getHost().port)
        self.assertIn(b"200 OK", answer)
        self.assertIn(b"\r\nStrict-Transport-Security: max-age=31536000\r\n", answer)


class Defaults(SynchronousTestCase):
    def test_a_missing_file_is_named(self) -> None:
        error = self.assertRaises(OSError, ServerTLS, {"certfile": "/nowhere/cert.pem"})
        self.assertIn("/nowhere/cert.pem", str(error))
