"""TLS to the server: libpq's parameters in the URL, for queries, COPY, LISTEN and cancel requests alike.

The embedded PostgreSQL is built without TLS, so a small gate in front of it answers the client's request for
TLS as PostgreSQL does, and hands the decrypted bytes on.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import shutil
import struct
import tempfile
from pathlib import Path
from typing import Any

import psycopg2.extensions
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.internet import defer
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import ContextFactory

from cycloneish.db import errors
from cycloneish.db.postgres import Pool

from .support import DatabaseTestCase, busy_backends, until

# PostgreSQL's protocol: the message before the first, "do you speak TLS?".
_TLS_REQUEST = struct.pack("!II", 8, 80877103)


def make_certificate(directory: Path, name: str) -> None:
    """``NAME.pem`` and ``NAME.key`` for 127.0.0.1, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (directory / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (directory / f"{name}.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


class _Contexts(ContextFactory):
    isClient = False

    def __init__(self, directory: Path) -> None:
        self._context = SSL.Context(SSL.TLS_SERVER_METHOD)
        self._context.use_certificate_file(str(directory / "server.pem"))
        self._context.use_privatekey_file(str(directory / "server.key"))

    def getContext(self) -> SSL.Context:
        return self._context


class _Inner(Protocol):
    """The side to the real server."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    def dataReceived(self, data: bytes) -> None:
        self.gate.transport.write(data)

    def connectionLost(self, reason: Any = None) -> None:
        self.gate.transport.loseConnection()


class Gate(Protocol):
    """The side to the client: TLS, or nothing."""

    encrypted = 0
    answer = b"S"
    factory: Any

    def connectionMade(self) -> None:
        self._received = b""
        self._inner: _Inner | None = None

    def dataReceived(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.transport.write(data)
            return
        self._received += data
        if self._received == _TLS_REQUEST:
            self._received = b""
            self.transport.write(self.answer)
            if self.answer == b"N":
                return
            self.transport.startTLS(self.factory.contexts)
            Gate.encrypted += 1
            return
        if len(data) >= 8 and not hasattr(self, "_connecting"):
            if self.transport.TLS is False:
                self.transport.abortConnection()
                return
            endpoint = UNIXClientEndpoint(self.factory.reactor, self.factory.socket)
            self._connecting = connectProtocol(endpoint, _Inner(self)).addCallback(self._connected)

    def _connected(self, inner: _Inner) -> None:
        self._inner = inner
        inner.transport.write(self._received)

    def connectionLost(self, reason: Any = None) -> None:
        if self._inner is not None:
            self._inner.transport.loseConnection()


class TLSTests(DatabaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        from twisted.internet import reactor

        self.directory = Path(tempfile.mkdtemp(prefix="cycloneish-tls-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        make_certificate(self.directory, "server")
        make_certificate(self.directory, "other")
        self.parts = psycopg2.extensions.parse_dsn(self.dsn)
        factory: Any = Factory.forProtocol(Gate)
        factory.contexts = _Contexts(self.directory)
        factory.reactor = reactor
        factory.socket = os.path.join(self.parts["host"], ".s.PGSQL.5432")
        listening: Any = reactor
        port = listening.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.port = port.getHost().port

    def pool(self, options: str) -> Pool:
        return self.make_pool(
            f"postgresql://{self.parts['user']}@127.0.0.1:{self.port}/{self.parts['dbname']}?{options}",
            max_size=2,
        )

    async def test_everything_goes_through_tls(self) -> None:
        pool = self.pool(f"sslmode=verify-full&sslrootcert={self.directory}/server.pem")
        before = Gate.encrypted
        self.assertEqual(await pool.fetch_value("select length(%s)", ("x" * 3_000_000,)), 3_000_000)
        self.assertEqual(len(await pool.fetch_value("select repeat('x', 3000000)")), 3_000_000)
        connection = pool._take()
        assert connection is not None
        self.assertTrue(connection._connection.info.ssl_in_use)
        pool._give(connection)
        self.assertEqual(await pool.copy_out("copy (select 1) to stdout").fetch(), b"1\n")
        heard: list[str] = []
        await pool.listen("news", heard.append)
        await pool.notify("news", "hello")
        await until(lambda: heard == ["hello"])
        query = pool.execute("select pg_sleep(30)")
        await until(lambda: busy_backends(self.dsn) == 1)
        query.cancel()
        await self.assertFailure(query, defer.CancelledError)
        await until(lambda: busy_backends(self.dsn) == 0)
        # The pool's own, COPY's, LISTEN's, and that of the cancel requests.
        self.assertGreaterEqual(Gate.encrypted - before, 4)

    async def test_a_certificate_of_somebody_else_is_refused(self) -> None:
        pool = self.pool(f"sslmode=verify-full&sslrootcert={self.directory}/other.pem")
        error = await self.assertFailure(pool.fetch_value("select 1"), errors.ConnectError)
        self.assertIn("certificate verify failed", str(error))

    async def test_the_certificate_has_to_name_the_host(self) -> None:
        root = f"sslmode=verify-full&sslrootcert={self.directory}/server.pem"
        pool = self.pool(f"{root}&host=wrong.test&hostaddr=127.0.0.1")
        error = await self.assertFailure(pool.fetch_value("select 1"), errors.ConnectError)
        self.assertIn("wrong.test", str(error))

    async def test_a_server_without_tls_is_refused_where_tls_is_asked_for(self) -> None:
        self.patch(Gate, "answer", b"N")
        await self.assertFailure(self.pool("sslmode=require").when_ready(), errors.ConnectError)

    async def test_require_encrypts_and_asks_for_no_name(self) -> None:
        self.assertEqual(await self.pool("sslmode=require").fetch_value("select 1"), 1)
