"""What an attack on a running server found, each with the request that found it."""

from __future__ import annotations

import gzip
import json
import logging
from typing import Any

from twisted.internet import reactor
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from cycloneish.jsonrpc import JsonrpcRequestHandler
from cycloneish.resource import StreamingRequest, to_resource
from cycloneish.web import FallbackHandler, RequestHandler, StaticFileHandler, stream_request_body
from cycloneish.wsgi import WSGIContainer
from tests.security.support import (
    Peer,
    RecordingApplication,
    Response,
    SecurityTestCase,
    multipart,
    part,
    post_multipart,
    request,
)


class Who(RequestHandler):
    """Answers with the client's address."""

    def get(self) -> None:
        self.write(self.request.remote_ip or "")


class MethodNameTest(SecurityTestCase):
    """A fallback takes every method, and none of them is a method of the handler in Python."""

    async def test_a_method_named_like_an_attribute_goes_to_the_fallback(self) -> None:
        methods: list[str] = []

        def fallback(asked: Any) -> None:
            methods.append(asked.method)
            asked.connection.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            asked.connection.finish()

        served = self.serve(
            RecordingApplication([("/old(/.*)", FallbackHandler, {"fallback": fallback})]),
        )
        names = ["WRITE", "FINISH", "REDIRECT", "PREPARE", "SETTINGS", "DETACH", "_LOG", "BREW", "GET"]
        for name in names:
            answer = await self.fetch(served, request("/old/written", method=name))
            self.assertEqual((answer.status, answer.body), (204, b""), name)
        self.assertEqual(methods, names)
        self.assertEqual(self.logs.serious, [])


class ForwardedAddressTest(SecurityTestCase):
    """With ``xheaders``, an address has nothing behind it that is no zone."""

    async def test_text_behind_a_percent_sign_is_no_address(self) -> None:
        served = self.serve(RecordingApplication([("/", Who)]), xheaders=True)
        for text in ("1.2.3.4%<script>", "1.2.3.4%0", "fe80::1%<b>x y", "fe80::1%", "::1%" + "a" * 5000):
            for header in ("X-Real-Ip", "X-Forwarded-For"):
                answer = await self.fetch(served, request("/", f"{header}: {text}"))
                self.assertEqual(answer.body, b"127.0.0.1", f"{header}: {text[:40]}")
        for text in ("fe80::1%eth0", "2001:db8::1", "::ffff:1.2.3.4", "192.0.2.7"):
            answer = await self.fetch(served, request("/", f"X-Real-Ip: {text}"))
            self.assertEqual(answer.body, text.encode())


class LogLineTest(SecurityTestCase):
    """What a message quotes stays in one line, also with a plain formatter of the standard library."""

    async def test_a_decoded_path_forges_no_line(self) -> None:
        served = self.serve(
            RecordingApplication([("/static/(.*)", StaticFileHandler, {"path": self.mktemp()})]),
        )
        await self.fetch(served, request("/static/..%2f..%0aFAKE%1b[31m"))
        (record,) = self.logs.of("general")
        line = logging.Formatter("%(message)s").format(record)
        self.assertIn("is not in root static directory", line)
        self.assertTrue(line.isprintable(), repr(line))


class SilentBodyTest(SecurityTestCase):
    """A body that came fast does not buy a long silence, in which the server keeps what has come."""

    async def test_a_body_that_stops_is_given_up(self) -> None:
        served = self.serve(RecordingApplication(), body_grace=0.2, body_min_rate=256)
        peer = await self.connect(served)
        # At 256 bytes a second, these would be good for four minutes.
        peer.send(request("/", "Content-Length: 1000000", method="POST") + b"x" * 60_000)
        await peer.until_closed(5)
        self.assertTrue(peer.closed)
        self.assertEqual(peer.statuses, [408])

    async def test_a_body_that_goes_on_is_not(self) -> None:
        served = self.serve(RecordingApplication(), body_grace=0.3, body_min_rate=256)
        peer = await self.connect(served)
        peer.send(request("/", "Content-Length: 6000", method="POST"))
        for _ in range(6):
            peer.send(b"x" * 1000)
            await self.pause(0.15)
        await peer.until_answers(1)
        self.assertEqual(peer.statuses, [200])


class CookieFloodTest(SecurityTestCase):
    """Thousands of tiny cookies, each of which would become an object of half a kilobyte."""

    async def test_more_cookies_than_any_browser_has_are_left_out(self) -> None:
        kept: list[int] = []

        class Count(RequestHandler):
            def get(self) -> None:
                kept.append(len(self.cookies))
                self.write(self.get_cookie("0", "missing"))

        served = self.serve(RecordingApplication([("/", Count)]))
        for flood in ("; ".join(f"{number:x}=first" for number in range(4000)), "0=first; " + ";(=" * 4000):
            answer = await self.fetch(served, request("/", f"Cookie: {flood}"))
            self.assertEqual((answer.status, answer.body), (200, b"first"))
        self.assertEqual(kept, [1000, 1])
        self.assertEqual(self.logs.serious, [])


class Target(RequestHandler):
    """Answers with the target and the length of the body."""

    def get(self) -> None:
        self.write(f"{self.request.uri} {len(self.request.body)}")

    post = get


class ResourceTest(SecurityTestCase):
    """An application in a site of twisted.web, which lets more through than our own server."""

    async def asked(self, data: bytes, streaming: bool = False) -> Response:
        root = Resource()
        root.putChild(b"app", to_resource(RecordingApplication([("/.*", Target)]), strip_prefix=True))
        site = Site(root, requestFactory=StreamingRequest if streaming else Request)
        self.patch(site, "displayTracebacks", True)
        port = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        peer = await connectProtocol(HostnameEndpoint(reactor, "127.0.0.1", port.getHost().port), Peer())
        peer.send(data)
        await peer.until_answers(1)
        peer.drop()
        await peer.until_closed(1)
        return peer.answers[0]

    async def test_the_slashes_of_a_query_are_no_path(self) -> None:
        for target, seen in (("/app?next=/admin/1", "/?next=/admin/1"), ("/app/a/b?c=/d", "/a/b?c=/d")):
            self.assertEqual((await self.asked(request(target))).body, f"{seen} 0".encode())

    async def test_odd_targets_and_headers_are_refused(self) -> None:
        for streaming in (False, True):
            for data in (
                request("/app/a\x85b", method="POST", body=b"x"),
                request("/app/a#b", method="POST", body=b"x"),
                request("/app/a", "X: a\x1bb", method="POST", body=b"x"),
            ):
                answer = await self.asked(data, streaming)
                self.assertEqual((answer.status, answer.body), (400, b""), data)
        self.assertEqual(self.logs.serious, [])

    async def test_a_body_has_a_limit_without_any_setting(self) -> None:
        data = request("/app/", "Content-Length: 200000000", method="POST") + b"x"
        self.assertEqual((await self.asked(data, streaming=True)).status, 413)


class Form(RequestHandler):
    """Answers with how the form was read."""

    def post(self) -> None:
        self.write(f"{len(self.request.body)} {len(self.request.files['f'][0].body)}")


def wsgi_application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Reads as much as is announced, as WSGI applications do; all where nothing is."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d" % len(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH", -1))))]


class InflatedLengthTest(SecurityTestCase):
    """With ``decompress_request``, Content-Length is that of other bytes than the application gets."""

    async def test_a_wsgi_application_is_not_told_the_compressed_length(self) -> None:
        container = WSGIContainer(wsgi_application)
        self.addCleanup(container.close)
        served = self.serve(
            RecordingApplication([("/.*", FallbackHandler, {"fallback": container})]), decompress_request=True
        )
        for size in (1000, 3_000_000):
            body = gzip.compress(bytes(size))
            data = request("/", "Content-Encoding: gzip", method="POST", body=body)
            self.assertEqual((await self.fetch(served, data)).body, b"%d" % size)

    async def test_a_large_form_is_not_kept_in_memory_because_it_is_small_on_the_wire(self) -> None:
        served = self.serve(RecordingApplication([("/", Form)]), decompress_request=True)
        body = gzip.compress(multipart(part("f", bytes(3_000_000), "f.bin")))
        answer = await self.fetch(served, post_multipart(body, "/", "Content-Encoding: gzip"))
        self.assertEqual(answer.body, b"0 3000000")


class DeepJsonTest(SecurityTestCase):
    """Brackets in brackets are the client's mistake, and no error of this program."""

    async def test_deeply_nested_json_is_a_400_without_a_traceback(self) -> None:
        served = self.serve(RecordingApplication([("/", JsonrpcRequestHandler)]))
        answer = await self.fetch(served, request("/", method="POST", body=b"[" * 200_000))
        self.assertEqual(answer.status, 400)
        self.assertEqual(self.logs.serious, [])


@stream_request_body
class Pieces(RequestHandler):
    """Notes how much of its body came in one turn of the reactor, at most, and how much in all."""

    def prepare(self) -> None:
        self.most = self.now = self.total = 0

    def data_received(self, chunk: bytes) -> None:
        if not self.now:
            reactor.callLater(0, self._next_turn)
        self.now += len(chunk)
        self.total += len(chunk)
        self.most = max(self.most, self.now)

    def _next_turn(self) -> None:
        self.now = 0

    def post(self) -> None:
        self.write({"most": self.most, "total": self.total})


class InflatingInTurnsTest(SecurityTestCase):
    """One read of 64 KiB can hold 64 MiB: they are not inflated while everybody else waits."""

    async def test_a_bomb_leaves_the_others_their_turn(self) -> None:
        served = self.serve(RecordingApplication([("/", Pieces)]), decompress_request=True)
        body = gzip.compress(bytes(20_000_000))
        data = request("/", "Content-Encoding: gzip", method="POST", body=body)
        answer = json.loads((await self.fetch(served, data)).body)
        self.assertEqual(answer["total"], 20_000_000)
        self.assertLess(answer["most"], 3_000_000)
