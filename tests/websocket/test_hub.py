"""Rooms: who gets what, in which order, when somebody leaves, over a bus."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from cycloneish.bus import open_bus
from cycloneish.web import Application
from cycloneish.websocket import Hub, HubFullError, PreparedMessage, WebSocketClosedError
from cycloneish.websocket.sending import SendDeferred
from tests.websocket.support import BINARY, CLOSE, TEXT, Frame, Recorder, WebSocketTestCase


class Fake:
    """A member that notes what it is sent."""

    def __init__(self) -> None:
        self.got: list[PreparedMessage] = []
        self.closed = False
        self.then: Any = None

    def write_prepared(self, message: PreparedMessage) -> Deferred[None]:
        if self.closed:
            raise WebSocketClosedError
        self.got.append(message)
        if self.then is not None:
            self.then()
        return SendDeferred.fired()

    @property
    def payloads(self) -> list[bytes]:
        return [message.payload for message in self.got]


class Turns:
    """A reactor whose turns the test takes."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def callLater(self, delay: float, function: Any) -> object:
        self.calls.append(function)
        return object()

    def turn(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()


class RoomTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Turns()
        self.hub = Hub(reactor=self.clock, most_waiting=5)

    def test_who_is_where(self) -> None:
        ann, bob = Fake(), Fake()
        self.hub.join("a", ann)
        self.hub.join("a", bob)
        self.hub.join("b", bob)
        self.assertEqual(self.successResultOf(self.hub.broadcast("a", "1")), 2)
        self.assertEqual(self.successResultOf(self.hub.broadcast("b", {"n": 2})), 1)
        self.assertEqual(self.successResultOf(self.hub.broadcast("a", b"3", exclude=ann)), 1)
        self.assertEqual(self.successResultOf(self.hub.broadcast("nobody", "4")), 0)
        self.assertEqual((ann.payloads, bob.payloads), ([b"1"], [b"1", b'{"n": 2}', b"3"]))
        self.assertEqual([message.binary for message in bob.got], [False, False, True])
        self.assertIs(ann.got[0], bob.got[0])
        self.hub.leave("a", bob)
        self.hub.leave("a", bob)
        self.assertEqual(self.hub.members("a"), [ann])
        self.hub.leave_all(ann)
        self.hub.leave_all(bob)
        self.assertEqual((self.hub.rooms, self.hub._rooms_of), ([], {}))

    def test_closed_ones_leave(self) -> None:
        ann, bob = Fake(), Fake()
        ann.closed = True
        self.hub.join("a", ann)
        self.hub.join("a", bob)
        self.assertEqual(self.successResultOf(self.hub.broadcast("a", "1")), 1)
        self.assertEqual(self.hub.members("a"), [bob])

    def test_large_rooms_leave_the_reactor_its_turns(self) -> None:
        members = [Fake() for _ in range(600)]
        for member in members:
            self.hub.join("a", member)
        first, second = self.hub.broadcast("a", "1"), self.hub.broadcast("a", "2")
        self.assertEqual(sum(len(member.got) for member in members), 250)
        self.assertNoResult(first)
        while self.clock.calls:
            before = sum(len(member.got) for member in members)
            self.clock.turn()
            self.assertLessEqual(sum(len(member.got) for member in members) - before, 250)
        self.assertEqual((self.successResultOf(first), self.successResultOf(second)), (600, 600))
        for member in members:
            self.assertEqual(member.payloads, [b"1", b"2"])

    def test_what_waits_is_bounded(self) -> None:
        for _ in range(251):
            self.hub.join("a", Fake())
        results = [self.hub.broadcast("a", str(number)) for number in range(6)]
        self.failureResultOf(results[-1], HubFullError)
        while self.clock.calls:
            self.clock.turn()
        self.assertEqual([self.successResultOf(one) for one in results[:5]], [251] * 5)

    def test_a_member_that_answers_at_once(self) -> None:
        ann, bob = Fake(), Fake()
        self.hub.join("a", ann)
        self.hub.join("a", bob)

        def answer() -> None:
            ann.then = None
            self.hub.broadcast("a", "answer")

        ann.then = answer
        self.hub.broadcast("a", "question")
        self.assertEqual(ann.payloads, [b"question", b"answer"])
        self.assertEqual(bob.payloads, [b"question", b"answer"])


class LiveTests(WebSocketTestCase):
    async def start(self, hub: Hub) -> None:
        self.made: list[Any] = []

        class Chat(Recorder):
            async def open(self, *args: str, **kwargs: str) -> None:
                super().open()
                await hub.join("all", self)
                self.write_message("joined")

            def on_message(self, message: str | bytes) -> Any:
                return hub.broadcast("all", message)

        self.serve(Application([("/", Chat, {"made": self.made})]))

    async def test_a_chat(self) -> None:
        hub = Hub()
        await self.start(hub)
        ann, bob = await self.raw(), await self.raw()
        await ann.read()
        await bob.read()
        ann.send(TEXT, b"hello")
        bob.send(BINARY, b"\xff")
        for one in (ann, bob):
            frames = await one.read(3)
            self.assertIn(Frame(TEXT, b"hello"), frames)
            self.assertIn(Frame(BINARY, b"\xff"), frames)
        ann.send(CLOSE, b"\x03\xe8")
        await ann.until_closed()
        await self.until(lambda: len(hub.members("all")) == 1)
        bob.client.close()
        await self.until(lambda: not hub.rooms)

    async def test_over_a_bus(self) -> None:
        bus = open_bus("memory:")
        bus.startService()
        self.addCleanup(bus.stopService)
        hub = Hub(bus)
        await self.start(hub)
        ann = await self.raw()
        await ann.read()
        # What another process would publish:
        await bus.publish("room/all", {"n": 1})
        await bus.publish("room/all", "text")
        await bus.publish("room/all", b"\x00")
        ann.send(TEXT, b"own")
        frames = await ann.read(5)
        self.assertEqual(
            frames[1:],
            [Frame(TEXT, b'{"n":1}'), Frame(TEXT, b"text"), Frame(BINARY, b"\x00"), Frame(TEXT, b"own")],
        )
        self.assertRaises(ValueError, hub.broadcast, "all", "x", None, self.made[0])
        ann.client.close()
        await self.until(lambda: not hub.rooms)
        self.assertEqual(hub._subscriptions, {})
