"""Says which handler a Deferred came from that failed without anybody waiting for it.

Twisted logs such a failure when the Deferred is thrown away, with a traceback that may not show whose it was.
Here one line with the handler and its request is added to it. `cycloneish.web.dispatch` notes the handler of
each request; `cycloneish.web.application` switches the watching on.
"""

from __future__ import annotations

import weakref
from contextvars import ContextVar

from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from cycloneish.log import app_log
from cycloneish.web.handler import RequestHandler

__all__ = ["current_handler", "watch"]

current_handler: ContextVar[weakref.ref[RequestHandler] | None] = ContextVar("current_handler", default=None)
"""The handler of the request in whose context the code runs; weak, as a context may outlive the request."""


@implementer(ILogObserver)
class _Observer:
    """Sees every event of Twisted's log, and has something to say about one kind."""

    watching = False

    def __call__(self, event: LogEvent) -> None:
        if event.get("log_namespace") != "twisted.internet.defer" or "debugInfo" not in event:
            return
        failure = event.get("log_failure")
        handler = _handler_in(failure) if isinstance(failure, Failure) else None
        if handler is not None and isinstance(failure, Failure):
            app_log.error(
                "Nobody waited for a Deferred of %s, %s, which failed: %s",
                type(handler).__qualname__,
                handler._request_summary(),
                failure.getErrorMessage(),
            )


_observer = _Observer()


def watch() -> None:
    """Begin to look at Twisted's log; more than once makes no difference."""
    if not _observer.watching:
        _observer.watching = True
        globalLogPublisher.addObserver(_observer)


def _handler_in(failure: Failure) -> RequestHandler | None:
    """The handler whose method the failure came through, else that of the context."""
    traceback = failure.value.__traceback__ if failure.value is not None else None
    while traceback is not None:
        owner = traceback.tb_frame.f_locals.get("self")
        if isinstance(owner, RequestHandler):
            return owner
        traceback = traceback.tb_next
    reference = current_handler.get()
    return None if reference is None else reference()
