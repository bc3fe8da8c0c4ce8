"""What tasks ask of the queues that hold their messages.

Implemented by :mod:`cycloneish.tasks.memory` and :mod:`cycloneish.tasks.amqp`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from .message import Envelope

__all__ = ["Consumption", "Delivery", "Transport"]


class Delivery(Protocol):
    """A message that a worker has, and that nobody else gets until it is given back.

    :ivar redelivered: whether it was delivered before, and came back.
    :ivar is_lost: whether the connection that it came by is gone: somebody else gets it anew.
    """

    envelope: Envelope
    queue: str
    redelivered: bool
    is_lost: bool

    def ack(self) -> Deferred[None]:
        """It is done with: the queue forgets it."""

    def give_back(self) -> Deferred[None]:
        """Somebody else shall have it."""


class Consumption(Protocol):
    """Messages coming in."""

    def cancel(self) -> Deferred[None]:
        """Have no more come; what is held may still be acknowledged or given back. Never fails."""


class Transport(Protocol):
    """Queues of messages."""

    def start(self, reactor: Any) -> Deferred[None]:
        """Begin; fires when it can be used."""

    def stop(self) -> Deferred[None]:
        """End; fires when all is released; never fails."""

    def send(self, envelope: Envelope, queue: str, delay: float) -> Deferred[None]:
        """Put a message into a queue; fires when it is safe there.

        :param delay: seconds before it may be delivered. It may be delivered earlier, and is sent again then.
        """

    def bury(self, envelope: Envelope, queue: str) -> Deferred[None]:
        """Put a message among the dead letters of *queue*; fires when it is safe there."""

    def consume(
        self, queues: Sequence[str], prefetch: int, deliver: Callable[[Delivery], None]
    ) -> Deferred[Consumption]:
        """Have messages come.

        :param prefetch: messages that are delivered and neither acknowledged nor given back, at most.
        """
