"""The bus itself: a service that publishes, and hands what arrives to the subscribers of its process."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from .subscription import POLICIES, Overflow, Subscription
from .transport import Transport
from .values import BusClosed, Gap, Message, check_channel, encode

__all__ = ["Bus", "BusStats"]

#: Messages delivered in one go; then other events of the reactor have their turn.
_BATCH = 1000


@dataclass(frozen=True, slots=True)
class BusStats:
    """What a bus has done in this process, and what it holds.

    :ivar published: messages accepted by `publish`.
    :ivar received: messages that arrived, whether anybody here wanted them or not.
    :ivar dropped: messages that found a subscriber's queue full, ended subscriptions included.
    :ivar gaps: how often the connection was lost and made anew.
    :ivar subscribers: open subscriptions.
    :ivar topics: different channels and prefixes that are subscribed to.
    """

    published: int
    received: int
    dropped: int
    gaps: int
    subscribers: int
    topics: int


class _Topic:
    """One channel or prefix with its subscribers here."""

    __slots__ = ("channel", "is_prefix", "joined", "joining", "subscriptions", "waiters")

    def __init__(self, channel: str, is_prefix: bool) -> None:
        self.channel = channel
        self.is_prefix = is_prefix
        # A dict, as it keeps the order and forgets in constant time.
        self.subscriptions: dict[Subscription, None] = {}
        self.joined = False
        self.joining: Deferred[None] | None = None
        self.waiters: list[tuple[Deferred[Subscription], Subscription]] = []


class Bus(Service):
    """Publish and subscribe by the names of channels, in this process or among several.

    Made by :func:`cycloneish.bus.open_bus`. It is a service: give it a parent that is started, or call
    ``startService()``, before it is used.

    :param transport: what carries the messages.
    :param max_payload: bytes that an encoded payload may have.
    :param reactor: the reactor to use; the global one by default, looked up at the start.
    """

    name = "bus"

    def __init__(self, transport: Transport, *, max_payload: int = 1024 * 1024, reactor: Any = None) -> None:
        self.max_payload = max_payload
        self._transport = transport
        self._reactor = reactor
        self._exact: dict[str, _Topic] = {}
        self._prefixes: dict[str, _Topic] = {}
        self._arrived: deque[Message | None] = deque()
        self._delivering = False
        self._later: Any = None
        self._ready: Deferred[None] | None = None
        self._is_ready = False
        self._broken: Failure | None = None
        self._ready_waiters: list[Deferred[Bus]] = []
        self._published = self._received = self._dropped = self._gaps = 0

    # -- start and stop --------------------------------------------------------------------------

    def startService(self) -> None:
        """Start connecting; see :meth:`when_ready`."""
        if self.running:
            return
        super().startService()  # type: ignore[no-untyped-call]
        if self._reactor is None:
            from twisted.internet import reactor

            self._reactor = reactor
        self._broken = None
        starting = self._ready = self._transport.start(self, self._reactor)
        starting.addCallbacks(self._started, self._not_started)

    def _started(self, _: None) -> None:
        self._ready = None
        self._is_ready = True
        waiters, self._ready_waiters = self._ready_waiters, []
        for waiter in waiters:
            waiter.callback(self)

    def _not_started(self, failure: Failure) -> None:
        self._ready = None
        self._broken = failure if self.running else None
        waiters, self._ready_waiters = self._ready_waiters, []
        for waiter in waiters:
            waiter.errback(failure if self.running else BusClosed("the bus is stopped"))

    def when_ready(self) -> Deferred[Bus]:
        """Fires with the bus when its connection stands; fails where that will not come to be."""
        if self._is_ready:
            return succeed(self)
        if self._broken is not None:
            return fail(self._broken)
        waiter: Deferred[Bus] = Deferred(lambda deferred: self._ready_waiters.remove(deferred))
        self._ready_waiters.append(waiter)
        return waiter

    def stopService(self) -> Deferred[None]:
        """End all subscriptions, see what was published on its way, and let the connection go."""
        if not self.running:
            return succeed(None)
        super().stopService()  # type: ignore[no-untyped-call]
        self._is_ready = False
        stopped = BusClosed("the bus is stopped")
        starting, self._ready = self._ready, None
        if starting is not None:
            starting.cancel()
        topics = [*self._exact.values(), *self._prefixes.values()]
        self._exact.clear()
        self._prefixes.clear()
        self._arrived.clear()
        if self._later is not None and self._later.active():
            self._later.cancel()
        self._later = None
        for topic in topics:
            for subscription in list(topic.subscriptions):
                subscription.end(stopped)
            waiters, topic.waiters = topic.waiters, []
            for waiter, _ in waiters:
                waiter.errback(stopped)
        return self._transport.stop()

    # -- publish ---------------------------------------------------------------------------------

    def publish(self, channel: str, data: object, *, tx: Any = None) -> Deferred[None]:
        """Send *data* to everybody who is subscribed to *channel* now, in all processes.

        Messages that one process publishes on a channel arrive in that order everywhere.

        :param data: bytes, or anything that JSON can say.
        :param tx: over PostgreSQL, a transaction: the message goes out with its commit, or not at all.
        :returns: a Deferred that fires when the message was taken (in memory: delivered; PostgreSQL:
            committed; AMQP: confirmed). Where nobody can know whether it was, it fails.
        :raises TypeError: (through the Deferred) for what JSON cannot say.
        :raises ValueError: for a name that no channel can have, and (:exc:`PayloadTooLarge`) for a payload
            above ``max_payload``.
        """
        try:
            check_channel(channel)
            raw, is_binary = encode(data, self.max_payload)
        except (TypeError, ValueError):
            return fail()
        if not self.running:
            return fail(BusClosed("the bus is not started"))
        self._published += 1
        return self._transport.send(Message(channel, raw, is_binary), tx)

    # -- subscribe -------------------------------------------------------------------------------

    def subscribe(
        self,
        channel: str,
        callback: Callable[[Message], Any] | None = None,
        *,
        on_gap: Callable[[Gap], Any] | None = None,
        prefix: bool = False,
        limit: int = 1000,
        overflow: Overflow = "drop-oldest",
    ) -> Deferred[Subscription]:
        """Hear what is published on *channel* from now on.

        :param callback: called with each :class:`Message`. It may return a Deferred or be ``async def``: the
            next message comes when that has fired. What goes wrong in it is logged. Without a callback,
            iterate over the subscription.
        :param on_gap: called with a :class:`Gap` where messages are missing; for the iteration it is an item.
        :param prefix: hear all channels whose names begin with *channel*.
        :param limit: messages that may wait to be read.
        :param overflow: what happens to more: ``"drop-oldest"`` or ``"drop-newest"`` drop a message and leave
            a gap, ``"disconnect"`` ends the subscription.
        :returns: a Deferred with the :class:`Subscription`, which fires when nothing published from then on
            is missed.
        """
        try:
            check_channel(channel)
        except (TypeError, ValueError):
            return fail()
        if limit < 1:
            return fail(ValueError(f"a queue needs room for one message at least, not {limit}"))
        if overflow not in POLICIES:
            return fail(ValueError(f"overflow is one of {', '.join(POLICIES)}, not {overflow!r}"))
        if not self.running:
            return fail(BusClosed("the bus is not started"))
        topics = self._prefixes if prefix else self._exact
        topic = topics.get(channel)
        if topic is None:
            topic = topics[channel] = _Topic(channel, prefix)
        subscription = Subscription(
            channel, prefix, self._leave, callback=callback, on_gap=on_gap, limit=limit, overflow=overflow
        )
        topic.subscriptions[subscription] = None
        if topic.joined:
            return succeed(subscription)
        waiter: Deferred[Subscription] = Deferred(lambda _: self._give_up(topic, subscription))
        topic.waiters.append((waiter, subscription))
        if topic.joining is None:
            self._join(topic)
        return waiter

    def _join(self, topic: _Topic) -> None:
        joining = topic.joining = self._transport.join(topic.channel, topic.is_prefix)
        joining.addCallbacks(self._joined, self._not_joined, callbackArgs=(topic,), errbackArgs=(topic,))

    def _joined(self, _: None, topic: _Topic) -> None:
        topic.joining = None
        topic.joined = True
        waiters, topic.waiters = topic.waiters, []
        for waiter, subscription in waiters:
            waiter.callback(subscription)

    def _not_joined(self, failure: Failure, topic: _Topic) -> None:
        topic.joining = None
        waiters, topic.waiters = topic.waiters, []
        for waiter, subscription in waiters:
            self._forget(subscription)
            subscription.end(BusClosed("the subscription could not be made"))
            waiter.errback(failure)

    def _give_up(self, topic: _Topic, subscription: Subscription) -> None:
        topic.waiters = [entry for entry in topic.waiters if entry[1] is not subscription]
        subscription.close()

    def _forget(self, subscription: Subscription) -> _Topic | None:
        """Take *subscription* out; its topic, where it was the last one there."""
        topics = self._prefixes if subscription.is_prefix else self._exact
        topic = topics.get(subscription.channel)
        if topic is None or subscription not in topic.subscriptions:
            return None
        del topic.subscriptions[subscription]
        if topic.subscriptions:
            return None
        del topics[subscription.channel]
        return topic

    def _leave(self, subscription: Subscription) -> Deferred[None]:
        topic = self._forget(subscription)
        if topic is None or not self.running:
            return succeed(None)
        return self._transport.leave(topic.channel, topic.is_prefix)

    # -- what arrives ----------------------------------------------------------------------------

    def deliver(self, message: Message) -> None:
        """Hand *message* to its subscribers (the transport calls this)."""
        self._received += 1
        if not self._delivering and not self._arrived:
            # The usual case: nobody publishes from within a delivery.
            topic = self._exact.get(message.channel)
            if topic is None and not self._prefixes:
                return
        self._arrived.append(message)
        self._deliver_all()

    def gap(self) -> None:
        """Tell all subscribers that messages may be missing (the transport calls this)."""
        self._gaps += 1
        self._arrived.append(None)
        self._deliver_all()

    def _deliver_all(self) -> None:
        # What a subscriber publishes while it is called comes after what is being delivered, for everybody.
        if self._delivering or self._later is not None:
            return
        self._delivering = True
        try:
            for _ in range(_BATCH):
                if not self._arrived:
                    return
                message = self._arrived.popleft()
                if message is None:
                    for topic in [*self._exact.values(), *self._prefixes.values()]:
                        for subscription in list(topic.subscriptions):
                            subscription.put(Gap("reconnect"))
                    continue
                for topic in self._topics_of(message.channel):
                    for subscription in list(topic.subscriptions):
                        if not subscription.put(message):
                            self._dropped += 1
        finally:
            self._delivering = False
        if self._arrived:
            self._later = self._reactor.callLater(0, self._go_on)

    def _go_on(self) -> None:
        self._later = None
        self._deliver_all()

    def _topics_of(self, channel: str) -> Iterator[_Topic]:
        topic = self._exact.get(channel)
        if topic is not None:
            yield topic
        if self._prefixes:
            yield from [topic for prefix, topic in self._prefixes.items() if channel.startswith(prefix)]

    def stats(self) -> BusStats:
        """What it has done and holds."""
        topics = [*self._exact.values(), *self._prefixes.values()]
        return BusStats(
            published=self._published,
            received=self._received,
            dropped=self._dropped,
            gaps=self._gaps,
            subscribers=sum(len(topic.subscriptions) for topic in topics),
            topics=len(topics),
        )
