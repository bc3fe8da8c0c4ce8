"""What a pool tells of itself; made by :meth:`cycloneish.db.postgres.Pool.stats`."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["PoolStats"]


@dataclass(frozen=True, slots=True)
class PoolStats:
    """What a pool's connections do at this moment, and what happened since the pool was made.

    Of the moment: connections there are, idle, in use and being opened, and calls that wait for one.
    Since the beginning (not compared by ``==``): calls that had to wait and then got a connection, the
    seconds that took them together and the longest of them, calls that gave up waiting, connections
    opened, and connections that ended for whatever reason.
    """

    size: int
    idle: int
    in_use: int
    opening: int
    waiting: int
    waits: int = field(default=0, compare=False)
    wait_seconds: float = field(default=0.0, compare=False)
    longest_wait: float = field(default=0.0, compare=False)
    timeouts: int = field(default=0, compare=False)
    opened: int = field(default=0, compare=False)
    lost: int = field(default=0, compare=False)
