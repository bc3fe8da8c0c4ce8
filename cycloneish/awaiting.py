"""A Deferred that a bare asyncio task can await too.

``await deferred`` in a coroutine that :func:`cycloneish.coroutines.drive` runs works with every Deferred.
In a task that asyncio runs itself (``asyncio.gather``, ``asyncio.run``, a library's callback) it does not,
as asyncio does not know what a Deferred is.  What the clients of this package return is an
``AwaitableDeferred``, and so programs that came from Tornado may await it wherever they awaited a future.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from cycloneish.coroutines import task_is_cancelling

__all__ = ["AwaitableDeferred"]

T = TypeVar("T")


class AwaitableDeferred(Deferred[T]):
    """A Deferred with the few methods of a future that Tornado's users call on what they are given."""

    def add_done_callback(self, callback: Callable[[Any], Any]) -> None:
        """Have ``callback(self)`` called when there is a result; the result stays as it is."""

        def call(result: Any) -> Any:
            callback(self)
            return result

        self.addBoth(call)

    def cancel(self, msg: object = None) -> bool:  # type: ignore[override]
        """Give up, and release what was held.

        :returns: whether it was not done yet.
        """
        pending = not self.called
        super().cancel()
        return pending

    def done(self) -> bool:
        """Whether there is a result."""
        return bool(self.called)

    def __await__(self) -> Generator[Any, None, T]:
        while not self.called or self.paused:
            yield _Wait(self)
        result: Any = self.result
        if isinstance(result, Failure):
            if result.check(CancelledError) and task_is_cancelling():
                self.addErrback(lambda _: None)
                raise asyncio.CancelledError
            yield from super().__iter__()  # marks the failure as seen, and raises it
        return result  # type: ignore[no-any-return]

    __iter__ = __await__


class _Wait(Deferred[Any]):
    """What stands for *origin* while it is awaited: a Deferred for Twisted, a future for asyncio.

    One object cannot be both, as ``result`` is an attribute of the one and a method of the other; this one
    has no result of its own.
    """

    _asyncio_future_blocking = True

    def __init__(self, origin: AwaitableDeferred[Any]) -> None:
        super().__init__()
        self._origin = origin

    # Twisted's side.

    def addCallbacks(self, *args: Any, **kwargs: Any) -> Any:
        return self._origin.addCallbacks(*args, **kwargs)

    def addBoth(self, *args: Any, **kwargs: Any) -> Any:
        return self._origin.addBoth(*args, **kwargs)

    def cancel(self, msg: object = None) -> bool:  # type: ignore[override]
        return self._origin.cancel()

    # The side of asyncio: what asyncio.Task calls.

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    def add_done_callback(self, callback: Callable[[Any], Any], *, context: Any = None) -> None:
        loop = asyncio.get_running_loop()

        def wake(result: Any) -> Any:
            loop.call_soon(callback, self, context=context)
            return result

        self._origin.addBoth(wake)

    def result(self) -> None:  # type: ignore[override]
        """Nothing: the awaiting coroutine reads the result itself."""
