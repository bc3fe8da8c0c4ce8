"""The settings of one connection; a handler makes them from the application's, a client from arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

__all__ = ["DEFAULT_MAX_MESSAGE_SIZE", "STATISTICS", "SlowPolicy", "Statistics", "WebSocketParams"]

DEFAULT_MAX_MESSAGE_SIZE: Final = 10 * 1024 * 1024
SlowPolicy = Literal["close", "drop"]


@dataclass(slots=True)
class WebSocketParams:
    """Sizes are bytes, times are seconds."""

    ping_interval: float | None = None
    """Between two pings; None or 0 for none."""
    ping_timeout: float | None = None
    """That an answer may take; None for the interval, 0 for any time."""
    max_message_size: int = DEFAULT_MAX_MESSAGE_SIZE
    """Of a received message, after decompression; close code 1009."""
    compression_options: Mapping[str, Any] | None = None
    """See :meth:`~cycloneish.websocket.WebSocketHandler.get_compression_options`; None for no compression."""
    max_unsent: int = 16 * 1024 * 1024
    """What may wait for a peer that reads too slowly."""
    slow_policy: SlowPolicy = "close"
    """What becomes of a message beyond that: the connection is closed with 1013, or the message dropped."""
    write_timeout: float = 300.0
    """Time in which a peer may take nothing of what waits for it; the connection is aborted."""
    close_timeout: float = 5.0
    """Time for the answer to a close frame; the connection is aborted."""
    reactor: Any = None
    """Gives the time; the global one where None."""


@dataclass(slots=True)
class Statistics:
    """Counts of the process; monitoring reads them."""

    open: int = 0
    """Connections, of servers and clients."""
    closed_slow: int = 0
    """Connections closed because their peers read too slowly."""
    dropped_messages: int = 0
    """Messages dropped for that reason, where the policy is to drop."""
    by_close_code: dict[int | None, int] = field(default_factory=dict)
    """Ended connections by their close codes, None for those without one."""


STATISTICS: Final = Statistics()
"""The counts of this process."""
