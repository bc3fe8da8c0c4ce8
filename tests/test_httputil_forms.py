"""Form bodies that are in memory as a whole, and the files in them."""

from __future__ import annotations

import io
import random

from tornado import httputil as tornado_httputil
from twisted.trial.unittest import SynchronousTestCase

from cycloneish import httputil
from cycloneish.httputil import (
    HTTPFile,
    HTTPHeaders,
    HTTPInputError,
    HTTPServerRequest,
    ParseBodyConfig,
    ParseMultipartConfig,
    ParseUrlEncodedConfig,
    parse_body_arguments,
    parse_multipart_form_data,
)
from cycloneish.httputil.pieces import Pieces
from tests.timing import ratio

FORM = "application/x-www-form-urlencoded"


class UrlencodedTest(SynchronousTestCase):
    def parse(self, body, content_type=FORM, fields=None, **kwargs):
        arguments = {}
        parse_body_arguments(content_type, body, arguments, {}, fields, **kwargs)
        return arguments

    def test_only_ampersand_separates(self):
        self.assertEqual(self.parse(b"a=1;b=2&c=3"), {"a": [b"1;b=2"], "c": [b"3"]})

    def test_type_in_any_case(self):
        self.assertEqual(self.parse(b"a=1", FORM.upper() + " ;charset=x"), {"a": [b"1"]})

    def test_limit(self):
        self.assertEqual(len(self.parse(b"a=1&" * 999 + b"a=1")["a"]), 1000)
        with self.assertRaises(HTTPInputError) as caught:
            self.parse(b"a=1&" * 1000)
        self.assertIn("Max number of fields exceeded", str(caught.exception))
        config = ParseBodyConfig(urlencoded=ParseUrlEncodedConfig(max_arguments=1))
        self.assertRaises(HTTPInputError, self.parse, b"a&b", config=config)

    def test_size(self):
        most = ParseUrlEncodedConfig().max_body_size
        self.assertEqual(len(self.parse(b"a=" + b"x" * (most - 2))["a"][0]), most - 2)
        with self.assertRaises(HTTPInputError) as caught:
            self.parse(b"a=" + b"x" * (most - 1))
        self.assertEqual(caught.exception.status, 413)
        large = ParseBodyConfig(urlencoded=ParseUrlEncodedConfig(max_body_size=most + 1))
        self.parse(b"a=" + b"x" * (most - 1), config=large)

    def test_limit_of_the_process(self):
        self.addCleanup(httputil.set_parse_body_config, httputil._DEFAULT_PARSE_BODY_CONFIG)
        config = ParseBodyConfig(urlencoded=ParseUrlEncodedConfig(max_arguments=2))
        httputil.set_parse_body_config(config)
        self.assertIs(httputil._DEFAULT_PARSE_BODY_CONFIG, config)
        self.assertRaises(HTTPInputError, self.parse, b"a&b&c")
        self.assertRaises(HTTPInputError, HTTPServerRequest, uri="/?a&b&c")
        self.assertRaises(AttributeError, lambda: httputil.nothing)

    def test_encoded_body_is_refused(self):
        for content_type in (FORM, "multipart/form-data; boundary=b"):
            with self.assertRaises(HTTPInputError) as caught:
                self.parse(b"a=1", content_type, HTTPHeaders({"Content-Encoding": "br"}))
            self.assertEqual(str(caught.exception), "Unsupported Content-Encoding: br")


class MultipartTest(SynchronousTestCase):
    PART = b'Content-Disposition: form-data; name="a"\r\n\r\n1'

    def parse(self, body, boundary=b"b", **kwargs):
        arguments, files = {}, {}
        parse_multipart_form_data(boundary, body, arguments, files, **kwargs)
        return arguments, files

    def body(self, *parts, end=b"--b--\r\n"):
        return b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + end

    def test_fields_and_files(self):
        file = b"Content-Disposition: form-data; name=f; filename=x.txt\r\nContent-Type: t/t\r\n\r\n\r\nz\r\n"
        arguments, files = self.parse(self.body(self.PART, self.PART, file, file))
        self.assertEqual(arguments, {"a": [b"1", b"1"]})
        self.assertEqual(
            files,
            {"f": [{"filename": "x.txt", "body": b"\r\nz\r\n", "content_type": "t/t"}] * 2},
        )
        self.assertEqual(files["f"][0].file.read(), b"\r\nz\r\n")

    def test_bodies_in_pieces(self):
        body = self.body(self.PART, b"Content-Disposition: form-data; name=f; filename=x\r\n\r\n\r\n--c\r\n")
        whole = self.parse(body)
        for first in range(1, len(body) - 1):
            for second in (first + 1, first + 4, (first + len(body)) // 2):
                cut = [piece for piece in (body[:first], body[first:second], body[second:]) if piece]
                self.assertEqual(self.parse(Pieces(cut)), whole, cut)
        broken = body[:-6]
        for size in (1, 3, 7):
            cut = [broken[i : i + size] for i in range(0, len(broken), size)]
            self.assertRaises(HTTPInputError, self.parse, Pieces(cut))

    def test_pieces_are_read_like_bytes(self):
        chance = random.Random(1)
        for _ in range(2000):
            data = bytes(chance.choices(b"ab", k=chance.randint(1, 30)))
            cuts = sorted({0, *chance.choices(range(1, len(data) + 1), k=chance.randint(0, 8))} - {len(data)})
            pieces = Pieces([data[a:b] for a, b in zip(cuts, [*cuts[1:], len(data)], strict=True)])
            needle = bytes(chance.choices(b"ab", k=chance.randint(1, 5)))
            start, stop = chance.randint(0, 32), chance.choice([None, chance.randint(0, 32)])
            self.assertEqual(len(pieces), len(data))
            self.assertEqual(pieces[start:stop], data[start:stop])
            self.assertEqual(pieces.find(needle, start, stop), data.find(needle, start, stop))
            self.assertEqual(pieces.startswith(needle, start), data.startswith(needle, start))
            self.assertEqual(pieces.join(), data)

    def test_empty_form(self):
        for body in (b"--b--", b"--b--\r\n", b"\r\n--b--\r\n\r\n"):
            self.assertEqual(self.parse(body), ({}, {}))

    def test_tornados_reading_of_file_names_is_kept(self):
        part = b"Content-Disposition: form-data; name=f; filename=\"../a\"; filename*=utf-8''%C3%A9\r\n\r\n1"
        self.assertEqual(self.parse(self.body(part))[1]["f"][0].filename, "é")
        self.assertEqual(self.parse(self.body(part), _strict=True)[1]["f"][0].filename, "a")

    def test_malformed(self):
        for body in [
            b"",
            b"x",
            self.body(self.PART, end=b""),
            self.body(self.PART, end=b"--b-"),
            self.body(self.PART, end=b"--b--x"),
            self.body(self.PART, end=b"--b--\r\n\r\n\r\n"),
            self.body(self.PART) + self.body(self.PART),
            b"x" + self.body(self.PART),
            self.body(b"1"),
            self.body(b"\r\n1"),
            self.body(b"1", self.PART),
            self.body(b"Content-Disposition: form-data\r\n\r\n1"),
            self.body(b'Content-Disposition: form-data; name=""\r\n\r\n1'),
            self.body(b"Content-Disposition: x; name=a\r\n\r\n1"),
            self.body(b"Content-Disposition: form-data; name=\xff\r\n\r\n1"),
            self.body(b"Content-Disposition: form-data; name=a\r\n folded\r\n\r\n1"),
            self.body(b"Content-Disposition: form-data; name=a\nX: y\r\n\r\n1"),
            self.body(b"Content-Disposition: form-data; name=a\rX\r\n\r\n1"),
            self.body(b"nocolon\r\n\r\n1"),
            b"--bb\r\n" + self.PART + b"\r\n--bb--",
            self.body(self.PART, end=b"--bc--\r\n"),
        ]:
            self.assertRaises(HTTPInputError, self.parse, body)
        self.assertRaises(HTTPInputError, self.parse, self.body(self.PART), b'""')

    def test_limits(self):
        self.assertEqual(len(self.parse(self.body(*[self.PART] * 100))[0]["a"]), 100)
        self.assertRaises(HTTPInputError, self.parse, self.body(*[self.PART] * 101))
        long = self.PART.replace(b"a", b"a" * 10240, 1)
        self.assertRaises(HTTPInputError, self.parse, self.body(b"X: " + b"y" * 10240 + b"\r\n" + self.PART))
        self.assertRaises(HTTPInputError, self.parse, self.body(long))
        self.assertRaises(
            HTTPInputError, self.parse, self.body(self.PART), config=ParseMultipartConfig(enabled=False)
        )

    def test_content_type(self):
        arguments = {}
        parse_body_arguments('Multipart/Form-Data; x=y; boundary="b"', self.body(self.PART), arguments, {})
        self.assertEqual(arguments, {"a": [b"1"]})
        for content_type in (
            "multipart/form-data",
            "multipart/form-dataxyz; boundary=b",
            "multipart/form-data; boundary=",
            "multipart/form-data; boundary=\xe9",
            "multipart/form-data; boundary=" + "b" * 257,
        ):
            with self.assertRaises(HTTPInputError) as caught:
                parse_body_arguments(content_type, self.body(self.PART), {}, {})
            self.assertIn("Invalid multipart/form-data: ", str(caught.exception))

    def test_agrees_with_tornado_on_well_formed_bodies(self):
        chance = random.Random(4)
        for _ in range(300):
            parts = []
            for _ in range(chance.randint(0, 5)):
                name = chance.choice(["a", "b c", "ü"])
                head = f'Content-Disposition: form-data; name="{name}"'
                if chance.random() < 0.5:
                    head += f'; filename="{chance.choice(["x.txt", "ö", "a;b", ""])}"'
                value = bytes(chance.choices(b"\r\n-b1", k=chance.randint(0, 12)))
                if b"--b" not in value:
                    parts.append(head.encode() + b"\r\n\r\n" + value)
            body = self.body(*parts)
            arguments, files = {}, {}
            tornado_httputil.parse_multipart_form_data(b"b", body, arguments, files)
            self.assertEqual(self.parse(body), (arguments, files), body)

    def test_linear_time(self):
        for filler in (b"\r", b"\r\n", b"\r\n-", b"\r\n--", b"-"):
            body = lambda n, f=filler: self.body(self.PART + f * n)  # noqa: E731
            self.assertLess(ratio(lambda n, b=body: self.parse(b(n)), 20_000, 200_000), 40, filler)


class HTTPFileTest(SynchronousTestCase):
    def test_items_are_attributes(self):
        file = HTTPFile(filename="f", body=b"abc", content_type="t")
        self.assertEqual((file.filename, file["body"], file.content_type), ("f", b"abc", "t"))
        self.assertEqual(file.file.read(2), b"ab")
        self.assertEqual(dict(file), {"filename": "f", "body": b"abc", "content_type": "t"})
        self.assertRaises(KeyError, file.__getitem__, "x")
        self.assertRaises(AttributeError, getattr, file, "x")

    def test_body_of_a_file_on_disk_is_read_when_asked_for(self):
        stored = io.BytesIO(b"abc")
        file = HTTPFile._from_file("f", "t", stored)
        stored.read(1)
        self.assertEqual(file.body, b"abc")
        self.assertIs(file.file, stored)
        self.assertEqual(stored.read(), b"bc")
        self.assertRaises(KeyError, file.__getitem__, "x")
