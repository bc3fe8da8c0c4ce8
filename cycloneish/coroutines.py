"""The one driver of coroutines: Deferreds on every reactor, asyncio too where asyncio is the reactor.

Handlers, services and application factories may be ``async def``; whoever calls them hands what came
back to :func:`drive` and gets a :class:`~twisted.internet.defer.Deferred`.  Only this module knows
how a coroutine is resumed:

* On the asyncio reactor it runs as an :class:`asyncio.Task`, so that asyncio libraries,
  ``asyncio.timeout`` and ``asyncio.current_task`` work; a Deferred awaited inside is turned into a
  future on the way.
* On any other reactor it runs on Deferreds alone, and awaiting an asyncio future raises one error
  that says so.

A synchronous handler never comes here.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import copy_context
from types import coroutine
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

__all__ = ["Running", "as_deferred", "drive", "is_awaitable", "run", "running_loop", "task_is_cancelling"]

T = TypeVar("T")

_NEEDS_ASYNCIO = (
    "an asyncio future was awaited, but this program does not run on the asyncio reactor: "
    "start it with 'twistd -r asyncio …' (or twisted.internet.asyncioreactor.install() before the "
    "reactor is imported), or await a Deferred instead"
)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop under the reactor, or None where the reactor is not asyncio's."""
    loop = asyncio._get_running_loop()
    if loop is None:
        # Before the reactor runs (factories, set-up code) no loop is marked as running yet.
        loop = getattr(sys.modules.get("twisted.internet.reactor"), "_asyncioEventloop", None)
    return loop


def task_is_cancelling() -> bool:
    """Whether somebody has cancelled the asyncio task that runs now, rather than something it waits for."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no loop runs
        return False
    return task is not None and task.cancelling() > 0


def is_awaitable(result: object) -> bool:
    """Whether *result* is something :func:`drive` can wait for."""
    return isinstance(result, Deferred) or hasattr(result, "__await__")


def as_deferred(result: Awaitable[T] | T) -> Deferred[T]:
    """A Deferred for *result*, which may be a plain value."""
    if is_awaitable(result):
        return drive(result)  # type: ignore[arg-type]
    return succeed(result)  # type: ignore[arg-type]


def drive(awaitable: Awaitable[T]) -> Deferred[T]:
    """Run *awaitable* to its end.

    :param awaitable: a Deferred (returned as it is), a coroutine, an asyncio future or any object
        with ``__await__``.
    :returns: a Deferred that fires with its result.  Cancelling it cancels what the coroutine waits
        for at that moment, the query or the call under it as well; it then fails with Twisted's
        ``CancelledError``, on the asyncio reactor with asyncio's.
    """
    if isinstance(awaitable, Deferred):
        return awaitable
    loop = running_loop()
    if isinstance(awaitable, asyncio.Future):
        return _from_future(awaitable)
    if loop is None:
        return Deferred.fromCoroutine(_on_deferreds(awaitable))
    if sys.version_info >= (3, 12) and loop.is_running():
        # The first step at once: a handler that awaits nothing costs no turn of the loop.
        return _from_future(asyncio.Task(_in_task(awaitable, loop), loop=loop, eager_start=True))
    return _from_future(loop.create_task(_in_task(awaitable, loop)))


class Running(Protocol):
    """What is under way: a Deferred, or as much of one as its one owner needs."""

    @property
    def called(self) -> bool:
        """Whether it has ended."""

    def cancel(self) -> Any:
        """Cancel what it waits for."""

    def addBoth(self, callback: Callable[[Any], Any]) -> Any:
        """Call *callback* with the result or the ``Failure`` at the end, or at once if it has ended."""


def run(coroutine: Coroutine[Any, Any, Any]) -> Running:
    """Do what :func:`drive` does, for one owner that adds one callback and hands it to nobody.

    A Deferred, with Twisted's driver behind it, costs twice as much.
    """
    return _Run(coroutine) if running_loop() is None else drive(coroutine)


class _Run:
    """A coroutine under way on Deferreds."""

    __slots__ = ("_callback", "_enter", "_result", "_steps", "_waits_for", "called")

    def __init__(self, steps: Coroutine[Any, Any, Any]) -> None:
        self._steps = steps
        self._enter = copy_context().run
        self._waits_for: Deferred[Any] | None = None
        self._callback: Callable[[Any], Any] | None = None
        self._result: Any = None
        self.called = False
        self._step(None)

    def _step(self, result: Any) -> None:
        """Go on with *result* of what was waited for, as far as the next Deferred."""
        self._waits_for = None
        while True:
            try:
                if isinstance(result, Failure):
                    waited = self._enter(result.throwExceptionIntoGenerator, self._steps)
                else:
                    waited = self._enter(self._steps.send, result)
            except StopIteration as stop:
                self._end(stop.value)
                return
            except BaseException:
                self._end(Failure())
                return
            if isinstance(waited, Deferred):
                self._waits_for = waited
                waited.addBoth(self._step)
                return
            result = Failure(RuntimeError(_NEEDS_ASYNCIO))

    def _end(self, result: Any) -> None:
        self.called = True
        if self._callback is None:
            self._result = result
        else:
            self._callback(result)

    def cancel(self) -> None:
        if self._waits_for is not None:
            self._waits_for.cancel()

    def addBoth(self, callback: Callable[[Any], Any]) -> None:
        if self.called:
            callback(self._result)
        else:
            self._callback = callback


def _from_future(future: asyncio.Future[T]) -> Deferred[T]:
    if not future.done():
        return Deferred.fromFuture(future)
    try:
        return succeed(future.result())
    except BaseException:
        return fail()


async def _in_task(awaitable: Awaitable[T], loop: asyncio.AbstractEventLoop) -> T:
    """What the Task runs: since Python 3.12 it takes nothing but a coroutine of the language."""
    return await _on_asyncio(awaitable, loop)


@coroutine
def _on_asyncio(awaitable: Awaitable[T], loop: asyncio.AbstractEventLoop) -> Generator[Any, Any, T]:
    """Stand between *awaitable* and its Task: futures pass, Deferreds become futures."""
    inner = _steps(awaitable)
    error: BaseException | None = None
    while True:
        try:
            waited = inner.send(None) if error is None else inner.throw(error)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        error = None
        try:
            if isinstance(waited, Deferred):
                yield from _fired(waited, loop)
            else:
                yield waited
        except GeneratorExit:
            inner.close()
            raise
        except BaseException as caught:
            error = caught


def _fired(deferred: Deferred[Any], loop: asyncio.AbstractEventLoop) -> Generator[Any, Any, None]:
    """Wait until *deferred* has its result and leave the result in it, for the await to read."""
    future: asyncio.Future[None] = loop.create_future()

    def wake(result: object) -> object:
        if not future.done():
            future.set_result(None)
        return result

    deferred.addBoth(wake)
    try:
        yield from future
    except BaseException:
        # The Task was cancelled: so is what it waited for, and nobody is left to see how it ended.
        deferred.cancel()
        deferred.addErrback(lambda _: None)
        raise


@coroutine
def _on_deferreds(awaitable: Awaitable[T]) -> Generator[Any, Any, T]:
    """Stand between *awaitable* and Twisted's driver, to refuse what only asyncio can wait for."""
    inner = _steps(awaitable)
    error: BaseException | None = None
    while True:
        try:
            waited = inner.send(None) if error is None else inner.throw(error)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        error = None
        if not isinstance(waited, Deferred):
            error = RuntimeError(_NEEDS_ASYNCIO)
            continue
        try:
            yield waited
        except GeneratorExit:
            inner.close()
            raise
        except BaseException as caught:
            error = caught


def _steps(awaitable: Awaitable[T]) -> Any:
    """The object with send(), throw() and close() that runs *awaitable*."""
    if isinstance(awaitable, Coroutine):
        return awaitable
    steps = awaitable.__await__()
    return steps if hasattr(steps, "send") else _as_generator(steps)


def _as_generator(steps: Any) -> Generator[Any, Any, Any]:
    return (yield from steps)
