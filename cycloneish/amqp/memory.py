"""A broker inside the process: for unit tests, and for programs that need no second process.

:class:`MemoryBroker` has the exchanges and queues, :class:`MemoryAMQP` is one client of it with the
interface of :class:`~cycloneish.amqp.service.AMQP`; both pass the same behaviour tests.  Nothing outlives the
process, and there is no network that could be lost.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from .base import BrokerBase
from .codec import encode_properties
from .consumer import Consumer
from .errors import (
    AMQPError,
    MessageNacked,
    MessageReturned,
    MessageTooBig,
    NotFound,
    PreconditionFailed,
    ResourceLocked,
    Stopped,
)
from .memory_queues import Exchange, Queue, Stored, Subscriber
from .message import Message

__all__ = ["MemoryAMQP", "MemoryBroker"]

_MOST_HOPS = 16


class MemoryBroker:
    """Exchanges and queues; give one to several :class:`MemoryAMQP` to have them talk to each other."""

    def __init__(self) -> None:
        self.exchanges: dict[str, Exchange] = {
            name: Exchange(name, kind, (True, False, False, {}))
            for name, kind in (
                ("", "direct"),
                ("amq.direct", "direct"),
                ("amq.fanout", "fanout"),
                ("amq.topic", "topic"),
                ("amq.headers", "headers"),
            )
        }
        self.queues: dict[str, Queue] = {}

    def queue(self, name: str) -> Queue:
        """
        :raises NotFound: where there is none of this name.
        """
        if name not in self.queues:
            raise NotFound(404, f"NOT_FOUND - no queue '{name}'")
        return self.queues[name]

    def exchange(self, name: str) -> Exchange:
        """
        :raises NotFound: where there is none of this name.
        """
        if name not in self.exchanges:
            raise NotFound(404, f"NOT_FOUND - no exchange '{name}'")
        return self.exchanges[name]

    def route(self, exchange: str, message: Stored) -> tuple[int, bool]:
        """Put a copy of *message* into each queue that it belongs to; (how many, whether all took it)."""
        found = self.exchange(exchange)
        names = (
            {message.routing_key} & self.queues.keys()
            if not exchange
            else found.queues_for(message.routing_key, message.properties.get("headers") or {})
        )
        taken = [self.queues[name].put(message.copy()) for name in sorted(names) if name in self.queues]
        return len(taken), all(taken)

    def dead_letter(self, queue: Queue, message: Stored, reason: str) -> None:
        """What *queue* no longer wants goes where its arguments say."""
        exchange = queue.arguments.get("x-dead-letter-exchange")
        message.hops += 1
        if exchange is None or exchange not in self.exchanges or message.hops > _MOST_HOPS:
            return
        key = queue.arguments.get("x-dead-letter-routing-key", message.routing_key)
        self.route(exchange, message.buried(queue.name, key, reason))

    def delete_queue(self, name: str) -> None:
        """Remove a queue; its consumers are told."""
        queue = self.queues.pop(name, None)
        for exchange in self.exchanges.values():
            exchange.bindings = [one for one in exchange.bindings if one[0] != name]
        if queue is not None:
            queue.deleted()


class MemoryAMQP(BrokerBase):
    """A client of a :class:`MemoryBroker`, with the interface of :class:`~cycloneish.amqp.service.AMQP`.

    :param broker: one of its own where it is None.
    """

    def __init__(
        self,
        broker: MemoryBroker | None = None,
        *,
        prefetch: int = 20,
        stop_timeout: float = 30.0,
        max_message_size: int = 134217728,
        reactor: Any = None,
    ) -> None:
        super().__init__(reactor, prefetch, stop_timeout)
        self.broker = broker or MemoryBroker()
        self.max_message_size = max_message_size
        self._replies = ""

    @property
    def connected(self) -> bool:
        """Whether the service runs."""
        return bool(self.running)

    def startService(self) -> None:
        """Nothing has to be connected."""
        super().startService()  # type: ignore[no-untyped-call]
        self._tell_watchers(True)

    def stopService(self) -> Deferred[None]:
        """Stop the consumers and wait for what is in flight; exclusive queues go."""
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        for one in [consumer.stop(self.stop_timeout) for consumer in list(self.consumers)]:
            await one
        self._calls_lost(Stopped("the service was stopped"))
        for queue in list(self.broker.queues.values()):
            if queue.owner is self:
                self.broker.delete_queue(queue.name)
        self._replies = ""
        self._tell_watchers(False)

    def when_connected(self, timeout: float | None = None) -> Deferred[None]:
        """Fires at once where the service runs."""
        return succeed(None) if self.running else fail(Failure(Stopped("the service is not running")))

    def _do(self, work: Any, *args: Any) -> Deferred[Any]:
        """Run *work* as an operation: errors come by the Deferred."""
        if not self.running:
            return fail(Failure(Stopped("the service is not running")))
        try:
            return succeed(work(*args))
        except AMQPError:
            return fail(Failure())

    def declare_exchange(
        self,
        name: str,
        kind: str = "direct",
        *,
        durable: bool = True,
        auto_delete: bool = False,
        internal: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> Deferred[None]:
        """Make an exchange."""
        settings = (durable, auto_delete, internal, dict(arguments or {}))

        def declare() -> None:
            if kind not in ("direct", "fanout", "topic", "headers"):
                raise PreconditionFailed(406, f"unknown exchange type '{kind}'")
            found = self.broker.exchanges.setdefault(name, Exchange(name, kind, settings))
            if (found.kind, found.settings) != (kind, settings):
                raise PreconditionFailed(406, f"PRECONDITION_FAILED - exchange '{name}' is another")

        return self._do(declare)

    def declare_queue(
        self,
        name: str = "",
        *,
        durable: bool = True,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> Deferred[str]:
        """Make a queue and fire with its name; an empty *name* is filled in."""
        settings = (durable, exclusive, auto_delete, dict(arguments or {}))

        def declare() -> str:
            chosen = name or f"cycloneish.{uuid.uuid4().hex}"
            found = self.broker.queues.get(chosen)
            if found is None:
                owner = self if exclusive else None
                self.broker.queues[chosen] = Queue(self.broker, self.reactor, chosen, settings, owner)
            elif found.owner not in (None, self):
                raise ResourceLocked(405, f"RESOURCE_LOCKED - queue '{chosen}' is another connection's")
            elif found.settings != settings:
                raise PreconditionFailed(406, f"PRECONDITION_FAILED - queue '{chosen}' is another")
            return chosen

        return self._do(declare)

    def bind(
        self, queue: str, exchange: str, routing_key: str = "", arguments: Mapping[str, Any] | None = None
    ) -> Deferred[None]:
        """Let *exchange* send to *queue*."""
        binding = (queue, routing_key, dict(arguments or {}))

        def bind() -> None:
            self.broker.queue(queue)
            bindings = self.broker.exchange(exchange).bindings
            if binding not in bindings:
                bindings.append(binding)

        return self._do(bind)

    def unbind(
        self, queue: str, exchange: str, routing_key: str = "", arguments: Mapping[str, Any] | None = None
    ) -> Deferred[None]:
        """Take a binding back."""
        binding = (queue, routing_key, dict(arguments or {}))

        def unbind() -> None:
            bindings = self.broker.exchange(exchange).bindings
            if binding in bindings:
                bindings.remove(binding)

        return self._do(unbind)

    def delete_queue(self, name: str) -> Deferred[None]:
        """Remove a queue and what is in it."""
        return self._do(self.broker.delete_queue, name)

    def delete_exchange(self, name: str) -> Deferred[None]:
        """Remove an exchange."""
        return self._do(lambda: self.broker.exchanges.pop(name, None) and None)

    def message_count(self, queue: str) -> Deferred[int]:
        """How many messages are ready in *queue*."""
        return self._do(lambda: len(self.broker.queue(queue)))

    def purge_queue(self, name: str) -> Deferred[int]:
        """Drop the ready messages of a queue; fires with their number."""
        return self._do(lambda: self.broker.queue(name).purge())

    def _send(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: dict[str, Any],
        mandatory: bool,
        timeout: float | None,
    ) -> Deferred[None]:
        if not self.running and not self.consumers:
            return fail(Failure(Stopped("the service is not running")))
        if len(body) > self.max_message_size:
            size = len(body)
            return fail(Failure(MessageTooBig(f"{size} bytes; max_message_size is {self.max_message_size}")))
        try:
            encode_properties(properties)  # what the wire would not take is not taken here
            routed, taken = self.broker.route(exchange, Stored(body, exchange, routing_key, properties))
        except Exception:
            return fail(Failure())
        if mandatory and not routed:
            return fail(Failure(MessageReturned(312, "NO_ROUTE", exchange, routing_key)))
        if not taken:
            return fail(Failure(MessageNacked("the queue is full")))
        return succeed(None)

    def _send_call(
        self, exchange: str, routing_key: str, body: bytes, properties: dict[str, Any], timeout: float
    ) -> Deferred[None]:
        async def send() -> None:
            if not self._replies:
                self._replies = await self.declare_queue("", durable=False, exclusive=True)
                self.broker.queue(self._replies).subscribe(_Replies(self._reply_came))
            properties["reply_to"] = self._replies
            await self._send(exchange, routing_key, body, properties, True, timeout)

        return Deferred.fromCoroutine(send())

    def _subscribe(self, consumer: Consumer) -> Deferred[None]:
        def subscribe() -> None:
            queue = self.broker.queue(consumer.queue)
            if queue.owner not in (None, self):
                raise ResourceLocked(405, f"RESOURCE_LOCKED - queue '{queue.name}' is another connection's")
            link = Subscriber(queue, consumer)
            consumer.attached(link)
            queue.subscribe(link)

        return self._do(subscribe)


class _Replies(Subscriber):
    """The end of a reply queue: nothing to acknowledge."""

    def __init__(self, came: Any) -> None:
        self._came = came
        self.open = {}

    @property
    def room(self) -> int:
        """Always."""
        return 1

    def take(self, stored: Stored) -> None:
        """Hand a reply on."""
        message = Message(
            stored.body, 1, False, (stored.exchange, stored.routing_key), encode_properties(stored.properties)
        )
        self._came(message)
