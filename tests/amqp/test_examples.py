"""The programs of the guide, run as it says."""

from __future__ import annotations

import runpy
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase

from cycloneish.amqp import MemoryAMQP, MessageReturned
from tests.programs import EXAMPLES

from .broker import MISSING, shared_url, until

PROGRAMS = EXAMPLES / "amqp"


class ProgramsTest(TestCase):
    skip = MISSING

    def test_a_consumer_in_ten_lines_and_a_publisher(self) -> None:
        source = (PROGRAMS / "consumer.py").read_text()
        url = "amqp://guest:guest@localhost/"
        self.assertIn(url, source)
        program = Path(self.mktemp())
        program.write_text(source.replace(url, shared_url()))
        consumer = subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True)
        assert consumer.stdout is not None
        self.addCleanup(consumer.wait)
        self.addCleanup(consumer.stdout.close)
        self.addCleanup(consumer.kill)
        command = [sys.executable, str(PROGRAMS / "publisher.py"), shared_url(), "you"]
        sent = subprocess.run(command, capture_output=True, text=True, timeout=60)
        self.assertEqual((sent.returncode, sent.stdout), (0, "confirmed\n"), sent.stderr)
        self.assertEqual(consumer.stdout.readline(), "{'hello': 'you'}\n")


class OrdersTest(TestCase):
    timeout = 30

    async def test_the_service_with_the_broker_in_memory(self) -> None:
        broker = MemoryAMQP()
        broker.startService()
        orders: Any = runpy.run_path(str(PROGRAMS / "orders.py"))["Orders"](broker)
        await self.assertFailure(orders.place({"id": "0"}), Exception)  # before the exchange is there
        consumer = await orders.begin()
        await orders.place({"id": "1", "items": ["tea"]})
        await until(lambda: orders.taken == ["1"])
        started = time.monotonic()
        await orders.place({"id": "2", "items": []})
        await until(lambda: consumer.dead_lettered == 1)
        self.assertGreater(time.monotonic() - started, 0.14)
        self.assertEqual(await broker.message_count("orders.dead"), 1)
        await self.assertFailure(broker.publish("shop", "nothing.here", 1, mandatory=True), MessageReturned)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        await broker.stopService()
