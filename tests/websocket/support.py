"""Frames written and read by hand, so that the codec under test does not check itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cycloneish.websocket import WebSocketHandler
from tests.web.live import Client, LiveTestCase, sleep

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # of RFC 6455, which also has the answer to it:
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
MASK = b"\x37\xfa\x21\x3d"


@dataclass(frozen=True)
class Frame:
    """A frame as it was read."""

    opcode: int
    payload: bytes
    fin: bool = True
    rsv: int = 0

    @property
    def code(self) -> int:
        """The code of a close frame."""
        return int.from_bytes(self.payload[:2], "big")


def xor(mask: bytes, data: bytes) -> bytes:
    return bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bytes | None = MASK
) -> bytes:
    """A frame as a client sends it; without *mask*, as a server does."""
    size = len(payload)
    bit = 0 if mask is None else 0x80
    if size < 126:
        length = bytes([bit | size])
    elif size < 65536:
        length = bytes([bit | 126]) + size.to_bytes(2, "big")
    else:
        length = bytes([bit | 127]) + size.to_bytes(8, "big")
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode]) + length
    return head + payload if mask is None else head + mask + xor(mask, payload)


def parse_frames(data: bytes) -> list[Frame]:
    """The frames of a server."""
    frames = []
    while data:
        first, second = data[0], data[1]
        size, start = second & 0x7F, 2
        if size == 126:
            size, start = int.from_bytes(data[2:4], "big"), 4
        elif size == 127:
            size, start = int.from_bytes(data[2:10], "big"), 10
        if second & 0x80:
            raise AssertionError("a server does not mask")
        if len(data) < start + size:
            break
        frames.append(Frame(first & 15, data[start : start + size], bool(first & 0x80), first >> 4 & 7))
        data = data[start + size :]
    return frames


def upgrade(path: str = "/", *headers: str, connection: str = "Upgrade", version: str = "13") -> bytes:
    """A request for a WebSocket."""
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: 127.0.0.1",
        "Upgrade: websocket",
        f"Connection: {connection}",
        f"Sec-WebSocket-Key: {KEY}",
        f"Sec-WebSocket-Version: {version}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


class RawSocket:
    """A WebSocket client of bytes."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.head = b""

    async def open(self, path: str = "/", *headers: str) -> bytes:
        """Ask for a WebSocket and return the head of the answer."""
        self.client.send(upgrade(path, *headers))
        data = await self.client.until(b"\r\n\r\n")
        self.head = bytes(data).partition(b"\r\n\r\n")[0]
        return self.head

    def send(self, opcode: int, payload: bytes = b"", **options: Any) -> None:
        self.client.send(frame(opcode, payload, **options))

    @property
    def frames(self) -> list[Frame]:
        """All frames so far."""
        return parse_frames(bytes(self.client.data).partition(b"\r\n\r\n")[2])

    async def read(self, count: int = 1) -> list[Frame]:
        """All frames, as soon as there are *count*, or the connection has ended."""
        await self.client.until(
            lambda data: len(parse_frames(bytes(data).partition(b"\r\n\r\n")[2])) >= count
        )
        return self.frames

    async def until_closed(self) -> list[Frame]:
        await self.client.until(lambda data: False)
        return self.frames


class Recorder(WebSocketHandler):
    """Keeps what happens to it; one class for each test."""

    made: list[Recorder]
    options: dict[str, Any] | None = None

    def initialize(self, made: list[Recorder], options: dict[str, Any] | None = None) -> None:
        self.made = made
        self.options = options
        self.events: list[Any] = []

    def get_compression_options(self) -> dict[str, Any] | None:
        return self.options

    def open(self, *args: str, **kwargs: str) -> Any:
        self.made.append(self)
        self.events.append("open")

    def on_message(self, message: str | bytes) -> Any:
        self.events.append(message)

    def on_ping(self, data: bytes) -> None:
        self.events.append(("ping", data))

    def on_pong(self, data: bytes) -> None:
        self.events.append(("pong", data))

    def on_close(self) -> None:
        self.events.append(("close", self.close_code, self.close_reason))

    @property
    def closes(self) -> list[Any]:
        return [event for event in self.events if isinstance(event, tuple) and event[0] == "close"]


class Echo(Recorder):
    """Sends back what comes."""

    def on_message(self, message: str | bytes) -> Any:
        super().on_message(message)
        self.write_message(message, isinstance(message, bytes))


class WebSocketTestCase(LiveTestCase):
    """Serves, and speaks frames."""

    async def raw(self, path: str = "/", *headers: str) -> RawSocket:
        socket = RawSocket(await self.connect())
        await socket.open(path, *headers)
        return socket

    async def until(self, condition: Any, seconds: float = 10.0) -> None:
        """Wait for *condition*, a function, to be true."""
        waited = 0.0
        while not condition():
            if waited > seconds:
                raise AssertionError("it did not happen")
            await sleep(0.005)
            waited += 0.005
