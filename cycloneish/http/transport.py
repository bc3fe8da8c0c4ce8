"""Writing to Twisted's TCP transport without a turn of the reactor.

``transport.write`` buffers, asks the reactor to watch the socket and sends in the next turn: two system
calls and several layers of Python for a response that the kernel would have taken at once.
:func:`writer_for` gives the engine a ``write`` that first tries to send, and leaves to the transport
what the kernel did not take.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

__all__ = ["writer_for"]


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
    send: Callable[[bytes], object] = transport.writeSomeData

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
        sent = send(data)
        if not isinstance(sent, int):  # an error, which the transport finds again and reports
            write(data)
        elif sent != len(data):
            write(memoryview(data)[sent:].tobytes())

    return write_now
