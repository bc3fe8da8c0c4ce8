"""`self.db`: one session for a request, given back however the request ends."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from sqlalchemy import func, insert, select, text
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.trial.unittest import SynchronousTestCase, TestCase

from cycloneish.db import Database, Session
from cycloneish.service.web import WebService, _service_of
from cycloneish.web import Application, Finish, HTTPError, RequestHandler
from tests.db.models import Base, User
from tests.db.support import busy_backends, fresh_url, until
from tests.db.test_database import deferred
from tests.programs import environment
from tests.web.fake import Logs, fetch
from tests.web.live import Client


class Names(RequestHandler):
    """Reads and writes with its session."""

    async def get(self) -> None:
        assert isinstance(self.db, Session)
        assert self.db is self.db
        self.write({"names": list((await self.db.scalars(select(User.name).order_by(User.id))).all())})

    async def post(self) -> None:
        self.db.add(User(name=self.get_argument("name")))
        how = self.get_argument("how", "commit")
        if how == "commit":
            await self.db.commit()
            self.redirect("/")
            return
        await self.db.flush()
        if how == "error":
            raise HTTPError(409)
        if how == "finish":
            raise Finish("not kept")


class Slow(RequestHandler):
    """Waits in the database until the client has had enough."""

    cancel_on_disconnect = True

    async def get(self) -> None:
        self.db.add(User(name="slow"))
        await self.db.flush()
        await self.db.execute(text("select pg_sleep(60)"))


class Silent(RequestHandler):
    """Takes a connection and answers nothing until the client is gone."""

    _auto_finish = False

    def get(self) -> Deferred[Any]:
        return self.db.execute(text("select 1"))  # type: ignore[no-any-return]


class Own(RequestHandler):
    """Has a ``db`` that has nothing to do with the setting."""

    def initialize(self, db: str) -> None:
        self.db = db

    def get(self) -> None:
        self.write(self.db)


class HandlerSessionTest(TestCase):
    timeout = 60

    def setUp(self) -> Deferred[Any]:
        self.url = fresh_url()
        self.db = Database(self.url, prepare=lambda db: db.create_all(Base.metadata))
        handlers = [("/", Names), ("/slow", Slow), ("/silent", Silent), ("/own", Own, {"db": "mine"})]
        self.service = WebService(
            Application(handlers, database=self.db), ["tcp:0:interface=127.0.0.1"], name="test"
        )
        self.service.startService()
        self.addCleanup(self.service.stopService)
        return self.service.started

    async def connect(self) -> Client:
        from twisted.internet import reactor

        port = self.service.ports[0].getHost().port
        client: Client = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), Client())
        self.addCleanup(client.close)
        return client

    async def ask(self, method: str, path: str, body: str = "") -> bytes:
        client = await self.connect()
        head = f"{method} {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n"
        if body:
            head += "Content-Type: application/x-www-form-urlencoded\r\n"
        client.send(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        await client.gone
        return bytes(client.data)

    async def given_back(self) -> None:
        await until(lambda: self.db.pool.stats().in_use == 0 and busy_backends(self.url) == 0)

    @deferred
    async def test_the_service_starts_and_stops_the_database(self) -> None:
        self.assertTrue(self.db.running)
        await self.service.stopService()
        self.assertFalse(self.db.running)

    @deferred
    async def test_what_is_committed_stays_and_the_rest_is_rolled_back(self) -> None:
        self.assertIn(b" 302 ", await self.ask("POST", "/", "name=ann"))
        self.assertIn(b" 200 ", await self.ask("POST", "/", "name=bob&how=nothing"))
        self.assertIn(b" 409 ", await self.ask("POST", "/", "name=cyd&how=error"))
        self.assertIn(b"not kept", await self.ask("POST", "/", "name=dan&how=finish"))
        self.assertIn(b'{"names": ["ann"]}', await self.ask("GET", "/"))
        await self.given_back()

    @deferred
    async def test_an_error_of_the_database_is_a_500_and_given_back(self) -> None:
        await self.db.execute(insert(User.__table__), [{"name": "ann"}])
        with Logs() as logs:
            self.assertIn(b" 500 ", await self.ask("POST", "/", "name=ann"))
        self.assertIn("Uncaught exception", logs.text)
        await self.given_back()

    @deferred
    async def test_a_client_that_leaves_cancels_the_statement(self) -> None:
        client = await self.connect()
        client.send(b"GET /slow HTTP/1.1\r\nHost: here\r\n\r\n")
        await until(lambda: busy_backends(self.url) > 0)
        client.close()
        await self.given_back()
        self.assertEqual(await self.db.fetch_value(select(func.count()).select_from(User)), 0)

    @deferred
    async def test_a_handler_that_answers_later_gives_back_when_the_client_leaves(self) -> None:
        client = await self.connect()
        client.send(b"GET /silent HTTP/1.1\r\nHost: here\r\n\r\n")
        await until(lambda: self.db.pool.stats().in_use > 0)
        client.close()
        await self.given_back()

    @deferred
    async def test_a_db_of_its_own_wins(self) -> None:
        self.assertTrue((await self.ask("GET", "/own")).endswith(b"mine"))


class DriverTest(SynchronousTestCase):
    """Each database loads its own driver and no other."""

    def test_sqlite_needs_no_postgresql(self) -> None:
        program = (
            "import sys; sys.modules['psycopg2'] = None; sys.modules['txpostgres'] = None\n"
            "from cycloneish.db import Database\n"
            "Database('sqlite://')\n"
            "try:\n    Database('postgresql:///x')\n"
            "except ImportError as error:\n    print(error)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, timeout=60
        )
        self.assertIn("pip install 'cycloneish[postgres]'", done.stdout, done.stderr)

    def test_without_the_extra_there_is_one_clear_error(self) -> None:
        program = (
            "import sys; sys.modules['sqlalchemy'] = None\n"
            "import cycloneish.db\n"
            "try:\n    cycloneish.db.Database\n"
            "except ImportError as error:\n    print(error)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, timeout=60
        )
        self.assertIn("pip install 'cycloneish[orm]'", done.stdout, done.stderr)


class NoDatabaseTest(SynchronousTestCase):
    """Applications that know nothing of this."""

    def test_without_the_setting_there_is_no_such_attribute(self) -> None:
        class Probe(RequestHandler):
            def get(self) -> None:
                self.write({"has": hasattr(self, "db")})

        for settings in ({}, {"database": "postgresql://…"}):
            self.assertEqual(fetch(Application([("/", Probe)], **settings)).body, b'{"has": false}')

    def test_who_starts_the_database(self) -> None:
        database, own = Service(), Service()
        app = Application(database=database)
        self.assertIs(_service_of(app), database)
        app.service = database
        self.assertIs(_service_of(app), database)
        app.service = own
        self.assertEqual(list(_service_of(app)), [database, own])
        self.assertIs(_service_of(app), own, "it has a parent now")
        self.assertIsNone(_service_of(Application(database="a name")))
        self.assertIsNone(_service_of(object()))

    def test_a_session_that_cannot_be_closed_is_logged(self) -> None:
        class Broken:
            def session(self) -> Any:
                return self

            def close(self) -> Any:
                raise ZeroDivisionError

        class Probe(RequestHandler):
            def get(self) -> None:
                self.write({"has": self.db is not None})

        with Logs("cycloneish.application") as logs:
            self.assertEqual(fetch(Application([("/", Probe)], database=Broken())).code, 200)
        self.assertIn("could not be closed", logs.text)
