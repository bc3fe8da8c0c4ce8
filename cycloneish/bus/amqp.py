"""A bus over AMQP: a topic exchange, and a queue for each process that has subscribers.

The routing key of a message is its channel's name, with AMQP's wildcards escaped, and the queue of a process
is bound to what is subscribed to there. The queue is the connection's own and goes with it, so a process that
is away costs the broker nothing, and finds a gap when it is back.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from twisted.internet.defer import Deferred, DeferredList, fail, succeed
from twisted.python.failure import Failure

from .transport import Receiver
from .values import BusClosed, Message, quote_channel

if TYPE_CHECKING:
    from ..amqp import Broker, ConsumerHandle
    from ..amqp import Message as AMQPMessage

__all__ = ["AMQPTransport"]

log = logging.getLogger("cycloneish.bus")

_JSON = "application/json"
_BINARY = "application/octet-stream"


class AMQPTransport:
    """Carries a bus's messages over a broker.

    :param broker: the connection, or the broker in memory.
    :param owns_broker: whether the bus starts and stops it.
    :param exchange: the name that buses of one broker meet under.
    :param timeout: seconds that publishing and subscribing wait, for a connection too.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        owns_broker: bool = False,
        exchange: str = "cycloneish.bus",
        timeout: float = 30.0,
    ) -> None:
        self.broker = broker
        self._owns_broker = owns_broker
        self._exchange = exchange
        self._timeout = timeout
        self._receiver: Receiver | None = None
        self._reactor: Any = None
        self._has_gap = False
        self._unwatch: Callable[[], None] | None = None
        self._queue: str | None = None
        self._opening: Deferred[Any] | None = None
        self._queue_waiters: list[Deferred[str]] = []
        self._consumer: ConsumerHandle | None = None
        # Two prefixes may be one binding.
        self._bindings: Counter[str] = Counter()
        self._sending: dict[Deferred[None], None] = {}

    # -- start and stop --------------------------------------------------------------------------

    def start(self, receiver: Receiver, reactor: Any) -> Deferred[None]:
        self._receiver = receiver
        self._reactor = reactor
        self._has_gap = False
        self._unwatch = self.broker.watch_connection(self._connection_changed)
        if self._owns_broker:
            self.broker.startService()
        ready = self.broker.when_connected()
        return ready.addCallback(lambda _: self.broker.declare_exchange(self._exchange, "topic"))

    def stop(self) -> Deferred[None]:
        self._receiver = None
        unwatch, self._unwatch = self._unwatch, None
        if unwatch is not None:
            unwatch()
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.cancel()
        self._have_queue(Failure(BusClosed("the bus is stopped")))
        self._bindings.clear()
        # What was published is confirmed, or has failed after its time-out.
        done: Deferred[Any] = DeferredList([_quietly(sent) for sent in self._sending])
        done.addCallback(lambda _: self._let_go())
        if self._owns_broker:
            done.addCallback(lambda _: self.broker.stopService())
        return done.addErrback(_log_failure)

    def _let_go(self) -> Deferred[Any]:
        consumer, self._consumer = self._consumer, None
        queue, self._queue = self._queue, None
        done: Deferred[Any] = succeed(None)
        if consumer is not None:
            done = consumer.stop(5.0)
        if queue is not None and not self._owns_broker:
            done.addCallback(lambda _: self.broker.delete_queue(queue))
        return done.addErrback(_log_failure)

    def _connection_changed(self, is_connected: bool) -> None:
        if not is_connected:
            self._has_gap = self._has_gap or self._consumer is not None
        elif self._has_gap:
            self._has_gap = False
            self.broker.when_connected(self._timeout).addCallbacks(self._reconnected, lambda _: None)

    def _reconnected(self, _: None) -> None:
        if self._receiver is not None:
            self._receiver.gap()

    # -- publish ---------------------------------------------------------------------------------

    def send(self, message: Message, tx: Any) -> Deferred[None]:
        if tx is not None:
            return fail(TypeError("only a bus over PostgreSQL publishes in a transaction"))
        sent = self.broker.publish(
            self._exchange,
            quote_channel(message.channel),
            message.raw,
            content_type=_BINARY if message.is_binary else _JSON,
            persistent=False,
            timeout=self._timeout,
        )
        if not sent.called:
            self._sending[sent] = None
            sent.addBoth(self._was_sent, sent)
        return sent

    def _was_sent(self, result: Any, sent: Deferred[None]) -> Any:
        self._sending.pop(sent, None)
        return result

    # -- subscribe -------------------------------------------------------------------------------

    def join(self, channel: str, is_prefix: bool) -> Deferred[None]:
        key = _binding_key(channel, is_prefix)
        self._bindings[key] += 1
        if self._bindings[key] > 1 and self._queue is not None:
            # The answer comes after that of the binding that is under way.
            return self.broker.bind(self._queue, self._exchange, key)

        def bind(queue: str) -> Deferred[None]:
            if not self._bindings[key]:
                return succeed(None)  # left before there was a queue
            return self.broker.bind(queue, self._exchange, key)

        joined = self._with_queue().addCallback(bind)
        return joined.addErrback(self._not_joined, key)

    def _not_joined(self, failure: Failure, key: str) -> Failure:
        self._release(key)
        return failure

    def leave(self, channel: str, is_prefix: bool) -> Deferred[None]:
        key = _binding_key(channel, is_prefix)
        if self._release(key) or self._queue is None:
            return succeed(None)
        return self.broker.unbind(self._queue, self._exchange, key).addErrback(_log_failure)

    def _release(self, key: str) -> int:
        """How many still want *key*, with one less."""
        self._bindings[key] -= 1
        if self._bindings[key] > 0:
            return self._bindings[key]
        del self._bindings[key]
        return 0

    def _with_queue(self) -> Deferred[str]:
        if self._queue is not None:
            return succeed(self._queue)
        waiter: Deferred[str] = Deferred()
        self._queue_waiters.append(waiter)
        if self._opening is None:
            opening: Deferred[Any] = self.broker.when_connected(self._timeout)
            self._opening = opening
            opening.addCallback(lambda _: self.broker.declare_exchange(self._exchange, "topic"))
            opening.addCallback(
                lambda _: self.broker.declare_queue("", durable=False, exclusive=True, auto_delete=False)
            )
            opening.addCallback(self._consume)
            opening.addCallbacks(self._have_queue, self._have_queue)
        return waiter

    def _consume(self, queue: str) -> Deferred[str]:
        def consuming(consumer: ConsumerHandle) -> str:
            self._consumer = consumer
            return queue

        return self.broker.consume(queue, self._arrived, prefetch=500, dead_letter="").addCallback(consuming)

    def _have_queue(self, result: str | Failure) -> None:
        self._opening = None
        if isinstance(result, str):
            self._queue = result
        waiters, self._queue_waiters = self._queue_waiters, []
        for waiter in waiters:
            waiter.callback(result)

    # -- what arrives ----------------------------------------------------------------------------

    def _arrived(self, message: AMQPMessage) -> None:
        if self._receiver is None:
            return
        key = message.routing_key
        channel = unquote(key) if "%" in key else key
        self._receiver.deliver(Message(channel, message.body, message.content_type != _JSON))


def _binding_key(channel: str, is_prefix: bool) -> str:
    key = quote_channel(channel)
    # Whole words: what else begins so is left to the bus.
    return key[: key.rfind(".") + 1] + "#" if is_prefix else key


def _quietly(sent: Deferred[None]) -> Deferred[None]:
    """A Deferred that fires when *sent* has, and leaves its failure to whom it belongs."""
    watched: Deferred[None] = Deferred()

    def fired(result: Any) -> Any:
        watched.callback(None)
        return result

    sent.addBoth(fired)
    return watched


def _log_failure(failure: Failure) -> None:
    log.warning("%s", failure.getErrorMessage())
