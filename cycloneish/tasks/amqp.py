"""Queues of tasks in a broker: durable, shared by all processes, with delays and priorities.

Every queue is made by whoever needs it first, sender or worker, so no message is sent to nowhere.

A delayed message waits in a queue that nobody reads, until its time to live there is over and the broker puts
it into the queue it is meant for. All messages of such a queue wait equally long, as a queue is left in
order; so there is one for each of a few lengths, each twice the one before. A message goes into the longest
that is not too long; the worker that gets it afterwards sends it into the next one, until it is due. So there
are :data:`DELAYS` queues for delays at most, and a message passes through each of them once at most.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.python.failure import Failure

from ..amqp import MessageReturned, ProtocolError, Requeue
from .message import CONTENT_TYPE, HIGHEST_PRIORITY, Envelope
from .transport import Consumption, Delivery

if TYPE_CHECKING:
    from ..amqp import Broker, ConsumerHandle, Message

__all__ = ["AMQPTransport"]

log = logging.getLogger("cycloneish.tasks")

#: The shortest delay that the broker is asked for, in seconds: a worker holds a message for so long.
SHORTEST_DELAY = 0.25
#: Queues for delays: the longest is for 36 hours.
DELAYS = 20


def delay_level(delay: float) -> int:
    """The longest delay that is not too long: the n-th is ``SHORTEST_DELAY * 2 ** n`` seconds."""
    level = 0
    while level < DELAYS - 1 and SHORTEST_DELAY * 2 ** (level + 1) <= delay:
        level += 1
    return level


class _Delivery:
    """A message that the broker waits to hear about."""

    __slots__ = ("_held", "envelope", "is_lost", "queue", "redelivered", "settled")

    def __init__(
        self, held: dict[_Delivery, None], envelope: Envelope, queue: str, redelivered: bool
    ) -> None:
        self.envelope = envelope
        self.queue = queue
        self.redelivered = redelivered
        self.is_lost = False
        # The consumer acknowledges when this fires.
        self.settled: Deferred[None] = Deferred()
        self._held = held
        held[self] = None

    def ack(self) -> Deferred[None]:
        self._held.pop(self, None)
        if not self.settled.called:
            self.settled.callback(None)
        return succeed(None)

    def give_back(self) -> Deferred[None]:
        self._held.pop(self, None)
        if not self.settled.called:
            self.settled.errback(Requeue())
        return succeed(None)


class _Consumption:
    def __init__(self, transport: AMQPTransport, handles: list[ConsumerHandle]) -> None:
        self._transport = transport
        self._handles = handles

    def cancel(self) -> Deferred[None]:
        handles, self._handles = self._handles, []
        for handle in handles:
            # It fires when the messages that are held are settled, which is up to the worker.
            self._transport.watch_stopping(handle.stop())
        return succeed(None)


class AMQPTransport:
    """Queues in a broker.

    :param broker: the connection, or the broker in memory.
    :param owns_broker: whether the tasks start and stop it.
    :param queue_arguments: arguments of the queues that are made: by default they know priorities. A queue
        that is there already with other arguments is an error of the broker's (406); then say here what it
        has.
    :param timeout: seconds that sending waits, for a connection too.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        owns_broker: bool = False,
        queue_arguments: Mapping[str, Any] | None = None,
        delay_prefix: str = "cycloneish.delay",
        timeout: float = 30.0,
    ) -> None:
        self.broker = broker
        self._owns_broker = owns_broker
        self._arguments = (
            {"x-max-priority": HIGHEST_PRIORITY} if queue_arguments is None else dict(queue_arguments)
        )
        self._delay_prefix = delay_prefix
        self._timeout = timeout
        self._declared: set[str] = set()
        self._declaring: dict[str, list[Deferred[None]]] = {}
        self._stopping: set[Deferred[Any]] = set()
        self._held: dict[_Delivery, None] = {}
        self._unwatch: Callable[[], None] | None = None

    def start(self, reactor: Any) -> Deferred[None]:
        self._unwatch = self.broker.watch_connection(self._connection_changed)
        if self._owns_broker:
            self.broker.startService()
        return self.broker.when_connected()

    def _connection_changed(self, is_connected: bool) -> None:
        if not is_connected:
            # The broker delivers them again, to whoever is there.
            held, self._held = self._held, {}
            for delivery in list(held):
                delivery.is_lost = True
                delivery.ack()

    def stop(self) -> Deferred[None]:
        unwatch, self._unwatch = self._unwatch, None
        if unwatch is not None:
            unwatch()
        done: Deferred[Any] = DeferredList(list(self._stopping))
        if self._owns_broker:
            done.addCallback(lambda _: self.broker.stopService())
        self._declared.clear()
        return done.addErrback(lambda failure: log.warning("%s", failure.getErrorMessage()))

    def watch_stopping(self, stopping: Deferred[Any]) -> None:
        """Wait for *stopping* before the broker is let go."""
        stopped: Deferred[None] = Deferred()

        def ended(result: Any) -> None:
            self._stopping.discard(stopped)
            if isinstance(result, Failure):
                log.warning("a consumer did not stop in good order: %s", result.getErrorMessage())
            stopped.callback(None)

        self._stopping.add(stopped)
        stopping.addBoth(ended)

    # -- sending ---------------------------------------------------------------------------------

    def send(self, envelope: Envelope, queue: str, delay: float) -> Deferred[None]:
        if delay < SHORTEST_DELAY:
            return self._publish(envelope, "", queue, lambda: self._make_queue(queue))
        level = delay_level(delay)
        exchange = f"{self._delay_prefix}.{SHORTEST_DELAY * 2**level:g}s"

        def make() -> Deferred[Any]:
            made = self._make_queue(queue)
            return made.addCallback(lambda _: self._once(exchange, lambda: self._make_delay(exchange, level)))

        return self._publish(envelope, exchange, queue, make)

    def bury(self, envelope: Envelope, queue: str) -> Deferred[None]:
        name = f"{queue}.dead"
        return self._publish(envelope, "", name, lambda: self._make_queue(name, with_arguments=False))

    def _publish(
        self, envelope: Envelope, exchange: str, key: str, make: Callable[[], Deferred[Any]]
    ) -> Deferred[None]:
        def publish(_: object) -> Deferred[None]:
            return self.broker.publish(
                exchange,
                key,
                envelope.body,
                content_type=CONTENT_TYPE,
                headers=envelope.headers,
                priority=envelope.priority,
                correlation_id=envelope.id,
                message_id=envelope.id,
                mandatory=True,
                timeout=self._timeout,
            )

        def returned(failure: Failure) -> Deferred[None]:
            # Somebody has deleted the queue since it was made.
            failure.trap(MessageReturned)
            self._declared.clear()
            return make().addCallback(publish)

        return make().addCallback(publish).addErrback(returned)

    # -- queues ----------------------------------------------------------------------------------

    def _once(self, name: str, make: Callable[[], Deferred[Any]]) -> Deferred[None]:
        """Make *name* if that was not done before; fires when it is there."""
        if name in self._declared:
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        waiting = self._declaring.get(name)
        if waiting is not None:
            waiting.append(waiter)
            return waiter
        waiting = self._declaring[name] = [waiter]

        def made(result: Any) -> None:
            del self._declaring[name]
            if not isinstance(result, Failure):
                self._declared.add(name)
            for one in waiting:
                if not one.called:
                    one.callback(result if isinstance(result, Failure) else None)

        make().addBoth(made)
        return waiter

    def _make_queue(self, name: str, *, with_arguments: bool = True) -> Deferred[None]:
        arguments = self._arguments if with_arguments else None
        return self._once(f"queue {name}", lambda: self.broker.declare_queue(name, arguments=arguments))

    def _make_delay(self, exchange: str, level: int) -> Deferred[Any]:
        arguments = {
            "x-message-ttl": int(SHORTEST_DELAY * 2**level * 1000),
            # With the routing key that it has: the name of the queue it is meant for.
            "x-dead-letter-exchange": "",
        }
        made: Deferred[Any] = self.broker.declare_exchange(exchange, "fanout")
        made.addCallback(lambda _: self.broker.declare_queue(exchange, arguments=arguments))
        return made.addCallback(lambda _: self.broker.bind(exchange, exchange))

    # -- consuming -------------------------------------------------------------------------------

    def consume(
        self, queues: Sequence[str], prefetch: int, deliver: Callable[[Delivery], None]
    ) -> Deferred[Consumption]:
        return Deferred.fromCoroutine(self._consume(queues, prefetch, deliver))

    async def _consume(
        self, queues: Sequence[str], prefetch: int, deliver: Callable[[Delivery], None]
    ) -> Consumption:
        handles: list[ConsumerHandle] = []
        try:
            for queue in queues:
                await self._make_queue(queue)
                handles.append(await self._consume_one(queue, prefetch, deliver))
        except BaseException:
            _Consumption(self, handles).cancel()
            raise
        return _Consumption(self, handles)

    def _consume_one(
        self, queue: str, prefetch: int, deliver: Callable[[Delivery], None]
    ) -> Deferred[ConsumerHandle]:
        def handle(message: Message) -> Deferred[None]:
            delivery = _Delivery(self._held, _envelope(message), queue, message.redelivered)
            deliver(delivery)
            return delivery.settled

        return self.broker.consume(queue, handle, prefetch=prefetch, dead_letter="")


def _envelope(message: Message) -> Envelope:
    try:
        found = message.headers
    except ProtocolError:
        # No headers are no task's message: the worker lays it aside with its body.
        return Envelope("", {}, message.body)
    # What the broker notes about delays is not sent on: it would take the message for going in circles.
    headers = {
        name: value
        for name, value in found.items()
        if not name.startswith(("x-death", "x-first-death", "x-last-death"))
    }
    return Envelope(message.correlation_id or "", headers, message.body, message.priority or 0)
