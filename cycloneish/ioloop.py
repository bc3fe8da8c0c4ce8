"""Tornado's `ioloop`, for programs that move in: a thin adapter over the Twisted reactor.

::

    async def main():
        app.listen(8888)
        await asyncio.Event().wait()

    if __name__ == "__main__":
        run(main())                      # was: asyncio.run(main())

There is one reactor in a process, and so there is one loop. New programs use the reactor itself, or
`cycloneish run`. Nothing else in this package imports this module.
"""

from __future__ import annotations

import datetime
import random
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

from cycloneish.coroutines import as_deferred, drive
from cycloneish.log import app_log

__all__ = ["IOLoop", "PeriodicCallback", "run"]

_T = TypeVar("_T")


def run(main: Awaitable[_T], *, reactor: Any = None) -> _T:
    """Run *main* to its end and return its result: `asyncio.run` for a program on Twisted.

    If no reactor is installed yet, the asyncio one is, so that *main* may await both Deferreds and asyncio's
    futures. SIGINT and SIGTERM cancel *main*, and its `finally` is waited for.

    :param main: a coroutine or another awaitable.
    :raises KeyboardInterrupt: a signal ended it.
    :raises Exception: what *main* raises.
    """
    if reactor is None:
        reactor = _reactor(asyncio_wanted=True)
    outcome: list[Any] = []
    interrupted: list[bool] = []

    def done(result: Any) -> None:
        outcome.append(result)
        if reactor.running and not interrupted:
            reactor.stop()

    def begin() -> None:
        running = drive(main)
        ended = running.addBoth(done)

        def cancel() -> Deferred[None] | None:
            if outcome:
                return None
            running.cancel()
            interrupted.append(True)
            return ended

        reactor.addSystemEventTrigger("before", "shutdown", cancel)

    reactor.callWhenRunning(begin)
    reactor.run()
    if interrupted or not outcome:
        raise KeyboardInterrupt
    result = outcome[0]
    if isinstance(result, Failure):
        result.raiseException()
    return result  # type: ignore[no-any-return]


def _reactor(*, asyncio_wanted: bool = False) -> Any:
    if asyncio_wanted and "twisted.internet.reactor" not in sys.modules:
        from twisted.internet import asyncioreactor

        asyncioreactor.install()
    from twisted.internet import reactor

    return reactor


class IOLoop:
    """The reactor under the names of Tornado's event loop.

    `current`, `instance` and calling the class give the same object, as there is one reactor. Files and
    sockets are not watched through it: `add_handler` and its relatives are not here, Twisted has
    `reactor.addReader` for that.

    Counterpart: `tornado.ioloop.IOLoop`.
    """

    _instance: IOLoop | None = None
    _executor: Executor | None = None

    def __new__(cls, make_current: bool | None = None) -> IOLoop:  # noqa: ARG004
        if IOLoop._instance is None:
            IOLoop._instance = super().__new__(cls)
        return IOLoop._instance

    @staticmethod
    def current(instance: bool = True) -> IOLoop:  # noqa: ARG004
        """The loop."""
        return IOLoop()

    @staticmethod
    def instance() -> IOLoop:
        """The loop."""
        return IOLoop()

    def make_current(self) -> None:
        """Nothing: it is the current one."""

    @staticmethod
    def clear_current() -> None:
        """Nothing: there is no other."""

    @property
    def reactor(self) -> Any:
        """Twisted's reactor, which this is made of."""
        return _reactor()

    def start(self) -> None:
        """Run until `stop` is called or a signal ends the program."""
        self.reactor.run()

    def stop(self) -> None:
        """Have `start` return after what is due now."""
        reactor = self.reactor
        reactor.callWhenRunning(lambda: reactor.running and reactor.stop())

    def close(self, all_fds: bool = False) -> None:
        """Nothing: a reactor ends with its process."""

    def run_sync(self, func: Callable[[], Any], timeout: float | None = None) -> Any:
        """Call *func*, run until what it returned is done, and return its result. Can be called once only: a
        reactor that was stopped does not start again. Like `run`, it installs the asyncio reactor if there is
        none yet.

        :param timeout: seconds.
        :raises TimeoutError: it was not done by then.
        """
        reactor = _reactor(asyncio_wanted=True)

        async def main() -> Any:
            result = as_deferred(func())
            if timeout is not None:
                result.addTimeout(timeout, reactor)
            return await result

        return run(main(), reactor=reactor)

    def time(self) -> float:
        """Seconds since the epoch, the clock of `call_at`."""
        return time.time()

    # -- later -------------------------------------------------------------------------------------

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call *callback* after *delay* seconds; gives a handle for `remove_timeout`."""
        return self.reactor.callLater(max(0.0, delay), self._run, callback, args, kwargs)

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call *callback* at the time *when* of the clock `time`."""
        return self.call_later(when - self.time(), callback, *args, **kwargs)

    def add_timeout(
        self, deadline: float | datetime.timedelta, callback: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        """`call_at` for a number, `call_later` for a `timedelta`."""
        if isinstance(deadline, datetime.timedelta):
            return self.call_later(deadline.total_seconds(), callback, *args, **kwargs)
        return self.call_at(deadline, callback, *args, **kwargs)

    def remove_timeout(self, timeout: Any) -> None:
        """Forget what one of the methods above gave a handle for, if it has not happened yet."""
        if timeout.active():
            timeout.cancel()

    def add_callback(self, callback: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Call *callback* soon. May be called from any thread."""
        self.reactor.callFromThread(self._run, callback, args, kwargs)

    def add_callback_from_signal(self, callback: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """`add_callback`, from a signal handler."""
        self.add_callback(callback, *args, **kwargs)

    def spawn_callback(self, callback: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """`add_callback`; a failure is logged in either case."""
        self.add_callback(callback, *args, **kwargs)

    def _run(self, callback: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        done = maybeDeferred(lambda: as_deferred(callback(*args, **kwargs)))
        done.addErrback(
            lambda failure: app_log.error("Exception in callback %r", callback, exc_info=failure.value)
        )

    def add_future(self, future: Awaitable[Any], callback: Callable[[Any], Any]) -> None:
        """Call *callback* with *future* when it is done."""
        drive(future).addBoth(lambda _: self._run(callback, (future,), {}))

    # -- threads -----------------------------------------------------------------------------------

    def run_in_executor(self, executor: Executor | None, func: Callable[..., _T], *args: Any) -> Deferred[_T]:
        """Call *func* in a thread.

        :param executor: where; None: the one of `set_default_executor`, else the reactor's own pool.
        :returns: a Deferred of its result.
        """
        reactor = self.reactor
        executor = executor or self._executor
        if executor is None:
            return deferToThreadPool(reactor, reactor.getThreadPool(), func, *args)

        def give_up(_: Deferred[_T]) -> None:
            future.cancel()

        result: Deferred[_T] = Deferred(give_up)
        future = executor.submit(func, *args)

        def fire(outcome: Any) -> None:
            if not result.called:
                result.callback(outcome)

        def hand_over(_: object) -> None:
            if future.cancelled():
                return
            error = future.exception()
            outcome: Any = future.result() if error is None else Failure(error)
            reactor.callFromThread(fire, outcome)

        future.add_done_callback(hand_over)
        return result

    def set_default_executor(self, executor: ThreadPoolExecutor) -> None:
        """Where `run_in_executor` runs functions when it is given no other."""
        self._executor = executor


class PeriodicCallback:
    """Calls a function again and again.

    The next call comes when *callback_time* has passed since the last, and not before what it returned is
    done; calls that would have been due meanwhile are left out.

    :param callback: what to call; it may return an awaitable.
    :param callback_time: milliseconds, or a `timedelta`.
    :param jitter: a part of *callback_time*, such as 0.1, by which each call is earlier or later at random,
        so that many programs do not call at once.

    Counterpart: `tornado.ioloop.PeriodicCallback`.
    """

    def __init__(
        self,
        callback: Callable[[], Any],
        callback_time: float | datetime.timedelta,
        jitter: float = 0,
    ) -> None:
        if isinstance(callback_time, datetime.timedelta):
            callback_time = callback_time / datetime.timedelta(milliseconds=1)
        if callback_time <= 0:
            raise ValueError("Periodic callback must have a positive callback_time")
        self.callback = callback
        self.callback_time = callback_time
        self.jitter = jitter
        self.io_loop = IOLoop.current()
        self._running = False
        self._timeout: Any = None
        self._due = 0.0

    def start(self) -> None:
        """Begin; the first call comes after *callback_time*."""
        if self._running:
            return
        self._running = True
        self._due = time.monotonic()
        self._schedule()

    def stop(self) -> None:
        """No more calls; one that is under way goes on."""
        self._running = False
        if self._timeout is not None:
            self.io_loop.remove_timeout(self._timeout)
            self._timeout = None

    def is_running(self) -> bool:
        """Whether it was started and not stopped since."""
        return self._running

    def _schedule(self) -> None:
        seconds = self.callback_time / 1000.0
        if self.jitter:
            seconds *= 1 + self.jitter * (random.random() - 0.5)  # noqa: S311 (spreads load, hides nothing)
        now = time.monotonic()
        self._due += seconds
        if self._due <= now:
            self._due += ((now - self._due) // seconds + 1) * seconds
        self._timeout = self.io_loop.call_later(self._due - now, self._call)

    async def _call(self) -> None:
        self._timeout = None
        try:
            await as_deferred(self.callback())
        except Exception:
            app_log.error("Exception in callback %r", self.callback, exc_info=True)
        finally:
            if self._running and self._timeout is None:
                self._schedule()
