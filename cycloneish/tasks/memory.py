"""Queues in memory: for one process, and for tests. What is in them when the process ends is lost."""

from __future__ import annotations

import heapq
import itertools
import logging
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed

from .errors import QueueFull
from .message import Envelope
from .transport import Consumption, Delivery

__all__ = ["MemoryTransport"]

log = logging.getLogger("cycloneish.tasks")


class _Delivery:
    """A message in a worker's hands."""

    __slots__ = ("_consumption", "envelope", "is_lost", "queue", "redelivered")

    def __init__(self, consumption: _Consumption, envelope: Envelope, queue: str, redelivered: bool) -> None:
        self._consumption = consumption
        self.envelope = envelope
        self.queue = queue
        self.redelivered = redelivered
        self.is_lost = False

    def ack(self) -> Deferred[None]:
        self._consumption.settle(self)
        return succeed(None)

    def give_back(self) -> Deferred[None]:
        if self._consumption.settle(self):
            self._consumption.transport.put_back(self.envelope, self.queue)
        return succeed(None)


class _Consumption:
    """One worker's share."""

    def __init__(
        self,
        transport: MemoryTransport,
        queues: Sequence[str],
        prefetch: int,
        deliver: Callable[[Delivery], None],
    ) -> None:
        self.transport = transport
        self.queues = list(queues)
        self.prefetch = prefetch
        self.deliver = deliver
        self.held: set[_Delivery] = set()

    def settle(self, delivery: _Delivery) -> bool:
        if delivery not in self.held:
            return False
        self.held.discard(delivery)
        self.transport.distribute()
        self.transport.check_idle()
        return True

    def cancel(self) -> Deferred[None]:
        if self in self.transport.consumptions:
            self.transport.consumptions.remove(self)
        return succeed(None)


class MemoryTransport:
    """Queues in this process's memory.

    :param max_queued: messages that wait, delayed ones included, before sending fails with
        :exc:`~cycloneish.tasks.QueueFull`.
    :param max_dead: dead letters of a queue that are kept: the newest.
    """

    def __init__(self, *, max_queued: int = 100_000, max_dead: int = 1000) -> None:
        self.max_queued = max_queued
        self.max_dead = max_dead
        #: Whether delays are left out, in tests.
        self.hurries = False
        self.consumptions: list[_Consumption] = []
        #: The dead letters by the names of their queues, oldest first.
        self.dead: dict[str, list[Envelope]] = {}
        # Entries: minus the priority, a number that keeps the order, the message, whether it came back.
        self._queues: dict[str, list[tuple[int, int, Envelope, bool]]] = {}
        self._delayed: dict[int, tuple[Any, Envelope, str]] = {}
        self._numbers = itertools.count()
        self._numbers_before = itertools.count(-1, -1)
        self._distributing: Any = None
        self._reactor: Any = None
        self._idle_waiters: list[Deferred[None]] = []

    # -- the transport ---------------------------------------------------------------------------

    def start(self, reactor: Any) -> Deferred[None]:
        self._reactor = reactor
        return succeed(None)

    def stop(self) -> Deferred[None]:
        lost = self.queued()
        if lost:
            log.warning("%d tasks were still queued in memory, and are lost", lost)
        if self._distributing is not None and self._distributing.active():
            self._distributing.cancel()
            self._distributing = None
        for timer, _, _ in self._delayed.values():
            timer.cancel()
        self._delayed.clear()
        self._queues.clear()
        self.consumptions.clear()
        self.check_idle()
        return succeed(None)

    def send(self, envelope: Envelope, queue: str, delay: float) -> Deferred[None]:
        if self.queued() >= self.max_queued:
            return fail(QueueFull(f"{self.max_queued} tasks are queued in memory already"))
        number = next(self._numbers)
        if delay > 0 and not self.hurries:
            timer = self._reactor.callLater(delay, self._due, number)
            self._delayed[number] = (timer, envelope, queue)
        else:
            self._put(envelope, queue, number, False)
        return succeed(None)

    def bury(self, envelope: Envelope, queue: str) -> Deferred[None]:
        letters = self.dead.setdefault(queue, [])
        letters.append(envelope)
        del letters[: -self.max_dead]
        return succeed(None)

    def consume(
        self, queues: Sequence[str], prefetch: int, deliver: Callable[[Delivery], None]
    ) -> Deferred[Consumption]:
        consumption = _Consumption(self, queues, prefetch, deliver)
        self.consumptions.append(consumption)
        self.distribute()
        return succeed(consumption)

    # -- for tests -------------------------------------------------------------------------------

    def queued(self) -> int:
        """How many messages wait, delayed ones included."""
        return sum(map(len, self._queues.values())) + len(self._delayed)

    def when_idle(self) -> Deferred[None]:
        """Fires when no message waits, and none is in a worker's hands."""
        waiter: Deferred[None] = Deferred(self._idle_waiters.remove)
        self._idle_waiters.append(waiter)
        self.check_idle()
        return waiter

    def hurry(self) -> None:
        """Deliver what is delayed now."""
        for number, (timer, _, _) in sorted(self._delayed.items()):
            timer.cancel()
            self._due(number)

    # -- inside ----------------------------------------------------------------------------------

    def put_back(self, envelope: Envelope, queue: str) -> None:
        """Put a message in front of the others of its priority."""
        self._put(envelope, queue, next(self._numbers_before), True)

    def check_idle(self) -> None:
        if self.queued() or any(consumption.held for consumption in self.consumptions):
            return
        waiters, self._idle_waiters = self._idle_waiters, []
        for waiter in waiters:
            waiter.callback(None)

    def _due(self, number: int) -> None:
        _, envelope, queue = self._delayed.pop(number)
        self._put(envelope, queue, number, False)

    def _put(self, envelope: Envelope, queue: str, number: int, came_back: bool) -> None:
        entry = (-envelope.priority, number, envelope, came_back)
        heapq.heappush(self._queues.setdefault(queue, []), entry)
        self.distribute()

    def distribute(self) -> None:
        """Hand out what waits, in a turn of the reactor of its own: the sender goes on first."""
        if self._distributing is None and self._reactor is not None:
            self._distributing = self._reactor.callLater(0, self._distribute)

    def _distribute(self) -> None:
        # One each in turn to those who have room; tasks that end at once must not hold the reactor up.
        for _ in range(max([consumption.prefetch for consumption in self.consumptions], default=0)):
            gave = [self._give_one(consumption) for consumption in list(self.consumptions)]
            if not any(gave):
                break
        self._distributing = None
        if any(self._has_room(consumption) for consumption in self.consumptions):
            self.distribute()

    def _has_room(self, consumption: _Consumption) -> bool:
        return len(consumption.held) < consumption.prefetch and any(
            self._queues.get(queue) for queue in consumption.queues
        )

    def _give_one(self, consumption: _Consumption) -> bool:
        if len(consumption.held) >= consumption.prefetch or consumption not in self.consumptions:
            return False
        for queue in consumption.queues:
            waiting = self._queues.get(queue)
            if waiting:
                _, _, envelope, came_back = heapq.heappop(waiting)
                delivery = _Delivery(consumption, envelope, queue, came_back)
                consumption.held.add(delivery)
                consumption.deliver(delivery)
                return True
        return False
