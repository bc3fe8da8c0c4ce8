"""A client's WebSocket without a socket, for tests: `cycloneish.testing.Client.websocket` calls this."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from cycloneish.httputil import HTTPHeaders
from cycloneish.testing.client import Client
from cycloneish.testing.exchange import Exchange
from cycloneish.testing.response import HeaderSource, make_headers
from cycloneish.websocket import deflate
from cycloneish.websocket.client import Received, WebSocketClientConnection
from cycloneish.websocket.dialing import check_answer
from cycloneish.websocket.protocol import WebSocketProtocol13

__all__ = ["connect_in_memory"]


class _Link:
    """The transport of the client's protocol: the client's end of an exchange."""

    disconnecting = False

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def read_into(self, protocol: WebSocketProtocol13) -> None:
        """Give *protocol* what comes, to the end."""

        def got(data: bytes) -> None:
            if data:
                protocol.dataReceived(data)
                self._exchange.read().addCallback(got)
            else:
                protocol.connectionLost(Failure(ConnectionDone()))

        self._exchange.read().addCallback(got)

    def write(self, data: bytes) -> None:
        if not self.disconnecting:
            self._exchange.write_raw(data)

    def loseConnection(self) -> None:
        self.disconnecting = True
        self._exchange.disconnect()

    abortConnection = loseConnection

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Nothing is ever full here."""

    def unregisterProducer(self) -> None:
        """Nothing is ever full here."""

    def pauseProducing(self) -> None:
        self._exchange.pause()

    def resumeProducing(self) -> None:
        self._exchange.resume()


def connect_in_memory(
    client: Client,
    path: str,
    *,
    headers: HeaderSource | None = None,
    subprotocols: list[str] | None = None,
    compression_options: Mapping[str, Any] | None = None,
    on_message_callback: Callable[[Received], Any] | None = None,
    **options: Any,
) -> Deferred[WebSocketClientConnection]:
    """Open a WebSocket to the application of *client*.

    :param options: of :meth:`cycloneish.testing.Client.open`.
    :returns: a Deferred of the connection.
    """
    connection = WebSocketClientConnection(
        SimpleNamespace(url=path),
        on_message_callback=on_message_callback,
        compression_options=compression_options,
        subprotocols=subprotocols,
    )
    sent: HTTPHeaders = make_headers(headers)
    sent["Upgrade"] = "websocket"
    sent["Connection"] = "Upgrade"
    sent["Sec-WebSocket-Key"] = connection.key
    sent["Sec-WebSocket-Version"] = "13"
    if subprotocols:
        sent["Sec-WebSocket-Protocol"] = ", ".join(subprotocols)
    if compression_options is not None:
        sent["Sec-WebSocket-Extensions"] = deflate.offer(compression_options)
    exchange = client.open("GET", path, headers=sent, **options)

    def answered(response: Any) -> WebSocketClientConnection:
        try:
            answer = check_answer(
                response.code,
                response.reason,
                response.headers,
                connection.key,
                subprotocols or [],
                compression_options,
            )
        except Exception:
            exchange.disconnect()
            raise
        link = _Link(exchange)
        protocol = connection._answered(answer)
        if protocol is None:
            raise RuntimeError("the connection was given up")
        protocol.makeConnection(link)
        protocol.opened()
        link.read_into(protocol)
        return connection

    return exchange.when_headers().addCallback(answered)
