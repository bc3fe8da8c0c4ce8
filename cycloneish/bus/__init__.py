"""Publish and subscribe, for live pages: in one process, over PostgreSQL, or over AMQP, with one API::

    bus = open_bus("memory:")          # or "postgresql://…",
    …
    await bus.publish("room/7", {"text": "hello"})
    …
    async with await bus.subscribe("room/7") as room:
        async for item in room:
            if isinstance(item, Gap):
                ...  # messages are missing: read the current state
            else:
                show(item.data)

This package loads no database driver and no broker's library before a bus is opened that needs it.
"""

from __future__ import annotations

from .core import Bus, BusStats
from .opening import open_bus
from .subscription import Item, Overflow, Subscription
from .values import BusClosed, BusError, Gap, Message, PayloadTooLarge, SlowSubscriber

__all__ = [
    "Bus",
    "BusClosed",
    "BusError",
    "BusStats",
    "Gap",
    "Item",
    "Message",
    "Overflow",
    "PayloadTooLarge",
    "SlowSubscriber",
    "Subscription",
    "open_bus",
]
