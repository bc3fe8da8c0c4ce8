"""Threads for tasks that block: a bounded pool, and a time limit that reaches into a thread.

A thread cannot be killed. When the time of a task is up, an exception is raised inside its Python code, which
ends loops and most waiting; a call into C (a query, ``time.sleep``) returns first. The pool counts a thread
that does not end as busy.
"""

from __future__ import annotations

import ctypes
import logging
import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from ..coroutines import is_awaitable
from .errors import TimeLimitExceeded

__all__ = ["TaskThreads"]

log = logging.getLogger("cycloneish.tasks")

#: Seconds that a thread has to end after its time is up, before it is given up.
GRACE = 5.0


class _Daemon(threading.Thread):
    """A thread that does not keep the program from ending."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "daemon": True})


class _Pool(ThreadPool):
    threadFactory = _Daemon


class _Run:
    """One function in one thread."""

    def __init__(self, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
        self._function = function
        self._args = args
        self._kwargs = kwargs
        self._lock = threading.Lock()
        self._thread: int | None = None
        self._limit: float | None = None

    def __call__(self) -> Any:
        try:
            with self._lock:
                if self._limit is not None:
                    # Given up while it waited for a thread.
                    raise TimeLimitExceeded
                self._thread = threading.get_ident()
            try:
                result = self._function(*self._args, **self._kwargs)
            finally:
                try:
                    self._leave()
                except TimeLimitExceeded:  # it came this late
                    self._leave()
        except TimeLimitExceeded:
            if self._limit is None:
                raise
            raise TimeLimitExceeded(f"it took longer than {self._limit:g} s") from None
        if is_awaitable(result):
            _discard(result)
            raise TypeError(
                "the function runs in a thread and gave a Deferred or a coroutine: say @task(thread=False)"
            )
        return result

    def _leave(self) -> None:
        """Be out of reach; what was sent to this thread arrives now, as it must not hit the next task."""
        with self._lock:
            self._thread = None
            interrupted = self._limit is not None
        if interrupted:
            # Python looks for it whenever a loop begins again. To take it back instead would leave older
            # Pythons looking for ever: 3.11 goes round in a circle then where it is traced.
            for _ in range(100):
                time.sleep(0)

    def interrupt(self, limit: float) -> None:
        """Raise an exception in the thread, once, if it is at work still."""
        with self._lock:
            if self._limit is not None:
                return
            self._limit = limit
            if self._thread is not None:
                _raise_in(self._thread)


class TaskThreads:
    """The pool.

    :param size: threads at most.
    """

    def __init__(self, reactor: Any, size: int) -> None:
        self._reactor = reactor
        self._pool = _Pool(0, size, "cycloneish-tasks")
        self._busy = 0

    @property
    def busy(self) -> int:
        """Threads at work, given up or not."""
        return self._busy

    def start(self) -> None:
        """Take work from now on."""
        self._pool.start()

    def stop(self) -> None:
        """Let the threads go; those that are at work are left behind."""
        if self._busy:
            log.warning("%d threads are still at work, and are left behind", self._busy)
            return
        self._pool.stop()

    def run(
        self, function: Callable[..., Any], args: Any, kwargs: Any, time_limit: float | None
    ) -> Deferred[Any]:
        """Run a function; fires with what it returned.

        Cancelling interrupts it as its time limit does.

        :param time_limit: seconds; after them, and :data:`GRACE` more if it does not end, it fails with
            :exc:`~cycloneish.tasks.TimeLimitExceeded`.
        """
        run = _Run(function, args, kwargs)
        timers: list[Any] = []

        def cancelled(_: object) -> None:
            run.interrupt(0)
            stop_timers()

        def stop_timers() -> None:
            for timer in timers:
                timer.cancel()
            timers.clear()

        result: Deferred[Any] = Deferred(cancelled)

        def time_is_up() -> None:
            assert time_limit is not None
            run.interrupt(time_limit)
            timers[:] = [self._reactor.callLater(GRACE, give_up)]

        def give_up() -> None:
            timers.clear()
            log.error("a thread goes on %g s after its time was up, and is given up", GRACE)
            if not result.called:
                result.errback(TimeLimitExceeded(f"it took longer than {time_limit:g} s, and goes on"))

        def ended(outcome: Any) -> None:
            self._busy -= 1
            stop_timers()
            if result.called:
                return
            if isinstance(outcome, Failure):
                result.errback(outcome)
            else:
                result.callback(outcome)

        self._busy += 1
        if time_limit is not None:
            timers.append(self._reactor.callLater(time_limit, time_is_up))
        context = copy_context()
        deferToThreadPool(self._reactor, self._pool, context.run, run).addBoth(ended)
        return result


def _raise_in(thread: int) -> None:
    error = ctypes.py_object(TimeLimitExceeded)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), error)


def _discard(result: Any) -> None:
    """Have no warning about a coroutine that never ran, nor one about a failure that nobody saw."""
    close = getattr(result, "close", None)
    if close is not None:
        close()
    elif isinstance(result, Deferred):
        result.addErrback(lambda _: None)
