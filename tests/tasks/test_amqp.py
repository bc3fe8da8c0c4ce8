"""Tasks over AMQP: a real RabbitMQ, and the broker in memory."""

from __future__ import annotations

import itertools
import os
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from cycloneish.amqp import AMQP, MemoryAMQP
from cycloneish.tasks import Tasks
from cycloneish.tasks.amqp import DELAYS, SHORTEST_DELAY, delay_level
from cycloneish.tasks.message import Envelope
from tests.amqp.broker import MISSING, shared_url
from tests.db.support import sleep, until

from .behaviour import TasksBehaviour

_numbers = itertools.count(1)


class AMQPTasksBehaviour(TasksBehaviour):
    """The suite, and what is known of brokers."""

    def make_broker(self) -> Any:
        """A broker, not started."""
        raise NotImplementedError

    async def make_tasks(self: Any, **options: Any) -> Tasks:
        broker = self.make_broker()
        broker.startService()
        self.addCleanup(broker.stopService)
        queue = f"tasks-{os.getpid()}-{next(_numbers)}"
        tasks = Tasks(broker, queue=queue, **options)
        tasks.startService()
        self.addCleanup(self.remove_queues, broker, queue)
        self.addCleanup(tasks.stopService)
        await tasks.when_ready()
        return tasks

    async def remove_queues(self, broker: Any, queue: str) -> None:
        for name in (queue, f"{queue}.dead", f"{queue}-slow"):
            await broker.delete_queue(name)

    async def dead_letters(self: Any, tasks: Tasks, queue: str, number: int) -> list[Envelope]:
        transport: Any = tasks.transport
        found: list[Envelope] = []

        def note(message: Any) -> None:
            found.append(Envelope(message.correlation_id, message.headers, message.body))

        await transport._make_queue(f"{queue}.dead", with_arguments=False)
        consumer = await transport.broker.consume(f"{queue}.dead", note)
        await until(lambda: len(found) >= number, 20)
        await sleep(0.05)
        await consumer.stop()
        return found

    async def waiting(self: Any, tasks: Tasks, queue: str) -> int:
        transport: Any = tasks.transport
        await transport._make_queue(queue)
        return await transport.broker.message_count(queue)  # type: ignore[no-any-return]

    async def test_a_queue_that_was_deleted_is_made_again(self: Any) -> None:
        tasks = await self.make_tasks()

        @tasks.task
        def mark() -> None: ...

        await mark.delay()
        await tasks.transport.broker.delete_queue(tasks.queue)
        await mark.delay()
        self.assertEqual(await self.waiting(tasks, tasks.queue), 1)


class MemoryBrokerTasksTest(AMQPTasksBehaviour, TestCase):
    def make_broker(self) -> MemoryAMQP:
        return MemoryAMQP()


class RabbitMQTasksTest(AMQPTasksBehaviour, TestCase):
    skip = MISSING

    def make_broker(self) -> AMQP:
        return AMQP(shared_url())

    async def test_a_lost_connection_makes_what_ran_run_again_and_nothing_else(self) -> None:
        tasks = await self.make_tasks()
        begun: list[int] = []
        gates: list[Deferred[None]] = []

        @tasks.task
        async def waits(n: int) -> None:
            begun.append(n)
            if len(begun) <= 2:
                gate: Deferred[None] = Deferred()
                gates.append(gate)
                await gate

        worker = await self.make_worker(tasks, concurrency=2, prefetch=6)
        for n in range(6):
            await waits.delay(n)
        await until(lambda: len(worker._waiting) == 4)
        with self.assertLogs("cycloneish.tasks", "WARNING"):
            broker: Any = tasks.transport.broker  # type: ignore[attr-defined]
            broker.client.transport.abortConnection()
            await until(lambda: not broker.connected)
            for gate in gates:
                gate.callback(None)
            await until(lambda: len(begun) == 8, 30)
        await until(lambda: worker.stats.running == 0)
        self.assertEqual(sorted(begun), [0, 0, 1, 1, 2, 3, 4, 5])
        self.assertEqual(await self.waiting(tasks, tasks.queue), 0)

    async def test_a_connection_of_its_own_from_a_url(self) -> None:
        queue = f"tasks-{os.getpid()}-{next(_numbers)}"
        tasks = Tasks(shared_url(), queue=queue)
        tasks.startService()
        self.addCleanup(tasks.stopService)
        receipt = await tasks.send("somewhere.else")
        self.assertEqual(receipt.queue, queue)
        broker: Any = tasks.transport.broker  # type: ignore[attr-defined]
        self.assertEqual(await broker.message_count(queue), 1)
        await broker.delete_queue(queue)
        await tasks.stopService()
        self.assertFalse(broker.running)


class DelayTest(SynchronousTestCase):
    def test_delays_are_powers_of_two_and_their_number_is_bounded(self) -> None:
        lengths = [(delay, SHORTEST_DELAY * 2 ** delay_level(delay)) for delay in (0.25, 0.49, 1, 100, 4096)]
        self.assertEqual([length for _, length in lengths], [0.25, 0.25, 1, 64, 4096])
        self.assertEqual(delay_level(10**9), DELAYS - 1)
        hops, left = 0, 100_000.0
        while left >= SHORTEST_DELAY:
            left -= SHORTEST_DELAY * 2 ** delay_level(left)
            hops += 1
        self.assertTrue(hops <= DELAYS)
