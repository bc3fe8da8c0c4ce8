"""For tests of programs with tasks: run them at once, or run those that are queued until there are none.

::

    with eager(tasks):
        receipt = await thumbnail.delay(7)
        self.assertEqual(receipt.result, …)

    await order.delay(7)
    stats = await run_queued(tasks)
    self.assertEqual(stats.succeeded, 1)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet.defer import Deferred

from .core import Tasks
from .memory import MemoryTransport
from .message import TaskMessage
from .running import run_eagerly
from .task import make_current
from .worker import Worker, WorkerStats

__all__ = ["eager", "run_queued"]


@contextmanager
def eager(tasks: Tasks | None = None) -> Iterator[Tasks]:
    """While it lasts, sending a task runs it: here, without threads, queues or delays.

    The Deferred of ``delay()`` fires when the task has ended, with its result in the receipt, and fails as
    the task did. Tries that would come later are made at once; ``eta`` is not waited for. Arguments and
    result are what they would be after having travelled.

    :param tasks: whose tasks; by default those of ``@task``, for which it makes a `Tasks` in memory.
    """
    chosen = tasks or Tasks("memory:")

    def run(message: TaskMessage) -> Deferred[Any]:
        reactor: Any = chosen.reactor
        if reactor is None:
            from twisted.internet import reactor
        return run_eagerly(chosen.get(message.task), message, reactor)

    before, chosen.eagerly = chosen.eagerly, run
    make_current(chosen)
    try:
        yield chosen
    finally:
        chosen.eagerly = before
        if tasks is None:
            make_current(chosen, False)


async def run_queued(tasks: Tasks, *, timeout: float = 30.0, **options: Any) -> WorkerStats:
    """Run what is queued in memory, and what that sends, until nothing is left; delays are not waited for.

    :param tasks: a `Tasks` over ``memory:``, started.
    :param timeout: seconds.
    :param options: those of :class:`~cycloneish.tasks.Worker`.
    :returns: what the worker has done.
    """
    transport = tasks.transport
    if not isinstance(transport, MemoryTransport):
        raise TypeError("only tasks in memory can be run to their end")
    worker = Worker(tasks, **options)
    worker.hurries = True
    worker.startService()
    hurrying, transport.hurries = transport.hurries, True
    try:
        await worker.when_ready()
        transport.hurry()
        await transport.when_idle().addTimeout(timeout, tasks.reactor)
    finally:
        transport.hurries = hurrying
        await worker.stopService()
    return worker.stats
