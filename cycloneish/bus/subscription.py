"""One subscriber's end of a bus: a bounded queue, read by iterating or emptied into a callback.

Made by :meth:`cycloneish.bus.Bus.subscribe`.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.python.failure import Failure

from ..coroutines import drive, is_awaitable
from .values import BusClosed, BusError, Gap, Message, SlowSubscriber

__all__ = ["Item", "Overflow", "Subscription"]

log = logging.getLogger("cycloneish.bus")

#: What a subscription gives.
Item = Message | Gap
#: What happens to a message for which the queue has no room.
Overflow = Literal["drop-oldest", "drop-newest", "disconnect"]
POLICIES = ("drop-oldest", "drop-newest", "disconnect")


class Subscription:
    """What was published on one channel, or under one prefix, in order.

    Without a callback it is read with ``async for``, or with :meth:`get`. It ends with the bus.

    :ivar channel: the channel, or the prefix of channels.
    :ivar is_prefix: whether it is a prefix.
    :ivar dropped: how many messages were dropped because the queue was full.
    """

    def __init__(
        self,
        channel: str,
        is_prefix: bool,
        leave: Callable[[Subscription], Deferred[None]],
        *,
        callback: Callable[[Message], Any] | None,
        on_gap: Callable[[Gap], Any] | None,
        limit: int,
        overflow: Overflow,
    ) -> None:
        self.channel = channel
        self.is_prefix = is_prefix
        self.dropped = 0
        self._leave = leave
        self._callback = callback
        self._on_gap = on_gap
        self._limit = limit
        self._overflow = overflow
        self._queue: deque[Item] = deque()
        self._messages = 0
        # A gap stands before the queue (its oldest were dropped) or behind it (the newest were).
        self._gap_before: Gap | None = None
        self._gap_after: Gap | None = None
        self._getters: deque[Deferred[Item]] = deque()
        self._working: Deferred[Any] | None = None
        self._calling = False
        self._closed: BusError | None = None
        self._close_waiters: list[Deferred[BusError | None]] = []

    # -- for the subscriber ----------------------------------------------------------------------

    @property
    def pending(self) -> int:
        """How many messages wait to be read."""
        return self._messages

    @property
    def is_open(self) -> bool:
        """Whether it has not ended."""
        return self._closed is None

    def get(self) -> Deferred[Item]:
        """The next message or gap; ``async for`` calls this.

        :returns: a Deferred; cancelling it loses nothing. It fails with :exc:`BusClosed` when the
            subscription has ended, and with :exc:`SlowSubscriber` when it was ended for being too slow.
        """
        if self._callback is not None:
            return fail(RuntimeError("this subscription has a callback, which gets all messages"))
        if self._has_items():
            return succeed(self._take())
        if self._closed is not None:
            return fail(self._closed)
        getter: Deferred[Item] = Deferred(self._getters.remove)
        self._getters.append(getter)
        return getter

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Item:
        try:
            return await self.get()
        except BusClosed:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Not awaited: a coroutine that is thrown away or cancelled must not wait any more.
        self.close()

    def close(self) -> Deferred[None]:
        """End it: nothing more comes from now on, and what waits unread is gone.

        A callback that is still at work is cancelled, unless it is the one that calls this.

        :returns: a Deferred that fires when the broker sends no more for it; it never fails.
        """
        if self._closed is not None:
            return succeed(None)
        self.end(BusClosed(f"the subscription of {self.channel!r} is closed"))
        return self._leave(self)

    def when_closed(self) -> Deferred[BusError | None]:
        """Fires when it has ended: with :exc:`SlowSubscriber` where that is the reason, else with None."""
        if self._closed is not None:
            return succeed(self._reason())
        waiter: Deferred[BusError | None] = Deferred(self._close_waiters.remove)
        self._close_waiters.append(waiter)
        return waiter

    # -- for the bus -----------------------------------------------------------------------------

    def put(self, item: Item) -> bool:
        """Hand *item* on, or queue it; whether nothing was dropped for it."""
        if self._closed is not None:
            return True
        if self._getters:
            self._getters.popleft().callback(item)
            return True
        if self._callback is not None and self._working is None and not self._calling and not self._queue:
            self._append(item)
            self._pump()
            return True
        if isinstance(item, Gap):
            self._put_gap(item)
            return True
        if self._messages < self._limit:
            self._append(item)
            return True
        self._overflowed(item)
        return False

    def end(self, error: BusError) -> None:
        """End without telling the bus, which is the one that calls this."""
        if self._closed is not None:
            return
        self._closed = error
        self._queue.clear()
        self._messages = 0
        self._gap_before = self._gap_after = None
        getters, self._getters = self._getters, deque()
        waiters, self._close_waiters = self._close_waiters, []
        working, self._working = self._working, None
        for getter in getters:
            getter.errback(error)
        if working is not None and not self._calling:
            working.cancel()
        for waiter in waiters:
            waiter.callback(self._reason())

    def _reason(self) -> BusError | None:
        return self._closed if isinstance(self._closed, SlowSubscriber) else None

    # -- the queue -------------------------------------------------------------------------------

    def _has_items(self) -> bool:
        return bool(self._queue or self._gap_before or self._gap_after)

    def _append(self, item: Item) -> None:
        if self._gap_after is not None:
            self._queue.append(self._gap_after)
            self._gap_after = None
        self._queue.append(item)
        self._messages += isinstance(item, Message)

    def _take(self) -> Item:
        if self._gap_before is not None:
            gap, self._gap_before = self._gap_before, None
            return gap
        if self._queue:
            item = self._queue.popleft()
            self._messages -= isinstance(item, Message)
            return item
        last, self._gap_after = self._gap_after, None
        assert last is not None
        return last

    def _put_gap(self, gap: Gap) -> None:
        if self._queue:
            self._gap_after = gap.joined(self._gap_after)
        else:
            self._gap_before = gap.joined(self._gap_before)

    def _overflowed(self, message: Message) -> None:
        self.dropped += 1
        if self._overflow == "drop-oldest":
            self._append(message)
            dropped: Item | None = None
            while not isinstance(dropped, Message):
                dropped = self._queue.popleft()
                gap = dropped if isinstance(dropped, Gap) else Gap("slow", 1)
                self._gap_before = gap.joined(self._gap_before)
            self._messages -= 1
            if isinstance(self._queue[0], Gap):
                self._gap_before = self._queue[0].joined(self._gap_before)
                self._queue.popleft()
        elif self._overflow == "drop-newest":
            self._gap_after = Gap("slow", 1).joined(self._gap_after)
        else:
            log.warning("a subscriber of %r is too slow, its subscription ends", self.channel)
            self.end(SlowSubscriber(f"{self._limit} messages of {self.channel!r} waited to be read"))
            self._leave(self)

    # -- the callback ----------------------------------------------------------------------------

    def _pump(self) -> None:
        """Call the callback for what is there, until one takes its time."""
        while self._closed is None and self._working is None and self._has_items():
            item = self._take()
            function: Callable[..., Any] | None = self._on_gap if isinstance(item, Gap) else self._callback
            if function is None:
                continue
            self._calling = True
            try:
                result = function(item)
                if is_awaitable(result):
                    self._wait_for(drive(result))
            except Exception:
                log.exception("the callback of a subscriber of %r failed", self.channel)
            finally:
                self._calling = False

    def _wait_for(self, work: Deferred[Any]) -> None:
        done = False

        def finished(result: Any) -> None:
            nonlocal done
            done = True
            cancelled = self._closed is not None
            if isinstance(result, Failure) and not (cancelled and result.check(CancelledError)):
                log.error("the callback of a subscriber of %r failed", self.channel, exc_info=result.value)
            if self._working is work:
                self._working = None
                self._pump()

        work.addBoth(finished)
        if not done:
            self._working = work
