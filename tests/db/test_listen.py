"""LISTEN and NOTIFY: at once on an idle connection, across a reconnect, and out of the way after close."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, gatherResults
from twisted.trial.unittest import SynchronousTestCase

from cycloneish.db import errors, listen
from cycloneish.db.listen import quote_identifier

from .support import DatabaseTestCase, ask, sleep, until


class ListenTests(DatabaseTestCase):
    async def test_a_notification_arrives_at_once_on_an_idle_connection(self) -> None:
        pool = self.make_pool()
        heard: list[str] = []
        await pool.listen("news", heard.append)
        await sleep(0.1)
        # Sent from outside, so that nothing of ours wakes the reactor.
        ask(self.dsn, "select pg_notify('news', 'first')")
        await until(lambda: heard == ["first"], seconds=0.5)

    async def test_every_subscriber_hears_it_in_order(self) -> None:
        pool = self.make_pool()
        one: list[str] = []
        two: list[str] = []
        await gatherResults([pool.listen("c", one.append), pool.listen("c", two.append)])
        third: list[str] = []
        await pool.listen("c", third.append)
        for number in range(20):
            await pool.notify("c", str(number))
        await until(lambda: len(third) == 20)
        self.assertEqual(one, [str(number) for number in range(20)])
        self.assertEqual(two, one)

    async def test_channel_names_are_quoted(self) -> None:
        pool = self.make_pool()
        heard: list[str] = []
        name = 'Odd "name"; drop table x --'
        await pool.listen(name, heard.append)
        await pool.notify(name, "ü")
        await until(lambda: heard == ["ü"])

    async def test_in_a_transaction_it_goes_out_with_the_commit(self) -> None:
        pool = self.make_pool()
        heard: list[str] = []
        await pool.listen("c", heard.append)
        async with pool.transaction() as tx:
            await tx.notify("c", "x")
            await sleep(0.1)
            self.assertEqual(heard, [])
        await until(lambda: heard == ["x"])

    async def test_a_closed_subscription_hears_nothing_and_the_others_go_on(self) -> None:
        pool = self.make_pool()
        one: list[str] = []
        two: list[str] = []
        first = await pool.listen("c", one.append)
        second = await pool.listen("c", two.append)
        await first.close()
        await first.close()
        await pool.notify("c", "x")
        await until(lambda: two == ["x"])
        self.assertEqual(one, [])
        await second.close()
        self.assertEqual(
            await pool._listener._connection.run(  # type: ignore[union-attr]
                "select count(*) from pg_listening_channels()", None, lambda c: c.fetchone()[0]
            ),
            0,
        )

    async def test_a_callback_that_fails_is_logged_and_does_no_harm(self) -> None:
        pool = self.make_pool()
        heard: list[str] = []

        def bad(payload: str) -> None:
            raise ZeroDivisionError(payload)

        def late(payload: str) -> Deferred[Any]:
            return fail(ValueError(payload))

        await pool.listen("c", bad)
        await pool.listen("c", late)
        await pool.listen("c", heard.append)
        with self.assertLogs("cycloneish.db", "ERROR") as logged:
            await pool.notify("c", "x")
            await until(lambda: heard == ["x"])
        self.assertEqual(len(logged.records), 2)

    async def test_survives_the_loss_of_its_connection_and_reports_the_gap(self) -> None:
        pool = self.make_pool()
        heard: list[str] = []
        gaps: list[int] = []
        await pool.listen("c", heard.append, on_gap=lambda: gaps.append(1))
        with self.assertLogs("cycloneish.db", "WARNING"):
            ask(self.dsn, "select pg_terminate_backend(%s)", pool._listener._connection.pid)  # type: ignore[union-attr]
            await until(lambda: gaps == [1])
        ask(self.dsn, "select pg_notify('c', 'again')")
        await until(lambda: heard == ["again"])

    async def test_subscribing_while_the_connection_is_being_made(self) -> None:
        pool = self.make_pool()
        heard: list[str] = []
        await pool.when_ready()
        first = pool.listen("a", heard.append)
        await until(lambda: pool._listener._connecting is not None)  # type: ignore[union-attr]
        await gatherResults([first, pool.listen("b", heard.append)])
        await pool.notify("a", "1")
        await pool.notify("b", "2")
        await until(lambda: heard == ["1", "2"])

    async def test_subscribing_can_be_cancelled(self) -> None:
        pool = self.make_pool()
        heard: list[str] = []
        waiting = pool.listen("a", heard.append)
        waiting.cancel()
        await self.assertFailure(waiting, CancelledError)
        await pool.listen("b", heard.append)
        await pool.notify("a", "1")
        await pool.notify("b", "2")
        await until(lambda: heard == ["2"])

    async def test_a_dead_network_path_is_found_out(self) -> None:
        self.patch(listen, "PING_INTERVAL", 0.05)
        self.patch(listen, "_PING_TIMEOUT", 0.2)
        pool = self.make_pool()
        gaps: list[int] = []
        subscription = await pool.listen("c", lambda _: None, on_gap=lambda: gaps.append(1))
        await sleep(0.15)
        self.assertEqual(gaps, [])
        connection = pool._listener._connection  # type: ignore[union-attr]
        with self.assertLogs("cycloneish.db", "WARNING"):
            # The server answers nothing more for a while.
            connection.run("select pg_sleep(5)", None, lambda _: None).addErrback(lambda _: None)  # type: ignore[union-attr]
            await until(lambda: gaps == [1])
        await subscription.close()
        # Without subscribers the connection is not kept.
        await until(lambda: pool._listener._connection is None)  # type: ignore[union-attr]

    async def test_waiting_for_the_confirmation_ends(self) -> None:
        pool = self.make_pool(acquire_timeout=0.2)
        await pool.when_ready()
        pool._listener._connect = lambda: Deferred()  # type: ignore[union-attr]
        await self.assertFailure(pool.listen("c", print), errors.PoolTimeout)

    async def test_a_connection_lost_before_the_confirmation_is_made_anew(self) -> None:
        pool = self.make_pool()
        heard: list[str] = []
        await pool.listen("a", heard.append)
        with self.assertLogs("cycloneish.db", "WARNING"):
            waiting = pool.listen("b", heard.append)
            pool._listener._connection.abort("pulled")  # type: ignore[union-attr]
            await waiting
        await pool.notify("a", "1")
        await pool.notify("b", "2")
        await until(lambda: heard == ["1", "2"])

    async def test_subscribing_goes_on_when_connecting_fails_at_first(self) -> None:
        pool = self.make_pool()
        await pool.when_ready()
        listener = pool._listener
        assert listener is not None
        connect, attempts = listener._connect, []

        def fails_twice() -> Deferred[Any]:
            attempts.append(1)
            return fail(errors.ConnectionLost("away")) if len(attempts) < 3 else connect()

        listener._connect = fails_twice
        heard: list[str] = []
        await pool.listen("c", heard.append)
        self.assertEqual(len(attempts), 3)

    async def test_a_server_that_refuses_us_fails_the_subscription(self) -> None:
        pool = self.make_pool()
        await pool.when_ready()
        pool._listener._connect = lambda: fail(errors.ConnectError("no"))  # type: ignore[union-attr]
        await self.assertFailure(pool.listen("c", print), errors.ConnectError)

    async def test_unlistening_on_a_connection_just_lost_is_no_error(self) -> None:
        pool = self.make_pool()
        subscription = await pool.listen("c", print)
        listener = pool._listener
        assert listener is not None
        assert listener._connection is not None
        closing = subscription.close()
        listener._connection.abort("pulled")
        await closing

    async def test_stopping_while_the_listening_connection_is_made(self) -> None:
        pool = self.make_pool()
        await pool.when_ready()
        waiting = pool.listen("c", print)
        await pool.stopService()
        await self.assertFailure(waiting, errors.PoolClosed)

    async def test_stopping_fails_who_still_waits(self) -> None:
        pool = self.make_pool(self.dsn.replace("dbname=", "dbname=no_"))
        waiting = pool.listen("c", print)
        await pool.stopService()
        await self.assertFailure(waiting, errors.PoolClosed)


class QuoteTests(SynchronousTestCase):
    def test_names_that_postgresql_would_cut_or_refuse(self) -> None:
        for bad in ("", "a\0b", "x" * 64, "ü" * 32):
            with self.assertRaises(ValueError):
                quote_identifier(bad)
        self.assertEqual(quote_identifier('a"b'), '"a""b"')
