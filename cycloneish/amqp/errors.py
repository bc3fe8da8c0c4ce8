"""What can go wrong between a program and its broker: one class for each thing a caller can act upon.

Raised by :class:`~cycloneish.amqp.service.AMQP` and by the in-memory broker alike.
"""

from __future__ import annotations

__all__ = [
    "AMQPError",
    "AccessRefused",
    "CallTimeout",
    "ChannelError",
    "ConnectionClosed",
    "ConnectionLost",
    "MessageNacked",
    "MessageReturned",
    "MessageTooBig",
    "NotFound",
    "Overloaded",
    "PreconditionFailed",
    "ProtocolError",
    "Reject",
    "RemoteError",
    "Requeue",
    "ResourceLocked",
    "Stopped",
    "WaitTimeout",
    "channel_error",
]


class AMQPError(Exception):
    """Anything that went wrong with the broker; the base of all below."""


class ConnectionLost(AMQPError):
    """The connection went away before the answer came: what was asked for may or may not have happened."""


class ConnectionClosed(ConnectionLost):
    """The broker closed the connection and said why.

    :ivar code: AMQP reply code, such as 403 where user or password are wrong and 530 for an unknown vhost.
    :ivar text: the broker's words.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"the broker closed the connection: {code} {text}")
        self.code = code
        self.text = text


class ProtocolError(ConnectionLost):
    """The peer sent what is not AMQP 0-9-1, or more than was agreed upon; the connection was dropped."""


class ChannelError(AMQPError):
    """The broker refused one operation (AMQP 0-9-1, ``channel.close``); everything else goes on.

    :ivar code: AMQP reply code.
    :ivar text: the broker's words.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code = code
        self.text = text


class AccessRefused(ChannelError):
    """403: the user may not do this."""


class NotFound(ChannelError):
    """404: no such exchange or queue."""


class ResourceLocked(ChannelError):
    """405: the queue belongs to another connection alone."""


class PreconditionFailed(ChannelError):
    """406: it exists already with other settings, or the arguments are not allowed."""


_BY_CODE: dict[int, type[ChannelError]] = {
    403: AccessRefused,
    404: NotFound,
    405: ResourceLocked,
    406: PreconditionFailed,
}


def channel_error(code: int, text: str) -> ChannelError:
    """The typed error for an AMQP reply *code*."""
    return _BY_CODE.get(code, ChannelError)(code, text)


class MessageReturned(AMQPError):
    """A ``mandatory`` message reached no queue.

    :ivar code: 312 for no route.
    """

    def __init__(self, code: int, text: str, exchange: str, routing_key: str) -> None:
        super().__init__(f"{code} {text}: exchange {exchange!r}, routing key {routing_key!r}")
        self.code = code
        self.text = text
        self.exchange = exchange
        self.routing_key = routing_key


class MessageNacked(AMQPError):
    """The broker did not take the message (``basic.nack``): a full queue with ``reject-publish``, or an
    error inside the broker."""


class MessageTooBig(AMQPError):
    """A message is larger than ``max_message_size``."""


class Overloaded(AMQPError):
    """More publishes wait than ``max_waiting`` allows: the program makes them faster than they are taken."""


class Stopped(AMQPError):
    """The service is not running, or it was stopped while this waited."""


class WaitTimeout(AMQPError, TimeoutError):
    """No answer in time: a connection, a confirm, an operation."""


class CallTimeout(WaitTimeout):
    """No reply to :meth:`call` in time; the request may still be worked on."""


class RemoteError(AMQPError):
    """The function that was called raised.

    :ivar kind: name of the exception's class over there.
    :ivar text: its text.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind
        self.text = text


class Reject(Exception):
    """Raised by a handler: do not try this message again, it goes to the dead letters at once."""


class Requeue(Exception):
    """Raised by a handler: back to the queue at once, for this or another consumer, and not counted."""
