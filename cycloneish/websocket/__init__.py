"""WebSockets: Tornado's `WebSocketHandler` and `websocket_connect`, Cyclone's method names, and rooms.

This file only hands names on. RFC 6455 is in :mod:`.protocol`, :mod:`.receiving` and :mod:`.sending`, its
handshakes in :mod:`.handshake` (server) and :mod:`.dialing` (client), compression in :mod:`.deflate`.
"""

from __future__ import annotations

from cycloneish.websocket.client import WebSocketClientConnection, websocket_connect
from cycloneish.websocket.errors import HandshakeError, WebSocketClosedError, WebSocketError
from cycloneish.websocket.handler import WebSocketHandler
from cycloneish.websocket.hub import Hub, HubFullError
from cycloneish.websocket.params import STATISTICS, Statistics, WebSocketParams
from cycloneish.websocket.protocol import WebSocketProtocol, WebSocketProtocol13
from cycloneish.websocket.sending import PreparedMessage

__all__ = [
    "STATISTICS",
    "HandshakeError",
    "Hub",
    "HubFullError",
    "PreparedMessage",
    "Statistics",
    "WebSocketClientConnection",
    "WebSocketClosedError",
    "WebSocketError",
    "WebSocketHandler",
    "WebSocketParams",
    "WebSocketProtocol",
    "WebSocketProtocol13",
    "websocket_connect",
]
