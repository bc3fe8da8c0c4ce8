"""What travels over a bus: messages and gaps, channel names, and what can go wrong.

Every transport carries the same two things, a channel name and the bytes of a payload, so what may be
published does not depend on the transport.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

__all__ = [
    "LONGEST_CHANNEL",
    "BusClosed",
    "BusError",
    "Gap",
    "Message",
    "PayloadTooLarge",
    "SlowSubscriber",
    "check_channel",
    "encode",
    "quote_channel",
]

#: Bytes of a channel's name in UTF-8, escapes included: what fits into an AMQP routing key.
LONGEST_CHANNEL = 200

_SURELY_SHORT = LONGEST_CHANNEL // 9
_UNREAD = object()
#: The wildcards of AMQP's topic exchanges, and what separates a name from what follows it.
_SPECIAL = re.compile(r"[%*#\s\x00-\x1f\x7f]")


class BusError(Exception):
    """Base of what a bus raises itself; a transport's errors (a lost connection) go through as they are."""


class BusClosed(BusError):
    """The bus is stopped, was never started, or the subscription has ended."""


class SlowSubscriber(BusError):
    """The subscription was ended because its queue was full and its policy is ``"disconnect"``."""


class PayloadTooLarge(BusError, ValueError):
    """The encoded payload has more bytes than the bus allows."""


class Message:
    """One published message; all subscribers of a process share the object, so treat `data` as read-only.

    :ivar channel: the channel it was published on.
    :ivar raw: the payload's bytes: JSON in ASCII, or what was published as bytes.
    :ivar is_binary: whether bytes were published.
    """

    __slots__ = ("_data", "channel", "is_binary", "raw")

    def __init__(self, channel: str, raw: bytes, is_binary: bool = False) -> None:
        self.channel = channel
        self.raw = raw
        self.is_binary = is_binary
        self._data: Any = raw if is_binary else _UNREAD

    @property
    def data(self) -> Any:
        """What was published: bytes, or the value that its JSON stands for.

        :raises ValueError: when another program published something that is no JSON.
        """
        if self._data is _UNREAD:
            self._data = json.loads(self.raw)
        return self._data

    @property
    def text(self) -> str:
        """The JSON as it travelled, ready for a browser without being encoded again."""
        return self.raw.decode("utf-8")

    def __repr__(self) -> str:
        return f"<Message on {self.channel!r}, {len(self.raw)} bytes>"


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages are missing at this place of a subscription: read the current state anew.

    :ivar reason: ``"slow"``: the subscriber was too slow and its queue full; ``"reconnect"``: the connection
        was lost, and is there again.
    :ivar missed: how many are missing; None where nobody can know.
    """

    reason: Literal["slow", "reconnect"]
    missed: int | None = None

    def joined(self, other: Gap | None) -> Gap:
        """One gap for two that meet."""
        if other is None:
            return self
        if self.missed is None or other.missed is None:
            return Gap("reconnect")
        return Gap("slow", self.missed + other.missed)


def check_channel(channel: str) -> str:
    """*channel*, if it can be the name of one.

    :raises ValueError: for an empty name, or one of more than `LONGEST_CHANNEL` bytes once special characters
        are escaped.
    :raises TypeError: when it is no text.
    """
    if not isinstance(channel, str):
        raise TypeError(f"a channel is named by a str, not by {type(channel).__name__}")
    size = len(channel)
    # A character becomes nine bytes at most.
    if not size or (size > _SURELY_SHORT and len(quote_channel(channel).encode("utf-8")) > LONGEST_CHANNEL):
        raise ValueError(f"a channel's name has 1 to {LONGEST_CHANNEL} bytes: {channel[:80]!r}")
    return channel


def quote_channel(channel: str) -> str:
    """*channel* without blanks, control characters and AMQP's wildcards: percent-encoded, like a URL."""
    if channel.isalnum() and channel.isascii():
        return channel
    return _SPECIAL.sub(_percent, channel)


def _percent(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found.group().encode("utf-8"))


def encode(data: object, most: int) -> tuple[bytes, bool]:
    """The bytes of a payload, and whether it was bytes already.

    :param most: bytes allowed.
    :raises PayloadTooLarge: when there are more.
    :raises TypeError: when *data* is neither bytes nor JSON.
    :raises ValueError: for what JSON cannot say: NaN, infinity, a circle.
    """
    if isinstance(data, bytes | bytearray | memoryview):
        raw, is_binary = bytes(data), True
    else:
        raw, is_binary = _to_json(data).encode("ascii"), False
    if len(raw) > most:
        raise PayloadTooLarge(f"the payload has {len(raw)} bytes, this bus allows {most}")
    return raw, is_binary


#: ASCII alone, so that it can be cut anywhere.
_to_json: Callable[[object], str] = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
