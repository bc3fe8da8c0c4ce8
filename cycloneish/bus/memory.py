"""The bus of one process, and of tests: what is published is delivered at once."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed

from .transport import Receiver
from .values import Message

__all__ = ["MemoryTransport"]


class MemoryTransport:
    """Hands messages back to the bus that sent them."""

    def __init__(self) -> None:
        self._receiver: Receiver | None = None

    def start(self, receiver: Receiver, reactor: Any) -> Deferred[None]:
        self._receiver = receiver
        return succeed(None)

    def stop(self) -> Deferred[None]:
        self._receiver = None
        return succeed(None)

    def send(self, message: Message, tx: Any) -> Deferred[None]:
        if tx is not None:
            return fail(TypeError("only a bus over PostgreSQL publishes in a transaction"))
        if self._receiver is not None:
            self._receiver.deliver(message)
        return succeed(None)

    def join(self, channel: str, is_prefix: bool) -> Deferred[None]:
        return succeed(None)

    def leave(self, channel: str, is_prefix: bool) -> Deferred[None]:
        return succeed(None)
