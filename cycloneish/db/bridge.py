"""Straight-line code that waits for Deferreds: the bridge under SQLAlchemy on the reactor.

:func:`spawn` runs a plain function in a greenlet; inside it, however deep, :func:`wait` hands a Deferred to
the reactor and comes back with its result.  That is how SQLAlchemy, which knows nothing of Deferreds,
runs on a driver that knows nothing else.  Called by :mod:`cycloneish.db.adapter` (``wait``) and
:mod:`cycloneish.db.session` (``spawn``); SQLAlchemy's own ``await_only`` works inside as well.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from ..coroutines import drive
from .errors import MissingDependency

try:
    from greenlet import GreenletExit, getcurrent, greenlet
    from sqlalchemy.exc import MissingGreenlet
except ImportError as error:
    raise MissingDependency(error.name or "sqlalchemy", "orm") from error

__all__ = ["spawn", "wait"]

T = TypeVar("T")

_NOTHING = object()

_OUTSIDE = (
    "the database was asked outside of a session's own methods, such as by reading an attribute that is "
    "not loaded yet: load it eagerly (selectinload), wait for it with 'await session.load(object, name)', "
    "or put the code into a function for 'await db.run(function)'"
)

#: Greenlets of a thread that are kept for the next function, each of some 20 kB.
_KEPT = 128
#: What a greenlet switches back with when its function has ended.
_ENDED = object()


class _Kept(threading.local):
    """The greenlets of this thread that have nothing to do."""

    def __init__(self) -> None:
        self.idle: list[_Greenlet] = []
        self.root = getcurrent()
        while self.root.parent is not None:
            self.root = self.root.parent


_kept = _Kept()


class _Greenlet(greenlet):  # type: ignore[misc]  # it has no type information
    """Calls one function after the other.

    A new greenlet for each would cost as much as a small query: Python maps memory for its stack anew.

    :ivar call: the function to call next and its arguments.
    :ivar outcome: what it gave, or its failure.
    """

    # SQLAlchemy asks for this name before it lets a greenlet wait.
    __sqlalchemy_greenlet_provider__ = True

    call: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]] | None
    outcome: Any = None

    def run(self) -> None:
        """What greenlet calls with the first switch."""
        while True:
            self._work()
            self.parent.switch(_ENDED)

    def _work(self) -> None:
        assert self.call is not None
        (function, args, kwargs), self.call = self.call, None
        try:
            self.outcome = function(*args, **kwargs)
        except BaseException as error:
            self.outcome = Failure()
            if isinstance(error, GreenletExit):
                # The greenlet is being thrown away.
                raise

    def take_outcome(self) -> Any:
        """What the function gave or failed with; the greenlet is free for another one."""
        outcome, self.outcome = self.outcome, None
        idle = _kept.idle
        if len(idle) < _KEPT and not self.dead:
            # Neither the caller nor its context variables shall live on with it.
            self.parent = _kept.root
            self.gr_context = None
            idle.append(self)
        return outcome


class _Running(Deferred[Any]):
    """The result of a function that waits in its greenlet."""

    def __init__(self, task: _Greenlet) -> None:
        super().__init__()
        self._task = task
        self._waited: Deferred[Any] | None = None
        self._inline = False
        self._arrived: Any = _NOTHING

    def cancel(self) -> None:
        """Cancel what the function waits for; it hears of that as an exception and cleans up.

        The Deferred fails when that is done, so whoever sees it fail finds the connection given back.
        """
        waited = self._waited
        if self.called or waited is None:
            super().cancel()
        else:
            waited.cancel()

    def follow(self, waited: Any) -> None:
        """Go on with the function each time that what it waits for is there, to its end."""
        task = self._task
        while True:
            if not isinstance(waited, Deferred):
                waited = drive(waited)
            self._waited = waited
            self._inline = True
            waited.addBoth(self._arrive)
            self._inline = False
            result, self._arrived = self._arrived, _NOTHING
            if result is _NOTHING:
                return
            waited = self._resume(task, result)
            if waited is _NOTHING:
                return

    def _arrive(self, result: Any) -> None:
        self._waited = None
        if self._inline:
            self._arrived = result
            return
        waited = self._resume(self._task, result)
        if waited is not _NOTHING:
            self.follow(waited)

    def _resume(self, task: _Greenlet, result: Any) -> Any:
        """One step; gives what the function waits for next, or nothing when it has ended."""
        task.parent = getcurrent()
        waited = task.throw(result.value) if isinstance(result, Failure) else task.switch(result)
        if waited is _ENDED or task.dead:
            self.callback(task.take_outcome())
            return _NOTHING
        return waited


def spawn(function: Callable[..., T], *args: Any, **kwargs: Any) -> Deferred[T]:
    """Call *function* in a greenlet, where it may :func:`wait`.

    It begins at once, in the context variables of the caller, and keeps them.

    :returns: a Deferred with its result.  Cancelling it cancels what the function waits for at that
        moment; the function gets ``CancelledError``, and the Deferred fails when the function has ended.
    """
    idle = _kept.idle
    task = idle.pop() if idle else _Greenlet()
    task.parent = here = getcurrent()
    task.gr_context = here.gr_context
    task.call = function, args, kwargs
    waited = task.switch()
    if waited is _ENDED or task.dead:
        return succeed(task.take_outcome())
    running = _Running(task)
    running.follow(waited)
    return running


def wait(awaitable: Awaitable[T]) -> T:
    """Wait for a Deferred (or another awaitable) inside of a function that :func:`spawn` runs.

    :returns: its result.
    :raises sqlalchemy.exc.MissingGreenlet: called elsewhere.
    :raises Exception: what the Deferred fails with.
    """
    if isinstance(awaitable, Deferred) and awaitable.called and not awaitable.paused:
        result = awaitable.result
        if isinstance(result, Failure):
            awaitable.addErrback(lambda _: None)
            raise result.value  # type: ignore[misc]
        if not isinstance(result, Deferred):
            return cast(T, result)
    current = getcurrent()
    if not getattr(current, "__sqlalchemy_greenlet_provider__", False):
        _drop(awaitable)
        raise MissingGreenlet(_OUTSIDE)
    parent = current.parent
    assert parent is not None
    return cast(T, parent.switch(awaitable))


def inside() -> bool:
    """Whether :func:`wait` can be called here."""
    return bool(getattr(getcurrent(), "__sqlalchemy_greenlet_provider__", False))


def _drop(awaitable: Any) -> None:
    if isinstance(awaitable, Deferred):
        awaitable.addErrback(lambda _: None)
        awaitable.cancel()
    elif hasattr(awaitable, "close"):
        awaitable.close()
