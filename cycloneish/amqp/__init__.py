"""AMQP 0-9-1 for Twisted: confirmed publishing, safe consuming, RPC, over RabbitMQ or inside one process.

This package needs no extra: the client for RabbitMQ is a module of its own.
"""

from __future__ import annotations

from .errors import (
    AccessRefused,
    AMQPError,
    CallTimeout,
    ChannelError,
    ConnectionClosed,
    ConnectionLost,
    MessageNacked,
    MessageReturned,
    MessageTooBig,
    NotFound,
    Overloaded,
    PreconditionFailed,
    ProtocolError,
    Reject,
    RemoteError,
    Requeue,
    ResourceLocked,
    Stopped,
    WaitTimeout,
)
from .interface import Broker, ConsumerHandle, Handler
from .message import Message

__all__ = [
    "AMQPError",
    "AccessRefused",
    "Broker",
    "CallTimeout",
    "ChannelError",
    "ConnectionClosed",
    "ConnectionLost",
    "ConsumerHandle",
    "Handler",
    "Message",
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
]
