"""Compressed responses."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cycloneish.httputil import HTTPHeaders
from cycloneish.web import Application, GZipContentEncoding, OutputTransform, RequestHandler
from tests.web.fake import FakeConnection, fetch

TEXT = "hello world " * 200


class Text(RequestHandler):
    def get(self) -> None:
        if self.get_argument("type", ""):
            self.set_header("Content-Type", self.get_argument("type"))
        self.write(TEXT[: int(self.get_argument("size", "100000"))])


class Pieces(RequestHandler):
    def get(self) -> None:
        self.set_header("Content-Length", "2")
        for piece in ("a", "b"):
            self.write(piece)
            self.flush()


class GZipTests(SynchronousTestCase):
    def get(self, path: str = "/", accept: str = "gzip, deflate", handler: Any = Text) -> FakeConnection:
        return fetch(handler, path, headers={"Accept-Encoding": accept}, compress_response=True)

    def test_text_is_compressed(self) -> None:
        connection = self.get()
        self.assertEqual(connection.headers["Content-Encoding"], "gzip")
        self.assertEqual(connection.headers["Vary"], "Accept-Encoding")
        self.assertEqual(connection.headers["Content-Length"], str(len(connection.body)))
        self.assertLess(len(connection.body), 200)
        self.assertEqual(gzip.decompress(connection.body).decode(), TEXT)

    def test_tag_becomes_weak_and_still_matches(self) -> None:
        etag = self.get().headers["Etag"]
        self.assertTrue(etag.startswith('W/"'))
        connection = fetch(
            Text, headers={"Accept-Encoding": "gzip", "If-None-Match": etag}, compress_response=True
        )
        self.assertEqual((connection.code, connection.body), (304, b""))
        self.assertNotIn("Content-Encoding", connection.headers)

    def test_negotiation(self) -> None:
        for accept, compressed in (
            ("", False),
            ("identity", False),
            ("gzip;q=0", False),
            ("gzip;q=0.5", True),
            ("br, gzip", True),
            ("gzip,br", True),
            ("*", True),
            ("*;q=0", False),
            ("gzip;q=0, *", False),
            ("*;q=0, gzip", True),
            ("notgzip", False),
            ("br, x-gzip ; q=1.0", True),
            ("br;q=1, gzip;q=.", False),
        ):
            connection = self.get(accept=accept)
            self.assertEqual("Content-Encoding" in connection.headers, compressed, accept)
            self.assertEqual(connection.headers["Vary"], "Accept-Encoding")

    def test_small_responses_are_left_alone(self) -> None:
        self.assertNotIn("Content-Encoding", self.get("/?size=1023").headers)
        self.assertIn("Content-Encoding", self.get("/?size=1024").headers)

    def test_compressed_types_are_left_alone(self) -> None:
        for kind, compressed in (
            ("image/png", False),
            ("application/zip", False),
            ("video/mp4", False),
            ("application/json", True),
            ("Text/Plain;charset=utf-8", True),
            ("image/svg%2Bxml", True),
        ):
            self.assertEqual("Content-Encoding" in self.get(f"/?type={kind}").headers, compressed, kind)

    def test_streamed_pieces_can_be_read_as_they_come(self) -> None:
        connection = self.get(handler=Pieces)
        self.assertNotIn("Content-Length", connection.headers)
        reader = zlib.decompressobj(31)
        self.assertEqual([reader.decompress(chunk) for chunk in connection.chunks], [b"a", b"b", b""])
        self.assertTrue(reader.eof)

    def test_other_encodings_and_vary_are_kept(self) -> None:
        class Handler(RequestHandler):
            def get(self) -> None:
                self.set_header("Content-Encoding", "br")
                self.set_header("Vary", "Cookie")
                self.write(TEXT)

        connection = self.get(handler=Handler)
        self.assertEqual(connection.headers["Content-Encoding"], "br")
        self.assertEqual(connection.headers["Vary"], "Cookie, Accept-Encoding")

    def test_parts_are_not_compressed(self) -> None:
        class Handler(RequestHandler):
            def get(self) -> None:
                self.set_status(206)
                self.write(TEXT)

        self.assertNotIn("Content-Encoding", self.get(handler=Handler).headers)

    def test_own_transforms(self) -> None:
        class Upper(OutputTransform):
            def transform_first_chunk(
                self, status_code: int, headers: HTTPHeaders, chunk: bytes, finishing: bool
            ) -> tuple[int, HTTPHeaders, bytes]:
                return 203, headers, chunk.upper()

        app = Application([("/.*", Pieces)], transforms=[Upper])
        app.add_transform(OutputTransform)
        connection = fetch(app)
        self.assertEqual((connection.code, connection.body), (203, b"Ab"))
        self.assertEqual(Application(gzip=True).transforms, [GZipContentEncoding])
