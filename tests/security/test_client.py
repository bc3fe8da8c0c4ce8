"""Attacks on the client: what servers send, where redirects lead, what must not be sent at all."""

from __future__ import annotations

import gzip
import ssl
import zlib
from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.ssl import ContextFactory

from cycloneish.http.tls import server_options
from cycloneish.httpclient import (
    CookieJar,
    HTTPRequest,
    HTTPStreamClosedError,
)
from cycloneish.httpclient.connecting import Proxy
from cycloneish.httpclient.heads import parse_url
from cycloneish.httpclient.multipart import encode_multipart
from tests.httpclient.support import ClientTestCase, RawServer, response

SECRETS = {
    "Authorization": "Bearer secret-1",
    "Cookie": "session=secret-2",
    "Proxy-Authorization": "Basic secret-3",
    "X-Api-Key": "secret-4",
    "X-Auth-Token": "secret-5",
    "X-Amz-Security-Token": "secret-6",
    "X-Harmless": "kept",
}


def redirect(to: str, status: str = "302 Found") -> bytes:
    return response(b"", f"Location: {to}", status=status)


class RedirectTest(ClientTestCase):
    async def lands_with(self, first: RawServer, second: RawServer, **options: Any) -> bytes:
        await self.client.fetch(first.url(), headers=SECRETS, **options)
        return second.requests[-1]

    async def test_no_secret_goes_to_another_port(self) -> None:
        second = self.serve(response(b"there"))
        first = self.serve(lambda request, _: redirect(second.url("/elsewhere")))
        seen = await self.lands_with(first, second)
        self.assertNotIn(b"secret", seen)
        self.assertIn(b"X-Harmless: kept", seen)
        self.assertIn(b"secret-1", first.requests[0])

    async def test_no_secret_goes_to_another_host(self) -> None:
        def answer(request: bytes, _: Any) -> bytes:
            here = b"Host: 127.0.0.1" in request
            return redirect(server.url("/other", host="localhost")) if here else response(b"there")

        server = self.serve(answer)
        await self.client.fetch(server.url(), headers=SECRETS)
        self.assertIn(b"Host: localhost", server.requests[1])
        self.assertNotIn(b"secret", server.requests[1])

    async def test_no_secret_goes_to_another_scheme(self) -> None:
        authority = self.authority()
        certfile, keyfile = authority.issue()
        plain = self.serve(response(b"plain"))
        tls = self.serve(
            lambda request, _: redirect(plain.url()),
            server_options({"certfile": str(certfile), "keyfile": str(keyfile)}),
        )
        await self.client.fetch(tls.url(), headers=SECRETS, ca_certs=str(authority.file))
        self.assertIn(b"secret-1", tls.requests[0])
        self.assertNotIn(b"secret", plain.requests[0])

    async def test_what_was_dropped_is_not_put_back_on_return(self) -> None:
        def first_answer(request: bytes, _: Any) -> bytes:
            return response(b"home") if request.startswith(b"GET /home") else redirect(second.url())

        first = self.serve(first_answer)
        second = self.serve(lambda request, _: redirect(first.url("/home")))
        answer = await self.client.fetch(
            first.url(), headers=SECRETS, auth_username="me", auth_password="secret-7"
        )
        self.assertEqual(answer.body, b"home")
        for request in (*second.requests, first.requests[-1]):
            self.assertNotIn(b"secret", request)
            self.assertNotIn(b"Authorization", request)

    async def test_credentials_as_options_in_the_url_or_as_defaults_stay_too(self) -> None:
        second = self.serve(response(b"there"))
        first = self.serve(lambda request, _: redirect(second.url()))
        client = self.make_client(defaults={"auth_username": "me", "auth_password": "by default"})
        await client.fetch(first.url())
        await self.client.fetch(first.url(), auth_username="me", auth_password="as option")
        await self.client.fetch(first.url().replace("//", "//me:in-url@"))
        for request in first.requests:
            self.assertIn(b"Authorization: Basic", request)
        for request in second.requests:
            self.assertNotIn(b"Authorization", request)

    async def test_credentials_in_a_location_are_the_server_s_idea_and_not_sent(self) -> None:
        second = self.serve(response(b"there"))
        first = self.serve(lambda request, _: redirect(second.url().replace("//", "//admin:guess@")))
        await self.client.fetch(first.url())
        self.assertNotIn(b"Authorization", second.requests[0])

    async def test_the_same_origin_still_gets_them(self) -> None:
        server = self.serve(
            lambda request, _: response(b"ok") if b"GET /2" in request else redirect("/2", "307 Go on")
        )
        await self.client.fetch(server.url(), headers=SECRETS)
        self.assertIn(b"secret-1", server.requests[1])
        self.assertIn(b"secret-4", server.requests[1])

    async def test_a_digest_is_not_computed_for_another_origin(self) -> None:
        def ask(request: bytes, _: Any) -> bytes:
            challenge = 'WWW-Authenticate: Digest realm="r", nonce="n", qop="auth"'
            return response(b"", challenge, status="401 Unauthorized")

        second = self.serve(ask)
        first = self.serve(lambda request, _: redirect(second.url()))
        answer = await self.client.fetch(
            first.url(), raise_error=False, auth_username="me", auth_password="pw", auth_mode="digest"
        )
        self.assertEqual(answer.code, 401)
        self.assertEqual(len(second.requests), 1)

    async def test_only_http_and_https_are_followed(self) -> None:
        for location in ("ftp://a/", "file:///etc/passwd", "javascript:alert(1)", "gopher://a/", "h:5"):
            server = self.serve(redirect(location))
            error = await self.error_of(self.client.fetch(server.url()), ValueError)
            self.assertIn("Unsupported url scheme", str(error))

    async def test_a_location_cannot_split_a_request(self) -> None:
        server = self.serve(
            lambda request, _: (
                response(b"ok") if b"GET /x" in request else redirect("/x%0d%0aX-Injected: 1 y")
            )
        )
        await self.client.fetch(server.url())
        self.assertNotIn(b"\r\nX-Injected", server.requests[1])

    async def test_there_is_a_limit(self) -> None:
        server = self.serve(lambda request, _: redirect("/again"))
        answer = await self.client.fetch(server.url(), max_redirects=4, raise_error=False)
        self.assertEqual(answer.code, 302)
        self.assertEqual(len(server.requests), 5)


class InjectionTest(ClientTestCase):
    EVIL = ("a\r\nX-Injected: 1", "a\nb", "a\rb", "a\0b")

    async def refused(self, **options: Any) -> None:
        options.setdefault("url", self.server.url())
        await self.error_of(self.client.fetch(HTTPRequest(**options)), (ValueError, KeyError))  # type: ignore[arg-type]
        self.assertEqual(self.server.requests, [])

    async def test_line_ends_are_refused(self) -> None:
        self.server = self.serve(response(b"ok"))
        for evil in self.EVIL:
            await self.refused(method=evil, allow_nonstandard_methods=True)
            await self.refused(method=evil)
            await self.refused(url=self.server.url("/" + evil))
            await self.refused(url=self.server.url("/?q=" + evil))
            await self.refused(url=f"http://127.0.0.1:{self.server.port}{evil}/")
            await self.refused(headers={"X-Field": evil})
            await self.refused(headers={evil: "value"})
            await self.refused(user_agent=evil)
            await self.refused(headers={"Host": evil})

    async def test_names_in_forms_cannot_break_out(self) -> None:
        for evil in self.EVIL:
            self.assertRaises(ValueError, encode_multipart, {evil: "x"}, {})
            self.assertRaises(ValueError, encode_multipart, {}, {evil: ("a.txt", b"")})
            self.assertRaises(ValueError, encode_multipart, {}, {"f": (evil, b"")})
            self.assertRaises(ValueError, encode_multipart, {}, {"f": ("a.txt", b"", evil)})
        body, _ = encode_multipart({}, {'f"; x="': ('a"; name="b', b"")}, boundary="b")
        self.assertEqual(body.splitlines()[1].count(b'"'), 4)

    async def test_the_framing_is_not_the_program_s(self) -> None:
        self.server = self.serve(response(b"ok"))
        await self.refused(headers={"Transfer-Encoding": "chunked"})
        await self.refused(headers={"Transfer-Encoding": "gzip"}, method="POST", body=b"x")
        await self.refused(headers={"Content-Length": "5"})
        await self.client.fetch(
            self.server.url(), method="POST", body=b"12345", headers={"Content-Length": "3"}
        )
        self.assertIn(b"Content-Length: 5\r\n", self.server.requests[0])

    def test_hosts_that_read_two_ways_are_refused(self) -> None:
        for host in (
            "127.1",
            "2130706433",
            "0x7f.0.0.1",
            "0177.0.0.1",
            "1.2.3.4.5",
            "127.0.0.1.",
            "a b",
            "a\\b",
        ):
            self.assertRaises(ValueError, parse_url, f"http://{host}/")
        self.assertEqual(parse_url("http://EXAMPLE.com").host, "example.com")
        self.assertEqual(parse_url("http://[::1]:80/").authority, "[::1]")


class BodyLimitTest(ClientTestCase):
    LIMIT = 100_000

    async def refused(self, answer: Any, **options: Any) -> int:
        server = self.serve(answer)
        client = self.make_client(max_body_size=self.LIMIT)
        got: list[int] = []
        for streaming in (None, lambda data: got.append(len(data))):
            error = await self.error_of(
                client.fetch(server.url(), streaming_callback=streaming, **options), HTTPStreamClosedError
            )
            self.assertEqual(error.code, 599)
        self.assertLessEqual(sum(got), self.LIMIT)
        await self.until(lambda: all(one.is_closed for one in server.conversations))
        return sum(got)

    async def test_announced(self) -> None:
        await self.refused(b"HTTP/1.1 200 OK\r\nContent-Length: 100001\r\n\r\n")

    async def test_http_1_0_until_close(self) -> None:
        def answer(request: bytes, conversation: Any) -> None:
            conversation.transport.write(b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 100_001)
            conversation.transport.loseConnection()

        await self.refused(answer)

    async def test_chunks(self) -> None:
        await self.refused(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"4000\r\n%b\r\n" % (b"x" * 0x4000) * 8
        )

    async def test_after_decompression(self) -> None:
        bomb = gzip.compress(bytes(10_000_000))
        self.assertLess(len(bomb), self.LIMIT)
        await self.refused(response(bomb, "Content-Encoding: gzip"))

    async def test_a_bomb_behind_a_bomb(self) -> None:
        members = b"".join(gzip.compress(bytes(50_000)) for _ in range(3))
        await self.refused(response(members, "Content-Encoding: gzip"))

    async def test_rubbish_in_gzip(self) -> None:
        good = gzip.compress(b"good")
        for body in (b"rubbish", good[:-3], good + b"tail", zlib.compress(b"zlib")):
            server = self.serve(response(body, "Content-Encoding: gzip"))
            await self.error_of(self.client.fetch(server.url()), HTTPStreamClosedError)

    async def test_a_head_without_end(self) -> None:
        client = self.make_client(max_header_size=10_000)
        server = self.serve(b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 10_001)
        await self.error_of(client.fetch(server.url()), HTTPStreamClosedError)
        many = "".join(f"X-{number}: 1\r\n" for number in range(600))
        server = self.serve(f"HTTP/1.1 200 OK\r\n{many}\r\n".encode())
        await self.error_of(self.client.fetch(server.url()), HTTPStreamClosedError)


class FramingTest(ClientTestCase):
    async def test_interim_responses_have_a_limit(self) -> None:
        server = self.serve(b"HTTP/1.1 100 Continue\r\n\r\n" * 10 + response(b"ok"))
        self.assertEqual((await self.client.fetch(server.url())).body, b"ok")
        server = self.serve(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 11 + response(b"ok"))
        await self.error_of(self.client.fetch(server.url()), HTTPStreamClosedError)

    async def test_contradictions_are_refused(self) -> None:
        for head in (
            "Content-Length: 2\r\nContent-Length: 3",
            "Content-Length: 2\r\nTransfer-Encoding: chunked",
            "Content-Length: +2",
            "Content-Length: -1",
            "Content-Length: 0x2",
            "Content-Length: 99999999999999999999",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "X: a\r\n folded",
            "No colon",
            "Bad name: x",
            "X: a\0b",
        ):
            server = self.serve(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\nok".encode())
            await self.error_of(self.client.fetch(server.url()), HTTPStreamClosedError)

    async def test_no_response_at_all(self) -> None:
        for rubbish in (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", b"HTTP/2 200\r\n\r\n", b"HTTP/1.1 20 OK\r\n\r\n"):
            server = self.serve(rubbish)
            await self.error_of(self.client.fetch(server.url()), HTTPStreamClosedError)

    async def test_a_second_response_is_nobody_s(self) -> None:
        server = self.serve(response(b"first") + response(b"planted"))
        for _ in range(2):
            self.assertEqual((await self.client.fetch(server.url())).body, b"first")
        self.assertEqual(len(server.conversations), 2)

    async def test_what_comes_unasked_on_an_idle_connection_closes_it(self) -> None:
        server = self.serve(response(b"ok"))
        await self.client.fetch(server.url())
        self.assertEqual(self.client.pool.idle, 1)
        server.conversations[0].transport.write(response(b"planted"))
        await self.until(lambda: self.client.pool.idle == 0)
        self.assertEqual((await self.client.fetch(server.url())).body, b"ok")

    async def test_switching_protocols_is_refused(self) -> None:
        server = self.serve(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n")
        await self.error_of(self.client.fetch(server.url()), HTTPStreamClosedError)

    async def test_a_cut_body_is_no_response(self) -> None:
        def answer(request: bytes, conversation: Any) -> None:
            conversation.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
            conversation.transport.loseConnection()

        server = self.serve(answer)
        await self.error_of(self.client.fetch(server.url()), HTTPStreamClosedError)


class StateTest(ClientTestCase):
    async def test_no_credential_is_left_for_the_next_request_on_a_connection(self) -> None:
        server = self.serve(response(b"ok"))
        request = HTTPRequest(server.url(), headers=dict(SECRETS), auth_username="me", auth_password="pw")
        await self.client.fetch(request)
        await self.client.fetch(server.url())
        self.assertEqual(len(server.conversations), 1)
        self.assertNotIn(b"secret", server.requests[1])
        self.assertNotIn(b"Authorization", server.requests[1])
        self.assertEqual(dict(request.headers), SECRETS)

    async def test_no_credential_is_logged(self) -> None:
        server = self.serve(b"rubbish\r\n\r\n")
        url = server.url("/?token=secret-q").replace("//", "//me:secret-u@")
        error = await self.error_of(
            self.client.fetch(url, headers=SECRETS, auth_password="secret-o"), HTTPStreamClosedError
        )
        self.assertNotIn("secret", self.logged + str(error) + repr(error))
        self.assertIn("Malformed HTTP message", self.logged)
        self.assertNotIn("secret", repr(Proxy("proxy", 1, "Basic secret")))
        server = self.serve(response(b"ok"))
        answer = await self.client.fetch(server.url("/?token=secret-q").replace("//", "//me:secret-u@"))
        self.assertNotIn("secret", repr(answer))


class CookieTest(ClientTestCase):
    def jar(self, url: str, *lines: str, **options: Any) -> CookieJar:
        jar = CookieJar(**options)
        jar.update(parse_url(url), lines)
        return jar

    def sent(self, jar: CookieJar, url: str) -> str | None:
        return jar.header(parse_url(url))

    async def test_they_are_kept_only_when_asked_for(self) -> None:
        server = self.serve(response(b"", "Set-Cookie: a=1; Path=/"))
        await self.client.fetch(server.url())
        await self.client.fetch(server.url())
        self.assertNotIn(b"Cookie", server.requests[1])
        client = self.make_client(cookies=CookieJar())
        await client.fetch(server.url())
        await client.fetch(server.url())
        self.assertIn(b"\r\nCookie: a=1\r\n", server.requests[3])

    def test_only_the_host_that_set_it_gets_it(self) -> None:
        jar = self.jar("http://example.com/", "a=1")
        self.assertEqual(self.sent(jar, "http://example.com/"), "a=1")
        for other in (
            "http://sub.example.com/",
            "http://ample.com/",
            "http://badexample.com/",
            "http://com/",
        ):
            self.assertIsNone(self.sent(jar, other))

    def test_a_domain_is_believed_only_where_the_program_says_so(self) -> None:
        for domain in ("com", ".com", "co.uk", "example.com", "other.com", "127.0.0.1", "github.io"):
            jar = self.jar("http://www.example.com/", f"a=1; Domain={domain}")
            self.assertEqual(len(jar), 0, domain)
        jar = self.jar(
            "http://www.example.com/", "a=1; Domain=.Example.com", share_with_subdomains=["example.com"]
        )
        self.assertEqual(self.sent(jar, "http://api.example.com/x"), "a=1")
        self.assertIsNone(self.sent(jar, "http://badexample.com/"))
        own = self.jar("http://example.com/", "a=1", share_with_subdomains=["example.com"])
        self.assertIsNone(self.sent(own, "http://api.example.com/"))

    def test_attributes(self) -> None:
        jar = self.jar(
            "https://a.example/app/x", "s=1; Secure", "p=2; Path=/app", "h=3; Path=/other", "x=4; Max-Age=0"
        )
        self.assertEqual(self.sent(jar, "https://a.example/app/y"), "s=1; p=2")
        self.assertEqual(self.sent(jar, "http://a.example/app"), "p=2")
        self.assertIsNone(self.sent(jar, "http://a.example/application"))
        self.assertEqual(len(self.jar("http://a.example/", "s=1; Secure", "__Host-a=1; Path=/")), 0)
        self.assertEqual(len(self.jar("https://a.example/", "__Host-a=1; Secure; Path=/")), 1)
        self.assertEqual(len(self.jar("http://a.example/", "=1", "a", 'a=b\r\nX: "', "b=" + "x" * 5000)), 0)
        many = self.jar("http://a.example/", *[f"c{number}=1" for number in range(500)])
        self.assertEqual(len(many), 100)

    def test_a_plain_connection_sets_no_cookie_of_the_secure_one(self) -> None:
        jar = self.jar("https://a.example/", "session=good; Secure; Path=/")
        jar.update(parse_url("http://a.example/"), ["session=planted; Path=/", "session=; Max-Age=0; Path=/"])
        self.assertEqual(self.sent(jar, "https://a.example/"), "session=good")

    async def test_a_redirect_gets_the_cookies_of_where_it_leads(self) -> None:
        jar = CookieJar()
        client = self.make_client(cookies=jar)
        other = self.serve(response(b"there"))

        def answer(request: bytes, _: Any) -> bytes:
            return response(
                b"", f"Location: {other.url(host='localhost')}", "Set-Cookie: a=1", status="302 F"
            )

        server = self.serve(answer)
        await client.fetch(server.url())
        self.assertNotIn(b"Cookie", other.requests[0])


class TLSTest(ClientTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.made = self.authority()
        certfile, keyfile = self.made.issue()
        self.options = server_options({"certfile": str(certfile), "keyfile": str(keyfile)})

    async def test_an_unknown_authority_is_refused(self) -> None:
        server = self.serve(response(b"ok"), self.options)
        await self.error_of(self.client.fetch(server.url()), ssl.SSLCertVerificationError)
        self.assertEqual(server.requests, [])
        answer = await self.client.fetch(server.url(), ca_certs=str(self.made.file))
        self.assertEqual(answer.body, b"ok")

    async def test_the_name_is_checked(self) -> None:
        server = self.serve(response(b"ok"), self.options)
        client = self.make_client(hostname_mapping={"other.example": "127.0.0.1"})
        url = server.url(host="other.example")
        error = await self.error_of(
            client.fetch(url, ca_certs=str(self.made.file)), ssl.SSLCertVerificationError
        )
        self.assertIn("other.example", str(error))
        answer = await client.fetch(server.url(host="localhost"), ca_certs=str(self.made.file))
        self.assertEqual(answer.body, b"ok")

    async def test_a_connection_is_not_used_for_another_name_or_trust(self) -> None:
        server = self.serve(response(b"ok"), self.options)
        client = self.make_client(hostname_mapping={"other.example": "127.0.0.1"})
        await client.fetch(server.url(), validate_cert=False)
        self.assertEqual(client.pool.idle, 1)
        await self.error_of(client.fetch(server.url()), ssl.SSLCertVerificationError)
        await self.error_of(
            client.fetch(server.url(host="other.example"), ca_certs=str(self.made.file)), ssl.SSLError
        )
        self.assertEqual(len(server.requests), 1)
        await client.fetch(server.url(), validate_cert=False)
        self.assertEqual(len([one for one in server.conversations if one.requests]), 1)

    async def test_old_protocols_are_refused(self) -> None:
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_VERSION)
        context.set_max_proto_version(SSL.TLS1_1_VERSION)
        context.set_cipher_list(b"DEFAULT:@SECLEVEL=0")
        certfile, keyfile = self.made.issue("old")
        context.use_certificate_chain_file(str(certfile))
        context.use_privatekey_file(str(keyfile))

        class Old(ContextFactory):
            def getContext(self) -> Any:
                return context

        server = self.serve(response(b"ok"), Old())
        await self.error_of(
            self.client.fetch(server.url(), validate_cert=False),
            (ssl.SSLError, HTTPStreamClosedError),  # type: ignore[arg-type]
        )
        self.assertEqual(server.requests, [])


class CancelTest(ClientTestCase):
    async def test_cancelling_closes_the_connection(self) -> None:
        server = self.serve(lambda request, _: None)
        fetching = self.client.fetch(server.url())
        await self.until(lambda: server.requests)
        self.assertTrue(fetching.cancel())
        failed: Deferred[Any] = fetching
        failed.addErrback(lambda _: None)
        await server.conversations[0].closed
        self.assertEqual(len(self.client.active), 0)
