"""Functions that can be called later and elsewhere: the decorator, and what it makes of a function."""

from __future__ import annotations

import inspect
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Literal, ParamSpec, TypedDict, TypeVar, overload

from twisted.internet.defer import Deferred, fail

from .errors import NotRegistered, Retry, TaskError
from .message import TaskMessage, as_time

if TYPE_CHECKING:
    from typing import Unpack

    from .core import Receipt, Tasks

__all__ = ["Call", "Task", "TaskOptions", "lookup", "make_current", "task"]

P = ParamSpec("P")
R = TypeVar("R")

#: The tasks of `task`, by name; those of one `Tasks` are in that.
shared: dict[str, Task[..., Any]] = {}
_current: list[Tasks] = []


class TaskOptions(TypedDict, total=False):
    """The options of `task`, with the names that Celery has for them.

    * ``name``: by default the module's and the function's.
    * ``thread``: whether the function runs in a thread. By default a plain function does, while a coroutine
      function, ``@inlineCallbacks`` and what is annotated to return a Deferred run on the reactor.
    * ``queue``: where it is sent, by default where its `Tasks` says.
    * ``priority``: 0 to 9, higher ones first; 0 by default.
    * ``expires``: seconds after which it is not worth starting.
    * ``time_limit``: seconds that one run may take.
    * ``max_retries``: how often it is tried again at most, None for ever; 3 by default.
    * ``autoretry_for``, ``dont_autoretry_for``: exceptions after which it is tried again by itself, and
      those of them after which it is not.
    * ``default_retry_delay``: seconds before ``self.retry()`` runs it again, where it does not say; by
      default as ``retry_backoff`` has it.
    * ``retry_backoff``: seconds before the first time that it is tried again; doubled each time. True is 1.
    * ``retry_backoff_max``: seconds at most; 600 by default.
    * ``retry_jitter``: whether the time is a random one up to these seconds, so that what failed together
      does not come back together; True by default.
    """

    name: str
    thread: bool
    queue: str
    priority: int
    expires: float
    time_limit: float
    max_retries: int | None
    autoretry_for: tuple[type[BaseException], ...]
    dont_autoretry_for: tuple[type[BaseException], ...]
    default_retry_delay: float
    retry_backoff: float | bool
    retry_backoff_max: float
    retry_jitter: bool


_KNOWN_OPTIONS = frozenset(TaskOptions.__annotations__)


class Task(Generic[P, R]):
    """A function that can be called later: made by `task`.

    Called as it is, it runs here and now, like the function.

    :ivar name: what it is called in messages.
    :ivar function: the function.
    :ivar runs_in_thread: whether a worker runs it in a thread.
    """

    def __init__(
        self, function: Callable[..., R], bind: bool, tasks: Tasks | None, options: TaskOptions
    ) -> None:
        unknown = set(options) - _KNOWN_OPTIONS
        if unknown:
            raise TypeError(f"@task has no option {', '.join(sorted(unknown))}")
        self.function = function
        self.bind = bind
        self.name = options.get("name") or f"{function.__module__}.{function.__qualname__}"
        in_thread = options.get("thread")
        self.runs_in_thread = _is_blocking(function) if in_thread is None else in_thread
        self.queue = options.get("queue")
        self.priority = options.get("priority", 0)
        self.expires = options.get("expires")
        self.time_limit = options.get("time_limit")
        self.max_retries = options.get("max_retries", 3)
        self.autoretry_for = tuple(options.get("autoretry_for", ()))
        self.dont_autoretry_for = tuple(options.get("dont_autoretry_for", ()))
        self.default_retry_delay = options.get("default_retry_delay")
        self.retry_backoff = float(options.get("retry_backoff", 1.0))
        self.retry_backoff_max = options.get("retry_backoff_max", 600.0)
        self.retry_jitter = options.get("retry_jitter", True)
        self.__name__ = function.__name__
        self.__doc__ = function.__doc__
        self.__module__ = function.__module__
        self.__wrapped__ = function
        self._tasks = tasks
        self._signature = inspect.signature(function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if not self.bind:
            return self.function(*args, **kwargs)
        message = TaskMessage(self.name, "", args, kwargs)
        return self.function(Call(self, message), *args, **kwargs)

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> Deferred[Receipt]:
        """Have it run by a worker; :meth:`apply` with nothing but arguments."""
        return self.apply(args, kwargs)

    def apply(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        eta: float | datetime | None = None,
        countdown: float | None = None,
        priority: int | None = None,
        expires: float | datetime | None = None,
        queue: str | None = None,
        task_id: str | None = None,
    ) -> Deferred[Receipt]:
        """Have it run by a worker, with these arguments. Celery calls this ``apply_async``.

        :param eta: when: a `datetime` or seconds since 1970.
        :param countdown: in how many seconds; in place of *eta*.
        :param priority: 0 to 9.
        :param expires: when it is not worth starting any more: a `datetime`, or seconds from now.
        :param queue: where to send it.
        :param task_id: its id; a new one by default.
        :returns: a Deferred with a :class:`~cycloneish.tasks.Receipt` that fires when the message is safe:
            over AMQP, confirmed by the broker.
        :raises TypeError: (through the Deferred) for arguments that the function does not take, or that JSON
            cannot say.
        """
        kwargs = dict(kwargs or {})
        try:
            self._check(args, kwargs)
            tasks = self._tasks or current()
        except (TypeError, TaskError):
            return fail()
        return tasks.send(
            self.name,
            args,
            kwargs,
            eta=eta,
            countdown=countdown,
            priority=self.priority if priority is None else priority,
            expires=self.expires if expires is None else expires,
            queue=queue or self.queue,
            task_id=task_id,
            time_limit=self.time_limit,
        )

    #: The name that Celery has for it.
    apply_async = apply

    def backoff(self, retries: int) -> float:
        """Seconds to wait after *retries* vain repetitions."""
        delay = min(self.retry_backoff_max, math.ldexp(self.retry_backoff, min(retries, 64)))
        return random.uniform(0, delay) if self.retry_jitter else delay  # noqa: S311

    def retries_after(self, error: BaseException) -> bool:
        """Whether *error* is one after which it is tried again by itself."""
        return isinstance(error, self.autoretry_for) and not isinstance(error, self.dont_autoretry_for)

    def _check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        try:
            self._signature.bind(*([None] if self.bind else []), *args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}: {error}") from None

    def __repr__(self) -> str:
        return f"<Task {self.name}>"


class Call(Generic[P, R]):
    """One run of a task: the ``self`` of a function with ``@task(bind=True)``.

    :ivar task: the task.
    :ivar request: the message: ``self.request.id``, ``.retries``, ``.args``, ``.kwargs``, ``.eta``,
        ``.root_id``, ``.parent_id``.
    """

    def __init__(self, task: Task[P, R], request: TaskMessage) -> None:
        self.task = task
        self.name = task.name
        self.request = request
        self.max_retries = task.max_retries

    def retry(
        self,
        exc: BaseException | None = None,
        *,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        countdown: float | None = None,
        eta: float | datetime | None = None,
        max_retries: int | None = None,
        priority: int | None = None,
        queue: str | None = None,
    ) -> Retry:
        """Run the task again later, with the same arguments unless others are given.

        It raises, so nothing after it is run; ``raise self.retry(…)`` says so to the reader.

        :param exc: why; raised in place of ``Retry`` when it was tried too often.
        :param countdown: in how many seconds, or *eta*, when; by default as the task's options have it.
        :raises Retry: always, but when there is no try left: then *exc*, or a
            :exc:`~cycloneish.tasks.TaskError`.
        """
        most = self.max_retries if max_retries is None else max_retries
        if most is not None and self.request.retries >= most:
            if exc is not None:
                raise exc
            raise TaskError(f"{self.name} was tried {self.request.retries + 1} times, in vain")
        raise Retry(
            "" if exc is None else f"{type(exc).__name__}: {exc}",
            self.task_delay(countdown, eta),
            args=args,
            kwargs=kwargs,
            priority=priority,
            queue=queue,
        )

    def task_delay(self, countdown: float | None, eta: float | datetime | None) -> float:
        """Seconds to wait before the next run."""
        if eta is not None:
            return _seconds_until(eta)
        if countdown is not None:
            return float(countdown)
        if self.task.default_retry_delay is not None:
            return self.task.default_retry_delay
        return self.task.backoff(self.request.retries)

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> Deferred[Receipt]:
        """Send the task itself once more; see :meth:`Task.delay`."""
        return self.task.delay(*args, **kwargs)

    def apply(self, *args: Any, **options: Any) -> Deferred[Receipt]:
        """Send the task itself once more; see :meth:`Task.apply`."""
        return self.task.apply(*args, **options)


@overload
def task(function: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(
    *, bind: Literal[True], **options: Unpack[TaskOptions]
) -> Callable[[Callable[Concatenate[Any, P], R]], Task[P, R]]: ...
@overload
def task(
    *, bind: Literal[False] = False, **options: Unpack[TaskOptions]
) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def task(
    function: Callable[..., Any] | None = None, /, *, bind: bool = False, **options: Unpack[TaskOptions]
) -> Any:
    """Make a function a task, which any :class:`~cycloneish.tasks.Tasks` of the program may send and run::

        @task
        def thumbnail(number, size=200): ...

        @task(bind=True, autoretry_for=(IOError,), max_retries=5)
        async def fetch(self, url): ...

    :param bind: give the function a :class:`Call` as its first argument, ``self``.
    :param options: see :class:`TaskOptions`.
    """

    def decorate(function: Callable[..., Any]) -> Task[..., Any]:
        return register(shared, Task(function, bind, None, options))

    return decorate if function is None else decorate(function)


def register(registry: dict[str, Task[..., Any]], new: Task[..., Any]) -> Task[..., Any]:
    """Put *new* into *registry*.

    :raises ValueError: when another function has its name.
    """
    known = registry.get(new.name)
    if known is not None and _origin(known) != _origin(new):
        raise ValueError(f"two tasks are called {new.name}; give one of them another name=")
    registry[new.name] = new
    return new


def lookup(name: str, own: Mapping[str, Task[..., Any]]) -> Task[..., Any]:
    """The task called *name*.

    :raises NotRegistered: when there is none.
    """
    found = own.get(name) or shared.get(name)
    if found is None:
        raise NotRegistered(f"no task is called {name[:200]!r} here; is the module with it imported?")
    return found


def make_current(tasks: Tasks, yes: bool = True) -> None:
    """Have the tasks of `task` be sent by *tasks*, or no more."""
    if tasks in _current:
        _current.remove(tasks)
    if yes:
        _current.append(tasks)


def current() -> Tasks:
    """Who sends the tasks of `task`: the `Tasks` that was made or started last.

    :raises TaskError: when there is none.
    """
    if not _current:
        raise TaskError("nobody sends tasks here: make a Tasks(…) first")
    return _current[-1]


def _is_blocking(function: Callable[..., Any]) -> bool:
    inner = inspect.unwrap(function)
    if inspect.iscoroutinefunction(inner) or inspect.isgeneratorfunction(inner):
        return False
    returned = getattr(inner, "__annotations__", {}).get("return", "")
    name = returned if isinstance(returned, str) else getattr(returned, "__name__", "")
    return not name.split("[")[0].endswith(("Deferred", "Awaitable", "Coroutine"))


def _origin(known: Task[..., Any]) -> tuple[str, str]:
    """Where a task's function was written: a module that is imported anew defines it again."""
    code = getattr(inspect.unwrap(known.function), "__code__", None)
    return known.function.__qualname__, code.co_filename if code is not None else ""


def _seconds_until(eta: float | datetime) -> float:
    return max(0.0, as_time(eta, "eta") - time.time())
