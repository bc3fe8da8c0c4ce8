"""Request smuggling: what two parsers could read in two ways is refused, and nothing behind it is a
request."""

from __future__ import annotations

from cycloneish.httpserver import HTTPServer
from cycloneish.web import RequestHandler
from tests.security.support import (
    SMUGGLED,
    RecordingApplication,
    SecurityTestCase,
    chunked,
    parse_responses,
    request,
)


class SmugglingTestCase(SecurityTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.application = RecordingApplication()
        self.served = self.serve(self.application)

    async def refuse(self, data: bytes, *statuses: int) -> None:
        await self.assert_refused(self.served, data, *statuses)

    async def accept(self, data: bytes) -> bytes:
        answer = await self.fetch(self.served, data)
        self.assertEqual(answer.status, 200, data)
        self.assertEqual(self.logs.serious, [])
        return answer.body

    def post(self, *headers: str | bytes, body: bytes = b"") -> bytes:
        return request("/", *headers, method="POST") + body


class ContentLengthTests(SmugglingTestCase):
    """1. Content-Length."""

    async def test_one_content_length_is_read(self) -> None:
        """The plain case works, so that the refusals below mean something."""
        self.assertEqual(await self.accept(self.post("Content-Length: 5", body=b"hello")), b"hello")

    async def test_two_unequal_content_lengths_are_refused(self) -> None:
        """1. Two unequal Content-Length."""
        await self.refuse(self.post("Content-Length: 5", "Content-Length: 6", body=b"hello"))
        await self.refuse(self.post("Content-Length: 0", "content-length: 46"))

    async def test_two_equal_content_lengths_are_refused(self) -> None:
        """1. Two equal Content-Length, as two fields."""
        await self.refuse(self.post("Content-Length: 5", "Content-Length: 5", body=b"hello"))

    async def test_a_list_of_content_lengths_is_refused(self) -> None:
        """1. ``5,5`` and ``5, 6``."""
        await self.refuse(self.post("Content-Length: 5,5", body=b"hello"))
        await self.refuse(self.post("Content-Length: 5, 6", body=b"hello"))

    async def test_a_signed_content_length_is_refused(self) -> None:
        """1. ``+5`` and ``-5``."""
        await self.refuse(self.post("Content-Length: +5", body=b"hello"))
        await self.refuse(self.post("Content-Length: -5", body=b"hello"))
        await self.refuse(self.post("Content-Length: -0"))

    async def test_a_content_length_in_another_notation_is_refused(self) -> None:
        """1. ``0x5``, ``5_0``, ``5.0``, ``5e1``, and spaces between the digits."""
        for value in ("0x5", "5_0", "5.0", "5e1", "1 0", "5;", "0b1", "five"):
            await self.refuse(self.post(f"Content-Length: {value}", body=b"hello"))

    async def test_a_content_length_of_other_digits_is_refused(self) -> None:
        """1. FULLWIDTH DIGIT FIVE, ARABIC-INDIC DIGIT FIVE, SUPERSCRIPT TWO."""
        for value in ("\uff15", "\u0665", "\u00b2"):
            await self.refuse(self.post(b"Content-Length: " + value.encode(), body=b"hello"))
        await self.refuse(self.post(b"Content-Length: \xb2", body=b"hello"))

    async def test_an_empty_content_length_is_refused(self) -> None:
        """1. Empty, and white space alone."""
        await self.refuse(self.post("Content-Length:"))
        await self.refuse(self.post("Content-Length:  \t "))

    async def test_a_content_length_with_no_break_space_is_refused(self) -> None:
        """1. NO-BREAK SPACE is no white space of HTTP, neither as latin-1 nor as UTF-8."""
        for value in (b"5\xa0", b"\xa05", b"5\xc2\xa0", b"\x0b5", b"5\x0c"):
            await self.refuse(self.post(b"Content-Length: " + value, body=b"hello"))

    async def test_a_content_length_of_thousands_of_digits_is_refused(self) -> None:
        """1. ``int()`` of that many digits is an error of Python's own: no traceback of it."""
        await self.refuse(self.post("Content-Length: " + "9" * 30), 400, 413)
        await self.refuse(self.post("Content-Length: " + "9" * 6000), 400, 413)
        await self.refuse(self.post("Content-Length: " + "0" * 6000 + "5"), 400, 413)


class TransferEncodingTests(SmugglingTestCase):
    """2. Transfer-Encoding."""

    async def test_chunked_is_read_in_any_case(self) -> None:
        """The plain case works."""
        for coding in ("chunked", "Chunked", "CHUNKED"):
            data = self.post(f"Transfer-Encoding: {coding}", body=chunked(b"he", b"llo"))
            self.assertEqual(await self.accept(data), b"hello")

    async def test_content_length_and_transfer_encoding_are_refused(self) -> None:
        """2. CL + TE, in both orders."""
        body = chunked(b"hello")
        await self.refuse(self.post("Content-Length: 5", "Transfer-Encoding: chunked", body=body))
        await self.refuse(self.post("Transfer-Encoding: chunked", "Content-Length: 5", body=body))
        await self.refuse(self.post("Transfer-Encoding: chunked", "Content-Length: 0", body=body))

    async def test_another_coding_is_refused(self) -> None:
        """2. ``gzip, chunked``, ``chunked, chunked``, ``xchunked`` and other near misses."""
        for coding in (
            *(
                "gzip, chunked",
                "chunked, gzip",
                "chunked, chunked",
                "chunked,",
                ",chunked",
                "xchunked",
                "chunkedx",
            ),
            *("gzip", "identity", "identity, chunked", '"chunked"', "chunked;q=1", "chunk", "trailers"),
        ):
            await self.refuse(self.post(f"Transfer-Encoding: {coding}", body=chunked(b"hello")), 400, 501)

    async def test_a_coding_with_odd_white_space_is_refused(self) -> None:
        """2. ``chunked\\x0b`` and the other characters that only some parsers strip."""
        for coding in (
            b"chunked\x0b",
            b"\x0bchunked",
            b"chunked\x0c",
            b"chunked\xa0",
            b"\x85chunked",
            b"chunked\x00",
        ):
            await self.refuse(self.post(b"Transfer-Encoding: " + coding, body=chunked(b"hello")), 400, 501)

    async def test_an_empty_coding_is_refused(self) -> None:
        """2. An empty Transfer-Encoding, alone and beside a Content-Length."""
        await self.refuse(self.post("Transfer-Encoding:", body=chunked(b"hello")), 400, 501)
        await self.refuse(self.post("Transfer-Encoding:", "Content-Length: 5", body=b"hello"))

    async def test_two_transfer_encodings_are_refused(self) -> None:
        """2. Twice, equal and different."""
        body = chunked(b"hello")
        await self.refuse(
            self.post("Transfer-Encoding: chunked", "Transfer-Encoding: chunked", body=body), 400, 501
        )
        await self.refuse(
            self.post("Transfer-Encoding: chunked", "Transfer-encoding: x", body=body), 400, 501
        )

    async def test_transfer_encoding_in_http_1_0_is_refused(self) -> None:
        """2. TE in HTTP/1.0."""
        data = request("/", "Transfer-Encoding: chunked", method="POST", version="HTTP/1.0")
        await self.refuse(data + chunked(b"hello"))

    async def test_a_disguised_name_is_refused(self) -> None:
        """2. ``Transfer-Encoding`` with a space, a tab or a control character beside its colon."""
        for line in (
            b"Transfer-Encoding : chunked",
            b"Transfer-Encoding\t: chunked",
            b"Transfer-Encoding\x0b: chunked",
        ):
            await self.refuse(self.post(line, "Content-Length: 5", body=b"hello"))

    async def test_underscores_make_another_header(self) -> None:
        """2. ``Transfer_Encoding`` is a header like any other and frames nothing."""
        body = await self.accept(self.post("Transfer_Encoding: chunked", "Content-Length: 5", body=b"hello"))
        self.assertEqual(body, b"hello")


class ChunkTests(SmugglingTestCase):
    """3. Chunks."""

    def chunks(self, body: bytes) -> bytes:
        return self.post("Transfer-Encoding: chunked", body=body)

    async def test_sizes_extensions_and_trailers_that_are_fine(self) -> None:
        """Upper and lower case, leading zeros, extensions with and without value, trailers."""
        for body in (
            b"5\r\nhello\r\n0\r\n\r\n",
            b"005\r\nhello\r\n000\r\n\r\n",
            b'5;a;b=c;d="e f"\r\nhello\r\n0\r\n\r\n',
            b"5\r\nhello\r\n0\r\nChecksum: 1\r\n\r\n",
        ):
            self.assertEqual(await self.accept(self.chunks(body)), b"hello")
        self.assertEqual(await self.accept(self.chunks(b"A\r\n0123456789\r\n0\r\n\r\n")), b"0123456789")
        self.assertEqual(await self.accept(self.chunks(b"a\r\n0123456789\r\n0\r\n\r\n")), b"0123456789")

    async def test_a_size_with_sign_prefix_or_underscore_is_refused(self) -> None:
        """3. Sign, ``0x``, ``_``."""
        for size in (b"+5", b"-5", b"0x5", b"0X5", b"5_0", b"", b"g", b"5h", b"\xef\xbc\x95", b"5.", b'"5"'):
            await self.refuse(self.chunks(size + b"\r\nhello\r\n0\r\n\r\n"))

    async def test_a_size_with_spaces_is_refused(self) -> None:
        """3. Spaces before and behind the size."""
        for size in (b" 5", b"5 ", b"\t5", b"5\t", b"5\x0b", b"5\xa0", b"5\x00"):
            await self.refuse(self.chunks(size + b"\r\nhello\r\n0\r\n\r\n"))

    async def test_a_size_of_more_than_16_digits_is_refused(self) -> None:
        """3. More than 16 digits, leading zeros or not."""
        await self.refuse(self.chunks(b"0" * 16 + b"5\r\nhello\r\n0\r\n\r\n"))
        await self.refuse(self.chunks(b"f" * 17 + b"\r\nhello\r\n0\r\n\r\n"))

    async def test_a_size_beyond_the_body_limit_is_refused_before_its_data(self) -> None:
        """3. A chunk that announces more than a body may have."""
        await self.refuse(self.chunks(b"ffffffffffffffff\r\nhello"), 400, 413)

    async def test_an_extension_with_bare_lf_is_refused(self) -> None:
        """3. A bare LF hides a line end in the extension; a bare CR does so too."""
        await self.refuse(self.chunks(b"5;a\nb\r\nhello\r\n0\r\n\r\n"))
        await self.refuse(self.chunks(b"5;a\n\r\nhello\r\n0\r\n\r\n"))
        await self.refuse(self.chunks(b"5;a\rb\r\nhello\r\n0\r\n\r\n"))
        await self.refuse(self.chunks(b'5;a="\n"\r\nhello\r\n0\r\n\r\n'))

    async def test_an_over_long_extension_is_refused(self) -> None:
        """3. An extension that goes on and on, with and without a line end."""
        await self.refuse(self.chunks(b"5;" + b"a" * 20_000 + b"\r\nhello\r\n0\r\n\r\n"))
        await self.refuse(self.chunks(b"5;" + b"a" * 20_000))

    async def test_a_malformed_extension_is_refused(self) -> None:
        """3. What is not ``;name`` or ``;name=value``."""
        for extension in (b";", b";=x", b";a=", b';a="x', b";a b"):
            await self.refuse(self.chunks(b"5" + extension + b"\r\nhello\r\n0\r\n\r\n"))

    async def test_missing_crlf_behind_a_chunk_is_refused(self) -> None:
        """3. The two bytes behind the data are CR LF and nothing else."""
        for end in (b"XX", b"\n", b"\r", b"\n\n", b"\rX", b"\n\r", b""):
            await self.refuse(self.chunks(b"5\r\nhello" + end + b"0\r\n\r\n"))

    async def test_bare_lf_as_line_end_is_refused(self) -> None:
        """3. Size lines and the last line end with CR LF."""
        await self.refuse(self.chunks(b"5\nhello\r\n0\r\n\r\n"))
        await self.refuse(self.chunks(b"5\r\nhello\r\n0\n\r\n"))
        await self.refuse(self.chunks(b"5\r\nhello\r\n0\r\n\n"))

    async def test_trailers_are_limited_in_size(self) -> None:
        """3. A trailer section that goes on and on, in one field and in many."""
        await self.refuse(self.chunks(chunked(b"hello", end=b"0\r\nA: " + b"x" * 100_000)), 400, 431)
        await self.refuse(self.chunks(chunked(b"hello", end=b"0\r\n" + b"A: x\r\n" * 50_000)), 400, 431)

    async def test_trailers_are_limited_in_number(self) -> None:
        """3. Many small trailer fields."""
        trailers = b"".join(b"A%d: x\r\n" % number for number in range(600))
        await self.refuse(self.chunks(chunked(b"hello", end=b"0\r\n" + trailers + b"\r\n")), 400, 431)

    async def test_malformed_trailers_are_refused(self) -> None:
        """3. The grammar of trailers is that of headers."""
        for line in (
            b"no colon",
            b": x",
            b"A : x",
            b"A: x\r\n folded",
            b"A: x\rB: y",
            b"A: x\nB: y",
            b"A: \x00",
        ):
            await self.refuse(self.chunks(chunked(b"hello", end=b"0\r\n" + line + b"\r\n\r\n")))

    async def test_trailers_are_never_merged_into_the_headers(self) -> None:
        """3. A trailer cannot bring a cookie, a length or a forwarded address."""
        headers: list[list[tuple[str, str]]] = []

        class Show(RequestHandler):
            def post(self) -> None:
                headers.append(list(self.request.headers.get_all()))
                self.write("ok")

        self.served = self.serve(RecordingApplication([("/", Show)]), xheaders=True)
        trailer = b"Cookie: admin=1\r\nX-Real-Ip: 6.6.6.6\r\nContent-Length: 9\r\nHost: evil\r\nX-Late: 1\r\n"
        await self.accept(self.chunks(chunked(b"hello", end=b"0\r\n" + trailer + b"\r\n")))
        names = {name.lower() for name, _ in headers[0]}
        self.assertEqual(names, {"host", "transfer-encoding"})
        self.assertIn(("Host", "example.com"), headers[0])


class CharacterTests(SmugglingTestCase):
    """4. Characters that end a line for some parsers, and names that are none."""

    CONTROLS = (b"\r", b"\n", b"\x00", b"\x0b", b"\x0c", b"\x1c", b"\x1d", b"\x1e", b"\x01", b"\x7f")

    async def test_controls_in_a_header_value_are_refused(self) -> None:
        """4. Bare CR, bare LF, NUL and the rest, in values."""
        for character in self.CONTROLS:
            await self.refuse(request("/", b"X-A: a" + character + b"Transfer-Encoding: chunked"))
            await self.refuse(request("/", b"X-A: a" + character))

    async def test_controls_in_a_header_name_are_refused(self) -> None:
        """4. The same in names, and bytes above 127."""
        for character in (
            *self.CONTROLS,
            b"\x85",
            b"\xa0",
            b"\xe9",
            b" ",
            b"\t",
            b'"',
            b"(",
            b"/",
            b"{",
            b"@",
        ):
            await self.refuse(request("/", b"X-A" + character + b"B: b"))
            await self.refuse(request("/", character + b"X-A: b"))

    async def test_controls_in_the_request_line_are_refused(self) -> None:
        """4. The same in method, target and version."""
        for character in self.CONTROLS:
            for line in (
                b"GE%bT / HTTP/1.1",
                b"GET /a%bb HTTP/1.1",
                b"GET / HTTP/1.1%b",
                b"%bGET / HTTP/1.1",
            ):
                await self.refuse(line % character + b"\r\nHost: example.com\r\n\r\n")

    async def test_a_next_line_character_splits_nothing(self) -> None:
        """4. ``\\x85`` and U+2028 are data or refused, never a line end."""
        for value in (b"a\x85Transfer-Encoding: chunked", "a\u2028X-B: b".encode(), "a\u0085X-B: b".encode()):
            peer = await self.attack(self.served, request("/", b"X-A: " + value, "Connection: close"))
            self.assertEqual(len(peer.answers), 1)
            self.assertIn(peer.statuses[0], (200, 400))
            self.assert_nothing_smuggled(self.served)
            self.assertEqual(self.logs.serious, [])

    async def test_space_before_the_colon_is_refused(self) -> None:
        """4. Space and tab between name and colon."""
        await self.refuse(request("/", "X-A : b"))
        await self.refuse(request("/", "X-A\t: b"))
        await self.refuse(b"GET / HTTP/1.1\r\nHost : example.com\r\n\r\n")

    async def test_folded_lines_are_refused(self) -> None:
        """4. A field value that goes on in the next line, and a first field line that begins with a space."""
        await self.refuse(request("/", "X-A: b\r\n c"))
        await self.refuse(request("/", "X-A: b\r\n\tc"))
        await self.refuse(request("/", "X-A:\r\n Transfer-Encoding: chunked"))
        await self.refuse(b"GET / HTTP/1.1\r\n X-A: b\r\nHost: example.com\r\n\r\n")

    async def test_an_empty_name_is_refused(self) -> None:
        """4. A line that begins with its colon, and one without a colon."""
        await self.refuse(request("/", ": b"))
        await self.refuse(request("/", "no colon in this line"))

    async def test_bare_lf_line_ends_are_refused(self) -> None:
        """4. A head whose lines end with LF alone, all of them or one."""
        await self.refuse(b"GET / HTTP/1.1\nHost: example.com\n\n")
        await self.refuse(b"GET / HTTP/1.1\r\nHost: example.com\nX-A: b\r\n\r\n")
        await self.refuse(b"GET / HTTP/1.1\r\nHost: example.com\r\n\n")
        await self.refuse(b"GET / HTTP/1.1\r\nHost: example.com\n\r\n")

    async def test_malformed_request_lines_are_refused(self) -> None:
        """4. Missing and doubled parts, other versions, other white space."""
        for line in (
            *(
                "GET /",
                "GET  / HTTP/1.1",
                "GET /  HTTP/1.1",
                "GET / HTTP/1.1 ",
                " GET / HTTP/1.1",
                "GET\t/\tHTTP/1.1",
            ),
            *(
                "GET / http/1.1",
                "GET / HTTP/1",
                "GET / HTTP/1.1.1",
                "GET / HTTP/11",
                "GET / HTTP/1.x",
                "GET / XTTP/1.1",
            ),
            *("GET / HTTP/+1.1", "GET HTTP/1.1", "/ HTTP/1.1", "G(T / HTTP/1.1", "GET /a b HTTP/1.1", "GET"),
        ):
            await self.refuse(f"{line}\r\nHost: example.com\r\n\r\n".encode())

    async def test_other_major_versions_are_refused(self) -> None:
        """4. HTTP/0.9, HTTP/2.0 and an HTTP/2 preface over HTTP/1."""
        for version in ("HTTP/0.9", "HTTP/2.0", "HTTP/3.0", "HTTP/9.9"):
            await self.refuse(request(version=version), 400, 505)
        await self.refuse(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, 505)

    async def test_a_foreign_protocol_is_refused(self) -> None:
        """4. A TLS hello, an SSH greeting and random bytes get a 400 or nothing, and no wait for more."""
        for data in (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
            b"SSH-2.0-OpenSSH_9\r\n",
            bytes(64),
        ):
            await self.refuse(data)

    async def test_an_unknown_method_goes_to_the_application(self) -> None:
        """4. A method is any token; the application says 405 and the connection stays usable."""
        peer = await self.exchange(self.served, request(method="FROB") + SMUGGLED, 2)
        self.assertEqual(peer.statuses, [405, 200])
        self.assertEqual(self.logs.serious, [])


class HostTests(SmugglingTestCase):
    """5. Host."""

    async def test_a_missing_host_is_refused(self) -> None:
        """5. Missing in HTTP/1.1; HTTP/1.0 may do without."""
        await self.refuse(request(host=None))
        self.assertEqual((await self.fetch(self.served, request(host=None, version="HTTP/1.0"))).status, 200)

    async def test_two_hosts_are_refused(self) -> None:
        """5. Twice, equal and different."""
        await self.refuse(request("/", "Host: evil.example"))
        await self.refuse(request("/", "host: example.com"))

    async def test_a_host_with_other_characters_is_refused(self) -> None:
        """5. ``/``, ``@``, comma, tab and others that make a second host or a URL of it."""
        for host in (
            *(
                "example.com/x",
                "user@example.com",
                "example.com,evil.example",
                "example.com\tevil",
                "exam ple.com",
            ),
            *(
                "example.com\\evil",
                "example.com?x",
                "example.com#x",
                "http://example.com",
                "example.com:port",
            ),
            *(
                "example.com:80:80",
                "[::1",
                "::1]",
                "example.com:-1",
                "<script>",
                'a"b',
                "a\x00b",
                "a%00b@c",
                "\xa0",
            ),
        ):
            await self.refuse(request(host=host))

    async def test_hosts_that_are_fine(self) -> None:
        """5. Names, addresses, ports."""
        for host in (
            "example.com",
            "example.com:8888",
            "127.0.0.1",
            "[::1]:8888",
            "localhost",
            "a_b.example",
        ):
            await self.accept(request(host=host))

    async def test_an_absolute_target_with_another_host_is_refused(self) -> None:
        """5. The target names one host, the header another."""
        await self.refuse(request("http://evil.example/"))
        await self.refuse(request("http://example.com@evil.example/"))
        await self.refuse(request("http:///"))

    async def test_an_absolute_target_with_the_same_host_is_served(self) -> None:
        """5. As a proxy sends it; the application sees the path."""
        await self.accept(request("http://example.com/x?y=z"))
        self.assertEqual(self.application.seen[-1], ("GET", "/x?y=z"))


class SplitTests(SmugglingTestCase):
    """7. Where the network cuts the bytes makes no difference."""

    def talk(self, data: bytes, *cuts: int) -> tuple[list[int], list[bytes], list[tuple[str, str]]]:
        """Statuses, bodies and what the application saw, of ``data`` delivered in pieces."""
        application = RecordingApplication()
        protocol, transport = self.memory_peer(HTTPServer(application))
        for start, end in zip((0, *cuts), (*cuts, len(data)), strict=True):
            if not transport.gone:
                protocol.dataReceived(data[start:end])
        answers = parse_responses(transport.value())
        if not transport.gone:
            transport.loseConnection()
        return [a.status for a in answers], [a.body for a in answers], application.seen

    async def test_a_request_split_at_every_byte_gives_the_same_answer(self) -> None:
        """7. Head, body and chunked body, cut once at every byte boundary, then into single bytes."""
        for data in (
            request("/a?b=c", "X-A: b", "Cookie: a=b") + SMUGGLED,
            request("/", method="POST", body=b"hello") + SMUGGLED,
            self.post("Transfer-Encoding: chunked", body=b'5;a="b"\r\nhello\r\n0\r\nA: b\r\n\r\n') + SMUGGLED,
        ):
            whole = self.talk(data)
            self.assertEqual(whole[0], [200, 200])
            for cut in range(1, len(data)):
                self.assertEqual(self.talk(data, cut), whole, cut)
            self.assertEqual(self.talk(data, *range(1, len(data))), whole)
            await self.pause()

    async def test_a_refused_request_split_at_every_byte_is_refused_the_same(self) -> None:
        """7. A bad head, a bad length and a bad chunk; nothing behind them is served, wherever the cut is."""
        for data in (
            request("/", "X-A : b") + SMUGGLED,
            request("/", b"X-A: b\nX-B: c") + SMUGGLED,
            self.post("Content-Length: +5", body=b"hello") + SMUGGLED,
            self.post("Transfer-Encoding: chunked", body=b"5\r\nhelloXX0\r\n\r\n") + SMUGGLED,
            self.post("Transfer-Encoding: chunked", body=b"5;\r\nhello\r\n0\r\n\r\n") + SMUGGLED,
        ):
            for cuts in (*((cut,) for cut in range(1, len(data))), tuple(range(1, len(data)))):
                statuses, _, seen = self.talk(data, *cuts)
                self.assertEqual((statuses, seen), ([400], []), (data, cuts))
            await self.pause()
        self.assertEqual(self.logs.serious, [])

    async def test_limits_hold_when_the_bytes_come_one_by_one(self) -> None:
        """7. A head that never ends is refused at its limit, not when the reader feels like it."""
        for data, status in (
            (b"GET /" + b"a" * 4000, 414),
            (b"GET / HTTP/1.1\r\nX: " + b"a" * 4000, 431),
            (b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 800, 431),
        ):
            protocol, transport = self.memory_peer(HTTPServer(self.application, max_header_size=1000))
            taken = 0
            while taken < len(data) and not transport.gone:
                protocol.dataReceived(data[taken : taken + 1])
                taken += 1
            self.assertLess(taken, 1100)
            self.assertIn([a.status for a in parse_responses(transport.value())], ([status], [431]))
            await self.pause()
