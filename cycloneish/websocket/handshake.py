"""The server's half of the opening handshake (RFC 6455 section 4.2): check a request, answer it.

Called by :class:`~cycloneish.websocket.WebSocketHandler`. It sees the headers that the engine has parsed,
and never their text: two parsers that differ are a way to smuggle requests.
"""

from __future__ import annotations

import binascii
import hashlib
from base64 import b64encode
from typing import TYPE_CHECKING, Any, Final

from cycloneish.log import gen_log
from cycloneish.websocket.deflate import accept_offer, parse_extensions

if TYPE_CHECKING:
    from cycloneish.httputil import HTTPHeaders, HTTPServerRequest
    from cycloneish.websocket.protocol import WebSocketProtocol13

__all__ = ["accept_connection", "accept_value", "has_token", "refusal"]

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accept_value(key: bytes) -> str:
    """*Sec-WebSocket-Accept* for a *Sec-WebSocket-Key*."""
    return b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest()).decode()


def has_token(headers: HTTPHeaders, name: str, token: str) -> bool:
    """Whether the list in the header *name* has *token*, in any case of letters."""
    return token in [element.strip(" \t").lower() for element in headers.get(name, "").split(",")]


def refusal(request: HTTPServerRequest) -> str | None:
    """Why *request* does not ask for a WebSocket, or None if it does."""
    if request.version == "HTTP/1.0":
        return "A WebSocket begins with HTTP/1.1"
    if not has_token(request.headers, "Upgrade", "websocket"):
        return 'Can "Upgrade" only to "WebSocket".'
    if not has_token(request.headers, "Connection", "upgrade"):
        return '"Connection" must be "Upgrade".'
    return None


def _is_key(key: str) -> bool:
    """Whether *key* is 16 bytes in Base64."""
    try:
        return len(key) == 24 and len(binascii.a2b_base64(key, strict_mode=True)) == 16
    except (ValueError, binascii.Error):
        return False


def accept_connection(protocol: WebSocketProtocol13, handler: Any) -> None:
    """Answer with 101 and give *protocol* the transport, or answer with 400."""
    headers: HTTPHeaders = handler.request.headers
    key = headers.get("Sec-WebSocket-Key", "")
    try:
        if not _is_key(key):
            raise ValueError("Sec-WebSocket-Key is not 16 bytes in Base64")
        extensions = parse_extensions(headers.get("Sec-WebSocket-Extensions", ""))
    except ValueError as error:
        gen_log.debug("Malformed WebSocket request: %s", error)
        handler.set_status(400)
        handler.finish("Missing/Invalid WebSocket headers")
        return
    offered = [part.strip(" 	") for part in headers.get("Sec-WebSocket-Protocol", "").split(",")]
    offered = [name for name in offered if name]
    chosen = handler.select_subprotocol(offered)
    if chosen is not None:
        if chosen not in offered:
            raise ValueError(f"select_subprotocol() chose {chosen!r}, which the client did not offer")
        handler.set_header("Sec-WebSocket-Protocol", chosen)
        protocol.selected_subprotocol = chosen
    options = protocol.params.compression_options
    accepted = accept_offer(extensions, options) if options is not None else None
    if accepted is not None:
        protocol.agree_on_compression(accepted[0])
        handler.set_header("Sec-WebSocket-Extensions", accepted[1])
    handler.clear_header("Content-Type")
    handler.set_status(101)
    handler.set_header("Upgrade", "websocket")
    handler.set_header("Connection", "Upgrade")
    handler.set_header("Sec-WebSocket-Accept", accept_value(key.encode("latin-1")))
    handler._upgrade(protocol)
