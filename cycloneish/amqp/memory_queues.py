"""The queues and exchanges of the in-memory broker: routing, time to live, lengths, priorities, redelivery.

Used by :mod:`~cycloneish.amqp.memory` alone.
"""

from __future__ import annotations

import time
from bisect import insort
from collections import deque
from collections.abc import Mapping
from itertools import count
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed

from .codec import encode_properties
from .consumer import Consumer
from .message import Message

if TYPE_CHECKING:
    from .memory import MemoryBroker

__all__ = ["Exchange", "Queue", "Stored", "Subscriber", "topic_matches"]

_ORDER = count()


class Stored:
    """A message in a queue."""

    __slots__ = (
        "body", "count", "exchange", "expires", "hops", "order", "properties", "redelivered", "routing_key"
    )  # fmt: skip

    def __init__(self, body: bytes, exchange: str, routing_key: str, properties: dict[str, Any]) -> None:
        self.body = body
        self.exchange = exchange
        self.routing_key = routing_key
        self.properties = properties
        self.redelivered = False
        self.expires: float | None = None
        self.count = 0
        self.order = next(_ORDER)
        self.hops = 0

    def copy(self) -> Stored:
        """The same for another queue."""
        other = Stored(self.body, self.exchange, self.routing_key, dict(self.properties))
        other.hops = self.hops
        return other

    def buried(self, queue: str, routing_key: str, reason: str) -> Stored:
        """As it goes to a dead-letter exchange, with its ``x-death``."""
        properties = dict(self.properties)
        properties.pop("expiration", None)
        headers = dict(properties.get("headers") or {})
        deaths = [dict(one) for one in headers.get("x-death", [])]
        for death in deaths:
            if (death["queue"], death["reason"]) == (queue, reason):
                death["count"] += 1
                deaths.remove(death)
                break
        else:
            keys = [self.routing_key]
            death = {"queue": queue, "reason": reason, "count": 1, "exchange": self.exchange}
            death |= {"routing-keys": keys, "time": int(time.time())}
            headers.setdefault("x-first-death-queue", queue)
            headers.setdefault("x-first-death-reason", reason)
        headers["x-death"] = [death, *deaths]
        properties["headers"] = headers
        other = Stored(self.body, self.exchange, routing_key, properties)
        other.hops = self.hops
        return other

    @property
    def key(self) -> tuple[int, int]:
        """Its place in a queue with priorities."""
        return -(self.properties.get("priority") or 0), self.order


class Exchange:
    """A name, a kind, and bindings (queue, routing key, arguments)."""

    def __init__(self, name: str, kind: str, settings: tuple[Any, ...]) -> None:
        self.name = name
        self.kind = kind
        self.settings = settings
        self.bindings: list[tuple[str, str, dict[str, Any]]] = []

    def queues_for(self, routing_key: str, headers: Mapping[str, Any]) -> set[str]:
        """Names of the queues that get a message."""
        if self.kind == "fanout":
            return {queue for queue, _, _ in self.bindings}
        if self.kind == "direct":
            return {queue for queue, key, _ in self.bindings if key == routing_key}
        if self.kind == "topic":
            return {queue for queue, key, _ in self.bindings if topic_matches(key, routing_key)}
        return {queue for queue, _, arguments in self.bindings if _headers_match(arguments, headers)}


def _headers_match(arguments: Mapping[str, Any], headers: Mapping[str, Any]) -> bool:
    wanted = {key: value for key, value in arguments.items() if not key.startswith("x-")}
    hits = [key in headers and headers[key] == value for key, value in wanted.items()]
    return any(hits) if arguments.get("x-match") == "any" else all(hits)


def topic_matches(pattern: str, routing_key: str) -> bool:
    """Whether *pattern* (``*`` for a word, ``#`` for any number of them) takes *routing_key*."""
    words = routing_key.split(".") if routing_key else []
    reached = {0}
    for part in pattern.split(".") if pattern else []:
        if part == "#":
            reached = set(range(min(reached), len(words) + 1)) if reached else reached
        else:
            reached = {at + 1 for at in reached if at < len(words) and part in ("*", words[at])}
    return len(words) in reached


class Subscriber:
    """A consumer at a queue: the :class:`~cycloneish.amqp.consumer.Link` of the in-memory broker."""

    def __init__(self, queue: Queue, consumer: Consumer) -> None:
        self._queue = queue
        self._consumer = consumer
        self._tag = 0
        self.open: dict[int, Stored] = {}

    @property
    def room(self) -> int:
        """How many more it may hold unacknowledged."""
        return self._consumer.options.prefetch - len(self.open)

    def take(self, stored: Stored) -> None:
        """Deliver a message."""
        self._tag += 1
        self.open[self._tag] = stored
        properties = encode_properties(stored.properties)
        envelope = stored.exchange, stored.routing_key
        self._consumer.deliver(
            self, Message(stored.body, self._tag, stored.redelivered, envelope, properties)
        )

    def ack(self, tag: int) -> None:
        """Done with it."""
        if self.open.pop(tag, None) is not None:
            self._queue.turn()

    def nack(self, tag: int, requeue: bool) -> None:
        """Back to the queue, or to the dead letters."""
        stored = self.open.pop(tag, None)
        if stored is not None:
            if requeue:
                self._queue.put_back([stored])
            else:
                self._queue.bury(stored, "rejected")
            self._queue.turn()

    def cancel(self) -> Deferred[None]:
        """No more deliveries."""
        self._queue.unsubscribe(self)
        return succeed(None)

    def close(self) -> Deferred[None]:
        """Whatever is not acknowledged goes back."""
        stored, self.open = list(self.open.values()), {}
        self._queue.put_back(stored)
        self._queue.unsubscribe(self)
        return succeed(None)

    def gone(self) -> None:
        """The queue was deleted."""
        self.open.clear()
        self._consumer.detached(self)


class Queue:
    """Messages in order, and who takes them in turn."""

    def __init__(
        self, broker: MemoryBroker, reactor: Any, name: str, settings: tuple[Any, ...], owner: Any
    ) -> None:
        self.name = name
        self.settings = settings
        self.auto_delete: bool = settings[2]
        self.arguments: dict[str, Any] = settings[3]
        self.owner = owner
        self._broker = broker
        self._reactor = reactor
        self._messages: deque[Stored] | list[Stored] = deque()
        self._priorities = bool(self.arguments.get("x-max-priority"))
        self._quorum = self.arguments.get("x-queue-type") == "quorum"
        if self._priorities:
            self._messages = []
        self._subscribers: deque[Subscriber] = deque()
        self._turn: Any = None
        self._timer: Any = None
        self._is_deleted = False

    def __len__(self) -> int:
        self._expire()
        return len(self._messages)

    def put(self, message: Stored) -> bool:
        """Take a message; False where the queue is full and says so."""
        most = self.arguments.get("x-max-length")
        if most is not None and len(self._messages) >= most:
            if self.arguments.get("x-overflow") in ("reject-publish", "reject-publish-dlx"):
                return False
            self.bury(self._pop(), "maxlen") if most else None
        lives = [self.arguments[name] for name in ("x-message-ttl",) if name in self.arguments]
        expiration = message.properties.get("expiration")
        if expiration is not None:
            lives.append(int(expiration))
        if lives:
            message.expires = self._reactor.seconds() + min(lives) / 1000
        self._insert(message)
        self.turn()
        return True

    def _insert(self, message: Stored) -> None:
        if isinstance(self._messages, list):
            message.properties["priority"] = min(
                message.properties.get("priority") or 0, self.arguments["x-max-priority"]
            )
            insort(self._messages, message, key=lambda one: one.key)
        else:
            self._messages.append(message)

    def _pop(self) -> Stored:
        return self._messages.pop(0) if isinstance(self._messages, list) else self._messages.popleft()

    def put_back(self, messages: list[Stored]) -> None:
        """Messages that were delivered and not settled go to their old places."""
        if self._is_deleted or not messages:
            return
        limit = self.arguments.get("x-delivery-limit")
        for message in sorted(messages, key=lambda one: one.order, reverse=True):
            message.redelivered = True
            message.count += 1
            if self._quorum:
                message.properties["headers"] = {
                    **(message.properties.get("headers") or {}),
                    "x-delivery-count": message.count,
                }
                if limit is not None and message.count > limit:
                    self.bury(message, "delivery_limit")
                    continue
            if isinstance(self._messages, list):
                insort(self._messages, message, key=lambda one: one.key)
            else:
                at = 0
                while at < len(self._messages) and self._messages[at].order < message.order:
                    at += 1
                self._messages.insert(at, message)
        self.turn()

    def bury(self, message: Stored, reason: str) -> None:
        """A message that is no longer wanted."""
        if not self._is_deleted:
            self._broker.dead_letter(self, message, reason)

    def purge(self) -> int:
        """Drop all that is ready; their number."""
        number = len(self)
        self._messages.clear()
        return number

    def subscribe(self, subscriber: Subscriber) -> None:
        """One more who takes messages."""
        self._subscribers.append(subscriber)
        self.turn()

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """One less."""
        if subscriber in self._subscribers:
            self._subscribers.remove(subscriber)
            if not self._subscribers and self.auto_delete:
                self._broker.delete_queue(self.name)

    def deleted(self) -> None:
        """The broker forgot the queue."""
        self._is_deleted = True
        self._messages.clear()
        for call in (self._turn, self._timer):
            if call is not None and call.active():
                call.cancel()
        subscribers, self._subscribers = self._subscribers, deque()
        for subscriber in subscribers:
            if hasattr(subscriber, "_consumer"):
                subscriber.gone()

    def turn(self) -> None:
        """Deliver in a turn of the reactor of its own, as a network would."""
        if self._is_deleted:
            return
        if self._turn is None:
            self._turn = self._reactor.callLater(0, self._deliver)

    def _deliver(self) -> None:
        self._turn = None
        self._expire()
        tried = 0
        # What comes back at once waits for the next turn.
        left = len(self._messages)
        while self._messages and tried < len(self._subscribers):
            if not left:
                self.turn()
                break
            subscriber = self._subscribers[0]
            self._subscribers.rotate(-1)
            if subscriber.room > 0:
                tried = 0
                left -= 1
                subscriber.take(self._pop())
            else:
                tried += 1
        self._expire()

    def _expire(self) -> None:
        """As RabbitMQ: what is at the head goes when its time is over."""
        now = self._reactor.seconds()
        while self._messages:
            expires = self._messages[0].expires
            if expires is None or expires > now:
                break
            self.bury(self._pop(), "expired")
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        if self._messages and (expires := self._messages[0].expires) is not None and not self._is_deleted:
            self._timer = self._reactor.callLater(max(0.0, expires - now), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._expire()
