"""What a bus asks of the thing that carries its messages between processes.

Implemented by :mod:`cycloneish.bus.memory`, :mod:`cycloneish.bus.postgres` and :mod:`cycloneish.bus.amqp`.
"""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.defer import Deferred

from .values import Message

__all__ = ["Receiver", "Transport"]


class Receiver(Protocol):
    """The bus, as its transport sees it."""

    def deliver(self, message: Message) -> None:
        """A message has arrived; those of one channel in the order in which they were published."""

    def gap(self) -> None:
        """The connection was lost, and is there again with everything joined: messages may be missing."""


class Transport(Protocol):
    """Carries messages."""

    def start(self, receiver: Receiver, reactor: Any) -> Deferred[None]:
        """Begin; fires when it can be used. Whatever comes before waits for that."""

    def stop(self) -> Deferred[None]:
        """End in good order: what was sent is sent. Fires when all is released; never fails."""

    def send(self, message: Message, tx: Any) -> Deferred[None]:
        """Publish; fires when the carrier has taken it, and fails where it may not have."""

    def join(self, channel: str, is_prefix: bool) -> Deferred[None]:
        """Receive a channel, or all channels under a prefix, from now on; fires when that is sure.

        Called once until :meth:`leave`.
        """

    def leave(self, channel: str, is_prefix: bool) -> Deferred[None]:
        """Receive it no more; never fails."""
