"""``cycloneish worker``, as a user runs it, and the service behind it."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from cycloneish.cli import main
from cycloneish.service.worker import WorkerOptions, WorkerService
from cycloneish.tasks import Tasks
from cycloneish.web import Application
from tests.db.support import until
from tests.programs import Running

JOBS = """
import sys
from cycloneish.tasks import Tasks

tasks = Tasks("memory:", include=["more_jobs"])
not_tasks = 7

class Needed:
    @staticmethod
    def startService():
        print("the service is started", flush=True)
    privilegedStartService = startService
    @staticmethod
    def stopService():
        print("the service is stopped", flush=True)

tasks.service = Needed

@tasks.task
def hello(name):
    print("hello", name, flush=True)

async def make():
    return tasks

def broken():
    raise ZeroDivisionError("on purpose")
"""

MORE_JOBS = """
import jobs
from twisted.internet import reactor

reactor.callLater(0.1, jobs.hello.delay, "you")
"""


class CommandTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        (self.folder / "jobs.py").write_text(JOBS)
        (self.folder / "more_jobs.py").write_text(MORE_JOBS)

    def start(self, *arguments: str) -> Running:
        started = Running([sys.executable, "-m", "cycloneish", "worker", *arguments], self.folder)
        self.addCleanup(lambda: started.process.poll() is None and started.stop())
        return started

    def test_it_runs_tasks_until_it_is_told_to_end(self) -> None:
        for options in (("--app", "jobs:tasks"), ("--app", "jobs:make", "-c", "2", "--reactor", "asyncio")):
            worker = self.start(*options)
            worker.wait_for("the service is started")
            worker.wait_for("the worker takes tasks from tasks")
            worker.wait_for("hello you")
            worker.wait_for("jobs.hello.* succeeded")
            self.assertEqual(worker.stop(), 0)
            self.assertIn("the service is stopped", worker.output)
            self.assertNotIn("Traceback", worker.output)

    def test_what_cannot_be_run_is_told_and_status_1(self) -> None:
        for app, text in (
            ("jobs:nothing", "there is no 'nothing' in jobs"),
            ("jobs:broken", "on purpose"),
        ):
            worker = self.start("--app", app)
            self.assertEqual(worker.wait(), 1, worker.output)
            self.assertIn(text, worker.output)

    def test_wrong_options_are_status_2(self) -> None:
        for options in ((), ("--app", "jobs"), ("--app", "jobs:tasks", "-c", "0"), ("--colour",)):
            output = io.StringIO()
            with contextlib.redirect_stderr(output):
                self.assertEqual(main(["worker", *options]), 2)
            self.assertIn("Usage: cycloneish worker --app", output.getvalue())

    def test_queues_are_a_list(self) -> None:
        options = WorkerOptions()
        options.parseOptions(["--app", "a:b", "--queues", "mail, slow"])
        self.assertEqual(options.queues, ["mail", "slow"])


class WorkerServiceTest(TestCase):
    async def test_tasks_may_be_those_of_an_application(self) -> None:
        tasks = Tasks("memory:")

        class WithTasks(Application):
            pass

        with_attribute = WithTasks()
        with_attribute.tasks = tasks  # type: ignore[attr-defined]
        for source in (tasks, Application(tasks=tasks), with_attribute, lambda: Application(tasks=tasks)):
            service = WorkerService(source, concurrency=1)
            service.startService()
            await service.started
            self.assertIs(service.tasks, tasks)
            self.assertTrue(tasks.running)
            await service.stopService()
            self.assertFalse(tasks.running)

    async def test_what_is_no_tasks_is_told(self) -> None:
        service = WorkerService(7)
        service.startService()
        await self.assertFailure(service.started, TypeError)

    async def test_it_can_be_stopped_while_it_starts(self) -> None:
        cancelled: list[Any] = []
        service = WorkerService(lambda: Deferred(cancelled.append))
        service.startService()
        started = service.started
        await service.stopService()
        await self.assertFailure(started, CancelledError)
        self.assertEqual(len(cancelled), 1)

    async def test_what_the_tasks_need_is_let_go_when_starting_fails(self) -> None:
        stopped: list[int] = []

        class Needed(Service):
            def stopService(self) -> None:
                stopped.append(1)

        service = WorkerService(Tasks("memory:", service=Needed(), include=["no_such_module"]))
        service.startService()
        await self.assertFailure(service.started, ModuleNotFoundError)
        await until(lambda: stopped == [1])
