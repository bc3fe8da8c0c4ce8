"""Tornado's `gen`, for programs that move in: generators that yield what they wait for, on Deferreds.

A generator under `coroutine` may yield a Deferred, a Future of asyncio or of threads, an awaitable, and lists
and dictionaries of them; calling it gives a Deferred (`cycloneish.concurrent.Future`), which can be awaited
in any coroutine. New programs write `async def`, or `@inlineCallbacks` of Twisted.
"""

from __future__ import annotations

import datetime
import functools
import time
from asyncio import CancelledError
from asyncio import Future as AsyncioFuture
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from concurrent.futures import Future as ThreadFuture
from contextvars import copy_context
from inspect import isawaitable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from cycloneish.concurrent import Future, chain_future, is_future
from cycloneish.coroutines import drive
from cycloneish.log import app_log

__all__ = [
    "BadYieldError",
    "KeyReuseError",
    "LeakedCallbackError",
    "Return",
    "ReturnValueIgnoredError",
    "TimeoutError",
    "UnknownKeyError",
    "WaitIterator",
    "convert_yielded",
    "coroutine",
    "is_coroutine_function",
    "maybe_future",
    "moment",
    "multi",
    "multi_future",
    "sleep",
    "with_timeout",
]

TimeoutError = TimeoutError  # noqa: A001


class KeyReuseError(Exception):
    """Nothing raises it; so for the next two, which Tornado has."""


class UnknownKeyError(Exception):
    """See `KeyReuseError`."""


class LeakedCallbackError(Exception):
    """See `KeyReuseError`."""


class BadYieldError(Exception):
    """A generator yielded something that nobody can wait for."""


class ReturnValueIgnoredError(Exception):
    """See `KeyReuseError`."""


class Return(Exception):
    """`raise Return(value)` ends a generator with *value*; `return value` does the same."""

    def __init__(self, value: Any = None) -> None:
        super().__init__()
        self.value = value
        # The coroutine catches it; it is no StopIteration.
        self.args = (value,)


def coroutine(func: Callable[..., Any]) -> Callable[..., Future]:
    """Decorate a generator function; calling it begins it and gives a Deferred of what it returns.

    A function without a `yield` may be decorated as well.
    """

    @functools.wraps(func)
    def call(*args: Any, **kwargs: Any) -> Future:
        outcome = Future()
        in_context = copy_context().run
        try:
            result = in_context(func, *args, **kwargs)
            if not isinstance(result, Generator):
                outcome.set_result(result)
                return outcome
            yielded = in_context(next, result)
        except (Return, StopIteration) as end:
            outcome.set_result(end.value)
        except (Exception, CancelledError) as error:
            outcome.set_exception(error)
        else:
            running = in_context(Deferred.fromCoroutine, _run(result, yielded))
            outcome._canceller = lambda _: running.cancel()
            running.addBoth(lambda end: None if outcome.called else outcome.callback(end))
        return outcome

    call.__wrapped__ = func
    call.__tornado_coroutine__ = True  # type: ignore[attr-defined]
    return call


async def _run(generator: Generator[Any, Any, Any], yielded: Any) -> Any:
    """Resume *generator* with what it waits for, to its end."""
    while True:
        try:
            try:
                value = await convert_yielded(yielded)
            except GeneratorExit:
                generator.close()
                raise
            except BaseException as error:
                yielded = generator.throw(error)
            else:
                yielded = generator.send(value)
        except (Return, StopIteration) as end:
            return end.value


def is_coroutine_function(func: Any) -> bool:
    """Whether *func* was decorated with `coroutine`."""
    return getattr(func, "__tornado_coroutine__", False)


class _Moment:
    """Waits for the next turn of the reactor."""

    def __await__(self) -> Generator[Any, Any, None]:
        return sleep(0).__await__()


#: `yield moment` lets others have their turn.
moment = _Moment()


def sleep(duration: float) -> Future:
    """A Deferred that fires after *duration* seconds."""
    from twisted.internet import reactor

    def give_up(_: Deferred[Any]) -> None:
        call.cancel()

    future = Future(give_up)
    call: Any = reactor.callLater(duration, future.callback, None)
    return future


def convert_yielded(yielded: Any) -> Deferred[Any]:
    """A Deferred for something that a generator may yield.

    :raises BadYieldError: it is nothing of the kind.
    """
    if yielded is None or yielded is moment:
        return sleep(0)
    if isinstance(yielded, Deferred):
        return yielded
    if isinstance(yielded, list | dict):
        return multi(yielded)
    if isinstance(yielded, ThreadFuture | AsyncioFuture):
        future = Future(lambda _: _cancel([yielded]))
        chain_future(yielded, future)
        return future
    if isawaitable(yielded) or hasattr(yielded, "__await__"):
        return drive(yielded)
    raise BadYieldError(f"yielded unknown object {yielded!r}")


def _cancel(waiting: Sequence[Any]) -> None:
    for one in waiting:
        one.cancel()


def maybe_future(x: Any) -> Any:
    """*x* if it can be waited for, else a Deferred that has it."""
    if is_future(x):
        return x
    future = Future()
    future.set_result(x)
    return future


def multi(children: Sequence[Any] | Mapping[Any, Any], quiet_exceptions: Any = ()) -> Future:
    """Wait for several at once.

    :param children: what can be yielded, in a list or as values of a dictionary.
    :param quiet_exceptions: exceptions that are not logged when they come behind the first.
    :returns: a Deferred of a list or dictionary of the results, when all are done. It fails as the first of
        *children* that did; what failed later is logged.
    """
    keys = list(children) if isinstance(children, Mapping) else None
    waiting = [convert_yielded(child) for child in (children.values() if keys is not None else children)]  # type: ignore[union-attr]
    results: list[Any] = [None] * len(waiting)
    outcome = Future(lambda _: _cancel(waiting))
    missing = len(waiting)
    failed: list[Failure] = []

    def settle() -> None:
        if outcome.called:
            return
        if failed:
            outcome.errback(failed[0])
        else:
            outcome.callback(results if keys is None else dict(zip(keys, results, strict=True)))

    def ended(result: Any, index: int) -> Any:
        nonlocal missing
        missing -= 1
        if isinstance(result, Failure):
            if failed and not isinstance(result.value, quiet_exceptions):
                app_log.error("Multiple exceptions in yield list", exc_info=result.value)
            failed.append(result)
            result = None
        results[index] = result
        if not missing:
            settle()
        return result

    for index, child in enumerate(waiting):
        child.addBoth(ended, index)
    if not waiting:
        settle()
    return outcome


multi_future = multi


def with_timeout(
    timeout: float | datetime.timedelta,
    future: Any,
    quiet_exceptions: Any = (),
    *,
    message: str | Callable[[], str] | None = None,
) -> Future:
    """Wait for *future*, but not longer than *timeout*. It is not cancelled, and a late failure is logged.

    :param timeout: a `timedelta`, or a time on the clock of `time.time`.
    :param quiet_exceptions: exceptions that are not logged when they come too late.
    :param message: of the `TimeoutError`, or a function that gives it.
    :returns: a Deferred of its result; it fails with `TimeoutError`.
    """
    from twisted.internet import reactor

    waited = convert_yielded(future)
    outcome = Future(lambda _: waited.cancel())
    seconds = timeout.total_seconds() if isinstance(timeout, datetime.timedelta) else timeout - time.time()

    def time_is_up() -> None:
        if not outcome.called:
            text = message() if callable(message) else message
            outcome.set_exception(TimeoutError(text or "Timeout"))

    call: Any = None

    def ended(result: Any) -> Any:
        if call is not None and call.active():
            call.cancel()
        late = outcome.called
        if not late:
            outcome.callback(result)
        if isinstance(result, Failure):
            if late and not isinstance(result.value, quiet_exceptions):
                app_log.error("Exception in Future %r after timeout", future, exc_info=result.value)
            return None
        return result

    if not waited.called:
        call = reactor.callLater(max(0.0, seconds), time_is_up)
    waited.addBoth(ended)
    return outcome


class WaitIterator:
    """Gives the results of several as they come, whichever is first.

    ::

        waiting = WaitIterator(first, second)
        async for result in waiting:
            print(waiting.current_index, result)

    :param args: what can be waited for; or by name in *kwargs*.
    """

    current_index: Any = None
    current_future: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if args and kwargs:
            raise ValueError("You must provide args or kwargs, not both")
        named = list(kwargs.items()) if kwargs else list(enumerate(args))
        self._left = len(named)
        self._finished: deque[tuple[Any, Any, Any]] = deque()
        self._asked: Future | None = None
        for key, future in named:
            convert_yielded(future).addBoth(self._came, key, future)

    def done(self) -> bool:
        """Whether all results were given."""
        if self._left or self._finished or self._asked is not None:
            return False
        self.current_index = self.current_future = None
        return True

    def next(self) -> Future:
        """A Deferred of the next result, which fails as that one did."""
        asked = self._asked = Future()
        if self._finished:
            self._give()
        return asked

    def _came(self, result: Any, key: Any, future: Any) -> Any:
        self._left -= 1
        self._finished.append((result, key, future))
        if self._asked is not None:
            self._give()
        return None if isinstance(result, Failure) else result

    def _give(self) -> None:
        result, self.current_index, self.current_future = self._finished.popleft()
        asked, self._asked = self._asked, None
        if asked is not None and not asked.called:
            asked.callback(result)

    def __aiter__(self) -> WaitIterator:
        return self

    def __anext__(self) -> Awaitable[Any]:
        if self.done():
            raise StopAsyncIteration
        return self.next()
