"""From a URL to a bus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from .core import Bus
from .memory import MemoryTransport
from .transport import Transport

if TYPE_CHECKING:
    from ..amqp import Broker

__all__ = ["open_bus"]


def open_bus(where: Any, *, max_payload: int = 1024 * 1024, reactor: Any = None, **options: Any) -> Bus:
    """A bus for what *where* names, not yet started.

    :param where: ``"memory:"`` for one process; ``postgresql://…`` or ``embedded:…``, or a
        :class:`~cycloneish.db.postgres.Pool` that the program has anyway; ``amqp://…`` or ``amqps://…``, or
        the program's :class:`~cycloneish.amqp.AMQP`. A pool or a connection that is given is neither started
        nor stopped by the bus.
    :param max_payload: bytes that an encoded payload may have.
    :param options: those of the transport, see :class:`~cycloneish.bus.postgres.PostgresTransport` and
        :class:`~cycloneish.bus.amqp.AMQPTransport`.
    :raises ValueError: for any other URL; its text never shows the URL, which may hold a password.
    """
    return Bus(_transport(where, options, reactor), max_payload=max_payload, reactor=reactor)


def _transport(where: Any, options: dict[str, Any], reactor: Any) -> Transport:
    if not isinstance(where, str):
        if hasattr(where, "listen") and hasattr(where, "notify"):
            from .postgres import PostgresTransport

            return PostgresTransport(where, **options)
        if hasattr(where, "declare_exchange"):
            from .amqp import AMQPTransport

            return AMQPTransport(where, **options)
        raise TypeError(
            f"a bus is opened from a URL, a Pool or an AMQP service, not from {type(where).__name__}"
        )
    scheme = where.partition(":")[0]
    if where == "memory:":
        return MemoryTransport(**options)
    if scheme in ("postgresql", "postgres", "embedded"):
        from ..db.urls import open_database
        from .postgres import PostgresTransport

        return PostgresTransport(open_database(where, reactor=reactor, max_size=2), owns_pool=True, **options)
    if scheme in ("amqp", "amqps"):
        from ..amqp.service import AMQP
        from .amqp import AMQPTransport

        return AMQPTransport(cast("Broker", AMQP(where, reactor=reactor)), owns_broker=True, **options)
    raise ValueError("a bus URL is memory:, or begins with postgresql://, embedded:, amqp:// or amqps://")
