"""Tornado's `concurrent`, for programs that move in: Deferreds that are made and looked at like Futures.

What is waited for is a Deferred here and can be awaited in any coroutine, on every reactor. `Future` is one
with the methods of a Future that a Deferred can have. New programs use Deferreds as they are.
"""

from __future__ import annotations

import functools
from asyncio import CancelledError as FutureCancelled
from asyncio import Future as AsyncioFuture
from asyncio import InvalidStateError
from collections.abc import Callable
from concurrent import futures
from types import TracebackType
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from cycloneish.log import app_log

__all__ = [
    "DummyExecutor",
    "Future",
    "ReturnValueIgnoredError",
    "chain_future",
    "dummy_executor",
    "future_add_done_callback",
    "future_set_exc_info",
    "future_set_exception_unless_cancelled",
    "future_set_result_unless_cancelled",
    "is_future",
    "run_on_executor",
]

_T = TypeVar("_T")


class ReturnValueIgnoredError(Exception):
    """Nothing raises it; here because Tornado has it."""


class Future(Deferred[Any]):
    """A Deferred that is made, set and watched like a Future.

    `result` is missing among the methods: a Deferred has an attribute of that name. `await` it, or ask
    `outcome`. A failure that nobody looks at is logged by Twisted when the object goes.

    Counterpart: `tornado.concurrent.Future`, which is asyncio's.
    """

    _outcome: Any = None
    _cancelled = False

    def _startRunCallbacks(self, result: object) -> None:
        # Kept, as callbacks may replace what the Deferred holds.
        self._outcome = result
        super()._startRunCallbacks(result)

    def done(self) -> bool:
        """Whether there is a result."""
        return bool(self.called)

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return (
            isinstance(self._outcome, Failure)
            and self._outcome.check(CancelledError, FutureCancelled) is not None
        )

    def outcome(self) -> Any:
        """Its result; what it failed with is raised.

        :raises asyncio.InvalidStateError: there is none yet.
        """
        error = self.exception()
        if error is not None:
            raise error
        return self._outcome

    def exception(self) -> BaseException | None:
        """What it failed with; None if it did not.

        :raises asyncio.InvalidStateError: it is not done.
        """
        if not self.called:
            raise InvalidStateError("Result is not ready.")
        if not isinstance(self._outcome, Failure):
            return None
        self.addErrback(lambda _: None)  # it has been seen
        return self._outcome.value

    def set_result(self, result: Any) -> None:
        """Fire it.

        :raises asyncio.InvalidStateError: it was done already.
        """
        if self.called:
            raise InvalidStateError("already done")
        self.callback(result)

    def set_exception(self, exception: BaseException | type[BaseException]) -> None:
        """Let it fail.

        :raises asyncio.InvalidStateError: it was done already.
        """
        if self.called:
            raise InvalidStateError("already done")
        self.errback(Failure(exception() if isinstance(exception, type) else exception))

    def add_done_callback(self, callback: Callable[[Any], Any]) -> None:
        """Call *callback* with this object when it is done, at once if it is."""

        def call(result: Any) -> Any:
            try:
                callback(self)
            except Exception:
                app_log.error("Exception in callback %r", callback, exc_info=True)
            return result

        self.addBoth(call)


def is_future(x: Any) -> bool:
    """Whether *x* is something with a result to come: a Deferred, or a Future of asyncio or of threads."""
    return isinstance(x, Deferred | AsyncioFuture | futures.Future)


class DummyExecutor(futures.Executor):
    """Runs functions at once, in the caller's thread."""

    def submit(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> futures.Future[_T]:
        """Call *fn* and return a Future that is done."""
        future: futures.Future[_T] = futures.Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future

    def shutdown(self, wait: bool = True, cancel_futures: bool = False) -> None:
        """Nothing."""


dummy_executor = DummyExecutor()


def run_on_executor(*args: Any, **kwargs: Any) -> Any:
    """Decorate a method to run in a thread; calling it gives a Deferred of its result.

    :param executor: name of the attribute of `self` that holds the executor, "executor" by default.
    """
    if args:
        return _on_executor(args[0], "executor")
    name = kwargs.get("executor", "executor")
    return lambda function: _on_executor(function, name)


def _on_executor(function: Callable[..., Any], name: str) -> Callable[..., Future]:
    @functools.wraps(function)
    def call(self: Any, *args: Any, **kwargs: Any) -> Future:
        outcome = Future()
        chain_future(getattr(self, name).submit(function, self, *args, **kwargs), outcome)
        return outcome

    return call


def chain_future(a: Any, b: Any) -> None:
    """Give the result of *a* to *b* as well, unless that has one by then.

    :param a: a Deferred or Future; of a thread's Future the result comes to the reactor's thread.
    :param b: a Deferred or Future.
    """

    def copy(outcome: Any) -> Any:
        if not _is_done(b):
            if isinstance(outcome, Failure):
                _fail(b, outcome.value)  # type: ignore[arg-type]
            else:
                _fire(b, outcome)
        return outcome

    if isinstance(a, futures.Future):
        import twisted.internet.reactor as installed

        reactor: Any = installed

        def hand_over(done: futures.Future[Any]) -> None:
            if done.cancelled():
                outcome: Any = Failure(FutureCancelled())
            else:
                error = done.exception()
                outcome = done.result() if error is None else Failure(error)
            if done_in_time or not reactor.running:
                copy(outcome)
            else:
                reactor.callFromThread(copy, outcome)

        done_in_time = a.done()
        a.add_done_callback(hand_over)
    elif isinstance(a, AsyncioFuture):
        a.add_done_callback(
            lambda done: copy(
                Failure(FutureCancelled())
                if done.cancelled()
                else (done.result() if (error := done.exception()) is None else Failure(error))
            )
        )
    else:
        a.addBoth(copy)


def _is_done(future: Any) -> bool:
    return bool(future.called) if isinstance(future, Deferred) else bool(future.done())


def _fire(future: Any, value: Any) -> None:
    if isinstance(future, Deferred):
        future.callback(value)
    else:
        future.set_result(value)


def _fail(future: Any, error: BaseException) -> None:
    if isinstance(future, Deferred):
        future.errback(Failure(error))
    else:
        future.set_exception(error)


def future_set_result_unless_cancelled(future: Any, value: Any) -> None:
    """Fire *future*, a Deferred or Future, unless it was cancelled."""
    if not _is_cancelled(future):
        _fire(future, value)


def future_set_exception_unless_cancelled(future: Any, exc: BaseException) -> None:
    """Let *future* fail; if it was cancelled, *exc* is logged."""
    if _is_cancelled(future):
        app_log.error("Exception after Future was cancelled", exc_info=exc)
    else:
        _fail(future, exc)


def _is_cancelled(future: Any) -> bool:
    if isinstance(future, Deferred) and not isinstance(future, Future):
        # A plain Deferred that was cancelled swallows what comes after.
        return bool(future.called and not future._suppressAlreadyCalled)
    return bool(future.cancelled())


def future_set_exc_info(
    future: Any,
    exc_info: tuple[type[BaseException] | None, BaseException | None, TracebackType | None],
) -> None:
    """Let *future* fail with the exception of *exc_info*.

    :raises ValueError: there is none in it.
    """
    if exc_info[1] is None:
        raise ValueError("future_set_exc_info called with no exception")
    future_set_exception_unless_cancelled(future, exc_info[1])


def future_add_done_callback(future: Any, callback: Callable[[Any], None]) -> None:
    """Call *callback* with *future* when it is done, at once if it is."""
    if isinstance(future, Deferred):

        def call(result: Any) -> Any:
            callback(future)
            return result

        future.addBoth(call)
    elif future.done():
        callback(future)
    else:
        future.add_done_callback(callback)
