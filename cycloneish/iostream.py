"""Tornado's stream, and its names for what can go wrong with a connection.

:class:`StreamClosedError` is raised by a Deferred of ``flush()``, ``write()`` or ``write_message()`` that is
waited for after the peer left.  Code that streams a response may catch it; the web layer takes it for a quiet
end.  :class:`UnsatisfiableReadError` comes from the HTTP client.
"""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Callable
from typing import Any, Self

from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.python.failure import Failure

from cycloneish.awaiting import AwaitableDeferred

__all__ = ["IOStream", "StreamBufferFullError", "StreamClosedError", "UnsatisfiableReadError"]

#: Bytes that wait to be read before nothing more is taken from the network.
READ_AHEAD = 64 * 1024


class StreamClosedError(OSError):
    """The connection closed before the bytes were on their way.

    :param real_error: what closed it, where that is known.

    Counterpart: ``tornado.iostream.StreamClosedError``.
    """

    def __init__(self, real_error: BaseException | None = None) -> None:
        super().__init__("Stream is closed")
        self.real_error = real_error


class UnsatisfiableReadError(Exception):
    """What is looked for did not come within the limit: the head of a response is larger than allowed.

    Counterpart: ``tornado.iostream.UnsatisfiableReadError``.
    """


class StreamBufferFullError(Exception):
    """More came than the stream may keep while nothing that is looked for was in it.

    Counterpart: ``tornado.iostream.StreamBufferFullError``.
    """


class IOStream:
    """Tornado's stream over a Twisted transport, for programs that move in; new ones write a protocol.

    :param socket: a socket: one that is connected, or a new one for :meth:`connect`.  The stream closes it.
    :param max_buffer_size: bytes that may wait to be read.
    :param reactor: the reactor; the global one by default.

    Reads and writes give Deferreds, which asyncio's tasks can await too.  There is one read at a time.
    Nothing is read from the network while :data:`READ_AHEAD` bytes wait.  Counterpart:
    ``tornado.iostream.IOStream``, without ``start_tls`` and ``read_into``.
    """

    def __init__(
        self, socket: socket.socket, max_buffer_size: int = 104_857_600, *args: Any, reactor: Any = None
    ) -> None:
        self.socket = socket
        self.max_buffer_size = max_buffer_size
        #: What closed the stream, where that was an error.
        self.error: BaseException | None = None
        self._reactor = reactor
        self._transport: Any = None
        self._buffer = bytearray()
        self._find: Callable[[], int | None] | None = None
        self._read: AwaitableDeferred[bytes] | None = None
        self._unsent: list[AwaitableDeferred[None]] = []
        self._full = False
        self._closed = False
        self._close_callback: Callable[[], Any] | None = None
        try:
            socket.getpeername()
        except OSError:
            return  # to be connected
        socket.setblocking(False)
        self._get_reactor().adoptStreamConnection(socket.fileno(), socket.family, _Factory(self))
        socket.close()  # Twisted has a handle of its own

    def _get_reactor(self) -> Any:
        if self._reactor is None:
            from twisted.internet import reactor

            self._reactor = reactor
        return self._reactor

    def connect(
        self, address: tuple[str, int], server_hostname: str | None = None
    ) -> AwaitableDeferred[Self]:
        """Connect to *address*; fires with the stream.

        :raises StreamClosedError: it could not be reached; ``real_error`` says why.
        """
        if server_hostname is not None:
            raise NotImplementedError(
                "TLS needs a Twisted endpoint: twisted.internet.endpoints.wrapClientTLS"
            )
        # Not needed by the web layer, which loads this file for its exceptions.
        from twisted.internet.endpoints import HostnameEndpoint

        self.socket.close()
        connected: AwaitableDeferred[Self] = AwaitableDeferred()

        def failed(failure: Failure) -> None:
            self._lost(failure)
            connected.errback(StreamClosedError(failure.value))

        endpoint = HostnameEndpoint(self._get_reactor(), *address[:2])
        endpoint.connect(_Factory(self)).addCallbacks(lambda _: connected.callback(self), failed)
        return connected

    # -- reading -----------------------------------------------------------------------------------

    def read_until(self, delimiter: bytes, max_bytes: int | None = None) -> AwaitableDeferred[bytes]:
        """Everything up to *delimiter* and the delimiter itself.

        :param max_bytes: where it has to be found; beyond, the stream is closed.
        :raises StreamClosedError: the stream was closed before; ``real_error`` may be an
            :exc:`UnsatisfiableReadError`.
        """
        return self._begin(lambda: self._after(self._buffer.find(delimiter), len(delimiter), max_bytes))

    def read_until_regex(self, regex: bytes, max_bytes: int | None = None) -> AwaitableDeferred[bytes]:
        """Everything up to a match of *regex* and the match itself; the rest is as in :meth:`read_until`."""
        pattern = re.compile(regex)

        def find() -> int | None:
            found = pattern.search(self._buffer)
            return self._after(found.start() if found else -1, len(found.group()) if found else 0, max_bytes)

        return self._begin(find)

    def read_bytes(self, num_bytes: int, partial: bool = False) -> AwaitableDeferred[bytes]:
        """*num_bytes* bytes, with *partial* as many of them as there are."""

        def find() -> int | None:
            there = len(self._buffer)
            return min(there, num_bytes) if there >= num_bytes or (partial and there) else None

        return self._begin(find)

    def read_until_close(self) -> AwaitableDeferred[bytes]:
        """Everything until the other side closes."""
        return self._begin(lambda: len(self._buffer) if self._closed else None)

    def _after(self, start: int, length: int, max_bytes: int | None) -> int | None:
        end = start + length if start >= 0 else None
        if max_bytes is not None and (len(self._buffer) if end is None else end) > max_bytes:
            raise UnsatisfiableReadError(f"delimiter not found within {max_bytes} bytes")
        return end

    def _begin(self, find: Callable[[], int | None]) -> AwaitableDeferred[bytes]:
        if self._read is not None:
            raise RuntimeError("there is one read at a time, and one is under way")
        self._find = find
        read = self._read = AwaitableDeferred(self._forget)
        self._look()
        return read

    def _forget(self, read: object) -> None:
        """The read was cancelled; what has come stays for the next."""
        self._read = self._find = None

    def _look(self) -> None:
        """Give the waiting read what it looks for, if that is there."""
        read, find = self._read, self._find
        if read is None or find is None:
            return
        try:
            end = find()
        except UnsatisfiableReadError as error:
            self._forget(read)
            self.close(error)
            read.errback(StreamClosedError(error))
            return
        if end is None:
            if self._closed:
                self._forget(read)
                read.errback(StreamClosedError(self.error))
            else:
                self._transport.resumeProducing()
            return
        data = bytes(self._buffer[:end])
        del self._buffer[:end]
        self._forget(read)
        read.callback(data)

    def _received(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) > self.max_buffer_size:
            self.close(StreamBufferFullError("Reached maximum read buffer size"))
            return
        self._look()
        if self._read is None and len(self._buffer) >= READ_AHEAD and not self._closed:
            self._transport.pauseProducing()

    # -- writing -----------------------------------------------------------------------------------

    def write(self, data: bytes | memoryview) -> AwaitableDeferred[None]:
        """Send *data*; fires when the connection is ready for more.

        :raises StreamClosedError: the stream is closed.
        """
        self._check_closed()
        written: AwaitableDeferred[None] = AwaitableDeferred()
        self._transport.write(bytes(data))
        if self._full:
            self._unsent.append(written)
        else:
            written.callback(None)
        return written

    def pauseProducing(self) -> None:
        """Called by Twisted when the connection is full."""
        self._full = True

    def resumeProducing(self) -> None:
        """Called by Twisted when it is ready for more."""
        self._full = False
        self._settle(lambda written: written.callback(None))

    def stopProducing(self) -> None:
        """Called by Twisted when the connection ends."""

    def _settle(self, how: Callable[[AwaitableDeferred[None]], Any]) -> None:
        unsent, self._unsent = self._unsent, []
        for written in unsent:
            how(written)

    # -- closing -----------------------------------------------------------------------------------

    def close(self, exc_info: bool | BaseException | tuple[Any, ...] = False) -> None:
        """Close, once what was written is sent.

        :param exc_info: the error that is the reason; True for the one that is handled just now.
        """
        if exc_info is True:
            exc_info = sys.exc_info()
        error = exc_info[1] if isinstance(exc_info, tuple) else exc_info or None
        if self._closed:
            return
        if self._transport is not None:
            self._transport.loseConnection()
        else:
            self.socket.close()
        self._lost(Failure(error) if error is not None else None)

    def closed(self) -> bool:
        """Whether it is closed, by either side."""
        return self._closed

    def reading(self) -> bool:
        """Whether a read is under way."""
        return self._read is not None

    def writing(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self._unsent)

    def set_close_callback(self, callback: Callable[[], Any] | None) -> None:
        """Have *callback* called once when the stream is closed, at once where it is."""
        self._close_callback = callback
        if self._closed:
            self._call_back()

    def set_nodelay(self, value: bool) -> None:
        """Send small pieces at once."""
        if self._transport is not None and not self._closed:
            self._transport.setTcpNoDelay(value)

    def _check_closed(self) -> None:
        if self._closed or self._transport is None:
            raise StreamClosedError(self.error)

    def _made(self, transport: Any) -> None:
        self._transport = transport
        transport.registerProducer(self, True)

    def _lost(self, failure: Failure | None) -> None:
        if self._closed:
            return
        self._closed = True
        if failure is not None and not failure.check(ConnectionDone):
            self.error = failure.value
        self._look()
        self._settle(lambda written: written.errback(StreamClosedError(self.error)))
        self._call_back()

    def _call_back(self) -> None:
        callback, self._close_callback = self._close_callback, None
        if callback is not None:
            callback()


class _Protocol(Protocol):
    """Between the transport and the stream."""

    def __init__(self, stream: IOStream) -> None:
        self._stream = stream

    def connectionMade(self) -> None:
        self._stream._made(self.transport)

    def dataReceived(self, data: bytes) -> None:
        self._stream._received(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._stream._lost(reason)


class _Factory(ClientFactory):
    """Makes the one protocol of a stream."""

    noisy = False

    def __init__(self, stream: IOStream) -> None:
        self._stream = stream

    def buildProtocol(self, addr: Any) -> _Protocol:
        return _Protocol(self._stream)
