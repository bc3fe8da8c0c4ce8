"""twisted.web resources inside our applications, and our applications inside twisted.web sites."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.python.filepath import FilePath
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site
from twisted.web.static import Data, File

from cycloneish.httputil import (
    HTTPHeaders,
    HTTPInputError,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
    ResponseStartLine,
)
from cycloneish.resource import ResourceContainer, StreamingRequest, to_resource
from cycloneish.web import Application, FallbackHandler, HTTPError, RequestHandler, stream_request_body
from tests.web.live import LiveTestCase, sleep


class Echo(Resource):
    """Answers with what it has seen."""

    isLeaf = True

    def render_GET(self, request: Any) -> bytes:
        request.setHeader(b"X-Path", b"|".join(request.prepath) + b"+" + b"|".join(request.postpath))
        request.setHeader(b"X-Args", repr(request.args).encode())
        request.addCookie(b"a", b"b")
        return b"echo"

    def render_POST(self, request: Any) -> bytes:
        body = request.content.read()
        return b"%s %d %s" % (type(request.content).__name__.encode(), len(body), repr(request.args).encode())


class Held(Resource):
    """Keeps requests for the test."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Any] = []
        self.ends: list[Any] = []

    def render(self, request: Any) -> int:
        self.requests.append(request)
        request.notifyFinish().addBoth(self.ends.append)
        return NOT_DONE_YET


class ContainerTests(LiveTestCase):
    def mount(self, resource: Any, **options: Any) -> None:
        container = ResourceContainer(resource, **options)
        self.serve(Application([(".*", FallbackHandler, {"fallback": container})]))

    async def test_a_resource_sees_a_request_of_twisted_web(self) -> None:
        self.mount(Echo())
        response = await self.fetch("/a/b%20c?x=1&x=2")
        self.assertEqual((response.code, response.body), (200, b"echo"))
        self.assertEqual(response.headers["Content-Length"], "4")
        self.assertEqual(response.headers["X-Path"], "+a|b c")
        self.assertEqual(response.headers["X-Args"], "{b'x': [b'1', b'2']}")
        self.assertEqual(response.headers["Set-Cookie"], "a=b")

    async def test_head_and_methods_it_does_not_have(self) -> None:
        self.mount(Echo())
        head = await self.fetch("/", "HEAD")
        self.assertEqual((head.code, head.body, head.headers["Content-Length"]), (200, b"", "4"))
        refused = await self.fetch("/", "DELETE")
        self.assertEqual(refused.code, 501)

    async def test_a_prefix(self) -> None:
        root = Resource()
        root.putChild(b"child", Echo())
        self.mount(root, prefix="/old/site")
        response = await self.fetch("/old/site/child/x")
        self.assertEqual(response.headers["X-Path"], "old|site|child+x")
        self.assertEqual((await self.fetch("/old/other")).code, 404)

    async def test_forms_and_bodies_that_go_to_disk(self) -> None:
        self.mount(Echo())
        form = await self.fetch("/", "POST", {"Content-Type": "application/x-www-form-urlencoded"}, b"a=1")
        self.assertEqual(form.body, b"BytesIO 3 {b'a': [b'1']}")
        long = await self.fetch("/", "POST", body=bytes(3_000_000))
        self.assertTrue(long.body.endswith(b" 3000000 {}"), long.body)
        self.assertFalse(long.body.startswith(b"BytesIO"))

    async def test_writing_later_and_keeping_the_connection(self) -> None:
        held = Held()
        self.mount(held)
        client = await self.connect()
        for number in (1, 2):
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            while len(held.requests) < number:
                await sleep(0.01)
            request = held.requests[-1]
            request.setResponseCode(202, b"Later")
            request.write(b"one ")
            await client.until(lambda data, number=number: data.count(b"one ") == number)
            request.write(b"two")
            request.finish()
            await client.until(lambda data, number=number: data.count(b"\r\n0\r\n\r\n") == number)
        self.assertEqual(client.data.count(b"202 Later"), 2)
        self.assertEqual(held.ends, [None, None])

    async def test_a_client_that_goes_is_noticed(self) -> None:
        held = Held()
        self.mount(held)
        for close in ("loseConnection", "abortConnection"):
            held.ends.clear()
            client = await self.connect()
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await sleep(0.05)
            held.requests[-1].write(b"x")
            getattr(client.transport, close)()
            while not held.ends:
                await sleep(0.01)
            held.requests[-1].write(b"dropped")
            self.assertRaises(RuntimeError, held.requests[-1].finish)

    async def test_a_push_producer_is_paused_by_a_slow_client(self) -> None:
        held = Held()
        self.mount(held)
        client = await self.connect()
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await sleep(0.05)
        client.transport.pauseProducing()
        calls: list[str] = []

        class Producer:
            def pauseProducing(self) -> None:
                calls.append("pause")

            def resumeProducing(self) -> None:
                calls.append("resume")

            def stopProducing(self) -> None:
                calls.append("stop")

        request = held.requests[0]
        request.registerProducer(Producer(), True)
        request.write(bytes(20_000_000))
        await sleep(0.05)
        self.assertEqual(calls, ["pause"])
        client.transport.resumeProducing()
        await client.until(lambda data: len(data) > 20_000_000)
        await sleep(0.05)
        self.assertEqual(calls, ["pause", "resume"])
        client.transport.abortConnection()
        await sleep(0.05)
        self.assertEqual(calls, ["pause", "resume", "stop"])

    async def test_files_of_twisted_web_are_pulled_and_ranges_work(self) -> None:
        path = self.mktemp()
        content = bytes(range(256)) * 8000
        FilePath(path).setContent(content)
        root = Resource()
        root.putChild(b"file", File(path))
        self.mount(root)
        self.assertEqual((await self.fetch("/file")).body, content)
        part = await self.fetch("/file", headers={"Range": "bytes=5-9"})
        self.assertEqual((part.code, part.body), (206, content[5:10]))

    async def test_a_pull_producer_stops_with_its_client(self) -> None:
        held = Held()
        self.mount(held)
        client = await self.connect()
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await sleep(0.05)
        client.transport.pauseProducing()
        pulls: list[int] = []
        stopped: list[bool] = []
        request = held.requests[0]

        class Producer:
            def resumeProducing(self) -> None:
                pulls.append(1)
                request.write(bytes(100_000))

            def stopProducing(self) -> None:
                stopped.append(True)

        request.registerProducer(Producer(), False)
        await sleep(0.3)
        self.assertGreater(len(pulls), 1)
        self.assertLess(len(pulls), 300)
        client.transport.abortConnection()
        while not stopped:
            await sleep(0.01)

    async def test_a_producer_that_fails_ends_the_connection(self) -> None:
        held = Held()
        self.mount(held)
        client = await self.connect()
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await sleep(0.05)

        class Producer:
            def resumeProducing(self) -> None:
                raise ZeroDivisionError

            def stopProducing(self) -> None: ...

        with self.assertLogs("cycloneish.application", "ERROR"):
            held.requests[0].registerProducer(Producer(), False)
            await client.gone
        self.assertEqual(len(held.ends), 1)

    async def test_a_whole_site_with_sessions(self) -> None:
        class Counter(Resource):
            isLeaf = True

            def render_GET(self, request: Any) -> bytes:
                session = request.getSession()
                session.count = getattr(session, "count", 0) + 1
                self_check = (request.isSecure(), request.getClientAddress().host, request.getHost().port > 0)
                return repr((session.count, *self_check)).encode()

        site = Site(Counter())
        self.addCleanup(lambda: [session.expire() for session in list(site.sessions.values())])
        self.mount(site)
        first = await self.fetch("/")
        self.assertEqual(first.body, b"(1, False, '127.0.0.1', True)")
        cookie = first.headers["Set-Cookie"].partition(";")[0]
        again = await self.fetch("/", headers={"Cookie": cookie})
        self.assertEqual(again.body, b"(2, False, '127.0.0.1', True)")

    async def test_an_exception_in_render_is_a_500(self) -> None:
        class Broken(Resource):
            isLeaf = True

            def render_GET(self, request: Any) -> bytes:
                raise ZeroDivisionError

        self.mount(Broken())
        self.assertEqual((await self.fetch("/")).code, 500)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    async def test_a_resource_can_close_the_connection(self) -> None:
        held = Held()
        self.mount(held)
        for close in ("loseConnection", "abortConnection"):
            client = await self.connect()
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await sleep(0.05)
            request = held.requests[-1]
            request.write(b"some")
            getattr(request.transport, close)()
            await client.gone
            self.assertFalse(client.data.endswith(b"0\r\n\r\n"))
        self.assertEqual(len(held.ends), 2)

    async def test_a_broken_form_is_a_400(self) -> None:
        self.mount(Echo())
        headers = {"Content-Type": "multipart/form-data"}
        response = await self.fetch("/", "POST", headers, b"nonsense")
        self.assertEqual(response.code, 400)


class Main(RequestHandler):
    def get(self, name: str | None = None) -> None:
        self.set_header("X-Client", f"{self.request.protocol} {self.request.remote_ip}")
        self.write(f"main {self.request.path} {name or ''}")

    def post(self, name: str = "") -> None:
        self.write(f"{len(self.request.body)} {self.get_body_argument('a', 'none')}")

    put = post


@stream_request_body
class Upload(RequestHandler):
    seen: list[int] = []
    hold: Deferred[None] | None = None
    gone: list[bool] = []
    limit: int | None = None
    refuse = False

    def prepare(self) -> None:
        if self.limit is not None:
            self.request.connection.set_max_body_size(self.limit)
        if self.refuse:
            raise HTTPError(403)

    def data_received(self, chunk: bytes) -> Any:
        self.seen.append(len(chunk))
        return self.hold

    def put(self) -> None:
        self.write(f"took {sum(self.seen)}")

    def on_connection_close(self) -> None:
        self.gone.append(True)


class Endless(RequestHandler):
    sent = 0
    gone: list[bool] = []

    async def get(self) -> None:
        for _ in range(300):
            Endless.sent += 100_000
            self.write(bytes(100_000))
            await self.flush()

    def on_connection_close(self) -> None:
        self.gone.append(True)


class ResourceTests(LiveTestCase):
    def setUp(self) -> None:
        Upload.seen, Upload.gone, Upload.hold = [], [], None
        self.patch(Upload, "limit", None)
        self.patch(Upload, "refuse", False)
        Endless.sent, Endless.gone = 0, []
        self.application = Application(
            [
                ("/app/upload", Upload),
                ("/app/endless", Endless),
                ("/app(/.*)?", Main),
                ("/", Main),
                ("/(below)", Main),
            ]
        )

    def site(self, streaming: bool = False, **options: Any) -> None:
        root = Resource()
        self.mounted = to_resource(self.application, **options)
        root.putChild(b"app", self.mounted)
        root.putChild(b"data", Data(b"twisted", "text/plain"))
        self.listen(Site(root, StreamingRequest if streaming else None, timeout=5))

    def listen(self, site: Site) -> None:
        listening = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        self.port = listening.getHost().port

    async def test_the_application_answers_below_its_resource(self) -> None:
        for streaming in (False, True):
            self.site(streaming)
            response = await self.fetch("/app/x%20y?q=1")
            self.assertEqual((response.code, response.body), (200, b"main /app/x%20y /x y"))
            self.assertEqual(response.headers["X-Client"], "http 127.0.0.1")
            self.assertEqual(response.headers.get_list("Server"), [response.headers["Server"]])
            self.assertIn("cycloneish", response.headers["Server"])
            self.assertEqual(len(response.headers.get_list("Date")), 1)
            self.assertEqual((await self.fetch("/app")).body, b"main /app ")
            self.assertEqual((await self.fetch("/data")).body, b"twisted")
            self.assertEqual((await self.fetch("/app/x", "HEAD")).body, b"")
            self.assertEqual((await self.fetch("/none")).code, 404)

    async def test_with_the_prefix_stripped(self) -> None:
        self.site(strip_prefix=True)
        self.assertEqual((await self.fetch("/app/below?x")).body, b"main /below below")
        self.assertEqual((await self.fetch("/app")).body, b"main / ")
        self.assertEqual((await self.fetch("/app/")).body, b"main / ")

    async def test_other_resources_beside_the_application(self) -> None:
        self.mounted = to_resource(self.application)
        self.mounted.putChild(b"data", Data(b"twisted", "text/plain"))
        self.listen(Site(self.mounted))
        self.assertEqual((await self.fetch("/data")).body, b"twisted")
        self.assertEqual((await self.fetch("/")).body, b"main / ")

    async def test_bodies_that_twisted_web_collected(self) -> None:
        self.site()
        form = await self.fetch(
            "/app/x", "POST", {"Content-Type": "application/x-www-form-urlencoded"}, b"a=1"
        )
        self.assertEqual(form.body, b"3 1")
        response = await self.fetch("/app/upload", "PUT", body=bytes(1_000_000))
        self.assertEqual(response.body, b"took 1000000")
        self.assertGreater(len(Upload.seen), 10)

    async def test_a_body_streams_while_it_arrives_and_is_held_back(self) -> None:
        self.site(streaming=True)
        Upload.hold = Deferred()
        client = await self.connect()
        client.send(b"PUT /app/upload HTTP/1.1\r\nHost: a\r\nContent-Length: 20000000\r\n\r\n" + bytes(1000))
        while not Upload.seen:
            await sleep(0.01)
        self.assertEqual(sum(Upload.seen), 1000)
        client.send(bytes(20_000_000 - 1000))
        await sleep(0.2)
        self.assertEqual(sum(Upload.seen), 1000, "given more while it was busy")
        hold, Upload.hold = Upload.hold, None
        hold.callback(None)
        await client.until(b"took 20000000")
        client.send(b"GET /app/x HTTP/1.1\r\nHost: a\r\n\r\n")
        await client.until(b"main /app/x")

    async def test_a_body_above_the_limit_of_the_handler(self) -> None:
        self.patch(Upload, "limit", 5000)
        for streaming in (False, True):
            self.site(streaming)
            response = await self.fetch("/app/upload", "PUT", body=bytes(20_000))
            self.assertEqual(response.code, 413)
            client = await self.connect()
            client.send(b"PUT /app/upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            client.send(b"2000\r\n" + bytes(0x2000) + b"\r\n0\r\n\r\n")
            await client.until(b" 413 ")
            self.assertIn(b" 413 ", client.data)

    async def test_an_answer_before_the_body_keeps_the_connection_when_the_rest_is_short(self) -> None:
        self.patch(Upload, "refuse", True)
        self.site(streaming=True)
        client = await self.connect()
        client.send(b"PUT /app/upload HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
        await client.until(b"</html>")
        self.assertIn(b" 403 ", client.data)
        client.send(b"defghijGET /app/x HTTP/1.1\r\nHost: a\r\n\r\n")
        await client.until(b"main /app/x")
        self.assertIn(b"main /app/x", client.data)
        self.assertEqual(Upload.seen, [])
        long = await self.connect()
        long.send(b"PUT /app/upload HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n" + bytes(1000))
        await long.gone
        self.assertIn(b" 403 ", long.data)

    async def test_a_client_that_leaves(self) -> None:
        for streaming in (False, True):
            Endless.gone = []
            self.site(streaming)
            client = await self.connect()
            client.send(b"GET /app/endless HTTP/1.1\r\nHost: a\r\n\r\n")
            await client.until(b"chunked")
            client.transport.abortConnection()
            while not Endless.gone:
                await sleep(0.01)
        client = await self.connect()
        client.send(b"PUT /app/upload HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
        await sleep(0.05)
        client.transport.abortConnection()
        while not Upload.gone:
            await sleep(0.01)

    async def test_a_slow_client_holds_the_handler_back(self) -> None:
        for streaming in (False, True):
            Endless.sent = 0
            self.site(streaming)
            client = await self.connect()
            client.transport.pauseProducing()
            client.send(b"GET /app/endless HTTP/1.1\r\nHost: a\r\n\r\n")
            await sleep(0.3)
            self.assertLess(Endless.sent, 15_000_000)
            client.transport.resumeProducing()
            await client.until(b"\r\n0\r\n\r\n")
            self.assertEqual(Endless.sent, 30_000_000)

    async def test_errors_of_the_application(self) -> None:
        class Broken:
            def start_request(self, server_conn: Any, request_conn: Any) -> Any:
                raise ZeroDivisionError

        self.listen(Site(to_resource(Broken())))  # type: ignore[arg-type]
        with self.assertLogs("cycloneish.application", "ERROR"):
            self.assertEqual((await self.fetch("/")).code, 500)

    async def test_a_delegate_that_fails_on_the_way(self) -> None:
        class Delegate(HTTPMessageDelegate):
            def __init__(self, connection: Any, where: str) -> None:
                self.connection, self.where = connection, where

            def at(self, where: str) -> None:
                if where == self.where:
                    raise ZeroDivisionError
                if self.where == f"after {where}":
                    headers = HTTPHeaders({"X-Early": "1"})
                    self.connection.write_headers(ResponseStartLine("", 200, "OK"), headers, b"part")
                    raise ZeroDivisionError
                if self.where == f"refused at {where}":
                    raise HTTPInputError("no", status=422)

            async def headers_received(self, start_line: Any, headers: Any) -> None:  # type: ignore[override]
                await sleep(0)
                self.at("headers")

            def data_received(self, chunk: bytes) -> Any:
                self.at("data")

            def finish(self) -> None:
                self.at("finish")

            def on_connection_close(self) -> None: ...

        class Target(HTTPServerConnectionDelegate):
            where = ""

            def start_request(self, server_conn: Any, request_conn: Any) -> Any:
                return Delegate(request_conn, self.where)

        target = Target()
        for streaming in (False, True):
            self.listen(Site(to_resource(target), StreamingRequest if streaming else None))
            for where, expected in [
                ("headers", 500),
                ("data", 500),
                ("finish", 500),
                ("refused at data", 422),
                ("refused at headers", 422),
                ("after data", 0),
            ]:
                target.where = where
                logs = (
                    self.assertLogs("cycloneish.application", "ERROR")
                    if "refused" not in where
                    else nullcontext()
                )
                with logs:
                    response: Any = await self.fetch("/", "PUT", body=b"abc")
                self.assertEqual(response.code, expected, where)
                self.assertEqual(response.complete, "after" not in where, where)

    async def test_a_connection_can_be_handed_over(self) -> None:
        class Shout(Protocol):
            def dataReceived(self, data: bytes) -> None:
                assert self.transport is not None
                self.transport.write(data.upper())

        class Upgrade(RequestHandler):
            def get(self) -> None:
                connection = self.request.connection
                headers = HTTPHeaders({"Upgrade": "shout", "Connection": "Upgrade"})
                connection.write_headers(ResponseStartLine("", 101, "Switching Protocols"), headers)
                self._finished = True
                connection.detach(Shout())

        for streaming in (False, True):
            site = Site(to_resource(Application([("/", Upgrade)])), StreamingRequest if streaming else None)
            self.listen(site)
            client = await self.connect()
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await client.until(b"\r\n\r\n")
            self.assertTrue(client.data.startswith(b"HTTP/1.1 101 Switching Protocols\r\n"))
            client.send(b"hello")
            await client.until(b"HELLO")
            self.assertTrue(client.data.endswith(b"\r\n\r\nHELLO"))

    async def test_there_and_back_again(self) -> None:
        outer = Application(
            [(".*", FallbackHandler, {"fallback": ResourceContainer(to_resource(self.application))})]
        )
        self.serve(outer)
        self.assertEqual((await self.fetch("/app/x")).body, b"main /app/x /x")
        response = await self.fetch("/app/upload", "PUT", body=bytes(300_000))
        self.assertEqual(response.body, b"took 300000")
