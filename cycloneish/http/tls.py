"""TLS for servers, on pyOpenSSL: `ssl_options`, a certificate per name, and new ones without a restart.

Loaded only when a server is given ``ssl_options`` or an ``ssl:`` endpoint.
"""

from __future__ import annotations

import logging
import os
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from zope.interface import implementer

try:
    from cryptography import x509
    from OpenSSL import SSL, crypto
    from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
    from twisted.internet.ssl import (
        AcceptableCiphers,
        Certificate,
        CertificateOptions,
        TLSVersion,
        trustRootFromCertificates,
    )
except ImportError as error:
    raise ImportError("TLS needs more libraries: pip install 'cycloneish[tls]'") from error

__all__ = ["CIPHERS", "ServerTLS", "server_options"]

log = logging.getLogger("cycloneish.general")

#: Ciphers of TLS 1.2: forward secrecy and authenticated encryption only, as Mozilla's "intermediate" has them
#: (without DHE). Those of TLS 1.3 are all of that kind.
CIPHERS = ":".join(
    f"ECDHE-{signature}-{cipher}"
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for signature in ("ECDSA", "RSA")
)

#: Seconds between two looks at the files, so that a flood of handshakes is not one of system calls.
LOOK_INTERVAL = 1.0

_PROTOCOL = b"http/1.1"
_BEGIN = b"-----BEGIN CERTIFICATE-----"


class _Pair(NamedTuple):
    """The files of one certificate."""

    certfile: Path
    keyfile: Path
    chainfile: Path | None

    @classmethod
    def of(cls, options: dict[str, Any]) -> _Pair:
        certfile, chain = Path(options["certfile"]), options.get("chainfile")
        return cls(certfile, Path(options.get("keyfile") or certfile), Path(chain) if chain else None)

    def files(self) -> Iterator[Path]:
        yield self.certfile
        yield self.keyfile
        if self.chainfile is not None:
            yield self.chainfile


class _Contexts(NamedTuple):
    """What the certificates were loaded into: the first one's, and all by the names they are for."""

    default: SSL.Context
    by_name: dict[str, SSL.Context]

    def find(self, name: str) -> SSL.Context | None:
        """The context for *name*: its own, or that of a wildcard for its first label (RFC 9525 6.3)."""
        return self.by_name.get(name) or self.by_name.get("*." + name.partition(".")[2])


def server_options(options: dict[str, Any] | ssl.SSLContext) -> ServerTLS:
    """Load the certificates that *options* name.

    :param options: what ``HTTPServer(ssl_options=…)`` takes; the keys are those of :class:`ServerTLS`.
    :raises TypeError: an ``ssl.SSLContext`` was given, whose key cannot be taken out of it.
    """
    if isinstance(options, ssl.SSLContext):
        raise TypeError(
            "ssl_options takes a dict with certfile and keyfile: TLS runs on pyOpenSSL here, and the key "
            "of a standard library SSLContext cannot be read back"
        )
    return ServerTLS(options)


@implementer(IOpenSSLServerConnectionCreator)
class ServerTLS:
    """Makes the TLS side of each connection: TLS 1.2 and later, modern ciphers, ``http/1.1`` in ALPN.

    A client that names a server (SNI, RFC 6066 section 3) gets the certificate for that name, any other the
    first one.  The files are looked at when a connection comes, at most once a second: when they changed they
    are read again, and connections that are open keep what they have.  New files that cannot be read or do
    not fit each other are logged as an error, and the old certificates stay in use.

    :param options: ``certfile`` (PEM; the chain behind the certificate, or in ``chainfile``), ``keyfile`` (by
        default the same file), ``certificates`` (further certificates: a list of dicts with ``certfile``,
        ``keyfile`` and ``chainfile``, or a directory whose ``*.pem`` files hold certificate, chain and key),
        ``ca_certs`` (PEM, the authorities of client certificates), ``cert_reqs`` (``ssl.CERT_OPTIONAL`` or
        ``ssl.CERT_REQUIRED`` ask clients for a certificate), ``ciphers`` (for TLS 1.2, in OpenSSL's syntax).
    :param seconds: a monotonic clock, in seconds.
    :raises KeyError: no ``certfile``, or no ``ca_certs`` where ``cert_reqs`` needs them.
    :raises OSError: a file cannot be read.
    :raises ValueError: a file is not what it should be.
    """

    def __init__(self, options: dict[str, Any], seconds: Callable[[], float] = time.monotonic) -> None:
        self._main = _Pair.of(options)
        self._more = options.get("certificates") or ()
        self._cert_reqs = options.get("cert_reqs", ssl.CERT_NONE)
        self._authorities = None if self._cert_reqs == ssl.CERT_NONE else Path(options["ca_certs"])
        self._ciphers = AcceptableCiphers.fromOpenSSLCipherString(options.get("ciphers") or CIPHERS)
        self._seconds = seconds
        self.reload()

    def serverConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        """A connection for one client; called by Twisted."""
        if self._seconds() >= self._next_look:
            self._look()
        return SSL.Connection(self._contexts.default, None)

    def reload(self) -> None:
        """Read the files now.

        :raises OSError: a file cannot be read; the certificates in use stay so.
        :raises ValueError: a file is not what it should be.
        """
        self._next_look = self._seconds() + LOOK_INTERVAL
        # Before they are read: a file that changes meanwhile is seen at the next look.
        self._seen = self._state_of_files()
        self._contexts = self._load()

    def _look(self) -> None:
        self._next_look = self._seconds() + LOOK_INTERVAL
        if self._state_of_files() == self._seen:
            return
        try:
            self.reload()
        except (OSError, ValueError) as error:
            log.error("TLS certificates changed and cannot be used, the old ones stay: %s", error)
        else:
            log.info("TLS certificates changed: the new ones are in use")

    def _pairs(self) -> list[_Pair]:
        if isinstance(self._more, str | os.PathLike):
            more = [_Pair(file, file, None) for file in sorted(Path(self._more).glob("*.pem"))]
        else:
            more = [_Pair.of(one) for one in self._more]
        return [self._main, *more]

    def _state_of_files(self) -> list[tuple[str, int, int, int]]:
        files = [file for pair in self._pairs() for file in pair.files()]
        if self._authorities is not None:
            files.append(self._authorities)
        found = []
        for file in files:
            try:
                state = file.stat()
            except OSError:
                found.append((str(file), 0, 0, 0))
            else:
                found.append((str(file), state.st_mtime_ns, state.st_size, state.st_ino))
        return found

    def _load(self) -> _Contexts:
        loaded: list[tuple[SSL.Context, list[str]]] = []

        def switch(connection: SSL.Connection) -> None:
            name = connection.get_servername()
            wanted = contexts.find(name.decode("ascii", "replace").lower()) if name else None
            if wanted is not None and wanted is not contexts.default:
                connection.set_context(wanted)

        for pair in self._pairs():
            context, names = self._context(pair)
            context.set_tlsext_servername_callback(switch)
            loaded.append((context, names))
        contexts = _Contexts(loaded[0][0], {})
        for context, names in loaded:
            for name in names:
                contexts.by_name.setdefault(name, context)
        return contexts

    def _context(self, pair: _Pair) -> tuple[SSL.Context, list[str]]:
        certificates = pair.certfile.read_bytes()
        if pair.chainfile is not None:
            certificates += b"\n" + pair.chainfile.read_bytes()
        key = pair.keyfile.read_bytes()
        try:
            chain = _certificates(certificates)
            # An empty passphrase has an encrypted key refused; without one OpenSSL asks the terminal.
            private_key = crypto.load_privatekey(crypto.FILETYPE_PEM, key, b"")
        except (crypto.Error, ValueError, TypeError) as error:
            raise ValueError(
                f"{pair.certfile}: not a PEM certificate and an unencrypted key ({error})"
            ) from error
        if not chain:
            raise ValueError(f"{pair.certfile}: no certificate in it")
        trust = None
        if self._authorities is not None:
            authorities = _certificates(self._authorities.read_bytes())
            if not authorities:
                raise ValueError(f"{self._authorities}: no certificate in it")
            trust = trustRootFromCertificates([Certificate(one) for one in authorities])
        made = CertificateOptions(
            privateKey=private_key,
            certificate=chain[0],
            extraCertChain=chain[1:],
            trustRoot=trust,
            acceptableCiphers=self._ciphers,
            raiseMinimumTo=TLSVersion.TLSv1_2,
        )
        made.requireCertificate = self._cert_reqs == ssl.CERT_REQUIRED
        try:
            context = made.getContext()
        except SSL.Error as error:
            raise ValueError(
                f"{pair.certfile}: the key does not belong to the certificate ({error})"
            ) from error
        # A client could ask for one handshake after the other on one connection.
        context.set_options(SSL.OP_NO_RENEGOTIATION)
        context.set_alpn_select_callback(_choose_protocol)
        return context, _names_in(chain[0])


def _choose_protocol(_: SSL.Connection, offered: list[bytes]) -> bytes:
    """HTTP/1.1, or the alert of RFC 7301 section 3.2: bytes meant for another protocol are no request."""
    if _PROTOCOL in offered:
        return _PROTOCOL
    raise SSL.Error([("ALPN", "", "the client speaks none of: http/1.1")])


def _certificates(pem: bytes) -> list[crypto.X509]:
    """The certificates of a PEM file, in their order."""
    return [Certificate.loadPEM(_BEGIN + part).original for part in pem.split(_BEGIN)[1:]]


def _names_in(certificate: crypto.X509) -> list[str]:
    """The DNS names that a certificate is for."""
    extensions = certificate.to_cryptography().extensions
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [name.lower() for name in names.get_values_for_type(x509.DNSName)]
