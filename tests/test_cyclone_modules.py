"""Cyclone's smaller modules: SQLite, bottle, redis, e-mail, and its test kit."""

from __future__ import annotations

import builtins
import importlib
import sqlite3
import sys
from email import message_from_bytes, policy
from typing import Any
from unittest import mock

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import Portal
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks, succeed
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.internet.testing import MemoryReactorClock
from twisted.mail.imap4 import LOGINCredentials
from twisted.mail.smtp import ESMTP, AUTHDeclinedError, IMessage, IMessageDelivery, SMTPConnectError
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from cycloneish import bottle
from cycloneish.mail import ContextFactory, Message, sendmail
from cycloneish.sqlite import InlineSQLite
from cycloneish.testing import Client as MemoryClient
from cycloneish.testing import CycloneTestCase
from cycloneish.testing.certificates import self_signed_certificate
from cycloneish.testing.cyclone import Client, DecodingSimpleCookie
from cycloneish.web import Application, RequestHandler


class SqliteTest(SynchronousTestCase):
    def test_queries_and_operations(self) -> None:
        db = InlineSQLite()
        self.addCleanup(db.close)
        db.runOperation("CREATE TABLE notes (author TEXT, text TEXT)")
        db.runOperation("INSERT INTO notes VALUES (?, ?)", ["ann", "'; DROP TABLE notes"])
        db.runOperationMany("INSERT INTO notes VALUES (?, ?)", [["bob", "b"], ["cat", "c"]])
        self.assertEqual(len(db.runQuery("SELECT * FROM notes")), 3)
        found = db.runQuery("SELECT text FROM notes WHERE author = :who", {"who": "ann"})
        self.assertEqual(found, [("'; DROP TABLE notes",)])

    def test_without_commits_of_its_own(self) -> None:
        path = self.mktemp()
        db = InlineSQLite(path, autoCommit=False)
        other = InlineSQLite(path)
        self.addCleanup(other.close)
        db.runOperation("CREATE TABLE notes (text TEXT)")
        db.commit()
        db.runOperation("INSERT INTO notes VALUES ('lost')")
        db.rollback()
        db.runOperationMany("INSERT INTO notes VALUES (?)", [["kept"]])
        self.assertEqual(other.runQuery("SELECT * FROM notes"), [])
        db.commit()
        self.assertEqual(other.runQuery("SELECT * FROM notes"), [("kept",)])
        db.close()
        self.assertRaises(sqlite3.ProgrammingError, db.runQuery, "SELECT 1")


class BottleTest(SynchronousTestCase):
    def setUp(self) -> None:
        bottle._routes.clear()
        self.addCleanup(bottle._routes.clear)

    def ask(self, app: Application, method: str, path: str) -> tuple[int, str]:
        client = MemoryClient(app)
        self.addCleanup(client.close)
        response = self.successResultOf(client.request(method, path))
        return response.code, response.text

    def test_routes_methods_and_groups(self) -> None:
        @bottle.route(r"/(\w+)")
        def show(web: Any, name: str) -> None:
            web.write(f"show {name}")

        @bottle.post(r"/(\w+)")
        async def save(web: Any, name: str) -> None:
            web.write(await succeed(f"save {name}"))

        @bottle.route("/any/thing", method="any")
        def anything(web: Any) -> None:
            web.write(web.request.method)

        bottle.route("/called/so", callback=lambda web: web.write("called"))
        for verb in ("get", "put", "patch", "delete"):
            getattr(bottle, verb)("/a/verb")(lambda web, verb=verb: web.write(verb))
        app = bottle.create_app()
        self.assertEqual(self.ask(app, "GET", "/x"), (200, "show x"))
        self.assertEqual(self.ask(app, "POST", "/x"), (200, "save x"))
        self.assertEqual(self.ask(app, "PUT", "/x")[0], 405)
        self.assertEqual(self.ask(app, "DELETE", "/any/thing"), (200, "DELETE"))
        self.assertEqual(self.ask(app, "GET", "/called/so"), (200, "called"))
        self.assertEqual(self.ask(app, "PATCH", "/a/verb"), (200, "patch"))
        self.assertEqual(self.ask(bottle.create_app(), "GET", "/x")[0], 404)

    def test_base_handler_more_handlers_and_settings(self) -> None:
        class Base(RequestHandler):
            def greeting(self) -> str:
                return self.settings["greeting"] + self.settings.greeting  # type: ignore[attr-defined]

        class More(RequestHandler):
            def get(self) -> None:
                self.write("more")

        @bottle.route("/")
        def index(web: Base) -> None:
            web.write(web.greeting())

        app = bottle.create_app(base_handler=Base, more_handlers=[("/more", More)], greeting="hi")
        self.assertEqual(self.ask(app, "GET", "/"), (200, "hihi"))
        self.assertEqual(self.ask(app, "GET", "/more"), (200, "more"))

    def test_a_router_makes_handlers(self) -> None:
        router = bottle.Router()
        router.add("get", lambda web: web.write("routed"))
        self.assertEqual(len(router.items), 1)
        self.assertEqual(self.ask(Application([("/", router.handler_class())]), "GET", "/"), (200, "routed"))
        request = mock.Mock(method="GET")
        self.assertIsInstance(router(Application(), request), RequestHandler)

    def test_a_route_needs_a_path(self) -> None:
        self.assertRaises(TypeError, bottle.route, lambda web: None)

    def test_run(self) -> None:
        memory: Any = MemoryReactorClock()
        bottle.route("/")(lambda web: web.write("ran"))
        bottle.run(reactor=memory, log=None, host="127.0.0.1", port=8889)
        port, factory, _backlog, interface = memory.tcpServers[0]
        self.assertEqual((port, interface, memory.hasRun), (8889, "127.0.0.1", True))
        self.assertEqual(self.ask(factory, "GET", "/"), (200, "ran"))


class RedisTest(SynchronousTestCase):
    def test_the_names_are_those_of_txredisapi(self) -> None:
        import txredisapi

        from cycloneish import redis

        self.assertIs(redis.lazyConnectionPool, txredisapi.lazyConnectionPool)
        self.assertIn("lazyConnectionPool", dir(redis))
        names: dict[str, Any] = {}
        exec("from cycloneish.redis import *", names)
        self.assertIs(names["ConnectionPool"], txredisapi.ConnectionPool)
        self.assertRaises(AttributeError, getattr, redis, "_private")

    def test_without_it_one_error_says_what_to_install(self) -> None:
        without = {name: module for name, module in sys.modules.items() if name != "cycloneish.redis"}
        with mock.patch.dict(sys.modules, without, clear=True):
            sys.modules["txredisapi"] = None  # type: ignore[assignment]
            error = self.assertRaises(ImportError, importlib.import_module, "cycloneish.redis")
        self.assertIn("cycloneish[redis]", str(error))


class MessageTest(SynchronousTestCase):
    def parse(self, message: Message) -> Any:
        return message_from_bytes(message.render().read(), policy=policy.default)

    def test_html(self) -> None:
        message = Message(
            "Ann <ann@example.com>", "bob@example.com", "Grüße", b"<b>\xc3\xb6</b>", "text/html"
        )
        message.add_header("X-Campaign", "spring", round="2")
        parsed = self.parse(message)
        self.assertEqual(parsed["Subject"], "Grüße")
        self.assertEqual(parsed["To"], "bob@example.com")
        self.assertEqual(parsed["X-Campaign"], 'spring; round="2"')
        self.assertEqual(parsed.get_content_type(), "text/html")
        self.assertEqual(parsed.get_content().strip(), "<b>ö</b>")
        self.assertTrue(parsed["Message-ID"].endswith("@example.com>"))
        self.assertEqual(str(message), message.render().read().decode())

    def test_attachments(self) -> None:
        path = self.mktemp() + ".png"
        with open(path, "wb") as file:
            file.write(b"\x89PNG\xff")
        message = Message("a@example.com", ["b@example.com", "c@example.com"], "Files", "see below")
        message.attach(path, mime="image/png")
        message.attach("notes.txt", mime="text/plain", charset="utf-8", content="größer")
        message.attach("raw.bin", content=b"\0\1")
        picture, notes, raw = self.parse(message).iter_attachments()
        self.assertEqual((picture.get_content_type(), picture.get_content()), ("image/png", b"\x89PNG\xff"))
        self.assertEqual((notes.get_filename(), notes.get_content()), ("notes.txt", "größer"))
        self.assertEqual((raw.get_content_type(), raw.get_content()), ("application/octet-stream", b"\0\1"))
        self.assertEqual(self.parse(message).get_body().get_content().strip(), "see below")

    def test_what_cannot_be_sent(self) -> None:
        for arguments in (
            ("a@x", "b@x", "one\r\nBcc: everybody@x", "text"),
            ("a@x\n", "b@x", "subject", "text"),
            ("a@x", ["b@x", "c@x\rX: y"], "subject", "text"),
            ("a@x", "b@x", "subject", "text", "image/png"),
        ):
            self.assertRaises(ValueError, Message, *arguments)
        message = Message("a@x", "b@x", "s", "t")
        self.assertRaises(TypeError, message.attach, "x", content=3)
        self.assertRaises(TypeError, sendmail, "localhost", message)
        self.assertRaises(TypeError, sendmail, {"host": "localhost"}, "message")
        self.assertRaises(ValueError, sendmail, {}, message)
        self.assertRaises(ValueError, sendmail, {"host": "localhost", "port": "25"}, message)

    def test_without_the_tls_libraries(self) -> None:
        real = builtins.__import__

        def refuse(
            name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
        ) -> Any:
            if name == "twisted.internet" and "ssl" in (fromlist or ()):
                raise ImportError("OpenSSL")
            return real(name, globals, locals, fromlist, level)

        message = Message("a@x", "b@x", "s", "t")
        with mock.patch.object(builtins, "__import__", refuse):
            error = self.assertRaises(
                ImportError, sendmail, {"host": "x", "tls": True}, message, reactor=mock.Mock()
            )
        self.assertIn("cycloneish[tls]", str(error))

    def test_cyclones_context(self) -> None:
        self.assertTrue(hasattr(ContextFactory().getContext(), "set_options"))


@implementer(IMessage)
class Letter:
    def __init__(self, box: list[bytes]) -> None:
        self.box = box
        self.lines: list[bytes] = []

    def lineReceived(self, line: bytes) -> None:
        self.lines.append(line)

    def eomReceived(self) -> Deferred[None]:
        self.box.append(b"\r\n".join(self.lines))
        return succeed(None)

    def connectionLost(self) -> None:
        pass


@implementer(IMessageDelivery)
class Delivery:
    def __init__(self, box: list[bytes]) -> None:
        self.box = box
        self.envelope: list[str] = []

    def receivedHeader(self, helo: Any, origin: Any, recipients: Any) -> bytes:
        return b"Received: by the test"

    def validateFrom(self, helo: Any, origin: Any) -> Any:
        self.envelope.append(str(origin))
        return origin

    def validateTo(self, user: Any) -> Any:
        self.envelope.append(str(user.dest))
        return lambda: Letter(self.box)


class Realm:
    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery

    def requestAvatar(self, avatar: Any, mind: Any, *interfaces: Any) -> Any:
        return IMessageDelivery, self.delivery, lambda: None


class SendTest(TestCase):
    def setUp(self) -> None:
        self.box: list[bytes] = []
        self.delivery = Delivery(self.box)
        self.certificate = self_signed_certificate()
        self.open = 0

    def serve(self, *, tls: bool = False, password: bytes | None = None) -> int:
        test = self

        class Server(ESMTP):
            def connectionMade(self) -> None:
                test.open += 1
                super().connectionMade()

            def connectionLost(self, reason: Any) -> None:
                test.open -= 1
                super().connectionLost(reason)

            def __init__(self) -> None:
                context = None
                if tls:
                    from twisted.internet.ssl import DefaultOpenSSLContextFactory

                    context = DefaultOpenSSLContextFactory(test.certificate[1], test.certificate[0])
                super().__init__({b"LOGIN": LOGINCredentials} if password else None, contextFactory=context)
                if password:
                    self.portal = Portal(
                        Realm(test.delivery), [InMemoryUsernamePasswordDatabaseDontUse(ann=password)]
                    )
                else:
                    self.delivery = test.delivery

        factory = Factory.forProtocol(Server)
        self.addCleanup(self.until_all_have_left)
        port: Any = reactor.listenTCP(0, factory, interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        number: int = port.getHost().port
        return number

    @inlineCallbacks
    def until_all_have_left(self) -> Any:
        yield deferLater(reactor, 0.02)  # type: ignore[arg-type]
        while self.open:
            yield deferLater(reactor, 0.02)  # type: ignore[arg-type]

    def message(self) -> Message:
        return Message(
            "Ann <ann@example.com>", ["bob@example.com", "Cat <cat@example.com>"], "Hi", "Hello\n.\nthere"
        )

    @inlineCallbacks
    def test_to_all_recipients(self) -> Any:
        result = yield sendmail({"host": "127.0.0.1", "port": self.serve()}, self.message())
        self.assertEqual(result[0], 2)
        self.assertEqual(self.delivery.envelope, ["ann@example.com", "bob@example.com", "cat@example.com"])
        self.assertIn(b"Subject: Hi", self.box[0])
        self.assertIn(b"Hello\r\n.\r\nthere", self.box[0])

    @inlineCallbacks
    def test_starttls_and_a_password(self) -> Any:
        port = self.serve(tls=True, password=b"pw")
        settings = {
            "host": "localhost",
            "port": port,
            "tls": True,
            "username": "ann",
            "password": "pw",
            "ca": self.certificate[0],
        }
        result = yield sendmail(settings, self.message())
        self.assertEqual((result[0], len(self.box)), (2, 2))
        yield self.assertFailure(
            sendmail({**settings, "password": "wrong"}, self.message()), AUTHDeclinedError
        )

    @inlineCallbacks
    def test_nothing_is_sent_without_tls_or_to_a_stranger(self) -> Any:
        settings = {"host": "localhost", "port": self.serve(), "tls": True}
        yield self.assertFailure(sendmail(settings, self.message()), Exception)
        settings["port"] = self.serve(tls=True)
        yield self.assertFailure(sendmail(settings, self.message()), Exception)
        self.assertEqual(self.box, [])
        self.flushLoggedErrors()

    @inlineCallbacks
    def test_nobody_listens(self) -> Any:
        port: Any = reactor.listenTCP(0, Factory(), interface="127.0.0.1")  # type: ignore[attr-defined]
        number = port.getHost().port
        yield port.stopListening()
        yield self.assertFailure(
            sendmail({"host": "127.0.0.1", "port": number}, self.message()), SMTPConnectError
        )

    @inlineCallbacks
    def test_cancelled(self) -> Any:
        sending = sendmail({"host": "127.0.0.1", "port": self.serve()}, self.message())
        sending.cancel()
        yield self.assertFailure(sending, CancelledError)
        self.assertEqual(self.box, [])


class Hello(RequestHandler):
    def get(self) -> None:
        self.greeted = self.get_argument("name", "nobody")
        self.set_secure_cookie("seen", self.greeted)
        self.write(f"{self.greeted}, {self.get_cookie('plain', '')}, {self.request.remote_ip}")

    async def post(self) -> None:
        self.write(await succeed(self.get_argument("name").upper()))

    put = post

    def delete(self) -> None:
        self.write(self.get_argument("name"))

    def head(self) -> None:
        self.set_header("X-Head", "yes")


def make_app() -> Application:
    return Application([(r"/", Hello)], cookie_secret="s3cret")


class KitTest(CycloneTestCase):
    app_builder = staticmethod(make_app)

    @inlineCallbacks
    def test_the_handler_comes_back(self) -> Any:
        self.client.cookies["plain"] = "crumb"
        handler = yield self.client.get("/", params={"name": "Ann"}, remote_ip="10.0.0.1")
        self.assertIsInstance(handler, Hello)
        self.assertEqual((handler.greeted, handler.content), ("Ann", b"Ann, crumb, 10.0.0.1"))
        self.assertEqual(self.client.cookies.get_secure_cookie("seen"), b"Ann")
        self.assertEqual(handler.headers["Content-Type"], "text/html; charset=UTF-8")
        self.assertEqual(handler.get_status(), 200)

    @inlineCallbacks
    def test_the_other_methods(self) -> Any:
        for method in ("post", "put"):
            handler = yield getattr(self.client, method)("/", {"name": "ann"})
            self.assertEqual(handler.content, b"ANN")
        handler = yield self.client.post(
            "/", body="name=bob", headers={"Content-Type": "application/x-www-form-urlencoded"}
        )
        self.assertEqual(handler.content, b"BOB")
        handler = yield self.client.post("/", {"name": "cat"}, files={"f": ("f.txt", b"x")})
        self.assertEqual((handler.content, handler.request.files["f"][0].body), (b"CAT", b"x"))
        handler = yield self.client.delete("/", {"name": "dan"})
        self.assertEqual(handler.content, b"dan")
        handler = yield self.client.head("/")
        self.assertEqual(handler.headers["X-Head"], "yes")

    def test_signed_cookies_by_value(self) -> None:
        cookies = DecodingSimpleCookie(self._app)
        self.assertIs(cookies.get_secure_cookie("seen"), None)
        self.assertIs(cookies.get_secure_cookie("seen", "forged"), None)

    def test_another_client(self) -> None:
        case = KitTest("test_another_client", app_builder=make_app)
        self.assertIsInstance(case.client, Client)

    def test_without_an_application(self) -> None:
        class Without(CycloneTestCase):
            def test(self) -> None:
                raise AssertionError("never called")

        self.assertRaises(ValueError, Without, "test")
        Without("runTest")  # as pytest does for every class of test cases that a module imports
