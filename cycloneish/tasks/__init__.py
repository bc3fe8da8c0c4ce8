"""Background tasks: functions that run later, in a worker, and survive its death::

    tasks = Tasks("amqp://localhost")

    @tasks.task(autoretry_for=(OSError,), max_retries=5)
    def thumbnail(number, size=200):
        ...

    await thumbnail.delay(7)                   # in a handler

    cycloneish worker --app shop.jobs:tasks    # in another process

The names are Celery's, and so is the form of the messages. This package loads no broker's library before a
`Tasks` is made that needs it.
"""

from __future__ import annotations

from .core import Receipt, Tasks
from .errors import (
    Ignore,
    MalformedMessage,
    NotRegistered,
    QueueFull,
    Reject,
    Retry,
    TaskError,
    TimeLimitExceeded,
    WorkerLost,
)
from .message import TaskMessage
from .task import Call, Task, TaskOptions, task
from .worker import Worker, WorkerStats

__all__ = [
    "Call",
    "Ignore",
    "MalformedMessage",
    "NotRegistered",
    "QueueFull",
    "Receipt",
    "Reject",
    "Retry",
    "Task",
    "TaskError",
    "TaskMessage",
    "TaskOptions",
    "Tasks",
    "TimeLimitExceeded",
    "Worker",
    "WorkerLost",
    "WorkerStats",
    "task",
]
