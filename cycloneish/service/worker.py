"""The command ``cycloneish worker``: runs the tasks of a program until a signal ends it.

The order is the one of the web's: the factory, the service that the tasks need, then the worker; and
backwards when it stops, so that the last task still has its database.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Generator
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.python import usage
from twisted.python.failure import Failure

from cycloneish.coroutines import as_deferred
from cycloneish.service import logs
from cycloneish.service.loading import AppNotFound, import_problem, load_object
from cycloneish.service.options import CommandLine
from cycloneish.service.reactors import install_reactor
from cycloneish.service.web import START_TIMEOUT, start_app_service
from cycloneish.tasks import Tasks, Worker

__all__ = ["WorkerOptions", "WorkerService", "work"]

log = logging.getLogger("cycloneish.tasks")


class WorkerOptions(CommandLine):
    """Run background tasks."""

    synopsis = "Usage: cycloneish worker --app package.module:name [options]"
    longdesc = (
        "Runs the tasks of a program until it is told to end: then it finishes those that run, and gives the "
        "others back."
    )
    optParameters = [
        ["app", None, None, "The Tasks, an application with one, or a function that makes either"],
        ["amqp", None, None, "The broker, in place of the one that the program names: amqp://…"],
        ["concurrency", "c", 10, "Tasks that run at a time", int],
        ["queues", "q", None, "Which queues, with commas between; by default the one of the Tasks"],
        ["stop-timeout", None, 30.0, "Seconds to wait for running tasks when it is told to end", float],
        ["reactor", "r", None, "Which reactor to run on: asyncio, epoll, poll, select, …"],
    ]

    def postOptions(self) -> None:
        if self["app"] is None or ":" not in self["app"]:
            raise usage.UsageError("whose tasks? Write --app package.module:name, where name is a Tasks")
        if self["concurrency"] < 1:
            raise usage.UsageError("--concurrency is a number of tasks, 1 or more")

    @property
    def queues(self) -> list[str] | None:
        """The names of the queues, or None for the default."""
        return [name.strip() for name in self["queues"].split(",")] if self["queues"] else None


class WorkerService(Service):
    """All that runs tasks: the `Tasks` with what they need, and a worker.

    :param source: a `Tasks`, an application with one, or a function that makes either and may be
        asynchronous.
    :param amqp: the URL of a broker, in place of the one that the `Tasks` has.
    :param options: those of :class:`~cycloneish.tasks.Worker`.
    """

    def __init__(self, source: Any, *, amqp: str | None = None, **options: Any) -> None:
        self.source = source
        self.amqp = amqp
        self.options = options
        self.tasks: Tasks | None = None
        self.worker: Worker | None = None
        #: Fires with None when the worker takes tasks, or fails with the reason why it does not.
        self.started: Deferred[None] = Deferred()
        self._needed: Any = None
        self._starting: Deferred[None] | None = None

    def startService(self) -> None:
        """Start; :attr:`started` tells how it went."""
        super().startService()  # type: ignore[no-untyped-call]
        starting = self._starting = self._start()
        starting.addErrback(self._clean_up_after)
        starting.addBoth(self.started.callback)

    @inlineCallbacks
    def _start(self) -> Generator[Deferred[Any], Any, None]:
        from twisted.internet import reactor

        found = self.source
        if not isinstance(found, Tasks) and callable(found) and _tasks_in(found) is None:
            found = yield as_deferred(found()).addTimeout(START_TIMEOUT, reactor)
        tasks = self.tasks = _tasks_in(found)
        if tasks is None:
            raise TypeError(f"{found!r} is no Tasks, and has no Tasks as its attribute or setting 'tasks'")
        if self.amqp is not None:
            tasks.use(self.amqp)
        if tasks.service is not None:
            self._needed = tasks.service
            yield start_app_service(tasks.service).addTimeout(START_TIMEOUT, reactor)
        tasks.startService()
        self.worker = Worker(tasks, **self.options)
        self.worker.startService()
        yield self.worker.when_ready()

    def _clean_up_after(self, failure: Failure) -> Deferred[Failure]:
        return self._release().addCallback(lambda _: failure)

    def stopService(self) -> Deferred[None]:
        """Finish the tasks that run, give the others back, let go of everything."""
        super().stopService()  # type: ignore[no-untyped-call]
        starting = self._starting
        if starting is None:
            return self._release()
        ended: Deferred[None] = Deferred()
        starting.addBoth(ended.callback)
        if not starting.called:
            starting.cancel()
        return ended.addCallback(lambda _: self._release())

    @inlineCallbacks
    def _release(self) -> Generator[Deferred[Any], Any, None]:
        worker, self.worker = self.worker, None
        tasks, self.tasks = self.tasks, None
        needed, self._needed = self._needed, None
        for service in (worker, tasks, needed):
            if service is not None:
                try:
                    yield as_deferred(service.stopService())
                except Exception:
                    log.exception("failed while stopping %r", service)


def _tasks_in(found: Any) -> Tasks | None:
    if isinstance(found, Tasks):
        return found
    settings = getattr(found, "settings", None)
    inside = getattr(found, "tasks", None) or (settings.get("tasks") if isinstance(settings, dict) else None)
    return inside if isinstance(inside, Tasks) else None


def work(options: WorkerOptions) -> int:
    """Run tasks until a signal ends it; gives the exit status."""
    if not install_reactor(options["reactor"]):
        return 2
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)], redirectStandardIO=False)
    logs.set_up(requests=False)
    try:
        source = load_object(options["app"])
    except AppNotFound as error:
        print(f"cycloneish: {error}", file=sys.stderr)
        return 1
    except Exception as error:
        sys.stderr.write(import_problem(error))
        print(f"cycloneish: {options['app']} could not be imported, see above", file=sys.stderr)
        return 1
    service = WorkerService(
        source,
        amqp=options["amqp"],
        queues=options.queues,
        concurrency=options["concurrency"],
        stop_timeout=options["stop-timeout"],
    )

    from twisted.internet import reactor

    status = 0

    def failed(failure: Failure) -> None:
        nonlocal status
        if not service.running:
            return  # stopped by hand while it started
        status = 1
        log.critical("the tasks of %s cannot be run", options["app"], exc_info=failure.value)
        reactor.callWhenRunning(reactor.stop)

    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    service.started.addErrback(failed)
    reactor.callWhenRunning(service.startService)
    reactor.run()
    return status
