"""From a URL to the queues that it names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from .memory import MemoryTransport
from .transport import Transport

if TYPE_CHECKING:
    from ..amqp import Broker

__all__ = ["open_transport"]


def open_transport(where: Any, options: dict[str, Any]) -> Transport:
    """The transport for *where*.

    :raises ValueError: for a URL of another kind; its text never shows it, as it may hold a password.
    """
    if where == "memory:":
        return MemoryTransport(**options)
    if isinstance(where, str) and where.partition(":")[0] in ("amqp", "amqps"):
        from ..amqp.service import AMQP
        from .amqp import AMQPTransport

        return AMQPTransport(cast("Broker", AMQP(where)), owns_broker=True, **options)
    if hasattr(where, "declare_exchange"):
        from .amqp import AMQPTransport

        return AMQPTransport(where, **options)
    raise ValueError("tasks are sent to memory:, or to a URL that begins with amqp:// or amqps://")
