"""A message as its handler sees it. Properties are decoded when they are first looked at.

Made by the wire client and by the in-memory broker.
"""

from __future__ import annotations

from typing import Any

from .bodies import decode_body
from .codec import decode_properties

__all__ = ["ATTEMPT", "Message"]

#: Header that counts the attempts before this one.
ATTEMPT = "x-cycloneish-attempt"


class Message:
    """One delivery.

    :ivar body: the bytes that were published.
    :ivar delivery_tag: its number on the consumer's channel.
    :ivar redelivered: whether it was given to a consumer before, which may have worked on it.
    """

    __slots__ = ("_envelope", "_properties", "_raw", "body", "delivery_tag", "redelivered")

    def __init__(
        self,
        body: bytes,
        delivery_tag: int,
        redelivered: bool,
        envelope: bytes | tuple[str, str],
        properties: bytes | dict[str, Any],
    ) -> None:
        self.body = body
        self.delivery_tag = delivery_tag
        self.redelivered = redelivered
        self._envelope = envelope
        self._raw = properties
        self._properties: dict[str, Any] | None = None

    def _names(self) -> tuple[str, str]:
        envelope = self._envelope
        if isinstance(envelope, bytes):
            size = envelope[0]
            exchange = envelope[1 : 1 + size].decode("utf-8", "replace")
            key = envelope[2 + size : 2 + size + envelope[1 + size]]
            envelope = self._envelope = exchange, key.decode("utf-8", "replace")
        return envelope

    @property
    def exchange(self) -> str:
        """Where it was published; empty for the default exchange."""
        return self._names()[0]

    @property
    def routing_key(self) -> str:
        """What it was published with."""
        return self._names()[1]

    @property
    def properties(self) -> dict[str, Any]:
        """All properties that the message has, by their AMQP names with underscores."""
        found = self._properties
        if found is None:
            raw = self._raw
            found = self._properties = decode_properties(raw) if isinstance(raw, bytes) else raw
        return found

    @property
    def headers(self) -> dict[str, Any]:
        """The application's headers; an empty dict where there are none."""
        return self.properties.get("headers") or {}

    @property
    def content_type(self) -> str | None:
        """Media type of the body."""
        return self.properties.get("content_type")

    @property
    def message_id(self) -> str | None:
        """The publisher's id of it, the same for a copy that was published again."""
        return self.properties.get("message_id")

    @property
    def correlation_id(self) -> str | None:
        """The request that a reply belongs to."""
        return self.properties.get("correlation_id")

    @property
    def reply_to(self) -> str | None:
        """The queue that waits for the reply."""
        return self.properties.get("reply_to")

    @property
    def priority(self) -> int | None:
        """As it was published."""
        return self.properties.get("priority")

    @property
    def expiration(self) -> float | None:
        """Seconds that it may wait in a queue."""
        value = self.properties.get("expiration")
        return int(value) / 1000 if value and value.isdigit() else None

    @property
    def attempt(self) -> int:
        """1 for the first try, 2 for the first retry …"""
        count = self.headers.get(ATTEMPT, 0)
        return count + 1 if isinstance(count, int) and count > 0 else 1

    @property
    def value(self) -> Any:
        """The body decoded by its content type: JSON, msgpack, text; bytes where it is none of these.

        :raises ValueError: when the body is not what its content type says.
        """
        return decode_body(self.body, self.content_type)

    def __repr__(self) -> str:
        exchange, key = self._names()
        return f"<Message {exchange!r} {key!r} {len(self.body)} bytes>"
