"""The request object: cheap to make, the rest on first access."""

from __future__ import annotations

import datetime
from http.cookies import CookieError, Morsel

from twisted.internet.defer import succeed
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from cycloneish.httputil import (
    HTTPConnection,
    HTTPFile,
    HTTPHeaders,
    HTTPInputError,
    HTTPServerRequest,
    RequestStartLine,
)


class Context:
    remote_ip = "10.0.0.1"
    protocol = "https"


class FakeConnection(HTTPConnection):
    context = Context()

    def __init__(self):
        self.written = []

    def write(self, chunk):
        self.written.append(chunk)
        return succeed(None)

    def finish(self):
        self.written.append("finish")


def make(uri="/", body=b"", method="GET", version="HTTP/1.1", connection=None, **fields):
    fields.setdefault("Host", "example.com")
    return HTTPServerRequest(
        start_line=RequestStartLine(method, uri, version),
        headers=HTTPHeaders(fields),
        body=body,
        connection=connection,
    )


FORM = "application/x-www-form-urlencoded"


class HTTPServerRequestTest(SynchronousTestCase):
    def test_parts_of_the_uri(self):
        request = make("/a%20b?c=d?e")
        self.assertEqual((request.path, request.query), ("/a%20b", "c=d?e"))
        self.assertEqual(request.full_url(), "http://example.com/a%20b?c=d?e")
        request = make("/a")
        self.assertEqual((request.path, request.query, request.arguments), ("/a", "", {}))

    def test_defaults(self):
        request = HTTPServerRequest()
        self.assertEqual(
            (request.method, request.uri, request.version, request.host, request.body, request.remote_ip),
            ("GET", "/", "HTTP/1.0", "127.0.0.1", b"", None),
        )
        self.assertEqual(request.protocol, "http")
        request = HTTPServerRequest("POST", "/x", "HTTP/1.1", host="h", body=b"b", files={"f": []})
        self.assertEqual((request.method, request.host, request.body), ("POST", "h", b"b"))
        self.assertEqual(request.files, {"f": []})

    def test_facts_of_the_connection(self):
        request = make(connection=FakeConnection())
        self.assertEqual((request.remote_ip, request.protocol), ("10.0.0.1", "https"))
        request.remote_ip = None
        request.anything = 1
        self.assertEqual(request.full_url(), "https://example.com/")

    def test_host_header(self):
        request = make(Host="Example.COM:8080")
        self.assertEqual((request.host, request.host_name), ("Example.COM:8080", "example.com"))
        for host in ("a b", "a,b", "a/b", ["a", "a"]):
            self.assertRaises(HTTPInputError, make, Host=host)
        self.assertRaises(
            HTTPInputError, HTTPServerRequest, start_line=RequestStartLine("GET", "/", "HTTP/1.1")
        )

    def test_query_arguments(self):
        request = make("/?a=1&b=x+y%C3%A9&a=&c;d=e&f")
        expected = {"a": [b"1", b""], "b": [b"x y\xc3\xa9"], "c;d": [b"e"], "f": [b""]}
        self.assertEqual(request.arguments, expected)
        self.assertEqual(request.query_arguments, expected)
        self.assertEqual(request.body_arguments, {})
        request.arguments["a"].append(b"2")
        self.assertEqual(request.query_arguments, expected)

    def test_raw_characters_in_the_query(self):
        self.assertEqual(make("/?a=\xe9").arguments, {"a": [b"\xe9"]})
        self.assertRaises(HTTPInputError, lambda: make("/?a=\u20ac").arguments)

    def test_body_arguments_join_those_of_the_query(self):
        request = make("/?a=1&b=2", b"a=3&c=4", **{"Content-Type": FORM + "; charset=utf-8"})
        self.assertEqual(request.body_arguments, {"a": [b"3"], "c": [b"4"]})
        self.assertEqual(request.query_arguments, {"a": [b"1"], "b": [b"2"]})
        self.assertEqual(request.arguments, {"a": [b"1", b"3"], "b": [b"2"], "c": [b"4"]})
        self.assertEqual(request.files, {})

    def test_other_bodies_are_left_alone(self):
        for content_type in ("application/json", "text/plain", "application/x-www-form-urlencodedx"):
            self.assertEqual(make(body=b"a=b", **{"Content-Type": content_type}).arguments, {})
        self.assertEqual(make(body=b"a=b").arguments, {})

    def test_body_that_arrives_after_the_arguments_were_read(self):
        request = make("/?a=1", **{"Content-Type": FORM})
        self.assertEqual(request.arguments, {"a": [b"1"]})
        request.body = b"b=2"
        self.assertEqual(request.arguments, {"a": [b"1"], "b": [b"2"]})
        self.assertEqual(request.body_arguments, {"b": [b"2"]})

    def test_what_is_done_to_one_of_the_arguments_does_not_show_in_another(self):
        names = ["query_arguments", "body_arguments", "arguments"]
        for query, body in (("?a=1", b""), ("", b"a=2"), ("", b""), ("?a=1", b"a=2")):
            came = {name: getattr(make("/" + query, body, **{"Content-Type": FORM}), name) for name in names}
            for changed in names:
                request = make("/" + query, body, **{"Content-Type": FORM})
                getattr(request, changed).setdefault("a", []).append(b"new")
                for name in names:
                    if name != changed:
                        self.assertEqual(getattr(request, name), came[name])
                self.assertEqual(request._known_arguments(), request.arguments)
                self.assertEqual(request._known_query_arguments(), request.query_arguments)
                self.assertEqual(request._known_body_arguments(), request.body_arguments)
                request = make("/" + query, body, **{"Content-Type": FORM})
                setattr(request, changed, {"a": [b"new"]})
                for name in names:
                    self.assertEqual(
                        getattr(request, name), {"a": [b"new"]} if name == changed else came[name]
                    )
                self.assertEqual(request._known_arguments(), request.arguments)

    def test_everything_can_be_set(self):
        request = make("/?a=1", b"b=2", **{"Content-Type": FORM})
        request.arguments = {"x": [b"y"]}
        self.assertEqual(request.arguments, {"x": [b"y"]})
        self.assertEqual(request.body_arguments, {"b": [b"2"]})
        for name in ("body_arguments", "files", "query_arguments"):
            request = make("/?a=1", b"b=2", **{"Content-Type": FORM})
            setattr(request, name, {})
            self.assertEqual(getattr(request, name), {})

    def test_form_that_was_parsed_while_it_streamed(self):
        request = make("/?a=1", **{"Content-Type": "multipart/form-data; boundary=x"})
        file = HTTPFile(filename="f", body=b"", content_type="t")
        request._adopt_form({"a": [b"2"]}, {"f": [file]})
        self.assertEqual(request.arguments, {"a": [b"1", b"2"]})
        self.assertEqual(request.files, {"f": [file]})

    def test_uploaded_file_names_are_base_names(self):
        body = (
            b"--b\r\nContent-Disposition: form-data; name=f; filename=\"../../x\"; filename*=utf-8''y\r\n\r\n"
            b"1\r\n--b--\r\n"
        )
        request = make(body=body, **{"Content-Type": "multipart/form-data; boundary=b"})
        self.assertEqual(request.files["f"][0].filename, "x")

    def test_malformed_form_is_reported_on_every_access(self):
        request = make(body=b"x", **{"Content-Type": "multipart/form-data; boundary=b"})
        for _ in range(2):
            for name in ("arguments", "body_arguments", "files"):
                self.assertRaises(HTTPInputError, getattr, request, name)
        self.assertEqual(request.query_arguments, {})

    def test_number_of_query_arguments(self):
        self.assertEqual(len(make("/?" + "&".join(["a"] * 1000)).arguments["a"]), 1000)
        with self.assertRaises(HTTPInputError) as caught:
            make("/?" + "&".join(["a"] * 1001))
        self.assertIn("Max number of fields exceeded", str(caught.exception))

    def test_cookies(self):
        request = make(Cookie='a=1; b="x\\073y"; =__Host-c=1; bad name=2; d; a=3; expires=4')
        self.assertEqual({k: m.value for k, m in request.cookies.items()}, {"a": "3", "b": "x;y"})
        self.assertIs(request.cookies, request.cookies)
        self.assertEqual(make().cookies, {})
        self.assertEqual(
            {k: m.value for k, m in make(Cookie=["a=1", "b=2"]).cookies.items()}, {"a": "1", "b": "2"}
        )
        request.cookies = {}
        self.assertEqual(request.cookies, {})

    def test_a_cookie_is_the_same_before_and_after_all_were_made(self):
        header = 'a=1; b="x\\073y"; c="\\012"; path=2; d e=3; =4; f; a=5; \u00e4=6; g="\u00e4"'

        def set_as_newer_pythons(morsel, name, value, coded):
            if not value.isprintable():
                raise CookieError("Control characters are not allowed in cookies")
            original(morsel, name, value, coded)

        original = Morsel.set
        for patched in (original, set_as_newer_pythons):
            self.patch(Morsel, "set", patched)
            for name in ("a", "b", "c", "path", "d e", "", "f", "\u00e4", "g", "missing"):
                request = make(Cookie=header)
                before = request._cookie_value(name)
                self.assertEqual(request.cookies[name].value if name in request.cookies else None, before)
                self.assertEqual(request._cookie_value(name), before)

    def test_repr_has_no_headers(self):
        request = make(Cookie="secret")
        self.assertNotIn("secret", repr(request))
        self.assertIn("method='GET'", repr(request))

    def test_request_time(self):
        request = make()
        self.assertGreaterEqual(request.request_time(), 0)
        request._request_done()
        self.assertEqual(request.request_time(), request.request_time())

    def test_cyclone_methods(self):
        connection = FakeConnection()
        request = make(connection=connection)
        self.assertTrue(request.supports_http_1_1())
        self.successResultOf(request.write(b"x"))
        first, second = request.notifyFinish(), request.notifyFinish()
        self.assertNoResult(first)
        request.finish()
        self.assertEqual(connection.written, [b"x", "finish"])
        self.assertIsNone(self.successResultOf(first))
        self.assertIsNone(self.successResultOf(second))
        self.assertIsNone(self.successResultOf(request.notifyFinish()))
        self.assertRaises(RuntimeError, make().write, b"x")

    def test_notify_finish_fails_when_the_client_goes_away(self):
        request = make()
        cancelled, waiting = request.notifyFinish(), request.notifyFinish()
        cancelled.addErrback(lambda _: None)
        cancelled.cancel()
        request._request_done(Failure(ConnectionLost()))
        self.failureResultOf(waiting, ConnectionLost)
        request._request_done()

    def test_no_client_certificate(self):
        self.assertIsNone(make().get_ssl_certificate())
        connection = FakeConnection()
        connection.transport = object()
        self.assertIsNone(make(connection=connection).get_ssl_certificate())

    def test_client_certificate(self):
        certificate, der = self.certificate()

        class Transport:
            def getPeerCertificate(self):
                return certificate

        connection = FakeConnection()
        connection.transport = Transport()
        request = make(connection=connection)
        self.assertEqual(request.get_ssl_certificate(binary_form=True), der)
        fields = request.get_ssl_certificate()
        self.assertEqual(fields["subject"], ((("commonName", "client"),),))
        self.assertEqual(fields["issuer"], ((("commonName", "client"),),))
        self.assertEqual(fields["version"], 3)
        self.assertEqual(fields["serialNumber"], "FF")
        self.assertEqual(fields["notBefore"], "Jan  2 03:04:05 2026 GMT")
        self.assertEqual(fields["subjectAltName"], (("DNS", "a.example"), ("IP Address", "127.0.0.1")))
        certificate, _ = self.certificate(names=False)
        self.assertNotIn("subjectAltName", request.get_ssl_certificate())

    def certificate(self, names=True):
        import ipaddress

        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from OpenSSL import crypto

        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "client")])
        start = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(255)
            .not_valid_before(start)
            .not_valid_after(start + datetime.timedelta(days=9))
        )
        if names:
            alternatives = [x509.DNSName("a.example"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), False)
        made = builder.sign(key, hashes.SHA256())
        return crypto.X509.from_cryptography(made), made.public_bytes(serialization.Encoding.DER)
