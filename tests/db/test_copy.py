"""COPY in and out against a real PostgreSQL: content, back-pressure, cancelling, errors, stopping."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from twisted.internet.defer import CancelledError, gatherResults

from cycloneish.db import copying, errors
from cycloneish.db.copying import CHUNK, HIGH_WATER
from cycloneish.db.postgres import Error, Pool, UniqueViolation

from .support import DatabaseTestCase, ask, busy_backends, sleep, until

MANY = "copy (select g, repeat('x', 1000) from generate_series(1, 100000) g) to stdout"


class CopyTestCase(DatabaseTestCase):
    def make_pool(self, dsn: Any = None, **options: Any) -> Pool:
        pool = super().make_pool(dsn, **options)
        self.addCleanup(lambda: self.assertEqual(busy_backends(self.dsn), 0))
        return pool

    async def quiet(self, pool: Pool) -> None:
        """Wait until no COPY is left, here and on the server."""
        assert pool._copier is not None
        copier = pool._copier
        await until(lambda: not copier.jobs and busy_backends(self.dsn) == 0)


class CopyOutTests(CopyTestCase):
    async def test_all_bytes_arrive_in_pieces_that_end_with_a_row(self) -> None:
        pool = self.make_pool()
        pieces = [piece async for piece in pool.copy_out(MANY)]
        self.assertTrue(all(piece.endswith(b"\n") and len(piece) < CHUNK + 2000 for piece in pieces))
        lines = b"".join(pieces).splitlines()
        self.assertEqual(len(lines), 100_000)
        self.assertEqual(lines[99_999], b"100000\t" + b"x" * 1000)

    async def test_values_are_bound(self) -> None:
        pool = self.make_pool()
        evil = "a'); drop table t; --"
        copy = pool.copy_out("copy (select %s::text) to stdout", (evil,))
        self.assertEqual(await copy.fetch(), evil.encode() + b"\n")
        self.assertEqual(await copy.fetch(), b"")
        self.assertEqual(await copy.fetch(), b"")

    async def test_the_server_waits_for_a_slow_reader(self) -> None:
        pool = self.make_pool()
        async with pool.copy_out(MANY) as copy:
            await copy.fetch()
            await until(lambda: copy._queued >= HIGH_WATER)
            await sleep(0.2)
            self.assertLess(copy._queued, HIGH_WATER + 2 * CHUNK)
            self.assertEqual(busy_backends(self.dsn), 1)
        await self.quiet(pool)

    async def test_leaving_the_block_early_ends_it(self) -> None:
        pool = self.make_pool()
        async with pool.copy_out(MANY) as copy:
            async for _ in copy:
                break
        await self.quiet(pool)
        self.assertEqual(await pool.fetch_value("select 1"), 1)

    async def test_cancelling_ends_it_on_the_server(self) -> None:
        pool = self.make_pool()
        copy = pool.copy_out("copy (select pg_sleep(30)) to stdout")
        fetching = copy.fetch()
        await until(lambda: busy_backends(self.dsn) == 1)
        fetching.cancel()
        await self.assertFailure(fetching, CancelledError)
        await self.quiet(pool)
        await self.assertFailure(copy.fetch(), CancelledError)

    async def test_a_piece_that_takes_too_long_ends_it(self) -> None:
        pool = self.make_pool()
        copy = pool.copy_out("copy (select pg_sleep(30)) to stdout", timeout=0.3)
        await self.assertFailure(copy.fetch(), errors.QueryTimeout)
        await self.quiet(pool)

    async def test_an_error_of_the_server_is_the_callers(self) -> None:
        pool = self.make_pool()
        with self.assertRaises(Error):
            await pool.copy_out("copy nothing_there to stdout").fetch()
        copy = pool.copy_out("copy (select 1 / (3 - g) from generate_series(1, 3) g) to stdout")
        with self.assertRaises(Error):
            async for _ in copy:
                pass
        await self.quiet(pool)

    async def test_a_backend_that_dies_is_a_lost_connection(self) -> None:
        pool = self.make_pool()
        copy = pool.copy_out("copy (select pg_sleep(30)) to stdout")
        fetching = copy.fetch()
        await until(lambda: busy_backends(self.dsn) == 1)
        ask(
            self.dsn,
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = current_database() and query like 'copy (%'",
        )
        await self.assertFailure(fetching, errors.ConnectionLost)

    async def test_only_so_many_at_a_time_and_the_wait_ends(self) -> None:
        pool = self.make_pool(max_copies=1, acquire_timeout=0.3)
        async with pool.copy_out(MANY) as first:
            await first.fetch()
            await self.assertFailure(pool.copy_out(MANY).fetch(), errors.PoolTimeout)
        self.assertEqual(await pool.copy_out("copy (select 1) to stdout").fetch(), b"1\n")

    async def test_one_that_nobody_reads_any_more_is_given_up(self) -> None:
        self.patch(copying, "IDLE_LIMIT", 0.3)
        pool = self.make_pool()
        copy = pool.copy_out(MANY)
        await copy.fetch()
        await self.quiet(pool)
        with self.assertRaises(errors.QueryTimeout):
            async for _ in copy:
                pass

    async def test_a_copy_never_begun_is_closed_at_once(self) -> None:
        async with self.make_pool().copy_out(MANY):
            pass

    async def test_stopping_breaks_off_what_does_not_end(self) -> None:
        pool = self.make_pool(stop_timeout=0.2)
        copy = pool.copy_out(MANY)
        await copy.fetch()
        await pool.stopService()
        with self.assertRaises(errors.PoolClosed):
            async for _ in copy:
                pass
        with self.assertRaises(errors.PoolClosed):
            pool.copy_out(MANY)


class CopyInTests(CopyTestCase):
    async def start(self, **options: Any) -> Pool:
        pool = self.make_pool(**options)
        await pool.execute("create table t (id int primary key, name text)")
        return pool

    async def test_rows_are_stored_when_the_block_is_left(self) -> None:
        pool = await self.start()
        async with pool.copy_in("copy t from stdin (format csv)") as rows:
            await rows.write("1,a")
            await rows.write(b"bc\n2,\xc3\xa4\n")
        self.assertEqual(rows.count, 2)
        self.assertEqual(await pool.fetch_all("select * from t order by id"), [(1, "abc"), (2, "ä")])

    async def test_iterators_of_both_kinds_are_fed(self) -> None:
        pool = await self.start()

        def plain() -> Iterator[str]:
            yield from (f"{number}\tname\n" for number in range(20_000))

        async def awaited() -> AsyncIterator[bytes]:
            for number in range(20_000, 20_010):
                await sleep(0)
                yield b"%d\tname\n" % number

        self.assertEqual(await pool.copy_in("copy t from stdin").feed(plain()), 20_000)
        self.assertEqual(await pool.copy_in("copy t from stdin").feed(awaited()), 10)
        self.assertEqual(await pool.copy_in("copy t from stdin").feed("30000\tx\n"), 1)
        self.assertEqual(await pool.copy_in("copy t from stdin").feed([]), 0)
        self.assertEqual(await pool.fetch_value("select count(*) from t"), 20_011)

    async def test_a_slow_server_holds_the_writer_back(self) -> None:
        pool = await self.start()
        await pool.execute(
            "create function slow() returns trigger language plpgsql as "
            "'begin perform pg_sleep(0.3); return new; end'; "
            "create trigger slow before insert on t for each row execute function slow()"
        )
        async with pool.copy_in("copy t from stdin") as rows:
            filling = rows.write(b"1\t" + b"x" * 4 * HIGH_WATER + b"\n2\t" + b"x" * 40 * HIGH_WATER + b"\n")
            self.assertFalse(filling.called)
            await filling
            self.assertLess(rows._queued, HIGH_WATER)
        self.assertEqual(rows.count, 2)
        self.assertEqual(await pool.fetch_value("select length(name) from t where id = 2"), 40 * HIGH_WATER)

    async def test_an_error_in_the_block_or_the_source_stores_nothing(self) -> None:
        pool = await self.start()
        with self.assertRaises(ZeroDivisionError):
            async with pool.copy_in("copy t from stdin") as rows:
                await rows.write("1\ta\n")
                raise ZeroDivisionError

        def broken() -> Iterator[str]:
            yield "2\tb\n"
            raise ZeroDivisionError

        with self.assertRaises(ZeroDivisionError):
            await pool.copy_in("copy t from stdin").feed(broken())
        await self.quiet(pool)
        self.assertEqual(await pool.fetch_value("select count(*) from t"), 0)

    async def test_cancelling_stores_nothing(self) -> None:
        pool = await self.start()

        async def endless() -> AsyncIterator[str]:
            yield "1\ta\n"
            await sleep(30)
            yield "2\tb\n"

        feeding = pool.copy_in("copy t from stdin").feed(endless())
        await until(lambda: busy_backends(self.dsn) == 1)
        feeding.cancel()
        await self.assertFailure(feeding, CancelledError)
        await self.quiet(pool)
        self.assertEqual(await pool.fetch_value("select count(*) from t"), 0)

    async def test_one_that_nobody_feeds_any_more_is_given_up(self) -> None:
        self.patch(copying, "IDLE_LIMIT", 0.3)
        pool = await self.start()
        copy = pool.copy_in("copy t from stdin")
        await copy.write("1\ta\n")
        await until(lambda: busy_backends(self.dsn) == 1)
        await self.quiet(pool)
        await self.assertFailure(copy.write("2\tb\n"), errors.QueryTimeout, Error)
        self.assertEqual(await pool.fetch_value("select count(*) from t"), 0)

    async def test_errors_of_the_server_are_the_callers(self) -> None:
        pool = await self.start()
        with self.assertRaises(UniqueViolation):
            await pool.copy_in("copy t from stdin").feed("1\ta\n1\tb\n")
        with self.assertRaises(Error):
            await pool.copy_in("copy t from stdin").feed("no number\ta\n")
        with self.assertRaises(Error):
            await pool.copy_in("copy nothing_there from stdin").feed("1\n" for _ in range(1_000_000))
        await self.quiet(pool)
        self.assertEqual(await pool.fetch_value("select count(*) from t"), 0)

    async def test_several_at_a_time_beside_queries(self) -> None:
        pool = await self.start(max_size=2)
        counts = await gatherResults(
            [
                pool.copy_in("copy t from stdin").feed(f"{number * 1000 + n}\tx\n" for n in range(1000))
                for number in range(8)
            ]
        )
        self.assertEqual(counts, [1000] * 8)
        self.assertEqual(await pool.fetch_value("select count(*) from t"), 8000)
