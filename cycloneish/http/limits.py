"""Every limit and time-out of the HTTP server, with its default, in one table.

:class:`~cycloneish.httpserver.HTTPServer` makes one :class:`Limits` from its arguments; the engines
read it and nothing else.  Sizes are bytes, times are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one server accepts from one connection.  Beyond a limit the answer is the status named."""

    max_header_size: int = 65536
    """Request line and header fields together; 431."""
    max_request_line: int = 65536
    """Request line alone; 414."""
    max_header_fields: int = 200
    """Number of header fields, and of trailer fields; 431 (400 for trailers)."""
    max_body_size: int = 104_857_600
    """Body, counted after decompression; 413.  An application setting, a class attribute or
    ``set_max_body_size()`` of a handler take its place for their requests."""
    max_chunk_line: int = 256
    """Size line of one chunk, extensions included; 400."""
    max_trailer_size: int = 8192
    """Trailer section of a chunked body; 400."""
    max_gzip_members: int = 100
    """Members in one gzip-encoded request body; 400."""
    chunk_size: int = 65536
    """Largest piece of a body that a handler is given at once."""
    header_timeout: float = 30.0
    """From the first byte of a request to the end of its header fields; 408."""
    idle_connection_timeout: float = 120.0
    """Between two requests on one connection; closed without an answer."""
    body_timeout: float | None = None
    """Whole body of one request, when set; 408."""
    body_grace: float = 60.0
    """Where ``body_timeout`` is not set: time that a body may take whatever its speed, and longest silence in
    one (found out after twice that time at the latest); 408."""
    body_min_rate: int = 256
    """Where ``body_timeout`` is not set: each so many bytes received allow one second more."""
    write_timeout: float = 300.0
    """Time a client may leave a full send buffer untouched; the connection is aborted."""
    drain_size: int = 1_048_576
    """Bytes of an unread body that are read and thrown away after an early answer."""
    drain_timeout: float = 5.0
    """Time for that, and for a peer to close a connection after its last answer."""
    shutdown_timeout: float = 30.0
    """Time that ``stop()`` gives the requests in flight."""
    pipeline_burst: int = 16
    """Pipelined requests answered before other connections get their turn."""
