"""A worker in trouble: messages that cannot be settled, many at once, threads that are late."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import TestCase

from cycloneish.amqp import MemoryAMQP, MemoryBroker
from cycloneish.tasks import Tasks, Worker
from cycloneish.tasks.amqp import AMQPTransport
from cycloneish.tasks.message import Envelope
from cycloneish.tasks.threads import TaskThreads
from tests.db.support import until

_user: ContextVar[str] = ContextVar("user", default="nobody")


class WorkerTest(TestCase):
    timeout = 60

    async def start(self, broker: MemoryBroker | None = None, **options: Any) -> tuple[Tasks, Worker]:
        where: Any = "memory:"
        if broker is not None:
            where = MemoryAMQP(broker)
            where.startService()
            self.addCleanup(where.stopService)
        tasks = Tasks(where)
        tasks.startService()
        worker = Worker(tasks, **options)
        worker.startService()
        self.addCleanup(tasks.stopService)
        await worker.when_ready()
        return tasks, worker

    async def test_a_retry_that_cannot_be_sent_is_a_failure(self) -> None:
        for broker in (None, MemoryBroker()):
            tasks, worker = await self.start(broker, concurrency=1)

            @tasks.task(bind=True, thread=False)
            def bad(self: Any) -> None:
                raise self.retry(args=[object()], countdown=0)

            with self.assertLogs("cycloneish.tasks", "ERROR"):
                await bad.delay()
                await until(lambda worker=worker: worker.stats.failed == 1)
            await until(lambda worker=worker: not worker.stats.running)
            await tasks.stopService()

    async def test_a_task_that_leaves_the_program_is_a_failure(self) -> None:
        tasks, worker = await self.start()

        @tasks.task(thread=False)
        async def leaves() -> None:
            raise SystemExit(1)

        with self.assertLogs("cycloneish.tasks", "ERROR"):
            await leaves.delay()
            await until(lambda: worker.stats.failed == 1)

    async def test_what_cannot_be_settled_is_given_back(self) -> None:
        broker = MemoryBroker()
        tasks, worker = await self.start(broker, concurrency=1)
        transport: Any = tasks.transport
        send: Callable[..., Deferred[None]] = transport.send
        ran: list[int] = []

        @tasks.task(bind=True, thread=False)
        def again(self: Any) -> None:
            ran.append(self.request.retries)
            if len(ran) == 1:
                transport.send = lambda *_: fail(OSError("the broker takes nothing"))
                raise self.retry(countdown=0)

        with self.assertLogs("cycloneish.tasks", "WARNING"):
            await again.delay()
            await until(lambda: bool(ran))
            await until(lambda: transport.send is not send)
            transport.send = send
            await until(lambda: worker.stats.succeeded == 1)
        self.assertEqual(ran, [0, 0])
        await tasks.stopService()

    async def test_a_worker_stops_beside_what_cannot_be_settled(self) -> None:
        broker = MemoryBroker()
        tasks, worker = await self.start(broker, concurrency=1, stop_timeout=0.05)
        transport: Any = tasks.transport
        transport.send = lambda *_: fail(OSError("the broker takes nothing"))
        name = "tests.again"

        @tasks.task(bind=True, thread=False, name=name)
        def again(self: Any) -> None:
            raise self.retry(countdown=0)

        with self.assertLogs("cycloneish.tasks", "WARNING"):
            del transport.send
            await again.delay()
            transport.send = lambda *_: fail(OSError("the broker takes nothing"))
            await until(lambda: worker.stats.retried == 1)
            await tasks.stopService()
        self.assertEqual(len(broker.queues["tasks"]), 1)

    async def test_many_that_end_at_once(self) -> None:
        for broker in (None, MemoryBroker()):
            tasks, worker = await self.start(broker, concurrency=1, prefetch=3000)
            go: Deferred[None] = Deferred()

            @tasks.task(thread=False)
            async def first(go: Any = go) -> None:
                await go

            @tasks.task(thread=False)
            async def quick() -> None: ...

            await first.delay()
            for _ in range(2000):
                await quick.delay()
            await until(lambda worker=worker: len(worker._waiting) == 2000)
            go.callback(None)
            await until(lambda worker=worker: worker.stats.succeeded == 2001)
            await tasks.stopService()

    async def test_context_variables_stay_in_their_task(self) -> None:
        tasks, worker = await self.start(concurrency=2)
        seen: list[str] = []
        go: Deferred[None] = Deferred()

        @tasks.task(thread=False)
        async def waits() -> None:
            await go

        @tasks.task(thread=False)
        async def sets() -> None:
            _user.set("somebody")
            await until(lambda: len(worker._waiting) == 1)
            go.callback(None)

        @tasks.task(thread=False)
        async def reads() -> None:
            seen.append(_user.get())

        await waits.delay()
        await sets.delay()
        await reads.delay()
        await until(lambda: worker.stats.succeeded == 3)
        self.assertEqual(seen, ["nobody"])

    async def test_a_message_with_headers_that_nobody_can_read_is_a_dead_letter(self) -> None:
        broker = MemoryBroker()
        tasks, worker = await self.start(broker)
        deep: Any = 1
        for _ in range(40):
            deep = [deep]
        with self.assertLogs("cycloneish.tasks", "ERROR"):
            await tasks.transport.send(Envelope("1", {"deep": deep}, b"body"), "tasks", 0)
            await until(lambda: worker.stats.refused == 1)
            await until(lambda: "tasks.dead" in broker.queues and len(broker.queues["tasks.dead"]) == 1)
        await tasks.stopService()

    async def test_declaring_fails_for_all_who_wait(self) -> None:
        amqp = MemoryAMQP()
        amqp.startService()
        self.addCleanup(amqp.stopService)
        transport = AMQPTransport(amqp)
        answer: Deferred[str] = Deferred()
        amqp.declare_queue = lambda *_, **__: answer  # type: ignore[method-assign]
        waiting = [transport._make_queue("q") for _ in range(3)]
        answer.errback(OSError("no"))
        for one in waiting:
            await self.assertFailure(one, OSError)


class ThreadsTest(TestCase):
    async def test_what_was_cancelled_in_the_queue_does_not_run(self) -> None:
        from twisted.internet import reactor

        threads = TaskThreads(reactor, 1)
        threads.start()
        go = threading.Event()
        ran: list[int] = []
        first = threads.run(go.wait, (), {}, None)
        second = threads.run(ran.append, (1,), {}, 60.0)
        second.cancel()
        second.addErrback(lambda _: None)
        go.set()
        await first
        await until(lambda: not threads.busy)
        threads.stop()
        self.assertEqual(ran, [])
