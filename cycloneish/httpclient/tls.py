"""TLS for the client, on the ``ssl`` of the standard library.

A client may be given an ``ssl.SSLContext``, as Tornado's are, and pyOpenSSL, on which Twisted's TLS runs,
cannot take one over: the key in it cannot be read back.  So the client runs ``ssl.SSLObject`` between the
transport and the protocol, as asyncio does.  Loaded when the first ``https`` or ``wss`` URL is asked for.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

__all__ = ["TLSLayer", "client_context"]

_OPTIONS: Final = frozenset({"ssl_version", "certfile", "keyfile", "ca_certs", "cert_reqs", "ciphers"})
_READ_SIZE: Final = 65536


def client_context(
    ssl_options: dict[str, Any] | ssl.SSLContext | None = None,
    validate_cert: bool = True,
    ca_certs: str | None = None,
    client_cert: str | None = None,
    client_key: str | None = None,
) -> ssl.SSLContext:
    """Make the context for one set of options of ``HTTPRequest``; TLS 1.2 and later.

    :raises ValueError: *ssl_options* has a key that is not known.
    :raises OSError: a file cannot be read, or is no certificate or key (``ssl.SSLError``).
    """
    if isinstance(ssl_options, ssl.SSLContext):
        return ssl_options
    options = ssl_options or {}
    unknown = options.keys() - _OPTIONS
    if unknown:
        raise ValueError(f"not known in ssl_options: {', '.join(sorted(unknown))}")
    if ssl_options is not None:
        validate_cert = options.get("cert_reqs", ssl.CERT_REQUIRED) == ssl.CERT_REQUIRED
        ca_certs = options.get("ca_certs")
        client_cert, client_key = options.get("certfile"), options.get("keyfile")
    if not validate_cert and ca_certs is None:
        # Without the authorities of the system, which take a while to read and would not be asked.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    else:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=ca_certs)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION
    if not validate_cert:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if client_cert is not None:
        context.load_cert_chain(client_cert, client_key)
    if options.get("ciphers"):
        context.set_ciphers(options["ciphers"])
    return context


class TLSLayer(Protocol):
    """A protocol towards the network and a transport towards *inner*.

    :param context: the settings.
    :param host: the name or address that the certificate has to be for.
    :param inner: speaks in the clear; hears ``makeConnection`` once the handshake is done.
    :param done: called with None, or with why the handshake failed.
    """

    transport: Any

    def __init__(
        self,
        context: ssl.SSLContext,
        host: str,
        inner: Protocol,
        done: Callable[[BaseException | None], None],
    ) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_side=False, server_hostname=host)
        self._inner = inner
        self._done: Callable[[BaseException | None], None] | None = done
        self._open = False
        self._failed: BaseException | None = None
        self._closing = False

    # -- towards the network -----------------------------------------------------------------------

    def connectionMade(self) -> None:
        self._handshake()

    def dataReceived(self, data: bytes) -> None:
        self._incoming.write(data)
        if not self._open and self._failed is None:
            self._handshake()
        if self._open:
            self._read()

    def _handshake(self) -> None:
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except (ssl.SSLError, ValueError) as error:
            self._failed = error
            self._flush()  # the alert, which is to be gone before anybody hears of this
            self.transport.loseConnection()
            return
        self._open = True
        self._flush()
        self._inner.makeConnection(self)
        self._tell(None)

    def _tell(self, error: BaseException | None) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(error)

    def _read(self) -> None:
        try:
            while not self._closing:
                data = self._ssl.read(_READ_SIZE)
                if not data:
                    self.loseConnection()  # the peer said that it is done
                    return
                self._inner.dataReceived(data)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            self.abortConnection()
        self._flush()

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data:
            self.transport.write(data)

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        if self._open:
            self._inner.connectionLost(reason)
        else:
            self._tell(self._failed or reason.value)

    # -- towards the protocol ----------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if not self._closing:
            self._ssl.write(data)
            self._flush()

    def writeSequence(self, data: list[bytes]) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        if self._closing:
            return
        self._closing = True
        try:
            self._ssl.unwrap()
        except ssl.SSLError:  # it would like to see the peer's answer, for which nobody waits
            pass
        self._flush()
        self.transport.loseConnection()

    def abortConnection(self) -> None:
        self._closing = True
        self.transport.abortConnection()

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.transport.setTcpNoDelay(enabled)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.transport.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        self.transport.unregisterProducer()

    def pauseProducing(self) -> None:
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self.transport.resumeProducing()

    def stopProducing(self) -> None:
        self.loseConnection()

    def getPeer(self) -> Any:
        return self.transport.getPeer()

    def getHost(self) -> Any:
        return self.transport.getHost()

    def getPeerCertificate(self) -> dict[str, Any] | None:
        """The certificate of the server, as ``ssl.SSLSocket.getpeercert`` gives it."""
        return self._ssl.getpeercert()
