"""From a URL to an open connection: addresses, TLS, one time-out for all of it.

The service (:mod:`cycloneish.amqp.service`) calls this for every connection.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.protocol import Factory

from .client import WireClient
from .errors import AMQPError, ConnectionLost, WaitTimeout

__all__ = ["Address", "open_connection"]

_OPTIONS = {"heartbeat", "connection_timeout", "cacertfile", "certfile", "keyfile", "verify"}


class Address:
    """Where a broker is and who comes, from an ``amqp://`` or ``amqps://`` URL. Its text has no password.

    ``amqps://user:password@host:5671/vhost?cacertfile=PATH&certfile=PATH&keyfile=PATH&verify=verify_peer``;
    ``heartbeat`` and ``connection_timeout`` (seconds, and milliseconds, as RabbitMQ's URI specification says)
    are understood as well.  ``%2f`` is the vhost ``/``, which is also meant where there is none.

    :raises ValueError: for any other URL; the error does not show it, as it may hold a password.
    """

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ValueError("an AMQP URL looks like amqp://user:password@host:5672/vhost") from None
        if parts.scheme not in ("amqp", "amqps") or not parts.hostname:
            raise ValueError("an AMQP URL looks like amqp://user:password@host:5672/vhost")
        query = parse_qs(parts.query, keep_blank_values=True)
        unknown = set(query) - _OPTIONS
        if unknown:
            raise ValueError(f"an AMQP URL has no such option; there are {sorted(_OPTIONS)}")
        options = {name: values[-1] for name, values in query.items()}
        self.tls = parts.scheme == "amqps"
        self.host = parts.hostname
        self.port = port or (5671 if self.tls else 5672)
        self.user = unquote(parts.username or "guest")
        self.password = unquote(parts.password if parts.password is not None else "guest")
        self.vhost = unquote(parts.path[1:]) or "/"
        self.heartbeat = int(options["heartbeat"]) if "heartbeat" in options else None
        self.connect_timeout = (
            int(options["connection_timeout"]) / 1000 if "connection_timeout" in options else None
        )
        self.ca_file = options.get("cacertfile")
        self.certificate_file = options.get("certfile")
        self.key_file = options.get("keyfile")
        verify = options.get("verify", "verify_peer")
        if verify not in ("verify_peer", "verify_none"):
            raise ValueError("verify is verify_peer or verify_none")
        self.verify = verify == "verify_peer"

    def __repr__(self) -> str:
        scheme = "amqps" if self.tls else "amqp"
        return f"{scheme}://{self.host}:{self.port}/{'' if self.vhost == '/' else self.vhost}"

    __str__ = __repr__


def _tls_options(address: Address) -> Any:
    """What says who the broker is and who we are; verified unless the URL says otherwise."""
    try:
        ssl = import_module("twisted.internet.ssl")
    except ImportError:
        raise ImportError("amqps:// needs pyOpenSSL: pip install 'cycloneish[tls]'") from None
    own = None
    if address.certificate_file:
        pem = b""
        for path in filter(None, (address.certificate_file, address.key_file)):
            with open(path, "rb") as file:
                pem += file.read() + b"\n"
        own = ssl.PrivateCertificate.loadPEM(pem)
    if not address.verify:
        return ssl.CertificateOptions(
            verify=False,
            **({"privateKey": own.privateKey.original, "certificate": own.original} if own else {}),
        )
    trust = None
    if address.ca_file:
        with open(address.ca_file, "rb") as file:
            blocks = file.read().split(b"-----END CERTIFICATE-----")
        trust = ssl.trustRootFromCertificates(
            [ssl.Certificate.loadPEM(block + b"-----END CERTIFICATE-----\n") for block in blocks[:-1]]
        )
    return ssl.optionsForClientTLS(address.host, trustRoot=trust, clientCertificate=own)


def open_connection(reactor: Any, address: Address, timeout: float, **options: Any) -> Deferred[WireClient]:
    """Connect, sign in, open the virtual host.

    :param timeout: seconds for all of it.
    :param options: those of :class:`~cycloneish.amqp.client.WireClient`.
    :returns: a Deferred with the open connection; it fails with an :exc:`AMQPError`.
    """
    return Deferred.fromCoroutine(_open(reactor, address, timeout, options))


async def _open(reactor: Any, address: Address, timeout: float, options: dict[str, Any]) -> WireClient:
    made: list[WireClient] = []

    def build() -> WireClient:
        client = WireClient(
            reactor, vhost=address.vhost, user=address.user, password=address.password, **options
        )
        made.append(client)
        return client

    late: list[bool] = []
    endpoint: Any = HostnameEndpoint(reactor, address.host, address.port, timeout=timeout)
    if address.tls:
        factory = _tls_options(address)
        if hasattr(factory, "clientConnectionForTLS"):
            wrap = import_module("twisted.internet.endpoints").wrapClientTLS
            endpoint = wrap(factory, endpoint)
        else:
            endpoint = _Unverified(reactor, address, timeout, factory)
    connecting: Deferred[Any] = endpoint.connect(Factory.forProtocol(build))
    step = [connecting]

    def too_late() -> None:
        late.append(True)
        step[0].cancel()

    timer = reactor.callLater(timeout, too_late)
    try:
        await connecting
        step[0] = made[-1].ready
        await made[-1].ready
    except BaseException as error:
        for client in made:
            client.drop(ConnectionLost("given up"), hard=True)
        if late:
            raise WaitTimeout(f"no connection to {address} within {timeout:g} s") from None
        if isinstance(error, AMQPError | CancelledError) or not isinstance(error, Exception):
            raise
        raise ConnectionLost(f"cannot connect to {address}: {error}") from error
    finally:
        if timer.active():
            timer.cancel()
    return made[-1]


class _Unverified:
    """TLS to whoever answers, as the URL asked for."""

    def __init__(self, reactor: Any, address: Address, timeout: float, context: Any) -> None:
        endpoints = import_module("twisted.internet.endpoints")
        self._endpoint = endpoints.SSL4ClientEndpoint(reactor, address.host, address.port, context, timeout)

    def connect(self, factory: Factory) -> Any:
        """See IStreamClientEndpoint."""
        return self._endpoint.connect(factory)
