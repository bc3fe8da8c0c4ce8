"""A consumer's channel at the broker: opened, lost, opened again; acknowledgements put together.

The service makes one for each consumer and renews it after a reconnect.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater
from twisted.logger import Logger

from .client import Channel
from .consumer import Consumer
from .errors import AMQPError, ConnectionLost
from .message import Message

if TYPE_CHECKING:
    from .service import AMQP

__all__ = ["Subscription"]

log = Logger()


class ChannelLink:
    """See :class:`~cycloneish.amqp.consumer.Link`.

    Acknowledgements of one turn become one where nothing older is open: then "all up to here" says the same.
    """

    def __init__(self, channel: Channel, consumer: Consumer, tag: str) -> None:
        self._channel = channel
        self._consumer = consumer
        self._tag = tag
        self._open: dict[int, None] = {}
        self._pending = 0
        self._flush: Any = None
        channel.on_deliver = self._delivered

    def _delivered(self, message: Message) -> None:
        self._open[message.delivery_tag] = None
        self._consumer.deliver(self, message)

    def ack(self, tag: int) -> None:
        """Done with it."""
        unsettled = self._open
        if tag not in unsettled:
            return
        oldest = next(iter(unsettled)) == tag
        del unsettled[tag]
        if not oldest:
            self._channel.ack(tag)
            return
        self._pending = tag
        if self._flush is None:
            self._flush = self._channel.client.clock.callLater(0, self._send_pending)

    def _send_pending(self) -> None:
        self._flush = None
        tag, self._pending = self._pending, 0
        if tag:
            self._channel.ack(tag, True)
            self._channel.client.flush()

    def nack(self, tag: int, requeue: bool) -> None:
        """Back to the queue, or rejected."""
        if tag in self._open:
            del self._open[tag]
            self._channel.nack(tag, requeue)

    def cancel(self) -> Deferred[None]:
        """No more deliveries."""
        if self._channel.closed:
            return succeed(None)
        return self._channel.basic_cancel(self._tag, False).addCallback(  # type: ignore[no-any-return]
            lambda _: None
        )

    def close(self) -> Deferred[None]:
        """Close the channel, which gives back what is not acknowledged."""
        self.ended()
        return self._channel.shut()

    def ended(self) -> None:
        """Send what waits to be acknowledged."""
        if self._flush is not None:
            self._flush.cancel()
            self._send_pending()


class Subscription:
    """Keeps one consumer subscribed."""

    def __init__(self, service: AMQP, consumer: Consumer) -> None:
        self._service = service
        self._consumer = consumer
        self._renewing: Deferred[None] | None = None
        #: How often the broker cancelled the consumer (its queue was deleted, or moved to another node).
        self.cancelled_by_broker = 0

    async def open(self) -> None:
        """Subscribe on a channel of its own."""
        consumer = self._consumer
        client = self._service.client
        if client is None:
            raise ConnectionLost("no connection")
        channel = await client.open_channel()
        tag = self._service.new_id()
        link = ChannelLink(channel, consumer, tag)
        consumer.attached(link)

        def closed(reason: AMQPError) -> None:
            link.ended()
            consumer.detached(link)
            if not client.closed and opened and not consumer.stopping:
                log.error(
                    "AMQP: the channel of {queue} was closed: {reason}", queue=consumer.queue, reason=reason
                )
                self.renew(1.0)

        def cancelled() -> None:
            self.cancelled_by_broker += 1
            consumer.detached(link)
            if consumer.stopping:
                return
            log.warn("AMQP: the broker cancelled the consumer of {queue}", queue=consumer.queue)
            link.close()
            self.renew(0.1)

        opened: list[bool] = []
        channel.on_closed = closed
        channel.on_cancel = cancelled
        arguments = dict(consumer.options.arguments)
        if consumer.last_offset is not None:
            arguments["x-stream-offset"] = consumer.last_offset + 1
        try:
            await channel.basic_qos(0, consumer.options.prefetch, False)
            await channel.basic_consume(
                0, consumer.queue, tag, False, False, consumer.options.exclusive, False, arguments
            )
        except BaseException:
            consumer.detached(link)
            if not channel.closed:
                channel.shut()
            raise
        opened.append(True)
        if consumer.stopping:
            await link.close()

    def renew(self, wait: float = 0.0) -> None:
        """Subscribe again, until it works, the consumer stops, or the connection goes (and comes back)."""
        if self._renewing is not None:
            self._renewing.cancel()
        self._renewing = Deferred.fromCoroutine(self._renew(wait))
        self._renewing.addErrback(lambda _: None)

    async def _renew(self, wait: float) -> None:
        consumer, service = self._consumer, self._service
        client = service.client
        while True:
            if wait:
                await deferLater(service.reactor, wait * random.uniform(0.5, 1.0))  # noqa: S311
            if consumer.stopping or client is None or client.closed or service.client is not client:
                return
            try:
                if wait:
                    await service.restore_queue(consumer.queue)
                await self.open()
                return
            except AMQPError as error:
                log.warn("AMQP: consuming {queue} again: {error}", queue=consumer.queue, error=error)
                wait = min(max(wait, 0.2) * 2, service.max_backoff)

    def stop(self) -> None:
        """The consumer is over."""
        if self._renewing is not None:
            self._renewing.cancel()
