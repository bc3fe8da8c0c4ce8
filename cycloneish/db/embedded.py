"""``embedded:///DIR``: a private PostgreSQL server for a program, with no set-up and no system package.

:class:`EmbeddedServer` is what :class:`cycloneish.db.postgres.Pool` starts before it connects and stops
after its last statement.  Starting (a few seconds where the cluster must be made first) and stopping
run in threads, so the reactor goes on.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.threads import deferToThreadPool

from .cluster import Cluster

__all__ = ["EmbeddedServer"]


class EmbeddedServer:
    """A PostgreSQL server in *directory*, started and stopped without blocking the reactor.

    :param directory: where the data is kept; made when missing.
    :param settings: PostgreSQL parameters, such as ``{"max_connections": "50"}``.
    :param reactor: the reactor whose threads are used; the global one by default.

    A server that a killed program left behind is used again.  Several programs may share a directory.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        settings: dict[str, str] | None = None,
        reactor: Any = None,
    ) -> None:
        self.cluster = Cluster(directory, settings=settings)
        self._reactor = reactor
        self._lock: DeferredLock = DeferredLock()

    def start(self) -> Deferred[str]:
        """Make sure that the server runs; fires with the DSN for :class:`~cycloneish.db.postgres.Pool`.

        Fails with :exc:`~cycloneish.db.errors.EmbeddedServerError` or
        :exc:`~cycloneish.db.errors.MissingDependency`.
        """
        return self._lock.run(self._in_thread, self.cluster.start)

    def stop(self) -> Deferred[None]:
        """Stop the server; it goes on where another program uses it."""
        return self._lock.run(self._in_thread, self.cluster.stop)

    def _in_thread(self, function: Any) -> Deferred[Any]:
        if self._reactor is None:
            from twisted.internet import reactor

            self._reactor = reactor
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), function)
