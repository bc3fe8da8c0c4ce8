"""The bus in one process."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from cycloneish.bus import Bus, Gap, open_bus
from cycloneish.bus.values import Message

from .behaviour import BusBehaviour


class MemoryBusTest(BusBehaviour, TestCase):
    reaches_others = False

    async def make_bus(self, **options: Any) -> Bus:
        bus = open_bus("memory:", **options)
        bus.startService()
        self.addCleanup(bus.stopService)
        return bus

    async def test_only_postgresql_publishes_in_a_transaction(self) -> None:
        bus = await self.make_bus()
        await self.assertFailure(bus.publish("c", 1, tx=object()), TypeError)


class DeliveryTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.bus = open_bus("memory:", reactor=self.clock)
        self.bus.startService()
        self.addCleanup(self.bus.stopService)

    def test_two_that_answer_each_other_leave_the_reactor_its_turn(self) -> None:
        heard: list[int] = []

        def answer(message: Message) -> None:
            heard.append(message.data)
            if message.data < 1499:
                self.bus.publish("c", message.data + 1)

        self.bus.subscribe("c", answer)
        self.bus.publish("c", 0)
        self.assertEqual(heard, list(range(1000)))
        self.clock.advance(0)
        self.assertEqual(heard, list(range(1500)))

    def test_what_arrives_meanwhile_waits_its_turn(self) -> None:
        heard: list[int] = []

        def many(message: Message) -> None:
            if message.data == -1:
                for number in range(1500):
                    self.bus.publish("c", number)
            else:
                heard.append(message.data)

        self.bus.subscribe("c", many)
        self.bus.publish("c", -1)
        self.bus.publish("c", 1500)
        self.assertEqual(heard, list(range(999)))
        self.clock.advance(0)
        self.assertEqual(heard, list(range(1501)))

    def test_gaps_that_meet_become_one_and_take_no_room(self) -> None:
        oldest = self.successResultOf(self.bus.subscribe("c", limit=2))
        newest = self.successResultOf(self.bus.subscribe("c", limit=2, overflow="drop-newest"))
        for number in range(4):
            self.bus.publish("c", number)
            self.bus.gap()
        # A gap is the first in the queue when it overflows.
        between = self.successResultOf(self.bus.subscribe("d", limit=2))
        self.bus.publish("d", 0)
        self.bus.gap()
        self.bus.publish("d", 1)
        self.successResultOf(between.get())
        self.bus.publish("d", 2)
        self.bus.publish("d", 3)
        self.assertEqual((between.pending, between.dropped), (2, 1))
        for subscription, expected in (
            (between, [Gap("reconnect"), 2, 3]),
            (oldest, [Gap("reconnect"), 2, Gap("reconnect"), 3, Gap("reconnect")]),
            (newest, [0, Gap("reconnect"), 1, Gap("reconnect")]),
        ):
            found = []
            while subscription._has_items():
                item = self.successResultOf(subscription.get())
                found.append(item if isinstance(item, Gap) else item.data)
            self.assertEqual(found, expected)


class OpenTest(SynchronousTestCase):
    def test_a_wrong_url_is_not_shown(self) -> None:
        for url in ("redis://user:secret@host", "", "memory", "host:secret"):
            error = self.assertRaises(ValueError, open_bus, url)
            self.assertNotIn("secret", str(error))
        self.assertRaises(TypeError, open_bus, 7)
