"""From a delivery to its acknowledgement: handlers, concurrency, retries with delay, dead letters, stopping.

The same for RabbitMQ and for the in-memory broker: each gives a :class:`Link` for the messages of one
subscription, and a way to publish.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from cycloneish.coroutines import as_deferred, is_awaitable

from .errors import ProtocolError, Reject, Requeue, WaitTimeout
from .interface import Handler
from .message import ATTEMPT, Message

__all__ = ["Consumer", "Link", "Options"]

log = Logger()

# A header frame cannot be split, so that what goes into headers has to stay well below the smallest frame_max
# in use (RabbitMQ's is 131072, and 8192 is its floor).
_LONGEST_TRACEBACK = 4096
#: Seconds that the broker has to answer when a consumer stops, and handlers that were cancelled to end.
_GRACE = 5.0


class Link(Protocol):
    """One subscription as the consumer needs it; calls after its end do nothing."""

    def ack(self, tag: int) -> None:
        """Done with it."""

    def nack(self, tag: int, requeue: bool) -> None:
        """Back to the queue, or rejected."""

    def cancel(self) -> Deferred[None]:
        """No more deliveries, please; fires when there will be none."""

    def close(self) -> Deferred[None]:
        """The end; whatever is not acknowledged goes back to the queue."""


class Options:
    """How a consumer treats its messages; see :meth:`cycloneish.amqp.interface.Broker.consume`."""

    def __init__(
        self,
        prefetch: int,
        concurrency: int | None,
        retries: int,
        retry_delay: float | Sequence[float],
        dead_letter: str | None,
        timeout: float | None,
        exclusive: bool,
        arguments: Mapping[str, Any] | None,
    ) -> None:
        if not 1 <= prefetch <= 65535:
            raise ValueError("prefetch is from 1 to 65535: without it a fast queue would fill the memory")
        if concurrency is not None and concurrency < 1:
            raise ValueError("concurrency is at least 1")
        if retries < 0:
            raise ValueError("retries is at least 0")
        delays = [retry_delay] if isinstance(retry_delay, int | float) else list(retry_delay)
        if not delays or min(delays) < 0.001:
            raise ValueError("each retry_delay is at least a millisecond: failures must not loop hot")
        self.prefetch = prefetch
        self.concurrency = prefetch if concurrency is None else concurrency
        self.retries = retries
        self.delays = [round(delay * 1000) for delay in delays]
        self.dead_letter = dead_letter
        self.timeout = timeout
        self.exclusive = exclusive
        self.arguments = dict(arguments or {})

    def delay(self, attempt: int) -> int:
        """Milliseconds before the retry that follows *attempt*."""
        return self.delays[min(attempt, len(self.delays)) - 1]

    def used_delays(self) -> list[int]:
        """Every delay that can come, once."""
        return sorted({self.delay(attempt) for attempt in range(1, self.retries + 1)})


class Consumer:
    """A running consumer; what :meth:`consume` fires with.

    :param publish: sends a copy: (routing key, body, properties), fires when it is confirmed.
    """

    def __init__(
        self,
        reactor: Any,
        queue: str,
        handler: Handler,
        options: Options,
        publish: Callable[[str, bytes, dict[str, Any]], Deferred[None]],
    ) -> None:
        self.queue = queue
        self.options = options
        self.handled = 0
        self.failed = 0
        self.dead_lettered = 0
        self.stopping = False
        self.link: Link | None = None
        self.on_stopped: Callable[[Consumer], None] | None = None
        #: Where a stream goes on after a reconnect.
        self.last_offset: int | None = None
        self._is_stream = "x-stream-offset" in options.arguments
        self._reactor = reactor
        self._handler = handler
        self._publish = publish
        self._waiting: deque[tuple[Link, Message]] = deque()
        self._running: dict[int, Deferred[Any]] = {}
        self._in_flight = 0
        self._going_on = False
        # Each handler gets a copy: what ends one may run in the variables of another.
        self._context = copy_context()
        self._number = 0
        self._giving_back = False
        self._idle: list[Deferred[None]] = []
        self._stopped: Deferred[None] | None = None

    @staticmethod
    def retry_queue(queue: str, delay: int) -> str:
        """Name of the queue where messages of *queue* wait *delay* milliseconds."""
        return f"{queue}.retry.{delay}"

    @property
    def dead_letter_queue(self) -> str:
        """Name of the queue for what failed for good; empty where there is none."""
        named = self.options.dead_letter
        return f"{self.queue}.dead" if named is None else named

    @property
    def in_flight(self) -> int:
        """Handlers running now."""
        return self._in_flight

    def attached(self, link: Link) -> None:
        """Messages come by *link* from now on."""
        self._waiting.clear()  # of the link before: the broker delivers them again
        self.link = link

    def detached(self, link: Link) -> None:
        """*link* is gone, and with it what waited."""
        if self.link is link:
            self.link = None
            self._waiting.clear()

    def deliver(self, link: Link, message: Message) -> None:
        """A message came."""
        if self.stopping:
            return  # closing the link gives it back
        if self._in_flight >= self.options.concurrency:
            self._waiting.append((link, message))
        else:
            self._start(link, message)

    def _start(self, link: Link, message: Message) -> None:
        context = self._context.copy()
        try:
            result = context.run(self._handler, message)
        except Exception:
            self._in_flight += 1
            self._after_failure(link, message, Failure())
            return
        if not is_awaitable(result):
            self._succeeded(link, message)
            return
        self._in_flight += 1
        work = context.run(as_deferred, result)
        if (
            work.called
            and not work.paused
            and not isinstance(getattr(work, "result", None), Deferred | Failure)
        ):
            self._in_flight -= 1
            self._succeeded(link, message)
            return
        if self.options.timeout is not None:
            work.addTimeout(self.options.timeout, self._reactor)
        self._number += 1
        number = self._number
        self._running[number] = work

        def done(outcome: Any) -> None:
            self._running.pop(number, None)
            if isinstance(outcome, Failure):
                self._after_failure(link, message, outcome)
            else:
                self._succeeded(link, message)
                self._finished()

        work.addBoth(done)

    def _succeeded(self, link: Link, message: Message) -> None:
        self.handled += 1
        if self._is_stream:
            self.last_offset = message.headers.get("x-stream-offset", self.last_offset)
        link.ack(message.delivery_tag)

    def _after_failure(self, link: Link, message: Message, failure: Failure) -> None:
        """In flight until what follows is safe with the broker."""
        tag = message.delivery_tag
        if failure.check(Requeue) or (
            self._giving_back and failure.check(CancelledError, asyncio.CancelledError)
        ):
            link.nack(tag, True)
            self._finished()
            return
        self.failed += 1
        try:
            attempt = message.attempt
        except ProtocolError:
            # Headers that cannot be read cannot be read at the next attempt either.
            attempt = self.options.retries + 1
        if attempt <= self.options.retries and not failure.check(Reject):
            delay = self.options.delay(attempt)
            log.warn(
                "AMQP: attempt {attempt} of a message of {queue} failed, again in {delay} ms: {error}",
                attempt=attempt,
                queue=self.queue,
                delay=delay,
                error=failure.getErrorMessage(),
            )
            copied = self._copy(
                self.retry_queue(self.queue, delay), message, {ATTEMPT: attempt}, {"expiration": str(delay)}
            )
        elif self.dead_letter_queue:
            self.dead_lettered += 1
            log.failure("AMQP: a message of {queue} failed for good", failure=failure, queue=self.queue)
            copied = self._copy(
                self.dead_letter_queue, message, _post_mortem(failure, attempt, self.queue), {}
            )
        else:
            self.dead_lettered += 1
            log.failure("AMQP: a message of {queue} was rejected", failure=failure, queue=self.queue)
            link.nack(tag, False)
            self._finished()
            return

        def safe(_: Any) -> None:
            self._offset_done(message)
            link.ack(tag)

        def not_safe(problem: Failure) -> Deferred[None]:
            # Back to the queue, but not at once: what keeps the copy from the broker would be met again.
            log.warn("AMQP: the copy could not be published: {error}", error=problem.getErrorMessage())
            # What can be sent at no time is rejected: it would come back for ever.
            requeue = not problem.check(ValueError, TypeError)
            return deferLater(self._reactor, 1.0, link.nack, tag, requeue)

        copied.addErrback(self._copy_the_body, message, failure, attempt)
        copied.addCallbacks(safe, not_safe).addBoth(lambda _: self._finished())

    def _copy_the_body(self, problem: Failure, message: Message, failure: Failure, attempt: int) -> Any:
        """Its headers cannot be sent again, at no time: a dead letter with what went wrong, without them."""
        if not problem.check(ValueError, TypeError) or not self.dead_letter_queue:
            return problem
        log.warn("AMQP: a message of {queue} lost its headers: {error}", queue=self.queue, error=problem)
        properties = {"headers": _post_mortem(failure, attempt, self.queue), "delivery_mode": 2}
        return self._publish(self.dead_letter_queue, message.body, properties)

    def _offset_done(self, message: Message) -> None:
        if self._is_stream:
            self.last_offset = message.headers.get("x-stream-offset", self.last_offset)

    def _copy(
        self, queue: str, message: Message, headers: dict[str, Any], changes: dict[str, Any]
    ) -> Deferred[None]:
        try:
            properties = dict(message.properties)
        except ProtocolError:
            properties = {"delivery_mode": 2}
        for name in ("expiration", "user_id", "cluster_id"):
            properties.pop(name, None)
        old = properties.get("headers") or {}
        origin = {"x-cycloneish-exchange": message.exchange, "x-cycloneish-routing-key": message.routing_key}
        properties["headers"] = {**origin, **old, **headers}
        properties.update(changes)
        return self._publish(queue, message.body, properties)

    def _finished(self) -> None:
        self._in_flight -= 1
        if not self._going_on:
            # A handler that fails at once comes here again from within: no deep recursion of that.
            self._going_on = True
            try:
                while self._waiting and self._in_flight < self.options.concurrency and not self.stopping:
                    self._start(*self._waiting.popleft())
            finally:
                self._going_on = False
        if not self._in_flight:
            idle, self._idle = self._idle, []
            for waiter in idle:
                if not waiter.called:
                    waiter.callback(None)

    def stop(self, timeout: float | None = None) -> Deferred[None]:
        """Take no more messages, wait for the handlers in flight, then give the rest back to the queue."""
        if self._stopped is None:
            self._stopped = Deferred.fromCoroutine(self._stop(timeout))
        waiter: Deferred[None] = Deferred()

        def tell(result: Any) -> Any:
            if not waiter.called:
                waiter.callback(None)
            return result

        self._stopped.addBoth(tell)
        return waiter

    async def _stop(self, timeout: float | None) -> None:
        self.stopping = True
        self._waiting.clear()
        try:
            if self.link is not None:
                try:
                    await self.link.cancel().addTimeout(_GRACE, self._reactor, _no_answer)
                except Exception as error:
                    log.debug("AMQP: cancelling the consumer: {error}", error=error)
            timer = None
            if timeout is not None:
                timer = self._reactor.callLater(timeout, self._give_up)
            if self._in_flight:
                idle: Deferred[None] = Deferred()
                self._idle.append(idle)
                if timeout is not None:
                    idle.addTimeout(timeout + _GRACE, self._reactor, _no_answer)
                try:
                    await idle
                except WaitTimeout:
                    log.warn("AMQP: {n} handlers of {queue} do not end", n=self._in_flight, queue=self.queue)
            if timer is not None and timer.active():
                timer.cancel()
            link, self.link = self.link, None
            if link is not None:
                try:
                    await link.close().addTimeout(_GRACE, self._reactor, _no_answer)
                except WaitTimeout as error:
                    log.debug("AMQP: closing the consumer's channel: {error}", error=error)
        finally:
            if self.on_stopped is not None:
                self.on_stopped(self)

    def _give_up(self) -> None:
        """The handlers had their time: cancel them, their messages go back."""
        self._giving_back = True
        for work in list(self._running.values()):
            work.cancel()


def _no_answer(_: Any, seconds: float) -> Any:
    raise WaitTimeout(f"no answer within {seconds:g} s")


def _clean(text: str) -> str:
    """Without lone surrogates, which no header can hold."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _post_mortem(failure: Failure, attempt: int, queue: str) -> dict[str, Any]:
    kind = failure.type
    return {
        ATTEMPT: attempt,
        "x-cycloneish-queue": queue,
        "x-cycloneish-exception": f"{kind.__module__}.{kind.__qualname__}" if kind else "",
        "x-cycloneish-error": _clean(failure.getErrorMessage()[:500]),
        # The end of a traceback says what failed.
        "x-cycloneish-traceback": _clean(failure.getTraceback()[-_LONGEST_TRACEBACK:]),
    }
