"""Request heads: what is read, and what is refused with which status."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cycloneish.http.head import CHUNKED, check_partial_head, parse_request_head
from cycloneish.http.limits import Limits
from cycloneish.httputil import HTTPInputError

LIMITS = Limits()


def parse(*lines: str, limits: Limits = LIMITS):
    return parse_request_head("\r\n".join(lines).encode("latin-1"), limits)


class Accepted(SynchronousTestCase):
    def test_start_line_and_headers(self) -> None:
        head = parse("GET /a?b=c HTTP/1.1", "host: h:80", "X-Odd:\t v \t", "accept: a", "Accept: b")
        self.assertEqual(head.start_line, ("GET", "/a?b=c", "HTTP/1.1"))
        self.assertEqual(head.headers["Host"], "h:80")
        self.assertEqual(head.headers["X-Odd"], "v")
        self.assertEqual(head.headers.get_list("Accept"), ["a", "b"])
        self.assertEqual((head.body_length, head.keep_alive), (0, True))

    def test_unknown_method_is_the_applications_business(self) -> None:
        self.assertEqual(parse("BREW / HTTP/1.1", "Host: a").start_line.method, "BREW")

    def test_body_framing(self) -> None:
        self.assertEqual(parse("PUT / HTTP/1.1", "Host: a", "Content-Length: 12").body_length, 12)
        self.assertEqual(
            parse("PUT / HTTP/1.1", "Host: a", "Transfer-Encoding: Chunked").body_length, CHUNKED
        )

    def test_keep_alive(self) -> None:
        for version, connection, expected in [
            ("1.1", None, True),
            ("1.1", "close", False),
            ("1.1", "Upgrade, Close", False),
            ("1.1", "keep-alive", True),
            ("1.0", None, False),
            ("1.0", "Keep-Alive", True),
            ("1.0", "keep-alive, close", False),
        ]:
            lines = [f"GET / HTTP/{version}", "Host: a"] + (
                [f"Connection: {connection}"] if connection else []
            )
            self.assertIs(parse(*lines).keep_alive, expected, (version, connection))

    def test_rarer_targets(self) -> None:
        self.assertEqual(parse("OPTIONS * HTTP/1.1", "Host: a").start_line.path, "*")
        self.assertEqual(parse("CONNECT b:443 HTTP/1.1", "Host: b:443").start_line.path, "b:443")
        self.assertEqual(parse("GET http://A:8/x?y HTTP/1.1", "Host: a:8").start_line.path, "/x?y")
        self.assertEqual(parse("GET http://a HTTP/1.1", "Host: a").start_line.path, "/")
        self.assertEqual(parse("GET http://a/ HTTP/1.0").headers["Host"], "a")

    def test_text_in_values(self) -> None:
        head = parse("GET / HTTP/1.1", "Host: a", "X: caf\xe9", "Y: \xc3\x85rhus", "Z: a\tb")
        self.assertEqual(head.headers["X"], "caf\xe9")
        self.assertEqual(head.headers["Z"], "a\tb")


class Refused(SynchronousTestCase):
    def refused(self, status: int, reason: str, *lines: str, limits: Limits = LIMITS) -> None:
        error = self.assertRaises(HTTPInputError, parse, *lines, limits=limits)
        self.assertEqual(error.status, status, str(error))
        self.assertIn(reason, str(error))

    def test_request_lines(self) -> None:
        for line in [
            "GET /",
            "GET  / HTTP/1.1",
            "GET /a b HTTP/1.1",
            "GET / http/1.1",
            "G,T / HTTP/1.1",
            "GET / HTTP/1.1 ",
            " GET / HTTP/1.1",
            "GET x HTTP/1.1",
            "GET * HTTP/1.1",
            "GET /#f HTTP/1.1",
            "GET /\x7f HTTP/1.1",
            "GET /\xe9 HTTP/1.1",
            "GET ftp://a/ HTTP/1.1",
            "",
        ]:
            self.refused(400, "Malformed HTTP request line", line, "Host: a")

    def test_versions(self) -> None:
        for version in ["2.0", "0.9", "1.2"]:
            self.refused(505, "Unsupported HTTP version", f"GET / HTTP/{version}", "Host: a")

    def test_field_names(self) -> None:
        for line in ["X : a", " X: a", "X\t: a", ": a", "X\x00: a", "X(: a", "\xc9: a"]:
            self.refused(400, "", "GET / HTTP/1.1", "Host: a", line)
        self.refused(400, "no colon", "GET / HTTP/1.1", "Host: a", "nothing")

    def test_folded_line(self) -> None:
        self.refused(400, "", "GET / HTTP/1.1", "Host: a", "X: a", " b")

    def test_control_characters(self) -> None:
        for character in "\x00\x01\x0b\x0c\x1c\x1f\x7f\r\n\x85":
            self.refused(400, "Control character", "GET / HTTP/1.1", "Host: a", f"X: a{character}b")

    def test_hosts(self) -> None:
        self.refused(400, "Missing Host", "GET / HTTP/1.1")
        self.refused(400, "Multiple Host", "GET / HTTP/1.1", "Host: a", "Host: a")
        for host in ["a/b", "u@a", "a,b", "a\tb", "a b", "a?", "a:b"]:
            self.refused(400, "Invalid Host", "GET / HTTP/1.1", f"Host: {host}")
        self.refused(400, "differs", "GET http://b/ HTTP/1.1", "Host: a")
        self.refused(400, "differs", "GET http:/// HTTP/1.1", "Host: a")
        self.refused(400, "Invalid host", "GET http://a@b/ HTTP/1.0")

    def test_content_lengths(self) -> None:
        for value in ["+5", "-5", "0x5", "5_0", "\xb2", "", "5 5", "5.0", "\xa05"]:
            self.refused(400, "Only integer", "PUT / HTTP/1.1", "Host: a", f"Content-Length: {value}")
        for lines in [["5", "6"], ["5", "5"], ["5,5"], ["5, 6"]]:
            fields = [f"Content-Length: {line}" for line in lines]
            self.refused(400, "Multiple", "PUT / HTTP/1.1", "Host: a", *fields)
        self.refused(413, "too long", "PUT / HTTP/1.1", "Host: a", "Content-Length: " + "9" * 30)

    def test_transfer_codings(self) -> None:
        for value in [
            "gzip, chunked",
            "chunked, chunked",
            "xchunked",
            "chunked\x0b",
            "identity",
            "",
            "chunked;a=b",
        ]:
            self.refused(400, "Transfer-Encoding", "PUT / HTTP/1.1", "Host: a", f"Transfer-Encoding: {value}")
        twice = ["Transfer-Encoding: chunked"] * 2
        self.refused(400, "chunked,chunked", "PUT / HTTP/1.1", "Host: a", *twice)
        self.refused(400, "HTTP/1.0", "PUT / HTTP/1.0", "Host: a", "Transfer-Encoding: chunked")
        both = ["Transfer-Encoding: chunked", "Content-Length: 5"]
        self.refused(400, "both", "PUT / HTTP/1.1", "Host: a", *both)

    def test_limits(self) -> None:
        tight = Limits(max_request_line=20, max_header_fields=3)
        self.refused(414, "too long", "GET /" + "a" * 20 + " HTTP/1.1", "Host: a", limits=tight)
        self.refused(431, "Too many", "GET / HTTP/1.1", "Host: a", *["X: y"] * 3, limits=tight)


class Partial(SynchronousTestCase):
    """What can be said before the head is complete."""

    def refused(self, data: bytes, status: int = 400, limits: Limits = LIMITS) -> str:
        error = self.assertRaises(HTTPInputError, check_partial_head, data, limits)
        self.assertEqual(error.status, status)
        return str(error)

    def test_every_prefix_of_a_good_head_passes(self) -> None:
        head = b"GET /a HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n"
        for end in range(1, len(head)):
            check_partial_head(head[:end], LIMITS)

    def test_other_protocols_are_refused_by_their_first_bytes(self) -> None:
        self.refused(b"\x16\x03\x01\x02\x00")
        self.refused(b" GET")
        self.refused(b"SSH-2.0-x\r\n")

    def test_bare_line_feeds(self) -> None:
        self.assertIn("bare LF", self.refused(b"GET / HTTP/1.1\nHost: a\n\n"))
        self.assertIn("gzip", self.refused(b"GET / HTTP/1.1\nHost: a\nTransfer-Encoding: gzip\n\n"))

    def test_sizes(self) -> None:
        tight = Limits(max_request_line=30, max_header_size=60)
        self.refused(b"GET /" + b"a" * 30, 414, tight)
        self.refused(b"GET / HTTP/1.1\r\nHost: " + b"a" * 60, 431, tight)
