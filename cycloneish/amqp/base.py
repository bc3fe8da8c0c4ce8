"""What every broker here does the same way: bodies and properties, consumers, calls and replies.

:mod:`~cycloneish.amqp.service` and :mod:`~cycloneish.amqp.memory` build on it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from cycloneish.coroutines import as_deferred

from .bodies import encode_body
from .consumer import Consumer, Options
from .errors import AMQPError, CallTimeout, ConnectionLost, RemoteError, Stopped
from .interface import ConsumerHandle, Handler
from .message import Message

__all__ = ["BrokerBase"]

log = Logger()

_ERROR = "x-cycloneish-error"


class BrokerBase(Service):
    """Half of :class:`~cycloneish.amqp.interface.Broker`; the other half is how it reaches the broker."""

    def __init__(self, reactor: Any, prefetch: int, stop_timeout: float) -> None:
        if reactor is None:
            from twisted.internet import reactor
        self.reactor = reactor
        self.prefetch = prefetch
        self.stop_timeout = stop_timeout
        self.consumers: set[Consumer] = set()
        self._calls: dict[str, Deferred[Any]] = {}
        self._watchers: list[Callable[[bool], None]] = []
        # Unique over processes and restarts, cheap for each message.
        self._prefix = uuid.uuid4().hex
        self._numbers = count(1)

    def new_id(self) -> str:
        """A message id that nobody else uses."""
        return f"{self._prefix}-{next(self._numbers)}"

    # For the half that reaches the broker

    def _send(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: dict[str, Any],
        mandatory: bool,
        timeout: float | None,
    ) -> Deferred[None]:
        raise NotImplementedError

    def _send_call(
        self, exchange: str, routing_key: str, body: bytes, properties: dict[str, Any], timeout: float
    ) -> Deferred[None]:
        raise NotImplementedError

    def _subscribe(self, consumer: Consumer) -> Deferred[None]:
        raise NotImplementedError

    def declare_queue(
        self,
        name: str = "",
        *,
        durable: bool = True,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> Deferred[str]:
        """See the interface."""
        raise NotImplementedError

    # Publish

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

        :param body: bytes as they are, text as UTF-8, anything else as JSON (or msgpack, by *content_type*).
        :param expiration: seconds until a message that nobody took is dropped or dead-lettered.
        :param mandatory: fail with :exc:`MessageReturned` where it reaches no queue.
        :param timeout: seconds for all of it, waiting for a connection or for room included.
        """
        try:
            data, content_type = encode_body(body, content_type)
        except (TypeError, ValueError, ImportError):
            return fail(Failure())
        properties: dict[str, Any] = {
            "content_type": content_type,
            "delivery_mode": 2 if persistent else 1,
        }
        if headers:
            properties["headers"] = headers
        if priority is not None:
            properties["priority"] = priority
        if expiration is not None:
            properties["expiration"] = str(max(0, round(expiration * 1000)))
        if correlation_id is not None:
            properties["correlation_id"] = correlation_id
        if reply_to is not None:
            properties["reply_to"] = reply_to
        if message_id is not None:
            properties["message_id"] = message_id
        if type is not None:
            properties["type"] = type
        if timestamp is not None:
            properties["timestamp"] = timestamp
        if app_id is not None:
            properties["app_id"] = app_id
        return self._send(exchange, routing_key, data, properties, mandatory, timeout)

    # Consume

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

        The parameters are described in :meth:`cycloneish.amqp.interface.Broker.consume`.
        """
        try:
            options = Options(
                self.prefetch if prefetch is None else prefetch,
                concurrency,
                retries,
                retry_delay,
                dead_letter,
                timeout,
                exclusive,
                arguments,
            )
        except ValueError:
            return fail(Failure())
        consumer = Consumer(self.reactor, queue, handler, options, self._publish_copy)
        return Deferred.fromCoroutine(self._consume(consumer))

    def _publish_copy(self, queue: str, body: bytes, properties: dict[str, Any]) -> Deferred[None]:
        return self._send("", queue, body, properties, True, None)

    async def _consume(self, consumer: Consumer) -> ConsumerHandle:
        for delay in consumer.options.used_delays():
            await self.declare_queue(
                consumer.retry_queue(consumer.queue, delay),
                arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": consumer.queue},
            )
        if consumer.dead_letter_queue:
            await self.declare_queue(consumer.dead_letter_queue)
        if not self.running:
            raise Stopped("the service is not running")
        consumer.on_stopped = self.consumers.discard
        self.consumers.add(consumer)
        try:
            await self._subscribe(consumer)
        except BaseException:
            self.consumers.discard(consumer)
            consumer.stopping = True
            raise
        return consumer

    # Calls

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

        :param timeout: seconds.
        :raises CallTimeout: when no reply came in time.
        :raises MessageReturned: at once, where nobody has such a queue.
        :raises RemoteError: with what was raised over there.
        """
        try:
            data, content_type = encode_body(body, None)
        except (TypeError, ValueError):
            return fail(Failure())
        identity = self.new_id()
        properties: dict[str, Any] = {
            "content_type": content_type,
            "delivery_mode": 1,
            "correlation_id": identity,
            "message_id": identity,
            # Nobody waits for the answer any more after that.
            "expiration": str(max(1, round(timeout * 1000))),
        }
        if headers:
            properties["headers"] = headers
        answer: Deferred[Any] = Deferred()
        self._calls[identity] = answer

        def too_late() -> None:
            if not answer.called:
                answer.errback(CallTimeout(f"no reply from {routing_key!r} within {timeout:g} s"))

        def over(result: Any) -> Any:
            self._calls.pop(identity, None)
            if timer.active():
                timer.cancel()
            sent.cancel()
            return result

        def not_sent(failure: Failure) -> None:
            if not answer.called:
                answer.errback(failure)

        timer = self.reactor.callLater(timeout, too_late)
        sent = self._send_call(exchange, routing_key, data, properties, timeout)
        sent.addErrback(not_sent)
        answer.addBoth(over)
        return answer

    def _reply_came(self, message: Message) -> None:
        try:
            answer = self._calls.pop(message.correlation_id or "", None)
            kind = message.headers.get(_ERROR)
        except AMQPError as error:
            log.warn("AMQP: a reply that cannot be read: {error}", error=error)
            return
        if answer is None or answer.called:
            return  # too late, or cancelled
        try:
            if kind is not None:
                answer.errback(RemoteError(str(kind), str(message.value)))
            else:
                answer.callback(message.value)
        except Exception:
            # Whatever the peer sent is this caller's problem alone.
            answer.errback(Failure())

    def _calls_lost(self, reason: AMQPError) -> None:
        calls, self._calls = self._calls, {}
        for answer in calls.values():
            if not answer.called:
                answer.errback(ConnectionLost(f"no reply can come any more: {reason}"))

    def serve(
        self,
        queue: str,
        handler: Handler,
        *,
        prefetch: int | None = None,
        concurrency: int | None = None,
        timeout: float | None = None,
    ) -> Deferred[ConsumerHandle]:
        """Answer calls: *queue* is made, and what *handler* returns for a :class:`Message` is the reply.

        A call is answered once or, where this process dies over it, worked on again by the next; it is not
        retried after an exception, which goes to the caller.
        """
        return Deferred.fromCoroutine(self._serve(queue, handler, prefetch, concurrency, timeout))

    async def _serve(
        self,
        queue: str,
        handler: Handler,
        prefetch: int | None,
        concurrency: int | None,
        timeout: float | None,
    ) -> ConsumerHandle:
        async def answer(message: Message) -> None:
            body: Any
            headers: dict[str, Any] | None = None
            try:
                work = as_deferred(handler(message))
                if timeout is not None:
                    work.addTimeout(timeout, self.reactor)
                body, content_type = encode_body(await work, None)
            except Exception as error:
                log.failure("AMQP: a call of {queue} failed", queue=queue)
                headers = {_ERROR: type(error).__name__}
                body, content_type = str(error).encode("utf-8", "backslashreplace"), "text/plain"
            if message.reply_to:
                await self.publish(
                    "",
                    message.reply_to,
                    body,
                    content_type=content_type,
                    headers=headers,
                    correlation_id=message.correlation_id,
                    persistent=False,
                )

        await self.declare_queue(queue, durable=False, auto_delete=True)
        return await self.consume(queue, answer, prefetch=prefetch, concurrency=concurrency, dead_letter="")

    # Connection

    def watch_connection(self, watcher: Callable[[bool], None]) -> Callable[[], None]:
        """Call *watcher* with True after each (re)connect and False after each loss; returns the way out."""
        self._watchers.append(watcher)

        def stop() -> None:
            if watcher in self._watchers:
                self._watchers.remove(watcher)

        return stop

    def _tell_watchers(self, connected: bool) -> None:
        for watcher in list(self._watchers):
            try:
                watcher(connected)
            except Exception:
                log.failure("AMQP: a connection watcher failed")
