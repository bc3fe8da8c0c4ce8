"""The client's half of the opening handshake (RFC 6455 section 4.1): connect, ask, check the answer.

Called by :class:`~cycloneish.websocket.WebSocketClientConnection`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from cycloneish.httpclient.connecting import Route, basic_credentials, proxy_of, source_address
from cycloneish.httpclient.errors import HTTPStreamClosedError, HTTPTimeoutError
from cycloneish.httputil import (
    HTTPHeaders,
    HTTPInputError,
    parse_response_start_line,
    responses,
)
from cycloneish.iostream import StreamClosedError
from cycloneish.websocket.deflate import Agreement, accept_answer, parse_extensions
from cycloneish.websocket.errors import HandshakeError, WebSocketError
from cycloneish.websocket.handshake import accept_value, has_token

__all__ = [
    "Answer",
    "Handshake",
    "Target",
    "as_python_error",
    "check_answer",
    "parse_url",
    "request_head",
    "route_for",
]

_PORTS: Final = {"ws": 80, "wss": 443}
_MAX_HEAD: Final = 65536
_MAX_INTERIM: Final = 10
_SAFE_PATH: Final = "/%:@!$&'()*+,;=~-._"
#: Headers that belong to the handshake and not to the caller.
_OWN: Final = (
    "Upgrade",
    "Connection",
    "Sec-Websocket-Key",
    "Sec-Websocket-Version",
    "Sec-Websocket-Protocol",
    "Sec-Websocket-Extensions",
)


class Target(NamedTuple):
    """A URL taken apart."""

    secure: bool
    host: str
    port: int
    authority: str
    path: str
    credentials: str | None


class Answer(NamedTuple):
    """What a server agreed to."""

    headers: HTTPHeaders
    subprotocol: str | None
    agreement: Agreement | None


def parse_url(url: str) -> Target:
    """Take a ``ws`` or ``wss`` URL apart.

    :raises ValueError: it is none.
    """
    if any(character <= " " or character == "\x7f" for character in url):
        raise ValueError("white space or control character in the URL of a WebSocket")
    parts = urlsplit(url)
    if parts.scheme not in _PORTS:
        raise ValueError(f"a WebSocket has a URL with ws: or wss:, not {parts.scheme[:30]!r}")
    host = parts.hostname
    if not host:
        raise ValueError("no host in the URL of a WebSocket")
    if not host.isascii():
        host = host.encode("idna").decode()
    usual = _PORTS[parts.scheme]
    port = parts.port or usual
    shown = f"[{host}]" if ":" in host else host
    path = quote(parts.path or "/", safe=_SAFE_PATH)
    if parts.query:
        path += "?" + quote(parts.query, safe=_SAFE_PATH + "?[]")
    credentials = None
    if parts.username is not None:
        credentials = basic_credentials(unquote(parts.username), unquote(parts.password or ""))
    authority = shown if port == usual else f"{shown}:{port}"
    return Target(parts.scheme == "wss", host, port, authority, path, credentials)


def request_head(target: Target, key: str, given: HTTPHeaders, more: HTTPHeaders) -> bytes:
    """The request as bytes.

    :param given: the caller's headers.
    :param more: those of the handshake.
    :raises ValueError: a header would break out of its line.
    """
    headers = given.copy()
    for name in _OWN:
        headers.pop(name, None)
    headers.setdefault("Host", target.authority)
    if target.credentials is not None:
        headers.setdefault("Authorization", target.credentials)
    headers["Upgrade"] = "websocket"
    headers["Connection"] = "Upgrade"
    headers["Sec-WebSocket-Key"] = key
    headers["Sec-WebSocket-Version"] = "13"
    lines = [f"GET {target.path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in [*headers.get_all(), *more.get_all()]]
    if any(character in line for line in lines for character in "\r\n\0"):
        raise ValueError("a header of the request has a line end or NUL")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def route_for(target: Target, request: Any) -> Route:
    """What it takes to connect to *target*.

    :param request: may have the options of :class:`~cycloneish.httpclient.HTTPRequest` that are about a
        connection: those of TLS and of a proxy, ``network_interface``, ``allow_ipv6``.
    :raises ValueError: they do not fit together; :exc:`OSError`: a certificate cannot be read.
    """
    context = None
    if target.secure:
        # Loads OpenSSL, which only wss needs.
        from cycloneish.httpclient.tls import client_context

        context = client_context(
            getattr(request, "ssl_options", None),
            getattr(request, "validate_cert", None) is not False,
            getattr(request, "ca_certs", None),
            getattr(request, "client_cert", None),
            getattr(request, "client_key", None),
        )
    return Route(
        "wss" if target.secure else "ws",
        target.host,
        target.port,
        context,
        proxy_of(request),
        source_address(getattr(request, "network_interface", None)),
        getattr(request, "allow_ipv6", None) is not False,
    )


def as_python_error(error: BaseException) -> BaseException:
    """Twisted's errors of connections, and those of the HTTP client, as what Tornado raises here."""
    if isinstance(error, HTTPTimeoutError):
        return TimeoutError(str(error))
    if isinstance(error, ConnectionLost | ConnectionDone | HTTPStreamClosedError):
        return StreamClosedError(error)
    return error


def check_answer(
    code: int, reason: str, headers: HTTPHeaders, key: str, subprotocols: list[str], options: Any
) -> Answer:
    """What a server agreed to with its response.

    :raises HandshakeError: it refused.
    :raises WebSocketError: it answered a request for something else; :exc:`ValueError`: it breaks the rules.
    """
    if code != 101:
        if 200 <= code < 300:
            raise WebSocketError("Non-websocket response")
        raise HandshakeError(code, reason or responses.get(code, "Unknown"), headers)
    if not has_token(headers, "Upgrade", "websocket") or not has_token(headers, "Connection", "upgrade"):
        raise ValueError("it upgrades to something else")
    if headers.get("Sec-WebSocket-Accept", "").strip() != accept_value(key.encode()):
        raise ValueError("Sec-WebSocket-Accept is wrong")
    extensions = parse_extensions(headers.get("Sec-WebSocket-Extensions", ""))
    subprotocol = headers.get("Sec-WebSocket-Protocol")
    if subprotocol is not None and subprotocol not in subprotocols:
        raise ValueError(f"subprotocol {subprotocol!r:.100} was not offered")
    return Answer(headers, subprotocol, accept_answer(extensions, options))


class Handshake(Protocol):
    """Asks for a WebSocket and checks the answer; then everything goes to the protocol.

    :param head: the request.
    :param key: that was sent in it.
    :param subprotocols: that were offered.
    :param options: of the compression that was offered, None if it was not.
    :param done: called with an :class:`Answer` or an exception, once. For an answer it returns the protocol
        that takes the connection over.
    """

    def __init__(
        self,
        head: bytes,
        key: str,
        subprotocols: list[str],
        options: Any,
        done: Callable[[Answer | BaseException], Any],
    ) -> None:
        self._head = head
        self._key = key
        self._subprotocols = subprotocols
        self._options = options
        self._done: Callable[[Answer | BaseException], Any] | None = done
        self._buffer = b""
        self._interim = 0

    def connectionMade(self) -> None:
        transport: Any = self.transport
        try:
            transport.setTcpNoDelay(True)
        except (AttributeError, OSError):
            pass
        transport.write(self._head)

    def dataReceived(self, data: bytes) -> None:
        self._buffer += data
        while self._done is not None:
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if len(head) > _MAX_HEAD:
                self._fail(WebSocketError("the answer of the server is too long"))
                return
            if not end:
                return
            try:
                answer = self._check(head)
            except (HTTPInputError, ValueError) as error:
                self._fail(WebSocketError(f"the server's answer is no WebSocket: {error}"))
                return
            except WebSocketError as error:
                self._fail(error)
                return
            self._buffer = rest
            if answer is not None:
                self._hand_over(answer)

    def _check(self, head: bytes) -> Answer | None:
        status, _, lines = head.decode("latin-1").partition("\r\n")
        start = parse_response_start_line(status)
        headers = HTTPHeaders.parse(lines)
        if 100 <= start.code < 200 and start.code != 101:
            self._interim += 1
            if self._interim > _MAX_INTERIM:
                raise WebSocketError("too many interim responses")
            return None
        return check_answer(start.code, start.reason, headers, self._key, self._subprotocols, self._options)

    def _hand_over(self, answer: Answer) -> None:
        done, self._done = self._done, None
        if done is None:
            return
        rest, self._buffer = self._buffer, b""
        successor = done(answer)
        # Twisted calls this object's methods; from now on they are the other's.
        self.connectionLost = successor.connectionLost  # type: ignore[method-assign]
        self.dataReceived = successor.dataReceived  # type: ignore[method-assign]
        successor.makeConnection(self.transport)
        successor.opened()
        if rest:
            successor.dataReceived(rest)

    def _fail(self, error: BaseException) -> None:
        done, self._done = self._done, None
        self.transport.abortConnection()  # type: ignore[union-attr]
        if done is not None:
            done(error)

    def abort(self) -> None:
        """Give up."""
        self._done = None
        if self.transport is not None:
            self.transport.abortConnection()  # type: ignore[attr-defined]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        done, self._done = self._done, None
        if done is not None and reason.value is not None:
            done(as_python_error(reason.value))
