"""AMQP as a service: one connection that stays, its topology, publishing, consuming and calls over it.

amqp = AMQP("amqp://guest:guest@localhost/")
amqp.setServiceParent(application)            # or amqp.startService()
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredLock, fail, succeed
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from .base import BrokerBase
from .client import Channel, WireClient
from .codec import encode_properties
from .consumer import Consumer
from .errors import (
    AMQPError,
    ChannelError,
    ConnectionClosed,
    ConnectionLost,
    MessageTooBig,
    Stopped,
    WaitTimeout,
)
from .opening import Address, open_connection
from .publisher import Publisher
from .subscription import Subscription
from .topology import Operation, Topology

__all__ = ["AMQP"]

log = Logger()

_DIRECT_REPLY = "amq.rabbitmq.reply-to"
_MOST_PROPERTIES = 100


class AMQP(BrokerBase):
    """A connection to RabbitMQ that comes back by itself.

    :param url: ``amqp://user:password@host:port/vhost`` or ``amqps://…``, or several for one cluster.
    :param prefetch: messages that a consumer may hold unacknowledged, where it says nothing else.
    :param heartbeat: seconds; twice that without a sign of life ends the connection.
    :param connect_timeout: seconds for one try to connect.
    :param confirm_window: how many messages may be on their way unconfirmed; more wait.
    :param max_waiting: how many may wait; more fail with :exc:`Overloaded`.
    :param republish: send unconfirmed messages again after a reconnect, with the same message id, rather than
        failing them with :exc:`ConnectionLost`. Consumers may then see a message twice.
    :param timeout: seconds for a publish or an operation, where the call says nothing else.
    :param stop_timeout: seconds that stopping waits for handlers in flight and for confirms.
    :param max_backoff: most seconds between two tries to connect; they grow from 0.1 s, with jitter.
    :param max_message_size: bytes of a body, both ways.
    :param frame_max: bytes of a frame, where the broker allows as many.
    :param name: what the broker's management page calls the connection.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        *,
        prefetch: int = 20,
        heartbeat: int = 30,
        connect_timeout: float = 10.0,
        confirm_window: int = 1000,
        max_waiting: int = 10000,
        republish: bool = False,
        timeout: float = 30.0,
        stop_timeout: float = 30.0,
        max_backoff: float = 30.0,
        max_message_size: int = 134217728,
        frame_max: int = 131072,
        name: str = "",
        reactor: Any = None,
    ) -> None:
        super().__init__(reactor, prefetch, stop_timeout)
        urls = [url] if isinstance(url, str) else list(url)
        if not urls:
            raise ValueError("at least one AMQP URL is needed")
        if heartbeat < 0 or confirm_window < 1 or frame_max < 4096:
            raise ValueError("heartbeat is at least 0, confirm_window at least 1, frame_max at least 4096")
        self.addresses = [Address(one) for one in urls]
        self.heartbeat = heartbeat
        self.connect_timeout = connect_timeout
        self.republish = republish
        self.timeout = timeout
        self.max_backoff = max_backoff
        self.max_message_size = max_message_size
        self.frame_max = frame_max
        self.connection_name = name
        #: How often a connection was made.
        self.connections = 0
        self.last_error: Exception | None = None
        self.topology = Topology()
        self.client: WireClient | None = None
        self._ready = False
        self._waiters: list[Deferred[None]] = []
        self._running: Deferred[None] | None = None
        self._control: Channel | None = None
        self._control_lock = DeferredLock()
        self._subscriptions: dict[Consumer, Subscription] = {}
        self._encoded: dict[tuple[Any, ...], bytes] = {}
        self._wants_calls = False

        def publisher(again: bool) -> Publisher:
            return Publisher(
                self.reactor,
                window=confirm_window,
                max_waiting=max_waiting,
                republish=again,
                look_up=self._look_up,
            )

        self._publisher = publisher(republish)
        self._caller = publisher(False)

    # Staying connected

    @property
    def connected(self) -> bool:
        """Whether the connection is up and the topology in place."""
        return self._ready

    @property
    def blocked(self) -> str | None:
        """Why the broker takes no messages for now (``connection.blocked``); None where it does."""
        return self.client.blocked if self.client is not None else None

    def startService(self) -> None:
        """Connect, and stay connected."""
        if self.running:
            return
        super().startService()  # type: ignore[no-untyped-call]
        self._running = Deferred.fromCoroutine(self._stay_connected())
        self._running.addErrback(self._broke)

    def _broke(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            log.failure("AMQP: the connection is no longer looked after", failure=failure)

    async def _stay_connected(self) -> None:
        wait = 0.1
        first = random.randrange(len(self.addresses))  # noqa: S311  (spreads load, no secret)
        while self.running:
            for number in range(len(self.addresses)):
                address = self.addresses[(first + number) % len(self.addresses)]
                try:
                    await self._connect(address)
                    break
                except Exception as error:
                    if not self.running:
                        return  # stopped, and not to go on with the next host
                    self.last_error = error
                    log.warn("AMQP: {address}: {error}", address=address, error=error)
                    if isinstance(error, ConnectionClosed):
                        self._tell_waiters(error)
            if self._ready and self.client is not None:
                wait = 0.1
                await self.client.over
                first += 1
            if self.running:
                # Jitter, so that a broker that comes back does not meet all its clients at once.
                await deferLater(self.reactor, wait * random.uniform(0.5, 1.0))  # noqa: S311
                wait = min(wait * 2, self.max_backoff)

    async def _connect(self, address: Address) -> None:
        client = await open_connection(
            self.reactor,
            address,
            address.connect_timeout or self.connect_timeout,
            heartbeat=self.heartbeat if address.heartbeat is None else address.heartbeat,
            frame_max=self.frame_max,
            max_message_size=self.max_message_size,
            name=self.connection_name,
        )
        self.client = client
        self._control = None
        client.on_blocked = self._blocked
        client.on_lost = self._lost
        try:
            for operation in self.topology.operations():
                await self._replay(operation)
            await self._open_publisher(self._publisher)
            if self._wants_calls:
                await self._open_publisher(self._caller)
        except BaseException:
            client.drop(ConnectionLost("the topology could not be made"))
            raise
        if client.closed:
            raise ConnectionLost("lost while the topology was made")
        self.connections += 1
        self._ready = True
        log.info("AMQP: connected to {address}", address=address)
        for subscription in list(self._subscriptions.values()):
            subscription.renew()
        self._tell_waiters(None)
        self._tell_watchers(True)

    async def _replay(self, operation: Operation) -> None:
        for attempt in range(6):
            try:
                await self._operate_now(operation)
                return
            except ChannelError as error:
                # 405: the connection before still holds an exclusive queue, until the broker notices.
                if error.code == 405 and attempt < 5:
                    await deferLater(self.reactor, 0.2 * 2**attempt)
                    continue
                log.error("AMQP: {what} failed after a reconnect: {error}", what=operation[0], error=error)
                return

    def _lost(self, reason: AMQPError) -> None:
        was_ready, self._ready = self._ready, False
        self._control = None
        self.last_error = reason
        self._publisher.lost(reason)
        self._caller.lost(reason)
        self._calls_lost(reason)
        if was_ready:
            if self.running:
                log.warn("AMQP: {reason}", reason=reason)
            self._tell_watchers(False)

    def _blocked(self, reason: str | None) -> None:
        log.warn(
            "AMQP: {state}", state=f"publishing is blocked: {reason}" if reason else "publishing goes on"
        )
        self._publisher.set_blocked(reason is not None)
        self._caller.set_blocked(reason is not None)

    def when_connected(self, timeout: float | None = None) -> Deferred[None]:
        """Fires when the connection is up and the topology is in place.

        :param timeout: seconds; the service's own where it is None.
        :raises ConnectionClosed: as soon as the broker refuses to let us in (trying goes on all the same).
        :raises WaitTimeout: with the last error in its text.
        """
        if self._ready:
            return succeed(None)
        seconds = self.timeout if timeout is None else timeout
        waiter: Deferred[None] = Deferred()
        self._waiters.append(waiter)

        def over(result: Any) -> Any:
            if timer.active():
                timer.cancel()
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            return result

        def too_late() -> None:
            waiter.errback(
                WaitTimeout(f"not connected within {seconds:g} s: {self.last_error or 'no answer'}")
            )

        timer = self.reactor.callLater(seconds, too_late)
        return waiter.addBoth(over)

    def _tell_waiters(self, error: Exception | None) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if error is None:
                waiter.callback(None)
            else:
                waiter.errback(error)

    def stopService(self) -> Deferred[None]:
        """Stop the consumers, wait for what is in flight, close."""
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        reason = Stopped("the service was stopped")
        try:
            stopping = [consumer.stop(self.stop_timeout) for consumer in list(self.consumers)]
            for one in stopping:
                await one
            if self._ready:
                for publisher in (self._publisher, self._caller):
                    drained = publisher.drained()
                    drained.addTimeout(self.stop_timeout, self.reactor)
                    try:
                        await drained
                    except Exception:
                        log.warn("AMQP: stopped with {n} messages unconfirmed", n=publisher.unfinished)
            self._publisher.stop(reason)
            self._caller.stop(reason)
            if self.client is not None:
                await self.client.shut(min(5.0, self.stop_timeout))
        finally:
            self._calls_lost(reason)
            self._tell_waiters(reason)
            if self._running is not None:
                self._running.cancel()

    # Topology

    def _operate(self, operation: Operation) -> Deferred[Any]:
        """Run one method of the specification on the control channel; others go on where it fails."""

        async def run() -> Any:
            if not self.running:
                raise Stopped("the service is not running")
            await self.when_connected()
            return await self._operate_now(operation)

        return Deferred.fromCoroutine(run())

    async def _operate_now(self, operation: Operation) -> Any:
        await self._control_lock.acquire().addTimeout(self.timeout, self.reactor, _timed_out)
        try:
            if self.client is None:
                raise ConnectionLost("no connection")
            if self._control is None or self._control.closed:
                opening = self.client.open_channel()
                self._control = await opening.addTimeout(self.timeout, self.reactor, _timed_out)
            method, arguments = operation
            answer: Deferred[Any] = getattr(self._control, method)(*arguments)
            answer.addTimeout(self.timeout, self.reactor, _timed_out)
            return await answer
        finally:
            control = self._control
            if control is not None and control.waiting:
                # Given up, and the answer that is to come may be the channel's end: nobody else's problem.
                self._control = None
                control.shut()
            self._control_lock.release()

    def _look_up(self, exchange: str) -> Deferred[Any]:
        declared: tuple[Any, ...] = (0, exchange, "", True, False, False, False, False, {})
        return Deferred.fromCoroutine(self._operate_now(("exchange_declare", declared)))

    def _declare(
        self, key: tuple[Any, ...], operation: Operation, result: Callable[[Any], Any]
    ) -> Deferred[Any]:
        def declared(answer: Any) -> Any:
            self.topology.add(key, operation)
            return result(answer)

        return self._operate(operation).addCallback(declared)

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
        """Make an exchange; again after each reconnect."""
        values = (0, name, kind, False, durable, auto_delete, internal, False, dict(arguments or {}))

        def declared(_: Any) -> None:
            self._publisher.known.add(name)

        return self._declare(("exchange", name), ("exchange_declare", values), declared)

    def declare_queue(
        self,
        name: str = "",
        *,
        durable: bool = True,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> Deferred[str]:
        """Make a queue and fire with its name; an empty *name* is filled in, and kept over reconnects."""
        name = name or f"cycloneish.{uuid.uuid4().hex}"
        values = (0, name, False, durable, exclusive, auto_delete, False, dict(arguments or {}))
        return self._declare(("queue", name), ("queue_declare", values), lambda _: name)

    def bind(
        self, queue: str, exchange: str, routing_key: str = "", arguments: Mapping[str, Any] | None = None
    ) -> Deferred[None]:
        """Let *exchange* send to *queue*; again after each reconnect."""
        values = (0, queue, exchange, routing_key, False, dict(arguments or {}))
        key = ("bind", queue, exchange, routing_key, repr(arguments))
        return self._declare(key, ("queue_bind", values), lambda _: None)

    def unbind(
        self, queue: str, exchange: str, routing_key: str = "", arguments: Mapping[str, Any] | None = None
    ) -> Deferred[None]:
        """Take a binding back."""
        key = ("bind", queue, exchange, routing_key, repr(arguments))
        self.topology.remove(key)
        values = (0, queue, exchange, routing_key, dict(arguments or {}))
        # And once more, for a bind() before this one that was still under way.
        return self._operate(("queue_unbind", values)).addCallback(lambda _: self.topology.remove(key))

    def delete_queue(self, name: str) -> Deferred[None]:
        """Remove a queue and what is in it."""
        self.topology.forget("queue", name)
        return self._operate(("queue_delete", (0, name, False, False, False))).addCallback(lambda _: None)

    def delete_exchange(self, name: str) -> Deferred[None]:
        """Remove an exchange."""
        self.topology.forget("exchange", name)
        self._publisher.known.discard(name)
        return self._operate(("exchange_delete", (0, name, False, False))).addCallback(lambda _: None)

    def message_count(self, queue: str) -> Deferred[int]:
        """How many messages are ready in *queue*."""
        values: tuple[Any, ...] = (0, queue, True, False, False, False, False, {})
        return self._operate(("queue_declare", values)).addCallback(lambda answer: answer["message_count"])

    def purge_queue(self, name: str) -> Deferred[int]:
        """Drop the ready messages of a queue; fires with their number."""
        return self._operate(("queue_purge", (0, name, False))).addCallback(
            lambda answer: answer["message_count"]
        )

    # Publishing

    async def _open_publisher(self, publisher: Publisher) -> Channel:
        client = self.client
        if client is None:
            raise ConnectionLost("no connection")
        channel = await client.open_channel()
        await channel.confirm_select()
        if publisher is self._caller:
            # Direct reply-to: the consumer has to be there, on this channel, before the first request.
            channel.on_deliver = self._reply_came
            await channel.basic_consume(0, _DIRECT_REPLY, "", False, True, False, False, {})

        def closed(reason: AMQPError) -> None:
            if client.closed:
                return  # _lost tells it
            publisher.lost(reason)
            if publisher is self._caller:
                self._calls_lost(reason)
            log.error("AMQP: the channel for publishing was closed: {reason}", reason=reason)
            again = Deferred.fromCoroutine(self._open_publisher(publisher))
            again.addErrback(lambda failure: client.drop(ConnectionLost(str(failure.value))))

        channel.on_closed = closed
        publisher.blocked = client.blocked is not None
        publisher.opened(channel)
        return channel

    def _no_calls(self, failure: Failure) -> None:
        log.warn("AMQP: no channel for calls: {error}", error=failure.getErrorMessage())
        self._wants_calls = False

    def _encode(self, properties: dict[str, Any]) -> bytes:
        if len(properties) == 2 or (len(properties) == 3 and "priority" in properties):
            key = tuple(properties.values())
            found = self._encoded.get(key)
            if found is None:
                if len(self._encoded) >= _MOST_PROPERTIES:
                    self._encoded.clear()
                found = self._encoded[key] = encode_properties(properties)
            return found
        encoded = encode_properties(properties)
        if len(encoded) > self.frame_max - 64:
            raise ValueError(f"headers and properties of {len(encoded)} bytes do not fit into one frame")
        return encoded

    def _send(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: dict[str, Any],
        mandatory: bool,
        timeout: float | None,
    ) -> Deferred[None]:
        # Copies that the consumers in flight publish are let through while the service stops.
        if not self.running and not self.consumers:
            return fail(Failure(Stopped("the service is not running")))
        return self._send_by(self._publisher, exchange, routing_key, body, properties, mandatory, timeout)

    def _send_by(
        self,
        publisher: Publisher,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: dict[str, Any],
        mandatory: bool,
        timeout: float | None,
    ) -> Deferred[None]:
        if len(body) > self.max_message_size:
            size = len(body)
            return fail(Failure(MessageTooBig(f"{size} bytes; max_message_size is {self.max_message_size}")))
        identity = properties.get("message_id")
        if identity is None and (mandatory or self.republish):
            identity = properties["message_id"] = self.new_id()
        try:
            encoded = self._encode(properties)
        except Exception:
            return fail(Failure())
        seconds = self.timeout if timeout is None else timeout
        return publisher.send(exchange, routing_key, encoded, body, mandatory, identity, seconds)

    def _send_call(
        self, exchange: str, routing_key: str, body: bytes, properties: dict[str, Any], timeout: float
    ) -> Deferred[None]:
        async def send() -> None:
            if not self.running:
                raise Stopped("the service is not running")
            await self.when_connected(timeout)
            if not self._wants_calls:
                self._wants_calls = True
                # Not this call's alone: it may be cancelled, and others wait for the channel as well.
                Deferred.fromCoroutine(self._open_publisher(self._caller)).addErrback(self._no_calls)
            properties["reply_to"] = _DIRECT_REPLY
            await self._send_by(self._caller, exchange, routing_key, body, properties, True, timeout)

        return Deferred.fromCoroutine(send())

    # Consuming

    def _subscribe(self, consumer: Consumer) -> Deferred[None]:
        subscription = Subscription(self, consumer)
        discard = consumer.on_stopped

        def stopped(one: Consumer) -> None:
            self._subscriptions.pop(one, None)
            subscription.stop()
            if discard is not None:
                discard(one)

        consumer.on_stopped = stopped

        async def first() -> None:
            await self.when_connected()
            opening = Deferred.fromCoroutine(subscription.open())
            await opening.addTimeout(self.timeout, self.reactor, _timed_out)
            # Known only now: a connection that is made meanwhile would open it a second time.
            if not consumer.stopping:
                self._subscriptions[consumer] = subscription

        return Deferred.fromCoroutine(first())

    async def restore_queue(self, name: str) -> None:
        """Make a queue that the broker dropped again, with its bindings, where it was declared here."""
        for operation in self.topology.of_queue(name):
            await self._replay(operation)


def _timed_out(_: Any, seconds: float) -> Any:
    raise WaitTimeout(f"no answer from the broker within {seconds:g} s")
