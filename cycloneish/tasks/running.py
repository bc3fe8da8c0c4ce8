"""One run of one task: on the reactor or in a thread, within its time, and what follows from how it ended."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.python.failure import Failure

from ..coroutines import drive, is_awaitable
from .core import running
from .errors import Control, TimeLimitExceeded
from .errors import Retry as RetryRequest
from .message import Envelope, TaskMessage
from .task import Call, Task

__all__ = ["as_dead_letter", "next_try", "run_task"]

log = logging.getLogger("cycloneish.tasks")

#: Characters of a traceback in the headers of a dead letter: the headers have to fit into one frame.
LONGEST_TRACEBACK = 8000


class Threads(Protocol):
    """Where functions that block run."""

    def run(
        self, function: Callable[..., Any], args: Any, kwargs: Any, time_limit: float | None
    ) -> Deferred[Any]:
        """Run one."""


def run_task(
    task: Task[..., Any], message: TaskMessage, threads: Threads | None, reactor: Any
) -> Deferred[Any]:
    """Run *task* for *message*; fires with what it returned.

    :param threads: for functions that block; None to run them here.
    """
    args = [Call(task, message), *message.args] if task.bind else message.args
    limit = message.time_limit or task.time_limit
    context = copy_context()
    context.run(running.set, message)
    if task.runs_in_thread and threads is not None:
        return context.run(threads.run, task.function, args, message.kwargs, limit)
    work: Deferred[Any] = context.run(maybeDeferred, _on_the_reactor, task.function, args, message.kwargs)
    if limit is not None:
        work.addTimeout(limit, reactor, _time_is_up)
    return work


def _on_the_reactor(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    result = function(*args, **kwargs)
    return drive(result) if is_awaitable(result) else result


def _time_is_up(_: object, seconds: float) -> Any:
    raise TimeLimitExceeded(f"it took longer than {seconds:g} s")


@dataclass(frozen=True, slots=True)
class NextTry:
    """How a task is tried again."""

    message: TaskMessage
    delay: float
    queue: str | None


def next_try(task: Task[..., Any], message: TaskMessage, failure: Failure) -> NextTry | None:
    """How *task* is tried again after *failure*; None where it is not.

    It is where the task asked for it with ``self.retry()``, and where the error is one of ``autoretry_for``
    and there is a try left.
    """
    error = failure.value
    assert error is not None
    if isinstance(error, RetryRequest):
        again = TaskMessage(
            task=message.task,
            id=message.id,
            args=message.args if error.new_args is None else error.new_args,
            kwargs=message.kwargs if error.new_kwargs is None else error.new_kwargs,
            priority=message.priority if error.priority is None else error.priority,
            expires=message.expires,
            retries=message.retries + 1,
            root_id=message.root_id,
            parent_id=message.parent_id,
            time_limit=message.time_limit,
            embed=message.embed,
        )
        return NextTry(again, error.delay, error.queue)
    if isinstance(error, Control | CancelledError) or not task.retries_after(error):
        return None
    if task.max_retries is not None and message.retries >= task.max_retries:
        return None
    request = RetryRequest(_in_one_line(error), Call(task, message).task_delay(None, None))
    return next_try(task, message, Failure(request))


def as_dead_letter(envelope: Envelope, queue: str, failure: Failure) -> Envelope:
    """The message with what went wrong in its headers."""
    error = failure.value
    assert error is not None
    text = _clean(
        "".join(
            traceback.format_exception(
                type(error), error, failure.getTracebackObject() or error.__traceback__
            )
        )
    )
    if len(text) > LONGEST_TRACEBACK:
        # The end of a traceback says more than its beginning.
        text = "…" + text[-LONGEST_TRACEBACK:]
    return envelope.with_headers(
        **{
            "x-error": _in_one_line(error),
            "x-traceback": text,
            "x-queue": queue,
        }
    )


def _in_one_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {_clean(lines[0][:500]) if lines else ''}"


def _clean(text: str) -> str:
    """Without lone surrogates, which no header can hold."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def run_eagerly(task: Task[..., Any], message: TaskMessage, reactor: Any) -> Deferred[Any]:
    """Run a task here, and again at once where it would be tried again later; for tests.

    :returns: a Deferred that fires with what it returned, and fails as its last run did.
    """

    def failed(failure: Failure) -> Any:
        again = next_try(task, message, failure)
        if again is not None:
            return run_eagerly(task, again.message, reactor)
        return None if isinstance(failure.value, Control) else failure

    return run_task(task, message, None, reactor).addErrback(failed)
