"""The bus over LISTEN and NOTIFY of a real PostgreSQL."""

from __future__ import annotations

import itertools
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, gatherResults, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from cycloneish.bus import Bus, BusClosed, BusError, open_bus
from cycloneish.bus.postgres import PostgresTransport
from cycloneish.db.errors import ConnectionLost, DatabaseError
from cycloneish.db.postgres import Pool
from tests.db.support import ask, fresh_database, fresh_url, until

from .behaviour import BusBehaviour, GapBehaviour, data_of, read

_database: list[str] = []
_numbers = itertools.count(1)


class PostgresBusTest(GapBehaviour, BusBehaviour, TestCase):
    def setUp(self) -> None:
        # One database for all: the buses of a test meet under a name of their own.
        if not _database:
            _database.append(fresh_database())
        self.dsn = _database[0]
        self.notify_channel = f"bus_{next(_numbers)}"

    async def make_bus(self, **options: Any) -> Bus:
        self.pool = Pool(self.dsn)
        self.pool.startService()
        self.addCleanup(self.pool.stopService)
        bus = open_bus(self.pool, notify_channel=self.notify_channel, **options)
        bus.startService()
        self.addCleanup(bus.stopService)
        return bus

    async def break_connection(self, bus: Bus) -> None:
        pool: Any = bus._transport.pool  # type: ignore[attr-defined]
        await until(lambda: pool._listener._connection is not None)
        with self.assertLogs("cycloneish.db", "WARNING"):
            ask(self.dsn, "select pg_terminate_backend(%s)", pool._listener._connection.pid)
            await until(lambda: bus.stats().gaps == 1)

    async def test_in_a_transaction_it_goes_out_with_the_commit(self) -> None:
        bus = await self.make_bus()
        subscription = await bus.subscribe("c")
        async with self.pool.transaction() as tx:
            await bus.publish("c", "in time", tx=tx)
            await bus.publish("c", "x" * 20_000, tx=tx)
            await bus.publish("c", "before")
            self.assertEqual(data_of(await read(subscription, 1)), ["before"])
        self.assertEqual([len(data) for data in data_of(await read(subscription, 2))], [7, 20_000])

        async def fails() -> None:
            async with self.pool.transaction() as tx:
                await bus.publish("c", "never", tx=tx)
                raise ZeroDivisionError

        with self.assertRaises(ZeroDivisionError):
            await fails()
        await bus.publish("c", "after")
        self.assertEqual(data_of(await read(subscription, 1)), ["after"])

    async def test_without_subscribers_nothing_is_listened_to(self) -> None:
        bus = await self.make_bus()
        count = (
            "select count(*) from pg_stat_activity where datname = current_database() and query ~* 'listen'"
        )
        await bus.publish("c", 1)
        self.assertIs(self.pool._listener._connection, None)  # type: ignore[union-attr]
        one, two = await bus.subscribe("c"), await bus.subscribe("d", prefix=True)
        self.assertEqual(ask(self.dsn, count), 2)  # the question itself is one
        await one.close()
        await two.close()
        connection: Any = self.pool._listener._connection  # type: ignore[union-attr]
        listening = await connection.run(
            "select count(*) from pg_listening_channels()", None, lambda c: c.fetchone()[0]
        )
        self.assertEqual(listening, 0)

    async def test_notifications_of_others_are_ignored(self) -> None:
        bus = await self.make_bus()
        subscription = await bus.subscribe("c")
        with self.assertLogs("cycloneish.bus", "WARNING") as logged:
            for payload in ("", "x", "a j c", "a:1  c x", "a:1 b c *", "a:1 jx/y c d", "a:1 j1 c d"):
                ask(self.dsn, "select pg_notify(%s, %s)", self.notify_channel, payload)
            # Pieces without a beginning, and a beginning without an end.
            for payload in ("a:2 j2/2 c ..", "a:3 j1/2 c ..", "a:4 j3/3 c ..", "a:5 j1/999999999 c .."):
                ask(self.dsn, "select pg_notify(%s, %s)", self.notify_channel, payload)
            await bus.publish("c", 1)
            self.assertEqual(data_of(await read(subscription, 1)), [1])
        self.assertEqual(len(logged.records), 7)

    async def test_other_programs_may_publish(self) -> None:
        bus = await self.make_bus()
        subscription = await bus.subscribe("c d")
        by_hand = 'psql:1 j c%20d {"by": "hand ü"}'
        ask(self.dsn, "select pg_notify(%s, %s)", self.notify_channel, by_hand)
        self.assertEqual(data_of(await read(subscription, 1)), [{"by": "hand ü"}])

    async def test_publishing_without_a_connection_fails(self) -> None:
        bus = await self.make_bus()
        await bus.publish("c", 1)
        sending = [bus.publish("c", 2), bus.publish("c", 3)]
        for connection in list(self.pool._all):
            connection.abort("pulled")
        await self.assertFailure(sending[0], ConnectionLost)
        await sending[1]

    async def test_what_waits_to_be_sent_is_bounded_and_can_be_cancelled(self) -> None:
        await self.make_bus()
        bus = open_bus(self.pool, max_outgoing=10, max_payload=100_000)
        bus.startService()
        self.addCleanup(bus.stopService)
        subscription = await bus.subscribe("c")
        sent = [bus.publish("c", number) for number in range(11)]
        await self.assertFailure(bus.publish("c", "no room"), BusError)
        for number in (0, 5):
            sent[number].cancel()
            await self.assertFailure(sent[number], CancelledError)
        await sent[10]
        # The first was under way already.
        self.assertEqual(data_of(await read(subscription, 10)), [0, 1, 2, 3, 4, 6, 7, 8, 9, 10])
        sent = [bus.publish("c", "x" * 9_000), bus.publish("c", "x" * 9_000)]
        await self.assertFailure(bus.publish("c", "x" * 9_000), BusError)
        await gatherResults(sent)

    async def test_a_bus_of_its_own_from_a_url(self) -> None:
        url = fresh_url()
        buses = [open_bus(url) for _ in range(2)]
        for bus in buses:
            bus.startService()
            self.addCleanup(bus.stopService)
            self.assertIs(await bus.when_ready(), bus)
        subscription = await buses[0].subscribe("c")
        await buses[1].publish("c", 1)
        self.assertEqual(data_of(await read(subscription, 1)), [1])

    async def test_stopping_while_the_database_is_away(self) -> None:
        bus = open_bus("postgresql://nobody@127.0.0.1:1/nowhere")
        bus.startService()
        ready, joined, sent = bus.when_ready(), bus.subscribe("c"), bus.publish("c", 1)
        await bus.stopService()
        await self.assertFailure(ready, BusClosed)
        await self.assertFailure(joined, BusClosed)
        await self.assertFailure(sent, DatabaseError)


class _LatePool:
    """Answers LISTEN when the test says so."""

    running = False

    def __init__(self) -> None:
        self.answers: list[Deferred[Any]] = []

    def when_ready(self) -> Deferred[None]:
        return succeed(None)

    def listen(self, *_: Any, **__: Any) -> Deferred[Any]:
        self.answers.append(Deferred())
        return self.answers[-1]


class LateTest(SynchronousTestCase):
    def test_who_left_before_listening_failed_is_not_counted_twice(self) -> None:
        pool: Any = _LatePool()
        transport = PostgresTransport(pool)
        receiver: Any = object()
        transport.start(receiver, Clock())
        first = transport.join("c", False)
        transport.leave("c", False)
        pool.answers[0].errback(ConnectionLost("gone"))
        self.failureResultOf(first, ConnectionLost)
        second = transport.join("c", False)
        pool.answers[1].callback(object())
        self.assertIsNone(self.successResultOf(second))
