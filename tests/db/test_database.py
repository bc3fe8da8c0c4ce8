"""`Database` and its sessions: the same tests on PostgreSQL on the reactor and on SQLite in threads."""

from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import Any

from sqlalchemy import bindparam, delete, event, func, insert, literal_column, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError, MissingGreenlet, NoResultFound
from sqlalchemy.orm import joinedload, selectinload
from twisted.internet.defer import CancelledError, Deferred, gatherResults, inlineCallbacks
from twisted.trial.unittest import TestCase

from cycloneish.db import Database
from cycloneish.db.bridge import wait
from cycloneish.db.errors import PoolTimeout, QueryTimeout
from tests.db.models import Base, Post, Tag, User, ann
from tests.db.support import ask, busy_backends, fresh_url, sleep, until

here: ContextVar[str] = ContextVar("here", default="nowhere")


def deferred(method: Any) -> Any:
    """A test method that is ``async def``, for trial."""

    def test(self: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(method(self))

    test.__name__ = method.__name__
    return test


class DatabaseTests:
    """What every database does; mixed into a test case with ``make_url``."""

    db: Database

    def make_url(self) -> str:
        raise NotImplementedError

    def setUp(self) -> Deferred[Any]:
        self.url = self.make_url()
        self.db = self.make_database()
        return self.db.when_ready()

    def make_database(self, **options: Any) -> Database:
        db = Database(self.url, prepare=lambda db: db.create_all(Base.metadata), **options)
        db.startService()
        self.addCleanup(db.stopService)  # type: ignore[attr-defined]
        return db

    async def with_ann(self) -> int:
        async with self.db.begin() as session:
            user = ann()
            session.add(user)
        return user.id

    @deferred
    async def test_statements_and_their_results(self: Any) -> None:
        db = self.db
        table = User.__table__
        result = await db.execute(insert(table), [{"name": "ann"}, {"name": "bob"}])
        self.assertEqual(result.rowcount, 2)
        self.assertEqual(
            await db.fetch_all(select(User.id, User.name).order_by(User.id)), [(1, "ann"), (2, "bob")]
        )
        row = await db.fetch_one(select(User.id, User.name).where(User.name == "bob"))
        self.assertEqual((row.id, row.name), (2, "bob"))
        self.assertIsNone(await db.fetch_one(select(User.id).where(User.name == "eve")))
        self.assertIsNone(await db.fetch_value(select(User.id).where(User.name == "eve")))
        self.assertEqual(await db.fetch_value(select(func.count()).select_from(User)), 2)
        self.assertEqual(await db.fetch_values(select(User.name).order_by(User.name)), ["ann", "bob"])
        self.assertEqual(await db.fetch_value("select name from member where id = :id", {"id": 2}), "bob")
        self.assertEqual((await db.execute(update(User).values(name=User.name + "!"))).rowcount, 2)
        self.assertEqual((await db.execute(delete(User).where(User.id == 1))).rowcount, 1)
        result = await db.execute(insert(User).returning(User.id), {"name": "cyd"})
        self.assertEqual(result.scalar_one(), 3)

    @deferred
    async def test_mapped_objects_come_loaded_and_survive_their_session(self: Any) -> None:
        await self.with_ann()
        user = await self.db.fetch_value(select(User).options(selectinload(User.posts)))
        self.assertEqual((user.name, [post.title for post in user.posts]), ("ann", ["first", "second"]))
        result = await self.db.execute(select(User).options(joinedload(User.posts)))
        self.assertEqual(len(result.unique().scalars().one().posts), 2)
        post = await self.db.fetch_value(select(Post).order_by(Post.id))
        with self.assertRaises(Exception):  # noqa: B017 - detached, or no greenlet; both are SQLAlchemy's
            post.user  # noqa: B018

    @deferred
    async def test_a_session_is_a_unit_of_work(self: Any) -> None:
        ident = await self.with_ann()
        async with self.db.session() as session:
            user = await session.get(User, ident)
            self.assertIs(await session.get(User, ident), user)
            self.assertIs((await session.scalars(select(User))).one(), user)
            self.assertIn(user, session)
            posts = await session.load(user, "posts")
            self.assertEqual([post.title for post in posts], ["first", "second"])
            name, again = await session.load(user, "name", "posts")
            self.assertEqual((name, again), ("ann", posts))
            user.name = "anna"
            self.assertIn(user, session.dirty)
            await session.flush()
            self.assertEqual(await session.scalar(select(User.name)), "anna")
            await session.refresh(user)
            await session.delete(posts[0])
            await session.commit()
            self.assertIsNone(await session.get(User, 99))
            with self.assertRaises(NoResultFound):
                await session.get_one(User, 99)
        self.assertEqual(await self.db.fetch_values(select(Post.title)), ["second"])
        async with self.db.session() as session:
            merged = await session.merge(User(id=ident, name="annabel"))
            self.assertIn(merged, session)
            session.add_all([User(name="bob"), User(name="cyd")])
            await session.commit()
        self.assertEqual(
            await self.db.fetch_values(select(User.name).order_by(User.id)), ["annabel", "bob", "cyd"]
        )

    @deferred
    async def test_what_is_not_committed_is_rolled_back(self: Any) -> None:
        async with self.db.session() as session:
            session.add(User(name="ann"))
            await session.flush()
        with self.assertRaises(ZeroDivisionError):
            async with self.db.begin() as session:
                session.add(User(name="bob"))
                await session.flush()
                raise ZeroDivisionError
        with self.assertRaises(ZeroDivisionError):
            await self.db.run(lambda session: session.add(User(name="cyd")) or session.flush() or 1 / 0)
        self.assertEqual(await self.db.fetch_value(select(func.count()).select_from(User)), 0)

    @deferred
    async def test_savepoints(self: Any) -> None:
        await self.with_ann()
        async with self.db.begin() as session:
            with self.assertRaises(IntegrityError):
                async with session.begin_nested():
                    session.add(User(name="ann"))
                    await session.flush()
            async with session.begin_nested():
                session.add(User(name="bob"))
            savepoint = await session.begin_nested()
            session.add(User(name="cyd"))
            await session.flush()
            await savepoint.rollback()
        self.assertEqual(await self.db.fetch_values(select(User.name).order_by(User.id)), ["ann", "bob"])

    @deferred
    async def test_a_session_goes_on_after_an_error_and_a_rollback(self: Any) -> None:
        await self.with_ann()
        async with self.db.session() as session:
            session.add(User(name="ann"))
            with self.assertRaises(IntegrityError):
                await session.commit()
            await session.rollback()
            session.add(User(name="bob"))
            await session.commit()
        self.assertEqual(await self.db.fetch_value(select(func.count()).select_from(User)), 2)

    @deferred
    async def test_calls_of_one_session_go_one_after_the_other(self: Any) -> None:
        await self.with_ann()
        async with self.db.session() as session:
            calls = [session.scalar(select(func.count()).select_from(User)) for _ in range(5)]
            calls.append(session.run(lambda sync: sync.add(User(name="bob"))))
            calls.append(session.scalar(select(func.count()).select_from(User)))
            self.assertEqual(await gatherResults(calls), [1, 1, 1, 1, 1, None, 2])

    @deferred
    async def test_run_is_a_straight_line(self: Any) -> None:
        await self.with_ann()

        def rename(session: Any, name: str, *, suffix: str = "") -> list[str]:
            user = session.scalars(select(User)).one()
            user.name = name + suffix
            # Two lazy loads, one inside of the other.
            return [tag.word for post in user.posts for tag in post.tags]

        self.assertEqual(await self.db.run(rename, "anna", suffix="bel"), ["new"])
        self.assertEqual(await self.db.fetch_value(select(User.name)), "annabel")

    def test_inline_callbacks(self: Any) -> Any:
        @inlineCallbacks
        def test() -> Any:
            session = self.db.session()
            session.add(ann())
            yield session.commit()
            user = yield session.get(User, 1)
            titles = [post.title for post in (yield session.load(user, "posts"))]
            yield session.close()
            self.assertEqual(titles, ["first", "second"])

        return test()

    @deferred
    async def test_streams(self: Any) -> None:
        await self.db.execute(insert(Tag), [{"word": f"w{n:04}"} for n in range(1200)])
        words = [word async for (word,) in self.db.stream(select(Tag.word).order_by(Tag.id), batch=100)]
        self.assertEqual((len(words), words[0], words[-1]), (1200, "w0000", "w1199"))
        seen = 0
        async with self.db.stream(select(Tag).order_by(Tag.id), batch=7) as rows:
            async for (tag,) in rows:
                seen += 1
                self.assertEqual(tag.word, f"w{tag.id - 1:04}")
                if seen == 10:
                    break
        stream = self.db.stream("select id from tag where id <= :most order by id", {"most": 5}, batch=3)
        batches = []
        while rows := await stream.fetch():
            batches.append([ident for (ident,) in rows])
        self.assertEqual(batches, [[1, 2, 3], [4, 5]])
        self.assertEqual([row async for row in self.db.stream(select(Tag).where(Tag.id < 0))], [])

    @deferred
    async def test_a_stream_that_fails_says_so_and_gives_back(self: Any) -> None:
        stream = self.db.stream("select nonsense from nowhere")
        with self.assertRaises(Exception):  # noqa: B017 - the driver's own
            await stream.fetch()
        self.assertEqual(await stream.fetch(), [])
        self.assertEqual(await self.db.fetch_value("select 1"), 1)

    @deferred
    async def test_context_variables_are_kept(self: Any) -> None:
        here.set("the test")

        def work(session: Any) -> str:
            before = here.get()
            session.scalar(text("select 1"))
            return f"{before}, {here.get()}"

        self.assertEqual(await self.db.run(work), "the test, the test")
        self.assertEqual(here.get(), "the test")

    @deferred
    async def test_prepare_that_fails_is_told_to_whoever_waits(self: Any) -> None:
        def prepare(_: object) -> None:
            raise ZeroDivisionError

        db = Database(self.url, prepare=prepare)
        db.startService()
        with self.assertRaises(ZeroDivisionError):
            await db.when_ready()
        await db.stopService()


class PostgresTest(DatabaseTests, TestCase):
    timeout = 60

    def make_url(self) -> str:
        return fresh_url()

    def clean(self) -> None:
        """Fail where a connection was not given back, or a statement still runs."""
        stats = self.db.pool.stats()
        self.assertEqual((stats.in_use, stats.waiting), (0, 0))
        self.assertEqual(self.idle_in_transaction(), 0)

    def idle_in_transaction(self) -> int:
        sql = "select count(*) from pg_stat_activity where datname = current_database()"
        return int(ask(self.url, f"{sql} and state like 'idle in%'"))

    def test_no_thread_is_started(self) -> Deferred[Any]:
        def work(session: Any) -> tuple[int, str]:
            session.scalar(text("select 1"))
            return threading.get_ident(), session.get_bind().dialect.driver

        return self.db.run(work).addCallback(self.assertEqual, (threading.get_ident(), "txpostgres"))

    @deferred
    async def test_many_sessions_share_a_small_pool(self) -> None:
        db = self.make_database(max_size=3)
        await self.with_ann()

        def work(session: Any) -> list[str]:
            return [post.title for post in session.scalars(select(User)).one().posts]

        results = await gatherResults([db.run(work) for _ in range(50)])
        self.assertEqual(results, [["first", "second"]] * 50)
        self.assertLessEqual(db.pool.stats().size, 3)

    @deferred
    async def test_the_first_two_sessions_get_their_connections_in_one_turn(self) -> None:
        db = Database(self.url, min_size=2)
        db.startService()
        self.addCleanup(db.stopService)
        await db.when_ready()
        leases = await gatherResults([db.pool._lease() for _ in range(2)])
        both = gatherResults([db.run(lambda session: session.scalar(select(1))) for _ in range(3)])
        for connection in leases:
            db.pool._release(connection)
        self.assertEqual(await both, [1, 1, 1])

    @deferred
    async def test_lazy_loads_outside_of_the_session_say_what_to_do(self) -> None:
        await self.with_ann()
        async with self.db.session() as session:
            user = (await session.scalars(select(User))).one()
            with self.assertRaises(MissingGreenlet) as caught:
                user.posts  # noqa: B018
            self.assertIn("session.load", str(caught.exception))
            self.assertEqual(len(await session.load(user, "posts")), 2)

    @deferred
    async def test_cancelling_ends_the_statement_and_gives_back(self) -> None:
        for start in (
            lambda: self.db.execute("select pg_sleep(60)"),
            lambda: self.db.run(lambda session: session.execute(text("select pg_sleep(60)"))),
            lambda: self.db.run(lambda session: session.execute(select(User, func.pg_sleep(60)))),
            lambda: self.db.stream("select pg_sleep(60)").fetch(),
        ):
            await self.with_ann_once()
            running = start()
            await until(lambda: busy_backends(self.url) > 0)
            running.cancel()
            with self.assertRaises(CancelledError):
                await running
            self.clean()
            self.assertEqual(busy_backends(self.url), 0)

    async def with_ann_once(self) -> None:
        if not await self.db.fetch_value(select(func.count()).select_from(User)):
            await self.with_ann()

    @deferred
    async def test_a_session_can_be_used_after_a_cancelled_call(self) -> None:
        async with self.db.session() as session:
            session.add(User(name="ann"))
            await session.flush()
            running = session.execute(text("select pg_sleep(60)"))
            await until(lambda: busy_backends(self.url) > 0)
            running.cancel()
            with self.assertRaises(CancelledError):
                await running
            await session.rollback()
            session.add(User(name="bob"))
            await session.commit()
        self.assertEqual(await self.db.fetch_values(select(User.name)), ["bob"])
        self.clean()

    @deferred
    async def test_cancelling_a_call_that_waits_for_its_turn(self) -> None:
        async with self.db.session() as session:
            first = session.scalar(text("select pg_sleep(0.2)::text"))
            second = session.scalar(text("select 2"))
            third = session.scalar(text("select 3"))
            second.cancel()
            with self.assertRaises(CancelledError):
                await second
            self.assertEqual((await first, await third), ("", 3))

    @deferred
    async def test_cancelling_while_waiting_for_a_connection(self) -> None:
        db = await self.make_database(max_size=1).when_ready()
        async with db.session() as session:
            await session.execute(text("select 1"))
            waiting = db.run(lambda s: s.scalar(text("select 1")))
            waiting.cancel()
            with self.assertRaises(CancelledError):
                await waiting
        self.assertEqual(db.pool.stats().in_use, 0)
        self.assertEqual(await db.fetch_value("select 1"), 1)

    @deferred
    async def test_time_outs(self) -> None:
        with self.assertRaises(QueryTimeout):
            await self.db.execute("select pg_sleep(60)", timeout=0.1)
        with self.assertRaises(QueryTimeout):
            await self.db.run(lambda session: session.execute(text("select pg_sleep(60)")), timeout=0.1)
        self.clean()
        db = await self.make_database(max_size=1, acquire_timeout=0.1).when_ready()
        async with db.session() as session:
            await session.execute(text("select 1"))
            with self.assertRaises(PoolTimeout):
                await db.run(lambda s: s.scalar(text("select 1")))

    @deferred
    async def test_serialization_failures_are_retried_only_when_asked_for(self) -> None:
        await self.db.execute(insert(User), [{"id": 1, "name": "a"}])
        attempts: list[str] = []

        def conflicting(session: Any) -> None:
            user = session.get(User, 1)
            attempts.append(user.name)
            if len(attempts) == 1:
                # Somebody else changes it in the meantime, and is done first.
                wait(self.db.execute(update(User).values(name="b")))
            user.name += "!"

        with self.assertRaises(Exception) as caught:
            await self.db.run(conflicting, isolation="serializable")
        self.assertEqual(caught.exception.orig.pgcode, "40001")
        self.assertEqual(await self.db.fetch_value(select(User.name)), "b")
        attempts.clear()
        await self.db.run(conflicting, isolation="serializable", retries=2)
        self.assertEqual(attempts, ["b", "b"])
        self.assertEqual(await self.db.fetch_value(select(User.name)), "b!")

    @deferred
    async def test_isolation_and_read_only(self) -> None:
        async with self.db.session(isolation="repeatable read", read_only=True) as session:
            self.assertEqual(
                await session.scalar(text("show transaction isolation level")), "repeatable read"
            )
            with self.assertRaises(Exception) as caught:
                await session.execute(insert(User), [{"name": "ann"}])
            self.assertEqual(caught.exception.orig.pgcode, "25006")
        self.assertEqual(await self.db.fetch_value("show transaction isolation level"), "read committed")
        await self.db.execute(insert(User), [{"name": "ann"}])

    @deferred
    async def test_a_session_that_only_reads_opens_no_transaction(self) -> None:
        ident = await self.with_ann()
        opened = {
            "a plain query": select(User).where(User.id.in_([ident, 2])),
            "a function": select(func.now()),
            "a lock": select(User).with_for_update(),
            "text": text("select * from member"),
            "a change": update(User).values(name="bob"),
        }
        for what, statement in opened.items():
            async with self.db.session() as session:
                await session.execute(statement)
                self.assertEqual(self.idle_in_transaction(), int(what != "a plain query"), what)
        for options in ({"isolation": "repeatable read"}, {"read_only": True}):
            async with self.db.session(**options) as session:
                await session.execute(opened["a plain query"])
                self.assertEqual(self.idle_in_transaction(), 1)
        db = self.make_database(engine_options={"lazy_begin": False})
        async with db.session() as session:
            await session.execute(opened["a plain query"])
            self.assertEqual(self.idle_in_transaction(), 1)

    @deferred
    async def test_a_stream_without_a_transaction_leaves_no_cursor_behind(self) -> None:
        def work(connection: Any) -> list[int]:
            found = []
            for rows in (3, 80):
                query = f"select generate_series(1, {rows})"
                result = connection.execution_options(stream_results=True).execute(text(query))
                found.append(len(result.all()))
            found.append(connection.execute(text("select count(*) from pg_cursors")).scalar_one())
            return found

        autocommit = self.db.engine.execution_options(isolation_level="AUTOCOMMIT")

        def connected(_: object) -> list[int]:
            with autocommit.connect() as connection:
                return work(connection)

        # The last query streams as well, and sees its own cursor.
        self.assertEqual(await self.db.run_connection(connected), [3, 80, 1])

    @deferred
    async def test_the_short_way_gives_what_the_long_way_gives(self) -> None:
        table = User.__table__
        await self.db.execute(insert(table), [{"name": name} for name in ("ann", "bob", "cyd")])
        asked = []
        ask = self.db._backend.ask
        self.patch(self.db._backend, "ask", lambda *args: asked.append(ask(*args)) or asked[-1])
        by_id = select(table.c.id, table.c.name).where(table.c.id == bindparam("ident"))
        some = lambda: select(table.c.name).where(table.c.id.in_([1, 3])).order_by(table.c.id)  # noqa: E731
        rename = update(table).where(table.c.id == 2).values(name="bo")
        nonsense = select(literal_column("1 / 0"))
        for turn in range(3):
            result = await self.db.execute(by_id, {"ident": 2})
            self.assertTrue(result.returns_rows)
            self.assertEqual(result.rowcount, 1)
            row = result.one()
            self.assertEqual((row.id, row.name), (2, "bo" if turn else "bob"))
            self.assertEqual(row._mapping[table.c.name], row.name)
            self.assertEqual(await self.db.fetch_values(some()), ["ann", "cyd"])
            result = await self.db.execute(rename)
            self.assertEqual((result.rowcount, result.returns_rows), (1, False))
            self.assertIsNone(await self.db.fetch_one(by_id, {"ident": 9}))
            with self.assertRaises(DBAPIError) as caught:
                await self.db.execute(nonsense)
            self.assertEqual(caught.exception.orig.pgcode, "22012")
            if turn:
                # All but the statement that never succeeded.
                self.assertEqual([answer is None for answer in asked], [False] * 4 + [True])
            asked.clear()
        event.listen(self.db.engine, "before_cursor_execute", lambda *_: None)
        await self.db.execute(by_id, {"ident": 2})
        self.assertEqual(asked, [None], "somebody listens")

    @deferred
    async def test_stopping_waits_for_a_session(self) -> None:
        db = self.make_database()
        session = db.session()
        session.add(User(name="ann"))
        await session.flush()
        stopping = db.stopService()
        self.assertFalse(stopping.called)
        await session.commit()
        await session.close()
        await stopping
        self.assertEqual(await self.db.fetch_values(select(User.name)), ["ann"])


class SQLiteTest(DatabaseTests, TestCase):
    timeout = 60

    def make_url(self) -> str:
        return f"sqlite:///{self.mktemp()}"

    @deferred
    async def test_readers_go_on_beside_the_one_writer(self) -> None:
        self.assertEqual(await self.db.fetch_value("pragma journal_mode"), "wal")
        async with self.db.session() as writer:
            writer.add(User(name="ann"))
            await writer.flush()
            self.assertEqual(await self.db.fetch_value(select(func.count()).select_from(User)), 0)
            done: list[Any] = []
            second = self.db.execute(insert(User), [{"name": "bob"}]).addCallback(done.append)
            await sleep(0.05)
            self.assertEqual(done, [])
            await writer.commit()
            await second
        self.assertEqual(await self.db.fetch_value(select(func.count()).select_from(User)), 2)

    @deferred
    async def test_many_writers_none_lost(self) -> None:
        await self.db.execute(insert(User), [{"id": 1, "name": ""}])

        def append(session: Any) -> None:
            session.get(User, 1).name += "x"

        await gatherResults([self.db.run(append) for _ in range(40)])
        self.assertEqual(await self.db.fetch_value(select(User.name)), "x" * 40)

    @deferred
    async def test_a_place_that_does_not_become_free(self) -> None:
        db = self.make_database(acquire_timeout=0.1)
        await db.when_ready()
        async with db.session() as writer:
            writer.add(User(name="ann"))
            await writer.flush()
            with self.assertRaises(PoolTimeout):
                await db.execute(insert(User), [{"name": "bob"}])

    @deferred
    async def test_in_memory(self) -> None:
        db = Database("sqlite://", prepare=lambda db: db.create_all(Base.metadata))
        db.startService()
        await db.execute(insert(User), [{"name": "ann"}])
        self.assertEqual(await db.fetch_values(select(User.name)), ["ann"])
        await db.stopService()
