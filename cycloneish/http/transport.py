"""How the engine writes, and what it knows of Twisted's transports beyond their interfaces.

``transport.write`` asks the reactor to watch the socket and sends when the reactor says so: two system
calls and several layers of Python for a response that the kernel takes at once.  Sending at once, on the
other hand, wakes the client for each response.  So small responses wait in an :class:`Outbox` until the
reactor has handed out all that it has read in this turn, and are then sent one after the other, straight to
the socket.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.interfaces import ISSLTransport

__all__ = [
    "Outbox",
    "TCPWriter",
    "Writer",
    "can_half_close",
    "hang_up",
    "is_tcp_server",
    "send_now",
    "unsent",
    "writer_for",
]

#: Bytes of one connection that may wait for the end of the turn; more are sent at once, so that the
#: transport's back-pressure sees them.
_MAX_WAITING = 16384

#: More pieces than this are sent as one.
_MAX_PIECES = 16


class Outbox:
    """The connections of one server that have something to send.

    As a context manager it sends at the end what was added within.

    :param reactor: gives ``callLater``.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._writers: list[Writer] = []
        self._entered = False

    def add(self, writer: Writer) -> None:
        """Flush *writer* before the reactor waits again."""
        if not self._writers and not self._entered:
            self._reactor.callLater(0, self._flush)
        self._writers.append(writer)

    def __enter__(self) -> None:
        self._entered = True

    def __exit__(self, *exc_info: object) -> None:
        self._entered = False
        if self._writers:
            self._flush()

    def _flush(self) -> None:
        writers, self._writers = self._writers, []
        for writer in writers:
            writer.flush()


class Writer:
    """Writes to any transport, as the transport does it.

    :param transport: the transport of one connection.
    """

    #: The socket is known to be dead, and ``connectionLost`` on its way.
    broken = False

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def write(self, data: bytes) -> None:
        """Write *data*, now or at the end of the turn."""
        self._transport.write(data)

    def write_pieces(self, pieces: list[bytes]) -> None:
        """Write several pieces as one."""
        self._transport.write(b"".join(pieces))

    def flush(self) -> None:
        """Hand to the transport what waits here."""


class TCPWriter(Writer):
    """Writes to Twisted's own TCP transport: small pieces at the end of the turn, and straight to the socket.

    :param outbox: collects what is to be sent in this turn.
    """

    def __init__(self, transport: Any, outbox: Outbox) -> None:
        super().__init__(transport)
        self._outbox = outbox
        self._waiting: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        if self._waiting:
            self._waiting.append(data)
        elif len(data) > _MAX_WAITING:
            self._send(data)
            return
        else:
            self._outbox.add(self)
            self._waiting.append(data)
        self._size += len(data)
        if self._size > _MAX_WAITING:
            self.flush()

    def write_pieces(self, pieces: list[bytes]) -> None:
        size = sum(map(len, pieces))
        if not self._waiting and size <= _MAX_WAITING:
            self._outbox.add(self)
        self._waiting += pieces
        self._size += size
        if self._size > _MAX_WAITING:
            self.flush()

    def flush(self) -> None:
        waiting = self._waiting
        if not waiting:
            return
        if self._size > _MAX_WAITING and 1 < len(waiting) < _MAX_PIECES:
            self._flush_pieces()
            return
        self._waiting = []
        self._size = 0
        self._send(waiting[0] if len(waiting) == 1 else b"".join(waiting))

    def _send(self, data: bytes) -> None:
        """Hand *data* to the kernel, and to the transport what the kernel does not take."""
        transport = self._transport
        if (
            transport._tempDataBuffer
            or transport.dataBuffer
            or transport.disconnecting
            or not transport.connected
        ):
            # Never ahead of bytes that wait, and never after the connection was given up.
            transport.write(data)
            return
        try:
            sent = transport.socket.send(data)
        except BlockingIOError:  # the kernel's buffer is full
            sent = 0
        except OSError:  # the peer is gone, which the transport finds out again and reports
            sent = 0
            self.broken = True
        if sent != len(data):
            transport.write(data[sent:])

    def _flush_pieces(self) -> None:
        """As `flush`, without copying what is large into one."""
        waiting, size = self._waiting, self._size
        self._waiting = []
        self._size = 0
        transport = self._transport
        sent = 0
        if not (
            transport._tempDataBuffer
            or transport.dataBuffer
            or transport.disconnecting
            or not transport.connected
        ):
            try:
                sent = transport.socket.sendmsg(waiting)
            except BlockingIOError:
                pass
            except OSError:
                self.broken = True
        if sent != size:
            rest = []
            for piece in waiting:
                if sent < len(piece):
                    rest.append(piece[sent:] if sent > 0 else piece)
                sent -= len(piece)
            # In one call, so that the transport says that it is full when it has everything.
            transport.writeSequence(rest)


def is_tcp_server(transport: Any) -> bool:
    """Whether *transport* is Twisted's own TCP server transport.

    TLS, Unix sockets, test transports and whatever wraps a transport are not.
    """
    # Not imported: it loads OpenSSL where that is installed, and whoever has such a transport has it loaded.
    tcp = sys.modules.get("twisted.internet.tcp")
    return tcp is not None and type(transport) is tcp.Server


def writer_for(transport: Any, outbox: Outbox) -> Writer:
    """What writes to *transport*: a :class:`TCPWriter` only to what is known well enough for it."""
    if is_tcp_server(transport) and hasattr(transport, "_tempDataBuffer"):
        return TCPWriter(transport, outbox)
    return Writer(transport)


def send_now(transport: Any, data: bytes) -> None:
    """Write *data* to a client's transport, straight to the socket where nothing waits there already.

    Twisted's TCP client is known well enough for that; every other transport is written to in the ordinary
    way.
    """
    tcp = sys.modules.get("twisted.internet.tcp")
    if (
        tcp is None
        or type(transport) is not tcp.Client
        or transport._tempDataBuffer
        or transport.dataBuffer
        or transport.disconnecting
        or not transport.connected
    ):
        transport.write(data)
        return
    try:
        sent = transport.socket.send(data)
    except OSError:  # full, or gone, which the transport finds out itself
        sent = 0
    if sent != len(data):
        transport.write(data[sent:])


def unsent(transport: Any) -> int:
    """Bytes that *transport* holds because the peer does not take them; 0 where it cannot say.

    A TLS transport answers for the TCP transport under it.
    """
    try:
        return len(transport.dataBuffer) - transport.offset + transport._tempDataLen  # type: ignore[no-any-return]
    except AttributeError:
        under = getattr(transport, "transport", None)
        return 0 if under is None else unsent(under)


def can_half_close(transport: Any) -> bool:
    """Whether *transport* can shut its side and still read.

    TLS cannot; Twisted's TLS transport would pass the call to the TCP transport below, and cut off what
    has not been encrypted yet.
    """
    return hasattr(transport, "loseWriteConnection") and not ISSLTransport.providedBy(transport)


def hang_up(transport: Any) -> None:
    """Close without waiting for the peer to close as well; what the kernel holds is still delivered."""
    getattr(transport, "transport", transport).loseConnection()
