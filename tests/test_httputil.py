"""Headers, requests, forms, cookies, ranges and dates; where it has an opinion, against Tornado's."""

from __future__ import annotations

import copy
import datetime
import doctest
import pickle
import random
import time
from urllib.parse import quote

from tornado import httputil as tornado_httputil
from twisted.trial.unittest import SynchronousTestCase

from cycloneish import httputil
from cycloneish.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPInputError,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
    canonical_name,
    cookies,
    errors,
    format_timestamp,
    forms,
    grammar,
    headers,
    parse_cookie,
    parse_range_set,
    pieces,
    ranges,
    url_concat,
    urls,
    valid_host,
)
from tests.timing import ratio

TEN = "X" * 10


def doctest_failures(module):
    return doctest.testmod(module).failed


class DoctestTest(SynchronousTestCase):
    def test_examples_in_the_docstrings(self):
        for module in (cookies, errors, forms, grammar, headers, pieces, ranges, urls):
            self.assertEqual(doctest_failures(module), 0, module)


class CanonicalNameTest(SynchronousTestCase):
    def test_http_header_case(self):
        for name in ("content-type", "CONTENT-TYPE", "Content-Type", "coNtent-TYPE"):
            self.assertEqual(canonical_name(name), "Content-Type")
        self.assertEqual(canonical_name("etag"), "Etag")
        self.assertEqual(canonical_name("x_y!"), "X_y!")

    def test_no_token(self):
        for name in ("", "a b", "a:", "a\n", "é", "a\0", " a", "a ", "a\x85"):
            self.assertRaises(HTTPInputError, canonical_name, name)

    def test_cache_is_bounded_in_entries_and_in_length(self):
        for n in range(3000):
            canonical_name(f"x-name-{n}")
        canonical_name("x" * 5000)
        self.assertLessEqual(len(grammar._names), 1000)
        self.assertLess(max(map(len, grammar._names)), 100)


class HTTPHeadersTest(SynchronousTestCase):
    def test_names_in_any_case(self):
        h = HTTPHeaders({"content-TYPE": "a"})
        self.assertEqual(h["Content-Type"], "a")
        self.assertEqual(h["CONTENT-type"], "a")
        self.assertEqual(h.get("content-type"), "a")
        self.assertIn("content-type", h)
        self.assertNotIn("x", h)
        self.assertNotIn(5, h)
        self.assertEqual(list(h), ["Content-Type"])
        del h["content-type"]
        self.assertRaises(KeyError, h.__delitem__, "content-type")
        self.assertRaises(KeyError, h.__getitem__, "content-type")
        self.assertEqual(len(h), 0)

    def test_ways_to_make_them(self):
        expected = [("A", "1"), ("B", "2")]
        for made in [
            HTTPHeaders({"a": "1", "b": "2"}),
            HTTPHeaders([("a", "1"), ("b", "2")]),
            HTTPHeaders(a="1", b="2"),
            HTTPHeaders(HTTPHeaders({"a": "1", "b": "2"})),
            HTTPHeaders._from_dict({"A": "1", "B": "2"}),
            HTTPHeaders({"a": ["1"], "b": b"2"}),
            HTTPHeaders({"a": 1, "b": ("2",)}),
            HTTPHeaders.parse("a: 1\r\nb:2\r\n\r\n"),
            HTTPHeaders.parse("a:1\nb: \t2\t "),
        ]:
            self.assertEqual(list(made.get_all()), expected)
        self.assertEqual(HTTPHeaders({"a": ["1", b"2", 3]}).get_list("a"), ["1", "2", "3"])

    def test_repeated_headers(self):
        h = HTTPHeaders()
        for value in "123":
            h.add("x", value)
        h.add("Y", "")
        self.assertEqual(h["x"], "1,2,3")
        self.assertEqual(h.get("X"), "1,2,3")
        self.assertEqual(h.get_list("x"), ["1", "2", "3"])
        self.assertEqual(h.get_list("y"), [""])
        self.assertEqual(h.get_list("z"), [])
        self.assertEqual(list(h.get_all()), [("X", "1"), ("X", "2"), ("X", "3"), ("Y", "")])
        self.assertEqual(str(h), "X: 1\nX: 2\nX: 3\nY: \n")
        self.assertEqual(HTTPHeaders.parse(str(h)), h)
        h["X"] = "4"
        self.assertEqual(h.get_list("x"), ["4"])

    def test_get_list_does_not_give_out_the_inside(self):
        h = HTTPHeaders({"a": ["1", "2"]})
        h.get_list("a").append("3")
        self.assertEqual(h["a"], "1,2")

    def test_copies_share_nothing(self):
        h = HTTPHeaders({"a": ["1", "2"], "b": "3"})
        for other in (
            h.copy(),
            copy.copy(h),
            copy.deepcopy(h),
            HTTPHeaders(h),
            pickle.loads(pickle.dumps(h)),
        ):
            self.assertEqual(other, h)
            other.add("a", "x")
            other["c"] = "y"
            self.assertEqual(list(h.get_all()), [("A", "1"), ("A", "2"), ("B", "3")])

    def test_mapping_methods(self):
        h = HTTPHeaders(a="1")
        self.assertEqual(h.setdefault("A", "2"), "1")
        self.assertEqual(h.setdefault("b", "2"), "2")
        self.assertEqual(h.pop("b"), "2")
        self.assertIsNone(h.get("b"))
        self.assertEqual(h.get("b", "x"), "x")
        self.assertEqual(h.get("no token", default=0), 0)
        self.assertEqual(h, {"A": "1"})
        self.assertEqual(repr(h), "HTTPHeaders([('A', '1')])")
        h.clear()
        self.assertFalse(h)

    def test_bad_names_and_values_are_refused(self):
        for name in ("", "a b", "a:", "é"):
            self.assertRaises(HTTPInputError, HTTPHeaders().add, name, "x")
            self.assertRaises(HTTPInputError, HTTPHeaders().__setitem__, name, "x")
            self.assertNotIn(name, HTTPHeaders())
        for value in ("a\r\nb: c", "a\rb", "a\nb", "a\0", "\x7f", " a", "a ", "\t", "\u20ac"):
            self.assertRaises(HTTPInputError, HTTPHeaders().add, "a", value)
        for value in ("", "a", "a b", "a\tb", "\x80\xff"):
            HTTPHeaders().add("a", value)
        h = HTTPHeaders()
        h.add("a", b"\xe9")
        self.assertEqual(h["a"], "é")

    def test_characters_of_forms(self):
        h = HTTPHeaders.parse("a: \u20ac\u2028x", _chars_are_bytes=False)
        self.assertEqual(h["a"], "\u20ac\u2028x")
        self.assertRaises(HTTPInputError, HTTPHeaders.parse, "a: x\rb", _chars_are_bytes=False)

    def test_malformed_lines_are_refused(self):
        for text in ("nocolon", "a: b\r\n folded", "\tx: y", "a : b", ": b", "a: b\rc: d", "a: b\r\r\n"):
            self.assertRaises(HTTPInputError, HTTPHeaders.parse, text)

    def test_only_crlf_and_lf_end_a_line(self):
        for char in "\x85\x0b\x0c\x1c\x1d\x1e\u2028":
            with_char = f"a: b{char}c: d"
            try:
                parsed = HTTPHeaders.parse(with_char, _chars_are_bytes=False)
            except HTTPInputError:
                continue
            self.assertEqual(list(parsed.get_all()), [("A", f"b{char}c: d")])

    def test_linear_time(self):
        def add(n):
            h = HTTPHeaders()
            for _ in range(n):
                h.add("X", "a")
            h["X"]

        self.assertLess(ratio(add, 5_000, 50_000), 25)
        self.assertLess(ratio(lambda n: HTTPHeaders.parse("X: a\r\n" * n), 5_000, 50_000), 25)


class ParseHeaderTest(SynchronousTestCase):
    parse = staticmethod(headers._parse_header)

    def test_values(self):
        for line, expected in [
            ("text/html", ("text/html", {})),
            ("a; b=c", ("a", {"b": "c"})),
            (' a ;B= c ; D="e;f" ;g', ("a", {"b": "c", "d": "e;f"})),
            (r'a; b="\"\\x\y"', ("a", {"b": r'"\x\y'})),
            ('a; b="unclosed; c=d', ("a", {"b": "unclosed; c=d"})),
            ('a; b="x"junk; c=d', ("a", {"b": "x", "c": "d"})),
            ("a; b=", ("a", {"b": ""})),
            ('a; b=""', ("a", {"b": ""})),
            ("a;;;b=c;", ("a", {"b": "c"})),
            ("a; b=1; b=2", ("a", {"b": "2"})),
            ("a; b*=utf-8''%c3%a4; b=x", ("a", {"b": "ä"})),
            ("a; b=x; b*=iso-8859-1'en'%e4", ("a", {"b": "ä"})),
            ("a; b*=nothing''%e4", ("a", {"b*": "nothing''%e4"})),
            ("a; b*=utf-8''%e4", ("a", {"b*": "utf-8''%e4"})),
            ("a; b*=x", ("a", {"b*": "x"})),
            ("", ("", {})),
        ]:
            self.assertEqual(self.parse(line), expected, line)

    def test_extended_values_can_be_left_alone(self):
        self.assertEqual(self.parse("a; b*=utf-8''x; b=y", extended=False)[1]["b"], "y")

    def test_agrees_with_tornado(self):
        chance = random.Random(3)
        values = ["x", '"a b"', '"a;b"', r'"\"q"', r'"back\\slash"', "utf", '""', "a.txt"]
        for _ in range(1000):
            line = "form-data" + "".join(
                f"{chance.choice([';', '; ', ' ; '])}{chance.choice(['name', 'filename', 'X'])}"
                f"={chance.choice(values)}"
                for _ in range(chance.randint(0, 4))
            )
            self.assertEqual(self.parse(line), tornado_httputil._parse_header(line), line)

    def test_linear_time(self):
        for text in ('; a="%s"', "; a=%s", "%s", '; a="\\%s', "; %s=b"):
            for unit in (";", '"', "\\", " ", ";a", '\\"', "="):
                spent = ratio(lambda n, t=text, u=unit: self.parse("x" + t % (u * n)), 3_000, 30_000)
                self.assertLess(spent, 40, (text, unit))


class HostTest(SynchronousTestCase):
    def test_valid(self):
        for host in [
            "example.com",
            "example.com:80",
            "example.com:",
            "EXAMPLE",
            "127.0.0.1:8888",
            "[::1]",
            "[::1]:80",
            "[fe80::1%25eth0]",
            "[v1.a:b]",
            "a_b-c.d~e",
            "a%20b",
            "",
            "xn--bcher-kva.example",
            "a!$&'()*+;=b",
        ]:
            self.assertTrue(valid_host(host), host)

    def test_invalid(self):
        for host in [
            "a b",
            "a/b",
            "a@b",
            "a,b",
            "a\tb",
            "a\0",
            "a\n",
            "a?b",
            "a#b",
            "a\\b",
            "<a>",
            "a:b",
            "a:80:80",
            "::1",
            "[::1",
            "::1]",
            "[x]",
            "[::1]a",
            "a:123456",
            "a:\uff11",
            "é",
            "a%2",
            "a%zz",
            "a[b]",
            '"',
            "a|b",
            "a^b",
        ]:
            self.assertFalse(valid_host(host), host)

    def test_answers_are_cached_within_bounds(self):
        for n in range(3000):
            valid_host(f"h{n}")
        valid_host("x" * 5000)
        self.assertLessEqual(len(grammar._hosts), 1000)
        self.assertLess(max(map(len, grammar._hosts)), 100)

    def test_linear_time(self):
        for unit in ("a", "%20", "[", ":", "1", "a:"):
            self.assertLess(ratio(lambda n, u=unit: valid_host(u * n + "/"), 5_000, 50_000), 40, unit)

    def test_split_host_and_port(self):
        for netloc in ("a:80", "a", "[::1]:80", "[::1]", ":80", "a:", "a:b", "a:1:2", "", "a:\uff11"):
            expected = tornado_httputil.split_host_and_port(netloc) if netloc.isascii() else (netloc, None)
            self.assertEqual(httputil.split_host_and_port(netloc), expected, netloc)


class StartLineTest(SynchronousTestCase):
    def test_request(self):
        self.assertEqual(httputil.parse_request_start_line("GET /a?b HTTP/1.1"), ("GET", "/a?b", "HTTP/1.1"))
        for line in [
            "",
            "GET",
            "GET /",
            "GET / HTTP/1.1 ",
            " GET / HTTP/1.1",
            "GET  / HTTP/1.1",
            "GET /\0 HTTP/1.1",
            "GET /a b HTTP/1.1",
            "GET / http/1.1",
            "GET / HTTP/1.11",
            "G(T / HTTP/1.1",
            "GET /\u20ac HTTP/1.1",
            "GET /\r HTTP/1.1",
            "GET / HTTP/1.1\n",
        ]:
            with self.assertRaises(HTTPInputError) as caught:
                httputil.parse_request_start_line(line)
            self.assertEqual(str(caught.exception), "Malformed HTTP request line")
            self.assertEqual(caught.exception.status, 400)
        with self.assertRaises(HTTPInputError) as caught:
            httputil.parse_request_start_line("GET / HTTP/2.0")
        self.assertEqual(caught.exception.status, 505)

    def test_response(self):
        parse = httputil.parse_response_start_line
        self.assertEqual(parse("HTTP/1.1 200 OK"), ("HTTP/1.1", 200, "OK"))
        self.assertEqual(parse("HTTP/1.0 404 Not Found").reason, "Not Found")
        self.assertEqual(parse("HTTP/1.1 200 ").reason, "")
        for line in ("HTTP/1.1 200", "HTTP/1.1 20 OK", "200 OK", "HTTP/1.1 200 O\nK", "HTTP/2.0 200 OK"):
            self.assertRaises(HTTPInputError, parse, line)

    def test_reason_phrases(self):
        self.assertEqual(httputil.responses[404], "Not Found")
        self.assertEqual(httputil.responses[418], "I'm a Teapot")


class CookieTest(SynchronousTestCase):
    def test_agrees_with_tornado(self):
        chance = random.Random(5)
        for _ in range(3000):
            header = "".join(chance.choices('ab= ;,"\\0127é\t', k=chance.randint(0, 30)))
            self.assertEqual(parse_cookie(header), tornado_httputil.parse_cookie(header), header)

    def test_linear_time(self):
        for unit in ('"', "\\", "\\134", ";", "=", "a=b;", "; "):
            self.assertLess(
                ratio(lambda n, u=unit: parse_cookie('a="' + u * n + '"'), 5_000, 50_000), 40, unit
            )


class RangeTest(SynchronousTestCase):
    def test_agrees_with_tornado(self):
        for header in [
            "bytes=0-9",
            "bytes=0-",
            "bytes=-4",
            "bytes=-0",
            "bytes=26",
            "bytes=10-3",
            "bytes=",
            "asdf",
            "bytes",
            "bytes=1-2,3-4",
            "bytes=a-b",
            "items=1-2",
            " bytes = 1 - 2 ",
            "",
            "bytes=1-2-3",
        ]:
            self.assertEqual(
                ranges._parse_request_range(header), tornado_httputil._parse_request_range(header), header
            )

    def test_only_ascii_digits_and_no_signs(self):
        for value in ("\uff11-2", "--1", "+1-2", "1_0-2", "\u0661-", "-\u0662", "9" * 5000 + "-"):
            self.assertIsNone(ranges._parse_request_range("bytes=" + value))
            self.assertIsNone(parse_range_set("bytes=" + value, 100))

    def test_several_ranges(self):
        for header, expected in [
            ("bytes=0-0", [(0, 1)]),
            ("bytes=0-9,20-29", [(0, 10), (20, 30)]),
            ("bytes=20-29, 0-9", [(20, 30), (0, 10)]),
            ("bytes=0-9,5-14", [(0, 15)]),
            ("bytes=0-9,10-14", [(0, 15)]),
            ("bytes=50-59,0-9,5-55", [(0, 60)]),
            ("bytes=0-,0-,0-", [(0, 100)]),
            ("bytes=-5,90-", [(90, 100)]),
            ("bytes=-0", []),
            ("bytes=100-", []),
            ("bytes=-1000", [(0, 100)]),
            ("bytes=0-99999999999999999999", [(0, 100)]),
            ("bytes=100-,1-1", [(1, 2)]),
            ("bytes=5-4", None),
            ("bytes=-", None),
            ("bytes=", None),
            ("bytes=1-2,", None),
            ("bytes=26", None),
            ("items=0-1", None),
            ("0-1", None),
        ]:
            self.assertEqual(parse_range_set(header, 100), expected, header)
        self.assertEqual(parse_range_set("bytes=0-", 0), [])

    def test_number_of_ranges(self):
        self.assertEqual(
            len(parse_range_set("bytes=" + ",".join(f"{3 * n}-{3 * n}" for n in range(100)), 999)), 100
        )
        self.assertIsNone(parse_range_set("bytes=" + ",".join(["0-0"] * 101), 999))

    def test_content_range(self):
        for start, end in ((None, None), (1, 3), (None, 1), (2, None)):
            self.assertEqual(
                ranges._get_content_range(start, end, 4), tornado_httputil._get_content_range(start, end, 4)
            )


class UrlTest(SynchronousTestCase):
    def test_url_concat_agrees_with_tornado(self):
        for url in (
            "http://h/p",
            "http://h/p?",
            "/p?x&y=1",
            "http://h/p;q?a=b#f",
            "?a",
            "p#f",
            "//h/ü?b=%20",
        ):
            for args in (None, {}, {"c": "d e"}, [("c", "1"), ("c", "ü")], (("c", "/"),)):
                self.assertEqual(url_concat(url, args), tornado_httputil.url_concat(url, args), (url, args))
        self.assertRaises(TypeError, url_concat, "/", "a=b")

    def test_qs_to_qsl(self):
        self.assertEqual(list(httputil.qs_to_qsl({"a": ["1", "2"], "b": []})), [("a", "1"), ("a", "2")])

    def test_encode_username_password(self):
        self.assertEqual(httputil.encode_username_password("u\u0308", b"\xff"), "ü".encode() + b":\xff")
        self.assertEqual(httputil.encode_username_password(b"a", "b"), b"a:b")

    def test_quoting_of_what_we_never_see(self):
        self.assertEqual(url_concat("/", {"a": quote("&")}), "/?a=%2526")


class FormatTimestampTest(SynchronousTestCase):
    def test_agrees_with_tornado(self):
        utc = datetime.UTC
        for stamp in [
            0,
            1359312200,
            1359312200.999,
            -1.5,
            253402300799,
            time.gmtime(1e9),
            tuple(time.gmtime(1e9)),
            datetime.datetime(2013, 1, 27, 18, 43, 20),
            datetime.datetime(2013, 1, 27, tzinfo=utc),
            datetime.datetime(2013, 1, 1, 3, tzinfo=datetime.timezone(datetime.timedelta(hours=9))),
        ]:
            self.assertEqual(format_timestamp(stamp), tornado_httputil.format_timestamp(stamp), stamp)

    def test_every_day_and_month(self):
        for day in range(0, 400, 13):
            stamp = 1_700_000_000 + day * 86400
            self.assertEqual(format_timestamp(stamp), tornado_httputil.format_timestamp(stamp))

    def test_other_types(self):
        self.assertRaises(TypeError, format_timestamp, "now")


class InterfacesTest(SynchronousTestCase):
    def test_what_must_be_implemented(self):
        connection = HTTPConnection()
        self.assertIsNone(connection.context)
        for name, args in [
            ("write_headers", (None, None)),
            ("write", (b"",)),
            ("finish", ()),
            ("set_close_callback", (None,)),
            ("set_max_body_size", (1,)),
            ("set_body_timeout", (1,)),
            ("detach", ()),
        ]:
            self.assertRaises(NotImplementedError, getattr(connection, name), *args)
        self.assertRaises(NotImplementedError, HTTPServerConnectionDelegate().start_request, None, None)

    def test_what_may_be_left_out(self):
        delegate = HTTPMessageDelegate()
        self.assertIsNone(delegate.headers_received(None, None))
        self.assertIsNone(delegate.data_received(b""))
        delegate.finish()
        delegate.on_connection_close()
        HTTPServerConnectionDelegate().on_close(None)


class ErrorsTest(SynchronousTestCase):
    def test_status(self):
        self.assertEqual(HTTPInputError("x").status, 400)
        self.assertEqual(HTTPInputError("x", status=413).status, 413)
        self.assertEqual(str(HTTPInputError("x", status=413)), "x")
        self.assertEqual(HTTPInputError.status, 400)
