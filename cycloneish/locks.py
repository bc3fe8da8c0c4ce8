"""Tornado's `locks`, for programs that move in: conditions, events and semaphores that give Deferreds.

What is waited for here is a Deferred and can be awaited in any coroutine, on every reactor. Cancelling it
gives the place in the queue up. Twisted's own are
`twisted.internet.defer.DeferredLock` and `DeferredSemaphore`.
"""

from __future__ import annotations

import datetime
import time
from collections import deque
from types import TracebackType
from typing import Any

from twisted.internet.defer import Deferred

from cycloneish.concurrent import Future

__all__ = ["BoundedSemaphore", "Condition", "Event", "Lock", "Semaphore"]

Timeout = float | datetime.timedelta | None


def _fired(value: Any) -> Future:
    future = Future()
    future.set_result(value)
    return future


class _Queue:
    """Those who wait, first come first served."""

    def __init__(self, reactor: Any = None) -> None:
        self._waiting: deque[Deferred[Any]] = deque()
        self._reactor = reactor

    def wait(self, timeout: Timeout, *, too_late: Any = None) -> Future:
        """A Deferred for `wake`.

        :param timeout: a `timedelta`, or a time on the clock of `time.time`.
        :param too_late: its result when time is up; if there is none, it fails with `TimeoutError`.
        """
        waiter = Future(self._forget)
        self._waiting.append(waiter)
        if timeout is None:
            return waiter
        reactor = self._reactor
        if reactor is None:
            from twisted.internet import reactor
        seconds = (
            timeout.total_seconds() if isinstance(timeout, datetime.timedelta) else timeout - time.time()
        )

        def time_is_up() -> None:
            self._forget(waiter)
            if too_late is None:
                waiter.errback(TimeoutError("timed out waiting"))
            else:
                waiter.callback(too_late)

        call: Any = reactor.callLater(max(0.0, seconds), time_is_up)

        def settled(result: Any) -> Any:
            if call.active():
                call.cancel()
            return result

        waiter.addBoth(settled)
        return waiter

    def _forget(self, waiter: Deferred[Any]) -> None:
        if waiter in self._waiting:
            self._waiting.remove(waiter)

    def wake(self, number: int, result: Any) -> int:
        """Give *result* to the first *number* of them; gives how many there were."""
        woken = [self._waiting.popleft() for _ in range(min(number, len(self._waiting)))]
        for waiter in woken:
            waiter.callback(result)
        return len(woken)

    def __len__(self) -> int:
        return len(self._waiting)

    def shown(self) -> str:
        """How many wait, for a `repr`."""
        return f" waiters[{len(self._waiting)}]" if self._waiting else ""


class Condition:
    """Lets coroutines wait until another one notifies them. Counterpart: `tornado.locks.Condition`."""

    def __init__(self) -> None:
        self._queue = _Queue()

    def wait(self, timeout: Timeout = None) -> Deferred[bool]:
        """A Deferred that fires with True when notified, with False when *timeout* is over before.

        :param timeout: a `timedelta`, or a time on the clock of `time.time`.
        """
        if timeout is None:
            return self._queue.wait(None)
        return self._queue.wait(timeout, too_late=False)

    def notify(self, n: int = 1) -> None:
        """Wake up *n* of those who wait."""
        self._queue.wake(n, True)

    def notify_all(self) -> None:
        """Wake up all who wait."""
        self._queue.wake(len(self._queue), True)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}{self._queue.shown()}>"


class Event:
    """Lets coroutines wait until something has happened. Counterpart: `tornado.locks.Event`."""

    def __init__(self) -> None:
        self._value = False
        self._queue = _Queue()

    def is_set(self) -> bool:
        """Whether it has happened."""
        return self._value

    def set(self) -> None:
        """Say that it has happened, to those who wait and those who will."""
        if not self._value:
            self._value = True
            self._queue.wake(len(self._queue), None)

    def clear(self) -> None:
        """Say that it has not happened after all."""
        self._value = False

    def wait(self, timeout: Timeout = None) -> Deferred[None]:
        """A Deferred that fires when it has happened; it fails with `TimeoutError` when *timeout* is over."""
        return _fired(None) if self._value else self._queue.wait(timeout)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'set' if self._value else 'clear'}>"


class _Release:
    """What `acquire` gives: for `with (yield lock.acquire()):`, which releases at the end of the block."""

    def __init__(self, owner: Semaphore | Lock) -> None:
        self._owner = owner

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._owner.release()


class Semaphore:
    """Lets at most *value* coroutines be inside at once. Counterpart: `tornado.locks.Semaphore`.

    ::

        async with semaphore:
            ...
    """

    def __init__(self, value: int = 1) -> None:
        if value < 0:
            raise ValueError("semaphore initial value must be >= 0")
        self._value = value
        self._queue = _Queue()

    def acquire(self, timeout: Timeout = None) -> Deferred[Any]:
        """A Deferred that fires when there is room; it fails with `TimeoutError` when *timeout* is over.

        What it fires with is a context manager that calls `release`.
        """
        if self._value > 0:
            self._value -= 1
            return _fired(_Release(self))
        return self._queue.wait(timeout)

    def release(self) -> None:
        """Make room for the next."""
        if not self._queue.wake(1, _Release(self)):
            self._value += 1

    def __enter__(self) -> None:
        raise RuntimeError("use 'async with' instead of 'with' for a Semaphore")

    def __exit__(
        self, typ: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__enter__()

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(
        self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        state = "locked" if self._value == 0 else f"unlocked,value:{self._value}"
        return f"<{type(self).__name__} [{state}]{self._queue.shown()}>"


class BoundedSemaphore(Semaphore):
    """A semaphore that is not released more often than it was acquired."""

    def __init__(self, value: int = 1) -> None:
        super().__init__(value)
        self._initial_value = value

    def release(self) -> None:
        """Make room for the next.

        :raises ValueError: nobody is inside.
        """
        if self._value >= self._initial_value:
            raise ValueError("Semaphore released too many times")
        super().release()


class Lock:
    """Lets one coroutine in at a time. Counterpart: `tornado.locks.Lock`."""

    def __init__(self) -> None:
        self._block = BoundedSemaphore(1)

    def acquire(self, timeout: Timeout = None) -> Deferred[Any]:
        """See `Semaphore.acquire`."""
        return self._block.acquire(timeout)

    def release(self) -> None:
        """Let the next one in.

        :raises RuntimeError: it is not locked.
        """
        try:
            self._block.release()
        except ValueError:
            raise RuntimeError("release unlocked lock") from None

    def __enter__(self) -> None:
        raise RuntimeError("use 'async with' instead of 'with' for a Lock")

    def __exit__(
        self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.__enter__()

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(
        self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} _block={self._block!r}>"
