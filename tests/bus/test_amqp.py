"""The bus over AMQP: a real RabbitMQ, and the broker in memory."""

from __future__ import annotations

import itertools
from typing import Any

from twisted.trial.unittest import TestCase

from cycloneish.amqp import MemoryAMQP, MemoryBroker
from cycloneish.bus import Bus, open_bus
from tests.amqp.broker import MISSING, shared_url
from tests.db.support import until

from .behaviour import BusBehaviour, GapBehaviour

_numbers = itertools.count(1)


class MemoryBrokerBusTest(BusBehaviour, TestCase):
    def setUp(self) -> None:
        self.broker = MemoryBroker()

    async def make_bus(self, **options: Any) -> Bus:
        broker = MemoryAMQP(self.broker)
        broker.startService()
        self.addCleanup(broker.stopService)
        bus = open_bus(broker, **options)
        bus.startService()
        self.addCleanup(bus.stopService)
        return bus


class RabbitMQBusTest(GapBehaviour, BusBehaviour, TestCase):
    skip = MISSING

    def setUp(self) -> None:
        self.exchange = f"bus-{next(_numbers)}"

    async def make_bus(self, **options: Any) -> Bus:
        bus = open_bus(shared_url(), exchange=self.exchange, **options)
        bus.startService()
        self.addCleanup(bus.stopService)
        await bus.when_ready()
        return bus

    async def break_connection(self, bus: Bus) -> None:
        broker: Any = bus._transport.broker  # type: ignore[attr-defined]
        broker.client.transport.abortConnection()
        await until(lambda: bus.stats().gaps == 1)
