"""What any broker here can do: the interface that ``tasks``, ``bus`` and applications are written against.

:class:`~cycloneish.amqp.service.AMQP` speaks to RabbitMQ, :class:`~cycloneish.amqp.memory.MemoryAMQP` works
inside one process; both pass the same behaviour tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from .message import Message

__all__ = ["Broker", "ConsumerHandle", "Handler"]

#: Takes one message; plain, ``async def``, or returning a Deferred. Returning (or firing) acknowledges.
Handler = Callable[[Message], Any]


class ConsumerHandle(Protocol):
    """A running consumer."""

    queue: str
    #: Messages handled to the end, failed attempts, messages sent to the dead letters.
    handled: int
    failed: int
    dead_lettered: int

    @property
    def in_flight(self) -> int:
        """Handlers running now."""

    def stop(self, timeout: float | None = None) -> Deferred[None]:
        """Take no more messages, wait for the handlers in flight, then give the rest back to the queue.

        :param timeout: seconds to wait for handlers; then they are cancelled and their messages given back.
        """


class Broker(Protocol):
    """Declare, publish, consume, call. A Twisted service: nothing happens before ``startService``."""

    def startService(self) -> None:
        """Connect, and stay connected."""

    def stopService(self) -> Deferred[None] | None:
        """Stop the consumers, wait for what is in flight, close."""

    def when_connected(self, timeout: float | None = None) -> Deferred[None]:
        """Fires when the connection is up and the topology is in place."""

    def watch_connection(self, watcher: Callable[[bool], None]) -> Callable[[], None]:
        """Call *watcher* with True after each (re)connect and False after each loss; returns the way out."""

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
        """Make an exchange (``direct``, ``fanout``, ``topic``, ``headers``); again after each reconnect."""

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

    def bind(
        self, queue: str, exchange: str, routing_key: str = "", arguments: Mapping[str, Any] | None = None
    ) -> Deferred[None]:
        """Let *exchange* send to *queue*; again after each reconnect."""

    def unbind(
        self, queue: str, exchange: str, routing_key: str = "", arguments: Mapping[str, Any] | None = None
    ) -> Deferred[None]:
        """Take a binding back."""

    def delete_queue(self, name: str) -> Deferred[None]:
        """Remove a queue and what is in it."""

    def delete_exchange(self, name: str) -> Deferred[None]:
        """Remove an exchange."""

    def message_count(self, queue: str) -> Deferred[int]:
        """How many messages are ready in *queue*."""

    def purge_queue(self, name: str) -> Deferred[int]:
        """Drop the ready messages of a queue; fires with their number."""

    def publish(
        self,
        exchange: str,
        routing_key: str,
        body: Any,
        *,
        content_type: str | None = None,
        headers: Mapping[str, Any] | None = None,
        priority: int | None = None,
        expiration: float | None = None,
        correlation_id: str | None = None,
        reply_to: str | None = None,
        message_id: str | None = None,
        type: str | None = None,  # noqa: A002
        timestamp: int | None = None,
        app_id: str | None = None,
        persistent: bool = True,
        mandatory: bool = False,
        timeout: float | None = None,
    ) -> Deferred[None]:
        """Send one message; fires when the broker has confirmed it.

        :param body: bytes as they are, text as UTF-8, anything else as JSON.
        :param expiration: seconds until a message that nobody took is dropped or dead-lettered.
        :param timeout: seconds for all of it, waiting for a connection or for room included.
        """

    def consume(
        self,
        queue: str,
        handler: Handler,
        *,
        prefetch: int | None = None,
        concurrency: int | None = None,
        retries: int = 0,
        retry_delay: float | Sequence[float] = 1.0,
        dead_letter: str | None = None,
        timeout: float | None = None,
        exclusive: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> Deferred[ConsumerHandle]:
        """Have *handler* work on each message of *queue*; fires when the broker has accepted the consumer.

        :param prefetch: how many messages may be here unacknowledged.
        :param concurrency: how many handlers may run at once; all that were prefetched where it is None.
        :param retries: how often a message is tried again after its handler failed.
        :param retry_delay: seconds before each retry; a sequence has one for each, its last for the others.
        :param dead_letter: queue for what failed for good (made if need be); None for ``{queue}.dead``, empty
            to reject them, which leaves them to the queue's own dead-letter exchange.
        :param timeout: seconds for one handler; then it is cancelled, and it has failed.
        """

    def call(
        self,
        routing_key: str,
        body: Any = None,
        *,
        exchange: str = "",
        headers: Mapping[str, Any] | None = None,
        timeout: float = 30.0,
    ) -> Deferred[Any]:
        """Ask whoever serves *routing_key*; fires with the decoded reply.

        :raises CallTimeout: when none came in *timeout* seconds.
        :raises MessageReturned: at once, where nobody has such a queue.
        :raises RemoteError: with what was raised over there.
        """

    def serve(
        self,
        queue: str,
        handler: Handler,
        *,
        prefetch: int | None = None,
        concurrency: int | None = None,
        timeout: float | None = None,
    ) -> Deferred[ConsumerHandle]:
        """Answer calls: *queue* is made, and what *handler* returns is the reply."""
