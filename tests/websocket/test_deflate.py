"""permessage-deflate: negotiation, and messages that are compressed (RFC 7692)."""

from __future__ import annotations

import os
import zlib
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cycloneish.web import Application
from cycloneish.websocket.deflate import (
    Agreement,
    Deflate,
    accept_answer,
    accept_offer,
    offer,
    parse_extensions,
)
from cycloneish.websocket.errors import DecompressedTooBigError
from tests.websocket.support import TEXT, Echo, Frame, WebSocketTestCase

OFFER = "permessage-deflate"


class HeaderTests(SynchronousTestCase):
    def test_lists(self) -> None:
        self.assertEqual(
            parse_extensions(' a ; b ; c = "d" ;e=f,, permessage-deflate'),
            [("a", {"b": None, "c": "d", "e": "f"}), ("permessage-deflate", {})],
        )
        self.assertEqual(parse_extensions(""), [])

    def test_what_is_no_list(self) -> None:
        for text in ("a b", "a;", "a; b=", "a; b=c d", 'a; b=""', "a; b; b", ";b", 'a; b="c', "a; =b", "é"):
            self.assertRaises(ValueError, parse_extensions, text)


class NegotiationTests(SynchronousTestCase):
    def accept(self, header: str, **options: Any) -> Any:
        return accept_offer(parse_extensions(header), options)

    def test_plain(self) -> None:
        self.assertEqual(self.accept(OFFER), (Agreement(), OFFER))
        self.assertIsNone(self.accept("x-webkit-deflate-frame"))

    def test_wishes_of_the_client(self) -> None:
        agreement, answer = self.accept(
            f"{OFFER}; server_no_context_takeover; client_no_context_takeover; "
            "server_max_window_bits=10; client_max_window_bits=11"
        )
        self.assertEqual(agreement, Agreement(True, True, 10, 11))
        self.assertEqual(
            answer,
            f"{OFFER}; server_no_context_takeover; client_no_context_takeover; "
            "server_max_window_bits=10; client_max_window_bits=11",
        )
        self.assertEqual(self.accept(f"{OFFER}; client_max_window_bits"), (Agreement(), OFFER))

    def test_wishes_of_the_server(self) -> None:
        options = {"server_no_context_takeover": True, "client_no_context_takeover": True, "max_wbits": 10}
        agreement, answer = self.accept(f"{OFFER}; client_max_window_bits", **options)
        self.assertEqual(agreement, Agreement(True, True, 10, 10))
        self.assertTrue(answer.endswith("server_max_window_bits=10; client_max_window_bits=10"))
        # A client that did not say that it can shrink its window cannot be told to.
        self.assertEqual(self.accept(OFFER, **options)[0].client_max_window_bits, 15)
        self.assertRaises(ValueError, accept_answer, [(OFFER, {})], {"max_wbits": 7})

    def test_the_first_offer_that_can_be_taken(self) -> None:
        for bad in (
            f"{OFFER}; unknown",
            f"{OFFER}; server_max_window_bits=8",  # which zlib cannot write
            f"{OFFER}; server_max_window_bits=16",
            f"{OFFER}; server_max_window_bits=010",
            f"{OFFER}; server_max_window_bits",
            f"{OFFER}; server_no_context_takeover=1",
            f"{OFFER}; client_max_window_bits=7",
        ):
            self.assertIsNone(self.accept(bad), bad)
            found = self.accept(f"{bad}, {OFFER}; server_no_context_takeover")
            self.assertEqual(found[1], f"{OFFER}; server_no_context_takeover")

    def test_offers_and_answers(self) -> None:
        self.assertEqual(offer({}), f"{OFFER}; client_max_window_bits")
        wishes = {"server_no_context_takeover": True, "max_wbits": 12}
        self.assertEqual(
            offer(wishes),
            f"{OFFER}; server_no_context_takeover; server_max_window_bits=12; client_max_window_bits=12",
        )
        self.assertIsNone(accept_answer([], {}))
        self.assertEqual(
            accept_answer([(OFFER, {"client_max_window_bits": "9"})], {}), Agreement(False, False, 15, 9)
        )
        for extensions, options in [
            ([(OFFER, {})], None),
            ([("other", {})], {}),
            ([(OFFER, {}), (OFFER, {})], {}),
            ([(OFFER, {"unknown": None})], {}),
            ([(OFFER, {"client_max_window_bits": "8"})], {}),
            ([(OFFER, {"server_max_window_bits": "15"})], {"max_wbits": 10}),
            ([(OFFER, {})], wishes),
        ]:
            self.assertRaises(ValueError, accept_answer, extensions, options)


class WorkTests(SynchronousTestCase):
    def pair(self, *agreed: Any, **options: Any) -> tuple[Deflate, Deflate]:
        agreement = Agreement(*agreed)
        return Deflate(agreement, False, options), Deflate(agreement, True, options)

    def test_round_trips(self) -> None:
        for agreed in [(), (True, True), (False, False, 9, 9), (True, False, 10, 15)]:
            server, client = self.pair(*agreed)
            for message in (b"", b"a", b"", b"hello " * 1000, os.urandom(5000), b"hello " * 1000):
                for one, other in ((server, client), (client, server)):
                    self.assertEqual(other.decompress(one.compress(message), 10_000, True), message)

    def test_what_was_sent_before_helps(self) -> None:
        server, _ = self.pair()
        message = os.urandom(500)
        self.assertGreater(len(server.compress(message)), 400)
        self.assertLess(len(server.compress(message)), 30)
        forgetful, _ = self.pair(True)
        forgetful.compress(message)
        self.assertGreater(len(forgetful.compress(message)), 400)
        self.assertIsNone(forgetful._compressor)

    def test_the_examples_of_the_rfc(self) -> None:
        _, client = self.pair()
        hello = bytes.fromhex("f248cdc9c90700")
        self.assertEqual(client.decompress(hello, 100, True), b"Hello")
        self.assertEqual(client.decompress(bytes.fromhex("f200110000"), 100, True), b"Hello")
        _, client = self.pair()
        for data in ("000500faff48656c6c6f00", "f348cdc9c9070000", "f248050000 00ffffcac9c90700"):
            self.assertEqual(client.decompress(bytes.fromhex(data), 100, True), b"Hello", data)
            self.assertEqual(client.decompress(hello, 100, True), b"Hello")

    def test_limit(self) -> None:
        server, client = self.pair()
        packed = server.compress(bytes(1000))
        self.assertEqual(client.decompress(packed, 1000, True), bytes(1000))
        _, client = self.pair()
        self.assertRaises(DecompressedTooBigError, client.decompress, packed, 999, True)
        _, client = self.pair()
        self.assertRaises(zlib.error, client.decompress, b"not deflated", 999, True)


class ConnectionTests(WebSocketTestCase):
    async def start(self, header: str = OFFER, **options: Any) -> Any:
        self.made: list[Any] = []
        self.serve(Application([("/", Echo, {"made": self.made, "options": options})]))
        return await self.raw("/", f"Sec-WebSocket-Extensions: {header}")

    async def test_compressed_echo(self) -> None:
        socket = await self.start()
        self.assertIn(b"sec-websocket-extensions: permessage-deflate\r\n", socket.head.lower() + b"\r\n")
        socket.send(TEXT, bytes.fromhex("f248cdc9c90700"), rsv=4)
        socket.send(TEXT, b"plain")
        first, second = await socket.read(2)
        self.assertEqual((first.rsv, second.rsv), (4, 4))
        client = Deflate(Agreement(), True, {})
        self.assertEqual(client.decompress(first.payload, 100, True), b"Hello")
        self.assertEqual(client.decompress(second.payload, 100, True), b"plain")

    async def test_fragments(self) -> None:
        socket = await self.start()
        packed = Deflate(Agreement(), True, {}).compress("grüße ".encode() * 500)
        socket.send(TEXT, packed[:5], fin=False, rsv=4)
        for index in range(5, len(packed) - 1):
            socket.send(0, packed[index : index + 1], fin=False)
        socket.send(0, packed[-1:])
        await socket.read()
        self.assertEqual(self.made[0].events[1], "grüße " * 500)

    async def test_short_messages_are_left_alone(self) -> None:
        socket = await self.start(min_size=100)
        socket.send(TEXT, b"short")
        self.assertEqual(await socket.read(), [Frame(TEXT, b"short")])

    async def test_nothing_is_allocated_before_it_is_used(self) -> None:
        await self.start()
        deflate = self.made[0].ws_connection._deflate
        self.assertIsNone(deflate._compressor)
        self.assertIsNone(deflate._decompressor)
