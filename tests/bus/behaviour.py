"""What every bus does, whatever carries its messages; the modules beside this run it over each transport."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, gatherResults

from cycloneish.bus import Bus, BusClosed, Gap, Message, PayloadTooLarge, SlowSubscriber, Subscription
from tests.db.support import sleep, until


def data_of(items: list[Any]) -> list[Any]:
    return [item.data for item in items]


async def read(subscription: Subscription, number: int) -> list[Any]:
    """The next *number* items, each within the time that a slow machine needs."""
    from twisted.internet import reactor

    return [await subscription.get().addTimeout(20, reactor) for _ in range(number)]


class BusBehaviour:
    """The suite: to be mixed into a trial test case that has `make_bus`."""

    timeout = 60
    #: Whether two buses made by `make_bus` in one test meet.
    reaches_others = True

    def make_bus(self, **options: Any) -> Any:
        """A Deferred with a started bus, or a coroutine; stopped at the end of the test."""
        raise NotImplementedError

    # -- publish and subscribe -------------------------------------------------------------------

    async def test_a_message_reaches_its_subscribers_and_nobody_else(self: Any) -> None:
        bus = await self.make_bus()
        one, two, other = [await bus.subscribe(name) for name in ("room/7", "room/7", "room/77")]
        await bus.publish("room/7", {"text": "hello", "n": [1, None, True, 2.5]})
        await bus.publish("room/77", "last")
        for subscription in (one, two):
            (message,) = await read(subscription, 1)
            self.assertIsInstance(message, Message)
            self.assertEqual(message.channel, "room/7")
            self.assertEqual(message.data, {"text": "hello", "n": [1, None, True, 2.5]})
        self.assertEqual(data_of(await read(other, 1)), ["last"])
        self.assertEqual((one.pending, two.pending, other.pending), (0, 0, 0))

    async def test_what_is_published_arrives_as_it_was(self: Any) -> None:
        bus = await self.make_bus()
        subscription = await bus.subscribe("c")
        values = [
            "",
            "ü\n\0\"'\\ 🌀",
            b"",
            bytes(range(256)),
            0,
            None,
            {},
            [[]],
            {"a": {"b": "ö"}},
            "  x  y ",
        ]
        for value in values:
            await bus.publish("c", value)
        found = await read(subscription, len(values))
        self.assertEqual(data_of(found), values)
        self.assertEqual([item.is_binary for item in found], [isinstance(value, bytes) for value in values])
        self.assertEqual(found[8].text, '{"a":{"b":"\\u00f6"}}')

    async def test_messages_of_a_channel_stay_in_order_without_waiting_for_each(self: Any) -> None:
        bus = await self.make_bus()
        subscription = await bus.subscribe("c", limit=5000)
        heard: list[int] = []
        await bus.subscribe("c", lambda message: heard.append(message.data))
        await gatherResults([bus.publish("c", number) for number in range(2000)])
        self.assertEqual(data_of(await read(subscription, 2000)), list(range(2000)))
        await until(lambda: len(heard) == 2000)
        self.assertEqual(heard, list(range(2000)))

    async def test_large_messages_among_small_ones(self: Any) -> None:
        bus = await self.make_bus()
        subscription = await bus.subscribe("c")
        sizes = [1, 7_900, 7_980, 8_000, 20_000, 300_000, 3, 999_990]
        sent: list[Any] = ["x" * size for size in sizes] + [bytes([size % 256]) * size for size in sizes]
        await gatherResults([bus.publish("c", value) for value in sent])
        self.assertEqual([len(value) for value in data_of(await read(subscription, 16))], sizes * 2)

    async def test_equal_messages_all_arrive(self: Any) -> None:
        bus = await self.make_bus()
        subscription = await bus.subscribe("c")
        await gatherResults([bus.publish("c", "same") for _ in range(50)])
        self.assertEqual(data_of(await read(subscription, 50)), ["same"] * 50)

    async def test_odd_names_of_channels(self: Any) -> None:
        bus = await self.make_bus()
        names = [
            "a b",
            "*",
            "#",
            "a.*.b",
            "a.#",
            "a.b.c",
            "%2A",
            "100%",
            "ü/🌀",
            "q\"u'o",
            "x" * 200,
            ".",
            "\n",
        ]
        subscriptions = [await bus.subscribe(name) for name in names]
        for name in names:
            await bus.publish(name, name)
        for name, subscription in zip(names, subscriptions, strict=True):
            (message,) = await read(subscription, 1)
            self.assertEqual((message.channel, message.data), (name, name))
            self.assertEqual(subscription.pending, 0, name)

    async def test_a_prefix_is_subscribed_to(self: Any) -> None:
        bus = await self.make_bus()
        rooms = await bus.subscribe("room.", prefix=True)
        some = await bus.subscribe("room.1", prefix=True)
        exact = await bus.subscribe("room.1")
        for name in ("room", "room.1", "room.12", "roof.1", "room.2.x", "room.", "room.#", "other"):
            await bus.publish(name, name)
        await bus.publish("room.1", "end")
        self.assertEqual(
            data_of(await read(rooms, 6)), ["room.1", "room.12", "room.2.x", "room.", "room.#", "end"]
        )
        self.assertEqual(data_of(await read(some, 3)), ["room.1", "room.12", "end"])
        self.assertEqual(data_of(await read(exact, 2)), ["room.1", "end"])
        await rooms.close()
        await bus.publish("room.2", "for nobody")
        await bus.publish("room.1", "still")
        self.assertEqual(data_of(await read(some, 1)), ["still"])

    async def test_another_process_hears_it(self: Any) -> None:
        if not self.reaches_others:
            return
        one, two = await self.make_bus(), await self.make_bus()
        there = await two.subscribe("c")
        here = await one.subscribe("c")
        for number in range(20):
            await one.publish("c", ["one", number])
        for number in range(20):
            await two.publish("c", ["two", number])
        at_one, at_two = data_of(await read(here, 40)), data_of(await read(there, 40))
        for name in ("one", "two"):
            self.assertEqual([value for value in at_one if value[0] == name], [[name, n] for n in range(20)])
            self.assertEqual([value for value in at_two if value[0] == name], [[name, n] for n in range(20)])

    async def test_what_cannot_be_published_fails_at_once(self: Any) -> None:
        bus = await self.make_bus(max_payload=100)
        subscription = await bus.subscribe("c")
        loop: list[Any] = []
        loop.append(loop)
        await self.assertFailure(bus.publish("c", object()), TypeError)
        await self.assertFailure(bus.publish("c", {1, 2}), TypeError)
        await self.assertFailure(bus.publish("c", float("nan")), ValueError)
        await self.assertFailure(bus.publish("c", loop), ValueError)
        await self.assertFailure(bus.publish("c", "x" * 99), PayloadTooLarge)
        await self.assertFailure(bus.publish("c", b"x" * 101), PayloadTooLarge)
        await self.assertFailure(bus.publish("", 1), ValueError)
        await self.assertFailure(bus.publish("x" * 201, 1), ValueError)
        await self.assertFailure(bus.publish("ü" * 101, 1), ValueError)
        await self.assertFailure(bus.publish("%" * 70, 1), ValueError)
        await self.assertFailure(bus.publish(7, 1), TypeError)
        await self.assertFailure(bus.subscribe(""), ValueError)
        await self.assertFailure(bus.subscribe("c", limit=0), ValueError)
        await self.assertFailure(bus.subscribe("c", overflow="wait"), ValueError)
        await bus.publish("c", "x" * 98)
        self.assertEqual(len((await read(subscription, 1))[0].raw), 100)

    # -- ways to read ----------------------------------------------------------------------------

    async def test_iterating_ends_with_the_bus(self: Any) -> None:
        bus = await self.make_bus()
        heard: list[Any] = []

        async def reader(subscription: Subscription) -> str:
            async with subscription:
                async for item in subscription:
                    heard.append(item.data)
            return "ended"

        reading = Deferred.fromCoroutine(reader(await bus.subscribe("c")))
        await bus.publish("c", 1)
        await bus.publish("c", 2)
        await until(lambda: heard == [1, 2])
        await bus.stopService()
        self.assertEqual(await reading, "ended")
        self.assertEqual(bus.stats().subscribers, 0)

    async def test_a_callback_gets_one_message_after_the_other(self: Any) -> None:
        bus = await self.make_bus()
        heard: list[Any] = []
        gates: list[Deferred[None]] = []

        async def callback(message: Message) -> None:
            heard.append(("begin", message.data))
            gate: Deferred[None] = Deferred()
            gates.append(gate)
            await gate
            heard.append(("end", message.data))

        await bus.subscribe("c", callback)
        for number in range(3):
            await bus.publish("c", number)
        for number in range(3):
            await until(lambda number=number: len(gates) == number + 1)
            gates[number].callback(None)
        self.assertEqual(heard, [(what, n) for n in range(3) for what in ("begin", "end")])

    async def test_a_callback_that_fails_is_logged_and_does_no_harm(self: Any) -> None:
        bus = await self.make_bus()
        heard: list[Any] = []

        def bad(message: Message) -> None:
            raise ZeroDivisionError(message.data)

        async def late(message: Message) -> None:
            await sleep(0)
            raise ZeroDivisionError(message.data)

        await bus.subscribe("c", bad)
        await bus.subscribe("c", late)
        await bus.subscribe("c", lambda message: heard.append(message.data))
        with self.assertLogs("cycloneish.bus", "ERROR") as logged:
            await bus.publish("c", 1)
            await bus.publish("c", 2)
            await until(lambda: heard == [1, 2] and len(logged.records) == 4)

    async def test_a_message_published_from_a_callback_comes_after_for_everybody(self: Any) -> None:
        bus = await self.make_bus()
        heard: list[Any] = []

        def echo(message: Message) -> None:
            if message.data < 5:
                bus.publish("c", message.data + 1)

        await bus.subscribe("c", echo)
        await bus.subscribe("c", lambda message: heard.append(message.data))
        await bus.publish("c", 0)
        await until(lambda: len(heard) == 6)
        self.assertEqual(heard, [0, 1, 2, 3, 4, 5])

    # -- slow subscribers ------------------------------------------------------------------------

    async def test_the_oldest_are_dropped_and_the_gap_is_before_the_rest(self: Any) -> None:
        bus = await self.make_bus()
        slow = await bus.subscribe("c", limit=3)
        last = await bus.subscribe("c")
        await gatherResults([bus.publish("c", number) for number in range(10)])
        await read(last, 10)
        self.assertEqual((slow.pending, slow.dropped, bus.stats().dropped), (3, 7, 7))
        gap, *rest = await read(slow, 4)
        self.assertEqual(gap, Gap("slow", 7))
        self.assertEqual(data_of(rest), [7, 8, 9])
        await bus.publish("c", 10)
        self.assertEqual(data_of(await read(slow, 1)), [10])

    async def test_the_newest_are_dropped_and_the_gap_is_behind_the_rest(self: Any) -> None:
        bus = await self.make_bus()
        slow = await bus.subscribe("c", limit=3, overflow="drop-newest")
        last = await bus.subscribe("c")
        await gatherResults([bus.publish("c", number) for number in range(10)])
        await read(last, 10)
        self.assertEqual(data_of(await read(slow, 2)), [0, 1])
        await bus.publish("c", 10)
        await read(last, 1)
        *rest, gap, after = await read(slow, 3)
        self.assertEqual(gap, Gap("slow", 7))
        self.assertEqual((data_of(rest), after.data), ([2], 10))
        self.assertEqual(slow.dropped, 7)

    async def test_a_slow_subscriber_may_be_disconnected(self: Any) -> None:
        bus = await self.make_bus()
        slow = await bus.subscribe("c", limit=3, overflow="disconnect")
        last = await bus.subscribe("c")
        ended = slow.when_closed()
        await gatherResults([bus.publish("c", number) for number in range(10)])
        await read(last, 10)
        self.assertIsInstance(await ended, SlowSubscriber)
        self.assertFalse(slow.is_open)
        await self.assertFailure(slow.get(), SlowSubscriber)
        self.assertEqual(bus.stats().subscribers, 1)

    async def test_a_callback_that_never_ends_holds_nobody_up(self: Any) -> None:
        bus = await self.make_bus()
        begun: list[Message] = []
        gaps: list[Gap] = []
        stuck: Deferred[None] = Deferred()

        def never(message: Message) -> Deferred[None]:
            begun.append(message)
            return stuck

        slow = await bus.subscribe("c", never, on_gap=gaps.append, limit=2)
        last = await bus.subscribe("c")
        await gatherResults([bus.publish("c", number) for number in range(10)])
        self.assertEqual(data_of(await read(last, 10)), list(range(10)))
        self.assertEqual((data_of(begun), slow.dropped), ([0], 7))
        stuck.callback(None)
        await until(lambda: len(begun) == 3)
        self.assertEqual((gaps, data_of(begun)), ([Gap("slow", 7)], [0, 8, 9]))

    # -- the end of a subscription ---------------------------------------------------------------

    async def test_a_closed_subscription_is_let_go_and_the_others_go_on(self: Any) -> None:
        bus = await self.make_bus()
        one, two = await bus.subscribe("c"), await bus.subscribe("c")
        waiting = one.get()
        ended = one.when_closed()
        await one.close()
        await one.close()
        await self.assertFailure(waiting, BusClosed)
        self.assertIs(await ended, None)
        await bus.publish("c", 1)
        self.assertEqual(data_of(await read(two, 1)), [1])
        self.assertEqual(one.pending, 0)
        await two.close()
        self.assertEqual((bus.stats().subscribers, bus.stats().topics), (0, 0))
        again = await bus.subscribe("c")
        await bus.publish("c", 2)
        self.assertEqual(data_of(await read(again, 1)), [2])

    async def test_closing_cancels_a_callback_at_work(self: Any) -> None:
        bus = await self.make_bus()
        cancelled: list[int] = []
        stuck: Deferred[None] = Deferred(lambda _: cancelled.append(1))
        subscription = await bus.subscribe("c", lambda _: stuck)
        await bus.publish("c", 1)
        await until(lambda: subscription._working is not None)
        await subscription.close()
        self.assertEqual(cancelled, [1])

    async def test_a_callback_may_close_its_own_subscription(self: Any) -> None:
        bus = await self.make_bus()
        heard: list[Any] = []
        subscriptions: list[Subscription] = []

        def once(message: Message) -> None:
            heard.append(message.data)
            subscriptions[0].close()

        subscriptions.append(await bus.subscribe("c", once))
        last = await bus.subscribe("c")
        await bus.publish("c", 1)
        await bus.publish("c", 2)
        await read(last, 2)
        self.assertEqual(heard, [1])

    async def test_waiting_can_be_cancelled_and_loses_nothing(self: Any) -> None:
        bus = await self.make_bus()
        subscription = await bus.subscribe("c")
        waiting = subscription.get()
        waiting.cancel()
        await self.assertFailure(waiting, CancelledError)
        await bus.publish("c", 1)
        self.assertEqual(data_of(await read(subscription, 1)), [1])
        closed = subscription.when_closed()
        closed.cancel()
        await self.assertFailure(closed, CancelledError)

    async def test_many_come_and_go_on_one_channel(self: Any) -> None:
        bus = await self.make_bus()
        for number in range(30):
            subscriptions = await gatherResults([bus.subscribe("c") for _ in range(3)])
            await bus.publish("c", number)
            for subscription in subscriptions:
                self.assertEqual(data_of(await read(subscription, 1)), [number])
            for subscription in subscriptions:
                subscription.close()
        self.assertEqual(bus.stats().topics, 0)

    # -- the service -----------------------------------------------------------------------------

    async def test_it_can_be_stopped_and_started_again(self: Any) -> None:
        bus = await self.make_bus()
        old = await bus.subscribe("c")
        await bus.stopService()
        await bus.stopService()
        self.assertFalse(old.is_open)
        await self.assertFailure(bus.publish("c", 1), BusClosed)
        await self.assertFailure(bus.subscribe("c"), BusClosed)
        bus.startService()
        await bus.when_ready()
        new = await bus.subscribe("c")
        await bus.publish("c", 2)
        self.assertEqual(data_of(await read(new, 1)), [2])

    async def test_stopping_sees_what_was_published_on_its_way(self: Any) -> None:
        bus = await self.make_bus()
        sent = [bus.publish("c", number) for number in range(100)]
        await bus.stopService()
        await gatherResults(sent)


class GapBehaviour:
    """Over a connection that can be lost."""

    async def break_connection(self, bus: Bus) -> None:
        """Have the other end cut the connection that *bus* hears by."""
        raise NotImplementedError

    async def test_after_a_reconnect_every_subscriber_is_told_of_the_gap(self: Any) -> None:
        bus = await self.make_bus()
        gaps: list[Gap] = []
        heard: list[Any] = []
        iterated = await bus.subscribe("a")
        waiting = iterated.get()
        await bus.subscribe("b", lambda message: heard.append(message.data), on_gap=gaps.append)
        unread = await bus.subscribe("c", prefix=True)
        await bus.publish("c", "before")
        await until(lambda: unread.pending == 1)
        await self.break_connection(bus)
        self.assertEqual(await waiting, Gap("reconnect"))
        await until(lambda: gaps == [Gap("reconnect")])
        self.assertEqual(bus.stats().gaps, 1)
        for name in ("a", "b", "c"):
            await bus.publish(name, name)
        self.assertEqual(data_of(await read(iterated, 1)), ["a"])
        await until(lambda: heard == ["b"])
        before, gap, after = await read(unread, 3)
        self.assertEqual((before.data, gap, after.data), ("before", Gap("reconnect"), "c"))
