"""What tasks do, whatever carries their messages; the modules beside this one run it over each transport."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, gatherResults, inlineCallbacks

from cycloneish.tasks import Ignore, Receipt, Reject, TaskError, Tasks, Worker
from cycloneish.tasks.message import Envelope, TaskMessage
from tests.db.support import sleep, until


class TasksBehaviour:
    """The suite: to be mixed into a trial test case that has the methods that raise here."""

    timeout = 60

    async def make_tasks(self, **options: Any) -> Tasks:
        """A started `Tasks` whose queue is new and empty; stopped at the end of the test."""
        raise NotImplementedError

    async def dead_letters(self, tasks: Tasks, queue: str, number: int) -> list[Envelope]:
        """The dead letters of a queue, once there are *number*."""
        raise NotImplementedError

    async def waiting(self, tasks: Tasks, queue: str) -> int:
        """How many messages wait in a queue, those in a worker's hands not counted."""
        raise NotImplementedError

    async def make_worker(self: Any, tasks: Tasks, **options: Any) -> Worker:
        worker = Worker(tasks, **options)
        worker.startService()
        self.addCleanup(worker.stopService)
        await worker.when_ready()
        return worker

    # -- kinds of functions ----------------------------------------------------------------------

    async def test_every_kind_of_function_is_run(self: Any) -> None:
        tasks = await self.make_tasks()
        ran: list[Any] = []

        def note(*what: Any) -> None:
            ran.append((*what, threading.current_thread() is threading.main_thread()))

        @tasks.task
        def blocking(*args: Any, **kwargs: Any) -> None:
            note("blocking", args, kwargs)

        @tasks.task
        async def coroutine(n: int) -> None:
            await sleep(0)
            note("coroutine", n)

        @tasks.task
        @inlineCallbacks
        def generator(n: int) -> Any:
            yield sleep(0)
            note("generator", n)

        @tasks.task
        def deferred(n: int) -> Deferred[None]:
            return sleep(0).addCallback(lambda _: note("deferred", n))

        @tasks.task(thread=False, name="renamed")
        def quick(n: int) -> None:
            note("quick", n)

        await self.make_worker(tasks)
        value = {"a": [1, None, "ü"], "b": 2.5}
        receipt = await blocking.delay(1, value, key=value)
        self.assertIsInstance(receipt, Receipt)
        self.assertEqual(receipt.task, f"{__name__}.{blocking.__wrapped__.__qualname__}")
        for task in (coroutine, generator, deferred, quick):
            await task.delay(2)
        await until(lambda: len(ran) == 5)
        self.assertCountEqual(
            ran,
            [
                ("blocking", (1, value), {"key": value}, False),
                ("coroutine", 2, True),
                ("generator", 2, True),
                ("deferred", 2, True),
                ("quick", 2, True),
            ],
        )
        self.assertEqual(quick.name, "renamed")

    async def test_a_task_called_is_the_function(self: Any) -> None:
        tasks = await self.make_tasks()

        @tasks.task(bind=True)
        def add(self: Any, a: int, b: int) -> int:
            """Adds."""
            return a + b + self.request.retries

        self.assertEqual(add(1, 2), 3)
        self.assertEqual((add.__name__, add.__doc__), ("add", "Adds."))

    async def test_what_cannot_be_sent_fails_at_once(self: Any) -> None:
        tasks = await self.make_tasks()

        @tasks.task
        def one(a: int) -> None: ...

        await self.assertFailure(one.apply(()), TypeError)
        await self.assertFailure(one.apply((1, 2)), TypeError)
        await self.assertFailure(one.apply((1,), {"b": 1}), TypeError)
        await self.assertFailure(one.delay(object()), TypeError)  # type: ignore[arg-type]
        await self.assertFailure(one.delay(float("inf")), ValueError)  # type: ignore[arg-type]
        await self.assertFailure(one.apply((1,), priority=10), ValueError)
        await self.assertFailure(one.apply((1,), eta="soon"), TypeError)
        await self.assertFailure(one.apply((1,), eta=1.0, countdown=1), TypeError)
        self.assertEqual(await self.waiting(tasks, tasks.queue), 0)

    async def test_a_task_knows_its_request_and_its_parents(self: Any) -> None:
        tasks = await self.make_tasks()
        seen: list[TaskMessage] = []

        @tasks.task(bind=True)
        async def first(self: Any) -> None:
            seen.append(self.request)
            await sleep(0)
            await second.delay()

        @tasks.task(bind=True)
        def second(self: Any) -> None:
            seen.append(self.request)
            receipt = third.apply(task_id="mine").result  # sent from a thread, it has fired
            seen.append(receipt)

        @tasks.task(bind=True, thread=False)
        def third(self: Any) -> None:
            seen.append(self.request)

        await self.make_worker(tasks)
        receipt = await first.delay()
        await until(lambda: len(seen) == 4)
        one, two = seen[0], seen[1]
        three = next(entry for entry in seen[2:] if isinstance(entry, TaskMessage))
        self.assertEqual((one.id, one.root_id, one.parent_id), (receipt.id, receipt.id, None))
        self.assertEqual((two.root_id, two.parent_id), (receipt.id, receipt.id))
        self.assertEqual((three.id, three.root_id, three.parent_id), ("mine", receipt.id, two.id))
        self.assertIn(Receipt("mine", third.name, tasks.queue), seen)

    # -- when ------------------------------------------------------------------------------------

    async def test_a_delayed_task_runs_when_it_is_due_and_not_before(self: Any) -> None:
        tasks = await self.make_tasks()
        ran: dict[str, float] = {}

        @tasks.task(thread=False)
        def mark(name: str) -> None:
            ran[name] = time.time()

        await self.make_worker(tasks)
        began = time.time()
        await gatherResults(
            [
                mark.apply(("countdown",), countdown=0.7),
                mark.apply(("eta",), eta=datetime.now(UTC) + timedelta(seconds=1.1)),
                mark.apply(("seconds",), eta=began + 0.2),
                mark.apply(("past",), eta=began - 100),
                mark.apply(("now",)),
            ]
        )
        await until(lambda: len(ran) == 5)
        for name, delay in {"countdown": 0.7, "eta": 1.1, "seconds": 0.2, "past": 0, "now": 0}.items():
            late = ran[name] - began - delay
            self.assertTrue(-0.02 <= late < 5, (name, late))

    async def test_higher_priorities_come_first(self: Any) -> None:
        tasks = await self.make_tasks()
        ran: list[int] = []

        @tasks.task(thread=False, priority=3)
        def mark(n: int) -> None:
            ran.append(n)

        for n, priority in ((1, None), (2, 0), (3, 9), (4, 5), (5, None)):
            await mark.apply((n,), priority=priority)
        await self.make_worker(tasks, concurrency=1, prefetch=1)
        await until(lambda: len(ran) == 5)
        self.assertEqual(ran, [3, 4, 1, 5, 2])

    async def test_a_task_that_is_too_late_is_not_started(self: Any) -> None:
        tasks = await self.make_tasks()
        ran: list[int] = []

        @tasks.task(thread=False, expires=300)
        def mark(n: int) -> None:
            ran.append(n)

        await mark.apply((1,), expires=0.01)
        await mark.apply((2,), expires=datetime.now(UTC))
        await mark.apply((3,))
        await sleep(0.05)
        worker = await self.make_worker(tasks)
        await until(lambda: ran == [3])
        self.assertEqual(worker.stats.expired, 2)

    # -- how it goes on after a failure ----------------------------------------------------------

    async def test_a_failed_task_is_among_the_dead_letters_with_its_traceback(self: Any) -> None:
        tasks = await self.make_tasks()

        @tasks.task
        def fails(secret: str) -> None:
            raise ZeroDivisionError("on purpose")

        worker = await self.make_worker(tasks)
        with self.assertLogs("cycloneish.tasks", "INFO") as logged:
            receipt = await fails.delay("s3cr3t")
            (letter,) = await self.dead_letters(tasks, tasks.queue, 1)
        self.assertEqual(letter.headers["x-error"], "ZeroDivisionError: on purpose")
        self.assertIn('raise ZeroDivisionError("on purpose")', letter.headers["x-traceback"])
        self.assertEqual(letter.headers["x-queue"], tasks.queue)
        message = TaskMessage.parse(letter)
        self.assertEqual((message.id, message.args), (receipt.id, ["s3cr3t"]))
        self.assertNotIn("s3cr3t", "\n".join(logged.output))
        self.assertNotIn("s3cr3t", repr(letter.headers))
        self.assertEqual(await self.waiting(tasks, tasks.queue), 0)
        await until(lambda: worker.stats.running == 0)
        self.assertEqual(worker.stats.failed, 1)

    async def test_it_is_tried_again_by_itself_up_to_its_limit(self: Any) -> None:
        tasks = await self.make_tasks()
        runs: list[tuple[str, int]] = []

        @tasks.task(
            bind=True, autoretry_for=(OSError,), dont_autoretry_for=(PermissionError,), retry_backoff=0.02
        )
        async def fetch(self: Any, name: str) -> None:
            runs.append((name, self.request.retries))
            if name == "recovers" and self.request.retries == 2:
                return
            raise {"forbidden": PermissionError, "wrong": ValueError}.get(name, OSError)(name)

        worker = await self.make_worker(tasks)
        with self.assertLogs("cycloneish.tasks", "INFO"):
            for name in ("recovers", "never", "forbidden", "wrong"):
                await fetch.delay(name)
            letters = await self.dead_letters(tasks, tasks.queue, 3)
        self.assertCountEqual(
            runs,
            [("recovers", n) for n in range(3)]
            + [("never", n) for n in range(4)]
            + [("forbidden", 0), ("wrong", 0)],
        )
        self.assertCountEqual([TaskMessage.parse(letter).retries for letter in letters], [3, 0, 0])
        await until(lambda: worker.stats.running == 0)
        self.assertEqual((worker.stats.succeeded, worker.stats.retried, worker.stats.failed), (1, 5, 3))

    async def test_it_may_ask_to_be_tried_again(self: Any) -> None:
        tasks = await self.make_tasks()
        runs: list[tuple[Any, int, str]] = []

        @tasks.task(bind=True, max_retries=2)
        def again(self: Any, value: int) -> None:
            runs.append((value, self.request.retries, self.request.id))
            if value < 0:
                raise self.retry(ValueError("negative"), countdown=0)
            if self.request.retries < 2:
                self.retry(args=[value + 1], countdown=0.01)

        @tasks.task(bind=True, max_retries=0)
        def once(self: Any) -> None:
            self.retry()

        await self.make_worker(tasks)
        with self.assertLogs("cycloneish.tasks", "INFO"):
            good = await again.delay(1)
            await until(lambda: len(runs) == 3)
            bad = await again.delay(-1)
            await once.delay()
            letters = await self.dead_letters(tasks, tasks.queue, 2)
        self.assertEqual(runs[:3], [(1, 0, good.id), (2, 1, good.id), (3, 2, good.id)])
        self.assertEqual(runs[3:], [(-1, n, bad.id) for n in range(3)])
        errors = sorted(letter.headers["x-error"].partition(":")[0] for letter in letters)
        self.assertEqual(errors, ["TaskError", "ValueError"])

    async def test_what_a_task_may_raise(self: Any) -> None:
        tasks = await self.make_tasks()
        ran: list[str] = []

        @tasks.task(thread=False)
        def raises(name: str) -> None:
            ran.append(name)
            if name == "requeue" and ran.count(name) == 2:
                return
            raise {"ignore": Ignore(), "reject": Reject("no"), "requeue": Reject(requeue=True)}[name]

        worker = await self.make_worker(tasks)
        with self.assertLogs("cycloneish.tasks", "INFO"):
            for name in ("ignore", "reject", "requeue"):
                await raises.delay(name)
            (letter,) = await self.dead_letters(tasks, tasks.queue, 1)
            await until(lambda: len(ran) == 4)
        self.assertEqual(letter.headers["x-error"], "Reject: no")
        await until(lambda: worker.stats.succeeded == 2)

    async def test_time_limits(self: Any) -> None:
        tasks = await self.make_tasks()
        ended: list[str] = []
        cancelled: list[int] = []

        @tasks.task(time_limit=0.1)
        async def waits() -> None:
            await Deferred(lambda _: cancelled.append(1))

        @tasks.task(time_limit=0.1)
        def spins() -> None:
            try:
                while True:
                    time.sleep(0.005)
            finally:
                ended.append("spins")

        @tasks.task(time_limit=30)
        def in_time() -> None:
            ended.append("in time")

        worker = await self.make_worker(tasks)
        with self.assertLogs("cycloneish.tasks", "INFO"):
            for task in (waits, spins, in_time):
                await task.delay()
            letters = await self.dead_letters(tasks, tasks.queue, 2)
        for letter in letters:
            self.assertEqual(letter.headers["x-error"], "TimeLimitExceeded: it took longer than 0.1 s")
        self.assertCountEqual(ended, ["spins", "in time"])
        self.assertEqual(cancelled, [1])
        # The thread is as good as new.
        for _ in range(20):
            await in_time.delay()
        await until(lambda: ended.count("in time") == 21)
        await until(lambda: worker._threads.busy == 0)

    async def test_messages_that_are_no_tasks_are_laid_aside(self: Any) -> None:
        tasks = await self.make_tasks()
        ran: list[int] = []

        @tasks.task(thread=False)
        def mark() -> None:
            ran.append(1)

        good = TaskMessage(mark.name, "x").envelope()
        for envelope in (
            Envelope("1", {**good.headers, "task": "unknown"}, good.body),
            Envelope("2", {}, good.body),
            Envelope("3", good.headers, b"\xff"),
            Envelope("4", good.headers, b'{"a": 1}'),
            Envelope("5", good.headers, b"[1, 2, 3]"),
            Envelope("6", {**good.headers, "eta": "soon"}, good.body),
            Envelope("7", good.headers, b"[" * 100_000),
        ):
            await tasks.transport.send(envelope, tasks.queue, 0)
        with self.assertLogs("cycloneish.tasks", "ERROR"):
            worker = await self.make_worker(tasks)
            letters = await self.dead_letters(tasks, tasks.queue, 7)
        self.assertIn("'unknown'", letters[0].headers["x-error"])
        self.assertTrue(all("MalformedMessage" in letter.headers["x-error"] for letter in letters[1:]))
        await mark.delay()
        await until(lambda: ran == [1])
        self.assertEqual(worker.stats.refused, 7)

    async def test_celery_s_messages_are_run(self: Any) -> None:
        tasks = await self.make_tasks()
        ran: list[Any] = []

        @tasks.task(bind=True, name="proj.tasks.add")
        async def add(self: Any, a: int, b: int) -> None:
            ran.append((a + b, self.request.id, self.request.retries))

        headers = {
            "lang": "py", "task": "proj.tasks.add", "id": "1234", "shadow": None, "eta": None,
            "expires": None, "group": None, "group_index": None, "retries": 1,
            "timelimit": [None, None], "root_id": "1234", "parent_id": None, "argsrepr": "(2, 2)",
            "kwargsrepr": "{}", "origin": "gen1@host", "ignore_result": False,
            "replaced_task_nesting": 0, "stamped_headers": None, "stamps": {},
        }  # fmt: skip
        body = b'[[2, 2], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'
        await tasks.transport.send(Envelope("1234", headers, body), tasks.queue, 0)
        await self.make_worker(tasks)
        await until(lambda: ran == [(4, "1234", 1)])

    # -- the worker ------------------------------------------------------------------------------

    async def test_so_many_run_at_a_time(self: Any) -> None:
        tasks = await self.make_tasks()
        gates: list[Deferred[None]] = []
        at_once: list[int] = []

        @tasks.task
        async def waits() -> None:
            gate: Deferred[None] = Deferred()
            gates.append(gate)
            at_once.append(sum(not gate.called for gate in gates))
            await gate

        worker = await self.make_worker(tasks, concurrency=3)
        for _ in range(9):
            await waits.delay()
        for number in range(9):
            await until(lambda number=number: len(gates) >= min(9, number + 3))
            gates[number].callback(None)
        await until(lambda: worker.stats.succeeded == 9)
        self.assertEqual(max(at_once), 3)

    async def test_queues_of_their_own(self: Any) -> None:
        tasks = await self.make_tasks()
        ran: list[str] = []
        slow = f"{tasks.queue}-slow"

        @tasks.task(thread=False, queue=slow)
        def mark(name: str) -> None:
            ran.append(name)

        await self.make_worker(tasks, queues=[slow])
        await mark.delay("slow")
        receipt = await mark.apply(("elsewhere",), queue=tasks.queue)
        await mark.delay("slow too")
        await until(lambda: ran == ["slow", "slow too"])
        self.assertEqual(receipt.queue, tasks.queue)
        await self.make_worker(tasks)
        await until(lambda: "elsewhere" in ran)

    async def test_stopping_waits_for_what_runs_and_gives_the_rest_back(self: Any) -> None:
        tasks = await self.make_tasks()
        begun: list[int] = []
        ended: list[int] = []
        gate: Deferred[None] = Deferred()

        @tasks.task
        async def waits(n: int) -> None:
            begun.append(n)
            if n < 2:
                await gate
            ended.append(n)

        for n in range(6):
            await waits.delay(n)
        worker = await self.make_worker(tasks, concurrency=2, prefetch=4)
        await until(lambda: begun == [0, 1] and len(worker._waiting) == 2)
        stopping = worker.stopService()
        await until(lambda: worker.stats.returned == 2)
        self.assertFalse(stopping.called)
        gate.callback(None)
        await stopping
        self.assertEqual((begun, ended), ([0, 1], [0, 1]))

        async def all_are_back() -> bool:
            return bool(await self.waiting(tasks, tasks.queue) == 4)

        await self.until_async(all_are_back)
        with self.assertLogs("cycloneish.tasks", "INFO"):
            await self.make_worker(tasks)
            await until(lambda: len(ended) == 6)
        self.assertEqual(sorted(ended), list(range(6)))

    async def test_the_sender_stops_after_the_last_task(self: Any) -> None:
        tasks = await self.make_tasks()
        gate: Deferred[None] = Deferred()
        begun: list[int] = []
        sent: list[Receipt] = []

        @tasks.task
        async def last() -> None:
            begun.append(1)
            await gate
            sent.append(await tasks.send("another", queue=f"{tasks.queue}-slow"))

        worker = await self.make_worker(tasks)
        await last.delay()
        await until(lambda: begun)
        # As a parent does it: one after the other, without waiting.
        stopping = [worker.stopService(), tasks.stopService(), worker.stopService()]
        await sleep(0.02)
        self.assertFalse(stopping[1].called)
        gate.callback(None)
        await gatherResults(stopping)
        self.assertEqual((len(sent), worker.stats.succeeded, tasks.running), (1, 1, 0))

    async def test_what_does_not_end_in_time_is_cancelled_and_run_by_another(self: Any) -> None:
        tasks = await self.make_tasks()
        cancelled: list[int] = []
        runs: list[int] = []

        @tasks.task
        async def waits() -> None:
            runs.append(1)
            if len(runs) == 1:
                try:
                    await Deferred()
                except CancelledError:
                    cancelled.append(1)
                    raise

        worker = await self.make_worker(tasks, stop_timeout=0.1)
        with self.assertLogs("cycloneish.tasks", "WARNING"):
            await waits.delay()
            await until(lambda: len(runs) == 1)
            await worker.stopService()
            self.assertEqual(cancelled, [1])
            other = await self.make_worker(tasks)
            await until(lambda: other.stats.succeeded == 1)
        self.assertEqual(len(runs), 2)

    async def test_a_message_that_comes_back_too_often_is_laid_aside(self: Any) -> None:
        tasks = await self.make_tasks()
        ran: list[int] = []

        @tasks.task(thread=False, name="kills")
        def kills() -> None:
            ran.append(1)

        await kills.delay()
        # Workers that are lost with it in their hands: so far as anybody can tell, by its doing.
        for _ in range(2):
            lost = []
            consumption = await tasks.transport.consume([tasks.queue], 1, lost.append)
            await until(lambda lost=lost: lost)
            await consumption.cancel()
            await lost[0].give_back()
        with self.assertLogs("cycloneish.tasks", "WARNING"):
            await self.make_worker(tasks, max_redeliveries=0)
            (letter,) = await self.dead_letters(tasks, tasks.queue, 1)
        self.assertIn("WorkerLost", letter.headers["x-error"])
        self.assertEqual(ran, [])

    async def test_a_worker_needs_room(self: Any) -> None:
        tasks = await self.make_tasks()
        self.assertRaises(ValueError, Worker, tasks, concurrency=0)
        self.assertRaises(ValueError, Worker, tasks, concurrency=5, prefetch=4)

    async def test_sending_when_stopped_fails(self: Any) -> None:
        tasks = await self.make_tasks()

        @tasks.task
        def mark() -> None: ...

        await tasks.stopService()
        await tasks.stopService()
        await self.assertFailure(mark.delay(), TaskError)

    async def until_async(self, condition: Callable[[], Any]) -> None:
        """Wait until what *condition* gives, awaited, is true."""
        for _ in range(500):
            if await condition():
                return
            await sleep(0.02)
        raise AssertionError(f"did not come true: {condition}")
