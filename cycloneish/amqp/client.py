"""The wire: txamqp's client with a frame and content path of our own.

:mod:`~cycloneish.amqp.service` opens one for each connection.  From txamqp come the protocol's objects
(:class:`AMQClient`, its channels with one method for each of the specification's) and the roles; ours are
the frames: bytes are parsed in one pass without a Deferred or a queue for each frame, written once for each
turn of the reactor, and bounded; replies belong to the request that was sent, also where that was cancelled.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from struct import Struct
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from .codec import decode_arguments, encode_arguments
from .errors import AMQPError, ConnectionClosed, ConnectionLost, MessageTooBig, ProtocolError, channel_error
from .message import Message
from .specification import specification

from txamqp.client import TwistedDelegate  # isort: skip  (after the specification, which says what to install)
from txamqp.protocol import AMQChannel, AMQClient  # isort: skip

__all__ = ["Channel", "WireClient"]

log = Logger()

_FRAME = Struct("!BHI")
_HEADER = Struct("!BHIHHQ")
_DELIVERY = Struct("!QB")
_CONFIRM = Struct("!QB")
_ACK = Struct("!BHIHHQBB")
_SIZE = Struct("!Q")
_BODY_END = b"\xce"
_HEARTBEAT = b"\x08\0\0\0\0\0\0\xce"
_DELIVER = b"\0\x3c\0\x3c"
_SERVER_ACK = b"\0\x3c\0\x50"
_RETURN = b"\0\x3c\0\x32"
_MOST_CORKED = 65536
_CHANNEL_MAX = 2047

_CAPABILITIES = (
    "publisher_confirms",
    "exchange_exchange_bindings",
    "basic.nack",
    "consumer_cancel_notify",
    "connection.blocked",
    "authentication_failure_close",
)


class Channel(AMQChannel):  # type: ignore[misc]
    """One AMQP channel. Its methods (``queue_declare`` …) are the specification's and go to :meth:`invoke`.

    :ivar on_deliver: called with each :class:`Message`.
    :ivar on_return: called with (code, text, message).
    :ivar on_confirm: called with (delivery tag, multiple, acknowledged).
    :ivar on_cancel: called where the broker cancels the consumer.
    :ivar on_closed: called once with the error, where the broker or the connection closed the channel.
    """

    def __init__(self, number: int, outgoing: Any, client: WireClient) -> None:
        # Not AMQChannel's: its queues for replies and deliveries have no bound, and nobody reads them here.
        self.id = number
        self.outgoing = outgoing
        self.client = client
        self.closed = False
        self.closing = False
        self.reason: AMQPError | None = None
        self.waiting: deque[tuple[Any, Deferred[Any]]] = deque()
        self.on_deliver: Callable[[Message], None] | None = None
        self.on_return: Callable[[int, str, Message], None] | None = None
        self.on_confirm: Callable[[int, int, bool], None] | None = None
        self.on_cancel: Callable[[], None] | None = None
        self.on_closed: Callable[[AMQPError], None] | None = None
        # The content that is coming in: (kind of method, its payload), its header, what came of the body.
        self.content: tuple[bytes, bytes] | None = None
        self.header: bytes = b""
        self.missing = -1
        self.parts: list[bytes] = []

    def invoke(self, method: Any, args: Any, content: Any = None) -> Deferred[Any]:
        """Send a method; fires with the arguments of its answer by name, at once where it has none.

        Cancelling stops the waiting only: the answer that comes later is still matched to this request.
        """
        if self.closed:
            return fail(Failure(self.reason or ConnectionLost("the channel is closed")))
        kinds = [field.type for field in method.fields]
        payload = (
            method.klass.id.to_bytes(2, "big") + method.id.to_bytes(2, "big") + encode_arguments(kinds, args)
        )
        self.client.send(_FRAME.pack(1, self.id, len(payload)) + payload + _BODY_END)
        answer: Deferred[Any] = Deferred(lambda _: None)
        names = method.fields.byname
        nowait = "nowait" in names and args[method.fields.index(names["nowait"])]
        if nowait or not method.responses:
            answer.callback(None)
        else:
            self.waiting.append((method, answer))
        return answer

    def ack(self, tag: int, multiple: bool = False) -> None:
        """Acknowledge a delivery, and all before it where *multiple*."""
        if not self.closed:
            self.client.send(_ACK.pack(1, self.id, 13, 60, 80, tag, multiple, 0xCE))

    def nack(self, tag: int, requeue: bool, multiple: bool = False) -> None:
        """Give a delivery back, or to the dead letters where not *requeue*."""
        if not self.closed:
            self.client.send(_ACK.pack(1, self.id, 13, 60, 120, tag, multiple | requeue << 1, 0xCE))

    def answered(self, method: Any, arguments: list[Any]) -> None:
        """The peer's answer to the oldest request, in the order of AMQP (section 4.7: one at a time)."""
        if not self.waiting or method not in self.waiting[0][0].responses:
            raise ProtocolError(f"{method.klass.name}.{method.name} answers nothing that was asked")
        _, answer = self.waiting.popleft()
        if not answer.called:
            names = [field.name.replace("-", "_") for field in method.fields]
            answer.callback(dict(zip(names, arguments, strict=True)))

    def do_close(self, reason: AMQPError) -> None:
        """The channel is over: everybody who waits is told."""
        if self.closed:
            return
        self.closed = True
        self.reason = reason
        self.client.channels.pop(self.id, None)
        waiting, self.waiting = self.waiting, deque()
        for _, answer in waiting:
            if not answer.called:
                answer.errback(Failure(reason))
        if self.on_closed is not None:
            self.on_closed(reason)

    close = do_close

    def shut(self) -> Deferred[None]:
        """Close in order; what was delivered and not acknowledged goes back to the queue."""
        if self.closed:
            done: Deferred[None] = Deferred()
            done.callback(None)
            return done
        self.on_closed = None
        self.closing = True

        def closed(_: Any) -> None:
            self.do_close(ConnectionLost("the channel was closed"))

        return self.channel_close(200, "", 0, 0).addBoth(closed)  # type: ignore[no-any-return]


class _Delegate(TwistedDelegate):  # type: ignore[misc]
    """What the broker asks of the client, by the names that txamqp's Delegate looks for."""

    client: WireClient

    def connection_start(self, channel: Channel, arguments: list[Any]) -> None:
        if b"PLAIN" not in arguments[3].split():
            raise ProtocolError("the broker does not offer the PLAIN mechanism")
        user, password = self.client.credentials
        properties = {
            "product": "cycloneish",
            "platform": "Twisted",
            "capabilities": dict.fromkeys(_CAPABILITIES, True),
            **({"connection_name": self.client.name} if self.client.name else {}),
        }
        self.client.server_properties = arguments[2]
        channel.connection_start_ok(properties, "PLAIN", f"\0{user}\0{password}", "en_US")

    def connection_tune(self, channel: Channel, arguments: list[Any]) -> None:
        self.client.tuned(*arguments)

    def connection_close(self, channel: Channel, arguments: list[Any]) -> None:
        channel.connection_close_ok()
        self.client.drop(ConnectionClosed(arguments[0], arguments[1]))

    def connection_blocked(self, channel: Channel, arguments: list[Any]) -> None:
        self.client.set_blocked(arguments[0] or "blocked")

    def connection_unblocked(self, channel: Channel, arguments: list[Any]) -> None:
        self.client.set_blocked(None)

    def channel_flow(self, channel: Channel, arguments: list[Any]) -> None:
        channel.channel_flow_ok(arguments[0])

    def channel_close(self, channel: Channel, arguments: list[Any]) -> None:
        channel.channel_close_ok()
        channel.do_close(channel_error(arguments[0], arguments[1]))

    def basic_cancel(self, channel: Channel, arguments: list[Any]) -> None:
        if channel.on_cancel is not None:
            channel.on_cancel()

    def basic_nack(self, channel: Channel, arguments: list[Any]) -> None:
        if channel.on_confirm is not None:
            channel.on_confirm(arguments[0], arguments[1], False)

    def close(self, reason: Any) -> None:
        pass


class WireClient(AMQClient):  # type: ignore[misc]
    """One connection.

    :param reactor: gives the time and the turns.
    :param heartbeat: seconds that are proposed; the smaller of the two sides' wishes counts.
    :param frame_max: bytes of a frame that are proposed, the same way.
    :param max_message_size: bytes of a body; a peer that sends more is dropped.
    """

    channelClass = Channel
    channels: dict[int, Channel]

    def __init__(
        self,
        reactor: Any,
        *,
        vhost: str,
        user: str,
        password: str,
        heartbeat: int,
        frame_max: int = 131072,
        max_message_size: int = 134217728,
        name: str = "",
    ) -> None:
        super().__init__(_Delegate(), vhost, specification(), heartbeat=0, clock=reactor)
        self.credentials = user, password
        self.name = name
        self.frame_max = frame_max
        self.max_message_size = max_message_size
        self.heartbeat = heartbeat
        self.channel_max = _CHANNEL_MAX
        self.server_properties: dict[str, Any] = {}
        self.blocked: str | None = None
        self.on_blocked: Callable[[str | None], None] | None = None
        self.on_lost: Callable[[AMQPError], None] | None = None
        self.ready: Deferred[None] = Deferred(lambda _: self.drop(ConnectionLost("given up")))
        self.over: Deferred[None] = Deferred()
        self._reason: AMQPError | None = None
        self._rest = b""
        self._out: list[bytes] = []
        self._corked = 0
        self._flush_call: Any = None
        self._beat_call: Any = None
        self._heard = self._spoke = False
        self._silent = 0
        self._receiving = False
        self._tuned = False

    # Opening and closing

    def connectionMade(self) -> None:
        """Twisted: the socket is open. AMQP 0-9-1, section 4.2.2."""
        self.transport.setTcpNoDelay(True)
        self.channels[0] = self._channel(0)
        self.transport.write(b"AMQP\0\0\x09\x01")

    def tuned(self, channel_max: int, frame_max: int, heartbeat: int) -> None:
        """The broker's limits came: agree on the smaller ones (0 is none), and open the virtual host."""
        if self._tuned:
            raise ProtocolError("the broker sent connection.tune twice")
        self._tuned = True
        if 0 < frame_max < 4096:
            raise ProtocolError(f"the broker wants frames of {frame_max} bytes; 4096 are the least")
        self.channel_max = min(channel_max or _CHANNEL_MAX, _CHANNEL_MAX)
        self.frame_max = min(frame_max or self.frame_max, self.frame_max)
        self.heartbeat = min(heartbeat or self.heartbeat, self.heartbeat or heartbeat)
        channel = self.channels[0]
        channel.connection_tune_ok(self.channel_max, self.frame_max, self.heartbeat)
        if self.heartbeat:
            self._beat_call = self.clock.callLater(self.heartbeat / 2, self._beat)
        channel.connection_open(self.vhost).addCallbacks(lambda _: self._opened(), lambda _: None)

    def _opened(self) -> None:
        if not self.ready.called:
            self.ready.callback(None)

    def _channel(self, number: int) -> Channel:
        channel: Channel = self.channelFactory(number, self.outgoing, self)
        return channel

    def open_channel(self) -> Deferred[Channel]:
        """Fires with a new channel."""
        if self._reason is not None:
            return fail(Failure(self._reason))
        number = next((n for n in range(1, self.channel_max + 1) if n not in self.channels), 0)
        if not number:
            return fail(Failure(AMQPError(f"all {self.channel_max} channels of the connection are in use")))
        channel = self.channels[number] = self._channel(number)

        def given_up(failure: Failure) -> Failure:
            if not channel.closed:
                channel.shut()
            return failure

        return channel.channel_open().addCallbacks(lambda _: channel, given_up)  # type: ignore[no-any-return]

    def shut(self, timeout: float) -> Deferred[None]:
        """Close in order, and hard where the broker does not answer within *timeout* seconds."""
        if self._reason is None:
            self.channels[0].connection_close(200, "bye", 0, 0).addBoth(
                lambda _: self.drop(ConnectionLost("the connection was closed"))
            )
            timer = self.clock.callLater(timeout, self.drop, ConnectionLost("closed without an answer"), True)
            self.over.addBoth(lambda _: timer.active() and timer.cancel())
        waiter: Deferred[None] = Deferred()
        self.over.addCallback(lambda _: waiter.callback(None))
        return waiter

    def drop(self, reason: AMQPError, hard: bool = False) -> None:
        """End the connection for *reason*, and tell everybody who waits."""
        if self._reason is None:
            self._reason = reason
            self.flush()
            self.closed = True
            for call in (self._beat_call, self._flush_call):
                if call is not None and call.active():
                    call.cancel()
            for channel in sorted(self.channels.values(), key=lambda one: -one.id):
                channel.do_close(reason)
            if not self.ready.called:
                self.ready.errback(Failure(reason))
            if self.on_lost is not None:
                self.on_lost(reason)
        if self.transport is not None:
            if hard:
                self.transport.abortConnection()
            else:
                self.transport.loseConnection()

    def connectionLost(self, reason: Any = None) -> None:
        """Twisted: the socket is closed."""
        text = reason.getErrorMessage() if reason is not None else ""
        self.drop(ConnectionLost(f"the connection to the broker was lost: {text}"))
        if not self.over.called:
            self.over.callback(None)

    def set_blocked(self, reason: str | None) -> None:
        """The broker takes no messages for now, or takes them again."""
        self.blocked = reason
        if self.on_blocked is not None:
            self.on_blocked(reason)

    # Writing: one write for each turn

    def send(self, data: bytes) -> None:
        """Put *data* on the wire with everything else that is sent in this turn of the reactor."""
        self._out.append(data)
        self._corked += len(data)
        if self._corked > _MOST_CORKED:
            self.flush()
        elif self._flush_call is None and not self._receiving:
            self._flush_call = self.clock.callLater(0, self._flush_later)

    def _flush_later(self) -> None:
        self._flush_call = None
        self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if self._out:
            data = b"".join(self._out)
            self._out.clear()
            self._corked = 0
            self._spoke = True
            if self.transport is not None:
                self.transport.write(data)

    def content_frames(self, number: int, properties: bytes, body: bytes) -> bytes:
        """Header and body frames of a message on channel *number*; the body is split by the agreed size."""
        size = len(body)
        head = _HEADER.pack(2, number, 12 + len(properties), 60, 0, size) + properties + _BODY_END
        most = self.frame_max - 8
        if size <= most:
            return head + _FRAME.pack(3, number, size) + body + _BODY_END if size else head
        parts = [head]
        for start in range(0, size, most):
            part = body[start : start + most]
            parts += (_FRAME.pack(3, number, len(part)), part, _BODY_END)
        return b"".join(parts)

    def _beat(self) -> None:
        """Twice in each heartbeat: say that we live, and see whether the peer does (section 4.2.7)."""
        self._silent = 0 if self._heard else self._silent + 1
        self._heard = False
        if self._silent >= 4:
            self.drop(
                ConnectionLost(f"no sign of life from the broker for {2 * self.heartbeat} s"), hard=True
            )
            return
        if not self._spoke:
            self.send(_HEARTBEAT)
            self.flush()
        self._spoke = False
        self._beat_call = self.clock.callLater(self.heartbeat / 2, self._beat)

    # Reading

    def dataReceived(self, data: bytes) -> None:
        """Twisted: bytes came. Whatever is wrong with them ends the connection and nothing else."""
        if self._reason is not None:
            return
        self._heard = True
        self._receiving = True
        try:
            self._rest = self._frames(self._rest + data if self._rest else data)
        except AMQPError as error:
            log.error("AMQP: the broker was dropped: {error}", error=error)
            self.drop(error, hard=True)
        except Exception as error:
            log.failure("AMQP: the broker's bytes could not be worked on")
            self.drop(ProtocolError(f"{type(error).__name__}: {error}"), hard=True)
        finally:
            self._receiving = False
            self.flush()

    def _frames(self, data: bytes) -> bytes:
        """Work on every whole frame in *data*; what is left over."""
        position = 0
        end = len(data)
        channels = self.channels
        unpack = _FRAME.unpack_from
        while end - position >= 7:
            kind, number, size = unpack(data, position)
            if size > self.frame_max:
                raise ProtocolError(f"a frame of {size} bytes came, where {self.frame_max} are agreed upon")
            start = position + 7
            stop = start + size
            if stop >= end:
                break
            if data[stop] != 0xCE:
                raise ProtocolError("a frame does not end where it says")
            position = stop + 1
            channel = channels.get(number)
            if channel is None:
                continue  # what was on its way while the channel closed
            if kind == 3:
                self._body(channel, data[start:stop])
            elif kind == 2:
                if channel.content is None or channel.missing >= 0 or size < 14:
                    raise ProtocolError("a content header came where none was to come")
                (channel.missing,) = _SIZE.unpack_from(data, start + 4)
                channel.header = data[start + 12 : stop]
                if channel.missing > self.max_message_size:
                    raise ProtocolError(
                        f"a message of {channel.missing} bytes came, above {self.max_message_size}"
                    )
                if not channel.missing:
                    self._complete(channel, b"")
            elif kind == 1:
                name = data[start : start + 4]
                if channel.content is not None:
                    raise ProtocolError("a method came in the middle of a message")
                if name in (_DELIVER, _RETURN):
                    channel.content = name, data[start + 4 : stop]
                elif name == _SERVER_ACK and size == 13:
                    if channel.on_confirm is not None:
                        tag, multiple = _CONFIRM.unpack_from(data, start + 4)
                        channel.on_confirm(tag, multiple, True)
                else:
                    self._method(channel, data[start:stop])
            elif kind != 8:
                raise ProtocolError(f"frames of type {kind} are not AMQP 0-9-1")
            if self._reason is not None:
                return b""
        return data[position:] if position else data

    def _body(self, channel: Channel, data: bytes) -> None:
        missing = channel.missing - len(data)
        if channel.content is None or missing < 0 or not data:
            raise ProtocolError("more of a body came than its header says")
        if missing:
            channel.missing = missing
            channel.parts.append(data)
            return
        if channel.parts:
            channel.parts.append(data)
            data = b"".join(channel.parts)
            channel.parts = []
        self._complete(channel, data)

    def _complete(self, channel: Channel, body: bytes) -> None:
        name, method = channel.content  # type: ignore[misc]
        channel.content = None
        channel.missing = -1
        if name == _DELIVER:
            if channel.on_deliver is not None:
                at = 1 + method[0]
                tag, redelivered = _DELIVERY.unpack_from(method, at)
                channel.on_deliver(Message(body, tag, redelivered != 0, method[at + 9 :], channel.header))
        elif channel.on_return is not None:
            code, text, exchange, key = decode_arguments(
                ("short", "shortstr", "shortstr", "shortstr"), method
            )
            channel.on_return(code, text, Message(body, 0, False, (exchange, key), channel.header))

    def _method(self, channel: Channel, payload: bytes) -> None:
        try:
            klass = self.spec.classes.byid[int.from_bytes(payload[:2], "big")]
            method = klass.methods.byid[int.from_bytes(payload[2:4], "big")]
        except KeyError:
            raise ProtocolError(f"unknown method {payload[:4].hex()}") from None
        arguments = decode_arguments([field.type for field in method.fields], payload, 4)
        if channel.closing and not method.response and method.name != "close":
            return
        if method.response:
            channel.answered(method, arguments)
        elif hasattr(self.delegate, f"{klass.name}_{method.name}".replace("-", "_")):
            self.delegate.dispatch(channel, _Asked(method, arguments))
        else:
            raise ProtocolError(f"the broker sent {klass.name}.{method.name}, which is the client's to send")

    def check_size(self, body: bytes) -> None:
        """
        :raises MessageTooBig: for a body that is larger than ``max_message_size``.
        """
        if len(body) > self.max_message_size:
            raise MessageTooBig(f"{len(body)} bytes; max_message_size is {self.max_message_size}")


class _Asked(list[Any]):
    """Arguments of a method with the method beside them, which txamqp's Delegate looks for."""

    def __init__(self, method: Any, arguments: list[Any]) -> None:
        super().__init__(arguments)
        self.method = method
