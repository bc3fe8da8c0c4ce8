"""One suite, two runs: what every broker here has to do, with a real RabbitMQ and in memory."""

from __future__ import annotations

import itertools
import uuid
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import TestCase

from cycloneish.amqp import (
    AMQP,
    CallTimeout,
    MemoryAMQP,
    MemoryBroker,
    Message,
    MessageNacked,
    MessageReturned,
    MessageTooBig,
    NotFound,
    PreconditionFailed,
    Reject,
    RemoteError,
    Requeue,
    ResourceLocked,
    Stopped,
)

from .broker import MISSING, shared_url, sleep, until


class Behaviour:
    """Mixed into a TestCase that says what ``make`` gives."""

    def make(self, **options: Any) -> Any:
        raise NotImplementedError

    def setUp(self) -> None:
        self.prefix = uuid.uuid4().hex[:8]
        self.numbers = itertools.count(1)
        self.temporary: list[str] = []
        self.amqp = self.start()

    async def tearDown(self) -> None:
        cleaner = self.start()
        for queue in self.temporary:
            await cleaner.delete_queue(queue)
        await cleaner.stopService()
        for amqp in self.started:
            if amqp.running:
                await amqp.stopService()

    def start(self, **options: Any) -> Any:
        amqp = self.make(**options)
        amqp.startService()
        self.__dict__.setdefault("started", []).append(amqp)
        return amqp

    def name(self) -> str:
        name = f"{self.prefix}.{next(self.numbers)}"
        self.temporary += [name, f"{name}.dead"]
        return name

    async def queue(self, **settings: Any) -> str:
        return await self.amqp.declare_queue(self.name(), **settings)

    async def test_bodies_headers_and_properties_arrive_as_they_were_sent(self) -> None:
        queue = await self.queue()
        got: list[Message] = []
        await self.amqp.consume(queue, got.append)
        headers = {"text": "grüße", "number": 1 << 40, "real": 0.5, "yes": True, "none": None}
        headers |= {"list": [1, "two"], "table": {"a": {"b": -3}}, "bytes": b"\0\xff"}
        await self.amqp.publish("", queue, {"a": [1, None, "ü"]}, headers=headers, priority=3)
        await self.amqp.publish("", queue, "text ü", correlation_id="c", reply_to="r", message_id="m")
        await self.amqp.publish("", queue, b"\0\1", type="t", timestamp=1700000000, app_id="a")
        await self.amqp.publish("", queue, b"", expiration=60)
        await until(lambda: len(got) == 4)
        self.assertEqual([m.value for m in got], [{"a": [1, None, "ü"]}, "text ü", b"\0\1", b""])
        self.assertEqual(got[0].headers, headers)
        self.assertEqual((got[0].priority, got[0].exchange, got[0].routing_key), (3, "", queue))
        self.assertEqual((got[1].correlation_id, got[1].reply_to, got[1].message_id), ("c", "r", "m"))
        self.assertEqual(
            {"type": "t", "timestamp": 1700000000, "app_id": "a"}.items() - got[2].properties.items(), set()
        )
        self.assertEqual(got[3].body, b"")
        self.assertIsInstance(got[3].body, bytes)
        self.assertEqual(got[3].expiration, 60)

    async def test_a_large_body_arrives_whole(self) -> None:
        queue = await self.queue()
        body = bytes(range(256)) * 4096
        got: list[bytes] = []
        await self.amqp.consume(queue, lambda message: got.append(message.body))
        await self.amqp.publish("", queue, body)
        await until(lambda: got)
        self.assertEqual(got, [body])

    async def test_order_is_kept(self) -> None:
        queue = await self.queue()
        got: list[int] = []
        await self.amqp.consume(queue, lambda message: got.append(message.value))
        for number in range(500):
            self.amqp.publish("", queue, number)
        await until(lambda: len(got) == 500)
        self.assertEqual(got, list(range(500)))

    async def test_direct_topic_and_fanout_exchanges(self) -> None:
        cases = {
            "direct": ("a", {"a": 1, "b": 0}),
            "fanout": ("", {"a": 1, "b": 1}),
            "topic": ("a.*.#", {"a.b": 1, "a": 0, "a.b.c.d": 1, "b.a": 0}),
        }
        for kind, (key, expected) in cases.items():
            exchange = f"{self.prefix}.{kind}"
            await self.amqp.declare_exchange(exchange, kind)
            queue = await self.queue()
            await self.amqp.bind(queue, exchange, key)
            for routing_key, count in expected.items():
                await self.amqp.publish(exchange, routing_key, b"x")
                self.assertEqual(await self.amqp.purge_queue(queue), count, (kind, routing_key))
            await self.amqp.unbind(queue, exchange, key)
            await self.amqp.publish(exchange, next(iter(expected)), b"x")
            self.assertEqual(await self.amqp.message_count(queue), 0)
            await self.amqp.delete_exchange(exchange)

    async def test_a_mandatory_message_without_a_queue_comes_back(self) -> None:
        error = await self.assertFailure(
            self.amqp.publish("amq.direct", self.prefix, b"x", mandatory=True), MessageReturned
        )
        self.assertEqual((error.code, error.exchange, error.routing_key), (312, "amq.direct", self.prefix))
        await self.amqp.publish("amq.direct", self.prefix, b"x")

    async def test_an_unknown_exchange_fails_its_publisher_alone(self) -> None:
        queue = await self.queue()
        good = [self.amqp.publish("", queue, b"x") for _ in range(20)]
        bad = self.amqp.publish(f"{self.prefix}.none", "k", b"x")
        good += [self.amqp.publish("", queue, b"x") for _ in range(20)]
        error = await self.assertFailure(bad, NotFound)
        self.assertEqual(error.code, 404)
        for one in good:
            await one
        self.assertEqual(await self.amqp.message_count(queue), 40)

    async def test_typed_errors_of_operations(self) -> None:
        queue = await self.queue()
        await self.assertFailure(self.amqp.declare_queue(queue, durable=False), PreconditionFailed)
        await self.assertFailure(self.amqp.bind(queue, f"{self.prefix}.none", ""), NotFound)
        await self.assertFailure(self.amqp.message_count(f"{self.prefix}.none"), NotFound)
        await self.assertFailure(self.amqp.consume(f"{self.prefix}.none", print, dead_letter=""), NotFound)
        other = self.start()
        mine = await self.amqp.declare_queue(exclusive=True)
        await self.assertFailure(other.declare_queue(mine, exclusive=True), ResourceLocked)
        await self.amqp.publish("", queue, b"still here")

    async def test_a_full_queue_that_rejects_says_so(self) -> None:
        queue = await self.queue(arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
        await self.amqp.publish("", queue, b"1")
        await self.assertFailure(self.amqp.publish("", queue, b"2"), MessageNacked)

    async def test_what_cannot_be_sent_is_refused_here(self) -> None:
        queue = await self.queue()
        await self.assertFailure(self.amqp.publish("", queue, object()), TypeError)
        await self.assertFailure(self.amqp.publish("", queue, b"", headers={"a": object()}), TypeError)
        await self.assertFailure(self.amqp.publish("", queue, b"", correlation_id="x" * 256), ValueError)
        small = self.start(max_message_size=1000)
        await self.assertFailure(small.publish("", queue, b"x" * 1001), MessageTooBig)
        await self.assertFailure(self.amqp.consume(queue, print, prefetch=0), ValueError)

    async def test_messages_live_as_long_as_they_should_and_go_to_the_dead_letters(self) -> None:
        dead = await self.queue()
        arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
        queue = await self.queue(arguments=arguments)
        got: list[Message] = []
        await self.amqp.consume(dead, got.append)
        await self.amqp.publish("", queue, b"x", expiration=0.05)
        await until(lambda: got)
        death = got[0].headers["x-death"][0]
        self.assertEqual((death["queue"], death["reason"], death["count"]), (queue, "expired", 1))

    async def test_handlers_may_be_plain_deferred_or_coroutines(self) -> None:
        queue = await self.queue()
        gate: Deferred[None] = Deferred()
        seen: list[Any] = []

        async def slow(message: Message) -> None:
            seen.append(message.value)
            await gate

        consumer = await self.amqp.consume(queue, slow, prefetch=3)
        for number in range(5):
            await self.amqp.publish("", queue, number)
        await until(lambda: len(seen) == 3)
        self.assertEqual((consumer.in_flight, consumer.handled), (3, 0))
        gate.callback(None)
        await until(lambda: consumer.handled == 5)
        self.assertEqual(await self.amqp.message_count(queue), 0)

    async def test_concurrency_is_bounded(self) -> None:
        queue = await self.queue()
        running: list[Deferred[None]] = []
        most: list[int] = []

        def handler(message: Message) -> Deferred[None]:
            work: Deferred[None] = Deferred()
            running.append(work)
            most.append(len(running))
            return work

        consumer = await self.amqp.consume(queue, handler, prefetch=10, concurrency=2)
        for number in range(6):
            await self.amqp.publish("", queue, number)
        for done in range(6):
            await until(lambda: len(running) == min(2, 6 - consumer.handled))
            running.pop(0).callback(None)
            self.assertEqual(consumer.handled, done + 1)
        self.assertEqual(max(most), 2)

    async def test_a_failure_is_retried_after_its_delay_and_then_a_dead_letter(self) -> None:
        queue = await self.queue()
        self.temporary += [f"{queue}.retry.20", f"{queue}.retry.40"]
        attempts: list[int] = []
        dead: list[Message] = []

        def handler(message: Message) -> None:
            attempts.append(message.attempt)
            raise RuntimeError("no good")

        consumer = await self.amqp.consume(queue, handler, retries=2, retry_delay=[0.02, 0.04])
        await self.amqp.consume(f"{queue}.dead", dead.append, dead_letter="")
        await self.amqp.publish("", queue, {"poison": True}, headers={"mine": 1}, message_id="the-id")
        await until(lambda: dead)
        self.assertEqual(attempts, [1, 2, 3])
        self.assertEqual((dead[0].value, dead[0].message_id), ({"poison": True}, "the-id"))
        headers = dead[0].headers
        self.assertEqual((headers["mine"], headers["x-cycloneish-queue"]), (1, queue))
        self.assertEqual(headers["x-cycloneish-exception"], "builtins.RuntimeError")
        self.assertIn("no good", headers["x-cycloneish-traceback"])
        self.assertIn("test_behaviour.py", headers["x-cycloneish-traceback"])
        self.assertEqual((consumer.failed, consumer.dead_lettered, consumer.handled), (3, 1, 0))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    async def test_a_count_that_somebody_made_up_does_no_harm(self) -> None:
        queue = await self.queue()
        self.temporary.append(f"{queue}.retry.10")
        attempts: list[int] = []

        def handler(message: Message) -> None:
            attempts.append(message.attempt)
            raise RuntimeError

        consumer = await self.amqp.consume(queue, handler, retries=1, retry_delay=0.01)
        for made_up in (-(1 << 40), "many", 1 << 40):
            await self.amqp.publish("", queue, b"x", headers={"x-cycloneish-attempt": made_up})
        await until(lambda: consumer.dead_lettered == 3)
        self.assertEqual(sorted(attempts), [1, 1, 2, 2, (1 << 40) + 1])
        self.flushLoggedErrors(RuntimeError)

    async def test_a_retry_that_succeeds_is_the_end_of_it(self) -> None:
        queue = await self.queue()
        self.temporary.append(f"{queue}.retry.10")

        async def handler(message: Message) -> None:
            await sleep(0)
            if message.attempt < 3:
                raise RuntimeError("not yet")

        consumer = await self.amqp.consume(queue, handler, retries=5, retry_delay=0.01)
        await self.amqp.publish("", queue, b"x")
        await until(lambda: consumer.handled == 1)
        self.assertEqual((consumer.failed, consumer.dead_lettered), (2, 0))

    async def test_reject_and_requeue(self) -> None:
        queue = await self.queue()
        self.temporary.append(f"{queue}.retry.1000")
        seen: list[bool] = []

        def handler(message: Message) -> None:
            seen.append(message.redelivered)
            if len(seen) == 1:
                raise Requeue
            raise Reject("never")

        consumer = await self.amqp.consume(queue, handler, retries=5)
        await self.amqp.publish("", queue, b"x")
        await until(lambda: consumer.dead_lettered == 1)
        self.assertEqual(seen, [False, True])
        while not await self.amqp.message_count(f"{queue}.dead"):
            await sleep(0.01)
        self.assertEqual(len(self.flushLoggedErrors(Reject)), 1)

    async def test_without_a_dead_letter_queue_the_queues_own_exchange_gets_it(self) -> None:
        dead = await self.queue()
        arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
        queue = await self.queue(arguments=arguments)
        got: list[Message] = []
        await self.amqp.consume(dead, got.append)

        def handler(message: Message) -> None:
            raise Reject

        await self.amqp.consume(queue, handler, dead_letter="")
        await self.amqp.publish("", queue, b"x")
        await until(lambda: got)
        self.assertEqual(got[0].headers["x-death"][0]["reason"], "rejected")
        self.flushLoggedErrors(Reject)

    async def test_a_handler_that_takes_too_long_has_failed(self) -> None:
        queue = await self.queue()
        cancelled: list[bool] = []
        consumer = await self.amqp.consume(
            queue, lambda message: Deferred(lambda _: cancelled.append(True)), timeout=0.05
        )
        await self.amqp.publish("", queue, b"x")
        await until(lambda: consumer.dead_lettered == 1)
        self.assertEqual(cancelled, [True])
        self.assertTrue(self.flushLoggedErrors())

    async def test_stopping_waits_for_handlers_and_gives_the_rest_back(self) -> None:
        queue = await self.queue()
        gate: Deferred[None] = Deferred()
        consumer = await self.amqp.consume(queue, lambda message: gate, prefetch=5, concurrency=1)
        for _ in range(5):
            await self.amqp.publish("", queue, b"x")
        await until(lambda: consumer.in_flight == 1)
        stopped = consumer.stop()
        await sleep(0.05)
        self.assertFalse(stopped.called)
        gate.callback(None)
        await stopped
        self.assertEqual(consumer.handled, 1)
        while await self.amqp.message_count(queue) != 4:
            await sleep(0.01)

    async def test_stopping_with_a_time_out_gives_back_what_is_in_flight(self) -> None:
        queue = await self.queue()
        consumer = await self.amqp.consume(queue, lambda message: Deferred())
        await self.amqp.publish("", queue, b"x")
        await until(lambda: consumer.in_flight == 1)
        await consumer.stop(timeout=0.05)
        got: list[Message] = []
        await self.amqp.consume(queue, got.append)
        await until(lambda: got)
        self.assertTrue(got[0].redelivered)

    async def test_a_stopped_service_refuses(self) -> None:
        queue = await self.queue()
        await self.amqp.stopService()
        await self.assertFailure(self.amqp.publish("", queue, b"x"), Stopped)
        await self.assertFailure(self.amqp.declare_queue(queue), Stopped)
        await self.assertFailure(self.amqp.call(queue), Stopped)

    async def test_priorities(self) -> None:
        queue = await self.queue(arguments={"x-max-priority": 5})
        for priority in (1, 5, 3):
            await self.amqp.publish("", queue, priority, priority=priority)
        got: list[int] = []
        await self.amqp.consume(queue, lambda message: got.append(message.value), prefetch=1)
        await until(lambda: len(got) == 3)
        self.assertEqual(got, [5, 3, 1])

    async def test_two_consumers_share_a_queue(self) -> None:
        queue = await self.queue()
        other = self.start()
        one = await self.amqp.consume(queue, lambda message: sleep(0.005), prefetch=1)
        two = await other.consume(queue, lambda message: sleep(0.005), prefetch=1)
        for _ in range(30):
            await self.amqp.publish("", queue, b"x")
        await until(lambda: one.handled + two.handled == 30)
        self.assertGreater(min(one.handled, two.handled), 5)

    async def test_calls(self) -> None:
        name = self.name()
        server = self.start()

        async def double(message: Message) -> Any:
            await sleep(0)
            if message.value is None:
                raise KeyError("nothing to double")
            return message.value * 2

        await server.serve(name, double)
        self.assertEqual(await self.amqp.call(name, 21), 42)
        answers = [self.amqp.call(name, number) for number in range(50)]
        self.assertEqual([await one for one in answers], [2 * number for number in range(50)])
        error = await self.assertFailure(self.amqp.call(name), RemoteError)
        self.assertEqual(error.kind, "KeyError")
        self.assertIn("nothing to double", error.text)
        self.flushLoggedErrors(KeyError)
        await self.assertFailure(self.amqp.call(f"{name}.none"), MessageReturned)

    async def test_a_call_ends_in_time_and_can_be_cancelled(self) -> None:
        queue = await self.queue()
        await self.assertFailure(self.amqp.call(queue, 1, timeout=0.05), CallTimeout)
        call = self.amqp.call(queue, 1)
        call.cancel()
        await self.assertFailure(call, CancelledError)
        self.assertEqual(self.amqp._calls, {})


class MemoryTest(Behaviour, TestCase):
    timeout = 60

    def make(self, **options: Any) -> Any:
        self.__dict__.setdefault("memory", MemoryBroker())
        return MemoryAMQP(self.memory, **options)


class RabbitMQTest(Behaviour, TestCase):
    timeout = 120
    skip = MISSING

    def make(self, **options: Any) -> Any:
        return AMQP(shared_url(), **options)
