"""A bus over PostgreSQL's LISTEN and NOTIFY: for programs that have a PostgreSQL and need no broker.

All channels of a bus travel over one channel of PostgreSQL's, and each process picks out what it wants: so
any number of channels, of any names, costs the server nothing, and subscribing to one more is free. A
notification has less than 8,000 bytes; a larger message is sent in pieces. They are notified in one
transaction, and PostgreSQL delivers what one transaction notified in one run, so a receiver never has more
than one message in pieces.

The form of a notification, in ASCII: ``<sender>:<number> <kind>[<piece>/<pieces>] <channel> <data>``. The
kind is ``j`` for JSON and ``b`` for bytes in base64. The number keeps PostgreSQL from folding equal
notifications.
"""

from __future__ import annotations

import base64
import logging
import secrets
from collections import deque
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from twisted.internet.defer import CancelledError, Deferred, fail, maybeDeferred, succeed
from twisted.python.failure import Failure

from .transport import Receiver
from .values import BusClosed, BusError, Message

if TYPE_CHECKING:
    from ..db.postgres import Pool, Subscription

__all__ = ["PostgresTransport"]

log = logging.getLogger("cycloneish.bus")

#: Bytes of one notification: PostgreSQL's limit is 8,000, its final NUL included.
LONGEST_NOTIFICATION = 7999
#: Pieces of the largest message that is put together: about 64 MiB.
MOST_PIECES = 8400
_NOTIFY = "select pg_notify(%s, piece) from unnest(%s::text[]) as piece"
_BATCH_MESSAGES = 500
_BATCH_BYTES = 1024 * 1024


class _Outgoing:
    """A message on its way to the server."""

    __slots__ = ("deferred", "pieces", "size")

    def __init__(self, pieces: list[str], deferred: Deferred[None]) -> None:
        self.pieces = pieces
        self.size = sum(map(len, pieces))
        self.deferred = deferred


class PostgresTransport:
    """Carries a bus's messages over a pool of PostgreSQL connections.

    :param pool: the pool; publishing takes one of its connections at a time.
    :param owns_pool: whether the bus starts and stops it.
    :param notify_channel: the name that buses of one database meet under.
    :param max_outgoing: messages that may wait to be sent, as many MiB of them as thousands, before
        publishing fails with :exc:`~cycloneish.bus.BusError`.
    :param timeout: seconds to wait for the confirmation of a subscription, from a pool that is starting, too.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        owns_pool: bool = False,
        notify_channel: str = "cycloneish_bus",
        max_outgoing: int = 32_000,
        timeout: float = 60.0,
    ) -> None:
        self.pool = pool
        self._owns_pool = owns_pool
        self._notify_channel = notify_channel
        self._max_outgoing = max_outgoing
        self._max_outgoing_bytes = max_outgoing * 1024
        self._timeout = timeout
        self._sender = secrets.token_hex(4)
        self._numbers = 0
        self._outgoing: deque[_Outgoing] = deque()
        self._outgoing_bytes = 0
        self._sending: list[_Outgoing] = []
        self._receiver: Receiver | None = None
        self._reactor: Any = None
        self._topics: set[tuple[str, bool]] = set()
        self._listening: Deferred[None] | None = None
        self._subscription: Subscription | None = None
        self._join_waiters: list[tuple[Deferred[None], tuple[str, bool]]] = []
        # The message that arrives in pieces: its identity, and the pieces so far.
        self._partial: tuple[str, list[str]] | None = None
        self._drained: Deferred[None] | None = None

    # -- start and stop --------------------------------------------------------------------------

    def start(self, receiver: Receiver, reactor: Any) -> Deferred[None]:
        self._receiver = receiver
        self._reactor = reactor
        if self._owns_pool:
            self.pool.startService()
        return self.pool.when_ready().addCallback(lambda _: self._send_next())

    def stop(self) -> Deferred[None]:
        self._receiver = None
        self._topics.clear()
        self._partial = None
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.cancel()
        self._joined(Failure(BusClosed("the bus is stopped")))
        done: Deferred[Any] = self._unlisten()
        done.addCallback(lambda _: self._drain())
        if self._owns_pool:
            done.addCallback(lambda _: self.pool.stopService())
        done.addErrback(lambda failure: log.error("stopping the bus failed", exc_info=failure.value))
        return done

    def _drain(self) -> Deferred[None]:
        """What was published before the stop is sent still, where the server answers."""
        if not self._sending and not self._outgoing:
            return succeed(None)
        if not self._sending:
            # There was no connection to send it on yet.
            self._give_up()
            return succeed(None)
        drained = self._drained = Deferred()
        return drained.addTimeout(10.0, self._reactor).addErrback(lambda _: self._give_up())

    def _give_up(self) -> None:
        waiting, self._outgoing = self._outgoing, deque()
        self._outgoing_bytes = 0
        for entry in waiting:
            if not entry.deferred.called:
                entry.deferred.errback(BusClosed("the bus was stopped before this was sent"))

    # -- publish ---------------------------------------------------------------------------------

    def send(self, message: Message, tx: Any) -> Deferred[None]:
        pieces = self._pieces(message)
        if tx is not None:
            return maybeDeferred(tx.execute, _NOTIFY, (self._notify_channel, pieces)).addCallback(
                lambda _: None
            )
        deferred: Deferred[None] = Deferred(self._cancelled)
        entry = _Outgoing(pieces, deferred)
        if (
            len(self._outgoing) >= self._max_outgoing
            or self._outgoing_bytes + entry.size > self._max_outgoing_bytes
        ):
            return fail(BusError(f"{len(self._outgoing)} messages wait to be sent to PostgreSQL already"))
        self._outgoing.append(entry)
        self._outgoing_bytes += entry.size
        self._send_next()
        return deferred

    def _pieces(self, message: Message) -> list[str]:
        self._numbers += 1
        kind = "b" if message.is_binary else "j"
        data = (base64.b64encode(message.raw) if message.is_binary else message.raw).decode("ascii")
        identity = f"{self._sender}:{self._numbers} {kind}"
        channel = _quoted(message.channel)
        if len(identity) + len(channel) + len(data) + 2 <= LONGEST_NOTIFICATION:
            return [f"{identity} {channel} {data}"]
        # Room for the numbers of the pieces, six digits each.
        room = LONGEST_NOTIFICATION - len(identity) - len(channel) - 15
        count = -(-len(data) // room)
        return [
            f"{identity}{index + 1}/{count} {channel} {data[index * room : (index + 1) * room]}"
            for index in range(count)
        ]

    def _send_next(self) -> None:
        """One statement at a time, to keep messages in order; what comes meanwhile goes with the next."""
        if self._sending or not self._outgoing or not self.pool.running:
            return
        size = 0
        batch = self._sending
        while self._outgoing and len(batch) < _BATCH_MESSAGES and size < _BATCH_BYTES:
            entry = self._outgoing.popleft()
            size += entry.size
            if not entry.deferred.called:
                batch.append(entry)
        self._outgoing_bytes -= size
        if not batch:
            return
        pieces = [piece for entry in batch for piece in entry.pieces]
        sent = self.pool.execute(_NOTIFY, (self._notify_channel, pieces))
        sent.addBoth(self._sent, batch)

    def _sent(self, result: object, batch: list[_Outgoing]) -> None:
        self._sending = []
        for entry in batch:
            if entry.deferred.called:
                continue
            if isinstance(result, Failure):
                entry.deferred.errback(result)
            else:
                entry.deferred.callback(None)
        self._send_next()
        if not self._sending and self._drained is not None:
            drained, self._drained = self._drained, None
            self._give_up()
            drained.callback(None)

    def _cancelled(self, deferred: Deferred[None]) -> None:
        """What is not sent yet is not sent; what is under way goes on."""
        deferred.errback(CancelledError())

    # -- subscribe -------------------------------------------------------------------------------

    def join(self, channel: str, is_prefix: bool) -> Deferred[None]:
        topic = channel, is_prefix
        self._topics.add(topic)
        if self._subscription is not None:
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        self._join_waiters.append((waiter, topic))
        if self._listening is None:
            self._listen()
        return waiter

    def leave(self, channel: str, is_prefix: bool) -> Deferred[None]:
        self._topics.discard((channel, is_prefix))
        return succeed(None) if self._topics else self._unlisten()

    def _listen(self) -> None:
        listening: Deferred[Any] = self.pool.when_ready()
        listening.addCallback(
            lambda _: self.pool.listen(self._notify_channel, self._notified, on_gap=self._missed)
        )
        listening.addTimeout(self._timeout, self._reactor)
        self._listening = listening
        listening.addCallbacks(self._listens, self._not_listening)

    def _listens(self, subscription: Subscription) -> None:
        self._listening = None
        if not self._topics:
            subscription.close()
            # Of those who left before.
            self._joined(None)
            return
        self._subscription = subscription
        self._joined(None)

    def _not_listening(self, failure: Failure) -> None:
        self._listening = None
        self._topics.difference_update(topic for _, topic in self._join_waiters)
        self._joined(failure)

    def _joined(self, result: Failure | None) -> None:
        waiters, self._join_waiters = self._join_waiters, []
        for waiter, _ in waiters:
            waiter.callback(result)

    def _unlisten(self) -> Deferred[None]:
        subscription, self._subscription = self._subscription, None
        self._partial = None
        if subscription is None:
            return succeed(None)
        return subscription.close().addErrback(
            lambda failure: log.warning("UNLISTEN failed: %s", failure.getErrorMessage())
        )

    # -- what arrives ----------------------------------------------------------------------------

    def _missed(self) -> None:
        self._partial = None
        if self._receiver is not None:
            self._receiver.gap()

    def _notified(self, payload: str) -> None:
        receiver = self._receiver
        if receiver is None:
            return
        try:
            sender, kind, channel, data = payload.split(" ", 3)
            if len(kind) > 1:
                whole = self._put_together(sender, kind[1:], data)
                if whole is None:
                    return
                data = whole
            raw = base64.b64decode(data, validate=True) if kind[0] == "b" else data.encode("utf-8")
        except (ValueError, IndexError):
            log.warning("a notification on %r that no bus has sent was ignored", self._notify_channel)
            return
        if "%" in channel:
            channel = unquote(channel)
        receiver.deliver(Message(channel, raw, kind[0] == "b"))

    def _put_together(self, sender: str, number: str, data: str) -> str | None:
        """The whole of a message of which *data* is one piece, when it is the last."""
        index, count = map(int, number.split("/"))
        if index == 1:
            self._partial = (sender, [])
        if self._partial is None or self._partial[0] != sender or len(self._partial[1]) != index - 1:
            # We began to listen in the middle of it.
            self._partial = None
            return None
        pieces = self._partial[1]
        pieces.append(data)
        if index < count <= MOST_PIECES:
            return None
        self._partial = None
        return "".join(pieces) if index == count else None


@lru_cache(1024)
def _quoted(channel: str) -> str:
    return quote(channel, safe="/:.-_~!@$&'()+,;=?")
