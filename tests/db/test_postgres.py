"""The pool against a real PostgreSQL: queries, transactions, limits, cancelling, loss of the server."""

from __future__ import annotations

import dataclasses
import math
import shutil
import signal
import socket
import tempfile
import uuid
from typing import Any, NamedTuple

from twisted.internet.defer import CancelledError, Deferred, DeferredList, ensureDeferred, gatherResults
from twisted.internet.defer import succeed as succeeded
from twisted.trial.unittest import SynchronousTestCase, TestCase

from cycloneish.coroutines import drive
from cycloneish.db import errors
from cycloneish.db.cluster import Cluster
from cycloneish.db.opening import connect_settings
from cycloneish.db.postgres import (
    CheckViolation,
    Error,
    Json,
    Pool,
    PoolStats,
    QueryCanceled,
    Transaction,
    UniqueViolation,
)

from .support import FAST, DatabaseTestCase, ask, busy_backends, kill, shared_server, sleep, until


@dataclasses.dataclass
class Article:
    id: int
    name: str


class Pair(NamedTuple):
    a: int
    b: str


class QueryTests(DatabaseTestCase):
    async def test_execute_gives_the_number_of_rows_changed(self) -> None:
        pool = self.make_pool()
        await pool.execute("create table t (id int primary key, name text)")
        self.assertEqual(await pool.execute("insert into t values (1, 'a'), (2, 'b')"), 2)
        self.assertEqual(await pool.execute("update t set name = %s where id > %s", ("c", 1)), 1)

    async def test_rows_come_as_tuples(self) -> None:
        pool = self.make_pool()
        self.assertEqual(
            await pool.fetch_all("select * from (values (1, 'x'), (2, 'y')) v"), [(1, "x"), (2, "y")]
        )
        self.assertEqual(await pool.fetch_one("select 1, 'x'"), (1, "x"))
        self.assertEqual(await pool.fetch_value("select 42"), 42)

    async def test_no_row_is_none(self) -> None:
        pool = self.make_pool()
        self.assertEqual(await pool.fetch_all("select 1 where false"), [])
        self.assertIsNone(await pool.fetch_one("select 1 where false"))
        self.assertIsNone(await pool.fetch_one("select 1 as id, 'x' as name where false", into=Article))
        self.assertIsNone(await pool.fetch_value("select 1 where false"))

    async def test_rows_become_the_objects_asked_for(self) -> None:
        pool = self.make_pool()
        found = await pool.fetch_all("select 'x' as name, 1 as id", into=Article)
        self.assertEqual(found, [Article(1, "x")])
        self.assertEqual(await pool.fetch_one("select 'y' as b, 2 as a", into=Pair), Pair(2, "y"))

    async def test_a_row_that_does_not_fit_fails_the_call_and_not_the_connection(self) -> None:
        pool = self.make_pool(max_size=1)
        with self.assertRaises(TypeError):
            await pool.fetch_all("select 1 as nonsense", into=Article)
        self.assertEqual(await pool.fetch_value("select 1"), 1)

    async def test_values_are_bound_and_not_formatted(self) -> None:
        pool = self.make_pool()
        evil = "'; drop table t; --%s\\"
        self.assertEqual(await pool.fetch_value("select %s", (evil,)), evil)
        self.assertEqual(await pool.fetch_value("select %(it)s || %(it)s", {"it": "a'"}), "a'a'")

    async def test_percent_signs_are_left_alone_without_parameters(self) -> None:
        pool = self.make_pool()
        self.assertEqual(await pool.fetch_value("select 'x' like '%'"), True)

    async def test_bytes_uuid_and_json_go_both_ways(self) -> None:
        pool = self.make_pool()
        key = uuid.uuid4()
        row = await pool.fetch_one(
            "select %s::bytea, %s::uuid, %s::jsonb, null::bytea", (b"\0\xff", key, Json({"a": [1]}))
        )
        self.assertEqual(row, (b"\0\xff", key, {"a": [1]}, None))
        self.assertIsInstance(row[0], bytes)

    async def test_an_error_of_the_server_is_the_callers_and_the_connection_stays(self) -> None:
        pool = self.make_pool(max_size=1)
        await pool.execute("create table t (id int primary key check (id > 0))")
        pid = await pool.fetch_value("select pg_backend_pid()")
        await pool.execute("insert into t values (1)")
        with self.assertRaises(UniqueViolation):
            await pool.execute("insert into t values (1)")
        with self.assertRaises(CheckViolation):
            await pool.execute("insert into t values (-1)")
        with self.assertRaises(Error):
            await pool.execute("selekt")
        self.assertEqual(await pool.fetch_value("select pg_backend_pid()"), pid)

    async def test_too_few_parameters_are_the_callers_error(self) -> None:
        pool = self.make_pool(max_size=1)
        with self.assertRaises((TypeError, IndexError)):
            await pool.execute("select %s, %s", (1,))
        with self.assertRaises(Error):
            await pool.execute("select %s", (object(),))
        self.assertEqual(await pool.fetch_value("select 1"), 1)

    async def test_a_transaction_begun_by_hand_does_not_leak_into_the_next_call(self) -> None:
        pool = self.make_pool(max_size=1)
        with self.assertLogs("cycloneish.db", "WARNING"):
            await pool.execute("begin; create table t (id int)")
            self.assertIsNone(await pool.fetch_value("select to_regclass('t')"))

    async def test_the_server_sees_who_we_are(self) -> None:
        pool = self.make_pool()
        self.assertEqual(await pool.fetch_value("show application_name"), "cycloneish")


class SizeTests(DatabaseTestCase):
    async def test_grows_on_demand_up_to_max_size_and_no_further(self) -> None:
        pool = self.make_pool(min_size=1, max_size=4)
        await pool.when_ready()
        await sleep(0.05)
        self.assertEqual(pool.stats().size, 1)
        results = await gatherResults([pool.fetch_value("select pg_sleep(0.05), 1") for _ in range(12)])
        self.assertEqual(len(results), 12)
        self.assertEqual(pool.stats(), PoolStats(size=4, idle=4, in_use=0, opening=0, waiting=0))

    async def test_min_size_connections_are_opened_at_the_start(self) -> None:
        pool = self.make_pool(min_size=3)
        await until(lambda: pool.stats().idle == 3)

    async def test_waiting_too_long_for_a_connection_says_what_is_going_on(self) -> None:
        pool = self.make_pool(max_size=1, acquire_timeout=0.2)
        await pool.execute("select 1")  # opening one may take longer than that
        slow = pool.execute("select pg_sleep(1)")
        late = [pool.execute("select 1") for _ in range(2)]
        for deferred in late:
            error = await self.assertFailure(deferred, errors.PoolTimeout)
            self.assertIn("1 of 1 in use", str(error))
        await slow

    async def test_a_call_that_waits_can_be_cancelled(self) -> None:
        pool = self.make_pool(max_size=1)
        slow = pool.execute("select pg_sleep(0.3)")
        waiting = pool.execute("select 1")
        await sleep(0.1)
        waiting.cancel()
        await self.assertFailure(waiting, CancelledError)
        self.assertEqual(pool.stats().waiting, 0)
        await slow
        self.assertEqual(await pool.fetch_value("select 1"), 1)

    async def test_first_come_first_served(self) -> None:
        pool = self.make_pool(max_size=1)
        order: list[int] = []
        await gatherResults([pool.fetch_value(f"select {n}").addCallback(order.append) for n in range(20)])
        self.assertEqual(order, list(range(20)))

    async def test_idle_connections_above_min_size_are_closed(self) -> None:
        pool = self.make_pool(min_size=1, max_size=4, idle_timeout=0.1)
        await gatherResults([pool.execute("select pg_sleep(0.05)") for _ in range(4)])
        self.assertEqual(pool.stats().size, 4)
        await until(lambda: pool.stats().size == 1)

    async def test_an_old_connection_is_replaced(self) -> None:
        pool = self.make_pool(max_size=1, max_lifetime=0.2)
        pid = await pool.fetch_value("select pg_backend_pid()")
        await sleep(0.3)
        await pool.fetch_value("select 1")
        self.assertNotEqual(await pool.fetch_value("select pg_backend_pid()"), pid)

    def test_sizes_that_make_no_sense_are_refused(self) -> None:
        for low, high in ((-1, 1), (2, 1), (0, 0)):
            with self.assertRaises(ValueError):
                Pool(self.dsn, min_size=low, max_size=high)


class TransactionTests(DatabaseTestCase):
    async def start(self, **options: Any) -> Pool:
        pool = self.make_pool(**options)
        await pool.execute("create table t (id int primary key deferrable initially deferred)")
        return pool

    async def test_leaving_the_block_commits(self) -> None:
        pool = await self.start()
        async with pool.transaction() as tx:
            await tx.execute("insert into t values (1)")
            self.assertEqual(await pool.fetch_value("select count(*) from t"), 0)
        self.assertEqual(await pool.fetch_value("select count(*) from t"), 1)
        self.assertEqual(pool.stats().in_use, 0)

    async def test_an_exception_rolls_back_and_goes_on(self) -> None:
        pool = await self.start(max_size=1)
        with self.assertRaises(ZeroDivisionError):
            async with pool.transaction() as tx:
                await tx.execute("insert into t values (1)")
                raise ZeroDivisionError
        self.assertEqual(await pool.fetch_value("select count(*) from t"), 0)

    async def test_isolation_and_read_only_reach_the_server(self) -> None:
        pool = self.make_pool()
        async with pool.transaction(isolation="serializable", read_only=True) as tx:
            self.assertEqual(await tx.fetch_value("show transaction_isolation"), "serializable")
            self.assertEqual(await tx.fetch_value("show transaction_read_only"), "on")
        with self.assertRaises(ValueError):
            pool.transaction(isolation="serializable; drop table t")

    async def test_a_swallowed_error_does_not_look_like_a_commit(self) -> None:
        pool = await self.start(max_size=1)
        with self.assertRaises(errors.TransactionRolledBack):
            async with pool.transaction() as tx:
                await tx.execute("insert into t values (1)")
                with self.assertRaises(Error):
                    await tx.execute("selekt")
        self.assertEqual(await pool.fetch_value("select count(*) from t"), 0)

    async def test_a_commit_that_fails_is_reported(self) -> None:
        pool = await self.start(max_size=1)
        await pool.execute("insert into t values (1)")
        with self.assertRaises(UniqueViolation):
            async with pool.transaction() as tx:
                await tx.execute("insert into t values (1)")
        self.assertEqual(await pool.fetch_value("select count(*) from t"), 1)

    async def test_statements_that_are_not_waited_for_run_in_order(self) -> None:
        pool = await self.start()
        async with pool.transaction() as tx:
            for number in range(10):
                _ = tx.execute("insert into t values (%s)", (number,))
            self.assertEqual(await tx.fetch_value("select count(*) from t"), 10)

    async def test_a_transaction_that_is_over_refuses_statements(self) -> None:
        pool = self.make_pool()
        async with pool.transaction() as tx:
            pass
        with self.assertRaises(RuntimeError):
            await tx.execute("select 1")
        with self.assertRaises(RuntimeError):
            await tx.commit()
        await tx.rollback()

    async def test_run_interaction_commits_what_the_function_did(self) -> None:
        pool = await self.start()

        async def work(tx: Transaction, first: int, *, second: int) -> str:
            await tx.execute("insert into t values (%s), (%s)", (first, second))
            return "done"

        self.assertEqual(await pool.run_interaction(work, 1, second=2), "done")
        self.assertEqual(await pool.run_interaction(lambda tx: tx.fetch_value("select count(*) from t")), 2)
        self.assertEqual(await pool.run_interaction(lambda tx: 7), 7)

    async def test_run_interaction_rolls_back_on_error(self) -> None:
        pool = await self.start(max_size=1)

        def work(tx: Transaction) -> None:
            tx.execute("insert into t values (1)")
            raise ZeroDivisionError

        await self.assertFailure(pool.run_interaction(work), ZeroDivisionError)
        self.assertEqual(await pool.fetch_value("select count(*) from t"), 0)

    async def test_cancelling_a_coroutine_rolls_its_transaction_back(self) -> None:
        pool = await self.start(max_size=1)

        async def work() -> None:
            async with pool.transaction() as tx:
                await tx.execute("insert into t values (1)")
                await tx.execute("select pg_sleep(30)")

        running = drive(work())
        await until(lambda: busy_backends(self.dsn) == 1)
        running.cancel()
        await self.assertFailure(running, CancelledError)
        self.assertEqual(await pool.fetch_value("select count(*) from t"), 0)
        self.assertEqual(busy_backends(self.dsn), 0)

    async def test_a_coroutine_thrown_away_gives_its_connection_back(self) -> None:
        pool = await self.start(max_size=1)
        hold: Deferred[None] = Deferred()

        async def work() -> None:
            async with pool.transaction() as tx:
                await tx.execute("insert into t values (1)")
                await hold

        coroutine = work()
        waits_for = coroutine.send(None)
        while waits_for is not hold:
            done: Deferred[None] = Deferred()
            waits_for.addBoth(lambda result, done=done: (done.callback(None), result)[1])
            await done
            waits_for = coroutine.send(None)
        coroutine.close()
        self.assertEqual(await pool.fetch_value("select count(*) from t"), 0)

    async def test_cancelling_while_it_waits_for_a_connection_takes_none(self) -> None:
        pool = await self.start(max_size=1)

        async def work() -> None:
            async with pool.transaction():
                self.fail("not reached")

        async with pool.transaction():
            waiting = drive(work())
            waiting.cancel()
            await self.assertFailure(waiting, CancelledError)
        self.assertEqual(await pool.fetch_value("select 1"), 1)

    async def test_begin_that_fails_gives_the_connection_back(self) -> None:
        pool = await self.start(max_size=1)
        broken = Transaction("begin nonsense", pool._lease, pool._release)
        await self.assertFailure(broken.begin(), Error)
        self.assertEqual(await pool.fetch_value("select 1"), 1)


class CancelTests(DatabaseTestCase):
    async def test_cancelling_stops_the_statement_on_the_server(self) -> None:
        pool = self.make_pool(max_size=1)
        pid = await pool.fetch_value("select pg_backend_pid()")
        slow = pool.execute("select pg_sleep(30)")
        await until(lambda: busy_backends(self.dsn) == 1)
        slow.cancel()
        await self.assertFailure(slow, CancelledError)
        self.assertEqual(await pool.fetch_value("select pg_backend_pid()"), pid)
        self.assertEqual(busy_backends(self.dsn), 0)

    async def test_many_cancels_leave_no_busy_backend_and_no_lost_slot(self) -> None:
        pool = self.make_pool(max_size=5)
        for _ in range(5):
            slow = [pool.execute("select pg_sleep(30)") for _ in range(20)]
            await until(lambda: pool.stats().in_use == 5)
            for deferred in slow:
                deferred.cancel()
                deferred.addErrback(lambda failure: failure.trap(CancelledError))
            await until(lambda: pool.stats().in_use == 0)
        self.assertEqual(pool.stats().waiting, 0)
        self.assertEqual(pool.stats().size, 5)
        self.assertEqual(busy_backends(self.dsn), 0)
        self.assertEqual(await gatherResults([pool.fetch_value("select 1") for _ in range(10)]), [1] * 10)

    async def test_the_statement_after_a_cancelled_one_is_never_hit(self) -> None:
        pool = self.make_pool(max_size=1)
        await pool.when_ready()
        for delay in (0, 0, 0, 0.001, 0.002, 0.003):
            quick = pool.execute(f"select pg_sleep({delay})")
            quick.addErrback(lambda failure: failure.trap(CancelledError))
            await sleep(delay)
            quick.cancel()
            self.assertEqual(await pool.fetch_value("select 1 from pg_sleep(0.005)"), 1)

    async def test_a_queued_statement_of_a_transaction_can_be_cancelled(self) -> None:
        pool = self.make_pool(max_size=1)
        await pool.execute("create table t (id int)")
        async with pool.transaction() as tx:
            first = tx.execute("select pg_sleep(0.05)")
            second = tx.execute("insert into t values (1)")
            second.cancel()
            await self.assertFailure(second, CancelledError)
            await first
            self.assertEqual(await tx.fetch_value("select count(*) from t"), 0)

    async def test_a_statement_that_takes_too_long_is_ended(self) -> None:
        pool = self.make_pool(max_size=1)
        error = await self.assertFailure(
            pool.execute("select pg_sleep(30)", timeout=0.1), errors.QueryTimeout
        )
        self.assertIn("pg_sleep", str(error))
        self.assertEqual(await pool.fetch_value("select 1"), 1)
        self.assertEqual(busy_backends(self.dsn), 0)

    async def test_the_pools_query_timeout_holds_for_statements_without_their_own(self) -> None:
        pool = self.make_pool(max_size=2, query_timeout=0.2)
        patient = pool.fetch_value("select 1 from pg_sleep(2.5)", timeout=math.inf)
        await self.assertFailure(pool.execute("select pg_sleep(30)"), errors.QueryTimeout)
        self.assertEqual(await patient, 1)

    async def test_the_servers_own_statement_timeout_is_no_cancellation(self) -> None:
        pool = self.make_pool(max_size=1)
        with self.assertRaises(QueryCanceled):
            async with pool.transaction() as tx:
                await tx.execute("set local statement_timeout = '50ms'")
                await tx.execute("select pg_sleep(30)")

    async def test_a_cancel_request_that_cannot_be_sent_costs_the_connection_and_nothing_else(self) -> None:
        pool = self.make_pool(max_size=1)
        await pool.when_ready()
        slow = pool.execute("select pg_sleep(30)")
        await until(lambda: busy_backends(self.dsn) == 1)
        settings, pool._settings = pool._settings, dict(pool._settings or {}, host="/nowhere")
        slow.cancel()
        await self.assertFailure(slow, CancelledError)
        await until(lambda: pool.stats().size == 0)
        pool._settings = settings
        self.assertEqual(await pool.fetch_value("select 1"), 1)

    async def test_cancelling_works_again_after_the_cancelling_connection_was_lost(self) -> None:
        pool = self.make_pool(max_size=1)
        for _ in range(2):
            slow = pool.execute("select pg_sleep(30)")
            await until(lambda: busy_backends(self.dsn) == 1)
            slow.cancel()
            await self.assertFailure(slow, CancelledError)
            await pool.execute("select 1")
            assert pool._canceller is not None
            ask(self.dsn, "select pg_terminate_backend(%s)", pool._canceller._connection.pid)
            await sleep(0.05)


class StopTests(DatabaseTestCase):
    async def test_stop_waits_for_work_in_flight_and_refuses_new_work(self) -> None:
        pool = self.make_pool(max_size=1)
        running = pool.fetch_value("select 1 from pg_sleep(0.2)")
        waiting = pool.fetch_value("select 2")
        stopped = pool.stopService()
        await self.assertFailure(pool.execute("select 1"), errors.PoolClosed)
        await self.assertFailure(pool.listen("c", print), errors.PoolClosed)
        await stopped
        self.assertEqual((await running, await waiting), (1, 2))
        self.assertEqual(pool.stats().size, 0)

    async def test_stop_waits_for_a_transaction(self) -> None:
        pool = self.make_pool()
        await pool.execute("create table t (id int)")
        async with pool.transaction() as tx:
            stopped = pool.stopService()
            await tx.execute("insert into t values (1)")
        await stopped
        self.assertEqual(ask(self.dsn, "select count(*) from t"), 1)

    async def test_stop_does_not_wait_for_ever(self) -> None:
        pool = self.make_pool(stop_timeout=0.2)
        running = pool.execute("select pg_sleep(30)")
        await until(lambda: busy_backends(self.dsn) == 1)
        await pool.stopService()
        await self.assertFailure(running, errors.ConnectionLost)

    async def test_a_pool_never_started_says_so(self) -> None:
        pool = Pool(self.dsn)
        error = await self.assertFailure(pool.execute("select 1"), errors.PoolClosed)
        self.assertIn("start the service", str(error))
        await pool.stopService()

    async def test_can_be_started_again(self) -> None:
        pool = self.make_pool()
        await pool.execute("select 1")
        await pool.stopService()
        pool.startService()
        pool.startService()
        self.assertEqual(await pool.fetch_value("select 1"), 1)

    async def test_stop_while_connecting(self) -> None:
        pool = self.make_pool()
        ready = pool.when_ready()
        await pool.stopService()
        await self.assertFailure(ready, errors.PoolClosed)


class PrepareTests(DatabaseTestCase):
    async def test_prepare_runs_before_anything_else(self) -> None:
        async def prepare(tx: Transaction) -> None:
            await sleep(0.05)
            await tx.execute("create table t (id int)")

        pool = self.make_pool(prepare=prepare, min_size=3)
        self.assertEqual(await pool.fetch_value("select count(*) from t"), 0)
        self.assertIs(await pool.when_ready(), pool)

    async def test_prepare_that_fails_makes_the_pool_say_so(self) -> None:
        def prepare(tx: Transaction) -> Deferred[int]:
            return tx.execute("create nonsense")

        with self.assertLogs("cycloneish.db", "ERROR"):
            pool = self.make_pool(prepare=prepare)
            await self.assertFailure(pool.execute("select 1"), Error)
        await self.assertFailure(pool.when_ready(), Error)
        await self.assertFailure(pool.execute("select 1"), Error)
        await self.assertFailure(pool.listen("c", print), Error)

    async def test_waiting_for_ready_can_be_given_up(self) -> None:
        pool = self.make_pool(prepare=lambda tx: sleep(0.2))
        ready = pool.when_ready()
        ready.cancel()
        await self.assertFailure(ready, CancelledError)


class RefusedTests(DatabaseTestCase):
    async def test_an_unknown_database_fails_at_once(self) -> None:
        with self.assertLogs("cycloneish.db", "WARNING"):
            pool = self.make_pool(self.dsn.replace("dbname=", "dbname=no_"))
            ready = pool.when_ready()
            error = await self.assertFailure(pool.execute("select 1"), errors.ConnectError)
        self.assertIn("no_test", str(error))
        await self.assertFailure(ready, errors.ConnectError)

    async def test_a_server_that_is_not_there_gives_a_timeout_with_the_reason(self) -> None:
        holder = socket.socket()
        holder.bind(("127.0.0.1", 0))
        self.addCleanup(holder.close)
        port = holder.getsockname()[1]
        with self.assertLogs("cycloneish.db", "WARNING") as logged:
            pool = self.make_pool(f"postgresql://a:secret@localhost:{port}/x", acquire_timeout=0.3)
            error = await self.assertFailure(pool.execute("select 1"), errors.PoolTimeout)
        self.assertIn("refused", str(error))
        self.assertNotIn("secret", str(error) + "".join(logged.output))

    async def test_a_server_that_does_not_answer_is_given_up(self) -> None:
        silent = socket.socket()
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        self.addCleanup(silent.close)
        with self.assertLogs("cycloneish.db", "WARNING"):
            pool = self.make_pool(
                f"postgresql://a@127.0.0.1:{silent.getsockname()[1]}/x",
                connect_timeout=0.1,
                acquire_timeout=0.4,
            )
            error = await self.assertFailure(pool.execute("select 1"), errors.PoolTimeout)
        self.assertIn("within 0.1 s", str(error))


class SettingsTests(SynchronousTestCase):
    def test_a_bad_url_is_refused_without_showing_it(self) -> None:
        with self.assertRaises(ValueError) as caught:
            connect_settings("postgresql://me:secret@host/x?nonsense=1")
        self.assertNotIn("secret", str(caught.exception))

    def test_given_settings_win_over_ours(self) -> None:
        found = connect_settings("postgresql://h/x?application_name=shop&keepalives_idle=5")
        self.assertEqual((found["application_name"], found["keepalives_idle"]), ("shop", "5"))


class LossTests(DatabaseTestCase):
    """Single connections that go away."""

    async def test_an_idle_connection_that_was_ended_is_not_handed_out(self) -> None:
        pool = self.make_pool(max_size=1)
        pid = await pool.fetch_value("select pg_backend_pid()")
        ask(self.dsn, "select pg_terminate_backend(%s)", pid)
        while ask(self.dsn, "select count(*) from pg_stat_activity where pid = %s", pid):
            pass
        # Asked before the reactor could see the end of the connection.
        self.assertNotEqual(await pool.fetch_value("select pg_backend_pid()"), pid)
        self.assertEqual(pool.stats().size, 1)

    async def test_an_idle_connection_that_was_ended_is_replaced_unasked(self) -> None:
        pool = self.make_pool(min_size=1)
        pid = await pool.fetch_value("select pg_backend_pid()")
        ask(self.dsn, "select pg_terminate_backend(%s)", pid)
        await until(lambda: pool.stats().size == 0 or next(iter(pool._all)).pid != pid)
        await until(lambda: pool.stats().idle == 1)

    async def test_a_query_in_flight_fails_clearly_and_the_next_one_works(self) -> None:
        pool = self.make_pool(max_size=1)
        pid = await pool.fetch_value("select pg_backend_pid()")
        running = pool.execute("select pg_sleep(30)")
        await sleep(0.05)
        ask(self.dsn, "select pg_terminate_backend(%s)", pid)
        error = await self.assertFailure(running, errors.ConnectionLost)
        self.assertIn("lost", str(error))
        self.assertEqual(await pool.fetch_value("select 1"), 1)

    async def test_a_transaction_is_never_carried_on_or_repeated(self) -> None:
        pool = self.make_pool(max_size=1)
        await pool.execute("create table t (id int)")
        with self.assertRaises(errors.ConnectionLost):
            async with pool.transaction() as tx:
                await tx.execute("insert into t values (1)")
                pid = await tx.fetch_value("select pg_backend_pid()")
                ask(self.dsn, "select pg_terminate_backend(%s)", pid)
                await self.assertFailure(tx.execute("insert into t values (2)"), errors.ConnectionLost)
                await self.assertFailure(tx.execute("insert into t values (3)"), errors.ConnectionLost)
        self.assertEqual(await pool.fetch_value("select count(*) from t"), 0)

    async def test_a_commit_without_an_answer_is_called_unknown(self) -> None:
        pool = self.make_pool(max_size=1)
        await pool.execute(
            "create table t (id int); create function slow() returns trigger language plpgsql as "
            "$$ begin perform pg_sleep(30); return null; end $$; "
            "create constraint trigger slow after insert on t deferrable initially deferred "
            "for each row execute function slow()"
        )
        tx = await pool.transaction().begin()
        await tx.execute("insert into t values (1)")
        pid = await tx.fetch_value("select pg_backend_pid()")
        commit = tx.commit()
        await until(lambda: busy_backends(self.dsn) == 1)
        commit.cancel()
        ask(self.dsn, "select pg_terminate_backend(%s)", pid)
        await self.assertFailure(commit, errors.CommitUnknown)
        self.assertEqual(await pool.fetch_value("select count(*) from t"), 0)


class RestartTests(TestCase):
    """The whole server goes away and comes back."""

    timeout = 120

    def setUp(self) -> None:
        directory = tempfile.mkdtemp(prefix="cycloneish-restart-")
        self.cluster = Cluster(directory, settings=FAST)
        self.dsn = self.cluster.start()
        self.pool = Pool(self.dsn, min_size=2, max_size=4, acquire_timeout=10)
        self.pool.startService()
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        self.addCleanup(self.cluster.stop)
        self.addCleanup(self.pool.stopService)

    async def test_killed_under_load_and_back_within_two_seconds(self) -> None:
        pool = self.pool
        await pool.execute("create table t (id serial)")
        acknowledged = 0
        for _ in range(2):
            acknowledged += await insert(pool, 20)
            slow: list[Deferred[int]] = [
                pool.execute("insert into t select from pg_sleep(20)") for _ in range(8)
            ]
            outcome = DeferredList(slow, consumeErrors=True)
            await until(lambda: busy_backends(self.dsn) == 4)
            kill(self.cluster, signal.SIGQUIT)
            # The four in flight fail; the four that waited try again when the server is there.
            await until(lambda slow=slow: sum(d.called for d in slow) >= 4)
            self.cluster.start()
            for deferred in slow:
                deferred.cancel()
            for good, failure in await outcome:
                self.assertFalse(good)
                self.assertIsInstance(failure.value, errors.ConnectionLost | CancelledError)
            started = reactor_seconds()
            self.assertEqual(await pool.fetch_value("select 1"), 1)
            self.assertLess(reactor_seconds() - started, 2.0)
        self.assertEqual(await pool.fetch_value("select count(*) from t"), acknowledged)

    async def test_a_call_made_while_the_server_is_down_is_answered_when_it_is_back(self) -> None:
        pool = self.pool
        await pool.when_ready()
        self.cluster.stop()
        waiting = pool.fetch_value("select 5")
        await sleep(0.3)
        self.assertFalse(waiting.called)
        self.cluster.start()
        self.assertEqual(await waiting, 5)

    async def test_sigkill_leaves_a_server_that_can_be_started_again(self) -> None:
        await self.pool.execute("create table kept (id int)")
        await self.pool.execute("checkpoint")
        before = list(self.pool._all)
        kill(self.cluster)
        self.cluster.start()
        # A dying process closes its sockets last.
        await until(lambda: all(connection.lost for connection in before))
        self.assertEqual(await self.pool.fetch_value("select count(*) from kept"), 0)


async def insert(pool: Pool, rows: int) -> int:
    for _ in range(rows):
        await pool.execute("insert into t default values")
    return rows


def reactor_seconds() -> float:
    from twisted.internet import reactor

    return float(reactor.seconds())  # type: ignore[attr-defined]


class SharedServerTests(TestCase):
    def test_the_shared_server_runs_once(self) -> None:
        self.assertIs(shared_server(), shared_server())

    async def test_ensure_deferred_works_as_well_as_our_driver(self) -> None:
        async def nothing() -> int:
            return await succeeded(3)

        self.assertEqual(await ensureDeferred(nothing()), 3)
