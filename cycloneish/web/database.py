"""`self.db`: one database session for a request, made when it is first asked for.

The setting `database` has whatever makes sessions, such as a `cycloneish.db.Database`; this file knows no
more of it than `session()`, and of a session no more than `close()`, so that no database code is loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, maybeDeferred

from cycloneish.log import app_log

if TYPE_CHECKING:
    from cycloneish.web.handler import RequestHandler

__all__ = ["HandlerSession", "give_back"]


class HandlerSession:
    """The attribute `db` of handlers.

    It has no `__set__`, so that a class or a handler that has a `db` of its own keeps it.
    """

    def __get__(self, handler: RequestHandler | None, owner: type[RequestHandler]) -> Any:
        if handler is None:
            return self
        if handler._concluded and handler._running is None:
            raise RuntimeError("the request is over, and its database session with it")
        database: Any = handler.application.settings.get("database")
        if not hasattr(database, "session"):
            raise AttributeError(
                f"{owner.__name__} has no attribute 'db': give the application a database, as in "
                "Application(handlers, database=cycloneish.db.Database(url))"
            )
        session = handler._session = handler.__dict__["db"] = database.session()
        return session


def give_back(handler: RequestHandler) -> Deferred[Any] | None:
    """Close the session of *handler*, if it has one; what was not committed is rolled back."""
    session = handler._session
    if session is None:
        return None
    handler._session = None
    handler.__dict__.pop("db", None)

    def failed(failure: Any) -> None:
        app_log.error("The database session could not be closed", exc_info=failure.value)

    return maybeDeferred(session.close).addErrback(failed)
