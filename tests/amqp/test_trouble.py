"""What a client meets that nobody likes to meet: hostile headers and replies, early callers, many at once."""

from __future__ import annotations

import uuid
from contextvars import ContextVar
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from cycloneish.amqp import (
    AMQP,
    AMQPError,
    CallTimeout,
    MemoryAMQP,
    Message,
    NotFound,
    Overloaded,
    Requeue,
    WaitTimeout,
)
from cycloneish.amqp import consumer as consumer_module
from cycloneish.amqp.publisher import Publisher

from .broker import MISSING, free_port, shared_url, sleep, until

_user: ContextVar[str] = ContextVar("user", default="nobody")


def deep(levels: int = 40) -> Any:
    """Lists in lists: deeper than is read here."""
    found: Any = 1
    for _ in range(levels):
        found = [found]
    return found


class TroubleBehaviour:
    """Mixed into a TestCase that says what ``make`` gives."""

    timeout = 60

    def make(self, **options: Any) -> Any:
        raise NotImplementedError

    def setUp(self: Any) -> None:
        self.amqp = self.make()
        self.amqp.startService()
        self.queue = f"trouble.{uuid.uuid4().hex}"

    async def tearDown(self: Any) -> None:
        for name in (self.queue, f"{self.queue}.dead"):
            await self.amqp.delete_queue(name)
        await self.amqp.stopService()

    async def test_headers_that_cannot_be_read(self: Any) -> None:
        await self.amqp.declare_queue(self.queue)
        got: list[Any] = []

        async def reads(message: Message) -> None:
            got.append(message.headers)

        consumer = await self.amqp.consume(self.queue, reads, retries=1, retry_delay=0.01)
        await self.amqp.publish("", self.queue, b"body", headers={"a": deep()})
        await self.amqp.publish("", self.queue, b"fine", headers={"a": 1})
        await until(lambda: consumer.dead_lettered == 1 and got == [{"a": 1}])
        await until(lambda: not consumer.in_flight)
        self.assertEqual(len(self.flushLoggedErrors(AMQPError)), 1)
        letters: list[Message] = []
        await self.amqp.consume(f"{self.queue}.dead", letters.append, dead_letter="")
        await until(lambda: letters)
        self.assertEqual(letters[0].body, b"body")
        self.assertIn("ProtocolError", letters[0].headers["x-cycloneish-exception"])

    async def test_an_error_that_no_header_can_hold(self: Any) -> None:
        await self.amqp.declare_queue(self.queue)

        def fails(message: Message) -> None:
            raise ValueError("\udc80")

        await self.amqp.consume(self.queue, fails)
        await self.amqp.publish("", self.queue, b"body")
        letters: list[Message] = []
        await self.amqp.consume(f"{self.queue}.dead", letters.append, dead_letter="")
        await until(lambda: letters)
        self.flushLoggedErrors(ValueError)

    async def test_headers_that_are_too_many_for_a_copy(self: Any) -> None:
        await self.amqp.declare_queue(self.queue)
        tries: list[int] = []

        def fails(message: Message) -> None:
            tries.append(message.attempt)
            raise ValueError("no")

        await self.amqp.consume(self.queue, fails)
        await self.amqp.publish("", self.queue, b"body", headers={"a": "x" * 130_600})
        letters: list[Message] = []
        await self.amqp.consume(f"{self.queue}.dead", letters.append, dead_letter="")
        await until(lambda: letters)
        self.assertEqual((letters[0].body, tries), (b"body", [1]))
        self.flushLoggedErrors(ValueError)

    async def test_replies_that_cannot_be_read(self: Any) -> None:
        async def bomb(message: Message) -> None:
            body = b"[" * 100_000 if message.value == 1 else b"\x90"
            kind = "application/json" if message.value == 1 else "application/msgpack"
            headers = {"a": deep()} if message.value == 3 else None
            await self.amqp.publish(
                "", message.reply_to, body, content_type=kind, headers=headers,
                correlation_id=message.correlation_id,
            )  # fmt: skip

        await self.amqp.declare_queue(self.queue)
        await self.amqp.consume(self.queue, bomb, dead_letter="")
        lost: list[bool] = []
        self.amqp.watch_connection(lost.append)
        await self.assertFailure(self.amqp.call(self.queue, 1, timeout=20), RecursionError)
        await self.assertFailure(self.amqp.call(self.queue, 3, timeout=0.2), CallTimeout)
        self.assertEqual(lost, [])

    async def test_many_that_fail_at_once(self: Any) -> None:
        await self.amqp.declare_queue(self.queue)
        go: Deferred[None] = Deferred()
        failed: list[int] = []

        def handler(message: Message) -> Any:
            if not message.value:
                return go
            failed.append(message.value)
            raise ValueError("no")

        consumer = await self.amqp.consume(self.queue, handler, prefetch=3000, concurrency=1, dead_letter="")
        for number in range(1500):
            self.amqp.publish("", self.queue, number)
        await until(lambda: len(consumer._waiting) == 1499)
        go.callback(None)
        await until(lambda: len(failed) == 1499 and not consumer.in_flight)
        self.flushLoggedErrors(ValueError)

    async def test_context_variables_stay_in_their_handler(self: Any) -> None:
        await self.amqp.declare_queue(self.queue)
        seen: list[str] = []

        def handler(message: Message) -> None:
            seen.append(_user.get())
            _user.set("somebody")

        await self.amqp.consume(self.queue, handler)
        for _ in range(3):
            await self.amqp.publish("", self.queue, b"")
        await until(lambda: len(seen) == 3)
        self.assertEqual(seen, ["nobody"] * 3)

    async def test_a_handler_that_does_not_end_does_not_hold_up_the_stop(self: Any) -> None:
        await self.amqp.declare_queue(self.queue)
        deaf: Deferred[None] = Deferred()
        began: list[int] = []

        async def handler(message: Message) -> None:
            began.append(1)
            while not deaf.called:
                try:
                    await sleep(30)
                except Exception:
                    began.append(2)
                    if len(began) > 2:
                        raise

        self.patch(consumer_module, "_GRACE", 0.05)
        consumer = await self.amqp.consume(self.queue, handler)
        await self.amqp.publish("", self.queue, b"")
        await until(lambda: began)
        await consumer.stop(0.05)
        self.assertEqual(await self.amqp.message_count(self.queue), 1)
        deaf.callback(None)
        for work in list(consumer._running.values()):
            work.cancel()

    async def test_the_first_calls_come_together(self: Any) -> None:
        await self.amqp.serve(self.queue, lambda message: message.value)
        client = self.make(broker=getattr(self.amqp, "broker", None))
        client.startService()
        try:
            await client.when_connected()
            asked = [client.call(self.queue, number) for number in range(5)]
            self.assertEqual(await gatherResults(asked), [0, 1, 2, 3, 4])
        finally:
            await client.stopService()

    async def test_the_first_call_is_cancelled(self: Any) -> None:
        await self.amqp.serve(self.queue, lambda message: message.value)
        client = self.make(broker=getattr(self.amqp, "broker", None))
        client.startService()
        try:
            await client.when_connected()
            first = client.call(self.queue, 1)
            first.addErrback(lambda _: None)
            first.cancel()
            self.assertEqual(await client.call(self.queue, 2, timeout=5), 2)
        finally:
            await client.stopService()


class MemoryTroubleTest(TroubleBehaviour, TestCase):
    def make(self, broker: Any = None, **options: Any) -> MemoryAMQP:
        return MemoryAMQP(broker, **options)

    async def test_giving_back_at_once_leaves_the_reactor_its_turns(self) -> None:
        await self.amqp.declare_queue(self.queue)
        tries: list[int] = []
        over: list[bool] = []

        def handler(message: Message) -> None:
            tries.append(1)
            if not over and len(tries) < 100_000:
                raise Requeue

        await self.amqp.consume(self.queue, handler)
        await self.amqp.publish("", self.queue, b"")
        await sleep(0.01)
        over.append(True)
        self.assertLess(len(tries), 100_000)
        await until(lambda: not len(self.amqp.broker.queues[self.queue]))


class RabbitMQTroubleTest(TroubleBehaviour, TestCase):
    skip = MISSING

    def make(self, broker: Any = None, **options: Any) -> AMQP:
        return AMQP(shared_url(), **options)

    async def test_a_consumer_that_comes_before_the_connection(self) -> None:
        await self.amqp.declare_queue(self.queue)
        early = self.make()
        early.startService()
        consumer = await early.consume(self.queue, lambda _: None, dead_letter="")
        assert early.client is not None
        await sleep(0.1)
        consuming = [one for one in early.client.channels.values() if one.on_deliver is not None]
        self.assertEqual(len(consuming), 1)
        await consumer.stop()
        await self.amqp.publish("", self.queue, b"x")
        await sleep(0.1)
        self.assertEqual(await self.amqp.message_count(self.queue), 1)
        await early.stopService()

    async def test_a_binding_that_was_taken_back_at_once_stays_away(self) -> None:
        await self.amqp.declare_queue(self.queue)
        known = len(self.amqp.topology)
        bound = self.amqp.bind(self.queue, "amq.topic", "a")
        await self.amqp.unbind(self.queue, "amq.topic", "a")
        await bound
        self.assertEqual(len(self.amqp.topology), known)

    async def test_cancelled_operations_leave_no_channels(self) -> None:
        await self.amqp.declare_queue(self.queue)
        assert self.amqp.client is not None
        used = len(self.amqp.client.channels)
        for _ in range(20):
            self.amqp._control = None
            count = self.amqp.message_count(self.queue)
            count.addErrback(lambda _: None)
            count.cancel()
        await self.amqp.message_count(self.queue)
        await until(lambda: len(self.amqp.client.channels) <= used + 1)

    async def test_a_stop_while_several_hosts_are_tried(self) -> None:
        closed = f"amqp://127.0.0.1:{free_port()}/"
        amqp = AMQP([closed, shared_url(), shared_url(), shared_url()])
        amqp.startService()
        await amqp.stopService()
        await sleep(0.3)
        self.assertEqual((amqp.connections, amqp.connected), (0, False))

    async def test_a_broker_that_does_not_answer_keeps_nobody_waiting(self) -> None:
        await self.amqp.declare_queue(self.queue)
        consumer = await self.amqp.consume(self.queue, lambda _: None)
        slow = self.amqp
        slow.timeout = 0.2
        assert slow.client is not None
        write = slow.client.transport.write
        slow.client.transport.write = lambda _: None
        slow._control = None
        asked = [slow.message_count(self.queue) for _ in range(3)]
        for one in asked:
            await self.assertFailure(one, WaitTimeout)
        await self.assertFailure(slow.consume(self.queue, lambda _: None, dead_letter=""), WaitTimeout)
        await consumer.stop(0.2)
        slow.client.transport.write = write
        slow.timeout = 30.0
        slow.client.transport.abortConnection()
        await until(lambda: not slow.connected)


class PublisherTest(SynchronousTestCase):
    def make(self, **options: Any) -> tuple[Clock, Publisher]:
        clock = Clock()
        looked_up: Deferred[Any] = Deferred()
        settings: dict[str, Any] = {"window": 10, "max_waiting": 3, "republish": False}
        publisher = Publisher(clock, **settings, look_up=lambda _: looked_up)
        self.looked_up = looked_up
        return clock, publisher

    def send(self, publisher: Publisher, exchange: str = "") -> Deferred[None]:
        return publisher.send(exchange, "q", b"\0\0", b"x", False, None, 1.0)

    def test_who_publishes_again_when_it_was_too_late(self) -> None:
        clock, publisher = self.make()
        again: list[Deferred[None]] = []
        for _ in range(2):
            self.send(publisher).addErrback(lambda _: again.append(self.send(publisher)))
        clock.pump([0.5] * 3)
        self.assertEqual(len(again), 2)
        self.assertEqual(len(clock.getDelayedCalls()), 1)
        publisher.stop(AMQPError("over"))
        self.assertEqual(clock.getDelayedCalls(), [])
        for one in again:
            self.failureResultOf(one, AMQPError)

    def test_what_waits_for_its_exchange_is_counted(self) -> None:
        _, publisher = self.make()
        channel: Any = type("Channel", (), {"id": 1})()
        publisher.opened(channel)
        waiting = [self.send(publisher, "unknown") for _ in range(3)]
        self.failureResultOf(self.send(publisher, "unknown"), Overloaded)
        self.looked_up.errback(NotFound(404, "no"))
        for one in waiting:
            self.failureResultOf(one, NotFound)
        publisher.stop(AMQPError("over"))
