"""What Tornado's `HTTPServer` has as a `TCPServer` and a `Configurable`, for programs that look at it.

A base of `cycloneish.httpserver.HTTPServer`, which does the work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cycloneish.http.limits import Limits

__all__ = ["TornadoServer"]


class TornadoServer:
    """Tornado's names for what a server is made of."""

    limits: Limits
    ssl_options: Any = None
    """What the constructor was given."""

    read_chunk_size: int | None = None
    """Nothing: Twisted's transports read as much as there is."""

    @property
    def conn_params(self) -> Limits:
        """The limits of the connections."""
        return self.limits

    @property
    def max_buffer_size(self) -> int:
        """Bytes that the body of a request may have."""
        return self.limits.max_body_size

    def initialize(self, *args: Any, **kwargs: Any) -> None:
        """Not called: the constructor takes the arguments."""

    def handle_stream(self, stream: Any, address: Any) -> None:
        """Refuse: a connection comes from a Twisted port, through `buildProtocol`.

        :raises NotImplementedError: always.
        """
        raise NotImplementedError(
            "HTTPServer has no IOStream to serve: give its sockets to add_sockets(), or connect what "
            "buildProtocol() makes to a transport"
        )

    @classmethod
    def configurable_base(cls) -> type[Any]:
        """The class itself."""
        return cls

    @classmethod
    def configurable_default(cls) -> type[Any]:
        """The class itself: there is one implementation."""
        return cls

    @classmethod
    def configured_class(cls) -> type[Any]:
        """The class itself."""
        return cls

    @classmethod
    def configure(cls, impl: Any, **kwargs: Any) -> None:
        """Refuse: subclass it instead.

        :raises NotImplementedError: always.
        """
        raise NotImplementedError(f"{cls.__name__} has one implementation; make a subclass of it")
