"""Workers that are killed in the middle of their tasks, over a real RabbitMQ: no task is lost.

``CRASH_ROUNDS=50 python -m twisted.trial tests.tasks.test_crashes`` kills so many.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from pathlib import Path

from twisted.trial.unittest import TestCase

from cycloneish.tasks import Tasks
from tests.amqp.broker import MISSING, shared_url
from tests.db.support import sleep, until
from tests.programs import ROOT, Running

ROUNDS = int(os.environ.get("CRASH_ROUNDS", "2"))
TASKS_FOR_A_ROUND = 30


class CrashTest(TestCase):
    skip = MISSING
    timeout = 120 + 20 * ROUNDS

    def make_notes(self) -> Path:
        notes = Path(self.mktemp()).absolute()
        notes.touch()
        return notes

    async def test_tasks_of_killed_workers_run_elsewhere(self) -> None:
        url = shared_url()
        queue = f"crash-{os.getpid()}-{time.time_ns()}"
        notes = self.make_notes()
        tasks = Tasks(url, queue=queue)
        tasks.startService()
        self.addCleanup(tasks.stopService)
        number = ROUNDS * TASKS_FOR_A_ROUND
        for n in range(number):
            await tasks.send(("crash.in_thread", "crash.on_reactor")[n % 2], [n])
        command = [
            sys.executable, "-m", "cycloneish", "worker", "--app", "tests.tasks.crash_program:tasks",
            "--amqp", url, "--concurrency", "5",
        ]  # fmt: skip

        def start() -> Running:
            worker = Running(command, ROOT, BROKER="memory:", QUEUE=queue, NOTES=str(notes))
            self.addCleanup(worker.process.kill)
            return worker

        interrupted = 0
        for _ in range(ROUNDS):
            worker = start()
            mine = f" {worker.process.pid}\n"
            await until(lambda mine=mine: notes.read_text().count(mine) > 5, 60)  # type: ignore[misc]
            worker.process.kill()
            worker.wait()
            interrupted += _kinds(notes, mine)["begin"] - _kinds(notes, mine)["end"]
        last = start()

        def ended() -> set[int]:
            return {int(words[1]) for words in _lines(notes) if words[0] == "end"}

        await until(lambda: len(ended()) == number, 60 + 10 * ROUNDS)
        self.assertEqual(ended(), set(range(number)))
        self.assertTrue(interrupted >= ROUNDS, "the workers were killed when they had nothing to do")
        last.process.terminate()
        while last.process.poll() is None:
            await sleep(0.05)
        self.assertEqual(last.wait(), 0)
        broker = tasks.transport.broker  # type: ignore[attr-defined]
        self.assertEqual(await broker.message_count(queue), 0)
        await broker.declare_queue(f"{queue}.dead")
        self.assertEqual(await broker.message_count(f"{queue}.dead"), 0)
        await broker.delete_queue(queue)
        await broker.delete_queue(f"{queue}.dead")
        runs = Counter(words[1] for words in _lines(notes) if words[0] == "begin")
        print(
            f"{ROUNDS} workers killed, {number} tasks, {interrupted} interrupted, "
            f"{sum(runs.values()) - number} runs too many, none lost"
        )


def _lines(notes: Path) -> list[list[str]]:
    return [line.split() for line in notes.read_text().splitlines()]


def _kinds(notes: Path, mine: str) -> Counter[str]:
    return Counter(line.split()[0] for line in notes.read_text().splitlines(True) if line.endswith(mine))
