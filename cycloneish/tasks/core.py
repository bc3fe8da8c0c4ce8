"""The sender of tasks: a service with a connection to the queues, and the names of the tasks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar, cast, overload

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, fail, maybeDeferred, succeed
from twisted.internet.threads import blockingCallFromThread
from twisted.python import threadable
from twisted.python.failure import Failure

from .errors import TaskError
from .message import HIGHEST_PRIORITY, TaskMessage, as_time, new_id
from .opening import open_transport
from .task import Task, lookup, make_current, register

if TYPE_CHECKING:
    from typing import Unpack

    from .task import TaskOptions

__all__ = ["Receipt", "Tasks"]

P = ParamSpec("P")
R = TypeVar("R")

#: The message of the task that runs here, which is the parent of those that it sends.
running: ContextVar[TaskMessage | None] = ContextVar("cycloneish_task", default=None)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What sending a task gives.

    :ivar id: the task's id.
    :ivar task: the task's name.
    :ivar queue: where it was sent.
    :ivar result: what it returned, in tests that run tasks at once (:func:`cycloneish.tasks.testing.eager`).
    """

    id: str
    task: str
    queue: str
    result: Any = None


class Tasks(Service):
    """Sends tasks; a :class:`~cycloneish.tasks.Worker` of the same `Tasks` runs them, here or elsewhere.

    It is a service: give it a parent that is started, or call ``startService()``, before a task is sent.

    :param where: ``"memory:"`` for one process; ``amqp://…`` or ``amqps://…``, or an ``AMQP`` service that
        the program has anyway, which is then neither started nor stopped by this one.
    :param queue: where tasks are sent that say nothing else.
    :param include: names of modules with tasks, imported when a worker starts.
    :param service: a service that the tasks need, such as a database pool: ``cycloneish worker`` starts it
        before it takes the first task, and stops it after the last one.
    :param show_arguments: have the arguments in the headers of messages, where tools of the broker show them;
        off, as they may be secrets.
    :param reactor: the reactor to use; the global one by default, looked up at the start.
    :param options: those of the transport.
    """

    name = "tasks"

    def __init__(
        self,
        where: Any = "memory:",
        *,
        queue: str = "tasks",
        include: Sequence[str] = (),
        service: Any = None,
        show_arguments: bool = False,
        reactor: Any = None,
        **options: Any,
    ) -> None:
        self.queue = queue
        self.include = list(include)
        self.service = service
        self.show_arguments = show_arguments
        self.transport = open_transport(where, options)
        #: Runs a message at once, in tests.
        self.eagerly: Callable[[TaskMessage], Deferred[Any]] | None = None
        self.reactor = reactor
        self._tasks: dict[str, Task[..., Any]] = {}
        self._starting: Deferred[None] | None = None
        self._ready = False
        self._broken: Failure | None = None
        self._ready_waiters: list[Deferred[Tasks]] = []
        #: What has to stop before the connection goes: workers put themselves here.
        self.users: list[Service] = []
        make_current(self)

    # -- the tasks -------------------------------------------------------------------------------

    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...
    @overload
    def task(
        self, /, *, bind: Literal[True], **options: Unpack[TaskOptions]
    ) -> Callable[[Callable[Concatenate[Any, P], R]], Task[P, R]]: ...
    @overload
    def task(
        self, /, *, bind: Literal[False] = False, **options: Unpack[TaskOptions]
    ) -> Callable[[Callable[P, R]], Task[P, R]]: ...
    def task(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        bind: bool = False,
        **options: Any,
    ) -> Any:
        """Make a function a task that this `Tasks` sends, whichever others there are; see `task`."""

        def decorate(function: Callable[..., Any]) -> Task[..., Any]:
            return register(self._tasks, Task(function, bind, self, cast("TaskOptions", options)))

        return decorate if function is None else decorate(function)

    def get(self, name: str) -> Task[..., Any]:
        """The task called *name*.

        :raises NotRegistered: when none is.
        """
        return lookup(name, self._tasks)

    def import_modules(self) -> None:
        """Import the modules of *include*."""
        for module in self.include:
            import_module(module)

    def use(self, where: Any, **options: Any) -> None:
        """Send to other queues from the next start on; for the parameters see the class.

        :raises RuntimeError: when it runs.
        """
        if self.running:
            raise RuntimeError("the sender of tasks is running; stop it before it goes elsewhere")
        self.transport = open_transport(where, options)

    # -- the service -----------------------------------------------------------------------------

    def startService(self) -> None:
        """Start connecting; see :meth:`when_ready`."""
        if self.running:
            return
        super().startService()  # type: ignore[no-untyped-call]
        if self.reactor is None:
            from twisted.internet import reactor

            self.reactor = reactor
        make_current(self)
        self._broken = None
        self._starting = self.transport.start(self.reactor)
        self._starting.addCallbacks(self._started, self._not_started)

    def _started(self, _: None) -> None:
        self._starting = None
        self._ready = True
        waiters, self._ready_waiters = self._ready_waiters, []
        for waiter in waiters:
            waiter.callback(self)

    def _not_started(self, failure: Failure) -> None:
        self._starting = None
        self._broken = failure if self.running else None
        waiters, self._ready_waiters = self._ready_waiters, []
        for waiter in waiters:
            waiter.errback(failure if self.running else TaskError("the sender of tasks is stopped"))

    def when_ready(self) -> Deferred[Tasks]:
        """Fires with the `Tasks` when its connection stands; fails where that will not come to be."""
        if self._ready:
            return succeed(self)
        if self._broken is not None:
            return fail(self._broken)
        waiter: Deferred[Tasks] = Deferred(lambda deferred: self._ready_waiters.remove(deferred))
        self._ready_waiters.append(waiter)
        return waiter

    def stopService(self) -> Deferred[None]:
        """Stop the workers, and let the connection go after their last task."""
        if not self.running:
            return succeed(None)
        if self.users:
            # Their last tasks may send others, so until then it all goes on.
            stopping = DeferredList([maybeDeferred(user.stopService) for user in list(self.users)])
            return stopping.addCallback(lambda _: self._stop())
        return self._stop()

    def _stop(self) -> Deferred[None]:
        if not self.running:
            return succeed(None)
        super().stopService()  # type: ignore[no-untyped-call]
        make_current(self, False)
        self._ready = False
        starting, self._starting = self._starting, None
        if starting is not None:
            starting.cancel()
        return self.transport.stop()

    # -- sending ---------------------------------------------------------------------------------

    def send(
        self,
        name: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        eta: float | datetime | None = None,
        countdown: float | None = None,
        priority: int = 0,
        expires: float | datetime | None = None,
        queue: str | None = None,
        task_id: str | None = None,
        time_limit: float | None = None,
    ) -> Deferred[Receipt]:
        """Send a task by its name, which need not be known here. Celery calls this ``send_task``.

        It may be called from the thread of a task, and then waits until the message is safe; what it returns
        has fired.

        :param expires: when it is not worth starting any more: a `datetime`, or seconds from now.

        For the other parameters see :meth:`~cycloneish.tasks.Task.apply`.
        """
        try:
            if countdown is not None and eta is not None:
                raise TypeError("when: as eta or as countdown, not both")
            if not isinstance(priority, int) or not 0 <= priority <= HIGHEST_PRIORITY:
                raise ValueError(f"a priority is a number from 0 to {HIGHEST_PRIORITY}, not {priority!r}")
            now = time.time()
            parent = running.get()
            message = TaskMessage(
                task=name,
                id=task_id or new_id(),
                args=args,
                kwargs=kwargs or {},
                eta=_time(now + countdown if countdown is not None else eta, "eta"),
                expires=_time(now + expires if isinstance(expires, int | float) else expires, "expires"),
                root_id=parent.root_id or parent.id if parent is not None else None,
                parent_id=parent.id if parent is not None else None,
                time_limit=time_limit,
                priority=priority,
            )
            envelope = message.envelope(show_arguments=self.show_arguments)
        except (TypeError, ValueError):
            return fail()
        receipt = Receipt(message.id, name, queue or self.queue)
        if self.eagerly is not None:
            # Through the message, as otherwise more would be possible than later on.
            ran = self.eagerly(TaskMessage.parse(envelope))
            return ran.addCallback(lambda result: Receipt(receipt.id, name, receipt.queue, result))
        if not self.running:
            return fail(TaskError("the sender of tasks is not started: Tasks is a service"))
        delay = max(0.0, message.eta - now) if message.eta is not None else 0.0
        if threadable.ioThread is not None and not threadable.isInIOThread():
            try:
                blockingCallFromThread(self.reactor, self.transport.send, envelope, receipt.queue, delay)
            except Exception:
                return fail()
            return succeed(receipt)
        return self.transport.send(envelope, receipt.queue, delay).addCallback(lambda _: receipt)


def _time(value: float | datetime | None, name: str) -> float | None:
    return None if value is None else as_time(value, name)
