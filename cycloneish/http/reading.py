"""Reads from all connections that have something in one turn of the reactor, and sends what they answer.

A reactor of Twisted watches each socket by itself and enters a log context for each read, which is a tenth
of what a small request costs. Here the connections are watched by an epoll of their own, and the reactor
watches that: one call, in which all that is readable is read and all that was answered is sent. It works on
every reactor that watches file descriptors; where the system has no epoll, nothing is changed.

:class:`~cycloneish.http.connection.ServerConnection` hands its transport over when it is made.
"""

from __future__ import annotations

import select
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableDescriptor, IReactorFDSet, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from cycloneish.http.transport import Outbox
from cycloneish.log import app_log

__all__ = ["Readers", "readers_for"]


@implementer(IReadDescriptor)
class Readers:
    """Connections that are read together; each has it in the place of its reactor.

    :param reactor: the one under them all.
    :param outbox: what they answer with.
    """

    def __init__(self, reactor: Any, outbox: Outbox) -> None:
        self._reactor = reactor
        self.outbox = outbox
        self._epoll = select.epoll()
        self._transports: dict[int, Any] = {}
        self._descriptors: dict[Any, int] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.transports!r}>"

    @property
    def transports(self) -> list[Any]:
        """The connections that are read from."""
        return list(self._descriptors)

    def adopt(self, transport: Any) -> None:
        """Have *transport*, which the reactor reads from, read with the others."""
        if transport.reactor is self._reactor:
            transport.stopReading()
            transport.reactor = self
            transport.startReading()

    # -- what a transport calls ----------------------------------------------------------------------

    def addReader(self, transport: Any) -> None:
        """Read from *transport* from now on."""
        if transport in self._descriptors:
            return
        descriptor = transport.fileno()
        self._epoll.register(descriptor, select.EPOLLIN)
        self._descriptors[transport] = descriptor
        self._transports[descriptor] = transport
        # Each time, as somebody may have called removeAll().
        self._reactor.addReader(self)

    def removeReader(self, transport: Any) -> None:
        """Read no more from *transport*, which may be known or not."""
        descriptor = self._descriptors.pop(transport, None)
        if descriptor is None:
            return
        if self._transports[descriptor] is transport:  # or the number was given again
            del self._transports[descriptor]
            try:
                self._epoll.unregister(descriptor)
            except OSError:  # closed before, and forgotten with that
                pass
        if not self._descriptors:
            self._reactor.removeReader(self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    # -- what the reactor calls ----------------------------------------------------------------------

    def fileno(self) -> int:
        """The descriptor of the epoll, which is readable when one of the connections is."""
        return self._epoll.fileno()

    def logPrefix(self) -> str:
        """What Twisted's log writes in front of a message."""
        return "HTTP"

    def doRead(self) -> None:
        """Read from each connection that has something, then send what they have answered."""
        with self.outbox:
            for descriptor, _ in self._epoll.poll(0):
                transport = self._transports.get(descriptor)
                if transport is None:  # gone with what was read just before
                    continue
                try:
                    reason = transport.doRead()
                except BaseException as error:  # sys.exit() too, as in a reactor: the other connections go on
                    app_log.error("Uncaught exception", exc_info=True)
                    reason = error
                if reason is not None:
                    self._lose(transport, Failure(reason))

    def connectionLost(self, reason: Failure) -> None:
        """The reactor gives up what it watches."""
        for transport in self.transports:
            self._lose(transport, reason)

    def _lose(self, transport: Any, reason: Failure) -> None:
        transport.stopReading()
        try:
            if reason.check(ConnectionDone) and IHalfCloseableDescriptor.providedBy(transport):
                transport.readConnectionLost(reason)
            else:
                transport.stopWriting()
                transport.connectionLost(reason)
        except BaseException:  # of a protocol
            app_log.error("Uncaught exception", exc_info=True)


def readers_for(reactor: Any, outbox: Outbox) -> Readers | None:
    """Readers on *reactor*; None where it watches no file descriptors, or the system has no epoll."""
    if hasattr(select, "epoll") and IReactorFDSet.providedBy(reactor):
        try:
            return Readers(reactor, outbox)
        except OSError:  # no descriptor is left for one; the reactor reads, as it would have
            pass
    return None
