"""Linear time: twice the input takes about twice the time, whatever the input is made of."""

from __future__ import annotations

import datetime
import importlib
import pkgutil
import re
import time
from typing import Any

from cycloneish import escape, locale
from cycloneish.http.head import parse_request_head
from cycloneish.http.limits import Limits
from cycloneish.http.multipart import FormDataStream
from cycloneish.httpserver import HTTPServer
from cycloneish.httputil import (
    HTTPHeaders,
    HTTPInputError,
    HTTPServerRequest,
    parse_cookie,
    parse_multipart_form_data,
    parse_range_set,
)
from cycloneish.httputil.headers import _parse_header
from cycloneish.httputil.ranges import _parse_request_range
from cycloneish.routing import HostMatches, PathMatches
from cycloneish.template import ParseError, Template
from cycloneish.template.parser import filter_whitespace
from cycloneish.web import Application, RequestHandler
from tests.security.support import SecurityTestCase, multipart, part, request

WIDE = Limits(max_header_size=1 << 30, max_request_line=1 << 30, max_header_fields=1 << 30)


#: What bad regular expressions choke on, many times over.
PIECES = (*' -;"\\=,/.0a&%\r\n\t:', "\t ", "\r\n", "x=y;", 'x="y";', "a.", "%41")


def ignoring_refusal(function: Any) -> Any:
    """The same function; what it refuses may be refused, but in linear time."""

    def run(data: Any) -> object:
        try:
            return function(data)
        except (HTTPInputError, ParseError, ValueError):
            return None

    return run


class HeadScaleTests(SecurityTestCase):
    """21, 22, 25, 26. What stands in a head."""

    def test_cookies_with_quotes_and_backslashes(self) -> None:
        """21. Cookies with ``"`` and ``\\``."""
        for piece in ("\\\\", '\\"', '"', "\\1", "\\042", ";", '=";', 'a="b";', "a=b; ", " ", "="):
            self.assert_linear(parse_cookie, lambda n, piece=piece: 'a="' + piece * n + '"', 20_000)

    def test_cookies_of_a_request(self) -> None:
        """21. The same through ``request.cookies``, which makes Morsels of them."""

        def cookies(value: str) -> object:
            made = HTTPServerRequest(method="GET", uri="/", headers=HTTPHeaders({"Cookie": value}))
            return made.cookies

        for piece in ('a="\\"";', "a=b;", "a[]=b;"):
            self.assert_linear(cookies, lambda n, piece=piece: piece * n, 2_000)
        self.assert_linear(cookies, lambda n: "".join(f"a{i}=b;" for i in range(n)), 1_000)

    def test_repeated_headers(self) -> None:
        """22. One name n times, n names, one long value, in the engine's parser."""

        def parse(head: bytes) -> object:
            return parse_request_head(head, WIDE).headers.get("X")

        def head(*lines: str) -> bytes:
            return "\r\n".join(["GET / HTTP/1.1", "Host: a", *lines]).encode()

        self.assert_linear(parse, lambda n: head(*["X: a"] * n), 5_000)
        self.assert_linear(parse, lambda n: head(*(f"X{i}: a" for i in range(n))), 3_000)
        self.assert_linear(parse, lambda n: head("X: " + "a" * n), 200_000)
        self.assert_linear(parse, lambda n: head("X: " + " \t" * n + "a" + " \t" * n), 100_000)
        self.assert_linear(ignoring_refusal(parse), lambda n: head("X: " + "\x00" * n), 200_000)
        self.assert_linear(ignoring_refusal(parse), lambda n: head("X" + " " * n + ": a"), 200_000)

    def test_repeated_headers_in_the_mapping(self) -> None:
        """22. ``HTTPHeaders.add`` and ``parse``, read in between and at the end."""

        def fill(count: int) -> object:
            headers = HTTPHeaders()
            for _ in range(count):
                headers.add("X", "a")
            return headers["X"], list(headers.get_all()), headers.copy()

        self.assert_linear(fill, lambda n: n, 3_000)
        self.assert_linear(HTTPHeaders.parse, lambda n: "X: a\r\n" * n, 3_000)
        self.assert_linear(ignoring_refusal(HTTPHeaders.parse), lambda n: "X: a\r\n" + " b\r\n" * n, 3_000)

    def test_ranges(self) -> None:
        """25. Many ranges, long numbers, white space."""

        def parse(value: str) -> object:
            return _parse_request_range(value), parse_range_set(value, 1000, max_ranges=1 << 30)

        for piece in ("0-1,", "0-0, 5-900,", "-1,", ",", " ", "\t", "-", "1"):
            self.assert_linear(ignoring_refusal(parse), lambda n, piece=piece: "bytes=" + piece * n, 5_000)
        self.assert_linear(parse, lambda n: "bytes=" + ",".join(f"{i * 2}-{i * 2}" for i in range(n)), 3_000)

    def test_accept_language(self) -> None:
        """26. Accept-Language with many, long and malformed entries."""
        application = Application([])

        def browser_locale(value: str) -> object:
            made = HTTPServerRequest(
                method="GET",
                uri="/",
                headers=HTTPHeaders({"Accept-Language": value}),
                connection=_Connection(),
            )
            return RequestHandler(application, made).get_browser_locale()

        for piece in ("en,", "xx-YY;q=0.5,", ";q=,", "a-", ";", "-", "q=1;q=1;", " "):
            self.assert_linear(browser_locale, lambda n, piece=piece: piece * n, 1_000)
        self.assert_linear(browser_locale, lambda n: ",".join(f"x{i}" for i in range(n)), 1_000)

    def test_header_parameters(self) -> None:
        """23. ``;`` inside and outside quotes, backslashes, continued parameters."""
        for piece in (";", '";', "\\", '\\"', "a=b;", "a*0=b;", " ", '"', "=", "a*=utf-8''%41;"):
            for start in ("form-data; x=", 'form-data; x="', ""):
                self.assert_linear(
                    ignoring_refusal(_parse_header), lambda n, s=start, p=piece: s + p * n, 3_000
                )


class BodyScaleTests(SecurityTestCase):
    """23, 24. What stands in a body."""

    BODIES = (b"\r", b"\n", b"\r\n", b"\r\n-", b"\r\n--", b"\r\n--123", b"\r\n--12345", b"--1234", b"-")

    def test_boundary_like_bodies_in_memory(self) -> None:
        """23. Contents that look like the beginning of a boundary over and over."""

        def parse(body: bytes) -> None:
            parse_multipart_form_data(b"1234", body, {}, {})

        for piece in self.BODIES:
            body = lambda n, piece=piece: multipart(part("a", piece * n))  # noqa: E731
            self.assert_linear(ignoring_refusal(parse), body, 20_000)

    def test_boundary_like_bodies_in_a_stream(self) -> None:
        """23. The same in the streaming parser, in pieces of 4 KiB and of 61 bytes."""

        def parser(size: int) -> Any:
            def parse(body: bytes) -> None:
                stream = FormDataStream("multipart/form-data; boundary=1234")
                try:
                    for start in range(0, len(body), size):
                        stream.write(body[start : start + size])
                    stream.finish()
                finally:
                    stream.close()

            return ignoring_refusal(parse)

        for piece in self.BODIES:
            body = lambda n, piece=piece: multipart(part("a", piece * n))  # noqa: E731
            self.assert_linear(parser(4096), body, 10_000)
        self.assert_linear(parser(61), lambda n: multipart(part("a", b"\r" * n)), 10_000)
        self.assert_linear(parser(61), lambda n: multipart(part("a", b"\r\n--123" * n)), 2_000)

    def test_part_headers(self) -> None:
        """23. Long and odd headers of a part."""

        def parse(body: bytes) -> None:
            parse_multipart_form_data(b"1234", body, {}, {})

        for piece in (b";", b'\\"', b"a=b;", b" ", b'"', b"\xc3\xa9"):
            head = lambda n, piece=piece: multipart(  # noqa: E731
                b'Content-Disposition: form-data; x="' + piece * n + b'"; name="a"\r\n\r\nb'
            )
            self.assert_linear(ignoring_refusal(parse), head, 500)

    def test_chunked_bodies(self) -> None:
        """23. Many small chunks, delivered at once and byte by byte, through the engine."""

        class Count(RequestHandler):
            def post(self) -> None:
                self.write(str(len(self.request.body)))

        server = HTTPServer(Application([("/", Count)], log_function=lambda handler: None))
        head = request("/", "Transfer-Encoding: chunked", method="POST")

        def send(data: tuple[bytes, int]) -> None:
            body, step = data
            protocol, transport = self.memory_peer(server)
            protocol.dataReceived(head)
            for start in range(0, len(body), step):
                protocol.dataReceived(body[start : start + step])
            transport.loseConnection()

        self.assert_linear(send, lambda n: (b"1\r\nx\r\n" * n + b"0\r\n\r\n", 65536), 1_000)
        self.assert_linear(send, lambda n: (b"1\r\nx\r\n" * n + b"0\r\n\r\n", 7), 300)
        self.assert_linear(send, lambda n: (b"%x\r\n" % n + b"x" * n + b"\r\n0\r\n\r\n", 1), 2_000)
        return self.pause()

    def test_a_head_in_single_bytes(self) -> None:
        """22. A head that comes byte by byte is not read anew for each byte."""
        server = HTTPServer(Application([]), max_header_size=1 << 20)

        def send(data: bytes) -> None:
            protocol, transport = self.memory_peer(server)
            for start in range(0, len(data), 16):
                protocol.dataReceived(data[start : start + 16])
            transport.loseConnection()

        self.assert_linear(send, lambda n: b"GET / HTTP/1.1\r\nX: " + b"a" * n, 16_000)
        self.assert_linear(send, lambda n: b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * (n // 6), 16_000)
        return self.pause()

    def test_percent_decoding(self) -> None:
        """24. Percent-decoding of paths, queries and bodies, right and wrong escapes."""
        for piece in ("%41", "%", "%zz", "%e2%82%ac", "%ff", "+", "a", "%4"):
            self.assert_linear(ignoring_refusal(escape.url_unescape), lambda n, p=piece: p * n, 20_000)
            self.assert_linear(
                lambda data: escape.url_unescape(data, encoding=None), lambda n, p=piece: p * n, 20_000
            )
        for piece in (b"a=%41&", b"&", b"=", b"%&", b"a", b"a=b&"):
            self.assert_linear(
                ignoring_refusal(lambda data: escape.parse_qs_bytes(data, keep_blank_values=True)),
                lambda n, p=piece: p * n,
                5_000,
            )


class _Connection:
    """What a handler needs of a connection when it is made by hand."""

    context = None

    def set_close_callback(self, callback: object) -> None:
        pass


class TextScaleTests(SecurityTestCase):
    """27, 28. What an application does with text from outside."""

    def test_linkify(self) -> None:
        """27. linkify on what looks like URLs."""
        for piece in (
            *(
                "http://a",
                "http://",
                "www.",
                "www.a.",
                "a.b.c/",
                "(",
                "http://a(b",
                "&amp;",
                "://",
                "a@b.",
                "http://a&quot;",
            ),
            *(".", "/", "http:", ";", "http://a.b/c?d=e&amp;", "((((www.a.b", ")", "&", "&lt;"),
        ):
            self.assert_linear(escape.linkify, lambda n, p=piece: p * n, 1_000)
            self.assert_linear(
                lambda text: escape.linkify(text, shorten=True),
                lambda n, p=piece: "http://a.b/" + p * n,
                1_000,
            )

    def test_squeeze_and_escape(self) -> None:
        """27. White space and entities."""
        for piece in (" ", "\x00", "\t\n", "&", "&amp;", "&#", "&#x", "<"):
            for function in (escape.squeeze, escape.xhtml_escape, escape.xhtml_unescape):
                self.assert_linear(function, lambda n, p=piece: p * n, 5_000)

    def test_template_white_space(self) -> None:
        """27. Template white space, in every mode, and templates of many small pieces."""
        for mode in ("all", "single", "oneline"):
            for piece in (" ", "\n", " \n", "\t \n ", "a \n"):
                self.assert_linear(
                    lambda text, mode=mode: filter_whitespace(mode, text), lambda n, p=piece: p * n, 5_000
                )
        for piece in ("{", "{{!", "{ {", "{#x#}", "a\n"):
            self.assert_linear(ignoring_refusal(Template), lambda n, p=piece: p * n, 500)

    def test_format_date(self) -> None:
        """27. ``format_date`` with dates far away and numbers with many digits."""
        english = locale.get("en_US")
        for date in (datetime.datetime.min, datetime.datetime.max, 0, -(10**9), 10**10):
            self.assertIsInstance(english.format_date(date), str)
        self.assert_linear(english.friendly_number, lambda n: int("1" * n), 500, factor=4.5)

    def test_routes(self) -> None:
        """28. Matching of paths and hosts against patterns of the usual kinds."""
        for pattern in (
            r"/a/(.*)",
            r"/a/([^/]+)/b",
            r"/(?P<x>[^/]+)/?",
            r"/items/(\d+)",
            r"/.*",
            r"/static/(.*)",
        ):
            matcher = PathMatches(pattern)
            for piece in ("a", "/", "a/", "%41", "1", "/a"):

                def match(path: str, matcher: PathMatches = matcher) -> object:
                    return matcher.match(HTTPServerRequest(method="GET", uri=path))

                self.assert_linear(match, lambda n, p=piece: "/a/" + p * n, 5_000)
        for piece in ("a", "a.", "-", "1."):
            made = lambda n, p=piece: HTTPServerRequest(  # noqa: E731
                method="GET", uri="/", host=p * n, headers=HTTPHeaders()
            )
            self.assert_linear(HostMatches(r".*\.example\.com").match, made, 5_000)

    def test_our_own_patterns_have_no_nested_repeats(self) -> None:
        """28. Every regular expression of the package, run on what makes a bad one explode."""
        for name, pattern in sorted(_package_patterns().items()):
            for piece in PIECES:
                text = piece * 3_000 + "\x00"
                data: Any = text.encode() if isinstance(pattern.pattern, bytes) else text

                def search(data: Any, pattern: re.Pattern[Any] = pattern) -> None:
                    pattern.match(data)
                    pattern.fullmatch(data)

                self.assert_fast(search, data, f"{name} on {piece!r}")

    def assert_fast(self, run: Any, data: Any, what: str) -> None:
        best = float("inf")
        for _ in range(3):
            started = time.perf_counter()
            run(data)
            best = min(best, time.perf_counter() - started)
            if best < 0.02:
                return
        self.fail(f"{what} took {best:.3f} s")


def _package_patterns() -> dict[str, re.Pattern[Any]]:
    """The compiled patterns in the modules of the package that read what clients send."""
    found: dict[str, re.Pattern[Any]] = {}
    for package_name in ("cycloneish.http", "cycloneish.httputil", "cycloneish.web"):
        package = importlib.import_module(package_name)
        for info in pkgutil.iter_modules(package.__path__, package_name + "."):
            found.update(_patterns_of(importlib.import_module(info.name)))
    for name in ("escape", "signing", "routing", "locale", "log"):
        found.update(_patterns_of(importlib.import_module(f"cycloneish.{name}")))
    return found


def _patterns_of(module: Any) -> dict[str, re.Pattern[Any]]:
    found = {}
    for name, value in vars(module).items():
        pattern = value if isinstance(value, re.Pattern) else getattr(value, "__self__", None)
        if isinstance(pattern, re.Pattern):
            found[f"{module.__name__}.{name}"] = pattern
    return found
