"""The log: one line is one line, a request cannot fill it, and it has no secrets."""

from __future__ import annotations

import logging

from cycloneish.log import LogFormatter
from cycloneish.web import HTTPError, RequestHandler
from tests.security.support import (
    SMUGGLED,
    Recorder,
    RecordingApplication,
    SecurityTestCase,
    multipart,
    part,
    post_multipart,
    request,
)

CONTROL = r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]"


class Failing(RequestHandler):
    def get(self) -> None:
        raise ValueError(self.get_argument("text", "failed", strip=False))

    def post(self) -> None:
        raise HTTPError(400, "said: %s", self.request.arguments["text"][0].decode("latin-1"))


class User(RequestHandler):
    """Says who was here, as an application may in its own access log."""

    def get_current_user(self) -> str:
        return self.get_argument("user", strip=False)

    def get(self) -> None:
        raise HTTPError(403, "refused %s", self.current_user)


class LogTests(SecurityTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.application = RecordingApplication(
            [("/fail", Failing), ("/user", User), ("/.*", Recorder)], cookie_secret="secret"
        )
        self.served = self.serve(self.application)

    def lines(self) -> list[str]:
        """What the formatter of the project makes of the records, without its own colours and tracebacks."""
        formatter = LogFormatter(color=False)
        return [formatter.format(record) for record in self.logs.records if not record.exc_info]

    async def test_control_characters_in_a_path_are_escaped(self) -> None:
        """75. ANSI codes and line ends in path and query never reach the terminal; raw ones are refused."""
        for target in (
            "/%1b[31mred",
            "/a%0d%0aINFO:forged",
            "/%00",
            "/a?b=%1b]0;title%07",
            "/%c2%9b31m",
            "/%e2%80%ae",
        ):
            await self.fetch(self.served, request(target))
        for target in ("/\x1b[31mred", "/a\x07b", "/\x9b31m"):
            peer = await self.exchange(self.served, request(target))
            self.assertEqual(peer.statuses, [400])
        self.assertGreater(len(self.lines()), 5)
        for line in self.lines():
            self.assertNotRegex(line, CONTROL)

    async def test_control_characters_in_a_refused_request_are_escaped(self) -> None:
        """75. The reason in the log quotes the client: host, length, coding, chunk size, header names."""
        for data in (
            request("/", host="a\x1b[31m"),
            request("/", host="\x9b31m"),
            request("/", "Content-Length: \x1b[31m", method="POST"),
            request("/", "Transfer-Encoding: \x1b]0;x\x07", method="POST"),
            request("/", "Transfer-Encoding: \x9b31m", method="POST"),
            request("/", "X\x1b[31m: a"),
            b"\x1b[31m / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\x1b[31m\r\n\r\n",
            request("/", "Transfer-Encoding: chunked", method="POST") + b"\x1b[31m\r\n",
            request("/", "Transfer-Encoding: chunked", method="POST") + b"\x9b31m\r\n",
            request("http://\x1b[31m/"),
        ):
            peer = await self.attack(self.served, data)
            self.assertEqual(peer.statuses, [400], data)
            self.assertGreater(len(self.lines()), 0)
            for line in self.lines():
                self.assertNotRegex(line, CONTROL, data)
                self.assertLess(len(line), 2000)

    async def test_control_characters_in_messages_of_the_application_are_escaped(self) -> None:
        """75. A log message, a user's name and a forwarded address that an application writes down."""
        await self.fetch(self.served, request("/user?user=ada%1b[31m%0d%0aforged"))
        data = request(
            "/fail",
            "Content-Type: application/x-www-form-urlencoded",
            method="POST",
            body=b"text=%1b[31m%0d%0aforged",
        )
        await self.fetch(self.served, data)
        self.assertGreaterEqual(len(self.lines()), 4)
        for line in self.lines():
            self.assertNotIn("\x1b", line)
            # A message of several lines is indented, so that no line looks like a record of its own.
            self.assertNotRegex(line, r"\n(?=\S)")

    async def test_a_forged_address_of_a_proxy_is_ignored_or_escaped(self) -> None:
        """75. With ``xheaders``, what is no address is not believed."""
        self.served = self.serve(self.application, xheaders=True)
        for value in ("\t1.2.3.4, \x9b31m", "<script>", "127.0.0.1 forged", "a" * 5000, "1.2.3.4;drop"):
            self.logs.clear()
            await self.fetch(self.served, request("/", f"X-Forwarded-For: {value}", f"X-Real-Ip: {value}"))
            for line in self.lines():
                self.assertNotRegex(line, CONTROL)
                self.assertIn("127.0.0.1", line)
                self.assertNotIn("forged", line)

    async def test_one_request_writes_a_bounded_number_of_records(self) -> None:
        """76. Whatever is wrong with it, and however often."""
        for data in (
            request("/missing"),
            request("/", "Cookie: " + '"\\";=;' * 5000),
            request("/", *["X-Bad\x00: a"] * 100),
            request("/fail"),
            request("/?" + "&" * 5000),
            post_multipart(multipart(*[b"bad"] * 90)),
            post_multipart(multipart(part("a")) + b"x" * 100_000),
            request("/", "Transfer-Encoding: chunked", method="POST") + b"1\r\nx\r\n" * 5000 + b"zz\r\n",
            request("/", "Accept-Language: " + ";q=x," * 5000),
            request("/", "Content-Length: 10", method="POST"),
            b"\r\n" * 10_000 + b"BAD",
        ):
            self.logs.clear()
            peer = await self.connect(self.served)
            peer.send(data)
            await peer.until(lambda peer=peer: bool(peer.received), 0.3)
            peer.drop()
            await self.pause(0.02)
            self.assertLessEqual(len(self.logs.records), 3, data[:80])
            self.assertLess(sum(len(line) for line in self.lines()), 100_000, data[:80])

    async def test_a_client_that_leaves_writes_no_error(self) -> None:
        """76. At any point; at most one line for it, and none above INFO."""
        data = request("/", "Content-Length: 10", method="POST") + b"123"
        for end in range(0, len(data), 7):
            self.logs.clear()
            peer = await self.connect(self.served)
            peer.send(data[:end])
            await self.pause(0.005)
            peer.drop()
            await self.pause(0.01)
            self.assertLessEqual(len(self.logs.records), 1)
            for record in self.logs.records:
                self.assertLessEqual(record.levelno, logging.INFO)

    async def test_secrets_are_not_logged(self) -> None:
        """76. Cookie, Authorization and a password in the body are in no record, not even of a failure."""
        secret = "hunter2-very-secret"
        data = request(
            *("/fail", f"Cookie: session={secret}", f"Authorization: Bearer {secret}"),
            *(f"Proxy-Authorization: {secret}", f"X-Xsrftoken: {secret}"),
        )
        answer = await self.fetch(self.served, data + SMUGGLED[:0])
        self.assertEqual(answer.status, 500)
        formatter = LogFormatter(color=False)
        text = "\n".join(formatter.format(record) for record in self.logs.records)
        self.assertIn("ValueError", text)
        self.assertNotIn(secret, text)

    async def test_a_refused_request_does_not_log_its_headers(self) -> None:
        """76. The reason names what is wrong, not what else was sent."""
        secret = "hunter2-very-secret"
        await self.attack(
            self.served, request("/", f"Authorization: {secret}", f"Cookie: a={secret}", "X : y")
        )
        self.assertEqual([line for line in self.lines() if secret in line], [])
