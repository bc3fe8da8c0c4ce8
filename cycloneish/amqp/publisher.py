"""Confirmed publishing on one channel: window, back-pressure, returns, what a lost connection leaves.

The service has one for all publishes and one for calls, and gives each a new channel after every reconnect.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from struct import Struct
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from .client import Channel
from .errors import (
    AMQPError,
    ChannelError,
    ConnectionLost,
    MessageNacked,
    MessageReturned,
    NotFound,
    Overloaded,
    WaitTimeout,
)
from .message import Message

__all__ = ["Publisher"]

_FRAME = Struct("!BHI")
_MOST_TEMPLATES = 1000
_SWEEP = 0.5
_MOST_TRIES = 3


class _Entry:
    """A message on its way: waiting, parked while its exchange is looked up, or sent and not confirmed."""

    __slots__ = (
        "body",
        "deadline",
        "deferred",
        "exchange",
        "mandatory",
        "message_id",
        "properties",
        "returned",
        "routing_key",
        "tries",
    )

    def __init__(
        self,
        exchange: str,
        routing_key: str,
        properties: bytes,
        body: bytes,
        mandatory: bool,
        message_id: str | None,
        deadline: float,
    ) -> None:
        self.exchange = exchange
        self.routing_key = routing_key
        self.properties = properties
        self.body = body
        self.mandatory = mandatory
        self.message_id = message_id
        self.deadline = deadline
        self.returned: MessageReturned | None = None
        self.tries = 0
        # Cancelling fires it, which is what says that nobody waits any more.
        self.deferred: Deferred[None] = Deferred()


class Publisher:
    """Sends messages and knows which of them the broker has.

    :param window: how many may be sent and not confirmed.
    :param max_waiting: how many may wait for the window or a connection.
    :param republish: send unconfirmed messages again after a reconnect, rather than failing them.
    :param look_up: fires when an exchange of this name exists.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        window: int,
        max_waiting: int,
        republish: bool,
        look_up: Callable[[str], Deferred[Any]],
    ) -> None:
        self._reactor = reactor
        self._window = window
        self._max_waiting = max_waiting
        self._republish = republish
        self._look_up = look_up
        self.channel: Channel | None = None
        self.blocked = False
        self.known = {"", "amq.direct", "amq.fanout", "amq.topic", "amq.headers"}
        self._waiting: deque[_Entry] = deque()
        self._parked: dict[str, list[_Entry]] = {}
        self._outstanding: dict[int, _Entry] = {}
        self._oldest = 1
        self._last = 0
        self._templates: dict[tuple[str, str, bool], bytes] = {}
        self._sweeping: Any = None
        self._idle: list[Deferred[None]] = []

    @property
    def outstanding(self) -> int:
        """Messages sent and not confirmed."""
        return len(self._outstanding)

    @property
    def unfinished(self) -> int:
        """All that somebody waits for."""
        return len(self._outstanding) + len(self._waiting) + sum(map(len, self._parked.values()))

    def send(
        self,
        exchange: str,
        routing_key: str,
        properties: bytes,
        body: bytes,
        mandatory: bool,
        message_id: str | None,
        timeout: float,
    ) -> Deferred[None]:
        """Send a message now or when there is room; fires when it is confirmed."""
        entry = _Entry(
            exchange, routing_key, properties, body, mandatory, message_id, self._reactor.seconds() + timeout
        )
        if (
            self.channel is not None
            and not self.blocked
            and not self._waiting
            and len(self._outstanding) < self._window
            and exchange in self.known
        ):
            try:
                self._write(entry)
            except (ValueError, UnicodeError):
                return fail(Failure())
        elif self.unfinished - len(self._outstanding) >= self._max_waiting:
            return fail(Failure(Overloaded(f"{self._max_waiting} messages wait to be published already")))
        else:
            self._waiting.append(entry)
            self._pump()
        if self._sweeping is None:
            self._sweeping = self._reactor.callLater(_SWEEP, self._sweep)
        return entry.deferred

    def _write(self, entry: _Entry) -> None:
        channel = self.channel
        assert channel is not None
        key = entry.exchange, entry.routing_key, entry.mandatory
        method = self._templates.get(key)
        if method is None:
            method = self._template(channel.id, *key)
        self._last += 1
        self._outstanding[self._last] = entry
        client = channel.client
        client.send(method + client.content_frames(channel.id, entry.properties, entry.body))

    def _template(self, number: int, exchange: str, routing_key: str, mandatory: bool) -> bytes:
        names = b""
        for name in (exchange, routing_key):
            data = name.encode()
            if len(data) > 255:
                raise ValueError("an exchange's name and a routing key have at most 255 bytes")
            names += bytes((len(data),)) + data
        payload = b"\0\x3c\0\x28\0\0" + names + (b"\1" if mandatory else b"\0")
        frame = _FRAME.pack(1, number, len(payload)) + payload + b"\xce"
        if len(self._templates) >= _MOST_TEMPLATES:
            self._templates.clear()
        self._templates[exchange, routing_key, mandatory] = frame
        return frame

    def _pump(self) -> None:
        waiting = self._waiting
        while (
            waiting
            and self.channel is not None
            and not self.blocked
            and len(self._outstanding) < self._window
        ):
            entry = waiting.popleft()
            if entry.deferred.called:
                continue
            if entry.exchange not in self.known:
                self._park(entry)
                continue
            try:
                self._write(entry)
            except (ValueError, UnicodeError):
                entry.deferred.errback(Failure())
        self._check_idle()

    def _park(self, entry: _Entry) -> None:
        """Publishing to an exchange that is not there would close the channel under everybody else."""
        exchange = entry.exchange
        if exchange in self._parked:
            self._parked[exchange].append(entry)
            return
        self._parked[exchange] = [entry]

        def found(_: Any) -> None:
            if len(self.known) < 10000:
                self.known.add(exchange)
                self._waiting.extendleft(reversed(self._parked.pop(exchange, [])))
            else:
                self.known = {"", exchange}
                self._waiting.extendleft(reversed(self._parked.pop(exchange, [])))
            self._pump()

        def missing(failure: Failure) -> None:
            entries = self._parked.pop(exchange, [])
            if failure.check(ChannelError):
                for one in entries:
                    _fail(one, failure.value)
            else:
                # The connection went: not sent yet, so they wait for the next one.
                self._waiting.extendleft(reversed(entries))
            self._check_idle()

        self._look_up(exchange).addCallbacks(found, missing)

    # Answers

    def opened(self, channel: Channel) -> None:
        """*channel* is in confirm mode: go on with it."""
        self.channel = channel
        self._outstanding = {}
        self._oldest = 1
        self._last = 0
        self._templates.clear()
        channel.on_confirm = self._confirmed
        channel.on_return = self._returned
        self._pump()

    def lost(self, reason: AMQPError) -> None:
        """The channel is gone: say so to everybody whose message was not confirmed, or send them again."""
        self.channel = None
        entries = list(self._outstanding.values())
        self._outstanding = {}
        if isinstance(reason, NotFound):
            self.known = {""}
        again = []
        for entry in entries:
            entry.tries += isinstance(reason, ChannelError)
            if self._republish and entry.tries < _MOST_TRIES:
                entry.returned = None
                again.append(entry)
            elif isinstance(reason, ChannelError):
                _fail(entry, reason)
            else:
                _fail(entry, ConnectionLost(f"not confirmed, the broker may have it or not: {reason}"))
        self._waiting.extendleft(reversed(again))
        self._check_idle()

    def set_blocked(self, blocked: bool) -> None:
        """The broker takes nothing for now, or again."""
        self.blocked = blocked
        self._pump()

    def _confirmed(self, tag: int, multiple: int, acknowledged: bool) -> None:
        pop = self._outstanding.pop
        if not multiple:
            entry = pop(tag, None)
            if entry is not None:
                self._settle(entry, acknowledged)
        else:
            for number in range(self._oldest, min(tag or self._last, self._last) + 1):
                entry = pop(number, None)
                if entry is not None:
                    self._settle(entry, acknowledged)
            self._oldest = max(self._oldest, (tag or self._last) + 1)
        if self._waiting:
            self._pump()
        elif self._idle:
            self._check_idle()

    def _settle(self, entry: _Entry, acknowledged: bool) -> None:
        if entry.deferred.called:
            return
        if entry.returned is not None:
            entry.deferred.errback(entry.returned)
        elif acknowledged:
            entry.deferred.callback(None)
        else:
            entry.deferred.errback(MessageNacked("the broker did not take the message"))

    def _returned(self, code: int, text: str, message: Message) -> None:
        """A return comes before the confirm, and names no number: the message's id does."""
        identity = message.message_id
        for entry in self._outstanding.values():
            if entry.mandatory and entry.returned is None and entry.message_id == identity:
                entry.returned = MessageReturned(code, text, message.exchange, message.routing_key)
                return

    # Time

    def _sweep(self) -> None:
        self._sweeping = None
        now = self._reactor.seconds()
        unconfirmed = [entry for entry in self._outstanding.values() if entry.deadline <= now]
        parked = [entry for entries in self._parked.values() for entry in entries]
        unsent = [entry for entry in (*self._waiting, *parked) if entry.deadline <= now]
        self._waiting = deque(
            entry for entry in self._waiting if entry.deadline > now and not entry.deferred.called
        )
        # Whoever is told may publish again, so that comes last.
        for entry in unconfirmed:
            _fail(entry, WaitTimeout("not confirmed in time; the broker may have it or not"))
        for entry in unsent:
            _fail(entry, WaitTimeout("not sent in time: no connection, or no room"))
        self._check_idle()
        if self.unfinished and self._sweeping is None:
            self._sweeping = self._reactor.callLater(_SWEEP, self._sweep)

    def drained(self) -> Deferred[None]:
        """Fires when nothing is on its way."""
        if not self.unfinished:
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        self._idle.append(waiter)
        return waiter

    def _check_idle(self) -> None:
        if self._idle and not self.unfinished:
            idle, self._idle = self._idle, []
            for waiter in idle:
                if not waiter.called:
                    waiter.callback(None)

    def stop(self, reason: AMQPError) -> None:
        """The end: whoever still waits is told *reason*."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        parked = [entry for entries in self._parked.values() for entry in entries]
        entries = [*self._outstanding.values(), *parked, *self._waiting]
        self._outstanding = {}
        self._parked = {}
        self._waiting.clear()
        self.channel = None
        for entry in entries:
            _fail(entry, reason)
        self._check_idle()


def _fail(entry: _Entry, reason: BaseException | None) -> None:
    if not entry.deferred.called:
        entry.deferred.errback(Failure(reason))
