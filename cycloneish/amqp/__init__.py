"""AMQP 0-9-1 for Twisted: confirmed publishing, safe consuming, RPC, over RabbitMQ or inside one process.

``AMQP`` is loaded when it is first asked for, as only it needs txamqp; everything else here comes without
the extra.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from .memory import MemoryAMQP, MemoryBroker
    from .service import AMQP

__all__ = [
    "AMQP",
    "AMQPError",
    "AccessRefused",
    "Broker",
    "CallTimeout",
    "ChannelError",
    "ConnectionClosed",
    "ConnectionLost",
    "ConsumerHandle",
    "Handler",
    "MemoryAMQP",
    "MemoryBroker",
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

_LATER = {"AMQP": "service", "MemoryAMQP": "memory", "MemoryBroker": "memory"}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
