"""LISTEN and NOTIFY: one connection of a pool's own that hears every subscribed channel.

Used through :meth:`cycloneish.db.postgres.Pool.listen`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from ..coroutines import drive, is_awaitable
from .connection import Connection
from .errors import ConnectionLost, PoolClosed, PoolTimeout

__all__ = ["Listener", "Subscription", "quote_identifier"]

log = logging.getLogger("cycloneish.db")

#: Seconds between two questions to a silent server, so that a dead network path is found out.
PING_INTERVAL = 30.0
_PING_TIMEOUT = 10.0
_FIRST_DELAY = 0.05
_LONGEST_DELAY = 1.0
#: PostgreSQL cuts identifiers at this many bytes; a cut channel name would never hear anything.
_LONGEST_NAME = 63


def quote_identifier(name: str) -> str:
    """*name* as a quoted SQL identifier, for the few statements that take no parameters.

    :raises ValueError: for an empty name, one with NUL, or one longer than 63 bytes in UTF-8.
    """
    if not name or "\0" in name or len(name.encode()) > _LONGEST_NAME:
        raise ValueError(f"not a usable PostgreSQL name (1 to {_LONGEST_NAME} bytes, no NUL): {name[:80]!r}")
    return '"' + name.replace('"', '""') + '"'


def _only_lost(failure: Failure) -> None:
    """A connection that was lost listens to nothing; other errors go on."""
    failure.trap(ConnectionLost)


class Subscription:
    """One subscription of :meth:`~cycloneish.db.postgres.Pool.listen`.

    :ivar channel: the channel's name.
    """

    def __init__(
        self,
        listener: Listener,
        channel: str,
        callback: Callable[[str], Any],
        on_gap: Callable[[], Any] | None,
    ) -> None:
        self.channel = channel
        self._listener = listener
        self._callback = callback
        self._on_gap = on_gap

    def close(self) -> Deferred[None]:
        """End the subscription; the callback is not called any more from now on."""
        return self._listener.remove(self)

    def deliver(self, payload: str) -> None:
        """Hand one notification to the callback."""
        self._call(self._callback, payload)

    def gap(self) -> None:
        """Tell the subscriber that notifications may have been missed."""
        if self._on_gap is not None:
            self._call(self._on_gap)

    def _call(self, function: Callable[..., Any], *args: Any) -> None:
        try:
            result = function(*args)
        except Exception:
            log.exception("the callback of channel %r failed", self.channel)
            return
        if is_awaitable(result):
            drive(result).addErrback(self._log_failure)

    def _log_failure(self, failure: Failure) -> None:
        log.error("the callback of channel %r failed", self.channel, exc_info=failure.value)


class Listener:
    """Keeps one connection listening on all subscribed channels, and makes it anew when it is lost.

    :param connect: opens a connection.
    :param timeout: seconds that :meth:`add` waits for the server's confirmation.
    """

    def __init__(self, reactor: Any, connect: Callable[[], Deferred[Connection]], timeout: float) -> None:
        self._reactor = reactor
        self._timeout = timeout
        self._connect = connect
        self._channels: dict[str, list[Subscription]] = {}
        self._connection: Connection | None = None
        self._waiting: list[tuple[Deferred[Subscription], Subscription]] = []
        self._connecting: Deferred[Any] | None = None
        self._timer: Any = None
        self._delay = _FIRST_DELAY
        self._was_connected = False
        self._closed = False

    def add(
        self, channel: str, callback: Callable[[str], Any], on_gap: Callable[[], Any] | None
    ) -> Deferred[Subscription]:
        """Subscribe; fires when the server has confirmed it."""
        statement = f"listen {quote_identifier(channel)}"
        subscription = Subscription(self, channel, callback, on_gap)
        known = channel in self._channels
        self._channels.setdefault(channel, []).append(subscription)
        result: Deferred[Subscription] = Deferred(lambda _: self._drop(subscription))
        result.addTimeout(self._timeout, self._reactor, onTimeoutCancel=self._timed_out)
        connection = self._connection
        if connection is not None and known:
            # LISTEN was sent for another subscriber; this answer comes after that one's.
            statement = "select 1"
        if connection is not None:
            sent = connection.run(statement, None, lambda _: subscription, _PING_TIMEOUT)
            sent.addCallbacks(
                self._confirmed, self._failed, callbackArgs=(result,), errbackArgs=(result, subscription)
            )
        else:
            self._waiting.append((result, subscription))
            if self._connecting is None and self._timer is None:
                self._open()
        return result

    def remove(self, subscription: Subscription) -> Deferred[None]:
        """End *subscription*; fires when the server listens for it no more."""
        last = self._forget(subscription)
        connection = self._connection
        if not last or connection is None:
            return succeed(None)
        sent = connection.run(
            f"unlisten {quote_identifier(subscription.channel)}", None, lambda _: None, _PING_TIMEOUT
        )
        return sent.addErrback(_only_lost)

    def close(self) -> None:
        """Close the connection and end all subscriptions."""
        self._closed = True
        self._stop_timer()
        self._channels.clear()
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
        waiting, self._waiting = self._waiting, []
        for result, _ in waiting:
            if not result.called:
                result.errback(PoolClosed("the pool is stopped"))

    def _timed_out(self, _: object, timeout: float) -> None:
        raise PoolTimeout(f"PostgreSQL did not confirm the subscription within {timeout:g} s")

    def _drop(self, subscription: Subscription) -> None:
        self._forget(subscription)

    def _forget(self, subscription: Subscription) -> bool:
        """Take *subscription* out; whether it was the last of its channel."""
        self._waiting = [entry for entry in self._waiting if entry[1] is not subscription]
        subscriptions = self._channels.get(subscription.channel, [])
        if subscription not in subscriptions:
            return False
        subscriptions.remove(subscription)
        if subscriptions:
            return False
        del self._channels[subscription.channel]
        return True

    def _confirmed(self, subscription: Subscription, result: Deferred[Subscription]) -> None:
        if not result.called:
            result.callback(subscription)

    def _failed(self, failure: Failure, result: Deferred[Subscription], subscription: Subscription) -> None:
        if result.called:
            return
        if isinstance(failure.value, ConnectionLost) and not self._closed:
            # The reconnect under way listens to this channel too.
            self._waiting.append((result, subscription))
            return
        self._forget(subscription)
        result.errback(failure)

    # -- the connection --------------------------------------------------------------------------

    def _open(self) -> None:
        self._timer = None
        if self._closed or not self._channels:
            return
        self._connecting = self._connect()
        self._connecting.addCallback(self._opened).addErrback(self._not_opened)

    def _opened(self, connection: Connection) -> Deferred[Any] | None:
        if self._closed:
            connection.abort()
            return None
        connection.on_notify = self._notified
        sent = connection.run(
            "; ".join(f"listen {quote_identifier(channel)}" for channel in self._channels) or "select 1",
            None,
            lambda _: None,
            _PING_TIMEOUT,
        )
        channels = set(self._channels)
        return sent.addCallbacks(
            self._listening,
            self._listen_failed,
            callbackArgs=(connection, channels),
            errbackArgs=(connection,),
        )

    def _listen_failed(self, failure: Failure, connection: Connection) -> Failure:
        connection.abort()
        return failure

    def _listening(self, _: object, connection: Connection, channels: set[str]) -> Any:
        if self._closed:
            connection.abort()
            return None
        missing = set(self._channels) - channels
        if missing:
            # Subscribed while the statement was under way.
            return self._opened(connection)
        self._connecting = None
        self._delay = _FIRST_DELAY
        self._connection = connection
        connection.on_lost = self._lost
        if connection.lost is not None:
            self._lost(connection, connection.lost)
            return None
        self._timer = self._reactor.callLater(PING_INTERVAL, self._ping)
        waiting, self._waiting = self._waiting, []
        fresh = {subscription for _, subscription in waiting}
        known = [one for several in self._channels.values() for one in several if one not in fresh]
        missed, self._was_connected = self._was_connected, True
        # Last of all: who is called now may close the pool.
        for result, subscription in waiting:
            if not result.called:
                result.callback(subscription)
        if missed:
            for subscription in known:
                subscription.gap()
        return None

    def _not_opened(self, failure: Failure) -> None:
        self._connecting = None
        if self._closed:
            return
        if not isinstance(failure.value, ConnectionLost):
            waiting, self._waiting = self._waiting, []
            for result, subscription in waiting:
                self._forget(subscription)
                result.errback(failure)
        if self._channels:
            self._timer = self._reactor.callLater(self._delay, self._open)
            self._delay = min(self._delay * 2, _LONGEST_DELAY)

    def _lost(self, connection: Connection, error: Exception) -> None:
        if self._connection is not connection:
            return
        self._connection = None
        self._stop_timer()
        if self._closed or not self._channels:
            return
        log.warning("the listening connection was lost, making a new one: %s", error)
        self._timer = self._reactor.callLater(self._delay, self._open)

    def _ping(self) -> None:
        self._timer = None
        connection = self._connection
        if connection is None:
            return
        if not self._channels:
            self._connection = None
            self._was_connected = False
            connection.abort()
            return
        self._timer = self._reactor.callLater(PING_INTERVAL, self._ping)
        connection.run("select 1", None, lambda _: None, _PING_TIMEOUT).addErrback(
            lambda _: connection.abort("the listening connection does not answer")
        )

    def _notified(self, channel: str, payload: str) -> None:
        for subscription in list(self._channels.get(channel, ())):
            subscription.deliver(payload)

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
