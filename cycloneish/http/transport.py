"""What the engine knows of Twisted's transports beyond their interfaces.

``transport.write`` buffers, asks the reactor to watch the socket and sends in the next turn: two system
calls and several layers of Python for a response that the kernel would have taken at once.
:func:`writer_for` gives the engine a ``write`` that first tries to send, and leaves to the transport
what the kernel did not take.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import ISSLTransport

__all__ = ["can_half_close", "hang_up", "unsent", "writer_for"]


def writer_for(transport: Any) -> Callable[[bytes], None]:
    """The fastest correct way to write to *transport*.

    :param transport: any transport.  Only Twisted's own TCP server transport is written to directly;
        TLS, Unix sockets, test transports and whatever wraps a transport get ``transport.write``.
    """
    # Not imported: it loads OpenSSL where that is installed, and whoever has such a transport has it loaded.
    tcp = sys.modules.get("twisted.internet.tcp")
    if tcp is None or type(transport) is not tcp.Server or not hasattr(transport, "_tempDataBuffer"):
        return transport.write  # type: ignore[no-any-return]

    write: Callable[[bytes], None] = transport.write
    send: Callable[[bytes], int] = transport.socket.send

    def write_now(data: bytes) -> None:
        # Never ahead of bytes that wait, and never after the connection was given up.
        if (
            transport._tempDataBuffer
            or transport.dataBuffer
            or transport.disconnecting
            or not transport.connected
        ):
            write(data)
            return
        try:
            sent = send(data)
        except OSError:  # the kernel's buffer is full; or an error, which the transport finds again
            sent = 0
        if sent != len(data):
            write(data[sent:])

    return write_now


def unsent(transport: Any) -> int:
    """Bytes that *transport* holds because the peer does not take them; 0 where it cannot say.

    A TLS transport answers for the TCP transport under it.
    """
    try:
        return len(transport.dataBuffer) - transport.offset + transport._tempDataLen  # type: ignore[no-any-return]
    except AttributeError:
        return 0


def can_half_close(transport: Any) -> bool:
    """Whether *transport* can shut its side and still read.

    TLS cannot; Twisted's TLS transport would pass the call to the TCP transport below, and cut off what
    has not been encrypted yet.
    """
    return hasattr(transport, "loseWriteConnection") and not ISSLTransport.providedBy(transport)


def hang_up(transport: Any) -> None:
    """Close without waiting for the peer to close as well; what the kernel holds is still delivered."""
    getattr(transport, "transport", transport).loseConnection()
