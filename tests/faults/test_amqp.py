"""Killed brokers, killed consumers, poison: nothing whose publish fired is lost.

The counts are small here; ``CYCLONEISH_FAULTS=full`` has the full ones (100,000 messages over 20 kills of the
broker, 50 kills of a consumer).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase

from cycloneish.amqp import AMQP, Message
from tests.amqp.broker import MISSING, RabbitMQ, shared_url, sleep, until
from tests.programs import environment

FULL = os.environ.get("CYCLONEISH_FAULTS") == "full"
HOURS = 7200.0


class KilledBrokerTest(TestCase):
    timeout = HOURS if FULL else 240
    skip = MISSING

    async def test_nothing_that_was_confirmed_is_lost(self) -> None:
        total, kills = (100_000, 20) if FULL else (3_000, 1)
        broker = RabbitMQ()
        self.addCleanup(broker.remove)
        broker.start()
        settings: dict[str, Any] = {"republish": True, "max_backoff": 0.5, "timeout": 600.0}
        publisher, consumer = AMQP(broker.url, confirm_window=200, **settings), AMQP(broker.url, **settings)
        publisher.startService()
        consumer.startService()
        fired: set[int] = set()
        delivered: Counter[int] = Counter()
        await consumer.declare_queue("flow")

        def handler(message: Message) -> None:
            delivered[message.value] += 1

        await consumer.consume("flow", handler, prefetch=200)
        numbers = iter(range(total))

        async def publish() -> None:
            for number in numbers:
                await publisher.publish("", "flow", number, mandatory=True)
                fired.add(number)

        lines = [self.run_(publish()) for _ in range(200)]
        for kill in range(kills):
            await until(lambda kill=kill: len(fired) >= (kill + 1) * total // (kills + 1), 600)
            self.assertLess(len(fired), total)
            broker.kill()
            broker.start()
            await until(broker.answers, 300)
        for line in lines:
            await line
        await until(lambda: fired <= delivered.keys(), 300)
        twice = sum(delivered.values()) - len(delivered)
        sys.stderr.write(
            f"{total} messages, {kills} kills: {len(fired)} confirmed, {len(delivered)} delivered, "
            f"{twice} duplicates, {len(fired - delivered.keys())} lost\n"
        )
        self.assertEqual((len(fired), len(delivered)), (total, total))
        await consumer.stopService()
        await publisher.stopService()

    def run_(self, work: Any) -> Any:
        from twisted.internet.defer import Deferred

        return Deferred.fromCoroutine(work)


class KilledConsumerTest(TestCase):
    timeout = HOURS if FULL else 240
    skip = MISSING

    async def test_what_was_in_its_hands_comes_again(self) -> None:
        kills = 50 if FULL else 4
        total = kills * 400
        amqp = AMQP(shared_url())
        amqp.startService()
        queue = await amqp.declare_queue(f"killed.{uuid.uuid4().hex}")
        for start_ in range(0, total, 400):
            for one in [amqp.publish("", queue, start_ + number, timeout=120) for number in range(400)]:
                await one
        path = Path(self.mktemp())

        def done() -> list[str]:
            return path.read_text().split() if path.exists() else []

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.faults.worker", shared_url(), queue, str(path)],
                env=environment(),
            )

        for _ in range(kills):
            worker = start()
            try:
                before = len(done())
                await until(lambda before=before: len(done()) >= before + 50, 60)
            finally:
                worker.send_signal(signal.SIGKILL)
                worker.wait()
        worker = start()
        try:
            await until(lambda: len(set(done())) == total, 300)
        finally:
            worker.kill()
            worker.wait()
        sys.stderr.write(f"{total} messages, {kills} kills, {len(done()) - total} duplicates, none lost\n")
        await amqp.delete_queue(queue)
        await amqp.delete_queue(f"{queue}.dead")
        await amqp.stopService()


class PoisonTest(TestCase):
    timeout = 120
    skip = MISSING

    async def test_it_ends_in_the_dead_letters_and_holds_nobody_up(self) -> None:
        amqp = AMQP(shared_url())
        amqp.startService()
        queue = await amqp.declare_queue(f"poison.{uuid.uuid4().hex}")
        handled_at_attempt: list[int] = []
        dead: list[Message] = []
        started = time.monotonic()
        times: list[float] = []

        async def handler(message: Message) -> None:
            await sleep(0.001)
            if message.value == "poison":
                handled_at_attempt.append(consumer.handled)
                times.append(time.monotonic() - started)
                raise ValueError("poison")

        consumer: Any = await amqp.consume(queue, handler, prefetch=10, retries=3, retry_delay=0.2)
        await amqp.consume(f"{queue}.dead", dead.append, dead_letter="")
        good = 0
        await amqp.publish("", queue, "poison")
        while not dead:
            await amqp.publish("", queue, "good")
            good += 1
        await until(lambda: consumer.handled == good)
        self.assertEqual(len(handled_at_attempt), 4)
        # Others were handled between any two attempts, which never follow each other hot.
        self.assertEqual(sorted(set(handled_at_attempt)), handled_at_attempt)
        for one, next_ in pairwise(times):
            self.assertGreater(next_ - one, 0.19)
        self.assertIn("ValueError: poison", dead[0].headers["x-cycloneish-traceback"])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        for name in (queue, f"{queue}.dead", f"{queue}.retry.200"):
            await amqp.delete_queue(name)
        await amqp.stopService()
