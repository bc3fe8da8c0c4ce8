"""What was declared: remembered once, made again after every reconnect.

The service records an entry when the broker has accepted it, or while there is no connection.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["Topology"]

#: The name of the specification's method, and its arguments.
Operation = tuple[str, tuple[Any, ...]]


class Topology:
    """Exchanges, queues and bindings in the order in which they were declared."""

    def __init__(self) -> None:
        self._entries: dict[tuple[Any, ...], Operation] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, key: tuple[Any, ...], operation: Operation) -> None:
        """Remember *operation*; the same key takes the place it had."""
        self._entries[key] = operation

    def remove(self, key: tuple[Any, ...]) -> None:
        """Forget one entry."""
        self._entries.pop(key, None)

    def forget(self, kind: str, name: str) -> None:
        """Forget a queue or an exchange with its bindings."""
        self._entries.pop((kind, name), None)
        place = 1 if kind == "queue" else 2
        for key in [key for key in self._entries if key[0] == "bind" and key[place] == name]:
            del self._entries[key]

    def operations(self) -> list[Operation]:
        """All of them, in order."""
        return list(self._entries.values())

    def of_queue(self, name: str) -> Iterator[Operation]:
        """What makes the queue *name*, and its bindings."""
        for key, operation in list(self._entries.items()):
            if key[0] in ("queue", "bind") and key[1] == name:
                yield operation
