"""Fuzzing: seeded nonsense leaves no traceback, no hang and no growth. Also run under ``python -O``."""

from __future__ import annotations

import gc
import os
import random
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from cycloneish import escape
from cycloneish.http.multipart import FormDataStream
from cycloneish.httputil import (
    HTTPFile,
    HTTPHeaders,
    HTTPInputError,
    HTTPServerRequest,
    parse_body_arguments,
    parse_cookie,
    parse_multipart_form_data,
    parse_range_set,
)
from cycloneish.httputil.headers import _parse_header
from cycloneish.httputil.ranges import _parse_request_range
from cycloneish.locale import Locale
from cycloneish.signing import decode_signed_value, get_signature_key_version
from cycloneish.web import RequestHandler
from tests.security.support import (
    LogCapture,
    RecordingApplication,
    SecurityTestCase,
    chunked,
    make_server,
    multipart,
    parse_responses,
    part,
    post_multipart,
    request,
)

#: Malformed requests over sockets; fewer where this file is run a second time.
REQUESTS = int(os.environ.get("CYCLONEISH_FUZZ_REQUESTS", "10000"))
SEED = 20260726

GOOD = (
    request(
        "/a?b=c%20d&e=f", "X-A: b", "Cookie: a=b; c=d", "Accept-Language: en-GB;q=0.5, de", "Range: bytes=0-5"
    ),
    request("/form", "Content-Type: application/x-www-form-urlencoded", method="POST", body=b"a=b&c=%41&d"),
    request(
        "/",
        "Transfer-Encoding: chunked",
        method="POST",
        body=chunked(b"hello", b"x" * 30, end=b"0\r\nT: v\r\n\r\n"),
    ),
    post_multipart(multipart(part("a"), part("f", b"12345\r\n--123", "x.txt")), "/form"),
    request("/", "Expect: 100-continue", method="POST", body=b"hello"),
    request("http://example.com/abs", "Connection: keep-alive, upgrade", "Upgrade: x"),
    request("/json", "Content-Type: application/json; charset=utf-8", method="PUT", body=b'{"a": [1, null]}'),
    request(
        "/", 'If-None-Match: "a", W/"b"', "If-Modified-Since: Mon, 01 Jan 1990 00:00:00 GMT", method="HEAD"
    ),
)

DICTIONARY = (
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\x00",
        b" ",
        b"\t",
        b":",
        b";",
        b",",
        b"=",
        b'"',
        b"\\",
        b"%",
        b"%00",
        b"%ff",
        b"\xff",
        b"\x85",
    ),
    *(
        b"Content-Length: 5\r\n",
        b"Content-Length: -1\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Host: b\r\n",
        b"HTTP/1.0",
    ),
    *(
        b"chunked",
        b"gzip",
        b"0\r\n\r\n",
        b"ffffffff\r\n",
        b"--1234",
        b"--1234--",
        b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n",
    ),
    *(
        b"Content-Encoding: gzip\r\n",
        b"Connection: close\r\n",
        b"Expect: x\r\n",
        b"Content-Type: multipart/form-data\r\n",
    ),
    *(
        b"Content-Type: multipart/form-data; boundary=1234\r\n",
        b"filename*=utf-8''%ff",
        b"name*0=a",
        b"99999999999999999999",
    ),
    *(
        b"../",
        b"//",
        b"\xe2\x80\xae",
        b"\xed\xa0\x80",
        b"A" * 500,
        b"a=b&" * 50,
        b"X: y\r\n" * 30,
        b"\x1f\x8b\x08",
    ),
)


def mutate(data: bytes, choose: random.Random) -> bytes:
    """``data`` with one to four changes."""
    for _ in range(choose.randint(1, 4)):
        position = choose.randrange(len(data) + 1)
        end = min(len(data), position + choose.randint(0, 8))
        match choose.randrange(6):
            case 0:
                data = data[:position] + bytes([choose.randrange(256)]) + data[position + 1 :]
            case 1:
                data = data[:position] + data[end:]
            case 2:
                data = data[:position] + choose.choice(DICTIONARY) + data[position:]
            case 3:
                data = data[:position] + choose.choice(DICTIONARY) + data[end:]
            case 4:
                data = data[:position] + data[position:end] * choose.randint(2, 20) + data[end:]
            case 5:
                data = data[:position]
    return data


def arbitrary(choose: random.Random, most: int = 300) -> bytes:
    """Bytes made of the dictionary and of nothing."""
    pieces = []
    for _ in range(choose.randint(0, 30)):
        pieces.append(
            choose.choice(DICTIONARY) if choose.random() < 0.6 else choose.randbytes(choose.randint(1, 5))
        )
    return b"".join(pieces)[:most]


class Everything(RequestHandler):
    """Looks at all of a request that is parsed lazily."""

    def get(self) -> None:
        request = self.request
        self.get_arguments("a")
        self.get_body_arguments("a")
        self.get_argument("f", None)
        self.get_browser_locale()
        self.get_signed_cookie("a")
        self.write(
            f"{len(request.arguments)} {len(request.files)} {len(request.cookies)} {len(request.headers)} "
            f"{request.host} {request.full_url()} {request.remote_ip} {len(request.body)}"
        )

    post = put = get


class FuzzServerTests(SecurityTestCase):
    timeout = 120

    def setUp(self) -> None:
        super().setUp()
        self.application = RecordingApplication(
            [("/form", Everything), ("/.*", Everything)],
            cookie_secret="secret",
            log_function=lambda handler: None,
        )
        self.options: dict[str, Any] = {
            "decompress_request": True,
            "max_body_size": 100_000,
            "xheaders": True,
        }

    def check_answer(self, data: bytes, sent: bytes) -> None:
        try:
            answers = parse_responses(data)
        except (ValueError, IndexError) as error:
            raise AssertionError(f"{sent!r} -> {data[:500]!r}: {error}") from error
        for answer in answers:
            # 500 would be an exception that nobody meant; 505 and 501 are meant.
            self.assertNotEqual(answer.status, 500, sent)

    async def test_malformed_requests_over_sockets(self) -> None:
        """79. 10,000 of them: each is answered or closed in time, nothing is logged as an error."""
        self.served = self.serve(self.application, **self.options)
        choose = random.Random(SEED)
        batches = 20

        def play(payloads: list[bytes]) -> list[tuple[bytes, bytes, float]]:
            results = []
            for payload in payloads:
                started = time.monotonic()
                received = b""
                with socket.create_connection(("127.0.0.1", self.served.port), timeout=10) as client:
                    try:
                        client.sendall(payload)
                        client.shutdown(socket.SHUT_WR)
                        while piece := client.recv(65536):
                            received += piece
                    except ConnectionResetError:
                        pass
                results.append((payload, received, time.monotonic() - started))
            return results

        before = 0
        slow = 0
        for batch in range(batches):
            payloads = [
                mutate(choose.choice(GOOD), choose) if choose.random() < 0.9 else arbitrary(choose)
                for _ in range(REQUESTS // batches)
            ]
            for payload, received, seconds in await deferToThread(play, payloads):
                self.check_answer(received, payload)
                self.assertLess(seconds, 8, payload)
                slow += seconds > 1
            self.assertEqual(self.logs.serious, [])
            self.logs.clear()
            self.application.seen.clear()
            self.flushLoggedErrors() and self.fail("an error was logged by Twisted")
            if batch == 2:
                gc.collect()
                before = sys.getallocatedblocks()
        await self.pause(0.1)
        del payloads, payload, received
        gc.collect()
        grown = sys.getallocatedblocks() - before
        self.assertLess(slow, 5)
        # The caches of header names and the like are bounded, and not full after three batches.
        self.assertLess(grown, 20_000)
        self.assertLessEqual(len(self.served.server._connections), 1)

    async def test_malformed_requests_in_pieces(self) -> None:
        """79. The same nonsense cut anywhere gives the same statuses as in one piece."""
        server = make_server(self.application, **self.options)
        choose = random.Random(SEED + 1)

        def talk(pieces: list[bytes]) -> list[int]:
            protocol, transport = self.memory_peer(server)
            for piece in pieces:
                if not transport.gone:
                    protocol.dataReceived(piece)
            data = transport.value()
            if not transport.gone:
                transport.loseConnection()
            return [answer.status for answer in parse_responses(data)]

        for number in range(min(REQUESTS, 3000) // 2):
            data = mutate(choose.choice(GOOD), choose)
            whole = talk([data])
            cuts = sorted(choose.randrange(len(data) + 1) for _ in range(choose.randint(1, 6)))
            pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
            # 100 Continue is for those who wait for it, which depends on when the body comes.
            final = [status for status in whole if status >= 200]
            self.assertEqual([s for s in talk([p for p in pieces if p]) if s >= 200], final, (data, cuts))
            if not number % 100:
                await self.pause()
        await self.pause(0.01)
        self.assertEqual(self.logs.serious, [])

    async def test_streamed_forms(self) -> None:
        """79. Malformed multipart bodies through the streaming parser, whole and in pieces."""
        self.application.settings["multipart_buffer_size"] = 0
        server = make_server(self.application, **self.options)
        choose = random.Random(SEED + 2)
        for number in range(min(REQUESTS, 3000) // 2):
            body = mutate(multipart(part("a"), part("f", b"12345\r\n--123", "x.txt"), part("b", b"")), choose)
            data = post_multipart(body, "/form")
            protocol, transport = self.memory_peer(server)
            cut = choose.randrange(len(data))
            protocol.dataReceived(data[:cut])
            protocol.dataReceived(data[cut:])
            self.check_answer(transport.value(), data)
            self.assertIn([a.status for a in parse_responses(transport.value())], ([200], [400], [413]), data)
            transport.loseConnection()
            if not number % 100:
                await self.pause()
        await self.pause(0.05)
        self.assertEqual(self.logs.serious, [])


class FuzzParserTests(SynchronousTestCase):
    """79. Every parser by itself: it returns, or raises what it says it raises."""

    ROUNDS = min(REQUESTS, 4000)

    def fuzz(
        self, parse: Callable[[bytes], object], *examples: bytes, allowed: tuple[type[Exception], ...]
    ) -> None:
        choose = random.Random(SEED + 3)
        slowest = 0.0
        for _ in range(self.ROUNDS):
            data = mutate(choose.choice(examples), choose) if choose.random() < 0.8 else arbitrary(choose)
            started = time.perf_counter()
            try:
                parse(data)
            except allowed:
                pass
            except Exception as error:
                raise AssertionError(f"{data!r}: {error!r}") from error
            slowest = max(slowest, time.perf_counter() - started)
        self.assertLess(slowest, 1.0)

    def fuzz_text(
        self, parse: Callable[[str], object], *examples: str, allowed: tuple[type[Exception], ...] = ()
    ) -> None:
        encoded = [example.encode() for example in examples]
        self.fuzz(lambda data: parse(data.decode("latin-1")), *encoded, allowed=allowed)
        self.fuzz(lambda data: parse(data.decode("utf-8", "replace")), *encoded, allowed=allowed)

    def test_headers(self) -> None:
        """79. ``HTTPHeaders.parse`` and header parameters."""
        self.fuzz_text(HTTPHeaders.parse, "A: b\r\nC: d\r\n", allowed=(HTTPInputError,))
        self.fuzz_text(
            _parse_header, "form-data; name=\"a\"; filename*=utf-8''b%20c", 'text/html; charset="x\\"y"'
        )

    def test_cookies(self) -> None:
        """79. ``parse_cookie`` and the cookies of a request."""
        self.fuzz_text(parse_cookie, 'a=b; c="d\\"e\\012"; =f; g')

        def morsels(text: str) -> object:
            headers = HTTPHeaders._from_dict({"Cookie": text})
            return HTTPServerRequest(method="GET", uri="/", headers=headers).cookies

        self.fuzz_text(morsels, 'a=b; c="d\\"e\\012"; =f; g')

    def test_forms(self) -> None:
        """79. Urlencoded and multipart, in memory and streamed."""
        self.fuzz(
            lambda data: parse_body_arguments("application/x-www-form-urlencoded", data, {}, {}),
            b"a=b&c=%41&d",
            allowed=(HTTPInputError,),
        )
        body = multipart(part("a"), part("f", b"12345\r\n--123", "x.txt"))
        files: dict[str, list[HTTPFile]] = {}
        self.fuzz(
            lambda data: parse_multipart_form_data(b"1234", data, {}, files), body, allowed=(HTTPInputError,)
        )

        def stream(data: bytes) -> None:
            parser = FormDataStream("multipart/form-data; boundary=1234")
            try:
                for start in range(0, len(data), 7):
                    parser.write(data[start : start + 7])
                parser.finish()
            finally:
                parser.close()

        self.fuzz(stream, body, allowed=(HTTPInputError,))

        def content_type(data: bytes) -> None:
            parse_body_arguments(data.decode("latin-1"), body, {}, {})

        self.fuzz(content_type, b"multipart/form-data; boundary=1234", allowed=(HTTPInputError,))

    def test_ranges(self) -> None:
        """79. ``Range``."""
        self.fuzz_text(_parse_request_range, "bytes=0-5", "bytes=-5", "bytes=1-2,3-")
        self.fuzz_text(lambda text: parse_range_set(text, 1000), "bytes=0-5", "bytes=-5", "bytes=1-2,3-")

    def test_escapes(self) -> None:
        """79. Percent-decoding, entities, links."""
        self.fuzz_text(lambda text: escape.url_unescape(text, encoding=None), "a%20b+c%ff")
        self.fuzz_text(escape.url_unescape, "a%20b+c%e2%82%ac", allowed=(UnicodeDecodeError,))
        self.fuzz_text(escape.xhtml_unescape, "&lt;&#65;&#x41;&amp;&nothing;")
        self.fuzz_text(escape.linkify, "see http://a.b/c?d=e&f=(g) or www.x.y/z.")
        self.fuzz(
            lambda data: escape.parse_qs_bytes(data, keep_blank_values=True),
            b"a=b&c=%41",
            allowed=(ValueError,),
        )

    def test_signed_values(self) -> None:
        """79. Signed values and their key version; locales by name."""
        logs = LogCapture()
        self.addCleanup(logs.close)
        example = "2|1:0|10:1300000000|4:user|4:YWRh|" + "0" * 64
        for secret in ("secret", {1: "a", 2: "b"}):
            self.fuzz_text(
                lambda text, s=secret: decode_signed_value(s, "user", text, min_version=1), example
            )
        self.fuzz_text(get_signature_key_version, example)
        self.fuzz_text(lambda text: Locale.get_closest(text), "en_US", "pt-BR")
