"""From messages to bytes: frames, the queue for a peer that reads slowly, messages for many peers.

:class:`Sender` is the half of :class:`~cycloneish.websocket.WebSocketProtocol13` that writes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Final
from weakref import WeakKeyDictionary

from twisted.internet.defer import Deferred

from cycloneish.awaiting import AwaitableDeferred
from cycloneish.escape import json_encode
from cycloneish.http.transport import Outbox, Writer, unsent
from cycloneish.log import gen_log
from cycloneish.websocket.deflate import Deflate
from cycloneish.websocket.errors import TRY_AGAIN_LATER, WebSocketClosedError
from cycloneish.websocket.masking import apply_mask
from cycloneish.websocket.params import STATISTICS, WebSocketParams

__all__ = ["PreparedMessage", "SendDeferred", "Sender", "outbox_of"]

_FIN: Final = 0x80
_RSV1: Final = 0x40
_TEXT: Final = 0x1
_BINARY: Final = 0x2
#: Bytes of a payload from which on a second piece costs less than a copy.
_LONG: Final = 32768

_outboxes: WeakKeyDictionary[Any, Outbox] = WeakKeyDictionary()


def outbox_of(reactor: Any) -> Outbox:
    """The one that collects what the WebSockets of *reactor* send in one turn."""
    outbox = _outboxes.get(reactor)
    if outbox is None:
        outbox = _outboxes[reactor] = Outbox(reactor)
    return outbox


class SendDeferred(AwaitableDeferred[None]):
    """Fires when the transport wants more; fails with :exc:`WebSocketClosedError` when the peer has left.

    Nobody has to wait for a message to be sent, so such a failure is not reported as unhandled.
    """

    @classmethod
    def fired(cls) -> SendDeferred:
        """One that has fired."""
        return _Sent()

    def lose(self) -> None:
        """Say that the connection is gone."""
        if self.called:
            return
        self.errback(WebSocketClosedError("the connection closed before the message was sent"))
        if self._debugInfo is not None:
            # Whoever adds a callback later takes the failure over.
            self._debugInfo.failResult = None


class _Sent(SendDeferred):
    """One that has fired. There is one for each message, hence no code that says so to each."""

    called = True
    result = None


def payload_of(message: str | bytes | Mapping[str, Any]) -> bytes:
    """A message as bytes: text as UTF-8, a mapping as JSON.

    :raises TypeError: it is something else.
    """
    if isinstance(message, str):
        return message.encode()
    if isinstance(message, bytes):
        return message
    if isinstance(message, Mapping):
        return json_encode(message).encode()
    if isinstance(message, (bytearray, memoryview)):
        return bytes(message)
    raise TypeError(f"a message is text, bytes or a dictionary, not {type(message).__name__}")


def frame_header(first: int, length: int, mask_bit: int) -> bytes:
    """The bytes before mask and payload."""
    if length < 126:
        return bytes((first, length | mask_bit))
    if length < 0x10000:
        return bytes((first, 126 | mask_bit, length >> 8, length & 0xFF))
    return bytes((first, 127 | mask_bit)) + length.to_bytes(8, "big")


class PreparedMessage:
    """A message that is encoded once and sent to many: by :class:`~cycloneish.websocket.Hub`.

    :param message: text, bytes, or a dictionary, which is sent as JSON.
    :param binary: send bytes as a binary message.
    """

    __slots__ = ("binary", "frame", "payload")

    def __init__(self, message: str | bytes | Mapping[str, Any], binary: bool = False) -> None:
        self.payload = payload_of(message)
        self.binary = binary
        opcode = _BINARY if binary else _TEXT
        #: What a server sends to a client without compression.
        self.frame = frame_header(_FIN | opcode, len(self.payload), 0) + self.payload


class Sender:
    """Writes frames, and knows how much of them waits."""

    params: WebSocketParams
    mask_outgoing: bool
    server_terminated: bool
    client_terminated: bool
    transport: Any

    _deflate: Deflate | None
    _lost: bool
    _write: Callable[[bytes], None]
    #: Bytes written since the transport's buffer was full, and what was in it then.
    _unsent = 0
    _waiters: list[SendDeferred] | None = None
    _stall_timer: Any = None
    #: Bytes that the peer had taken when that was last looked at.
    _taken = 0
    #: Messages that were dropped because the peer reads too slowly.
    dropped_messages = 0

    def __init__(self) -> None:
        # Not defaults in the class, for the same reason as what the receiver has.
        self._writer: Writer | None = None
        self._write_paused = False
        self._message_bytes_out = 0
        self._wire_bytes_out = 0

    @property
    def reactor(self) -> Any:
        """Gives ``callLater`` and ``seconds``."""
        raise NotImplementedError

    def write_message(self, message: str | bytes | Mapping[str, Any], binary: bool = False) -> Deferred[None]:
        """Send a message.

        :param message: text, bytes, or a dictionary, which is sent as JSON.
        :param binary: send it as a binary message.
        :returns: a Deferred that fires when the transport wants more. It fails with
            :exc:`WebSocketClosedError` when the connection is lost before.
        :raises WebSocketClosedError: the connection is closed or closing.
        """
        if self.server_terminated or self.client_terminated:
            raise WebSocketClosedError("the connection is closed")
        data = message if message.__class__ is bytes else payload_of(message)
        size = len(data)
        if self._write_paused and self._unsent + size > self.params.max_unsent and not self._room_for(size):
            return self._too_slow()
        self._message_bytes_out += size
        opcode = _BINARY if binary else _TEXT
        deflate = self._deflate
        if deflate is not None and size >= deflate.min_size:
            return self._write_frame(True, opcode, deflate.compress(data), _RSV1)
        return self._write_frame(True, opcode, data)

    def write_prepared(self, message: PreparedMessage) -> Deferred[None]:
        """Send a message that is sent to others as well; otherwise as :meth:`write_message`."""
        if self._deflate is not None or self.mask_outgoing:
            return self.write_message(message.payload, message.binary)
        if self.server_terminated or self.client_terminated:
            raise WebSocketClosedError("the connection is closed")
        frame = message.frame
        size = len(frame)
        if self._write_paused and self._unsent + size > self.params.max_unsent and not self._room_for(size):
            return self._too_slow()
        self._message_bytes_out += len(message.payload)
        return self._send(frame)

    def _write_frame(self, fin: bool, opcode: int, data: bytes, flags: int = 0) -> Deferred[None]:
        size = len(data)
        if opcode & 0x8:
            if not fin:
                raise ValueError("control frames cannot be fragmented")
            if size > 125:
                raise ValueError(f"control frames have at most 125 bytes of data, not {size}")
        first = (_FIN if fin else 0) | opcode | flags
        if self.mask_outgoing:
            mask = os.urandom(4)
            return self._send(frame_header(first, size, 0x80) + mask + apply_mask(data, mask))
        if size < 126:
            return self._send(bytes((first, size)) + data)
        if size < _LONG:
            return self._send(frame_header(first, size, 0) + data)
        return self._send_long(frame_header(first, size, 0), data)

    def _send(self, frame: bytes) -> Deferred[None]:
        self._wire_bytes_out += len(frame)
        self._write(frame)
        return self._wait(len(frame)) if self._write_paused else _Sent()

    def _send_long(self, header: bytes, data: bytes) -> Deferred[None]:
        """As `_send`, without copying header and payload into one."""
        assert self._writer is not None
        size = len(header) + len(data)
        self._wire_bytes_out += size
        self._writer.write_pieces([header, data])
        return self._wait(size) if self._write_paused else _Sent()

    def _wait(self, size: int) -> Deferred[None]:
        """What fires when the transport wants more than the *size* bytes that it was given last."""
        self._unsent += size
        deferred = SendDeferred()
        if self._lost:
            deferred.lose()
        elif self._waiters is None:
            self._waiters = [deferred]
        else:
            self._waiters.append(deferred)
        return deferred

    # -- a peer that reads slowly ------------------------------------------------------------------

    def pauseProducing(self) -> None:
        """The transport's buffer is full; called again for each write that makes it fuller."""
        if not self._write_paused:
            self._write_paused = True
            self._unsent = unsent(self.transport)
            self._taken = self._wire_bytes_out - self._unsent
            self._stall_timer = self.reactor.callLater(self.params.write_timeout, self._look_at_stall)

    def resumeProducing(self) -> None:
        """The transport's buffer is empty again."""
        self._write_paused = False
        self._unsent = 0
        self._stop_stall_timer()
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if not waiter.called:  # whoever waited may have cancelled it
                waiter.callback(None)

    def stopProducing(self) -> None:
        """The transport is gone; ``connectionLost`` follows."""

    def _room_for(self, size: int) -> bool:
        """Whether *size* bytes may wait, now that the transport is asked what it still has."""
        waits = unsent(self.transport)
        if waits:
            self._unsent = waits
        return self._unsent + size <= self.params.max_unsent

    def _too_slow(self) -> Deferred[None]:
        if self.params.slow_policy == "drop":
            self.dropped_messages += 1
            STATISTICS.dropped_messages += 1
            return SendDeferred.fired()
        STATISTICS.closed_slow += 1
        gen_log.info("closing a WebSocket whose peer reads too slowly: %d bytes wait for it", self._unsent)
        self._fail(TRY_AGAIN_LATER, "reads too slowly")
        lost = SendDeferred()
        lost.lose()
        return lost

    def _look_at_stall(self) -> None:
        self._stall_timer = None
        waits = unsent(self.transport)
        taken = self._wire_bytes_out - waits
        if waits and taken <= self._taken:
            gen_log.info("aborting a WebSocket whose peer reads nothing: %d bytes wait for it", waits)
            self._abort()
            return
        self._taken = taken
        self._stall_timer = self.reactor.callLater(self.params.write_timeout, self._look_at_stall)

    def _stop_stall_timer(self) -> None:
        timer, self._stall_timer = self._stall_timer, None
        if timer is not None:
            timer.cancel()

    def _lose_waiters(self) -> None:
        self._stop_stall_timer()
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            waiter.lose()

    def _fail(self, code: int, reason: str) -> None:
        raise NotImplementedError

    def _abort(self) -> None:
        raise NotImplementedError
