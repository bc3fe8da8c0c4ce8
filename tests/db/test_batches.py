"""Many rows: read batch by batch, written with few statements; savepoints; named rows; counters."""

from __future__ import annotations

import dataclasses
from typing import Any

from twisted.internet.defer import CancelledError, ensureDeferred, gatherResults
from twisted.trial.unittest import SynchronousTestCase

from cycloneish.db import errors
from cycloneish.db.many import batches_of, split_values
from cycloneish.db.postgres import Error, Pool, UniqueViolation, named

from .support import DatabaseTestCase, busy_backends, until


@dataclasses.dataclass
class Number:
    n: int


SERIES = "select n from generate_series(1, %s) n -- a comment"


class StreamTests(DatabaseTestCase):
    async def test_rows_come_in_batches_and_the_connection_goes_back(self) -> None:
        pool = self.make_pool(max_size=1)
        async with pool.stream(SERIES, (1050,), batch=500) as batches:
            found = [rows async for rows in batches]
        self.assertEqual([len(rows) for rows in found], [500, 500, 50])
        self.assertEqual([row[0] for rows in found for row in rows], list(range(1, 1051)))
        self.assertEqual(pool.stats().in_use, 0)
        self.assertEqual(await pool.fetch_value("select 1"), 1)

    async def test_a_multiple_of_the_batch_and_no_rows_at_all(self) -> None:
        pool = self.make_pool(max_size=1)
        self.assertEqual([len(rows) async for rows in pool.stream(SERIES, (10,), batch=5)], [5, 5])
        self.assertEqual([len(rows) async for rows in pool.stream(SERIES, (0,))], [])
        self.assertEqual(pool.stats().in_use, 0)

    async def test_rows_as_objects_and_without_parameters(self) -> None:
        pool = self.make_pool()
        batches = pool.stream("select 1 as n where 'x' like '%';", into=Number)
        self.assertEqual(await batches.fetch(), [Number(1)])
        self.assertEqual(await batches.fetch(), [])

    async def test_the_server_makes_a_batch_only_when_it_is_asked_for(self) -> None:
        pool = self.make_pool()
        await pool.execute("create sequence s")
        async with pool.stream("select nextval('s') from generate_series(1, 1000)", batch=10) as batches:
            await batches.fetch()
            self.assertEqual(await pool.fetch_value("select last_value from s"), 10)
            await batches.fetch()
            self.assertEqual(await pool.fetch_value("select last_value from s"), 20)

    async def test_leaving_early_gives_the_connection_back(self) -> None:
        pool = self.make_pool(max_size=1)
        with self.assertRaises(ZeroDivisionError):
            async with pool.stream(SERIES, (100_000,)) as batches:
                async for _ in batches:
                    raise ZeroDivisionError
        self.assertEqual(await pool.fetch_value("select 1"), 1)
        async with pool.stream(SERIES, (100_000,)):
            pass
        self.assertEqual(pool.stats().in_use, 0)

    async def test_a_loop_left_without_a_block_gives_the_connection_back_too(self) -> None:
        pool = self.make_pool(max_size=1)
        async for _ in pool.stream(SERIES, (100_000,)):
            break
        self.assertEqual(await pool.fetch_value("select 1"), 1)

    async def test_cancelling_stops_the_query(self) -> None:
        pool = self.make_pool(max_size=1)
        batches = pool.stream("select pg_sleep(30)")
        fetching = batches.fetch()
        await until(lambda: busy_backends(self.dsn) == 1)
        fetching.cancel()
        await self.assertFailure(fetching, CancelledError)
        self.assertEqual(await pool.fetch_value("select 1"), 1)
        self.assertEqual(await batches.fetch(), [])

    async def test_errors_at_the_beginning_and_on_the_way(self) -> None:
        pool = self.make_pool(max_size=1)
        with self.assertRaises(Error):
            await pool.stream("selekt").fetch()
        batches = pool.stream("select 1 / (20 - n) from generate_series(1, 30) n", batch=10)
        self.assertEqual(len(await batches.fetch()), 10)
        with self.assertRaises(Error):
            await batches.fetch()
        self.assertEqual(await pool.fetch_value("select 1"), 1)
        with self.assertRaises(ValueError):
            pool.stream("select 1", batch=0)

    async def test_in_a_transaction_it_sees_what_that_did(self) -> None:
        pool = self.make_pool(max_size=1)
        async with pool.transaction() as tx:
            await tx.execute("create table t (n int); insert into t select generate_series(1, 30)")
            async with (
                tx.stream("select n from t", batch=20) as first,
                tx.stream("select n from t") as second,
            ):
                self.assertEqual(len(await first.fetch()), 20)
                self.assertEqual(len(await second.fetch()), 30)
            await tx.execute("insert into t values (31)")
        self.assertEqual(await pool.fetch_value("select count(*) from t"), 31)


class ExecuteManyTests(DatabaseTestCase):
    async def start(self) -> Pool:
        pool = self.make_pool(max_size=1)
        await pool.execute("create table t (id int primary key, name text)")
        return pool

    async def test_an_insert_stores_all_rows(self) -> None:
        pool = await self.start()
        rows = ((number, f"it's % {number}") for number in range(1234))
        self.assertEqual(await pool.execute_many("insert into t (id, name) values (%s, %s)", rows), 1234)
        self.assertEqual(await pool.fetch_value("select count(*) from t"), 1234)
        self.assertEqual(await pool.fetch_value("select name from t where id = 7"), "it's % 7")

    async def test_mappings_and_what_follows_the_values(self) -> None:
        pool = await self.start()
        insert = "insert into t values (%(id)s, upper(%(name)s))"
        sql = f"{insert} on conflict (id) do update set name = excluded.name"
        rows = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
        self.assertEqual(await pool.execute_many(sql, rows), 2)
        self.assertEqual(await pool.execute_many(sql, [{"id": 2, "name": "c"}]), 1)
        self.assertEqual(await pool.fetch_all("select * from t order by id"), [(1, "A"), (2, "C")])

    async def test_other_statements_are_run_for_each_row(self) -> None:
        pool = await self.start()
        await pool.execute("insert into t select generate_series(1, 5), 'x'")
        await pool.execute_many(
            "update t set name = %s where id = %s; -- end", [("a", 1), ("b", 2), ("c", 9)]
        )
        self.assertEqual(
            await pool.fetch_all("select id, name from t order by id"),
            [(1, "a"), (2, "b"), (3, "x"), (4, "x"), (5, "x")],
        )

    async def test_all_rows_or_none(self) -> None:
        pool = await self.start()
        rows = [(number % 900, "x") for number in range(1000)]
        with self.assertRaises(UniqueViolation):
            await pool.execute_many("insert into t values (%s, %s)", rows)
        with self.assertRaises(Error):
            await pool.execute_many("insert into t values (%s, %s)", [(1, object())])
        with self.assertRaises((TypeError, IndexError)):
            await pool.execute_many("insert into t values (%s, %s)", [(1,)])
        self.assertEqual(await pool.fetch_value("select count(*) from t"), 0)
        self.assertEqual(await pool.execute_many("insert into t values (%s, %s)", []), 0)

    async def test_in_a_transaction(self) -> None:
        pool = await self.start()
        async with pool.transaction() as tx:
            await tx.execute_many("insert into t values (%s, %s)", [(1, "a"), (2, "b")], batch=1)
        self.assertEqual(await pool.fetch_value("select count(*) from t"), 2)
        with self.assertRaises(RuntimeError):
            await tx.execute_many("insert into t values (%s, %s)", [(3, "c")])


class SplitTests(SynchronousTestCase):
    def test_the_group_behind_values_is_found(self) -> None:
        self.assertEqual(
            split_values("insert into t (a) values (f(%s), '%%)', %s) returning a"),
            ("insert into t (a) values ", "(f(%s), '%%)', %s)", " returning a"),
        )
        self.assertEqual(
            split_values("with x as (values (1)) insert into t /* values (*/ VALUES (%(a)s)"),
            ("with x as (values (1)) insert into t /* values (*/ VALUES ", "(%(a)s)", ""),
        )
        self.assertEqual(
            split_values("insert into \"values (\" values ($$)$$, e'\\')', %s)"),
            ('insert into "values (" values ', "($$)$$, e'\\')', %s)", ""),
        )

    def test_what_cannot_be_split_is_left_whole(self) -> None:
        for sql in (
            "update t set a = %s",
            "insert into t values (%s), (%s)",
            "insert into t values (%s) on conflict (a) do update set a = %s",
            "insert into t select * from (values (%s)) v",
            "insert into t default values",
        ):
            self.assertIsNone(split_values(sql), sql)

    def test_a_message_is_sent_when_it_is_long(self) -> None:
        found = list(
            batches_of("insert into t values (%s)", ["x" * 600_000] * 3, 10, lambda _, row: row.encode())
        )
        self.assertEqual([len(message) for message in found], [1_200_022, 600_021])


class SavepointTests(DatabaseTestCase):
    async def test_what_fails_in_it_is_undone_alone(self) -> None:
        pool = self.make_pool(max_size=1)
        await pool.execute("create table t (id int primary key)")
        async with pool.transaction() as tx:
            await tx.execute("insert into t values (1)")
            with self.assertRaises(UniqueViolation):
                async with tx.savepoint():
                    await tx.execute("insert into t values (2)")
                    await tx.execute("insert into t values (1)")
            async with tx.savepoint():
                await tx.execute("insert into t values (3)")
                with self.assertRaises(ZeroDivisionError):
                    async with tx.savepoint():
                        await tx.execute("insert into t values (4)")
                        raise ZeroDivisionError
        self.assertEqual(await pool.fetch_all("select id from t order by id"), [(1,), (3,)])

    async def test_a_cancelled_statement_in_it(self) -> None:
        pool = self.make_pool(max_size=1)
        async with pool.transaction() as tx:
            with self.assertRaises(errors.QueryTimeout):
                async with tx.savepoint():
                    await tx.execute("select pg_sleep(30)", timeout=0.05)
            self.assertEqual(await tx.fetch_value("select 1"), 1)

    async def test_on_a_lost_connection_the_error_is_that_of_the_loss(self) -> None:
        pool = self.make_pool(max_size=1)
        with self.assertRaises(errors.ConnectionLost):
            async with pool.transaction() as tx, tx.savepoint():
                await tx.execute("select pg_terminate_backend(pg_backend_pid())")
        self.assertEqual(await pool.fetch_value("select 1"), 1)

    async def test_cancelling_the_coroutine_around_it(self) -> None:
        pool = self.make_pool(max_size=1)

        async def work() -> None:
            async with pool.transaction() as tx, tx.savepoint():
                await tx.execute("select pg_sleep(30)")

        working = ensureDeferred(work())
        await until(lambda: busy_backends(self.dsn) == 1)
        working.cancel()
        await self.assertFailure(working, CancelledError)
        self.assertEqual(await pool.fetch_value("select 1"), 1)


class RowTests(DatabaseTestCase):
    async def test_named_rows(self) -> None:
        pool = self.make_pool()
        row: Any = await pool.fetch_one("select 1 as id, 'x' as name, 2", into=named)
        self.assertEqual((row.id, row.name, row[2]), (1, "x", 2))
        rows: list[Any] = await pool.fetch_all("select n from generate_series(1, 3) n", into=named)
        self.assertEqual([found.n for found in rows], [1, 2, 3])
        self.assertEqual(named(a=1), (1,))

    async def test_rows_as_dictionaries(self) -> None:
        pool = self.make_pool()
        self.assertEqual(await pool.fetch_one("select 1 as id", into=dict), {"id": 1})


class CounterTests(DatabaseTestCase):
    async def test_waits_connections_and_losses_are_counted(self) -> None:
        pool = self.make_pool(max_size=1, acquire_timeout=0.3)
        await pool.when_ready()
        before = pool.stats().waits
        await gatherResults([pool.execute("select pg_sleep(0.05)") for _ in range(3)])
        stats = pool.stats()
        self.assertEqual((stats.waits - before, stats.opened, stats.lost, stats.timeouts), (2, 1, 0, 0))
        self.assertGreater(stats.longest_wait, 0.09)
        self.assertGreater(stats.wait_seconds, 0.14)
        slow = pool.execute("select pg_sleep(0.6)")
        await self.assertFailure(pool.execute("select 1"), errors.PoolTimeout)
        await slow
        self.assertEqual(pool.stats().timeouts, 1)
        with self.assertRaises(errors.ConnectionLost):
            await pool.execute("select pg_terminate_backend(pg_backend_pid())")
        self.assertEqual(pool.stats().lost, 1)
