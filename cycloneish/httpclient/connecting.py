"""Opening a connection: name, TCP, tunnel through a proxy, TLS, each under one time-out.

Called by the pool, and by :mod:`cycloneish.websocket.client`.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import socket
from base64 import b64encode
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar

from twisted.internet import error as network
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.python.failure import Failure

from cycloneish.httpclient.errors import HTTPClientError, HTTPStreamClosedError, HTTPTimeoutError
from cycloneish.httpclient.heads import parse_response_head
from cycloneish.httpclient.resolving import Address, Resolving
from cycloneish.httputil import HTTPInputError, encode_username_password
from cycloneish.log import gen_log

if TYPE_CHECKING:
    import ssl

__all__ = [
    "Connector",
    "Proxy",
    "Route",
    "as_python_error",
    "basic_credentials",
    "proxy_of",
    "source_address",
]

#: A protocol.
P = TypeVar("P", bound=Any)

#: Seconds after which the next address is tried beside one that has not answered (RFC 8305 section 5).
_STAGGER: Final = 0.25
_MAX_PROXY_HEAD: Final = 16384


class Proxy(NamedTuple):
    """An HTTP proxy."""

    host: str
    port: int
    #: Value of Proxy-Authorization.
    credentials: str | None = None

    def __repr__(self) -> str:
        return f"Proxy({self.host}:{self.port})"


class Route(NamedTuple):
    """All that makes two connections different: the pool's key."""

    scheme: str
    host: str
    port: int
    context: ssl.SSLContext | None = None
    proxy: Proxy | None = None
    source: str | None = None
    ipv6: bool = True


def proxy_of(request: Any) -> Proxy | None:
    """The proxy that the options of *request* name.

    :raises ValueError: they do not fit together.
    """
    port, username = getattr(request, "proxy_port", None), getattr(request, "proxy_username", None)
    if not getattr(request, "proxy_host", None):
        if port or username:
            raise ValueError("proxy_port and proxy_username need a proxy_host")
        return None
    if not port:
        raise ValueError("proxy_host needs a proxy_port")
    if getattr(request, "proxy_auth_mode", None) not in (None, "basic"):
        raise ValueError(f"unsupported proxy_auth_mode {request.proxy_auth_mode!r}: there is 'basic'")
    credentials = None
    if username is not None:
        credentials = basic_credentials(username, getattr(request, "proxy_password", None) or "")
    return Proxy(request.proxy_host, int(port), credentials)


def source_address(interface: str | None) -> str | None:
    """The address from which to connect, of the option ``network_interface``.

    :raises ValueError: *interface* is no address.
    """
    if not interface:
        return None
    try:
        ipaddress.ip_address(interface)
    except ValueError:
        raise ValueError(
            f"Unrecognized IPv4 or IPv6 address for network_interface, got {interface!r}"
        ) from None
    return interface


def basic_credentials(username: str | bytes, password: str | bytes) -> str:
    """The value of (Proxy-)Authorization for basic authentication (RFC 7617)."""
    return "Basic " + b64encode(encode_username_password(username, password)).decode("ascii")


def as_python_error(error: BaseException) -> BaseException:
    """Twisted's errors of connections as the exceptions that Python has for them."""
    if isinstance(error, network.DNSLookupError):
        return socket.gaierror(socket.EAI_NONAME, str(error))
    if isinstance(error, network.ConnectError):
        number = error.osError
        if not isinstance(number, int):
            number = _ERRNO.get(type(error), errno.ECONNREFUSED)
        return OSError(number, os.strerror(number))
    if isinstance(error, network.ConnectionLost) and not isinstance(error, network.ConnectionAborted):
        return HTTPStreamClosedError("Connection closed")
    if isinstance(error, network.ConnectionDone | network.ConnectionAborted):
        return HTTPStreamClosedError("Connection closed")
    return error


_ERRNO: Final = {
    network.ConnectionRefusedError: errno.ECONNREFUSED,
    network.NoRouteError: errno.ENETUNREACH,
    network.TCPTimedOutError: errno.ETIMEDOUT,
    network.TimeoutError: errno.ETIMEDOUT,
}


class _Attempt(ClientFactory):
    """One call of ``connectTCP``; *done* fires with the transport."""

    noisy = False
    connector: Any = None

    def __init__(self) -> None:
        self.done: Deferred[Any] = Deferred(lambda _: self.connector.disconnect())

    def buildProtocol(self, addr: Any) -> Protocol:
        return _Placeholder(self.done)

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        if not self.done.called:
            self.done.errback(reason)


class _Placeholder(Protocol):
    """Holds a new transport until its protocol takes it over."""

    transport: Any

    def __init__(self, done: Deferred[Any]) -> None:
        self._done = done

    def connectionMade(self) -> None:
        if self._done.called:
            self.transport.abortConnection()
            return
        try:
            self.transport.setTcpNoDelay(True)
        except (AttributeError, OSError):
            pass
        self._done.callback(self.transport)


def _hand_over(transport: Any, protocol: Protocol) -> None:
    transport.protocol = protocol
    protocol.makeConnection(transport)


class _Tunnel(Protocol):
    """Asks a proxy for a way through (RFC 9110 section 9.3.6); *done* fires with the transport."""

    transport: Any

    def __init__(self, host: str, port: int, proxy: Proxy) -> None:
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
        if proxy.credentials:
            lines.append(f"Proxy-Authorization: {proxy.credentials}")
        self._request = "\r\n".join([*lines, "", ""]).encode("latin-1")
        self._buffer = b""
        self.done: Deferred[Any] = Deferred(lambda _: self.transport.abortConnection())

    def connectionMade(self) -> None:
        self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        self._buffer += data
        end = _HEAD_END.search(self._buffer)
        if end is None:
            if len(self._buffer) > _MAX_PROXY_HEAD:
                self._fail(HTTPStreamClosedError("the proxy answers with too large a head"))
            return
        try:
            line, _ = parse_response_head(self._buffer[: end.start()], 100)
        except HTTPInputError as error:
            self._fail(HTTPStreamClosedError(f"the proxy does not speak HTTP: {error}"))
            return
        if line.code // 100 != 2:
            self._fail(HTTPClientError(599, f"the proxy refuses the tunnel: {line.code} {line.reason}"))
        elif end.end() != len(self._buffer):
            # The server speaks first in no protocol that this tunnel is for.
            self._fail(HTTPStreamClosedError("the proxy sends more than its answer"))
        elif not self.done.called:
            self.done.callback(self.transport)

    def _fail(self, error: Exception) -> None:
        self.transport.abortConnection()
        if not self.done.called:
            self.done.errback(error)

    def connectionLost(self, reason: Failure = Failure(network.ConnectionDone())) -> None:  # noqa: B008
        if not self.done.called:
            self.done.errback(HTTPStreamClosedError("the proxy closed the connection"))


class _Progress:
    """How far a connection has come: what its time-out is called, and when each stage was reached."""

    def __init__(self, reactor: Any, host: str) -> None:
        self.seconds = reactor.seconds
        self.started: float = reactor.seconds()
        self.doing = f"while resolving {host}"
        self.times: dict[str, float] = {}

    def reached(self, stage: str, doing: str = "") -> None:
        """Note that *stage* is done and that *doing* comes next."""
        self.times[stage] = self.seconds() - self.started
        self.doing = doing


class Connector(Generic[P]):
    """Opens connections.

    :param reactor: the reactor.
    :param resolving: finds addresses.
    :param make_protocol: makes the protocol for a new connection, which has an ``abort()``.
    """

    def __init__(self, reactor: Any, resolving: Resolving, make_protocol: Callable[[], P]) -> None:
        self._reactor = reactor
        self._resolving = resolving
        self._make_protocol = make_protocol

    def connect(self, route: Route, timeout: float | None) -> Deferred[tuple[P, dict[str, float]]]:
        """Open a connection for *route*.

        :param timeout: seconds for all of it; None or 0 for no limit.
        :returns: the connection, and how many seconds each stage took from the start.  Cancelling it closes
            what was opened.  It fails with ``HTTPTimeoutError``, ``OSError`` or ``ssl.SSLError``.
        """
        progress = _Progress(self._reactor, route.proxy.host if route.proxy else route.host)
        connecting = self._connect(route, progress)
        if not timeout:
            return connecting.addErrback(_python_error)
        timed_out: list[str] = []

        def give_up() -> None:
            timed_out.append(progress.doing)
            connecting.cancel()

        timer = self._reactor.callLater(timeout, give_up)

        def ended(result: Any) -> Any:
            if timer.active():
                timer.cancel()
            if timed_out:
                if not isinstance(result, Failure):
                    result[0].abort()
                raise HTTPTimeoutError(f"Timeout {timed_out[0]}")
            return _python_error(result) if isinstance(result, Failure) else result

        return connecting.addBoth(ended)

    @inlineCallbacks
    def _connect(
        self, route: Route, progress: _Progress
    ) -> Generator[Deferred[Any], Any, tuple[P, dict[str, float]]]:
        host, port = (route.proxy.host, route.proxy.port) if route.proxy else (route.host, route.port)
        addresses = yield self._resolving.resolve(host, port, route.ipv6)
        where = ", ".join(f"{address}:{number}" for address, number in addresses)
        progress.reached("namelookup", f"while connecting to {where}")
        transport = yield self._first_of(addresses, route.source)
        progress.reached("connect")
        if route.proxy and route.scheme != "http":
            progress.doing = f"while waiting for the proxy {host}:{port}"
            tunnel = _Tunnel(route.host, route.port, route.proxy)
            _hand_over(transport, tunnel)
            transport = yield tunnel.done
        protocol = self._make_protocol()
        if route.context is None:
            _hand_over(transport, protocol)
            return protocol, progress.times
        progress.doing = f"during TLS handshake with {addresses[0][0]}:{port}"
        yield self._start_tls(transport, route, protocol)
        progress.reached("appconnect")
        return protocol, progress.times

    def _start_tls(self, transport: Any, route: Route, protocol: Protocol) -> Deferred[None]:
        # Only programs that use https pay for it.
        from cycloneish.httpclient.tls import TLSLayer

        done: Deferred[None] = Deferred(lambda _: transport.abortConnection())

        def told(error: BaseException | None) -> None:
            if done.called:
                return
            if error is None:
                done.callback(None)
                return
            if type(error).__module__ == "ssl":
                gen_log.warning("SSL Error with %s:%s: %s", route.host, route.port, error)
            done.errback(error)

        assert route.context is not None
        try:
            layer = TLSLayer(route.context, route.host, protocol, told)
        except Exception:
            transport.abortConnection()
            raise
        _hand_over(transport, layer)
        return done

    def _first_of(self, addresses: list[Address], source: str | None) -> Deferred[Any]:
        """Connect to the first of *addresses* that answers, trying the next beside a slow one."""
        if len(addresses) == 1:
            return self._attempt(addresses[0], source)
        left = iter(addresses)
        running: list[Deferred[Any]] = []
        timers: list[Any] = []
        done: Deferred[Any] = Deferred(lambda _: stop())

        def stop() -> None:
            for timer in timers:
                if timer.active():
                    timer.cancel()
            for attempt in list(running):
                attempt.cancel()

        def next_one() -> None:
            address = next(left, None)
            if address is None:
                return
            attempt = self._attempt(address, source)
            running.append(attempt)
            timers.append(self._reactor.callLater(_STAGGER, next_one))
            attempt.addCallbacks(succeeded, failed, callbackArgs=(attempt,), errbackArgs=(attempt,))

        def succeeded(transport: Any, attempt: Deferred[Any]) -> None:
            running.remove(attempt)
            if done.called:
                transport.abortConnection()
                return
            stop()
            done.callback(transport)

        def failed(reason: Failure, attempt: Deferred[Any]) -> None:
            running.remove(attempt)
            if done.called or reason.check(CancelledError):
                return
            next_one()
            if not running and not done.called:
                stop()
                done.errback(reason)

        next_one()
        return done

    def _attempt(self, address: Address, source: str | None) -> Deferred[Any]:
        attempt = _Attempt()
        bind = None if source is None else (source, 0)
        attempt.connector = self._reactor.connectTCP(
            address[0], address[1], attempt, timeout=None, bindAddress=bind
        )
        return attempt.done


_HEAD_END: Final = re.compile(rb"\r?\n\r?\n")


def _python_error(failure: Failure) -> Any:
    assert failure.value is not None
    error = as_python_error(failure.value)
    if error is failure.value:
        return failure
    raise error from None
