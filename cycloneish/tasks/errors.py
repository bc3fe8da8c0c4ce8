"""What tasks raise, and what a task may raise to say how it shall go on."""

from __future__ import annotations

from typing import Any

__all__ = [
    "Ignore",
    "MalformedMessage",
    "NotRegistered",
    "QueueFull",
    "Reject",
    "Retry",
    "TaskError",
    "TimeLimitExceeded",
    "WorkerLost",
]


class TaskError(Exception):
    """Base of what this package raises."""


class NotRegistered(TaskError):
    """No task of this name is known here: is the module with it imported?"""


class MalformedMessage(TaskError):
    """What came out of the queue is no task's message."""


class QueueFull(TaskError):
    """The queue in memory holds as many messages as it may."""


class TimeLimitExceeded(TaskError):
    """The task took longer than its ``time_limit``."""


class WorkerLost(TaskError):
    """The message came back from a worker again and again: most likely the task kills the process."""


class Control(TaskError):
    """Base of what a task raises to say how it shall go on."""


class Retry(Control):
    """The task shall run again; raised by ``self.retry()``.

    :ivar delay: seconds until then.
    """

    def __init__(
        self,
        reason: str,
        delay: float,
        *,
        args: Any = None,
        kwargs: Any = None,
        priority: int | None = None,
        queue: str | None = None,
    ) -> None:
        super().__init__(reason)
        self.delay = delay
        self.new_args = args
        self.new_kwargs = kwargs
        self.priority = priority
        self.queue = queue


class Ignore(Control):
    """The task is over, and its end is nobody's business."""


class Reject(Control):
    """The task shall go to the dead letters, or with *requeue* back into its queue."""

    def __init__(self, reason: str = "", requeue: bool = False) -> None:
        super().__init__(reason)
        self.requeue = requeue
