"""The bus over AMQP: a real RabbitMQ, and the broker in memory."""

from __future__ import annotations

import itertools
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import TestCase

from cycloneish.amqp import MemoryAMQP, MemoryBroker
from cycloneish.bus import Bus, Gap, open_bus
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

    async def test_a_connection_that_was_there_before_the_bus_has_gaps_too(self) -> None:
        bus = await self.make_bus()
        subscription = await bus.subscribe("c")
        broker: Any = bus._transport.broker  # type: ignore[attr-defined]
        broker._tell_watchers(False)
        broker._tell_watchers(True)
        self.assertEqual(await subscription.get(), Gap("reconnect"))

    async def test_who_leaves_before_there_is_a_queue_leaves_no_binding(self) -> None:
        bus = await self.make_bus()
        broker: Any = bus._transport.broker  # type: ignore[attr-defined]
        declare, later = broker.declare_queue, Deferred[None]()
        broker.declare_queue = lambda *names, **options: later.addCallback(
            lambda _: declare(*names, **options)
        )
        leaving = bus.subscribe("c")
        staying = bus.subscribe("d")
        leaving.cancel()
        await self.assertFailure(leaving, CancelledError)
        later.callback(None)
        await staying
        bindings = self.broker.exchanges["cycloneish.bus"].bindings
        self.assertEqual([key for _, key, _ in bindings], ["d"])


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
