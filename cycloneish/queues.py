"""Tornado's `queues`, for programs that move in: what coroutines hand each other, in order.

What is waited for here is a Deferred and can be awaited in any coroutine, on every reactor. Cancelling it
gives the place in the line up. Twisted's own is `twisted.internet.defer.DeferredQueue`.
"""

from __future__ import annotations

import datetime
import heapq
import time
from collections import deque
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred

from cycloneish.concurrent import Future
from cycloneish.locks import Event

__all__ = ["LifoQueue", "PriorityQueue", "Queue", "QueueEmpty", "QueueFull"]

_T = TypeVar("_T")

Timeout = float | datetime.timedelta | None


class QueueEmpty(Exception):
    """`Queue.get_nowait` found nothing."""


class QueueFull(Exception):
    """`Queue.put_nowait` found no room."""


def _limit(future: Future, timeout: Timeout) -> Future:
    """Let *future* fail with `TimeoutError` when *timeout* is over."""
    if timeout is None or future.called:
        return future
    from twisted.internet import reactor

    seconds = timeout.total_seconds() if isinstance(timeout, datetime.timedelta) else timeout - time.time()

    def time_is_up() -> None:
        if not future.called:
            future.set_exception(TimeoutError("timed out waiting"))

    call: Any = reactor.callLater(max(0.0, seconds), time_is_up)

    def settled(result: Any) -> Any:
        if call.active():
            call.cancel()
        return result

    future.addBoth(settled)
    return future


class Queue(Generic[_T]):
    """First in, first out; `put` waits while it is full, `get` while it is empty.

    :param maxsize: items it holds, 0 for any number.
    :raises TypeError: *maxsize* is None.
    :raises ValueError: *maxsize* is negative.

    Counterpart: `tornado.queues.Queue`.
    """

    _queue: Any

    def __init__(self, maxsize: int = 0) -> None:
        if maxsize is None:
            raise TypeError("maxsize can't be None")
        if maxsize < 0:
            raise ValueError("maxsize can't be negative")
        self._maxsize = maxsize
        self._init()
        self._getters: deque[Future] = deque()
        self._putters: deque[tuple[_T, Future]] = deque()
        self._unfinished_tasks = 0
        self._finished = Event()
        self._finished.set()

    @property
    def maxsize(self) -> int:
        """Items it holds, 0 for any number."""
        return self._maxsize

    def qsize(self) -> int:
        """Items in it."""
        return len(self._queue)

    def empty(self) -> bool:
        """Whether there is nothing in it."""
        return not self._queue

    def full(self) -> bool:
        """Whether there is no room."""
        return self._maxsize != 0 and self.qsize() >= self._maxsize

    def put(self, item: _T, timeout: Timeout = None) -> Future:
        """Put *item* in as soon as there is room.

        :param timeout: a `timedelta`, or a time on the clock of `time.time`.
        :returns: a Deferred that fires when it is in; it fails with `TimeoutError`.
        """
        future = Future()
        try:
            self.put_nowait(item)
        except QueueFull:
            self._putters.append((item, future))
            return _limit(future, timeout)
        future.set_result(None)
        return future

    def put_nowait(self, item: _T) -> None:
        """Put *item* in.

        :raises QueueFull: there is no room.
        """
        self._forget_the_done()
        if self._getters:
            self._put_internal(item)
            self._getters.popleft().set_result(self._get())
        elif self.full():
            raise QueueFull
        else:
            self._put_internal(item)

    def get(self, timeout: Timeout = None) -> Future:
        """Take an item out as soon as there is one.

        :param timeout: a `timedelta`, or a time on the clock of `time.time`.
        :returns: a Deferred of it; it fails with `TimeoutError`.
        """
        future = Future()
        try:
            future.set_result(self.get_nowait())
        except QueueEmpty:
            self._getters.append(future)
            _limit(future, timeout)
        return future

    def get_nowait(self) -> _T:
        """Take an item out.

        :raises QueueEmpty: there is none.
        """
        self._forget_the_done()
        if self._putters:
            item, putter = self._putters.popleft()
            self._put_internal(item)
            putter.set_result(None)
            return self._get()
        if self.qsize():
            return self._get()
        raise QueueEmpty

    def task_done(self) -> None:
        """Say that the work on an item is done; `join` waits for that.

        :raises ValueError: there are no more items that were taken out.
        """
        if self._unfinished_tasks <= 0:
            raise ValueError("task_done() called too many times")
        self._unfinished_tasks -= 1
        if self._unfinished_tasks == 0:
            self._finished.set()

    def join(self, timeout: Timeout = None) -> Deferred[None]:
        """A Deferred that fires when the work on all items is done; it fails with `TimeoutError`."""
        return self._finished.wait(timeout)

    def __aiter__(self) -> _QueueIterator[_T]:
        return _QueueIterator(self)

    # -- other orders ------------------------------------------------------------------------------

    def _init(self) -> None:
        self._queue = deque()

    def _get(self) -> _T:
        return self._queue.popleft()  # type: ignore[no-any-return]

    def _put(self, item: _T) -> None:
        self._queue.append(item)

    def _put_internal(self, item: _T) -> None:
        self._unfinished_tasks += 1
        self._finished.clear()
        self._put(item)

    def _forget_the_done(self) -> None:
        """Drop those in front who have given up or run out of time."""
        while self._putters and self._putters[0][1].called:
            self._putters.popleft()
        while self._getters and self._getters[0].called:
            self._getters.popleft()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {hex(id(self))} {self._state()}>"

    def __str__(self) -> str:
        return f"<{type(self).__name__} {self._state()}>"

    def _state(self) -> str:
        parts = [f"maxsize={self._maxsize!r}"]
        if self._queue:
            parts.append(f"queue={self._queue!r}")
        if self._getters:
            parts.append(f"getters[{len(self._getters)}]")
        if self._putters:
            parts.append(f"putters[{len(self._putters)}]")
        if self._unfinished_tasks:
            parts.append(f"tasks={self._unfinished_tasks}")
        return " ".join(parts)


class _QueueIterator(Generic[_T]):
    def __init__(self, queue: Queue[_T]) -> None:
        self._queue = queue

    def __anext__(self) -> Future:
        return self._queue.get()


class PriorityQueue(Queue[Any]):
    """The smallest item first. Counterpart: `tornado.queues.PriorityQueue`."""

    def _init(self) -> None:
        self._queue = []

    def _put(self, item: Any) -> None:
        heapq.heappush(self._queue, item)

    def _get(self) -> Any:
        return heapq.heappop(self._queue)


class LifoQueue(Queue[Any]):
    """The last item first. Counterpart: `tornado.queues.LifoQueue`."""

    def _init(self) -> None:
        self._queue = []

    def _put(self, item: Any) -> None:
        self._queue.append(item)

    def _get(self) -> Any:
        return self._queue.pop()
