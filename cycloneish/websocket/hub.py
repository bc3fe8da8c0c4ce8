"""Rooms: one message for many connections, in this process or, over a bus, in several."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred, fail, succeed

from cycloneish.bus import Bus, Gap, Message, Subscription
from cycloneish.log import app_log
from cycloneish.websocket.errors import WebSocketClosedError
from cycloneish.websocket.sending import PreparedMessage

__all__ = ["Hub", "HubFullError", "Member"]

#: Members that are sent a message before other events of the reactor have their turn.
_SLICE: Final = 250


class HubFullError(Exception):
    """More messages were broadcast than the hub could hand out, and nobody waited."""


class Member(Protocol):
    """What can be in a room: a :class:`~cycloneish.websocket.WebSocketHandler`."""

    def write_prepared(self, message: PreparedMessage) -> Deferred[None]:
        """Send *message*."""


class _Broadcast:
    """A message on its way to the members that were in the room when it was sent."""

    __slots__ = ("count", "done", "members", "message")

    def __init__(self, message: PreparedMessage, members: list[Member]) -> None:
        self.message = message
        self.members: Iterator[Member] = iter(members)
        self.count = 0
        self.done: Deferred[int] = Deferred()


class Hub:
    """Rooms of connections.

    ::

        hub = Hub()

        class Chat(WebSocketHandler):
            def open(self, room):
                self.room = room
                hub.join(room, self)

            def on_message(self, message):
                hub.broadcast(self.room, message)

    A handler leaves its rooms by itself when its connection ends. A message is encoded once, whoever many get
    it; what happens with a client that reads too slowly is what its handler's settings say. Messages of one
    hub arrive everywhere in the order in which they were broadcast.

    :param bus: with one, every process that has a hub on it shares the rooms. Without, they are this
        process's.
    :param prefix: before the name of a room, as the name of a channel.
    :param most_waiting: messages that may wait to be handed out, when rooms are large and messages come fast.
    :param reactor: the global one unless given.
    """

    def __init__(
        self,
        bus: Bus | None = None,
        prefix: str = "room/",
        most_waiting: int = 1000,
        reactor: Any = None,
    ) -> None:
        self._bus = bus
        self._prefix = prefix
        self._most_waiting = most_waiting
        self._reactor = reactor
        self._rooms: dict[str, dict[Member, None]] = {}
        self._rooms_of: dict[Member, set[str]] = {}
        self._subscriptions: dict[str, Deferred[Subscription]] = {}
        self._waiting: deque[_Broadcast] = deque()
        self._later: Any = None
        self._working = False

    # -- rooms -------------------------------------------------------------------------------------

    def join(self, room: str, member: Member) -> Deferred[None]:
        """Put *member* into *room*.

        :returns: a Deferred that fires when no message is missed from then on: at once without a bus.
        """
        members = self._rooms.get(room)
        if members is None:
            members = self._rooms[room] = {}
        members[member] = None
        rooms = self._rooms_of.get(member)
        if rooms is None:
            rooms = self._rooms_of[member] = set()
            call_when_closed = getattr(member, "call_when_closed", None)
            if call_when_closed is not None:
                call_when_closed(self.leave_all)
        rooms.add(room)
        if self._bus is None:
            return succeed(None)
        joining = self._subscriptions.get(room)
        if joining is None:
            joining = self._subscriptions[room] = self._bus.subscribe(
                self._prefix + room,
                lambda message: self._arrived(room, message),
                on_gap=lambda gap: self._missed(room, gap),
            )
            joining.addErrback(self._not_subscribed, room)
        joined: Deferred[None] = Deferred()

        def tell(subscription: Subscription) -> Subscription:
            if not joined.called:
                joined.callback(None)
            return subscription

        def tell_failure(failure: Any) -> Any:
            if not joined.called:
                joined.errback(failure)
            return failure

        joining.addCallbacks(tell, tell_failure)
        return joined

    def leave(self, room: str, member: Member) -> None:
        """Take *member* out of *room*, if it is there."""
        members = self._rooms.get(room)
        if members is None or member not in members:
            return
        del members[member]
        rooms = self._rooms_of[member]
        rooms.discard(room)
        if not rooms:
            del self._rooms_of[member]
        if not members:
            del self._rooms[room]
            subscription = self._subscriptions.pop(room, None)
            if subscription is not None:
                subscription.addCallbacks(lambda one: one.close(), lambda _: None)
                subscription.addErrback(lambda _: None)

    def leave_all(self, member: Member) -> None:
        """Take *member* out of all its rooms."""
        for room in list(self._rooms_of.get(member, ())):
            self.leave(room, member)

    def members(self, room: str) -> list[Member]:
        """Who of this process is in *room*."""
        return list(self._rooms.get(room, ()))

    @property
    def rooms(self) -> list[str]:
        """The rooms in which somebody of this process is."""
        return list(self._rooms)

    # -- messages ----------------------------------------------------------------------------------

    def broadcast(
        self,
        room: str,
        message: str | bytes | Mapping[str, Any],
        binary: bool | None = None,
        exclude: Member | None = None,
    ) -> Deferred[Any]:
        """Send *message* to everybody in *room*.

        :param message: text, bytes, or a dictionary, which is sent as JSON.
        :param binary: whether to send it as a binary message; unless given, bytes are.
        :param exclude: who does not get it. Without a bus only.
        :returns: a Deferred that fires when the message was handed to the last member, with their number;
            with a bus, when the bus has taken it. It fails with :exc:`HubFullError` when too many messages
            wait, which does not happen to who waits for it.
        """
        if self._bus is None:
            is_binary = isinstance(message, bytes) if binary is None else binary
            members = [member for member in self._rooms.get(room, ()) if member is not exclude]
            return self._hand_out(PreparedMessage(message, is_binary), members)
        if exclude is not None:
            raise ValueError("exclude does not work over a bus: let the members ignore what is theirs")
        if isinstance(message, bytes) and binary is False:
            message = message.decode()
        elif isinstance(message, str) and binary:
            message = message.encode()
        return self._bus.publish(self._prefix + room, message)

    def _hand_out(self, message: PreparedMessage, members: list[Member]) -> Deferred[int]:
        if len(self._waiting) >= self._most_waiting:
            return fail(HubFullError(f"{len(self._waiting)} messages wait to be handed out"))
        broadcast = _Broadcast(message, members)
        self._waiting.append(broadcast)
        if self._later is None and not self._working:
            self._work()
        return broadcast.done

    def _work(self) -> None:
        """Hand out what waits, as much of it as one turn allows."""
        self._later = None
        self._working = True
        try:
            self._work_on()
        finally:
            self._working = False

    def _work_on(self) -> None:
        budget = _SLICE
        while self._waiting:
            broadcast = self._waiting[0]
            for member in broadcast.members:
                self._send(member, broadcast)
                budget -= 1
                if not budget:
                    self._work_later()
                    return
            self._waiting.popleft()
            if not broadcast.done.called:  # whoever waited may have cancelled it
                broadcast.done.callback(broadcast.count)

    def _work_later(self) -> None:
        reactor = self._reactor
        if reactor is None:
            from twisted.internet import reactor
        self._later = reactor.callLater(0, self._work)

    def _send(self, member: Member, broadcast: _Broadcast) -> None:
        try:
            member.write_prepared(broadcast.message)
        except WebSocketClosedError:
            self.leave_all(member)
        except Exception:
            app_log.error("Uncaught exception while sending to %r", member, exc_info=True)
        else:
            broadcast.count += 1

    # -- the bus -----------------------------------------------------------------------------------

    def _arrived(self, room: str, message: Message) -> Deferred[int]:
        if message.is_binary:
            prepared = PreparedMessage(message.raw, True)
        else:
            data = message.data
            prepared = PreparedMessage(data if isinstance(data, str) else message.raw)
        return self._hand_out(prepared, self.members(room))

    def _missed(self, room: str, gap: Gap) -> None:
        """Messages are missing; override to have members read the state anew."""
        app_log.warning("messages of room %r are missing (%s)", room, gap.reason)

    def _not_subscribed(self, failure: Any, room: str) -> Any:
        self._subscriptions.pop(room, None)
        return failure
