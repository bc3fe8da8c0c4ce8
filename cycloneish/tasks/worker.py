"""The worker: a service that takes tasks out of queues and runs them, some at a time.

A message is acknowledged when its task has ended and all that follows from it (the next try, the dead letter)
is safe. So a task runs once at least: where a worker is lost in the middle, the message comes back, and
another worker runs the task from its beginning.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, replace
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, fail, gatherResults, succeed
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from .core import Tasks
from .errors import Ignore, MalformedMessage, NotRegistered, Reject, Retry, WorkerLost
from .message import Envelope, TaskMessage
from .running import as_dead_letter, next_try, run_task
from .task import Task
from .threads import TaskThreads
from .transport import Consumption, Delivery

__all__ = ["Worker", "WorkerStats"]

log = logging.getLogger("cycloneish.tasks")

#: A message that is due within these seconds is kept until then, and not sent back to wait.
HOLD = 0.3
#: Seconds that a message waits at most when it has come back from lost workers again and again.
LONGEST_PAUSE = 60.0
#: Seconds before a message that could not be settled goes back, as what was in the way may be so still.
GIVE_BACK_PAUSE = 1.0


@dataclass(slots=True)
class WorkerStats:
    """What a worker has done since it was made.

    :ivar running: tasks that run now.
    :ivar succeeded: runs that ended well.
    :ivar retried: runs after which the task was sent again, to run later.
    :ivar failed: tasks that failed for good, and are among the dead letters.
    :ivar refused: messages that went to the dead letters without having run: of no task that is known here,
        of no task at all, or come back too often.
    :ivar expired: tasks that were too late to be started.
    :ivar returned: messages given back when the worker stopped.
    """

    running: int = 0
    succeeded: int = 0
    retried: int = 0
    failed: int = 0
    refused: int = 0
    expired: int = 0
    returned: int = 0


class Worker(Service):
    """Runs the tasks of a :class:`~cycloneish.tasks.Tasks`.

    :param queues: which queues, the first ones first where the transport has an order; by default that of
        *tasks*.
    :param concurrency: tasks that run at a time, in threads and on the reactor together.
    :param prefetch: messages that it holds at a time, the running ones included; by default twice
        *concurrency*.
    :param stop_timeout: seconds that :meth:`stopService` waits for tasks that run; then it cancels them and
        gives their messages back.
    :param max_redeliveries: how often a message may come back from lost workers before it is taken for the
        reason, and goes to the dead letters.
    """

    name = "worker"

    def __init__(
        self,
        tasks: Tasks,
        *,
        queues: Sequence[str] | None = None,
        concurrency: int = 10,
        prefetch: int | None = None,
        stop_timeout: float = 30.0,
        max_redeliveries: int = 10,
    ) -> None:
        if concurrency < 1 or (prefetch is not None and prefetch < concurrency):
            raise ValueError("a worker runs one task at a time at least, and holds as many as it runs")
        self.tasks = tasks
        self.queues = list(queues) if queues is not None else [tasks.queue]
        self.concurrency = concurrency
        self.prefetch = prefetch or 2 * concurrency
        self.stop_timeout = stop_timeout
        self.max_redeliveries = max_redeliveries
        self.stats = WorkerStats()
        #: Whether tasks run before their time, in tests.
        self.hurries = False
        self._waiting: deque[Delivery] = deque()
        self._working: dict[Delivery, Deferred[None]] = {}
        self._consumption: Consumption | None = None
        self._starting: Deferred[Any] | None = None
        self._ready_waiters: list[Deferred[Worker]] = []
        self._broken: Failure | None = None
        self._threads: TaskThreads | None = None
        self._stopping = False
        self._going_on = False
        # Every task gets a copy of these: what ends a task may run in the variables of another.
        self._context: Context = copy_context()
        self._idle: Deferred[None] | None = None
        self._stop_waiters: list[Deferred[None]] | None = None

    # -- the service -----------------------------------------------------------------------------

    def startService(self) -> None:
        """Start to take tasks as soon as the connection stands; see :meth:`when_ready`."""
        if self.running:
            return
        super().startService()  # type: ignore[no-untyped-call]
        self._stopping = False
        self._broken = None
        self._context = copy_context()
        self.tasks.import_modules()
        self.tasks.users.append(self)
        self._starting = self.tasks.when_ready().addCallback(self._consume)
        self._starting.addCallbacks(self._consuming, self._not_consuming)

    def _consume(self, tasks: Tasks) -> Deferred[Consumption]:
        self._threads = TaskThreads(tasks.reactor, self.concurrency)
        self._threads.start()
        return tasks.transport.consume(self.queues, self.prefetch, self._received)

    def _consuming(self, consumption: Consumption) -> None:
        self._starting = None
        self._consumption = consumption
        log.info("the worker takes tasks from %s", ", ".join(self.queues))
        waiters, self._ready_waiters = self._ready_waiters, []
        for waiter in waiters:
            waiter.callback(self)

    def _not_consuming(self, failure: Failure) -> None:
        self._starting = None
        waiters, self._ready_waiters = self._ready_waiters, []
        if self.running:
            self._broken = failure
            log.error("the worker cannot take tasks: %s", failure.getErrorMessage())
        for waiter in waiters:
            waiter.errback(failure)

    def when_ready(self) -> Deferred[Worker]:
        """Fires with the worker when it takes tasks; fails where that will not come to be."""
        if self._consumption is not None:
            return succeed(self)
        if self._broken is not None:
            return fail(self._broken)
        waiter: Deferred[Worker] = Deferred(lambda deferred: self._ready_waiters.remove(deferred))
        self._ready_waiters.append(waiter)
        return waiter

    def stopService(self) -> Deferred[None]:
        """Take no more tasks, give back those not begun, and wait for those that run.

        :returns: a Deferred that fires when all that is done; it never fails.
        """
        if self._stop_waiters is not None:
            # Asked twice: by its parent, and by the `Tasks`.
            waiter: Deferred[None] = Deferred()
            self._stop_waiters.append(waiter)
            return waiter
        if not self.running:
            return succeed(None)
        super().stopService()  # type: ignore[no-untyped-call]
        self._stopping = True
        self._stop_waiters = []
        if self._starting is not None:
            self._starting.cancel()
        return Deferred.fromCoroutine(self._stop()).addBoth(self._has_stopped)

    def _has_stopped(self, result: Any) -> None:
        if isinstance(result, Failure):
            log.error("the worker did not stop in good order", exc_info=result.value)
        if self in self.tasks.users:
            self.tasks.users.remove(self)
        waiters, self._stop_waiters = self._stop_waiters, None
        for waiter in waiters or ():
            waiter.callback(None)

    async def _stop(self) -> None:
        consumption, self._consumption = self._consumption, None
        if consumption is not None:
            await consumption.cancel()
        waiting, self._waiting = self._waiting, deque()
        await gatherResults([self._give_back(delivery) for delivery in waiting])
        if self._working:
            log.info("the worker waits for %d tasks to end", len(self._working))
            idle: Deferred[None] = Deferred()
            self._idle = idle
            try:
                await idle.addTimeout(self.stop_timeout, self.tasks.reactor)
            except TimedOut:
                await self._cancel_all()
        if self._threads is not None:
            self._threads.stop()
            self._threads = None

    async def _cancel_all(self) -> None:
        working = list(self._working.items())
        log.warning("%d tasks have not ended in time; others shall run them again", len(working))
        # First of all, so that what follows from the cancellation leaves the messages alone.
        self._working.clear()
        for _delivery, work in working:
            work.cancel()
        await gatherResults([self._give_back(delivery) for delivery, _work in working])

    def _give_back(self, delivery: Delivery) -> Deferred[None]:
        self.stats.returned += 1
        return delivery.give_back().addErrback(self._not_settled)

    # -- messages --------------------------------------------------------------------------------

    def _received(self, delivery: Delivery) -> None:
        if self._stopping:
            self._give_back(delivery)
        elif len(self._working) < self.concurrency:
            self._begin(delivery)
        else:
            self._waiting.append(delivery)

    def _begin(self, delivery: Delivery) -> None:
        if delivery.is_lost:
            return
        # Known before it begins, as it may end at once.
        self._working[delivery] = Deferred()
        work = self._context.copy().run(Deferred.fromCoroutine, self._settle(delivery))
        self._working[delivery] = work
        self.stats.running = len(self._working)
        work.addErrback(self._not_settled)
        work.addBoth(self._ended, delivery)

    def _ended(self, _: object, delivery: Delivery) -> None:
        self._working.pop(delivery, None)
        if not self._going_on:
            # A task that ends at once comes here again from within: that must not become a deep recursion.
            self._going_on = True
            try:
                while self._waiting and len(self._working) < self.concurrency and not self._stopping:
                    self._begin(self._waiting.popleft())
            finally:
                self._going_on = False
        self.stats.running = len(self._working)
        if self._idle is not None and not self._working:
            idle, self._idle = self._idle, None
            if not idle.called:
                idle.callback(None)

    def _not_settled(self, failure: Failure) -> None:
        """The connection was lost, for instance: the broker has the message still, and delivers it again."""
        if not failure.check(CancelledError):
            log.warning("a message could not be settled, its task runs again: %s", failure.getErrorMessage())

    async def _settle(self, delivery: Delivery) -> None:
        try:
            await self._handle(delivery)
        except Exception:
            if delivery.is_lost or delivery not in self._working:
                return
            # The broker waits to hear about it, and the worker could not stop before.
            log.warning("a message could not be settled, and goes back", exc_info=True)
            await deferLater(self.tasks.reactor, GIVE_BACK_PAUSE)
            if delivery in self._working:
                await self._give_back(delivery)

    async def _handle(self, delivery: Delivery) -> None:
        envelope, queue = delivery.envelope, delivery.queue
        try:
            message = TaskMessage.parse(envelope)
            task = self.tasks.get(message.task)
        except (MalformedMessage, NotRegistered):
            await self._refuse(delivery, Failure(), None)
            return
        if delivery.redelivered:
            message = replace(message, redeliveries=message.redeliveries + 1)
            if message.redeliveries > self.max_redeliveries:
                text = f"it came back {message.redeliveries} times from workers that were lost"
                await self._refuse(delivery, Failure(WorkerLost(text)), message)
                return
            # It counts only when it is written down, before the task has its chance to kill this worker too.
            # And whatever kills its workers has to leave them time for other tasks.
            pause = min(LONGEST_PAUSE, 2.0 ** (message.redeliveries - 2))
            await self._resend(delivery, message, queue, 0.0 if message.redeliveries == 1 else pause)
            return
        now = time.time()
        if message.expires is not None and message.expires <= now:
            self.stats.expired += 1
            log.info("task %s[%s] was too late to be started", message.task, message.id)
            await delivery.ack()
            return
        wait = 0.0 if message.eta is None else message.eta - now
        if self.hurries:
            wait = 0.0
        if wait > HOLD:
            await self.tasks.transport.send(envelope, queue, wait)
            await delivery.ack()
            return
        if wait > 0:
            await deferLater(self.tasks.reactor, wait)
        await self._run(delivery, task, message)

    async def _resend(self, delivery: Delivery, message: TaskMessage, queue: str, delay: float) -> None:
        log.warning(
            "task %s[%s] came back, its worker was lost (%d)", message.task, message.id, message.redeliveries
        )
        await self.tasks.transport.send(self._envelope(message), queue, delay)
        await delivery.ack()

    def _envelope(self, message: TaskMessage) -> Envelope:
        return message.envelope(show_arguments=self.tasks.show_arguments)

    async def _run(self, delivery: Delivery, task: Task[..., Any], message: TaskMessage) -> None:
        began = time.monotonic()
        try:
            await run_task(task, message, self._threads, self.tasks.reactor)
        except CancelledError:
            if self._stopping and delivery not in self._working:
                return  # given back already
            await self._failed(delivery, task, message, Failure())
        except GeneratorExit:
            raise
        except BaseException:
            # SystemExit, too: it ends the task, and not the worker.
            await self._failed(delivery, task, message, Failure())
        else:
            self.stats.succeeded += 1
            log.info("task %s[%s] succeeded in %.3f s", message.task, message.id, time.monotonic() - began)
            await delivery.ack()

    async def _failed(
        self, delivery: Delivery, task: Task[..., Any], message: TaskMessage, failure: Failure
    ) -> None:
        if delivery not in self._working:
            return  # given back already
        error = failure.value
        if isinstance(error, Ignore):
            self.stats.succeeded += 1
            await delivery.ack()
            return
        if isinstance(error, Reject) and error.requeue:
            # Without a pause it would come straight back.
            error = Retry(str(error), 1.0)
            failure = Failure(error)
        again = next_try(task, message, failure)
        if again is not None:
            eta = time.time() + again.delay if again.delay > 0 else None
            try:
                envelope = self._envelope(replace(again.message, eta=eta))
            except Exception:
                # Arguments that JSON cannot say, or a time that is none.
                failure = Failure()
                error = failure.value
                again = None
        if again is None:
            self.stats.failed += 1
            log.error("task %s[%s] failed", message.task, message.id, exc_info=error)
            await self._bury(delivery, failure, message)
            return
        self.stats.retried += 1
        log.info(
            "task %s[%s] runs again in %.1f s (%d): %s",
            message.task, message.id, again.delay, again.message.retries, error,
        )  # fmt: skip
        await self.tasks.transport.send(envelope, again.queue or delivery.queue, again.delay)
        await delivery.ack()

    async def _refuse(self, delivery: Delivery, failure: Failure, message: TaskMessage | None) -> None:
        self.stats.refused += 1
        log.error("a message of %s is among the dead letters: %s", delivery.queue, failure.value)
        await self._bury(delivery, failure, message)

    async def _bury(self, delivery: Delivery, failure: Failure, message: TaskMessage | None) -> None:
        envelope = delivery.envelope if message is None else self._envelope(message)
        letter = as_dead_letter(envelope, delivery.queue, failure)
        await self.tasks.transport.bury(letter, delivery.queue)
        await delivery.ack()
