"""Finds what a test leaves on the reactor, and says who made it.

:class:`~cycloneish.testing.AsyncTestCase` uses a :class:`LeftoverWatch` for every test. Trial has a
check of its own, which names the delayed call or the port but not the line that made it.
"""

from __future__ import annotations

import asyncio
import os
import sys
import unittest
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort

import cycloneish
import twisted
from cycloneish.http.reading import Readers

__all__ = ["LeftoverError", "LeftoverWatch"]

_FRAMES = 6
# Frames of these directories are machinery; where a test is at fault, its own line is what one wants to see.
_MACHINERY = tuple(
    os.path.join(os.path.dirname(module.__file__ or ""), "") for module in (twisted, asyncio, unittest)
)
_OURS = os.path.join(os.path.dirname(cycloneish.__file__), "testing", "leftovers.py")


class LeftoverError(AssertionError):
    """A test ended and left something behind on the reactor."""


class LeftoverWatch:
    """Watches the reactor from :meth:`start` to :meth:`check`.

    :param reactor: the reactor; what is on it when the watch starts is nobody's fault.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._makers: dict[int, tuple[object, list[str]]] = {}
        self._before: set[object] = set()
        self._tasks_before: set[asyncio.Task[Any]] = set()
        self._patched: list[str] = []

    def start(self) -> None:
        """Note what is there, and from now on who adds something."""
        self._before = {*self._reactor.getDelayedCalls(), *self._selectables()}
        self._tasks_before = self._tasks()
        self._patch("callLater", lambda _, result: result)
        self._patch("addReader", lambda arguments, _: arguments[0])
        self._patch("addWriter", lambda arguments, _: arguments[0])

    def stop(self) -> None:
        """Watch no longer."""
        for name in self._patched:
            delattr(self._reactor, name)
        self._patched = []

    def check(self) -> Deferred[None]:
        """Give what is about to end a few turns of the reactor, then clean up what is left.

        On the asyncio reactor tasks that are not done, such as those of handlers whose client has left, are
        cancelled without a word, as Tornado does.

        :returns: a Deferred that fails with :exc:`LeftoverError` when there was something.
        """
        done: Deferred[None] = Deferred()

        def turn(turns: int) -> None:
            if turns and (self._left() or self._tasks() - self._tasks_before):
                self._reactor.callLater(0 if turns > 1 else 0.01, turn, turns - 1)
                return
            self.stop()
            left = self._left()
            if not left:
                done.callback(None)
                return
            error = LeftoverError(self.describe(left))
            for item in left:
                _dispose(item)
            # A port and a connection need a turn to be gone, or trial's own check would name them again.
            self._reactor.callLater(0.01, done.errback, error)

        for task in self._tasks() - self._tasks_before:
            task.cancel()
        turn(3)
        return done

    def describe(self, left: list[object]) -> str:
        """The text of the error for these things."""
        lines = [f"the test left {len(left)} thing{'s' * (len(left) > 1)} on the reactor:"]
        for item in left:
            lines.append(f"* {_name(item, self._reactor)}")
            known = self._makers.get(id(item))
            if known is not None and known[0] is item:
                lines.extend(
                    f"    made at {frame}" if n == 0 else f"       from {frame}"
                    for n, frame in enumerate(known[1])
                )
        return "\n".join(lines)

    def _left(self) -> list[object]:
        now = [*self._reactor.getDelayedCalls(), *self._selectables()]
        return [item for item in now if item not in self._before and not _is_trials(item)]

    def _selectables(self) -> list[object]:
        internal = getattr(self._reactor, "_internalReaders", ())
        found: dict[object, None] = {}
        for item in [*self._reactor.getReaders(), *self._reactor.getWriters()]:
            if isinstance(item, Readers):  # stands for the connections of a server
                found |= dict.fromkeys(item.transports)
            elif item not in internal:
                found[item] = None
        return list(found)

    def _tasks(self) -> set[asyncio.Task[Any]]:
        loop = getattr(self._reactor, "_asyncioEventloop", None)
        return {task for task in asyncio.all_tasks(loop) if not task.done()} if loop is not None else set()

    def _patch(self, name: str, watched: Callable[[tuple[Any, ...], Any], Any]) -> None:
        original = getattr(self._reactor, name)
        makers = self._makers

        def noted(*arguments: Any, **keywords: Any) -> Any:
            result = original(*arguments, **keywords)
            item = watched(arguments, result)
            known = makers.get(id(item))
            if known is None or known[0] is not item:
                # The item is kept with its maker, so that its id is not given to another one meanwhile.
                makers[id(item)] = (item, _callers())
            return result

        setattr(self._reactor, name, noted)
        self._patched.append(name)


def _callers() -> list[str]:
    """The nearest frames outside of Twisted and this file, innermost first, as ``file:line in function``."""
    frames: list[str] = []
    frame = sys._getframe(2)
    while frame is not None and len(frames) < _FRAMES:
        code = frame.f_code
        if code.co_filename.startswith(_MACHINERY[2]):
            break  # who runs the tests is not the question
        if code.co_filename != _OURS and not code.co_filename.startswith(_MACHINERY):
            frames.append(f"{code.co_filename}:{frame.f_lineno} in {code.co_name}")
        if frame.f_back is None:
            break
        frame = frame.f_back
    return frames


def _is_trials(item: Any) -> bool:
    """Whether it is the time-out that trial sets for each step of a test."""
    return getattr(getattr(item, "func", None), "__module__", "").startswith("twisted.trial.")


def _name(item: Any, reactor: Any) -> str:
    get_time = getattr(item, "getTime", None)
    if get_time is not None:
        function = getattr(item, "func", None)
        what = getattr(function, "__qualname__", None) or repr(function)
        return f"a delayed call of {what}, due in {get_time() - reactor.seconds():.3g} s"
    if IListeningPort.providedBy(item):
        return f"a listening port, {item.getHost()}"
    try:
        return f"a connection from {item.getHost()} to {item.getPeer()}: {item!r}"
    except Exception:
        return repr(item)


def _dispose(item: Any) -> None:
    for name in ("cancel", "stopListening", "abortConnection", "loseConnection", "stopReading"):
        method = getattr(item, name, None)
        if method is not None:
            try:
                method()
            except Exception:  # noqa: S112 - the next way may work
                continue
            return
