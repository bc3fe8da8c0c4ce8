""":func:`gen_test`: a time-out, and any kind of coroutine, for one test method."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any, overload

from twisted.internet.defer import Deferred, gatherResults
from twisted.python.failure import Failure

import twisted
from cycloneish.coroutines import as_deferred, drive, is_awaitable
from cycloneish.testing.helpers import get_async_test_timeout

__all__ = ["gen_test"]

TestMethod = Callable[..., Any]

_TWISTED = os.path.join(os.path.dirname(twisted.__file__), "")


@overload
def gen_test(func: TestMethod) -> Callable[..., Deferred[Any]]: ...
@overload
def gen_test(
    func: None = None, timeout: float | None = None
) -> Callable[[TestMethod], Callable[..., Deferred[Any]]]: ...
def gen_test(func: TestMethod | None = None, timeout: float | None = None) -> Any:
    """Run a test method that is a generator, an ``async def`` or returns a Deferred, under a time-out.

    ::

        class MyTest(AsyncHTTPTestCase):
            @gen_test
            def test_something(self):
                response = yield self.fetch("/")

            @gen_test(timeout=10)
            async def test_something_slow(self):
                response = await self.fetch("/slow")

    A generator may yield Deferreds, coroutines, asyncio futures (on the asyncio reactor), and lists and dicts
    of them.

    :param timeout: seconds; :func:`~cycloneish.testing.get_async_test_timeout`, asked when the test runs, by
        default.
    :returns: the test method, which gives a Deferred. It fails with :exc:`TimeoutError` when time is up; the
        message and the traceback name the line that waited.

    Under trial ``async def`` tests, and ``inlineCallbacks``, run without it as well. Tornado:
    ``tornado.testing.gen_test``.
    """
    if func is None:
        return functools.partial(gen_test, timeout=timeout) if timeout is not None else gen_test

    method = func

    @functools.wraps(method)
    def run(*args: Any, **kwargs: Any) -> Deferred[Any]:
        seconds = get_async_test_timeout() if timeout is None else timeout
        result = method(*args, **kwargs)
        if inspect.isgenerator(result):
            return _with_timeout(_drive_generator(result), result, seconds)
        return _with_timeout(result, result, seconds)

    return run


# Runners that collect by name must not take it for a test.
gen_test.__test__ = False  # type: ignore[attr-defined]


async def _drive_generator(generator: Generator[Any, Any, Any]) -> Any:
    value: Any = None
    error: BaseException | None = None
    while True:
        try:
            yielded = generator.send(value) if error is None else generator.throw(error)
        except StopIteration as stop:
            return stop.value
        error = None
        try:
            value = await _together(yielded)
        except GeneratorExit:
            generator.close()
            raise
        except BaseException as caught:
            error = caught


def _together(yielded: Any) -> Deferred[Any]:
    if isinstance(yielded, Mapping):
        keys = list(yielded)
        together: Deferred[Any] = _together([yielded[key] for key in keys])
        return together.addCallback(lambda values: dict(zip(keys, values, strict=True)))
    if isinstance(yielded, list | tuple):
        gathered: Deferred[Any] = gatherResults([as_deferred(one) for one in yielded], consumeErrors=True)
        return gathered
    if yielded is not None and not is_awaitable(yielded):
        raise TypeError(f"a test yielded {yielded!r:.100}, which is nothing one can wait for")
    return as_deferred(yielded)


def _with_timeout(result: Any, waiting: Any, seconds: float) -> Deferred[Any]:
    deferred: Deferred[Any] = as_deferred(result) if not is_awaitable(result) else drive(result)
    if deferred.called and not deferred.paused:
        return deferred
    from twisted.internet import reactor

    timed_out: list[str] = []

    def time_is_up() -> None:
        timed_out.append(_where(waiting))
        deferred.cancel()

    def done(outcome: Any) -> Any:
        if call.active():
            call.cancel()
        if not timed_out:
            return outcome
        error = TimeoutError(f"the test was not done after {seconds:g} s{timed_out[0]}")
        if isinstance(outcome, Failure):
            # Its traceback shows where the test was when it was cancelled.
            error.__cause__ = outcome.value
            error = error.with_traceback(outcome.getTracebackObject())
        return Failure(error, type(error), error.__traceback__)

    call = reactor.callLater(seconds, time_is_up)
    return deferred.addBoth(done)


def _where(waiting: Any) -> str:
    """The lines in which a coroutine or generator waits, the innermost first."""
    lines: list[str] = []
    while waiting is not None:
        frame = getattr(waiting, "cr_frame", None) or getattr(waiting, "gi_frame", None)
        if frame is None:
            break
        if not frame.f_code.co_filename.startswith(_TWISTED):
            lines.append(f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}")
        waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "gi_yieldfrom", None)
    return "; it waits at " + _joined(lines) if lines else ""


def _joined(lines: Iterable[str]) -> str:
    return ", called from ".join(reversed(list(lines)))
