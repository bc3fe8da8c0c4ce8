"""The request under the name and with the constructor that Cyclone has for it.

For programs and tests that make requests themselves; `cycloneish.httpserver` hands it on. Those that the
engine makes are plain `HTTPServerRequest` objects, and instances of this as well.
"""

from __future__ import annotations

from typing import Any

from cycloneish.httputil import HTTPHeaders, HTTPServerRequest

__all__ = ["HTTPRequest"]


class _AnyRequest(type):
    """Counts every request as an instance: the classes differ in nothing but their constructors."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, HTTPServerRequest)


class HTTPRequest(HTTPServerRequest, metaclass=_AnyRequest):
    """A request; see :class:`~cycloneish.httputil.HTTPServerRequest`.

    :param remote_ip: in place of the connection's; so for *protocol*.

    Counterpart: ``cyclone.httpserver.HTTPRequest``.
    """

    def __init__(
        self,
        method: str,
        uri: str,
        version: str = "HTTP/1.0",
        headers: HTTPHeaders | None = None,
        body: bytes | None = None,
        remote_ip: str | None = None,
        protocol: str | None = None,
        host: str | None = None,
        files: Any = None,
        connection: Any = None,
    ) -> None:
        super().__init__(method, uri, version, headers, body, host, files, connection)
        if remote_ip:
            self.remote_ip = remote_ip
        if protocol:
            self.protocol = protocol
