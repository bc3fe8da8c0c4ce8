"""Tasks in one process, and the helpers for tests."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from cycloneish.tasks import NotRegistered, QueueFull, Retry, TaskError, Tasks, task
from cycloneish.tasks.message import Envelope, TaskMessage
from cycloneish.tasks.testing import eager, run_queued
from tests.db.support import until

from .behaviour import TasksBehaviour


class MemoryTasksTest(TasksBehaviour, TestCase):
    async def make_tasks(self, **options: Any) -> Tasks:
        tasks = Tasks("memory:", **options)
        tasks.startService()
        self.addCleanup(tasks.stopService)
        await tasks.when_ready()
        return tasks

    async def dead_letters(self, tasks: Tasks, queue: str, number: int) -> list[Envelope]:
        dead = tasks.transport.dead  # type: ignore[attr-defined]
        await until(lambda: len(dead.get(queue, ())) >= number)
        return list(dead[queue])

    async def waiting(self, tasks: Tasks, queue: str) -> int:
        return tasks.transport.queued()  # type: ignore[attr-defined,no-any-return]

    async def test_the_queues_are_bounded(self) -> None:
        tasks = await self.make_tasks(max_queued=2)

        @tasks.task
        def mark() -> None: ...

        await mark.delay()
        await mark.apply(countdown=100)
        await self.assertFailure(mark.delay(), QueueFull)
        with self.assertLogs("cycloneish.tasks", "WARNING"):
            await tasks.stopService()

    async def test_the_newest_dead_letters_are_kept(self) -> None:
        tasks = await self.make_tasks(max_dead=2)
        for number in range(4):
            await tasks.transport.bury(Envelope(str(number), {}, b""), "q")
        self.assertEqual([letter.id for letter in await self.dead_letters(tasks, "q", 2)], ["2", "3"])

    async def test_a_task_runs_after_its_sender_went_on(self) -> None:
        tasks = await self.make_tasks()
        order: list[str] = []

        @tasks.task(thread=False)
        def mark() -> None:
            order.append("ran")

        await self.make_worker(tasks)
        mark.delay()
        order.append("sent")
        await until(lambda: len(order) == 2)
        self.assertEqual(order, ["sent", "ran"])


@task(bind=True, name="tests.shared", autoretry_for=(OSError,), retry_backoff=1000)
def shared(self: Any, *args: Any) -> Any:
    if self.request.retries < 2 and "flaky" in args:
        raise OSError("not yet")
    if "bad" in args:
        raise ZeroDivisionError("bad")
    if "ask" in args and not self.request.retries:
        raise self.retry(countdown=1000)
    return [self.request.retries, args]


class TestingTest(TestCase):
    async def test_eager_runs_at_once(self) -> None:
        with eager() as tasks:
            receipt = await shared.delay(1, (2,))
            self.assertEqual(receipt.result, [0, (1, [2])])
            self.assertEqual((await shared.delay("flaky")).result, [2, ("flaky",)])
            self.assertEqual((await shared.delay("ask")).result, [1, ("ask",)])
            await self.assertFailure(shared.delay("bad"), ZeroDivisionError)
            await self.assertFailure(shared.delay(object()), TypeError)

            @tasks.task
            async def slow() -> str:
                deferred: Deferred[str] = Deferred()
                tasks.reactor.callLater(0, deferred.callback, "done")
                return await deferred

            from twisted.internet import reactor

            tasks.reactor = reactor
            self.assertEqual((await slow.delay()).result, "done")
        await self.assertFailure(shared.delay(1), TaskError)

    async def test_run_queued_runs_all_there_is(self) -> None:
        tasks = Tasks("memory:")
        tasks.startService()
        self.addCleanup(tasks.stopService)
        ran: list[int] = []

        @tasks.task
        def countdown(n: int) -> None:
            ran.append(n)
            if n:
                countdown.apply((n - 1,), countdown=1000 * n)

        await countdown.apply((3,), countdown=1000)
        await shared.delay("flaky")
        with self.assertLogs("cycloneish.tasks", "ERROR"):
            await shared.delay("bad")
            stats = await run_queued(tasks)
        self.assertEqual(ran, [3, 2, 1, 0])
        self.assertEqual((stats.succeeded, stats.retried, stats.failed), (5, 2, 1))
        self.assertEqual((await run_queued(tasks)).succeeded, 0)


class TaskTest(SynchronousTestCase):
    def test_names_are_unique(self) -> None:
        tasks = Tasks("memory:")
        self.addCleanup(tasks.stopService)
        tasks.task(
            lambda: None,
        )
        with self.assertRaises(ValueError):

            @tasks.task(name="tests.tasks.test_memory.TaskTest.test_names_are_unique.<locals>.<lambda>")
            def other() -> None: ...

        self.assertRaises(NotRegistered, tasks.get, "nothing")
        self.assertIs(tasks.get("tests.shared"), shared)

    def test_unknown_options_are_mistakes(self) -> None:
        with self.assertRaises(TypeError):
            task(max_tries=3)(lambda: None)  # type: ignore[call-overload]

    def test_the_pause_doubles_up_to_its_limit(self) -> None:
        steady = task(retry_backoff=2, retry_backoff_max=50, retry_jitter=False, name="steady")(lambda: None)
        self.assertEqual([steady.backoff(n) for n in range(7)], [2, 4, 8, 16, 32, 50, 50])
        self.assertEqual(steady.backoff(10_000), 50)
        jittery = task(retry_backoff=True, name="jittery")(lambda: None)
        pauses = [jittery.backoff(3) for _ in range(100)]
        self.assertTrue(all(0 <= pause <= 8 for pause in pauses))
        self.assertTrue(len(set(pauses)) > 90)

    def test_a_retry_takes_the_pause_it_is_told(self) -> None:
        own = task(bind=True, default_retry_delay=7, name="own")(
            lambda self, **options: self.retry(**options)
        )
        for options, delay in (({}, 7), ({"countdown": 3}, 3), ({"eta": 0.0}, 0)):
            self.assertEqual(self.assertRaises(Retry, own, **options).delay, delay)


class MessageTest(SynchronousTestCase):
    def test_the_form_is_celery_s(self) -> None:
        message = TaskMessage("a.b", "id", [1], {"k": "ü"}, eta=1.5, retries=2, priority=3, time_limit=9)
        envelope = message.envelope()
        self.assertEqual(
            json.loads(envelope.body),
            [[1], {"k": "ü"}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}],
        )
        headers = dict(envelope.headers)
        self.assertRegex(headers.pop("origin"), r"^\d+@.+")
        self.assertEqual(
            headers,
            {
                "lang": "py", "task": "a.b", "id": "id", "root_id": "id", "parent_id": None, "group": None,
                "retries": 2, "eta": "1970-01-01T00:00:01.500000+00:00", "expires": None,
                "timelimit": [9, None], "argsrepr": None, "kwargsrepr": None,
            },
        )  # fmt: skip
        again = TaskMessage.parse(envelope)
        self.assertEqual((again.args, again.kwargs, again.eta), ([1], {"k": "ü"}, 1.5))
        self.assertEqual((again.retries, again.priority, again.time_limit), (2, 3, 9.0))
        shown = message.envelope(show_arguments=True).headers
        self.assertEqual((shown["argsrepr"], shown["kwargsrepr"]), ("(1,)", "{'k': 'ü'}"))

    def test_a_wrong_url_is_not_shown(self) -> None:
        for url in ("redis://user:secret@host", "", "memory"):
            self.assertNotIn("secret", str(self.assertRaises(ValueError, Tasks, url)))
