"""WebSockets of the testing kit, which need no socket."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase, TestCase

from cycloneish.testing import Client
from cycloneish.web import Application
from cycloneish.websocket import HandshakeError, WebSocketClosedError
from tests.web.live import sleep
from tests.websocket.support import Echo


class Greeter(Echo):
    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        return subprotocols[0] if subprotocols else None

    def open(self, *args: str, **kwargs: str) -> None:
        super().open()
        self.write_message("hello " + self.get_argument("name", "you"))


def make_client(test: Any) -> tuple[Client, list[Any]]:
    made: list[Any] = []
    client = Client(Application([("/ws", Greeter, {"made": made, "options": {}})]))
    test.addCleanup(client.close)
    return client, made


class SynchronousTests(SynchronousTestCase):
    def test_a_conversation(self) -> None:
        client, made = make_client(self)
        socket = self.successResultOf(client.websocket("/ws", params={"name": "Ann"}))
        self.assertEqual(self.successResultOf(socket.read_message()), "hello Ann")
        for message in ("ä", b"\xff", "x" * 100_000):
            socket.write_message(message, binary=isinstance(message, bytes))
            self.assertEqual(self.successResultOf(socket.read_message()), message)
        later = socket.read_message()
        self.assertNoResult(later)
        made[0].write_message("later")
        client.flush()
        self.assertEqual(self.successResultOf(later), "later")
        socket.close(4000, "bye")
        self.assertEqual(made[0].closes, [("close", 4000, "bye")])
        self.assertIsNone(self.successResultOf(socket.read_message()))
        self.assertRaises(WebSocketClosedError, socket.write_message, "late")

    def test_refused(self) -> None:
        client, _ = make_client(self)
        error = self.failureResultOf(client.websocket("/nowhere"), HandshakeError)
        self.assertEqual(error.value.code, 404)
        refused = client.websocket("/ws", headers={"Origin": "http://evil.example"})
        self.assertEqual(self.failureResultOf(refused, HandshakeError).value.code, 403)

    def test_a_client_that_goes_away(self) -> None:
        client, made = make_client(self)
        socket = self.successResultOf(client.websocket("/ws"))
        socket.stream.transport.abortConnection()
        self.assertEqual(made[0].closes, [("close", None, None)])
        self.assertIsNone(socket.close_code)


class AsynchronousTests(TestCase):
    async def test_everything_that_was_agreed_on(self) -> None:
        client, made = make_client(self)
        socket = await client.websocket("/ws", subprotocols=["a", "b"], compression_options={})
        self.assertEqual(socket.selected_subprotocol, "a")
        self.assertIsNotNone(socket.protocol._deflate)
        self.assertEqual(await socket.read_message(), "hello you")
        await socket.write_message("abc" * 1000)
        self.assertEqual(await socket.read_message(), "abc" * 1000)
        made[0].close(1001, "enough")
        self.assertIsNone(await socket.read_message())
        self.assertEqual((socket.close_code, socket.close_reason), (1001, "enough"))
        for _ in range(100):
            if made[0].closes:
                break
            await sleep(0.01)
        self.assertEqual(made[0].closes, [("close", 1001, None)])
