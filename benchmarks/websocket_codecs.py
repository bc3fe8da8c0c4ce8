"""The framing alone: a server's work for the echo of one message, without any network.

Called by ``python -m benchmarks.websocket --codecs``; ``docs/design/websocket-framing.md`` has the figures.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock

from cycloneish.websocket import WebSocketParams, WebSocketProtocol13, receiving
from cycloneish.websocket.masking import HAS_SPEEDUPS, apply_mask, apply_mask_python


def client_frame(size: int) -> bytes:
    """A masked binary message."""
    if size < 126:
        head = bytes([0x82, 0x80 | size])
    elif size < 65536:
        head = bytes([0x82, 0x80 | 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([0x82, 0x80 | 127]) + size.to_bytes(8, "big")
    mask = b"\x37\xfa\x21\x3d"
    return head + mask + apply_mask_python(bytes(size), mask)


class _Transport:
    """Takes everything."""

    dataBuffer = b""

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        pass

    def write(self, data: bytes) -> None:
        pass


class _Echo:
    protocol: WebSocketProtocol13

    def on_message(self, message: str | bytes) -> None:
        self.protocol.write_message(message, isinstance(message, bytes))


def own(mask: Any) -> Callable[[bytes], Any]:
    receiving.apply_mask = mask  # type: ignore[attr-defined]
    handler: Any = _Echo()
    protocol = handler.protocol = WebSocketProtocol13(handler, False, WebSocketParams(reactor=Clock()))
    protocol.makeConnection(_Transport())
    protocol.opened()
    return protocol.dataReceived


def websockets() -> Callable[[bytes], Any]:
    from websockets.frames import Opcode
    from websockets.protocol import OPEN, Protocol, Side

    protocol = Protocol(Side.SERVER, state=OPEN, max_size=1 << 24)

    def receive(data: bytes) -> None:
        protocol.receive_data(data)
        for frame in protocol.events_received():
            if frame.opcode is Opcode.BINARY:  # type: ignore[union-attr]
                protocol.send_binary(frame.data)  # type: ignore[union-attr]
        b"".join(protocol.data_to_send())

    return receive


def wsproto() -> Callable[[bytes], Any]:
    from wsproto.connection import Connection, ConnectionType
    from wsproto.events import BytesMessage

    connection = Connection(ConnectionType.SERVER)

    def receive(data: bytes) -> None:
        connection.receive_data(data)
        for event in connection.events():
            if isinstance(event, BytesMessage):
                connection.send(BytesMessage(data=bytes(event.data)))

    return receive


def measure(receive: Callable[[bytes], Any], data: bytes, count: int) -> float:
    """Microseconds for each message, least of seven runs."""
    best = float("inf")
    for _ in range(7):
        began = time.process_time()
        for _ in range(count):
            receive(data)
        best = min(best, (time.process_time() - began) / count)
    return best * 1e6


def compare() -> None:
    """Print the table."""
    print("| | 64 bytes | 4 KiB | 64 KiB |\n|---|--:|--:|--:|")
    makers: dict[str, Callable[[], Callable[[bytes], Any]]] = {
        "cycloneish, mask in Python": lambda: own(apply_mask_python),
        "wsproto": wsproto,
        "websockets": websockets,
    }
    if HAS_SPEEDUPS:
        makers["cycloneish, mask in C"] = lambda: own(apply_mask)
    for name, make in makers.items():
        cells = []
        for size, count in ((64, 3000), (4096, 1000), (65536, 100)):
            cells.append(f"{measure(make(), client_frame(size), count):.1f}")
        print(f"| {name} | {' | '.join(cells)} |")
