"""The service and a real RabbitMQ: lost connections, TLS, several hosts, queue types, the end."""

from __future__ import annotations

import uuid
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import TestCase

from cycloneish.amqp import AMQP, ConnectionClosed, ConnectionLost, Message, WaitTimeout
from cycloneish.testing.certificates import self_signed_certificate

from .broker import MISSING, free_port, shared, shared_url, sleep, until


class ServiceTest(TestCase):
    timeout = 120
    skip = MISSING

    def setUp(self) -> None:
        self.started: list[AMQP] = []
        self.amqp = self.start()
        self.queue = f"service.{uuid.uuid4().hex}"

    async def tearDown(self) -> None:
        cleaner = self.start()
        for name in (self.queue, f"{self.queue}.dead", f"{self.queue}.retry.1000"):
            await cleaner.delete_queue(name)
        for amqp in self.started:
            if amqp.running:
                await amqp.stopService()

    def start(self, url: Any = None, **options: Any) -> AMQP:
        amqp = AMQP(url or shared_url(), max_backoff=0.2, **options)
        amqp.startService()
        self.started.append(amqp)
        return amqp

    def cut(self, amqp: AMQP) -> None:
        assert amqp.client is not None
        amqp.client.transport.abortConnection()

    async def test_everything_is_there_again_after_a_lost_connection(self) -> None:
        exchange = f"{self.queue}.exchange"
        await self.amqp.declare_exchange(exchange, "topic", durable=False, auto_delete=True)
        private = await self.amqp.declare_queue(exclusive=True, durable=False)
        await self.amqp.bind(private, exchange, "#")
        got: list[Message] = []
        seen: list[bool] = []
        self.amqp.watch_connection(seen.append)
        await self.amqp.consume(private, got.append, dead_letter="")
        await self.amqp.publish(exchange, "a", 1)
        await until(lambda: len(got) == 1)
        for round_ in range(2, 5):
            self.cut(self.amqp)
            await until(lambda: not self.amqp.connected)
            await self.amqp.publish(exchange, "a", round_, mandatory=True)  # waits for the connection
            await until(lambda count=round_: len(got) == count)
        self.assertEqual([message.value for message in got], [1, 2, 3, 4])
        self.assertEqual(seen, [False, True] * 3)
        self.assertEqual(self.amqp.connections, 4)

    async def test_unconfirmed_messages_fail_or_are_sent_again(self) -> None:
        await self.amqp.declare_queue(self.queue)
        sent = [self.amqp.publish("", self.queue, b"x") for _ in range(50)]
        self.cut(self.amqp)
        for one in sent:
            await self.assertFailure(one, ConnectionLost)
        again = self.start(republish=True)
        await again.when_connected()
        await self.amqp.purge_queue(self.queue)
        sent = [again.publish("", self.queue, number) for number in range(50)]
        self.cut(again)
        for one in sent:
            await one
        got: dict[int, set[str | None]] = {}
        await again.consume(
            self.queue, lambda message: got.setdefault(message.value, set()).add(message.message_id)
        )
        await until(lambda: len(got) == 50)
        self.assertTrue(all(len(ids) == 1 and None not in ids for ids in got.values()))

    async def test_a_message_in_hand_comes_again_after_a_lost_connection(self) -> None:
        await self.amqp.declare_queue(self.queue)
        seen: list[bool] = []

        def handler(message: Message) -> Any:
            seen.append(message.redelivered)
            return sleep(0.2) if len(seen) == 1 else None

        consumer = await self.amqp.consume(self.queue, handler)
        await self.amqp.publish("", self.queue, b"x")
        await until(lambda: seen)
        self.cut(self.amqp)
        await until(lambda: len(seen) == 2 and not consumer.in_flight)
        self.assertEqual(seen, [False, True])

    async def test_a_cancelled_operation_does_not_shift_the_others(self) -> None:
        await self.amqp.declare_queue(self.queue)
        for number in range(3):
            await self.amqp.publish("", self.queue, number)
        for _ in range(10):
            cancelled = self.amqp.purge_queue(f"{self.queue}.none")
            count = self.amqp.message_count(self.queue)
            await sleep(0)
            cancelled.cancel()
            await self.assertFailure(cancelled, CancelledError)
            self.assertEqual(await count, 3)

    async def test_the_broker_may_cancel_a_consumer(self) -> None:
        await self.amqp.declare_queue(self.queue)
        got: list[Message] = []
        await self.amqp.consume(self.queue, got.append)
        await self.start().delete_queue(self.queue)
        subscription = next(iter(self.amqp._subscriptions.values()))
        await until(lambda: subscription.cancelled_by_broker == 1)

        async def published() -> bool:
            try:
                await self.amqp.publish("", self.queue, b"x", mandatory=True)
            except Exception:
                return False
            return True

        while not await published():  # the queue is made again, as it was declared here
            await sleep(0.05)
        await until(lambda: got)

    async def test_prefetch_bounds_what_is_here(self) -> None:
        await self.amqp.declare_queue(self.queue)
        for _ in range(200):
            self.amqp.publish("", self.queue, b"x")
        gate: list[Any] = []
        consumer: Any = await self.amqp.consume(
            self.queue, lambda message: gate.append(d := sleep(0.02)) or d, prefetch=10, concurrency=2
        )
        await until(lambda: consumer.handled > 20)
        self.assertLessEqual(len(consumer._waiting) + consumer.in_flight, 10)

    async def test_quorum_and_stream_queues(self) -> None:
        for kind in ("quorum", "stream"):
            name = f"{self.queue}.{kind}"
            await self.amqp.declare_queue(name, arguments={"x-queue-type": kind})
            for number in range(20):
                await self.amqp.publish("", name, number)
            got: list[int] = []
            arguments = {"x-stream-offset": "first"} if kind == "stream" else {}
            consumer: Any = await self.amqp.consume(
                name, lambda message, got=got: got.append(message.value), arguments=arguments, dead_letter=""
            )
            await until(lambda got=got: len(got) == 20)
            await sleep(0.05)  # lets the acknowledgements go out before the cut
            self.cut(self.amqp)
            await until(lambda: not self.amqp.connected)
            await self.amqp.publish("", name, 20)
            await until(lambda got=got: 20 in got)
            if kind == "stream":
                self.assertEqual(got, list(range(21)))  # went on after the last, not from the first
            self.assertEqual(sorted(set(got)), list(range(21)))
            await consumer.stop()
            await self.amqp.delete_queue(name)

    async def test_tls_is_verified(self) -> None:
        certificate, _ = self_signed_certificate()
        port = shared().tls_port
        base = f"amqps://guest:guest@localhost:{port}/"
        trusted = self.start(f"{base}?cacertfile={certificate}")
        await trusted.declare_queue(self.queue)
        await trusted.publish("", self.queue, b"x" * 300000)
        stranger = self.start(base)
        error = await self.assertFailure(stranger.when_connected(timeout=3), WaitTimeout)
        self.assertIn("certificate verify failed", str(error))
        careless = self.start(f"{base}?verify=verify_none")
        self.assertEqual(await careless.message_count(self.queue), 1)

    async def test_several_hosts(self) -> None:
        dead = f"amqp://guest:guest@127.0.0.1:{free_port()}/"
        for _ in range(3):
            amqp = self.start([dead, shared_url()])
            await amqp.when_connected(timeout=10)

    async def test_a_wrong_password_is_said_at_once_and_not_logged(self) -> None:
        seen: list[str] = []

        def observer(event: Any) -> None:
            seen.append(repr(event) + str(event.get("error", "")))

        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        amqp = self.start(shared_url().replace("guest:guest", "guest:s3cret-s3cret"))
        error = await self.assertFailure(amqp.when_connected(), ConnectionClosed)
        self.assertEqual(error.code, 403)
        self.assertTrue(any("ACCESS_REFUSED" in line for line in seen))
        self.assertFalse(any("s3cret" in line for line in seen))
        unknown = self.start(shared_url() + "nowhere")
        error = await self.assertFailure(unknown.when_connected(), ConnectionClosed)
        self.assertEqual(error.code, 530)

    async def test_nobody_there(self) -> None:
        amqp = self.start(f"amqp://127.0.0.1:{free_port()}/", timeout=0.5)
        await self.assertFailure(amqp.when_connected(), WaitTimeout)
        await self.assertFailure(amqp.publish("", "q", b"x"), WaitTimeout)
        waiting = amqp.declare_queue("q")
        waiting.cancel()
        await self.assertFailure(waiting, CancelledError)

    async def test_stopping_waits_for_confirms(self) -> None:
        await self.amqp.declare_queue(self.queue)
        sent = [self.amqp.publish("", self.queue, b"x") for _ in range(2000)]
        await self.amqp.stopService()
        for one in sent:
            await one
        self.assertEqual(await self.start().message_count(self.queue), 2000)

    async def test_the_connection_is_closed_in_order(self) -> None:
        await self.amqp.when_connected()
        client = self.amqp.client
        assert client is not None
        await self.amqp.stopService()
        self.assertTrue(client.closed)
        self.assertEqual(client.channels, {})
