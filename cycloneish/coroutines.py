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
from collections.abc import Awaitable, Coroutine, Generator
from types import coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail, succeed

__all__ = ["as_deferred", "drive", "is_awaitable", "running_loop", "task_is_cancelling"]

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
