"""From bytes to messages: frames, fragments, UTF-8, compression (RFC 6455 section 5, RFC 7692).

:class:`Receiver` is the half of :class:`~cycloneish.websocket.WebSocketProtocol13` that reads. Every rule is
checked as early as the bytes allow: a length as soon as it is announced, text in the fragment in which it
goes wrong, a compressed message while it is decompressed.
"""

from __future__ import annotations

import codecs
import zlib
from asyncio import CancelledError as FutureCancelled
from collections.abc import Awaitable
from contextvars import Context
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from cycloneish.coroutines import drive, is_awaitable
from cycloneish.websocket.deflate import Deflate
from cycloneish.websocket.errors import (
    BAD_DATA,
    PROTOCOL_ERROR,
    TOO_BIG,
    DecompressedTooBigError,
)
from cycloneish.websocket.masking import apply_mask
from cycloneish.websocket.params import WebSocketParams

__all__ = ["Delegate", "Receiver"]

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

_FIN: Final = 0x80
_RSV1: Final = 0x40
#: Frames of one connection that are handled before the others get their turn; a long one counts as several.
_FRAMES_PER_TURN: Final = 256
#: Bytes that are read ahead while nothing can be done with them. Some are, as only a read tells that the
#: peer has left.
_READ_AHEAD: Final = 65536

_FINAL_TEXT: Final = _FIN | TEXT
_FINAL_BINARY: Final = _FIN | BINARY


def _first_bytes(compression: bool) -> frozenset[int]:
    """The first bytes that a frame can have."""
    found = {fin | opcode for fin in (0, _FIN) for opcode in (CONTINUATION, TEXT, BINARY)}
    found |= {_FIN | opcode for opcode in (CLOSE, PING, PONG)}
    if compression:
        found |= {fin | _RSV1 | opcode for fin in (0, _FIN) for opcode in (TEXT, BINARY)}
    return frozenset(found)


_PLAIN: Final = _first_bytes(False)
_COMPRESSED: Final = _first_bytes(True)
_Utf8 = codecs.getincrementaldecoder("utf-8")


class Delegate(Protocol):
    """Who gets the messages: a :class:`~cycloneish.websocket.WebSocketHandler` or a client's connection."""

    def on_message(self, message: str | bytes) -> Awaitable[None] | None:
        """Take a message; the next one comes when what is returned is done."""

    def on_ping(self, data: bytes) -> None:
        """Hear of a ping, which has been answered."""

    def on_pong(self, data: bytes) -> None:
        """Hear of a pong."""

    def on_ws_connection_close(self, close_code: int | None = None, close_reason: str | None = None) -> None:
        """Hear of the end, once."""

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Log what a callback raised."""


class Receiver:
    """Reads frames and hands messages to the delegate, one after the other."""

    handler: Delegate
    transport: Any
    params: WebSocketParams
    mask_outgoing: bool
    client_terminated: bool

    _allowed_firsts = _PLAIN

    # Of the message whose fragments come.
    _fragments_opcode = TEXT
    _inflating = False
    _utf8: Any = None

    def __init__(self) -> None:
        # Each message asks for most of these, and Python finds what is in an instance alone several times
        # faster than what the class has a default for.
        self._deflate: Deflate | None = None
        self._context: Context | None = None
        self._buffer: bytes | bytearray = b""
        #: Bytes that have to be there before it is worth looking at them.
        self._needed = 2
        self._busy = False
        self._opening = False
        #: What `on_message` is doing.
        self._running: Deferred[Any] | None = None
        self._scheduled: Any = None
        self._reading = True
        self._lost = False
        self._deaf = False
        #: What there is of the message whose fragments come.
        self._fragments: bytearray | None = None
        # For whoever wants to know how much went over the connection; Tornado's tests do.
        self._message_bytes_in = 0
        self._wire_bytes_in = 0

    # -- bytes -------------------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        """Take bytes from the transport."""
        self._wire_bytes_in += len(data)
        if self._deaf:
            return
        buffer = self._buffer
        if not buffer:
            self._buffer = data
            if len(data) < self._needed:
                return
        elif len(buffer) + len(data) >= self._needed and self._running is None and self._scheduled is None:
            # The usual end of a long message: one copy of what is there, instead of a growing array.
            self._buffer = buffer + data
        else:
            if buffer.__class__ is bytes:
                self._buffer = buffer = bytearray(buffer)
            buffer += data
            if len(buffer) < self._needed:
                return
        if self._busy or self._opening or self._running is not None or self._scheduled is not None:
            self._adjust_reading()
        else:
            self._process()

    def _process(self) -> None:
        """Handle what there is, in the context of the connection."""
        self._busy = True
        try:
            if self._context is not None:
                self._context.run(self._read_frames)
            else:
                self._read_frames()
        finally:
            self._busy = False
        if not self._reading or self._running is not None or self._scheduled is not None:
            self._adjust_reading()
        if self._lost:
            self._after_loss()

    def _process_later(self) -> None:
        if self._scheduled is None:
            self._scheduled = self.reactor.callLater(0, self._process_now)

    def _process_now(self) -> None:
        self._scheduled = None
        if self._running is None:
            self._go_on()

    def _adjust_reading(self) -> None:
        """Read from the transport only while there is use for more bytes."""
        waits = self._running is not None or self._scheduled is not None or self._opening
        wanted = self._deaf or not waits or len(self._buffer) < _READ_AHEAD
        if wanted != self._reading and not self._lost:
            self._reading = wanted
            if wanted:
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()

    def _read_in_larger_pieces(self) -> None:
        # Twisted reads 64 KiB at once, and each piece of a message more costs a system call and a copy.
        if getattr(self.transport, "bufferSize", 0) == _READ_AHEAD:
            self.transport.bufferSize = 4 * _READ_AHEAD

    @property
    def reactor(self) -> Any:
        """Gives ``callLater`` and ``seconds``."""
        raise NotImplementedError

    # -- frames ------------------------------------------------------------------------------------

    def _read_frames(self) -> None:
        """Handle the frames in the buffer, until more bytes or the application must be waited for."""
        data = self._buffer
        size = len(data)
        position = 0
        needed = 2
        turns = _FRAMES_PER_TURN
        masked = 0 if self.mask_outgoing else 0x80
        allowed = self._allowed_firsts
        while size - position >= 2:
            first = data[position]
            second = data[position + 1]
            if first not in allowed:
                self._fail(PROTOCOL_ERROR, "invalid frame header")
                return
            if second & 0x80 != masked:
                self._fail(PROTOCOL_ERROR, "frame is not masked" if masked else "frame is masked")
                return
            length = second & 0x7F
            start = position + 2
            if length > 125:
                if first & 0x08:
                    self._fail(PROTOCOL_ERROR, "control frame is too long")
                    return
                extended = 2 if length == 126 else 8
                if size - start < extended:
                    needed = 2 + extended
                    break
                length = int.from_bytes(data[start : start + extended], "big")
                if length < (126 if extended == 2 else 0x10000) or length >> 63:
                    self._fail(PROTOCOL_ERROR, "malformed length")
                    return
                start += extended
            if length > self.params.max_message_size and not first & 0x08:
                self._fail(TOO_BIG, "message too big")
                return
            end = start + length
            if masked:
                end += 4
            if end > size:
                needed = end - position
                if needed > _READ_AHEAD:
                    self._read_in_larger_pieces()
                if not self._announced(first, length):
                    return
                break
            if masked:
                mask = data[start : start + 4]
                if length < 4096:
                    payload = apply_mask(data[start + 4 : end], mask)
                else:  # without the copy that a slice is
                    payload = apply_mask(memoryview(data)[start + 4 : end], mask)
            else:
                payload = bytes(data[start:end])
            position = end
            if self._fragments is None and first == _FINAL_TEXT:
                self._message_bytes_in += length
                try:
                    self._deliver(payload.decode())
                except UnicodeDecodeError:
                    self._fail(BAD_DATA, "text is not UTF-8")
            elif self._fragments is None and first == _FINAL_BINARY:
                self._message_bytes_in += length
                self._deliver(payload)
            elif first & 0x08:
                self._handle_message(first & 0x0F, payload)
            else:
                self._take_fragment(first, payload)
            if self._deaf:
                return
            turns -= 1 + (length >> 10)
            if self._running is not None:
                break
            if turns <= 0 and position < size:
                self._process_later()
                break
        if position:
            self._buffer = data[position:] if position < size else b""
        self._needed = needed

    def _announced(self, first: int, length: int) -> bool:
        """Check what can be checked of a frame before it is complete; False if that ended the connection."""
        fragments = self._fragments
        if first & 0x08:
            return True
        if (fragments is None) is not bool(first & 0x0F):
            self._fail(PROTOCOL_ERROR, "fragments out of order")
            return False
        if fragments is not None and length + len(fragments) > self.params.max_message_size:
            self._fail(TOO_BIG, "message too big")
            return False
        return True

    def _take_fragment(self, first: int, payload: bytes) -> None:
        """A frame of a message of several frames, or of a compressed one."""
        if not self._announced(first, len(payload)):
            return
        final = bool(first & _FIN)
        fragments = self._fragments
        if fragments is None:
            self._fragments_opcode = first & 0x0F
            self._inflating = bool(first & _RSV1)
            fragments = bytearray()
        if self._inflating and self._deflate is not None:
            room = self.params.max_message_size - len(fragments)
            try:
                payload = self._deflate.decompress(payload, room, final)
            except DecompressedTooBigError:
                self._fail(TOO_BIG, "message too big after decompression")
                return
            except zlib.error:
                self._fail(BAD_DATA, "compressed data is broken")
                return
        is_text = self._fragments_opcode == TEXT
        if final and not fragments and self._utf8 is None:
            message = payload
        else:
            if is_text:
                if self._utf8 is None:
                    self._utf8 = _Utf8()
                try:
                    self._utf8.decode(payload, final)
                except UnicodeDecodeError:
                    self._fail(BAD_DATA, "text is not UTF-8")
                    return
            fragments += payload
            if not final:
                self._fragments = fragments
                return
            message = bytes(fragments)
        self._fragments = self._utf8 = None
        self._message_bytes_in += len(message)
        if not is_text:
            self._deliver(message)
            return
        try:
            self._deliver(message.decode())
        except UnicodeDecodeError:
            self._fail(BAD_DATA, "text is not UTF-8")

    # -- the application ---------------------------------------------------------------------------

    def _deliver(self, message: str | bytes) -> None:
        """Hand a message to the delegate."""
        try:
            result = self.handler.on_message(message)
        except (Exception, FutureCancelled) as error:
            self._callback_failed(error)
            return
        if result is not None:
            self._wait_for(result)

    def _wait_for(self, result: Any) -> None:
        """Read on when *result* is done."""
        if not is_awaitable(result):
            return
        running = drive(result)
        if running.called and not running.paused and not isinstance(running.result, Failure | Deferred):
            return
        self._running = running
        running.addCallbacks(self._released, self._callback_errback)

    def _released(self, _: object) -> None:
        self._running = None
        self._go_on()

    def _go_on(self) -> None:
        if not self._busy and self._scheduled is None and not self._opening:
            self._process()

    def _callback_errback(self, failure: Failure) -> None:
        self._running = None
        error: Any = failure.value
        if error.__traceback__ is None:
            error = error.with_traceback(failure.getTracebackObject())
        self._callback_failed(error)
        self._go_on()

    def _handle_message(self, opcode: int, data: bytes) -> None:
        """Handle a control frame."""
        raise NotImplementedError

    def _callback_failed(self, error: BaseException) -> None:
        """A callback of the application raised *error*."""
        raise NotImplementedError

    def _fail(self, code: int, reason: str) -> None:
        """End the connection because of what the peer sent."""
        raise NotImplementedError

    def _after_loss(self) -> None:
        """The transport is gone and everything it brought has been handled, as far as that is possible."""
        raise NotImplementedError
